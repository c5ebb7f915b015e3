//! `WebSocketHttpMode events`: applications that speak `application/websocket-events`, in PHP as php-grip does, and in Django with
//! django-grip, and what they may say that nobody should.

use super::http::{heard, hears, location, site};
use super::rights::send;
use crate::harness::php::Fpm;
use crate::harness::port::Port;
use crate::harness::publish::{json, publish};
use crate::harness::python::python;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

every_mpm!(php);

/// The wire of php-grip: it finds events where Accept says so, since Content-Type does not reach it; and it writes lengths in
/// capital letters. Messages say what else it is to do.
const GRIP: &str = r#"<?php
$said = fn($name) => $_SERVER['HTTP_' . $name] ?? '';
$body = file_get_contents('php://input');
$line = [$said('CONNECTION_ID'), $said('WEBSOCKET_SEQUENCE'), addcslashes($body, "\r\n|\0..\37\177..\377"), $said('CONTENT_BYTES_REPLAYED')];
file_put_contents(__DIR__ . '/../heard/log', implode('|', $line) . "\n", FILE_APPEND | LOCK_EX);
if ($said('ACCEPT') != 'application/websocket-events' || !$said('CONNECTION_ID')) {
    http_response_code(400);
    exit('no events');
}
$out = '';
$put = function ($type, $content = null) use (&$out) {
    $out .= $content === null ? "$type\r\n" : sprintf("%s %X\r\n%s\r\n", $type, strlen($content), $content);
};
$control = fn($message) => $put('TEXT', 'c:' . json_encode($message));
header('Content-Type: application/websocket-events');
for ($rest = $body; $rest != '';) {
    [$line, $rest] = explode("\r\n", $rest, 2);
    [$type, $length] = explode(' ', $line) + [1 => null];
    $content = null;
    if ($length !== null) {
        $content = substr($rest, 0, hexdec($length));
        $rest = substr($rest, hexdec($length) + 2);
    }
    switch ($type) {
    case 'OPEN':
        $how = urldecode($_GET['q'] ?? '');
        if ($how == 'refuse') { http_response_code(403); header('Content-Type: text/plain'); exit('not you'); }
        if ($how == 'login') { header('Location: /login'); http_response_code(302); exit; }
        if ($how == 'html') { header('Content-Type: text/html'); exit('<b>Notice</b>: late'); }
        if ($how == 'fatal') { undefined(); }
        if ($how == 'empty') { exit; }
        if ($how == 'never') { header('Keep-Alive-Interval: 3600'); exit; }
        if ($how == 'late' && !$said('META_ASKED')) { header('Keep-Alive-Interval: 1'); header('Set-Meta-Asked: yes'); exit; }
        if ($how == 'broken') { exit("OPEN\r\nTEXT 9\r\nshort\r\n"); }
        if ($how == 'message') { exit("TEXT 1\r\nx\r\n"); }
        if ($how == 'created') { http_response_code(201); exit("OPEN\r\n"); }
        if ($how == 'protocol') { header('Sec-WebSocket-Protocol: never-offered'); }
        if ($how == 'allow') { header('WebSocket-Allow: room/*'); }
        if ($how == 'rights') { header('WebSocket-Rights: publish'); }
        if ($how == 'channel') { header('WebSocket-Channel: no name'); }
        if ($how == 'much') { exit(str_repeat('x', 1 << 21)); }
        if ($how == 'user') { header('WebSocket-User: ann'); }
        if ($how == 'charset') { header('Content-Type: application/websocket-events; charset=utf-8'); }
        header('Sec-WebSocket-Extensions: grip; message-prefix="m:"');
        header('Set-Cookie: a=1');
        header('Set-Meta-User: ann');
        $put('OPEN');
        if ($how == 'future') { $put('FUTURE', 'x'); }
        $control(['type' => 'subscribe', 'channel' => 'room']);
        $put('TEXT', 'm:welcome');
        $put('TEXT', 'dropped');
        break;
    case 'TEXT':
        [$what, $how] = explode(' ', $content, 2) + ['', ''];
        if ($what == 'raw') { exit(stripcslashes($how)); }
        if ($what == 'status') { http_response_code((int) $how); exit('an error page'); }
        if ($what == 'control') { $put('TEXT', "c:$how"); break; }
        $put('TEXT', 'm:' . $said('META_USER') . ' ' . $content);
        break;
    case 'BINARY':
        $put('BINARY', "m:$content");
        break;
    }
}
echo $out;
"#;

fn events(mpm: Mpm, fpm: &Fpm) -> Server {
    let lines = "WebSocketHandler http \"/grip.php?q=%{QUERY_STRING}\"\nWebSocketHttpMode events\nWebSocketRecheck 300";
    Fpm::modules(site(mpm)).config(fpm.config()).file("htdocs/grip.php", GRIP).config(location("grip", lines)).start()
}

fn php(mpm: Mpm) {
    let fpm = Fpm::start(2);
    let server = events(mpm, &fpm);
    let mut client = Raw::connect(&server);
    let accepted = client.ask(&Handshake::new("/grip"));
    accepted.assert_accepted();
    assert_eq!(accepted.all("Set-Cookie"), ["a=1"]);
    for name in ["Set-Meta-User", "Sec-WebSocket-Extensions", "Content-Type", "Content-Length"] {
        assert_eq!(accepted.header(name), None, "{name}");
    }
    client.expect(&Frame::text("welcome"));
    assert_eq!(publish(&server, "room", "published").1, 1);
    client.expect(&Frame::text("published"));
    client.send(&Frame::text("héllo"));
    client.expect(&Frame::text("ann héllo"));
    client.send(&Frame::binary(*b"\x00\xff"));
    client.expect(&Frame::binary(*b"\x00\xff"));
    // A Ping of the client is httpd's; one of the application is the client's.
    client.send(&Frame::ping("?"));
    client.expect(&Frame::pong("?"));
    client.send(&Frame::text(r"raw PING 1\r\n!\r\nTEXT 3\r\nm:x\r\n"));
    client.expect(&Frame::ping("!"));
    client.expect(&Frame::text("x"));
    client.send(&Frame::text(r#"control {"type":"unsubscribe","channel":"room"}"#));
    client.send(&Frame::text("done"));
    client.expect(&Frame::text("ann done"));
    assert_eq!(publish(&server, "room", "unheard").1, 0);
    client.send(&Frame::text(r#"control {"type":"keep-alive","content":"beat","timeout":1}"#));
    client.expect(&Frame::text("beat"));
    client.expect(&Frame::text("beat"));
    client.send(&Frame::close(4001, "bye"));
    client.expect(&Frame::close(4001, "bye"));
    client.expect_end();
    wait_until("it heard the end", PATIENCE, || heard(&server).last().is_some_and(|line| line.contains("CLOSE")));
    let heard = heard(&server);
    assert_eq!(heard[0], r"1|OPEN\r\n|");
    assert!(heard.last().is_some_and(|line| line.contains(r"CLOSE 5\r\n") && line.contains("bye")), "{heard:?}");
    assert_eq!(heard.iter().filter(|line| line.contains("CLOSE") || line.contains("DISCONNECT")).count(), 1);
}

/// Each answer to a handshake has its meaning; what is none is the application's fault, and opens nothing.
#[test]
fn openings() {
    let fpm = Fpm::start(2);
    let server = events(Mpm::Event, &fpm);
    for line in ["AH01071", "AH01075", "PHP"] {
        server.tolerate_log(line);
    }
    server.expect_log("WS0062");
    server.expect_log("WS0064");
    for (how, status, body) in [
        ("refuse", 403, Some("not you")),
        ("login", 302, None),
        ("html", 502, None),
        ("fatal", 500, None),
        ("empty", 502, None),
        ("never", 504, None),
        ("broken", 502, None),
        ("message", 502, None),
        ("created", 502, None),
        ("protocol", 500, None),
        ("channel", 502, None),
        ("allow", 502, None),
        ("rights", 502, None),
        ("much", 502, None),
    ] {
        let answer = Raw::answer(&server, &Handshake::new(&format!("/grip?{how}")));
        assert_eq!(answer.status, status, "{how}: {answer:?}");
        if let Some(body) = body {
            assert_eq!(answer.text(), body, "{how}");
        }
        assert!(!answer.text().contains("Notice") && !answer.text().contains("OPEN"), "{how}: {answer:?}");
    }
    fs::remove_file(server.path("heard/log")).expect("what it has heard");
    let mut client = Raw::open(&server, "/grip?late");
    client.expect(&Frame::text("welcome"));
    client.send(&Frame::text("x"));
    client.expect(&Frame::text("ann x"));
    client.reset();
    hears(&server, &[r"1|OPEN\r\n|", r"2|OPEN\r\n|", r"3|TEXT 1\r\nx\r\n|", r"4|DISCONNECT\r\n|"]);
    for how in ["charset", "future"] {
        let mut client = Raw::open(&server, &format!("/grip?{how}")).about(how);
        client.expect(&Frame::text("welcome"));
        client.close();
    }
}

#[test]
fn answers_that_are_none() {
    let fpm = Fpm::start(2);
    let server = events(Mpm::Event, &fpm);
    for (say, code, told) in [
        (r"raw CLOSE d\r\n\x10\x01again later\r\n", Some(4097), Some("CLOSE")),
        (r"raw CLOSE 2\r\n\0\0\r\n", Some(1000), Some("CLOSE")),
        (r"raw DISCONNECT\r\n", None, None),
        (r"raw TEXT 9\r\nshort\r\n", Some(1011), Some("DISCONNECT")),
        (r"raw <b>Notice</b>", Some(1011), Some("DISCONNECT")),
        (r"raw OPEN\r\n", Some(1011), Some("DISCONNECT")),
        ("status 500", Some(1011), Some("DISCONNECT")),
        ("status 403", Some(1011), Some("DISCONNECT")),
    ] {
        if code == Some(1011) {
            server.expect_log("WS0330");
        }
        let mut client = Raw::open(&server, "/grip").about(say);
        client.expect(&Frame::text("welcome"));
        client.send(&Frame::text(say));
        match client.frame_or_end() {
            Some(frame) => assert_eq!((frame.opcode, frame.close_code()), (Frame::CLOSE, code), "{say}"),
            None => assert_eq!(code, None, "{say}"),
        }
        drop(client);
        let count = 2 + usize::from(told.is_some());
        wait_until("it heard the end", PATIENCE, || heard(&server).len() >= count);
        let all = heard(&server);
        assert_eq!(
            all.iter().filter(|line| line.contains("CLOSE") && !line.contains("raw")).count()
                + all.iter().filter(|line| line.contains("DISCONNECT") && !line.contains("raw")).count(),
            count - 2,
            "{all:?}"
        );
        let lines: Vec<&str> = all.iter().map(String::as_str).collect();
        hears(&server, &lines);
    }
}

/// What Django and httpd both know.
const KEY: &str = "a key that nobody can guess";

/// As `Keep-Alive-Interval` has it: without an event, and what it says then is done.
#[test]
fn it_is_asked_again() {
    let fpm = Fpm::start(2);
    let server = events(Mpm::Event, &fpm);
    let mut client = Raw::open(&server, "/grip?user");
    client.expect(&Frame::text("welcome"));
    let response = send(&server, "POST", "user=ann&action=recheck");
    assert_eq!(json(&response)["sockets"], 1, "{}", response.text());
    hears(&server, &[r"1|OPEN\r\n|", "2||"]);
    client.send(&Frame::text("x"));
    client.expect(&Frame::text("ann x"));
    client.close();
}

/// A Django of a test's own.
struct Django {
    process: Child,
    port: Port,
}

impl Django {
    fn start() -> Self {
        let port = Port::reserve();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/application/grip.py");
        let mut command = Command::new(python());
        command.arg(script).arg(port.number().to_string()).arg(KEY).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().expect("a Python with Django and django-grip");
        let address = ("127.0.0.1", port.number());
        let django = Self { process, port };
        wait_until("Django listens", PATIENCE, || TcpStream::connect(address).is_ok());
        django
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        self.process.kill().expect("Django is our child");
        self.process.wait().expect("Django is our child");
    }
}

/// A real application, which the engine asks by itself; and one that httpd proxies.
#[test]
fn django_grip() {
    let django = Django::start();
    let port = django.port.number();
    let lines = |url: &str| format!("WebSocketHandler http \"{url}\"\nWebSocketHttpMode events");
    let server = Httpd::new(Mpm::Event)
        .module("proxy")
        .module("proxy_http")
        .config("WebSocketOriginCheck Off")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
        .config("WebSocketHttpMax 3")
        .config(format!("ProxyPass \"/app\" \"http://127.0.0.1:{port}\""))
        .config(location("elsewhere", &lines(&format!("http://127.0.0.1:{port}/echo"))))
        .config(location("refused", &lines(&format!("http://127.0.0.1:{port}/echo?q=refuse"))))
        .config(location("nobody", &lines("http://127.0.0.1:1/echo")))
        .config(location("signed", &lines(&format!("http://127.0.0.1:{port}/signed"))))
        .config(format!("<VirtualHost *>\nServerName signing.example\nWebSocketGripKey \"{KEY}\"\n</VirtualHost>"))
        .config("<VirtualHost *>\nServerName silent.example\n</VirtualHost>")
        .config(location("proxied", &lines("/app/echo?q=%{QUERY_STRING}")))
        .start();
    for path in ["/elsewhere", "/proxied"] {
        let mut client = Raw::open(&server, path).about(path);
        client.expect(&Frame::text("welcome"));
        client.send(&Frame::text("héllo"));
        client.expect(&Frame::text("ann: héllo"));
        client.send(&Frame::binary(*b"\x00\xff"));
        client.expect(&Frame::binary(*b"\x00\xff"));
        assert_eq!(publish(&server, "room", "published").1, 1);
        client.expect(&Frame::text("published"));
        client.send(&Frame::text("leave"));
        client.expect(&Frame::text("ann: leave"));
        assert_eq!(publish(&server, "room", "unheard").1, 0);
        client.send(&Frame::text("bye"));
        assert_eq!(client.close_code(), Some(4002));
        drop(client);

        // It has said whose the socket is.
        let mut client = Raw::open(&server, path).about(path);
        client.expect(&Frame::text("welcome"));
        assert_eq!(json(&send(&server, "DELETE", "user=ann&code=4401"))["sockets"], 1, "{path}");
        assert_eq!(client.close_code(), Some(4401));
    }
    let answer = Raw::answer(&server, &Handshake::new("/proxied?refuse"));
    assert_eq!((answer.status, answer.text().as_str()), (403, "not you\n"));
    let answer = Raw::answer(&server, &Handshake::new("/refused"));
    assert_eq!((answer.status, answer.text().as_str()), (403, "not you\n"));
    // It demands that each request is signed.
    let mut client = Raw::open_with(&server, &Handshake::new("/signed").with("Host", "signing.example"));
    client.expect(&Frame::text("welcome"));
    client.send(&Frame::text("héllo"));
    client.expect(&Frame::text("ann: héllo"));
    client.close();
    let unsigned = Raw::answer(&server, &Handshake::new("/signed").with("Host", "silent.example"));
    assert_eq!((unsigned.status, unsigned.text().as_str()), (403, "not signed\n"));
    assert!(!server.error_log().contains(KEY));
    server.expect_log("WS0007");
    assert_eq!(Raw::answer(&server, &Handshake::new("/nobody")).status, 502);
}
