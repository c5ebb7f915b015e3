//! The opening handshake: what is accepted, what is refused and how, and what is none of the module's business.

use crate::harness::handshake::SAMPLE_KEY;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm};

every_mpm!(
    accepted,
    refused,
    declined,
    lost_on_the_way,
    upgrade_in_every_request,
    subprotocols,
    origins,
    origins_of_apps,
    refusal_keeps_the_connection_usable,
);

fn good() -> Handshake {
    Handshake::new("/echo")
}

fn accepted(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let variations = [
        ("as it is", good()),
        ("a token in another case", good().with("Upgrade", "WebSocket")),
        ("Firefox", good().with("Connection", "keep-alive, Upgrade")),
        ("case and spaces in Connection", good().with("Connection", "Keep-Alive ,\tUPGRADE")),
        ("Connection over two lines", good().with("Connection", "keep-alive").header("Connection", "upgrade")),
        ("names in another case", good().without("Upgrade").header("uPGRADE", "websocket")),
        ("a query", Handshake::new("/echo?room=5")),
        ("a path below the location", Handshake::new("/echo/below")),
        ("an unknown extension", good().header("Sec-WebSocket-Extensions", "x-unheard-of; level=11")),
        ("other headers", good().header("Cookie", "a=b").header("User-Agent", "test")),
        ("an empty body announced", good().header("Content-Length", "0")),
        ("an empty subprotocol list", good().header("Sec-WebSocket-Protocol", "")),
        ("a list of nothing", good().header("Sec-WebSocket-Protocol", " , ")),
        ("no token among the subprotocols", good().header("Sec-WebSocket-Protocol", "super/chat, super chat")),
        ("a whole URL", Handshake::new("http://example.com/echo?room=5").with("Host", "example.com")),
    ];
    for (what, handshake) in variations {
        let mut client = Raw::connect(&server);
        let response = client.ask(&handshake);
        assert_eq!(response.status, 101, "{what}: {response:?}");
        response.assert_accepted();
        assert_eq!(response.header("Sec-WebSocket-Protocol"), None, "{what}: nothing was offered that can be chosen");
        assert!(!response.header("Sec-WebSocket-Extensions").is_some_and(|value| value.contains("unheard")), "{what}");
        client.echo(&Frame::text(what));
        client.close();
    }
}

/// A client that wants subprotocols and gets none may end by itself: the log says what it wanted.
#[test]
fn no_subprotocol_in_common() {
    let server = Httpd::new(Mpm::Event)
        .config("<Location \"/chat\">\n  WebSocketHandler echo\n  WebSocketProtocols chat\n</Location>")
        .start();
    let offering = |list: &str| Handshake::new("/chat").header("Sec-WebSocket-Protocol", list);
    for (list, chosen, lines) in [
        ("chat", Some("chat"), 0),
        ("mqtt, chat", Some("chat"), 0),
        ("mqtt, mqttv3.1", None, 1),
        (&*"x".repeat(4000), None, 2),
    ] {
        let mut client = Raw::connect(&server);
        let answer = client.ask(&offering(list));
        answer.assert_accepted();
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), chosen, "{list}");
        client.echo(&Frame::text("open"));
        client.close();
        assert_eq!(server.error_log().matches("WS0050").count(), lines, "{list}");
    }
    let line = "WS0050: offered mqtt, mqttv3.1; none of them is in WebSocketProtocols here";
    assert!(server.error_log().contains(line), "{}", server.error_log());
    assert!(server.error_log().lines().filter(|line| line.contains("WS0050")).all(|line| line.len() < 400));
}

fn refused(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let key = |key: &str| good().with("Sec-WebSocket-Key", key);
    let requests = [
        ("no key", good().without("Sec-WebSocket-Key")),
        ("a key without padding", key("dGhlIHNhbXBsZSBub25jZQ")),
        ("an empty key", key("")),
        ("a key of 15 bytes", key("AAAAAAAAAAAAAAAAAAAA")),
        ("a key of 17 bytes", key("AAAAAAAAAAAAAAAAAAAAAAA=")),
        ("a key that is not base64", key("dGhlIHNhbXBsZSBub25j*Q==")),
        ("two keys", good().header("Sec-WebSocket-Key", SAMPLE_KEY)),
        ("POST", good().method("POST").header("Content-Length", "0")),
        ("HEAD", good().method("HEAD")),
    ];
    for (what, handshake) in requests {
        assert_eq!(Raw::answer(&server, &handshake).status, 400, "{what}");
    }
    let version = |version: &str| good().with("Sec-WebSocket-Version", version);
    let versions = [
        ("no version", good().without("Sec-WebSocket-Version")),
        ("version 0", version("0")),
        ("version 8", version("8")),
        ("version 14", version("14")),
        ("version 113", version("113")),
        ("version thirteen", version("thirteen")),
        ("version 13, 8", version("13, 8")),
        ("an empty version", version("")),
    ];
    for (what, handshake) in versions {
        let response = Raw::answer(&server, &handshake);
        assert_eq!(response.status, 400, "{what}");
        // RFC 6455 section 4.4: what we would have understood.
        assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"), "{what}");
    }
    // None of them harmed the server.
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("unharmed"));
    client.close();
}

#[test]
fn a_key_is_answered_as_it_was_sent() {
    let server = Httpd::new(Mpm::Event).echo().start();
    // RFC 6455 section 4.1's own example, of which the last digit has bits that belong to no byte.
    let response = Raw::answer(&server, &good().with("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC=="));
    assert_eq!(response.status, 101);
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some("OfS0wDaT5NoxF2gqm7Zj2YtetzM="));
}

/// A URL with a scheme of WebSockets in the request line is httpd's to refuse.
#[test]
fn whole_urls() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let at = |url: &str| Raw::answer(&server, &Handshake::new(url).with("Host", "example.com")).status;
    for (url, status) in [
        ("http://example.com/echo", 101),
        ("HTTP://example.com/echo", 101),
        ("http://example.com:81/echo?a=b", 101),
        ("http://example.com/other", 404),
        ("ws://example.com/echo", 400),
        ("wss://example.com/echo", 400),
    ] {
        assert_eq!(at(url), status, "{url}");
    }
}

/// A request that is no WebSocket upgrade is httpd's: nothing of ours is there, or a page that shares the URL.
fn declined(mpm: Mpm) {
    let shared = "<Location \"/both.html\">\n  SetHandler websocket-handler\n  WebSocketHandler echo\n</Location>\n\
                  <Location \"/page.html\">\n  WebSocketHandler echo\n</Location>";
    let httpd = Httpd::new(mpm).echo().file("htdocs/page.html", "a page").config(shared);
    let server = httpd.start();
    server.expect_log("WS0022");
    let requests = |path: &str| {
        let good = Handshake::new(path);
        [
            ("a plain request", Handshake::page(path)),
            ("no Upgrade", good.clone().without("Upgrade")),
            ("no Connection", good.clone().without("Connection")),
            ("Connection without Upgrade", good.clone().with("Connection", "keep-alive")),
            ("another Upgrade", good.clone().with("Upgrade", "tls/1.0")),
            ("a longer Upgrade", good.clone().with("Upgrade", "websockets")),
            ("HTTP/1.0", good.version("HTTP/1.0")),
        ]
    };
    for (what, request) in requests("/echo") {
        assert_eq!(Raw::answer(&server, &request).status, 404, "{what}");
    }
    for (what, request) in requests("/both.html") {
        assert_eq!(Raw::answer(&server, &request).status, 404, "{what}, with SetHandler");
    }
    for (what, request) in requests("/page.html") {
        let response = Raw::answer(&server, &request);
        assert_eq!((response.status, response.text().as_str()), (200, "a page"), "{what}, with a page there");
    }
    for path in ["/both.html", "/page.html"] {
        let mut client = Raw::open(&server, path);
        client.echo(&Frame::text(path));
        client.close();
    }
    // Outside of the locations an upgrade is ignored, as httpd ignores any it does not know.
    assert_eq!(Raw::answer(&server, &Handshake::new("/index.html")).status, 200);
    assert_eq!(Raw::answer(&server, &Handshake::new("/echoes")).status, 404);
}

/// What was a handshake when it was sent: left to the site, and said at a level that is shown, once a minute.
fn lost_on_the_way(mpm: Mpm) {
    let server =
        Httpd::new(mpm).echo().config("<Location \"/index.html\">\n  WebSocketHandler echo\n</Location>").start();
    for path in ["/echo", "/index.html"] {
        server.expect_log("WS0022");
        let status = if path == "/echo" { 404 } else { 200 };
        for _ in 0..10 {
            assert_eq!(Raw::answer(&server, &Handshake::new(path).without("Upgrade")).status, status, "{path}");
            assert_eq!(Raw::answer(&server, &Handshake::new(path).version("HTTP/1.0")).status, status, "{path}");
        }
        // What never was one is nothing to be told of.
        let nothing = Handshake::new(path).without("Upgrade").without("Sec-WebSocket-Key");
        assert_eq!(Raw::answer(&server, &nothing).status, status, "{path}");
    }
    let log = server.error_log();
    assert_eq!(log.matches("WS0022").count(), 2, "{log}");
    assert!(log.contains("it has no Upgrade header, but has a Sec-WebSocket-Key"), "{log}");
}

/// A recipe that writes Upgrade and Connection into every request that has none: pages are pages, and publishing goes on.
fn upgrade_in_every_request(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .module("headers")
        .module("authz_host")
        .echo()
        .config(
            "RequestHeader setifempty Upgrade websocket\nRequestHeader setifempty Connection Upgrade\n\
             <Location \"/index.html\">\n  WebSocketHandler echo\n</Location>\n\
             <Location \"/chat\">\n  WebSocketHandler channel room\n  SetHandler websocket-publish\n  Require local\n</Location>",
        )
        .start();
    let page = Raw::answer(&server, &Handshake::page("/index.html"));
    assert_eq!((page.status, page.text().as_str()), (200, "<p>A page of the site.</p>\n"));
    assert_eq!(Raw::answer(&server, &Handshake::page("/echo")).status, 404);
    for path in ["/index.html", "/echo", "/chat"] {
        let bare = Handshake::new(path).without("Upgrade").without("Connection");
        Raw::answer(&server, &bare).assert_accepted();
    }
    let publish = Handshake::page("/chat?channel=room").method("POST").header("Content-Length", "0");
    // 201 while the subscriber from before is still there.
    assert!(matches!(Raw::answer(&server, &publish).status, 201 | 202));
}

fn chosen(server: &Server, path: &str, offers: &[&str]) -> Option<String> {
    let handshake =
        offers.iter().fold(Handshake::new(path), |handshake, offer| handshake.header("Sec-WebSocket-Protocol", offer));
    let mut client = Raw::connect(server);
    let response = client.ask(&handshake);
    response.assert_accepted();
    let chosen = response.header("Sec-WebSocket-Protocol").map(str::to_owned);
    client.close();
    chosen
}

fn subprotocols(mpm: Mpm) {
    let config = "<Location \"/ours\">\n  WebSocketHandler echo\n  WebSocketProtocols second first\n</Location>\n\
                  <Location \"/any\">\n  WebSocketHandler echo\n  WebSocketProtocols *\n</Location>";
    let server = Httpd::new(mpm).echo().config(config).start();
    let chosen = |path: &str, offers: &[&str]| chosen(&server, path, offers);
    // In our order of preference, whatever the client's is.
    assert_eq!(chosen("/ours", &["first, second"]).as_deref(), Some("second"));
    assert_eq!(chosen("/ours", &["first"]).as_deref(), Some("first"));
    assert_eq!(chosen("/ours", &["other", "first"]).as_deref(), Some("first"));
    assert_eq!(chosen("/ours", &["other,third", "first , second"]).as_deref(), Some("second"));
    assert_eq!(chosen("/ours", &["other"]), None);
    // What cannot be chosen is passed over.
    assert_eq!(chosen("/ours", &["first, token/abc=="]).as_deref(), Some("first"));
    assert_eq!(chosen("/ours", &["bearer:eyJhbGciOiJIUzI1NiJ9.e30.x, first"]).as_deref(), Some("first"));
    assert_eq!(chosen("/ours", &["first, first", "first"]).as_deref(), Some("first"));
    assert_eq!(chosen("/any", &["token/abc==, third"]).as_deref(), Some("third"));
    assert_eq!(chosen("/ours", &[]), None);
    assert_eq!(chosen("/any", &["third, first"]).as_deref(), Some("third"));
    assert_eq!(chosen("/any", &[]), None);
    assert_eq!(chosen("/echo", &["first"]), None);
}

fn status(server: &Server, path: &str, host: &str, origin: &str) -> u16 {
    Raw::answer(server, &Handshake::new(path).with("Host", host).header("Origin", origin)).status
}

fn origins(mpm: Mpm) {
    let config = "<Location \"/off\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Off\n</Location>\n\
                  <Location \"/same\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Same\n</Location>\n\
                  <Location \"/trusted\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Trusted\n  \
                  WebSocketTrustedOrigin https://www.example.com http://localhost:8080\n</Location>";
    let server = Httpd::new(mpm).echo().config(config).start();
    server.expect_log("WS0021");
    let host = server.address().to_string();
    let status = |path: &str, origin: &str| status(&server, path, &host, origin);
    let own = server.http_url("");
    let foreign = [
        "null",
        "http://evil.example",
        "http://127.0.0.1",
        &own.replace("http:", "https:"),
        &own.replace("http:", "wss:"),
        &own.replace("://", "://me@"),
        &own.replace("://", "://me:secret@"),
        &format!("{own}, {own}"),
        "http://127.0.0.1:1",
    ];
    for path in ["/echo", "/same"] {
        // As browsers write it, and as Go, Python, Swift and C do: the URL of the socket, or a slash.
        let spellings =
            [own.clone(), own.replace("http:", "HTTP:"), format!("{own}/"), server.url(""), server.url("/echo?a=b")];
        for origin in spellings {
            assert_eq!(status(path, &origin), 101, "{origin} at {path}");
        }
        for origin in foreign {
            assert_eq!(status(path, origin), 403, "{origin} at {path}");
        }
        assert_eq!(status(path, &format!("{own}.evil.example")), 403);
    }
    for origin in foreign.into_iter().chain([own.as_str()]) {
        assert_eq!(status("/off", origin), 101, "{origin}");
        assert_eq!(status("/trusted", origin), 403, "{origin}");
    }
    for origin in ["https://www.example.com", "http://localhost:8080", "wss://WWW.example.com:443/"] {
        assert_eq!(status("/trusted", origin), 101, "{origin}");
        assert_eq!(status("/same", origin), 403, "{origin}");
    }
    assert_eq!(status("/trusted", "https://www.example.com.evil.example"), 403);
    // A client that is no browser sends none.
    for path in ["/echo", "/same", "/off", "/trusted"] {
        Raw::open(&server, path).close();
    }
    // The site has the name the client asked for.
    let by_name = Handshake::new("/same").with("Host", "www.example.com").header("Origin", "http://www.example.com");
    Raw::answer(&server, &by_name).assert_accepted();
}

/// What apps, extensions and pages of subdomains send, where the configuration admits it; in a location each, as those that
/// are written beside each other count together.
fn origins_of_apps(mpm: Mpm) {
    let cases = [
        ("file://", "file://", "file:///"),
        ("capacitor://localhost", "capacitor://localhost", "ionic://localhost"),
        ("ionic://localhost", "ionic://localhost", "capacitor://localhost"),
        ("app://.", "app://.", "app://x"),
        ("moz-extension://*", "moz-extension://0b2c", "chrome-extension://0b2c"),
        ("https://*.example.com", "https://a.example.com", "https://a.b.example.com"),
        ("HTTPS://WWW.Example.com:443", "https://www.example.com", "http://www.example.com"),
        ("http://localhost/", "http://localhost:80", "http://localhost:81"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", "https://b.example"),
        ("http://[::1]:8080", "http://[0:0::1]:8080", "http://[::1]"),
    ];
    let locations: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(number, (trusted, ..))| {
            format!(
                "<Location \"/{number}\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Trusted\n  \
                 WebSocketTrustedOrigin {trusted}\n</Location>"
            )
        })
        .collect();
    let server = Httpd::new(mpm).config(locations.join("\n")).start();
    server.expect_log("WS0021");
    for (number, (trusted, admitted, other)) in cases.iter().enumerate() {
        let path = format!("/{number}");
        assert_eq!(status(&server, &path, "www.example.com", admitted), 101, "{trusted}: {admitted}");
        assert_eq!(status(&server, &path, "www.example.com", other), 403, "{trusted}: {other}");
    }
}

/// Behind a proxy that ends the TLS: what the log says makes it work.
#[test]
fn tls_that_ends_in_front() {
    let server = Httpd::new(Mpm::Event)
        .echo()
        .config(
            "<VirtualHost 127.0.0.1:{port}>\n  ServerName other.example\n</VirtualHost>\n\
             <VirtualHost 127.0.0.1:{port}>\n  ServerName plain.example\n</VirtualHost>\n\
             <VirtualHost 127.0.0.1:{port}>\n  ServerName https://secure.example\n</VirtualHost>",
        )
        .start();
    server.expect_log("WS0021");
    assert_eq!(status(&server, "/echo", "secure.example", "https://secure.example"), 101);
    assert_eq!(status(&server, "/echo", "secure.example", "wss://secure.example:443/echo"), 101);
    assert_eq!(status(&server, "/echo", "secure.example", "http://secure.example"), 403);
    for _ in 0..8 {
        assert_eq!(status(&server, "/echo", "plain.example", "https://plain.example"), 403);
        assert_eq!(status(&server, "/echo", "other.example", "file://"), 403);
    }
    let log = server.error_log();
    let warnings = |text: &str| log.lines().filter(|line| line.contains("WS0021") && line.contains(text)).count();
    let advice = "scheme differs; where TLS ends in front of httpd, write \"ServerName https://plain.example\"";
    assert_eq!(warnings(advice), 1, "{log}");
    assert_eq!(log.matches("WS0006: refused with 403: The Origin \"https://plain.example\"").count(), 8, "{log}");
    assert_eq!(warnings("\"WebSocketTrustedOrigin file:// http://other.example\""), 1, "{log}");
}

/// Refused or declined, the connection is an ordinary one, and the next request on it is served.
fn refusal_keeps_the_connection_usable(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Raw::connect(&server);
    let answers: [Response; 2] = [client.ask(&Handshake::page("/echo")), client.ask(&Handshake::page("/index.html"))];
    assert_eq!(answers.map(|answer| answer.status), [404, 200]);
    client.ask(&good()).assert_accepted();
    client.echo(&Frame::text("at last"));
    client.close();
}
