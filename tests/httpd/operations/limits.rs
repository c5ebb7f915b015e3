//! What ends a connection or keeps one from opening: pings, timeouts, and how many there may be.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, wait_until};
use std::time::{Duration, Instant};

every_mpm!(httpds_timeouts_end_with_the_handshake);

/// An echo handler with these directives.
fn echo(lines: &str) -> Server {
    Httpd::new(Mpm::Event)
        .config(format!("<Location \"/echo\">\n  WebSocketHandler echo\n{lines}\n</Location>"))
        .start()
}

#[track_caller]
fn refused(server: &Server, handshake: &Handshake, directive: &str) {
    let before = server.error_log().matches(directive).count();
    let response = Raw::answer(server, handshake);
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(response.header("Retry-After"), Some("5"));
    let log = server.error_log();
    assert_eq!(log.matches(directive).count(), before + 1, "{log}");
    // An administrator asked for it: nothing is wrong.
    let line = log.lines().rfind(|line| line.contains(directive)).expect("just counted");
    assert!(line.contains("websocket:info") && line.contains("WS0007"), "{line}");
}

#[test]
fn an_answered_ping_keeps_a_connection_open() {
    let server = echo("WebSocketPing 1 1");
    let mut client = Raw::open(&server, "/echo");
    for _ in 0..3 {
        client.expect(&Frame::ping(""));
        client.send(&Frame::pong(""));
    }
    client.echo(&Frame::text("still here"));
    client.close();
}

#[test]
fn an_unanswered_ping_ends_a_connection() {
    let server = echo("WebSocketPing 1 1");
    let mut silent = Raw::open(&server, "/echo");
    let mut half = Raw::open(&server, "/echo");
    half.send(&Frame::text("the first half").unfinished());
    // Whatever it sends shows that it lives; the last time, that is.
    silent.expect(&Frame::ping(""));
    silent.echo(&Frame::text("not a Pong"));
    silent.expect(&Frame::ping(""));
    silent.expect_end();
    half.expect(&Frame::ping(""));
    half.expect_end();
    wait_until("the log tells it", PATIENCE, || server.error_log().matches("no answer to a ping").count() == 2);
}

#[test]
fn without_pings_there_are_none() {
    let server = echo("WebSocketPing Off\nWebSocketIdleTimeout 2");
    let mut client = Raw::open(&server, "/echo");
    let start = Instant::now();
    // The next that comes is this.
    client.expect(&Frame::close(1001, "idle timeout"));
    assert!(start.elapsed() >= Duration::from_secs(2));
    client.send(&Frame::close(1001, ""));
    client.expect_end();
}

#[test]
fn an_idle_connection_is_closed() {
    let server = echo("WebSocketPing 1 5\nWebSocketIdleTimeout 3\nWebSocketCloseTimeout 1");
    let mut client = Raw::open(&server, "/echo");
    // Pings and Pongs, both ways, are no data.
    client.expect(&Frame::ping(""));
    client.send(&Frame::pong(""));
    let start = Instant::now();
    client.echo(&Frame::text("data"));
    let mut pings = 0;
    let end = loop {
        let frame = client.frame();
        if frame.opcode != Frame::PING {
            break frame;
        }
        pings += 1;
        client.send_all(&[Frame::pong(""), Frame::ping("too")]);
        client.expect(&Frame::pong("too"));
    };
    assert!(end == Frame::close(1001, "idle timeout"), "{end:?}");
    assert!(start.elapsed() >= Duration::from_secs(3) && pings > 0, "{pings} pings, {:?}", start.elapsed());
    // It does not answer. The default would be five seconds.
    let closed = Instant::now();
    client.expect_end();
    assert!(closed.elapsed() < Duration::from_secs(5), "{:?}", closed.elapsed());
}

#[test]
fn a_message_that_takes_too_long_is_refused() {
    let late = Frame::close(1008, "message took too long");
    let server = echo("WebSocketPing Off\nWebSocketMessageTimeout 1 1000\nWebSocketCloseTimeout 1");
    let mut idle = Raw::open(&server, "/echo");
    let mut stalled = Raw::open(&server, "/echo");
    let mut fragmented = Raw::open(&server, "/echo");
    let mut large = Raw::open(&server, "/echo");
    // What waits in a read is the beginning of the next message, too.
    stalled.write(&[&Frame::text("whole").masked()[..], &Frame::text("half").masked()[..7]].concat());
    stalled.expect(&Frame::text("whole"));
    fragmented.send_all(&[Frame::text("a fragment").unfinished(), Frame::ping("in between")]);
    fragmented.expect(&Frame::pong("in between"));
    // Two more seconds for two thousand bytes.
    let message = Frame::binary(vec![7; 4000]);
    let start = Instant::now();
    large.write(&message.masked()[..2500]);
    stalled.expect(&late);
    fragmented.expect(&late);
    large.expect(&late);
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    idle.echo(&Frame::text("no message is under way"));
    idle.close();

    // A minute by default, or never: longer than the other one took.
    let server = Httpd::new(Mpm::Event)
        .echo()
        .config(
            "<Location \"/never\">\n  WebSocketHandler echo\n  WebSocketMessageTimeout Off\n</Location>\n\
             <Location \"/soon\">\n  WebSocketHandler echo\n  WebSocketMessageTimeout 1\n</Location>",
        )
        .start();
    let mut patient: Vec<Raw> = ["/echo", "/never"].map(|path| Raw::open(&server, path)).into();
    let mut soon = Raw::open(&server, "/soon");
    let bytes = message.masked();
    for client in patient.iter_mut().chain([&mut soon]) {
        client.write(&bytes[..3000]);
    }
    soon.expect(&late);
    for client in &mut patient {
        client.write(&bytes[3000..]);
        client.expect(&message);
    }
}

/// Who does not take what it gets is not read, and cannot be blamed for what it could not send.
#[test]
fn time_in_which_nothing_is_read_is_no_delay_of_a_message() {
    let server = echo("WebSocketPing 1 60\nWebSocketSendBuffer 1\nWebSocketMessageTimeout 2");
    let mut client = Raw::open(&server, "/echo");
    let mut other = Raw::open(&server, "/echo");
    let message = Frame::binary(vec![7; 1 << 20]);
    let bytes = message.masked();
    // Until nothing more is read, since no more of the answers goes out.
    let mut sent = 0;
    while let Some(count @ 1..) = client.write_some(&bytes[sent % bytes.len()..], Duration::from_millis(300)) {
        sent += count;
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        other.expect(&Frame::ping(""));
        other.send(&Frame::pong(""));
    }
    let receive = |client: &mut Raw| {
        while let Some(other) = Some(client.frame()).filter(|frame| *frame != message) {
            assert!(other == Frame::ping(""), "{other:?}");
        }
    };
    for _ in 0..sent / bytes.len() {
        receive(&mut client);
    }
    client.write(&bytes[sent % bytes.len()..]);
    receive(&mut client);
}

/// Many clients of one address hold what is not finished; that is not at the cost of one who sends a large message.
#[test]
fn one_large_message_does_not_pay_for_many_that_are_not_finished() {
    const HOLDERS: usize = 2000;
    let server = Httpd::new(Mpm::Event)
        .module("remoteip")
        .config(
            "RemoteIPHeader X-Client\nRemoteIPInternalProxy 127.0.0.1\nWebSocketMemory 67108864\n\
             <Location \"/echo\">\n  WebSocketHandler echo\n  WebSocketMaxMessageSize 33554432\n</Location>",
        )
        .start();
    server.expect_log("WS0176");
    let from = |address: &str| Handshake::new("/echo").header("X-Client", address);
    // As much as there is of a message but for its last byte.
    let mut begun = Frame::binary(vec![7; 40_000]).masked();
    begun.pop();
    let mut holders: Vec<Raw> = (0..HOLDERS)
        .map(|_| {
            let mut client = Raw::open_with(&server, &from("192.0.2.1"));
            client.try_write(&begun);
            client
        })
        .collect();
    let mut large = Raw::open_with(&server, &from("192.0.2.2")).about("the large message");
    large.echo(&Frame::binary(vec![1; 16 << 20]));
    large.close();
    wait_until("the log tells of it", PATIENCE, || server.error_log().contains("of 192.0.2.1 which holds most"));
    // Rarely, whoever many are closed.
    assert_eq!(server.error_log().matches("WS0176").count(), 1);
    let mut closed = 0;
    for client in &mut holders {
        client.try_write(&[0]);
        match client.frame() {
            frame if frame.opcode == Frame::CLOSE => {
                assert_eq!(frame.close_code(), Some(1009));
                closed += 1;
            }
            frame => assert_eq!((frame.opcode, frame.payload.len()), (Frame::BINARY, 40_000)),
        }
    }
    assert!((200..HOLDERS).contains(&closed), "{closed}");
}

#[test]
fn so_many_connections_and_no_more() {
    let server = Httpd::new(Mpm::Event)
        .config(
            "WebSocketHandler echo\nWebSocketMaxConnections 2\n\
             <Location \"/own\">\n  WebSocketMaxConnections 1\n</Location>\n\
             <Location \"/free\">\n  WebSocketMaxConnections Off\n</Location>\n\
             <VirtualHost *:{port}>\n  ServerName one.example\n  WebSocketMaxConnections 1\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName two.example\n  WebSocketMaxConnections 1\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName heir.example\n</VirtualHost>",
        )
        .start();
    let at = |host: &str, path: &str| Handshake::new(path).with("Host", host);
    let open = |host: &str, path: &str| Raw::open_with(&server, &at(host, path));

    let one = open("one.example", "/");
    refused(&server, &at("one.example", "/x"), "WebSocketMaxConnections of one.example: 1");
    let two = open("two.example", "/");
    refused(&server, &at("two.example", "/"), "WebSocketMaxConnections of two.example: 1");
    // Through a new generation of httpd, too.
    server.graceful();
    refused(&server, &at("one.example", "/"), "WebSocketMaxConnections of one.example: 1");
    one.close();
    open("one.example", "/").close();
    two.reset();
    wait_until("the place of a client that vanished is free", PATIENCE, || {
        Raw::answer(&server, &at("two.example", "/")).status == 101
    });

    // Set outside of all virtual hosts, the limit is that of those that inherit it, together.
    let first = open("heir.example", "/");
    let second = open("heir.example", "/x");
    refused(&server, &at("heir.example", "/"), "WebSocketMaxConnections of the server: 2");
    // A location's own limit counts for itself, and Off counts nothing.
    let own = open("heir.example", "/own");
    refused(&server, &at("heir.example", "/own"), "WebSocketMaxConnections of the server in /own: 1");
    let free: Vec<Raw> = (0..5).map(|_| open("heir.example", "/free")).collect();
    first.close();
    let third = open("heir.example", "/");
    for client in [second, own, third].into_iter().chain(free) {
        client.close();
    }
}

#[test]
fn so_many_connections_of_a_client() {
    let server = Httpd::new(Mpm::Event)
        .module("remoteip")
        .config(
            "RemoteIPHeader X-Client\nRemoteIPInternalProxy 127.0.0.1\n\
             <Location \"/echo\">\n  WebSocketHandler echo\n  WebSocketMaxConnections 3\n  \
             WebSocketMaxConnectionsPerClient 2\n</Location>",
        )
        .start();
    let from = |address: &str| Handshake::new("/echo").header("X-Client", address);
    let first = Raw::open_with(&server, &from("192.0.2.1"));
    let second = Raw::open_with(&server, &from("192.0.2.1"));
    refused(&server, &from("192.0.2.1"), "PerClient of the server in /echo for 192.0.2.1: 2");
    let other = Raw::open_with(&server, &from("2001:db8::1"));
    refused(&server, &from("2001:db8::1"), "WebSocketMaxConnections of the server in /echo: 3");
    first.close();
    let third = Raw::open_with(&server, &from("192.0.2.1"));
    for client in [second, other, third] {
        client.close();
    }
}

/// A handshake that fails after the engine has granted it a place, and those that never ask, take none.
#[test]
fn only_connections_count() {
    let server = echo("WebSocketMaxConnections 1");
    let page = |handshake: Handshake| -> Response { Raw::answer(&server, &handshake) };
    assert_eq!(page(Handshake::new("/echo").with("Sec-WebSocket-Version", "7")).status, 400);
    assert_eq!(page(Handshake::page("/echo")).status, 404);
    for _ in 0..20 {
        let mut client = Raw::connect(&server);
        client.write(&Handshake::new("/echo").bytes(&client.host()));
        client.reset();
    }
    wait_until("all that was granted is given back", PATIENCE, || page(Handshake::new("/echo")).status == 101);
}

fn httpds_timeouts_end_with_the_handshake(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .module("reqtimeout")
        .config(
            "Timeout 2\nKeepAliveTimeout 1\nRequestReadTimeout header=2 body=2\n\
             <Location \"/echo\">\n  WebSocketHandler echo\n  WebSocketPing 5\n</Location>",
        )
        .start();
    let mut client = Raw::open(&server, "/echo");
    let start = Instant::now();
    // The clock of this test: until it comes the connection is silent, longer than any of those allow.
    client.expect(&Frame::ping(""));
    assert!(start.elapsed() >= Duration::from_secs(5));
    client.send(&Frame::pong(""));
    client.echo(&Frame::text("still here"));
    client.close();
}
