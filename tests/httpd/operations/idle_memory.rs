//! What a socket takes of the engine that does nothing. The bounds are a third above what was measured: a page more or less for a
//! thread is no failure, a structure more for each socket is one.

use crate::harness::{Frame, Httpd, Mpm, Raw, Server, heavy};

const SOCKETS: usize = 1500;

#[track_caller]
fn takes(server: &Server, path: &str, (asked, answered): (&str, &str), most: u64) {
    let open = |count: usize| -> Vec<Raw> {
        let mut sockets: Vec<Raw> = (0..count).map(|_| Raw::open(server, path)).collect();
        for socket in &mut sockets {
            socket.send(&Frame::text(asked));
            socket.expect(&Frame::text(answered));
        }
        sockets
    };
    // What is allocated once is not the price of a socket.
    let first = open(100);
    let before = server.engine().resident_kib();
    let sockets = open(SOCKETS);
    let each = server.engine().resident_kib().saturating_sub(before) * 1024 / SOCKETS as u64;
    sockets.into_iter().chain(first).for_each(Raw::close);
    assert!((100..=most).contains(&each), "{path}: {each} bytes a socket, and not up to {most}");
}

#[test]
fn an_idle_socket_is_small() {
    let _turn = heavy();
    let channel =
        "<Location \"/channel\">\n  WebSocketHandler channel news\n  WebSocketChannelHeartbeat ping pong\n</Location>";
    let of = |path: &str, said: (&str, &str), most: u64| {
        let server = Httpd::new(Mpm::Event).echo().config(channel).start();
        takes(&server, path, said, most);
    };
    of("/echo", ("busy once", "busy once"), 1600);
    of("/channel", ("ping", "pong"), 2000);
}

#[test]
fn an_idle_socket_with_tls_is_small() {
    let _turn = heavy();
    takes(&Httpd::new(Mpm::Event).tls().echo().start(), "/echo", ("busy once", "busy once"), 2300);
}
