//! `WebSocketHandler proxy`: servers behind mod_proxy, and what they and the clients get to hear of each other.

use crate::harness::back_end::{self, BackEnd};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};

every_mpm!(every_url_form);

/// What mod_ssl has to say where it is for back ends alone.
pub(super) fn tolerate_mod_ssl(server: &Server) {
    server.tolerate_log("AH01882: Init: this version of mod_ssl was compiled against a newer library");
    server.tolerate_log("AH01873: Init: Session Cache is not configured");
}

fn proxying(mpm: Mpm) -> Httpd {
    Httpd::new(mpm).module("proxy").module("proxy_http")
}

/// A location that is proxied to `url`.
fn location(path: &str, url: &str) -> String {
    format!("<Location \"{path}\">\n  WebSocketHandler proxy \"{url}\"\n</Location>")
}

/// A server whose `/ws` is proxied to this back end's `/app`.
fn before(back_end: &BackEnd) -> Server {
    proxying(Mpm::Event).config(location("/ws", &format!("ws://{}/app", back_end.address))).start()
}

/// The line of a head that begins so, without its name.
#[track_caller]
fn line<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
    assert!(lines.len() <= 1, "one {name}: {head}");
    lines.first().copied()
}

#[track_caller]
fn echoes(server: &Server, path: &str) {
    let mut client = Raw::open(server, path).about(path);
    client.echo(&Frame::text("hello"));
    close(client);
}

/// mod_proxy's tunnel ends without TLS's word for it.
#[track_caller]
fn close(mut client: Raw) {
    client.echo(&Frame::close(1000, ""));
    client.await_hangup();
}

fn every_url_form(mpm: Mpm) {
    let (plain, tls, unix) = (BackEnd::echo(), BackEnd::tls(back_end::echo), BackEnd::unix(back_end::echo));
    let (address, secure) = (&plain.address, &tls.address);
    let forms = [
        ("/ws", format!("ws://{address}/app"), &plain),
        ("/http", format!("http://{address}/app"), &plain),
        ("/wss", format!("wss://{secure}/app/"), &tls),
        ("/https", format!("https://{secure}/app"), &tls),
        ("/unix", format!("unix:{}|ws://localhost/app", unix.socket().display()), &unix),
        ("/balancer", "balancer://cluster/app".to_owned(), &plain),
    ];
    let base = |httpd: Httpd| {
        let httpd = httpd
            .module("proxy")
            .module("proxy_http")
            .module("proxy_balancer")
            .module("lbmethod_byrequests")
            .module("slotmem_shm")
            .config(format!(
                "AllowEncodedSlashes NoDecode\nSSLProxyEngine On\nSSLProxyVerify require\nSSLProxyCACertificateFile \"{}\"\n\
                 <Proxy \"balancer://cluster\">\n  BalancerMember \"ws://{address}\"\n</Proxy>",
                tls.certificate().display()
            ));
        forms.iter().fold(httpd, |httpd, (path, url, _)| httpd.config(location(path, url)))
    };
    let servers = [
        (base(Httpd::new(mpm).module("ssl").config("SSLSessionCache none")).start(), "http"),
        (base(Httpd::new(mpm).tls()).start(), "https"),
    ];
    tolerate_mod_ssl(&servers[0].0);
    for (server, scheme) in &servers {
        // More sockets than prefork has workers.
        let mut open = Vec::new();
        for (path, _, back_end) in &forms {
            let mut client = Raw::open(server, &format!("{path}/room%2f7/x?a=b&c")).about(path);
            client.echo(&Frame::text("hello"));
            client.echo(&Frame::binary(vec![7; 70_000]));
            open.push(client);
            let head = back_end.head();
            assert!(head.starts_with("GET /app/room%2f7/x?a=b&c HTTP/1.1\r\n"), "{path}: {head}");
            assert_eq!(line(&head, "Host"), Some(server.address().to_string().as_str()), "{path}: {head}");
            assert_eq!(line(&head, "X-Forwarded-For"), Some("127.0.0.1"), "{path}: {head}");
            assert_eq!(line(&head, "X-Forwarded-Proto"), Some(*scheme), "{path}: {head}");
            assert_eq!(line(&head, "X-Forwarded-Host"), line(&head, "Host"), "{path}: {head}");
            assert_eq!(line(&head, "Upgrade"), Some("websocket"), "{path}: {head}");
            assert_eq!(line(&head, "Connection"), Some("Upgrade"), "{path}: {head}");
        }
        assert_eq!(Raw::page(server, "/index.html").text(), "<p>A page of the site.</p>\n");
        // The children go, and the sockets stay.
        server.graceful();
        for mut client in open {
            client.echo(&Frame::text("still there"));
            close(client);
        }
        assert_eq!(server.error_log().matches("WS0056: ").count(), forms.len());
    }
}

#[test]
fn quotas_and_the_session_log() {
    let back_end = BackEnd::echo();
    let server = proxying(Mpm::Event)
        .config("WebSocketLog logs/sockets.log")
        .config(location("/ws", &format!("ws://{}\"\n  WebSocketMaxConnections \"1", back_end.address)))
        .start();
    let mut client = Raw::open(&server, "/ws/x");
    client.echo(&Frame::text("hello"));
    assert!(back_end.head().starts_with("GET /x "));
    let answer = Raw::answer(&server, &Handshake::new("/ws/y"));
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")));
    assert!(back_end.heads().is_empty(), "the back end hears nothing of it");
    close(client);
    let log = || std::fs::read_to_string(server.path("logs/sockets.log")).unwrap_or_default();
    wait_until("the session is logged", PATIENCE, || log().ends_with('\n'));
    let log = log();
    assert!(log.lines().count() == 1 && log.contains(" \"/ws/x\" proxy - "), "{log}");
    assert!(log.contains(" 1 5 1 5 1000 client "), "{log}");
    wait_until("there is a place again", PATIENCE, || Raw::answer(&server, &Handshake::new("/ws")).status == 101);
}

/// The pages of a site that is proxied as a whole, and the sockets, which are another server's.
#[test]
fn inside_a_proxied_site() {
    let site = BackEnd::new(|_, conversation| {
        conversation.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nsite");
    });
    let sockets = BackEnd::echo();
    let server = proxying(Mpm::Event)
        .config(format!("ProxyPass \"/\" \"http://{}/\" nocanon", site.address))
        .config(location("/app/socket", &format!("ws://{}", sockets.address)))
        .start();
    for path in ["/", "/app/socket", "/app/socket/x"] {
        assert_eq!(Raw::page(&server, path).text(), "site", "{path}");
    }
    for (path, asked) in [("/app/socket", "/"), ("/app/socket/a%20b?c=%20", "/a%20b?c=%20")] {
        echoes(&server, path);
        let head = sockets.head();
        assert!(head.starts_with(&format!("GET {asked} HTTP/1.1\r\n")), "{head}");
    }
    // Elsewhere, httpd's own rules hold: mod_proxy takes the upgrade away.
    assert_eq!(Raw::answer(&server, &Handshake::new("/app/other")).text(), "site");
    let heads = site.heads();
    assert!(heads.len() == 4 && heads.iter().all(|head| line(head, "Upgrade").is_none()), "{heads:#?}");
}

/// A handler in a place of files, and what other modules make of those.
#[test]
fn beside_files_and_rules() {
    let back_end = BackEnd::echo();
    let url = |path: &str| format!("ws://{}{path}", back_end.address);
    let server = proxying(Mpm::Event)
        .module("dir")
        .module("rewrite")
        .module("alias")
        .file("htdocs/app/index.html", "the page")
        .config("DirectoryIndex index.html\nRewriteEngine On\nRewriteRule \"^/old/(.*)\" \"/app/$1?from=old\" [PT]")
        .config("Redirect \"/moved\" \"http://elsewhere.example/\"")
        .config(location("/", &url("")))
        .config(format!("<Directory \"{{root}}/htdocs/app\">\n  WebSocketHandler proxy {}\n</Directory>", url("/dir")))
        .config(format!("<LocationMatch \"^/m\">\n  WebSocketHandler proxy {}\n</LocationMatch>", url("/match")))
        .config(format!(
            "<Location \"/if/\">\n  <If \"true\">\n    WebSocketHandler proxy {}\n  </If>\n</Location>",
            url("/cond")
        ))
        .config("<Location \"/off\">\n  WebSocketHandler Off\n</Location>")
        .start();
    for (path, asked) in [
        // Not the index of the site's folder.
        ("/", "/"),
        ("/x//y/./z/../z?q", "/x/y/z?q"),
        ("/%41%c3%a9", "/%41%c3%a9"),
        ("/match/x", "/match/match/x"),
        ("/if/x", "/cond/x"),
        ("/old/a%20b", "/a%20b?from=old"),
    ] {
        echoes(&server, path);
        let head = back_end.head();
        let rest = asked.strip_prefix("/a%20b").map_or_else(|| asked.to_owned(), |rest| format!("/app/a%20b{rest}"));
        assert!(head.starts_with(&format!("GET {rest} HTTP/1.1\r\n")), "{path}: {head}");
    }
    let status = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    assert_eq!((status("/moved"), status("/off")), (302, 404));
    assert_eq!(Raw::page(&server, "/").text(), "<p>A page of the site.</p>\n");
    assert_eq!(Raw::page(&server, "/app/").text(), "the page");
    assert_eq!(back_end.heads(), Vec::<String>::new());
}

/// Whatever a request says, it is the configured server that is asked.
#[test]
fn no_request_names_the_server() {
    let back_end = BackEnd::echo();
    let elsewhere = BackEnd::echo();
    let server = before(&back_end);
    for path in [
        format!("/ws//{}/x", elsewhere.address),
        format!("/ws/@{}/x", elsewhere.address),
        format!("/ws/%40{}/x", elsewhere.address),
        format!("/ws/?http://{}", elsewhere.address),
        format!("http://{}/ws/x", server.address()),
    ] {
        echoes(&server, &path);
        assert!(back_end.head().starts_with("GET /app/"), "{path}");
    }
    for path in [format!("/ws@{}", elsewhere.address), format!("/ws:{}", elsewhere.address)] {
        assert_eq!(Raw::answer(&server, &Handshake::new(&path)).status, 404, "{path}");
    }
    assert!(back_end.heads().is_empty() && elsewhere.heads().is_empty());
}

#[test]
fn the_back_end_is_told_the_truth() {
    let back_end = BackEnd::echo();
    let url = format!("ws://{}", back_end.address);
    let server = proxying(Mpm::Event)
        .module("headers")
        .config("<VirtualHost *:{port}>\n  ServerName https://www.example.com")
        .config(location("/ws", &url))
        .config(location("/own", &url))
        .config("<Location \"/own\">\n  RequestHeader set X-Forwarded-Proto \"mine\"\n  RequestHeader set Host \"inside.example\"\n</Location>")
        .config("</VirtualHost>")
        .start();
    let asked = |handshake: Handshake| {
        close(Raw::open_with(&server, &handshake.header("Host", "www.example.com:8443")));
        back_end.head()
    };
    // What a client says of itself, and tries to take away from what httpd says.
    let head = asked(
        Handshake::new("/ws")
            .header("X-Forwarded-Proto", "ftp")
            .header("Sec-WebSocket-Protocol", "a, b")
            .header("Sec-WebSocket-Extensions", "permessage-deflate")
            .with("Connection", "keep-alive, uPgrade, X-Forwarded-Proto, X-Forwarded-For, Host")
            .with("Upgrade", "WebSocket"),
    );
    assert_eq!(line(&head, "Host"), Some("www.example.com:8443"), "{head}");
    assert_eq!(line(&head, "X-Forwarded-Proto"), Some("https"), "{head}");
    assert_eq!(line(&head, "X-Forwarded-For"), Some("127.0.0.1"), "{head}");
    assert_eq!(line(&head, "Sec-WebSocket-Protocol"), Some("a, b"), "{head}");
    assert_eq!(line(&head, "Sec-WebSocket-Extensions"), Some("permessage-deflate"), "{head}");
    assert_eq!((line(&head, "Connection"), line(&head, "Upgrade")), (Some("Upgrade"), Some("websocket")), "{head}");
    // What the configuration says counts.
    let head = asked(Handshake::new("/own").header("Origin", "https://www.example.com:8443"));
    assert_eq!(
        (line(&head, "Host"), line(&head, "X-Forwarded-Proto")),
        (Some("inside.example"), Some("mine")),
        "{head}"
    );
}

/// What no handler gets, the back end does not even hear of.
#[test]
fn refusals_come_before_the_back_end() {
    let back_end = BackEnd::echo();
    let server = proxying(Mpm::Event)
        .login()
        .config(location("/ws", &format!("ws://{}", back_end.address)))
        .config("<Location \"/ws/in\">\n  AuthType Basic\n  AuthName x\n  AuthUserFile \"{root}/conf/users\"\n  Require valid-user\n</Location>")
        .config(location("/asked", &format!("ws://{}\"\n  WebSocketAuthorize \"/denied", back_end.address)))
        .config("<Location \"/denied\">\n  Require all denied\n</Location>")
        .start();
    server.expect_log("WS0021");
    server.tolerate_log("AH01630: client denied by server configuration");
    server.expect_log("WS0063: refused with 403");
    server.expect_log("WS0022: This is not a WebSocket handshake: it is HTTP/1.0");
    for (handshake, status) in [
        (Handshake::new("/ws").header("Origin", "http://elsewhere.example"), 403),
        (Handshake::new("/ws").without("Sec-WebSocket-Key"), 400),
        (Handshake::new("/ws").with("Sec-WebSocket-Version", "12"), 400),
        (Handshake::new("/ws").method("POST").header("Content-Length", "0"), 400),
        (Handshake::new("/ws/in"), 401),
        (Handshake::new("/asked"), 403),
        (Handshake::page("/ws"), 404),
        (Handshake::new("/ws").version("HTTP/1.0"), 404),
    ] {
        let answer = Raw::answer(&server, &handshake);
        assert_eq!(answer.status, status, "{handshake:?}: {answer:?}");
    }
    assert!(back_end.heads().is_empty());
    let own = server.http_url("");
    close(Raw::open_with(&server, &Handshake::new("/ws").header("Origin", &own)));
    assert_eq!(line(&back_end.head(), "Origin"), Some(own.as_str()));
}

/// mod_proxy's answers, on a connection that goes on, and their pages.
#[test]
fn answers_that_are_no_upgrade() {
    let back_end = BackEnd::new(|head, conversation| match head.contains("/login") {
        true => conversation.say("HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nlogin"),
        false => conversation.reset(),
    });
    let url = format!("ws://{}", back_end.address);
    let nobody = crate::harness::port::Port::reserve();
    let server = proxying(Mpm::Event)
        .file("htdocs/gone.html", "the page for it")
        .config(format!(
            "<Location \"/\">\n  WebSocketHandler proxy {url}\n  ErrorDocument 502 /gone.html\n</Location>"
        ))
        .config(location("/nobody", &format!("ws://127.0.0.1:{}", nobody.number())))
        .start();
    server.expect_log("AH01102: error reading status line");
    server.tolerate_log("AH00898: Error reading from remote server");
    server.expect_log("AH01114: HTTP: failed to make connection to backend");
    server.tolerate_log("AH00957");
    let mut client = Raw::connect(&server);
    for _ in 0..2 {
        let answer = client.ask(&Handshake::new("/login"));
        assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, Some("Basic")));
        assert_eq!(answer.text(), "login");
    }
    let answer = Raw::answer(&server, &Handshake::new("/other"));
    assert_eq!((answer.status, answer.text().as_str()), (502, "the page for it"));
    assert_eq!(Raw::answer(&server, &Handshake::new("/nobody")).status, 503);
}

#[test]
fn only_httpds_configuration_says_where_to() {
    let server = proxying(Mpm::Event)
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>")
        .file("htdocs/a/.htaccess", "WebSocketHandler proxy ws://localhost:1\n")
        .start();
    server.expect_log(
        "WebSocketHandler: proxy opens a way to a server, which no .htaccess file may do: write this line into",
    );
    assert_eq!(Raw::answer(&server, &Handshake::new("/a/")).status, 500);
}

/// What is wrong is said when httpd starts, with what to write.
#[test]
fn faults_of_the_configuration() {
    let started = |modules: &[&str], lines: &str| {
        let httpd = modules.iter().fold(Httpd::new(Mpm::Event), |httpd, name| httpd.module(name));
        let (status, log) = httpd.config(lines).run_to_end();
        assert!(!status.success(), "{modules:?}: {log}");
        log
    };
    let plain = location("/ws", "ws://localhost:1/");
    let http = ["proxy", "proxy_http"];
    for (modules, lines, wanted) in [
        (&[][..], plain.clone(), "needs mod_proxy: write \"LoadModule proxy_module modules/mod_proxy.so\""),
        (&["proxy"], plain.clone(), "needs mod_proxy_http: write \"LoadModule proxy_http_module"),
        (&["proxy", "proxy_wstunnel"], plain, "needs mod_proxy_http: write"),
        (&http, location("/ws", "balancer://cluster/"), "needs mod_proxy_balancer: write"),
        (&http, location("/ws", "wss://localhost:1/"), "needs \"SSLProxyEngine On\""),
        (&http, location("/ws", "ws://localhost:1/?x"), "proxy: expected a URL without a query"),
        (
            &http,
            location("/ws", "localhost:1"),
            "proxy: expected a URL such as ws://host:8080/path, got \"localhost:1\"",
        ),
        (&http, location("/ws", "ws://a/\" \"b"), "expected one URL, such as ws://"),
    ] {
        let log = started(modules, &lines);
        assert!(log.contains(wanted), "{modules:?} {lines}: {log}");
    }
}

/// A restart must not end a server that runs: what is missing is said, and the handshake is refused.
#[test]
fn a_module_that_is_gone_after_a_restart() {
    let back_end = BackEnd::echo();
    let server = before(&back_end);
    echoes(&server, "/ws");
    let path = server.path("conf/httpd.conf");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let without: String =
        text.lines().filter(|line| !line.starts_with("LoadModule proxy")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, without).expect("the configuration");
    server.expect_log("WS0309: WebSocketHandler proxy needs mod_proxy");
    server.graceful();
    server.expect_log("WS0308: mod_proxy does not take this handshake to proxy:ws://");
    assert_eq!(Raw::answer(&server, &Handshake::new("/ws")).status, 500);
}

/// mod_proxy_wstunnel's own loop, where somebody insists on it.
#[test]
fn by_wstunnel() {
    let back_end = BackEnd::echo();
    let server = proxying(Mpm::Event)
        .module("proxy_wstunnel")
        .config("ProxyWebsocketFallbackToProxyHttp Off")
        .config(location("/ws", &format!("ws://{}/app", back_end.address)))
        .start();
    server.expect_log("WS0230: where ProxyWebsocketFallbackToProxyHttp is Off");
    echoes(&server, "/ws/room%20x?a");
    let head = back_end.head();
    assert!(head.starts_with("GET /app/room%20x?a HTTP/1.1\r\n"), "{head}");
    assert_eq!(line(&head, "Host"), Some(server.address().to_string().as_str()), "{head}");
}

/// A page and a socket may share a URL where pages come from mod_cache, whoever serves the socket.
#[test]
fn cached_pages() {
    let back_end = BackEnd::new(|head, conversation| match line(head, "Upgrade") {
        Some(_) => back_end::echo(head, conversation),
        None => conversation
            .say("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage"),
    });
    for quick in ["On", "Off"] {
        let server = ["cache", "socache_shmcb", "cache_socache"]
            .into_iter()
            .fold(proxying(Mpm::Event), Httpd::module)
            .config(format!(
                "CacheQuickHandler {quick}\nCacheEnable socache /\nCacheSocache shmcb:{{root}}/run/cache(1048576)\n\
                 CacheHeader On\nCacheIgnoreCacheControl On\nProxyPass \"/\" \"http://{}/\" upgrade=websocket",
                back_end.address
            ))
            .config(location("/app", &format!("ws://{}", back_end.address)))
            .start();
        for path in ["/app", "/other"] {
            let is_stored = || {
                let page = Raw::answer(&server, &Handshake::page(path).header("Connection", "close"));
                page.header("X-Cache").is_some_and(|said| said.starts_with("HIT"))
            };
            wait_until("the page is stored", PATIENCE, is_stored);
            echoes(&server, path);
            assert!(is_stored(), "{path}, {quick}");
        }
    }
}
