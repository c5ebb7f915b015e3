//! What httpd does before the module's handler runs, as for any other request: login, rewriting, virtual hosts, logs.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, wait_until};
use tungstenite::client::IntoClientRequest;

every_mpm!(login, rewriting, virtual_hosts, access_log, cached_pages, curious_filters, cookies_of_other_modules);

fn answer(server: &Server, handshake: &Handshake) -> Response {
    Raw::answer(server, handshake)
}

fn login(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .login()
        .config(
            "<Location \"/private\">\n  WebSocketHandler echo\n  AuthType Basic\n  AuthName \"members\"\n  \
             AuthBasicProvider file\n  AuthUserFile \"{root}/conf/users\"\n  Require valid-user\n</Location>\n\
             <Location \"/closed\">\n  WebSocketHandler echo\n  Require all denied\n</Location>",
        )
        .start();
    let nobody = answer(&server, &Handshake::new("/private"));
    assert_eq!(nobody.status, 401);
    assert_eq!(nobody.header("WWW-Authenticate"), Some("Basic realm=\"members\""));

    server.expect_log("AH01617: user alice: authentication failure");
    let wrong = Handshake::new("/private").header("Authorization", "Basic YWxpY2U6cGFzc3dvcmQ=");
    assert_eq!(answer(&server, &wrong).status, 401);

    let alice = Handshake::new("/private").header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=");
    let mut client = Raw::open_with(&server, &alice);
    client.echo(&Frame::text("a member"));
    client.close();

    server.expect_log("AH01630: client denied by server configuration");
    assert_eq!(answer(&server, &Handshake::new("/closed")).status, 403);
}

fn rewriting(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .module("rewrite")
        .echo()
        .config(
            "RewriteEngine On\n\
             RewriteRule \"^/live/(.*)$\" \"/echo?room=$1\" [PT]\n\
             RewriteCond \"%{HTTP:Upgrade}\" \"=websocket\" [NC]\n\
             RewriteRule \"^/index\\.html$\" \"/echo\" [PT]\n\
             RewriteRule \"^/gone$\" \"-\" [G]",
        )
        .start();
    for path in ["/live/kitchen", "/live/", "/index.html"] {
        let mut client = Client::open(&server, path);
        client.echo_text(path);
        client.close();
    }
    // The page stays where it was.
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    assert_eq!(answer(&server, &Handshake::new("/gone")).status, 410);
}

fn virtual_hosts(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .config(
            "<VirtualHost 127.0.0.1:{port}>\n  ServerName plain.example\n</VirtualHost>\n\
             <VirtualHost 127.0.0.1:{port}>\n  ServerName talk.example\n  ServerAlias *.talk.example\n  \
             <Location \"/echo\">\n    WebSocketHandler echo\n    WebSocketProtocols talk\n  </Location>\n</VirtualHost>\n\
             <VirtualHost 127.0.0.1:{port}>\n  ServerName all.example\n  WebSocketHandler echo\n</VirtualHost>",
        )
        .start();
    let at = |host: &str, path: &str| Handshake::new(path).with("Host", host).header("Sec-WebSocket-Protocol", "talk");
    for (host, path, status) in [
        ("plain.example", "/echo", 404),
        ("unknown.example", "/echo", 404),
        ("talk.example", "/echo", 101),
        ("deep.talk.example", "/echo", 101),
        ("TALK.example:80", "/echo", 101),
        ("talk.example", "/other", 404),
        ("all.example", "/anything", 101),
    ] {
        assert_eq!(answer(&server, &at(host, path)).status, status, "{host}{path}");
    }
    let mut client = Raw::connect(&server);
    let response = client.ask(&at("talk.example", "/echo"));
    assert_eq!(response.header("Sec-WebSocket-Protocol"), Some("talk"));
    client.echo(&Frame::text("hello, talk.example"));
    client.close();
    // Same means the host that was asked for, not any of this server.
    let own = at("talk.example", "/echo").header("Origin", "http://talk.example");
    assert_eq!(answer(&server, &own).status, 101);
    server.expect_log("WS0021");
    let other = at("talk.example", "/echo").header("Origin", "http://plain.example");
    assert_eq!(answer(&server, &other).status, 403);
}

fn access_log(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .login()
        .config(
            "<Location \"/echo\">\n  WebSocketHandler echo\n  AuthType Basic\n  AuthName \"members\"\n  \
             AuthBasicProvider file\n  AuthUserFile \"{root}/conf/users\"\n  Require valid-user\n</Location>",
        )
        .start();
    let mut request = server.url("/echo?room=5").into_client_request().expect("a request");
    let login = "Basic YWxpY2U6b3BlbiBzZXNhbWU=".parse().expect("a header");
    request.headers_mut().insert("Authorization", login);
    let mut client = Client::open_with(&server, request);
    client.echo_text("hello");
    // The request is over for httpd while the socket is open.
    wait_until("the handshake is in the access log", PATIENCE, || {
        server.access_log().contains("127.0.0.1 alice \"GET /echo?room=5 HTTP/1.1\" 101")
    });
    client.close();
    assert_eq!(server.access_log().lines().count(), 1, "{}", server.access_log());
}

/// A page and a socket may share a URL where pages come from mod_cache, for clients too that do not say that they want nothing
/// of it.
fn cached_pages(mpm: Mpm) {
    for quick in ["On", "Off"] {
        let server = ["cache", "socache_shmcb", "cache_socache"]
            .into_iter()
            .fold(Httpd::new(mpm), Httpd::module)
            .config(format!(
                "CacheQuickHandler {quick}\nCacheEnable socache /\nCacheSocache shmcb:{{root}}/run/cache(1048576)\n\
                 CacheHeader On\nCacheIgnoreCacheControl On\n<Location \"/index.html\">\n  WebSocketHandler echo\n</Location>"
            ))
            .file("htdocs/other.html", "another page")
            .start();
        let page = |path: &str| Raw::answer(&server, &Handshake::page(path).header("Connection", "close"));
        let is_stored = |path: &str| page(path).header("X-Cache").is_some_and(|said| said.starts_with("HIT"));
        for path in ["/index.html", "/other.html"] {
            wait_until("the page is stored", PATIENCE, || is_stored(path));
            for _ in 0..3 {
                let response = answer(&server, &Handshake::new(path));
                assert_eq!(response.status, if path == "/index.html" { 101 } else { 200 }, "{path}, {quick}");
            }
            assert!(is_stored(path), "{path}, {quick}");
        }
        let mut client = Raw::open(&server, "/index.html");
        client.echo(&Frame::text("no page"));
        client.close();
    }
}

/// A filter that reads all that passes holds nobody up.
fn curious_filters(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .module("dumpio")
        .config("DumpIOInput On\nDumpIOOutput On\nLogLevel dumpio:trace7")
        .echo()
        .start();
    let mut early = Raw::connect(&server);
    early.write(&[Handshake::new("/echo").bytes(&early.host()), Frame::text("early").masked()].concat());
    early.response(false).assert_accepted();
    early.expect(&Frame::text("early"));
    // More than there are workers.
    for mut socket in Raw::open_some(&server, 12) {
        socket.echo(&Frame::text("after"));
        socket.close();
    }
    early.close();
    assert!(server.error_log().contains("dumpio_in"), "the filter was there");
}

/// The 101 carries what other modules have put into the answer before our handler ran.
fn cookies_of_other_modules(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .module("headers")
        .module("usertrack")
        .echo()
        .config(
            "CookieTracking On\nHeader set X-Site ours early\n\
             Header always add X-More 1 early\nHeader always add X-More 2 early",
        )
        .start();
    let mut client = Raw::connect(&server);
    let response = client.ask(&Handshake::new("/echo"));
    response.assert_accepted();
    assert!(response.header("Set-Cookie").is_some_and(|cookie| cookie.starts_with("Apache=")), "{response:?}");
    assert_eq!(response.header("X-Site"), Some("ours"));
    assert_eq!(response.all("X-More"), ["1", "2"]);
    client.echo(&Frame::text("with a cookie"));
    client.close();
}
