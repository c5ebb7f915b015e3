//! `WebSocketAuthorize`, and all that httpd can run: the application sees the URL that it was asked by and the client who asks, and
//! neither an upgrade nor what a client must not say.

use super::{APP, LOGIN, dumped, encode, login, saying};
use crate::docs::{blocks, page};
use crate::harness::channel::{offering, open, said};
use crate::harness::php::{Fpm, by_action, by_mod_php};
use crate::harness::{Handshake, Httpd, Mpm, Raw, Server, every_mpm};
use serde_json::json;

every_mpm!(programs);

/// A client with all that it may say, and all that it may not.
fn talkative(path: &str) -> Handshake {
    Handshake::new(path)
        .header("Cookie", "session=1")
        .header("Origin", "http://127.0.0.1")
        .header("Sec-WebSocket-Protocol", "chat")
        .header("Sec-WebSocket-Extensions", "permessage-deflate")
        .header("If-None-Match", "*")
        .header("Range", "bytes=0-1")
        .header("Accept-Encoding", "gzip")
        .header("Meta-User", "admin")
        .header("Meta_User", "admin")
        .header("Connection-Id", "1")
        .header("WebSocket-Event", "message")
        .header("Grip-Sig", "x")
        .header("X-Any", "any")
}

const SITE: &str = "WebSocketOriginCheck Off\n";

/// What any application is to see, whoever runs it.
#[track_caller]
fn sees(server: &Server, socket: &str, url: &str, script: &str) {
    let query = "dump=1&status=403";
    let seen = dumped(server, &talkative(&format!("{socket}?{query}")));
    let encoded: String =
        query.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { encode(&c.to_string()) }).collect();
    let expected = json!({
        "REQUEST_URI": format!("{url}?q={encoded}"),
        "QUERY_STRING": format!("q={encoded}"),
        "SCRIPT_NAME": script,
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_COOKIE": "session=1",
        "HTTP_ORIGIN": "http://127.0.0.1",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "chat",
        "HTTP_X_ANY": "any",
        "HTTP_WEBSOCKET_EVENT": "authorize",
        "WEBSOCKET_TRUSTED": "1",
        "input": "",
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&seen[name], value, "{name} in {seen}");
    }
    for name in [
        "HTTP_UPGRADE",
        "HTTP_CONNECTION",
        "HTTP_SEC_WEBSOCKET_KEY",
        "HTTP_SEC_WEBSOCKET_VERSION",
        "HTTP_SEC_WEBSOCKET_EXTENSIONS",
        "HTTP_IF_NONE_MATCH",
        "HTTP_RANGE",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_META_USER",
        "HTTP_GRIP_SIG",
        "HTTP_WEBSOCKET_TOKEN",
        "CONTENT_LENGTH",
    ] {
        assert!(seen.get(name).is_none() || seen[name] == "", "{name} in {seen}");
    }
    let id = seen["HTTP_CONNECTION_ID"].as_str().expect("the session's name");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

/// And what becomes of its answers.
#[track_caller]
fn decides(server: &Server, socket: &str) {
    let lines =
        ["Set-Cookie: a=1", "Set-Cookie: b=2", "X-Said: yes", "Sec-WebSocket-Protocol: chat", "WebSocket-User: ann"];
    let handshake = Handshake::new(&format!("{socket}?{}&body=ignored", saying(&lines)));
    let mut client = Raw::connect(server);
    let answer = client.ask(&handshake.header("Sec-WebSocket-Protocol", "other, chat"));
    answer.assert_accepted();
    assert_eq!(answer.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!((answer.header("X-Said"), answer.header("Sec-WebSocket-Protocol")), (Some("yes"), Some("chat")));
    for name in ["WebSocket-User", "Content-Type", "Content-Length", "X-Powered-By"].iter().take(3) {
        assert_eq!(answer.header(name), None, "{name}");
    }
    client.echo(&crate::harness::Frame::text("hello"));
    client.close();

    let lines = ["WWW-Authenticate: Bearer", "Retry-After: 7", "Set-Cookie: a=1", "WebSocket-User: ann"];
    let refusal = format!("{socket}?status=401&{}&body={}", saying(&lines), encode("<p>Who are you?</p>"));
    let mut client = Raw::connect(server);
    // The connection goes on.
    for _ in 0..2 {
        let answer = client.ask(&Handshake::new(&refusal));
        assert_eq!((answer.status, answer.text().as_str()), (401, "<p>Who are you?</p>"), "{answer:?}");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        assert_eq!(answer.all("Set-Cookie"), ["a=1"]);
        assert_eq!((answer.header("Retry-After"), answer.header("WebSocket-User")), (Some("7"), None));
        assert!(answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")), "{answer:?}");
    }
    let login = format!("{socket}?{}", saying(&["Location: /login"]));
    let answer = client.ask(&Handshake::new(&login));
    assert_eq!((answer.status, answer.header("Location")), (302, Some("/login")), "{answer:?}");
    let bare = client.ask(&Handshake::new(&format!("{socket}?status=403")));
    assert_eq!((bare.status, bare.text().as_str()), (403, ""));
}

/// An echo at /`name`, of which `url` decides.
fn socket(name: &str, url: &str) -> String {
    format!(
        "<Location \"/{name}\">\n  WebSocketHandler echo\n  WebSocketAuthorize \"{url}?q=%{{QUERY_STRING}}\"\n</Location>\n"
    )
}

/// PHP-FPM; and behind the two kinds of front controllers, which Debian's PHP applications have.
#[test]
fn fpm() {
    let fpm = Fpm::start(2);
    let rewrite = "RewriteEngine On\nRewriteCond %{REQUEST_FILENAME} !-f\nRewriteRule ^ index.php [L]\n";
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .module("rewrite")
        .module("dir")
        .file("htdocs/app.php", APP)
        .file("htdocs/rewritten/index.php", APP)
        .file("htdocs/fallback/index.php", APP)
        .config(SITE)
        .config(fpm.config())
        .config(format!("<Directory \"{{root}}/htdocs/rewritten\">\n{rewrite}</Directory>"))
        .config("<Directory \"{root}/htdocs/fallback\">\nFallbackResource /fallback/index.php\n</Directory>")
        .config(
            socket("echo", "/app.php")
                + &socket("info", "/app.php/more")
                + &socket("rewritten-echo", "/rewritten/auth"),
        )
        .config(socket("fallback-echo", "/fallback/auth/x"))
        .start();
    for (socket, url, script) in [
        ("/echo", "/app.php", "/app.php"),
        ("/info", "/app.php/more", "/app.php"),
        ("/rewritten-echo", "/rewritten/auth", "/rewritten/index.php"),
        ("/fallback-echo", "/fallback/auth/x", "/fallback/index.php"),
    ] {
        sees(&server, socket, url, script);
        decides(&server, socket);
    }
}

/// The examples of the docs and of the README as they stand there, with a login of the site's own.
#[test]
fn a_login_of_php() {
    let fpm = Fpm::start(2);
    for name in ["docs/application/authorize.md", "README.md"] {
        let page = page(name);
        let is_asked = |block: &String| block.contains("WebSocketAuthorize /auth.php");
        let server = Fpm::modules(Httpd::new(Mpm::Event))
            .file("htdocs/auth.php", &blocks(&page, "php")[0])
            .file("htdocs/login.php", LOGIN)
            .config(fpm.config())
            .config(blocks(&page, "apache").into_iter().find(is_asked).expect("its configuration"))
            .start();
        let cookie = login(&server);
        assert_eq!(Raw::answer(&server, &Handshake::new("/chat")).status, 403, "{name}");
        let (mut client, answer) = open(&server, &offering("/chat", "channels.v1").header("Cookie", &cookie));
        assert_eq!(answer.header("WebSocket-User"), None);
        for channel in ["news", "user/zo\u{eb}"] {
            assert_eq!(said(&mut client)["channel"], channel, "{name}");
        }
        client.close();
    }
}

/// php-cgi.
fn programs(mpm: Mpm) {
    let httpd = by_action(Httpd::new(mpm)).file("htdocs/app.php", APP);
    let server = httpd.config(SITE).config(socket("echo", "/app.php")).start();
    sees(&server, "/echo", "/app.php", "/app.php");
    decides(&server, "/echo");
}

#[test]
fn mod_php() {
    let Some(httpd) = by_mod_php(Httpd::new(Mpm::Prefork)) else { return };
    let server = httpd.file("htdocs/app.php", APP).config(SITE).config(socket("echo", "/app.php")).start();
    sees(&server, "/echo", "/app.php", "/app.php");
    decides(&server, "/echo");
}

/// An application behind `ProxyPass`, which has an upgrade=websocket as well: it is asked a question, and upgrades nothing.
#[test]
fn a_proxied_application() {
    let fpm = Fpm::start(2);
    let behind =
        Fpm::modules(Httpd::new(Mpm::Event)).file("htdocs/app.php", APP).config(fpm.config()).without_module().start();
    let server = Httpd::new(Mpm::Event)
        .module("proxy")
        .module("proxy_http")
        .config(SITE)
        .config(format!("ProxyPass \"/app\" \"http://{}/app.php\" upgrade=websocket", behind.address()))
        .config(socket("echo", "/app"))
        .start();
    let query = "dump=1&status=403";
    let seen = dumped(&server, &talkative(&format!("/echo?{query}")));
    for (name, value) in [
        ("HTTP_COOKIE", "session=1"),
        ("HTTP_X_ANY", "any"),
        ("HTTP_WEBSOCKET_EVENT", "authorize"),
        ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
        ("REQUEST_METHOD", "GET"),
    ] {
        assert_eq!(seen[name], value, "{name} in {seen}");
    }
    for name in ["HTTP_UPGRADE", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_META_USER", "HTTP_GRIP_SIG", "HTTP_WEBSOCKET_TOKEN"] {
        assert!(seen.get(name).is_none(), "{name} in {seen}");
    }
    decides(&server, "/echo");
}
