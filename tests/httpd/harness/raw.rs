//! A client that hides nothing: bytes out, strictly checked frames in.

use super::frame::Frame;
use super::handshake::{Handshake, Response};
use super::server::Server;
use super::tls::Stream;
use rustix::net::sockopt::set_socket_linger;
use rustls::{ClientConfig, ProtocolVersion};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The bound of a failure, not of a success: an answer that takes this long does not come.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// A connection to httpd: over TLS if the server speaks it.
pub(crate) struct Raw {
    stream: Stream,
    received: Vec<u8>,
    address: SocketAddr,
    /// What the test is about here, for its failure.
    topic: String,
}

impl Raw {
    /// A connection on which nothing was said yet.
    #[track_caller]
    pub(crate) fn connect(server: &Server) -> Self {
        Self::connect_by(server, server.tls())
    }

    /// Likewise, with this configuration of TLS.
    #[track_caller]
    pub(crate) fn connect_by(server: &Server, tls: Option<&Arc<ClientConfig>>) -> Self {
        Self::connect_to(server.address(), tls)
    }

    /// Likewise, at another address of the server.
    #[track_caller]
    pub(crate) fn connect_to(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Self {
        let stream = TcpStream::connect(address).expect("a connection to httpd");
        stream.set_read_timeout(Some(SILENCE)).expect("a read timeout");
        stream.set_write_timeout(Some(SILENCE)).expect("a write timeout");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let stream = Stream::new(stream, tls);
        Self { stream, received: Vec::new(), address, topic: String::new() }
    }

    /// A WebSocket to `path`.
    #[track_caller]
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::open_with(server, &Handshake::new(path))
    }

    /// A WebSocket opened with this handshake.
    #[track_caller]
    pub(crate) fn open_with(server: &Server, handshake: &Handshake) -> Self {
        let mut client = Self::connect(server);
        client.ask(handshake).assert_accepted();
        client
    }

    /// So many WebSockets to /echo, all open before the first of them says something.
    pub(crate) fn open_some(server: &Server, count: usize) -> Vec<Self> {
        let mut sockets: Vec<Self> =
            (0..count).map(|number| Self::open(server, "/echo").about(&format!("socket {number}"))).collect();
        for socket in &mut sockets {
            socket.echo(&Frame::text("before"));
        }
        sockets
    }

    /// The answer to one request on a connection of its own.
    #[track_caller]
    pub(crate) fn answer(server: &Server, handshake: &Handshake) -> Response {
        Self::connect(server).ask(handshake)
    }

    /// Names what the test is about with this client, for the case that it fails.
    pub(crate) fn about(mut self, topic: &str) -> Self {
        self.topic = format!("{topic}: ");
        self
    }

    /// A page of the site.
    #[track_caller]
    pub(crate) fn page(server: &Server, path: &str) -> Response {
        // HTTP/1.0, so that the body ends with the connection.
        Self::answer(server, &Handshake::page(path).version("HTTP/1.0"))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, handshake: &Handshake) -> Response {
        self.write(&handshake.bytes(&self.address.to_string()));
        self.response(handshake.is_head())
    }

    /// The address of the server as the Host header has it.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let written = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        written.expect("the server takes what a client sends");
    }

    /// The TLS records that `bytes` become, which are not sent.
    pub(crate) fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let tls = self.stream.tls().expect("TLS");
        tls.writer().write_all(bytes).expect("room");
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records).expect("a Vec");
        }
        records
    }

    /// Writes beside TLS, as records or a part of them.
    #[track_caller]
    pub(crate) fn write_sealed(&self, records: &[u8]) {
        self.stream.tcp().write_all(records).expect("the server takes what a client sends");
    }

    /// The next records to the server are protected with new keys.
    pub(crate) fn renew_keys(&mut self) {
        self.stream.tls().expect("TLS").refresh_traffic_keys().expect("new keys");
    }

    /// The TLS session is one that was opened before.
    pub(crate) fn is_resumed(&mut self) -> bool {
        self.stream.tls().expect("TLS").handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Writes what the server may no longer want to have.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    #[track_caller]
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.write(&frame.masked());
    }

    /// Several frames in one write.
    #[track_caller]
    pub(crate) fn send_all(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::masked).collect();
        self.write(&bytes);
    }

    /// The next answer; its body when it has one.
    #[track_caller]
    pub(crate) fn response(&mut self, head_only: bool) -> Response {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert!(self.receive() > 0, "no answer but {:?}", String::from_utf8_lossy(&self.received));
        };
        let head = String::from_utf8(self.received[..end].to_vec()).expect("a head in ASCII");
        self.received.drain(..end + 4);
        let mut response = Response::from_head(&head);
        if response.status >= 200 && response.status != 304 && !head_only {
            response.body = self.body(&response);
        }
        response
    }

    #[track_caller]
    fn body(&mut self, response: &Response) -> Vec<u8> {
        if response.header("Transfer-Encoding") == Some("chunked") {
            return self.chunks();
        }
        let length = response.header("Content-Length").map(|length| length.parse::<usize>().expect("a number"));
        match length {
            Some(length) => self.take(length),
            None => {
                while self.receive() > 0 {}
                std::mem::take(&mut self.received)
            }
        }
    }

    /// The next bytes of a body.
    #[track_caller]
    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.receive() > 0, "the body ends early");
        }
        self.received.drain(..length).collect()
    }

    /// A body in chunks (RFC 9112 section 7.1), without trailers.
    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(self.take(1));
            }
            let size = std::str::from_utf8(&line).ok().and_then(|line| usize::from_str_radix(line.trim(), 16).ok());
            let size = size.unwrap_or_else(|| panic!("not the size of a chunk: {line:?}"));
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n", "the end of a chunk");
            if size == 0 {
                return body;
            }
        }
    }

    /// The next frame.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        let frame = self.frame_or_end();
        frame.unwrap_or_else(|| panic!("{}the connection ended with {:?} before a frame", self.topic, self.received))
    }

    /// The next frame; `None` when the connection ends before it.
    #[track_caller]
    pub(crate) fn frame_or_end(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = Frame::from_server(&self.received) {
                self.received.drain(..length);
                return Some(frame);
            }
            if self.receive() == 0 {
                return None;
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, frame: &Frame) {
        let received = self.frame();
        // Not assert_eq: a megabyte does not read well.
        assert!(received == *frame, "{}awaited {frame:?}, received {received:?}", self.topic);
    }

    /// Sends a message and awaits the same back.
    #[track_caller]
    pub(crate) fn echo(&mut self, frame: &Frame) {
        self.send(frame);
        self.expect(frame);
    }

    /// The code of the Close frame that comes next. What was echoed before is passed over.
    #[track_caller]
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame();
            if frame.opcode == Frame::CLOSE {
                return frame.close_code();
            }
        }
    }

    /// The server ends the connection, properly and without another byte.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let received = self.receive();
        assert!(received == 0 && self.received.is_empty(), "{}awaited the end, not {:?}", self.topic, self.received);
    }

    /// Whatever comes until the end. In TLS that may be one of TCP alone.
    #[track_caller]
    pub(crate) fn bytes_to_the_end(&mut self) -> Vec<u8> {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return std::mem::take(&mut self.received),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return std::mem::take(&mut self.received),
                Err(error) => panic!("{}the connection broke: {error}", self.topic),
            }
        }
    }

    /// The server fails the connection with `code`: a Close frame with it, then the end of TCP (RFC 6455 section 7.1.7).
    #[track_caller]
    pub(crate) fn expect_failure(&mut self, code: u16) {
        let received = self.close_code();
        assert_eq!(received, Some(code), "{}the close code", self.topic);
        self.expect_end();
    }

    /// The closing handshake, begun by the client.
    #[track_caller]
    pub(crate) fn close(mut self) {
        self.send(&Frame::close(1000, ""));
        self.expect(&Frame::close(1000, ""));
        self.expect_end();
    }

    /// Waits until the server has said something, and leaves it unread.
    #[track_caller]
    pub(crate) fn peek_until_readable(&self) {
        assert!(self.stream.tcp().peek(&mut [0]).expect("something from the server") > 0);
    }

    /// Sends nothing any more, and says so also in TLS.
    #[track_caller]
    pub(crate) fn end_sending(&mut self) {
        if let Some(tls) = self.stream.tls() {
            tls.send_close_notify();
            self.stream.flush().expect("a close_notify");
        }
        self.end_tcp();
    }

    /// Sends nothing any more; TLS does not hear of it.
    #[track_caller]
    pub(crate) fn end_tcp(&self) {
        self.stream.tcp().shutdown(Shutdown::Write).expect("a half close");
    }

    /// The version of TLS that was agreed on.
    pub(crate) fn tls_version(&mut self) -> Option<ProtocolVersion> {
        self.stream.tls().and_then(|tls| tls.protocol_version())
    }

    /// Waits until the server closes or resets the connection, whatever it says before.
    #[track_caller]
    pub(crate) fn await_hangup(&mut self) {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("{}the server keeps the connection for {SILENCE:?}", self.topic)
                }
                Err(_) => return,
            }
        }
    }

    /// Vanishes: the server gets a reset.
    pub(crate) fn reset(self) {
        set_socket_linger(self.stream.tcp(), Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Writes as much of `bytes` as the server takes before it makes the client wait; None once the connection is over.
    pub(crate) fn write_some(&mut self, bytes: &[u8], patience: Duration) -> Option<usize> {
        self.stream.tcp().set_write_timeout(Some(patience)).expect("a write timeout");
        match self.stream.write(bytes) {
            Ok(written) => Some(written),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(0),
            Err(_) => None,
        }
    }

    /// Reads what there is; 0 at the end of the connection.
    #[track_caller]
    fn receive(&mut self) -> usize {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    return length;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    let so_far = String::from_utf8_lossy(&self.received);
                    panic!("{}nothing from the server for {SILENCE:?}, after {so_far:?}", self.topic)
                }
                Err(error) => panic!("{}the connection broke: {error}", self.topic),
            }
        }
    }
}
