//! One WebSocket connection as a state machine: bytes in, events and reply bytes out.
//!
//! tungstenite's [`WebSocketContext`] decodes, unmasks, checks and answers control frames. It keeps a read buffer, so an
//! idle connection does not keep *it*: between two messages the context goes back to the [`Contexts`] of the thread, and
//! what remains of a session is a few dozen bytes.

use super::frame::Cursor;
use super::{CloseCode, CloseFrame, Message, close};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use tungstenite::error::Error;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

/// What a session found in the bytes it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A whole data message.
    Message(Message),
    /// The client's Close frame: its request to close, or its answer to ours. [`Session::reply`] sends the answer that is due.
    Closed(Option<CloseFrame>),
    /// The client broke the protocol; nothing it sends is looked at any more. The frame to close with: [`Session::close`].
    Failed(CloseFrame),
}

/// Protocol contexts in between two uses, shared by the sessions of a thread.
#[derive(Debug)]
pub struct Contexts {
    // Boxed, so that lending one moves a pointer and not some hundred bytes.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<WebSocketContext>>,
}

impl Contexts {
    /// Bytes that a context takes in at once. It zeroes this much before each read, so larger is not faster.
    const READ_BUFFER: usize = 4096;
    /// How many are kept: as many sessions as are in the middle of a message at a time, usually.
    const KEPT: usize = 32;
    /// A context that has seen a payload this large (bytes) holds a buffer of that size, and is not kept.
    const LARGE: u64 = 16 * 1024;

    /// No contexts yet.
    pub fn new() -> Contexts {
        Contexts { spare: Vec::new() }
    }

    fn take(&mut self, max_message_size: usize) -> Box<WebSocketContext> {
        let limit = |config: &mut WebSocketConfig| {
            config.max_message_size = Some(max_message_size);
            config.max_frame_size = Some(max_message_size);
        };
        match self.spare.pop() {
            Some(mut context) => {
                context.set_config(limit);
                context
            }
            None => {
                let mut config = WebSocketConfig::default().read_buffer_size(Self::READ_BUFFER).write_buffer_size(0);
                limit(&mut config);
                Box::new(WebSocketContext::new(Role::Server, Some(config)))
            }
        }
    }

    fn put_back(&mut self, context: Box<WebSocketContext>) {
        if self.spare.len() < Self::KEPT {
            self.spare.push(context);
        }
    }
}

impl Default for Contexts {
    fn default() -> Self {
        Contexts::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Messages go both ways.
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
    cursor: Cursor,
    max_message_size: usize,
    phase: Phase,
}

impl Session {
    /// A session just after the opening handshake, for messages of at most `max_message_size` bytes.
    pub fn new(max_message_size: usize) -> Session {
        Session { context: None, cursor: Cursor::default(), max_message_size, phase: Phase::Open }
    }

    /// True while data may be sent: no Close frame went either way and the protocol was kept.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// True where the client has begun a message, or a frame, and not finished it; and when the session is no longer open.
    pub fn is_in_a_message(&self) -> bool {
        self.context.is_some()
    }

    /// Takes in what the client sent: any piece of the stream, in order. Appends what it held to `events`, and answers
    /// to Ping frames to `control`.
    ///
    /// After [`Event::Closed`] or [`Event::Failed`] the rest of the stream is ignored (RFC 6455 section 1.4).
    pub fn receive(
        &mut self,
        contexts: &mut Contexts,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
        control: &mut Vec<u8>,
    ) {
        if matches!(self.phase, Phase::Closed | Phase::Failed) {
            return;
        }
        let sound = self.cursor.advance(bytes);
        let mut context = self.context.take().unwrap_or_else(|| contexts.take(self.max_message_size));
        let mut stream = Stream { input: &bytes[..sound], output: control };
        loop {
            match context.read(&mut stream) {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => events.push_back(Event::Message(message)),
                // The context has queued the Pong; the next read writes it.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(frame)) => {
                    self.phase = Phase::Closed;
                    events.push_back(Event::Closed(frame));
                    break;
                }
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(violation) = self.cursor.violation() {
                        events.push_back(Event::Failed(close(CloseCode::Protocol, &violation.to_string())));
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
        if self.phase == Phase::Open && self.cursor.at_boundary() {
            if self.cursor.reset_largest() <= Contexts::LARGE {
                contexts.put_back(context);
            }
        } else {
            self.context = Some(context);
        }
    }

    /// The Close frame for what the client did wrong (section 7.4.1).
    fn failure(&self, error: &Error) -> CloseFrame {
        match error {
            Error::Utf8(_) => close(CloseCode::Invalid, "invalid UTF-8 in a text"),
            Error::Capacity(_) => close(CloseCode::Size, &format!("message over {} bytes", self.max_message_size)),
            Error::Protocol(violation) => close(CloseCode::Protocol, &violation.to_string()),
            other => close(CloseCode::Protocol, &other.to_string()),
        }
    }

    /// Writes the answer to the client's Close frame, where one is due, to `out`: the same code (section 5.5.1), or 1002
    /// when the client's code may not be sent (section 7.4).
    pub fn reply(&mut self, out: &mut Vec<u8>) {
        if let (Phase::Closed, Some(context)) = (self.phase, self.context.as_mut()) {
            // ConnectionClosed is how the context says that it wrote the reply.
            let _ = context.flush(&mut Stream { input: &[], output: out });
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
                let mut context = self.context.take().unwrap_or_else(|| contexts.take(self.max_message_size));
                // 1005 stands for a Close without a code, and is never sent (RFC 6455 section 7.4.1).
                let frame = Some(frame).filter(|frame| frame.code != CloseCode::Status);
                // The stream below takes everything, so this cannot fail half-way.
                let _ = context.close(&mut Stream { input: &[], output: out }, frame);
                if self.phase == Phase::Open {
                    self.phase = Phase::Closing;
                    self.context = Some(context);
                }
            }
        }
    }
}

/// What the context takes for its socket: a slice to read, a vector to write.
struct Stream<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buf)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tungstenite::protocol::frame::{Frame, FrameHeader};

    const LIMIT: usize = 1000;

    fn masked(fin: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { is_final: fin, opcode, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
        let mut out = Vec::new();
        Frame::from_payload(header, payload.to_vec().into()).format(&mut out).unwrap();
        out
    }

    fn text(payload: &str) -> Vec<u8> {
        masked(true, OpCode::Data(Data::Text), payload.as_bytes())
    }

    fn closing(code: u16, reason: &str) -> Vec<u8> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes());
        masked(true, OpCode::Control(Control::Close), &payload)
    }

    /// A session with what it needs from its thread, and everything it said.
    struct Rig {
        session: Session,
        contexts: Contexts,
        events: VecDeque<Event>,
        out: Vec<u8>,
    }

    impl Rig {
        fn new() -> Rig {
            Rig { session: Session::new(LIMIT), contexts: Contexts::new(), events: VecDeque::new(), out: Vec::new() }
        }

        fn receive(&mut self, bytes: &[u8]) -> &mut Rig {
            self.session.receive(&mut self.contexts, bytes, &mut self.events, &mut self.out);
            self
        }

        /// The code that a stream of bytes makes the session fail with.
        fn failure(bytes: &[u8]) -> CloseCode {
            let mut rig = Rig::new();
            match rig.receive(bytes).events.pop_back() {
                Some(Event::Failed(frame)) => {
                    rig.session.close(&mut rig.contexts, frame.clone(), &mut rig.out);
                    assert_eq!(rig.out[0], 0x88);
                    assert_eq!(rig.out[2..4], u16::from(frame.code).to_be_bytes());
                    frame.code
                }
                other => panic!("no failure but {other:?}"),
            }
        }
    }

    #[test]
    fn an_idle_session_keeps_no_context() {
        let mut rig = Rig::new();
        rig.receive(&text("hello"));
        assert_eq!(rig.events, [Event::Message(Message::text("hello"))]);
        assert!(!rig.session.is_in_a_message());
        assert_eq!(rig.contexts.spare.len(), 1);
        rig.receive(&text("half")[..4]);
        assert!(rig.session.is_in_a_message());
        assert_eq!(rig.contexts.spare.len(), 0);
        // On a 64-bit machine; what an idle connection costs hangs on it.
        assert!(std::mem::size_of::<Session>() <= 72, "{}", std::mem::size_of::<Session>());
    }

    #[test]
    fn a_context_that_grew_large_is_not_kept() {
        let mut rig = Rig::new();
        rig.session.max_message_size = 1 << 20;
        rig.receive(&masked(true, OpCode::Data(Data::Binary), &vec![7; 100_000]));
        assert!(matches!(&rig.events[0], Event::Message(m) if m.len() == 100_000));
        assert!(rig.session.context.is_none());
        assert_eq!(rig.contexts.spare.len(), 0);
    }

    #[test]
    fn a_lent_context_has_the_limit_of_its_new_session() {
        let mut rig = Rig::new();
        rig.receive(&text("hello"));
        rig.session = Session::new(3);
        rig.events.clear();
        rig.receive(&text("hello"));
        assert!(matches!(&rig.events[0], Event::Failed(f) if f.code == CloseCode::Size));
    }

    #[test]
    fn pings_are_answered_also_between_fragments() {
        let mut rig = Rig::new();
        rig.receive(&masked(false, OpCode::Data(Data::Text), b"a"));
        rig.receive(&masked(true, OpCode::Control(Control::Ping), b"hi"));
        assert_eq!(rig.out, b"\x8a\x02hi");
        rig.receive(&masked(true, OpCode::Data(Data::Continue), b"b"));
        assert_eq!(rig.events, [Event::Message(Message::text("ab"))]);
        assert!(rig.session.context.is_none());
    }

    #[test]
    fn a_close_is_answered_after_what_came_before_it() {
        let mut rig = Rig::new();
        let mut bytes = text("last");
        bytes.extend(closing(1000, "bye"));
        bytes.extend(text("ignored"));
        rig.receive(&bytes);
        assert_eq!(rig.events.len(), 2);
        assert!(rig.out.is_empty(), "the reply waits for the handler");
        assert!(!rig.session.is_open());
        rig.session.reply(&mut rig.out);
        assert_eq!(rig.out, b"\x88\x05\x03\xe8bye");
        rig.receive(&text("ignored"));
        assert_eq!(rig.events.len(), 2);
    }

    #[test]
    fn a_close_code_that_may_not_be_sent_is_answered_with_1002() {
        for code in [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, 65535] {
            let mut rig = Rig::new();
            rig.receive(&closing(code, ""));
            rig.session.reply(&mut rig.out);
            assert_eq!(rig.out[2..4], 1002u16.to_be_bytes(), "{code}");
        }
    }

    #[test]
    fn our_close_waits_for_the_clients() {
        let mut rig = Rig::new();
        rig.session.close(&mut rig.contexts, close(CloseCode::Away, "stop"), &mut rig.out);
        rig.session.close(&mut rig.contexts, close(CloseCode::Error, "twice"), &mut rig.out);
        assert_eq!(rig.out, b"\x88\x06\x03\xe9stop");
        assert!(!rig.session.is_open());
        rig.receive(&text("still under way"));
        rig.receive(&closing(1001, "stop"));
        assert!(matches!(rig.events[1], Event::Closed(Some(_))));
        rig.session.reply(&mut rig.out);
        assert_eq!(rig.out.len(), 8, "no second Close");
    }

    #[test]
    fn each_violation_has_its_code() {
        let data = |b: u8| Rig::failure(&[b, 0x80, 0, 0, 0, 0]);
        assert_eq!(Rig::failure(b"\x81\x01a"), CloseCode::Protocol, "unmasked");
        for reserved in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f] {
            assert_eq!(data(reserved), CloseCode::Protocol, "{reserved:#x}");
        }
        assert_eq!(data(0x80), CloseCode::Protocol, "a continuation of nothing");
        assert_eq!(data(0x09), CloseCode::Protocol, "a fragmented Ping");
        assert_eq!(Rig::failure(&masked(true, OpCode::Control(Control::Ping), &[0; 126])), CloseCode::Protocol);
        assert_eq!(Rig::failure(&masked(true, OpCode::Control(Control::Ping), &[0; 2000])), CloseCode::Protocol);
        assert_eq!(Rig::failure(&masked(true, OpCode::Data(Data::Text), b"\xff")), CloseCode::Invalid);
        assert_eq!(Rig::failure(&masked(true, OpCode::Control(Control::Close), b"\x03")), CloseCode::Protocol);
        assert_eq!(Rig::failure(&masked(true, OpCode::Control(Control::Close), b"\x03\xe8\xff")), CloseCode::Invalid);
        let ping = masked(true, OpCode::Control(Control::Ping), &[0; 126]);
        assert_eq!(Rig::failure(&ping[..8]), CloseCode::Protocol, "as soon as the header is there");
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(Rig::failure(&huge), CloseCode::Size, "as soon as the header is there");
        let mut fragments = masked(false, OpCode::Data(Data::Binary), &[0; LIMIT]);
        fragments.extend(masked(true, OpCode::Data(Data::Continue), &[0]));
        assert_eq!(Rig::failure(&fragments), CloseCode::Size);
        let mut interleaved = masked(false, OpCode::Data(Data::Text), b"a");
        interleaved.extend(text("b"));
        assert_eq!(Rig::failure(&interleaved), CloseCode::Protocol);
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop::collection::vec(any::<u8>(), 0..200);
        prop_oneof![
            "[a-zA-Zä-ü€]{0,60}".prop_map(|s| text(&s)),
            payload.clone().prop_map(|p| masked(true, OpCode::Data(Data::Binary), &p)),
            payload.clone().prop_map(|p| masked(false, OpCode::Data(Data::Binary), &p)),
            payload.clone().prop_map(|p| masked(true, OpCode::Data(Data::Continue), &p)),
            payload.prop_map(|p| masked(true, OpCode::Control(Control::Ping), &p)),
            (900u16..5100).prop_map(|c| closing(c, "x")),
            prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            frames in prop::collection::vec(any_frame(), 0..8),
            chunk in 1usize..300,
        ) {
            let bytes = frames.concat();
            let mut whole = Rig::new();
            whole.receive(&bytes);
            let mut pieces = Rig::new();
            for piece in bytes.chunks(chunk) {
                pieces.receive(piece);
            }
            prop_assert_eq!(&whole.events, &pieces.events);
            prop_assert_eq!(&whole.out, &pieces.out);
            prop_assert_eq!(whole.session.is_open(), pieces.session.is_open());
        }
    }
}
