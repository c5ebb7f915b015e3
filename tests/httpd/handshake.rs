//! The opening handshake: what is accepted, what is refused and how, and what is none of the module's business.

use crate::harness::handshake::SAMPLE_KEY;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm};

every_mpm!(accepted, refused, declined, subprotocols, origins, refusal_keeps_the_connection_usable);

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
    ];
    for (what, handshake) in variations {
        let mut client = Raw::connect(&server);
        let response = client.ask(&handshake);
        assert_eq!(response.status, 101, "{what}: {response:?}");
        response.assert_accepted();
        assert_eq!(response.header("Sec-WebSocket-Protocol"), None, "{what}: nothing was offered");
        assert!(!response.header("Sec-WebSocket-Extensions").is_some_and(|value| value.contains("unheard")), "{what}");
        client.echo(&Frame::text(what));
        client.close();
    }
}

fn refused(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let key = |key: &str| good().with("Sec-WebSocket-Key", key);
    let protocol = |list: &str| good().header("Sec-WebSocket-Protocol", list);
    let requests = [
        ("no key", good().without("Sec-WebSocket-Key")),
        ("an empty key", key("")),
        ("a key of 15 bytes", key("AAAAAAAAAAAAAAAAAAAA")),
        ("a key of 17 bytes", key("AAAAAAAAAAAAAAAAAAAAAAA=")),
        ("a key that is not base64", key("dGhlIHNhbXBsZSBub25j*Q==")),
        ("two keys", good().header("Sec-WebSocket-Key", SAMPLE_KEY)),
        ("POST", good().method("POST").header("Content-Length", "0")),
        ("HEAD", good().method("HEAD")),
        ("an empty subprotocol list", protocol("")),
        ("a list of nothing", protocol(" , ")),
        ("a subprotocol that is no token", protocol("chat, super/chat")),
        ("a space in a subprotocol", protocol("super chat")),
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

/// A request that is no WebSocket upgrade is httpd's: nothing of ours is there, or a page that shares the URL.
fn declined(mpm: Mpm) {
    let shared = "<Location \"/both.html\">\n  SetHandler websocket-handler\n  WebSocketHandler echo\n</Location>\n\
                  <Location \"/page.html\">\n  WebSocketHandler echo\n</Location>";
    let httpd = Httpd::new(mpm).echo().file("htdocs/page.html", "a page").config(shared);
    let server = httpd.start();
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
    assert_eq!(chosen("/ours", &[]), None);
    assert_eq!(chosen("/any", &["third, first"]).as_deref(), Some("third"));
    assert_eq!(chosen("/any", &[]), None);
    assert_eq!(chosen("/echo", &["first"]), None);
}

fn origins(mpm: Mpm) {
    let config = "<Location \"/off\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Off\n</Location>\n\
                  <Location \"/same\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Same\n</Location>\n\
                  <Location \"/trusted\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Trusted\n  \
                  WebSocketTrustedOrigin https://www.example.com http://localhost:8080\n</Location>";
    let server = Httpd::new(mpm).echo().config(config).start();
    let status = |path: &str, origin: &str| Raw::answer(&server, &Handshake::new(path).header("Origin", origin)).status;
    let own = server.http_url("");
    let foreign =
        ["null", "http://evil.example", "http://127.0.0.1", &own.replace("http:", "https:"), "http://127.0.0.1:1"];
    for path in ["/echo", "/same"] {
        assert_eq!(status(path, &own), 101, "{path}");
        for origin in foreign {
            assert_eq!(status(path, origin), 403, "{origin} at {path}");
        }
        assert_eq!(status(path, &format!("{own}.evil.example")), 403);
    }
    for origin in foreign.into_iter().chain([own.as_str()]) {
        assert_eq!(status("/off", origin), 101, "{origin}");
        assert_eq!(status("/trusted", origin), 403, "{origin}");
    }
    for origin in ["https://www.example.com", "http://localhost:8080"] {
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
