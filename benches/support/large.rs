//! Clients that send large compressed messages, one after the other, beside another load: in the same thread, and in small
//! pieces, so that they keep nobody waiting but at the server.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use super::Result;
use super::client::{self, Target};
use super::frame::json;
use super::page::Beside;
use super::testkit::frame::Frame;
use super::tls::Socket;

/// A server that is silent for so long has lost a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are read or written in one turn: some microseconds.
const PIECE: usize = 16 * 1024;

/// What becomes of the messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// Each client gets its own back, compressed, and sends the next.
    Echo,
    /// Nothing comes back.
    None,
    /// All clients get those of the first, compressed, which sends the next when all have the last.
    Publish,
}

/// Clients of one server.
pub(crate) struct Large {
    epoll: OwnedFd,
    clients: Vec<Client>,
    exchange: Exchange,
    request: Vec<u8>,
    /// The frame that comes back.
    answer: usize,
    is_ending: bool,
    last: Instant,
    /// Messages that were sent, and came back where they do.
    pub(crate) messages: u64,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Client {
    socket: Socket,
    unsent: usize,
    missing: usize,
    waits_to_write: bool,
}

impl Large {
    /// `count` clients of messages of `length` bytes. One message has gone its way, and every byte of it was compared.
    pub(crate) fn open(target: Target, exchange: Exchange, count: usize, length: usize) -> Result<Self> {
        let payload = json(0, length).into_bytes();
        let request = masked(&payload)?;
        let mut sockets = client::open(Target { compressed: true, ..target }, count)?;
        sockets[0].write_all(&request)?;
        let answering = match exchange {
            Exchange::Echo => 1,
            Exchange::None => 0,
            Exchange::Publish => count,
        };
        let mut answer = 0;
        for socket in &mut sockets[..answering] {
            answer = frame(socket, &payload)?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::with_capacity(count);
        for (index, socket) in sockets.into_iter().enumerate() {
            socket.tcp().set_nonblocking(true)?;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            clients.push(Client { socket, unsent: 0, missing: 0, waits_to_write: false });
        }
        let (buffer, events) = (vec![0; PIECE], Vec::with_capacity(64));
        let last = Instant::now();
        Ok(Self { epoll, clients, exchange, request, answer, is_ending: true, last, messages: 0, buffer, events })
    }

    /// From now on there are messages under way.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.is_ending = false;
        self.last = Instant::now();
        let senders = if self.exchange == Exchange::Publish { 1 } else { self.clients.len() };
        (0..senders).try_for_each(|index| self.send(index))
    }

    /// Waits for those that are under way.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.is_ending = true;
        while self.clients.iter().any(|client| client.unsent + client.missing > 0) {
            self.turn()?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize) -> Result<()> {
        self.clients[index].unsent = self.request.len();
        match self.exchange {
            Exchange::Echo => self.clients[index].missing = self.answer,
            Exchange::None => {}
            Exchange::Publish => self.clients.iter_mut().for_each(|client| client.missing = self.answer),
        }
        self.write(index)
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        if client.unsent > 0 {
            let rest = &self.request[self.request.len() - client.unsent..];
            match client.socket.write(&rest[..rest.len().min(PIECE)]) {
                Ok(count) => client.unsent -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let waits = client.unsent > 0;
        if waits != client.waits_to_write {
            client.waits_to_write = waits;
            let out = if waits { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &client.socket, data, epoll::EventFlags::IN | out)?;
        }
        if !waits && self.exchange == Exchange::None {
            self.go_on(index)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let count = match client.socket.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed the connection of a large message".into()),
            Ok(count) if count <= client.missing => count,
            Ok(_) => return Err("more came back than a large message".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        client.missing -= count;
        let is_complete = match self.exchange {
            Exchange::Publish => self.clients.iter().all(|client| client.missing == 0),
            Exchange::Echo | Exchange::None => client.missing == 0,
        };
        if is_complete { self.go_on(if self.exchange == Exchange::Publish { 0 } else { index }) } else { Ok(()) }
    }

    /// A message has gone its way.
    fn go_on(&mut self, index: usize) -> Result<()> {
        self.messages += 1;
        if self.is_ending { Ok(()) } else { self.send(index) }
    }
}

impl AsFd for Large {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Beside for Large {
    fn due(&self) -> Option<Instant> {
        None
    }

    /// One client's piece.
    fn turn(&mut self) -> Result<bool> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let found = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let waits = self.clients.iter().any(|client| client.unsent + client.missing > 0);
        if found > 0 || !waits {
            self.last = Instant::now();
        } else if self.last.elapsed() > PATIENCE {
            return Err(format!("a large message has waited {} s", PATIENCE.as_secs()).into());
        }
        // The others come next time: the kernel brings them in turn.
        if let Some(event) = events.first() {
            let (index, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(epoll::EventFlags::OUT) {
                self.write(index)?;
            }
            if flags.intersects(!epoll::EventFlags::OUT) {
                self.read(index)?;
            }
        }
        self.events = events;
        Ok(found > 1)
    }
}

/// A compressed message, as a client sends it.
fn masked(payload: &[u8]) -> Result<Vec<u8>> {
    let mut deflated = vec![0; payload.len() + 100];
    let mut deflate = Deflate::new(6, false, 15);
    deflate.compress(payload, &mut deflated, DeflateFlush::SyncFlush).map_err(|e| e.as_str())?;
    // The last four bytes are left out (RFC 7692 section 7.2.1).
    deflated.truncate(deflate.total_out() as usize - 4);
    Ok(Frame::text(deflated).reserved(4).masked())
}

/// Reads a frame that holds this, compressed; returns its length.
fn frame(socket: &mut Socket, payload: &[u8]) -> Result<usize> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Err("the server closed the connection of a large message".into());
        }
        received.extend_from_slice(&buffer[..count]);
        let Some((frame, length)) = Frame::from_server(&received) else { continue };
        let mut deflated = frame.payload;
        deflated.extend([0, 0, 0xff, 0xff]);
        let mut inflated = vec![0; payload.len() + 1];
        let mut inflate = Inflate::new(false, 15);
        inflate.decompress(&deflated, &mut inflated, InflateFlush::SyncFlush).map_err(|e| e.as_str())?;
        let is_right = inflated[..inflate.total_out() as usize] == *payload && received.len() == length;
        return if is_right { Ok(length) } else { Err("another message came back".into()) };
    }
}
