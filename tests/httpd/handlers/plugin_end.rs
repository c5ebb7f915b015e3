//! The end of plugins' connections by something else than their clients: stops, restarts, crashes.

use super::plugin::{journal, site, wait_for_the_last};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until};
use rustix::process::Signal;

every_mpm!(stop, graceful, the_engine_dies);

/// Room for the children of two generations, and for four connections.
fn roomy(mpm: Mpm) -> Httpd {
    let httpd = site(mpm);
    match mpm {
        Mpm::Event => httpd.config("ServerLimit 6\nAsyncRequestWorkerFactor 20"),
        Mpm::Worker => httpd.workers(40).config("ServerLimit 6"),
        Mpm::Prefork => httpd.workers(20),
    }
}

fn open_some(server: &Server, count: usize) -> Vec<Raw> {
    (0..count)
        .map(|number| {
            let mut client = Raw::open(server, "/rules").about(&format!("socket {number}"));
            client.echo(&Frame::text("open"));
            client
        })
        .collect()
}

fn stop(mpm: Mpm) {
    for server in [roomy(mpm).start(), roomy(mpm).tls().start()] {
        let mut clients = open_some(&server, 4);
        clients[0].send(&Frame::text("senders 5 -1 100"));
        server.begin_to_stop();
        for mut client in clients {
            // Where a thread of httpd moves the bytes, httpd closes its connection at once.
            if mpm != Mpm::Event && server.tls().is_some() {
                client.await_hangup();
                continue;
            }
            assert_eq!(client.close_code(), Some(1012));
            client.send(&Frame::close(1012, ""));
            client.await_hangup();
        }
        wait_for_the_last(&server, 4);
        server.stop();
    }
}

fn graceful(mpm: Mpm) {
    for httpd in [roomy(mpm), roomy(mpm).tls()] {
        let server = httpd.config("WebSocketDrainTimeout 1").start();
        let mut clients = open_some(&server, 4);
        let old: Vec<Process> = server.begin_graceful();
        for client in &mut clients {
            client.echo(&Frame::text("still open"));
        }
        for mut client in clients {
            client.expect(&Frame::close(1012, "server is restarting"));
            client.send(&Frame::close(1012, ""));
            client.await_hangup();
        }
        wait_until("the old children are gone", PATIENCE, || !old.iter().any(|child| child.is_running()));
        wait_for_the_last(&server, 4);
        let mut client = Raw::open(&server, "/rules");
        client.echo(&Frame::text("a new one"));
        client.close();
    }
}

fn the_engine_dies(mpm: Mpm) {
    let server = roomy(mpm).start();
    let mut clients = open_some(&server, 4);
    clients[0].send(&Frame::text("senders 5 -1 100"));
    server.expect_log("WS0201");
    let engine = server.engine();
    engine.signal(Signal::KILL);
    for mut client in clients {
        client.await_hangup();
    }
    wait_for_the_last(&server, 4);
    wait_until("there is another engine", PATIENCE, || server.engine() != engine);
    let mut client = Raw::open(&server, "/rules");
    client.echo(&Frame::text("on the new one"));
    client.close();
}

/// A crash names the plugin and its function; the child is replaced, and the engine closes the child's other sockets.
#[test]
fn crashes_are_told() {
    let server = site(Mpm::Event).start();
    server.expect_log("exit signal");
    server.tolerate_log("AH00051");
    for (command, line) in [
        ("crash", "rules_init crashed in on_message, signal 11 (segmentation fault), session "),
        ("abort", "rules_init crashed in on_message, signal 6 (aborted), session "),
        ("overflow", "rules_init crashed in on_message, signal 11 (segmentation fault), session "),
    ] {
        let before = server.error_log().matches(line).count();
        let mut client = Raw::open(&server, "/rules");
        server.expect_log("WS0240: the plugin /");
        client.send(&Frame::text(command));
        assert_eq!(client.close_code(), Some(1011), "{command}");
        drop(client);
        wait_until("the crash is told", PATIENCE, || server.error_log().matches(line).count() > before);
    }
    assert!(journal(&server).iter().all(|line| !line.starts_with("disconnect")));
}
