//! The load generator of fan-out: one thread, one epoll, many subscribers of one channel and one publisher.
//!
//! All messages are of one length, and each has its number in it. So a subscriber is no more than a socket and where it stands
//! in the order of messages: that tells what has to come next, and every byte that comes is compared with it. What a message
//! is compressed to, the first subscriber tells that gets it: it is inflated and compared, and the others get the same bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use zlib_rs::{Inflate, InflateFlush};

use super::Result;
use super::client::{self, Target};
use super::frame::json;
use super::load::{Done, Pace};
use super::testkit::frame::Frame;
use super::tls::Socket;

/// A server that is silent for so long has lost a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Digits of a message's number.
pub(crate) const DIGITS: usize = 16;

/// The publisher's place among the events.
const PUBLISHER: u64 = u64::MAX;

/// Subscribers of a channel, and a connection that publishes to it.
pub(crate) struct FanOut {
    epoll: OwnedFd,
    spin: bool,
    subscribers: Vec<Subscriber>,
    publisher: Publisher,
    compressed: bool,
    /// Bytes of a message.
    length: usize,
    /// Messages are JSON.
    is_json: bool,
    /// Bytes that all have received, together.
    pub(crate) received: u64,
    /// Messages that all have received.
    completed: u64,
    /// The messages after those.
    under_way: VecDeque<UnderWay>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Subscriber {
    socket: Socket,
    /// The message that comes next, and how many bytes of its frame have come.
    number: u64,
    at: usize,
}

struct UnderWay {
    message: String,
    /// As it arrives, where that is known.
    frame: Vec<u8>,
    /// Subscribers that have not received it.
    missing: usize,
}

impl FanOut {
    /// Opens `count` WebSockets, and waits until the server says that so many are subscribed. `publish`: path and query of
    /// the publish location. With `spin` the generator never sleeps, see [`super::load::Load::new`].
    pub(crate) fn open(target: Target, publish: &str, count: usize, length: usize, spin: bool) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut subscribers = Vec::with_capacity(count);
        for (index, socket) in client::open(target, count)?.into_iter().enumerate() {
            socket.tcp().set_nonblocking(true)?;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            subscribers.push(Subscriber { socket, number: 0, at: 0 });
        }
        await_subscribers(target, publish, count)?;
        let publisher = Publisher::open(target, publish)?;
        epoll::add(&epoll, &publisher.socket, epoll::EventData::new_u64(PUBLISHER), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            spin,
            subscribers,
            publisher,
            compressed: target.compressed,
            length: length.max(DIGITS),
            is_json: false,
            received: 0,
            completed: 0,
            under_way: VecDeque::new(),
            buffer: vec![0; 256 * 1024],
            events: Vec::with_capacity(1024),
        })
    }

    /// The same, with messages that are JSON.
    pub(crate) fn of_json(self) -> Self {
        Self { is_json: true, ..self }
    }

    /// Publishes for `time`, then waits until everybody has everything: all that was published is counted.
    pub(crate) fn run(&mut self, pace: Pace, time: Duration) -> Result<Done> {
        let (start, before) = (Instant::now(), self.completed);
        let (mut last, mut due) = (Duration::ZERO, Duration::ZERO);
        let mut events = std::mem::take(&mut self.events);
        loop {
            let now = start.elapsed();
            match pace {
                Pace::UnderWay(most) => {
                    while now < time && self.under_way() < most {
                        self.publish()?;
                    }
                }
                Pace::EachSecond(rate) => {
                    while now < time && now >= due {
                        self.publish()?;
                        due += Duration::from_secs_f64(1.0 / rate);
                    }
                }
            }
            if now >= time && self.under_way() == 0 {
                break;
            }
            let sleep = match pace {
                _ if self.spin => Duration::ZERO,
                Pace::EachSecond(_) if now < time => due.min(time).saturating_sub(now),
                _ => Duration::from_secs(1),
            };
            let sleep = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&sleep))? > 0 {
                last = now;
            } else if now.saturating_sub(last) > PATIENCE && self.under_way() > 0 {
                let missing = self.under_way.front().map_or(0, |message| message.missing);
                return Err(format!("message {} has not reached {missing} subscribers", self.completed).into());
            }
            for event in &events {
                // Copied: the kernel's struct is packed.
                match event.data.u64() {
                    PUBLISHER => self.publisher.read()?,
                    index => self.read(index as usize)?,
                }
            }
        }
        self.events = events;
        Ok(Done { messages: self.completed - before, seconds: start.elapsed().as_secs_f64() })
    }

    /// Messages that not everybody has received, or that are not answered.
    fn under_way(&self) -> usize {
        self.under_way.len().max(self.publisher.unanswered)
    }

    fn publish(&mut self) -> Result<()> {
        let number = self.completed + self.under_way.len() as u64;
        let message = if self.is_json {
            json(number, self.length)
        } else {
            format!("{number:0DIGITS$}{:.<1$}", "", self.length - DIGITS)
        };
        self.publisher.post(message.as_bytes())?;
        let frame = if self.compressed { Vec::new() } else { Frame::text(message.clone()).unmasked() };
        self.under_way.push_back(UnderWay { message, frame, missing: self.subscribers.len() });
        Ok(())
    }

    /// Reads once. Every byte has to be the one that is due.
    fn read(&mut self, index: usize) -> Result<()> {
        let subscriber = &mut self.subscribers[index];
        let mut received = match subscriber.socket.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(n) => &self.buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.received += received.len() as u64;
        while !received.is_empty() {
            let (number, at) = (subscriber.number, subscriber.at);
            let message = self.under_way.get_mut((number - self.completed) as usize);
            let message = message.ok_or_else(|| format!("subscriber {index} got more than was published"))?;
            if message.frame.is_empty() {
                message.frame = compressed(received, &message.message)?;
            }
            let due = &message.frame[at..];
            let (here, rest) = received.split_at(due.len().min(received.len()));
            if here != &due[..here.len()] {
                let got = String::from_utf8_lossy(here);
                return Err(format!("subscriber {index} got {got:?} where message {number} was due").into());
            }
            subscriber.at += here.len();
            received = rest;
            if here.len() == due.len() {
                message.missing -= 1;
                (subscriber.number, subscriber.at) = (number + 1, 0);
            }
        }
        while self.under_way.front().is_some_and(|message| message.missing == 0) {
            self.under_way.pop_front();
            self.completed += 1;
        }
        Ok(())
    }

    /// Closes all, and waits until the server has noticed.
    pub(crate) fn close(self, target: Target, publish: &str) -> Result<()> {
        drop(self);
        await_subscribers(target, publish, 0)
    }
}

/// The frame at the front of what the first subscriber got, which has to hold this message.
fn compressed(received: &[u8], message: &str) -> Result<Vec<u8>> {
    let (frame, length) = Frame::from_server(received).ok_or("a compressed message has come in pieces")?;
    let mut inflated = vec![0; message.len() + 1];
    let payload = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
    let mut inflate = Inflate::new(false, 15);
    inflate.decompress(&payload, &mut inflated, InflateFlush::SyncFlush).map_err(|e| e.as_str())?;
    let is_right = frame.reserved == 4 && inflated[..inflate.total_out() as usize] == *message.as_bytes();
    if is_right { Ok(received[..length].to_vec()) } else { Err("what was compressed is another message".into()) }
}

/// A kept-alive connection of HTTP, which does not wait for an answer before it sends the next request (RFC 9112
/// section 9.3.2).
struct Publisher {
    socket: Socket,
    /// What each request begins with.
    head: String,
    unanswered: usize,
    /// Of answers that are not complete.
    received: Vec<u8>,
}

impl Publisher {
    fn open(target: Target, publish: &str) -> Result<Self> {
        let (address, socket) = (target.address, connect(target)?);
        // Over TLS what comes may be no answer.
        socket.tcp().set_nonblocking(target.tls)?;
        let head = format!("POST {publish} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\n");
        Ok(Self { socket, head, unanswered: 0, received: Vec::new() })
    }

    /// Sends the message. Only a server that does not read makes it wait.
    fn post(&mut self, message: &[u8]) -> Result<()> {
        let mut request = format!("{}Content-Length: {}\r\n\r\n", self.head, message.len()).into_bytes();
        request.extend_from_slice(message);
        self.socket.write_all(&request)?;
        self.unanswered += 1;
        Ok(())
    }

    /// Reads once, which does not wait when epoll has said so.
    fn read(&mut self) -> Result<()> {
        match read_more(&mut self.socket, &mut self.received) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
        for (status, _) in answers(&mut self.received)? {
            // Somebody has got it.
            if status != 201 || self.unanswered == 0 {
                return Err(format!("a message was answered with {status}").into());
            }
            self.unanswered -= 1;
        }
        Ok(())
    }
}

fn connect(target: Target) -> Result<Socket> {
    let socket = TcpStream::connect(target.address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Socket::new(socket, target.tls)
}

/// Waits until the publish location says that the channel has so many subscribers.
fn await_subscribers(target: Target, publish: &str, count: usize) -> Result<()> {
    let address = target.address;
    let mut socket = connect(target)?;
    let request = format!("GET {publish} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    let (start, mut received) = (Instant::now(), Vec::new());
    loop {
        socket.write_all(request.as_bytes())?;
        let (status, body) = loop {
            read_more(&mut socket, &mut received)?;
            if let Some(answer) = answers(&mut received)?.pop() {
                break answer;
            }
        };
        // Without subscribers and messages there is no channel.
        let subscribers = match status {
            200 => serde_json::from_slice::<serde_json::Value>(&body)?["subscribers"].as_u64(),
            404 => Some(0),
            status => return Err(format!("GET {publish} was answered with {status}").into()),
        };
        if subscribers == Some(count as u64) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("{subscribers:?} subscribers where {count} were due").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads once.
fn read_more(socket: &mut Socket, received: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match socket.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            received.extend_from_slice(&buffer[..count]);
            Ok(())
        }
    }
}

/// Status and body of the answers that are complete.
fn answers(received: &mut Vec<u8>) -> Result<Vec<(u16, Vec<u8>)>> {
    let mut answers = Vec::new();
    while let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&received[..end]);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no answer of HTTP")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Content-Length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.ok_or_else(|| format!("an answer without Content-Length: {head}"))?;
        let whole = end + 4 + length;
        if received.len() < whole {
            break;
        }
        answers.push((status, received[end + 4..whole].to_vec()));
        received.drain(..whole);
    }
    Ok(answers)
}
