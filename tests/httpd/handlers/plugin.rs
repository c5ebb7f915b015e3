//! C plugins: what they are told, what they may say, and that nobody waits for one that waits. The plugin is
//! tests/httpd/plugins/rules.c, which does what clients tell it to.

use crate::harness::plugin::rules;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};
use crate::tls::http2::Scenario;
use std::time::Duration;

every_mpm!(what_it_is_told, messages_of_all_sizes, floods, what_is_sent_early_or_late, over_tls);

/// The plugin at /rules, and that with nothing but on_message at /echo.
pub(crate) fn site(mpm: Mpm) -> Httpd {
    let plugin = rules().display();
    Httpd::new(mpm).config(format!(
        "<Location \"/rules\">\n  WebSocketHandler \"{plugin}\" rules_init\n</Location>\n\
         <Location \"/echo\">\n  WebSocketHandler \"{plugin}\" least_init\n</Location>"
    ))
}

/// What the plugin has noted, a line each.
pub(crate) fn journal(server: &Server) -> Vec<String> {
    let text = std::fs::read_to_string(server.path("logs/plugin.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn noted(server: &Server, line: &str) -> usize {
    journal(server).iter().filter(|noted| noted.starts_with(line)).count()
}

/// Every connection that on_connect has accepted is over, and on_disconnect was called once for each. Numbers are those of
/// a process, so only their count matters.
#[track_caller]
pub(crate) fn wait_for_the_last(server: &Server, count: usize) {
    wait_until(&format!("the plugin has heard of the end of {count} connections"), PATIENCE, || {
        noted(server, "disconnect ") >= count
    });
    assert_eq!((noted(server, "connect "), noted(server, "disconnect ")), (count, count), "{:?}", journal(server));
    let odd = ["two at a time", "on_disconnect ", "type "];
    for line in odd {
        assert_eq!(noted(server, line), 0, "{:?}", journal(server));
    }
}

fn wish(text: &str) -> Handshake {
    Handshake::new("/rules").header("X-Wish", text)
}

fn tell(client: &mut Raw, command: &str, answer: &str) {
    client.send(&Frame::text(command));
    client.expect(&Frame::text(answer));
}

/// A connection of which the plugin's answer to `command` is `answer`, and which then ends with `close`.
fn ends_with(server: &Server, command: &str, close: &Frame) {
    let mut client = Raw::open(server, "/rules").about(command);
    client.send(&Frame::text(command));
    client.expect(close);
    client.send(close);
    client.expect_end();
}

fn what_it_is_told(mpm: Mpm) {
    let server = site(mpm)
        .config(
            "<Location \"/rules/chat\">\n  WebSocketProtocols chat superchat\n</Location>\n\
             <LocationMatch \"/echo\">\n  WebSocketOriginCheck Trusted\n  WebSocketTrustedOrigin http://a.example\n\
             </LocationMatch>",
        )
        .start();
    let mut connected = 0;
    let offer = wish("").header("X-Echo", "a value").header("Sec-WebSocket-Protocol", "one, two");
    let mut client = Raw::connect(&server);
    let response = client.ask(&offer);
    response.assert_accepted();
    assert_eq!(response.header("X-From-Plugin"), Some("a value"));
    assert_eq!(response.header("Sec-WebSocket-Protocol"), None);
    tell(&mut client, "header X-ECHO", "a value");
    tell(&mut client, "header X-Nothing", "none");
    tell(&mut client, "protocols", "one;two;");
    tell(&mut client, "request", "GET /rules 127.0.0.1");
    client.close();
    connected += 1;
    wait_for_the_last(&server, connected);

    // The subprotocol is the plugin's, else what the configuration says.
    for (path, said, protocol) in [
        ("/rules", "protocol two", Some("two")),
        ("/rules", "", None),
        ("/rules/chat", "", Some("chat")),
        ("/rules/chat", "protocol two", Some("two")),
    ] {
        let offer = Handshake::new(path).header("X-Wish", said);
        let mut client = Raw::connect(&server);
        let response = client.ask(&offer.header("Sec-WebSocket-Protocol", "two, superchat, chat"));
        response.assert_accepted();
        assert_eq!(response.header("Sec-WebSocket-Protocol"), protocol, "{path} {said}");
        client.close();
        connected += 1;
    }

    // Refused: no header of the plugin, and nothing more for it.
    let refused = Raw::answer(&server, &wish("refuse"));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("X-From-Plugin"), None);
    let mut client = Raw::connect(&server);
    assert_eq!(client.ask(&wish("bad header")).header("X-Injected"), None);
    client.close();
    connected += 1;
    for _ in 0..2 {
        server.expect_log("WS0242");
    }
    wait_for_the_last(&server, connected);
    assert_eq!(noted(&server, "refuse"), 1);
    assert_eq!(journal(&server).iter().filter(|line| line.contains("connect ")).count(), 2 * connected);

    // What is checked before the plugin is asked.
    server.expect_log("WS0021");
    let origin = |path, origin| Raw::answer(&server, &Handshake::new(path).header("Origin", origin)).status;
    assert_eq!(origin("/rules", "http://b.example"), 403);
    assert_eq!(origin("/rules", "null"), 403);
    assert_eq!(origin("/echo", "http://b.example"), 403);
    assert_eq!(origin("/echo", "http://a.example"), 101);
    assert_eq!(Raw::answer(&server, &wish("").without("Sec-WebSocket-Key")).status, 400);
    assert_eq!(Raw::page(&server, "/rules").status, 404);
    assert_eq!(noted(&server, "connect "), connected);

    ends_with(&server, "close", &Frame::new(Frame::CLOSE, []));
    ends_with(&server, "close 4001 bye", &Frame::close(4001, "bye"));
    ends_with(&server, "close 1000", &Frame::close(1000, ""));
    ends_with(&server, "raw 77 x", &Frame::new(Frame::CLOSE, []));
    // "ab" is no code that may be sent.
    let mut client = Raw::open(&server, "/rules");
    client.send(&Frame::text("raw 77 ab"));
    assert_eq!(client.close_code(), Some(1011));
    drop(client);
    connected += 5;
    assert_eq!(noted(&server, "send after close: 0"), 1);

    let mut client = Raw::open(&server, "/rules");
    client.send(&Frame::text("raw 256 hello"));
    client.expect(&Frame::ping("hello"));
    client.expect(&Frame::text("5"));
    client.send(&Frame::text("raw 257 hello"));
    client.expect(&Frame::pong("hello"));
    client.expect(&Frame::text("5"));
    // Nothing of these is for the plugin.
    client.send(&Frame::ping("are you there"));
    client.expect(&Frame::pong("are you there"));
    client.send(&Frame::pong("nobody asked"));
    tell(&mut client, "bad text", "0");
    server.expect_log("sent text that is not UTF-8, which is refused");
    // What came before the Close is answered before it is.
    client.send_all(&[Frame::text("last words"), Frame::text("the very last"), Frame::close(1000, "bye")]);
    client.expect(&Frame::text("last words"));
    client.expect(&Frame::text("the very last"));
    client.expect(&Frame::close(1000, "bye"));
    client.expect_end();
    connected += 1;

    // So is what came before the client broke the protocol, or vanished.
    let mut client = Raw::open(&server, "/rules");
    client.send_all(&[Frame::text("before"), Frame::text("after").reserved(1)]);
    client.expect(&Frame::text("before"));
    client.expect_failure(1002);
    let client = Raw::open(&server, "/rules");
    client.reset();
    let mut client = Raw::open(&server, "/rules");
    client.send(&Frame::text(vec![0xff]));
    client.expect_failure(1007);
    connected += 3;
    wait_for_the_last(&server, connected);
}

fn messages_of_all_sizes(mpm: Mpm) {
    let server = site(mpm).config("<Location \"/rules/small\">\n  MaxMessageSize 70000\n</Location>").start();
    let mut client = Raw::open(&server, "/rules/small");
    for size in [0, 1, 125, 126, 65535, 65536, 70000] {
        client.echo(&Frame::binary(vec![7; size]));
    }
    client.send(&Frame::text("nothing"));
    client.expect(&Frame::text(""));
    client.expect(&Frame::binary([]));
    client.echo(&Frame::text("x".repeat(600)));
    client.send(&Frame::binary(vec![1; 30000]).unfinished());
    client.send(&Frame::continuation(vec![1; 40000]));
    client.expect(&Frame::binary(vec![1; 70000]));
    client.send(&Frame::binary(vec![1; 30000]).unfinished());
    client.send(&Frame::continuation(vec![1; 40001]));
    client.expect_failure(1009);
    let mut client = Raw::open(&server, "/rules/small");
    client.send(&Frame::binary(vec![1; 70001]));
    client.expect_failure(1009);
    // The default is that of the module before this one: 32 MiB.
    let mut client = Raw::open(&server, "/rules");
    client.echo(&Frame::binary(vec![9; 5 << 20]));
    client.write(&Frame::binary([]).header_claiming((32 << 20) + 1));
    client.expect_failure(1009);
    wait_for_the_last(&server, 3);
}

/// Reads what 20 threads send, each its own messages in order, and the echoes in between.
fn drain_a_flood(client: &mut Raw, each: usize, echoes: usize) {
    let mut next = [0; 20];
    let mut echoed = 0;
    while next.iter().any(|count| *count < each) || echoed < echoes {
        let frame = client.frame();
        let text = String::from_utf8(frame.payload).expect("text");
        if text.starts_with("echo ") {
            assert_eq!(text, format!("echo {echoed}"));
            echoed += 1;
            continue;
        }
        let mut words = text.split(' ').map(|word| word.parse::<usize>().expect("a number"));
        let (sender, number) = (words.next().expect("a sender"), words.next().expect("a number"));
        assert_eq!(number, next[sender], "of sender {sender}");
        next[sender] += 1;
    }
}

fn floods(mpm: Mpm) {
    const EACH: usize = 500;
    let _turn = heavy();
    let server = site(mpm).start();
    let mut client = Raw::open(&server, "/rules");
    client.send(&Frame::text(format!("senders 20 {EACH} 0")));
    let echoes: Vec<Frame> = (0..200).map(|number| Frame::text(format!("echo {number}"))).collect();
    client.send_all(&echoes);
    drain_a_flood(&mut client, EACH, echoes.len());
    // Senders that never stop, and a client that does not read: they wait, and are let go when the client leaves.
    client.send(&Frame::text("senders 20 -1 1000"));
    client.peek_until_readable();
    let mut other = Raw::open(&server, "/rules");
    other.echo(&Frame::text("meanwhile"));
    client.reset();
    wait_until("the senders have ended", PATIENCE, || noted(&server, "sender ") == 40);
    assert_eq!(journal(&server).iter().filter(|line| line.ends_with("refused")).count(), 20);
    // And one whose client closes properly.
    other.send(&Frame::text("senders 20 -1 1000"));
    other.peek_until_readable();
    other.send(&Frame::close(1000, ""));
    assert_eq!(other.close_code(), Some(1000));
    other.expect_end();
    wait_for_the_last(&server, 2);
}

fn what_is_sent_early_or_late(mpm: Mpm) {
    let server = site(mpm).start();
    let mut client = Raw::open_with(&server, &wish("greet 2000"));
    for number in 0..2000 {
        client.expect(&Frame::text(format!("greeting {number}")));
    }
    client.echo(&Frame::text("hello"));
    client.close();
    let mut client = Raw::open_with(&server, &wish("close"));
    client.expect(&Frame::new(Frame::CLOSE, []));
    client.send(&Frame::new(Frame::CLOSE, []));
    client.expect_end();
    let mut client = Raw::open_with(&server, &wish("senders 50"));
    drain_a_flood(&mut client, 50, 0);
    client.close();
    wait_for_the_last(&server, 3);
    assert_eq!(noted(&server, "send after close: 0"), 1);
    // The pointer of a connection that is over, in the same process.
    if mpm != Mpm::Prefork {
        let mut clients: Vec<Raw> = (0..8).map(|_| Raw::open(&server, "/rules")).collect();
        let mut by_process = std::collections::HashMap::<Vec<u8>, Vec<Raw>>::new();
        for mut client in clients.drain(..) {
            client.send(&Frame::text("thread"));
            by_process.entry(client.frame().payload).or_default().push(client);
        }
        let mut pair = by_process.into_values().find(|clients| clients.len() > 1).expect("two of one process");
        let mut client = pair.pop().expect("two");
        let before = noted(&server, "disconnect ");
        pair.pop().expect("two").close();
        wait_until("one is over", PATIENCE, || noted(&server, "disconnect ") > before);
        tell(&mut client, "ghost", "send 0, request (nil), header (nil), protocols 0");
    }
}

/// Whatever the bytes go through, and who keeps the request.
fn over_tls(mpm: Mpm) {
    let server = site(mpm)
        .tls()
        .module("rewrite")
        .config("<Directory \"{root}/htdocs\">\n  RewriteEngine On\n  RewriteRule ^old$ /rules\n</Directory>")
        .start();
    let mut client = Raw::open_with(&server, &wish("greet 3"));
    for number in 0..3 {
        client.expect(&Frame::text(format!("greeting {number}")));
    }
    tell(&mut client, "request", "GET /rules 127.0.0.1");
    client.echo(&Frame::binary(vec![5; 1 << 20]));
    client.send(&Frame::text("senders 20 100 0"));
    drain_a_flood(&mut client, 100, 0);
    client.close();
    ends_with(&server, "close 4000 enough", &Frame::close(4000, "enough"));
    let client = Raw::open(&server, "/rules");
    client.reset();
    // ap_internal_redirect: the thread of the request waits.
    let mut client = Raw::open(&server, "/old");
    tell(&mut client, "request", "GET /rules 127.0.0.1");
    client.close();
    wait_for_the_last(&server, 4);
}

#[test]
fn a_request_that_httpd_redirects() {
    let server = site(Mpm::Event)
        .module("rewrite")
        .config("<Directory \"{root}/htdocs\">\n  RewriteEngine On\n  RewriteRule ^old$ /rules\n</Directory>")
        .start();
    let mut client = Raw::open(&server, "/old");
    tell(&mut client, "request", "GET /rules 127.0.0.1");
    client.close();
    wait_for_the_last(&server, 1);
}

/// Streams of HTTP/2: the messages of http2.rs, answered by a plugin.
#[test]
fn in_http2() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let server = site(mpm).workers(20).http2().config(crate::tls::http2::ROOM_FOR_MANY).start();
        Scenario::start(&server, "messages").ends_well();
        Scenario::start(&server, "ten").ends_well();
        let mut client = Scenario::start(&server, "vanish");
        client.says("four are open");
        client.go_on();
        client.says("the connection is reset");
        client.go_on();
        client.ends_well();
        crate::tls::http2::wait_for_sessions(&server, 0);
    }
}

/// A single child of event with room for many.
fn one_child() -> Httpd {
    site(Mpm::Event).config(
        "ServerLimit 1\nStartServers 1\nThreadLimit 8\nThreadsPerChild 8\nMaxRequestWorkers 8\n\
         AsyncRequestWorkerFactor 100",
    )
}

/// 200 connections on eight threads: no thread waits for a socket, and one that a plugin makes wait is only one.
#[test]
fn many_connections_on_few_threads() {
    let _turn = heavy();
    let server = one_child().start();
    let mut clients: Vec<Raw> = (0..200).map(|_| Raw::open(&server, "/rules")).collect();
    let child = server.children()[0];
    for client in &mut clients {
        client.echo(&Frame::text("one"));
    }
    // httpd's eight and its own two, the relay thread, one that watches, and eight for the plugin.
    assert!(child.threads() <= 22, "{} threads", child.threads());
    for client in &mut clients[..7] {
        client.send(&Frame::text("block"));
    }
    wait_until("seven wait", PATIENCE, || {
        clients[199].send(&Frame::text("blocked"));
        clients[199].frame().payload == b"7"
    });
    for round in 0..3 {
        let text = Frame::text(format!("round {round}"));
        for client in &mut clients[7..] {
            client.send(&text);
        }
        for client in &mut clients[7..] {
            client.expect(&text);
        }
    }
    // Seven more that wait, one of them for a thread; and what one says meanwhile comes later, in order.
    for client in &mut clients[..7] {
        client.send_all(&[Frame::text("first"), Frame::text("second")]);
    }
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    clients[199].send(&Frame::text("release"));
    for client in &mut clients[..7] {
        for answer in ["unblocked", "first", "second"] {
            client.expect(&Frame::text(answer));
        }
    }
    drop(clients);
    wait_for_the_last(&server, 200);
}

/// What is left of one connection must not be taken for a later one.
#[test]
fn connections_that_come_and_go() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 150;
    let _turn = heavy();
    let server = one_child().start();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let mut client = Raw::open(&server, "/rules");
                    client.echo(&Frame::text(format!("round {round}")));
                    match round % 4 {
                        0 => client.close(),
                        1 => client.reset(),
                        2 => tell(&mut client, "protocols", ""),
                        _ => {
                            client.send(&Frame::text("close"));
                            client.expect(&Frame::new(Frame::CLOSE, []));
                        }
                    }
                }
            });
        }
    });
    wait_for_the_last(&server, CLIENTS * ROUNDS);
}

/// Who does not read what another connection's function sends to it is disconnected; nobody waits for it. What its own
/// function says to it waits.
#[test]
fn a_client_that_does_not_keep_up() {
    let _turn = heavy();
    let server = one_child().config("WebSocketSendBuffer 65536").start();
    let mut slow = Raw::open(&server, "/rules");
    slow.send(&Frame::text("target"));
    tell(&mut slow, "blocked", "0");
    let mut other = Raw::open(&server, "/rules");
    other.send(&Frame::text("bombard 100000 10000"));
    let sent: usize = String::from_utf8(other.frame().payload).expect("text").parse().expect("a number");
    assert!(sent < 20_000, "{sent} messages of 10,000 bytes went to a client that reads nothing");
    assert_eq!(slow.close_code(), Some(1013));
    drop(slow);

    other.send(&Frame::text("burst 300 100000"));
    wait_until("the function has returned", PATIENCE, || noted(&server, "burst of") == 1);
    other.send(&Frame::text("after it"));
    let mut third = Raw::open(&server, "/rules");
    third.echo(&Frame::text("not concerned"));
    third.close();
    for _ in 0..300 {
        other.expect(&Frame::binary(vec![0; 100_000]));
    }
    other.expect(&Frame::text("after it"));
    other.close();
    wait_for_the_last(&server, 3);
}

/// A client goes while its plugin takes nothing. What it has sent is in the way of its end, but a Ping finds out.
#[test]
fn who_has_gone_is_missed_where_the_plugin_takes_nothing() {
    let server = one_child()
        .config(
            "WebSocketLog logs/ws.log\nWebSocketPing 1 1\n<Location \"/rules/calm\">\n  WebSocketPing Off\n</Location>",
        )
        .start();
    let mut other = Raw::open(&server, "/rules/calm");
    let mut client = Raw::open(&server, "/rules");
    client.send(&Frame::text("block"));
    wait_until("the function waits", PATIENCE, || {
        other.send(&Frame::text("blocked"));
        other.frame() == Frame::text("1")
    });
    let frame = Frame::text("x".repeat(500_000)).masked();
    // Until nothing more is taken; the rest of it is still to come, as from a client whose own system has it.
    while client.write_some(&frame, Duration::from_millis(200)) == Some(frame.len()) {}
    drop(client);
    let ended = || std::fs::read_to_string(server.path("logs/ws.log")).unwrap_or_default().lines().count();
    wait_until("it is missed", PATIENCE, || ended() == 1);
    assert_eq!(noted(&server, "disconnect "), 0, "its function still waits");
    other.send(&Frame::text("release"));
    other.close();
    wait_for_the_last(&server, 2);
}

/// A function that does not return for long is told of, and so is that it has after all.
#[test]
fn a_function_that_hangs() {
    let server = one_child().start();
    let mut client = Raw::open(&server, "/rules");
    client.send(&Frame::text("sleep 15"));
    server.expect_log("WS0241: on_message of the plugin");
    wait_until("it is told that it hangs", PATIENCE, || server.error_log().contains("is still running after 1"));
    let mut other = Raw::open(&server, "/rules");
    other.echo(&Frame::text("meanwhile"));
    wait_until("it is told that it goes on", PATIENCE, || server.error_log().contains("has returned after 15"));
    // Its client has not had an answer to a Ping that it sent, and is still there.
    let answer = std::iter::repeat_with(|| client.frame()).find(|frame| frame.opcode != Frame::PING);
    assert_eq!(answer, Some(Frame::text("slept")));
    client.close();
    other.close();
}

/// The codes that clients close with, by the same rules as everywhere; and compression, of which a plugin knows nothing.
#[test]
fn close_codes_of_clients_and_compression() {
    let server = site(Mpm::Event)
        .config(
            "WebSocketCompression On\nWebSocketCompressionMinSize 1\n\
             <Location \"/rules/lenient\">\n  WebSocketAllowReservedStatusCodes On\n</Location>",
        )
        .start();
    let codes = [
        ("/rules", 1000, 1000),
        ("/rules", 3000, 3000),
        ("/rules", 1004, 1002),
        ("/rules", 1014, 1002),
        ("/rules", 2999, 1002),
        ("/rules", 1005, 1002),
        ("/rules", 999, 1002),
        ("/rules", 5000, 1002),
        ("/rules/lenient", 1004, 1004),
        ("/rules/lenient", 1014, 1014),
        ("/rules/lenient", 2999, 2999),
        ("/rules/lenient", 1006, 1002),
        ("/rules/lenient", 5000, 1002),
    ];
    for (path, code, answer) in codes {
        let mut client = Raw::open(&server, path).about(&format!("{path} {code}"));
        client.send(&Frame::close(code, ""));
        assert_eq!(client.close_code(), Some(answer), "{path} {code}");
        client.expect_end();
    }
    wait_for_the_last(&server, codes.len());
    let mut client = Raw::connect(&server);
    let response = client.ask(&Handshake::new("/echo").header("Sec-WebSocket-Extensions", "permessage-deflate"));
    assert!(response.header("Sec-WebSocket-Extensions").is_some());
    client.send(&Frame::text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    let echo = client.frame();
    assert_eq!((echo.reserved, echo.opcode), (4, Frame::TEXT));
    assert!(echo.payload.len() < 20, "{echo:?}");
    client.close();
}
