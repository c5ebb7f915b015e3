//! An engine that hangs: the site does not, and another engine takes its place.

use crate::harness::{Client, Frame, Httpd, Mpm, Raw, every_mpm, wait_until};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

every_mpm!(one_that_gives_no_sign_of_life_is_replaced);

/// The parent looks about every ten seconds, and wants to have seen nothing twice.
const ROUNDS: Duration = Duration::from_secs(60);

fn one_that_gives_no_sign_of_life_is_replaced(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().config("WebSocketEngineTimeout 5").start();
    let engine = server.engine();
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    server.expect_log("WS0169: the engine process");
    server.expect_log("WS0201: the engine process");
    engine.signal(Signal::STOP);
    wait_until("the engine is killed", ROUNDS, || !engine.is_running());
    client.await_hangup();
    let next = server.engine();
    assert_ne!(next, engine);
    Raw::open(&server, "/echo").echo(&Frame::text("hello again"));
    let log = server.error_log();
    let line = log.lines().find(|line| line.contains("WS0169")).expect("a line");
    assert!(line.contains("websocket:crit"), "{line}");
    assert!(line.contains("all its sessions are lost"), "{line}");
    assert!(line.contains("the main thread") && line.contains("waiting for something to do"), "{line}");
}

/// One thread, which has always something to do: one round of the parent after the other.
#[test]
fn one_that_is_busy_is_not_replaced() {
    let server = Httpd::new(Mpm::Event)
        .echo()
        .config(
            "WebSocketEngineTimeout 5\nWebSocketEngineThreads 1\nWebSocketCompression On\nWebSocketCompressionLevel 9",
        )
        .start();
    let engine = server.engine();
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, is_over) = (Client::open(&server, "/echo"), is_over.clone());
            let text = String::from_utf8(crate::echo::letters(1 << 19)).expect("letters");
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    client.echo_text(&text);
                }
            })
        })
        .collect();
    let begin = Instant::now();
    wait_until("the parent has looked three times", ROUNDS, || begin.elapsed() > Duration::from_secs(31));
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("a client that was answered"));
    assert_eq!(server.engine(), engine);
}
