//! Sockets beside a site: a thousand of them take nothing from its pages and its programs.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};

every_mpm!(a_thousand_sockets_take_no_worker, programs_inherit_no_socket);

const SOCKETS: usize = 1000;

/// How many workers are at work, the one that answers this question included.
fn busy_workers(server: &Server) -> usize {
    let status = Raw::page(server, "/server-status?auto").text();
    let busy = status.lines().find_map(|line| line.strip_prefix("BusyWorkers: "));
    busy.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no BusyWorkers in {status}"))
}

fn a_thousand_sockets_take_no_worker(mpm: Mpm) {
    let _turn = heavy();
    let server = Httpd::new(mpm)
        .workers(10)
        .echo()
        .cgi()
        .program("cgi-bin/hello", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello from %s' \"$QUERY_STRING\"\n")
        .module("status")
        .config("<Location \"/server-status\">\n  SetHandler server-status\n</Location>")
        .start();
    let site_answers = |what: &str| {
        for number in 0..20 {
            assert_eq!(Raw::page(&server, "/index.html").text(), "<p>A page of the site.</p>\n", "{what}");
            let program = Raw::page(&server, &format!("/cgi-bin/hello?{number}"));
            assert_eq!(program.text(), format!("hello from {number}"), "{what}");
        }
    };
    site_answers("before");
    let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::open(&server, "/echo")).collect();
    wait_until("only the worker that answers is busy", PATIENCE, || busy_workers(&server) == 1);
    site_answers("beside a thousand sockets");
    for round in 0..2 {
        // All ask before any is answered.
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(&Frame::text(format!("socket {number}, round {round}")));
        }
        site_answers("while a thousand sockets talk");
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.expect(&Frame::text(format!("socket {number}, round {round}")));
        }
    }
    // Not a descriptor of theirs stayed with httpd: what its children hold are listeners, and this check's connection.
    for child in server.children() {
        wait_until("httpd's children have let go of the sockets", PATIENCE, || child.network_sockets().len() <= 2);
    }
    for socket in sockets {
        socket.close();
    }
    site_answers("afterwards");
}

/// The descriptors of the module stay closed to programs that httpd starts.
fn programs_inherit_no_socket(mpm: Mpm) {
    let program = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nls -l /proc/$$/fd\n";
    let server = Httpd::new(mpm).echo().cgi().program("cgi-bin/descriptors", program).start();
    let mut socket = Raw::open(&server, "/echo");
    // Often enough for every child to have talked to the engine.
    for _ in 0..20 {
        Raw::open(&server, "/echo").close();
    }
    for _ in 0..5 {
        let page = Raw::answer(&server, &Handshake::page("/cgi-bin/descriptors").header("Connection", "close"));
        assert_eq!(page.status, 200);
        let listing = page.text();
        assert!(listing.contains(" 1 -> "), "{listing}");
        // mod_cgid gives its programs the Unix socket to httpd as their output.
        let sockets = listing.lines().filter(|line| line.contains("socket:")).collect::<Vec<_>>();
        let own = sockets.iter().all(|line| [" 0 -> ", " 1 -> ", " 2 -> "].iter().any(|own| line.contains(own)));
        assert!(own, "{listing}");
        assert!(!listing.contains("eventpoll"), "{listing}");
    }
    socket.echo(&Frame::text("still here"));
    socket.close();
}
