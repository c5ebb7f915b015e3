//! The layout of all that httpd and the engine say to each other.

use super::targets::Crowd;
use super::{exec, http, proxy, pywebsocket, tcp};
use crate::channels::History;
use crate::channels::api::{self, BatchMessage, BatchOutcome, Info, PublishBatch, PublishResult, RevokeResult};
use crate::channels::name::Pattern;
use crate::channels::subscription::{ServerSettings, Subscription};
use crate::engine::application::grip_sig::GripKey;
use crate::engine::application::{ApplicationSpec, Loopback, Recheck, loopback};
use crate::engine::control::{Configuration, Order};
use crate::engine::handoff::{self, FromEngine, LAYOUT, ProxiedBackend, ToEngine};
use crate::engine::memory::Bound;
use crate::engine::metrics::Transport;
use crate::engine::query::Query;
use crate::engine::revocation::{Measure, Name, Opening, Revocation, Whom};
use crate::engine::{ForeignRefusal, HandlerSpec, Limits, LogSpec, MessageTimeout, Ping, Quota, Response, SessionSpec};
use crate::tls::record::{Direction, Keys};
use crate::wire::deflate::Compression;
use crate::wire::extension::Parameters;
use base64::Engine;
use serde::{Serialize, de::DeserializeOwned};
use sha1::{Digest, Sha1};
use std::num::NonZeroU32;
use std::time::Duration;

const TIME: Duration = Duration::new(3, 4);

fn text(text: &str) -> String {
    text.into()
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap()
}

/// One value of each variant of an enum, in their order.
fn all<T: Serialize + DeserializeOwned>(values: &[T]) -> Vec<u8> {
    let mut next = vec![0; 300];
    next[0] = values.len() as u8;
    assert!(postcard::take_from_bytes::<T>(&next).is_err(), "{} has a variant more", std::any::type_name::<T>());
    values
        .iter()
        .enumerate()
        .flat_map(|(number, value)| {
            let bytes = bytes(value);
            assert_eq!(usize::from(bytes[0]), number, "{}", std::any::type_name::<T>());
            bytes
        })
        .collect()
}

fn spec() -> SessionSpec {
    SessionSpec {
        handler: HandlerSpec { name: text("handler"), args: vec![text("arg")], settings: vec![1, 2] },
        protocol: Some(text("protocol")),
        limits: Limits {
            max_message_size: 5,
            send_buffer: 6,
            close_timeout: TIME,
            ping: Some(Ping { interval: TIME, timeout: 2 * TIME }),
            idle_timeout: Some(3 * TIME),
            message_timeout: Some(MessageTimeout { seconds: NonZeroU32::MIN, rate: 7 }),
        },
        compression: Some(Compression {
            parameters: Parameters {
                server_no_context_takeover: true,
                client_no_context_takeover: false,
                server_max_window_bits: 9,
                client_max_window_bits: 10,
            },
            level: 8,
            min_size: 11,
        }),
        reserved_close_codes: true,
        client: text("client"),
        user: Some(text("user")),
        server: text("server"),
        uri: text("uri"),
        quotas: vec![Quota { scope: text("scope"), max: 12 }],
        log: Some(Box::new(LogSpec { query: true, name: text("name"), host: text("host") })),
        application: Some(Box::new(application())),
        opening: Some(Box::new(Opening {
            began: 8,
            prefix: text("prefix"),
            member: Some(text("member")),
            transport: Transport::Blocking,
            vhost: text("vhost"),
        })),
    }
}

fn application() -> ApplicationSpec {
    let loopback = |address: &str| Loopback {
        address: address.parse().unwrap(),
        secure: true,
        server_name: Some(text("server_name")),
        certificate: Some([1; 32]),
    };
    ApplicationSpec {
        connection: text("connection"),
        authorize: Some(text("authorize")),
        headers: vec![(text("name"), vec![13])],
        meta: vec![(text("name"), text("value"))],
        recheck: Some(Recheck { interval: TIME, grace: 2 * TIME }),
        expires: Some(3 * TIME),
        here: Some(loopback::Application::Here(loopback("127.0.0.1:14"))),
        secure: true,
        says_channels: true,
    }
}

fn messages() -> Vec<u8> {
    let direction = |sequence| Direction { secret: vec![sequence as u8; 3].into(), sequence };
    let keys = Keys { suite: 0x1301, client: direction(1), server: direction(2) };
    let backend =
        |byte| Box::new(ProxiedBackend { early: vec![byte], tls: Some(Box::new(keys.clone())), settings: vec![5] });
    let configuration = Configuration {
        log_level: 6,
        with_log: true,
        settings: vec![(text("handler"), vec![1])],
        stop_code: 1012,
        memory: Bound::Bytes(7),
    };
    let headers = || vec![(text("a"), text("b"))];
    [
        all(&[
            ToEngine::Hello { version: version().into() },
            ToEngine::Offer(Box::new(spec())),
            ToEngine::Take {
                id: 1,
                early: vec![2],
                linked: true,
                tls: Some(Box::new(keys.clone())),
                backend: Some(backend(3)),
            },
            ToEngine::Carry { id: 1, mux: 2, backend: Some(backend(4)) },
            ToEngine::Mux { thread: 1 },
            ToEngine::Abandon { id: 1 },
            ToEngine::Close { id: 1, code: 1001, reason: text("reason") },
            ToEngine::Call { handler: text("handler"), request: vec![1], payload: vec![2].into() },
            ToEngine::Query(Query::Gauges),
            ToEngine::Open { spec: Box::new(spec()), head: vec![1], early: vec![2], tls: Some(Box::new(keys.clone())) },
        ]),
        all(&[
            FromEngine::Hello { version: version().into() },
            FromEngine::Granted { id: 1, response: Response::Standard(headers()), thread: 2 },
            FromEngine::Mux { number: 1 },
            FromEngine::Declined,
            FromEngine::Dropped,
            FromEngine::Answer { answer: vec![1] },
            FromEngine::Refused { status: 503, reason: text("reason"), by_quota: true },
            FromEngine::Asking,
            FromEngine::Answered(Box::new(ForeignRefusal {
                from: text("from"),
                status: 3,
                headers: vec![(text("name"), vec![4])],
                body: vec![5],
            })),
            FromEngine::Opened { id: 1 },
        ]),
        all(&[
            Order::Hello { version: version().into() },
            Order::Retire,
            Order::Stop,
            Order::SessionLog { name: text("name") },
            Order::Configure(configuration),
        ]),
        all(&[Response::Standard(headers()), Response::Custom(headers()), Response::None]),
        all(&[Bound::Share, Bound::Bytes(1), Bound::Off]),
    ]
    .concat()
}

fn channels() -> Vec<u8> {
    let history = History { messages: 1, seconds: 2 };
    let subscription = Subscription {
        prefix: text("prefix"),
        channels: vec![text("channel")],
        allowed: vec![Pattern(vec![text("pattern")])],
        max: 3,
        publishes: true,
        presence: false,
        member: Some(text("member")),
        since: Some(text("since")),
        history,
        heartbeat: Some(Box::new((text("ping"), text("pong")))),
    };
    let info = Info {
        channel: text("channel"),
        subscribers: 1,
        messages: 2,
        bytes: 3,
        last_id: Some(text("id")),
        members: vec![(text("member"), 4)],
    };
    let channels = || vec![text("channel")];
    let revocation = Revocation {
        name: Name { prefix: text("prefix"), whom: Whom::User(text("user")) },
        except: Some(text("connection")),
        measure: Measure::Close { code: 1008, reason: text("reason") },
    };
    [
        bytes(&subscription),
        bytes(&ServerSettings { channels: 1, history_bytes: 2, broker: Some(text("broker")) }),
        all(&[
            api::Command::Publish { channels: channels(), text: true, content_type: Some(text("text/plain")), history },
            api::Command::Info { channel: text("channel") },
            api::Command::List { prefix: text("prefix"), after: text("after"), limit: 1 },
            api::Command::Delete { channels: channels(), code: 1001, reason: text("reason") },
            api::Command::Revoke(Box::new(revocation)),
            api::Command::PublishBatch(PublishBatch {
                channels: channels(),
                content_types: vec![text("text/plain")],
                messages: vec![BatchMessage { channel: 1, content_type: Some(2), text: true, bytes: 3 }],
                history,
            }),
        ]),
        all(&[Whom::User(text("a")), Whom::Member(text("b")), Whom::Connection(text("c"))]),
        all(&[
            Measure::Close { code: 1008, reason: text("reason") },
            Measure::Unsubscribe { channels: channels() },
            Measure::Recheck,
        ]),
        all(&[
            api::Reply::Published(vec![PublishResult { channel: text("channel"), id: text("id"), subscribers: 1 }]),
            api::Reply::Info(Some(info.clone())),
            api::Reply::List { channels: vec![info.clone()], more: true },
            api::Reply::Deleted(vec![Some(info)]),
            api::Reply::Revoked(RevokeResult { sockets: 1, servers: 2, unanswered: 3 }),
            api::Reply::Batch(vec![BatchOutcome::Published { id: text("id"), subscribers: 1 }]),
        ]),
        all(&[
            BatchOutcome::Published { id: text("id"), subscribers: 1 },
            BatchOutcome::Failed { status: 503, reason: text("reason") },
        ]),
    ]
    .concat()
}

fn settings() -> Vec<u8> {
    let variables = || vec![(vec![1], vec![2])];
    let shared = exec::settings::Shared { place: text("place"), environment: variables(), linger: TIME };
    let program = exec::settings::ExecSettings {
        framing: exec::settings::Framing::Length,
        environment: variables(),
        stop_timeout: TIME,
        quotas: vec![text("scope")],
        shared: Some(shared),
    };
    let (port, unix) = (tcp::target::Target::Port(text("host"), 1), tcp::target::Target::Unix("/socket".into()));
    let token = tcp::To::Token { file: "/file".into(), token: Some(text("token")) };
    let crowd = Crowd { group: 1, limit: 2 };
    let worker = pywebsocket::settings::Worker {
        python: "/python".into(),
        root: "/root".into(),
        scan: Some("/scan".into()),
        map: Some("/map".into()),
        outside_root: true,
    };
    let python = pywebsocket::settings::PythonSettings {
        worker,
        headers: vec![(text("a"), text("b"))],
        remote: (text("remote"), 3),
        local: (text("local"), 4),
        secure: true,
        crowd,
    };
    let loopback =
        Loopback { address: "[::1]:15".parse().unwrap(), secure: false, server_name: None, certificate: None };
    let application = loopback::Application::Here(loopback);
    let elsewhere = loopback::Application::Elsewhere { host: text("host"), port: 16, secure: true };
    let listener = loopback::Application::Listener("127.0.0.1:17".parse().unwrap());
    let opening =
        http::settings::Opening::Accepted { requests: 21, headers: vec![(text("name"), vec![18])], body: vec![19] };
    let lines = vec![(text("a"), text("b"))];
    let asking = http::settings::Opening::Engine { lines, protocols: vec![text("protocol")], crowd };
    let channels = http::settings::ChannelRules { prefix: text("prefix"), max: 20, member: Some(text("member")) };
    let requests = http::settings::HttpSettings {
        mode: http::settings::Mode::Plain,
        application: application.clone(),
        target: text("target"),
        opening: opening.clone(),
        channels,
        given: vec![text("given")],
        secure: true,
        recheck: Some(http::settings::RecheckRules { interval: Some(TIME), grace: TIME }),
        grip_key: Some(GripKey::new("key").unwrap()),
    };
    [
        bytes(&requests),
        all(&[http::settings::Mode::Plain, http::settings::Mode::Events]),
        all(&[application, listener, elsewhere]),
        all(&[opening, asking]),
        bytes(&program),
        all(&[exec::settings::Framing::Lines, exec::settings::Framing::Chunks, exec::settings::Framing::Length]),
        all(&[tcp::To::Target(port.clone()), token.clone()]),
        all(&[port, unix]),
        bytes(&tcp::TcpSettings { to: token, timeout: TIME, crowd }),
        bytes(&python),
        bytes(&proxy::ProxySettings { backend: text("backend"), idle_timeout: Some(TIME), half_close: true }),
    ]
    .concat()
}

/// Its number, without the handlers that are named behind it.
fn version() -> &'static str {
    handoff::version().split(',').next().unwrap_or_default()
}

/// What an engine that was started before a restart of httpd gets from a newer module must mean the same to it.
#[test]
fn whoever_changes_the_layout_raises_the_version() {
    let digest = Sha1::digest([messages(), channels(), settings()].concat());
    let layout = base64::engine::general_purpose::STANDARD.encode(digest);
    assert_eq!(layout, LAYOUT, "raise VERSION in engine/handoff/mod.rs; then LAYOUT is what is on the left with it");
}
