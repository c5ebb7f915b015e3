//! What is kept, how long, and how much of it; and what is told of channels.

use crate::harness::channel::{Meta, offering, open, parts, recovered, subscribe};
use crate::harness::publish::{json, post, publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NCHAN: &str = "ws+meta.nchan";

fn httpd() -> Httpd {
    Httpd::new(Mpm::Event)
        .module("authz_host")
        .config("<Location \"/of\">\n  WebSocketHandler channel \"%{QUERY_STRING}\"\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
}

/// What a publisher is told of a channel.
#[track_caller]
fn info(server: &Server, channel: &str) -> Value {
    json(&Raw::page(server, &format!("/publish?channel={channel}")))
}

fn messages(server: &Server, channel: &str) -> u64 {
    info(server, channel)["messages"].as_u64().expect("a number")
}

/// Whether a client that knows `id` gets all, and what it gets.
fn back(server: &Server, channel: &str, id: &str) -> (Option<bool>, Vec<String>) {
    let (mut client, answer) = open(server, &Handshake::new(&format!("/of?{channel}&last_event_id={id}")));
    client.send(&Frame::ping("the end"));
    let mut texts = Vec::new();
    loop {
        let frame = client.frame();
        if frame.opcode == Frame::PONG {
            client.close();
            return (recovered(&answer), texts);
        }
        texts.push(String::from_utf8(frame.payload).expect("UTF-8"));
    }
}

#[test]
fn a_location_says_how_many_are_kept_and_how_long() {
    let server = httpd()
        .config(
            "<Location \"/publish/three\">\n  SetHandler websocket-publish\n  Require local\n  \
             WebSocketChannelHistory 3 3600\n</Location>",
        )
        .config(
            "<Location \"/publish/short\">\n  SetHandler websocket-publish\n  Require local\n  \
             WebSocketChannelHistory 100 2\n</Location>",
        )
        .config(
            "<Location \"/publish/none\">\n  SetHandler websocket-publish\n  Require local\n  \
             WebSocketChannelHistory Off\n</Location>",
        )
        .start();
    let to = |location: &str, channel: &str, text: &str| {
        let response = post(&server, &format!("/publish{location}?channel={channel}"), "text/plain", text.as_bytes());
        json(&response)[channel]["id"].as_str().expect("an id").to_owned()
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let ids: Vec<String> = (0..5).map(|n| to("/three", "three", &n.to_string())).collect();
    assert_eq!(back(&server, "three", &ids[1]), (Some(true), texts(&["2", "3", "4"])));
    assert_eq!(back(&server, "three", &ids[0]), (Some(false), texts(&["2", "3", "4"])));
    assert_eq!(back(&server, "three", "*"), (None, texts(&["2", "3", "4"])));

    let first = to("/none", "none", "unkept");
    let second = to("/none", "none", "unkept, too");
    assert_eq!(back(&server, "none", &first), (Some(false), vec![]));
    assert_eq!(back(&server, "none", &second), (Some(true), vec![]));
    // The latest location says it for the whole channel.
    to("/none", "three", "5");
    assert_eq!(messages(&server, "three"), 0);

    let begin = Instant::now();
    let first = to("/short", "short", "a");
    let last = to("/short", "short", "b");
    let early = back(&server, "short", &first);
    let early_enough = begin.elapsed() < Duration::from_millis(1900);
    assert!(!early_enough || early == (Some(true), texts(&["b"])), "{early:?}");
    wait_until("both are too old", PATIENCE, || messages(&server, "short") == 0);
    assert!(begin.elapsed() >= Duration::from_secs(2), "kept for {:?}", begin.elapsed());
    assert_eq!(back(&server, "short", &first), (Some(false), vec![]));
    assert_eq!(back(&server, "short", &last), (Some(true), vec![]), "nothing came after it");
    assert_eq!(info(&server, "short")["last_id"], last);
}

/// What subscribers publish is kept as their location says.
#[test]
fn subscribers_messages_are_kept_as_their_location_says() {
    let server = httpd()
        .config(
            "<Location \"/talk\">\n  WebSocketHandler channel talk other\n  WebSocketChannelPublish On\n  \
             WebSocketChannelHistory 2 3600\n</Location>",
        )
        .start();
    let mut reader = subscribe(&server, &offering("/of?talk", NCHAN), "talk");
    let mut talker = subscribe(&server, &offering("/talk", NCHAN), "other");
    let sent = [Frame::text("one"), Frame::binary(b"\xfftwo"), Frame::text(""), Frame::binary("")];
    for frame in &sent {
        talker.send(frame);
    }
    let mut last = None;
    for frame in &sent {
        // In both channels, in that order, with ids of their own.
        let both = [Meta::of(&talker.frame()), Meta::of(&talker.frame())];
        assert!(both.iter().all(|message| message.body == frame.payload && message.content_type.is_none()));
        assert!(both.iter().all(|message| message.is_text == (frame.opcode == Frame::TEXT)));
        assert_eq!(parts(&both[1].id).1, parts(&both[0].id).1 + 1);
        assert_eq!(Meta::of(&reader.frame()), both[0]);
        assert!(last.is_none_or(|last| parts(&both[0].id).1 > last));
        last = Some(parts(&both[1].id).1);
    }
    // A message in fragments is one message.
    talker.send_all(&[Frame::text("in ").unfinished(), Frame::continuation("pieces")]);
    assert_eq!(Meta::of(&reader.frame()).text(), "in pieces");
    assert_eq!([messages(&server, "talk"), messages(&server, "other")], [2, 2]);
    (0..2).for_each(|_| assert_eq!(Meta::of(&talker.frame()).text(), "in pieces"));
    talker.close();
    reader.send(&Frame::text("may I?"));
    reader.expect_failure(1008);
}

#[test]
fn nchans_lines_stand_before_each_message() {
    let server = httpd().start();
    let mut client = subscribe(&server, &offering("/of?a", NCHAN), "a");
    for (content_type, query, body, is_text, told) in [
        ("text/plain; charset=utf-8", "", &b"caf\xc3\xa9"[..], true, Some("text/plain; charset=utf-8")),
        ("application/json", "", b"{}\n\n", true, Some("application/json")),
        ("application/x-www-form-urlencoded", "", b"", true, None),
        ("image/png", "", b"\n\n\x00\xff", false, Some("image/png")),
        ("text/plain", "&type=binary", b"", false, Some("text/plain")),
    ] {
        let response = post(&server, &format!("/publish?channel=a{query}"), content_type, body);
        let id = json(&response)["a"]["id"].as_str().expect("an id").to_owned();
        let expected = Meta { is_text, id, content_type: told.map(str::to_owned), body: body.to_vec() };
        assert_eq!(Meta::of(&client.frame()), expected);
    }
    // The same again, from what is kept.
    let (mut late, _) = open(&server, &offering("/of?a&last_event_id=*", NCHAN));
    assert_eq!(Meta::of(&late.frame()).body, "caf\u{e9}".as_bytes());
    (0..4).for_each(|_| drop(late.frame()));
    late.close();
    client.close();
}

/// The oldest of all channels go, whichever they are in; whoever misses nothing by that is not told so.
#[test]
fn all_that_is_kept_takes_bounded_memory() {
    let server = httpd().config("WebSocketHistoryMemory 100000\nWebSocketChannelHistory 1000 3600").start();
    let small = publish(&server, "small", "1").0;
    let first = publish(&server, "large", "0").0;
    let large = "x".repeat(30_000);
    publish(&server, "large", &large);
    publish(&server, "large", &large);
    assert_eq!(back(&server, "small", &format!("{}:0", parts(&small).0)), (Some(true), vec!["1".to_owned()]));
    publish(&server, "large", &large);
    assert_eq!([messages(&server, "small"), messages(&server, "large")], [1, 4]);
    // One more than there is room for: the three oldest go, one of them in the other channel.
    publish(&server, "large", &large);
    assert_eq!([messages(&server, "small"), messages(&server, "large")], [0, 3]);
    assert_eq!(back(&server, "small", &format!("{}:0", parts(&small).0)), (Some(false), vec![]));
    assert_eq!(back(&server, "small", &small), (Some(true), vec![]));
    assert_eq!(back(&server, "large", &first).0, Some(false));
    assert_eq!(info(&server, "large")["bytes"], 90_000);
    // Larger than all of it: delivered, and not kept.
    let mut client = subscribe(&server, &offering("/of?large", NCHAN), "large");
    let huge = publish(&server, "large", &"y".repeat(200_000)).0;
    assert_eq!(Meta::of(&client.frame()).id, huge);
    assert_eq!(messages(&server, "large"), 0);
    assert_eq!(back(&server, "large", &huge), (Some(true), vec![]));
    client.close();
}

/// Channels that nobody is subscribed to make room; where all have somebody, there is none.
#[test]
fn only_so_many_channels() {
    let server = httpd()
        .config("WebSocketChannelsMax 3")
        .config("<Location \"/two\">\n  WebSocketHandler channel a x\n</Location>")
        .start();
    let mut clients: Vec<Raw> =
        ["a", "b"].iter().map(|name| subscribe(&server, &Handshake::new(&format!("/of?{name}")), name)).collect();
    let old = publish(&server, "old", "is forgotten").0;
    let new = publish(&server, "new", "is kept").0;
    assert_eq!(Raw::page(&server, "/publish?channel=old").status, 404);
    assert_eq!(messages(&server, "new"), 1);
    // Of what was forgotten, nobody can say whether anything came.
    assert_eq!(back(&server, "old", &format!("{}:0", parts(&old).0)), (Some(false), vec![]));
    assert_eq!(Raw::page(&server, "/publish?channel=new").status, 404);
    assert_eq!(back(&server, "new", &format!("{}:0", parts(&new).0)).0, Some(false));

    clients.push(subscribe(&server, &Handshake::new("/of?c"), "c"));
    server.expect_log("WS0007: no session: the engine refused: the limit of channels is reached");
    server.expect_log("WS0017: refused with 507");
    for path in ["/of?d", "/two"] {
        let refused = Raw::answer(&server, &Handshake::new(path));
        assert_eq!((refused.status, refused.header("Upgrade")), (507, None), "{path}");
    }
    let refused = post(&server, "/publish?channel=a&channel=d", "text/plain", b"x");
    assert_eq!(refused.status, 507);
    assert!(json(&refused)["error"].is_string());
    // It went to none of them: who is refused may try again.
    publish(&server, "a", "for the first time");
    clients[0].expect(&Frame::text("for the first time"));
    // Those that are there can be had, and published to.
    clients.push(subscribe(&server, &Handshake::new("/of?a"), "a"));
    assert_eq!(publish(&server, "b", "still").1, 1);
    clients[1].expect(&Frame::text("still"));
    clients.remove(2).close();
    wait_until("it has gone", PATIENCE, || Raw::page(&server, "/publish?channel=c").status == 404);
    clients.push(subscribe(&server, &Handshake::new("/of?d"), "d"));
    assert_eq!(subscribers(&server, "d"), 1);
}

#[test]
fn what_is_told_of_channels() {
    let server = httpd()
        .config(
            "<Location \"/as\">\n  WebSocketHandler channel room/1\n  WebSocketChannelMember \"%{QUERY_STRING}\"\n</Location>",
        )
        .start();
    let list = |query: &str| json(&Raw::page(&server, &format!("/publish?{query}")));
    assert_eq!(list(""), json!({"channels": [], "next": null}));
    let _joe = [1, 2].map(|_| subscribe(&server, &Handshake::new("/as?joe"), "room/1"));
    let _nobody = subscribe(&server, &Handshake::new("/as"), "room/1");
    let there = json!([{"member": "joe", "connections": 2}]);
    let empty =
        json!({"channel": "room/1", "subscribers": 3, "messages": 0, "bytes": 0, "last_id": null, "members": there});
    assert_eq!(info(&server, "room/1"), empty);
    post(&server, "/publish?channel=room/1", "image/png", b"12345");
    let id = publish(&server, "room/1", "caf\u{e9}").0;
    let full =
        json!({"channel": "room/1", "subscribers": 3, "messages": 2, "bytes": 10, "last_id": id, "members": there});
    assert_eq!(info(&server, "room/1"), full);
    // By name, as bytes are ordered, a page at a time.
    post(
        &server,
        "/publish?channel=room/10&channel=room/2&channel=hall&channel=room&channel=caf%C3%A9",
        "text/plain",
        b"x",
    );
    let names = |list: &Value| -> Vec<String> {
        let channels = list["channels"].as_array().expect("a list").iter();
        channels.map(|channel| channel["channel"].as_str().expect("a name").to_owned()).collect()
    };
    let all = ["caf\u{e9}", "hall", "room", "room/1", "room/10", "room/2"];
    let listed = list("");
    assert_eq!((names(&listed), &listed["next"]), (all.map(str::to_owned).to_vec(), &Value::Null));
    let entry = json!({"channel": "room/1", "subscribers": 3, "messages": 2, "bytes": 10, "last_id": id});
    assert_eq!(listed["channels"][3], entry, "as alone, without who is there");
    let (mut after, mut paged) = (String::new(), Vec::new());
    loop {
        let page = list(&format!("prefix=room&limit=2&after={after}"));
        assert!(names(&page).len() <= 2);
        paged.extend(names(&page));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, all[2..]);
    assert_eq!(names(&list("prefix=caf%C3%A9")), ["caf\u{e9}"]);
    assert_eq!(names(&list("prefix=nothing")), [""; 0]);
}
