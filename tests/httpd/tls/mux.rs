//! WebSockets over TLS on event, which share a mux to the engine: each has what is its own, and none waits for another.

use crate::harness::channel::offering;
use crate::harness::publish::{publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Process, Raw, Server, heavy, wait_until};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

fn site() -> Httpd {
    Httpd::new(Mpm::Event).tls().relayed().echo().config("AsyncRequestWorkerFactor 80")
}

/// Bytes of which each place has its own.
fn message(number: usize, size: usize) -> Frame {
    Frame::binary((0..size).map(|index| ((index * 7 / 3 + number) % 251) as u8).collect::<Vec<u8>>())
}

/// KiB of the engine and of the children.
fn memory(server: &Server) -> u64 {
    server.children().into_iter().chain([server.engine()]).map(|process| process.resident_kib()).sum()
}

#[test]
fn the_engine_has_a_descriptor_a_child_and_not_a_socket() {
    let server = site().config("WebSocketEngineThreads 1").start();
    // Until each child has its mux.
    wait_until("each child has served a WebSocket", PATIENCE, || {
        Raw::open(&server, "/echo").close();
        let is_served = |child: &Process| server.logged_by(*child).iter().any(|line| line.contains("is the engine's"));
        server.children().iter().all(is_served)
    });
    let before = server.engine().descriptors().len();
    let sockets = Raw::open_some(&server, 100);
    // Children make some more connections for handshakes when one comes right after the other.
    let now = server.engine().descriptors().len();
    assert!(now < before + 20, "from {before} to {now}");
    assert_eq!(server.engine().network_sockets().len(), 0);
    sockets.into_iter().for_each(Raw::close);
}

#[test]
fn who_is_silent_gives_memory_back() {
    const SOCKETS: u64 = 200;
    let _turn = heavy();
    let server = site().config("WebSocketPing Off").start();
    let mut sockets = Raw::open_some(&server, SOCKETS as usize);
    let children = || server.children().into_iter().map(Process::resident_kib).sum::<u64>();
    let large = Frame::binary(vec![b'x'; 60_000]);
    // The second time, memory for messages has been touched that is shared by all.
    for _ in 0..2 {
        sockets.iter_mut().for_each(|socket| socket.echo(&large));
        let spoken = children();
        wait_until("8 KiB of each socket are free", PATIENCE, || children() + 8 * SOCKETS < spoken);
    }
    sockets.iter_mut().for_each(|socket| socket.echo(&large));
    sockets.into_iter().for_each(Raw::close);
}

#[test]
fn those_who_do_not_read_stall_nobody() {
    const DEAF: usize = 10;
    let _turn = heavy();
    let server = site().config("WebSocketSendBuffer 65536\nWebSocketPing Off").start();
    let mut talking = Raw::open_some(&server, 50);
    let large = Frame::binary(vec![b'x'; 64 * 1024]);
    talking.iter_mut().for_each(|socket| socket.echo(&large));
    let before = memory(&server);
    let mut deaf = Raw::open_some(&server, DEAF);
    let bytes = large.masked();
    // What of each went so far.
    let sent: Vec<usize> = deaf
        .iter_mut()
        .map(|socket| {
            let mut sent = 0;
            while let Some(written @ 1..) = socket.write_some(&bytes[sent % bytes.len()..], Duration::from_millis(300))
            {
                sent += written;
                assert!(sent < 64 << 20, "the server took 64 MiB of a client that reads nothing");
            }
            sent
        })
        .collect();
    for round in 0..20 {
        let text = Frame::text(format!("round {round}"));
        talking.iter_mut().for_each(|socket| socket.send(&text));
        talking.iter_mut().for_each(|socket| socket.expect(&text));
    }
    talking.iter_mut().for_each(|socket| socket.echo(&large));
    // A window in each direction, the send buffer, the message in the making, and what it takes to keep them.
    let now = memory(&server);
    assert!(now < before + DEAF as u64 * 1536, "from {before} to {now} KiB");
    for (socket, sent) in deaf.iter_mut().zip(sent) {
        for _ in 0..sent / bytes.len() {
            socket.expect(&large);
        }
    }
    deaf.into_iter().for_each(Raw::reset);
    talking.into_iter().for_each(Raw::close);
}

#[test]
fn large_messages_keep_apart() {
    let _turn = heavy();
    let server = site().config("<Location \"/echo\">\n  WebSocketMaxMessageSize 4194304\n</Location>").start();
    thread::scope(|scope| {
        for client in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut socket = Raw::open(server, "/echo").about(&format!("socket {client}"));
                for round in 0..3 {
                    socket.echo(&message(client * 10 + round, (1 << 20) + client * 100_000 + round));
                    let many: Vec<Frame> = (0..50).map(|number| message(client + number, number * 97)).collect();
                    socket.send_all(&many);
                    many.iter().for_each(|frame| socket.expect(frame));
                }
                socket.close();
            });
        }
    });
}

#[test]
fn one_subscriber_of_many_is_slow() {
    const SUBSCRIBERS: usize = 200;
    let _turn = heavy();
    let server = site()
        .module("authz_host")
        .config(
            "WebSocketSendBuffer 65536\n<Location \"/news\">\n  WebSocketHandler channel news\n</Location>\n\
             <Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>",
        )
        .start();
    let subscribe = || {
        let mut client = Raw::connect(&server);
        client.ask(&offering("/news", "ws+meta.nchan")).assert_accepted();
        client
    };
    let mut slow = subscribe().about("the slow one");
    let mut others: Vec<Raw> = (1..SUBSCRIBERS).map(|_| subscribe()).collect();
    wait_until("all are subscribed", PATIENCE, || subscribers(&server, "news") == SUBSCRIBERS as u64);
    let pad = "x".repeat(20_000);
    let mut number = 0;
    let mut tell_all = |others: &mut [Raw]| {
        number += 1;
        let text = format!("{number} {pad}");
        let (_, reached) = publish(&server, "news", &text);
        for other in others {
            let frame = other.frame();
            let received = String::from_utf8_lossy(&frame.payload);
            let (_, body) = received.split_once("\n\n").expect("nchan's lines");
            assert!(body == text, "{} instead of {number}", &body[..10]);
        }
        reached
    };
    let mut rounds = 0;
    while tell_all(&mut others) == SUBSCRIBERS as u64 {
        rounds += 1;
        assert!(rounds < 2000, "it is never given up");
    }
    for _ in 0..5 {
        assert_eq!(tell_all(&mut others), SUBSCRIBERS as u64 - 1);
    }
    slow.expect_failure(1013);
    // The line is written when the client has hung up.
    let given_up = || server.error_log().matches("closed by the server, 1013, slow consumer").count();
    wait_until("the slow one's end is in the log", PATIENCE, || given_up() > 0);
    assert_eq!(given_up(), 1);
    others.into_iter().for_each(Raw::reset);
}

#[test]
fn a_killed_engine_takes_its_sockets_along() {
    let server = site().start();
    for _ in 0..2 {
        let (engine, children) = (server.engine(), server.children());
        let sockets = Raw::open_some(&server, 30);
        server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
        engine.signal(Signal::KILL);
        // Nobody was left to send a Close, but TLS has its end.
        for mut socket in sockets {
            socket.expect_end();
        }
        wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
        // Each child opens a new mux.
        Raw::open_some(&server, 30).into_iter().for_each(Raw::close);
        assert_eq!(server.children(), children, "no child was replaced");
    }
}

#[test]
fn a_killed_child_takes_no_others_sockets_along() {
    let server = site().start();
    server.tolerate_log("exit signal Killed (9)");
    let served = |child: &Process| {
        let lines = server.logged_by(*child);
        lines.iter().filter(|line| line.contains("is the engine's")).count()
    };
    let children = server.children();
    assert!(children.len() > 1);
    let (mut doomed, mut others) = (Vec::new(), Vec::new());
    wait_until("two children serve", PATIENCE, || {
        let before = served(&children[0]);
        let mut socket = Raw::open(&server, "/echo");
        socket.echo(&Frame::text("before"));
        if served(&children[0]) > before {
            doomed.push(socket)
        } else {
            others.push(socket)
        }
        doomed.len() > 3 && others.len() > 3
    });
    // One of them with something under way.
    doomed[0].send(&message(1, 100_000));
    children[0].signal(Signal::KILL);
    let lost = doomed.len();
    for mut socket in doomed {
        socket.await_hangup();
    }
    for socket in &mut others {
        socket.echo(&message(2, 100_000));
    }
    wait_until("the engine has noticed", PATIENCE, || server.error_log().matches(" ended: lost, 1006").count() == lost);
    others.into_iter().for_each(Raw::close);
}

/// A client that sends without a pause, and comes back when it is told to; what is echoed is in order.
fn talk(server: &Server, done: &AtomicBool, echoed: &AtomicUsize) -> usize {
    let mut returned = 0;
    loop {
        let mut socket = Raw::open(server, "/echo");
        let (mut sent, mut came) = (0, 0);
        let text = |number: usize| Frame::text(format!("message {number} {}", "x".repeat(number % 3000)));
        loop {
            while sent < came + 16 {
                socket.try_write(&text(sent).masked());
                sent += 1;
            }
            let frame = socket.frame();
            if frame.opcode == Frame::CLOSE {
                assert_eq!(frame.close_code(), Some(1012));
                socket.try_write(&Frame::close(1012, "").masked());
                socket.await_hangup();
                returned += 1;
                break;
            }
            assert_eq!(frame, text(came));
            came += 1;
            echoed.fetch_add(1, Ordering::Relaxed);
            if done.load(Ordering::Relaxed) {
                while came < sent {
                    socket.expect(&text(came));
                    came += 1;
                }
                socket.close();
                return returned;
            }
        }
    }
}

#[test]
fn graceful_restarts_during_traffic() {
    let _turn = heavy();
    let server = site().config("ServerLimit 6\nWebSocketDrainTimeout 1").start();
    let engine = server.engine();
    let (done, echoed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let returned: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| talk(&server, &done, &echoed))).collect();
        for _ in 0..2 {
            let now = echoed.load(Ordering::Relaxed);
            wait_until("they talk", PATIENCE, || echoed.load(Ordering::Relaxed) > now + 500);
            let old = server.begin_graceful();
            wait_until("the old children are gone", PATIENCE, || old.iter().all(|child| !child.is_running()));
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    assert!(returned >= 8, "only {returned} were told to come back");
    assert_eq!(server.engines(), [engine]);
}
