//! Clients that come and say nothing, or stop in the middle: the server lets go of them by itself, though they hold on.

use crate::Scale;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, wait_until};
use crate::load;
use crate::watch::{SESSIONS, watched};
use rustix::net::sockopt::set_socket_linger;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Clients of each kind in a round: fewer than there are workers, where they take one.
const MANY: usize = 100;
const SILENT: usize = 30;
const FEW: usize = 8;
/// What httpd's children may keep open to the engine between two handshakes.
const LINKS: usize = 32;

pub(crate) fn run(scale: Scale) -> String {
    // Half a request holds a worker of httpd's, whatever module answers it. The kernel would hold back who says nothing for
    // half a minute.
    let server = Httpd::new(Mpm::Event)
        .workers(64)
        .config("LogLevel notice\nAcceptFilter http none\nTimeout 2\nWebSocketPing 1 1\nWebSocketCloseTimeout 1")
        .echo()
        .start();
    server.tolerate_log("AH00484: server reached MaxRequestWorkers");
    let (engine, to) = (server.engine(), server.address());
    let end = Instant::now() + scale.time(180.0);
    let ((rounds, clients), seen) = watched(&server, || {
        let (mut rounds, mut clients) = (0, 0);
        let mut descriptors = usize::MAX;
        while rounds == 0 || Instant::now() < end {
            let held = round(to);
            clients += held.len();
            wait_until("the engine has let go of all", PATIENCE, || engine.network_sockets().len() <= SESSIONS);
            // httpd lingers for half a minute with those who do not close in turn.
            held.into_iter()
                .for_each(|mut client| load::read_to_end(&mut client).expect("the end comes from the server"));
            let now = engine.descriptors().len();
            assert!(now <= descriptors.saturating_add(LINKS), "{descriptors} descriptors became {now}");
            descriptors = descriptors.min(now);
            rounds += 1;
        }
        (rounds, clients)
    });
    format!("{clients} clients in {rounds} rounds, all let go while they held on; {seen}")
}

/// One of each kind, many times.
fn round(to: SocketAddr) -> Vec<TcpStream> {
    let request = load::handshake(to, "/echo");
    let mut held = Vec::new();
    let connected = || load::connected(to).expect("a connection");
    let open = || load::open(to, "/echo").expect("a session");
    // Who connects and says nothing, half a line, half a request; who does not wait for the answer.
    held.extend((0..SILENT).map(|_| connected()));
    for length in [3, request.len() - 2] {
        for _ in 0..FEW {
            let mut client = connected();
            client.write_all(&request[..length]).expect("half a request");
            held.push(client);
        }
    }
    for _ in 0..MANY {
        let mut client = connected();
        client.write_all(&request).expect("a request");
        set_socket_linger(&client, Some(Duration::ZERO)).expect("a reset");
    }
    // Who stops in the header of a frame, in a message, between fragments; who answers no Ping; who has ended its half.
    let message = Frame::binary(vec![7; 1000]).masked();
    let endings: [&[u8]; 5] =
        [&message[..1], &message[..6], &message[..500], &Frame::text("x").unfinished().masked(), b""];
    for bytes in endings {
        for _ in 0..MANY / 5 {
            let mut client = open();
            client.write_all(bytes).expect("a part of a frame");
            held.push(client);
        }
    }
    for _ in 0..MANY / 5 {
        let client = open();
        client.shutdown(Shutdown::Write).expect("a half close");
        held.push(client);
    }
    held
}
