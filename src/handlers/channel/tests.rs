//! The channel handler in an engine of two threads, with real sockets.

use super::*;
use crate::channels::History;
use crate::channels::name::Pattern;
use crate::channels::shard::Subscriber;
use crate::channels::subscribed::Subscribed;
use crate::engine::memory::Bound;
use crate::engine::testing::{self, Client, PATIENCE, TestEngine, chunk, pair, websocket};
use crate::engine::{HandlerSpec, Limits, Registry};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use serde_json::{Value, json};
use std::time::Instant;

struct ChannelEngine {
    engine: TestEngine,
    handler: Arc<dyn Handler>,
}

fn subscription(channels: &[&str]) -> Subscription {
    Subscription {
        channels: channels.iter().map(|name| (*name).to_owned()).collect(),
        max: 3,
        ..Subscription::default()
    }
}

fn since(channels: &[&str], since: &str) -> Subscription {
    Subscription { since: Some(since.into()), ..subscription(channels) }
}

/// A client that may do everything.
fn master(channels: &[&str]) -> Subscription {
    let allowed = vec![Pattern(vec!["room/".into(), String::new()])];
    Subscription { publishes: true, presence: true, member: Some("ann".into()), allowed, ..subscription(channels) }
}

impl ChannelEngine {
    fn new() -> ChannelEngine {
        let registry = Registry::default().with("channel", Channel::default());
        let handler = registry.find("channel").unwrap();
        ChannelEngine { engine: TestEngine::start(2, registry, Bound::Off), handler }
    }

    fn spec(protocol: Option<&str>, subscription: &Subscription) -> SessionSpec {
        let settings = postcard::to_stdvec(subscription).unwrap();
        let spec = testing::spec("channel");
        SessionSpec {
            handler: HandlerSpec { settings, ..spec.handler },
            protocol: protocol.map(str::to_owned),
            limits: Limits { send_buffer: 100_000, ..spec.limits },
            ..spec
        }
    }

    /// What the 101 says, and the client.
    fn greeted(&self, protocol: Option<&str>, subscription: &Subscription) -> (Vec<(String, String)>, Client) {
        self.greeted_while(protocol, subscription, || {})
    }

    /// As `greeted`; `then` happens after the 101, and before the engine has the socket.
    fn greeted_while(
        &self,
        protocol: Option<&str>,
        subscription: &Subscription,
        then: impl FnOnce(),
    ) -> (Vec<(String, String)>, Client) {
        let spec = ChannelEngine::spec(protocol, subscription);
        let accepted = now(self.handler.accept(&spec)).unwrap();
        then();
        let Response::Standard(headers) = accepted.response.clone() else { panic!("another response") };
        let (ours, theirs) = pair();
        self.engine.run(theirs, spec, accepted, vec![], vec![]);
        (headers, websocket(ours))
    }

    fn client(&self, protocol: Option<&str>, subscription: &Subscription) -> Client {
        self.greeted(protocol, subscription).1
    }

    fn call(&self, call: &api::Command, payload: &str) -> Result<api::Reply, Refused> {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let answer = now(self.handler.call(postcard::to_stdvec(call).unwrap(), payload))?;
        Ok(postcard::from_bytes(&answer).unwrap())
    }

    fn publish_kept(&self, channel: &str, text: &str, messages: u32) -> (String, u64) {
        let history = History { messages, seconds: 60 };
        let publish = api::Command::Publish { channels: vec![channel.into()], text: true, content_type: None, history };
        match self.call(&publish, text).unwrap() {
            api::Reply::Published(results) => (results[0].id.clone(), results[0].subscribers),
            other => panic!("{other:?}"),
        }
    }

    fn publish(&self, channel: &str, text: &str) -> (String, u64) {
        self.publish_kept(channel, text, 10)
    }

    fn subscribers(&self, channel: &str) -> u64 {
        match self.call(&api::Command::Info { channel: channel.into() }, "").unwrap() {
            api::Reply::Info(info) => info.map_or(0, |info| info.subscribers),
            other => panic!("{other:?}"),
        }
    }

    fn wait_for(&self, channel: &str, subscribers: u64) {
        let start = Instant::now();
        while self.subscribers(channel) != subscribers {
            assert!(start.elapsed() < PATIENCE, "{}, not {subscribers}", self.subscribers(channel));
            std::thread::yield_now();
        }
    }
}

/// What is ready when it is asked for the first time, as all is that one engine does alone.
fn now<T>(later: LocalBoxFuture<'_, T>) -> T {
    let mut later = later;
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match later.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it is not ready"),
    }
}

fn text(client: &mut Client) -> String {
    client.read().unwrap().into_text().unwrap().to_string()
}

fn said(client: &mut Client) -> Value {
    serde_json::from_str(&text(client)).unwrap()
}

fn ask(client: &mut Client, request: &Value) -> Value {
    client.send(Message::text(request.to_string())).unwrap();
    said(client)
}

fn closed(client: &mut Client) -> Option<CloseFrame> {
    loop {
        if let Message::Close(frame) = client.read().unwrap() {
            return frame;
        }
    }
}

#[test]
fn everybody_gets_everything_in_one_order() {
    let engine = ChannelEngine::new();
    let mut clients: Vec<Client> = (0..20).map(|_| engine.client(None, &subscription(&["a", "b"]))).collect();
    engine.wait_for("a", 20);
    engine.wait_for("b", 20);
    std::thread::scope(|scope| {
        for channel in ["a", "b"] {
            let engine = &engine;
            scope.spawn(move || {
                (0..200).for_each(|n| assert_eq!(engine.publish(channel, &format!("{channel}{n}")).1, 20))
            });
        }
    });
    let orders: Vec<Vec<String>> = clients.iter_mut().map(|client| (0..400).map(|_| text(client)).collect()).collect();
    assert!(orders.iter().all(|order| *order == orders[0]));
    for channel in ["a", "b"] {
        let own: Vec<&String> = orders[0].iter().filter(|text| text.starts_with(channel)).collect();
        assert!(own.iter().enumerate().all(|(n, text)| **text == format!("{channel}{n}")));
    }
    drop(clients);
    engine.wait_for("a", 0);
    assert_eq!(engine.publish("a", "nobody").1, 0);
}

#[test]
fn who_reads_late_gets_everything_in_order() {
    let engine = ChannelEngine::new();
    let mut late = engine.client(None, &subscription(&["a"]));
    let mut prompt = engine.client(Some("channels.v1"), &subscription(&["a"]));
    engine.wait_for("a", 2);
    assert_eq!(said(&mut prompt)["type"], "subscribed");
    // More than a socket takes, less than the send buffer more.
    let message = |n: usize| format!("{n} {}", "x".repeat(1000));
    for n in 0..180 {
        engine.publish("a", &message(n));
        assert_eq!(said(&mut prompt)["data"], message(n));
    }
    for n in 0..180 {
        assert_eq!(text(&mut late), message(n));
    }
    engine.publish("a", "at once");
    assert_eq!(text(&mut late), "at once");
}

#[test]
fn a_client_goes_on_where_it_was() {
    let engine = ChannelEngine::new();
    let ids: Vec<String> = (1..=5).map(|n| engine.publish_kept("a", &n.to_string(), 3).0).collect();
    let resumed = |id: &str, recovered: &str, texts: &[&str]| {
        let (headers, mut client) = engine.greeted(None, &since(&["a"], id));
        assert_eq!(headers, [("WebSocket-Recovered".to_owned(), recovered.to_owned())], "{id}");
        texts.iter().for_each(|expected| assert_eq!(text(&mut client), *expected, "{id}"));
        engine.wait_for("a", 1);
        engine.publish_kept("a", "live", 3);
        assert_eq!(text(&mut client), "live");
        drop(client);
        engine.wait_for("a", 0);
    };
    // The live messages of the earlier ones push older messages out.
    resumed(&ids[2], "true", &["4", "5"]);
    resumed(&ids[2], "true", &["4", "5", "live"]);
    resumed(&ids[2], "false", &["5", "live", "live"]);
    resumed("elsewhere:1", "false", &["live", "live", "live"]);
    resumed("rubbish", "false", &["live", "live", "live"]);
    let (headers, mut client) = engine.greeted(None, &since(&["a"], "*"));
    assert_eq!(headers, []);
    assert_eq!(text(&mut client), "live");
}

#[test]
fn what_is_published_after_the_101_comes() {
    let engine = ChannelEngine::new();
    engine.publish("a", "before");
    for protocol in [None, Some("ws+meta.nchan"), Some("channels.v1")] {
        let (_, mut client) =
            engine.greeted_while(protocol, &subscription(&["a"]), || drop(engine.publish("a", "after")));
        if protocol == Some("channels.v1") {
            let subscribed = said(&mut client);
            assert_eq!((&subscribed["type"], subscribed.get("recovered")), (&json!("subscribed"), None));
        }
        assert!(text(&mut client).contains("after"));
        engine.wait_for("a", 1);
        engine.publish("a", "live");
        assert!(text(&mut client).contains("live"));
        drop(client);
        engine.wait_for("a", 0);
    }
}

#[test]
fn kept_messages_come_however_many_they_are() {
    let engine = ChannelEngine::new();
    let large = "x".repeat(30_000);
    let first = engine.publish_kept("a", &large, 100).0;
    (1..50).for_each(|n| drop(engine.publish_kept("a", &format!("{n}{large}"), 100)));
    // More than a page, and more than what may wait for a client: it is not hurried.
    let (headers, mut client) = engine.greeted(Some("ws+meta.nchan"), &since(&["a"], &first));
    assert_eq!(headers[0].1, "true");
    (50..60).for_each(|n| drop(engine.publish_kept("a", &format!("{n}{large}"), 100)));
    for n in 1..60 {
        let text = text(&mut client);
        let (head, body) = text.split_once("\n\n").unwrap();
        assert!(head.starts_with("id: "), "{head}");
        assert_eq!(body, format!("{n}{large}"));
    }
}

#[test]
fn who_does_not_keep_up_is_closed_and_told() {
    let engine = ChannelEngine::new();
    let mut slow = engine.client(None, &subscription(&["a"]));
    let mut quick = engine.client(None, &subscription(&["a"]));
    engine.wait_for("a", 2);
    let large = "x".repeat(60_000);
    for _ in 0..20 {
        engine.publish("a", &large);
        assert_eq!(text(&mut quick).len(), large.len());
    }
    assert_eq!(closed(&mut slow), Some(close(CloseCode::Again, "slow consumer")));
}

#[test]
fn what_a_client_sends_is_published_where_that_is_allowed() {
    let engine = ChannelEngine::new();
    let mut reader = engine.client(None, &subscription(&["a"]));
    let mut writer = engine.client(None, &Subscription { publishes: true, ..subscription(&["a", "b"]) });
    engine.wait_for("a", 2);
    engine.wait_for("b", 1);
    writer.send(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(reader.read().unwrap(), Message::binary(vec![1, 2, 3]));
    // Once of each channel.
    assert_eq!([writer.read().unwrap(), writer.read().unwrap()], [(); 2].map(|()| Message::binary(vec![1, 2, 3])));
    reader.send(Message::text("me too")).unwrap();
    assert_eq!(closed(&mut reader).unwrap().code, CloseCode::Policy);
}

#[test]
fn a_heartbeat_is_answered_and_not_published() {
    let engine = ChannelEngine::new();
    let heartbeat = Some(Box::new(("ping".to_owned(), "pong".to_owned())));
    let mut listener = engine.client(None, &Subscription { heartbeat: heartbeat.clone(), ..subscription(&["a"]) });
    let nchan = Some("ws+meta.nchan");
    let mut writer = engine.client(nchan, &Subscription { heartbeat, publishes: true, ..subscription(&["a"]) });
    engine.wait_for("a", 2);
    for client in [&mut listener, &mut writer] {
        client.send(Message::text("ping")).unwrap();
        assert_eq!(text(client), "pong");
    }
    // Nothing but that very text.
    writer.send(Message::text("Ping")).unwrap();
    assert_eq!(text(&mut listener), "Ping");
    writer.send(Message::binary("ping")).unwrap();
    assert_eq!(listener.read().unwrap(), Message::binary("ping"));
    listener.send(Message::text("ping ")).unwrap();
    assert_eq!(closed(&mut listener).unwrap().code, CloseCode::Policy);
}

#[test]
fn a_deleted_channel_closes_its_subscribers_after_what_came_before() {
    let engine = ChannelEngine::new();
    let mut client = engine.client(None, &subscription(&["a"]));
    engine.wait_for("a", 1);
    let id = engine.publish("a", "last words").0;
    let delete = api::Command::Delete { channels: vec!["a".into(), "b".into()], code: 4001, reason: "over".into() };
    match engine.call(&delete, "").unwrap() {
        api::Reply::Deleted(infos) => {
            let first = infos[0].as_ref().unwrap();
            assert_eq!((first.subscribers, first.messages, first.last_id.as_ref()), (1, 1, Some(&id)));
            assert_eq!(infos[1], None);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(text(&mut client), "last words");
    assert_eq!(closed(&mut client), Some(close(CloseCode::Library(4001), "over")));
    engine.wait_for("a", 0);
    assert_eq!(engine.greeted(None, &since(&["a"], &id)).0[0].1, "true", "nothing came after it");
}

#[test]
fn a_live_socket_subscribes_and_unsubscribes() {
    let engine = ChannelEngine::new();
    let mut client = engine.client(Some("channels.v1"), &master(&["a"]));
    let first = said(&mut client);
    assert_eq!((&first["type"], &first["channel"], first.get("recovered")), (&json!("subscribed"), &json!("a"), None));
    let id = engine.publish("room/1", "before").0;
    let subscribed =
        ask(&mut client, &json!({"type": "subscribe", "channel": "room/1", "since": first["id"], "ref": 1}));
    assert_eq!(subscribed["recovered"], true);
    assert_eq!((&subscribed["id"], &subscribed["ref"]), (&first["id"], &json!(1)));
    let message = said(&mut client);
    assert_eq!(message, json!({"type": "message", "channel": "room/1", "id": id, "data": "before"}));
    let again = ask(&mut client, &json!({"type": "subscribe", "channel": "room/1"}));
    assert_eq!(again, json!({"type": "subscribed", "channel": "room/1"}));
    ask(&mut client, &json!({"type": "subscribe", "channel": "room/2"}));
    for (request, code) in [
        (json!({"type": "subscribe", "channel": "room/3", "ref": 2}), "too_many"),
        (json!({"type": "subscribe", "channel": "secret", "ref": 2}), "forbidden"),
        (json!({"type": "subscribe", "channel": "room/ 3", "ref": 2}), "bad_request"),
        (json!({"type": "unsubscribe", "channel": "room/3", "ref": 2}), "not_subscribed"),
        (json!({"type": "publish", "channel": "secret", "data": "", "ref": 2}), "forbidden"),
        (json!({"ref": 2}), "bad_request"),
    ] {
        let answer = ask(&mut client, &request);
        assert_eq!((&answer["type"], &answer["code"], &answer["ref"]), (&json!("error"), &json!(code), &json!(2)));
    }
    let gone = ask(&mut client, &json!({"type": "unsubscribe", "channel": "room/1", "ref": "x"}));
    assert_eq!(gone, json!({"type": "unsubscribed", "channel": "room/1", "ref": "x"}));
    assert_eq!(engine.publish("room/1", "unheard").1, 0);
    // Its own message comes back to it, as to everybody.
    let published = ask(&mut client, &json!({"type": "publish", "channel": "room/2", "base64": "/w==", "ref": 3}));
    assert_eq!((&published["type"], &published["subscribers"]), (&json!("published"), &json!(1)));
    let message = said(&mut client);
    assert_eq!((&message["id"], &message["base64"]), (&published["id"], &json!("/w==")));
    client.send(Message::binary(vec![1])).unwrap();
    assert_eq!(closed(&mut client).unwrap().code, CloseCode::Unsupported);
}

#[test]
fn presence_tells_who_comes_and_goes() {
    let engine = ChannelEngine::new();
    let mut ann = engine.client(Some("channels.v1"), &master(&["a"]));
    said(&mut ann);
    ann.send(Message::text(json!({"type": "subscribe", "channel": "a", "presence": true}).to_string())).unwrap();
    assert_eq!(said(&mut ann)["type"], "subscribed");
    let there = json!({"type": "presence", "channel": "a", "members": [{"member": "ann", "connections": 1}],
        "subscribers": 1});
    assert_eq!(said(&mut ann), there);
    let joe = || Subscription { member: Some("joe".into()), ..subscription(&["a"]) };
    let first = engine.client(None, &joe());
    assert_eq!(said(&mut ann), json!({"type": "join", "channel": "a", "member": "joe"}));
    // A second connection of the same member, and one of nobody in particular, are no news.
    let second = engine.client(None, &joe());
    let nobody = engine.client(None, &subscription(&["a"]));
    engine.wait_for("a", 4);
    let presence = ask(&mut ann, &json!({"type": "presence", "channel": "a", "ref": 0}));
    assert_eq!(presence["members"][1], json!({"member": "joe", "connections": 2}));
    assert_eq!(presence["subscribers"], 4);
    drop((first, nobody));
    engine.wait_for("a", 2);
    drop(second);
    assert_eq!(said(&mut ann), json!({"type": "leave", "channel": "a", "member": "joe"}));
    match engine.call(&api::Command::Info { channel: "a".into() }, "").unwrap() {
        api::Reply::Info(Some(info)) => assert_eq!(info.members, [("ann".to_owned(), 1)]),
        other => panic!("{other:?}"),
    }
    let mut plain = engine.client(Some("channels.v1"), &subscription(&["a"]));
    said(&mut plain);
    assert_eq!(ask(&mut plain, &json!({"type": "presence", "channel": "a"}))["code"], "forbidden");
    assert_eq!(ask(&mut plain, &json!({"type": "publish", "channel": "a", "data": ""}))["code"], "forbidden");
}

#[test]
fn there_are_only_so_many_channels() {
    let engine = ChannelEngine::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let server = ServerSettings { channels: 1, ..ServerSettings::default() };
    engine.handler.configure(&postcard::to_stdvec(&server).unwrap());
    let _client = engine.client(None, &subscription(&["a"]));
    engine.wait_for("a", 1);
    let refused = now(engine.handler.accept(&ChannelEngine::spec(None, &subscription(&["b"])))).err().unwrap();
    assert!(matches!(refused, Rejection::Refused(Refused { status: 507, .. })), "{refused}");
    assert!(now(engine.handler.accept(&ChannelEngine::spec(None, &subscription(&["a"])))).is_ok());
    let (channels, history) = (vec!["b".into()], History::default());
    let publish = api::Command::Publish { channels, text: false, content_type: None, history };
    assert_eq!(engine.call(&publish, "").unwrap_err().status, 507);
}

#[test]
fn an_idle_session_is_small() {
    // Beside what every session has: the state of the handler, its subscription, and its place among the subscribers.
    let [run, subscribed, subscriber] = [session::size(), size_of::<Subscribed>(), size_of::<Subscriber>()];
    let sizes = format!("run {run}; Subscribed {subscribed}; Subscriber {subscriber}");
    eprintln!("{sizes}");
    assert!(chunk(run) + chunk(subscribed) + subscriber <= 272, "{sizes}");
}
