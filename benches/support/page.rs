//! Pages fetched at a steady rate, whatever the server does meanwhile: half of them on new connections, half on kept ones.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use slab::Slab;

use super::Result;
use super::client::{self, Target};
use super::server::{PAGE, page};
use super::testkit::handshake::Handshake;
use super::tls::Socket;

/// The place of [`Beside`] among the events.
const BESIDE: u64 = u64::MAX;

/// What goes on beside the pages, in the same thread. Its descriptor is readable when a turn has something to take.
pub(crate) trait Beside: AsFd {
    /// When it has something to do by itself.
    fn due(&self) -> Option<Instant>;

    /// Does what is due, and takes what has come, without waiting. True when there may be more.
    fn turn(&mut self) -> Result<bool>;

    /// No more pages are wanted.
    fn is_over(&self) -> bool {
        false
    }
}

/// Milliseconds from the moment when a page was due to its last byte.
#[derive(Default)]
pub(crate) struct Times {
    /// The TCP (and TLS) handshake is in these.
    pub(crate) new: Vec<f64>,
    pub(crate) kept: Vec<f64>,
    /// All of these, each with the moment when it was due.
    pub(crate) all: Vec<(Instant, f64)>,
    /// Pages that did not come.
    pub(crate) missing: usize,
    /// Pages that were asked for again: the server had closed a kept connection, as it may.
    pub(crate) again: usize,
}

impl Times {
    pub(crate) fn extend(&mut self, other: Self) {
        self.new.extend(other.new);
        self.kept.extend(other.kept);
        self.all.extend(other.all);
        self.missing += other.missing;
        self.again += other.again;
    }
}

/// Fetches pages from one server.
pub(crate) struct Pages {
    target: Target,
    epoll: OwnedFd,
    visits: Slab<Visit>,
    /// Kept connections that have nothing to do.
    resting: Vec<usize>,
    /// New connections so far.
    opened: usize,
    body: String,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

/// A connection.
struct Visit {
    socket: Socket,
    kept: bool,
    /// A page has come on it.
    used: bool,
    /// Of the page that is under way.
    due: Option<Instant>,
    unsent: Vec<u8>,
    received: Vec<u8>,
    waits_to_write: bool,
}

impl Pages {
    pub(crate) fn new(target: Target) -> Result<Self> {
        Ok(Self {
            target,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            visits: Slab::new(),
            resting: Vec::new(),
            opened: 0,
            body: page(),
            buffer: vec![0; 64 * 1024],
            events: Vec::with_capacity(64),
        })
    }

    /// Fetches `rate` pages a second for `time`, and waits for those that are under way then, for `patience` at most.
    /// Meanwhile what goes on beside them has its turns, and may end it earlier.
    pub(crate) fn fetch(
        &mut self,
        rate: f64,
        time: Duration,
        patience: Duration,
        mut beside: Option<&mut dyn Beside>,
    ) -> Result<Times> {
        if let Some(beside) = &beside {
            epoll::add(&self.epoll, beside.as_fd(), epoll::EventData::new_u64(BESIDE), epoll::EventFlags::IN)?;
        }
        let mut times = Times::default();
        let start = Instant::now();
        let mut end = start + time;
        let mut count = (rate * time.as_secs_f64()).round() as usize;
        let mut started = 0;
        let mut events = std::mem::take(&mut self.events);
        loop {
            let now = Instant::now();
            let mut due = start + Duration::from_secs_f64(started as f64 / rate);
            while started < count && due <= now {
                self.start(started.is_multiple_of(2), due)?;
                started += 1;
                due = start + Duration::from_secs_f64(started as f64 / rate);
            }
            let under_way = self.visits.len() - self.resting.len();
            if started == count && (under_way == 0 || now > end + patience) {
                break;
            }
            let wake = if started < count { due } else { end + patience };
            let wake = beside.as_ref().and_then(|beside| beside.due()).map_or(wake, |due| due.min(wake));
            let sleep = wake.saturating_duration_since(Instant::now());
            let sleep = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&sleep))?;
            // Pages first.
            for event in events.iter().filter(|event| event.data.u64() != BESIDE) {
                self.advance(event.data.u64() as usize, &mut times)?;
            }
            if let Some(beside) = &mut beside {
                beside.turn()?;
                if started < count && beside.is_over() {
                    (count, end) = (started, Instant::now());
                }
            }
        }
        self.events = events;
        if let Some(beside) = &beside {
            epoll::delete(&self.epoll, beside.as_fd())?;
        }
        // What has not come is given up.
        let given_up: Vec<usize> =
            self.visits.iter().filter(|(_, visit)| visit.due.is_some()).map(|(key, _)| key).collect();
        times.missing += given_up.len();
        for key in given_up {
            self.visits.remove(key);
        }
        Ok(times)
    }

    fn start(&mut self, kept: bool, due: Instant) -> Result<()> {
        let resting = if kept { self.resting.pop() } else { None };
        let key = match resting {
            Some(key) => key,
            None => {
                let socket = self.connect()?;
                let entry = self.visits.vacant_entry();
                let data = epoll::EventData::new_u64(entry.key() as u64);
                epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
                let key = entry.key();
                let (unsent, received) = (Vec::new(), Vec::new());
                entry.insert(Visit { socket, kept, used: false, due: None, unsent, received, waits_to_write: false });
                key
            }
        };
        let close = if kept { "" } else { "Connection: close\r\n" };
        let address = self.target.address;
        let visit = &mut self.visits[key];
        visit.due = Some(due);
        visit.unsent = format!("GET /{PAGE} HTTP/1.1\r\nHost: {address}\r\n{close}\r\n").into_bytes();
        // Should that fail, it shows in reading too.
        let _ = visit.write(&self.epoll, key);
        Ok(())
    }

    fn connect(&mut self) -> Result<Socket> {
        let socket = client::begin(self.target, self.opened)?;
        self.opened += 1;
        Ok(socket)
    }

    fn advance(&mut self, key: usize, times: &mut Times) -> Result<()> {
        let Some(visit) = self.visits.get_mut(key) else { return Ok(()) };
        let read = visit.write(&self.epoll, key).and_then(|()| visit.socket.read(&mut self.buffer));
        let end = match read {
            Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                visit.received.extend_from_slice(&self.buffer[..n]);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(error),
        };
        if let Some(due) = visit.due
            && is_whole(&visit.received, &self.body)?
        {
            let milliseconds = due.elapsed().as_secs_f64() * 1e3;
            times.all.push((due, milliseconds));
            visit.due = None;
            visit.received.clear();
            visit.used = true;
            if visit.kept {
                times.kept.push(milliseconds);
                self.resting.push(key);
            } else {
                times.new.push(milliseconds);
                self.visits.remove(key);
            }
        } else if let Some(error) = end {
            let (due, may_end) = (visit.due, visit.used && visit.received.is_empty());
            self.resting.retain(|resting| *resting != key);
            self.visits.remove(key);
            match due {
                None => {}
                // RFC 9112 section 9.3.1: what was lost with a kept connection may be asked for again.
                Some(due) if may_end => {
                    times.again += 1;
                    self.start(true, due)?;
                }
                Some(_) => return Err(format!("in the place of a page: {error}").into()),
            }
        }
        Ok(())
    }
}

impl Visit {
    fn write(&mut self, epoll: &OwnedFd, key: usize) -> io::Result<()> {
        let mut blocked = false;
        while !self.unsent.is_empty() && !blocked {
            match self.socket.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                Err(error) => return Err(error),
            }
        }
        if !blocked
            && let Err(error) = self.socket.flush()
            && error.kind() != io::ErrorKind::WouldBlock
        {
            return Err(error);
        }
        let waits = !self.unsent.is_empty() || self.socket.wants_write();
        if waits != self.waits_to_write {
            self.waits_to_write = waits;
            let out = if waits { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            epoll::modify(epoll, &self.socket, epoll::EventData::new_u64(key as u64), epoll::EventFlags::IN | out)?;
        }
        Ok(())
    }
}

/// Whether this is the page, and all of it.
fn is_whole(received: &[u8], body: &str) -> Result<bool> {
    let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let rest = &received[end + 4..];
    if !received.starts_with(b"HTTP/1.1 200 ") || !body.as_bytes().starts_with(rest) {
        let line = String::from_utf8_lossy(received.split(|byte| *byte == b'\r').next().unwrap_or_default());
        return Err(format!("a page was answered with {line:?}, and another body").into());
    }
    Ok(rest.len() == body.len())
}

/// A page that is fetched again and again on one connection.
pub(crate) struct KeptPage {
    socket: Socket,
    request: Vec<u8>,
}

impl KeptPage {
    pub(crate) fn new(target: Target) -> Result<Self> {
        let request = Handshake::page(target.path).bytes(&target.address.to_string());
        Ok(Self { socket: client::connect_to(target, 0)?, request })
    }

    /// Waits for all of it, as long as its `Content-Length` says.
    pub(crate) fn fetch(&mut self) -> Result<()> {
        self.socket.write_all(&self.request)?;
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&received);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
                if !head.starts_with("HTTP/1.1 200 ") {
                    return Err(format!("a page was answered with {head}").into());
                }
                if body.len() >= length.ok_or("a page has no length")? {
                    return Ok(());
                }
            }
            let count = self.socket.read(&mut buffer)?;
            if count == 0 {
                return Err("the server closed a connection before its time".into());
            }
            received.extend_from_slice(&buffer[..count]);
        }
    }
}
