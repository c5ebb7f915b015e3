//! What the log says of a handshake that is refused, or of which something got lost on the way: what is wrong, and what to
//! write into the configuration.

use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::{HookResult, HookStatus};
use crate::front::once;
use crate::wire::handshake::Refusal;
use crate::wire::origin::{Difference, Origin, Trusted, difference};

/// Answers a handshake that is none, or not as it should be.
pub fn answer(request: &Request, refusal: &Refusal) -> HookResult {
    let Some(status) = refusal.status() else {
        left_to_the_site(request, refusal);
        return Ok(HookStatus::Declined);
    };
    let mut admitted = String::new();
    if let Refusal::OriginForbidden { origin, site } = refusal {
        admitted = admit(origin, site.as_deref());
        if once::a_minute("WS0021", request) {
            let why = why(origin, site.as_deref());
            log::request(
                Level::Warning,
                request,
                &format!("WS0021: {refusal}{why}{admitted} (logged at most once a minute)"),
            );
        }
    }
    log::request(Level::Info, request, &format!("WS0006: refused with {status}: {refusal}{admitted}"));
    for (name, value) in refusal.headers() {
        request.err_headers_out().set(request.pool(), name, value);
    }
    Err(status)
}

/// Says of a request that it is no handshake; and at a level that is shown if it was one when it was sent.
pub fn left_to_the_site(request: &Request, refusal: &Refusal) {
    log::request(Level::Trace, request, &format!("WS0005: not an upgrade: {refusal}"));
    if matches!(refusal, Refusal::NotAnUpgrade { has_key: true, .. }) && once::a_minute("WS0022", request) {
        let text = format!(
            "WS0022: {refusal}, but has a Sec-WebSocket-Key: a proxy in front has to speak HTTP/1.1, and to pass on Upgrade \
             and Connection (nginx: \"proxy_http_version 1.1\", \"proxy_set_header Upgrade $http_upgrade\", \
             \"proxy_set_header Connection upgrade\"; httpd: ProxyPass with upgrade=websocket) (logged at most once a minute)"
        );
        log::request(Level::Warning, request, &text);
    }
}

/// What to write so that pages of that origin may connect.
fn admit(origin: &str, site: Option<&str>) -> String {
    if Trusted::parse(origin).is_err() || origin.contains('*') {
        return String::new();
    }
    match site {
        Some(site) => format!(
            "; to admit it, write \"WebSocketOriginCheck Trusted\" and \"WebSocketTrustedOrigin {origin} {site}\" here"
        ),
        None => format!("; to admit it, write \"WebSocketTrustedOrigin {origin}\" here"),
    }
}

/// Where a proxy in front may be the reason that a site is not recognised as the same: what differs, and what the proxy or
/// httpd has to be told.
fn why(origin: &str, site: Option<&str>) -> String {
    let parts = site.and_then(|site| site.split_once("://"));
    let Some((scheme, host)) = parts else { return String::new() };
    let (Some(page), Some(differs)) = (Origin::of_page(origin), difference(origin, scheme, host)) else {
        return String::new();
    };
    let Difference { scheme, host, port } = differs;
    let named: Vec<&str> = [(scheme, "scheme"), (host, "host"), (port, "port")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    let verb = if named.len() == 1 { "differs" } else { "differ" };
    let mut text = format!(": {} {verb}", named.join(" and "));
    if scheme && page.is_https() {
        text += &format!("; where TLS ends in front of httpd, write \"ServerName {page}\" into the virtual host");
    }
    if host || port {
        text += "; where a proxy in front changes Host, let it pass on the browser's (httpd: \"ProxyPreserveHost On\", nginx: \
                 \"proxy_set_header Host $http_host\")";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_with_what_to_write() {
        let tls = why("https://www.example.com", Some("http://www.example.com"));
        assert_eq!(
            tls,
            ": scheme differs; where TLS ends in front of httpd, write \"ServerName https://www.example.com\" into the \
             virtual host"
        );
        let port = why("http://www.example.com:8080/x", Some("http://www.example.com"));
        assert!(port.starts_with(": port differs; where a proxy") && port.contains("$http_host"), "{port}");
        let all = why("wss://www.example.com", Some("http://10.0.0.5:8080"));
        assert!(all.starts_with(": scheme and host and port differ; where TLS"), "{all}");
        assert!(all.contains("ServerName https://www.example.com\"") && all.contains("ProxyPreserveHost"), "{all}");
        assert!(why("http://www.example.com", Some("https://www.example.com")).ends_with(": scheme differs"));
        for (origin, site) in [("null", Some("http://a")), ("file://", Some("http://a")), ("https://a", None)] {
            assert_eq!(why(origin, site), "", "{origin}");
        }
    }

    #[test]
    fn what_can_be_admitted_is_written_out() {
        assert_eq!(
            admit("file://", Some("http://www.example.com")),
            "; to admit it, write \"WebSocketOriginCheck Trusted\" and \"WebSocketTrustedOrigin file:// \
             http://www.example.com\" here"
        );
        assert_eq!(admit("null", None), "; to admit it, write \"WebSocketTrustedOrigin null\" here");
        for origin in ["http://me@a", "http://a, http://a", "x://*", "\u{1b}://x", "http://a\"b"] {
            assert_eq!(admit(origin, None), "", "{origin}");
        }
    }
}
