//! `channels.v1`: what a client may ask for on the live socket, and what it is told.

use crate::harness::channel::{ask, offering, open, parts, recovered, request, said, subscribe};
use crate::harness::publish::{json, post, publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

every_mpm!(requests_over_tls, an_ordinary_request);

const V1: &str = "channels.v1";

/// `/chat` may do everything, as whom its query says; `/read` may do nothing but read.
fn httpd(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .module("authz_host")
        .config(
            "<Location \"/chat\">\n  WebSocketHandler channel lobby\n  WebSocketChannelAllow \"room/*\"\n  \
             WebSocketChannelPublish On\n  WebSocketChannelPresence On\n  WebSocketChannelMax 3\n  \
             WebSocketChannelMember \"%{QUERY_STRING}\"\n</Location>",
        )
        .config("<Location \"/read\">\n  WebSocketHandler channel lobby\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
}

fn chat(server: &Server, member: &str) -> Raw {
    let (mut client, answer) = open(server, &offering(&format!("/chat?{member}"), V1));
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some(V1));
    let first = said(&mut client);
    assert_eq!((&first["type"], &first["channel"]), (&json!("subscribed"), &json!("lobby")));
    client
}

/// Without the id, which no test can know before.
fn without_id(mut value: Value) -> Value {
    let id = value.as_object_mut().expect("an object").remove("id").expect("an id");
    parts(id.as_str().expect("a string"));
    value
}

/// What takes a channel's URL for one of events, or of a page, is told what it is; but where somebody serves it.
fn an_ordinary_request(mpm: Mpm) {
    let server = httpd(mpm)
        .module("dir")
        .file("htdocs/page.html", "a page")
        .config("<Location \"/page.html\">\n  WebSocketHandler channel lobby\n</Location>")
        .config("<Location \"/echo\">\n  WebSocketHandler echo\n</Location>")
        .config("Alias /docs \"{root}/htdocs\"\n<Location \"/docs\">\n  WebSocketHandler channel lobby\n</Location>")
        .module("alias")
        .start();
    let events = Handshake::page("/read").header("Accept", "text/event-stream");
    for handshake in [events, Handshake::page("/read"), Handshake::page("/chat?ann")] {
        let answer = Raw::answer(&server, &handshake);
        assert_eq!(answer.status, 426);
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert!(answer.header("Connection").is_some_and(|value| value.contains("Upgrade")), "{answer:?}");
        assert_eq!(answer.text(), "This URL is a WebSocket's: open it with ws: or wss:.\n");
    }
    assert_eq!(Raw::answer(&server, &Handshake::page("/read").method("HEAD")).status, 426);
    assert_eq!(Raw::answer(&server, &Handshake::page("/page.html")).text(), "a page");
    assert_eq!(Raw::answer(&server, &Handshake::page("/docs/index.html")).status, 200);
    // Nothing else is ours.
    assert_eq!(
        Raw::answer(&server, &Handshake::page("/read").method("POST").header("Content-Length", "0")).status,
        404
    );
    assert_eq!(Raw::answer(&server, &Handshake::page("/echo")).status, 404);
    assert_eq!(Raw::answer(&server, &Handshake::page("/nothing")).status, 404);
    Raw::open(&server, "/page.html").close();
}

/// The directive reaches the session: the rest is the engine's.
#[test]
fn heartbeats() {
    let server = Httpd::new(Mpm::Event)
        .config("<Location \"/read\">\n  WebSocketHandler channel lobby\n  WebSocketChannelHeartbeat ping pong\n</Location>")
        .config("<Location \"/off\">\n  WebSocketHandler channel lobby\n  WebSocketChannelPublish On\n</Location>")
        .start();
    let mut listener = Raw::open(&server, "/read");
    listener.send(&Frame::text("ping"));
    listener.expect(&Frame::text("pong"));
    let mut writer = Raw::open(&server, "/off");
    writer.send(&Frame::text("ping"));
    writer.expect(&Frame::text("ping"));
    listener.expect(&Frame::text("ping"));
    listener.close();
    writer.close();
}

/// The whole of what is said, so that a field that is not documented would be seen.
fn requests_over_tls(mpm: Mpm) {
    let server = httpd(mpm).tls().start();
    let mut ann = chat(&server, "ann");
    let subscribed = ask(&mut ann, &json!({"type": "subscribe", "channel": "room/1", "ref": "a"}));
    assert_eq!(without_id(subscribed), json!({"type": "subscribed", "channel": "room/1", "ref": "a"}));
    let there = ask(&mut ann, &json!({"type": "presence", "channel": "room/1", "ref": 7}));
    let members = json!([{"member": "ann", "connections": 1}]);
    let expected = json!({"type": "presence", "channel": "room/1", "members": members, "subscribers": 1, "ref": 7});
    assert_eq!(there, expected);
    let published = ask(&mut ann, &json!({"type": "publish", "channel": "room/1", "data": "caf\u{e9}", "ref": true}));
    let message = said(&mut ann);
    assert_eq!(published["id"], message["id"]);
    let expected = json!({"type": "published", "channel": "room/1", "subscribers": 1, "ref": true});
    assert_eq!(without_id(published), expected);
    assert_eq!(without_id(message), json!({"type": "message", "channel": "room/1", "data": "caf\u{e9}"}));
    let gone = ask(&mut ann, &json!({"type": "unsubscribe", "channel": "room/1", "ref": 1.5}));
    assert_eq!(gone, json!({"type": "unsubscribed", "channel": "room/1", "ref": 1.5}));
    // To a channel that one may have, but has not.
    let published = ask(&mut ann, &json!({"type": "publish", "channel": "room/1", "data": "unheard"}));
    assert_eq!(without_id(published), json!({"type": "published", "channel": "room/1", "subscribers": 0}));
    // A channel of the handshake is one as the others: it can be left, and taken again.
    assert_eq!(ask(&mut ann, &json!({"type": "unsubscribe", "channel": "lobby"}))["type"], "unsubscribed");
    assert_eq!(subscribers(&server, "lobby"), 0);
    let again = ask(&mut ann, &json!({"type": "subscribe", "channel": "lobby", "since": "*"}));
    assert_eq!(without_id(again), json!({"type": "subscribed", "channel": "lobby"}));
    publish(&server, "lobby", "here");
    assert_eq!(said(&mut ann)["data"], "here");
    ann.close();
}

#[test]
fn a_message_carries_what_was_published() {
    let server = httpd(Mpm::Event).start();
    let mut client = chat(&server, "ann");
    for (content_type, query, body, expected) in [
        (
            "text/plain",
            "",
            &b"a \"b\" \\ \x01\n"[..],
            json!({"content_type": "text/plain", "data": "a \"b\" \\ \u{1}\n"}),
        ),
        ("text/plain", "", b"", json!({"content_type": "text/plain", "data": ""})),
        ("application/x-www-form-urlencoded", "", b"x=1", json!({"data": "x=1"})),
        ("image/png", "", b"\x00\xff\x10", json!({"content_type": "image/png", "base64": "AP8Q"})),
        ("image/png", "", b"", json!({"content_type": "image/png", "base64": ""})),
        ("text/plain", "&type=binary", b"abc", json!({"content_type": "text/plain", "base64": "YWJj"})),
    ] {
        let response = post(&server, &format!("/publish?channel=lobby{query}"), content_type, body);
        let mut message = said(&mut client);
        let map = message.as_object_mut().expect("an object");
        assert_eq!(map.remove("id").as_ref(), Some(&json(&response)["lobby"]["id"]));
        assert_eq!((map.remove("type"), map.remove("channel")), (Some(json!("message")), Some(json!("lobby"))));
        assert_eq!(message, expected);
    }
    let large = "x".repeat(1 << 20);
    publish(&server, "lobby", &large);
    assert!(said(&mut client)["data"] == large);
    client.close();
}

#[test]
fn what_is_not_granted_is_an_error_and_no_end() {
    let server = httpd(Mpm::Event).start();
    let mut client = chat(&server, "ann");
    let subscribe = |channel: &str| json!({"type": "subscribe", "channel": channel, "ref": 1});
    for request in [
        json!({"ref": 1}),
        json!({"type": "subscribe", "ref": 1}),
        json!({"channel": "lobby", "ref": 1}),
        json!({"type": 5, "channel": "lobby", "ref": 1}),
        json!({"type": "shout", "channel": "lobby", "ref": 1}),
        json!({"type": "subscribe", "channel": "room/1", "since": 5, "ref": 1}),
        json!({"type": "subscribe", "channel": "room/1", "presence": "yes", "ref": 1}),
        json!({"type": "publish", "channel": "lobby", "ref": 1}),
        json!({"type": "publish", "channel": "lobby", "data": "", "base64": "", "ref": 1}),
        json!({"type": "publish", "channel": "lobby", "data": {"a": 1}, "ref": 1}),
        json!({"type": "publish", "channel": "lobby", "base64": "!", "ref": 1}),
        subscribe(""),
        subscribe("room/a b"),
        subscribe("room/\u{0}"),
        subscribe(&format!("room/{}", "x".repeat(1020))),
    ] {
        let answer = ask(&mut client, &request);
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("bad_request")), "{request}: {answer}");
        assert_eq!(answer["ref"], 1, "{request}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    }
    for text in ["", "{", "null", "[]", "\"subscribe\"", "{\"type\":\"subscribe\",\"channel\":\"lobby\"} x"] {
        client.send(&Frame::text(text));
        assert_eq!(said(&mut client)["code"], "bad_request", "{text}");
    }
    for (request, code) in [
        (subscribe("elsewhere"), "forbidden"),
        (subscribe("room"), "forbidden"),
        (subscribe("Lobby"), "forbidden"),
        (json!({"type": "publish", "channel": "elsewhere", "data": ""}), "forbidden"),
        (json!({"type": "unsubscribe", "channel": "room/1"}), "not_subscribed"),
        (json!({"type": "unsubscribe", "channel": "elsewhere"}), "not_subscribed"),
        (json!({"type": "presence", "channel": "room/1"}), "not_subscribed"),
    ] {
        let answer = ask(&mut client, &request);
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{request}: {answer}");
        assert_eq!(answer.get("ref"), request.get("ref"));
    }
    // Three at a time, that of the handshake among them; one that is left makes room.
    assert_eq!(ask(&mut client, &subscribe("room/1"))["type"], "subscribed");
    assert_eq!(ask(&mut client, &subscribe("room/2"))["type"], "subscribed");
    assert_eq!(ask(&mut client, &subscribe("room/3"))["code"], "too_many");
    assert_eq!(ask(&mut client, &subscribe("room/2"))["type"], "subscribed");
    assert_eq!(ask(&mut client, &json!({"type": "unsubscribe", "channel": "lobby"}))["type"], "unsubscribed");
    assert_eq!(ask(&mut client, &subscribe("room/3"))["type"], "subscribed");
    assert_eq!(["lobby", "room/1", "room/2", "room/3"].map(|name| subscribers(&server, name)), [0, 1, 1, 1]);

    let mut reader = open(&server, &offering("/read", V1)).0;
    assert_eq!(said(&mut reader)["type"], "subscribed");
    for request in [
        json!({"type": "publish", "channel": "lobby", "data": ""}),
        json!({"type": "presence", "channel": "lobby"}),
        json!({"type": "subscribe", "channel": "lobby", "presence": true}),
        subscribe("room/1"),
    ] {
        assert_eq!(ask(&mut reader, &request)["code"], "forbidden", "{request}");
    }
    reader.send(&Frame::binary("{}"));
    reader.expect_failure(1003);
    client.close();
}

/// Requests that come in one packet are answered one after the other.
#[test]
fn answers_come_in_the_order_of_requests() {
    let server = httpd(Mpm::Event).start();
    let mut client = chat(&server, "ann");
    let requests: Vec<Frame> = (0..300)
        .map(|n| match n % 4 {
            0 => json!({"type": "subscribe", "channel": "room/1", "ref": n}),
            1 => json!({"type": "presence", "channel": "room/1", "ref": n}),
            2 => json!({"type": "unsubscribe", "channel": "room/1", "ref": n}),
            _ => json!({"type": "nonsense", "ref": n}),
        })
        .map(|request| Frame::text(request.to_string()))
        .collect();
    client.send_all(&requests);
    for n in 0..300 {
        let answer = said(&mut client);
        let expected = ["subscribed", "presence", "unsubscribed", "error"][n % 4];
        assert_eq!((&answer["ref"], &answer["type"]), (&json!(n), &json!(expected)));
    }
    client.close();
}

#[test]
fn a_channel_can_be_taken_from_where_one_was() {
    let server = httpd(Mpm::Event).start();
    let ids: Vec<String> = (0..12).map(|n| publish(&server, "room/1", &n.to_string()).0).collect();
    let mut client = chat(&server, "ann");
    for (since, recovered, first) in [
        (Some(ids[8].as_str()), Some(true), 9),
        (Some(&ids[1]), Some(true), 2),
        (Some(&ids[0]), Some(false), 2),
        (Some("elsewhere:3"), Some(false), 2),
        (Some("rubbish"), Some(false), 2),
        (Some("*"), None, 2),
        (Some(""), None, 12),
        (Some(&ids[11]), Some(true), 12),
        (None, None, 12),
    ] {
        let answer = ask(&mut client, &json!({"type": "subscribe", "channel": "room/1", "since": since}));
        assert_eq!(answer.get("recovered"), recovered.map(Value::from).as_ref(), "{since:?}: {answer}");
        for (n, id) in ids.iter().enumerate().skip(first) {
            let message = said(&mut client);
            assert_eq!((&message["id"], &message["data"]), (&json!(id), &json!(n.to_string())), "{since:?}");
        }
        assert_eq!(ask(&mut client, &json!({"type": "unsubscribe", "channel": "room/1"}))["type"], "unsubscribed");
    }
    client.close();
}

/// The id that `subscribed` carries is where the subscription begins, and after `unsubscribed` nothing more comes,
/// also while messages arrive.
#[test]
fn subscriptions_begin_and_end_sharply() {
    const MESSAGES: usize = 40_000;
    let server = httpd(Mpm::Event).config("WebSocketMaxMessageSize 1048576").start();
    let done = AtomicBool::new(false);
    let mut speaker = chat(&server, "speaker");
    assert_eq!(ask(&mut speaker, &json!({"type": "subscribe", "channel": "room/1"}))["type"], "subscribed");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while number < MESSAGES && !done.load(Ordering::Relaxed) {
                let batch: Vec<Frame> = (number..number + 20)
                    .map(|n| json!({"type": "publish", "channel": "room/1", "data": n.to_string()}))
                    .map(|request| Frame::text(request.to_string()))
                    .collect();
                speaker.send_all(&batch);
                number += batch.len();
                // The answer and the message itself.
                (0..2 * batch.len()).for_each(|_| drop(said(&mut speaker)));
            }
        });
        // Nothing else is published: offsets have no gaps.
        let mut client = chat(&server, "ann");
        let mut total = 0;
        for round in 0..200 {
            let begin = ask(&mut client, &json!({"type": "subscribe", "channel": "room/1"}));
            let mut next = parts(begin["id"].as_str().expect("an id")).1 + 1;
            for _ in 0..round % 17 {
                let message = said(&mut client);
                assert_eq!(parts(message["id"].as_str().expect("an id")).1, next, "in round {round}");
                next += 1;
                total += 1;
            }
            request(&mut client, &json!({"type": "unsubscribe", "channel": "room/1", "ref": round}));
            loop {
                let next_said = said(&mut client);
                if next_said["type"] == "unsubscribed" {
                    assert_eq!(next_said["ref"], round);
                    break;
                }
                assert_eq!(parts(next_said["id"].as_str().expect("an id")).1, next, "in round {round}");
                next += 1;
            }
            // The answer to a request comes after what was on its way before: here it must come first.
            let pause = ask(&mut client, &json!({"type": "presence", "channel": "lobby"}));
            assert_eq!(pause["type"], "presence", "after unsubscribed in round {round}");
        }
        done.store(true, Ordering::Relaxed);
        assert!(total > 1000);
        client.close();
    });
}

#[test]
fn presence_is_told_to_who_asks_and_of_others() {
    let server = httpd(Mpm::Event).start();
    let mut ann = chat(&server, "ann");
    let wish = |presence: bool| json!({"type": "subscribe", "channel": "lobby", "presence": presence, "ref": "p"});
    let again = json!({"type": "subscribed", "channel": "lobby", "ref": "p"});
    assert_eq!(ask(&mut ann, &wish(true)), again);
    let there = |client: &mut Raw| {
        let there = said(client);
        assert_eq!((&there["type"], there.get("ref")), (&json!("presence"), None), "{there}");
        (there["members"].clone(), there["subscribers"].clone())
    };
    assert_eq!(there(&mut ann), (json!([{"member": "ann", "connections": 1}]), json!(1)));
    // Of herself she is told nothing.
    let other_ann = chat(&server, "ann");
    let mut bob = chat(&server, "bob");
    assert_eq!(said(&mut ann), json!({"type": "join", "channel": "lobby", "member": "bob"}));
    // With presence from the beginning, in another channel.
    request(&mut bob, &json!({"type": "subscribe", "channel": "room/1", "presence": true}));
    assert_eq!(said(&mut bob)["type"], "subscribed");
    assert_eq!(there(&mut bob), (json!([{"member": "bob", "connections": 1}]), json!(1)));
    assert_eq!(ask(&mut ann, &json!({"type": "subscribe", "channel": "room/1"}))["type"], "subscribed");
    assert_eq!(said(&mut bob), json!({"type": "join", "channel": "room/1", "member": "ann"}));
    // Leaving a channel is leaving, too.
    assert_eq!(ask(&mut ann, &json!({"type": "unsubscribe", "channel": "room/1"}))["type"], "unsubscribed");
    assert_eq!(said(&mut bob), json!({"type": "leave", "channel": "room/1", "member": "ann"}));
    // Nobody in particular, three of them, of whom nothing is told; and what publishers see of all.
    let nobody: Vec<Raw> = (0..3).map(|_| subscribe(&server, &Handshake::new("/chat"), "lobby")).collect();
    let info = json(&Raw::page(&server, "/publish?channel=lobby"));
    let members = json!([{"member": "ann", "connections": 2}, {"member": "bob", "connections": 1}]);
    assert_eq!((&info["members"], &info["subscribers"]), (&members, &json!(6)));
    nobody.into_iter().for_each(Raw::close);
    bob.close();
    assert_eq!(said(&mut ann), json!({"type": "leave", "channel": "lobby", "member": "bob"}));
    // No more of it.
    assert_eq!(ask(&mut ann, &wish(false)), again);
    let carl = chat(&server, "carl");
    wait_until("four have gone, and one is there", PATIENCE, || subscribers(&server, "lobby") == 3);
    publish(&server, "lobby", "after him");
    assert_eq!(said(&mut ann)["data"], "after him");
    ann.close();
    drop((other_ann, carl));
}

/// A channel too many is refused on the live socket as any other wish: the socket goes on.
#[test]
fn a_channel_too_many_for_the_server_ends_no_socket() {
    let server = httpd(Mpm::Event).config("WebSocketChannelsMax 2").start();
    let mut ann = chat(&server, "ann");
    let mut bob = chat(&server, "bob");
    assert_eq!(ask(&mut ann, &json!({"type": "subscribe", "channel": "room/1"}))["type"], "subscribed");
    for since in [Value::Null, json!("*"), json!("rubbish")] {
        let wish = json!({"type": "subscribe", "channel": "room/2", "since": since, "ref": 4});
        let answer = ask(&mut bob, &wish);
        assert_eq!((&answer["code"], &answer["ref"]), (&json!("unavailable"), &json!(4)), "{answer}");
    }
    let answer = ask(&mut bob, &json!({"type": "publish", "channel": "room/2", "data": ""}));
    assert_eq!(answer["code"], "unavailable", "{answer}");
    // One that is there already can be had; and there is room once another has gone.
    assert_eq!(ask(&mut bob, &json!({"type": "subscribe", "channel": "room/1"}))["type"], "subscribed");
    for client in [&mut ann, &mut bob] {
        assert_eq!(ask(client, &json!({"type": "unsubscribe", "channel": "room/1"}))["type"], "unsubscribed");
    }
    assert_eq!(ask(&mut bob, &json!({"type": "subscribe", "channel": "room/2"}))["type"], "subscribed");
    ann.close();
    bob.close();
}

/// What the handshake says of the way back, `subscribed` says of each of its channels.
#[test]
fn the_way_back_is_told_in_the_101_and_in_subscribed() {
    let server =
        httpd(Mpm::Event).config("<Location \"/both\">\n  WebSocketHandler channel lobby room/1\n</Location>").start();
    let first = publish(&server, "lobby", "1").0;
    publish(&server, "room/1", "2");
    publish(&server, "lobby", "3");
    let is_back = |id: &str| {
        let (mut client, answer) = open(&server, &offering(&format!("/both?last_event_id={id}"), V1));
        let begun = [said(&mut client), said(&mut client)];
        assert_eq!(begun.each_ref().map(|begun| begun["channel"].clone()), ["lobby", "room/1"]);
        assert_eq!(begun[0]["id"], begun[1]["id"]);
        let told = begun.each_ref().map(|begun| begun.get("recovered").and_then(Value::as_bool));
        assert_eq!(told, [recovered(&answer); 2], "{id}");
        (client, told[0])
    };
    for (id, expected, texts) in [
        (&*first, Some(true), &["2", "3"][..]),
        ("other:1", Some(false), &["1", "2", "3"]),
        ("*", None, &["1", "2", "3"]),
    ] {
        let (mut client, told) = is_back(id);
        assert_eq!(told, expected, "{id}");
        texts.iter().for_each(|text| assert_eq!(said(&mut client)["data"], *text, "{id}"));
        client.close();
    }
}
