//! A client as people write them: tungstenite.

use super::raw::SILENCE;
use super::server::Server;
use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Request;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

/// An open WebSocket.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
}

impl Client {
    #[track_caller]
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::open_with(server, server.url(path).into_client_request().expect("a request"))
    }

    /// Opens with a request that may have more headers.
    #[track_caller]
    pub(crate) fn open_with(server: &Server, request: Request) -> Self {
        let stream = TcpStream::connect(server.address()).expect("a connection to httpd");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(SILENCE)).expect("a timeout");
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Self { socket },
            Err(error) => panic!("not upgraded: {error}"),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, message: Message) {
        self.socket.send(message).expect("the server takes the message");
    }

    /// The next message; answers pings on the way.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        self.socket.read().expect("a message from the server")
    }

    /// Sends a message and awaits the same back.
    #[track_caller]
    pub(crate) fn echo(&mut self, message: Message) {
        self.send(message.clone());
        let received = self.message();
        assert!(received == message, "sent {} bytes, received {} bytes", message.len(), received.len());
    }

    #[track_caller]
    pub(crate) fn echo_text(&mut self, text: &str) {
        self.echo(Message::text(text));
    }

    /// Awaits the server's Close; what comes before it is passed over.
    #[track_caller]
    pub(crate) fn close_frame(&mut self) -> Option<CloseFrame> {
        loop {
            if let Message::Close(frame) = self.message() {
                return frame;
            }
        }
    }

    /// The server ends the connection after the closing handshake, which tungstenite answers by itself.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.socket.read() {
            Err(tungstenite::Error::ConnectionClosed) => {}
            other => panic!("no clean end: {other:?}"),
        }
    }

    /// The connection ends without a Close frame.
    #[track_caller]
    pub(crate) fn expect_broken(&mut self) {
        let end = self.socket.read();
        let without_closing = tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        match end {
            Err(tungstenite::Error::Protocol(error)) if error == without_closing => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("not a broken connection: {other:?}"),
        }
    }

    /// The closing handshake to its end, begun here.
    #[track_caller]
    pub(crate) fn close(mut self) {
        self.socket.close(None).expect("a Close frame sent");
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return,
                Err(error) => panic!("no clean close: {error}"),
            }
        }
    }
}
