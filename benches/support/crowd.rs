//! Open sockets that do next to nothing: they answer Pings, as browsers do, and may say something now and then.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::Result;
use super::client::{self, Target};
use super::frame::Batch;
use super::page::Beside;
use super::tls::Socket;

/// A server that is silent for so long has lost a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sockets opened between two looks at those that are open: what a server has to say to them waits no longer than that.
const GROWTH: usize = 256;

/// Sockets served in one turn, so that whoever takes the turns is not kept for long.
const TURN: usize = 16;

/// What a client answers to an empty Ping: an empty Pong, masked with nothing (RFC 6455 section 5.5.3).
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

/// Sockets of one server, all saying the same.
pub(crate) struct Crowd {
    target: Target,
    epoll: OwnedFd,
    members: Vec<Member>,
    message: Batch,
    /// Echoes that are still to come.
    missing: usize,
    pings: u64,
    chat: Option<Chat>,
    /// Whose turn it is to say something.
    next: usize,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Member {
    socket: Socket,
    /// An echo is to come.
    waits: bool,
    /// The beginning of a frame.
    received: Vec<u8>,
}

/// Everybody says something once in an interval, one after the other.
struct Chat {
    between: Duration,
    due: Instant,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(target: Target) -> Result<Self> {
        Ok(Self {
            target,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            members: Vec::new(),
            message: Batch::new(64, 1),
            missing: 0,
            pings: 0,
            chat: None,
            next: 0,
            buffer: vec![0; 64 * 1024],
            events: Vec::with_capacity(TURN),
        })
    }

    /// `count` sockets, each of which has echoed a message.
    pub(crate) fn open(target: Target, count: usize) -> Result<Self> {
        let mut crowd = Self::new(target)?;
        crowd.grow(count)?;
        crowd.verify()?;
        Ok(crowd)
    }

    /// Opens that many more.
    pub(crate) fn grow(&mut self, count: usize) -> Result<()> {
        let whole = self.members.len() + count;
        while self.members.len() < whole {
            let first = self.members.len();
            for socket in client::open_more(self.target, first, GROWTH.min(whole - first))? {
                socket.tcp().set_nonblocking(true)?;
                let index = epoll::EventData::new_u64(self.members.len() as u64);
                epoll::add(&self.epoll, &socket, index, epoll::EventFlags::IN)?;
                self.members.push(Member { socket, waits: false, received: Vec::new() });
            }
            while self.turn()? {}
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Pings that were answered.
    pub(crate) fn pings(&self) -> u64 {
        self.pings
    }

    /// One message from each, a few at a time, and its echo. An echo still under way is waited for.
    pub(crate) fn verify(&mut self) -> Result<()> {
        self.chat(None)?;
        let mut next = 0;
        let mut last = Instant::now();
        while next < self.members.len() || self.missing > 0 {
            while next < self.members.len() && self.missing < TURN {
                self.say(next)?;
                next += 1;
            }
            if self.wait(Duration::from_secs(1))? {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                let missing = self.missing;
                return Err(format!("{missing} sockets have waited {} s for an echo", PATIENCE.as_secs()).into());
            }
        }
        Ok(())
    }

    /// From now on everybody says something each `interval`; `None`: nobody does, and all has come back.
    pub(crate) fn chat(&mut self, interval: Option<Duration>) -> Result<()> {
        self.chat = match interval {
            Some(interval) if !self.members.is_empty() => {
                Some(Chat { between: interval / self.members.len() as u32, due: Instant::now() })
            }
            _ => None,
        };
        let deadline = Instant::now() + PATIENCE;
        while self.chat.is_none() && self.missing > 0 {
            self.wait(Duration::from_secs(1))?;
            if Instant::now() > deadline {
                return Err(format!("{} sockets have lost an echo", self.missing).into());
            }
        }
        Ok(())
    }

    /// Stays for `time`, and answers Pings.
    pub(crate) fn stay(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.wait(left)?;
        }
        Ok(())
    }

    /// True when somebody was served.
    fn wait(&mut self, time: Duration) -> Result<bool> {
        let mut events = std::mem::take(&mut self.events);
        let found = poll(&self.epoll, &mut events, time)?;
        for event in &events {
            // Copied: the kernel's struct is packed.
            self.read(event.data.u64() as usize)?;
        }
        self.events = events;
        Ok(found > 0)
    }

    fn say(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        member.say(&self.message.request)?;
        member.waits = true;
        self.missing += 1;
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        match member.socket.read(&mut self.buffer) {
            Ok(0) => return Err(format!("the server closed socket {index}").into()),
            Ok(n) => member.received.extend_from_slice(&self.buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("socket {index}: {error}").into()),
        }
        let mut received = std::mem::take(&mut member.received);
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            let echo = &self.message.echo;
            if let Some(after) = rest.strip_prefix(&[0x89, 0]) {
                self.pings += 1;
                member.say(&PONG)?;
                rest = after;
            } else if member.waits && rest.starts_with(echo) {
                member.waits = false;
                self.missing -= 1;
                rest = &rest[echo.len()..];
            } else if rest == [0x89] || (member.waits && echo.starts_with(rest)) {
                break;
            } else {
                return Err(format!("socket {index} got {:x?}", &rest[..rest.len().min(16)]).into());
            }
        }
        let used = received.len() - rest.len();
        received.drain(..used);
        // Nobody keeps a buffer.
        member.received = if received.is_empty() { Vec::new() } else { received };
        Ok(())
    }
}

impl Member {
    /// So little always fits into a socket whose server reads.
    fn say(&mut self, frame: &[u8]) -> Result<()> {
        if self.socket.write(frame)? < frame.len() || self.socket.wants_write() {
            return Err("the server does not read".into());
        }
        Ok(())
    }
}

impl Beside for Crowd {
    /// When the next message is due.
    fn due(&self) -> Option<Instant> {
        self.chat.as_ref().map(|chat| chat.due)
    }

    fn turn(&mut self) -> Result<bool> {
        let mut said = 0;
        while said < TURN
            && let Some(chat) = &mut self.chat
            && chat.due <= Instant::now()
        {
            let index = self.next;
            chat.due += chat.between;
            self.next = (index + 1) % self.members.len();
            // Who still waits lets this one pass.
            if !self.members[index].waits {
                self.say(index)?;
            }
            said += 1;
        }
        Ok(self.wait(Duration::ZERO)? || said == TURN)
    }
}

impl AsFd for Crowd {
    /// Readable when somebody has something to read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Waits for that time, at most; returns how many events there are.
pub fn poll(epoll: &OwnedFd, events: &mut Vec<epoll::Event>, time: Duration) -> Result<usize> {
    events.clear();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    Ok(epoll::wait(epoll, spare_capacity(events), Some(&time))?)
}
