//! A child's muxes to the engine: their beginning, on the worker threads, and their end that the relay thread has. See
//! [`crate::mux`].

use super::pump::EngineIo;
use super::thread::Relay;
use crate::apache::connection::Connection;
use crate::engine::handoff::{HandoffError, Link};
use crate::mux::endpoint::{Endpoint, MAX_BUFFERED, Received, StreamEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads of a mux at a time: then the clients have their turn.
const READS: usize = 8;
/// While more than this waits, it is written before more is added.
const MUCH: usize = 128 * 1024;

#[derive(Debug)]
pub struct MuxSocket {
    pub number: u64,
    socket: UnixStream,
}

impl MuxSocket {
    /// The engine is no more, or has given the mux up.
    fn is_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    pub fn close(&self) {
        // It fails where that has happened already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for MuxSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The muxes of a child, by the engine thread that they go to.
#[derive(Debug, Default)]
pub struct Muxes(Mutex<HashMap<u32, Arc<MuxSocket>>>);

impl Muxes {
    /// The mux to that thread. Where there is none, one is opened over `link`, and `begin` told of it before anybody else.
    ///
    /// # Errors
    /// The system has no socketpair, or the engine does not take it.
    pub fn to(
        &self,
        thread: u32,
        link: &mut Link,
        begin: impl FnOnce(Arc<MuxSocket>),
    ) -> Result<Arc<MuxSocket>, HandoffError> {
        let mut muxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One of an engine that was replaced is found here no later than the new engine answers.
        if let Some(wire) = muxes.get(&thread).filter(|wire| !wire.is_ended()) {
            return Ok(wire.clone());
        }
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let wire = Arc::new(MuxSocket { number: link.open_mux(thread, theirs.as_fd())?, socket });
        begin(wire.clone());
        muxes.insert(thread, wire.clone());
        Ok(wire)
    }
}

/// A session's way through a mux, until the relay thread goes it. One that is dropped before ends the session.
pub struct PendingStream {
    relay: &'static Relay,
    wire: Option<Arc<MuxSocket>>,
    id: u64,
}

impl PendingStream {
    pub fn new(relay: &'static Relay, wire: Arc<MuxSocket>, id: u64) -> PendingStream {
        PendingStream { relay, wire: Some(wire), id }
    }

    /// The mux, for the relay thread.
    pub fn enter(mut self) -> Option<Arc<MuxSocket>> {
        self.wire.take()
    }
}

impl Drop for PendingStream {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.relay.close_stream(wire, self.id);
        }
    }
}

pub struct MuxEnd {
    wire: Arc<MuxSocket>,
    /// With the key of the connection that has the stream.
    endpoint: RefCell<Endpoint<usize>>,
    pub readable: Cell<bool>,
    pub waits: Cell<bool>,
    /// Connections that wait until the mux is not full.
    blocked_writers: RefCell<Vec<usize>>,
}

impl MuxEnd {
    pub fn new(wire: Arc<MuxSocket>) -> Rc<MuxEnd> {
        let (endpoint, blocked_writers) = (RefCell::default(), RefCell::default());
        Rc::new(MuxEnd { wire, endpoint, readable: Cell::new(true), waits: Cell::new(false), blocked_writers })
    }

    /// Of a mux that is no more: its streams are at their end.
    pub fn dead(wire: Arc<MuxSocket>) -> Rc<MuxEnd> {
        let mux = MuxEnd::new(wire);
        mux.disconnect(&mut Vec::new());
        mux
    }

    /// This is its socket. (Numbers begin anew with each engine.)
    pub fn is_of(&self, wire: &Arc<MuxSocket>) -> bool {
        Arc::ptr_eq(&self.wire, wire)
    }

    pub fn number(&self) -> u64 {
        self.wire.number
    }

    pub fn open(self: &Rc<MuxEnd>, session: u64, key: usize) -> RelayedStream {
        self.endpoint.borrow_mut().open(session, key);
        RelayedStream { mux: self.clone(), number: session }
    }

    /// Reads what there is; `news` are the keys of the connections for which something has come, and what.
    ///
    /// # Errors
    /// The mux is no more: `UnexpectedEof` where the other end is closed.
    pub fn read(&self, news: &mut Vec<(usize, StreamEvent)>) -> io::Result<()> {
        let mut endpoint = self.endpoint.borrow_mut();
        for _ in 0..READS {
            let space = endpoint.space();
            let most = space.len();
            match (&self.wire.socket).read(space) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    endpoint
                        .filled(count, |key, told| news.push((*key, told)))
                        .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
                    if count < most {
                        // What comes after this has an edge of its own.
                        self.readable.set(false);
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.readable.set(false);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes what waits, as much as the socket takes; true when that was all. `again` are the keys of connections that had to
    /// wait for it.
    pub fn flush(&self, again: &mut Vec<usize>) -> bool {
        let mut endpoint = self.endpoint.borrow_mut();
        if endpoint.send_buffer.is_empty() {
            return true;
        }
        let emptied = endpoint.send_buffer.write(|bytes| (&self.wire.socket).write(bytes)).unwrap_or_else(|_| {
            // The engine is no more. What it has sent before can still be read, and then the end.
            endpoint.send_buffer.clear();
            self.wire.close();
            self.readable.set(true);
            true
        });
        if endpoint.send_buffer.len() < MAX_BUFFERED / 2 {
            again.append(&mut self.blocked_writers.borrow_mut());
        }
        emptied
    }

    /// The other end is no more; see [`MuxEnd::read`] for `news`.
    pub fn disconnect(&self, news: &mut Vec<(usize, StreamEvent)>) {
        self.readable.set(false);
        self.wire.close();
        self.endpoint.borrow_mut().disconnect(|key, told| news.push((*key, told)));
    }
}

impl AsFd for MuxEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

/// The stream of one session, as the engine's side of a pump; gone when dropped.
pub struct RelayedStream {
    mux: Rc<MuxEnd>,
    number: u64,
}

impl EngineIo for RelayedStream {
    fn has_room(&mut self) -> io::Result<bool> {
        let mut endpoint = self.mux.endpoint.borrow_mut();
        if endpoint.send_buffer.len() > MUCH {
            // What is wrong with the socket is found when all is written.
            let _ = endpoint.send_buffer.write(|bytes| (&self.mux.wire.socket).write(bytes));
        }
        let room = endpoint.room(self.number)?;
        if endpoint.send_buffer.len() >= MAX_BUFFERED
            && let Some(key) = endpoint.keep(self.number)
        {
            self.mux.blocked_writers.borrow_mut().push(*key);
        }
        Ok(room >= Connection::PIECE)
    }

    fn receive(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<usize> {
        self.mux.endpoint.borrow_mut().fill(self.number, Connection::PIECE, read)
    }

    fn end(&mut self) {
        self.mux.endpoint.borrow_mut().end_stream(self.number);
    }

    fn rest(&mut self) {}

    fn send(&mut self, _buffer: &mut [u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>> {
        let mut endpoint = self.mux.endpoint.borrow_mut();
        let count = match endpoint.received(self.number) {
            Received::End => return Ok(Some(0)),
            Received::Nothing => return Ok(None),
            Received::Bytes(bytes) => {
                let piece = &bytes[..bytes.len().min(Connection::PIECE)];
                write(piece)?;
                piece.len()
            }
        };
        endpoint.take(self.number, count);
        Ok(Some(count))
    }
}

impl Drop for RelayedStream {
    fn drop(&mut self) {
        self.mux.endpoint.borrow_mut().close(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pump::{ClientIo, Pump, TurnEnd};
    use super::*;
    use crate::mux::flow::WINDOW;
    use std::io::IoSlice;

    /// A client that sends and takes as much as is wished, and keeps what it got.
    #[derive(Default)]
    struct Scripted {
        to_send: RefCell<Vec<u8>>,
        deaf: Cell<bool>,
        got: RefCell<Vec<u8>>,
    }

    impl ClientIo for Scripted {
        fn read(&self, out: &mut Vec<u8>) -> io::Result<usize> {
            let mut to_send = self.to_send.borrow_mut();
            let count = to_send.len().min(1000);
            out.extend(to_send.drain(..count));
            if count > 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
        }

        fn write(&self, bytes: &[u8]) -> io::Result<()> {
            assert!(bytes.len() <= Connection::PIECE);
            self.got.borrow_mut().extend_from_slice(bytes);
            Ok(())
        }

        fn flush(&self) -> io::Result<bool> {
            Ok(!self.deaf.get())
        }
    }

    struct Opened {
        mux: Rc<MuxEnd>,
        engine: Endpoint<()>,
        socket: UnixStream,
    }

    impl Opened {
        fn new() -> Opened {
            let (ours, socket) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            let mux = MuxEnd::new(Arc::new(MuxSocket { number: 1, socket: ours }));
            Opened { mux, engine: Endpoint::default(), socket }
        }

        /// Moves what waits, both ways; returns which connections have something.
        fn exchange(&mut self) -> Vec<usize> {
            let (mut news, mut again) = (Vec::new(), Vec::new());
            self.mux.flush(&mut again);
            while let Ok(count) = self.socket.read(self.engine.space()) {
                self.engine.filled(count, |(), _| ()).unwrap();
                self.mux.flush(&mut again);
            }
            while !self.engine.send_buffer.write(|bytes| (&self.socket).write(bytes)).unwrap() {
                self.mux.read(&mut news).unwrap();
            }
            self.mux.read(&mut news).unwrap();
            news.into_iter().map(|(key, _)| key).chain(again).collect()
        }

        fn say(&mut self, session: u64, bytes: &[u8]) -> usize {
            self.engine.write(session, &[IoSlice::new(bytes)]).unwrap_or(0)
        }

        fn hear(&mut self, session: u64) -> Vec<u8> {
            let Received::Bytes(bytes) = self.engine.received(session) else { return Vec::new() };
            let bytes = bytes.to_vec();
            self.engine.take(session, bytes.len());
            bytes
        }
    }

    #[test]
    fn a_pump_moves_both_ways() {
        let mut opened = Opened::new();
        let (client, mut pump) = (Scripted::default(), Pump::default());
        let mut stream = opened.mux.open(5, 50);
        opened.engine.open(5, ());
        let mut turn = |stream: &mut RelayedStream| while pump.turn(stream, &client, &mut []) == TurnEnd::Again {};
        let text: Vec<u8> = (0..1_000_000usize).map(|n| (n % 251) as u8).collect();
        client.to_send.borrow_mut().extend(&text);
        let (mut heard, mut said) = (Vec::new(), 0);
        while heard.len() < text.len() || client.got.borrow().len() < text.len() {
            said += opened.say(5, &text[said..]);
            turn(&mut stream);
            assert!(opened.mux.endpoint.borrow().send_buffer.len() <= WINDOW as usize + 1000);
            assert!(opened.exchange().iter().all(|key| *key == 50));
            heard.extend(opened.hear(5));
        }
        assert_eq!((&heard, &*client.got.borrow()), (&text, &text));
        assert_eq!((pump.received, pump.sent), (text.len() as u64, text.len() as u64));

        // What the engine says last comes before the end.
        opened.say(5, b"bye");
        opened.engine.close(5);
        assert!(opened.exchange().contains(&50));
        assert_eq!(pump.turn(&mut stream, &client, &mut []), TurnEnd::Ended);
        assert!(client.got.borrow().ends_with(b"bye"));
        drop(stream);
        opened.exchange();
        assert!(opened.mux.endpoint.borrow().is_empty() && opened.engine.is_empty());
    }

    #[test]
    fn a_client_that_does_not_take_holds_a_window() {
        let mut opened = Opened::new();
        let (client, mut pump) = (Scripted::default(), Pump::default());
        client.deaf.set(true);
        let mut stream = opened.mux.open(5, 50);
        opened.engine.open(5, ());
        let text = vec![7; 4 * WINDOW as usize];
        let mut said = 0;
        for _ in 0..10 {
            said += opened.say(5, &text[said..]);
            opened.exchange();
            let TurnEnd::Wait(waiting) = pump.turn(&mut stream, &client, &mut []) else { panic!() };
            assert!(waiting.client_write && waiting.client_read);
        }
        assert_eq!(said, WINDOW as usize);
        client.deaf.set(false);
        while client.got.borrow().len() < text.len() {
            pump.turn(&mut stream, &client, &mut []);
            opened.exchange();
            said += opened.say(5, &text[said..]);
            opened.exchange();
        }
    }

    #[test]
    fn an_engine_that_is_gone_ends_its_sessions() {
        let Opened { mux, socket, .. } = Opened::new();
        let (client, mut pump) = (Scripted::default(), Pump::default());
        let mut stream = mux.open(5, 50);
        drop(socket);
        client.to_send.borrow_mut().push(1);
        assert!(matches!(pump.turn(&mut stream, &client, &mut []), TurnEnd::Wait(_)));
        mux.flush(&mut Vec::new());
        let mut news = Vec::new();
        assert_eq!(mux.read(&mut news).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        mux.disconnect(&mut news);
        assert_eq!(news, [(50, StreamEvent::Reset)]);
        assert_eq!(pump.turn(&mut stream, &client, &mut []), TurnEnd::Ended);
        assert!(mux.wire.is_ended());
        let mut late = MuxEnd::dead(mux.wire.clone()).open(6, 60);
        assert_eq!(Pump::default().turn(&mut late, &client, &mut []), TurnEnd::Ended);
    }
}
