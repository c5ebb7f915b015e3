//! An application decides for whatever runs the session, also for servers that httpd proxies.

use super::{APP, saying};
use crate::harness::php::Fpm;
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
