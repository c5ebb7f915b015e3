//! The load generator of handshakes: one thread, one epoll, connections that are opened and closed again.
//!
//! A cycle is a connection, the opening handshake, a Close frame each way, and the end of the connection, which is the
//! server's to begin (RFC 6455 section 7.1.1). Or it is one request for a page with `Connection: close`. Cycles are under
//! way side by side, except that a handshake of TLS has the thread for itself.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::client::{self, Target};
use super::load::Done;
use super::testkit::handshake::Handshake;
use super::tls::Socket;
use super::{Result, server};

/// A server that is silent for so long has lost a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Close frame with code 1000, masked with zeros, and the answer to it.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
const CLOSED: [u8; 4] = [0x88, 0x02, 0x03, 0xe8];

/// The number of the next connection: none is used twice, as the port of one that was closed is not free at once.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What is done on each connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A WebSocket is opened and closed.
    WebSocket,
    /// A page is fetched.
    Page,
}

/// Cycles on one server.
pub(crate) struct Cycles {
    target: Target,
    kind: Kind,
    request: Vec<u8>,
    epoll: OwnedFd,
    look: Timespec,
    /// Those under way, each at its place.
    places: Vec<Option<Cycle>>,
    buffer: Vec<u8>,
}

struct Cycle {
    socket: Socket,
    /// What has come and is still to be looked at.
    received: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Closing,
    /// Only the end is to come.
    Closed,
    /// A page, until the end.
    Page,
}

impl Cycles {
    /// `depth`: how many are under way at once. For `spin` see [`super::load::Load::new`].
    pub(crate) fn new(target: Target, kind: Kind, depth: usize, spin: bool) -> Result<Self> {
        let request = match kind {
            Kind::WebSocket => client::opening(target),
            Kind::Page => Handshake::page(target.path).header("Connection", "close").bytes(&target.address.to_string()),
        };
        Ok(Self {
            target,
            kind,
            request,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            look: Timespec { tv_sec: if spin { 0 } else { 1 }, tv_nsec: 0 },
            places: (0..depth).map(|_| None).collect(),
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Begins cycles for `time`, then ends those still under way: all that were begun are counted.
    pub(crate) fn run(&mut self, time: Duration) -> Result<Done> {
        let start = Instant::now();
        for place in 0..self.places.len() {
            self.begin(place)?;
        }
        let (mut cycles, mut under_way, mut last) = (0, self.places.len(), Duration::ZERO);
        let mut events = Vec::with_capacity(self.places.len());
        while under_way > 0 {
            events.clear();
            let found = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&self.look))?;
            let now = start.elapsed();
            if found > 0 {
                last = now;
            } else if now - last > PATIENCE {
                return Err(format!("{under_way} connections have waited {} s", PATIENCE.as_secs()).into());
            }
            for event in &events {
                let place = event.data.u64() as usize;
                if !self.go_on(place)? {
                    continue;
                }
                cycles += 1;
                if now < time {
                    self.begin(place)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(Done { messages: cycles, seconds: start.elapsed().as_secs_f64() })
    }

    fn begin(&mut self, place: usize) -> Result<()> {
        let mut socket = client::connect_to(self.target, NEXT.fetch_add(1, Ordering::Relaxed))?;
        socket.write_all(&self.request)?;
        socket.tcp().set_nonblocking(true)?;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)?;
        let stage = if self.kind == Kind::Page { Stage::Page } else { Stage::Opening };
        self.places[place] = Some(Cycle { socket, received: Vec::new(), stage });
        Ok(())
    }

    /// Reads what is there, and answers it. True when the cycle is done and the connection gone.
    fn go_on(&mut self, place: usize) -> Result<bool> {
        let Some(cycle) = &mut self.places[place] else { return Ok(false) };
        loop {
            match cycle.socket.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => cycle.received.extend_from_slice(&self.buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // TLS that ends without saying so.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error.into()),
            }
            cycle.take()?;
        }
        // It leaves epoll with the socket.
        let cycle = self.places[place].take();
        if cycle.is_some_and(|cycle| cycle.stage == Stage::Closed || cycle.is_page()) {
            Ok(true)
        } else {
            Err("the server closed a connection before its time".into())
        }
    }
}

impl Cycle {
    fn take(&mut self) -> Result<()> {
        if self.stage == Stage::Opening && self.received.ends_with(b"\r\n\r\n") {
            client::accepted(&self.received, false)?;
            self.received.clear();
            self.stage = Stage::Closing;
            self.socket.write_all(&CLOSE)?;
        }
        if self.stage == Stage::Closing && self.received.len() >= CLOSED.len() {
            if self.received != CLOSED {
                return Err(format!("a Close frame was answered with {:x?}", self.received).into());
            }
            self.stage = Stage::Closed;
        }
        Ok(())
    }

    fn is_page(&self) -> bool {
        let page = || self.received.starts_with(b"HTTP/1.1 200 ") && self.received.ends_with(server::page().as_bytes());
        self.stage == Stage::Page && page()
    }
}
