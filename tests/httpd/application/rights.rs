//! What is taken back from sessions that are open, or about to be, by the API of the publishing location.

use crate::harness::channel::{ask, said};
use crate::harness::publish::{json, publish, subscribers};
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;

const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
const BOB: &str = "Basic Ym9iOmJvYiBzZWNyZXQ=";

fn httpd() -> Httpd {
    let login = "AuthType Basic\nAuthName x\nAuthUserFile \"{root}/conf/users\"\nRequire valid-user\n";
    let mut httpd = Httpd::new(Mpm::Event)
        .login()
        .module("authz_host")
        .file("conf/users", "alice:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\nbob:{SHA}/4Lt5vZ9AWIr6sYBwCPoSWa+EQQ=\n");
    for (path, directives) in [
        ("/echo", "WebSocketHandler echo"),
        ("/chat", "WebSocketHandler channel news sport\nWebSocketChannelAllow room/*\nWebSocketChannelPublish On"),
        ("/alone", "WebSocketHandler channel news"),
        ("/member", "WebSocketHandler channel news\nWebSocketChannelMember %{QUERY_STRING}"),
        ("/site", "WebSocketHandler channel news\nWebSocketChannelPrefix site"),
        ("/site/echo", "WebSocketHandler echo"),
    ] {
        httpd = httpd.config(format!("<Location \"{path}\">\n{login}{directives}\n</Location>"));
    }
    httpd
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
        .config("<Location \"/site/publish\">\n  SetHandler websocket-publish\n  WebSocketHandler Off\n</Location>")
}

fn open(server: &Server, path: &str, user: &str) -> Raw {
    Raw::open_with(server, &Handshake::new(path).header("Authorization", user))
}

/// A session, and its number.
fn numbered(server: &Server, path: &str, user: &str) -> (Raw, String) {
    let begun = || {
        let log = server.error_log();
        let of_path = format!(" for {path} from ");
        let lines = log.lines().filter(|line| line.contains(&of_path));
        let numbers = lines.filter_map(|line| line.split_once("WS0102: session ")?.1.split(' ').next());
        numbers.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = begun().len();
    let client = open(server, path, user);
    wait_until("it is logged", PATIENCE, || begun().len() > before);
    (client, begun().swap_remove(before))
}

pub(super) fn send(server: &Server, method: &str, query: &str) -> Response {
    let path = if query.starts_with('/') { query.to_owned() } else { format!("/publish?{query}") };
    let request = Handshake::page(&path).method(method).version("HTTP/1.0").header("Authorization", ALICE);
    Raw::answer(server, &request)
}

/// How many sockets it was.
#[track_caller]
fn delete(server: &Server, query: &str) -> u64 {
    let response = send(server, "DELETE", query);
    let said = json(&response);
    assert_eq!(
        (response.status, &said["servers"], &said["unanswered"]),
        (200, &json!(1), &json!(0)),
        "{query}: {said}"
    );
    said["sockets"].as_u64().expect("a number")
}

#[track_caller]
pub(super) fn expect_close(client: &mut Raw, code: u16, reason: &str) {
    loop {
        let frame = client.frame();
        if frame.opcode == Frame::CLOSE {
            let (its, text) = frame.payload.split_at(2);
            assert_eq!((u16::from_be_bytes([its[0], its[1]]), std::str::from_utf8(text)), (code, Ok(reason)));
            return;
        }
    }
}

pub(super) fn alive(client: &mut Raw) {
    client.send(&Frame::ping("there?"));
    loop {
        let frame = client.frame();
        assert!(frame.opcode != Frame::CLOSE, "closed: {frame:?}");
        if frame.opcode == Frame::PONG {
            return;
        }
    }
}

#[test]
fn sockets_are_closed_by_what_names_them() {
    let server = httpd().start();
    let (mut echo, number) = numbered(&server, "/echo", ALICE);
    let mut chat = open(&server, "/chat", ALICE);
    let mut bob = open(&server, "/echo", BOB);
    let mut member = open(&server, "/member?ann", BOB);
    // Nobody is named, and nobody is closed.
    let long = "x".repeat(124);
    for query in [
        "user=",
        "member=",
        "connection=",
        "user=&channel=news",
        "user=alice&user=bob",
        "user=alice&member=ann",
        "user=%FF",
        "user=alice&except=",
        "user=alice&except=1&except=2",
        "user=alice&code=1005",
        "user=alice&code=2000",
        "user=alice&code=x",
        &format!("user=alice&reason={long}"),
        "user=alice&channel=news&code=1008",
        "user=alice&channel=news&reason=x",
        "user=alice&channel=",
        "user=alice&channel=a%20b",
        &format!("user={}", "x".repeat(1025)),
    ] {
        let response = send(&server, "DELETE", query);
        assert_eq!(response.status, 400, "{query}: {}", response.text());
        assert!(json(&response)["error"].is_string());
    }
    for query in ["user=Alice", "user=ali", "user=alice%20", "member=alice2", "connection=7", "connection=x"] {
        assert_eq!(delete(&server, query), 0, "{query}");
    }
    [&mut echo, &mut chat, &mut bob, &mut member].into_iter().for_each(alive);

    assert_eq!(delete(&server, &format!("user=alice&except={number}")), 1);
    expect_close(&mut chat, 1008, "disconnected");
    alive(&mut echo);
    assert_eq!(delete(&server, &format!("connection={number}&code=4401&reason=logged%20out")), 1);
    expect_close(&mut echo, 4401, "logged out");
    assert_eq!(delete(&server, "member=ann"), 1);
    expect_close(&mut member, 1008, "disconnected");
    alive(&mut bob);
    // Whoever comes back has logged in anew.
    let mut again = open(&server, "/echo", ALICE);
    alive(&mut again);
    assert_eq!(delete(&server, "user=alice"), 1);
    expect_close(&mut again, 1008, "disconnected");
    assert_eq!(delete(&server, "user=alice"), 0);
    bob.close();
}

#[test]
fn subscriptions_end_and_the_client_hears_of_it() {
    let server = httpd().start();
    let mut client = Raw::connect(&server);
    let handshake = Handshake::new("/chat").header("Authorization", ALICE);
    client.ask(&handshake.clone().header("Sec-WebSocket-Protocol", "channels.v1")).assert_accepted();
    let mut rooms: Vec<Value> = (0..2).map(|_| said(&mut client)["channel"].clone()).collect();
    rooms.sort_by_key(Value::to_string);
    assert_eq!(rooms, ["news", "sport"]);
    assert_eq!(ask(&mut client, &json!({"type": "subscribe", "channel": "room/1"}))["type"], "subscribed");
    let (mut bare, mut alone) = (open(&server, "/chat", ALICE), open(&server, "/alone", ALICE));
    let mut bob = open(&server, "/alone", BOB);
    wait_until("all are subscribed", PATIENCE, || subscribers(&server, "news") == 4);

    assert_eq!(delete(&server, "user=alice&channel=other"), 0);
    assert_eq!(delete(&server, "user=alice&channel=news&channel=room/1"), 3);
    for channel in ["news", "room/1"] {
        assert_eq!(said(&mut client), json!({"type": "unsubscribed", "channel": channel}));
    }
    // It has nothing to wait for any more, and its protocol no words for that.
    expect_close(&mut alone, 1008, "unsubscribed");
    wait_until("they are gone", PATIENCE, || subscribers(&server, "news") == 1);
    publish(&server, "news", "secret");
    publish(&server, "sport", "2:1");
    assert_eq!(said(&mut client)["data"], "2:1");
    bare.expect(&Frame::text("2:1"));
    bob.expect(&Frame::text("secret"));
    // What was taken is not to be had again, nor is it published to.
    for channel in ["news", "room/1"] {
        let refused = ask(&mut client, &json!({"type": "subscribe", "channel": channel}));
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("forbidden")), "{channel}");
    }
    assert_eq!(ask(&mut client, &json!({"type": "subscribe", "channel": "room/2"}))["type"], "subscribed");
    bare.send(&Frame::text("to those that are left"));
    bare.expect(&Frame::text("to those that are left"));
    assert_eq!(said(&mut client)["channel"], "sport");
    alive(&mut bob);
    [client, bare, bob].into_iter().for_each(Raw::close);
}

#[test]
fn a_prefix_keeps_its_sockets_to_itself() {
    let server = httpd().start();
    let (mut outside, number) = numbered(&server, "/echo", ALICE);
    let mut client = Raw::connect(&server);
    let handshake = Handshake::new("/site").header("Authorization", ALICE);
    client.ask(&handshake.header("Sec-WebSocket-Protocol", "channels.v1")).assert_accepted();
    assert_eq!(said(&mut client)["type"], "subscribed");
    let (mut inside, inner) = numbered(&server, "/site/echo", ALICE);
    assert_eq!(delete(&server, &format!("/site/publish?connection={number}")), 0);
    assert_eq!(delete(&server, &format!("connection={inner}")), 0);
    assert_eq!(delete(&server, "user=alice&channel=site/news"), 0);
    assert_eq!(delete(&server, "/site/publish?user=alice&channel=news"), 1);
    assert_eq!(said(&mut client), json!({"type": "unsubscribed", "channel": "news"}));
    assert_eq!(delete(&server, &format!("/site/publish?connection={inner}")), 1);
    expect_close(&mut inside, 1008, "disconnected");
    assert_eq!(delete(&server, "/site/publish?user=alice"), 1);
    expect_close(&mut client, 1008, "disconnected");
    alive(&mut outside);
    outside.close();
}

/// A login that is judged, and a session that has not begun: it does not outlive what is taken back meanwhile.
#[test]
fn handshakes_under_way_are_caught() {
    // It answers when it may.
    let gate = "#!/bin/sh\nwhile read -r line; do\n  : >\"$1/asked-$line\"\n  while [ ! -e \"$1/go\" ]; do sleep 0.02; done\n  \
                echo yes\ndone\n";
    let server = httpd()
        .module("rewrite")
        .program("bin/gate", gate)
        .file("run/gate/.keep", "")
        .config("RewriteEngine On\nRewriteMap gate \"prg:{root}/bin/gate {root}/run/gate\"")
        .config("RewriteCond %{QUERY_STRING} ^wait-(.)\nRewriteCond ${gate:%1} .\nRewriteRule .* -")
        .start();
    let begin = |path: &str, protocol: &str| {
        let mut client = Raw::connect(&server);
        let handshake = Handshake::new(path).header("Authorization", ALICE);
        let handshake = handshake.header("Sec-WebSocket-Protocol", protocol);
        client.write(&handshake.bytes(&client.host()));
        client
    };
    let mut closed = begin("/echo?wait-a", "x");
    wait_until("its handshake is under way", PATIENCE, || server.path("run/gate/asked-a").exists());
    assert_eq!(delete(&server, "user=alice&code=4401&reason=logged%20out"), 0);
    fs::write(server.path("run/gate/go"), "").expect("the gate opened");
    closed.response(false).assert_accepted();
    expect_close(&mut closed, 4401, "logged out");
    // What has begun since is another login.
    let mut later = open(&server, "/echo", ALICE);
    alive(&mut later);
    later.close();

    fs::remove_file(server.path("run/gate/go")).expect("the gate closed");
    publish(&server, "news", "secret");
    let mut unsubscribed = begin("/chat?wait-b&last_event_id=*", "channels.v1");
    wait_until("its handshake is under way", PATIENCE, || server.path("run/gate/asked-b").exists());
    assert_eq!(delete(&server, "user=alice&channel=news"), 0);
    fs::write(server.path("run/gate/go"), "").expect("the gate opened");
    unsubscribed.response(false).assert_accepted();
    assert_eq!(said(&mut unsubscribed), json!({"type": "unsubscribed", "channel": "news"}));
    let next = said(&mut unsubscribed);
    assert_eq!((&next["type"], &next["channel"]), (&json!("subscribed"), &json!("sport")), "nothing of the other");
    unsubscribed.close();
}

#[test]
fn all_servers_of_a_broker_are_reached() {
    let mut redis = Redis::start();
    let start = || {
        let server = httpd().config(format!("WebSocketBroker {}", redis.url())).start();
        server.expect_links(2);
        server
    };
    let (one, two) = (start(), start());
    let servers = |count: u64| {
        wait_until("each knows of the other", PATIENCE, || {
            json(&send(&one, "DELETE", "user=nobody"))["servers"] == json!(count)
        });
    };
    servers(2);
    let mut sockets =
        [("/echo", &one), ("/echo", &two), ("/chat", &two)].map(|(path, server)| open(server, path, ALICE));
    let mut bob = open(&two, "/echo", BOB);
    let begun = std::time::Instant::now();
    let response = send(&one, "DELETE", "user=alice&code=4401&reason=logged%20out");
    assert_eq!((response.status, json(&response)), (200, json!({"sockets": 3, "servers": 2, "unanswered": 0})));
    sockets.iter_mut().for_each(|socket| expect_close(socket, 4401, "logged out"));
    eprintln!("closed on both after {:?}", begun.elapsed());

    let mut member = Raw::connect(&two);
    let handshake = Handshake::new("/chat").header("Authorization", ALICE);
    member.ask(&handshake.header("Sec-WebSocket-Protocol", "channels.v1")).assert_accepted();
    (0..2).for_each(|_| assert_eq!(said(&mut member)["type"], "subscribed"));
    assert_eq!(json(&send(&one, "DELETE", "user=alice&channel=sport"))["sockets"], 1);
    assert_eq!(said(&mut member), json!({"type": "unsubscribed", "channel": "sport"}));

    // One that does not answer does it when it can.
    two.engine().signal(Signal::STOP);
    let response = send(&one, "DELETE", "user=alice");
    assert_eq!((response.status, json(&response)), (202, json!({"sockets": 0, "servers": 1, "unanswered": 1})));
    two.engine().signal(Signal::CONT);
    two.tolerate_log("WS0190");
    expect_close(&mut member, 1008, "disconnected");
    alive(&mut bob);

    // Without a broker this server does it, and says that others do not.
    let mut here = open(&one, "/echo", ALICE);
    redis.go();
    one.expect_log("WS0121");
    two.tolerate_log("WS0121");
    one.tolerate_log("WS0017: refused with 50");
    let response = send(&one, "DELETE", "user=alice");
    assert!([503, 504].contains(&response.status), "{}", response.text());
    expect_close(&mut here, 1008, "disconnected");
    wait_until("it says so", PATIENCE, || {
        let response = send(&one, "DELETE", "user=alice");
        response.status == 503 && json(&response)["error"].to_string().contains("done on this server")
    });
    bob.close();
}
