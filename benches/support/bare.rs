//! The least that fan-out can cost: the benchmark's own binary becomes a server that sends what is published to all subscribers
//! in a bare loop of send(2), the same bytes to one socket after the other. It knows no protocol: it answers what the load
//! generator sends, and nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{SendFlags, send};
use slab::Slab;

use super::Result;
use super::server::{Server, confined};
use super::testkit::frame::Frame;
use super::testkit::handshake::SAMPLE_ACCEPT;
use super::testkit::process::raise_descriptor_limit;

/// The argument with which the benchmark's own binary becomes this server; after it comes the port.
pub(crate) const SERVE_BARE: &str = "--serve-bare";

/// Its place among the events.
const LISTENER: u64 = u64::MAX;

/// Starts it.
pub(crate) fn start(cpu: Option<usize>) -> Result<Server> {
    let mut command = confined(&std::env::current_exe()?, cpu);
    command.arg(SERVE_BARE);
    Server::program(command, false)
}

struct Bare {
    epoll: OwnedFd,
    connections: Slab<Connection>,
    subscribers: Vec<usize>,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// Serves until it is killed.
pub(crate) fn serve() -> Result<()> {
    raise_descriptor_limit();
    let port = std::env::args().next_back().unwrap_or_default().parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut bare = Bare { epoll, connections: Slab::new(), subscribers: Vec::new() };
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        epoll::wait(&bare.epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            // Copied: the kernel's struct is packed.
            match event.data.u64() {
                LISTENER => bare.accept(listener.accept()?.0)?,
                key => bare.read(key as usize)?,
            }
        }
    }
}

impl Bare {
    fn accept(&mut self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let entry = self.connections.vacant_entry();
        let data = epoll::EventData::new_u64(entry.key() as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        entry.insert(Connection { stream, received: Vec::new() });
        Ok(())
    }

    fn read(&mut self, key: usize) -> Result<()> {
        let connection = &mut self.connections[key];
        let mut buffer = [0; 4096];
        // One that is reset is gone, too.
        let count = connection.stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            self.connections.remove(key);
            self.subscribers.retain(|subscriber| *subscriber != key);
            return Ok(());
        }
        connection.received.extend_from_slice(&buffer[..count]);
        while let Some(answer) = self.answer(key)? {
            self.connections[key].stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    /// Does what the next request wants, if all of it is there.
    fn answer(&mut self, key: usize) -> Result<Option<String>> {
        let received = &self.connections[key].received;
        let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8_lossy(&received[..end]);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length = field("Content-Length").map_or(Ok(0), str::parse::<usize>)?;
        let is_subscriber = field("Upgrade").is_some();
        let whole = end + 4 + length;
        if received.len() < whole {
            return Ok(None);
        }
        let answer = if is_subscriber {
            self.subscribers.push(key);
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {SAMPLE_ACCEPT}\r\n\r\n"
            )
        } else if head.starts_with("POST") {
            let frame = Frame::text(&received[end + 4..whole]).unmasked();
            self.send_to_all(&frame)?;
            "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            let body = format!("{{\"subscribers\":{}}}", self.subscribers.len());
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        self.connections[key].received.drain(..whole);
        Ok(Some(answer))
    }

    /// What it is all about.
    fn send_to_all(&self, frame: &[u8]) -> Result<()> {
        for subscriber in &self.subscribers {
            let socket = self.connections[*subscriber].stream.as_fd();
            if send(socket, frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)? != frame.len() {
                return Err("a socket is full".into());
            }
        }
        Ok(())
    }
}
