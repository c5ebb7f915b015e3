//! Channels: who is subscribed to what, publishing, the way back, httpd's rules in front.

use super::httpd;
use crate::harness::channel::{said, subscribe};
use crate::harness::publish::{json, post, publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

every_mpm!(what_is_published_arrives, a_client_goes_on_where_it_was, a_killed_engine_begins_a_new_epoch);

fn status(server: &Server, method: &str, path: &str) -> Response {
    Raw::answer(server, &Handshake::page(path).method(method).version("HTTP/1.0"))
}

fn what_is_published_arrives(mpm: Mpm) {
    let server = httpd(mpm).start();
    assert_eq!(publish(&server, "news", "nobody").1, 0);
    let mut client = subscribe(&server, &Handshake::new("/news"), "news");
    let (first, given) = publish(&server, "news", "caf\u{e9}");
    assert_eq!(given, 1);
    client.expect(&Frame::text("caf\u{e9}"));
    for (content_type, query, body, frame) in [
        ("application/octet-stream", "", &b"abc"[..], Frame::binary("abc")),
        ("text/plain", "", b"\xff", Frame::binary(b"\xff")),
        ("text/plain", "&type=binary", b"abc", Frame::binary("abc")),
        ("image/png", "&type=text", b"abc", Frame::text("abc")),
        ("application/json", "", b"", Frame::text("")),
    ] {
        let response = post(&server, &format!("/publish?channel=news{query}"), content_type, body);
        assert_eq!(response.status, 201, "{content_type}{query}");
        client.expect(&frame);
    }
    let large = vec![b'x'; 1 << 20];
    assert_eq!(post(&server, "/publish?channel=news", "text/plain", &large).status, 201);
    client.expect(&Frame::text(large));

    let info = json(&Raw::page(&server, "/publish?channel=news"));
    assert_eq!((&info["subscribers"], &info["messages"]), (&json!(1), &json!(8)));
    let last = info["last_id"].as_str().expect("an id");
    assert_eq!(first.split_once(':').map(|id| id.0), last.split_once(':').map(|id| id.0), "one epoch");
    post(&server, "/publish?channel=other&channel=news&channel=other", "text/plain", b"both");
    client.expect(&Frame::text("both"));
    let list = json(&Raw::page(&server, "/publish?prefix=o"));
    assert_eq!((list["channels"].as_array().map(Vec::len), &list["next"]), (Some(1), &Value::Null));
    let list = json(&Raw::page(&server, "/publish?limit=1"));
    assert_eq!((&list["channels"][0]["channel"], &list["next"]), (&json!("news"), &json!("news")));
    let list = json(&Raw::page(&server, "/publish?limit=1&after=news"));
    assert_eq!((&list["channels"][0]["messages"], &list["next"]), (&json!(1), &Value::Null));

    let deleted = status(&server, "DELETE", "/publish?channel=news&code=4321&reason=over");
    assert_eq!((deleted.status, &json(&deleted)["news"]["subscribers"]), (200, &json!(1)));
    let close = client.frame();
    assert_eq!(close, Frame::close(4321, "over"));
    client.send(&close);
    client.expect_end();
    wait_until("nobody is left", PATIENCE, || subscribers(&server, "news") == 0);
    assert_eq!(status(&server, "DELETE", "/publish?channel=never").status, 404);
}

#[test]
fn what_cannot_be_published_is_refused() {
    let server = httpd(Mpm::Event).start();
    let refused = |method: &str, path: &str| {
        let response = status(&server, method, path);
        assert!(json(&response)["error"].is_string(), "{response:?}");
        response.status
    };
    assert_eq!(refused("POST", "/publish"), 400);
    assert_eq!(refused("POST", "/publish?channel="), 400);
    assert_eq!(refused("POST", "/publish?channel=a+b"), 400);
    assert_eq!(refused("POST", "/publish?channel=%ff"), 400);
    assert_eq!(refused("POST", &format!("/publish?channel={}", "x".repeat(1025))), 400);
    assert_eq!(
        refused("POST", &format!("/publish?{}", (0..256).map(|n| format!("channel={n}&")).collect::<String>())),
        400
    );
    assert_eq!(refused("POST", "/publish?channel=a&type=other"), 400);
    assert_eq!(refused("GET", "/publish?channel=a"), 404);
    assert_eq!(refused("GET", "/publish?channel=a&channel=b"), 400);
    assert_eq!(refused("GET", "/publish?limit=0"), 400);
    assert_eq!(refused("DELETE", "/publish"), 400);
    assert_eq!(refused("DELETE", "/publish?channel=a&code=1006"), 400);
    assert_eq!(refused("DELETE", &format!("/publish?channel=a&reason={}", "x".repeat(124))), 400);
    let other = status(&server, "PATCH", "/publish?channel=a");
    assert_eq!((other.status, other.header("Allow")), (405, Some("GET, HEAD, POST, PUT, DELETE, OPTIONS")));
    assert_eq!(status(&server, "OPTIONS", "/publish").status, 200);
    assert_eq!(status(&server, "PUT", "/publish?channel=a").status, 202);
    assert_eq!(post(&server, "/publish?channel=a", "text/plain", &vec![b'x'; (1 << 20) + 1]).status, 413);
    assert_eq!(post(&server, "/publish?channel=a&type=text", "text/plain", b"\xff").status, 400);
}

#[test]
fn names_are_worked_out_by_httpd() {
    let server = httpd(Mpm::Event)
        .config("<Location \"/room\">\n  WebSocketHandler channel \"room/%{QUERY_STRING} all\"\n</Location>")
        .config("<LocationMatch \"^/of/(?<NAME>.*)$\">\n  WebSocketHandler channel %{env:MATCH_NAME}\n</LocationMatch>")
        .config("<Location \"/many\">\n  WebSocketHandler channel a b c\n  WebSocketChannelMax 2\n</Location>")
        .start();
    let long = format!("of/{}", "x".repeat(1021));
    for (path, channel, published) in [
        ("/room?1", "room/1", "room/1"),
        ("/room?caf%C3%A9%2Fx&last_event_id=e:1", "room/café/x", "room%2Fcaf%C3%A9%2Fx"),
        ("/room?a%26b%3D%2B", "room/a&b=+", "room%2Fa%26b%3D%2B"),
        ("/of/a/b/caf%C3%A9", "a/b/café", "a%2Fb%2Fcaf%C3%A9"),
        (&format!("/of/{}", &long[3..]), &long[3..], &long[3..]),
        ("/room?2", "all", "all"),
    ] {
        let mut client = Raw::open(&server, path);
        wait_until("it is subscribed", PATIENCE, || subscribers(&server, published) == 1);
        let response = post(&server, &format!("/publish?channel={published}"), "text/plain", b"hello");
        assert_eq!((response.status, json(&response)[channel]["subscribers"].as_u64()), (201, Some(1)), "{path}");
        client.expect(&Frame::text("hello"));
        client.close();
        wait_until("it has gone", PATIENCE, || subscribers(&server, published) == 0);
    }
    for (path, status) in [
        ("/of/", 403),
        ("/of/a%20all", 400),
        ("/room?a%20all", 400),
        ("/room?a%0Ab", 400),
        ("/room?%00", 400),
        ("/room?%ff", 400),
        (&format!("/of/{}", "x".repeat(1025)), 400),
        ("/many", 400),
    ] {
        assert_eq!(Raw::answer(&server, &Handshake::new(path)).status, status, "{path}");
    }
}

#[test]
fn the_rules_of_httpd_hold_for_both() {
    let server = httpd(Mpm::Event)
        .login()
        .module("remoteip")
        .config("RemoteIPHeader X-Client")
        .config(
            "<LocationMatch \"^/(private|post)$\">\n  AuthType Basic\n  AuthName x\n  AuthUserFile \"{root}/conf/users\"\n</LocationMatch>\n<Location \"/private\">\n  Require user alice\n  \
             WebSocketHandler channel \"user/%{REMOTE_USER}\"\n</Location>\n<Location \"/post\">\n  Require user alice\n  \
             SetHandler websocket-publish\n  WebSocketPublishAccess Require\n</Location>\n<Location \"/open\">\n  SetHandler websocket-publish\n</Location>\n\
             <Location \"/nobody\">\n  WebSocketHandler channel x\n  Require all denied\n</Location>",
        )
        .start();
    server.expect_log("WS0035: refused: only this machine may publish here");
    server.expect_log("AH01630: client denied by server configuration");
    let alice = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
    assert_eq!(Raw::answer(&server, &Handshake::new("/private")).status, 401);
    assert_eq!(Raw::answer(&server, &Handshake::new("/nobody")).status, 403);
    assert_eq!(post(&server, "/post?channel=a", "text/plain", b"").status, 401);
    let mut client = Raw::open_with(&server, &Handshake::new("/private").header("Authorization", alice));
    wait_until("she is subscribed", PATIENCE, || subscribers(&server, "user/alice") == 1);
    // From elsewhere: let in where a rule says so, and nowhere else.
    let from = |path: &str, address: &str, authorization: &str| {
        let request = Handshake::page(path).method("POST").version("HTTP/1.0").header("X-Client", address);
        let request = request.header("Content-Length", "0").header("Authorization", authorization);
        Raw::answer(&server, &request).status
    };
    assert_eq!(from("/post?channel=user/alice", "198.51.100.7", alice), 201);
    client.expect(&Frame::text(""));
    assert_eq!(from("/post?channel=user/alice", "198.51.100.7", "Basic eDp5"), 401);
    assert_eq!(from("/open?channel=a", "198.51.100.7", alice), 403);
    assert_eq!(from("/open?channel=a", "::1", alice), 403);
    assert_eq!(post(&server, "/open?channel=a", "text/plain", b"").status, 202);
    assert_eq!(from("/publish?channel=a", "198.51.100.7", alice), 403);
    // What httpd says of a wrong password.
    server.expect_log("AH01618: user x not found");
    client.close();
}

#[test]
fn a_wrong_configuration_is_explained() {
    for (line, text) in [
        ("WebSocketHandler channel", "expected the names of channels"),
        ("WebSocketHandler channel \"%{QUERY_STRING\"", "is not an expression"),
        ("WebSocketChannelAllow room/%{nothing:x}*", "is not an expression"),
        ("WebSocketChannelHistory 10", "as 10 3600"),
        ("WebSocketChannelHistory -1 5", "as 10 3600"),
        ("WebSocketChannelMax 0", "from 1"),
        ("WebSocketChannelPublish yes", "expected On or Off"),
        ("WebSocketHistoryMemory much", "expected a number of bytes"),
    ] {
        let httpd = Httpd::new(Mpm::Event).config(line);
        let output = httpd.check();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{line}");
        assert!(
            stderr.contains(&format!("line {} ", httpd.line_of(line))) && stderr.contains(text),
            "{line}: {stderr}"
        );
    }
}

fn resume(server: &Server, id: &str) -> (Raw, Option<String>) {
    let mut client = Raw::connect(server);
    let answer = client.ask(&Handshake::new(&format!("/news?last_event_id={id}")));
    answer.assert_accepted();
    let recovered = answer.header("WebSocket-Recovered").map(str::to_owned);
    (client, recovered)
}

fn a_client_goes_on_where_it_was(mpm: Mpm) {
    let server = httpd(mpm).start();
    let ids: Vec<String> = (0..12).map(|n| publish(&server, "news", &n.to_string()).0).collect();
    let (mut client, recovered) = resume(&server, &ids[8]);
    assert_eq!(recovered.as_deref(), Some("true"));
    ["9", "10", "11"].into_iter().for_each(|text| client.expect(&Frame::text(text)));
    // Ten are kept: the second is the last that is not.
    assert_eq!(resume(&server, &ids[1]).1.as_deref(), Some("true"));
    let (mut client, recovered) = resume(&server, &ids[0]);
    assert_eq!(recovered.as_deref(), Some("false"));
    (2..12).for_each(|n| client.expect(&Frame::text(n.to_string())));
    for id in ["elsewhere:3", "rubbish", "%20"] {
        assert_eq!(resume(&server, id).1.as_deref(), Some("false"), "{id}");
    }
    let (mut client, recovered) = resume(&server, "*");
    assert_eq!(recovered, None);
    client.expect(&Frame::text("2"));
    let mut client = Raw::connect(&server);
    let answer = client.ask(&Handshake::new("/news").header("Last-Event-ID", &ids[10]));
    assert_eq!(answer.header("WebSocket-Recovered"), Some("true"));
    client.expect(&Frame::text("11"));
}

fn a_killed_engine_begins_a_new_epoch(mpm: Mpm) {
    let server = httpd(mpm).start();
    let (id, _) = publish(&server, "news", "lost");
    let engine = server.engine();
    server.expect_log("WS0201: the engine process");
    engine.signal(Signal::KILL);
    wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|new| *new != engine));
    let (mut client, recovered) = resume(&server, &id);
    assert_eq!(recovered.as_deref(), Some("false"));
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "news") == 1);
    publish(&server, "news", "new");
    client.expect(&Frame::text("new"));
}

#[test]
fn nothing_is_missed_while_messages_arrive() {
    let server = httpd(Mpm::Event).config("WebSocketChannelHistory 100000 3600").start();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                publish(&server, "news", &number.to_string());
                number += 1;
            }
            number
        });
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut last, mut next) = ("*".to_owned(), 0);
                    for _ in 0..50 {
                        let mut client = Raw::connect(&server);
                        let handshake = Handshake::new(&format!("/news?last_event_id={last}"));
                        client.ask(&handshake.header("Sec-WebSocket-Protocol", "ws+meta.nchan")).assert_accepted();
                        for _ in 0..5 {
                            let text = String::from_utf8(client.frame().payload).expect("UTF-8");
                            let (head, body) = text.split_once("\n\n").expect("nchan's lines");
                            last =
                                head.lines().next().and_then(|line| line.strip_prefix("id: ")).expect("an id").into();
                            assert_eq!(body, next.to_string());
                            next += 1;
                        }
                    }
                    next
                })
            })
            .collect();
        let read: Vec<usize> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(read, [250; 4]);
        assert!(publisher.join().expect("the publisher") >= 250);
    });
}

#[test]
fn a_live_socket_subscribes_publishes_and_sees_who_is_there() {
    let server = httpd(Mpm::Event)
        .login()
        .config(
            "<Location \"/chat\">\n  WebSocketHandler channel lobby\n  WebSocketChannelAllow \"room/*\" \"of/%{REMOTE_USER}/*\" \"%{QUERY_STRING}*\"\n  \
             WebSocketChannelPublish On\n  WebSocketChannelPresence On\n  AuthType Basic\n  AuthName x\n  \
             AuthUserFile \"{root}/conf/users\"\n  Require user alice\n</Location>\n\
             <Location \"/guest\">\n  WebSocketHandler channel lobby\n  WebSocketChannelMember \"guest-%{QUERY_STRING}\"\n</Location>",
        )
        .start();
    let handshake = Handshake::new("/chat").header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=");
    let mut alice = Raw::connect(&server);
    let answer = alice.ask(&handshake.header("Sec-WebSocket-Protocol", "ws+meta.nchan, channels.v1"));
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("channels.v1"));
    assert_eq!(said(&mut alice)["channel"], "lobby");
    let mut ask = |request: Value| {
        alice.send(&Frame::text(request.to_string()));
        said(&mut alice)
    };
    assert_eq!(ask(json!({"type": "subscribe", "channel": "room/1", "ref": 1}))["ref"], 1);
    assert_eq!(ask(json!({"type": "subscribe", "channel": "of/alice/x"}))["type"], "subscribed");
    assert_eq!(ask(json!({"type": "subscribe", "channel": "of/bob/x"}))["code"], "forbidden");
    let published = ask(json!({"type": "publish", "channel": "room/1", "data": "hi"}));
    assert_eq!((&published["type"], &published["subscribers"]), (&json!("published"), &json!(1)));
    assert_eq!(said(&mut alice)["data"], "hi");
    alice.send(&Frame::text(json!({"type": "subscribe", "channel": "lobby", "presence": true}).to_string()));
    assert_eq!(said(&mut alice)["type"], "subscribed");
    assert_eq!(said(&mut alice)["members"], json!([{"member": "alice", "connections": 1}]));
    let mut guest = Raw::open(&server, "/guest?7");
    assert_eq!(said(&mut alice), json!({"type": "join", "channel": "lobby", "member": "guest-7"}));
    let info = json(&Raw::page(&server, "/publish?channel=lobby"));
    assert_eq!(info["members"][1], json!({"member": "guest-7", "connections": 1}));
    guest.send(&Frame::text("may I?"));
    guest.expect_failure(1008);
    assert_eq!(said(&mut alice)["type"], "leave");
    let vanishing = Raw::open(&server, "/guest?8");
    assert_eq!(said(&mut alice)["member"], "guest-8");
    vanishing.reset();
    assert_eq!(said(&mut alice), json!({"type": "leave", "channel": "lobby", "member": "guest-8"}));
    alice.close();
}

#[test]
fn who_does_not_keep_up_is_closed_and_comes_back() {
    let server = httpd(Mpm::Event).config("WebSocketChannelHistory 1000 3600\nWebSocketSendBuffer 65536").start();
    let mut slow = Raw::connect(&server);
    let handshake = Handshake::new("/news").header("Sec-WebSocket-Protocol", "ws+meta.nchan");
    slow.ask(&handshake).assert_accepted();
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "news") == 1);
    let large = "x".repeat(100_000);
    let mut sent = 0;
    while subscribers(&server, "news") == 1 {
        publish(&server, "news", &format!("{sent} {large}"));
        sent += 1;
        assert!(sent < 500, "it is never given up");
    }
    let (mut next, mut last) = (0, String::new());
    let mut client = slow;
    while next < sent {
        let frame = client.frame();
        if frame.opcode == Frame::CLOSE {
            assert_eq!(frame.close_code(), Some(1013));
            client = Raw::connect(&server);
            let answer = client.ask(&handshake.clone().header("Last-Event-ID", &last));
            assert_eq!(answer.header("WebSocket-Recovered"), Some("true"));
            continue;
        }
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        let (head, body) = text.split_once("\n\n").expect("nchan's lines");
        assert!(body.starts_with(&format!("{next} ")), "{}", &body[..20]);
        last = head.lines().next().and_then(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
        next += 1;
    }
}

#[test]
fn curl_publishes() {
    let server = httpd(Mpm::Event).start();
    let mut client = subscribe(&server, &Handshake::new("/news"), "news");
    let mut curl = Command::new("curl")
        .args(["--silent", "--fail", "--data-binary", "@-"])
        .arg(server.http_url("/publish?channel=news"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl");
    curl.stdin.take().expect("its input").write_all(b"from curl").expect("a message");
    let output = curl.wait_with_output().expect("curl's end");
    assert!(output.status.success(), "{output:?}");
    client.expect(&Frame::text("from curl"));
    client.close();
}
