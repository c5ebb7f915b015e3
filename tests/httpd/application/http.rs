//! `WebSocketHandler http` in plain mode, with PHP in the ways in which httpd runs it: messages become requests, and answers messages.

use super::{LOGIN, login};
use crate::docs::{blocks, page};
use crate::harness::php::{Fpm, by_action, by_mod_php};
use crate::harness::publish::publish;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

every_mpm!(programs, over_tls);

/// An application that writes down what it hears, and does what messages say.
const APP: &str = r#"<?php
$said = fn($name) => $_SERVER['HTTP_' . $name] ?? '';
$event = $said('WEBSOCKET_EVENT');
$body = file_get_contents('php://input');
$line = [$said('CONNECTION_ID'), $said('WEBSOCKET_SEQUENCE'), $event, $said('WEBSOCKET_CLOSE'), $body];
file_put_contents(__DIR__ . '/../heard/log', implode('|', $line) . "\n", FILE_APPEND | LOCK_EX);
$wish = ['open' => urldecode($_GET['q'] ?? ''), 'recheck' => $said('META_RECHECK')][$event] ?? $body;
[$what, $how] = explode(' ', $wish, 2) + ['', ''];
switch ($what) {
case 'dump':
    header('Content-Type: application/json');
    echo json_encode($_SERVER + ['post' => $_POST]);
    break;
case 'fatal':
    echo 'half a page';
    http_response_code(500);
    undefined();
case 'status':
    http_response_code((int) $how);
    echo 'an error page';
    break;
case 'header':
    foreach (explode('&', $how) as $header) {
        header($header, false);
    }
    echo 'done';
    break;
case 'page':
    echo '<p>' . $how;
    break;
case 'much':
    echo str_repeat('x', (int) $how);
    break;
case 'binary':
    header('Content-Type: application/octet-stream');
    echo "\0\xff";
    break;
case 'nothing':
    http_response_code(204);
    break;
default:
    echo $event == 'message' ? "heard $body" : '';
}
"#;

/// The example of the docs as it stands there.
#[test]
fn the_example_of_the_docs() {
    let (fpm, page) = (Fpm::start(2), page("docs/handlers/http.md"));
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .file("htdocs/chat.php", &blocks(&page, "php")[0])
        .file("htdocs/login.php", LOGIN)
        .config(fpm.config())
        .config(&blocks(&page, "apache")[0])
        .config("WebSocketHttpMax 3")
        .start();
    assert_eq!(Raw::answer(&server, &Handshake::new("/chat")).status, 403);
    let mut client = Raw::connect(&server);
    client.ask(&Handshake::new("/chat").header("Cookie", &login(&server))).assert_accepted();
    assert_eq!(text(&mut client, "<b>"), "You said: &lt;b&gt;");
    client.close();
}

/// A site whose applications may write down what they hear.
pub(super) fn site(mpm: Mpm) -> Httpd {
    let httpd = Httpd::new(mpm)
        .file("heard/.keep", "")
        .file("htdocs/app.php", APP)
        .module("authz_host")
        .module("env")
        .config("WebSocketOriginCheck Off")
        // Less than half of the threads.
        .config(if mpm == Mpm::Prefork { "WebSocketHttpMax 1" } else { "WebSocketHttpMax 3" })
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>");
    fs::set_permissions(httpd.root().join("heard"), Permissions::from_mode(0o777)).expect("permissions");
    httpd
}

pub(super) fn location(name: &str, lines: &str) -> String {
    format!("<Location \"/{name}\">\n{lines}\n</Location>")
}

pub(super) const SOCKET: &str = "WebSocketHandler http \"/app.php?q=%{QUERY_STRING}\"";

/// What the application has heard, without the names of the sessions.
pub(super) fn heard(server: &Server) -> Vec<String> {
    let log = fs::read_to_string(server.path("heard/log")).unwrap_or_default();
    log.lines().map(|line| line.split_once('|').map_or(line, |(_, rest)| rest).to_owned()).collect()
}

/// Waits until it has heard this last, and forgets it.
#[track_caller]
pub(super) fn hears(server: &Server, expected: &[&str]) {
    wait_until(&format!("it heard {expected:?}"), PATIENCE, || heard(server).len() >= expected.len());
    assert_eq!(heard(server), expected);
    fs::remove_file(server.path("heard/log")).expect("what it has heard");
}

#[track_caller]
pub(super) fn text(client: &mut Raw, say: &str) -> String {
    client.send(&Frame::text(say));
    let frame = client.frame();
    assert_eq!(frame.opcode, Frame::TEXT, "{frame:?}");
    String::from_utf8(frame.payload).expect("text")
}

pub(super) fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Whatever runs the application: it hears all that happens, once, and its answers are done.
#[track_caller]
fn converses(server: &Server) {
    // The opening.
    let mut client = Raw::connect(server);
    let refused = client.ask(&Handshake::new(&format!("/chat?{}", encode("status 403"))));
    assert_eq!((refused.status, refused.text().as_str()), (403, "an error page"));
    let wish = "header Set-Cookie: a=1&X-Said: yes&Set-Meta-User: ann&Sec-WebSocket-Protocol: chat";
    let handshake = Handshake::new(&format!("/chat?{}", encode(wish)))
        .header("Sec-WebSocket-Protocol", "other, chat")
        .header("Cookie", "session=7")
        .header("Meta-User", "admin")
        .header("Connection-Id", "forged");
    let accepted = client.ask(&handshake);
    accepted.assert_accepted();
    assert_eq!(accepted.all("Set-Cookie"), ["a=1"]);
    assert_eq!((accepted.header("X-Said"), accepted.header("Sec-WebSocket-Protocol")), (Some("yes"), Some("chat")));
    assert_eq!((accepted.header("Set-Meta-User"), accepted.header("Content-Type")), (None, None));
    client.expect(&Frame::text("done"));

    // Messages.
    assert_eq!(text(&mut client, "héllo"), "heard héllo");
    assert_eq!(text(&mut client, "a=b&c=d"), "heard a=b&c=d");
    client.send(&Frame::text("nothing"));
    client.send(&Frame::text("binary"));
    client.expect(&Frame::binary(*b"\x00\xff"));
    client.send(&Frame::binary(*b"dump "));
    let dump: Value = serde_json::from_slice(&client.frame().payload).expect("JSON");
    for (name, value) in [
        ("REQUEST_METHOD", "POST"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_COOKIE", "session=7"),
        ("HTTP_META_USER", "ann"),
        ("HTTP_WEBSOCKET_EVENT", "message"),
        ("HTTP_WEBSOCKET_SEQUENCE", "6"),
        ("CONTENT_TYPE", "application/octet-stream"),
        ("WEBSOCKET_TRUSTED", "1"),
        ("SCRIPT_NAME", "/app.php"),
    ] {
        assert_eq!(dump[name], value, "{name} in {dump}");
    }
    for name in ["HTTP_WEBSOCKET_TOKEN", "HTTP_WEBSOCKET_CLIENT", "HTTP_UPGRADE", "HTTP_TRANSFER_ENCODING"] {
        assert!(dump.get(name).is_none(), "{name} in {dump}");
    }
    let id = dump["HTTP_CONNECTION_ID"].as_str().expect("the session's name");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(dump["post"], Value::Array(vec![]));

    // Channels.
    assert_eq!(text(&mut client, "header WebSocket-Channel: room"), "done");
    assert_eq!(publish(server, "room", "published").1, 1);
    client.expect(&Frame::text("published"));
    assert_eq!(text(&mut client, "header WebSocket-Channel: none"), "done");
    assert_eq!(publish(server, "room", "unheard").1, 0);

    // The end: the client's.
    client.send(&Frame::close(4001, "bye"));
    client.expect(&Frame::close(4001, "bye"));
    client.expect_end();
    let open = "1|open||";
    hears(
        server,
        &[
            open,
            open,
            "2|message||héllo",
            "3|message||a=b&c=d",
            "4|message||nothing",
            "5|message||binary",
            "6|message||dump ",
            "7|message||header WebSocket-Channel: room",
            "8|message||header WebSocket-Channel: none",
            "9|close|4001 bye|",
        ],
    );
    // Nobody's.
    let client = Raw::open(server, "/chat");
    client.reset();
    hears(server, &["1|open||", "2|disconnect||"]);
    // The application's.
    let mut client = Raw::open(server, "/chat");
    assert_eq!(text(&mut client, "header WebSocket-Close: 4002 enough"), "done");
    client.expect(&Frame::close(4002, "enough"));
    client.send(&Frame::close(4002, "enough"));
    client.expect_end();
    hears(server, &["1|open||", "2|message||header WebSocket-Close: 4002 enough", "3|close|4002 enough|"]);
}

/// An error is no message, whoever makes the page for it.
#[track_caller]
fn fails(server: &Server) {
    for (say, code, log) in [
        ("fatal", 1011, Some("WS0330")),
        ("status 500", 1011, Some("WS0330")),
        ("status 418", 1011, Some("WS0330")),
        ("status 403", 1008, None),
        ("status 302", 1008, None),
        ("header WebSocket-Colour: red", 1011, Some("WS0330")),
        ("much 1048577", 1011, Some("WS0328")),
    ] {
        if let Some(id) = log {
            server.expect_log(id);
        }
        let mut client = Raw::open(server, "/chat").about(say);
        client.send(&Frame::text(say));
        assert_eq!(client.close_code(), Some(code), "{say}");
        drop(client);
        hears(server, &["1|open||", &format!("2|message||{say}"), "3|disconnect||"]);
    }
}

/// What is no acceptance opens nothing; a page of the application is the client's only where it refuses.
#[track_caller]
fn opens_nothing(server: &Server) {
    server.expect_log("WS0062");
    server.expect_log("WS0064");
    server.tolerate_log("AH01075");
    for (say, status, page) in [
        ("status 500", 500, "an error page"),
        ("status 410", 410, "an error page"),
        ("header WebSocket-Allow: room/*", 502, ""),
        ("header WebSocket-Rights: publish", 502, ""),
        ("header WebSocket-Colour: red", 502, ""),
        ("header WebSocket-Channel: no name", 502, ""),
        ("header Sec-WebSocket-Protocol: chat", 500, ""),
        ("much 1048577", 502, ""),
    ] {
        let answer = Raw::answer(server, &Handshake::new(&format!("/chat?{}", encode(say))));
        assert_eq!(answer.status, status, "{say}: {answer:?}");
        assert!(answer.text().contains(page) && !answer.text().contains("done"), "{say}: {answer:?}");
        assert_eq!(answer.header("Sec-WebSocket-Accept"), None, "{say}");
    }
    fs::remove_file(server.path("heard/log")).expect("what it has heard");
}

#[test]
fn fpm() {
    let fpm = Fpm::start(2);
    let server = Fpm::modules(site(Mpm::Event)).config(fpm.config()).config(location("chat", SOCKET)).start();
    converses(&server);
    server.tolerate_log("PHP");
    server.tolerate_log("AH01071");
    fails(&server);
    opens_nothing(&server);
}

/// php-cgi.
fn programs(mpm: Mpm) {
    converses(&by_action(site(mpm)).config(location("chat", SOCKET)).start());
}

#[test]
fn mod_php() {
    let Some(httpd) = by_mod_php(site(Mpm::Prefork)) else { return };
    converses(&httpd.config(location("chat", SOCKET)).start());
}

/// The engine comes back by TLS, to the certificate that the client has seen; whoever has the bytes of the socket.
fn over_tls(mpm: Mpm) {
    let fpm = Fpm::start(2);
    for httpd in [site(mpm).tls(), site(mpm).tls().relayed()] {
        let server = Fpm::modules(httpd).config(fpm.config()).config(location("chat", SOCKET)).start();
        let mut client = Raw::open(&server, "/chat");
        let dump: Value = serde_json::from_str(&text(&mut client, "dump ")).expect("JSON");
        assert_eq!((&dump["HTTPS"], &dump["WEBSOCKET_TRUSTED"]), (&"on".into(), &"1".into()), "{dump}");
        client.send(&Frame::close(1000, ""));
        client.expect(&Frame::close(1000, ""));
        client.expect_end();
        hears(&server, &["1|open||", "2|message||dump ", "3|close|1000|"]);
    }
}

/// Sockets are many, and workers few.
#[test]
fn no_worker_is_held() {
    let fpm = Fpm::start(2);
    let httpd = Fpm::modules(site(Mpm::Event)).config(fpm.config()).config("WebSocketHttpMax 2");
    let server = httpd.config(location("chat", SOCKET)).start();
    let mut clients: Vec<_> = (0..20).map(|_| Raw::open(&server, "/chat")).collect();
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    for client in &mut clients {
        client.send(&Frame::text("x"));
    }
    for client in &mut clients {
        client.expect(&Frame::text("heard x"));
    }
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    drop(clients);
    wait_until("all ends are told", PATIENCE, || heard(&server).len() == 60);
}

/// The engine has sockets and what they have said; httpd's children come and go.
#[test]
fn a_graceful_restart_is_nothing() {
    let fpm = Fpm::start(2);
    let server = Fpm::modules(site(Mpm::Event)).config(fpm.config()).config(location("chat", SOCKET)).start();
    let (mut stays, mut goes) = (Raw::open(&server, "/chat"), Raw::open(&server, "/chat"));
    assert_eq!(text(&mut stays, "1"), "heard 1");
    server.graceful();
    assert_eq!(text(&mut stays, "2"), "heard 2");
    goes.send(&Frame::close(1000, ""));
    goes.expect(&Frame::close(1000, ""));
    hears(&server, &["1|open||", "1|open||", "2|message||1", "3|message||2", "2|close|1000|"]);
    stays.send(&Frame::close(1000, ""));
    stays.expect(&Frame::close(1000, ""));
    hears(&server, &["4|close|1000|"]);
}

/// Another listener than the one that clients use; and only for whom the application lets in.
#[test]
fn the_engine_asks_where_it_is_told_to() {
    let fpm = Fpm::start(2);
    let other = crate::harness::port::Port::reserve();
    let server = Fpm::modules(site(Mpm::Event).tls())
        .config(fpm.config())
        .config(location("chat", SOCKET))
        .config(format!("WebSocketLoopback http://127.0.0.1:{}", other.number()))
        .config("<Files \"app.php\">\n  Require env WEBSOCKET_TRUSTED\n</Files>")
        .config(format!(
            "Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>\n  SSLEngine Off\n  DocumentRoot \"{{root}}/htdocs\"\n\
             </VirtualHost>",
            port = other.number()
        ))
        .start();
    let mut client = Raw::open(&server, "/chat");
    let dump: Value = serde_json::from_str(&text(&mut client, "dump ")).expect("JSON");
    assert_eq!((&dump["HTTPS"], &dump["REQUEST_SCHEME"]), (&"on".into(), &"http".into()), "{dump}");
    // Whoever asks by itself is not believed.
    server.expect_log("AH01630");
    let forged = Handshake::page("/app.php").header("WebSocket-Event", "message").header("WebSocket-Token", "x");
    assert_eq!(Raw::answer(&server, &forged).status, 403);
    client.close();
}

#[test]
fn htaccess_files_name_this_server_alone() {
    let fpm = Fpm::start(2);
    let foreign = "WebSocketHandler http http://127.0.0.1:1/\n";
    let server = Fpm::modules(site(Mpm::Event))
        .config(fpm.config())
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>")
        .file("htdocs/shared/.htaccess", "WebSocketHandler http /app.php\n")
        .file("htdocs/shared/socket", "")
        .file("htdocs/foreign/.htaccess", foreign)
        .file("htdocs/foreign/socket", "")
        .start();
    let mut client = Raw::open(&server, "/shared/socket");
    assert_eq!(text(&mut client, "x"), "heard x");
    // Where no prefix keeps them apart from others, it has no channels.
    assert_eq!(text(&mut client, "header WebSocket-Channel: room"), "done");
    assert_eq!(publish(&server, "room", "unheard").1, 0);
    client.close();
    server.expect_log("no .htaccess file may do");
    assert_eq!(Raw::answer(&server, &Handshake::new("/foreign/socket")).status, 500);
}

#[test]
fn what_is_configured_wrongly_is_said() {
    for (line, why) in [
        ("WebSocketHandler http", "http takes one URL"),
        ("WebSocketHandler http app.php", "begins with one /"),
        ("WebSocketHandler http ftp://localhost/", "http://localhost:3000/ws"),
        ("WebSocketHandler http /a/../b", "begins with one /"),
        ("WebSocketHttpMode grip", "expected plain or events, got \"grip\""),
        ("WebSocketHttpMax 0", "expected a number from 1 to 10000, got \"0\""),
        ("WebSocketLoopback http://localhost:80", "expected the address and port"),
        ("WebSocketLoopback https://127.0.0.1:443", "expected the address and port"),
    ] {
        let output = Httpd::new(Mpm::Event).config(line).check();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(why), "{line}: {text}");
    }
}
