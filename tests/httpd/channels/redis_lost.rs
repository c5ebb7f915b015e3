//! What a Redis does that is not at its best, and what is said then of what was lost.

use crate::harness::handshake::Response;
use crate::harness::publish::{self, post, publish, subscribers};
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

fn httpd(redis: &Redis, more: &str) -> Server {
    let server = Httpd::new(Mpm::Event)
        .module("authz_host")
        .environment("SSL_CERT_FILE", redis.certificate())
        .config(format!("WebSocketBroker {}\nWebSocketChannelHistory 1000 3600\n{more}", redis.url()))
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/other\">\n  WebSocketHandler channel other\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .start();
    server.expect_links(2);
    server
}

fn will_be_away(servers: &[&Server]) {
    for server in servers {
        server.expect_log("WS0121: the broker cannot be reached");
        server.tolerate_log("WS0017: refused with 50");
    }
}

fn try_publish(server: &Server, text: &str) -> u16 {
    ask_to_publish(server, text).0
}

/// The status, and when to try again.
fn ask_to_publish(server: &Server, text: &str) -> (u16, Option<String>) {
    let response = post(server, "/publish?channel=news", "text/plain", text.as_bytes());
    (response.status, response.header("Retry-After").map(str::to_owned))
}

fn delete(server: &Server) -> Response {
    Raw::answer(server, &Handshake::page("/publish?channel=news").method("DELETE").version("HTTP/1.0"))
}

fn resume(server: &Server, path: &str, id: &str) -> (Raw, bool) {
    let mut client = Raw::connect(server);
    let answer = client.ask(&Handshake::new(path).header("Last-Event-ID", id));
    answer.assert_accepted();
    let recovered = answer.header("WebSocket-Recovered") == Some("true");
    (client, recovered)
}

/// As after a crash of one that writes to its disk now and then, or with a replica that has not got all.
#[test]
fn a_broker_that_comes_back_with_less_is_another() {
    let mut redis = Redis::start();
    let (one, two) = (httpd(&redis, ""), httpd(&redis, ""));
    let mut client = Raw::open(&one, "/news");
    wait_until("it is subscribed", PATIENCE, || subscribers(&two, "news") == 1);
    publish(&two, "news", "first");
    client.expect(&Frame::text("first"));
    will_be_away(&[&one, &two]);
    redis.go();
    let old = redis.copy();
    redis.come_back();
    wait_until("publishers are heard", PATIENCE, || try_publish(&two, "second") == 201);
    client.expect(&Frame::text("second"));
    let (id, _) = publish(&two, "news", "third");
    client.expect(&Frame::text("third"));

    redis.go();
    wait_until("publishers are refused", PATIENCE, || try_publish(&one, "lost") == 503);
    redis.fall_back(&old);
    redis.come_back();
    // Two messages are not there any more.
    assert_eq!(client.close_code(), Some(1012));
    wait_until("publishers are heard", PATIENCE, || try_publish(&two, "new") == 202);
    for server in [&one, &two] {
        let (mut client, recovered) = resume(server, "/news", &id);
        assert!(!recovered);
        client.expect(&Frame::text("first"));
        client.expect(&Frame::text("new"));
    }
}

#[test]
fn numbers_that_were_given_twice_are_noticed() {
    let mut redis = Redis::start();
    let one = httpd(&redis, "");
    publish(&one, "news", "first");
    will_be_away(&[&one]);
    redis.go();
    let old = redis.copy();
    redis.come_back();
    wait_until("publishers are heard", PATIENCE, || try_publish(&one, "second") == 202);
    let (id, _) = publish(&one, "news", "third");
    let mut client = Raw::open(&one, "/news");
    one.engine().signal(Signal::STOP);
    redis.go();
    redis.fall_back(&old);
    redis.come_back();
    // It knows nothing of them, and goes on after the first.
    let two = httpd(&redis, "");
    two.tolerate_log("WS0121: the broker cannot be reached");
    for text in ["a", "b", "c", "d"] {
        publish(&two, "news", text);
    }
    one.engine().signal(Signal::CONT);
    assert_eq!(client.close_code(), Some(1012));
    let (mut client, recovered) = resume(&one, "/news", &id);
    assert!(!recovered);
    for text in ["first", "a", "b", "c", "d"] {
        client.expect(&Frame::text(text));
    }
    // The other has heard of it.
    wait_until("publishers are heard", PATIENCE, || matches!(try_publish(&two, "last"), 201 | 202));
    client.expect(&Frame::text("last"));
    client.close();
}

#[test]
fn a_client_is_not_ahead_of_the_server_it_comes_back_to() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis, ""), httpd(&redis, ""));
    let mut behind = 0;
    for number in 0..100 {
        let (id, _) = publish(&one, "news", &number.to_string());
        let (client, recovered) = resume(&two, "/news", &id);
        behind += u32::from(!recovered);
        client.reset();
    }
    assert_eq!(behind, 0, "times that nothing was lost, and it was not told so");
}

#[test]
fn what_a_server_has_no_room_for_is_not_recovered_there() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis, "WebSocketChannelsMax 1"), httpd(&redis, ""));
    let mut other = Raw::open(&one, "/other");
    wait_until("it is subscribed", PATIENCE, || subscribers(&two, "other") == 1);
    let (id, _) = publish(&two, "other", "all have this");
    publish(&two, "news", "no room for this");
    let last = publish(&two, "other", "and this").0;
    wait_until("all is read", PATIENCE, || {
        publish::json(&Raw::page(&one, "/publish?channel=other"))["last_id"] == *last
    });
    for text in ["all have this", "and this"] {
        other.expect(&Frame::text(text));
    }
    other.close();
    wait_until("there is room", PATIENCE, || subscribers(&one, "other") == 0);
    let (_client, recovered) = resume(&one, "/news", &id);
    assert!(!recovered);
}

#[test]
fn what_a_broker_that_hangs_was_to_do_is_not_known() {
    let redis = Redis::start();
    let more = "<Location \"/say\">\n  WebSocketHandler channel news\n  WebSocketChannelPublish On\n</Location>";
    let (one, two) = (httpd(&redis, ""), httpd(&redis, more));
    let mut client = Raw::open(&one, "/news");
    let mut bare = Raw::open(&two, "/say");
    let v1 = Handshake::new("/say").header("Sec-WebSocket-Protocol", "channels.v1");
    let mut v1 = Raw::open_with(&two, &v1);
    v1.frame();
    wait_until("all are subscribed", PATIENCE, || subscribers(&one, "news") == 3);
    publish(&two, "news", "before");
    for client in [&mut client, &mut bare, &mut v1] {
        client.frame();
    }
    will_be_away(&[&one, &two]);
    redis.freeze();
    let begin = Instant::now();
    let unknown = (504, None);
    thread::scope(|scope| {
        // All at once: it is found out soon that the broker cannot be reached.
        let published = scope.spawn(|| ask_to_publish(&two, "unknown"));
        bare.send(&Frame::text("unknown"));
        v1.send(&Frame::text(json!({"type": "publish", "channel": "news", "data": "unknown", "ref": 7}).to_string()));
        assert_eq!(published.join().expect("an answer"), unknown);
    });
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(bare.close_code(), Some(1011), "who published may not be told to try again");
    let said: Value = serde_json::from_slice(&v1.frame().payload).expect("JSON");
    assert_eq!((&said["code"], &said["ref"]), (&json!("unknown"), &json!(7)), "{said}");
    let (mut number, mut refused) = (0, Vec::new());
    wait_until("publishers are refused at once", PATIENCE, || {
        let begin = Instant::now();
        number += 1;
        let text = format!("message {number}");
        let answer = ask_to_publish(&two, &text);
        // Nothing was sent, and it may be tried again.
        let is_refused = answer == (503, Some("5".to_owned()));
        assert!(is_refused || answer == unknown, "{answer:?}");
        refused.extend(is_refused.then(|| Frame::text(text)));
        is_refused && begin.elapsed() < Duration::from_millis(500)
    });
    redis.wake();
    wait_until("publishers are heard", PATIENCE, || try_publish(&two, "after") == 201);
    // What was not known was published, or was not; and what was refused was not.
    let after = Frame::text("after");
    let come: Vec<Frame> = std::iter::repeat_with(|| client.frame()).take_while(|frame| *frame != after).collect();
    assert!(!come.iter().any(|frame| refused.contains(frame)), "{come:?}");
    v1.reset();
}

/// It answers, and what it says no to it has not done.
#[test]
fn a_broker_that_takes_nothing_is_tried_again() {
    let redis = Redis::start();
    let server = httpd(&redis, "");
    publish(&server, "news", "first");
    server.tolerate_log("WS0121: the broker cannot be reached");
    server.expect_log("WS0017: refused with 503");
    for (off, on) in [
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ] {
        redis.carry_out(off);
        assert_eq!(ask_to_publish(&server, "lost"), (503, Some("5".to_owned())), "{off}");
        let deleted = delete(&server);
        assert_eq!((deleted.status, deleted.header("Retry-After")), (503, Some("5")), "{off}");
        redis.carry_out(on);
        wait_until("publishers are heard", PATIENCE, || try_publish(&server, "after") == 202);
    }
    let (mut client, _) = resume(&server, "/news", "*");
    for text in ["first", "after", "after", "after"] {
        client.expect(&Frame::text(text));
    }
}

#[test]
fn a_server_that_comes_later_has_what_was_published() {
    let redis = Redis::start();
    let one = httpd(&redis, "");
    let (id, _) = publish(&one, "news", "first");
    publish(&one, "news", "second");
    let two = httpd(&redis, "");
    let (mut client, recovered) = resume(&two, "/news", &id);
    assert!(recovered);
    client.expect(&Frame::text("second"));
    client.close();
}

#[test]
fn a_server_that_stops_counts_no_more() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis, ""), httpd(&redis, ""));
    let client = Raw::open(&two, "/news");
    wait_until("it is subscribed", PATIENCE, || subscribers(&one, "news") == 1);
    two.stop();
    // Long before it would be given up.
    wait_until("it has gone", Duration::from_secs(5), || subscribers(&one, "news") == 0);
    drop(client);
}

#[test]
fn a_server_moves_from_one_broker_to_another() {
    let (old, new) = (Redis::start(), Redis::start());
    let (one, two, three) = (httpd(&old, ""), httpd(&old, ""), httpd(&new, ""));
    let mut client = Raw::open(&one, "/news");
    wait_until("it is subscribed", PATIENCE, || subscribers(&two, "news") == 1);
    let (id, _) = publish(&two, "news", "old");
    client.expect(&Frame::text("old"));
    configure(&one, &old.url(), &new.url());
    // What it was told is another count's.
    assert_eq!(client.close_code(), Some(1012));
    wait_until("it has gone there", Duration::from_secs(5), || subscribers(&two, "news") == 0);
    let (mut client, recovered) = resume(&one, "/news", &id);
    assert!(!recovered);
    wait_until("it is subscribed", PATIENCE, || subscribers(&three, "news") == 1);
    publish(&three, "news", "new");
    client.expect(&Frame::text("new"));

    configure(&one, &new.url(), "Off");
    assert_eq!(client.close_code(), Some(1012));
    one.expect_links(0);
    let mut client = Raw::open(&one, "/news");
    publish(&three, "news", "not for it");
    assert_eq!(publish(&one, "news", "its own").1, 1);
    client.expect(&Frame::text("its own"));
    client.close();
}

/// A graceful restart with another broker.
fn configure(server: &Server, old: &str, new: &str) {
    let path = server.path("conf/httpd.conf");
    let text = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, text.replace(old, new)).expect("the configuration");
    server.graceful();
}

#[test]
fn over_tls() {
    let redis = Redis::start_with_tls();
    let (one, two) = (httpd(&redis, ""), httpd(&redis, ""));
    let mut client = Raw::open(&one, "/news");
    wait_until("it is subscribed", PATIENCE, || subscribers(&two, "news") == 1);
    publish(&two, "news", "hello");
    client.expect(&Frame::text("hello"));
    client.close();
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused() {
    let (redis, other) = (Redis::start_with_tls(), Redis::start_with_tls());
    let server = Httpd::new(Mpm::Event)
        .environment("SSL_CERT_FILE", other.certificate())
        .config(format!("WebSocketBroker {}", redis.url()))
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .start();
    server.expect_log("WS0121: the broker cannot be reached");
    server.expect_log("WS0007: no session: the engine refused: the broker cannot be reached");
    assert_eq!(Raw::answer(&server, &Handshake::new("/news")).status, 503);
    let log = server.error_log();
    assert!(log.contains("UnknownIssuer") || log.contains("certificate"), "{log}");
}
