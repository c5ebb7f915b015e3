//! Every row of the table of answers, and properties of any offer.

use super::*;
use proptest::prelude::*;

/// The key and the answer of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Debug, Clone)]
struct Request {
    method: String,
    http_version: (u8, u8),
    headers: Vec<(String, String)>,
    scheme: String,
    host: Option<String>,
    has_body: bool,
}

impl Request {
    fn plain() -> Self {
        Self {
            method: "GET".into(),
            http_version: (1, 1),
            headers: Vec::new(),
            scheme: "http".into(),
            host: Some("example.com".into()),
            has_body: false,
        }
        .and("Upgrade", "websocket")
        .and("Connection", "Upgrade")
        .and("Sec-WebSocket-Key", KEY)
        .and("Sec-WebSocket-Version", "13")
    }

    fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With these lines in place of all lines of that name.
    fn with(mut self, name: &str, values: &[&str]) -> Self {
        self.headers.retain(|(n, _)| n != name);
        values.iter().fold(self, |request, value| request.and(name, value))
    }

    fn at(mut self, scheme: &str, host: &str) -> Self {
        self.scheme = scheme.into();
        self.host = Some(host.into());
        self
    }

    fn negotiate(&self, policy: &Policy) -> Result<Accept, Refusal> {
        negotiate(
            &Offer {
                method: &self.method,
                http_version: self.http_version,
                headers: &self.headers,
                scheme: &self.scheme,
                host: self.host.as_deref(),
                has_body: self.has_body,
            },
            policy,
        )
    }

    #[track_caller]
    fn accepted(&self) -> Accept {
        self.negotiate(&Policy::default()).expect("this handshake should be accepted")
    }

    #[track_caller]
    fn refused(&self) -> Refusal {
        self.negotiate(&Policy::default()).expect_err("this handshake should be refused")
    }

    #[track_caller]
    fn declined(&self, why: &str) {
        let refusal = self.refused();
        let has_key = self.headers.iter().any(|(name, _)| name == "Sec-WebSocket-Key");
        assert_eq!(refusal, Refusal::NotAnUpgrade { why: why.into(), has_key });
        assert_eq!(refusal.status(), None);
    }
}

fn listed(names: &[&str]) -> Protocols {
    Protocols::Listed(strings(names))
}

fn trusted(words: &[&str]) -> OriginCheck {
    OriginCheck::Trusted(words.iter().map(|word| Trusted::parse(word).expect("an origin")).collect())
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

#[test]
fn the_example_of_the_rfc() {
    assert_eq!(accept_key(KEY), ACCEPT);
    // Section 1.2, the whole request.
    let request = Request::plain()
        .at("http", " server.example.com\t")
        .with("Origin", &["http://example.com"])
        .with("Sec-WebSocket-Protocol", &["chat, superchat"]);
    let policy = Policy { protocols: listed(&["chat"]), origin: trusted(&["http://example.com"]), compression: None };
    assert_eq!(
        request.negotiate(&policy),
        Ok(Accept {
            accept: ACCEPT.into(),
            protocol: Some("chat".into()),
            offered_protocols: strings(&["chat", "superchat"]),
            compression: None,
        })
    );
}

#[test]
fn headers_are_found_in_slices_too_whatever_their_case() {
    let headers: &[(&str, &str)] = &[("UPGRADE", "a"), ("Host", "h"), ("upgrade", "b")];
    assert_eq!(headers.values("Upgrade"), ["a", "b"]);
    assert_eq!(vec![("x", "1")].values("X"), ["1"]);
    assert!(headers.values("Origin").is_empty());
}

#[test]
fn what_is_no_upgrade_is_declined() {
    let plain = Request::plain;
    plain().with("Upgrade", &[]).declined("it has no Upgrade header");
    plain().with("Connection", &[]).declined("it has no Connection header");
    for upgrade in ["h2c", "", "websocket/13", "web socket", "websockets", "\"websocket\"", "websocket;q=1"] {
        assert!(matches!(plain().with("Upgrade", &[upgrade]).refused(), Refusal::NotAnUpgrade { .. }), "{upgrade}");
    }
    for connection in ["keep-alive", "close", "Upgrade-Insecure-Requests", "keep-alive Upgrade", ""] {
        let request = plain().with("Connection", &[connection]);
        assert!(matches!(request.refused(), Refusal::NotAnUpgrade { .. }), "{connection}");
    }
    plain()
        .with("Upgrade", &["h2c", "TLS/1.0"])
        .declined(r#"its Upgrade header is "h2c, TLS/1.0", without "websocket""#);

    for (version, is_enough) in [((0, 9), false), ((1, 0), false), ((1, 1), true), ((2, 0), true)] {
        let request = Request { http_version: version, ..plain() };
        assert_eq!(request.negotiate(&Policy::default()).is_ok(), is_enough, "{version:?}");
    }
    Request { http_version: (1, 0), ..plain() }.declined("it is HTTP/1.0, and an upgrade takes HTTP/1.1");
}

#[test]
fn what_is_no_upgrade_is_declined_whatever_else_is_wrong() {
    let hopeless = Request { method: "POST".into(), host: None, has_body: true, ..Request::plain() };
    hopeless.clone().with("Upgrade", &["h2c"]).declined(r#"its Upgrade header is "h2c", without "websocket""#);
    hopeless
        .with("Connection", &["close"])
        .with("Sec-WebSocket-Key", &[])
        .declined(r#"its Connection header is "close", without "upgrade""#);
}

#[test]
fn an_upgrade_without_any_line_of_a_websocket_is_declined() {
    let bare = Request::plain().with("Sec-WebSocket-Key", &[]).with("Sec-WebSocket-Version", &[]);
    bare.clone().declined("it has no Sec-WebSocket header");
    Request { method: "POST".into(), has_body: true, ..bare.clone() }.declined("it has no Sec-WebSocket header");
    // One is enough to be told what is wrong with it, as that of a version before 13.
    for name in ["Sec-WebSocket-Key1", "sec-websocket-protocol", "Sec-WebSocket-Extensions"] {
        assert_eq!(bare.clone().and(name, "x").refused(), Refusal::VersionMissing, "{name}");
    }
    for name in ["Sec-WebSocket", "Sec-WebSockets-Key", "X-Sec-WebSocket-Key", "Sec-Fetch-Mode", "Séc-WebSocket-Key"] {
        bare.clone().and(name, "x").declined("it has no Sec-WebSocket header");
    }
}

#[test]
fn tokens_have_no_case_and_lists_may_be_split() {
    for upgrade in [&["WebSocket"][..], &["WEBSOCKET"], &["h2c, websocket"], &["h2c", "\twebsocket ,x"]] {
        Request::plain().with("Upgrade", upgrade).accepted();
    }
    // Firefox sends the first of these.
    for connection in [&["keep-alive, Upgrade"][..], &["UPGRADE"], &["keep-alive", "upgrade"], &[",,upgrade,"]] {
        Request::plain().with("Connection", connection).accepted();
    }
}

#[test]
fn the_method_must_be_get() {
    for method in ["POST", "HEAD", "get", "CONNECT", ""] {
        let refusal = Request { method: method.into(), ..Request::plain() }.refused();
        assert_eq!(refusal, Refusal::MethodNotGet { method: method.into() });
        assert_eq!(refusal.status(), Some(400));
    }
}

#[test]
fn a_body_is_refused_except_over_http2() {
    let request = Request { has_body: true, ..Request::plain() };
    assert_eq!(request.refused(), Refusal::BodyNotAllowed);
    assert_eq!(request.refused().status(), Some(400));
    Request { http_version: (2, 0), ..request }.accepted();
}

#[test]
fn the_host_must_be_there() {
    for host in [None, Some(""), Some(" \t")] {
        let refusal = Request { host: host.map(str::to_owned), ..Request::plain() }.refused();
        assert_eq!(refusal, Refusal::HostMissing);
        assert_eq!(refusal.status(), Some(400));
    }
}

#[test]
fn the_version_must_be_13() {
    let versions = |lines: &[&str]| Request::plain().with("Sec-WebSocket-Version", lines);
    versions(&["\t13 "]).accepted();
    let thirteen: &[(&str, &str)] = &[("Sec-WebSocket-Version", "13")];
    assert_eq!(versions(&[]).refused(), Refusal::VersionMissing);
    assert_eq!(versions(&[]).refused().status(), Some(400));
    assert_eq!(versions(&[]).refused().headers(), thirteen);
    for lines in [
        &["8"][..],
        &["7"],
        &["0"],
        &["14"],
        &["013"],
        &["+13"],
        &["13.0"],
        &["1 3"],
        &["\u{a0}13"],
        &[""],
        &["13, 8"],
        &["13,13"],
        &["13", "13"],
        &["8", "13"],
    ] {
        let refusal = versions(lines).refused();
        assert_eq!(refusal, Refusal::VersionUnsupported { version: lines.join(", ") });
        assert_eq!(refusal.status(), Some(400));
        assert_eq!(refusal.headers(), thirteen);
    }
}

#[test]
fn the_key_must_be_sixteen_bytes_in_base64() {
    let keys = |lines: &[&str]| Request::plain().with("Sec-WebSocket-Key", lines);
    assert_eq!(keys(&["x3JJHMbDL1EzLkh9GBhXDw=="]).accepted().accept, "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
    // Bits after the sixteenth byte: section 4.1's own example. The key is hashed as it was sent.
    for (key, accept) in [
        ("AQIDBAUGBwgJCgsMDQ4PEC==", "OfS0wDaT5NoxF2gqm7Zj2YtetzM="),
        ("dGhlIHNhbXBsZSBub25jZR==", "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI="),
    ] {
        assert_eq!(keys(&[key]).accepted().accept, accept, "{key}");
    }
    // The blanks around a key are not hashed.
    assert_eq!(keys(&[" dGhlIHNhbXBsZSBub25jZQ==\t"]).accepted().accept, ACCEPT);

    assert_eq!(keys(&[]).refused(), Refusal::KeyMissing);
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",       // no padding
        "dGhlIHNhbXBsZSBub25jZQ=",      // half of it
        "dGhlIHNhbXBsZSBub25jZ===",     // a digit less
        "dGhlIHNhbXBsZSBub25jZQQQ==",   // two more
        "dGhlIHNhbXBsZSBub25jZQ===",    // too much padding
        "dGhlIHNhbXBsZSBub25jZWE=",     // 17 bytes
        "dGhlIHNhbXBsZSBub25jZWFi",     // 18 bytes
        "dGhlIHNhbXBsZSBub25j",         // 15 bytes
        "dGhlIHNhbXBsZSBub25jZWFiYQ==", // 19 bytes
        "dGhlIHNh bXBsZSBub25jZQ=",     // a blank within
        "_____________________w==",     // the alphabet for URLs
        "========================",
        "ééééééééééé==", // 24 bytes
    ] {
        let refusal = keys(&[key]).refused();
        assert_eq!(refusal, Refusal::KeyMalformed { key: key.into() });
        assert_eq!(refusal.status(), Some(400));
    }
    for lines in [&[KEY, KEY][..], &["dGhlIHNhbXBsZSBub25jZQ==, x"], &["", KEY]] {
        let refusal = keys(lines).refused();
        assert_eq!(refusal, Refusal::KeyRepeated { keys: lines.join(", ") });
        assert_eq!(refusal.status(), Some(400));
    }
    assert_eq!(keys(&[]).refused().status(), Some(400));
}

#[test]
fn what_cannot_be_chosen_is_passed_over() {
    let policy = Policy { protocols: listed(&["chat"]), ..Policy::default() };
    let any = Policy { protocols: Protocols::Any, ..Policy::default() };
    for (lines, offered, chosen, first) in [
        (&[][..], &[][..], None, None),
        (&[""], &[], None, None),
        (&[" "], &[], None, None),
        (&[","], &[], None, None),
        (&["a b"], &[], None, None),
        (&["a/b, \"a\", a;q=1, é"], &[], None, None),
        (&["a\r\nSet-Cookie: x"], &[], None, None),
        (&["chat, token/abc=="], &["chat"], Some("chat"), Some("chat")),
        (&["bearer:eyJ, chat"], &["chat"], Some("chat"), Some("chat")),
        (&["chat, chat"], &["chat"], Some("chat"), Some("chat")),
        (&["b ,chat", "\tc"], &["b", "chat", "c"], Some("chat"), Some("b")),
        (&["a, b, a"], &["a", "b"], None, Some("a")),
        (&["a", "b", "a"], &["a", "b"], None, Some("a")),
        (&["a,,b"], &["a", "b"], None, Some("a")),
        (&[", , a", "", "b ,"], &["a", "b"], None, Some("a")),
        // Case makes a difference.
        (&["a,A,CHAT"], &["a", "A", "CHAT"], None, Some("a")),
        (&["!#$%&'*+-.^_`|~09azAZ"], &["!#$%&'*+-.^_`|~09azAZ"], None, Some("!#$%&'*+-.^_`|~09azAZ")),
    ] {
        let request = Request::plain().with("Sec-WebSocket-Protocol", lines);
        let accept = request.negotiate(&policy).expect("no list is a reason to refuse");
        assert_eq!(accept.offered_protocols, offered, "{lines:?}");
        assert_eq!(accept.protocol.as_deref(), chosen, "{lines:?}");
        assert_eq!(request.negotiate(&any).expect("nor here").protocol.as_deref(), first, "{lines:?}");
    }
}

#[test]
fn the_servers_preference_decides() {
    let offered = strings(&["mqtt", "chat", "Echo"]);
    assert_eq!(listed(&["chat", "mqtt"]).select(&offered), Some("chat"));
    assert_eq!(listed(&["v2", "mqtt"]).select(&offered), Some("mqtt"));
    assert_eq!(listed(&["echo"]).select(&offered), None);
    assert_eq!(listed(&[]).select(&offered), None);
    assert_eq!(listed(&["chat"]).select(&[]), None);
    assert_eq!(Protocols::Any.select(&offered), Some("mqtt"));
    assert_eq!(Protocols::Any.select(&[]), None);
    assert_eq!(Protocols::default(), listed(&[]));
}

#[test]
fn none_in_common_is_an_upgrade_without_a_protocol() {
    let policy = Policy { protocols: listed(&["chat"]), ..Policy::default() };
    let accept = Request::plain().and("Sec-WebSocket-Protocol", "mqtt").negotiate(&policy).unwrap();
    assert_eq!(accept.protocol, None);
    assert_eq!(accept.offered_protocols, ["mqtt"]);
}

#[test]
fn compression_is_negotiated_where_the_policy_has_it() {
    let lines = ["x-other; a=\"x,y\"", "", "permessage-deflate; server_no_context_takeover=7, permessage-deflate"];
    let request = Request::plain().with("Sec-WebSocket-Extensions", &lines);
    assert_eq!(request.accepted().compression, None);
    let policy = Policy { compression: Some(WISH), ..Policy::default() };
    let response = request.negotiate(&policy).map(|accept| accept.compression.map(|agreement| agreement.response));
    assert_eq!(response, Ok(Some("permessage-deflate".into())));
    let bad = Request::plain().with("Sec-WebSocket-Extensions", &["permessage-deflate; =\"", "\u{fffd};;,"]);
    assert_eq!(bad.negotiate(&policy).map(|accept| accept.compression), Ok(None));
}

const WISH: extension::Config =
    extension::Config { server_context_takeover: true, server_window_bits: 15, client_window_bits: 15 };

#[test]
fn the_origin_is_that_of_the_site_or_a_trusted_one() {
    let list = trusted(&["https://a.example", "null", "file://", "https://*.b.example"]);
    for (origin, is_same, is_trusted) in [
        ("http://example.com", true, false),
        (" ws://EXAMPLE.com:80/chat\t", true, false),
        ("https://example.com", false, false),
        ("https://a.example", false, true),
        (" https://A.example:443/\t", false, true),
        ("https://a.b.example", false, true),
        ("null", false, true),
        ("file://", false, true),
        ("https://a.example, null", false, false),
        ("", false, false),
    ] {
        assert_eq!(OriginCheck::Same.allows(&[origin], "http", "example.com"), is_same, "{origin}");
        // The site itself is not on its own list.
        assert_eq!(list.allows(&[origin], "http", "example.com"), is_trusted, "{origin}");
        assert!(OriginCheck::Off.allows(&[origin], "http", "example.com"));
    }
    assert!(!trusted(&[]).allows(&["null"], "http", "example.com"));
}

#[test]
fn no_origin_always_passes_and_two_never() {
    for check in [OriginCheck::Off, OriginCheck::Same, trusted(&["http://h"])] {
        assert!(check.allows(&[], "http", "h"));
        assert!(check.allows(&["http://h"], "http", "h"));
        assert_eq!(check.allows(&["http://h", "http://h"], "http", "h"), check == OriginCheck::Off);
    }
    assert_eq!(OriginCheck::default(), OriginCheck::Same);
}

#[test]
fn a_forbidden_origin_is_a_403_that_says_why() {
    let request = Request::plain().and("Origin", "null");
    let refusal = request.refused();
    assert_eq!(refusal.status(), Some(403));
    assert_eq!(
        refusal.to_string(),
        r#"The Origin "null" may not open a WebSocket here: it is not that of this site, "http://example.com""#
    );
    let policy = Policy { origin: OriginCheck::Trusted(vec![]), ..Policy::default() };
    assert_eq!(
        request.negotiate(&policy).unwrap_err().to_string(),
        r#"The Origin "null" may not open a WebSocket here: it is not among the trusted origins"#
    );
    let twice = Request::plain().with("Origin", &["http://example.com", "http://example.com"]);
    assert_eq!(twice.refused().status(), Some(403));
}

#[test]
fn the_first_fault_is_the_one_reported() {
    // Everything is wrong, and is put right one by one in the order of the checks.
    let mut request = Request { method: "POST".into(), has_body: true, host: None, ..Request::plain() }
        .with("Sec-WebSocket-Version", &["8"])
        .with("Sec-WebSocket-Key", &["x"])
        .with("Origin", &["null"]);
    assert!(matches!(request.refused(), Refusal::MethodNotGet { .. }));
    request.method = "GET".into();
    assert_eq!(request.refused(), Refusal::BodyNotAllowed);
    request.has_body = false;
    assert_eq!(request.refused(), Refusal::HostMissing);
    request.host = Some("h".into());
    assert!(matches!(request.refused(), Refusal::VersionUnsupported { .. }));
    request = request.with("Sec-WebSocket-Version", &["13"]);
    assert!(matches!(request.refused(), Refusal::KeyMalformed { .. }));
    request = request.with("Sec-WebSocket-Key", &[KEY]);
    assert!(matches!(request.refused(), Refusal::OriginForbidden { .. }));
    request.with("Origin", &["http://h"]).accepted();
}

#[test]
fn only_the_version_asks_for_a_header() {
    for refusal in [
        Request { method: "PUT".into(), ..Request::plain() }.refused(),
        Request::plain().with("Sec-WebSocket-Key", &[]).refused(),
        Request::plain().with("Upgrade", &[]).refused(),
        Request::plain().with("Origin", &["null"]).refused(),
    ] {
        assert!(refusal.headers().is_empty(), "{refusal}");
    }
}

#[test]
fn what_the_log_quotes_is_escaped_and_cut() {
    assert_eq!(quote("a\"\r\n\u{1b}é\\"), r#""a\"\r\n\u{1b}\u{e9}\\""#);
    assert_eq!(quote(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
    assert_eq!(quote(&"x".repeat(65)), format!("\"{}\"...", "x".repeat(64)));
    // An escape is not cut in two.
    assert_eq!(quote(&format!("{}\n", "x".repeat(63))), format!("\"{}\"...", "x".repeat(63)));
    let refusal = Request::plain().with("Sec-WebSocket-Key", &["\n"]).refused();
    assert_eq!(
        refusal.to_string(),
        r#"The Sec-WebSocket-Key "\n" is not 16 bytes written in base64 (22 characters and ==)"#
    );
}

/// What may go wrong with a list: good names, few enough to repeat; nothing; and rubbish.
fn element() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-f]{1,2}",
        1 => "[ \t]{0,2}",
        1 => "[ -~]{0,4}",
        1 => any::<String>(),
    ]
}

fn origin() -> impl Strategy<Value = String> {
    let host = prop_oneof![Just("example.com"), Just("EXAMPLE.com"), Just("h"), Just("[::1]"), Just("")];
    let port = prop_oneof![Just(""), Just(":80"), Just(":443"), Just(":8080"), Just(":")];
    prop_oneof![
        6 => ("https?", host, port).prop_map(|(scheme, host, port)| format!("{scheme}://{host}{port}")),
        1 => Just("null".to_owned()),
        1 => any::<String>(),
    ]
}

/// Mostly good, so that whole handshakes come through; each header now and then missing, repeated or rubbish.
fn header(name: &'static str, good: &'static str) -> impl Strategy<Value = Vec<(String, String)>> {
    let value = prop_oneof![9 => Just(good.to_owned()), 1 => element()];
    let lines = prop_oneof![
        1 => Just(vec![]),
        16 => value.clone().prop_map(|v| vec![v]),
        1 => prop::collection::vec(value, 2..4),
    ];
    lines.prop_map(move |lines| lines.into_iter().map(|v| (name.to_owned(), v)).collect())
}

fn lines(
    name: &'static str,
    value: impl Strategy<Value = String>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(value.prop_map(move |v| (name.to_owned(), v)), count)
}

fn request() -> impl Strategy<Value = Request> {
    let headers = (
        header("Upgrade", "websocket"),
        header("Connection", "keep-alive, Upgrade"),
        header("Sec-WebSocket-Version", "13"),
        header("Sec-WebSocket-Key", KEY),
        lines("Sec-WebSocket-Protocol", prop::collection::vec(element(), 1..4).prop_map(|l| l.join(",")), 0..3),
        lines("Sec-WebSocket-Extensions", any::<String>(), 0..3),
        lines("Origin", origin(), 0..2),
    );
    (
        prop_oneof![9 => Just("GET".to_owned()), 1 => any::<String>()],
        prop_oneof![9 => Just((1, 1)), 1 => any::<(u8, u8)>()],
        headers.prop_map(|(a, b, c, d, e, f, g)| [a, b, c, d, e, f, g].concat()),
        prop_oneof![4 => Just("http".to_owned()), 4 => Just("https".to_owned()), 1 => any::<String>()],
        prop_oneof![
            4 => Just(Some("example.com".to_owned())),
            4 => Just(Some("[::1]:8080".to_owned())),
            1 => any::<Option<String>>(),
        ],
        prop::bool::weighted(0.1),
    )
        .prop_map(|(method, http_version, headers, scheme, host, has_body)| Request {
            method,
            http_version,
            headers,
            scheme,
            host,
            has_body,
        })
}

fn policy() -> impl Strategy<Value = Policy> {
    let listed = prop::collection::vec("[a-f]{1,2}", 0..4).prop_map(Protocols::Listed);
    let protocols = prop_oneof![Just(Protocols::Any), listed];
    let origin = prop_oneof![
        Just(OriginCheck::Off),
        Just(OriginCheck::Same),
        prop::collection::vec(origin(), 0..4)
            .prop_map(|words| OriginCheck::Trusted(words.iter().flat_map(|word| Trusted::parse(word)).collect())),
    ];
    let compression = prop::option::of(Just(WISH));
    (protocols, origin, compression).prop_map(|(protocols, origin, compression)| Policy {
        protocols,
        origin,
        compression,
    })
}

/// Every header as the one line httpd makes of its lines.
fn joined(request: &Request) -> Request {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &request.headers {
        match headers.iter_mut().find(|(n, _)| n == name) {
            Some((_, line)) => *line = format!("{line}, {value}"),
            None => headers.push((name.clone(), value.clone())),
        }
    }
    Request { headers, ..request.clone() }
}

#[test]
fn the_generator_makes_good_handshakes_and_bad_ones() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..3000 {
        let (request, policy) = (request(), policy()).new_tree(&mut runner).unwrap().current();
        let outcome = match request.negotiate(&policy) {
            Ok(accept) => format!("accepted, {}", if accept.protocol.is_some() { "protocol" } else { "none" }),
            Err(refusal) => format!("{refusal:?}").split(' ').next().unwrap_or_default().to_owned(),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    // Two of acceptance, ten of refusal: otherwise the properties below are about less than they say.
    assert_eq!(outcomes.len(), 12, "{outcomes:?}");
    assert!(outcomes.iter().filter(|(o, _)| o.starts_with("accepted")).all(|(_, n)| *n > 50), "{outcomes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn every_answer_keeps_its_promises(request in request(), policy in policy()) {
        let values = |name| request.headers.values(name);
        match request.negotiate(&policy) {
            Ok(accept) => {
                prop_assert_eq!(&request.method, "GET");
                prop_assert!(request.http_version >= (1, 1));
                prop_assert!(!request.has_body || request.http_version.0 >= 2);
                let key = values("Sec-WebSocket-Key").concat();
                let key = key.trim();
                prop_assert!(key.len() == 24 && key.ends_with("=="), "{}", key);
                prop_assert_eq!(accept.accept, accept_key(key));
                let version = values("Sec-WebSocket-Version").concat();
                prop_assert_eq!(version.trim(), "13");
                prop_assert!(accept.offered_protocols.iter().all(|name| is_token(name)));
                match (&accept.protocol, &policy.protocols) {
                    (Some(chosen), Protocols::Any) => prop_assert_eq!(chosen, &accept.offered_protocols[0]),
                    (Some(chosen), Protocols::Listed(ours)) => {
                        prop_assert!(ours.contains(chosen) && accept.offered_protocols.contains(chosen));
                    }
                    (None, Protocols::Any) => prop_assert!(accept.offered_protocols.is_empty()),
                    (None, Protocols::Listed(ours)) => {
                        prop_assert!(!ours.iter().any(|our| accept.offered_protocols.contains(our)));
                    }
                }
                if let (OriginCheck::Trusted(trusted), [origin]) = (&policy.origin, &values("Origin")[..]) {
                    prop_assert!(trusted.iter().any(|trusted| trusted.admits(trim(origin))));
                }
                prop_assert!(policy.compression.is_some() || accept.compression.is_none());
            }
            Err(refusal) => {
                prop_assert!(matches!(refusal.status(), None | Some(400 | 403)));
                let text = refusal.to_string();
                prop_assert!(text.len() < 256, "{text}");
                prop_assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text}");
            }
        }
    }

    #[test]
    fn lines_apart_and_lines_joined_get_the_same_answer(request in request(), policy in policy()) {
        prop_assert_eq!(request.negotiate(&policy), joined(&request).negotiate(&policy));
    }

    #[test]
    fn a_list_may_be_cut_at_any_comma(
        names in prop::collection::btree_set("[a-z]{1,8}", 1..8),
        cuts in prop::collection::vec(any::<bool>(), 8),
    ) {
        let mut lines = vec![String::new()];
        for (name, cut) in names.iter().zip(cuts) {
            match lines.last_mut() {
                Some(line) if !cut && !line.is_empty() => line.push_str(&format!(" ,\t{name}")),
                Some(line) if line.is_empty() => line.push_str(name),
                _ => lines.push(name.clone()),
            }
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let accept = Request::plain().with("Sec-WebSocket-Protocol", &lines).accepted();
        prop_assert_eq!(accept.offered_protocols, Vec::from_iter(names));
    }

    #[test]
    fn exactly_the_keys_of_sixteen_bytes_are_good(bytes in prop::collection::vec(any::<u8>(), 14..19)) {
        let request = Request::plain().with("Sec-WebSocket-Key", &[&STANDARD.encode(&bytes)]);
        prop_assert_eq!(request.negotiate(&Policy::default()).is_ok(), bytes.len() == 16);
    }

    #[test]
    fn a_key_is_twenty_two_digits_and_two_signs(digits in "[A-Za-z0-9+/]{20,24}", signs in "={0,3}") {
        let key = format!("{digits}{signs}");
        let answer = Request::plain().with("Sec-WebSocket-Key", &[&key]).negotiate(&Policy::default());
        prop_assert_eq!(answer.map(|accept| accept.accept).ok(), (digits.len() == 22 && signs == "==").then(|| accept_key(&key)));
    }

    #[test]
    fn rubbish_in_the_list_hides_no_subprotocol(
        before in prop::collection::vec("[ -~]{0,8}", 0..4),
        after in prop::collection::vec("[ -~]{0,8}", 0..4),
    ) {
        let list = [before, vec!["chat".to_owned()], after].concat().join(",");
        let policy = Policy { protocols: listed(&["chat"]), ..Policy::default() };
        let accept = Request::plain().with("Sec-WebSocket-Protocol", &[&list]).negotiate(&policy);
        prop_assert_eq!(accept.map(|accept| accept.protocol), Ok(Some("chat".to_owned())));
    }
}
