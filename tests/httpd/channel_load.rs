//! A thousand subscribers, over ws and wss, while httpd is restarted: each gets every message, once and in order.

use crate::harness::port::Port;
use crate::harness::publish::{publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, heavy, wait_until};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const SUBSCRIBERS: usize = 1000;
const MESSAGES: usize = 200;
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
                    assert_eq!((frame.opcode, frame.close_code()), (Frame::CLOSE, Some(1001)), "{frame:?}");
                    self.client.try_write(&Frame::close(1001, "").masked());
                    let last = self.last.clone().expect("a message before the restart");
                    self.client = Self::connect(server, self.plain, Some(&last));
                    self.returned += 1;
                }
                None => panic!("an end without a Close"),
            }
        }
    }
}

/// Runs the subscribers, of which every `secure`th speaks TLS.
fn a_thousand(mpm: Mpm, workers: usize, secure: usize) {
    let _turn = heavy();
    let port = Port::reserve();
    let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let mut httpd = Httpd::new(mpm)
        .workers(workers)
        .tls()
        .module("authz_host")
        .config("WebSocketChannelHistory 1000 3600\nWebSocketDrainTimeout 1")
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .config(format!("Listen {plain}\n<VirtualHost {plain}>\n  SSLEngine Off\n</VirtualHost>"));
    if mpm == Mpm::Event {
        httpd = httpd.config("AsyncRequestWorkerFactor 80");
    }
    let server = httpd.start();
    // Children that drain take their slots for a second.
    server.tolerate_log("AH03490: scoreboard is full");
    let seen = AtomicUsize::new(0);
    let returned = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (server, seen) = (&server, &seen);
                scope.spawn(move || {
                    let numbers = (client..SUBSCRIBERS).step_by(CLIENTS);
                    let plain = |number: usize| (!number.is_multiple_of(secure)).then_some(plain);
                    let mut all: Vec<Subscriber> =
                        numbers.map(|number| Subscriber::new(server, plain(number))).collect();
                    for message in 0..MESSAGES {
                        for subscriber in &mut all {
                            assert_eq!(subscriber.next(server), format!("message {message}"));
                        }
                        seen.fetch_max(message + 1, Ordering::Relaxed);
                    }
                    all.iter().map(|subscriber| subscriber.returned).sum::<usize>()
                })
            })
            .collect();
        wait_until("all are subscribed", PATIENCE * 3, || subscribers(&server, "news") == SUBSCRIBERS as u64);
        for message in 0..MESSAGES {
            let (_, given) = publish(&server, "news", &format!("message {message}"));
            assert!(given as usize <= SUBSCRIBERS && given > 0);
            if [50, 100, 150].contains(&message) {
                // Each has an id to come back with.
                wait_until("the first has been seen", PATIENCE, || seen.load(Ordering::Relaxed) > 0);
                server.graceful();
            }
        }
        clients.into_iter().map(|client| client.join().expect("a client")).sum::<usize>()
    });
    assert!(returned > 0, "no wss connection was ended by a restart");
    assert!(returned <= 3 * SUBSCRIBERS.div_ceil(secure), "{returned}: ws connections were ended, too");
    wait_until("all have gone", PATIENCE, || subscribers(&server, "news") == 0);
}

#[test]
fn event() {
    a_thousand(Mpm::Event, 50, 4);
}

#[test]
fn prefork() {
    // Each wss connection holds a process.
    a_thousand(Mpm::Prefork, 60, 50);
}
