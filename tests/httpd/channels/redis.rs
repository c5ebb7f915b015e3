//! Two httpds whose channels are one, through a real Redis.

use crate::harness::publish::{json, post, publish, subscribers};
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn httpd(redis: &Redis) -> Server {
    let server = Httpd::new(Mpm::Event)
        .module("authz_host")
        .config(format!("WebSocketBroker {}\nWebSocketChannelHistory 1000 3600", redis.url()))
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config(
            "<Location \"/chat\">\n  WebSocketHandler channel chat\n  WebSocketChannelPresence On\n  \
             WebSocketChannelPublish On\n  WebSocketChannelMember %{QUERY_STRING}\n</Location>",
        )
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .start();
    // One for questions, and one that the log is read over.
    server.expect_links(2);
    server
}

fn said(client: &mut Raw) -> Value {
    let frame = client.frame();
    assert_eq!(frame.opcode, Frame::TEXT, "{frame:?}");
    serde_json::from_slice(&frame.payload).expect("JSON")
}

/// A client of channels.v1 that has been told who is there.
fn member(server: &Server, name: &str) -> (Raw, Value) {
    let mut client = Raw::connect(server);
    let handshake = Handshake::new(&format!("/chat?{name}")).header("Sec-WebSocket-Protocol", "channels.v1");
    client.ask(&handshake).assert_accepted();
    assert_eq!(said(&mut client)["type"], "subscribed");
    // So that the broker knows of it, too.
    wait_until("it is there", PATIENCE, || {
        let info = json(&Raw::page(server, "/publish?channel=chat"));
        info["members"].as_array().expect("members").iter().any(|member| member["member"] == name)
    });
    client.send(&Frame::text(json!({"type": "subscribe", "channel": "chat", "presence": true}).to_string()));
    assert_eq!(said(&mut client)["type"], "subscribed");
    let there = said(&mut client)["members"].clone();
    (client, there)
}

fn resume(server: &Server, id: &str) -> (Raw, bool) {
    let mut client = Raw::connect(server);
    let answer = client.ask(&Handshake::new("/news").header("Last-Event-ID", id));
    answer.assert_accepted();
    let recovered = answer.header("WebSocket-Recovered") == Some("true");
    (client, recovered)
}

fn try_publish(server: &Server, text: &str) -> u16 {
    post(server, "/publish?channel=news", "text/plain", text.as_bytes()).status
}

#[test]
fn two_servers_are_one() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis), httpd(&redis));
    let mut clients = [Raw::open(&one, "/news"), Raw::open(&two, "/news")];
    wait_until("both are subscribed", PATIENCE, || subscribers(&one, "news") == 2 && subscribers(&two, "news") == 2);
    let first = publish(&one, "news", "first");
    assert_eq!(first.1, 2);
    thread::scope(|scope| {
        for server in [&one, &two] {
            scope.spawn(move || (0..100).for_each(|n| assert_eq!(publish(server, "news", &n.to_string()).1, 2)));
        }
    });
    let [here, there] = clients.each_mut().map(|client| (0..201).map(|_| client.frame()).collect::<Vec<_>>());
    assert!(here == there, "the orders differ");
    // Each goes on at the other.
    let (mut client, recovered) = resume(&two, &first.0);
    assert!(recovered);
    here[1..].iter().for_each(|frame| client.expect(frame));
    let info = [&one, &two].map(|server| json(&Raw::page(server, "/publish?channel=news")));
    assert_eq!((&info[0]["messages"], &info[0]["last_id"]), (&info[1]["messages"], &info[1]["last_id"]));

    let (mut ann, there) = member(&one, "ann");
    assert_eq!(there, json!([{"member": "ann", "connections": 1}]));
    let (joe, there) = member(&two, "joe");
    assert_eq!(there.as_array().map(Vec::len), Some(2), "{there}");
    assert_eq!(said(&mut ann), json!({"type": "join", "channel": "chat", "member": "joe"}));
    let mut other_joe = member(&one, "joe").0;
    joe.reset();
    ann.send(&Frame::text(json!({"type": "publish", "channel": "chat", "data": "hi"}).to_string()));
    let published = said(&mut ann);
    assert_eq!(said(&mut ann)["id"], published["id"]);
    assert_eq!(said(&mut other_joe)["data"], "hi");
    other_joe.close();
    assert_eq!(said(&mut ann), json!({"type": "leave", "channel": "chat", "member": "joe"}));
    let list = json(&Raw::page(&two, "/publish"));
    assert_eq!(list["channels"][0]["subscribers"], 1, "{list}");

    let deleted = Raw::answer(&two, &Handshake::page("/publish?channel=news").method("DELETE").version("HTTP/1.0"));
    assert_eq!(deleted.status, 200);
    clients.iter_mut().for_each(|client| assert_eq!(client.close_code(), Some(1000)));
    ann.close();
    drop((clients, client));
    wait_until("all have gone", PATIENCE, || subscribers(&one, "news") == 0);
}

#[test]
fn a_broker_that_was_away_is_caught_up_with() {
    let mut redis = Redis::start();
    let (one, two) = (httpd(&redis), httpd(&redis));
    let away = || {
        for server in [&one, &two] {
            server.expect_log("WS0121: the broker cannot be reached");
            server.tolerate_log("WS0017: refused with 50");
        }
    };
    let mut client = Raw::open(&one, "/news");
    wait_until("it is subscribed", PATIENCE, || subscribers(&two, "news") == 1);
    let (id, _) = publish(&two, "news", "before");
    client.expect(&Frame::text("before"));
    away();
    redis.go();
    wait_until("publishers are refused", PATIENCE, || try_publish(&two, "lost") == 503);
    redis.come_back();
    wait_until("publishers are heard", PATIENCE, || try_publish(&two, "after") == 201);
    // Nothing was lost, and nobody had to come back for it.
    client.expect(&Frame::text("after"));
    let (mut back, recovered) = resume(&two, &id);
    assert!(recovered);
    back.expect(&Frame::text("after"));

    redis.go();
    wait_until("publishers are refused", PATIENCE, || try_publish(&one, "lost") == 503);
    redis.forget();
    redis.come_back();
    // Who knows what there was?
    assert_eq!([client.close_code(), back.close_code()], [Some(1012); 2]);
    wait_until("publishers are heard", PATIENCE, || try_publish(&one, "new") == 202);
    let (mut client, recovered) = resume(&one, &id);
    assert!(!recovered);
    client.expect(&Frame::text("new"));
}

#[test]
fn a_lost_engine_takes_its_members_with_it() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis), httpd(&redis));
    let (mut ann, _) = member(&one, "ann");
    let (joe, _) = member(&two, "joe");
    assert_eq!(said(&mut ann)["type"], "join");
    two.expect_log("WS0201: the engine process");
    two.engine().signal(Signal::KILL);
    // After fifteen seconds of silence.
    wait_until("the member is given up", 2 * PATIENCE, || {
        json(&Raw::page(&one, "/publish?channel=chat"))["members"].as_array().map(Vec::len) == Some(1)
    });
    assert_eq!(said(&mut ann), json!({"type": "leave", "channel": "chat", "member": "joe"}));
    drop(joe);
    ann.close();
}

#[test]
fn without_a_broker_nobody_is_let_in() {
    let redis = Redis::start();
    let url = redis.url();
    drop(redis);
    let server = Httpd::new(Mpm::Event)
        .config(format!("WebSocketBroker {url}\n<Location \"/news\">\n  WebSocketHandler channel news\n</Location>"))
        .start();
    server.expect_log("WS0121: the broker cannot be reached");
    server.expect_log("WS0007: no session: the engine refused: the broker cannot be reached");
    let answer = Raw::answer(&server, &Handshake::new("/news"));
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")));
}

#[test]
fn nobody_comes_or_goes_unseen() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis), httpd(&redis));
    let (mut ann, _) = member(&one, "ann");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let handshake = Handshake::new("/chat?joe").header("Sec-WebSocket-Protocol", "channels.v1");
                Raw::open_with(&two, &handshake).reset();
            }
        });
        // In a scope that ends by itself.
        let _done = Done(&done);
        for _ in 0..150 {
            for presence in [false, true] {
                let ask = json!({"type": "subscribe", "channel": "chat", "presence": presence});
                ann.send(&Frame::text(ask.to_string()));
            }
            let there = std::iter::repeat_with(|| said(&mut ann)).find(|said| said["type"] == "presence");
            let there = there.expect("an answer")["members"].as_array().map(Vec::len);
            // Who is there leaves next, and who is not joins.
            let next = if there == Some(2) { ["leave", "join"] } else { ["join", "leave"] };
            assert_eq!([said(&mut ann)["type"].clone(), said(&mut ann)["type"].clone()], next);
        }
    });
    // The last one to leave may be told of before a Close.
    ann.reset();
}

/// Sets it when dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
