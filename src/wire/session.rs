//! One WebSocket connection as a state machine: bytes in, events and reply bytes out.
//!
//! tungstenite's [`WebSocketContext`] decodes, unmasks, checks and answers control frames. It keeps a read buffer, so an
//! idle connection does not keep *it*: between two messages the context goes back to the [`Contexts`] of the thread, and
//! what remains of a session is a few dozen bytes.
//!
//! A message that lies whole in what was received needs no context: see [`Session::take_whole`].

mod contexts;
mod encoding;
mod stream;
mod whole;

pub use contexts::Contexts;
pub use encoding::Encoding;
pub use whole::Whole;

use super::deflate::{Compression, PerMessageDeflate, Slices};
use super::frame::{Control, put_control};
use super::frame_scanner::{FrameScanner, Violation};
use super::{CloseCode, CloseFrame, Message, close};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io;
use stream::{ContextStream, Streamed};
use tungstenite::error::Error;
use tungstenite::protocol::WebSocketContext;

/// The reason for a client that does not keep to its client_no_context_takeover or client_max_window_bits.
const FORGOTTEN: &str = "message refers to an earlier one that you agreed to forget";

/// What a session keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Bytes of the largest message that is taken, decompressed and its fragments added up.
    pub max_message_size: usize,
    /// What permessage-deflate was negotiated to be, if it was.
    pub compression: Option<Compression>,
    /// Whether a client may close with the codes that are reserved for later (RFC 6455 section 7.4.2) or for others: 1004,
    /// 1014, 1016 to 2999.
    pub reserved_close_codes: bool,
}

/// What a session found in the bytes it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A whole data message.
    Message(Message),
    /// Of a session that takes a stream: the next bytes of it, and how many messages end in them.
    Part(Bytes, u64),
    /// The client's Close frame: its request to close, or its answer to ours. [`Session::reply`] sends the answer that is due.
    Closed(Option<CloseFrame>),
    /// The client broke the protocol; nothing it sends is looked at any more. The frame to close with: [`Session::close`].
    Failed(CloseFrame),
}

impl Event {
    /// Bytes of its payload.
    pub fn size(&self) -> usize {
        if let Event::Message(message) = self { message.len() } else { 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Open,
    /// A Close frame of ours is out; the client's may come.
    Closing,
    /// The client's Close has come; ours may be due.
    Closed,
    /// The client broke the protocol.
    Failed,
}

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Session {
    /// Present while the state cannot be derived from "between two messages of an open connection".
    context: Option<Box<WebSocketContext>>,
    scanner: FrameScanner,
    deflate: Option<Box<PerMessageDeflate>>,
    reserved_close_codes: bool,
    phase: Phase,
    /// See [`Session::streaming`].
    streams: bool,
}

impl Session {
    /// Bytes of compressed messages that are decoded at a time, besides the one that brings them over this. A read of
    /// some bytes may hold a thousand times as many.
    const BURST: usize = Self::SLICE;
    /// Bytes that are inflated at a time, of a message that is larger: others have their turn in between. They take some 15 µs
    /// of a thread.
    pub const SLICE: usize = 16 * 1024;

    /// A session just after the opening handshake.
    pub fn new(rules: &Rules) -> Session {
        Session {
            context: None,
            scanner: FrameScanner::new(rules.max_message_size, rules.compression.is_some()),
            deflate: rules.compression.map(|compression| Box::new(PerMessageDeflate::new(compression))),
            reserved_close_codes: rules.reserved_close_codes,
            phase: Phase::Open,
            streams: false,
        }
    }

    /// As [`Session::new`], for who does not care where messages end: their bytes come as [`Event::Part`]s, as they arrive, so
    /// that no message is too long. Nothing is compressed.
    pub fn streaming(rules: &Rules) -> Session {
        Session { streams: true, ..Session::new(&Rules { max_message_size: usize::MAX, compression: None, ..*rules }) }
    }

    /// True while data may be sent: no Close frame went either way and the protocol was kept.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// True where the client has begun a message, or a frame, and not finished it; and when the session is no longer open.
    pub fn is_in_a_message(&self) -> bool {
        self.context.is_some() || (self.streams && !self.scanner.at_boundary())
    }

    /// Payload bytes that have come of the message that is not complete, compressed or not.
    pub fn unfinished(&self) -> u64 {
        self.scanner.unfinished()
    }

    /// Bytes that it has become so far, where it is compressed.
    pub fn inflated(&self) -> u64 {
        self.deflate.as_ref().map_or(0, |deflate| deflate.inflated())
    }

    /// Bytes that it holds of what the client has not finished, and windows of compressors.
    pub fn held(&self) -> usize {
        let context = self.context.as_ref().map_or(0, |_| {
            Contexts::READ_BUFFER + size_of::<WebSocketContext>() + self.unfinished().max(self.inflated()) as usize
        });
        context + self.deflate.as_ref().map_or(0, |deflate| deflate.held())
    }

    /// Forgets all that the client has not finished. [`Session::close`] may follow.
    pub fn give_up(&mut self) {
        self.context = None;
        self.deflate = None;
        self.phase = Phase::Failed;
    }

    /// Takes in what the client sent: any piece of the stream, in order. Appends what it held to `events`, and answers
    /// to Ping frames to `control`. While [`Session::has_more`], call [`Session::more`] before this.
    ///
    /// After [`Event::Closed`] or [`Event::Failed`] the rest of the stream is ignored (RFC 6455 section 1.4).
    pub fn receive(
        &mut self,
        contexts: &mut Contexts,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
        control: &mut Vec<u8>,
    ) {
        debug_assert!(!self.has_more());
        if matches!(self.phase, Phase::Closed | Phase::Failed) {
            return;
        }
        let mut bytes = bytes;
        if self.is_plain() {
            while let Some(message) = whole::copy(&mut bytes, self.scanner.max_message_size()) {
                events.push_back(Event::Message(message));
            }
        }
        if !bytes.is_empty() {
            self.follow(contexts, bytes, events, control);
        }
    }

    /// Takes the message off the front of `bytes` that [`Session::receive`] would find there first, if it lies there whole and
    /// nothing is wrong with it. `None`: the rest is for [`Session::receive`].
    #[inline]
    pub fn take_whole<'a>(&self, bytes: &mut &'a mut [u8]) -> Option<Whole<'a>> {
        if self.is_plain() { whole::take(bytes, self.scanner.max_message_size()) } else { None }
    }

    /// The next byte is the first of a frame, and a whole message in it would need nobody to decode it.
    fn is_plain(&self) -> bool {
        self.phase == Phase::Open
            && self.context.is_none()
            && self.deflate.is_none()
            && !self.streams
            && self.scanner.at_boundary()
    }

    /// As [`Session::receive`], through a context.
    fn follow(&mut self, contexts: &mut Contexts, bytes: &[u8], events: &mut VecDeque<Event>, control: &mut Vec<u8>) {
        if !self.streams {
            let sound = &bytes[..self.scanner.advance(bytes)];
            let left = self.decode(contexts, sound, events, control);
            if let (Some(left), Some(deflate)) = (left, &mut self.deflate) {
                deflate.keep_rest(Box::new(Bytes::copy_from_slice(&sound[sound.len() - left..])));
            }
            self.put_back(contexts);
            return;
        }
        let mut streamed = Streamed::default();
        self.scanner.visit(bytes, &mut streamed);
        let Streamed { data, control: frames, messages } = streamed;
        if self.phase == Phase::Open && (!data.is_empty() || messages > 0) {
            events.push_back(Event::Part(data.into(), messages));
        }
        if !frames.is_empty() || self.scanner.violation().is_some() {
            self.decode(contexts, &frames, events, control);
            self.put_back(contexts);
        }
    }

    /// True where bytes that were received wait to be decoded, for what they hold is large.
    pub fn has_more(&self) -> bool {
        self.deflate.as_ref().is_some_and(|deflate| deflate.has_rest())
    }

    /// Goes on with what [`Session::receive`] left: to be called when its events have been dealt with.
    pub fn more(&mut self, contexts: &mut Contexts, events: &mut VecDeque<Event>, control: &mut Vec<u8>) {
        if let Some(mut rest) = self.deflate.as_mut().and_then(|deflate| deflate.take_rest()) {
            let left = self.decode(contexts, &rest, events, control);
            if let (Some(left), Some(deflate)) = (left, &mut self.deflate) {
                rest.advance(rest.len() - left);
                deflate.keep_rest(rest);
            }
            self.put_back(contexts);
        }
    }

    /// Returns how many bytes are left for later, where something is.
    fn decode(
        &mut self,
        contexts: &mut Contexts,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
        control: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut context = self.context.take().unwrap_or_else(|| contexts.take(self.scanner.max_message_size()));
        let inflate = self.deflate.as_mut().map(|deflate| (&mut **deflate, &mut contexts.deflate));
        let mut stream = ContextStream { input: bytes, output: control, inflate, left: Self::SLICE };
        let (mut decoded, mut rest) = (0, None);
        loop {
            match context.read(&mut stream) {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    decoded += message.len();
                    events.push_back(Event::Message(message));
                    if decoded >= Self::BURST {
                        rest = stream.rest();
                        if rest.is_some() {
                            break;
                        }
                    }
                }
                // The context has queued the Pong; the next read writes it.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(frame)) => {
                    self.phase = Phase::Closed;
                    let frame = match self.reserved_code() {
                        Some(code) => Some(close(code.into(), "")),
                        None => frame,
                    };
                    events.push_back(Event::Closed(frame));
                    break;
                }
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    if stream.left == 0 {
                        rest = stream.rest();
                        if rest.is_some() {
                            break;
                        }
                    }
                    if let Some(violation) = self.scanner.violation() {
                        events.push_back(Event::Failed(self.breach(violation)));
                        self.phase = Phase::Failed;
                    }
                    break;
                }
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    self.phase = Phase::Closed;
                    events.push_back(Event::Closed(None));
                    break;
                }
                Err(error) => {
                    events.push_back(Event::Failed(self.failure(&error)));
                    self.phase = Phase::Failed;
                    break;
                }
            }
        }
        self.context = Some(context);
        rest
    }

    /// Between two messages the context goes back.
    fn put_back(&mut self, contexts: &mut Contexts) {
        let between = if self.streams { !self.scanner.is_in_control() } else { self.scanner.at_boundary() };
        if self.phase == Phase::Open
            && between
            && !self.has_more()
            && let Some(context) = self.context.take()
            && self.scanner.reset_largest() <= Contexts::LARGE
        {
            contexts.put_back(context);
        }
    }

    /// The code of the client's Close where it is one that tungstenite does not let pass, and the rules do.
    fn reserved_code(&self) -> Option<u16> {
        let code = self.scanner.close_code();
        (self.reserved_close_codes && matches!(code, 1004 | 1014 | 1016..=2999)).then_some(code)
    }

    /// The form in which a message goes out, and whether that is compressed.
    pub fn encode(&mut self, contexts: &mut Contexts, payload: Bytes) -> (Bytes, bool) {
        match self.deflate.as_mut().and_then(|deflate| deflate.compress(&mut contexts.deflate, &payload)) {
            Some(compressed) => (compressed, true),
            None => (payload, false),
        }
    }

    /// A message of so many bytes is to be encoded in slices.
    pub fn is_slow(&self, bytes: usize) -> bool {
        self.deflate.as_ref().is_some_and(|deflate| deflate.is_large(bytes))
    }

    /// As [`Session::encode`] of a message that is large, in slices: step until the last, then [`Session::end_encode`]. `None`:
    /// it is not large.
    pub fn begin_encode(&mut self, contexts: &mut Contexts, payload: &Bytes) -> Option<Slices> {
        self.deflate.as_mut()?.begin(&mut contexts.deflate, payload)
    }

    /// What [`Session::encode`] returns.
    pub fn end_encode(&mut self, contexts: &mut Contexts, payload: Bytes, slices: Slices) -> (Bytes, bool) {
        match self.deflate.as_mut().and_then(|deflate| deflate.end(&mut contexts.deflate, slices)) {
            Some(compressed) => (compressed, true),
            None => (payload, false),
        }
    }

    /// Sessions of the same encoding give a message the same bytes in [`Session::encode`]. `None`: those of this one hang on
    /// what it has sent before.
    pub fn encoding(&self) -> Option<Encoding> {
        match &self.deflate {
            None => Some(Encoding(None)),
            Some(deflate) => deflate.encoding().map(|encoding| Encoding(Some(encoding))),
        }
    }

    /// What is no compressed data referred to earlier messages, or further back into them, than the client had agreed to.
    pub fn has_forgotten(&self) -> bool {
        self.deflate.as_ref().is_some_and(|deflate| deflate.has_forgotten())
    }

    /// The Close frame for what the client did wrong (section 7.4.1).
    fn failure(&self, error: &Error) -> CloseFrame {
        match error {
            Error::Utf8(_) => close(CloseCode::Invalid, "invalid UTF-8 in a text"),
            Error::Capacity(_) => self.breach(Violation::OversizedMessage),
            Error::Protocol(violation) => close(CloseCode::Protocol, &violation.to_string()),
            // Section 7.4.1: data "not consistent with the type of the message".
            Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
                close(CloseCode::Invalid, if self.has_forgotten() { FORGOTTEN } else { "not compressed data" })
            }
            other => close(CloseCode::Protocol, &other.to_string()),
        }
    }

    fn breach(&self, violation: Violation) -> CloseFrame {
        match violation {
            Violation::OversizedMessage => {
                close(violation.code(), &format!("message over {} bytes", self.scanner.max_message_size()))
            }
            _ => close(violation.code(), &violation.to_string()),
        }
    }

    /// Writes the answer to the client's Close frame, where one is due, to `out`: the same code (section 5.5.1), or 1002
    /// when the client's code may not be sent (section 7.4).
    pub fn reply(&mut self, out: &mut Vec<u8>) {
        if let (Phase::Closed, Some(context)) = (self.phase, self.context.as_mut()) {
            let before = out.len();
            // ConnectionClosed is how the context says that it wrote the reply.
            let _ = context.flush(&mut ContextStream::to(out));
            // Where there is a reply at all, and not our own Close out already.
            if let (Some(code), true) = (self.reserved_code(), out.len() > before) {
                out.truncate(before);
                put_control(out, Control::Close, &code.to_be_bytes());
            }
        }
        self.context = None;
    }

    /// Writes a Close frame of ours to `out`, unless one is out already or the client's own Close came first (then its
    /// answer is written). Data may not be sent afterwards; [`Session::receive`] goes on until the client's Close.
    pub fn close(&mut self, contexts: &mut Contexts, frame: CloseFrame, out: &mut Vec<u8>) {
        match self.phase {
            Phase::Closing => {}
            Phase::Closed => self.reply(out),
            Phase::Open | Phase::Failed => {
                let mut context = self.context.take().unwrap_or_else(|| contexts.take(self.scanner.max_message_size()));
                // 1005 stands for a Close without a code, and is never sent (RFC 6455 section 7.4.1).
                let frame = Some(frame).filter(|frame| frame.code != CloseCode::Status);
                // The stream below takes everything, so this cannot fail half-way.
                let _ = context.close(&mut ContextStream::to(out), frame);
                if self.phase == Phase::Open {
                    self.phase = Phase::Closing;
                    self.context = Some(context);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
