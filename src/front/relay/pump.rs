//! Moves bytes between a client's connection and the engine, in both directions, without ever waiting.
//!
//! Back-pressure is the absence of reading: nothing is read from one side while the other has not taken what was read
//! before. At most one piece ([`Connection::PIECE`]) a direction is held here.

use crate::apache::connection::Connection;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// Pieces that one turn moves in each direction, at most: then the neighbours have theirs.
const TURN: usize = 16;

pub trait ClientIo {
    /// As [`Connection::read`].
    fn read(&self, out: &mut Vec<u8>) -> io::Result<usize>;
    /// As [`Connection::write`].
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
    /// As [`Connection::flush`].
    fn flush(&self) -> io::Result<bool>;
}

impl ClientIo for Connection {
    fn read(&self, out: &mut Vec<u8>) -> io::Result<usize> {
        Connection::read(self, out)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        Connection::write(self, bytes)
    }

    fn flush(&self) -> io::Result<bool> {
        Connection::flush(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// Both sides have to do something before anything can move: the descriptors to wait for.
    Wait(Interest),
    Again,
    /// The engine has ended the session, and the client's connection has taken the last byte.
    Ended,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    pub client_read: bool,
    pub client_write: bool,
    pub engine_read: bool,
    pub engine_write: bool,
}

pub trait EngineIo {
    /// Sends on what it holds of the client's; true when it takes a piece more.
    ///
    /// # Errors
    /// The engine reads no more; what it has yet to say can be had.
    fn has_room(&mut self) -> io::Result<bool>;

    /// Takes what `read` adds to a buffer, at most a piece; returns how much that was.
    ///
    /// # Errors
    /// What `read` says.
    fn receive(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<usize>;

    fn end(&mut self);

    /// The client sends nothing for now: memory for it is given back.
    fn rest(&mut self);

    /// Has `write` pass on what the engine has sent, at most a piece; returns how much that was: 0 at the end, `None` when
    /// there is nothing now. `buffer` is for the time of the call.
    ///
    /// # Errors
    /// What `write` says.
    fn send(&mut self, buffer: &mut [u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>>;
}

#[derive(Debug)]
pub struct Pair {
    socket: UnixStream,
    /// What the engine has not taken, from `sent` on.
    up: Vec<u8>,
    sent: usize,
}

impl Pair {
    pub fn new(socket: UnixStream) -> Pair {
        Pair { socket, up: Vec::new(), sent: 0 }
    }

    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

impl EngineIo for Pair {
    fn has_room(&mut self) -> io::Result<bool> {
        while self.sent < self.up.len() {
            match self.socket.write(&self.up[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.rest();
                    return Err(e);
                }
            }
        }
        self.up.clear();
        self.sent = 0;
        Ok(true)
    }

    fn receive(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<usize> {
        read(&mut self.up)
    }

    fn end(&mut self) {
        // Fails when the engine is gone, and that is seen from the other direction.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn rest(&mut self) {
        self.up = Vec::new();
        self.sent = 0;
    }

    fn send(&mut self, buffer: &mut [u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>> {
        let piece = buffer.len().min(Connection::PIECE);
        loop {
            match self.socket.read(&mut buffer[..piece]) {
                Ok(0) => return Ok(Some(0)),
                Ok(count) => return write(&buffer[..count]).map(|()| Some(count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The engine is gone: as if it had said that nothing follows.
                Err(_) => return Ok(Some(0)),
            }
        }
    }
}

#[derive(Debug)]
pub struct Pump {
    client_open: bool,
    /// The client has closed its side: the end of the stream is there to be read.
    ///
    /// httpd's network filter answers a non-blocking read with "nothing there" when it meets that end, and says so only at
    /// the next. Who polls by level asks again anyway, who polls by edge says it here.
    pub client_hung_up: bool,
    pub received: u64,
    pub sent: u64,
}

impl Default for Pump {
    fn default() -> Self {
        Pump { client_open: true, client_hung_up: false, received: 0, sent: 0 }
    }
}

impl Pump {
    /// Moves what can be moved. `buffer` is for the time of the call.
    pub fn turn(&mut self, engine: &mut impl EngineIo, client: &impl ClientIo, buffer: &mut [u8]) -> TurnEnd {
        let mut waiting = Interest::default();
        let mut more = false;
        match self.down(engine, client, buffer, &mut waiting) {
            Ok(Sent::More) => more = true,
            Ok(Sent::Blocked) => {}
            Ok(Sent::Ended) => return TurnEnd::Ended,
            Err(_) => return TurnEnd::Lost,
        }
        match self.up(engine, client, &mut waiting) {
            Ok(again) => more |= again,
            Err(_) => return TurnEnd::Lost,
        }
        if more { TurnEnd::Again } else { TurnEnd::Wait(waiting) }
    }

    fn down(
        &mut self,
        engine: &mut impl EngineIo,
        client: &impl ClientIo,
        buffer: &mut [u8],
        waiting: &mut Interest,
    ) -> io::Result<Sent> {
        for _ in 0..TURN {
            if !client.flush()? {
                waiting.client_write = true;
                return Ok(Sent::Blocked);
            }
            match engine.send(buffer, |bytes| client.write(bytes))? {
                // What the client still sends is of no use to anybody.
                Some(0) => return Ok(Sent::Ended),
                Some(count) => self.sent += count as u64,
                None => {
                    waiting.engine_read = true;
                    return Ok(Sent::Blocked);
                }
            }
        }
        Ok(Sent::More)
    }

    /// From the client to the engine; true when there is more.
    fn up(&mut self, engine: &mut impl EngineIo, client: &impl ClientIo, waiting: &mut Interest) -> io::Result<bool> {
        let mut ask_again = self.client_hung_up;
        for _ in 0..TURN {
            match engine.has_room() {
                Ok(true) => {}
                Ok(false) => {
                    waiting.engine_write = true;
                    return Ok(false);
                }
                Err(_) => self.client_open = false,
            }
            if !self.client_open {
                engine.rest();
                return Ok(false);
            }
            match engine.receive(|buffer| client.read(buffer)) {
                Ok(0) => {
                    self.client_open = false;
                    engine.end();
                }
                Ok(count) => self.received += count as u64,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if std::mem::take(&mut ask_again) {
                        continue;
                    }
                    waiting.client_read = true;
                    // Nothing under way: an idle relay keeps no buffer.
                    engine.rest();
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

enum Sent {
    More,
    Blocked,
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    /// A client of whom `room` bytes are taken and `ready` bytes given at a time.
    #[derive(Default)]
    struct Scripted(RefCell<Script>);

    #[derive(Default)]
    struct Script {
        to_send: VecDeque<u8>,
        ended: bool,
        chunk: usize,
        taken: Vec<u8>,
        pending: Vec<u8>,
        room: usize,
        broken: bool,
    }

    impl ClientIo for Scripted {
        fn read(&self, out: &mut Vec<u8>) -> io::Result<usize> {
            let script = &mut *self.0.borrow_mut();
            let count = script.chunk.min(script.to_send.len());
            match count {
                0 if script.ended => Ok(0),
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => {
                    out.extend(script.to_send.drain(..count));
                    Ok(count)
                }
            }
        }

        fn write(&self, bytes: &[u8]) -> io::Result<()> {
            let script = &mut *self.0.borrow_mut();
            assert!(script.pending.is_empty(), "written before the last piece was gone");
            script.pending.extend_from_slice(bytes);
            Ok(())
        }

        fn flush(&self) -> io::Result<bool> {
            let script = &mut *self.0.borrow_mut();
            if script.broken {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let count = script.room.min(script.pending.len());
            script.room -= count;
            script.taken.extend(script.pending.drain(..count));
            Ok(script.pending.is_empty())
        }
    }

    struct Tested(Pump, Pair);

    impl Tested {
        fn turn(&mut self, client: &impl ClientIo, buffer: &mut [u8]) -> TurnEnd {
            self.0.turn(&mut self.1, client, buffer)
        }
    }

    fn pump() -> (Tested, UnixStream, Scripted) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let client = Scripted::default();
        client.0.borrow_mut().chunk = 1000;
        (Tested(Pump::default(), Pair::new(ours)), theirs, client)
    }

    fn idle() -> TurnEnd {
        TurnEnd::Wait(Interest { client_read: true, engine_read: true, ..Interest::default() })
    }

    #[test]
    fn an_idle_pump_waits_for_both_to_speak() {
        let (mut pump, _engine, client) = pump();
        assert_eq!(pump.turn(&client, &mut [0; 100]), idle());
        assert_eq!(pump.1.up.capacity(), 0);
    }

    #[test]
    fn a_slow_client_stops_the_engine_and_not_itself() {
        let (mut pump, mut engine, client) = pump();
        engine.write_all(&[1; 50_000]).unwrap();
        client.0.borrow_mut().to_send.extend([2; 500]);
        let mut buffer = [0; 64 * 1024];
        let TurnEnd::Wait(waiting) = pump.turn(&client, &mut buffer) else { panic!() };
        assert!(waiting.client_write && !waiting.engine_read && waiting.client_read);
        assert!(client.0.borrow().pending.len() <= Connection::PIECE);
        let mut up = [0; 1000];
        assert_eq!(engine.read(&mut up).unwrap(), 500);
        client.0.borrow_mut().room = usize::MAX;
        assert_eq!(pump.turn(&client, &mut buffer), idle());
        assert_eq!(client.0.borrow().taken, [1; 50_000]);
        assert_eq!((pump.0.received, pump.0.sent), (500, 50_000));
    }

    #[test]
    fn an_engine_that_does_not_read_stops_the_client() {
        let (mut pump, _engine, client) = pump();
        client.0.borrow_mut().to_send.extend(std::iter::repeat_n(3, 4 << 20));
        let mut turns = 0;
        let waiting = loop {
            match pump.turn(&client, &mut [0; 100]) {
                TurnEnd::Again => turns += 1,
                TurnEnd::Wait(waiting) => break waiting,
                other => panic!("{other:?}"),
            }
            assert!(turns < 10_000);
        };
        assert!(waiting.engine_write && !waiting.client_read && waiting.engine_read);
        assert!(client.0.borrow().to_send.len() > 2 << 20);
    }

    #[test]
    fn the_last_bytes_go_before_the_end() {
        let (mut pump, mut engine, client) = pump();
        engine.write_all(b"bye").unwrap();
        drop(engine);
        let mut buffer = [0; 100];
        let TurnEnd::Wait(waiting) = pump.turn(&client, &mut buffer) else { panic!() };
        assert!(waiting.client_write);
        client.0.borrow_mut().room = 100;
        assert_eq!(pump.turn(&client, &mut buffer), TurnEnd::Ended);
        assert_eq!(client.0.borrow().taken, b"bye");
    }

    #[test]
    fn the_clients_end_is_told_and_a_broken_client_is_lost() {
        let (mut pump, mut engine, client) = pump();
        client.0.borrow_mut().ended = true;
        let TurnEnd::Wait(waiting) = pump.turn(&client, &mut [0; 100]) else { panic!() };
        assert!(waiting.engine_read && !waiting.client_read);
        assert_eq!(engine.read(&mut [0; 10]).unwrap(), 0);
        client.0.borrow_mut().broken = true;
        assert_eq!(pump.turn(&client, &mut [0; 100]), TurnEnd::Lost);
    }

    #[test]
    fn the_end_is_looked_for_twice_when_it_is_known_to_be_there() {
        /// The end comes as "nothing there" first.
        struct Ending(std::cell::Cell<u32>);

        impl ClientIo for Ending {
            fn read(&self, _out: &mut Vec<u8>) -> io::Result<usize> {
                self.0.set(self.0.get() + 1);
                if self.0.get() == 1 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) }
            }

            fn write(&self, _bytes: &[u8]) -> io::Result<()> {
                Ok(())
            }

            fn flush(&self) -> io::Result<bool> {
                Ok(true)
            }
        }

        let (mut pump, mut engine, _) = pump();
        pump.0.client_hung_up = true;
        let client = Ending(std::cell::Cell::new(0));
        let TurnEnd::Wait(waiting) = pump.turn(&client, &mut [0; 100]) else { panic!() };
        assert!(waiting.engine_read && !waiting.client_read);
        assert_eq!(engine.read(&mut [0; 10]).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn every_byte_arrives_in_order(
            up in 0usize..200_000, down in 0usize..200_000, chunk in 1usize..9000, room in 100usize..50_000, buffer in 1usize..70_000,
        ) {
            let (mut pump, mut engine, client) = pump();
            let up: Vec<u8> = (0..up).map(|n| (n % 251) as u8).collect();
            let down: Vec<u8> = (0..down).map(|n| (n % 241) as u8).collect();
            client.0.borrow_mut().chunk = chunk;
            client.0.borrow_mut().to_send.extend(&up);
            let (mut arrived, mut written, mut buffer) = (Vec::new(), 0, vec![0; buffer]);
            let mut piece = [0; 10_000];
            while arrived.len() < up.len() || client.0.borrow().taken.len() < down.len() {
                if let Ok(count) = engine.write(&down[written..]) {
                    written += count;
                }
                if let Ok(count) = engine.read(&mut piece) {
                    arrived.extend_from_slice(&piece[..count]);
                }
                client.0.borrow_mut().room = room;
                prop_assert!(matches!(pump.turn(&client, &mut buffer), TurnEnd::Wait(_) | TurnEnd::Again));
            }
            prop_assert_eq!(arrived, up);
            prop_assert_eq!(&client.0.borrow().taken, &down);
        }
    }
}
