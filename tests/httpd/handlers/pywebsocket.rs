//! Handlers in Python, those of `tests/httpd/wsh`, run by `WebSocketHandler pywebsocket`.

use super::echo::{TEXTS, echo_sizes, letters};
use crate::harness::python::python;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Process, Raw, Response, Server, every_mpm, heavy, wait_until};
use crate::tls::http2::Scenario;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;

every_mpm!(
    every_kind_of_handler,
    every_kind_of_handler_over_tls,
    what_httpd_decides_first,
    two_hundred_at_once,
    a_killed_worker_is_replaced,
    graceful_restarts,
    stop_is_announced,
);

/// The line that every start of a worker leaves: one of the handlers is broken.
const BROKEN: &str = "handlers/broken_wsh.py: ";

/// A site with handlers in Python wherever nothing else is.
fn site(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .module("headers")
        .config("Header set X-Site ours")
        .python_handlers()
        .config("<Location \"/\">\n  WebSocketHandler pywebsocket handlers\n</Location>")
}

#[track_caller]
fn start(httpd: Httpd) -> Server {
    let server = httpd.start();
    server.tolerate_log(BROKEN);
    server
}

fn worker(server: &Server) -> Process {
    let mut found = None;
    wait_until("there is one worker", PATIENCE, || {
        let children = server.engine().children();
        found = children.first().copied().filter(|_| children.len() == 1);
        found.is_some()
    });
    found.expect("just found")
}

#[track_caller]
fn answer(server: &Server, handshake: &Handshake) -> Response {
    Raw::answer(server, handshake)
}

/// The closing handshake, begun by the server.
#[track_caller]
fn closed_with(mut client: Raw, code: u16) {
    assert_eq!(client.close_code(), Some(code));
    client.send(&Frame::close(code, ""));
    client.expect_end();
}

/// What is sent to the client by a handler that reads nothing, before it closes with 1000.
#[track_caller]
fn said(server: &Server, handshake: &Handshake) -> String {
    let mut client = Raw::open_with(server, handshake);
    let frame = client.frame();
    assert_eq!(frame.opcode, Frame::TEXT, "{frame:?}");
    closed_with(client, 1000);
    String::from_utf8(frame.payload).expect("a text")
}

fn every_kind_of_handler(mpm: Mpm) {
    try_every_kind(&start(site(mpm)));
}

fn every_kind_of_handler_over_tls(mpm: Mpm) {
    // One at a time, and those that are about to end.
    try_every_kind(&start(site(mpm).workers(20).tls()));
}

fn try_every_kind(server: &Server) {
    let open = |path: &str| Raw::open(server, path).about(path);

    let mut client = open("/echo");
    echo_sizes(&mut client);
    for text in TEXTS {
        client.echo(&Frame::text(text));
    }
    client.send_all(&[Frame::text("Hel").unfinished(), Frame::ping("now"), Frame::continuation("lo")]);
    client.expect(&Frame::pong("now"));
    client.expect(&Frame::text("Hello"));
    client.send(&Frame::text("Goodbye"));
    client.expect(&Frame::text("Goodbye"));
    closed_with(client, 1000);
    open("/echo").close();
    // With the handshake in one packet.
    let mut client = Raw::connect(server);
    client.write(&[Handshake::new("/echo").bytes(&client.host()), Frame::text("early").masked()].concat());
    client.response(false).assert_accepted();
    client.expect(&Frame::text("early"));
    client.close();

    for (offered, chosen) in [("chat", Some("chat")), ("other, echo, chat", Some("echo"))] {
        let response = answer(server, &Handshake::new("/echo").header("Sec-WebSocket-Protocol", offered));
        response.assert_accepted();
        assert_eq!(response.header("Sec-WebSocket-Protocol"), chosen);
    }
    // A whole URL in the request line is the same.
    Raw::answer(server, &Handshake::new(&server.http_url("/echo"))).assert_accepted();
    // A client that offers some must get one: the package wants it so.
    assert_eq!(answer(server, &Handshake::new("/echo").header("Sec-WebSocket-Protocol", "other")).status, 400);

    let mut client = open("/close");
    client.send(&Frame::text("4321 because"));
    client.expect(&Frame::close(4321, "because"));
    client.send(&Frame::close(4321, ""));
    client.expect_end();
    let mut client = open("/close");
    client.send(&Frame::close(1001, "bye"));
    client.expect(&Frame::close(4999, "you said 1001 bye"));
    client.expect_end();
    let mut client = open("/close");
    client.send(&Frame::new(Frame::CLOSE, ""));
    assert_eq!(client.close_code(), None);
    client.expect_end();

    // httpd lets no page of another site through: that is for WebSocketOriginCheck to change.
    server.expect_log("WS0021");
    let own = format!("http{}://127.0.0.1:{}", if server.tls().is_some() { "s" } else { "" }, server.address().port());
    assert_eq!(answer(server, &Handshake::new("/origin_check").header("Origin", "http://example.com")).status, 403);
    let refused = answer(server, &Handshake::new("/origin_check").header("Origin", &own));
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("Forbidden"), "httpd's own page: {}", refused.text());
    assert!(server.error_log().contains("not for pages of"), "{}", server.error_log());

    let mut dropped = Raw::connect(server);
    dropped.write(&Handshake::new("/abort_handshake").bytes(&dropped.host()));
    dropped.await_hangup();
    let mut aborted = open("/abort");
    aborted.expect(&Frame::text("so far"));
    aborted.expect_end();

    let response = answer(server, &Handshake::new("/cookie?a=1&b=2").header("Cookie", "c=3"));
    response.assert_accepted();
    assert_eq!(response.all("Set-Cookie"), ["a=1; Max-Age=60; HttpOnly", "b=2; Max-Age=60; HttpOnly"]);
    assert_eq!(response.header("Strict-Transport-Security"), Some("max-age=86400"));
    assert_eq!(response.header("X-Site"), Some("ours"));
    assert_eq!(said(server, &Handshake::new("/cookie").header("Cookie", "c=3")), "c=3");

    let offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
    let response = answer(server, &Handshake::new("/noext").header(offer.0, offer.1));
    assert_eq!(response.header("Sec-WebSocket-Extensions"), None);
    assert_eq!(said(server, &Handshake::new("/noext").header(offer.0, offer.1)), "permessage-deflate");
    let mut client = Raw::connect(server);
    let response = client.ask(&Handshake::new("/echo").header(offer.0, offer.1));
    assert_eq!(response.header("Sec-WebSocket-Extensions"), Some("permessage-deflate"));
    // RFC 7692 section 7.2.3.1.
    let hello = Frame::text([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).reserved(4);
    client.echo(&hello);
    client.close();

    let mut client = open("/ping");
    client.expect(&Frame::ping("are you there?"));
    client.send(&Frame::pong("I am"));
    client.expect(&Frame::text("pong I am"));
    client.send(&Frame::ping("and you?"));
    client.expect(&Frame::text("ping and you?"));
    client.close();

    closed_with(open("/internal_error"), 1011);

    let mut client = open("/bench");
    client.send(&Frame::text("receive 300000"));
    client.expect(&Frame::binary(vec![b'a'; 300_000]));
    client.send_all(&[Frame::text("send"), Frame::binary(letters(300_000))]);
    client.expect(&Frame::text("300000"));
    client.close();

    let mut client = open("/threads");
    client.send(&Frame::text("by the older name"));
    client.expect(&Frame::text("heard by the older name"));
    client.close();

    let mut client = open("/raw");
    client.send(&Frame::text("by hand"));
    client.expect(&Frame::text("1 1 by hand"));
    client.expect(&Frame::text("raw"));
    client.send(&Frame::text(""));
    closed_with(client, 1000);
    // What the handler says before the 101 goes to the client as it is.
    let mut client = Raw::connect(server);
    client.write(&Handshake::new("/raw?101").bytes(&client.host()));
    assert_eq!(client.response(false).status, 100);
    client.response(false).assert_accepted();
    client.send(&Frame::text("x"));
    client.expect(&Frame::text("1 1 x"));
    client.expect(&Frame::text("raw"));
    client.send(&Frame::text(""));
    closed_with(client, 1000);

    let secure = if server.tls().is_some() { "True" } else { "False" };
    assert_eq!(
        said(server, &Handshake::new("/user?a=b%20c")),
        format!("None /user?a=b%20c {secure} GET HTTP/1.1 127.0.0.1")
    );

    // Mistakes: of clients, and of handlers.
    let mut client = open("/echo");
    client.write(&Frame::text("no mask").unmasked());
    closed_with(client, 1002);
    let mut client = open("/echo");
    client.send(&Frame::text(b"\xff".to_vec()));
    closed_with(client, 1007);
    let mut client = open("/echo");
    client.send(&Frame::binary(vec![0; (1 << 20) + 1]));
    client.expect_failure(1009);
    server.expect_log("KeyError: ");
    server.tolerate_log("WS0277: ");
    open("/fail").expect_end();
    assert_eq!(answer(server, &Handshake::new("/fail?early")).status, 403);

    // The broken one is not there, and neither is what is no handler: the site answers.
    assert!(server.error_log().contains(BROKEN));
    for path in ["/broken", "/nothing", "/echo_wsh.py", "/sub/echo"] {
        assert_eq!(answer(server, &Handshake::new(path)).status, 404, "{path}");
    }
    assert_eq!(answer(server, &Handshake::new("/index.html").header("Connection", "close")).status, 200);
    assert_eq!(Raw::page(server, "/echo").status, 404, "no upgrade, no handler");
    wait_until("all sessions have ended", PATIENCE, || {
        let log = server.error_log();
        log.matches(" begins: ").count() == log.matches(" ended: ").count()
    });
}

#[test]
fn over_http2() {
    let server = start(site(Mpm::Event).workers(20).http2().config(crate::tls::http2::ROOM_FOR_MANY));
    Scenario::start(&server, "messages").ends_well();
    Scenario::start(&server, "ten").ends_well();
    Scenario::start(&server, "python").ends_well();
}

fn what_httpd_decides_first(mpm: Mpm) {
    let server = start(site(mpm).login().config(
        "WebSocketLog \"logs/sockets.log\"\n\
             <Location \"/user\">\n  AuthType Basic\n  AuthName \"members\"\n  AuthBasicProvider file\n  \
             AuthUserFile \"{root}/conf/users\"\n  Require valid-user\n</Location>\n\
             <Location \"/origin_check\">\n  WebSocketOriginCheck Off\n</Location>\n\
             <Location \"/close\">\n  WebSocketMaxConnections 1\n</Location>\n\
             <Location \"/bench\">\n  WebSocketMaxMessageSize 10\n  WebSocketIdleTimeout 1\n</Location>",
    ));
    let user = Handshake::new("/user");
    assert_eq!(answer(&server, &user).status, 401);
    let alice = user.header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=");
    assert!(said(&server, &alice).starts_with("alice /user "));
    let foreign = Handshake::new("/origin_check").header("Origin", "http://example.com");
    assert_eq!(said(&server, &foreign), "origin is fine");
    assert_eq!(answer(&server, &Handshake::new("/echo").with("Sec-WebSocket-Version", "8")).status, 400);
    assert_eq!(answer(&server, &Handshake::new("/echo").with("Sec-WebSocket-Key", "short")).status, 400);

    let first = Raw::open(&server, "/close");
    let second = answer(&server, &Handshake::new("/close"));
    assert_eq!((second.status, second.header("Retry-After")), (503, Some("5")));
    first.reset();
    wait_until("the place is free again", PATIENCE, || {
        answer(&server, &Handshake::new("/close").header("Connection", "close")).status == 101
    });

    let mut client = Raw::open(&server, "/bench");
    client.send(&Frame::text("send"));
    client.send(&Frame::text("eleven byte"));
    client.expect_failure(1009);
    let mut client = Raw::open(&server, "/bench");
    client.expect(&Frame::close(1001, "idle timeout"));
    client.send(&Frame::close(1001, ""));
    client.expect_end();

    let log = || fs::read_to_string(server.path("logs/sockets.log")).unwrap_or_default();
    wait_until("the sessions have their lines", PATIENCE, || {
        let log = log();
        let line = |parts: [&str; 2]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        line(["127.0.0.1 alice 127.0.0.1 \"/user\" pywebsocket - ", " 0 0 1 "])
            && line(["\"/user\"", " 1000 handler "])
            && line(["\"/bench\"", " 1009 violation "])
            && line(["\"/bench\"", " 1001 server "])
            && line(["\"/close\"", " 1006 lost "])
    });
}

fn two_hundred_at_once(mpm: Mpm) {
    let _turn = heavy();
    let server = start(site(mpm));
    let mut clients: Vec<Raw> = (0..200).map(|_| Raw::open(&server, "/echo")).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&Frame::text(format!("{round} {number}")));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            client.expect(&Frame::text(format!("{round} {number}")));
        }
    }
    // Two threads are the worker's own.
    assert_eq!(worker(&server).threads(), 202);
    for client in clients {
        client.close();
    }
    wait_until("the threads are gone", PATIENCE, || worker(&server).threads() == 2);
}

fn a_killed_worker_is_replaced(mpm: Mpm) {
    let server = start(site(mpm));
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("before"));
    let first = worker(&server);
    server.expect_log("WS0272: ");
    first.signal(Signal::KILL);
    client.await_hangup();
    wait_until("the engine has noticed", PATIENCE, || server.error_log().contains("WS0272: "));
    wait_until("the session has ended", PATIENCE, || server.error_log().contains(" ended: lost"));
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("after"));
    let second = worker(&server);
    assert_ne!(first, second);
    // A handler that takes the worker with it: the second in a row, which waits.
    let mut deadly = Raw::open(&server, "/die");
    deadly.send(&Frame::text("die"));
    deadly.await_hangup();
    client.await_hangup();
    server.tolerate_log("WS0007: no session: the engine refused: the Python worker: ");
    wait_until("there is another worker", PATIENCE, || {
        answer(&server, &Handshake::new("/echo").header("Connection", "close")).status == 101
    });
    // No worker outlives its engine.
    let (engine, third) = (server.engine(), worker(&server));
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("once more"));
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    engine.signal(Signal::KILL);
    client.await_hangup();
    wait_until("the worker is gone with its engine", PATIENCE, || !third.is_running());
    wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("with the new engine"));
    client.close();
}

fn graceful_restarts(mpm: Mpm) {
    let server = start(site(mpm));
    let mut old = Raw::open(&server, "/echo");
    old.echo(&Frame::text("before"));
    let first = worker(&server);
    fs::write(
        server.path("handlers/new_wsh.py"),
        "def web_socket_do_extra_handshake(request):\n  pass\n\
         def web_socket_transfer_data(request):\n  request.ws_stream.send_message('new')\n",
    )
    .expect("a new handler");
    assert_eq!(answer(&server, &Handshake::new("/new")).status, 404);
    server.graceful();
    old.echo(&Frame::text("after"));
    assert_eq!(said(&server, &Handshake::new("/new")), "new");
    assert!(first.is_running());
    old.echo(&Frame::text("beside the new worker"));
    old.close();
    wait_until("the old worker has ended with its last client", PATIENCE, || !first.is_running());
    let second = worker(&server);
    server.restart();
    assert_eq!(said(&server, &Handshake::new("/new")), "new");
    wait_until("the idle worker was replaced", PATIENCE, || !second.is_running());
    assert_ne!(worker(&server), second);
}

fn stop_is_announced(mpm: Mpm) {
    let server = start(site(mpm));
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::open(&server, "/echo")).collect();
    clients.iter_mut().for_each(|client| client.echo(&Frame::text("before")));
    server.begin_to_stop();
    for client in clients {
        closed_with(client, 1012);
    }
    server.stop();
}

#[test]
fn relayed_sockets_are_drained() {
    let server = start(site(Mpm::Event).tls().config("WebSocketDrainTimeout 0"));
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("before"));
    server.begin_graceful();
    closed_with(client, 1012);
}

#[test]
fn scan_map_and_links() {
    let beside =
        "def web_socket_do_extra_handshake(request):\n  pass\ndef web_socket_transfer_data(request):\n  pass\n";
    let httpd = Httpd::new(Mpm::Event)
        .python_handlers()
        .file("handlers/part/in_wsh.py", beside)
        .file("handlers2/out_wsh.py", beside)
        .file("conf/handlers.map", "# further paths\n/alias /part/in\n")
        .config(
            "WebSocketHandler pywebsocket handlers\nWebSocketPythonScan handlers/part\n\
             WebSocketPythonMap conf/handlers.map\n\
             <Location \"/part/linked\">\n  WebSocketPythonOutsideRoot On\n</Location>",
        );
    let root = httpd.root().to_owned();
    for name in ["linked", "other"] {
        let link = root.join(format!("handlers/part/{name}_wsh.py"));
        std::os::unix::fs::symlink(root.join("handlers2/out_wsh.py"), link).expect("a link");
    }
    let server = httpd.start();
    server.expect_log("other_wsh.py leads out of ");
    server.tolerate_log("linked_wsh.py leads out of ");
    for (path, status) in
        [("/part/in", 101), ("/alias", 101), ("/echo", 404), ("/in", 404), ("/part/other", 404), ("/part/linked", 101)]
    {
        assert_eq!(answer(&server, &Handshake::new(path)).status, status, "{path}");
    }
}

/// A Python without the package, one that is none, and places where handlers may not be chosen.
#[test]
fn what_does_not_work_is_said() {
    let site = |python: &str| {
        Httpd::new(Mpm::Event)
            .file("handlers/x_wsh.py", "")
            .program("bin/bare", "#!/bin/sh\nexit 1\n")
            .config(format!("WebSocketHandler pywebsocket handlers\n{python}"))
    };
    let (status, log) = site("WebSocketPython bin/bare").run_to_end();
    assert!(!status.success(), "{log}");
    assert!(log.contains("WS0226: ") && log.contains("pip install pywebsocket3"), "{log}");
    for (lines, text) in [
        ("WebSocketPython /nowhere/python3", "python3 -m venv DIR"),
        ("WebSocketHandler pywebsocket", "the directory of the *_wsh.py files"),
        ("WebSocketHandler pywebsocket /nowhere", "no directory /nowhere"),
        ("WebSocketPythonScan /nowhere", "no directory /nowhere"),
        ("WebSocketPythonMap /nowhere", "no file /nowhere"),
        ("WebSocketPythonOutsideRoot Perhaps", "expected On or Off"),
    ] {
        let output = Httpd::new(Mpm::Event).config(lines).check();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(text), "{lines}: {message}");
    }
    let server = Httpd::new(Mpm::Event)
        .file("htdocs/.htaccess", "WebSocketHandler pywebsocket /\n")
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride All\n</Directory>")
        .start();
    server.expect_log("which no .htaccess file can choose");
    assert_eq!(answer(&server, &Handshake::new("/")).status, 500);
}

/// A restart with a Python that has gone does not end the server.
#[test]
fn a_restart_survives_a_broken_python() {
    let server = start(site(Mpm::Event));
    let mut old = Raw::open(&server, "/echo");
    fs::write(server.path("bin/python3"), "#!/bin/sh\nexit 1\n").expect("a Python without the package");
    server.expect_log("WS0226: ");
    server.expect_log("WS0272: ");
    server.expect_log("WS0007: ");
    server.graceful();
    old.echo(&Frame::text("still here"));
    assert_eq!(answer(&server, &Handshake::new("/echo")).status, 503);
    old.close();
}

#[test]
fn the_workers_own_tests() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/worker/test_worker.py");
    let output = Command::new(python()).arg(tests).output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
