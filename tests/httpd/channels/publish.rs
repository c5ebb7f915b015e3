//! Who may publish, and in which ways a message comes over HTTP. What becomes of it is in `subscriptions`.

use crate::harness::channel::{Meta, parts};
use crate::harness::publish::{json, post, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, tls, wait_until};
use rustls::version;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

every_mpm!(only_this_machine, bodies, connections_go_on);

const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
/// An address of documentation (RFC 5737): not this machine's.
const ELSEWHERE: &str = "198.51.100.7";

/// A server that takes a client's word for where it is.
fn httpd(mpm: Mpm) -> Httpd {
    Httpd::new(mpm).login().module("authz_host").module("setenvif").module("remoteip").config("RemoteIPHeader X-Client")
}

fn guarded(mpm: Mpm) -> Httpd {
    httpd(mpm).config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
}

/// A POST without a body to the location, from elsewhere.
fn from_elsewhere(path: &str) -> Handshake {
    Handshake::page(&format!("{path}?channel=a"))
        .method("POST")
        .version("HTTP/1.0")
        .header("Content-Length", "0")
        .header("X-Client", ELSEWHERE)
}

/// Answers with this status, in JSON, which no browser takes for anything else.
#[track_caller]
fn says(response: &Response, status: u16, what: &str) -> Value {
    assert_eq!(response.status, status, "{what}: {response:?} {}", response.text());
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"), "{what}");
    json(response)
}

/// Without a word of the administrator, programs of this machine may publish that mean this site, and nobody else.
fn only_this_machine(mpm: Mpm) {
    let begin = Instant::now();
    let server = httpd(mpm)
        .config(
            "<VirtualHost *:{port}>\n  ServerName http://site.example:80\n  ServerAlias alias.example *.sites.example * www.*\n\
             </VirtualHost>\n<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>\n\
             <Location \"/open\">\n  SetHandler websocket-publish\n  Require all granted\n  WebSocketOriginCheck Off\n</Location>",
        )
        .start();
    let request =
        |path: &str| Handshake::page(&format!("{path}?channel=a")).method("POST").header("Content-Length", "0");
    let publish = |name: &str, value: &str| {
        let mut client = Raw::connect(&server);
        let response = client.ask(&request("/publish").header("Connection", "close").header(name, value));
        (response, format!("{name}: {value}"))
    };
    for host in ["localhost", "LocalHost.:80", "127.0.0.1", "127.5.5.5:1234", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]"]
        .into_iter()
        .chain(["site.example", "SITE.example:8080", "alias.example", "a.sites.example", "a.b.sites.example"])
    {
        let (response, what) = publish("Host", host);
        says(&response, 202, &what);
    }
    for (name, value) in [
        ("Origin", server.http_url("").as_str()),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Site", "none"),
        ("X-Requested-With", "curl"),
    ] {
        let (response, what) = publish(name, value);
        says(&response, 202, &what);
    }
    let refused = [
        ("Host", "evil.example"),
        ("Host", "www.evil.example"),
        ("Host", "sites.example"),
        ("Host", "localhost.evil.example"),
        ("Host", "192.0.2.1"),
        ("Host", "0.0.0.0"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("X-Client", ELSEWHERE),
        // A client's word for where it is, in a line that mod_remoteip has taken away.
        ("X-Client", "127.0.0.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("x-forwarded-host", "localhost"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 proxy.example"),
        ("True-Client-IP", "127.0.0.1"),
        ("Client-IP", "127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("CF-Ray", "1"),
        ("CDN-Loop", "cdn"),
    ];
    for (name, value) in refused {
        let (response, what) = publish(name, value);
        let error = says(&response, 403, &what)["error"].to_string();
        assert!(error.contains("WebSocketPublishAccess"), "{error}");
    }
    let mut nameless = Raw::connect(&server);
    nameless.write(b"POST /publish?channel=a HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    says(&nameless.response(false), 403, "without a Host");
    // What is asked for in the request line counts, not what the Host says beside it.
    let mut client = Raw::connect(&server);
    client
        .write(b"POST http://evil.example/publish?channel=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    says(&client.response(false), 403, "another host in the request line");
    // Neither open rules nor the origin check widen it, and all methods are alike.
    for request in [
        request("/open").header("X-Client", ELSEWHERE),
        request("/open").header("Origin", "http://evil.example"),
        Handshake::page("/open").header("Via", "1.1 x"),
        request("/open").method("DELETE").header("Via", "1.1 x"),
        request("/open").method("OPTIONS").header("Via", "1.1 x"),
    ] {
        says(&Raw::answer(&server, &request), 403, &format!("{request:?}"));
    }
    server.expect_log("WS0035: refused: only this machine may publish here (WebSocketPublishAccess Local)");
    let lines = server.error_log().matches("WS0035").count() as u64;
    // One for each of the two locations, whichever children were asked.
    assert!((2..=2 + 2 * (begin.elapsed().as_secs() / 60)).contains(&lines), "{}", server.error_log());
}

/// `WebSocketPublishAccess Require` leaves it to httpd, whatever `Require` says.
#[test]
fn what_require_decides() {
    let location = |path: &str, rules: &str| {
        format!(
            "<Location \"{path}\">\n  SetHandler websocket-publish\n  WebSocketPublishAccess Require\n{rules}\n</Location>"
        )
    };
    let login = "AuthType Basic\nAuthName x\nAuthUserFile \"{root}/conf/users\"\n";
    let rules = [
        ("/ip", "Require ip 198.51.100.0/24".to_owned(), 202, 202),
        ("/env", "Require env TRUSTED".to_owned(), 202, 403),
        ("/expr", "Require expr \"%{HTTP:X-Key} == 'secret'\"".to_owned(), 202, 403),
        ("/user", format!("{login}Require user alice"), 202, 401),
        ("/not", "<RequireAll>\nRequire all granted\nRequire not ip 192.0.2.1\n</RequireAll>".to_owned(), 202, 202),
        ("/limit", format!("{login}<Limit POST>\nRequire valid-user\n</Limit>"), 202, 401),
        ("/granted", "Require all granted".to_owned(), 202, 202),
        ("/local", "Require local".to_owned(), 403, 403),
        ("/local/inner", "WebSocketPublishAccess Local\nRequire all granted".to_owned(), 403, 403),
    ];
    let mut httpd = httpd(Mpm::Event).config("SetEnvIf X-Key secret TRUSTED");
    for (path, rules, ..) in &rules {
        httpd = httpd.config(location(path, rules));
    }
    let server = httpd.start();
    for (path, _, with, without) in &rules {
        let ask = |request: &Handshake| Raw::answer(&server, request).status;
        let known = from_elsewhere(path).header("Authorization", ALICE).header("X-Key", "secret");
        assert_eq!(ask(&known), *with, "{path}");
        assert_eq!(ask(&known.header("X-Forwarded-For", "192.0.2.1")), *with, "{path} through a proxy");
        assert_eq!(ask(&from_elsewhere(path)), *without, "{path}");
    }
    server.expect_log("WS0035");
    server.expect_log("AH01630: client denied by server configuration");
}

/// A client's certificate is a login.
#[test]
fn certificates_are_asked_for() {
    let server = Httpd::new(Mpm::Event)
        .client_certificate()
        .tls()
        .module("remoteip")
        .config("RemoteIPHeader X-Client\nSSLVerifyClient optional\nWebSocketPublishAccess Require")
        .config(format!("SSLVerifyDepth 1\nSSLCACertificateFile \"{{root}}/{}\"", tls::CLIENT_AUTHORITY))
        .config("<Location \"/cert\">\n  SetHandler websocket-publish\n  Require ssl-verify-client\n</Location>")
        .start();
    let with_certificate = tls::client(server.root(), &[&version::TLS12], true);
    let mut client = Raw::connect_by(&server, Some(&with_certificate));
    assert_eq!(client.ask(&from_elsewhere("/cert")).status, 202);
    server.expect_log("AH01630");
    assert_eq!(Raw::answer(&server, &from_elsewhere("/cert")).status, 403);
}

/// Nobody opens it to the world in an .htaccess file.
#[test]
fn htaccess_files_do_not_say_who_may_publish() {
    let server = httpd(Mpm::Event)
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride All\n</Directory>")
        .file("htdocs/here/.htaccess", "WebSocketPublishAccess Require\n")
        .start();
    server.expect_log("WebSocketPublishAccess not allowed here");
    assert_eq!(Raw::page(&server, "/here/").status, 500);
}

/// Nor does it make one of this machine out of what a proxy passes on, or a page of another site sends, by taking header lines
/// away. The administrator's word for all requests may.
#[test]
fn header_lines_that_htaccess_takes_away_count() {
    let server = httpd(Mpm::Event)
        .module("headers")
        .module("rewrite")
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride All\n</Directory>")
        .config("RequestHeader unset X-Forwarded-Host early")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
        .file(
            "htdocs/here/.htaccess",
            "RequestHeader unset X-Forwarded-For\nRequestHeader unset Origin\nRequestHeader unset Sec-Fetch-Site\n\
             RewriteEngine On\nRewriteRule ^ /publish [L]\n",
        )
        .file("htdocs/here/x", "")
        .start();
    let publish = |name: &str, value: &str| {
        let request = Handshake::page("/here/x?channel=a").method("POST").header("Content-Length", "0");
        Raw::answer(&server, &request.header("Connection", "close").header(name, value))
    };
    for (name, value, status) in [
        ("X-Forwarded-For", ELSEWHERE, 403),
        ("Origin", "http://evil.example", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("X-Forwarded-Host", "localhost", 202),
        ("Origin", server.http_url("").as_str(), 202),
        ("X-Requested-With", "curl", 202),
    ] {
        says(&publish(name, value), status, name);
    }
    server.expect_log("WS0035: refused: only this machine may publish here (WebSocketPublishAccess Local)");
}

/// A page of another site cannot publish with the login that a browser sends along.
#[test]
fn pages_of_other_sites_publish_nothing() {
    let server = httpd(Mpm::Event)
        .config("WebSocketPublishAccess Require")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
        .config("<Location \"/trusting\">\n  SetHandler websocket-publish\n  WebSocketOriginCheck Off\n</Location>")
        .start();
    let from = |path: &str, origin: &str| {
        let request = Handshake::page(&format!("{path}?channel=a")).method("POST").version("HTTP/1.0");
        let request = request.header("Content-Length", "0").header("Origin", origin);
        let response = Raw::answer(&server, &request.header("Host", "www.example"));
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
        response.status
    };
    assert_eq!(from("/publish", "http://www.example"), 202);
    assert_eq!(from("/publish", "http://other.example"), 403);
    assert_eq!(from("/publish", "null"), 403);
    assert_eq!(from("/trusting", "http://other.example"), 202);
}

/// The line comes once, whoever else writes it.
#[test]
fn answers_are_what_they_say() {
    let server = guarded(Mpm::Event).module("headers").config("Header set X-Content-Type-Options nosniff").start();
    for (method, path, status) in [
        ("GET", "/publish", 200),
        ("GET", "/publish?channel=none", 404),
        ("PATCH", "/publish", 405),
        ("POST", "/publish", 400),
    ] {
        let response = Raw::answer(&server, &Handshake::page(path).method(method).version("HTTP/1.0"));
        says(&response, status, path);
    }
    let options = Raw::answer(&server, &Handshake::page("/publish").method("OPTIONS").version("HTTP/1.0"));
    assert_eq!((options.status, options.header("X-Content-Type-Options")), (200, Some("nosniff")));
}

/// A POST in HTTP/1.1 that announces what `headers` say, and these bytes after it.
fn send(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut request = Handshake::page("/publish?channel=a").method("POST").header("Connection", "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut client = Raw::connect(server);
    client.write(&request.bytes(&client.host()));
    client.try_write(body);
    client.response(false)
}

fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn bodies(mpm: Mpm) {
    let server = guarded(mpm)
        .config("WebSocketMaxMessageSize 100000\nTimeout 2")
        .config("<Location \"/small\">\n  SetHandler websocket-publish\n  Require local\n  LimitRequestBody 10\n</Location>")
        .config("<Location \"/a\">\n  WebSocketHandler channel a\n</Location>")
        .start();
    let mut client = Raw::open(&server, "/a");
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "a") == 1);
    let piece = vec![b'x'; 40_000];
    let chunks = [("Transfer-Encoding", "chunked")];
    assert_eq!(send(&server, &chunks, &chunked(&[b"in ", b"pieces"])).status, 201);
    client.expect(&Frame::text("in pieces"));
    assert_eq!(send(&server, &chunks, &chunked(&[&piece, &piece])).status, 201);
    client.expect(&Frame::text([piece.clone(), piece.clone()].concat()));
    assert_eq!(send(&server, &chunks, &chunked(&[])).status, 201);
    client.expect(&Frame::text(""));
    assert_eq!(send(&server, &[], b"").status, 201);
    client.expect(&Frame::text(""));
    let limit = vec![b'x'; 100_000];
    assert_eq!(send(&server, &[("Content-Length", "100000")], &limit).status, 201);
    client.expect(&Frame::text(limit));

    let refused = |what: &str, response: Response, status: u16| {
        assert_eq!(response.status, status, "{what}: {response:?}");
        assert!(json(&response)["error"].is_string(), "{what}: {response:?}");
    };
    refused("too large in pieces", send(&server, &chunks, &chunked(&[&piece, &piece, &piece])), 413);
    // Nobody is asked to go on sending what is too large already.
    refused("too large", send(&server, &[("Content-Length", "100001"), ("Expect", "100-continue")], b""), 413);
    // httpd's filter for chunks answers by itself.
    assert_eq!(send(&server, &chunks, b"not a number\r\n").status, 400);
    server.tolerate_log("AH02900");
    refused("it stays away", send(&server, &[("Content-Length", "10")], b"half"), 408);
    let small = Handshake::page("/small?channel=a").method("POST").header("Connection", "close");
    let mut limited = Raw::connect(&server);
    limited.write(&small.header("Transfer-Encoding", "chunked").bytes(&limited.host()));
    limited.try_write(&chunked(&[b"more than ten bytes"]));
    // So does its LimitRequestBody; nothing of ours follows.
    assert_eq!(limited.response(false).status, 413);
    limited.expect_end();
    server.tolerate_log("AH01591");
    server.tolerate_log("AH01588");
    client.close();
}

/// What was answered leaves the connection usable for the next request, the body of the first read or not.
fn connections_go_on(mpm: Mpm) {
    let server = guarded(mpm).start();
    let mut client = Raw::connect(&server);
    let ask = |client: &mut Raw, method: &str, query: &str, body: &[u8]| {
        let request = Handshake::page(&format!("/publish{query}")).method(method);
        let request = request.header("Content-Length", &body.len().to_string());
        client.write(&[request.bytes(&client.host()), body.to_vec()].concat());
        client.response(method == "HEAD")
    };
    assert_eq!(ask(&mut client, "POST", "?channel=a", b"one").status, 202);
    assert_eq!(ask(&mut client, "PUT", "?channel=a&channel=b", b"two").status, 202);
    let get = ask(&mut client, "GET", "?channel=a", b"");
    assert_eq!((get.status, get.header("Cache-Control")), (200, Some("no-store")));
    let head = ask(&mut client, "HEAD", "?channel=a", b"");
    assert_eq!((head.status, head.header("Content-Length")), (200, get.header("Content-Length")));
    assert_eq!(ask(&mut client, "GET", "?channel=none", b"unread").status, 404);
    assert_eq!(ask(&mut client, "OPTIONS", "", b"").header("Allow"), Some("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
    assert_eq!(ask(&mut client, "DELETE", "?channel=a", b"unread").status, 200);
    assert_eq!(ask(&mut client, "POST", "?channel=b", b"three").status, 202);
    // Those that come before the answers to the others, and the last on a connection.
    for round in 0..3 {
        let one = |number: usize| {
            let last = if (round, number) == (2, 24) { "close" } else { "keep-alive" };
            let request = Handshake::page("/publish?channel=b").method("POST").header("Connection", last);
            let body = number.to_string();
            [request.header("Content-Length", &body.len().to_string()).bytes(&client.host()), body.into_bytes()]
                .concat()
        };
        let requests: Vec<u8> = (0..25).flat_map(one).collect();
        client.write(&requests);
        let ids: Vec<String> =
            (0..25).map(|_| json(&client.response(false))["b"]["id"].as_str().expect("an id").to_owned()).collect();
        assert!(ids.is_sorted_by_key(|id| parts(id).1), "{ids:?}");
        // Under prefork this connection has a process for itself; elsewhere a thread goes on to others.
        assert_eq!(post(&server, "/publish?channel=b", "text/plain", b"another").status, 202);
    }
    client.expect_end();
}

/// What common clients say of a body without being asked, and what is no message as it is.
#[test]
fn media_types_and_codings() {
    let server = guarded(Mpm::Event)
        .module("deflate")
        .config("<Location \"/inflated\">\n  SetHandler websocket-publish\n  SetInputFilter DEFLATE\n</Location>")
        .config("<Location \"/a\">\n  WebSocketHandler channel a\n</Location>")
        .start();
    let mut client = Raw::connect(&server);
    client.ask(&Handshake::new("/a").header("Sec-WebSocket-Protocol", "ws+meta.nchan")).assert_accepted();
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "a") == 1);
    let mut hears = |content_type: &str, is_text: bool, told: Option<&str>| {
        assert_eq!(post(&server, "/publish?channel=a", content_type, b"x").status, 201, "{content_type}");
        let meta = Meta::of(&client.frame());
        assert_eq!((meta.is_text, meta.content_type.as_deref()), (is_text, told), "{content_type}");
    };
    hears("application/x-www-form-urlencoded", true, None);
    hears("application/x-www-form-urlencoded;charset=UTF-8", true, None);
    for text in ["application/atom+xml", "application/xml", "application/x-ndjson", "application/graphql"] {
        hears(text, true, Some(text));
    }
    hears("application/octet-stream", false, Some("application/octet-stream"));
    let multipart = "multipart/form-data; boundary=x";
    for query in ["", "&type=binary"] {
        let refused = post(&server, &format!("/publish?channel=a{query}"), multipart, b"--x--");
        assert!(says(&refused, 415, query)["error"].to_string().contains("multipart"));
    }
    let mut gzip = Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
    gzip.stdin.take().expect("its input").write_all(b"inflated").expect("its input");
    let encoded = gzip.wait_with_output().expect("gzip's output").stdout;
    let length = encoded.len().to_string();
    let send = |path: &str, encoding: &str, body: &[u8]| {
        let request = Handshake::page(&format!("{path}?channel=a")).method("POST").version("HTTP/1.0");
        let request = request.header("Content-Type", "text/plain").header("Content-Encoding", encoding);
        let mut client = Raw::connect(&server);
        client.write(&[request.header("Content-Length", &length).bytes(&client.host()), body.to_vec()].concat());
        client.response(false)
    };
    let refused = send("/publish", "gzip", &encoded);
    assert!(says(&refused, 415, "gzip")["error"].to_string().contains("Content-Encoding"));
    assert_eq!(refused.header("Accept-Encoding"), Some("identity"));
    says(&send("/inflated", "br", &encoded), 415, "br");
    says(&send("/inflated", "gzip", &encoded), 201, "inflated");
    assert_eq!(Meta::of(&client.frame()).text(), "inflated");
    let plain = vec![b'x'; encoded.len()];
    says(&send("/publish", "identity", &plain), 201, "identity");
    assert_eq!(Meta::of(&client.frame()).body, plain);
    client.close();
}

/// HTTP/2 announces no length, and marks no chunks.
#[test]
fn a_stream_of_http2() {
    let server = Httpd::new(Mpm::Event)
        .module("authz_host")
        .http2()
        .config("WebSocketMaxMessageSize 100000")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .start();
    for (size, status) in [(0, 202), (5, 202), (100_000, 202), (100_001, 413)] {
        let path = format!("/publish?channel=a{size}");
        let mut curl = Command::new("curl")
            .args(["--silent", "--insecure", "--http2", "--request", "POST", "--upload-file", "-"])
            .args(["--header", "Content-Type: text/plain", &server.http_url(&path)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("curl");
        // It may be told no before it has sent everything.
        let _ = curl.stdin.take().expect("its input").write_all(&vec![b'x'; size]);
        curl.wait().expect("curl's end");
        // The server's word: an answer that comes before the end of a request is lost on some curls (RFC 9113 section 8.1).
        let line = format!("\"POST {path} HTTP/2.0\" {status}");
        wait_until("the answer is written down", PATIENCE, || server.access_log().contains(&line));
        if status == 202 {
            let request = Handshake::page(&path).version("HTTP/1.0");
            let bytes = json(&Raw::answer(&server, &request))["bytes"].as_u64();
            assert!(bytes >= Some(size as u64), "{size}: {bytes:?}");
        }
    }
}

/// One URL for both: a handshake subscribes, everything else publishes.
#[test]
fn subscribers_and_publishers_share_a_url() {
    let server = Httpd::new(Mpm::Event)
        .module("authz_host")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  WebSocketHandler channel a\n  Require local\n</Location>")
        .start();
    let mut client = Raw::open(&server, "/publish?channel=a");
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "a") == 1);
    assert_eq!(post(&server, "/publish?channel=a", "text/plain", b"here").status, 201);
    client.expect(&Frame::text("here"));
    client.close();
}
