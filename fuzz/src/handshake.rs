//! Any request: it is accepted only when RFC 6455 section 4.2.1 has it so, and the answer is the same whether repeated
//! header lines come apart or joined.

use super::extension::check_answer;
use mod_websocket::wire::extension;
use mod_websocket::wire::handshake::{Accept, Offer, OriginCheck, Policy, Protocols, Refusal, is_token, negotiate};
use mod_websocket::wire::origin::Trusted;

/// The input is a request head. In its first line stand the method, the version and the scheme, and what the
/// configuration is: any of the words `body` (the request has one), `any-protocol`, `any-origin`, `trusted` and
/// `compression`.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, version, scheme) =
        (first.next().unwrap_or_default(), first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let words: Vec<&str> = first.collect();
    let digit = |place| version.as_bytes().get(place).map_or(1, |byte: &u8| byte.wrapping_sub(b'0'));
    let policy = Policy {
        protocols: match words.contains(&"any-protocol") {
            true => Protocols::Any,
            false => Protocols::Listed(vec!["chat".into(), "superchat".into()]),
        },
        origin: match (words.contains(&"any-origin"), words.contains(&"trusted")) {
            (true, _) => OriginCheck::Off,
            (_, true) => OriginCheck::Trusted(
                ["https://www.example.com", "https://*.example.org", "null"]
                    .map(|word| Trusted::parse(word).expect("an origin"))
                    .into(),
            ),
            _ => OriginCheck::Same,
        },
        compression: words.contains(&"compression").then_some(extension::Config {
            server_context_takeover: false,
            server_window_bits: 12,
            client_window_bits: 12,
        }),
    };
    let mut headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    // As httpd reads them.
    headers.iter_mut().for_each(|(_, value)| *value = value.trim_matches([' ', '\t']));

    let request = Request { method, version: (digit(0), digit(2)), scheme, has_body: words.contains(&"body") };
    let apart: Vec<(String, String)> = headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    let answer = request.negotiate(&apart, &policy);
    assert_eq!(request.negotiate(&joined(&apart), &policy), answer);
    let shouted: Vec<_> = apart.iter().map(|(name, value)| (name.to_ascii_uppercase(), value.clone())).collect();
    assert_eq!(request.negotiate(&shouted, &policy), answer);

    match answer {
        Ok(accept) => request.check_accept(&apart, &policy, &accept),
        Err(refusal) => check_refusal(&refusal),
    }
}

struct Request<'a> {
    method: &'a str,
    version: (u8, u8),
    scheme: &'a str,
    has_body: bool,
}

impl Request<'_> {
    fn negotiate(&self, headers: &Vec<(String, String)>, policy: &Policy) -> Result<Accept, Refusal> {
        let offer = Offer {
            method: self.method,
            http_version: self.version,
            headers,
            scheme: self.scheme,
            host: value(headers, "host"),
            has_body: self.has_body,
        };
        negotiate(&offer, policy)
    }

    fn check_accept(&self, headers: &[(String, String)], policy: &Policy, accept: &Accept) {
        let of = |name: &str| joined(headers).into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
        assert_eq!(self.method, "GET");
        assert!(self.version >= (1, 1));
        assert!(!self.has_body || self.version >= (2, 0));
        assert!(of("host").is_some_and(|host| !host.is_empty()));
        assert!(of("upgrade").is_some_and(|list| list.to_lowercase().contains("websocket")));
        assert!(of("connection").is_some_and(|list| list.to_lowercase().contains("upgrade")));
        assert_eq!(of("sec-websocket-version").as_deref(), Some("13"));
        let key = of("sec-websocket-key").expect("a key");
        // 16 bytes are 128 bits: 22 digits of six bits, of which the last has four too many, and the padding.
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || [b'+', b'/'].contains(byte);
        assert!(key.len() == 24 && key.ends_with("=="), "{key}");
        assert!(key.as_bytes()[..22].iter().all(is_digit), "{key}");
        // 20 bytes: 26 digits, one of four bits, and the padding.
        let hash = accept.accept.as_bytes();
        assert!(hash.len() == 28 && hash[..27].iter().all(is_digit) && hash[27] == b'=');

        let offered = of("sec-websocket-protocol");
        let offered = offered.iter().flat_map(|list| list.split(',')).map(|name| name.trim_matches([' ', '\t']));
        let mut known: Vec<&str> = Vec::new();
        for name in offered.filter(|name| is_token(name)) {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        let offered = known;
        assert_eq!(accept.offered_protocols, offered);
        let expected = match &policy.protocols {
            Protocols::Any => offered.first().copied(),
            Protocols::Listed(ours) => ours.iter().map(String::as_str).find(|name| offered.contains(name)),
        };
        assert_eq!(accept.protocol.as_deref(), expected);
        assert!(accept.protocol.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_graphic())));

        if let (OriginCheck::Trusted(trusted), Some(origin)) = (&policy.origin, of("origin")) {
            assert!(trusted.iter().any(|trusted| trusted.admits(&origin)) && !origin.contains(','), "{origin}");
        }
        if let (OriginCheck::Same, Some(origin)) = (&policy.origin, of("origin")) {
            let host = value(headers, "host").unwrap_or_default().to_ascii_lowercase();
            let name = host.trim_matches(|c: char| c.is_ascii_digit()).trim_end_matches(':').to_owned();
            assert!(!origin.contains([',', '@']), "{origin}");
            // But for addresses, which have several forms, a name is in the origin as it is in Host.
            assert!(host.starts_with('[') || origin.to_ascii_lowercase().contains(&name), "{origin} at {host}");
        }
        let extensions: Vec<&str> = headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"))
            .map(|(_, value)| value.as_str())
            .collect();
        match &policy.compression {
            Some(wish) => check_answer(&extensions, wish),
            None => assert_eq!(accept.compression, None),
        }
    }
}

/// The first line of this name.
fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The lines of each header as one, as httpd makes it; but for Host, of which it takes no two.
fn joined(headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        match lines.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(_) if name.eq_ignore_ascii_case("host") => {}
            Some((_, line)) => *line = format!("{line}, {value}"),
            None => lines.push((name.clone(), value.clone())),
        }
    }
    lines
}

/// What is said of a refusal goes to the client as a status, and to the log as a line.
fn check_refusal(refusal: &Refusal) {
    match refusal {
        Refusal::NotAnUpgrade { .. } => assert_eq!(refusal.status(), None),
        Refusal::OriginForbidden { .. } => assert_eq!(refusal.status(), Some(403)),
        _ => assert_eq!(refusal.status(), Some(400)),
    }
    for (name, value) in refusal.headers() {
        assert_eq!((*name, *value), ("Sec-WebSocket-Version", "13"));
    }
    let text = refusal.to_string();
    assert!(text.len() < 256 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text}");
}
