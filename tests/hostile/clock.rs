//! A clock that jumps, by days and by decades, back and forth, while the time since the start goes on as it does: with
//! Debian's libfaketime in httpd and the engine.

use crate::Scale;
use crate::harness::publish::{publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, wait_until};
use crate::load;
use crate::watch::watched;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// By so much it is wrong after each jump.
const JUMPS: [&str; 8] = ["+1h", "-1h", "+2d", "-2d", "+3650d", "-3650d", "+20000d", "-19000d"];

/// `None`: the package is not there.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let mut found = folders.chain([PathBuf::from("/usr/lib")]).map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists())
}

pub(crate) fn run(scale: Scale) -> String {
    match library() {
        Some(library) => jump(&library, scale),
        None => {
            "skipped: libfaketime is not installed (Debian: libfaketime), and no other clock may be set here".into()
        }
    }
}

fn jump(library: &Path, scale: Scale) -> String {
    let httpd = Httpd::new(Mpm::Event)
        .workers(16)
        .echo()
        .module("authz_host")
        .config("LogLevel notice\nWebSocketPing 1 2\nWebSocketIdleTimeout 600\nWebSocketLog logs/ws.log")
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .file("conf/clock", "+0");
    let clock = httpd.root().join("conf/clock");
    let server = httpd
        .environment("LD_PRELOAD", library)
        .environment("FAKETIME_TIMESTAMP_FILE", &clock)
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("DONT_FAKE_MONOTONIC", "1")
        .start();
    let year = || {
        drop(load::page(server.address()));
        let log = fs::read_to_string(server.path("logs/ws.log")).unwrap_or_default();
        log.lines().last().and_then(|line| {
            line.split(['/', ':']).find(|word| word.len() == 4 && word.parse::<u32>().is_ok()).map(str::to_owned)
        })
    };
    let end = Instant::now() + scale.time(120.0);
    let ((jumps, years), seen) = watched(&server, || {
        let (mut jumps, mut years) = (0, Vec::new());
        let mut subscriber = Raw::open(&server, "/news");
        wait_until("it is subscribed", PATIENCE, || subscribers(&server, "news") == 1);
        while jumps < JUMPS.len() || Instant::now() < end {
            let by = JUMPS[jumps % JUMPS.len()];
            let (id, _) = publish(&server, "news", "before");
            fs::write(&clock, by).expect("another time");
            let pinged = Instant::now() + Duration::from_millis(if scale.is_long() { 3500 } else { 0 });
            publish(&server, "news", "after");
            // Who was there has got it, and who comes back has missed nothing.
            for text in ["before", "after"] {
                expect(&mut subscriber, &Frame::text(text));
            }
            let mut back = Raw::connect(&server);
            let answer = back.ask(&Handshake::new("/news").header("Last-Event-ID", &id));
            answer.assert_accepted();
            assert_eq!(answer.header("WebSocket-Recovered"), Some("true"), "{by}");
            back.expect(&Frame::text("after"));
            // Pings come and are answered as if nothing had happened.
            while Instant::now() < pinged {
                publish(&server, "news", "tick");
                expect(&mut subscriber, &Frame::text("tick"));
                std::thread::park_timeout(Duration::from_millis(100));
            }
            back.reset();
            let mut session = load::open(server.address(), "/echo").expect("a session");
            load::echo(&mut session).expect("its echo");
            years.extend(year());
            jumps += 1;
        }
        subscriber.reset();
        (jumps, years)
    });
    // So that it is known that the clock did jump.
    wait_until("sessions are in their log", PATIENCE, || year().is_some());
    let mut years: Vec<String> = years;
    years.sort();
    years.dedup();
    assert!(years.len() > 3, "the clock did not jump: {years:?}");
    format!("{jumps} jumps, to the years {}; {seen}", years.join(", "))
}

/// The next message; Pings before it are answered.
fn expect(client: &mut Raw, frame: &Frame) {
    loop {
        let received = client.frame();
        if received.opcode == Frame::PING {
            client.send(&Frame::pong(received.payload));
        } else {
            assert!(received == *frame, "awaited {frame:?}, received {received:?}");
            return;
        }
    }
}
