//! Where the directives may stand, and how those of nested sections add up. Independent of the MPM.

use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server};

fn httpd() -> Httpd {
    Httpd::new(Mpm::Event)
}

fn status(server: &Server, path: &str) -> u16 {
    Raw::answer(server, &Handshake::new(path)).status
}

/// The subprotocol that the server picks at `path` out of `offer`.
fn protocol(server: &Server, path: &str, offer: &str) -> Option<String> {
    let response = Raw::answer(server, &Handshake::new(path).header("Sec-WebSocket-Protocol", offer));
    response.assert_accepted();
    response.header("Sec-WebSocket-Protocol").map(str::to_owned)
}

/// Whether a message of this size comes back, instead of Close 1009.
fn takes(server: &Server, path: &str, size: usize) -> bool {
    let mut client = Raw::open(server, path);
    let message = Frame::binary(vec![b'x'; size]);
    client.send(&message);
    let answer = client.frame();
    if answer.opcode == Frame::CLOSE {
        assert_eq!(answer.close_code(), Some(1009), "{path}");
        return false;
    }
    assert!(answer == message, "{path}");
    client.close();
    true
}

#[test]
fn the_whole_server() {
    let server = httpd().config("WebSocketHandler echo").start();
    assert_eq!(status(&server, "/"), 101);
    assert_eq!(status(&server, "/anything/at/all"), 101);
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    assert_eq!(Raw::page(&server, "/anything").status, 404);
}

#[test]
fn a_virtual_host_inherits_from_the_server() {
    let server = httpd()
        .config(
            "WebSocketHandler echo\nWebSocketMaxMessageSize 100\nWebSocketProtocols main\n\
             <VirtualHost *:{port}>\n  ServerName one.example\n  WebSocketProtocols one\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName two.example\n  WebSocketHandler Off\n</VirtualHost>",
        )
        .start();
    let at = |host| Handshake::new("/x").with("Host", host).header("Sec-WebSocket-Protocol", "main, one");
    let one = Raw::answer(&server, &at("one.example"));
    one.assert_accepted();
    assert_eq!(one.header("Sec-WebSocket-Protocol"), Some("one"));
    assert_eq!(Raw::answer(&server, &at("two.example")).status, 404);
    let mut client = Raw::open_with(&server, &at("one.example"));
    client.send(&Frame::binary(vec![0; 101]));
    client.expect_failure(1009);
}

#[test]
fn directories_and_files() {
    let server = httpd()
        .file("htdocs/rooms/one", "a file")
        .file("htdocs/rooms/two", "a file")
        .config(
            "<Directory \"{root}/htdocs/rooms\">\n  WebSocketHandler echo\n</Directory>\n\
             <Files \"two\">\n  WebSocketMaxMessageSize 10\n</Files>",
        )
        .start();
    assert_eq!(status(&server, "/index.html"), 200);
    assert!(takes(&server, "/rooms/one", 11));
    assert!(!takes(&server, "/rooms/two", 11));
    assert!(takes(&server, "/rooms/two", 10));
    assert_eq!(Raw::page(&server, "/rooms/two").text(), "a file");
}

#[test]
fn conditions() {
    let server = httpd()
        .config(
            "<If \"%{QUERY_STRING} == 'talk'\">\n  WebSocketHandler echo\n</If>\n\
             <Location \"/echo\">\n  WebSocketHandler echo\n  \
             <If \"%{HTTP:X-Small} == 'yes'\">\n    WebSocketMaxMessageSize 10\n  </If>\n  \
             <If \"%{HTTP:X-Off} == 'yes'\">\n    WebSocketHandler Off\n  </If>\n</Location>",
        )
        .start();
    assert_eq!(status(&server, "/x?talk"), 101);
    assert_eq!(status(&server, "/x?walk"), 404);
    assert!(takes(&server, "/echo", 11));
    let mut small = Raw::open_with(&server, &Handshake::new("/echo").header("X-Small", "yes"));
    small.send(&Frame::binary(vec![0; 11]));
    small.expect_failure(1009);
    assert_eq!(Raw::answer(&server, &Handshake::new("/echo").header("X-Off", "yes")).status, 404);
}

#[test]
fn htaccess() {
    let directives = "WebSocketHandler echo\nWebSocketProtocols inner\nWebSocketMaxMessageSize 10\n\
                      WebSocketOriginCheck Trusted\nWebSocketTrustedOrigin http://friend.example\n";
    let server = httpd()
        .file("htdocs/open/.htaccess", directives)
        .file("htdocs/open/below/.htaccess", "WebSocketMaxMessageSize 5\n")
        .file("htdocs/open/more/.htaccess", "WebSocketMaxMessageSize 20\n")
        .file("htdocs/ignored/.htaccess", directives)
        .file("htdocs/forbidden/.htaccess", directives)
        .file("htdocs/global/.htaccess", "WebSocketEngineThreads 1\n")
        .file("htdocs/broken/.htaccess", "WebSocketMaxMessageSize -1\n")
        .config(
            "<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>\n\
             <Directory \"{root}/htdocs/ignored\">\n  AllowOverride None\n</Directory>\n\
             <Directory \"{root}/htdocs/forbidden\">\n  AllowOverride FileInfo\n</Directory>",
        )
        .start();
    assert_eq!(protocol(&server, "/open/x", "inner").as_deref(), Some("inner"));
    assert!(takes(&server, "/open/x", 10));
    assert!(!takes(&server, "/open/x", 11));
    assert!(takes(&server, "/open/below/x", 5));
    assert!(!takes(&server, "/open/below/x", 6));
    // Of several such files the smallest counts.
    assert!(takes(&server, "/open/more/x", 10));
    assert!(!takes(&server, "/open/more/x", 11));
    assert_eq!(protocol(&server, "/open/below/x", "inner").as_deref(), Some("inner"));
    server.expect_log("WS0021");
    let from = |origin| Raw::answer(&server, &Handshake::new("/open/x").header("Origin", origin)).status;
    assert_eq!(from("http://friend.example"), 101);
    assert_eq!(from("http://other.example"), 403);
    assert_eq!(status(&server, "/ignored/x"), 404);
    // What .htaccess may not say is an error of the page and a line in the log, not of the server.
    server.expect_log("/htdocs/forbidden/.htaccess: WebSocketHandler not allowed here");
    assert_eq!(status(&server, "/forbidden/x"), 500);
    server.expect_log("/htdocs/global/.htaccess: WebSocketEngineThreads not allowed here");
    assert_eq!(status(&server, "/global/x"), 500);
    server.expect_log("/htdocs/broken/.htaccess: WebSocketMaxMessageSize");
    assert_eq!(status(&server, "/broken/x"), 500);
    assert_eq!(status(&server, "/open/x"), 101);
}

#[test]
fn nested_sections_keep_what_they_do_not_set() {
    let server = httpd()
        .config(
            "<Location \"/a\">\n  WebSocketHandler echo\n  WebSocketProtocols outer\n  WebSocketMaxMessageSize 100\n  \
             WebSocketOriginCheck Trusted\n  WebSocketTrustedOrigin http://friend.example\n</Location>\n\
             <Location \"/a/protocols\">\n  WebSocketProtocols inner other\n</Location>\n\
             <Location \"/a/size\">\n  WebSocketMaxMessageSize 10\n</Location>\n\
             <Location \"/a/size/more\">\n  WebSocketMaxMessageSize 200\n</Location>\n\
             <Location \"/a/any\">\n  WebSocketOriginCheck Off\n</Location>\n\
             <Location \"/a/off\">\n  WebSocketHandler Off\n</Location>\n\
             <Location \"/a/off/on\">\n  WebSocketHandler echo\n</Location>",
        )
        .start();
    assert_eq!(protocol(&server, "/a", "inner, outer").as_deref(), Some("outer"));
    assert_eq!(protocol(&server, "/a/protocols", "outer, inner").as_deref(), Some("inner"));
    assert_eq!(protocol(&server, "/a/size", "outer").as_deref(), Some("outer"));
    assert!(takes(&server, "/a", 100));
    assert!(!takes(&server, "/a", 101));
    assert!(!takes(&server, "/a/protocols", 101));
    assert!(!takes(&server, "/a/size", 11));
    assert!(takes(&server, "/a/size/more", 200));
    assert_eq!(status(&server, "/a/off"), 404);
    assert_eq!(protocol(&server, "/a/off/on", "outer").as_deref(), Some("outer"));
    server.expect_log("WS0021");
    let from = |path, origin| Raw::answer(&server, &Handshake::new(path).header("Origin", origin)).status;
    assert_eq!(from("/a/size", "http://friend.example"), 101);
    assert_eq!(from("/a/size", "http://other.example"), 403);
    assert_eq!(from("/a/any", "http://other.example"), 101);
}

#[test]
fn engine_threads() {
    let engine_threads = |number: usize| {
        let server = httpd().echo().config(format!("WebSocketEngineThreads {number}")).start();
        let mut clients: Vec<Raw> = (0..2 * number).map(|_| Raw::open(&server, "/echo")).collect();
        for client in &mut clients {
            client.echo(&Frame::text("hello"));
        }
        server.engine().threads()
    };
    // Beside the engine threads there is the main thread.
    assert_eq!(engine_threads(5) - engine_threads(1), 4);
}
