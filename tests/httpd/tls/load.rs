//! Many WebSockets over TLS on event, sessions opened and closed by the thousand, and messages of many megabytes.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};
use std::thread;
use std::time::Duration;

every_mpm!(large_messages, a_client_that_does_not_read);

/// Open at once: eighty for each of the workers.
const SOCKETS: usize = 2000;
/// Clients that do the same beside each other.
const CLIENTS: usize = 8;

/// Two children with 25 threads each, and as many suspended connections as `docs/operations/tls-http2.md` says.
fn event() -> Server {
    Httpd::new(Mpm::Event)
        .workers(50)
        .tls()
        .relayed()
        .echo()
        .module("status")
        .config("AsyncRequestWorkerFactor 80\n<Location \"/server-status\">\n  SetHandler server-status\n</Location>")
        .start()
}

/// How many workers are at work, the one that answers this question included.
fn busy_workers(server: &Server) -> usize {
    let status = Raw::page(server, "/server-status?auto").text();
    let busy = status.lines().find_map(|line| line.strip_prefix("BusyWorkers: "));
    busy.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no BusyWorkers in {status}"))
}

fn pages_answer(server: &Server, when: &str) {
    for _ in 0..20 {
        assert_eq!(Raw::page(server, "/index.html").text(), "<p>A page of the site.</p>\n", "{when}");
    }
}

/// Descriptors and KiB of memory: of the children together, and of the engine.
fn held(server: &Server) -> [(usize, u64); 2] {
    let children = server.children();
    let descriptors = children.iter().map(|child| child.descriptors().len()).sum();
    let memory = children.iter().map(|child| child.resident_kib()).sum();
    let engine = server.engine();
    [(descriptors, memory), (engine.descriptors().len(), engine.resident_kib())]
}

/// Sessions that have begun and have not ended, by the error log.
fn open_sessions(server: &Server) -> usize {
    let log = server.error_log();
    log.matches(" begins: ").count() - log.matches(" ended: ").count()
}

#[test]
fn thousands_of_sockets_take_no_worker() {
    let _turn = heavy();
    let server = event();
    pages_answer(&server, "before");
    let idle = held(&server);
    let open = || -> Vec<Raw> { (0..SOCKETS / CLIENTS).map(|_| Raw::open(&server, "/echo")).collect() };
    let mut sockets: Vec<Vec<Raw>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(open)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    wait_until("only the worker that answers is busy", PATIENCE, || busy_workers(&server) == 1);
    pages_answer(&server, "beside the sockets");
    for round in 0..2 {
        // All ask before any is answered.
        for (number, socket) in sockets.iter_mut().flatten().enumerate() {
            socket.send(&Frame::text(format!("socket {number}, round {round}")));
        }
        pages_answer(&server, "while the sockets talk");
        for (number, socket) in sockets.iter_mut().flatten().enumerate() {
            socket.expect(&Frame::text(format!("socket {number}, round {round}")));
        }
    }
    thread::scope(|scope| {
        for part in sockets {
            scope.spawn(|| part.into_iter().for_each(Raw::close));
        }
    });
    wait_until("each session has ended", PATIENCE, || open_sessions(&server) == 0);
    // Links to the engine, one a worker at most, are what may have been added.
    wait_until("the children have let go of the sockets", PATIENCE, || held(&server)[0].0 <= idle[0].0 + 50);
    pages_answer(&server, "after the sockets");
    assert_eq!(server.access_log().matches("/echo HTTP/1.1\" 101").count(), SOCKETS);
}

/// A third of the sessions end in a reset, with an answer unread or not.
fn open_and_close(server: &Server, cycles: usize) {
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for cycle in 0..cycles / CLIENTS {
                    let mut client = Raw::open(server, "/echo");
                    let hello = Frame::text("hello");
                    match cycle % 6 {
                        0 => client.reset(),
                        3 => {
                            client.send(&hello);
                            client.reset();
                        }
                        _ => {
                            client.echo(&hello);
                            client.close();
                        }
                    }
                }
            });
        }
    });
    wait_until("each session has ended", PATIENCE, || open_sessions(server) == 0);
    wait_until("only the worker that answers is busy", PATIENCE, || busy_workers(server) == 1);
}

#[test]
fn thousands_of_sessions_leave_nothing_behind() {
    let _turn = heavy();
    let server = event();
    let (engine, children) = (server.engine(), server.children());
    open_and_close(&server, 1600);
    let mut before = held(&server);
    wait_until("the number of descriptors is settled", PATIENCE, || {
        let now = held(&server);
        std::mem::replace(&mut before, now).map(|(descriptors, _)| descriptors)
            == now.map(|(descriptors, _)| descriptors)
    });
    open_and_close(&server, 5600);
    // Each of the clients may have met a worker that needed a new link to the engine.
    wait_until("as many descriptors are open as before", PATIENCE, || {
        let now = held(&server);
        (0..2).all(|place| now[place].0 <= before[place].0 + CLIENTS)
    });
    let after = held(&server);
    for place in 0..2 {
        assert!(after[place].1 <= before[place].1 + 4 * 1024, "from {before:?} to {after:?} KiB");
    }
    assert_eq!(server.engines(), [engine]);
    assert_eq!(server.children(), children, "a child has died");
}

const LARGE: usize = 16 << 20;

/// Echo and the limits of messages that are larger than every buffer on their way.
fn roomy(mpm: Mpm) -> [Server; 2] {
    let limit = format!("<Location \"/echo\">\n  WebSocketMaxMessageSize {LARGE}\n</Location>");
    Httpd::tls_both_ways(mpm).map(|httpd| httpd.echo().config(&limit).start())
}

/// Bytes that do not repeat with the period of a record or a buffer.
fn large(size: usize) -> Frame {
    Frame::binary((0..size).map(|index| (index * 7 / 3 % 251) as u8).collect::<Vec<u8>>())
}

fn memory(server: &Server) -> u64 {
    held(server).iter().map(|(_, memory)| memory).sum()
}

fn large_messages(mpm: Mpm) {
    let _turn = heavy();
    roomy(mpm).iter().for_each(large_messages_of);
}

fn large_messages_of(server: &Server) {
    let mut neighbour = Raw::open(server, "/echo");
    let mut client = Raw::open(server, "/echo");
    for _ in 0..2 {
        client.echo(&large(LARGE));
        neighbour.echo(&Frame::text("unaffected"));
    }
    client.close();
    let mut client = Raw::open(server, "/echo");
    client.write(&Frame::binary("").header_claiming(LARGE as u64 + 1));
    client.expect_failure(1009);
    neighbour.close();
}

/// Memory stays where it is while a client sends and does not read, and nothing is lost when it reads at last.
fn a_client_that_does_not_read(mpm: Mpm) {
    let _turn = heavy();
    roomy(mpm).iter().for_each(does_not_read);
}

fn does_not_read(server: &Server) {
    const MESSAGE: usize = 4 << 20;
    const MUCH: usize = 32;
    let mut neighbour = Raw::open(server, "/echo");
    neighbour.echo(&large(LARGE));
    let before = memory(server);

    let mut deaf = Raw::open(server, "/echo").about("the one that does not read");
    let message = large(MESSAGE);
    let bytes = message.masked();
    let (mut sent, mut written) = (0, 0);
    while sent < MUCH {
        match deaf.write_some(&bytes[written..], Duration::from_millis(200)) {
            Some(0) => break,
            Some(count) => written += count,
            None => panic!("the server gave up on a client that does not read"),
        }
        if written == bytes.len() {
            neighbour.echo(&Frame::text("unaffected"));
            (sent, written) = (sent + 1, 0);
        }
    }
    assert!(sent < MUCH, "the server took {MUCH} messages of {MESSAGE} bytes from a client that reads nothing");
    // The send buffer, a message in the making, the one that did not fit any more, and a piece in each relay.
    let now = memory(server);
    assert!(now < before + 24 * 1024, "from {before} to {now} KiB with {sent} messages sent");

    // The rest of the last message, as it takes it, while the answers are read.
    while written < bytes.len() {
        match deaf.write_some(&bytes[written..], Duration::from_millis(4)) {
            Some(0) => {
                deaf.expect(&message);
                sent -= 1;
            }
            Some(count) => written += count,
            None => panic!("the server gave up on a slow reader"),
        }
    }
    for _ in 0..=sent {
        deaf.expect(&message);
    }
    deaf.close();
    neighbour.close();
    assert_eq!(Raw::answer(server, &Handshake::page("/index.html")).status, 200);
}
