//! The load generator: one thread, one epoll, prepared frames, and no more parsing than counting bytes.
//!
//! A connection writes a batch of messages, waits until as many bytes came back as their echoes have, and writes the
//! next batch. So a batch of 1 is a message at a time, a batch of 16 is 16 under way.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::Result;
use super::frame::Batch;
use super::tls::Socket;

/// A server that is silent for so long has lost a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every so many batches of a connection the echo is compared byte for byte, also under load.
const COMPARE_EVERY: u64 = 64;

/// Connections to one server, all sending the same batch.
pub(crate) struct Load {
    epoll: OwnedFd,
    /// How long one look at epoll lasts.
    look: Timespec,
    connections: Vec<Connection>,
    batch: Batch,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Connection {
    socket: Socket,
    /// Bytes of the batch still to be written.
    unsent: usize,
    /// Bytes of the echo still to be read.
    missing: usize,
    /// Batches so far.
    batches: u64,
    /// Whether epoll tells when the socket takes more.
    waits_to_write: bool,
}

/// What a stretch of load did.
pub(crate) struct Done {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
}

impl Load {
    /// Takes sockets whose handshake is done. With `spin` the generator never sleeps: on a loopback interface it is the
    /// sender's CPU time that wakes a sleeping receiver, which no server pays for a client on another machine.
    pub(crate) fn new(sockets: Vec<Socket>, batch: Batch, spin: bool) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            socket.tcp().set_nonblocking(true)?;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            connections.push(Connection { socket, unsent: 0, missing: 0, batches: 0, waits_to_write: false });
        }
        let buffer = vec![0; 256 * 1024];
        let look = Timespec { tv_sec: if spin { 0 } else { 1 }, tv_nsec: 0 };
        Ok(Self { epoll, look, connections, batch, buffer, events: Vec::with_capacity(1024) })
    }

    /// One batch on every connection, every byte compared.
    pub(crate) fn verify(&mut self) -> Result<()> {
        self.drive(Duration::ZERO, 1).map(drop)
    }

    /// Keeps every connection busy for `time`, then waits for the echoes still under way: all that was sent is counted.
    pub(crate) fn run(&mut self, time: Duration) -> Result<Done> {
        self.drive(time, COMPARE_EVERY)
    }

    fn drive(&mut self, time: Duration, compare_every: u64) -> Result<Done> {
        let start = Instant::now();
        for index in 0..self.connections.len() {
            self.send(index)?;
        }
        let (mut batches, mut last) = (0, Duration::ZERO);
        let mut busy = self.connections.len();
        let mut events = std::mem::take(&mut self.events);
        while busy > 0 {
            events.clear();
            let found = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&self.look))?;
            let now = start.elapsed();
            if found > 0 {
                last = now;
            } else if now - last > PATIENCE {
                return Err(format!("{busy} connections have waited {} s for an echo", PATIENCE.as_secs()).into());
            }
            let more = now < time;
            for event in &events {
                // Copied: the kernel's struct is packed.
                let (index, flags) = (event.data.u64() as usize, event.flags);
                if flags.contains(epoll::EventFlags::OUT) {
                    self.write(index)?;
                }
                if flags.intersects(!epoll::EventFlags::OUT) && self.read(index, compare_every)? {
                    batches += 1;
                    if more {
                        self.send(index)?;
                    } else {
                        busy -= 1;
                    }
                }
            }
        }
        self.events = events;
        Ok(Done { messages: batches * self.batch.messages, seconds: start.elapsed().as_secs_f64() })
    }

    /// Starts the next batch of a connection.
    fn send(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.unsent = self.batch.request.len();
        connection.missing = self.batch.echo.len();
        self.write(index)
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let request = &self.batch.request;
        while connection.unsent > 0 {
            match connection.socket.write(&request[request.len() - connection.unsent..]) {
                Ok(n) => connection.unsent -= n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if connection.unsent == 0 && connection.socket.wants_write() {
            match connection.socket.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
        let waits = connection.unsent > 0 || connection.socket.wants_write();
        if waits != connection.waits_to_write {
            connection.waits_to_write = waits;
            let out = if waits { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.socket, data, epoll::EventFlags::IN | out)?;
        }
        Ok(())
    }

    /// Reads once. True when the batch's echo is complete.
    fn read(&mut self, index: usize, compare_every: u64) -> Result<bool> {
        let connection = &mut self.connections[index];
        let received = match connection.socket.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(n) => &self.buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let echo = &self.batch.echo;
        let at = echo.len() - connection.missing;
        let Some(expected) = echo.get(at..at + received.len()) else {
            return Err(format!("{} bytes where {} were due", received.len(), connection.missing).into());
        };
        if connection.batches.is_multiple_of(compare_every) && received != expected {
            return Err(format!("connection {index}: the echo differs from what was sent").into());
        }
        connection.missing -= received.len();
        if connection.missing > 0 {
            return Ok(false);
        }
        if connection.unsent > 0 {
            return Err("an echo came back before its message was sent".into());
        }
        connection.batches += 1;
        Ok(true)
    }
}
