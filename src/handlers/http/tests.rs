//! The http handler in an engine, with an application that is a script.

use super::*;
use crate::engine::application::grip_sig::{self, GripKey};
use crate::engine::application::{ApplicationSpec, Loopback, token};
use crate::engine::memory::Bound;
use crate::engine::testing::{self, Client, PATIENCE, TestEngine};
use crate::engine::{HandlerSpec, Registry};
use crate::wire::websocket_events::MEDIA_TYPE;
use crate::wire::{CloseCode, CloseFrame, Message};
use settings::{ChannelRules, RecheckRules};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use tungstenite::Error;

mod changes;

/// What the application was asked.
#[derive(Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// In the plain mode: what it is about, its number, and the body.
    fn plain(&self) -> (&str, u64, &str) {
        let number = self.header("WebSocket-Sequence").unwrap().parse().unwrap();
        (self.header("WebSocket-Event").unwrap(), number, self.body())
    }

    fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// An application: it answers a request when it is told how.
struct Script {
    address: SocketAddr,
    seen: Receiver<Seen>,
    answers: Sender<String>,
}

impl Script {
    fn start() -> Script {
        Script::at("127.0.0.1:0".parse().unwrap())
    }

    fn at(address: SocketAddr) -> Script {
        token::set(&[0xa1; token::LENGTH]);
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (see, seen) = channel();
        let (answers, answer) = channel::<String>();
        let answer = Arc::new(std::sync::Mutex::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (see, answer) = (see.clone(), answer.clone());
                std::thread::spawn(move || converse(stream.unwrap(), &see, &answer));
            }
        });
        Script { address, seen, answers }
    }

    #[track_caller]
    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request")
    }

    /// Answers the next request, or the one that waits; an empty text: the connection ends.
    fn answer(&self, answer: impl Into<String>) {
        self.answers.send(answer.into()).unwrap();
    }

    #[track_caller]
    fn exchange(&self, answer: impl Into<String>) -> Seen {
        self.answer(answer);
        self.next()
    }

    /// Nothing more is asked.
    fn is_quiet(&self) -> bool {
        self.seen.recv_timeout(Duration::from_millis(100)).is_err()
    }
}

fn converse(mut stream: TcpStream, see: &Sender<Seen>, answer: &std::sync::Mutex<Receiver<String>>) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            let found = bytes.windows(4).position(|end| end == b"\r\n\r\n");
            let mut buffer = [0; 65536];
            match found {
                Some(end) => break end + 4,
                None => match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => bytes.extend(&buffer[..count]),
                    _ => return,
                },
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = bytes.split_off(end);
        while body.len() < length {
            let mut buffer = [0; 65536];
            let count = stream.read(&mut buffer).unwrap();
            body.extend(&buffer[..count]);
        }
        bytes = body.split_off(length);
        let _ = see.send(Seen { head, body });
        let Ok(answer) = answer.lock().unwrap().recv() else { return };
        if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn text(body: &str) -> String {
    answer(200, "Content-Type: text/html; charset=UTF-8\r\n", body)
}

fn events(body: &str) -> String {
    answer(200, &format!("Content-Type: {MEDIA_TYPE}\r\n"), body)
}

fn settings(script: &Script, mode: Mode, headers: &[(&str, &str)], body: &str) -> HttpSettings {
    let headers = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()));
    let opening = Opening::Accepted { requests: 1, headers: headers.collect(), body: body.into() };
    let loopback = Loopback { address: script.address, secure: false, server_name: None, certificate: None };
    HttpSettings {
        mode,
        application: Application::Here(loopback),
        target: "/app.php?a=b".into(),
        opening,
        channels: ChannelRules { prefix: "p/".into(), max: 2, member: None },
        given: vec![],
        secure: false,
        recheck: None,
        grip_key: None,
    }
}

fn spec(settings: &HttpSettings) -> SessionSpec {
    let spec = testing::spec("http");
    let application = ApplicationSpec {
        connection: "0123".into(),
        headers: vec![("Host".into(), b"site.example".to_vec()), ("Cookie".into(), b"a=b".to_vec())],
        meta: vec![("user".into(), "7".into())],
        ..ApplicationSpec::default()
    };
    SessionSpec {
        handler: HandlerSpec { settings: postcard::to_stdvec(settings).unwrap(), ..spec.handler },
        application: Some(Box::new(application)),
        ..spec
    }
}

fn engine() -> (TestEngine, Arc<Hub>, Arc<Farewells>) {
    let (hub, farewells) = (Arc::<Hub>::default(), Arc::<Farewells>::default());
    let http = Http { hub: hub.clone(), farewells: farewells.clone(), targets: Targets::default() };
    (TestEngine::start(1, Registry::default().with("http", http), Bound::Off), hub, farewells)
}

/// How many sessions get what is published there: the name of the channel.
fn subscribers(engine: &TestEngine, hub: &Hub, channel: &str) -> u64 {
    let message = crate::engine::Broadcast::new(Message::text(channel)).unwrap();
    let history = crate::channels::History { messages: 1, seconds: 9 };
    engine.block_on(hub.publish(&[format!("p/{channel}")], message, None, history)).unwrap()[0].subscribers
}

fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
}

#[track_caller]
fn hear(client: &mut Client) -> String {
    client.read().unwrap().into_text().unwrap().to_string()
}

/// The frame that it is closed with, and nothing before.
#[track_caller]
fn closed(client: &mut Client) -> CloseFrame {
    match client.read().unwrap() {
        Message::Close(Some(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_a_request_and_its_answer_a_message() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Plain, &[("Content-Type", "text/html")], "welcome");
    let mut client = engine.session_of(spec(&settings)).1;
    assert_eq!(hear(&mut client), "welcome");
    say(&mut client, "héllo");
    let seen = script.exchange(text("<b>hi</b>"));
    assert!(seen.head.starts_with("POST /app.php?a=b HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.plain(), ("message", 2, "héllo"));
    for (name, value) in [
        ("Host", "site.example"),
        ("Cookie", "a=b"),
        ("Connection-Id", "0123"),
        ("Meta-user", "7"),
        ("Content-Type", "text/plain;charset=utf-8"),
        ("WebSocket-Client", "192.0.2.1"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(hear(&mut client), "<b>hi</b>");
    client.send(Message::binary(&b"\x00\xff"[..])).unwrap();
    let more = "Set-Meta-User:\r\nSet-Meta-Room: 9\r\nContent-Type: image/png\r\n";
    let seen = script.exchange(answer(200, more, "png"));
    assert_eq!((seen.header("Content-Type"), &*seen.body), (Some("application/octet-stream"), &b"\x00\xff"[..]));
    assert_eq!(client.read().unwrap(), Message::binary(&b"png"[..]));
    // Nothing to say.
    say(&mut client, "3");
    let seen = script.exchange(answer(204, "", ""));
    assert_eq!((seen.header("Meta-user"), seen.header("Meta-room"), seen.plain().1), (None, Some("9"), 4));
    // The client does not wait for what its end leads to.
    client.close(Some(CloseFrame { code: 4001.into(), reason: "bye".into() })).unwrap();
    assert_eq!(closed(&mut client).code, CloseCode::Library(4001));
    let seen = script.exchange(text("nobody hears this"));
    assert_eq!((seen.plain(), seen.header("WebSocket-Close")), (("close", 5, ""), Some("4001 bye")));
    engine.wait_for(0);
    assert!(script.is_quiet());
}

#[test]
fn an_answer_in_chunks_is_read_to_its_end() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let mut client = engine.session_of(spec(&settings(&script, Mode::Plain, &[], ""))).1;
    say(&mut client, "x");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    script.exchange(format!("{head}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"));
    assert_eq!(hear(&mut client), "hello world");
}

#[test]
fn nothing_is_asked_while_the_client_takes_nothing() {
    const MESSAGES: usize = 20;
    let (script, (engine, ..)) = (Script::start(), engine());
    let mut spec = spec(&settings(&script, Mode::Plain, &[], ""));
    spec.limits.send_buffer = 1 << 16;
    let mut client = engine.session_of(spec).1;
    for number in 0..MESSAGES {
        say(&mut client, &number.to_string());
        script.answer(text(&number.to_string().repeat(400_000)));
    }
    let mut asked = 0;
    while script.seen.recv_timeout(Duration::from_millis(500)).is_ok() {
        asked += 1;
    }
    assert!((1..MESSAGES / 2).contains(&asked), "{asked}");
    for number in 0..MESSAGES {
        assert_eq!(hear(&mut client).len(), 400_000 * number.to_string().len());
    }
}

#[test]
fn every_end_is_told_once() {
    let (script, (engine, _, farewells)) = (Script::start(), engine());
    let open = || engine.session_of(spec(&settings(&script, Mode::Plain, &[], "")));
    // Lost.
    drop(open());
    assert_eq!(script.exchange(answer(204, "", "")).plain(), ("disconnect", 2, ""));
    // By the server.
    let (id, mut client) = open();
    engine.close(id, &crate::wire::close(CloseCode::Restart, ""));
    assert_eq!(closed(&mut client).code, CloseCode::Restart);
    drop(client);
    assert_eq!(script.exchange(answer(204, "", "")).plain().0, "disconnect");
    // By the application.
    let mut client = open().1;
    say(&mut client, "x");
    script.exchange(answer(200, "WebSocket-Close: 4002 enough\r\nContent-Type: text/plain\r\n", "last"));
    assert_eq!(hear(&mut client), "last");
    assert_eq!(closed(&mut client), CloseFrame { code: 4002.into(), reason: "enough".into() });
    drop(client);
    let seen = script.exchange(answer(204, "", ""));
    assert_eq!((seen.plain().0, seen.header("WebSocket-Close")), ("close", Some("4002 enough")));
    // What the client has said before comes first, one by one, after what is on its way.
    let mut client = open().1;
    say(&mut client, "1");
    assert_eq!(script.next().plain(), ("message", 2, "1"));
    say(&mut client, "2");
    say(&mut client, "3");
    client.close(None).unwrap();
    assert!(matches!(client.read().unwrap(), Message::Close(None)));
    script.answer(text("unheard"));
    assert_eq!(script.exchange(text("unheard")).plain(), ("message", 3, "2"));
    assert_eq!(script.exchange(text("unheard")).plain(), ("message", 4, "3"));
    let seen = script.exchange(text("unheard"));
    assert_eq!((seen.plain(), seen.header("WebSocket-Close")), (("close", 5, ""), Some("1005")));
    engine.block_on(farewells.end(PATIENCE));
    assert!(script.is_quiet());
}

#[test]
fn an_error_is_no_message() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let page = "<b>Fatal error</b>: secret";
    for (headers, status, code) in [
        ("Content-Type: text/html\r\n", 500, 1011),
        ("", 503, 1011),
        ("", 302, 1008),
        ("", 403, 1008),
        ("WebSocket-Close: 4003 out\r\n", 401, 4003),
        ("WebSocket-Colour: red\r\n", 200, 1011),
    ] {
        let mut client = engine.session_of(spec(&settings(&script, Mode::Plain, &[], ""))).1;
        say(&mut client, "x");
        script.exchange(answer(status, headers, page));
        let frame = closed(&mut client);
        assert_eq!(u16::from(frame.code), code, "{status}");
        assert!(!frame.reason.contains("secret"));
        drop(client);
        assert_eq!(script.exchange(answer(204, "", "")).plain().0, "disconnect");
    }
    // It has heard the question, and says nothing: that may have been done, and is not asked again. On a connection that was
    // kept it would be.
    let script = Script::start();
    let mut client = engine.session_of(spec(&settings(&script, Mode::Plain, &[], ""))).1;
    say(&mut client, "x");
    script.exchange("");
    assert_eq!(closed(&mut client).code, CloseCode::Error);
    drop(client);
    assert_eq!(script.exchange(answer(204, "", "")).plain(), ("disconnect", 3, ""));
    assert!(script.is_quiet());
}

#[test]
fn one_request_at_a_time_and_what_comes_meanwhile_is_the_next() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Events, &[("Content-Type", MEDIA_TYPE)], "OPEN\r\nTEXT 2\r\nhi\r\n");
    let mut client = engine.session_of(spec(&settings)).1;
    assert_eq!(hear(&mut client), "hi");
    say(&mut client, "a");
    let seen = script.next();
    assert_eq!(seen.body(), "TEXT 1\r\na\r\n");
    for name in ["Accept", "Content-Type"] {
        assert_eq!(seen.header(name), Some(MEDIA_TYPE), "{name}");
    }
    assert_eq!(seen.header("Sec-WebSocket-Extensions"), Some("grip"));
    for number in 0..100 {
        say(&mut client, &number.to_string());
    }
    // They are sent, and taken up to a bound: who comes to the end has seen all of those.
    script.answer(events("TEXT 1\r\nA\r\nPING 1\r\n!\r\nBINARY 1\r\nB\r\n"));
    assert_eq!(hear(&mut client), "A");
    assert_eq!(client.read().unwrap(), Message::Ping("!".into()));
    assert_eq!(client.read().unwrap(), Message::binary(&b"B"[..]));
    let (mut heard, mut requests) = (String::new(), 0);
    while !heard.contains("\r\n99\r\n") {
        let batch = script.exchange(events(""));
        assert!(batch.body().matches("TEXT").count() <= 64 + 1, "{}", batch.body());
        heard.push_str(batch.body());
        requests += 1;
    }
    let expected: String =
        (0..100).map(|number| format!("TEXT {}\r\n{number}\r\n", number.to_string().len())).collect();
    assert_eq!(heard, expected);
    assert!(requests < 50, "{requests}");
    client.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).unwrap();
    closed(&mut client);
    assert_eq!(script.exchange(events("")).body, b"CLOSE 2\r\n\x03\xe8\r\n");
    assert!(script.is_quiet());
}

#[test]
fn what_is_not_accepted_is_offered_again() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Events, &[("Content-Type", MEDIA_TYPE)], "OPEN\r\n");
    let mut client = engine.session_of(spec(&settings)).1;
    let accepted = |count: usize| {
        answer(200, &format!("Content-Type: {MEDIA_TYPE}\r\nContent-Bytes-Accepted: {count}\r\n"), "TEXT 1\r\n.\r\n")
    };
    say(&mut client, "abc");
    assert_eq!(script.exchange(accepted(1)).body(), "TEXT 3\r\nabc\r\n");
    hear(&mut client);
    say(&mut client, "d");
    let seen = script.exchange(accepted(0));
    assert_eq!((seen.body(), seen.header("Content-Bytes-Replayed")), ("TEXT 2\r\nbc\r\nTEXT 1\r\nd\r\n", Some("2")));
    hear(&mut client);
    say(&mut client, "e");
    let seen = script.exchange(accepted(3));
    assert_eq!(
        (seen.body(), seen.header("Content-Bytes-Replayed")),
        ("TEXT 2\r\nbc\r\nTEXT 1\r\nd\r\nTEXT 1\r\ne\r\n", Some("3"))
    );
    hear(&mut client);
    client.close(None).unwrap();
    let seen = script.exchange(events(""));
    assert_eq!((seen.body(), seen.header("Content-Bytes-Replayed")), ("TEXT 1\r\ne\r\nCLOSE\r\n", Some("1")));
    let mut client = engine.session_of(spec(&settings)).1;
    say(&mut client, "abc");
    script.exchange(accepted(4));
    assert_eq!(closed(&mut client).code, CloseCode::Error);
}

#[test]
fn an_end_is_told_once_whatever_is_left_undone() {
    let (script, (engine, _, farewells)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Events, &[("Content-Type", MEDIA_TYPE)], "OPEN\r\n");
    let mut client = engine.session_of(spec(&settings)).1;
    let accepted = |count: usize| {
        answer(200, &format!("Content-Type: {MEDIA_TYPE}\r\nContent-Bytes-Accepted: {count}\r\n"), "TEXT 1\r\n.\r\n")
    };
    say(&mut client, "abc");
    script.exchange(accepted(1));
    hear(&mut client);
    client.close(None).unwrap();
    assert_eq!(script.exchange(accepted(0)).body(), "TEXT 2\r\nbc\r\nCLOSE\r\n");
    engine.block_on(farewells.end(PATIENCE));
    assert!(script.is_quiet());
}

#[test]
fn an_application_can_cut_close_and_break() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Events, &[("Content-Type", MEDIA_TYPE)], "OPEN\r\n");
    for (said, code) in [
        (events("CLOSE d\r\n\u{10}\u{1}again later\r\n"), 4097),
        (events("CLOSE 2\r\n\0\0\r\n"), 1000),
        (events("TEXT 9\r\nshort\r\n"), 1011),
        (text("<b>Notice</b>"), 1011),
        (answer(500, "", "<b>Fatal error</b>"), 1011),
        (events("OPEN\r\n"), 1011),
    ] {
        let mut client = engine.session_of(spec(&settings)).1;
        say(&mut client, "x");
        script.exchange(said);
        assert_eq!(u16::from(closed(&mut client).code), code);
        drop(client);
        let last = script.exchange(events(""));
        assert!(last.body.starts_with(if code == 1011 { b"DISCONNECT" } else { b"CLOSE" }), "{last:?}");
    }
    // It knows of no such session: that ends without a Close frame, and without a word.
    let mut client = engine.session_of(spec(&settings)).1;
    say(&mut client, "x");
    script.exchange(events("TEXT 1\r\n1\r\nDISCONNECT\r\nTEXT 1\r\n2\r\n"));
    assert_eq!(hear(&mut client), "1");
    assert!(matches!(client.read(), Err(Error::Protocol(_) | Error::Io(_))));
    assert!(script.is_quiet());
}

/// What is logged of requests that will be made again.
struct Retries(std::sync::Mutex<Vec<String>>, std::sync::Condvar);

static RETRIES: Retries = Retries(std::sync::Mutex::new(Vec::new()), std::sync::Condvar::new());

impl log::Log for Retries {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().ends_with("http::request")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
            self.1.notify_all();
        }
    }

    fn flush(&self) {}
}

impl Retries {
    #[track_caller]
    fn wait_for(&self, session: u64) {
        let begin = format!("session {session}: ");
        let lines = self.0.lock().unwrap();
        let is_missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.starts_with(&begin));
        let (_lines, waited) = self.1.wait_timeout_while(lines, PATIENCE, is_missing).unwrap();
        assert!(!waited.timed_out(), "session {session} has asked nobody");
    }
}

#[test]
fn what_was_not_sent_is_sent_again() {
    let (engine, ..) = engine();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let script = Script { address: nobody, ..Script::start() };
    let settings = settings(&script, Mode::Plain, &[], "");
    let _ = log::set_logger(&RETRIES);
    log::set_max_level(log::LevelFilter::Debug);
    let ((own, mut client), (other, lost)) = (engine.session_of(spec(&settings)), engine.session_of(spec(&settings)));
    drop(lost);
    say(&mut client, "x");
    // The engine finds nobody; then somebody is there.
    RETRIES.wait_for(own);
    RETRIES.wait_for(other);
    let script = Script::at(nobody);
    let (one, other) = (script.exchange(text("1")), script.exchange(text("2")));
    let mut both = [one.plain(), other.plain()];
    both.sort_unstable();
    assert_eq!(both, [("disconnect", 2, ""), ("message", 2, "x")]);
    assert!(["1", "2"].contains(&&*hear(&mut client)));
}

#[test]
fn control_messages_are_done() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let control = |json: &str| format!("TEXT {:x}\r\nc:{json}\r\n", json.len() + 2);
    let grip = [("Content-Type", MEDIA_TYPE), ("Sec-WebSocket-Extensions", "grip")];
    let first = format!(
        "OPEN\r\n{}{}{}TEXT 7\r\nm:ready\r\nTEXT 7\r\ndropped\r\n",
        control(r#"{"type":"subscribe","channel":"room"}"#),
        control(r#"{"type":"subscribe","channel":"no name"}"#),
        control(r#"{"type":"keep-alive","content":"beat","timeout":1,"mode":"interval"}"#)
    );
    let mut client = engine.session_of(spec(&settings(&script, Mode::Events, &grip, &first))).1;
    assert_eq!(hear(&mut client), "ready");
    let publish = |text: &str| {
        let message = crate::engine::Broadcast::new(Message::text(text)).unwrap();
        let history = crate::channels::History { messages: 1, seconds: 9 };
        engine.block_on(hub.publish(&["p/room".to_owned()], message, None, history)).unwrap()[0].subscribers
    };
    assert_eq!(publish("published"), 1);
    assert_eq!(hear(&mut client), "published");
    assert_eq!(hear(&mut client), "beat");
    say(&mut client, "x");
    let last = [
        control(r#"{"type":"unsubscribe","channel":"room"}"#),
        control(r#"{"type":"send-delayed","content":"delayed","timeout":60}"#),
        control(r#"{"type":"flush-delayed"}"#),
        control(r#"{"type":"keep-alive"}"#),
        control(r#"{"type":"detach"}"#),
    ];
    script.exchange(events(&last.concat()));
    while hear(&mut client) != "delayed" {}
    assert_eq!(publish("unheard"), 0);
    // It is told nothing more, not even of the end.
    say(&mut client, "unheard");
    client.close(None).unwrap();
    engine.wait_for(0);
    assert!(script.is_quiet());
}

#[test]
fn channels_are_those_that_header_lines_name() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let first = settings(&script, Mode::Plain, &[("WebSocket-Channel", "a, b, c")], "");
    let mut client = engine.session_of(spec(&first)).1;
    let subscribers = |channel| subscribers(&engine, &hub, channel);
    say(&mut client, "x");
    script.next();
    // One too many.
    assert_eq!(["a", "b", "c"].map(subscribers), [1, 1, 0]);
    script.answer(answer(204, "WebSocket-Channel: b, c\r\n", ""));
    assert_eq!([hear(&mut client), hear(&mut client)], ["a", "b"]);
    say(&mut client, "y");
    script.next();
    assert_eq!(["a", "b", "c"].map(subscribers), [0, 1, 1]);
}

#[test]
fn what_an_application_elsewhere_is_asked_is_signed() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let key = GripKey::new("secret").unwrap();
    let application = Application::Elsewhere { host: "127.0.0.1".into(), port: script.address.port(), secure: false };
    let settings = HttpSettings { application, grip_key: Some(key.clone()), ..settings(&script, Mode::Plain, &[], "") };
    let mut client = engine.session_of(spec(&settings)).1;
    say(&mut client, "x");
    let seen = script.exchange(text("y"));
    let (signature, now) = (seen.header("Grip-Sig").unwrap(), grip_sig::now());
    assert!(key.has_signed(signature, now) && !key.has_signed(signature, now + 60), "{signature}");
    assert_eq!(seen.header("WebSocket-Token"), None);
    drop(client);
    assert!(key.has_signed(script.exchange(text("")).header("Grip-Sig").unwrap(), now));
}

#[test]
fn the_engine_asks_an_application_elsewhere() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let lines = vec![("Sec-WebSocket-Accept".to_owned(), "x".to_owned())];
    let crowd = Crowd { group: 1, limit: 4 };
    let opening = Opening::Engine { lines: lines.clone(), protocols: vec!["chat".into()], crowd };
    let settings = HttpSettings { opening, ..elsewhere(&script, Mode::Plain, 4) };
    let mut spec = spec(&settings);
    let lines_of_the_client = [("X-Forwarded-For", "198.51.100.9"), ("X-Forwarded-Proto", "gopher")];
    let lines_of_the_client = lines_of_the_client.map(|(name, value)| (name.to_owned(), value.into()));
    spec.application.as_mut().unwrap().headers.extend(lines_of_the_client);
    let headers = "Set-Cookie: a=b\r\nSec-WebSocket-Protocol: chat\r\nContent-Type: text/plain\r\n\
                   WebSocket-User: ann\r\nWebSocket-Expires: 60\r\n";
    script.answer(answer(200, headers, "hello"));
    let accepted = engine.accept(&spec).unwrap();
    assert_eq!((accepted.user.as_deref(), accepted.expires), (Some("ann"), Some(Duration::from_secs(60))));
    let seen = script.next();
    assert_eq!(seen.plain(), ("open", 1, ""));
    for (name, value) in [
        ("Host", format!("127.0.0.1:{}", script.address.port()).as_str()),
        ("X-Forwarded-For", "198.51.100.9, 192.0.2.1"),
        ("X-Forwarded-Host", "site.example"),
        ("X-Forwarded-Proto", "http"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [lines, vec![line("Sec-WebSocket-Protocol", "chat"), line("set-cookie", "a=b")]].concat();
    assert_eq!(accepted.response, Response::Custom(expected));
    let (ours, theirs) = testing::pair();
    engine.run(theirs, spec.clone(), accepted, vec![], vec![]);
    let mut client = testing::websocket(ours);
    assert_eq!(hear(&mut client), "hello");
    drop(client);
    assert_eq!(script.exchange(answer(204, "", "")).plain(), ("disconnect", 2, ""));
    for (said, status) in [
        (answer(200, "Sec-WebSocket-Protocol: other\r\n", ""), 500),
        (answer(200, "WebSocket-Colour: red\r\n", ""), 502),
        (answer(200, "WebSocket-Allow: room/*\r\n", ""), 502),
        (String::new(), 502),
    ] {
        script.answer(said);
        let Err(Rejection::Refused(refused)) = engine.accept(&spec) else { panic!("{status}") };
        assert_eq!(refused.status, status, "{}", refused.reason);
        script.next();
    }
    // Its no is the client's answer, as it is.
    script.answer(answer(302, "Location: /login\r\n", "there"));
    let Err(Rejection::Answered(refused)) = engine.accept(&spec) else { panic!("no answer") };
    assert_eq!((refused.status, &*refused.body), (302, &b"there"[..]));
    assert!(refused.headers.contains(&("location".into(), b"/login".to_vec())));
}

#[test]
fn what_waits_for_the_application_is_held() {
    let (script, (engine, _, farewells)) = (Script::start(), engine());
    let mut client = engine.session_of(spec(&settings(&script, Mode::Plain, &[], ""))).1;
    let message = || Message::binary(vec![7; 70_000]);
    for _ in 0..4 {
        client.send(message()).unwrap();
    }
    let held = || engine.memory().held();
    // One is on its way.
    await_that("all is held", || (280_000..290_000).contains(&held()));
    // It is there for as long as the application is told of it, whatever has become of the session.
    drop(client);
    engine.wait_for(0);
    assert!((280_000..290_000).contains(&held()), "{}", held());
    for _ in 0..5 {
        script.exchange(answer(204, "", ""));
    }
    engine.block_on(farewells.end(PATIENCE));
    assert_eq!(held(), 0);
}

#[test]
fn what_the_application_does_not_take_is_no_reason_to_run_out_of_memory() {
    let http = || Http { hub: Arc::default(), farewells: Arc::default(), targets: Targets::default() };
    let engine = TestEngine::start(1, Registry::default().with("http", http()), Bound::Bytes(1 << 20));
    let script = Script::start();
    let mut clients: Vec<Client> =
        (0..4).map(|_| engine.session_of(spec(&settings(&script, Mode::Plain, &[], ""))).1).collect();
    for client in &mut clients {
        for _ in 0..4 {
            client.send(Message::binary(vec![7; 70_000])).unwrap();
        }
    }
    // Who is closed does not hold what it has said any longer, though nobody answers.
    await_that("enough is given up", || engine.memory().closed() > 0 && engine.memory().held() < (1 << 20) / 4 * 3);
    assert!(engine.memory().closed() < clients.len());
}

#[test]
fn an_application_can_want_to_be_asked_once_more() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let spec = spec(&elsewhere(&script, Mode::Events, 4));
    for status in [200, 204] {
        script.answer(answer(status, "Keep-Alive-Interval: 1\r\nSet-Meta-User: 8\r\n", ""));
        script.answer(events("OPEN\r\n"));
        let accepted = engine.accept(&spec).unwrap();
        let (first, second) = (script.next(), script.next());
        let seen = |seen: &Seen| {
            let header = |name: &str| seen.header(name).unwrap().to_owned();
            (seen.body().to_owned(), header("WebSocket-Sequence"), header("Meta-user"))
        };
        let open = |number: &str, user: &str| ("OPEN\r\n".to_owned(), number.to_owned(), user.to_owned());
        assert_eq!([seen(&first), seen(&second)], [open("1", "7"), open("2", "8")]);
        let (ours, theirs) = testing::pair();
        engine.run(theirs, spec.clone(), accepted, vec![], vec![]);
        drop(testing::websocket(ours));
        assert_eq!(script.exchange(events("")).body(), "DISCONNECT\r\n");
    }
    // It does not say when, or so late that no client waits; or it says nothing else the next time.
    for (said, status) in [("Keep-Alive-Interval: 0\r\n", 502), ("", 502), ("Keep-Alive-Interval: 30\r\n", 504)] {
        script.answer(answer(200, said, ""));
        let Err(Rejection::Refused(refused)) = engine.accept(&spec) else { panic!("{said}") };
        assert_eq!(refused.status, status, "{}", refused.reason);
        script.next();
    }
}

#[test]
fn an_application_keeps_so_many_waiting_and_no_more() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let spec = spec(&elsewhere(&script, Mode::Plain, 1));
    let http = Http { hub: Arc::default(), farewells: Arc::default(), targets: Targets::default() };
    let second = async {
        let second = http.accept(&spec).await;
        // Each of the two connections may take an answer, also the one that nobody reads any more.
        script.answer(answer(403, "", ""));
        script.answer(answer(403, "", ""));
        second
    };
    let (first, second) = engine.block_on(async { tokio::join!(http.accept(&spec), second) });
    assert!(matches!(second, Err(Rejection::Busy(_))) && matches!(first, Err(Rejection::Answered(_))));
}

/// An application on another server, for which so many sessions may wait.
fn elsewhere(script: &Script, mode: Mode, limit: u32) -> HttpSettings {
    let opening = Opening::Engine { lines: vec![], protocols: vec![], crowd: Crowd { group: 1, limit } };
    let application = Application::Elsewhere { host: "127.0.0.1".into(), port: script.address.port(), secure: false };
    HttpSettings { application, opening, ..settings(script, mode, &[], "") }
}

fn await_that(what: &str, holds: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "awaited that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
