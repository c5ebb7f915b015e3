//! Applications that are asked again while sockets are open.

use super::rights::{alive, expect_close, send};
use crate::harness::back_end::BackEnd;
use crate::harness::channel::said;
use crate::harness::php::Fpm;
use crate::harness::port::Port;
use crate::harness::publish::{json, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use serde_json::{Value, json};
use std::fs;

/// Says what the file beside it says for this event.
const APP: &str = r#"<?php
if (($_SERVER['WEBSOCKET_TRUSTED'] ?? '') !== '1') {
    http_response_code(403);
    exit;
}
$says = json_decode(file_get_contents(__DIR__ . '/says.json'), true);
$event = $_SERVER['HTTP_WEBSOCKET_EVENT'];
$colour = $_SERVER['HTTP_META_COLOUR'] ?? 'none';
$seen = "$event $colour {$_SERVER['HTTP_COOKIE']} {$_SERVER['REMOTE_ADDR']} {$_SERVER['QUERY_STRING']}";
foreach ($says[$event] as $line) {
    is_int($line) ? http_response_code($line) : header(str_replace('SEEN', $seen, $line), false);
}
"#;

fn site(fpm: &Fpm) -> Httpd {
    let mut httpd = Fpm::modules(Httpd::new(Mpm::Event)).module("authz_host").file("htdocs/auth.php", APP);
    for (path, directives) in [
        ("/chat", "WebSocketHandler channel other"),
        ("/often", "WebSocketHandler echo\nWebSocketRecheck 10"),
        ("/impatient", "WebSocketHandler echo\nWebSocketRecheck 300\nWebSocketRecheckGrace 1"),
        ("/never", "WebSocketHandler echo"),
    ] {
        httpd = httpd.config(format!(
            "<Location \"{path}\">\nWebSocketAuthorize \"/auth.php?{path}\"\n{directives}\n</Location>"
        ));
    }
    httpd.config(fpm.config()).config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
}

fn says(server: &Server, authorize: &Value, recheck: &Value) {
    // In one step: it may be read meanwhile.
    let (new, file) = (server.path("htdocs/new.json"), server.path("htdocs/says.json"));
    fs::write(&new, json!({"authorize": authorize, "recheck": recheck}).to_string()).expect("a file of the site");
    fs::rename(new, file).expect("its name");
}

fn open(server: &Server, path: &str, cookie: &str) -> Raw {
    let handshake = Handshake::new(path).header("Cookie", cookie);
    let mut client = Raw::connect(server);
    client.ask(&handshake.header("Sec-WebSocket-Protocol", "channels.v1")).assert_accepted();
    client
}

fn recheck(server: &Server) -> u64 {
    let response = send(server, "POST", "user=ann&action=recheck");
    assert_eq!(response.status, 200, "{}", response.text());
    json(&response)["sockets"].as_u64().expect("a number")
}

#[test]
fn sockets_of_proxied_servers_are_asked_about_and_closed_too() {
    let (fpm, back_end) = (Fpm::start(2), BackEnd::echo());
    let proxied = format!("WebSocketProxyHandoff On\nProxyPass ws://{}/", back_end.address);
    let server = site(&fpm)
        .module("proxy_http")
        .config(format!("<Location \"/proxied\">\nWebSocketAuthorize /auth.php\n{proxied}\n</Location>"))
        .start();
    says(
        &server,
        &json!(["WebSocket-User: ann", "WebSocket-Recheck: 300"]),
        &json!([403, "WebSocket-Close: 4401 logged out"]),
    );
    // The back end's echo, so that the session is the engine's by then.
    let proxied = || {
        let mut client = Raw::open_with(&server, &Handshake::new("/proxied").header("Cookie", "sid=1"));
        client.send(&Frame::text("there?"));
        assert_eq!(client.frame().payload, b"there?");
        client
    };
    let mut clients = [proxied(), proxied()];
    assert_eq!(json(&send(&server, "DELETE", "user=joe"))["sockets"], 0);
    assert_eq!(recheck(&server), 2);
    clients.iter_mut().for_each(|client| expect_close(client, 4401, "logged out"));
    drop(clients);
    wait_until("both have ended", PATIENCE, || server.error_log().matches("WS0103: ").count() == 2);
    let mut named = proxied();
    assert_eq!(json(&send(&server, "DELETE", "user=ann&code=4402&reason=gone"))["sockets"], 1);
    expect_close(&mut named, 4402, "gone");
}

#[test]
fn the_application_is_asked_again() {
    let fpm = Fpm::start(2);
    let server = site(&fpm).start();
    let ann = "WebSocket-User: ann";
    says(&server, &json!([ann, "WebSocket-Channel: news, sport", "Set-Meta-Colour: blue"]), &json!([]));
    let mut often = open(&server, "/often", "sid=0");
    let mut never = open(&server, "/never", "sid=0");
    says(
        &server,
        &json!([ann, "WebSocket-Recheck: 300", "WebSocket-Channel: news, sport", "Set-Meta-Colour: blue"]),
        &json!([ann, "WebSocket-Channel: extra, news"]),
    );
    let mut sockets = [open(&server, "/chat", "sid=1"), open(&server, "/chat", "sid=1")];
    for socket in &mut sockets {
        (0..2).for_each(|_| assert_eq!(said(socket)["type"], "subscribed"));
    }
    for query in
        ["action=recheck", "user=&action=recheck", "user=ann&action=ask", "user=ann&action=recheck&channel=news"]
    {
        assert_eq!(send(&server, "POST", query).status, 400, "{query}");
    }
    assert_eq!(
        send(&server, "POST", "user=joe&action=recheck").text(),
        "{\"servers\":1,\"sockets\":0,\"unanswered\":0}\n"
    );
    assert_eq!(recheck(&server), 3, "one is never asked about");
    for socket in &mut sockets {
        assert_eq!(said(socket), json!({"type": "unsubscribed", "channel": "sport"}));
        let new = said(socket);
        assert_eq!((&new["type"], &new["channel"]), (&json!("subscribed"), &json!("extra")));
    }
    assert_eq!((subscribers(&server, "sport"), subscribers(&server, "extra")), (0, 2));

    // As the client would have asked: its cookie, its address, what was stored, the URL as it was.
    says(&server, &json!([]), &json!([403, "WebSocket-Close: 4401 SEEN"]));
    assert_eq!(send(&server, "POST", "user=ann&action=recheck").status, 200);
    for socket in &mut sockets {
        expect_close(socket, 4401, "recheck blue sid=1 127.0.0.1 /chat");
    }
    expect_close(&mut often, 4401, "recheck blue sid=0 127.0.0.1 /often");
    alive(&mut never);

    says(&server, &json!([ann, "WebSocket-Expires: 1", "Set-Meta-Colour: red"]), &json!([403]));
    let mut ends = open(&server, "/never", "sid=2");
    expect_close(&mut ends, 1008, "expired");
    // Nobody's, so that nobody asks about it.
    says(&server, &json!(["Set-Meta-Colour: red"]), &json!([403]));
    let mut by_itself = open(&server, "/often", "sid=3");
    alive(&mut by_itself);

    says(&server, &json!([ann, "Set-Meta-Colour: red"]), &json!([500]));
    let mut impatient = open(&server, "/impatient", "sid=4");
    alive(&mut impatient);
    assert_eq!(recheck(&server), 1);
    server.expect_log("WS0351: a recheck failed");
    expect_close(&mut impatient, 1011, "the application does not answer");
    says(&server, &json!([]), &json!([403]));
    expect_close(&mut by_itself, 1008, "not authorized any more");
    never.close();
}

/// To the listener that is named for that, whichever way the client has come.
#[test]
fn the_listener_for_it_is_used() {
    let fpm = Fpm::start(1);
    let other = Port::reserve();
    let server = site(&fpm)
        .tls()
        .config(format!("WebSocketLoopback http://127.0.0.1:{}", other.number()))
        .config(format!(
            "Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>\n  SSLEngine Off\n  DocumentRoot \"{{root}}/htdocs\"\n  \
             CustomLog \"{{root}}/logs/other.log\" \"%U %{{HTTPS}}e\"\n</VirtualHost>",
            port = other.number()
        ))
        .start();
    says(&server, &json!(["WebSocket-User: ann"]), &json!([204]));
    let mut client = open(&server, "/impatient", "sid=1");
    alive(&mut client);
    assert_eq!(recheck(&server), 1);
    let log = || fs::read_to_string(server.path("logs/other.log")).unwrap_or_default();
    wait_until("it was asked there", PATIENCE, || log() == "/auth.php on\n");
    alive(&mut client);
    client.close();
}
