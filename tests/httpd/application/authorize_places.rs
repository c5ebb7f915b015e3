//! Where `WebSocketAuthorize` may stand, which handlers it decides for, and that it needs no second worker.

use super::{APP, dumped, saying};
use crate::harness::channel::{offering, said};
use crate::harness::php::Fpm;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, every_mpm};
use serde_json::json;
use std::sync::Barrier;
use std::thread;

every_mpm!(all_workers_at_once);

/// As many handshakes as there are workers, each of which waits for its application: a request over the network would find nobody
/// to take it.
fn all_workers_at_once(mpm: Mpm) {
    const WORKERS: usize = 8;
    let server = Httpd::new(mpm)
        .workers(WORKERS)
        .cgi()
        .program(
            "cgi-bin/slow",
            "#!/bin/sh\nsleep 0.2\nprintf 'WebSocket-User: sh\\r\\nContent-Type: text/plain\\r\\n\\r\\nyes'\n",
        )
        .config("<Location \"/echo\">\nWebSocketHandler echo\nWebSocketAuthorize /cgi-bin/slow\n</Location>")
        .start();
    server.tolerate_log("AH00484: server reached MaxRequestWorkers");
    server.tolerate_log("AH00161: server reached MaxRequestWorkers");
    let begin = Barrier::new(WORKERS);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut client = Raw::connect(&server);
                begin.wait();
                client.ask(&Handshake::new("/echo")).assert_accepted();
                client.echo(&Frame::text("hello"));
                client.close();
            });
        }
    });
}

/// Shared hosting: `AllowOverride AuthConfig` is enough, another server cannot be named, and channels need a prefix.
#[test]
fn htaccess() {
    let fpm = Fpm::start(1);
    let file = |url: &str| format!("WebSocketHandler channel lobby\nWebSocketAuthorize \"{url}\"\n");
    let good = "/app.php?q=%{QUERY_STRING}";
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .file("htdocs/app.php", APP)
        .file("htdocs/ann/.htaccess", file(good))
        .file("htdocs/echo/.htaccess", format!("WebSocketHandler echo\nWebSocketAuthorize {good}\n"))
        .file("htdocs/bare/.htaccess", format!("WebSocketAuthorize {good}\n"))
        .file("htdocs/foreign/.htaccess", file("http://127.0.0.1:1/app.php"))
        .file("htdocs/other/.htaccess", file("//other.example/app.php"))
        .config(fpm.config())
        .config("<Directory \"{root}/htdocs\">\nAllowOverride AuthConfig\n</Directory>")
        .config("<Directory \"{root}/htdocs/ann\">\nWebSocketChannelPrefix ann\n</Directory>")
        .config("<Directory \"{root}/htdocs/bare\">\nWebSocketHandler channel lobby\n</Directory>")
        .start();
    let status = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    assert_eq!(status("/echo/"), 101);
    assert_eq!(status("/echo/?status=403"), 403);
    let mut ann =
        Raw::open_with(&server, &offering(&format!("/ann/?{}", saying(&["WebSocket-Channel: mine"])), "channels.v1"));
    assert_eq!(said(&mut ann)["channel"], "mine");
    // The server's channels are not for such a file to give away; without a word of channels it may decide.
    assert_eq!(status("/bare/"), 101);
    assert_eq!(status(&format!("/bare/?{}", saying(&["WebSocket-Channel: mine"]))), 500);
    server.expect_log("WS0015");
    for place in ["/foreign/", "/other/"] {
        assert_eq!(status(place), 500, "{place}");
    }
    server.expect_log("expected a URL of this server that begins with one /");
}

/// Wherever it decides, it is not asked about what it is asked; and a socket's own URL is no application.
#[test]
fn the_question_asks_nobody() {
    let fpm = Fpm::start(1);
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .file("htdocs/app.php", APP)
        .config(fpm.config())
        .config("WebSocketAuthorize /app.php?q=%{QUERY_STRING}")
        .config("<Location \"/echo\">\nWebSocketHandler echo\n</Location>")
        .config("<Location \"/app.php\">\nWebSocketHandler echo\n</Location>")
        .config("<Location \"/itself\">\nWebSocketHandler echo\nWebSocketAuthorize /itself\n</Location>")
        .start();
    for (path, status) in [("/echo", 101), ("/echo?status=403", 403), ("/app.php", 101), ("/itself", 404)] {
        assert_eq!(Raw::answer(&server, &Handshake::new(path)).status, status, "{path}");
    }
    assert_eq!(Raw::page(&server, "/app.php?q=body%3Dpage").text(), "page");
}

/// Expressions are pieces of the URL, and no more than that.
#[test]
fn expressions_are_pieces() {
    let fpm = Fpm::start(1);
    let place = |name: &str, url: &str| {
        format!("<Location \"/{name}\">\nWebSocketHandler echo\nWebSocketAuthorize \"{url}\"\n</Location>\n")
    };
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .module("headers")
        .login()
        .file("htdocs/app.php", APP)
        .file("htdocs/app/x.php", APP)
        .config(fpm.config())
        .config(place("path", "/app/%{req:X-Piece}?q=status%3D403%26dump%3D1&r=%{req:X-Room}"))
        .config(place("user", "/app.php?q=status%3D403%26dump%3D1"))
        .config(
            "<Location \"/user\">\nAuthType Basic\nAuthName x\nAuthUserFile \"{root}/conf/users\"\nAuthBasicProvider file\n\
             Require valid-user\n</Location>\n<FilesMatch \"\\.php$\">\nCGIPassAuth On\n</FilesMatch>",
        )
        .start();
    let asks = |piece: &str, room: &str| Handshake::new("/path").header("X-Piece", piece).header("X-Room", room);
    let seen = dumped(&server, &asks("x.php", "a&q=b#/..%"));
    assert_eq!(seen["QUERY_STRING"], "q=status%3D403%26dump%3D1&r=a%26q%3Db%23%2F..%25");
    assert_eq!(dumped(&server, &asks("x.php", ""))["QUERY_STRING"], "q=status%3D403%26dump%3D1&r=");
    for (piece, status) in
        [("..", 400), (".", 400), ("", 403), ("../app.php", 400), ("%2e%2e", 404), ("x.php/..", 400), ("a/b", 404)]
    {
        assert_eq!(Raw::answer(&server, &asks(piece, "x")).status, status, "{piece}");
    }
    server.tolerate_log("WS0063");
    server.tolerate_log("Primary script unknown");
    server.tolerate_log("AH01071");

    // The user of a login is the application's, too; so is what he has said.
    let user = || Handshake::new("/user");
    assert_eq!(Raw::answer(&server, &user()).status, 401);
    let seen = dumped(&server, &user().header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU="));
    assert_eq!((&seen["REMOTE_USER"], &seen["AUTH_TYPE"]), (&json!("alice"), &json!("Basic")), "{seen}");
    assert_eq!(seen["PHP_AUTH_USER"], "alice");
}
