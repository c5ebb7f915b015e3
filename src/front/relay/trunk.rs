//! A child's trunks to the engine: their beginning, on the worker threads, and their end that the relay thread has. See
//! [`crate::mux`].

use super::pump::Engine;
use super::thread::Relay;
use crate::apache::connection::Connection;
use crate::engine::handoff::{HandoffError, Link};
use crate::mux::end::{End, FULL, News, Waiting};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads of a trunk at a time: then the clients have their turn.
const READS: usize = 8;
/// While more than this waits, it is written before more is added.
const MUCH: usize = 128 * 1024;

/// The socket of a trunk.
#[derive(Debug)]
pub struct Wire {
    /// The trunk's number in the engine.
    pub number: u64,
    socket: UnixStream,
}

impl Wire {
    /// The engine is no more, or has given the trunk up.
    fn is_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Ends it for both sides.
    pub fn close(&self) {
        // It fails where that has happened already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The trunks of a child, by the engine thread that they go to.
#[derive(Debug, Default)]
pub struct Trunks(Mutex<HashMap<u32, Arc<Wire>>>);

impl Trunks {
    /// The trunk to that thread. Where there is none, one is laid over `link`, and `begin` told of it before anybody else.
    ///
    /// # Errors
    /// The system has no socketpair, or the engine does not take it.
    pub fn to(&self, thread: u32, link: &mut Link, begin: impl FnOnce(Arc<Wire>)) -> Result<Arc<Wire>, HandoffError> {
        let mut trunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One of an engine that was replaced is found here no later than the new engine answers.
        if let Some(wire) = trunks.get(&thread).filter(|wire| !wire.is_ended()) {
            return Ok(wire.clone());
        }
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let wire = Arc::new(Wire { number: link.lay(thread, theirs.as_fd())?, socket });
        begin(wire.clone());
        trunks.insert(thread, wire.clone());
        Ok(wire)
    }
}

/// A session's way through a trunk, until the relay thread goes it. One that is dropped before ends the session.
pub struct Passage {
    relay: &'static Relay,
    wire: Option<Arc<Wire>>,
    ticket: u64,
}

impl Passage {
    /// Of the session of this number.
    pub fn new(relay: &'static Relay, wire: Arc<Wire>, ticket: u64) -> Passage {
        Passage { relay, wire: Some(wire), ticket }
    }

    /// The trunk, for the relay thread.
    pub fn enter(mut self) -> Option<Arc<Wire>> {
        self.wire.take()
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.relay.close_stream(wire, self.ticket);
        }
    }
}

/// The relay thread's end of a trunk.
pub struct Carrier {
    wire: Arc<Wire>,
    /// With the key of the connection that has the stream.
    end: RefCell<End<usize>>,
    /// There may be something to read.
    pub readable: Cell<bool>,
    /// The thread waits for room in the socket.
    pub waits: Cell<bool>,
    /// Connections that wait until the trunk is not full.
    crowd: RefCell<Vec<usize>>,
}

impl Carrier {
    /// Of a trunk that has just been laid.
    pub fn new(wire: Arc<Wire>) -> Rc<Carrier> {
        let (end, crowd) = (RefCell::default(), RefCell::default());
        Rc::new(Carrier { wire, end, readable: Cell::new(true), waits: Cell::new(false), crowd })
    }

    /// Of a trunk that is no more: its streams are at their end.
    pub fn dead(wire: Arc<Wire>) -> Rc<Carrier> {
        let carrier = Carrier::new(wire);
        carrier.break_off(&mut Vec::new());
        carrier
    }

    /// This is its socket. (Numbers begin anew with each engine.)
    pub fn is_of(&self, wire: &Arc<Wire>) -> bool {
        Arc::ptr_eq(&self.wire, wire)
    }

    /// The trunk's number in the engine.
    pub fn number(&self) -> u64 {
        self.wire.number
    }

    /// The stream of this session, whose connection has this key.
    pub fn open(self: &Rc<Carrier>, session: u64, key: usize) -> Stream {
        self.end.borrow_mut().open(session, key);
        Stream { carrier: self.clone(), number: session }
    }

    /// Reads what there is; `news` are the keys of the connections for which something has come, and what.
    ///
    /// # Errors
    /// The trunk is no more: `UnexpectedEof` where the other end is closed.
    pub fn read(&self, news: &mut Vec<(usize, News)>) -> io::Result<()> {
        let mut end = self.end.borrow_mut();
        for _ in 0..READS {
            let space = end.space();
            let most = space.len();
            match (&self.wire.socket).read(space) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    end.filled(count, |key, told| news.push((*key, told)))
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
        let mut end = self.end.borrow_mut();
        if end.out.is_empty() {
            return true;
        }
        let emptied = end.out.write(|bytes| (&self.wire.socket).write(bytes)).unwrap_or_else(|_| {
            // The engine is no more. What it has sent before can still be read, and then the end.
            end.out.clear();
            self.wire.close();
            self.readable.set(true);
            true
        });
        if end.out.len() < FULL / 2 {
            again.append(&mut self.crowd.borrow_mut());
        }
        emptied
    }

    /// The other end is no more; see [`Carrier::read`] for `news`.
    pub fn break_off(&self, news: &mut Vec<(usize, News)>) {
        self.readable.set(false);
        self.wire.close();
        self.end.borrow_mut().break_off(|key, told| news.push((*key, told)));
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

/// The stream of one session, as the engine's side of a pump; gone when dropped.
pub struct Stream {
    carrier: Rc<Carrier>,
    number: u64,
}

impl Engine for Stream {
    fn has_room(&mut self) -> io::Result<bool> {
        let mut end = self.carrier.end.borrow_mut();
        if end.out.len() > MUCH {
            // What is wrong with the socket is found when all is written.
            let _ = end.out.write(|bytes| (&self.carrier.wire.socket).write(bytes));
        }
        let room = end.room(self.number)?;
        if end.out.len() >= FULL
            && let Some(key) = end.keep(self.number)
        {
            self.carrier.crowd.borrow_mut().push(*key);
        }
        Ok(room >= Connection::PIECE)
    }

    fn receive(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<usize> {
        self.carrier.end.borrow_mut().fill(self.number, Connection::PIECE, read)
    }

    fn end(&mut self) {
        self.carrier.end.borrow_mut().end(self.number);
    }

    fn rest(&mut self) {}

    fn send(&mut self, _buffer: &mut [u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>> {
        let mut end = self.carrier.end.borrow_mut();
        let count = match end.waiting(self.number) {
            Waiting::End => return Ok(Some(0)),
            Waiting::Nothing => return Ok(None),
            Waiting::Bytes(bytes) => {
                let piece = &bytes[..bytes.len().min(Connection::PIECE)];
                write(piece)?;
                piece.len()
            }
        };
        end.take(self.number, count);
        Ok(Some(count))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.carrier.end.borrow_mut().close(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pump::{Client, Pump, Turn};
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

    impl Client for Scripted {
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

    /// The relay's end, and the engine's.
    struct Laid {
        carrier: Rc<Carrier>,
        engine: End<()>,
        socket: UnixStream,
    }

    impl Laid {
        fn new() -> Laid {
            let (ours, socket) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            let carrier = Carrier::new(Arc::new(Wire { number: 1, socket: ours }));
            Laid { carrier, engine: End::default(), socket }
        }

        /// Moves what waits, both ways; returns which connections have something.
        fn exchange(&mut self) -> Vec<usize> {
            let (mut news, mut again) = (Vec::new(), Vec::new());
            self.carrier.flush(&mut again);
            while let Ok(count) = self.socket.read(self.engine.space()) {
                self.engine.filled(count, |(), _| ()).unwrap();
                self.carrier.flush(&mut again);
            }
            while !self.engine.out.write(|bytes| (&self.socket).write(bytes)).unwrap() {
                self.carrier.read(&mut news).unwrap();
            }
            self.carrier.read(&mut news).unwrap();
            news.into_iter().map(|(key, _)| key).chain(again).collect()
        }

        fn say(&mut self, session: u64, bytes: &[u8]) -> usize {
            self.engine.write(session, &[IoSlice::new(bytes)]).unwrap_or(0)
        }

        fn hear(&mut self, session: u64) -> Vec<u8> {
            let Waiting::Bytes(bytes) = self.engine.waiting(session) else { return Vec::new() };
            let bytes = bytes.to_vec();
            self.engine.take(session, bytes.len());
            bytes
        }
    }

    #[test]
    fn a_pump_moves_both_ways() {
        let mut laid = Laid::new();
        let (client, mut pump) = (Scripted::default(), Pump::default());
        let mut stream = laid.carrier.open(5, 50);
        laid.engine.open(5, ());
        let mut turn = |stream: &mut Stream| while pump.turn(stream, &client, &mut []) == Turn::Again {};
        let text: Vec<u8> = (0..1_000_000usize).map(|n| (n % 251) as u8).collect();
        client.to_send.borrow_mut().extend(&text);
        let (mut heard, mut said) = (Vec::new(), 0);
        while heard.len() < text.len() || client.got.borrow().len() < text.len() {
            said += laid.say(5, &text[said..]);
            turn(&mut stream);
            assert!(laid.carrier.end.borrow().out.len() <= WINDOW as usize + 1000);
            assert!(laid.exchange().iter().all(|key| *key == 50));
            heard.extend(laid.hear(5));
        }
        assert_eq!((&heard, &*client.got.borrow()), (&text, &text));
        assert_eq!((pump.received, pump.sent), (text.len() as u64, text.len() as u64));

        // What the engine says last comes before the end.
        laid.say(5, b"bye");
        laid.engine.close(5);
        assert!(laid.exchange().contains(&50));
        assert_eq!(pump.turn(&mut stream, &client, &mut []), Turn::Ended);
        assert!(client.got.borrow().ends_with(b"bye"));
        drop(stream);
        laid.exchange();
        assert!(laid.carrier.end.borrow().is_empty() && laid.engine.is_empty());
    }

    #[test]
    fn a_client_that_does_not_take_holds_a_window() {
        let mut laid = Laid::new();
        let (client, mut pump) = (Scripted::default(), Pump::default());
        client.deaf.set(true);
        let mut stream = laid.carrier.open(5, 50);
        laid.engine.open(5, ());
        let text = vec![7; 4 * WINDOW as usize];
        let mut said = 0;
        for _ in 0..10 {
            said += laid.say(5, &text[said..]);
            laid.exchange();
            let Turn::Wait(waiting) = pump.turn(&mut stream, &client, &mut []) else { panic!() };
            assert!(waiting.client_write && waiting.client_read);
        }
        assert_eq!(said, WINDOW as usize);
        client.deaf.set(false);
        while client.got.borrow().len() < text.len() {
            pump.turn(&mut stream, &client, &mut []);
            laid.exchange();
            said += laid.say(5, &text[said..]);
            laid.exchange();
        }
    }

    #[test]
    fn an_engine_that_is_gone_ends_its_sessions() {
        let Laid { carrier, socket, .. } = Laid::new();
        let (client, mut pump) = (Scripted::default(), Pump::default());
        let mut stream = carrier.open(5, 50);
        drop(socket);
        client.to_send.borrow_mut().push(1);
        assert!(matches!(pump.turn(&mut stream, &client, &mut []), Turn::Wait(_)));
        carrier.flush(&mut Vec::new());
        let mut news = Vec::new();
        assert_eq!(carrier.read(&mut news).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        carrier.break_off(&mut news);
        assert_eq!(news, [(50, News::Gone)]);
        assert_eq!(pump.turn(&mut stream, &client, &mut []), Turn::Ended);
        assert!(carrier.wire.is_ended());
        let mut late = Carrier::dead(carrier.wire.clone()).open(6, 60);
        assert_eq!(Pump::default().turn(&mut late, &client, &mut []), Turn::Ended);
    }
}
