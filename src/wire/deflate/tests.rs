//! Compressed sessions against a client made of zlib.

use super::incoming::put_header;
use super::*;
use crate::wire::extension::MIN_WINDOW_BITS;
use crate::wire::frame::{Header, unmask};
use crate::wire::session::{Contexts, Event, Rules, Session};
use crate::wire::{CloseCode, Message};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io;
use zlib_rs::{DeflateFlush, Inflate, InflateFlush};

mod inflater;
mod slices;

const LIMIT: usize = 300_000;

const PARAMETERS: Parameters = Parameters {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

fn compression(parameters: Parameters) -> Compression {
    Compression { parameters, level: 6, min_size: 1 }
}

/// A client: it compresses with zlib, and sends frames of `piece` bytes.
pub(in crate::wire) struct Client {
    deflate: Deflate,
    inflate: Inflate,
    parameters: Parameters,
    piece: usize,
}

impl Client {
    pub(in crate::wire) fn new(parameters: Parameters, piece: usize) -> Client {
        // zlib has no raw window of 256 bytes.
        let window = parameters.client_max_window_bits.max(MIN_WINDOW_BITS + 1);
        Client {
            deflate: Deflate::new(6, false, window),
            inflate: Inflate::new(false, parameters.server_max_window_bits.max(MIN_WINDOW_BITS)),
            parameters,
            piece,
        }
    }

    pub(in crate::wire) fn compress(&mut self, payload: &[u8], flush: DeflateFlush) -> Vec<u8> {
        if self.parameters.client_no_context_takeover {
            self.deflate.reset();
        }
        let mut out = vec![0; payload.len() + payload.len() / 100 + 200];
        let before = self.deflate.total_out();
        self.deflate.compress(payload, &mut out, flush).unwrap();
        out.truncate((self.deflate.total_out() - before) as usize);
        if flush == DeflateFlush::SyncFlush && out.is_empty() {
            // zlib does not flush twice in a row. RFC 7692 section 7.2.3.6: an empty block without its tail.
            out.push(0);
        } else if flush == DeflateFlush::SyncFlush {
            assert!(out.ends_with(&TAIL));
            out.truncate(out.len() - 4);
        }
        out
    }

    /// A message, compressed or not, in frames.
    fn message(&mut self, text: bool, payload: &[u8], compressed: bool) -> Vec<u8> {
        let opcode = if text { 1 } else { 2 };
        if !compressed {
            return frames(opcode, payload, self.piece);
        }
        let payload = self.compress(payload, DeflateFlush::SyncFlush);
        frames(0x40 | opcode, &payload, self.piece)
    }

    pub(in crate::wire) fn read(&mut self, (payload, compressed): (Bytes, bool)) -> Vec<u8> {
        if !compressed {
            return payload.to_vec();
        }
        if self.parameters.server_no_context_takeover {
            // Not `reset`, which forgets the window's size.
            self.inflate = Inflate::new(false, self.parameters.server_max_window_bits);
        }
        let mut input = payload.to_vec();
        input.extend(TAIL);
        let mut out = vec![0; 2 * LIMIT + 1];
        let before = self.inflate.total_out();
        self.inflate.decompress(&input, &mut out, InflateFlush::SyncFlush).unwrap();
        out.truncate((self.inflate.total_out() - before) as usize);
        out
    }
}

/// A message in masked frames of at most `piece` bytes of payload; `first` is the first byte of its first header.
fn frames(first: u8, payload: &[u8], piece: usize) -> Vec<u8> {
    let mask = [9, 200, 0, 77];
    let mut out = Vec::new();
    let count = payload.len().div_ceil(piece).max(1);
    for n in 0..count {
        let part = &payload[n * piece..payload.len().min((n + 1) * piece)];
        let mut head = [0; 14];
        let opcode = if n == 0 { first } else { 0 };
        let header = Header { fin: n + 1 == count, reserved: 0, opcode, mask: Some(mask), length: part.len() as u64 };
        let length = put_header(&mut head, &header);
        out.extend_from_slice(&head[..length]);
        let begin = out.len();
        out.extend_from_slice(part);
        unmask(&mut out[begin..], mask, 0);
    }
    out
}

struct DeflateSession {
    session: Session,
    contexts: Contexts,
    events: VecDeque<Event>,
    out: Vec<u8>,
}

impl DeflateSession {
    fn new(parameters: Parameters) -> DeflateSession {
        let rules =
            Rules { max_message_size: LIMIT, compression: Some(compression(parameters)), reserved_close_codes: false };
        DeflateSession {
            session: Session::new(&rules),
            contexts: Contexts::default(),
            events: VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// With another limit.
    fn large(parameters: Parameters, max_message_size: usize) -> DeflateSession {
        let compression = Some(compression(parameters));
        let rules = Rules { max_message_size, compression, reserved_close_codes: false };
        DeflateSession { session: Session::new(&rules), ..DeflateSession::new(parameters) }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.session.receive(&mut self.contexts, bytes, &mut self.events, &mut self.out);
        while self.session.has_more() {
            self.session.more(&mut self.contexts, &mut self.events, &mut self.out);
        }
    }

    fn messages(&self) -> Vec<Message> {
        let messages = self.events.iter().map(|event| match event {
            Event::Message(message) => message.clone(),
            other => panic!("{other:?}"),
        });
        messages.collect()
    }

    fn failure(&self) -> CloseCode {
        match self.events.back() {
            Some(Event::Failed(frame)) => frame.code,
            other => panic!("no failure but {other:?}"),
        }
    }

    fn reason(&self) -> &str {
        match self.events.back() {
            Some(Event::Failed(frame)) => frame.reason.as_str(),
            other => panic!("no failure but {other:?}"),
        }
    }
}

/// Something that compresses, and not to nothing.
fn prose(length: usize) -> Vec<u8> {
    let words = (0u32..).flat_map(|n| format!("{} sheep and {} goats; ", n * n % 1013, n % 17).into_bytes());
    words.take(length).collect()
}

fn noise(length: usize) -> Vec<u8> {
    let bytes = std::iter::successors(Some(7u32), |n| Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
    bytes.map(|n| (n >> 24) as u8).take(length).collect()
}

pub(in crate::wire) fn any_parameters() -> impl Strategy<Value = Parameters> {
    (any::<bool>(), any::<bool>(), 8u8..=15, 8u8..=15).prop_map(|(server, client, server_bits, client_bits)| {
        Parameters {
            server_no_context_takeover: server || server_bits == 8,
            client_no_context_takeover: client,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits.max(9),
        }
    })
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0usize..5000).prop_map(prose),
        (0usize..70_000).prop_map(prose),
        prop::collection::vec(any::<u8>(), 0..600),
        (0usize..100_000).prop_map(|length| vec![b'a'; length]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn messages_arrive_as_they_were_sent_in_any_pieces(
        parameters in any_parameters(),
        messages in prop::collection::vec((any_payload(), any::<bool>()), 1..5),
        piece in prop_oneof![1usize..40, Just(1 << 20)],
        chunk in prop_oneof![1usize..50, 1000usize..200_000],
    ) {
        let mut client = Client::new(parameters, piece);
        let mut bytes = Vec::new();
        for (n, (payload, compressed)) in messages.iter().enumerate() {
            bytes.extend(client.message(false, payload, *compressed));
            if n % 2 == 0 {
                bytes.extend(frames(9, b"ping", 200));
            }
        }
        let mut test = DeflateSession::new(parameters);
        for part in bytes.chunks(chunk) {
            test.receive(part);
        }
        let expected: Vec<Message> = messages.iter().map(|(payload, _)| Message::binary(payload.clone())).collect();
        prop_assert_eq!(test.messages(), expected);
        prop_assert!(!test.session.is_in_a_message());
        prop_assert_eq!(test.out.len(), messages.len().div_ceil(2) * 6);
    }

    #[test]
    fn what_is_sent_is_understood(
        parameters in any_parameters(),
        level in 1u8..=9,
        messages in prop::collection::vec(any_payload(), 1..6),
    ) {
        let mut pool = DeflatePool::default();
        let mut sender = PerMessageDeflate::new(Compression { level, ..compression(parameters) });
        let mut client = Client::new(parameters, 1);
        for payload in messages {
            let encoded = sender.compress(&mut pool, &payload);
            if parameters.server_no_context_takeover {
                prop_assert!(encoded.as_ref().is_none_or(|short| short.len() < payload.len()));
            }
            let encoded = encoded.map_or((payload.clone().into(), false), |encoded| (encoded, true));
            prop_assert_eq!(client.read(encoded), payload);
        }
    }

    #[test]
    fn any_bytes_give_the_same_in_any_pieces(
        parameters in any_parameters(),
        good in any_payload(),
        noise in prop::collection::vec(any::<u8>(), 0..300),
        place in any::<prop::sample::Index>(),
        chunk in 1usize..2000,
    ) {
        let mut client = Client::new(parameters, 3000);
        let mut bytes = client.message(true, &good, true);
        let at = place.index(bytes.len());
        bytes.splice(at..(at + noise.len()).min(bytes.len()), noise);
        let mut whole = DeflateSession::new(parameters);
        whole.receive(&bytes);
        let mut pieces = DeflateSession::new(parameters);
        for piece in bytes.chunks(chunk) {
            pieces.receive(piece);
        }
        // A frame that is broken in two ways may show the one or the other first.
        let lenient = |events: &VecDeque<Event>| -> Vec<Option<Message>> {
            let message = |event: &Event| if let Event::Message(m) = event { Some(m.clone()) } else { None };
            events.iter().map(message).collect()
        };
        prop_assert_eq!(lenient(&whole.events), lenient(&pieces.events));
        prop_assert_eq!(whole.session.is_open(), pieces.session.is_open());
    }
}

#[test]
fn an_idle_session_owns_no_codec() {
    let mut test = DeflateSession::new(PARAMETERS);
    let mut client = Client::new(PARAMETERS, 1 << 20);
    let bytes = client.message(true, &prose(2000), true);
    test.receive(&bytes[..50]);
    assert!(test.session.is_in_a_message());
    test.receive(&bytes[50..]);
    assert!(!test.session.is_in_a_message());
    let mut deflate = PerMessageDeflate::new(compression(PARAMETERS));
    assert!(deflate.compress(&mut DeflatePool::default(), &prose(100)).is_some());
    assert!(deflate.deflate.is_none() && deflate.incoming.inflate.is_none());
    assert!(std::mem::size_of::<PerMessageDeflate>() <= 160, "{}", std::mem::size_of::<PerMessageDeflate>());
}

/// Of a client that does not forget, what it may refer to is kept, and no more.
#[test]
fn between_two_messages_there_is_but_a_window() {
    for bits in 9..=15 {
        let takes_over = Parameters { client_no_context_takeover: false, client_max_window_bits: bits, ..PARAMETERS };
        let mut client = Client::new(takes_over, 1 << 20);
        let mut deflate = PerMessageDeflate::new(compression(takes_over));
        let (mut pool, mut out) = (DeflatePool::default(), [0; 4096]);
        let (before, mut held) = (deflate.held(), Vec::new());
        for length in [40, 40, 40, 300, 70_000, 10] {
            let bytes = client.message(false, &prose(length), true);
            let mut input = &bytes[..];
            let end = loop {
                if let Err(end) = deflate.incoming().read(&mut pool, &mut input, &mut out) {
                    break end;
                }
            };
            assert_eq!((end.kind(), input.len()), (io::ErrorKind::WouldBlock, 0));
            assert!(deflate.incoming.inflate.is_none());
            held.push(deflate.held());
        }
        assert_eq!(before, 0);
        assert!(held[2] <= 300 && held[4] <= (1 << bits) + size_of::<Window>(), "{bits}: {held:?}");
        assert_eq!(deflate.incoming.window.as_ref().unwrap().bytes.len(), 1 << bits);
    }
}

#[test]
fn a_message_without_a_byte_is_empty() {
    let takes_over = Parameters { client_no_context_takeover: false, ..PARAMETERS };
    for parameters in [PARAMETERS, takes_over] {
        let (mut test, mut client) = (DeflateSession::new(parameters), Client::new(parameters, 1 << 20));
        let prose = prose(500);
        test.receive(&frames(0x42, b"", 1));
        test.receive(&client.message(false, &prose, true));
        // In two frames, a Ping between them.
        test.receive(&[&[0x42, 0x80, 0, 0, 0, 0, 0x89, 0x80][..], &[0; 4], &[0x80, 0x80, 0, 0, 0, 0]].concat());
        test.receive(&frames(0x41, b"", 1));
        test.receive(&client.message(false, &prose, true));
        let message = |bytes: &[u8]| Message::binary(bytes.to_vec());
        let expected = [message(b""), message(&prose), message(b""), Message::text(""), message(&prose)];
        assert_eq!(test.messages(), expected);
        assert_eq!(test.out, [0x8a, 0]);
        assert!(!test.session.is_in_a_message());
    }
}

#[test]
fn who_refers_to_what_it_agreed_to_forget_is_told() {
    let takes_over = Parameters { client_no_context_takeover: false, ..PARAMETERS };
    let small = Parameters { client_max_window_bits: 9, ..takes_over };
    for (agreed, length, between, told) in [
        (PARAMETERS, 100, 0, true),
        (PARAMETERS, 3000, 0, true),
        (small, 100, 600, true),
        (small, 3000, 600, true),
        (takes_over, 100, 40_000, false),
    ] {
        let (mut test, mut client) = (DeflateSession::new(agreed), Client::new(takes_over, 1 << 20));
        let noise = noise(44_000);
        let (first, rest) = noise.split_at(length);
        test.receive(&client.message(false, first, true));
        let mut second = client.message(false, &rest[..between], true);
        if !told {
            // What was not asked of it is no breach, but an error all the same.
            second = frames(0x42, &[0xff; 20], 200);
        }
        test.receive(&second);
        if test.session.is_open() {
            test.receive(&client.message(false, first, true));
        }
        assert_eq!((test.failure(), test.session.has_forgotten()), (CloseCode::Invalid, told), "{agreed:?}");
        assert_eq!(test.reason().contains("agreed to forget"), told, "{}", test.reason());
    }
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    // One gigabyte in a megabyte, as a single frame. Only the beginning of it is inflated.
    let mut client = Client::new(PARAMETERS, 1 << 30);
    let block = client.compress(&vec![0; 1 << 20], DeflateFlush::SyncFlush);
    let mut payload = Vec::new();
    for _ in 0..64 {
        payload.extend(&block);
        payload.extend(TAIL);
    }
    let bytes = frames(0x42, &payload, 1 << 30);
    let mut test = DeflateSession::new(PARAMETERS);
    for piece in bytes.chunks(65_536) {
        test.receive(piece);
    }
    assert_eq!(test.events.len(), 1);
    assert_eq!(test.failure(), CloseCode::Size);
}

#[test]
fn large_messages_of_one_read_come_a_few_at_a_time() {
    let mut client = Client::new(PARAMETERS, 1 << 20);
    let bytes: Vec<u8> = (0..20).flat_map(|_| client.message(false, &vec![0; LIMIT], true)).collect();
    assert!(bytes.len() < 20_000);
    let mut test = DeflateSession::new(PARAMETERS);
    test.session.receive(&mut test.contexts, &bytes, &mut test.events, &mut test.out);
    let mut rounds = 1;
    while test.session.has_more() {
        assert!(test.events.len() <= rounds, "{} after {rounds}", test.events.len());
        test.session.more(&mut test.contexts, &mut test.events, &mut test.out);
        rounds += 1;
    }
    assert_eq!(test.messages().len(), 20);
    assert!(!test.session.is_in_a_message());
}

#[test]
fn a_bad_text_is_noticed_before_its_end() {
    let mut client = Client::new(PARAMETERS, 1 << 20);
    let mut payload = prose(20_000);
    payload[100] = 0xff;
    let bytes = client.message(true, &payload, true);
    let mut test = DeflateSession::new(PARAMETERS);
    test.receive(&bytes[..bytes.len() / 2]);
    assert_eq!(test.failure(), CloseCode::Invalid);
}

#[test]
fn what_is_no_compressed_data_is_1007() {
    let mut test = DeflateSession::new(PARAMETERS);
    test.receive(&frames(0x42, &[0xff; 20], 200));
    assert_eq!(test.failure(), CloseCode::Invalid);
}

#[test]
fn examples_of_the_rfc() {
    // Section 7.2.3: one block, two fragments, taken over, not compressed, with BFINAL, two blocks.
    let takes_over = Parameters { client_no_context_takeover: false, ..PARAMETERS };
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let mut test = DeflateSession::new(takes_over);
    test.receive(&frames(0x41, &hello, 100));
    test.receive(&frames(0x41, &[0xf2, 0x00, 0x11, 0x00, 0x00], 100));
    test.receive(&frames(0x41, &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], 100));
    for takes_over in [takes_over, PARAMETERS] {
        let mut test = DeflateSession::new(takes_over);
        test.receive(&frames(0x41, &hello, 3));
        // With BFINAL, with and without the byte that pads it; then the ordinary form once more.
        test.receive(&frames(0x41, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], 100));
        test.receive(&frames(0x41, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 100));
        test.receive(&frames(0x41, &hello, 100));
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        test.receive(&frames(0x41, &two, 100));
        assert_eq!(test.messages(), vec![Message::text("Hello"); 5]);
    }
    assert_eq!(test.messages(), vec![Message::text("Hello"); 3]);
}

#[test]
fn small_messages_and_those_that_do_not_shrink_go_out_as_they_are() {
    let mut pool = DeflatePool::default();
    let mut sender = PerMessageDeflate::new(Compression { min_size: 100, ..compression(PARAMETERS) });
    assert!(sender.compress(&mut pool, &prose(99)).is_none());
    assert!(sender.compress(&mut pool, &prose(100)).is_some());
    assert!(sender.compress(&mut pool, &noise(200)).is_none());
    let tiny = Parameters { server_max_window_bits: 8, ..PARAMETERS };
    let mut sender = PerMessageDeflate::new(compression(tiny));
    assert!(sender.compress(&mut pool, &prose(256)).is_some());
    assert!(sender.compress(&mut pool, &prose(257)).is_none());
    assert!(sender.compress(&mut pool, b"").is_none());
}

#[test]
fn compressors_of_many_kinds_are_not_all_kept() {
    let mut pool = DeflatePool::default();
    for level in 1..=9 {
        assert!(pool.compress(level, 15, &prose(1000)).is_some());
        assert!(pool.compress(level, 15, &prose(DeflatePool::SCRATCH * 8)).is_some());
    }
    assert_eq!(pool.deflaters.len(), DeflatePool::DEFLATERS);
    assert!(pool.deflaters.iter().any(|d| d.level == 9));
    assert!(pool.scratch.len() <= DeflatePool::SCRATCH);
}

#[test]
fn a_compressor_is_as_new_after_a_message_that_does_not_shrink() {
    for level in 1..=9 {
        let mut pool = DeflatePool::default();
        for length in [300, 24_000, 24_000, 50_000, 150_000, 24_000] {
            assert!(pool.compress(level, 15, &noise(length)).is_none(), "{level}");
        }
        assert_eq!(
            pool.compress(level, 15, &prose(5000)),
            DeflatePool::default().compress(level, 15, &prose(5000)),
            "{level}"
        );
    }
}
