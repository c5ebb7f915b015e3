//! Clients that come back: each message once and in order, or an honest word that some are missing.

use crate::harness::channel::{Meta, offering, open, parts, recovered, said, subscribe};
use crate::harness::port::Port;
use crate::harness::publish::{publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

every_mpm!(by_parameter_and_header, over_restarts_of_httpd);

const NCHAN: &str = "ws+meta.nchan";
const V1: &str = "channels.v1";

fn httpd(mpm: Mpm) -> Httpd {
    super::httpd(mpm).config("<Location \"/both\">\n  WebSocketHandler channel news sport\n</Location>")
}

/// The texts that come, and nothing after them.
#[track_caller]
fn gets(server: &Server, client: &mut Raw, texts: &[&str]) {
    texts.iter().for_each(|text| client.expect(&Frame::text(*text)));
    wait_until("it is subscribed", PATIENCE, || subscribers(server, "news") > 0);
    client.send(&Frame::ping("nothing before this"));
    client.expect(&Frame::pong("nothing before this"));
}

fn by_parameter_and_header(mpm: Mpm) {
    let server = httpd(mpm).tls().start();
    let ids: Vec<String> = (0..4).map(|n| publish(&server, "news", &n.to_string()).0).collect();
    let (epoch, offset) = parts(&ids[0]);
    let cases = [
        (Some(&*ids[1]), None, Some(true), &["2", "3"][..]),
        (None, Some(&*ids[2]), Some(true), &["3"]),
        (Some(&*ids[3]), None, Some(true), &[]),
        // The parameter wins, though it be empty.
        (Some(&*ids[2]), Some(&*ids[0]), Some(true), &["3"]),
        (Some("*"), Some(&*ids[2]), None, &["0", "1", "2", "3"]),
        (Some(""), Some(&*ids[2]), None, &[]),
        (Some(""), None, None, &[]),
        (None, Some(""), None, &[]),
        (None, Some("*"), None, &["0", "1", "2", "3"]),
        // What nobody was given is no id: it comes from elsewhere.
        (Some(&*format!("{epoch}:{}", offset + 1000)), None, Some(false), &[]),
        (Some(&*format!("{epoch}:0")), None, Some(true), &["0", "1", "2", "3"]),
        (Some("other:2"), None, Some(false), &["0", "1", "2", "3"]),
        (None, Some("rubbish"), Some(false), &["0", "1", "2", "3"]),
        (Some("%00"), None, Some(false), &["0", "1", "2", "3"]),
        (Some(&*"9".repeat(4000)), None, Some(false), &["0", "1", "2", "3"]),
        (None, Some(&*format!("{epoch}:-1")), Some(false), &["0", "1", "2", "3"]),
        (None, Some(&*format!("{epoch}:99999999999999999999")), Some(false), &["0", "1", "2", "3"]),
    ];
    for (parameter, header, expected, texts) in cases {
        let path = parameter.map_or("/news".to_owned(), |id| format!("/news?last_event_id={id}"));
        let handshake = Handshake::new(&path);
        let handshake = header.iter().fold(handshake, |handshake, id| handshake.header("Last-Event-ID", id));
        let (mut client, answer) = open(&server, &handshake);
        assert_eq!(recovered(&answer), expected, "{parameter:?} {header:?}");
        gets(&server, &mut client, texts);
        client.close();
        wait_until("it has gone", PATIENCE, || subscribers(&server, "news") == 0);
    }
}

/// What a graceful restart, a restart and a killed engine leave of what is kept.
fn over_restarts_of_httpd(mpm: Mpm) {
    let server = httpd(mpm).start();
    let mut ids = vec![publish(&server, "news", "0").0];
    let back = |id: &str, expected: bool, texts: &[&str]| {
        let (mut client, answer) = open(&server, &Handshake::new(&format!("/news?last_event_id={id}")));
        assert_eq!(recovered(&answer), Some(expected), "{id}");
        texts.iter().for_each(|text| client.expect(&Frame::text(*text)));
        client
    };
    let mut stays = subscribe(&server, &Handshake::new("/news"), "news");
    server.graceful();
    ids.push(publish(&server, "news", "1").0);
    stays.expect(&Frame::text("1"));
    back(&ids[0], true, &["1"]).close();
    server.restart();
    ids.push(publish(&server, "news", "2").0);
    stays.expect(&Frame::text("2"));
    back(&ids[0], true, &["1", "2"]).close();
    let engine = server.engine();
    server.expect_log("WS0201: the engine process");
    engine.signal(Signal::KILL);
    wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|new| *new != engine));
    stays.await_hangup();
    let mut client = back(&ids[2], false, &[]);
    wait_until("it is subscribed", PATIENCE, || subscribers(&server, "news") == 1);
    let id = publish(&server, "news", "3").0;
    assert_ne!(parts(&id).0, parts(&ids[2]).0);
    client.expect(&Frame::text("3"));
    back(&ids[2], false, &["3"]).close();
    client.close();
}

/// One id for any number of channels, and one order in all of them.
#[test]
fn one_id_for_several_channels() {
    let server = httpd(Mpm::Event).start();
    let mut live = subscribe(&server, &offering("/both", NCHAN), "sport");
    let ids: Vec<String> =
        (0..16).map(|n| publish(&server, ["news", "sport", "other", "news"][n % 4], &n.to_string()).0).collect();
    let read = |client: &mut Raw, first: usize| {
        for n in (first..16).filter(|n| n % 4 != 2) {
            let message = Meta::of(&client.frame());
            assert_eq!((message.text(), &message.id), (&*n.to_string(), &ids[n]), "after {first}");
        }
    };
    read(&mut live, 0);
    for (known, id) in ids.iter().enumerate() {
        // Also the id of a message that was none of theirs.
        let (mut client, answer) = open(&server, &offering(&format!("/both?last_event_id={id}"), NCHAN));
        assert_eq!(recovered(&answer), Some(true), "{known}");
        read(&mut client, known + 1);
        client.close();
    }
    // News has had more than the ten that are kept: all is not there, and what is there comes in order.
    (16..20).for_each(|n| drop(publish(&server, "news", &n.to_string())));
    let (mut client, answer) = open(&server, &offering(&format!("/both?last_event_id={}", ids[0]), NCHAN));
    assert_eq!(recovered(&answer), Some(false));
    let texts: Vec<String> = (0..14).map(|_| Meta::of(&client.frame()).text().to_owned()).collect();
    assert_eq!(texts, ["1", "4", "5", "7", "8", "9", "11", "12", "13", "15", "16", "17", "18", "19"][..], "{texts:?}");
    client.close();
    (16..20).for_each(|n| assert_eq!(Meta::of(&live.frame()).text(), n.to_string()));
    live.close();
}

/// What one reader has seen.
#[derive(Default)]
struct Seen {
    last: Option<String>,
    recoveries: usize,
    gaps: usize,
    messages: usize,
}

/// The id and the number of the next message; `None` for a Close.
fn next(client: &mut Raw, protocol: &str) -> Option<(String, u64)> {
    let frame = client.frame();
    if frame.opcode == Frame::CLOSE {
        // It was not fast enough for what it was promised, and comes back.
        assert_eq!(frame.close_code(), Some(1013));
        return None;
    }
    if protocol == NCHAN {
        let message = Meta::of(&frame);
        let number = message.text().parse().expect("a number");
        return Some((message.id, number));
    }
    let message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
    assert_eq!(message["type"], "message", "{message}");
    let text = |name: &str| message[name].as_str().expect("a string").to_owned();
    Some((text("id"), text("data").parse().expect("a number")))
}

/// Comes back fifty times in the middle of what is published, and looks at every number.
fn reads_on_and_off(server: &Server, plain: Option<SocketAddr>, reader: usize, protocol: &str) -> Seen {
    let mut seen = Seen::default();
    let mut expected = None;
    for round in 0..50 {
        let mut client = plain.map_or_else(|| Raw::connect(server), |address| Raw::connect_to(address, None));
        let mut handshake = offering("/news", protocol);
        if let Some(last) = &seen.last {
            handshake = handshake.header("Last-Event-ID", last);
        }
        let answer = client.ask(&handshake);
        answer.assert_accepted();
        let recovered = recovered(&answer);
        assert_eq!(recovered.is_some(), seen.last.is_some());
        if protocol == V1 {
            let begun = said(&mut client);
            assert_eq!(begun.get("recovered").and_then(Value::as_bool), recovered);
        }
        let count = 1 + (reader * 7 + round * 13) % 60;
        for message in 0..count {
            let Some((id, number)) = next(&mut client, protocol) else { break };
            match (expected, message, recovered) {
                (Some(expected), 0, Some(false)) => {
                    // Honest also so: what was said to be missing is missing.
                    assert!(number > expected, "{number} after {expected}, said to be not recovered");
                    seen.gaps += 1;
                }
                (Some(expected), ..) => assert_eq!(number, expected, "reader {reader}, round {round}, {recovered:?}"),
                (None, ..) => {}
            }
            expected = Some(number + 1);
            seen.last = Some(id);
            seen.messages += 1;
        }
        seen.recoveries += usize::from(recovered == Some(true));
        match round % 3 {
            0 => client.reset(),
            1 => drop(client),
            _ => client.try_write(&Frame::close(1000, "").masked()),
        }
    }
    seen
}

/// Readers over ws and wss, in both subprotocols, while a WebSocket publishes as fast as it gets its own messages back.
fn while_messages_arrive(history: &str) -> Vec<Seen> {
    let _turn = heavy();
    let port = Port::reserve();
    let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let server = httpd(Mpm::Event)
        .workers(40)
        .tls()
        .config(format!("WebSocketChannelHistory {history}\nWebSocketChannelPublish On"))
        .config(format!("Listen {plain}\n<VirtualHost {plain}>\n  SSLEngine Off\n</VirtualHost>"))
        .start();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut client = Raw::connect_to(plain, None);
            client.ask(&Handshake::new("/news")).assert_accepted();
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                let batch: Vec<Frame> = (number..number + 10).map(|n: u64| Frame::text(n.to_string())).collect();
                client.send_all(&batch);
                batch.iter().for_each(|frame| client.expect(frame));
                number += 10;
            }
            client.close();
            number
        });
        let readers: Vec<_> = (0..6)
            .map(|reader| {
                let server = &server;
                let protocol = [NCHAN, V1][reader % 2];
                let plain = (reader % 3 > 0).then_some(plain);
                scope.spawn(move || reads_on_and_off(server, plain, reader, protocol))
            })
            .collect();
        let seen: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let published = publisher.join().expect("the publisher");
        let seen: Vec<Seen> = seen.into_iter().map(|seen| seen.expect("a reader")).collect();
        assert!(seen.iter().all(|seen| seen.messages as u64 <= published));
        seen
    })
}

#[test]
fn nothing_is_missed_within_the_history() {
    for seen in while_messages_arrive("1000000 3600") {
        assert_eq!((seen.recoveries, seen.gaps), (49, 0));
    }
}

#[test]
fn what_is_missed_is_said_where_the_history_is_short() {
    let all = while_messages_arrive("30 3600");
    assert!(all.iter().map(|seen| seen.gaps).sum::<usize>() > 0, "nobody has missed anything");
}
