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

/// As [`masked`], of a whole data frame that says its length in a form that is longer than need be.
fn long_winded(kind: Data, payload: &[u8], bytes: usize) -> Vec<u8> {
    let mut out = vec![0x80 | u8::from(OpCode::Data(kind)), if bytes == 2 { 0xfe } else { 0xff }];
    out.extend(&(payload.len() as u64).to_be_bytes()[8 - bytes..]);
    out.extend([9, 8, 7, 6]);
    let begin = out.len();
    out.extend(payload);
    crate::wire::frame::unmask(&mut out[begin..], [9, 8, 7, 6], 0);
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

/// How a session is given what a client sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// All of it to a context of tungstenite.
    Context,
    Receive,
    /// What lies whole is taken where it is.
    Take,
}

/// A session with what it needs from its thread, and everything it said.
struct TestSession {
    session: Session,
    contexts: Contexts,
    events: VecDeque<Event>,
    out: Vec<u8>,
}

impl TestSession {
    fn new() -> TestSession {
        TestSession::of(&RULES)
    }

    fn of(rules: &Rules) -> TestSession {
        TestSession {
            session: Session::new(rules),
            contexts: Contexts::default(),
            events: VecDeque::new(),
            out: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> &mut TestSession {
        self.session.receive(&mut self.contexts, bytes, &mut self.events, &mut self.out);
        self
    }

    /// As [`TestSession::receive`], with messages that lie whole in `bytes` or without.
    fn receive_by(&mut self, way: Way, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut rest = &mut bytes[..];
        if way == Way::Take {
            while let Some(Whole { text, payload }) = self.session.take_whole(&mut rest) {
                self.events.push_back(Event::Message(match text {
                    true => Message::text(std::str::from_utf8(payload).unwrap()),
                    false => Message::binary(payload.to_vec()),
                }));
            }
        }
        match way {
            Way::Context if matches!(self.session.phase, Phase::Closed | Phase::Failed) => {}
            Way::Context => self.session.follow(&mut self.contexts, rest, &mut self.events, &mut self.out),
            Way::Take | Way::Receive => drop(self.receive(rest)),
        }
    }

    fn streaming() -> TestSession {
        TestSession { session: Session::streaming(&RULES), ..TestSession::new() }
    }

    /// All that came of a stream: its bytes, the messages they were in, and the event that ended it.
    fn streamed(&mut self) -> (Vec<u8>, u64, Option<Event>) {
        let (mut bytes, mut messages, mut end) = (Vec::new(), 0, None);
        for event in self.events.drain(..) {
            assert_eq!(end, None);
            match event {
                Event::Part(part, count) => {
                    bytes.extend_from_slice(&part);
                    messages += count;
                }
                other => end = Some(other),
            }
        }
        (bytes, messages, end)
    }

    /// The code that a stream of bytes makes the session fail with.
    fn failure(bytes: &[u8]) -> CloseCode {
        let mut test = TestSession::new();
        match test.receive(bytes).events.pop_back() {
            Some(Event::Failed(frame)) => {
                test.session.close(&mut test.contexts, frame.clone(), &mut test.out);
                assert_eq!(test.out[0], 0x88);
                assert_eq!(test.out[2..4], u16::from(frame.code).to_be_bytes());
                frame.code
            }
            other => panic!("no failure but {other:?}"),
        }
    }
}

#[test]
fn an_idle_session_keeps_no_context() {
    let mut test = TestSession::new();
    test.receive(&text("hello"));
    assert_eq!(test.events, [Event::Message(Message::text("hello"))]);
    assert!(!test.session.is_in_a_message());
    assert_eq!(test.contexts.spare.len(), 0, "for a whole message there was need of none");
    test.receive(&text("half")[..4]);
    assert!(test.session.is_in_a_message());
    test.receive(&text("half")[4..]);
    assert!(!test.session.is_in_a_message());
    assert_eq!(test.contexts.spare.len(), 1);
    test.receive(&text("half")[..4]);
    assert_eq!(test.contexts.spare.len(), 0);
    // On a 64-bit machine; what an idle connection costs hangs on it.
    assert!(std::mem::size_of::<Session>() <= 96, "{}", std::mem::size_of::<Session>());
}

#[test]
fn a_context_that_grew_large_is_not_kept() {
    let mut test = TestSession::new();
    test.session = Session::new(&Rules { max_message_size: 1 << 20, ..RULES });
    let frame = masked(true, OpCode::Data(Data::Binary), &vec![7; 100_000]);
    test.receive(&frame[..50]).receive(&frame[50..]);
    assert!(matches!(&test.events[0], Event::Message(m) if m.len() == 100_000));
    assert!(test.session.context.is_none());
    assert_eq!(test.contexts.spare.len(), 0);
}

#[test]
fn a_lent_context_has_the_limit_of_its_new_session() {
    let mut test = TestSession::new();
    test.receive(&text("hello")[..3]).receive(&text("hello")[3..]);
    assert_eq!(test.contexts.spare.len(), 1);
    test.session = Session::new(&Rules { max_message_size: 3, ..RULES });
    test.events.clear();
    test.receive(&text("hello"));
    assert!(matches!(&test.events[0], Event::Failed(f) if f.code == CloseCode::Size));
}

#[test]
fn pings_are_answered_also_between_fragments() {
    let mut test = TestSession::new();
    test.receive(&masked(false, OpCode::Data(Data::Text), b"a"));
    test.receive(&masked(true, OpCode::Control(Control::Ping), b"hi"));
    assert_eq!(test.out, b"\x8a\x02hi");
    test.receive(&masked(true, OpCode::Data(Data::Continue), b"b"));
    assert_eq!(test.events, [Event::Message(Message::text("ab"))]);
    assert!(test.session.context.is_none());
}

#[test]
fn control_frames_have_a_limit_of_their_own() {
    let mut test = TestSession::new();
    test.session = Session::new(&Rules { max_message_size: 1, ..RULES });
    test.receive(&masked(true, OpCode::Control(Control::Ping), &[7; 125]));
    assert_eq!(test.out.len(), 127);
    test.receive(&text("a"));
    assert_eq!(test.events, [Event::Message(Message::text("a"))]);
    test.receive(&text("ab")[..6]);
    assert_eq!(test.events[1], Event::Failed(close(CloseCode::Size, "message over 1 bytes")));
}

#[test]
fn a_close_is_answered_after_what_came_before_it() {
    let mut test = TestSession::new();
    let mut bytes = text("last");
    bytes.extend(closing(1000, "bye"));
    bytes.extend(text("ignored"));
    test.receive(&bytes);
    assert_eq!(test.events.len(), 2);
    assert!(test.out.is_empty(), "the reply waits for the handler");
    assert!(!test.session.is_open());
    test.session.reply(&mut test.out);
    assert_eq!(test.out, b"\x88\x05\x03\xe8bye");
    test.receive(&text("ignored"));
    assert_eq!(test.events.len(), 2);
}

#[test]
fn a_close_code_that_may_not_be_sent_is_answered_with_1002() {
    for code in [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, 65535] {
        let mut test = TestSession::new();
        test.receive(&closing(code, ""));
        test.session.reply(&mut test.out);
        assert_eq!(test.out[2..4], 1002u16.to_be_bytes(), "{code}");
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
        let mut test = TestSession::new();
        test.session = Session::new(&rules);
        test.receive(&closing(code, "why"));
        assert!(matches!(&test.events[0], Event::Closed(Some(f)) if u16::from(f.code) == reply), "{:?}", test.events);
        test.session.reply(&mut test.out);
        assert_eq!(test.out[2..4], u16::to_be_bytes(reply), "{code}");
        assert_eq!(test.out.len() - 2, usize::from(test.out[1]));
    }
    // It answers ours: nothing more is said.
    let mut test = TestSession::new();
    test.session = Session::new(&rules);
    test.session.close(&mut test.contexts, close(CloseCode::Away, ""), &mut test.out);
    let said = test.out.len();
    test.receive(&closing(1014, ""));
    test.session.reply(&mut test.out);
    assert_eq!(test.out.len(), said);
    // Without a code it is an ordinary Close.
    let mut test = TestSession::new();
    test.session = Session::new(&rules);
    test.receive(&masked(true, OpCode::Control(Control::Close), b""));
    test.session.reply(&mut test.out);
    assert_eq!(test.out, [0x88, 0]);
}

#[test]
fn our_close_waits_for_the_clients() {
    let mut test = TestSession::new();
    test.session.close(&mut test.contexts, close(CloseCode::Away, "stop"), &mut test.out);
    test.session.close(&mut test.contexts, close(CloseCode::Error, "twice"), &mut test.out);
    assert_eq!(test.out, b"\x88\x06\x03\xe9stop");
    assert!(!test.session.is_open());
    test.receive(&text("still under way"));
    test.receive(&closing(1001, "stop"));
    assert!(matches!(test.events[1], Event::Closed(Some(_))));
    test.session.reply(&mut test.out);
    assert_eq!(test.out.len(), 8, "no second Close");
}

#[test]
fn each_violation_has_its_code() {
    let data = |b: u8| TestSession::failure(&[b, 0x80, 0, 0, 0, 0]);
    assert_eq!(TestSession::failure(b"\x81\x01a"), CloseCode::Protocol, "unmasked");
    for reserved in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f] {
        assert_eq!(data(reserved), CloseCode::Protocol, "{reserved:#x}");
    }
    assert_eq!(data(0x80), CloseCode::Protocol, "a continuation of nothing");
    assert_eq!(data(0x09), CloseCode::Protocol, "a fragmented Ping");
    assert_eq!(TestSession::failure(&masked(true, OpCode::Control(Control::Ping), &[0; 126])), CloseCode::Protocol);
    assert_eq!(TestSession::failure(&masked(true, OpCode::Control(Control::Ping), &[0; 2000])), CloseCode::Protocol);
    assert_eq!(TestSession::failure(&masked(true, OpCode::Data(Data::Text), b"\xff")), CloseCode::Invalid);
    assert_eq!(TestSession::failure(&masked(true, OpCode::Control(Control::Close), b"\x03")), CloseCode::Protocol);
    assert_eq!(
        TestSession::failure(&masked(true, OpCode::Control(Control::Close), b"\x03\xe8\xff")),
        CloseCode::Invalid
    );
    let ping = masked(true, OpCode::Control(Control::Ping), &[0; 126]);
    assert_eq!(TestSession::failure(&ping[..8]), CloseCode::Protocol, "as soon as the header is there");
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(TestSession::failure(&huge), CloseCode::Size, "as soon as the header is there");
    let mut fragments = masked(false, OpCode::Data(Data::Binary), &[0; LIMIT]);
    fragments.extend(masked(true, OpCode::Data(Data::Continue), &[0]));
    assert_eq!(TestSession::failure(&fragments), CloseCode::Size);
    let mut interleaved = masked(false, OpCode::Data(Data::Text), b"a");
    interleaved.extend(text("b"));
    assert_eq!(TestSession::failure(&interleaved), CloseCode::Protocol);
}

fn payload_of(lengths: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> + Clone {
    prop::collection::vec(any::<u8>(), lengths)
}

/// A frame, most often a good one by itself.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = payload_of(0..200);
    prop_oneof![
        "[a-zA-Zä-ü€]{0,60}".prop_map(|s| text(&s)),
        payload.clone().prop_map(|p| masked(true, OpCode::Data(Data::Binary), &p)),
        payload.clone().prop_map(|p| masked(false, OpCode::Data(Data::Binary), &p)),
        payload.clone().prop_map(|p| masked(true, OpCode::Data(Data::Continue), &p)),
        payload.prop_map(|p| masked(true, OpCode::Control(Control::Ping), &p)),
        (900u16..5100).prop_map(|c| closing(c, "x")),
        Just(masked(true, OpCode::Control(Control::Close), b"")),
        (900usize..1100).prop_map(|length| masked(true, OpCode::Data(Data::Binary), &vec![0; length])),
        ("[a-zé€]{0,40}", any::<bool>()).prop_map(|(text, huge)| long_winded(
            Data::Text,
            text.as_bytes(),
            if huge { 8 } else { 2 }
        )),
        payload_of(0..300).prop_map(|p| masked(true, OpCode::Data(Data::Text), &p)),
        (0u8..=255, payload_of(0..40)).prop_map(|(first, p)| {
            let mut frame = masked(true, OpCode::Data(Data::Binary), &p);
            frame[0] = first;
            frame
        }),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

/// A message whose size is around the limit now and then, in fragments that are cut anywhere, also within a character, with
/// Pings and Pongs between them; and, seldom, with a bad byte in it.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let text =
        ("[a-zé€😀]{1,40}", 0usize..30).prop_map(|(piece, times)| (Data::Text, piece.repeat(times).into_bytes()));
    let binary = (0usize..1100).prop_map(|length| (Data::Binary, vec![0xff; length]));
    let cuts = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6);
    let bad = prop_oneof![9 => Just(None), 1 => any::<(prop::sample::Index, u8)>().prop_map(Some)];
    (prop_oneof![3 => text, 1 => binary], cuts, bad).prop_map(|((kind, mut payload), mut cuts, bad)| {
        if let (Some((place, byte)), false) = (bad, payload.is_empty()) {
            *place.get_mut(&mut payload) = byte;
        }
        cuts.sort_by_key(|(place, _)| place.index(payload.len() + 1));
        let (mut frames, mut begin) = (Vec::new(), 0);
        for (place, asks) in cuts {
            let end = place.index(payload.len() + 1);
            let opcode = if frames.is_empty() { kind } else { Data::Continue };
            frames.extend(masked(false, OpCode::Data(opcode), &payload[begin..end]));
            let control = if asks { Control::Ping } else { Control::Pong };
            frames.extend(masked(true, OpCode::Control(control), b"here"));
            begin = end;
        }
        let opcode = if frames.is_empty() { kind } else { Data::Continue };
        frames.extend(masked(true, OpCode::Data(opcode), &payload[begin..]));
        frames
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_chunking_gives_the_same_events(
        visitor in prop::collection::vec(prop_oneof![any_frame(), any_message()], 0..8),
        missing in prop_oneof![2 => Just(0), 1 => 0usize..50],
        chunks in prop::collection::vec(prop_oneof![1usize..10, 1usize..600], 1..20),
        reserved_close_codes in any::<bool>(),
        max_message_size in prop_oneof![3 => Just(LIMIT), 1 => 1usize..130],
    ) {
        let mut bytes = visitor.concat();
        bytes.truncate(bytes.len().saturating_sub(missing));
        let rules = Rules { max_message_size, reserved_close_codes, ..RULES };
        let mut whole = TestSession::of(&rules);
        whole.receive(&bytes);
        let mut pieces = TestSession::of(&rules);
        let (mut rest, mut chunks) = (&bytes[..], chunks.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*chunks.next().unwrap()));
            pieces.receive(piece);
            rest = after;
        }
        prop_assert_eq!(&whole.events, &pieces.events);
        prop_assert_eq!(&whole.out, &pieces.out);
        prop_assert_eq!(whole.session.is_open(), pieces.session.is_open());
        prop_assert_eq!(whole.session.is_in_a_message(), pieces.session.is_in_a_message());
        for (n, event) in whole.events.iter().enumerate() {
            match event {
                Event::Message(message) => prop_assert!(message.len() <= max_message_size),
                _ => prop_assert_eq!(n + 1, whole.events.len()),
            }
        }
        prop_assert_eq!(whole.session.is_open(), matches!(whole.events.back(), None | Some(Event::Message(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whether a message is decoded by a context or taken where it lies is to be seen nowhere.
    #[test]
    fn whole_messages_are_as_decoded_ones(
        client in prop::collection::vec(prop_oneof![2 => any_frame(), 1 => any_message()], 0..12),
        missing in prop_oneof![2 => Just(0), 1 => 0usize..50],
        chunks in prop::collection::vec(prop_oneof![1 => 1usize..10, 2 => 1usize..600, 2 => Just(usize::MAX)], 1..20),
        reserved_close_codes in any::<bool>(),
        max_message_size in prop_oneof![2 => Just(LIMIT), 1 => Just(100_000), 1 => 1usize..130],
        close_at in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..10],
    ) {
        let mut bytes = client.concat();
        bytes.truncate(bytes.len().saturating_sub(missing));
        let rules = Rules { max_message_size, reserved_close_codes, ..RULES };
        let mut tests = [Way::Context, Way::Receive, Way::Take].map(|way| (way, TestSession::of(&rules)));
        let (mut rest, mut chunks) = (&bytes[..], chunks.iter().cycle().enumerate());
        while !rest.is_empty() {
            let (n, length) = chunks.next().unwrap();
            let (piece, after) = rest.split_at(rest.len().min(*length));
            rest = after;
            for (way, test) in &mut tests {
                if n == close_at {
                    test.session.close(&mut test.contexts, close(CloseCode::Away, "going"), &mut test.out);
                }
                test.receive_by(*way, piece);
            }
            let [(_, decoded), others @ ..] = &tests;
            for (way, test) in others {
                prop_assert_eq!(&test.events, &decoded.events, "{:?}", way);
                prop_assert_eq!(&test.out, &decoded.out, "{:?}", way);
                let state = |session: &Session| {
                    // What is held of a session that has failed is another matter.
                    let held = session.is_open().then(|| (session.unfinished(), session.held()));
                    (session.phase, session.is_in_a_message(), held)
                };
                prop_assert_eq!(state(&test.session), state(&decoded.session), "{:?}", way);
            }
        }
        let farewells = tests.map(|(_, mut test)| {
            match test.events.back() {
                Some(Event::Closed(_)) => test.session.reply(&mut test.out),
                _ => test.session.close(&mut test.contexts, close(CloseCode::Normal, "end"), &mut test.out),
            }
            test.out
        });
        prop_assert_eq!(&farewells[1], &farewells[0]);
        prop_assert_eq!(&farewells[2], &farewells[0]);
    }
}

#[test]
fn what_is_no_good_whole_message_stays_as_it_came() {
    let test = TestSession::new();
    let not_text = masked(true, OpCode::Data(Data::Text), b"ab\xffc");
    let too_long = masked(true, OpCode::Data(Data::Binary), &[1; LIMIT + 1]);
    let fragment = masked(false, OpCode::Data(Data::Binary), b"a");
    let ping = masked(true, OpCode::Control(Control::Ping), b"a");
    for frame in [not_text, too_long, fragment, ping, text("half")[..7].to_vec(), b"\x81\x01a".to_vec(), vec![]] {
        let mut bytes = [text("before"), frame.clone()].concat();
        let mut rest = &mut bytes[..];
        let before = test.session.take_whole(&mut rest).unwrap();
        assert_eq!(before, Whole { text: true, payload: b"before" });
        assert_eq!(test.session.take_whole(&mut rest), None);
        assert_eq!(*rest, frame);
    }
}

#[test]
fn a_stream_has_no_longest_message() {
    let large = vec![7; 40 * LIMIT];
    let mut test = TestSession::streaming();
    let frame = masked(true, OpCode::Data(Data::Binary), &large);
    test.receive(&frame[..5000]);
    assert!(test.session.is_in_a_message());
    let (first, messages, end) = test.streamed();
    assert_eq!((messages, end), (0, None));
    test.receive(&frame[5000..]);
    assert!(!test.session.is_in_a_message());
    let (rest, messages, end) = test.streamed();
    assert_eq!(([first, rest].concat(), messages, end), (large, 1, None));
}

#[test]
fn a_stream_breaks_as_messages_do() {
    for (bytes, code) in [
        (
            [masked(false, OpCode::Data(Data::Text), b"\xce"), masked(true, OpCode::Data(Data::Continue), b"")]
                .concat(),
            None,
        ),
        (masked(true, OpCode::Data(Data::Text), b"a\xce"), Some(CloseCode::Invalid)),
        (masked(true, OpCode::Data(Data::Text), b"a\xff"), Some(CloseCode::Invalid)),
        (masked(true, OpCode::Data(Data::Continue), b"a"), Some(CloseCode::Protocol)),
        (vec![0x82, 1, 0], Some(CloseCode::Protocol)),
    ] {
        let mut test = TestSession::streaming();
        test.receive(&bytes);
        let seen = match test.streamed().2 {
            Some(Event::Failed(frame)) => Some(frame.code),
            end => {
                assert_eq!(end, None, "{bytes:?}");
                None
            }
        };
        assert_eq!(seen, code, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn a_stream_is_the_same_however_it_is_cut(
        messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 0..6),
        chunk in 1usize..50,
    ) {
        let (mut stream, mut data, mut pings) = (Vec::new(), Vec::new(), 0);
        for (in_two, payload) in &messages {
            let (begin, rest) = payload.split_at(if *in_two { payload.len() / 2 } else { payload.len() });
            stream.extend(masked(!in_two, OpCode::Data(Data::Binary), begin));
            if *in_two {
                stream.extend(masked(true, OpCode::Control(Control::Ping), b"there?"));
                stream.extend(masked(true, OpCode::Data(Data::Continue), rest));
                pings += 1;
            }
            data.extend_from_slice(payload);
        }
        stream.extend(closing(1000, "bye"));
        let mut test = TestSession::streaming();
        for piece in stream.chunks(chunk) {
            test.receive(piece);
        }
        let (bytes, count, end) = test.streamed();
        prop_assert_eq!(bytes, data);
        prop_assert_eq!(count, messages.len() as u64);
        prop_assert_eq!(end, Some(Event::Closed(Some(close(CloseCode::Normal, "bye")))));
        let pongs = [&[0x8a, 6][..], b"there?"].concat().repeat(pings);
        prop_assert_eq!(&test.out, &pongs);
    }
}
