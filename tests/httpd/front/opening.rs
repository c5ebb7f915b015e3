//! The engine answers handshakes: a full location still gets 503 in the place of a 101, the access log says what happened, and
//! nothing reaches a client before its 101.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};

every_mpm!(the_log_and_the_headers_say_what_happened, nothing_comes_before_the_101);

/// Handlers that accept with a plain 101, and one session at a time of each; how the log tells of answers.
fn site(httpd: Httpd) -> Httpd {
    ["headers", "logio"].into_iter().fold(httpd, Httpd::module).config(
        "LogFormat \"%U %>s %b %O [%{X-Always}o] %{WS_SESSION}e\" opened\nCustomLog \"{root}/logs/opened.log\" opened\n\
         Header always set X-Always yes\nHeader onsuccess set X-Success yes\n\
         <Location \"/channel\">\n  WebSocketHandler channel news\n</Location>\n\
         <Location \"/exec\">\n  WebSocketHandler exec /bin/cat\n</Location>\n\
         <Location \"/echo\">\n  WebSocketHandler echo\n</Location>\n\
         <LocationMatch \"^/(echo|exec|channel)\">\n  WebSocketMaxConnectionsPerClient 1\n</LocationMatch>",
    )
}

/// The lines of the log for this path, without it: as many as are expected.
#[track_caller]
fn logged(server: &Server, path: &str, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let begin = format!("{path} ");
    wait_until("the answers are in the log", PATIENCE, || {
        let log = std::fs::read_to_string(server.path("logs/opened.log")).unwrap_or_default();
        lines = log.lines().filter_map(|line| line.strip_prefix(&begin)).map(str::to_owned).collect();
        lines.len() >= count
    });
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn the_log_and_the_headers_say_what_happened(mpm: Mpm) {
    for (httpd, sealed) in [(Httpd::new(mpm), 0), (Httpd::new(mpm).tls(), 22)] {
        let server = site(httpd).start();
        for path in ["/echo", "/exec", "/channel"] {
            let mut client = Raw::connect(&server).about(path);
            let answer = client.ask(&Handshake::new(path));
            answer.assert_accepted();
            for name in ["X-Always", "X-Success"] {
                assert_eq!(answer.all(name), ["yes"], "{answer:?}");
            }
            let head = answer.head;
            for (handshake, status) in
                [(Handshake::new(path), 503), (Handshake::new(path).without("Sec-WebSocket-Version"), 400)]
            {
                let refused = Raw::answer(&server, &handshake);
                assert_eq!((refused.status, refused.all("X-Always")), (status, vec!["yes"]), "{path}: {refused:?}");
                for name in ["Upgrade", "Sec-WebSocket-Accept", "X-Success"] {
                    assert_eq!(refused.all(name), [""; 0], "{path}: {refused:?}");
                }
                assert!(refused.text().contains("<h1>"), "{path}: a page of httpd: {refused:?}");
            }
            // The one that is opened may be told of last, since the engine has answered it.
            let mut lines = logged(&server, path, 3);
            lines.sort();
            let opened: Vec<&str> = lines[0].split(' ').collect();
            assert_eq!([opened[0], opened[1], opened[3], opened[4]], ["101", "-", "[yes]", "-"], "{path}: {lines:?}");
            let sent: usize = opened[2].parse().expect("a number of bytes");
            // With TLS there is its own handshake as well.
            assert!(
                if sealed == 0 { sent == head } else { sent > head + sealed },
                "{path}: {sent} bytes, of a head of {head}"
            );
            assert!(lines[1].starts_with("400 ") && lines[2].starts_with("503 "), "{path}: {lines:?}");
            if path == "/echo" {
                client.echo(&Frame::text("hello"));
            }
            client.close();
        }
    }
}

fn nothing_comes_before_the_101(mpm: Mpm) {
    for httpd in [Httpd::new(mpm), Httpd::new(mpm).tls()] {
        let server = httpd.echo().start();
        for early in [0, 1, 100] {
            let mut client = Raw::connect(&server).about(&format!("{early} messages"));
            let host = client.host();
            let frames: Vec<Frame> = (0..early).map(|number| Frame::text(format!("early {number}").as_str())).collect();
            let page = Handshake::page("/index.html").bytes(&host);
            let all = [page, Handshake::new("/echo").bytes(&host)].into_iter().chain(frames.iter().map(Frame::masked));
            client.write(&all.collect::<Vec<_>>().concat());
            let first = client.response(false);
            assert_eq!(first.status, 200, "{first:?}");
            client.response(false).assert_accepted();
            for frame in &frames {
                client.expect(frame);
            }
            client.echo(&Frame::text("late"));
            client.close();
        }
    }
}
