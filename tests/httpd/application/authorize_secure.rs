//! `WebSocketAuthorize` where httpd has ended TLS, and in the streams of HTTP/2.

use super::{APP, dumped, saying};
use crate::harness::php::Fpm;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, with_http2};
use crate::tls::http2::Scenario;

with_http2!(streams);

const ECHO: &str =
    "<Location \"/echo\">\nWebSocketHandler echo\nWebSocketAuthorize /app.php?q=%{QUERY_STRING}\n</Location>";

#[test]
fn over_tls() {
    let fpm = Fpm::start(2);
    for httpd in Httpd::tls_both_ways(Mpm::Event) {
        let server = Fpm::modules(httpd)
            .file("htdocs/app.php", APP)
            .config(fpm.config())
            .config("SSLOptions +StdEnvVars")
            .config(ECHO)
            .start();
        let seen = dumped(&server, &Handshake::new("/echo?status=403&dump=1"));
        assert_eq!((&seen["HTTPS"], &seen["WEBSOCKET_TRUSTED"]), (&"on".into(), &"1".into()), "{seen}");
        assert!(seen["SSL_PROTOCOL"].as_str().is_some_and(|protocol| protocol.starts_with("TLSv1.")), "{seen}");
        // With all that a session keeps for rechecks.
        let lines = saying(&["WebSocket-User: ann", "WebSocket-Recheck: 86400", "Set-Meta-A: b", "X-Said: yes"]);
        let mut client = Raw::connect(&server);
        let answer = client.ask(&Handshake::new(&format!("/echo?{lines}")).header("Cookie", "secret=1"));
        answer.assert_accepted();
        assert_eq!(answer.header("X-Said"), Some("yes"));
        client.echo(&Frame::text("hello"));
        client.close();
        assert!(!server.error_log().contains("secret=1"));
    }
}

/// Streams are requests of their own, on threads of mod_http2.
fn streams(mpm: Mpm) {
    let fpm = Fpm::start(2);
    let server = Fpm::modules(Httpd::new(mpm).workers(20).http2())
        .file("htdocs/app.php", APP)
        .config(fpm.config())
        .config(ECHO)
        .config(crate::tls::http2::ROOM_FOR_MANY)
        .start();
    Scenario::start(&server, "messages").ends_well();
    assert!(server.error_log().contains("begins"));
}
