//! What httpd has refused stays refused, though it makes another request for the page that says so (ErrorDocument); and what
//! another module sends elsewhere goes there. Redirects that are no refusals go on to a socket, by the rules of where it is.

use crate::harness::plugin::{guards, rules};
use crate::harness::publish::post;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, tls};
use crate::tls::http2::Scenario;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

every_mpm!(over_http, over_tls, other_servers, logins_in_content_handlers);

const AS_ALICE: (&str, &str) = ("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=");
const LOGIN: &str = "AuthType Basic\nAuthName \"members\"\nAuthBasicProvider file\nAuthUserFile \"{root}/conf/users\"\n\
                     Require valid-user";

/// The handlers, each at a path of its own; the last one is for all of the server but for these paths.
const HANDLERS: [(&str, &str); 9] = [
    ("echo", "WebSocketHandler echo"),
    ("exec", "WebSocketHandler exec /bin/cat"),
    ("tcp", "WebSocketHandler tcp 127.0.0.1:{port}"),
    ("channel", "WebSocketHandler channel news"),
    ("plugin", "WebSocketHandler \"{rules}\" least_init"),
    ("python", "WebSocketHandler pywebsocket handlers"),
    ("publish", "WebSocketHandler Off\nSetHandler websocket-publish\nRequire local\nWebSocketPublishAccess Require"),
    ("forgotten", "WebSocketHandler Off\nSetHandler websocket-handler"),
    ("host", ""),
];

/// How a request to …/x is refused below each of them.
fn refusals(handler: &str) -> [(&'static str, u16, String); 8] {
    [
        ("login", 401, LOGIN.to_owned()),
        ("denied", 403, "Require all denied".to_owned()),
        ("address", 403, "Require ip 192.0.2.1".to_owned()),
        ("if", 403, "<If \"%{REQUEST_URI} =~ m#/x$#\">\n  Require all denied\n</If>".to_owned()),
        ("rewritten", 403, "RewriteEngine On\nRewriteRule /x$ - [F]".to_owned()),
        ("gone", 404, "RewriteEngine On\nRewriteRule /x$ - [R=404]".to_owned()),
        ("busy", 503, format!("</Location>\nRedirect 503 \"/{handler}/busy/x\"\n<Location \"/{handler}/busy\">")),
        // This one is ours: the site is not the one that the request comes from.
        ("origin", 403, "WebSocketTrustedOrigin http://never.example\nWebSocketOriginCheck Trusted".to_owned()),
    ]
}

/// All of that, with a page for each refusal at the place itself; and redirects that are none.
fn site(httpd: Httpd, mpm: Mpm) -> Httpd {
    let modules = ["rewrite", "authz_host", "dir", "mime", "negotiation", "actions"];
    let mut httpd = modules.into_iter().fold(httpd, Httpd::module).login().cgi().python_handlers().workers(match mpm {
        Mpm::Prefork => 6,
        Mpm::Event | Mpm::Worker => 12,
    });
    let rules = rules().display().to_string();
    httpd = httpd.config("KeepAlive On\nMaxKeepAliveRequests 0\nWebSocketHandler echo");
    for (handler, lines) in HANDLERS {
        httpd = httpd.config(format!("<Location \"/{handler}\">\n{}\n</Location>", lines.replace("{rules}", &rules)));
        for (place, status, lines) in refusals(handler) {
            let page = format!("/{handler}/{place}/page.html");
            httpd = httpd.file(&format!("htdocs{page}"), format!("{status} of {place} at {handler}")).config(
                // For the whole server they stand outside of it.
                match handler {
                    "host" => format!("<Location \"/host/{place}\">\n{lines}\n</Location>"),
                    _ => format!(
                        "<Location \"/{handler}/{place}\">\nErrorDocument {status} {page}\n{lines}\n</Location>"
                    ),
                },
            );
        }
    }
    for status in [401, 403, 404, 503] {
        let page = format!("/pages/{status}.html");
        httpd = httpd
            .config(format!("ErrorDocument {status} {page}"))
            .file(&format!("htdocs{page}"), format!("a {status}"));
    }
    let echo = include_str!("../wsh/echo_wsh.py");
    redirects(httpd.file("handlers/python/login/x_wsh.py", echo))
}

/// Ways to /echo/login/x, or to an echo behind the same login.
const REDIRECTS: [&str; 7] = [
    "/rewritten/login",
    "/htaccess/login",
    "/index/",
    "/fallback/nothing",
    "/action",
    "/cgi-bin/redirect",
    "/views/socket",
];

fn redirects(httpd: Httpd) -> Httpd {
    let rules = "RewriteEngine On\nRewriteRule ^login$ /echo/login/x\nRewriteRule ^guarded$ /guard/x\n\
                 RewriteRule ^page$ /login.html\nRewriteRule ^stays$ - [E=it:stays]\n";
    let echoes = ["/index/socket.html", "/fallback/socket.html", "/views/socket.html"];
    let httpd = echoes.into_iter().fold(httpd, |httpd, path| {
        httpd
            .file(&format!("htdocs{path}"), "a page beside a socket")
            .config(format!("<Location \"{path}\">\n  WebSocketHandler echo\n  {LOGIN}\n</Location>"))
    });
    httpd
        .file("htdocs/login.html", "who are you?")
        .file("htdocs/rewritten/file", "")
        .file("htdocs/htaccess/.htaccess", rules)
        .file("conf/mime.types", "text/html html\n")
        .program("cgi-bin/redirect", "#!/bin/sh\nprintf 'Location: /echo/login/x\\n\\n'\n")
        .config("TypesConfig conf/mime.types\nAction talk /echo/login virtual")
        .config(format!("<Directory \"{{root}}/htdocs/rewritten\">\n{rules}</Directory>"))
        .config("<Directory \"{root}/htdocs/htaccess\">\n  AllowOverride FileInfo\n</Directory>")
        .config("<Location \"/guard\">\n  Require all denied\n</Location>\n<Location \"/login.html\">\n  WebSocketHandler Off\n</Location>")
        .config("<Directory \"{root}/htdocs/index\">\n  DirectoryIndex socket.html\n</Directory>")
        .config("<Directory \"{root}/htdocs/fallback\">\n  FallbackResource /fallback/socket.html\n</Directory>")
        .config("<Directory \"{root}/htdocs/views\">\n  Options +MultiViews\n</Directory>")
        .config("<LocationMatch \"^/(action|cgi-bin|index/$|fallback/nothing|views/socket$)\">\n  WebSocketHandler Off\n</LocationMatch>")
        .config("<Location \"/action\">\n  SetHandler talk\n</Location>")
}

fn over_http(mpm: Mpm) {
    let server = site(Httpd::new(mpm), mpm).start();
    try_all(&server, &|| Raw::connect(&server));
    server.stop();
}

fn over_tls(mpm: Mpm) {
    let httpd = Httpd::new(mpm);
    let server = site(if mpm == Mpm::Prefork { httpd.tls() } else { httpd.http2() }, mpm).start();
    for version in [&TLS12, &TLS13] {
        let config = tls::client(server.root(), &[version], false);
        try_all(&server, &|| Raw::connect_by(&server, Some(&config)));
    }
    if mpm != Mpm::Prefork {
        try_http2(&server);
    }
    server.stop();
}

/// Every refusal at every handler: the status and the body that are right.
fn expected() -> Vec<(String, u16, String)> {
    let at = |handler: &'static str| {
        refusals(handler).into_iter().map(move |(place, status, _)| {
            let page =
                if handler == "host" { format!("a {status}") } else { format!("{status} of {place} at {handler}") };
            (format!("/{handler}/{place}/x"), status, page)
        })
    };
    HANDLERS.into_iter().flat_map(|(handler, _)| at(handler)).collect()
}

fn announce(server: &Server) {
    server.tolerate_log("AH01630: client denied by server configuration");
    server.tolerate_log("WS0278");
    server.tolerate_log("WS0021: The Origin \"http://elsewhere.example\"");
    server.tolerate_log("AH00687: Negotiation: discovered file(s) matching request");
    server.tolerate_log("WS0012: SetHandler websocket-handler needs a WebSocketHandler");
}

#[track_caller]
fn assert_refused(response: &Response, what: &str, status: u16, page: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, page), "{what}: {response:?}");
    let challenge = (status == 401).then_some("Basic realm=\"members\"");
    assert_eq!(response.header("WWW-Authenticate"), challenge, "{what}");
    for name in ["Sec-WebSocket-Accept", "Cache-Control"] {
        assert_eq!(response.header(name), None, "{what}");
    }
}

fn sessions(server: &Server) -> usize {
    server.error_log().matches(" begins: ").count()
}

fn try_all(server: &Server, connect: &dyn Fn() -> Raw) {
    announce(server);
    let before = sessions(server);
    let mut client = connect();
    for (path, status, page) in expected() {
        let mut handshake = Handshake::new(&path);
        if path.contains("/origin/") {
            handshake = handshake.header("Origin", "http://elsewhere.example");
        }
        let requests = [
            ("a handshake", handshake),
            ("a page", Handshake::page(&format!("{path}?channel=news"))),
            ("a post", Handshake::page(&format!("{path}?channel=news")).method("POST").header("Content-Length", "0")),
        ];
        for (what, request) in requests {
            // Where a handshake is what we refuse, others are served.
            if path.contains("/origin/") && what != "a handshake" {
                continue;
            }
            let response = client.ask(&request);
            assert_refused(&response, &format!("{what} to {path}"), status, &page);
            // httpd itself ends the connection after a 503.
            if status == 503 {
                client = connect();
            }
        }
    }
    assert_eq!(sessions(server), before, "no session has begun: {}", server.error_log());
    // All of these work, when nothing is refused.
    for (handler, _) in HANDLERS {
        let path = format!("/{handler}/login/x");
        let handshake = Handshake::new(&path).header(AS_ALICE.0, AS_ALICE.1);
        let expected = match handler {
            "publish" => 200,
            "forgotten" => 500,
            _ => 101,
        };
        let mut client = connect().about(&path);
        assert_eq!(client.ask(&handshake).status, expected, "{path}");
        if matches!(handler, "echo" | "plugin" | "host") {
            client.echo(&Frame::text(&*path));
            client.close();
        }
    }
    try_redirects(connect);
}

fn try_redirects(connect: &dyn Fn() -> Raw) {
    for path in REDIRECTS {
        let handshake = Handshake::new(path);
        let nobody = connect().ask(&handshake);
        // As for pages: mod_negotiation does not see what is refused, and mod_dir drops the header lines of the refusal.
        assert_eq!(nobody.status, if path == "/views/socket" { 404 } else { 401 }, "{path}: {nobody:?}");
        let is_direct = path != "/views/socket" && path != "/fallback/nothing";
        let challenge = is_direct.then_some("Basic realm=\"members\"");
        assert_eq!(nobody.header("WWW-Authenticate"), challenge, "{path}");
        let mut alice = connect().about(path);
        let response = alice.ask(&handshake.header(AS_ALICE.0, AS_ALICE.1));
        assert_eq!(response.status, 101, "{path}: {response:?}");
        alice.echo(&Frame::text(path));
        alice.close();
    }
    for folder in ["/rewritten", "/htaccess"] {
        // As a page is answered, so is a handshake.
        for request in [Handshake::page, Handshake::new] {
            let mut client = connect();
            let guarded = client.ask(&request(&format!("{folder}/guarded")));
            assert_refused(&guarded, folder, 403, "a 403");
            let page = client.ask(&request(&format!("{folder}/page")));
            assert_refused(&page, folder, 200, "who are you?");
        }
        let mut client = connect();
        client.ask(&Handshake::new(&format!("{folder}/stays"))).assert_accepted();
        client.echo(&Frame::text("not rewritten"));
        client.close();
    }
}

fn try_http2(server: &Server) {
    let before = sessions(server);
    Scenario::start_with(server, "refused", &json!(expected()).to_string()).ends_well();
    assert_eq!(sessions(server), before, "no session has begun: {}", server.error_log());
    let handlers =
        HANDLERS.iter().map(|(handler, _)| *handler).filter(|handler| !["publish", "forgotten"].contains(handler));
    let login = handlers.map(|handler| format!("/{handler}/login/x")).chain(REDIRECTS.map(str::to_owned));
    let login: Vec<String> = login.collect();
    Scenario::start_with(server, "login", &json!(login).to_string()).ends_well();
}

/// Answers each connection with a page, for ever.
fn another_server(page: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("httpd");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.push(byte[0]);
            }
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", page.len());
            stream.write_all(format!("{head}{page}").as_bytes()).expect("httpd takes it");
        }
    });
    address
}

/// A handler at an address is an exception to what `ProxyPass` says of all of the site; what a rule in a directory says of a
/// request is one to the handler; and the address on another server is not ours, of which a forward proxy is told.
fn other_servers(mpm: Mpm) {
    let elsewhere = another_server("elsewhere");
    let rules = format!("RewriteEngine On\nRewriteRule /late/x$ http://{elsewhere}/ [P]");
    let server = ["rewrite", "proxy", "proxy_http"]
        .into_iter()
        .fold(Httpd::new(mpm), Httpd::module)
        .config(format!("LoadModule firewall_module \"{}\"", guards().display()))
        .config("ProxyRequests On\n<Location \"/early/socket\">\n  WebSocketHandler echo\n</Location>")
        .config(format!("ProxyPass \"/early\" \"http://{elsewhere}/\"\nRewriteEngine On"))
        .config(format!("RewriteRule \"^/rule/\" \"http://{elsewhere}/\" [P]"))
        .config("<Location \"/rule/socket\">\n  WebSocketHandler echo\n</Location>")
        .config(format!("<Location \"/late\">\n  WebSocketHandler echo\n{rules}\n</Location>"))
        .module("authz_host")
        .config("<Location \"/early/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .config("<LocationMatch \"^http:\">\n  WebSocketHandler echo\n</LocationMatch>")
        .start();
    for path in ["/early/socket", "/rule/socket", "/late/y"] {
        let mut client = Raw::open(&server, path).about(path);
        client.echo(&Frame::text(path));
        client.close();
    }
    assert_eq!(post(&server, "/early/publish?channel=news", "text/plain", b"hello").status, 202);
    for header in ["X-Away-When-Read", "X-Away-When-Authorized"] {
        let response = Raw::answer(&server, &Handshake::new("/late/y").header(header, &format!("http://{elsewhere}/")));
        assert_eq!((response.status, response.text().as_str()), (200, "elsewhere"), "{header}: {response:?}");
    }
    let foreign = format!("http://{elsewhere}/late/y");
    for path in ["/early/page", "/rule/page", "/late/x", &foreign] {
        for request in [Handshake::page, Handshake::new] {
            let response = Raw::answer(&server, &request(path));
            assert_eq!((response.status, response.text().as_str()), (200, "elsewhere"), "{path}: {response:?}");
        }
    }
}

fn logins_in_content_handlers(mpm: Mpm) {
    let modules = guards().display();
    let location = |path: &str, auth: &str, handler: &str| {
        format!("<Location \"/{path}\">\n  AuthType {auth}\n  Require valid-user\n  {handler}\n</Location>")
    };
    let mut httpd = ["authn_core", "authz_user"].into_iter().fold(Httpd::new(mpm), Httpd::module);
    for name in ["openidc", "mellon"] {
        httpd = httpd.config(format!("LoadModule auth_{name}_module \"{modules}\""));
    }
    for auth in ["openid-connect", "mellon"] {
        httpd = httpd.config(location(auth, auth, "WebSocketHandler echo")).config(location(
            &format!("{auth}/publish"),
            auth,
            "SetHandler websocket-publish\n  WebSocketHandler Off",
        ));
    }
    let server = httpd.start();
    for auth in ["openid-connect", "mellon"] {
        for path in [format!("/{auth}/x"), format!("/{auth}/publish?channel=news")] {
            let response = Raw::answer(&server, &Handshake::new(&path).with("Connection", "Upgrade, close"));
            assert_eq!((response.status, response.text()), (200, format!("log in by {auth}")), "{path}");
        }
        let handshake = Handshake::new(&format!("/{auth}/x")).header("Cookie", "session=1");
        let mut client = Raw::open_with(&server, &handshake);
        client.echo(&Frame::text("logged in"));
        client.close();
    }
}
