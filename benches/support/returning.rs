//! Clients that come back: each tries to open a WebSocket, closes its connection when that is refused, as browsers do, and tries
//! again some time later.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Result;
use super::client::{self, Target};
use super::crowd::poll;
use super::page::Beside;
use super::tls::Socket;

/// Clients served in one turn, so that whoever takes the turns is not kept for long.
const TURN: usize = 16;

/// What answers are counted as that were none: the connection ended before.
pub(crate) const NO_ANSWER: u16 = 0;

/// Clients of one server.
pub(crate) struct Returning {
    target: Target,
    /// How long they stay away.
    pause: Duration,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// Who comes when, the next one first.
    coming: VecDeque<(Instant, usize)>,
    /// Connections so far, of these clients and of those before them.
    opened: usize,
    /// How often they were answered with which status.
    pub(crate) answers: BTreeMap<u16, usize>,
    /// When the first of them got in.
    pub(crate) first_in: Option<Instant>,
    events: Vec<epoll::Event>,
}

#[derive(Default)]
struct Client {
    /// Under way, or open.
    socket: Option<Socket>,
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl Returning {
    /// `count` clients, who come for the first time one after the other within `spread`. `opened`: see [`Returning::opened`].
    pub(crate) fn new(target: Target, count: usize, spread: Duration, pause: Duration, opened: usize) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            target,
            pause: pause.max(spread),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: (0..count).map(|_| Client::default()).collect(),
            coming: (0..count).map(|index| (now + spread * index as u32 / count as u32, index)).collect(),
            opened,
            answers: BTreeMap::new(),
            first_in: None,
            events: Vec::with_capacity(TURN),
        })
    }

    /// For those who come after them: nobody takes a port that was in use a moment ago.
    pub(crate) fn opened(&self) -> usize {
        self.opened
    }

    /// Goes on until everybody is in, for `time` at most. How long it took.
    pub(crate) fn all_in(&mut self, time: Duration) -> Result<Option<Duration>> {
        let start = Instant::now();
        while self.is_in() < self.clients.len() {
            if start.elapsed() > time {
                return Ok(None);
            }
            let end = start + time;
            let wake = self.due().map_or(end, |due| due.min(end));
            self.wait(wake.saturating_duration_since(Instant::now()))?;
            self.turn()?;
        }
        Ok(Some(start.elapsed()))
    }

    fn is_in(&self) -> usize {
        self.answers.get(&101).copied().unwrap_or(0)
    }

    /// True when somebody was served.
    fn wait(&mut self, time: Duration) -> Result<bool> {
        let mut events = std::mem::take(&mut self.events);
        let found = poll(&self.epoll, &mut events, time)?;
        for event in &events {
            // Copied: the kernel's struct is packed.
            self.advance(event.data.u64() as usize)?;
        }
        self.events = events;
        Ok(found > 0)
    }

    fn come(&mut self, index: usize) -> Result<()> {
        let socket = client::begin(self.target, self.opened)?;
        self.opened += 1;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), flags)?;
        let unsent = client::opening(self.target);
        self.clients[index] = Client { socket: Some(socket), unsent, received: Vec::new() };
        Ok(())
    }

    fn advance(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let status = match client.talk() {
            Ok(None) => {
                // The request is gone, and the answer is to come.
                if client.unsent.is_empty()
                    && let Some(socket) = &client.socket
                {
                    let data = epoll::EventData::new_u64(index as u64);
                    epoll::modify(&self.epoll, socket, data, epoll::EventFlags::IN)?;
                }
                return Ok(());
            }
            Ok(Some(status)) => status,
            Err(_) => NO_ANSWER,
        };
        *self.answers.entry(status).or_default() += 1;
        if status == 101 {
            self.first_in.get_or_insert_with(Instant::now);
            // It stays open, and nobody says anything.
            if let Some(socket) = &client.socket {
                epoll::delete(&self.epoll, socket)?;
            }
        } else {
            *client = Client::default();
            self.coming.push_back((Instant::now() + self.pause, index));
        }
        Ok(())
    }
}

impl Client {
    /// The status of the answer, once its head is there.
    fn talk(&mut self) -> io::Result<Option<u16>> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.received.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if !self.received.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            return Ok(None);
        }
        let status = self.received.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        status.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Beside for Returning {
    fn due(&self) -> Option<Instant> {
        self.coming.front().map(|(due, _)| *due)
    }

    fn turn(&mut self) -> Result<bool> {
        let mut come = 0;
        while come < TURN
            && let Some((due, index)) = self.coming.front().copied()
            && due <= Instant::now()
        {
            self.coming.pop_front();
            self.come(index)?;
            come += 1;
        }
        Ok(self.wait(Duration::ZERO)? || come == TURN)
    }

    /// Somebody has got in.
    fn is_over(&self) -> bool {
        self.first_in.is_some()
    }
}

impl AsFd for Returning {
    /// Readable when somebody has got an answer.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
