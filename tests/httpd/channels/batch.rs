//! Publishing many messages with one request. What each line may be is tried in `handlers/channel/ndjson.rs`.

use super::httpd;
use crate::harness::channel::{Meta, subscribe};
use crate::harness::publish::{json, lines, post, post_lines, subscribers};
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Mpm, Raw, Response, Server, every_mpm, wait_until};
use serde_json::{Value, json};

every_mpm!(many_messages_with_one_request, nothing_is_published_of_a_bad_batch);

const NDJSON: &str = "application/x-ndjson";

fn line(channel: &str, data: &str) -> String {
    format!("{}\n", json!({ "channel": channel, "data": data }))
}

/// What one line says: status, id, subscribers.
#[track_caller]
fn receipt<'a>(line: &'a Value, channel: &str) -> (u64, &'a str, u64) {
    let object = line.as_object().expect("an object");
    assert_eq!(object.len(), 1, "{line}");
    let of = &object[channel];
    (
        of["status"].as_u64().expect("a status"),
        of["id"].as_str().unwrap_or_default(),
        of["subscribers"].as_u64().unwrap_or(0),
    )
}

fn offset(id: &str) -> u64 {
    id.split_once(':').and_then(|(_, offset)| offset.parse().ok()).expect("an id")
}

#[track_caller]
fn refused(response: &Response, status: u16, line: Option<u64>) -> String {
    assert_eq!(response.status, status, "{response:?} {}", response.text());
    let said = json(response);
    assert_eq!(said["line"].as_u64(), line, "{said}");
    said["error"].as_str().expect("what is wrong").to_owned()
}

fn many_messages_with_one_request(mpm: Mpm) {
    let server = httpd(mpm).config("<Location \"/other\">\n  WebSocketHandler channel other\n</Location>").start();
    let (mut news, mut other) =
        (subscribe(&server, &Handshake::new("/news"), "news"), subscribe(&server, &Handshake::new("/other"), "other"));
    // One after the other, on a connection that goes on.
    let mut publisher = Raw::connect(&server);
    for round in 0..2 {
        let mut body = String::new();
        for number in 0..1000 {
            body += &line("news", &format!("{round} {number}"));
            if number % 100 == 0 {
                body += &line("other", &number.to_string());
                body += &line("nobody", "x");
            }
        }
        let request = Handshake::page("/publish").method(["POST", "PUT"][round]).header("Content-Type", NDJSON);
        let request = request.header("Content-Length", &body.len().to_string());
        publisher.write(&[request.bytes(&publisher.host()), body.into_bytes()].concat());
        let response = publisher.response(false);
        assert_eq!(
            (response.header("X-Content-Type-Options"), response.header("Cache-Control")),
            (Some("nosniff"), Some("no-store"))
        );
        let said = lines(&response);
        assert_eq!(said.len(), 1020);
        let mut last = 0;
        let mut next = said.iter();
        let mut check = |channel: &str, subscribers: u64| {
            let (status, id, given) = receipt(next.next().expect("a line"), channel);
            assert_eq!((status, given), (if subscribers > 0 { 201 } else { 202 }, subscribers));
            assert!(offset(id) > last, "{id} after {last}");
            last = offset(id);
        };
        for number in 0..1000 {
            check("news", 1);
            if number % 100 == 0 {
                check("other", 1);
                check("nobody", 0);
            }
        }
        (0..1000).for_each(|number| news.expect(&Frame::text(format!("{round} {number}"))));
        (0..10).for_each(|number| other.expect(&Frame::text((100 * number).to_string())));
    }
    // What comes alone, in pieces, or larger than all that goes at a time.
    let large = "x".repeat(1 << 20);
    for texts in [vec!["alone"], vec![&*large, "small", &large]] {
        let body: String = texts.iter().map(|text| line("news", text)).collect();
        let mut publisher = Raw::connect(&server);
        let request =
            Handshake::page("/publish").method("POST").header("Content-Type", "Application/X-NDJSON; charset=utf-8");
        publisher.write(&request.header("Transfer-Encoding", "chunked").bytes(&publisher.host()));
        for piece in body.trim_end().as_bytes().chunks(300_000) {
            publisher.write(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        publisher.write(b"0\r\n\r\n");
        let said = lines(&publisher.response(false));
        assert!(said.len() == texts.len() && said.iter().all(|line| receipt(line, "news").0 == 201), "{said:?}");
        texts.iter().for_each(|text| news.expect(&Frame::text(*text)));
    }
    news.close();
    other.close();
}

/// What is kept of a message is the same as when it comes alone.
#[test]
fn a_line_means_what_a_single_message_does() {
    let server = httpd(Mpm::Event).start();
    let mut client = Raw::connect(&server);
    client.ask(&Handshake::new("/news").header("Sec-WebSocket-Protocol", "ws+meta.nchan")).assert_accepted();
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "news") == 1);
    let body = concat!(
        "\r\n",
        "{\"channel\":\"news\",\"data\":\"caf\\u00e9\",\"content_type\":\"text/plain\"}\r\n",
        "{\"channel\":\"news\",\"base64\":\"/wA=\"}\n \n",
        "{\"base64\":\"eA==\",\"content_type\":\"application/json\",\"channel\":\"news\"}\n",
        "{\"channel\":\"news\",\"data\":\"x\",\"content_type\":\"image/png\"}",
    );
    let expected = [
        (true, Some("text/plain"), "caf\u{e9}".as_bytes()),
        (false, None, b"\xff\0"),
        (true, Some("application/json"), b"x"),
        (false, Some("image/png"), b"x"),
    ];
    let said = lines(&post(&server, "/publish", NDJSON, body.as_bytes()));
    assert_eq!(said.len(), expected.len());
    for ((is_text, content_type, message), line) in expected.into_iter().zip(&said) {
        let meta = Meta::of(&client.frame());
        assert_eq!((meta.is_text, meta.content_type.as_deref(), &meta.body[..]), (is_text, content_type, message));
        assert_eq!(meta.id, receipt(line, "news").1);
    }
    // With a channel in the query, and with a name for it, such a body is one message.
    let whole = line("other", "x") + &line("other", "y");
    let single = post(&server, "/publish?channel=news", NDJSON, whole.as_bytes());
    assert_eq!((single.status, &json(&single)["news"]["subscribers"]), (201, &json!(1)));
    assert_eq!(Meta::of(&client.frame()).text(), whole);
    assert_eq!(post(&server, "/publish?channel=", NDJSON, whole.as_bytes()).status, 400);
    // The query says the type of all.
    for (kind, is_text) in [("binary", false), ("text", true)] {
        assert_eq!(
            lines(&post(&server, &format!("/publish?type={kind}"), NDJSON, line("news", "x").as_bytes())).len(),
            1
        );
        assert_eq!(Meta::of(&client.frame()).is_text, is_text);
    }
    // So is what is no media type of lines.
    assert!(refused(&post(&server, "/publish", "application/json", b"{}"), 400, None).contains("which channel?"));
    client.close();
}

fn nothing_is_published_of_a_bad_batch(mpm: Mpm) {
    let server = httpd(mpm).config("WebSocketMaxMessageSize 1000").start();
    let mut client = subscribe(&server, &Handshake::new("/news"), "news");
    let good = line("news", "lost?");
    for (bad, status, line, why) in [
        (
            "{\"channel\":\"news\"}".to_owned(),
            400,
            Some(3),
            r#"line 3: no message: expected {"channel":NAME,"data":TEXT}"#,
        ),
        ("{\"channel\":\"news\",\"data\":\"x\",\"base64\":\"eA==\"}".to_owned(), 400, Some(3), "or \"base64\", once"),
        ("{\"channel\":\"a b\",\"data\":\"x\"}".to_owned(), 400, Some(3), "is not a channel name"),
        (line("news", &"x".repeat(1001)).trim_end().to_owned(), 413, Some(3), "longer than 1000 bytes"),
    ] {
        let body = format!("{good}\n{bad}\n{good}");
        let why_not = refused(&post(&server, "/publish", NDJSON, body.as_bytes()), status, line);
        assert!(why_not.contains(why), "{why_not}");
    }
    for empty in ["", "\r\n\n"] {
        let why = refused(&post(&server, "/publish", NDJSON, empty.as_bytes()), 400, None);
        assert!(why.contains("the body has no line"), "{why}");
    }
    refused(&post(&server, "/publish", NDJSON, good.repeat(10_001).as_bytes()), 413, Some(10_001));
    refused(&post(&server, "/publish?type=other", NDJSON, good.as_bytes()), 400, None);
    let unread = |headers: &[(&str, &str)]| {
        let mut request =
            Handshake::page("/publish").method("POST").header("Connection", "close").header("Content-Type", NDJSON);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Raw::answer(&server, &request)
    };
    refused(&unread(&[("Content-Length", &((16 << 20) + 1).to_string())]), 413, None);
    refused(&unread(&[("Content-Length", "0"), ("Content-Encoding", "br")]), 415, None);
    // Those who may not publish one message may not publish many.
    for (name, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Via", "1.1 x")] {
        refused(&unread(&[("Content-Length", "0"), (name, value)]), 403, None);
    }
    server.expect_log("WS0035: refused: only this machine may publish here");
    // Nothing of all that has come.
    assert_eq!(lines(&post_lines(&server, &line("news", "the first"))).len(), 1);
    client.expect(&Frame::text("the first"));
    client.close();
}

/// Names are below the prefix of the place, whatever they look like, and a pattern is a name.
#[test]
fn channels_are_those_of_the_place() {
    let server = httpd(Mpm::Event)
        .config("<Location \"/site/publish\">\n  SetHandler websocket-publish\n  Require local\n  WebSocketChannelPrefix site\n</Location>")
        .config("<Location \"/site/news\">\n  WebSocketHandler channel news\n  WebSocketChannelPrefix site\n</Location>")
        .start();
    let (mut news, mut below) = (
        subscribe(&server, &Handshake::new("/news"), "news"),
        subscribe(&server, &Handshake::new("/site/news"), "site/news"),
    );
    let names = ["news", "site/news", "../news", "*", "n*"];
    let body: String = names.iter().map(|name| line(name, "below")).collect();
    let said = lines(&post(&server, "/site/publish", NDJSON, body.as_bytes()));
    let given: Vec<u64> = said.iter().zip(names).map(|(line, name)| receipt(line, name).2).collect();
    assert_eq!(given, [1, 0, 0, 0, 0]);
    below.expect(&Frame::text("below"));
    let list = json(&Raw::page(&server, "/publish?prefix=site/"));
    let list: Vec<&str> =
        list["channels"].as_array().expect("channels").iter().filter_map(|info| info["channel"].as_str()).collect();
    assert_eq!(list, ["site/*", "site/../news", "site/n*", "site/news", "site/site/news"]);
    let long = "x".repeat(1020);
    assert_eq!(lines(&post_lines(&server, &line(&long, "x"))).len(), 1);
    let body = line("news", "lost") + &line(&long, "x");
    let why = refused(&post(&server, "/site/publish", NDJSON, body.as_bytes()), 400, Some(2));
    assert!(why.contains("1 to 1019 bytes"), "{why}");
    lines(&post_lines(&server, &(line("news", "the last") + &line("site/news", "the last"))));
    [&mut news, &mut below].into_iter().for_each(|client| client.expect(&Frame::text("the last")));
    news.close();
    below.close();
}

/// Where there is no room for one more channel, the others get their messages.
#[test]
fn each_line_says_what_became_of_it() {
    let server = httpd(Mpm::Event).config("WebSocketChannelsMax 1").start();
    let mut client = subscribe(&server, &Handshake::new("/news"), "news");
    let body = line("news", "one") + &line("\"other\"", "lost") + &line("news", "two");
    server.expect_log("WS0017: refused with 507: the limit of channels is reached (1 of 3 messages)");
    let said = lines(&post_lines(&server, &body));
    assert_eq!((receipt(&said[0], "news").0, receipt(&said[2], "news").0), (201, 201));
    assert_eq!(said[1], json!({"\"other\"": {"status": 507, "error": "the limit of channels is reached"}}));
    client.expect(&Frame::text("one"));
    client.expect(&Frame::text("two"));
    // What fails as a whole is said as of a single one.
    server.expect_log("WS0017: refused with 507");
    refused(&post_lines(&server, &line("other", "lost").repeat(2)), 507, None);
    client.close();
}

fn with_broker(redis: &Redis) -> Server {
    let server =
        httpd(Mpm::Event).config(format!("WebSocketBroker {}\nWebSocketChannelHistory 1000 3600", redis.url())).start();
    server.expect_links(2);
    server
}

fn statuses(response: &Response) -> Vec<u64> {
    lines(response).iter().map(|line| receipt(line, "news").0).collect()
}

#[test]
fn two_servers_have_one_order() {
    let redis = Redis::start();
    let (one, two) = (with_broker(&redis), with_broker(&redis));
    let mut clients = [Raw::open(&one, "/news"), Raw::open(&two, "/news")];
    wait_until("both are subscribed", PATIENCE, || subscribers(&one, "news") == 2 && subscribers(&two, "news") == 2);
    let body: String = (0..1000).map(|number| line("news", &number.to_string())).collect();
    for server in [&one, &two] {
        let said = lines(&post_lines(server, &body));
        let receipts: Vec<_> = said.iter().map(|line| receipt(line, "news")).collect();
        assert!(receipts.len() == 1000 && receipts.iter().all(|(status, _, given)| (*status, *given) == (201, 2)));
        assert!(receipts.is_sorted_by_key(|(_, id, _)| offset(id)));
        for client in &mut clients {
            (0..1000).for_each(|number| client.expect(&Frame::text(number.to_string())));
        }
        // It forgets what it was taught, as at its own restart.
        redis.command(&[b"SCRIPT", b"FLUSH"]);
    }
    clients.into_iter().for_each(Raw::close);
}

/// Each line says whether it was done (201), was not (503), or nobody knows (504); what was done or may have been done comes.
#[test]
fn a_broker_that_fails_half_way() {
    let mut redis = Redis::start();
    let server = with_broker(&redis);
    let mut client = subscribe(&server, &Handshake::new("/news"), "news");
    server.tolerate_log("WS0017: refused with 50");
    server.tolerate_log("WS0121: the broker cannot be reached");
    // It is full after some of them.
    let used = redis.used_memory();
    redis.command(&[b"CONFIG", b"SET", b"maxmemory", (used + 1_500_000).to_string().as_bytes()]);
    let long = "x".repeat(2000);
    let body: String = (0..1000).map(|number| line("news", &format!("{number} {long}"))).collect();
    let full = statuses(&post_lines(&server, &body));
    redis.command(&[b"CONFIG", b"SET", b"maxmemory", b"0"]);
    assert!(full.len() == 1000 && full.iter().all(|status| [201, 503].contains(status)), "{full:?}");
    assert!(full[0] == 201 && full[999] == 503, "{full:?}");
    for number in (0..1000).filter(|number| full[*number] == 201) {
        client.expect(&Frame::text(format!("{number} {long}")));
    }
    wait_until("publishers are heard", PATIENCE, || post_lines(&server, &line("nobody", "x")).status == 200);
    // It hangs: the first of them may reach it yet, and the others are kept from it.
    redis.freeze();
    let body: String = (0..300).map(|number| line("news", &number.to_string())).collect();
    let hung = statuses(&post_lines(&server, &body));
    redis.wake();
    let unknown = hung.iter().filter(|status| **status == 504).count();
    assert!((1..300).contains(&unknown) && hung[unknown..].iter().all(|status| *status == 503), "{hung:?}");
    (0..unknown).for_each(|number| client.expect(&Frame::text(number.to_string())));
    // A batch of which nothing was done is answered as a single message.
    redis.go();
    wait_until("publishers are refused", PATIENCE, || {
        let response = post_lines(&server, &line("news", "lost").repeat(2));
        response.status == 503 && response.header("Retry-After") == Some("5")
    });
    redis.come_back();
    wait_until("publishers are heard", PATIENCE, || post_lines(&server, &line("news", "back")).status == 200);
    client.expect(&Frame::text("back"));
    client.close();
}
