//! What other modules of httpd say in every answer is in the 101 as well, and can do it no harm: mod_headers, mod_session,
//! mod_usertrack. Filters that change bodies see nothing of it.

use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, with_http2};
use crate::tls::http2::Scenario;

every_mpm!(plain, tls, unprintable);
with_http2!(http2);

fn site(httpd: Httpd) -> Httpd {
    let modules = [
        "headers",
        "usertrack",
        "request",
        "session",
        "session_cookie",
        "filter",
        "deflate",
        "substitute",
        "include",
        "buffer",
        "expires",
    ];
    modules.into_iter().fold(httpd, Httpd::module).config(
        "Header set X-Early early early\nHeader set X-Unset early early\n\
         <Location \"/echo\">\n  WebSocketHandler echo\n  WebSocketProtocols chat\n  WebSocketCompression On\n  \
         Header set X-Set \"one two\"\n  Header always set Strict-Transport-Security \"max-age=1\"\n  \
         Header add Set-Cookie \"ROUTEID=.a; path=/\"\n  Header always add Set-Cookie \"second=2; path=/\"\n  \
         Header unset X-Unset\n  Header edit X-Early early late\n  \
         Header set X-Status 101 \"expr=%{REQUEST_STATUS} == 101\"\n  \
         Header set X-Other no \"expr=%{REQUEST_STATUS} == 200\"\n  \
         CookieTracking On\n  Session On\n  SessionCookieName session path=/\n  SessionMaxAge 60\n</Location>",
    )
}

/// What would break any answer that it reached.
const HARM: &str = "<Location \"/echo\">\n  Header set Upgrade h2c\n  Header always set Upgrade tls/1.0\n  \
                    Header unset Connection\n  Header always set Connection close\n  Header set Sec-WebSocket-Accept made-up\n  \
                    Header always set Sec-WebSocket-Protocol made-up\n  Header edit* Sec-WebSocket-Protocol chat made-up\n  \
                    Header append Sec-WebSocket-Extensions made-up\n  Header set Sec-WebSocket-Version 8\n  \
                    Header always set Content-Length 5\n  Header set Content-Encoding gzip\n  Header set Transfer-Encoding chunked\n  Header set Trailer X-Set\n  \
                    Header set Upgrade h2c early\n  Header always set Sec-WebSocket-Accept made-up early\n  \
                    SetOutputFilter INCLUDES;SUBSTITUTE;BUFFER;DEFLATE\n  Substitute s/e/E/\n  \
                    ExpiresActive On\n  ExpiresDefault A60\n</Location>";

#[track_caller]
fn check(server: &Server) {
    let mut client = Raw::connect(server);
    let handshake = Handshake::new("/echo")
        .header("Sec-WebSocket-Protocol", "chat")
        .header("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover")
        .header("Accept-Encoding", "gzip");
    let response = client.ask(&handshake);
    response.assert_accepted();
    assert_eq!(response.header("Sec-WebSocket-Protocol"), Some("chat"));
    assert!(response.header("Sec-WebSocket-Extensions").is_some_and(|value| value.starts_with("permessage-deflate")));
    for name in ["Sec-WebSocket-Version", "Trailer", "Content-Encoding", "Vary", "X-Unset", "X-Other"] {
        assert_eq!(response.all(name), [""; 0], "{response:?}");
    }
    assert_eq!(response.header("X-Set"), Some("one two"));
    assert_eq!(response.header("X-Early"), Some("late"));
    assert_eq!(response.header("X-Status"), Some("101"));
    assert_eq!(response.header("Strict-Transport-Security"), Some("max-age=1"));
    check_cookies(&response);
    client.echo(&Frame::text("see me unchanged"));
    client.close();
}

#[track_caller]
fn check_cookies(response: &Response) {
    let mut cookies = response.all("Set-Cookie");
    cookies.sort_unstable();
    assert_eq!(cookies.len(), 4, "{response:?}");
    for (cookie, start) in cookies.iter().zip(["Apache=", "ROUTEID=.a; path=/", "second=2; path=/", "session=expiry="])
    {
        assert!(cookie.starts_with(start), "{response:?}");
    }
}

fn plain(mpm: Mpm) {
    let server = site(Httpd::new(mpm)).start();
    check(&server);
    // A refusal goes httpd's own way, and says each thing once.
    let refused = Raw::answer(&server, &Handshake::new("/echo").without("Sec-WebSocket-Version"));
    assert_eq!((refused.status, refused.header("Strict-Transport-Security")), (400, Some("max-age=1")));
    check(&site(Httpd::new(mpm)).config(HARM).start());
}

fn tls(mpm: Mpm) {
    for httpd in Httpd::tls_both_ways(mpm) {
        check(&site(httpd).config(HARM).start());
    }
}

/// A value with a control character is left out, and the others are there.
fn unprintable(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .module("headers")
        .module("rewrite")
        .echo()
        .config(
            "RewriteEngine On\nRewriteRule \"^/echo/(.*)$\" \"-\" [E=PART:$1]\n\
             <Location \"/echo\">\n  Header set X-Part %{PART}e\n  Header set X-Other other\n</Location>",
        )
        .start();
    let part = |path: &str| {
        let response = Raw::answer(&server, &Handshake::new(path));
        response.assert_accepted();
        assert_eq!(response.header("X-Other"), Some("other"));
        assert_eq!(response.header("X-Injected"), None);
        response.header("X-Part").map(str::to_owned)
    };
    assert_eq!(part("/echo/kitchen").as_deref(), Some("kitchen"));
    server.expect_log("WS0023: the header \"X-Part\" is left out");
    for _ in 0..2 {
        assert_eq!(part("/echo/a%01b"), None);
    }
    // Line breaks are blanks for mod_headers.
    assert_eq!(part("/echo/a%0d%0aX-Injected:%20b").as_deref(), Some("a  X-Injected: b"));
    assert_eq!(server.error_log().matches("WS0023").count(), 1);
}

/// On a stream of HTTP/2 it is a 200, and each cookie has a line of its own there too.
fn http2(mpm: Mpm) {
    let server = site(Httpd::new(mpm).workers(20).http2()).config(HARM).start();
    Scenario::start(&server, "response_headers").ends_well();
}
