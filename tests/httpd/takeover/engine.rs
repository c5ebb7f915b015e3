//! An engine that is not there, or has no room; and quotas.

use super::{await_taken, left, site, taken};
use crate::harness::back_end::{BackEnd, Conversation, echo};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, every_mpm, wait_until};
use rustix::process::Signal;
use std::sync::{Arc, Condvar, Mutex};

every_mpm!(without_an_engine_sockets_work_on, a_quota_refuses_before_the_server_is_asked);

/// Is opened once.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("a gate") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let is_open = self.0.0.lock().expect("a gate");
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).expect("a gate"));
    }
}

fn without_an_engine_sockets_work_on(mpm: Mpm) {
    let gate = Gate::default();
    let waits = gate.clone();
    let back_end = BackEnd::new(move |head: &str, conversation: &mut Conversation| {
        if head.starts_with("GET /slow") {
            waits.wait();
        }
        echo(head, conversation);
    });
    let server = site(mpm).config(format!("ProxyPass \"/\" \"ws://{}/\"", back_end.address)).start();
    let engine = server.engine();
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    // Between the place and the tunnel.
    let mut slow = Raw::connect(&server);
    let host = slow.host();
    slow.write(&Handshake::new("/slow").bytes(&host));
    wait_until("the server is asked", PATIENCE, || !back_end.heads().is_empty());
    engine.signal(Signal::KILL);
    // With all its threads, which may hold its descriptors for a moment longer.
    wait_until("it is gone", PATIENCE, || server.error_log().contains("WS0201"));
    gate.open();
    slow.response(false).assert_accepted();
    slow.echo(&Frame::text("in the tunnel"));
    assert_eq!((taken(&server), left(&server)), (0, vec!["the engine is gone".to_owned()]));
    wait_until("there is another engine", PATIENCE, || !server.engines().is_empty());
    // Before the handshake: it answers nothing any more.
    server.engine().signal(Signal::STOP);
    for line in ["WS0165", "WS0166", "WS0168", "WS0169"] {
        server.tolerate_log(line);
    }
    let mut late = Raw::open(&server, "/late");
    late.echo(&Frame::text("in the tunnel, too"));
    assert_eq!((taken(&server), left(&server).len()), (0, 2));
    server.engine().signal(Signal::CONT);
    wait_until("it answers again", PATIENCE, || {
        Raw::open(&server, "/again").close();
        taken(&server) > 0
    });
    slow.close();
    late.close();
}

fn a_quota_refuses_before_the_server_is_asked(mpm: Mpm) {
    let back_end = BackEnd::echo();
    let server = site(mpm)
        .config(format!("WebSocketMaxConnections 2\nProxyPass \"/ws\" \"ws://{}/\"", back_end.address))
        .start();
    let mut open: Vec<Raw> = (0..2).map(|_| Raw::open(&server, "/ws")).collect();
    open.iter_mut().for_each(|socket| socket.echo(&Frame::text("there")));
    assert_eq!(back_end.heads().len(), 2);
    let answer = Raw::answer(&server, &Handshake::new("/ws"));
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")));
    assert_eq!(back_end.heads().len(), 0);
    open.pop().into_iter().for_each(Raw::close);
    wait_until("there is a place again", PATIENCE, || Raw::answer(&server, &Handshake::new("/ws")).status == 101);
    open.into_iter().for_each(Raw::close);
}

/// A place is given back where no 101 comes.
#[test]
fn answers_that_are_none_take_no_place() {
    let back_end = BackEnd::new(|head: &str, conversation: &mut Conversation| match head.starts_with("GET /no") {
        true => conversation.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"),
        false => echo(head, conversation),
    });
    let server = site(Mpm::Event)
        .config(format!("WebSocketMaxConnections 1\nProxyPass \"/\" \"ws://{}/\"", back_end.address))
        .start();
    let mut client = Raw::connect(&server);
    for _ in 0..5 {
        let answer = client.ask(&Handshake::new("/no"));
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    }
    let mut socket = Raw::open(&server, "/yes");
    socket.echo(&Frame::text("there is a place"));
    socket.close();
    await_taken(&server, 1);
}

#[test]
fn nothing_is_idle_for_too_long_where_nobody_says_so() {
    let back_end = BackEnd::echo();
    let address = &back_end.address;
    let server = site(Mpm::Event)
        .config(format!(
            "Timeout 1\nProxyPass \"/plain\" \"ws://{address}/plain\"\nProxyPass \"/limited\" \"ws://{address}/limited\" timeout=2"
        ))
        .start();
    let mut plain = Raw::open(&server, "/plain");
    let mut limited = Raw::open(&server, "/limited");
    limited.echo(&Frame::text("hello"));
    limited.await_hangup();
    wait_until("the log says why", PATIENCE, || server.error_log().contains("nothing has moved"));
    plain.echo(&Frame::text("still here"));
    plain.close();
}

#[test]
fn modules_in_any_order_and_none_at_all() {
    use crate::harness::installation::installation;
    let back_end = BackEnd::echo();
    let load = |name: &str| installation().load(name);
    let server = Httpd::new(Mpm::Event)
        .config(format!(
            "{}{}WebSocketProxyHandoff On\nProxyPass \"/ws\" \"ws://{}/\"",
            load("proxy"),
            load("proxy_http"),
            back_end.address
        ))
        .start();
    Raw::open(&server, "/ws").close();
    await_taken(&server, 1);
    // It says nothing, and does nothing.
    let server = Httpd::new(Mpm::Event).echo().config("WebSocketProxyHandoff On").start();
    Raw::open(&server, "/echo").close();
    assert!(!server.error_log().contains("ProxyHandoff"));
}

#[test]
fn a_tunnel_of_another_module_is_named_at_startup() {
    let back_end = BackEnd::echo();
    let server = Httpd::new(Mpm::Event)
        .module("proxy")
        .module("proxy_wstunnel")
        .config(format!("WebSocketProxyHandoff On\nProxyPass \"/ws\" \"ws://{}/\"", back_end.address))
        .start();
    server.expect_log("WS0229: WebSocketProxyHandoff On needs mod_proxy_http");
    let mut socket = Raw::open(&server, "/ws");
    socket.echo(&Frame::text("in its tunnel"));
    socket.close();
    assert_eq!(taken(&server), 0);
}
