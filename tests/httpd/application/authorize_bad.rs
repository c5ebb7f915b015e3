//! Applications that answer as they should not: nothing is opened, no error page is taken for more than a refusal, and the log says
//! what was wrong.

use super::{APP, encode, saying};
use crate::harness::php::Fpm;
use crate::harness::{Handshake, Httpd, Mpm, Raw};

#[test]
fn what_is_not_understood_opens_nothing() {
    let fpm = Fpm::start(2);
    let program = |text: &str| format!("#!/bin/sh\n{text}\n");
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .cgi()
        .module("authz_host")
        .file("htdocs/app.php", APP)
        .file("htdocs/closed/app.php", APP)
        .program("cgi-bin/nothing", &program(":"))
        .program("cgi-bin/text", &program("echo no headers here"))
        .program("cgi-bin/redirects", &program("printf 'Location: /app.php\\r\\n\\r\\n'"))
        .program("cgi-bin/nph-raw", &program("printf 'HTTP/1.1 200 OK\\r\\n\\r\\n'"))
        .config(fpm.config())
        .config("<Location \"/closed\">\nRequire all denied\n</Location>")
        .config(
            ["app.php?q=%{QUERY_STRING}", "closed/app.php", "missing.php", "missing.html"]
                .into_iter()
                .chain(["cgi-bin/nothing", "cgi-bin/text", "cgi-bin/redirects", "cgi-bin/nph-raw"])
                .map(|url| {
                    let place = url.split('?').next().unwrap_or_default();
                    format!(
                        "<Location \"/by/{place}\">\nWebSocketHandler channel lobby\nWebSocketChannelMax 2\n\
                         WebSocketAuthorize \"/{url}\"\n</Location>\n"
                    )
                })
                .collect::<String>(),
        )
        .start();
    for id in ["WS0015", "WS0062", "WS0063", "WS0064"] {
        server.expect_log(id);
    }
    for text in [
        "malformed header",
        "End of script output",
        "script not found",
        "AH01071",
        "AH01070",
        "Primary script unknown",
        "AH01630",
    ] {
        server.tolerate_log(text);
    }
    for text in ["AH01215", "AH02811", "AH01075"] {
        server.tolerate_log(text);
    }

    let by_app = |query: &str| {
        let mut client = Raw::connect(&server).about(query);
        client.ask(&Handshake::new(&format!("/by/app.php?{query}")).header("Sec-WebSocket-Protocol", "chat"))
    };
    assert_eq!(by_app("x=1").status, 101);
    let long = format!("WebSocket-Channel: {}", "x".repeat(1025));
    for line in [
        "WebSocket-Channel: a b",
        "WebSocket-Channel: %00",
        "WebSocket-Channel:",
        "WebSocket-Channel: a, b, c",
        long.as_str(),
        "Grip-Channel: a; filter=skip-self",
        "WebSocket-Allow: a b",
        "WebSocket-Rights: admin",
        "WebSocket-User: a, b",
        "WebSocket-Recheck: 1",
        "WebSocket-Expires: never",
        "WebSocket-Close: 1006",
        "WebSocket-Chanel: a",
        "Set-Meta-: a",
        "Sec-WebSocket-Protocol: superchat",
        "Sec-WebSocket-Protocol: chat, superchat",
    ] {
        let answer = by_app(&saying(&[line]));
        assert_eq!((answer.status, answer.header("Sec-WebSocket-Accept")), (500, None), "{line}: {}", answer.text());
    }
    let many: Vec<String> = (0..33).map(|number| format!("Set-Meta-N{number}: x")).collect();
    assert_eq!(by_app(&saying(&many.iter().map(String::as_str).collect::<Vec<_>>())).status, 500);

    // A page of a broken application is the answer to the handshake, and nothing more.
    let page = "<h1>Fatal error</h1>";
    let failed = by_app(&format!("status=500&{}&body={}", saying(&["WebSocket-User: ann"]), encode(page)));
    assert_eq!((failed.status, failed.text().as_str(), failed.header("WebSocket-User")), (500, page, None));
    // What is no answer of HTTP's to a question.
    for status in [101, 103] {
        assert_eq!(by_app(&format!("status={status}")).status, 502, "{status}");
    }
    // httpd takes no line of a program's head that is longer than 8 KiB, and then nothing of it; other lines may be many.
    assert_eq!((by_app("line=8000").status, by_app("line=9000").status), (101, 500));
    // A long page is not kept whole, and a longer one is none.
    assert_eq!(by_app("bytes=200000").status, 101);
    let long = by_app("status=403&bytes=200000");
    assert_eq!((long.status, long.body.len()), (403, 0));
    let short = by_app("status=403&bytes=65536");
    assert_eq!((short.status, short.body.len()), (403, 65536));
    assert_eq!(by_app("bytes=2000000").status, 502);

    for (place, status) in [
        ("closed/app.php", 403),
        ("missing.php", 404),
        ("missing.html", 404),
        ("cgi-bin/nothing", 500),
        ("cgi-bin/text", 500),
        ("cgi-bin/nph-raw", 403),
    ] {
        let answer = Raw::answer(&server, &Handshake::new(&format!("/by/{place}")));
        assert_eq!(answer.status, status, "{place}: {answer:?}");
        assert_eq!(answer.header("Sec-WebSocket-Accept"), None, "{place}");
    }
    // A program that sends its client to another page has not said yes, though httpd has looked that page up and it would.
    let answer = Raw::answer(&server, &Handshake::new("/by/cgi-bin/redirects"));
    assert_eq!((answer.status, answer.header("Location")), (302, Some("/app.php")), "{answer:?}");
}

/// It comes too late, or not at all.
#[test]
fn who_is_late_or_gone() {
    let fpm = Fpm::start(1);
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .file("htdocs/app.php", APP)
        .file("htdocs/gone/app.php", APP)
        .config(fpm.config())
        .config("<Proxy \"fcgi://localhost\">\nProxySet timeout=1\n</Proxy>\nProxyTimeout 1")
        .config("<Directory \"{root}/htdocs/gone\">\n<FilesMatch \"\\.php$\">\nSetHandler \"proxy:unix:{root}/run/gone|fcgi://gone\"\n</FilesMatch>\n</Directory>")
        .config("<Location \"/late\">\nWebSocketHandler echo\nWebSocketAuthorize /app.php?q=%{QUERY_STRING}\n</Location>")
        .config("<Location \"/gone\">\nWebSocketHandler echo\nWebSocketAuthorize /gone/app.php\n</Location>")
        .start();
    for text in ["WS0064", "AH01075", "AH02454"] {
        server.expect_log(text);
    }
    for text in ["AH01079", "AH01068", "AH01067"] {
        server.tolerate_log(text);
    }
    assert_eq!(Raw::answer(&server, &Handshake::new("/gone")).status, 503);
    assert_eq!(Raw::answer(&server, &Handshake::new("/late?sleep=0")).status, 101);
    assert_eq!(Raw::answer(&server, &Handshake::new("/late?sleep=4")).status, 504);
}
