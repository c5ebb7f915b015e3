//! A thousand subscribers, over ws and wss, while httpd is restarted: each gets every message, once and in order, whoever
//! publishes it.

use crate::harness::channel::{ask, offering, said};
use crate::harness::port::Port;
use crate::harness::publish::{publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, heavy, wait_until};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const SUBSCRIBERS: usize = 1000;
/// Messages before, between and after the restarts, at least.
const MESSAGES: usize = 50;
/// Messages that may be under way.
const AHEAD: usize = 10;
/// What is published last.
const END: &str = "that is all";
/// Threads of clients.
const CLIENTS: usize = 8;

/// A subscriber that comes back where it was when its connection ends.
struct Subscriber {
    /// Where it speaks plain HTTP; over TLS elsewhere.
    plain: Option<SocketAddr>,
    client: Raw,
    last: Option<String>,
    returned: usize,
}

impl Subscriber {
    fn new(server: &Server, plain: Option<SocketAddr>) -> Self {
        let client = Self::connect(server, plain, None);
        Self { plain, client, last: None, returned: 0 }
    }

    fn connect(server: &Server, plain: Option<SocketAddr>, last: Option<&str>) -> Raw {
        let mut client = match plain {
            Some(address) => Raw::connect_to(address, None),
            None => Raw::connect(server),
        };
        let handshake = Handshake::new("/news").header("Sec-WebSocket-Protocol", "ws+meta.nchan");
        let answer = match last {
            Some(last) => client.ask(&handshake.header("Last-Event-ID", last)),
            None => client.ask(&handshake),
        };
        answer.assert_accepted();
        assert_eq!(answer.header("WebSocket-Recovered"), last.map(|_| "true"));
        client
    }

    /// The next message, without what stands before it.
    fn next(&mut self, server: &Server) -> String {
        loop {
            match self.client.frame_or_end() {
                Some(frame) if frame.opcode == Frame::TEXT => {
                    let text = String::from_utf8(frame.payload).expect("UTF-8");
                    let (head, body) = text.split_once("\n\n").expect("nchan's lines");
                    let id = head.lines().find_map(|line| line.strip_prefix("id: "));
                    self.last = Some(id.expect("an id").to_owned());
                    return body.to_owned();
                }
                Some(frame) if frame.opcode == Frame::PING => {
                    self.client.try_write(&Frame::pong(frame.payload).masked())
                }
                Some(frame) => {
                    assert_eq!(self.plain, None, "a ws connection was ended: {frame:?}");
                    assert_eq!((frame.opcode, frame.close_code()), (Frame::CLOSE, Some(1012)), "{frame:?}");
                    self.client.try_write(&Frame::close(1012, "").masked());
                    let last = self.last.clone().expect("a message before the restart");
                    self.client = Self::connect(server, self.plain, Some(&last));
                    self.returned += 1;
                }
                None => panic!("an end without a Close"),
            }
        }
    }
}

/// Those who publish: each its own program, as sites have them.
struct Publishers<'a> {
    server: &'a Server,
    url: String,
    /// A WebSocket that publishes to a channel that it is not subscribed to.
    speaker: Raw,
}

impl<'a> Publishers<'a> {
    fn new(server: &'a Server, plain: SocketAddr) -> Self {
        let mut speaker = Raw::connect_to(plain, None);
        speaker.ask(&offering("/desk", "channels.v1")).assert_accepted();
        assert_eq!(said(&mut speaker)["type"], "subscribed");
        Self { server, url: format!("http://{plain}/publish?channel=news"), speaker }
    }

    /// Has one of them publish the text; to how many it was given.
    fn publish(&mut self, number: usize, text: &str) -> u64 {
        match number % 10 {
            0 => {
                let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
                let program = "import sys, urllib.request as r; \
                               sys.stdout.buffer.write(r.urlopen(sys.argv[1], sys.argv[2].encode()).read())";
                receipt(Command::new(python).args(["-c", program, &self.url, text]))
            }
            5 => receipt(Command::new("curl").args(["--silent", "--show-error", "--fail", "--data", text, &self.url])),
            2 | 7 => {
                let published = ask(&mut self.speaker, &json!({"type": "publish", "channel": "news", "data": text}));
                assert_eq!(published["type"], "published", "{published}");
                published["subscribers"].as_u64().expect("a number")
            }
            _ => publish(self.server, "news", text).1,
        }
    }
}

/// The number of subscribers in what a program has printed.
fn receipt(command: &mut Command) -> u64 {
    let output = command.output().expect("the program");
    assert!(output.status.success(), "{command:?}: {output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    printed["news"]["subscribers"].as_u64().expect("a number")
}

/// Runs the subscribers, of which every `secure`th speaks TLS.
fn a_thousand(mpm: Mpm, workers: usize, secure: usize) {
    let _turn = heavy();
    let port = Port::reserve();
    let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let mut httpd = Httpd::new(mpm)
        .workers(workers)
        .tls()
        .relayed()
        .module("authz_host")
        // As many as ask at once: on a busy machine all of them may wait for a while.
        .config(format!("WebSocketChannelHistory 1000 3600\nWebSocketDrainTimeout 1\nWebSocketEngineWait {CLIENTS}"))
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config(
            "<Location \"/desk\">\n  WebSocketHandler channel desk\n  WebSocketChannelAllow news\n  \
             WebSocketChannelPublish On\n</Location>",
        )
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .config(format!("Listen {plain}\n<VirtualHost {plain}>\n  SSLEngine Off\n</VirtualHost>"));
    // Room for children that drain: they keep their places, and new ones are to serve meanwhile.
    httpd = match mpm {
        Mpm::Event => httpd.config("ServerLimit 8\nAsyncRequestWorkerFactor 80"),
        Mpm::Worker => httpd.config("ServerLimit 8"),
        // Else it makes one a second.
        Mpm::Prefork => httpd.config("MinSpareServers 30"),
    };
    let server = httpd.start();
    // Children that drain take their slots for a second.
    server.tolerate_log("AH03490: scoreboard is full");
    // The worker MPM miscounts the children of a generation when another one has taken the slot of one that drains.
    server.tolerate_log("AH00546: no record of generation");
    let progress: Vec<AtomicUsize> = (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect();
    let returned = thread::scope(|scope| {
        let clients: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(client, progress)| {
                let server = &server;
                scope.spawn(move || {
                    let numbers = (client..SUBSCRIBERS).step_by(CLIENTS);
                    let plain = |number: usize| (!number.is_multiple_of(secure)).then_some(plain);
                    let mut all: Vec<Subscriber> =
                        numbers.map(|number| Subscriber::new(server, plain(number))).collect();
                    for message in 0.. {
                        let texts = all.iter_mut().map(|subscriber| subscriber.next(server)).collect::<HashSet<_>>();
                        progress.store(message + 1, Ordering::Relaxed);
                        if texts.iter().all(|text| text == END) {
                            break;
                        }
                        assert_eq!(texts, HashSet::from([format!("message {message}")]));
                    }
                    all.iter().map(|subscriber| subscriber.returned).sum::<usize>()
                })
            })
            .collect();
        wait_until("all are subscribed", PATIENCE * 3, || subscribers(&server, "news") == SUBSCRIBERS as u64);
        let mut publishers = Publishers::new(&server, plain);
        let mut message = 0;
        for restart in 0..4 {
            let old = if restart > 0 { server.begin_graceful() } else { Vec::new() };
            let mut left = MESSAGES;
            while left > 0 || old.iter().any(|child| child.is_running()) {
                let given = publishers.publish(message, &format!("message {message}")) as usize;
                let expected = if restart == 0 { SUBSCRIBERS..=SUBSCRIBERS } else { 1..=SUBSCRIBERS };
                assert!(expected.contains(&given), "message {message} was given to {given}");
                (message, left) = (message + 1, left.saturating_sub(1));
                wait_until("nobody is far behind", PATIENCE, || {
                    progress.iter().all(|progress| progress.load(Ordering::Relaxed) + AHEAD >= message)
                });
            }
        }
        publishers.publish(1, END);
        publishers.speaker.close();
        clients.into_iter().map(|client| client.join().expect("a client")).sum::<usize>()
    });
    assert!(returned > 0, "no wss connection was ended by a restart");
    wait_until("all have gone", PATIENCE, || subscribers(&server, "news") == 0);
}

#[test]
fn event() {
    a_thousand(Mpm::Event, 50, 4);
}

#[test]
fn worker() {
    // Each wss connection holds a thread.
    a_thousand(Mpm::Worker, 60, 50);
}

#[test]
fn prefork() {
    // Each wss connection holds a process; in a restart there are those of two generations, and the spare ones.
    a_thousand(Mpm::Prefork, 100, 50);
}
