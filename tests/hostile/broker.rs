//! A Redis that hangs, is killed, comes back with what it had or with nothing, takes no writes, or has what others wrote: what
//! publishers are told is true, and whoever needs no channel notices nothing.

use crate::Scale;
use crate::harness::publish::{post, subscribers};
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use crate::watch::watched;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long it is as bad as it is.
const BAD: Duration = Duration::from_millis(3500);

fn httpd(redis: &Redis) -> Server {
    let server = Httpd::new(Mpm::Event)
        .workers(16)
        .module("authz_host")
        .echo()
        .config(format!("LogLevel notice\nWebSocketBroker {}\nWebSocketChannelHistory 100000 3600", redis.url()))
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .start();
    server.expect_links(2);
    for line in [
        "WS0121: the broker cannot be reached",
        "WS0185: the broker had what no engine has written",
        "WS0017: refused with 503",
        "WS0017: refused with 504",
        "WS0007: no session: the engine refused: the broker cannot be reached",
    ] {
        server.tolerate_log(line);
    }
    server
}

/// What publishers were told, and subscribers have got.
#[derive(Default)]
struct Books {
    told: Mutex<HashMap<String, u16>>,
    got: Mutex<HashSet<String>>,
    /// Times that a subscriber came back, and was told that it has missed something.
    lost: AtomicU64,
}

impl Books {
    fn told(&self, text: &str, status: u16) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned(), status);
    }

    fn got(&self, text: &str) -> bool {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned())
    }

    /// Those of which a publisher was told that they are published, and that nobody has got.
    fn missing(&self) -> Vec<String> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let published = told.iter().filter(|(_, status)| matches!(status, 201 | 202));
        published.filter(|(text, _)| !got.contains(*text)).map(|(text, _)| text.clone()).collect()
    }

    /// What was refused was not published.
    fn check(&self) {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (text, status) in told.iter() {
            assert!(matches!(status, 201 | 202 | 503 | 504), "{text}: {status}");
            assert!(*status != 503 || !got.contains(text), "{text} was refused with 503, and came");
        }
    }
}

/// Follows the channel, coming back whenever it is closed; nothing comes twice but after a loss that it was told of.
fn subscribe(server: &Server, books: &Books, done: &AtomicBool) {
    let mut last: Option<String> = None;
    let mut known: HashSet<String> = HashSet::new();
    while !done.load(Ordering::Relaxed) {
        let mut client = Raw::connect(server);
        let mut handshake = Handshake::new("/news").header("Sec-WebSocket-Protocol", "ws+meta.nchan");
        if let Some(id) = &last {
            handshake = handshake.header("Last-Event-ID", id);
        }
        let answer = client.ask(&handshake);
        if answer.status != 101 {
            assert_eq!(answer.status, 503, "{answer:?}");
            thread::park_timeout(Duration::from_millis(50));
            continue;
        }
        if answer.header("WebSocket-Recovered") == Some("false") {
            books.lost.fetch_add(1, Ordering::Relaxed);
            known.clear();
        }
        loop {
            let frame = client.frame();
            match frame.opcode {
                Frame::TEXT => {
                    let text = String::from_utf8(frame.payload).expect("UTF-8");
                    let (id, message) =
                        text.strip_prefix("id: ").and_then(|rest| rest.split_once('\n')).expect("an id");
                    let message = message.split_once("\n\n").or(message.split_once('\n')).expect("a message").1;
                    last = Some(id.to_owned());
                    let is_new = known.insert(message.to_owned()) || message == SIGN;
                    assert!(is_new, "{message} came twice");
                    books.got(message);
                    if message == END {
                        client.reset();
                        return;
                    }
                }
                Frame::PING => client.send(&Frame::pong(frame.payload)),
                Frame::CLOSE => {
                    assert_eq!(frame.close_code(), Some(1012), "{frame:?}");
                    break;
                }
                other => panic!("opcode {other}"),
            }
        }
        client.reset();
    }
}

/// Says nothing, and may come often.
const SIGN: &str = "a sign of life";
/// The last message.
const END: &str = "the end";

fn publish(server: &Server, text: &str) -> u16 {
    post(server, "/publish?channel=news", "text/plain", text.as_bytes()).status
}

type Fault = (&'static str, fn(&mut Redis));

const FAULTS: [Fault; 9] = [
    ("hangs", |redis| {
        redis.freeze();
        thread::park_timeout(BAD);
        redis.wake();
    }),
    ("restarted empty", |redis| {
        redis.go();
        redis.forget();
        redis.come_back();
    }),
    ("foreign entry", |redis| {
        redis.carry_out("XADD {mod_websocket}:log * field value");
    }),
    ("read-only", |redis| {
        redis.carry_out("REPLICAOF 127.0.0.1 1");
        thread::park_timeout(BAD);
        redis.carry_out("REPLICAOF NO ONE");
    }),
    ("killed", |redis| {
        redis.go();
        thread::park_timeout(BAD);
        redis.come_back();
    }),
    ("too few replicas", |redis| {
        redis.carry_out("CONFIG SET min-replicas-to-write 1");
        thread::park_timeout(BAD);
        redis.carry_out("CONFIG SET min-replicas-to-write 0");
    }),
    ("out of memory", |redis| {
        redis.carry_out("CONFIG SET maxmemory 1");
        thread::park_timeout(BAD);
        redis.carry_out("CONFIG SET maxmemory 0");
    }),
    ("connections cut", |redis| {
        redis.carry_out("CLIENT KILL TYPE normal SKIPME yes");
    }),
    ("scripts forgotten", |redis| {
        redis.carry_out("SCRIPT FLUSH");
    }),
];

pub(crate) fn run(scale: Scale) -> String {
    let mut redis = Redis::start();
    let (one, two) = (httpd(&redis), httpd(&redis));
    let (books, done) = (Books::default(), AtomicBool::new(false));
    let number = AtomicU64::new(0);
    // In the share, those that matter most.
    let faults = if scale.is_long() { &FAULTS[..] } else { &FAULTS[..3] };
    let end = Instant::now() + scale.time(420.0);
    let ((count, seen), elsewhere) = watched(&one, || {
        watched(&two, || {
            thread::scope(|scope| {
                scope.spawn(|| subscribe(&one, &books, &done));
                scope.spawn(|| subscribe(&two, &books, &done));
                let _done = Set(&done, true);
                wait_until("both are subscribed", PATIENCE, || subscribers(&one, "news") == 2);
                let publishing = AtomicBool::new(true);
                let mut count = 0;
                while count < faults.len() || Instant::now() < end {
                    let (what, fault) = faults[count % faults.len()];
                    publishing.store(true, Ordering::Relaxed);
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            while publishing.load(Ordering::Relaxed) {
                                let text = format!("{what} {}", number.fetch_add(1, Ordering::Relaxed));
                                books.told(&text, publish(&two, &text));
                                thread::park_timeout(Duration::from_millis(2));
                            }
                        });
                        let _paused = Set(&publishing, false);
                        thread::park_timeout(Duration::from_millis(100));
                        if what == "restarted empty" {
                            // What it has acknowledged and nobody has got would be lost, and that is no fault.
                            publishing.store(false, Ordering::Relaxed);
                            wait_until("all has come", PATIENCE, || books.missing().is_empty());
                        }
                        fault(&mut redis);
                        // At both: each tries again in its own time.
                        for server in [&one, &two] {
                            wait_until("publishers are heard again", PATIENCE, || {
                                let text = format!("after {what} {}", number.fetch_add(1, Ordering::Relaxed));
                                let status = publish(server, &text);
                                books.told(&text, status);
                                matches!(status, 201 | 202)
                            });
                        }
                    });
                    wait_until(&format!("all has come after: {what}"), PATIENCE, || books.missing().is_empty());
                    books.check();
                    count += 1;
                }
                wait_until("both are there", PATIENCE, || {
                    publish(&one, SIGN);
                    subscribers(&one, "news") == 2
                });
                wait_until("it ends", PATIENCE, || publish(&one, END) == 201);
                count
            })
        })
    });
    let told = books.told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    told.values().for_each(|status| *statuses.entry(*status).or_default() += 1);
    let lost = books.lost.into_inner();
    format!("{count} faults; answers to publishers {statuses:?}; {lost} times told of a loss; {seen}; {elsewhere}")
}

/// Sets it when dropped, whatever has failed: others wait for it.
struct Set<'a>(&'a AtomicBool, bool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}
