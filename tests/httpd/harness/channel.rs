//! Subscribers of channels, in the two subprotocols that say which message is which.

use super::frame::Frame;
use super::handshake::{Handshake, Response};
use super::publish::subscribers;
use super::raw::Raw;
use super::server::Server;
use super::wait::{PATIENCE, wait_until};
use serde_json::Value;

/// A handshake that offers a subprotocol.
pub(crate) fn offering(path: &str, protocol: &str) -> Handshake {
    Handshake::new(path).header("Sec-WebSocket-Protocol", protocol)
}

/// Asks for a WebSocket that must be granted; what the 101 says stays with it.
#[track_caller]
pub(crate) fn open(server: &Server, handshake: &Handshake) -> (Raw, Response) {
    let mut client = Raw::connect(server);
    let answer = client.ask(handshake);
    answer.assert_accepted();
    (client, answer)
}

/// As [`open`], and the engine knows of the subscription to `channel` when this returns.
#[track_caller]
pub(crate) fn subscribe(server: &Server, handshake: &Handshake, channel: &str) -> Raw {
    let before = subscribers(server, channel);
    let (client, _) = open(server, handshake);
    wait_until("the client is subscribed", PATIENCE, || subscribers(server, channel) > before);
    client
}

/// What the 101 says of the way back.
pub(crate) fn recovered(answer: &Response) -> Option<bool> {
    answer.header("WebSocket-Recovered").map(|value| value.parse().expect("true or false"))
}

/// A message of `ws+meta.nchan`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) is_text: bool,
    pub(crate) id: String,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Meta {
    /// Of a frame that holds one, and no line that is unknown.
    #[track_caller]
    pub(crate) fn of(frame: &Frame) -> Self {
        assert!([Frame::TEXT, Frame::BINARY].contains(&frame.opcode), "{frame:?} is no message");
        let end = frame.payload.windows(2).position(|pair| pair == b"\n\n").expect("an empty line");
        let head = std::str::from_utf8(&frame.payload[..end]).expect("lines of text");
        let mut lines = head.lines();
        let id = lines.next().and_then(|line| line.strip_prefix("id: ")).expect("the id first").to_owned();
        let content_type = lines.next().map(|line| line.strip_prefix("content-type: ").expect("its type").to_owned());
        assert_eq!(lines.next(), None, "{head}");
        Self { is_text: frame.opcode == Frame::TEXT, id, content_type, body: frame.payload[end + 2..].to_vec() }
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert!(self.is_text);
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

/// The epoch and the offset of an id.
#[track_caller]
pub(crate) fn parts(id: &str) -> (&str, u64) {
    let (epoch, offset) = id.split_once(':').expect("epoch:offset");
    (epoch, offset.parse().expect("a number"))
}

/// What comes next in `channels.v1`.
#[track_caller]
pub(crate) fn said(client: &mut Raw) -> Value {
    let frame = client.frame();
    assert_eq!(frame.opcode, Frame::TEXT, "{frame:?}");
    serde_json::from_slice(&frame.payload).expect("JSON")
}

/// Sends a request of `channels.v1`.
#[track_caller]
pub(crate) fn request(client: &mut Raw, request: &Value) {
    client.send(&Frame::text(request.to_string()));
}

/// Sends a request of `channels.v1`, and takes what comes next for its answer.
#[track_caller]
pub(crate) fn ask(client: &mut Raw, wish: &Value) -> Value {
    request(client, wish);
    said(client)
}
