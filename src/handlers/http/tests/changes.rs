//! What others change in sessions.

use super::*;
use crate::engine::application::answer::Answer;
use crate::engine::application::recheck::Verdict;
use crate::engine::revocation::{self, Measure, Name, Revocation, Whom, clock};

/// A session of ann's.
fn named(settings: &HttpSettings) -> SessionSpec {
    let opening = revocation::Opening { began: clock(), prefix: "p/".into(), member: None };
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
    for _ in 0..4 {
        client.send(Message::binary(vec![0; 100_000])).unwrap();
    }
    assert_eq!((take_back(&engine, "a"), subscribers(&engine, &hub, "a")), (1, 0));
}

#[test]
fn a_recheck_says_what_holds_now() {
    let (script, (engine, hub, _)) = (Script::start(), engine());
    let settings = settings(&script, Mode::Plain, &[("WebSocket-Channel", "a, b")], "ready");
    let (id, mut client) = engine.session_of(named(&settings));
    assert_eq!(hear(&mut client), "ready");
    let lines: [(&str, &[u8]); 2] = [("WebSocket-Channel", b"b, c"), ("Set-Meta-User", b"8")];
    let said = Answer::parse(lines).unwrap();
    engine.directory().decide(vec![id], Verdict::Rights(Arc::new(said)));
    // It comes to the session's thread before this does.
    assert_eq!(take_back(&engine, "c"), 1);
    assert_eq!(["a", "b", "c"].map(|channel| subscribers(&engine, &hub, channel)), [0, 1, 0]);
    assert_eq!(hear(&mut client), "b");
    say(&mut client, "x");
    assert_eq!(script.exchange(answer(204, "", "")).header("Meta-user"), Some("8"));
}
