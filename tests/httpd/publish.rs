//! Who may publish, and in which ways a message comes over HTTP. What becomes of it is in `channels`.

use crate::harness::publish::{json, post, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, tls, wait_until};
use rustls::version;
use std::io::Write;
use std::process::{Command, Stdio};

every_mpm!(bodies, connections_go_on);

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

fn warnings(server: &Server) -> usize {
    server.error_log().matches("WS0225").count()
}

/// Rules of httpd that look at a client guard, whatever they look at; those that do not, do not.
#[test]
fn what_guards_a_location() {
    let location = |path: &str, rules: &str| {
        format!("<Location \"{path}\">\n  SetHandler websocket-publish\n{rules}\n</Location>")
    };
    let login = "AuthType Basic\nAuthName x\nAuthUserFile \"{root}/conf/users\"\n";
    let guards = [
        ("/ip", "Require ip 198.51.100.0/24".to_owned()),
        ("/env", "Require env TRUSTED".to_owned()),
        ("/expr", "Require expr \"%{HTTP:X-Key} == 'secret'\"".to_owned()),
        ("/query", "Require expr \"%{QUERY_STRING} =~ /channel=a/\"".to_owned()),
        ("/user", format!("{login}Require user alice")),
        ("/all", format!("{login}<RequireAll>\nRequire all granted\nRequire valid-user\n</RequireAll>")),
        ("/not", "<RequireAll>\nRequire all granted\nRequire not ip 192.0.2.1\n</RequireAll>".to_owned()),
        ("/limit", format!("{login}<Limit POST>\nRequire valid-user\n</Limit>")),
        ("/method", format!("{login}Require method GET\nRequire valid-user")),
    ];
    let open = [
        ("/nothing", String::new()),
        ("/granted", "Require all granted".to_owned()),
        ("/any", "<RequireAny>\nRequire all granted\nRequire ip 192.0.2.1\n</RequireAny>".to_owned()),
        ("/methods", "Require method GET POST".to_owned()),
        ("/other", format!("{login}<Limit DELETE>\nRequire valid-user\n</Limit>")),
    ];
    let mut httpd = httpd(Mpm::Event).config("SetEnvIf X-Key secret TRUSTED");
    for (path, rules) in guards.iter().chain(&open) {
        httpd = httpd.config(location(path, rules));
    }
    let server = httpd.start();
    assert_eq!(warnings(&server), open.len(), "{}", server.error_log());
    let ask = |path: &str, headers: bool| {
        let request = from_elsewhere(path);
        let request = if headers { request.header("Authorization", ALICE).header("X-Key", "secret") } else { request };
        Raw::answer(&server, &request).status
    };
    for (path, _) in &guards {
        assert_eq!(ask(path, true), 202, "{path}");
    }
    for (path, _) in &open {
        server.expect_log(&format!("WS0225: nothing guards <Location \"{path}\">"));
        assert_eq!(ask(path, true), 403, "{path}");
        assert_eq!(post(&server, &format!("{path}?channel=a"), "text/plain", b"x").status, 202, "{path}");
    }
    server.expect_log("WS0016: refused: nothing guards this location");
    // What a proxy on this machine sends is somebody else's.
    for header in ["X-Forwarded-For", "forwarded", "Via"] {
        let forwarded = Handshake::page("/nothing?channel=a").method("POST").version("HTTP/1.0");
        let forwarded = forwarded.header("Content-Length", "0").header(header, "1.1 proxy.example");
        assert_eq!(Raw::answer(&server, &forwarded).status, 403, "{header}");
    }
    for (path, status) in
        [("/env", 403), ("/expr", 403), ("/user", 401), ("/all", 401), ("/limit", 401), ("/method", 401)]
    {
        assert_eq!(ask(path, false), status, "{path}");
    }
    server.expect_log("AH01630: client denied by server configuration");
    // "client denied" is how httpd puts a missing login too.
    server.tolerate_log("AH01631");
}

/// Debian's rules for its directories: nothing of them guards what is at a URL.
#[test]
fn rules_of_other_sections_count_as_httpd_counts_them() {
    let server = httpd(Mpm::Event)
        .file("htdocs/kept/.htaccess", "Require ip 198.51.100.0/24\n")
        .file("htdocs/free/index.html", "")
        .config("<Directory \"/\">\n  Require all denied\n</Directory>")
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n  Require all granted\n</Directory>")
        .config("<Location \"/free\">\n  SetHandler websocket-publish\n</Location>")
        .config("<Location \"/kept\">\n  SetHandler websocket-publish\n</Location>")
        .config("<Location \"/outer\">\n  Require ip 198.51.100.0/24\n</Location>")
        .config("<Location \"/outer/inner\">\n  SetHandler websocket-publish\n</Location>")
        .config("<Location \"/outer/opened\">\n  SetHandler websocket-publish\n  AuthMerging Off\n</Location>")
        .config("<Location \"/outer/both\">\n  SetHandler websocket-publish\n  AuthMerging And\n  Require all granted\n</Location>")
        .start();
    for (path, status) in
        [("/free", 403), ("/kept", 202), ("/outer/inner", 202), ("/outer/opened", 403), ("/outer/both", 202)]
    {
        assert_eq!(Raw::answer(&server, &from_elsewhere(path)).status, status, "{path}");
    }
    server.expect_log("WS0225: nothing guards <Location \"/free\">");
    server.expect_log("WS0225: nothing guards <Location \"/outer/opened\">");
    // An .htaccess file is not known before somebody asks.
    server.expect_log("WS0225: nothing guards <Location \"/kept\">");
    server.expect_log("WS0016");
    assert_eq!(warnings(&server), 3, "{}", server.error_log());
}

/// The same URL in two virtual hosts is two locations.
#[test]
fn virtual_hosts_are_warned_of_each_for_itself() {
    let host = |name: &str, rule: &str| {
        format!(
            "<VirtualHost *:{{port}}>\n  ServerName {name}\n  <Location \"/publish\">\n    SetHandler websocket-publish\n    \
             {rule}\n  </Location>\n</VirtualHost>"
        )
    };
    let server = httpd(Mpm::Event).config(host("one.example", "Require local")).config(host("two.example", "")).start();
    server.expect_log("WS0225: nothing guards <Location \"/publish\">");
    assert_eq!(warnings(&server), 1, "{}", server.error_log());
}

/// Under `Satisfy Any` the older rules of mod_access_compat may let in whom `Require` was never asked about.
#[test]
fn a_rule_that_was_not_asked_does_not_guard() {
    let server = httpd(Mpm::Event)
        .module("access_compat")
        .config(
            "<Location \"/any\">\n  SetHandler websocket-publish\n  Satisfy Any\n  AuthType Basic\n  AuthName x\n  \
             AuthUserFile \"{root}/conf/users\"\n  Require user alice\n</Location>\n\
             <Location \"/older\">\n  SetHandler websocket-publish\n  Order deny,allow\n  Deny from all\n  \
             Allow from 127.0.0.1\n</Location>",
        )
        .start();
    assert_eq!(Raw::answer(&server, &from_elsewhere("/any")).status, 403);
    server.expect_log("WS0016: refused: nothing guards this location");
    assert_eq!(post(&server, "/any?channel=a", "text/plain", b"").status, 202);
    server.expect_log("WS0225: nothing guards <Location \"/older\">");
    assert_eq!(post(&server, "/older?channel=a", "text/plain", b"").status, 202);
    assert_eq!(Raw::answer(&server, &from_elsewhere("/older")).status, 403);
    server.expect_log("AH01797: client denied by server configuration");
}

/// A client's certificate is a login.
#[test]
fn certificates_guard() {
    let server = Httpd::new(Mpm::Event)
        .client_certificate()
        .tls()
        .module("remoteip")
        .config("RemoteIPHeader X-Client\nSSLVerifyClient optional")
        .config(format!("SSLVerifyDepth 1\nSSLCACertificateFile \"{{root}}/{}\"", tls::CLIENT_AUTHORITY))
        .config("<Location \"/cert\">\n  SetHandler websocket-publish\n  Require ssl-verify-client\n</Location>")
        .config("<Location \"/ssl\">\n  SetHandler websocket-publish\n  Require ssl\n</Location>")
        .start();
    server.expect_log("WS0225: nothing guards <Location \"/ssl\">");
    server.expect_log("WS0016");
    let with_certificate = tls::client(server.root(), &[&version::TLS12], true);
    let mut client = Raw::connect_by(&server, Some(&with_certificate));
    assert_eq!(client.ask(&from_elsewhere("/cert")).status, 202);
    let mut client = Raw::connect_by(&server, Some(&with_certificate));
    assert_eq!(client.ask(&from_elsewhere("/ssl")).status, 403);
    server.expect_log("AH01630");
    assert_eq!(Raw::answer(&server, &from_elsewhere("/cert")).status, 403);
}

/// A page of another site cannot publish with the login that a browser sends along.
#[test]
fn pages_of_other_sites_publish_nothing() {
    let server = guarded(Mpm::Event)
        .config("<Location \"/trusting\">\n  SetHandler websocket-publish\n  Require local\n  WebSocketOriginCheck Off\n</Location>")
        .start();
    let from = |path: &str, origin: &str| {
        let request = Handshake::page(&format!("{path}?channel=a")).method("POST").version("HTTP/1.0");
        let request = request.header("Content-Length", "0").header("Origin", origin);
        Raw::answer(&server, &request.header("Host", "www.example")).status
    };
    assert_eq!(from("/publish", "http://www.example"), 202);
    assert_eq!(from("/publish", "http://other.example"), 403);
    assert_eq!(from("/publish", "null"), 403);
    assert_eq!(from("/trusting", "http://other.example"), 202);
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
