//! What is taken back from sockets that an application handles; and for whom httpd takes the engine, which asks it.

use super::http::{SOCKET, encode, hears, location, site, text};
use super::rights::{expect_close, send};
use crate::harness::php::Fpm;
use crate::harness::publish::{json, publish};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Mpm, Raw, Server, wait_until};
use serde_json::Value;
use std::fs;

/// How many sockets it was.
#[track_caller]
fn sockets(server: &Server, method: &str, query: &str) -> u64 {
    let response = send(server, method, query);
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    json(&response)["sockets"].as_u64().expect("a number")
}

#[test]
fn rights_are_taken_back() {
    let fpm = Fpm::start(2);
    let httpd = Fpm::modules(site(Mpm::Event)).config(fpm.config());
    let server = httpd.config(location("chat", &format!("{SOCKET}\nWebSocketRecheck 300"))).start();
    let wish = encode("header WebSocket-User: ann&WebSocket-Channel: room, hall");
    let mut client = Raw::open(&server, &format!("/chat?{wish}"));
    client.expect(&Frame::text("done"));
    assert_eq!(sockets(&server, "DELETE", "user=ann&channel=room"), 1);
    assert_eq!(sockets(&server, "DELETE", "user=ann&channel=room"), 0);
    assert_eq!((publish(&server, "room", "unheard").1, publish(&server, "hall", "heard").1), (0, 1));
    client.expect(&Frame::text("heard"));

    // The application is asked at its own URL. It says nothing; then what was stored.
    assert_eq!(sockets(&server, "POST", "user=ann&action=recheck"), 1);
    hears(&server, &["1|open||", "2|recheck||"]);
    let store = |client: &mut Raw, wish: &str| {
        let say = format!("header Set-Meta-Recheck: {wish}");
        assert_eq!(text(client, &say), "done");
        format!("|message||{say}")
    };
    let first = store(&mut client, "header WebSocket-Channel: stairs");
    assert_eq!(sockets(&server, "POST", "user=ann&action=recheck"), 1);
    hears(&server, &[&format!("3{first}"), "4|recheck||"]);
    wait_until("it has other channels", PATIENCE, || publish(&server, "hall", "unheard").1 == 0);
    assert_eq!(publish(&server, "stairs", "last").1, 1);
    while client.frame() != Frame::text("last") {}
    let second = store(&mut client, "status 403");
    assert_eq!(sockets(&server, "POST", "user=ann&action=recheck"), 1);
    expect_close(&mut client, 1008, "refused by the application");
    drop(client);
    hears(&server, &[&format!("5{second}"), "6|recheck||", "7|disconnect||"]);

    let mut client = Raw::open(&server, &format!("/chat?{}", encode("header WebSocket-Expires: 1")));
    client.expect(&Frame::text("done"));
    expect_close(&mut client, 1008, "expired");
    drop(client);
    hears(&server, &["1|open||", "2|disconnect||"]);
}

/// The one that decides over the handshake, and the one that handles the session: a socket has the channels that either names.
#[test]
fn channels_of_two_applications() {
    let fpm = Fpm::start(2);
    let authorize = "<?php header('WebSocket-User: ann');\n\
                     header('WebSocket-Channel: ' . ($_SERVER['HTTP_WEBSOCKET_EVENT'] == 'recheck' ? 'stairs' : 'hall, room'));";
    let server = Fpm::modules(site(Mpm::Event))
        .config(fpm.config())
        .file("htdocs/auth.php", authorize)
        .file("htdocs/shared/.htaccess", "WebSocketAuthorize /auth.php\n")
        .file("htdocs/shared/socket", "")
        .config(format!(
            "<Directory \"{{root}}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>\n{}",
            location("shared", SOCKET)
        ))
        .config(location("few", &format!("{SOCKET}\nWebSocketAuthorize /auth.php\nWebSocketChannelMax 1")))
        .config(location("chat", &format!("{SOCKET}\nWebSocketAuthorize /auth.php\nWebSocketRecheck 300")))
        .start();
    let wish = encode("header WebSocket-Channel: room, own");
    let mut client = Raw::open(&server, &format!("/chat?{wish}"));
    client.expect(&Frame::text("done"));
    let heard_in = |client: &mut Raw, expected: [(&str, u64); 4]| {
        for (channel, count) in expected {
            assert_eq!(publish(&server, channel, channel).1, count, "{channel}");
            if count > 0 {
                client.expect(&Frame::text(channel));
            }
        }
    };
    heard_in(&mut client, [("hall", 1), ("room", 1), ("own", 1), ("stairs", 0)]);
    assert_eq!(sockets(&server, "POST", "user=ann&action=recheck"), 1);
    wait_until("it has other channels", PATIENCE, || publish(&server, "hall", "late").1 == 0);
    assert_eq!(publish(&server, "room", "room").1, 1);
    // Until then it had some from where it was.
    while client.frame() != Frame::text("room") {}
    heard_in(&mut client, [("room", 1), ("own", 1), ("stairs", 1), ("hall", 0)]);
    assert_eq!(text(&mut client, "header WebSocket-Channel: none"), "done");
    heard_in(&mut client, [("stairs", 1), ("room", 0), ("own", 0), ("hall", 0)]);
    client.close();
    // Never with less than it has said, nor with what an .htaccess file may not give away.
    server.expect_log("WS0062");
    for place in ["/few", "/shared/socket"] {
        assert_eq!(Raw::answer(&server, &Handshake::new(place)).status, 500, "{place}");
    }
}

/// For httpd, and for the application, it is the client that asks; and what proves it is nobody's to read.
#[test]
fn the_engine_is_where_its_client_is() {
    let fpm = Fpm::start(2);
    let server = Fpm::modules(site(Mpm::Event).tls())
        .module("remoteip")
        .config(fpm.config())
        .config(location("chat", SOCKET))
        // Not one that goes along with later requests.
        .config("RemoteIPHeader Proxy-Client\nRemoteIPInternalProxy 127.0.0.1")
        .config("<Files \"app.php\">\n  Require ip 192.0.2.7\n</Files>")
        .config("LogFormat \"%U|%a|%{WEBSOCKET_TRUSTED}e|%{WebSocket-Token}i%{WebSocket-Client}i%{WebSocket-Secure}i\" engine")
        .config("CustomLog \"{root}/logs/engine.log\" engine")
        .start();
    let mut client = Raw::open_with(&server, &Handshake::new("/chat").header("Proxy-Client", "192.0.2.7"));
    let dump = text(&mut client, "dump ");
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    for (name, value) in
        [("REMOTE_ADDR", "192.0.2.7"), ("HTTPS", "on"), ("WEBSOCKET_TRUSTED", "1"), ("HTTP_WEBSOCKET_EVENT", "message")]
    {
        assert_eq!(dump[name], value, "{name} in {dump}");
    }
    assert!(dump.get("HTTP_PROXY_CLIENT").is_none(), "{dump}");
    // Others are judged by where they are.
    server.expect_log("AH01630");
    let forged = Handshake::page("/app.php").header("WebSocket-Token", "x").header("WebSocket-Client", "192.0.2.7");
    assert_eq!(Raw::answer(&server, &forged).status, 403);
    client.close();
    hears(&server, &["1|open||", "2|message||dump ", "3|close|1000|"]);

    let log = || fs::read_to_string(server.path("logs/engine.log")).expect("a log");
    let wanted = ["/app.php|192.0.2.7|1|---", "/app.php|127.0.0.1|-|---"];
    wait_until("all are logged", PATIENCE, || log().lines().filter(|line| line.starts_with("/app.php|")).count() == 3);
    assert!(log().lines().all(|line| !line.starts_with("/app.php|") || wanted.contains(&line)), "{}", log());
    // 256 bits in hexadecimal are nowhere.
    for text in [dump.to_string(), log(), server.error_log()] {
        let mut words = text.split(|c: char| !c.is_ascii_hexdigit());
        assert!(words.all(|word| word.len() != 64), "{text}");
    }
}
