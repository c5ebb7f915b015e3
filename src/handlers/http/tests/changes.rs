//! What others change in sessions.

use super::*;
use crate::engine::application::answer::Answer;
use crate::engine::application::recheck::Verdict;
use crate::engine::revocation::{self, Measure, Name, Revocation, Whom, clock};

/// A session of ann's.
fn named(settings: &HttpSettings) -> SessionSpec {
    let opening = revocation::Opening { began: clock(), prefix: "p/".into(), member: None, ..Default::default() };
    SessionSpec { user: Some("ann".into()), opening: Some(Box::new(opening)), ..spec(settings) }
}

/// From how many sessions the channel was taken.
fn take_back(engine: &TestEngine, channel: &str) -> u64 {
    let name = Name { prefix: "p/".into(), whom: Whom::User("ann".into()) };
    let measure = Measure::Unsubscribe { channels: vec![format!("p/{channel}")] };
    engine.block_on(engine.directory().revoke(Revocation { name, except: None, measure }, clock()))
}

#[test]
fn channels_are_taken_back() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Plain, &[("WebSocket-Channel", "a, b")], "ready");
    // Known only after its opening began: it does not begin with what was taken back meanwhile.
    let late = named(&settings);
    let (_, mut client) = engine.session_of(named(&settings));
    assert_eq!(hear(&mut client), "ready");
    assert_eq!((take_back(&engine, "a"), take_back(&engine, "a"), take_back(&engine, "c")), (1, 0, 0));
    assert_eq!(["a", "b", "c"].map(|channel| subscribers(&engine, &hub, channel)), [0, 1, 0]);
    assert_eq!(hear(&mut client), "b");
    let (_, mut other) = engine.session_of(late);
    assert_eq!(hear(&mut other), "ready");
    assert_eq!(["a", "b"].map(|channel| subscribers(&engine, &hub, channel)), [0, 2]);
    drop(other);
    script.exchange(answer(204, "", ""));
    engine.wait_for(1);

    // What the application says to a question that was asked before does not bring it back; its next word does.
    say(&mut client, "x");
    script.next();
    assert_eq!(take_back(&engine, "b"), 1);
    script.answer(answer(200, "WebSocket-Channel: b, c\r\nContent-Type: text/plain\r\n", "done"));
    assert_eq!([hear(&mut client), hear(&mut client)], ["b", "done"]);
    assert_eq!(["b", "c"].map(|channel| subscribers(&engine, &hub, channel)), [0, 1]);
    assert_eq!(hear(&mut client), "c");
    say(&mut client, "x");
    script.exchange(answer(200, "WebSocket-Channel: b, c\r\nContent-Type: text/plain\r\n", "done"));
    assert_eq!(hear(&mut client), "done");
    assert_eq!(["b", "c"].map(|channel| subscribers(&engine, &hub, channel)), [1, 1]);
}

#[test]
fn a_client_that_is_not_read_loses_channels_all_the_same() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Plain, &[("WebSocket-Channel", "a")], "");
    let (_, mut client) = engine.session_of(named(&settings));
    say(&mut client, "x");
    script.next();
    // As much as it takes before it reads no further, and no more: nobody would take it.
    for _ in 0..3 {
        client.send(Message::binary(vec![0; 70_000])).unwrap();
    }
    assert_eq!((take_back(&engine, "a"), subscribers(&engine, &hub, "a")), (1, 0));
}

#[test]
fn a_recheck_says_what_holds_now() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let settings = HttpSettings {
        given: vec!["a".into(), "b".into()],
        ..settings(&script, Mode::Plain, &[("WebSocket-Channel", "b")], "ready")
    };
    let (id, mut client) = engine.session_of(named(&settings));
    assert_eq!(hear(&mut client), "ready");
    assert_eq!(["a", "b"].map(|channel| subscribers(&engine, &hub, channel)), [1, 1]);
    assert_eq!([hear(&mut client), hear(&mut client)], ["a", "b"]);
    let decide = |channels: &'static str| {
        let lines: [(&str, &[u8]); 2] = [("WebSocket-Channel", channels.as_bytes()), ("Set-Meta-User", b"8")];
        engine.directory().decide(vec![id], Verdict::Rights(Arc::new(Answer::parse(lines).unwrap())));
    };
    // What the application of the handler has named is its own.
    decide("c");
    // It comes to the session's thread before this does.
    assert_eq!(take_back(&engine, "c"), 1);
    assert_eq!(["a", "b", "c"].map(|channel| subscribers(&engine, &hub, channel)), [0, 1, 0]);
    assert_eq!(hear(&mut client), "b");
    decide("a, b");
    say(&mut client, "x");
    let seen = script.exchange(answer(200, "WebSocket-Channel: none\r\nContent-Type: text/plain\r\n", "none"));
    assert_eq!((seen.header("Meta-user"), hear(&mut client)), (Some("8"), "none".into()));
    assert_eq!(["a", "b"].map(|channel| subscribers(&engine, &hub, channel)), [1, 1]);
    assert_eq!([hear(&mut client), hear(&mut client)], ["a", "b"]);
    decide("none");
    assert_eq!(take_back(&engine, "b"), 0);
    assert_eq!(["a", "b"].map(|channel| subscribers(&engine, &hub, channel)), [0, 0]);
}

/// Has the applications of ann's sessions asked; of how many.
fn recheck(engine: &TestEngine) -> u64 {
    let name = Name { prefix: "p/".into(), whom: Whom::User("ann".into()) };
    engine.block_on(engine.directory().revoke(Revocation { name, except: None, measure: Measure::Recheck }, clock()))
}

#[test]
fn an_application_is_asked_again_at_its_own_url() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let with = |seconds: Option<u64>, first: &[(&str, &str)]| {
        let rules = RecheckRules { interval: seconds.map(Duration::from_secs), grace: Duration::from_secs(300) };
        HttpSettings { recheck: Some(rules), ..settings(&script, Mode::Plain, first, "ready") }
    };
    let open = |settings: &HttpSettings| {
        let (_, mut client) = engine.session_of(named(settings));
        assert_eq!(hear(&mut client), "ready");
        client
    };
    // Nobody wants it asked; then the application does.
    let mut client = open(&with(None, &[("WebSocket-Channel", "a, b")]));
    assert_eq!(recheck(&engine), 0);
    say(&mut client, "x");
    script.exchange(answer(204, "WebSocket-Recheck: 300\r\n", ""));
    say(&mut client, "y");
    assert_eq!(script.next().plain(), ("message", 3, "y"));
    // It comes after what is on its way, and before what has come meanwhile.
    say(&mut client, "z");
    assert_eq!(recheck(&engine), 1);
    script.answer(text("y"));
    assert_eq!(hear(&mut client), "y");
    let seen = script.exchange(answer(200, "WebSocket-Channel: b\r\nSet-Meta-User: 8\r\n", "a body is for nobody"));
    assert_eq!(seen.plain(), ("recheck", 4, ""));
    assert_eq!(
        (seen.header("Meta-user"), seen.header("Cookie"), seen.header("Connection-Id")),
        (Some("7"), Some("a=b"), Some("0123"))
    );
    let seen = script.exchange(text("z"));
    assert_eq!((seen.plain(), seen.header("Meta-user")), (("message", 5, "z"), Some("8")));
    assert_eq!(hear(&mut client), "z");
    assert_eq!(["a", "b"].map(|channel| subscribers(&engine, &hub, channel)), [0, 1]);
    assert_eq!(hear(&mut client), "b");
    // What counts as no answer changes nothing; another user, or a no, does.
    for (said, code) in [
        (answer(500, "", "<b>Fatal error</b>"), None),
        (answer(200, "WebSocket-Colour: red\r\n", ""), None),
        (String::new(), None),
        (answer(204, "WebSocket-User: ann\r\n", ""), None),
        (answer(204, "WebSocket-User: joe\r\n", ""), Some(1008)),
        (answer(302, "Location: /login\r\n", ""), Some(1008)),
        (answer(403, "WebSocket-Close: 4401 out\r\n", ""), Some(4401)),
        (answer(200, "WebSocket-Close: 4402 full\r\n", ""), Some(4402)),
    ] {
        // A connection that was kept is asked once more.
        let (other, shown) = (Script::start(), said.clone());
        let (_, mut client) = engine.session_of(named(&HttpSettings {
            recheck: Some(RecheckRules { interval: Some(Duration::from_secs(300)), grace: Duration::from_secs(300) }),
            ..settings(&other, Mode::Plain, &[], "ready")
        }));
        assert_eq!(hear(&mut client), "ready");
        other.answer(said);
        assert_eq!(recheck(&engine), 2, "{shown}");
        script.exchange(answer(204, "", ""));
        assert_eq!(other.next().plain().0, "recheck");
        match code {
            Some(code) => assert_eq!(u16::from(closed(&mut client).code), code, "{shown}"),
            None => {
                say(&mut client, "x");
                other.exchange(text("goes on"));
                assert_eq!(hear(&mut client), "goes on", "{shown}");
            }
        }
        drop(client);
        let end = if matches!(code, Some(4402)) { "close" } else { "disconnect" };
        assert_eq!(other.exchange(answer(204, "", "")).plain().0, end, "{shown}");
        engine.wait_for(1);
    }
}

#[test]
fn an_application_may_be_silent_for_so_long() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let rules = RecheckRules { interval: Some(Duration::from_secs(300)), grace: Duration::from_secs(1) };
    let settings = HttpSettings { recheck: Some(rules), ..settings(&script, Mode::Plain, &[], "ready") };
    let (_, mut client) = engine.session_of(named(&settings));
    assert_eq!((hear(&mut client), recheck(&engine)), ("ready".into(), 1));
    assert_eq!(script.exchange(answer(500, "", "")).plain(), ("recheck", 2, ""));
    assert_eq!(script.exchange(answer(500, "", "")).plain(), ("recheck", 3, ""));
    assert_eq!(closed(&mut client).code, CloseCode::Error);
}

#[test]
fn with_events_it_is_asked_again_without_any() {
    let script = Script::start();
    let (engine, ..) = engine();
    let first = |interval: &'static str| vec![("Content-Type", MEDIA_TYPE), ("Keep-Alive-Interval", interval)];
    let open = |recheck: Option<RecheckRules>, interval: &'static str| {
        let settings = settings(&script, Mode::Events, &first(interval), "OPEN\r\nTEXT 5\r\nready\r\n");
        let mut client = engine.session_of(named(&HttpSettings { recheck, ..settings })).1;
        assert_eq!(hear(&mut client), "ready");
        client
    };
    let rules = RecheckRules { interval: Some(Duration::from_secs(300)), grace: Duration::from_secs(300) };
    let mut client = open(Some(rules), "0");
    // What was offered, and is not done, waits.
    say(&mut client, "ab");
    let taken = answer(200, &format!("Content-Type: {MEDIA_TYPE}\r\nContent-Bytes-Accepted: 1\r\n"), "PING\r\n");
    assert_eq!(script.exchange(taken).body(), "TEXT 2\r\nab\r\n");
    assert!(client.read().unwrap().is_ping());
    for said in [events("TEXT 1\r\n!\r\n"), answer(204, "", ""), answer(500, "", "Fatal"), text("<b>Notice</b>")] {
        assert_eq!(recheck(&engine), 1);
        let shown = said.clone();
        let seen = script.exchange(said);
        assert_eq!((seen.body(), seen.header("WebSocket-Event")), ("", Some("recheck")), "{shown}");
        assert_eq!((seen.header("Accept"), seen.header("Content-Length")), (Some(MEDIA_TYPE), Some("0")), "{shown}");
    }
    assert_eq!(hear(&mut client), "!");
    say(&mut client, "c");
    let seen = script.exchange(events(""));
    assert_eq!((seen.body(), seen.header("WebSocket-Event")), ("TEXT 1\r\nb\r\nTEXT 1\r\nc\r\n", None));
    assert_eq!(recheck(&engine), 1);
    script.exchange(answer(403, "", "gone"));
    assert_eq!(closed(&mut client).code, CloseCode::Policy);
    drop(client);
    assert_eq!(script.exchange(events("")).body(), "DISCONNECT\r\n");
    engine.wait_for(0);

    // It has said itself that it wants to be asked again; or nobody has.
    let mut client = open(None, "120");
    assert_eq!(recheck(&engine), 1);
    let seen = script.exchange(events("TEXT 1\r\n!\r\n"));
    assert_eq!((seen.body(), seen.header("WebSocket-Event"), hear(&mut client)), ("", None, "!".into()));
    drop(client);
    script.exchange(events(""));
    engine.wait_for(0);
    let client = open(Some(RecheckRules { interval: None, ..rules }), "0");
    assert_eq!(recheck(&engine), 0);
    drop(client);
    script.exchange(events(""));
}

/// It is told nothing more; but whether its session may go on is not its own to leave.
#[test]
fn who_is_detached_is_asked_again_all_the_same() {
    let (script, (engine, ..)) = (Script::start(), engine());
    let grip = [("Content-Type", MEDIA_TYPE), ("Sec-WebSocket-Extensions", "grip")];
    let first = "OPEN\r\nTEXT 7\r\nm:ready\r\nTEXT 13\r\nc:{\"type\":\"detach\"}\r\n";
    let rules = RecheckRules { interval: Some(Duration::from_secs(300)), grace: Duration::from_secs(300) };
    let settings = HttpSettings { recheck: Some(rules), ..settings(&script, Mode::Events, &grip, first) };
    let mut client = engine.session_of(named(&settings)).1;
    assert_eq!(hear(&mut client), "ready");
    say(&mut client, "unheard");
    assert_eq!(recheck(&engine), 1);
    assert_eq!(script.exchange(answer(403, "", "")).header("WebSocket-Event"), Some("recheck"));
    assert_eq!(closed(&mut client).code, CloseCode::Policy);
    engine.wait_for(0);
    assert!(script.is_quiet());
}
