//! A Redis to which others write, too.

use crate::harness::publish::{json, post, publish};
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};

fn httpd(redis: &Redis) -> Server {
    let server = Httpd::new(Mpm::Event)
        .module("authz_host")
        .config(format!("WebSocketBroker {}\nWebSocketChannelHistory 1000 3600", redis.url()))
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .start();
    server.expect_links(2);
    server
}

fn epoch(id: &str) -> &str {
    id.split(':').next().expect("an epoch")
}

/// Publishes until the server has also read it; the id.
fn publish_and_read(server: &Server, text: &str) -> String {
    let mut id = String::new();
    wait_until("what is published is read", PATIENCE, || {
        let response = post(server, "/publish?channel=news", "text/plain", text.as_bytes());
        if ![201, 202].contains(&response.status) {
            return false;
        }
        id = json(&response)["news"]["id"].as_str().expect("an id").to_owned();
        // It is the last there is, if this server follows the same count.
        let is_read = || json(&Raw::page(server, "/publish?channel=news"))["last_id"] == *id;
        crate::harness::wait::holds_within(std::time::Duration::from_millis(200), is_read)
    });
    id
}

/// What somebody did to it, and whether the numbers of messages can still be trusted.
const DEEDS: [(&str, bool); 16] = [
    ("XADD {mod_websocket}:log * field value", false),
    ("XADD {mod_websocket}:log 18446744073709551615-18446744073709551615 field value", false),
    // The next number has not been given.
    ("XADD {mod_websocket}:log SEQUENCE-1 field value", false),
    ("XADD {mod_websocket}:log SEQUENCE-1 field \u{fffd}", false),
    ("SET {mod_websocket}:log text", false),
    ("SET {mod_websocket}:sequence text", false),
    ("SET {mod_websocket}:sequence 9223372036854775807", false),
    ("SADD {mod_websocket}:sequence! text", true),
    ("SET {mod_websocket}:gone 999999999", false),
    ("SET {mod_websocket}:gone -1", false),
    ("SET {mod_websocket}:epoch a\nb", false),
    ("SET {mod_websocket}:bytes text", true),
    ("SET {mod_websocket}:nodes text", true),
    ("SET {mod_websocket}:channels text", true),
    ("SET {mod_websocket}:subscribers:news text", true),
    ("HSET {mod_websocket}:subscribers:news another many", true),
];

#[test]
fn what_others_write_stops_nobody() {
    let redis = Redis::start();
    let server = httpd(&redis);
    server.tolerate_log("WS0121: the broker cannot be reached");
    server.tolerate_log("WS0017: refused with 50");
    server.expect_log("WS0185: the broker had what no engine has written");
    let said = || server.error_log().matches("WS0185").count();
    let came = || server.error_log().matches("WS0122: the broker is connected").count();
    for (deed, is_harmless) in DEEDS {
        let before = publish_and_read(&server, "before");
        let (said_before, came_before) = (said(), came());
        let (_, sequence) = before.split_once(':').expect("a number");
        let deed = deed.replace("SEQUENCE", sequence);
        let words = deed.split(' ').map(|word| word.replace('\u{fffd}', "\u{0}"));
        let mut words: Vec<Vec<u8>> = words.map(String::into_bytes).collect();
        // Not UTF-8.
        words.iter_mut().flatten().filter(|byte| **byte == 0).for_each(|byte| *byte = 0xff);
        if words[0] == b"SET" {
            redis.command(&[b"DEL", &words[1]]);
        }
        redis.command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        // No publisher looks at that, nor need it.
        wait_until("it is noticed", PATIENCE, || !deed.contains(":gone") || said() > said_before);
        // The server finds that it was given up within two seconds, and begins anew: clients get 503 for a moment.
        wait_until("it has come back", PATIENCE, || !deed.contains(":nodes") || came() > came_before);
        let after = publish_and_read(&server, "after");
        assert_eq!(epoch(&before) == epoch(&after), is_harmless, "{deed}: {before} {after}");
        assert_eq!(said() - said_before, usize::from(!is_harmless), "{deed}");
        // All is as it was.
        let mut client = Raw::open(&server, "/news");
        assert_eq!(publish(&server, "news", "hello").0.split_once(':').map(|id| id.0), Some(epoch(&after)), "{deed}");
        client.expect(&Frame::text("hello"));
        client.close();
        let mut client = Raw::connect(&server);
        let answer = client.ask(&Handshake::new("/news").header("Last-Event-ID", &before));
        assert_eq!(answer.header("WebSocket-Recovered"), Some(if is_harmless { "true" } else { "false" }), "{deed}");
        client.expect(&Frame::text("after"));
        client.reset();
    }
}

#[test]
fn publishers_are_not_refused_for_what_others_write() {
    let redis = Redis::start();
    let (one, two) = (httpd(&redis), httpd(&redis));
    for server in [&one, &two] {
        server.tolerate_log("WS0121: the broker cannot be reached");
        server.tolerate_log("WS0185: the broker had what no engine has written");
        server.tolerate_log("WS0017: refused with 50");
    }
    // Nobody looks at these but publishers, and the servers once in two seconds.
    for (round, deed) in ["SET {mod_websocket}:sequence text", "SET {mod_websocket}:epoch !"].iter().enumerate() {
        let before = publish_and_read(&one, "before");
        let mut client = Raw::open(&one, "/news");
        redis.carry_out(deed);
        let (id, _) = publish(&two, "news", "after");
        assert_ne!(epoch(&id), epoch(&before), "{deed}");
        assert_eq!(client.close_code(), Some(1012), "{deed}");
        let mut client = Raw::connect(&one);
        let answer = client.ask(&Handshake::new("/news").header("Last-Event-ID", &before));
        assert_eq!(answer.header("WebSocket-Recovered"), Some("false"), "{deed}");
        client.expect(&Frame::text("after"));
        client.reset();
        wait_until("the other has heard of it", PATIENCE, || {
            json(&Raw::page(&two, "/publish?channel=news"))["last_id"] == *id
        });
        // One of them says so, once.
        let said = [&one, &two].map(|server| server.error_log().matches("WS0185").count());
        assert_eq!(said.iter().sum::<usize>(), round + 1, "{deed}");
    }
}

/// Entries in our own form, but for what they say.
#[test]
fn what_comes_from_the_broker_is_checked() {
    let redis = Redis::start();
    let server = httpd(&redis);
    let handshake = Handshake::new("/news").header("Sec-WebSocket-Protocol", "ws+meta.nchan");
    let mut nchan = Raw::open_with(&server, &handshake);
    let mut client = Raw::open(&server, "/news");
    let (id, _) = publish(&server, "news", "first");
    let epoch = epoch(&id);
    let mut number = id.split_once(':').and_then(|(_, number)| number.parse::<u64>().ok()).expect("a number");
    let mut write = |fields: &[&[u8]]| {
        number += 1;
        redis.carry_out("INCR {mod_websocket}:sequence");
        let id = format!("{number}-0");
        let start: [&[u8]; 9] =
            [b"XADD", b"{mod_websocket}:log", id.as_bytes(), b"till", b"9999999999999", b"size", b"10", b"at", b"1"];
        redis.command(&[&start[..], fields].concat());
        number
    };
    // No name, no text, no code that a server may send, nobody: nothing comes of it.
    write(&[b"kind", b"message", b"channel", b"a b", b"text", b"1", b"payload", b"x"]);
    write(&[b"kind", b"message", b"channel", b"\xff", b"text", b"1", b"payload", b"x"]);
    write(&[b"kind", b"message", b"channel", b"news", b"text", b"1", b"payload", b"\xff"]);
    write(&[b"kind", b"presence", b"channel", b"news", b"member", b"", b"joined", b"1"]);
    write(&[b"kind", b"dance", b"channel", b"news"]);
    let number = write(&[
        b"kind",
        b"message",
        b"channel",
        b"news",
        b"text",
        b"1",
        b"type",
        b"text/plain\nid: 0",
        b"payload",
        b"second",
        b"messages",
        b"-1",
        b"seconds",
        b"x",
    ]);
    nchan.expect(&Frame::text(format!("id: {id}\ncontent-type: text/plain\n\nfirst")));
    nchan.expect(&Frame::text(format!("id: {epoch}:{number}\n\nsecond")));
    for text in ["first", "second"] {
        client.expect(&Frame::text(text));
    }
    write(&[b"kind", b"delete", b"channel", b"news", b"code", b"1005", b"reason", &[b'x'; 500]]);
    for client in [&mut nchan, &mut client] {
        assert_eq!(client.close_code(), Some(1000));
    }
}
