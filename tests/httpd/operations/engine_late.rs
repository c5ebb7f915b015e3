//! An engine that hangs: the site does not, and another engine takes its place.

use crate::handlers::tcp::Full;
use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, wait_until};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

every_mpm!(
    one_that_gives_no_sign_of_life_is_replaced,
    pages_come_while_it_hangs,
    a_target_that_never_answers_is_not_the_engine,
    a_python_that_never_answers_is_not_the_engine,
);

/// The parent looks about every ten seconds, and wants to have seen nothing twice.
const ROUNDS: Duration = Duration::from_secs(60);

/// What is logged once, when an engine turns out to be late.
const LATE: &str = "WS0165: the engine is late";
/// And when it answers again.
const BACK: &str = "WS0166: the engine answers again";
/// Once a minute.
const MANY: &str = "WS0167: ";

fn times(server: &Server, text: &str) -> usize {
    server.error_log().matches(text).count()
}

/// Of those whose engine is late.
#[track_caller]
fn refused(response: &Response) {
    assert_eq!(response.status, 503);
    assert!(response.header("Retry-After").is_some(), "{response:?}");
}

/// As many may wait as by default: a quarter of a child's four threads.
fn echo(mpm: Mpm) -> Httpd {
    Httpd::new(mpm).echo().config("WebSocketEngineWait 1")
}

/// How many may wait at a time: of two children with four threads each, or of four processes.
fn places(mpm: Mpm) -> usize {
    if mpm == Mpm::Prefork { 1 } else { 2 }
}

/// As many clients as there are workers.
const BUSY: &str = "server reached MaxRequestWorkers setting";

/// Clients that begin a handshake at once; what they are answered, one after the other.
fn crowd(server: &Server, handshake: &Handshake, count: usize) -> Vec<thread::JoinHandle<(Option<Raw>, Response)>> {
    server.tolerate_log(BUSY);
    let clients = (0..count).map(|_| {
        let mut client = Raw::connect(server);
        client.write(&handshake.bytes(&client.host()));
        thread::spawn(move || {
            let response = client.response(false);
            // Who is refused goes: httpd would wait for that.
            (Some(client).filter(|_| response.status == 101), response)
        })
    });
    clients.collect()
}

fn pages_come_while_it_hangs(mpm: Mpm) {
    let server = echo(mpm)
        .config("WebSocketEngineTimeout Off\n<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
        .start();
    let engine = server.engine();
    let mut open = Raw::open(&server, "/echo");
    open.echo(&Frame::text("hello"));
    engine.signal(Signal::STOP);
    server.expect_log(LATE);
    server.tolerate_log(MANY);
    let clients = crowd(&server, &Handshake::new("/echo"), 20);
    while !clients.iter().all(thread::JoinHandle::is_finished) {
        assert_eq!(Raw::page(&server, "/index.html").status, 200);
    }
    for client in clients {
        refused(&client.join().expect("an answer").1);
    }
    // Those that waited, and one that tried.
    let waited =
        times(&server, "the engine has not answered in time") + times(&server, "was asked before that was known");
    assert!((1..=places(mpm) + 1).contains(&waited), "{waited}");
    assert_eq!(times(&server, LATE), 1);
    // One of them tries, and the other one is told at once.
    let publishers = crowd(&server, &Handshake::page("/publish?channel=a"), 2);
    wait_until("one is told at once", PATIENCE, || {
        times(&server, "WS0018: cannot reach the engine: the engine is late") > 0
    });
    server.expect_log(BACK);
    engine.signal(Signal::CONT);
    wait_until("the engine is asked again", PATIENCE, || Raw::answer(&server, &Handshake::new("/echo")).status == 101);
    open.echo(&Frame::text("hello again"));
    publishers.into_iter().for_each(|client| drop(client.join().expect("an answer")));
    assert_eq!((times(&server, LATE), times(&server, BACK)), (1, 1));
}

/// Of processes, whose places are in memory that they share.
#[test]
fn a_child_that_is_killed_while_it_waits_gives_its_place_back() {
    let server = echo(Mpm::Prefork).config("WebSocketEngineTimeout Off").start();
    let engine = server.engine();
    Raw::open(&server, "/echo").close();
    engine.signal(Signal::STOP);
    let mut clients = [Raw::connect(&server), Raw::connect(&server)];
    for client in &mut clients {
        client.write(&Handshake::new("/echo").bytes(&client.host()));
    }
    // One of them has the only place as soon as the other one is told so.
    server.expect_log(MANY);
    wait_until("the place is taken", PATIENCE, || times(&server, MANY) > 0);
    assert_eq!(times(&server, LATE), 0);
    let killed = server.children();
    killed.iter().for_each(|child| child.signal(Signal::KILL));
    wait_until("they are gone", PATIENCE, || !killed.iter().any(|child| child.is_running()));
    assert_eq!(times(&server, LATE), 0);
    // Who has no place is refused, and does not find out that the engine is late.
    server.expect_log(LATE);
    refused(&Raw::answer(&server, &Handshake::new("/echo")));
    assert_eq!(times(&server, LATE), 1);
    server.expect_log(BACK);
    engine.signal(Signal::CONT);
    wait_until("the engine is asked again", PATIENCE, || Raw::answer(&server, &Handshake::new("/echo")).status == 101);
}

fn a_target_that_never_answers_is_not_the_engine(mpm: Mpm) {
    let full = Full::new();
    let server =
        echo(mpm).config(format!("<Location \"/slow\">\n  WebSocketHandler tcp {}\n</Location>", full.address)).start();
    server.expect_log("no connection to");
    server.tolerate_log(MANY);
    let clients = crowd(&server, &Handshake::new("/slow"), 10);
    while !clients.iter().all(thread::JoinHandle::is_finished) {
        assert_eq!(Raw::page(&server, "/index.html").status, 200);
        Raw::open(&server, "/echo").close();
    }
    let answers: Vec<u16> = clients.into_iter().map(|client| client.join().expect("an answer").1.status).collect();
    let waited = answers.iter().filter(|status| **status == 504).count();
    assert!(
        (1..=places(mpm)).contains(&waited) && answers.iter().all(|status| [503, 504].contains(status)),
        "{answers:?}"
    );
    // It is remembered for a while.
    wait_until("it is not asked", PATIENCE, || {
        Raw::answer(&server, &Handshake::new("/slow"));
        times(&server, "it did not answer") > 0
    });
}

fn a_python_that_never_answers_is_not_the_engine(mpm: Mpm) {
    let httpd = echo(mpm)
        .python_handlers()
        .config("<Location \"/gate\">\n  WebSocketHandler pywebsocket handlers\n</Location>");
    let gate = httpd.root().join("htdocs/open");
    let server = httpd.start();
    server.tolerate_log("handlers/broken_wsh.py: ");
    server.tolerate_log(MANY);
    let handshake = Handshake::new("/gate").header("Gate", &gate.to_string_lossy());
    let clients = crowd(&server, &handshake, 10);
    let places = places(mpm);
    wait_until("only so many wait", PATIENCE, || {
        clients.iter().filter(|client| client.is_finished()).count() >= 10 - places
    });
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    Raw::open(&server, "/echo").close();
    std::fs::write(&gate, "").expect("the file");
    let mut statuses: Vec<u16> = Vec::new();
    for client in clients {
        let (client, response) = client.join().expect("an answer");
        if let Some(mut client) = client {
            client.expect(&Frame::text("in"));
            client.send(&Frame::close(1000, ""));
        }
        statuses.push(response.status);
    }
    assert!(statuses.contains(&101) && statuses.iter().all(|status| [101, 503].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 101).count() <= places, "{statuses:?}");
}

fn one_that_gives_no_sign_of_life_is_replaced(mpm: Mpm) {
    let server = echo(mpm).config("WebSocketEngineTimeout 5").start();
    let engine = server.engine();
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    server.expect_log("WS0169: the engine process");
    server.expect_log("WS0201: the engine process");
    server.expect_log(LATE);
    engine.signal(Signal::STOP);
    refused(&Raw::answer(&server, &Handshake::new("/echo")));
    wait_until("the engine is killed", ROUNDS, || !engine.is_running());
    client.await_hangup();
    let next = server.engine();
    assert_ne!(next, engine);
    // Nothing is left of the one that was late.
    Raw::open(&server, "/echo").echo(&Frame::text("hello again"));
    assert_eq!(times(&server, "WS0168: a new engine replaces"), 1);
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
            let text = String::from_utf8(crate::handlers::echo::letters(1 << 19)).expect("letters");
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
