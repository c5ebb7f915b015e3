//! What is spoken on the stream of a session. A connection, its writer and what many get know this and not WebSocket: another
//! way to speak is a variant of both enums, and a file with its bytes.

use super::SessionSpec;
use super::spec::Limits;
use crate::wire::CloseFrame;
use crate::wire::deflate::Slices;
use crate::wire::frame::{Control, DataKind, MAX_CONTROL, MAX_SERVER_HEADER, put_control, put_data_header};
use crate::wire::session::{self, Session};
use bytes::Bytes;
use std::collections::VecDeque;

pub use session::{Contexts, Event, Whole};

pub(super) const MAX_HEADER: usize = MAX_SERVER_HEADER;

/// A payload as it goes out, and whether it is compressed.
pub type Encoded = (Bytes, bool);

pub(super) enum Codec {
    WebSocket(Session),
}

/// How messages go out: where it is the same, a message is the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 6455, compressed or not.
    WebSocket(session::Encoding),
}

impl Encoding {
    pub(super) fn encode(self, contexts: &mut Contexts, payload: Bytes) -> Encoded {
        match self {
            Encoding::WebSocket(encoding) => encoding.encode(contexts, payload),
        }
    }

    /// As [`Encoding::encode`], of a message that is encoded in slices; `None`: it is not.
    pub(super) fn begin_encode(self, contexts: &mut Contexts, payload: &Bytes) -> Option<Slices> {
        match self {
            Encoding::WebSocket(encoding) => encoding.begin_encode(contexts, payload),
        }
    }

    pub(super) fn end_encode(self, contexts: &mut Contexts, payload: Bytes, slices: Slices) -> Encoded {
        match self {
            Encoding::WebSocket(encoding) => encoding.end_encode(contexts, payload, slices),
        }
    }

    /// What stands before a payload of this length, encoded.
    pub(super) fn put_header(self, out: &mut Vec<u8>, text: bool, compressed: bool, length: usize) {
        match self {
            Encoding::WebSocket(_) => put_data_header(out, DataKind { text, compressed }, length),
        }
    }
}

impl Codec {
    /// Of a session just after its 101.
    pub(super) fn new(spec: &SessionSpec) -> Codec {
        let is_stream = spec.limits.max_message_size == Limits::UNLIMITED && spec.compression.is_none();
        Codec::WebSocket(if is_stream { Session::streaming(&spec.rules()) } else { Session::new(&spec.rules()) })
    }

    /// `None`: what messages become hangs on those before.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        match self {
            Codec::WebSocket(session) => session.encoding().map(Encoding::WebSocket),
        }
    }

    /// A message of so many bytes is to be encoded in slices.
    pub(super) fn is_slow(&self, bytes: usize) -> bool {
        match self {
            Codec::WebSocket(session) => session.is_slow(bytes),
        }
    }

    pub(super) fn encode(&mut self, contexts: &mut Contexts, payload: Bytes) -> Encoded {
        match self {
            Codec::WebSocket(session) => session.encode(contexts, payload),
        }
    }

    /// As [`Encoding::begin_encode`].
    pub(super) fn begin_encode(&mut self, contexts: &mut Contexts, payload: &Bytes) -> Option<Slices> {
        match self {
            Codec::WebSocket(session) => session.begin_encode(contexts, payload),
        }
    }

    pub(super) fn end_encode(&mut self, contexts: &mut Contexts, payload: Bytes, slices: Slices) -> Encoded {
        match self {
            Codec::WebSocket(session) => session.end_encode(contexts, payload, slices),
        }
    }

    /// As [`Encoding::put_header`].
    pub(super) fn put_header(&self, out: &mut Vec<u8>, text: bool, compressed: bool, length: usize) {
        match self {
            Codec::WebSocket(_) => put_data_header(out, DataKind { text, compressed }, length),
        }
    }

    /// What asks the client whether it is there, or answers it. Of the payload the first 125 bytes go (RFC 6455 section 5.5).
    pub(super) fn put_control(&self, out: &mut Vec<u8>, kind: Control, payload: &[u8]) {
        match self {
            Codec::WebSocket(_) => put_control(out, kind, &payload[..payload.len().min(MAX_CONTROL)]),
        }
    }

    /// Takes in what the client sent: any piece of the stream, in order. While [`Codec::has_more`], [`Codec::more`] comes
    /// first.
    pub(super) fn receive(
        &mut self,
        contexts: &mut Contexts,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Codec::WebSocket(session) => session.receive(contexts, bytes, events, out),
        }
    }

    /// Takes off what [`Codec::receive`] would find first, where it lies whole in these bytes and goes out as it is.
    #[inline]
    pub(super) fn take_whole<'a>(&self, bytes: &mut &'a mut [u8]) -> Option<Whole<'a>> {
        match self {
            Codec::WebSocket(session) => session.take_whole(bytes),
        }
    }

    /// Bytes that were received wait to be decoded, for what they hold is large.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Codec::WebSocket(session) => session.has_more(),
        }
    }

    pub(super) fn more(&mut self, contexts: &mut Contexts, events: &mut VecDeque<Event>, out: &mut Vec<u8>) {
        match self {
            Codec::WebSocket(session) => session.more(contexts, events, out),
        }
    }

    /// The client has begun something and not finished it.
    pub(super) fn is_in_a_message(&self) -> bool {
        match self {
            Codec::WebSocket(session) => session.is_in_a_message(),
        }
    }

    /// Payload bytes of that.
    pub(super) fn unfinished(&self) -> u64 {
        match self {
            Codec::WebSocket(session) => session.unfinished(),
        }
    }

    pub(super) fn held(&self) -> usize {
        match self {
            Codec::WebSocket(session) => session.held(),
        }
    }

    /// The client does not compress as agreed.
    pub(super) fn has_forgotten(&self) -> bool {
        match self {
            Codec::WebSocket(session) => session.has_forgotten(),
        }
    }

    /// Forgets all that the client has not finished.
    pub(super) fn give_up(&mut self) {
        match self {
            Codec::WebSocket(session) => session.give_up(),
        }
    }

    /// Writes the answer to the client's Close, where one is due.
    pub(super) fn reply(&mut self, out: &mut Vec<u8>) {
        match self {
            Codec::WebSocket(session) => session.reply(out),
        }
    }

    /// Writes what says that the session ends. No message follows.
    pub(super) fn close(&mut self, contexts: &mut Contexts, frame: CloseFrame, out: &mut Vec<u8>) {
        match self {
            Codec::WebSocket(session) => session.close(contexts, frame, out),
        }
    }
}
