//! An application decides for whatever runs the session, also for servers that httpd proxies.

use super::{APP, saying};
use crate::handlers::plugin::journal;
use crate::harness::php::Fpm;
use crate::harness::plugin::rules;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw};
use std::io::Write;
use std::net::TcpListener;
use std::thread;

/// A TCP server that says hello.
fn greeter() -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let one = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"hello").expect("sent");
    });
    (port, one)
}

#[test]
fn every_handler() {
    let fpm = Fpm::start(2);
    let behind = Httpd::new(Mpm::Event).echo().start();
    let (port, greeted) = greeter();
    let place = |name: &str, what: &str| {
        format!("<Location \"/{name}\">\n{what}\nWebSocketAuthorize /app.php?q=%{{QUERY_STRING}}\n</Location>\n")
    };
    let proxied = format!("http://{}/echo", behind.address());
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .module("proxy_http")
        .module("rewrite")
        .file("htdocs/app.php", APP)
        .file("htdocs/by-rule/index.html", "")
        .program("cat", "#!/bin/sh\nexec cat\n")
        .config(fpm.config())
        .config(place("echo", "WebSocketHandler echo"))
        .config(place("channel", "WebSocketHandler channel lobby"))
        .config(place("exec", "WebSocketHandler exec \"{root}/cat\""))
        .config(place("tcp", &format!("WebSocketHandler tcp localhost:{port}")))
        .config(place("proxied", &format!("ProxyPass \"{proxied}\" upgrade=websocket")))
        .config(format!(
            "<Directory \"{{root}}/htdocs/by-rule\">\nRewriteEngine On\nRewriteCond %{{HTTP:Upgrade}} websocket [NC]\n\
             RewriteRule ^ ws://{}/echo [P]\n</Directory>",
            behind.address()
        ))
        .module("proxy_wstunnel")
        .config(place("by-rule", ""))
        .start();
    server.tolerate_log("WS0064");
    for name in ["echo", "channel", "exec", "tcp", "proxied", "by-rule/"] {
        let refused = |query: &str| Raw::answer(&server, &Handshake::new(&format!("/{name}?{query}")));
        let lines = saying(&["Retry-After: 7"]);
        for status in [401, 403, 404, 503] {
            let answer = refused(&format!("status={status}&{lines}&body=no"));
            assert_eq!((answer.status, answer.text().as_str()), (status, "no"), "{name}");
            assert_eq!(answer.header("Retry-After"), Some("7"), "{name}");
        }
        // Half a handshake is none, whoever would have gone on with it; and the page of another site has not been asked for.
        let half = Handshake::new(&format!("/{name}?x")).without("Sec-WebSocket-Key");
        assert_eq!(Raw::answer(&server, &half).status, 400, "{name}");
        let foreign = Handshake::new(&format!("/{name}?x")).header("Origin", "http://evil.example");
        assert_eq!(Raw::answer(&server, &foreign).status, 403, "{name}");

        let mut client = Raw::connect(&server);
        client.ask(&Handshake::new(&format!("/{name}?x"))).assert_accepted();
        match name {
            "echo" | "proxied" | "by-rule/" => client.echo(&Frame::text("said")),
            "exec" => {
                client.send(&Frame::text("said"));
                client.expect(&Frame::text("said"));
            }
            "tcp" => client.expect(&Frame::binary("hello")),
            _ => {}
        }
    }
    server.expect_log("WS0021");
    greeted.join().expect("the server behind tcp");
    // A page at a proxied URL is nobody's to ask about.
    assert_ne!(Raw::page(&server, "/proxied?status=403").text(), "no");
}

/// Of handshakes that others judge after it: plugins, and handlers in Python, which write the 101 themselves.
#[test]
fn plugins_and_python() {
    let fpm = Fpm::start(2);
    let authorize = "WebSocketAuthorize /app.php?q=%{QUERY_STRING}";
    let plugin = rules().display();
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .file("htdocs/app.php", APP)
        .python_handlers()
        .config(fpm.config())
        .config(format!("<Location \"/rules\">\nWebSocketHandler \"{plugin}\" rules_init\n{authorize}\n</Location>"))
        .config(format!(
            "<LocationMatch \"^/(user|echo)$\">\nWebSocketHandler pywebsocket handlers\n{authorize}\n</LocationMatch>"
        ))
        .start();
    server.tolerate_log("handlers/broken_wsh.py: ");
    server.expect_log("WS0064");
    for path in ["/rules", "/user"] {
        for status in [401, 403, 503] {
            let query = format!("{path}?status={status}&{}&body=no", saying(&["Retry-After: 7"]));
            let answer = Raw::answer(&server, &Handshake::new(&query));
            assert_eq!((answer.status, answer.text().as_str()), (status, "no"), "{path}");
            assert_eq!(answer.header("Retry-After"), Some("7"), "{path}");
        }
    }
    // A plugin is not asked about what was refused.
    assert!(!journal(&server).iter().any(|line| line.starts_with("connect ")), "{:?}", journal(&server));
    let ask = |client: &mut Raw, path: &str, lines: &[&str]| {
        let handshake = Handshake::new(&format!("{path}?{}", saying(lines))).header("X-Echo", "said");
        client.ask(&handshake.header("Sec-WebSocket-Protocol", "other, chat"))
    };
    let lines = ["WebSocket-User: ann", "Set-Cookie: a=1", "Sec-WebSocket-Protocol: chat"];
    let mut client = Raw::connect(&server);
    let accepted = ask(&mut client, "/rules", &lines);
    accepted.assert_accepted();
    assert_eq!((accepted.all("Set-Cookie"), accepted.header("X-From-Plugin")), (vec!["a=1"], Some("said")));
    assert_eq!((accepted.header("Sec-WebSocket-Protocol"), accepted.header("WebSocket-User")), (Some("chat"), None));
    client.send(&Frame::text("request"));
    let told = client.frame();
    assert!(told.payload.ends_with(b" 127.0.0.1"), "{told:?}");
    client.close();

    // The handler has the user; the subprotocol is its own.
    let mut client = Raw::connect(&server);
    let accepted = client.ask(&Handshake::new(&format!("/user?{}", saying(&lines[..2]))));
    accepted.assert_accepted();
    assert_eq!((accepted.header("Set-Cookie"), accepted.header("WebSocket-User")), (Some("a=1"), None));
    let known = client.frame();
    assert!(known.payload.starts_with(b"ann /user?"), "{known:?}");
    let mut client = Raw::connect(&server);
    ask(&mut client, "/echo", &lines[..1]).assert_accepted();
    client.echo(&Frame::text("hello"));
    client.close();
    server.expect_log("WS0062");
    assert_eq!(ask(&mut Raw::connect(&server), "/echo", &lines).status, 500);
}
