use super::*;
use crate::channels::History;
use crate::channels::subscription::Subscription;
use crate::engine::application::loopback::Application;
use crate::engine::application::{Loopback, token};
use crate::engine::memory::Bound;
use crate::engine::revocation::{Measure, Name, Opening, Revocation, Whom, clock};
use crate::engine::testing::{self, Client, PATIENCE, TestEngine};
use crate::engine::{HandlerSpec, Registry, SessionSpec};
use crate::handlers::echo::Echo;
use crate::wire::Message;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Condvar;
use std::thread;

const LONG: Duration = Duration::from_secs(3600);

/// Its answer, and what it was asked.
type Shared = (Mutex<(String, Vec<String>)>, Condvar);

/// An application whose answer is what it was told last.
struct TestApplication {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl TestApplication {
    fn start(answer: &str) -> TestApplication {
        token::set(&[7; token::LENGTH]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let application = TestApplication { address, shared: Arc::default() };
        application.answers(answer);
        let shared = application.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        application
    }

    /// Status, and header lines.
    fn answers(&self, answer: &str) {
        let (status, lines) = answer.split_once('\n').unwrap_or((answer, ""));
        let lines: String = lines.lines().map(|line| format!("{line}\r\n")).collect();
        self.shared.0.lock().unwrap().0 = format!("HTTP/1.1 {status}\r\n{lines}Content-Length: 3\r\n\r\nno.");
    }

    /// What it was asked, in small letters; waits until it was asked so often.
    fn asked(&self, count: usize) -> Vec<String> {
        let seen = self.shared.0.lock().unwrap();
        let waiting = |seen: &mut (String, Vec<String>)| seen.1.len() < count;
        let (seen, timeout) = self.shared.1.wait_timeout_while(seen, PATIENCE, waiting).unwrap();
        assert!(!timeout.timed_out(), "asked only {:?}", seen.1);
        seen.1.clone()
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
        if request.ends_with(b"\r\n\r\n") {
            let mut seen = shared.0.lock().unwrap();
            seen.1.push(String::from_utf8_lossy(&request).to_lowercase());
            request.clear();
            let answer = seen.0.clone();
            shared.1.notify_all();
            drop(seen);
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn start() -> TestEngine {
    let handlers = Registry::default().with("echo", Echo).with("channel", crate::handlers::channel::handler());
    TestEngine::start(2, handlers, Bound::Off)
}

fn spec(application: &TestApplication, cookie: &str, interval: Duration, grace: Duration) -> SessionSpec {
    let loopback = Loopback { address: application.address, secure: false, server_name: None, certificate: None };
    let asked = ApplicationSpec {
        connection: format!("{cookie}-id"),
        authorize: Some("/auth?a=b".into()),
        headers: vec![("Host".into(), b"site".to_vec()), ("Cookie".into(), cookie.into())],
        meta: vec![("colour".into(), "blue".into())],
        recheck: Some(Recheck { interval, grace }),
        expires: None,
        here: Some(Application::Here(loopback)),
        secure: false,
        says_channels: true,
    };
    SessionSpec {
        user: Some("ann".into()),
        application: Some(Box::new(asked)),
        opening: Some(Box::new(Opening { began: 1, ..Opening::default() })),
        ..testing::spec("echo")
    }
}

fn alive(client: &mut Client) {
    client.send(Message::text("there?")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("there?"));
}

fn closed(client: &mut Client) -> (u16, String) {
    loop {
        if let Message::Close(frame) = client.read().unwrap() {
            let frame = frame.unwrap();
            return (frame.code.into(), frame.reason.to_string());
        }
    }
}

/// Has the application asked about all of a user's sessions; how many that were.
fn ask_now(engine: &TestEngine) -> u64 {
    let name = Name { prefix: String::new(), whom: Whom::User("ann".into()) };
    let revocation = Revocation { name, except: None, measure: Measure::Recheck };
    engine.block_on(engine.directory().revoke(revocation, clock()))
}

#[test]
fn equal_questions_are_asked_once() {
    let application = TestApplication::start("204 No Content");
    let engine = start();
    let mut clients: Vec<Client> =
        ["a=1", "a=1", "a=1", "a=2"].map(|cookie| engine.session_of(spec(&application, cookie, LONG, LONG)).1).into();
    let mut other = engine.session_of(SessionSpec { application: None, ..spec(&application, "", LONG, LONG) }).1;
    clients.iter_mut().for_each(alive);
    alive(&mut other);
    assert_eq!(ask_now(&engine), 4, "one is never asked about");
    let mut asked = application.asked(2);
    asked.sort_by_key(|request| request.contains("a=2"));
    for line in
        ["get /auth?a=b http/1.1\r\n", "host: site\r\n", "meta-colour: blue\r\n", "websocket-event: recheck\r\n"]
    {
        assert!(asked.iter().all(|request| request.contains(line)), "{line} in {asked:?}");
    }
    assert!(asked[0].contains("cookie: a=1\r\n") && !asked[0].contains("connection-id"), "{asked:?}");
    assert!(asked[1].contains("cookie: a=2\r\n") && asked[1].contains("connection-id: a=2-id\r\n"), "{asked:?}");
    // Whoever is no more is asked about no more.
    drop(clients.pop());
    engine.wait_for(4);
    application.answers("403 Forbidden\nWebSocket-Close: 4401 logged out");
    assert_eq!(ask_now(&engine), 3);
    for client in &mut clients {
        assert_eq!(closed(client), (4401, "logged out".into()));
    }
    assert_eq!(application.asked(3).len(), 3);
    alive(&mut other);
}

#[test]
fn what_the_application_answers_is_done() {
    let refused = (1008, "not authorized any more");
    for (answer, expected) in [
        ("401 Unauthorized", refused),
        ("403 Forbidden", refused),
        ("404 Not Found", refused),
        ("410 Gone", refused),
        ("302 Found\nLocation: /login", refused),
        ("200 OK\nWebSocket-Close: 4000", (4000, "")),
        ("403 Forbidden\nWebSocket-Close: 1006", refused),
        ("200 OK\nWebSocket-User: joe", (1008, "another user")),
    ] {
        let application = TestApplication::start(answer);
        let engine = start();
        let mut client = engine.session_of(spec(&application, "a=1", Duration::from_millis(20), LONG)).1;
        let (code, reason) = closed(&mut client);
        assert_eq!((code, reason.as_str()), expected, "{answer}");
    }
}

#[test]
fn one_that_does_not_answer_is_waited_for_until_its_grace_is_over() {
    for answer in ["500 Internal Server Error", "429 Too Many Requests", "200 OK\nWebSocket-Channel: a b"] {
        let application = TestApplication::start(answer);
        let engine = start();
        let (fast, grace) = (Duration::from_millis(20), Duration::from_millis(300));
        let mut client = engine.session_of(spec(&application, "a=1", fast, grace)).1;
        assert_eq!(closed(&mut client), (1011, "the application does not answer".into()), "{answer}");
        assert!(application.asked(2).len() >= 2, "asked again before the end");
    }
    // What an .htaccess file has chosen says nothing of the channels of others.
    let application = TestApplication::start("200 OK\nWebSocket-Channel: others");
    let engine = start();
    let mut session = spec(&application, "a=1", Duration::from_millis(20), Duration::from_millis(50));
    session.application.as_mut().unwrap().says_channels = false;
    assert_eq!(closed(&mut engine.session_of(session).1).0, 1011);
    // One that comes back is as it was.
    let application = TestApplication::start("503 Service Unavailable");
    let engine = start();
    let mut client = engine.session_of(spec(&application, "a=1", LONG, LONG)).1;
    alive(&mut client);
    ask_now(&engine);
    application.asked(1);
    application.answers("200 OK");
    ask_now(&engine);
    application.asked(2);
    alive(&mut client);
}

#[test]
fn the_application_says_when_it_is_asked_again_and_when_sessions_end() {
    let application = TestApplication::start("200 OK\nWebSocket-Recheck: Off\nSet-Meta-Colour: red\nSet-Meta-A: 1");
    let engine = start();
    let mut client = engine.session_of(spec(&application, "a=1", Duration::from_millis(20), LONG)).1;
    application.asked(1);
    alive(&mut client);
    let mut session = spec(&application, "a=1", LONG, LONG);
    let asked = session.application.as_mut().unwrap();
    (asked.recheck, asked.expires) = (None, Some(Duration::from_millis(50)));
    let mut ends = engine.session_of(session).1;
    assert_eq!(closed(&mut ends), (1008, "expired".into()));
    let mut later = engine.session_of(spec(&application, "a=3", LONG, LONG)).1;
    alive(&mut later);
    application.answers("200 OK\nWebSocket-Expires: 1\nSet-Meta-Colour:");
    ask_now(&engine);
    assert_eq!(closed(&mut later), (1008, "expired".into()));
    alive(&mut client);
    assert_eq!(application.asked(2).len(), 2, "off is off");
}

#[test]
fn channels_and_rights_are_what_the_application_says_now() {
    let application = TestApplication::start("200 OK\nWebSocket-Channel: news, extra\nWebSocket-Rights: none");
    let engine = start();
    let subscription = Subscription {
        prefix: "p/".into(),
        channels: vec!["p/news".into(), "p/sport".into()],
        max: 3,
        publishes: true,
        history: History { messages: 1, seconds: 60 },
        ..Subscription::default()
    };
    let settings = postcard::to_stdvec(&subscription).unwrap();
    let handler = HandlerSpec { name: "channel".into(), settings, ..HandlerSpec::default() };
    let session = SessionSpec { handler, protocol: Some("channels.v1".into()), ..spec(&application, "a", LONG, LONG) };
    let mut client = engine.session_of(session).1;
    let said = |client: &mut Client| {
        let text = client.read().unwrap().into_text().unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        (word("type"), word("channel"), word("code"))
    };
    let event = |kind: &str, channel: &str| (kind.to_owned(), channel.to_owned(), String::new());
    assert_eq!([said(&mut client), said(&mut client)], [event("subscribed", "news"), event("subscribed", "sport")]);
    ask_now(&engine);
    assert_eq!(said(&mut client), event("unsubscribed", "sport"));
    assert_eq!(said(&mut client), event("subscribed", "extra"));
    let mut ask = |request: &str| {
        client.send(Message::text(request)).unwrap();
        said(&mut client)
    };
    assert_eq!(ask(r#"{"type":"publish","channel":"news","data":"x"}"#).2, "forbidden");
    assert_eq!(ask(r#"{"type":"subscribe","channel":"sport"}"#).2, "forbidden");
    application.answers("200 OK\nWebSocket-Channel: none\nWebSocket-Allow: spo*\nWebSocket-Rights: publish");
    ask_now(&engine);
    let mut gone = [said(&mut client), said(&mut client)];
    gone.sort();
    assert_eq!(gone, [event("unsubscribed", "extra"), event("unsubscribed", "news")]);
    let mut ask = |request: &str| {
        client.send(Message::text(request)).unwrap();
        said(&mut client)
    };
    assert_eq!(ask(r#"{"type":"subscribe","channel":"sport"}"#), event("subscribed", "sport"));
    application.answers("200 OK");
    ask_now(&engine);
    application.asked(3);
    client.send(Message::text(r#"{"type":"publish","channel":"sport","data":"x"}"#)).unwrap();
    let mut both = [said(&mut client).0, said(&mut client).0];
    both.sort();
    assert_eq!(both, ["message", "published"], "nothing was said, and all is as it was");
}
