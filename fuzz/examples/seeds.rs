//! Writes the seeds that are not text: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. Those of `handoff`
//! have to be written anew when the messages change.

use mod_websocket::engine::control::{Configuration, Order};
use mod_websocket::engine::handoff::{HandoffMessage, ToEngine, encode, version};
use mod_websocket::engine::memory::Bound;
use mod_websocket::engine::{HandlerSpec, Limits, LogSpec, Quota, SessionSpec};
use mod_websocket::mux::send_buffer::SendBuffer;
use mod_websocket::tls::record::{Direction, Keys};
use mod_websocket::wire::deflate::Compression;
use mod_websocket::wire::extension::Parameters;
use mod_websocket_fuzz::stream::frame;
use std::path::Path;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CONTINUED: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const BEGIN_TEXT: u8 = 0x01;
const CONTINUE: u8 = 0x00;
const COMPRESSED: u8 = 0x40;

/// The fields of a `session::Setup`, in their order: raw, reserved close codes, limit, cut, close after (two bytes).
const SETUP: [u8; 6] = [0, 0, 0, 4, 0, 0];
const RAW: [u8; 6] = [1, 0, 0, 9, 0, 0];

/// A step of `stream::frames`.
fn step(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, first, payload);
    bytes
}

fn session() -> Vec<(&'static str, Vec<u8>)> {
    let with = |setup: [u8; 6], steps: &[Vec<u8>]| [&setup[..], &steps.concat()].concat();
    let setup = |limit, cut, close_after: u16| {
        let [low, high] = close_after.to_le_bytes();
        [0, 0, limit, cut, low, high]
    };
    vec![
        ("text", with(SETUP, &[step(TEXT, b"hello"), step(TEXT, "κόσμε".as_bytes())])),
        (
            "binary-of-each-length",
            with(setup(7, 1, 0), &[step(BINARY, b""), step(BINARY, &[7; 126]), vec![BINARY, 211, 7]]),
        ),
        (
            "split-character",
            with(
                setup(0, 0, 0),
                &[
                    step(BEGIN_TEXT, b"\xe2\x82"),
                    step(PING, b"between"),
                    step(CONTINUE, b"\xac \xf0\x9f"),
                    step(CONTINUE, b""),
                    step(CONTINUED, b"\x98\x80"),
                ],
            ),
        ),
        ("fragments", with(setup(5, 12, 0), &[step(BINARY, b"in many parts"), vec![BINARY, 230, TEXT, 239]])),
        ("close", with(SETUP, &[step(TEXT, b"last"), step(CLOSE, b"\x03\xe8bye"), step(TEXT, b"ignored")])),
        ("close-without-code", with(SETUP, &[step(CLOSE, b"")])),
        ("close-reserved", with([0, 1, 0, 4, 0, 0], &[step(CLOSE, b"\x03\xf6why")])),
        ("close-twice", with([0, 1, 0, 4, 0, 0], &[step(CLOSE, b"\x03\xe8"), step(CLOSE, b"\x03\xf6")])),
        ("close-forbidden", with(SETUP, &[step(CLOSE, b"\x03\xed")])),
        ("close-of-one-byte", with(SETUP, &[step(CLOSE, b"\x03")])),
        ("close-in-a-message", with(SETUP, &[step(BEGIN_TEXT, b"not all"), step(CLOSE, b"\x03\xe9")])),
        (
            "our-close-first",
            with(setup(0, 4, 20), &[step(TEXT, b"before"), step(PING, b"after"), step(CLOSE, b"\x03\xe9")]),
        ),
        ("our-close-in-a-frame", with(setup(0, 3, 9), &[step(TEXT, b"around it"), step(CLOSE, b"\x03\xe9going")])),
        ("too-large", with(setup(2, 4, 0), &[step(BINARY, &[0; 10]), step(BINARY, &[0; 11])])),
        (
            "too-large-in-fragments",
            with(setup(2, 7, 0), &[step(0x02, &[0; 8]), step(PING, b""), step(CONTINUED, &[0; 3])]),
        ),
        ("ping-over-the-limit", with(setup(1, 6, 0), &[step(PING, &[1; 125]), step(TEXT, b"a")])),
        ("bad-text", with(SETUP, &[step(TEXT, b"good"), step(TEXT, b"ba\xffd")])),
        ("bad-text-late", with(SETUP, &[step(BEGIN_TEXT, b"good so far \xf4"), step(CONTINUED, b"\x90")])),
        ("half-a-character", with(SETUP, &[step(TEXT, b"half \xe2\x82")])),
        ("message-in-a-message", with(SETUP, &[step(BEGIN_TEXT, b"one"), step(TEXT, b"two")])),
        ("continuation-of-nothing", with(SETUP, &[step(CONTINUED, b"")])),
        ("long-ping", with(SETUP, &[vec![PING, 205, 0]])),
        ("ping-in-fragments", with(SETUP, &[step(0x09, b"a")])),
        ("reserved-bit", with(SETUP, &[step(COMPRESSED | TEXT, b"a")])),
        ("raw", with(RAW, &[raw(TEXT, b"hello"), raw(PING, b""), raw(BINARY, &[1; 200]), raw(CLOSE, b"\x03\xe8")])),
        ("raw-unmasked", with(RAW, &[raw(TEXT, b"a"), b"\x81\x01a".to_vec()])),
        ("raw-huge", with(RAW, &[b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec()])),
        ("raw-long-forms", with(RAW, &[b"\x82\xfe\0\x01\0\0\0\0a\x82\xff\0\0\0\0\0\0\0\x01\0\0\0\0b".to_vec()])),
        ("raw-half", with(RAW, &[raw(TEXT, b"not all of this comes")[..12].to_vec()])),
    ]
}

fn deflate() -> Vec<(&'static str, Vec<u8>)> {
    // The fields of `deflate::Agreed`: sends, no takeover by server and client, what 15 exceeds the windows' bits by, level,
    // smallest message.
    const TAKES_OVER: [u8; 7] = [0, 0, 0, 0, 0, 5, 0];
    const FRUGAL: [u8; 7] = [0, 1, 1, 0, 0, 5, 0];
    const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let with = |agreed: [u8; 7], setup: [u8; 6], steps: &[Vec<u8>]| [&agreed[..], &setup, &steps.concat()].concat();
    let text = COMPRESSED | TEXT;
    let prose = b"how many sheep would a sheep count if a sheep could count sheep";
    let sends = |agreed: [u8; 7], script: &[u8]| [&[1], &agreed[1..], script].concat();
    let messages = [
        &[prose.len() as u8],
        &prose[..],
        &[prose.len() as u8],
        prose,
        &[0, 203, 228, 203, 240, b'a', 250, 254, 220, 5],
        b"short",
    ]
    .concat();
    vec![
        ("rfc-examples", with(TAKES_OVER, SETUP, &[step(text, HELLO), step(text, b"\xf2\0\x11\0\0")])),
        ("rfc-stored", with(FRUGAL, SETUP, &[step(text, b"\0\x05\0\xfa\xffHello\0")])),
        ("rfc-last-block", with(TAKES_OVER, SETUP, &[step(text, b"\xf3\x48\xcd\xc9\xc9\x07\0\0"), step(text, HELLO)])),
        ("last-block-unpadded", with(FRUGAL, SETUP, &[step(text, b"\xf3\x48\xcd\xc9\xc9\x07\0"), step(text, HELLO)])),
        ("rfc-two-blocks", with(FRUGAL, SETUP, &[step(text, b"\xf2\x48\x05\0\0\0\xff\xff\xca\xc9\xc9\x07\0")])),
        (
            "rfc-fragments",
            with(FRUGAL, SETUP, &[step(0x41, &HELLO[..3]), step(PING, b"p"), step(CONTINUED, &HELLO[3..])]),
        ),
        ("taken-over", with(TAKES_OVER, SETUP, &[step(TEXT, prose), vec![text, 250, text, 250, text, 225]])),
        ("each-for-itself", with(FRUGAL, SETUP, &[step(TEXT, prose), vec![text, 250, PING, 0, text, 222]])),
        (
            "small-windows",
            with([0, 1, 0, 5, 6, 0, 0], [0, 0, 7, 9, 0, 0], &[vec![BINARY, 209, 7, 0xc2, 250, 0xc2, 239]]),
        ),
        (
            "bomb",
            with(FRUGAL, [0, 0, 0, 0, 0, 0], &[step(text, b"\xed\xc1\x01\x01\0\0\0\x80\x90\xfe\xaf\xee\x08\x0a")]),
        ),
        ("many-large", with(FRUGAL, [0, 0, 7, 15, 0, 0], &[vec![PING, 0], step(0xc2, &many_zeros()).repeat(20)])),
        (
            "too-large",
            with(FRUGAL, [0, 0, 2, 0, 0, 0], &[step(text, HELLO), vec![BINARY, 3, 1, 2, 3], step(BINARY, &[0; 11])]),
        ),
        ("bad-text", with(FRUGAL, SETUP, &[step(BINARY, b"a"), step(text, b"\0\x02\0\xfd\xffa\xff")])),
        ("bad-data", with(FRUGAL, SETUP, &[step(text, b"\xff\xff\xff")])),
        (
            "reserved-bit-in-a-continuation",
            with(FRUGAL, SETUP, &[step(0x41, HELLO), step(COMPRESSED | CONTINUED, b"")]),
        ),
        ("nothing", with(FRUGAL, SETUP, &[step(text, b""), step(text, b"\0"), step(TEXT, b"")])),
        ("our-close-first", with(TAKES_OVER, [0, 0, 0, 3, 9, 0], &[step(text, HELLO), step(CLOSE, b"\x03\xe9")])),
        ("sends-with-takeover", sends([0, 0, 0, 0, 0, 5, 0], &messages)),
        ("sends-each-for-itself", sends([0, 1, 1, 0, 0, 0, 10], &messages)),
        ("sends-small-window", sends([0, 0, 0, 6, 0, 8, 0], &messages)),
        ("sends-noise", sends([0, 1, 0, 0, 0, 0, 0], &[230, b'a', 253, 253, 252, 230, b'b'])),
        ("sends-smallest-window", sends([0, 1, 0, 7, 0, 5, 0], &messages)),
    ]
}

/// What 20,000 zeros compress to.
fn many_zeros() -> Vec<u8> {
    let mut out = vec![0; 200];
    let mut deflate = zlib_rs::Deflate::new(9, false, 15);
    deflate.compress(&[0; 20_000], &mut out, zlib_rs::DeflateFlush::SyncFlush).expect("there is room");
    out.truncate(deflate.total_out() as usize - 4);
    out
}

fn handoff() -> Vec<(&'static str, Vec<u8>)> {
    let spec = SessionSpec {
        handler: HandlerSpec { name: "echo".into(), args: vec!["an argument".into()], settings: vec![1, 2] },
        protocol: Some("chat".into()),
        limits: Limits::default(),
        compression: Some(Compression {
            parameters: Parameters {
                server_no_context_takeover: true,
                client_no_context_takeover: false,
                server_max_window_bits: 15,
                client_max_window_bits: 12,
            },
            level: 6,
            min_size: 100,
        }),
        reserved_close_codes: false,
        client: "192.0.2.1".into(),
        user: Some("alice".into()),
        server: "www.example.com".into(),
        uri: "/chat?room=1".into(),
        quotas: vec![Quota { scope: "everybody".into(), max: 7 }],
        log: Some(Box::new(LogSpec { query: false, name: "logs/ws.log".into(), host: "www.example.com".into() })),
        application: None,
        opening: None,
    };
    let direction = |byte, sequence| Direction { secret: vec![byte; 48].into(), sequence };
    let keys = Keys { suite: 0x1302, client: direction(1, 1), server: direction(2, 300) };
    fn with<M: HandoffMessage>(messages: &[M]) -> Vec<u8> {
        let mut bytes = vec![6];
        messages.iter().for_each(|message| bytes.extend(encode(message).expect("a short message")));
        bytes
    }
    let hello = || ToEngine::Hello { version: version().into() };
    let log = |name: &str| Order::SessionLog { name: name.into() };
    vec![
        (
            "session",
            with(&[
                hello(),
                ToEngine::Offer(Box::new(spec)),
                ToEngine::Take { id: 7, early: vec![1; 50], linked: false, tls: None, backend: None },
                ToEngine::Take { id: 8, early: vec![], linked: true, tls: Some(Box::new(keys)), backend: None },
            ]),
        ),
        (
            "open",
            with(&[
                hello(),
                ToEngine::Open {
                    spec: Box::default(),
                    head: b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
                    early: vec![1; 50],
                    tls: None,
                },
            ]),
        ),
        ("mux", with(&[hello(), ToEngine::Mux { thread: 1 }, ToEngine::Carry { id: 8, mux: 300, backend: None }])),
        ("abandon", with(&[hello(), ToEngine::Abandon { id: u64::MAX }])),
        ("close", with(&[hello(), ToEngine::Close { id: 300, code: 1012, reason: "draining".into() }])),
        (
            "call",
            with(&[
                hello(),
                ToEngine::Call { handler: "channel".into(), request: vec![1, 2, 3], payload: vec![4; 9].into() },
                ToEngine::Abandon { id: 1 },
            ]),
        ),
        (
            "configure",
            with(&[
                Order::Hello { version: version().into() },
                log("logs/ws.log"),
                log("|rotate"),
                Order::Configure(Configuration {
                    log_level: -1,
                    with_log: true,
                    settings: vec![("channel".into(), vec![0])],
                    stop_code: 1012,
                    memory: Bound::Bytes(1 << 30),
                }),
            ]),
        ),
        ("retire", with(&[Order::Hello { version: "mod_websocket handoff 1".into() }, Order::Retire, Order::Stop])),
        ("bad-length", b"\x06\xff\xff\xff\xff\0\0".to_vec()),
        ("bad-variant", b"\x06\0\0\0\x01\x7f".to_vec()),
        // A vector that says it has four thousand million elements.
        ("bad-count", b"\x06\0\0\0\x0b\x01\x04echo\xff\xff\xff\xff\x0f".to_vec()),
        ("half", with(&[hello()])[..10].to_vec()),
    ]
}

fn record() -> Vec<(&'static str, Vec<u8>)> {
    let long: Vec<u8> = [&[6, 255, 0, 199][..], &[b'x'; 199], &[199], &[b'y'; 199]].concat();
    vec![
        ("data", b"\x06\xff\0\x03one\x03two".to_vec()),
        ("long", long),
        ("new-keys", b"\x06\xff\0\x03one\xc8\x03two\xc8\x01x".to_vec()),
        ("end", b"\x02\xff\0\x03one\xc9".to_vec()),
        ("alert", b"\x06\xff\0\x03one\xca".to_vec()),
        ("rubbish", b"\x06\xff\0\x03one\xcb\x17\x03\x03\0\x20rubbish".to_vec()),
        ("changed", b"\x06\x1c\x80\x03one\x03two".to_vec()),
        ("changed-length", b"\x06\x04\x01\x03one\x03two".to_vec()),
    ]
}

fn mux() -> Vec<(&'static str, Vec<u8>)> {
    let with = |fill: &dyn Fn(&mut SendBuffer)| {
        let (mut out, mut bytes) = (SendBuffer::default(), vec![6]);
        fill(&mut out);
        let written = out.write(|piece| {
            bytes.extend(piece);
            Ok(piece.len())
        });
        written.expect("a vector takes all");
        bytes
    };
    let news = bytes::Bytes::from_static(b"news");
    vec![
        ("data", with(&|out| (0..3).for_each(|stream| out.data(stream, &[7; 100])))),
        // Of a session that is not there.
        ("early", with(&|out| out.data(99, b"early"))),
        ("multicast", with(&|out| (0..5).for_each(|stream| out.shared(stream, &news)))),
        (
            "life",
            with(&|out| {
                out.data(1, b"hello");
                out.end_stream(1);
                out.reset(1);
                out.reset(2);
            }),
        ),
        ("bad-window-update", with(&|out| out.window_update(1, 1000))),
        (
            "bad-end",
            with(&|out| {
                out.end_stream(1);
                out.data(1, b"more");
            }),
        ),
        ("bad-kind", b"\x06\0\0\0\0\x09\x01\0\0\0\0\0\0\0".to_vec()),
        // Of many, four thousand million.
        ("bad-count", b"\x06\x10\0\0\0\x05\xff\xff\xff\xff\0\0\0\0".to_vec()),
        ("half", with(&|out| out.data(1, b"the rest is missing"))[..20].to_vec()),
    ]
}

fn main() -> std::io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (target, inputs) in
        [("session", session()), ("deflate", deflate()), ("handoff", handoff()), ("mux", mux()), ("record", record())]
    {
        for (name, input) in inputs {
            std::fs::create_dir_all(seeds.join(target))?;
            std::fs::write(seeds.join(target).join(name), input)?;
        }
    }
    Ok(())
}
