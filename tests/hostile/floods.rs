//! Clients that send as much as they can, and read nothing of what comes of it.

use crate::Scale;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, wait_until};
use crate::load::{self, mib};
use crate::watch::watched;
use rustix::net::sockopt::set_socket_linger;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Clients of a flood.
const CLIENTS: usize = 4;
/// What the engine may need for all of them: what may wait for a client, and one message, several times (KiB).
const ENOUGH: u64 = 65_536;

/// What is sent once, and what is sent again and again.
type Flood = (&'static str, Vec<u8>, Vec<u8>);

fn repeated(frame: &Frame, times: usize) -> Vec<u8> {
    (0..times).flat_map(|_| frame.masked()).collect()
}

pub(crate) fn run(scale: Scale) -> String {
    let server = Httpd::new(Mpm::Event).workers(32).config("LogLevel notice").echo().start();
    let engine = server.engine();
    let floods: [Flood; 7] = [
        ("pings", vec![], repeated(&Frame::ping(vec![7; 125]), 500)),
        ("pongs", vec![], repeated(&Frame::pong(vec![7; 125]), 500)),
        ("empty messages", vec![], repeated(&Frame::text(""), 5000)),
        ("tiny messages", vec![], repeated(&Frame::binary("x"), 5000)),
        (
            "empty fragments",
            Frame::text("x").unfinished().masked(),
            repeated(&Frame::continuation("").unfinished(), 5000),
        ),
        (
            "tiny fragments",
            Frame::text("x").unfinished().masked(),
            repeated(&Frame::continuation("x").unfinished(), 5000),
        ),
        ("large messages", vec![], repeated(&Frame::binary(vec![7; 900_000]), 1)),
    ];
    let time = scale.time(45.0);
    let before = engine.resident_kib();
    let mut told = Vec::new();
    for (name, first, then) in &floods {
        let (bytes, seen) = watched(&server, || all_at_once(|| flood(server.address(), first, then, time)));
        told.push(format!("{name} {:.0} MB, {seen}", bytes as f64 / 1e6));
        let now = engine.resident_kib();
        assert!(now <= before + ENOUGH, "{name}: {} MiB became {}", mib(before), mib(now));
    }
    let (opened, seen) = watched(&server, || all_at_once(|| handshakes(server.address(), time)));
    told.push(format!("{opened} handshakes, {seen}"));
    wait_until("all of them are gone", PATIENCE, || engine.network_sockets().is_empty());
    format!("engine {} → {} MiB; {}", mib(before), mib(engine.resident_kib()), told.join("; "))
}

fn all_at_once(flood: impl Fn() -> u64 + Sync) -> u64 {
    thread::scope(|scope| {
        let floods: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(&flood)).collect();
        floods.into_iter().map(|flood| flood.join().expect("a flood to its end")).sum()
    })
}

/// Sends for so long, over one connection after the other where the server ends it; how many bytes the server took.
fn flood(to: SocketAddr, first: &[u8], then: &[u8], time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut taken = 0;
    while Instant::now() < end {
        let mut stream = load::open(to, "/echo").expect("a session");
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut next = [first, then].concat();
        // What is not taken at once need not be: the server is at its limit with this client.
        while Instant::now() < end
            && let Some(count) = send(&mut stream, &next)
        {
            taken += count;
            next = then.to_vec();
        }
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("a reset");
    }
    taken
}

/// `None`: the server takes no more, or has ended the connection.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> Option<u64> {
    stream.write_all(bytes).ok()?;
    Some(bytes.len() as u64)
}

/// Handshakes that nobody waits for.
fn handshakes(to: SocketAddr, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let request = load::handshake(to, "/echo");
    let mut count = 0;
    while Instant::now() < end {
        let Ok(mut stream) = load::connected(to) else { continue };
        // Every third one takes its answer.
        let _ = if count % 3 == 0 { load::ask(&mut stream, &request).map(drop) } else { stream.write_all(&request) };
        let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        count += 1;
    }
    count
}
