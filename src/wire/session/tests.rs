//! What a session makes of the bytes of a client.

use super::*;
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

const LIMIT: usize = 1000;
const RULES: Rules = Rules { max_message_size: LIMIT, compression: None, reserved_close_codes: false };

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
        Rig { session: Session::new(&RULES), contexts: Contexts::default(), events: VecDeque::new(), out: Vec::new() }
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
    assert!(std::mem::size_of::<Session>() <= 96, "{}", std::mem::size_of::<Session>());
}

#[test]
fn a_context_that_grew_large_is_not_kept() {
    let mut rig = Rig::new();
    rig.session = Session::new(&Rules { max_message_size: 1 << 20, ..RULES });
    rig.receive(&masked(true, OpCode::Data(Data::Binary), &vec![7; 100_000]));
    assert!(matches!(&rig.events[0], Event::Message(m) if m.len() == 100_000));
    assert!(rig.session.context.is_none());
    assert_eq!(rig.contexts.spare.len(), 0);
}

#[test]
fn a_lent_context_has_the_limit_of_its_new_session() {
    let mut rig = Rig::new();
    rig.receive(&text("hello"));
    rig.session = Session::new(&Rules { max_message_size: 3, ..RULES });
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
fn control_frames_have_a_limit_of_their_own() {
    let mut rig = Rig::new();
    rig.session = Session::new(&Rules { max_message_size: 1, ..RULES });
    rig.receive(&masked(true, OpCode::Control(Control::Ping), &[7; 125]));
    assert_eq!(rig.out.len(), 127);
    rig.receive(&text("a"));
    assert_eq!(rig.events, [Event::Message(Message::text("a"))]);
    rig.receive(&text("ab")[..6]);
    assert_eq!(rig.events[1], Event::Failed(close(CloseCode::Size, "message over 1 bytes")));
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
fn reserved_close_codes_may_be_allowed() {
    let rules = Rules { reserved_close_codes: true, ..RULES };
    for (code, reply) in [
        (1004, 1004),
        (1014, 1014),
        (1016, 1016),
        (2999, 2999),
        (1000, 1000),
        (3000, 3000),
        (999, 1002),
        (1005, 1002),
        (1006, 1002),
        (1015, 1002),
        (5000, 1002),
    ] {
        let mut rig = Rig::new();
        rig.session = Session::new(&rules);
        rig.receive(&closing(code, "why"));
        assert!(matches!(&rig.events[0], Event::Closed(Some(f)) if u16::from(f.code) == reply), "{:?}", rig.events);
        rig.session.reply(&mut rig.out);
        assert_eq!(rig.out[2..4], u16::to_be_bytes(reply), "{code}");
        assert_eq!(rig.out.len() - 2, usize::from(rig.out[1]));
    }
    // It answers ours: nothing more is said.
    let mut rig = Rig::new();
    rig.session = Session::new(&rules);
    rig.session.close(&mut rig.contexts, close(CloseCode::Away, ""), &mut rig.out);
    let said = rig.out.len();
    rig.receive(&closing(1014, ""));
    rig.session.reply(&mut rig.out);
    assert_eq!(rig.out.len(), said);
    // Without a code it is an ordinary Close.
    let mut rig = Rig::new();
    rig.session = Session::new(&rules);
    rig.receive(&masked(true, OpCode::Control(Control::Close), b""));
    rig.session.reply(&mut rig.out);
    assert_eq!(rig.out, [0x88, 0]);
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
