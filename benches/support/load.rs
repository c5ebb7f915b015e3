//! The load generator: one thread, one epoll, prepared frames, and no more parsing than counting bytes.
//!
//! A connection writes a batch of messages, waits until as many bytes came back as their echoes have, and writes the
//! next batch. So a batch of 1 is a message at a time, a batch of 16 is 16 under way. In the open loop it does not wait:
//! there is a message to be sent at fixed times, to one connection after the other, and how long its echo takes counts from
//! the time when it was due, so that a server which stalls is charged for all whom it keeps waiting.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::Result;
use super::frame::Batch;
use super::page::Beside;
use super::tls::Socket;

/// A server that is silent for so long has lost a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every so many batches of a connection the echo is compared byte for byte, also under load.
const COMPARE_EVERY: u64 = 64;

/// The place of [`Beside`] among the events.
const BESIDE: u64 = u64::MAX;

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
    /// Bytes still to be written: the rest of a batch, and whole ones in the open loop.
    unsent: usize,
    /// Bytes of echoes still to be read.
    missing: usize,
    /// When the messages were due whose echoes are missing, in the open loop.
    due: VecDeque<Duration>,
    /// Batches so far.
    batches: u64,
    /// Whether epoll tells when the socket takes more.
    waits_to_write: bool,
}

/// When messages are sent.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// At once, with so many under way at most: sent, and not yet received by all who are to get them.
    UnderWay(usize),
    /// That many each second, however long they take.
    EachSecond(f64),
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
            let due = VecDeque::new();
            connections.push(Connection { socket, unsent: 0, missing: 0, due, batches: 0, waits_to_write: false });
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
                if flags.intersects(!epoll::EventFlags::OUT) && self.read(index, compare_every)? > 0 {
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

    /// Sends `rate` batches a second for `time`, then waits for the echoes still under way. Returns also how long each
    /// echo took, in seconds.
    pub(crate) fn run_open(&mut self, rate: f64, time: Duration) -> Result<(Done, Vec<f64>)> {
        self.run_open_beside(rate, time, None)
    }

    /// The same, and what goes on beside it has its turns.
    pub(crate) fn run_open_beside(
        &mut self,
        rate: f64,
        time: Duration,
        mut beside: Option<&mut dyn Beside>,
    ) -> Result<(Done, Vec<f64>)> {
        if let Some(beside) = &beside {
            epoll::add(&self.epoll, beside.as_fd(), epoll::EventData::new_u64(BESIDE), epoll::EventFlags::IN)?;
        }
        let start = Instant::now();
        let (mut due, mut next, mut last) = (Duration::ZERO, 0, Duration::ZERO);
        let mut latencies = Vec::with_capacity((rate * time.as_secs_f64()) as usize + 1);
        let mut under_way = 0;
        let mut events = std::mem::take(&mut self.events);
        while due < time || under_way > 0 {
            let now = start.elapsed();
            while due <= now && due < time {
                self.connections[next].due.push_back(due);
                self.send(next)?;
                under_way += 1;
                next = (next + 1) % self.connections.len();
                due += Duration::from_secs_f64(1.0 / rate);
            }
            let sleep = if due < time { due.saturating_sub(start.elapsed()) } else { Duration::from_secs(1) };
            let sleep = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
            let look = if self.look.tv_sec == 0 { self.look } else { sleep };
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&look))? > 0 || under_way == 0 {
                last = now;
            } else if now - last > PATIENCE {
                return Err(format!("{under_way} messages have waited {} s for an echo", PATIENCE.as_secs()).into());
            }
            for event in events.iter().filter(|event| event.data.u64() != BESIDE) {
                let (index, flags) = (event.data.u64() as usize, event.flags);
                if flags.contains(epoll::EventFlags::OUT) {
                    self.write(index)?;
                }
                if flags.intersects(!epoll::EventFlags::OUT) {
                    let echoes = self.read(index, 1)?;
                    let now = start.elapsed();
                    let echoed = self.connections[index].due.drain(..echoes);
                    latencies.extend(echoed.map(|due| (now - due).as_secs_f64()));
                    under_way -= echoes;
                }
            }
            if let Some(beside) = &mut beside {
                beside.turn()?;
            }
        }
        self.events = events;
        if let Some(beside) = &beside {
            epoll::delete(&self.epoll, beside.as_fd())?;
        }
        let messages = latencies.len() as u64 * self.batch.messages;
        Ok((Done { messages, seconds: start.elapsed().as_secs_f64() }, latencies))
    }

    /// One more batch for a connection.
    fn send(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.unsent += self.batch.request.len();
        connection.missing += self.batch.echo.len();
        self.write(index)
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let request = &self.batch.request;
        while connection.unsent > 0 {
            match connection.socket.write(&request[place(request, connection.unsent)..]) {
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

    /// Reads once. Returns how many echoes of a batch are complete with that.
    fn read(&mut self, index: usize, compare_every: u64) -> Result<usize> {
        let connection = &mut self.connections[index];
        let mut received = match connection.socket.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(n) => &self.buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if received.len() > connection.missing {
            return Err(format!("{} bytes where {} were due", received.len(), connection.missing).into());
        }
        let echo = &self.batch.echo;
        let mut complete = 0;
        while !received.is_empty() {
            let due = &echo[place(echo, connection.missing)..];
            let (part, rest) = received.split_at(received.len().min(due.len()));
            if connection.batches.is_multiple_of(compare_every) && part != &due[..part.len()] {
                return Err(format!("connection {index}: the echo differs from what was sent").into());
            }
            if part.len() == due.len() {
                complete += 1;
                connection.batches += 1;
            }
            connection.missing -= part.len();
            received = rest;
        }
        if connection.missing == 0 && connection.unsent > 0 {
            return Err("an echo came back before its message was sent".into());
        }
        Ok(complete)
    }
}

/// Where in a batch it goes on when so many bytes are left, of that batch and whole ones after it.
fn place(batch: &[u8], left: usize) -> usize {
    (batch.len() - left % batch.len()) % batch.len()
}
