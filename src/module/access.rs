//! `WebSocketPublishAccess`: who may publish over HTTP.
//!
//! What `Require` lets in cannot be told from what nobody has closed, so it is not asked: without a word of the administrator
//! only this machine may.

use super::WebSocket;
use super::directives::PublishAccess;
use crate::apache::request::Request;
use crate::wire::handshake::OriginCheck;
use std::net::IpAddr;

/// Header lines that only proxies write: how their names begin, in small letters …
const BEGINNINGS: &[&str] = &[
    "x-forward",
    "forwarded",
    "cf-",
    "cdn-",
    "proxy-",
    "x-proxy",
    "x-original-",
    "x-envoy-",
    "x-amz",
    "x-azure-",
    "x-fd-",
    "x-akamai-",
    "akamai-",
    "fastly-",
    "fly-",
    "incap-",
    "x-sucuri-",
    "x-varnish",
    "x-appengine-",
    "x-cloud-trace-",
    "x-remote-",
    "x-real-",
];
/// … how they end …
const ENDS: &[&str] = &["client-ip", "clientip", "via"];
/// … or what they are.
const NAMES: &[&str] = &["front-end-https", "surrogate-capability", "x-originating-ip", "x-url-scheme"];

/// Why a request may not publish here, for a sentence that begins with "the request"; `None`: it may, as far as this goes.
pub fn refusal(request: &Request) -> Option<String> {
    match request.config::<WebSocket>().publish_access() {
        PublishAccess::Require => None,
        PublishAccess::Local => foreign(request),
    }
}

/// What says that a request is not of a program on this machine that means this site.
fn foreign(request: &Request) -> Option<String> {
    if !request.is_from_this_machine() {
        return Some(format!("comes from {}", request.client_address()));
    }
    if request.has_given_client() {
        return Some("comes through a proxy (mod_remoteip)".into());
    }
    let headers: Vec<(String, String)> =
        request.headers_in().iter().map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect();
    if let Some((name, _)) = headers.iter().find(|(name, _)| is_of_a_proxy(name) || request.is_header_of_remoteip(name))
    {
        return Some(format!("has the header {name}, so it comes through a proxy"));
    }
    // The page of another site may give its own name this machine's address (DNS rebinding).
    let host = request.host_name().unwrap_or_default();
    if !is_loopback_name(&host) && !request.is_written_name(&host) {
        return Some(format!("is for the host \"{host}\", which is neither localhost nor a ServerName or ServerAlias"));
    }
    let values =
        |name: &str| headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim()).collect();
    let fetched: Vec<&str> = values("sec-fetch-site");
    if let Some(site) = fetched.iter().find(|site| !["same-origin", "none"].contains(site)) {
        return Some(format!("is of a page that is not of this site (Sec-Fetch-Site: {site})"));
    }
    let (origins, hosts): (Vec<&str>, Vec<&str>) = (values("origin"), values("host"));
    if !OriginCheck::Same.allows(&origins, &request.scheme(), hosts.first().unwrap_or(&"")) {
        return Some(format!("is of a page of another site (Origin: {})", origins.join(", ")));
    }
    None
}

/// True for the name of a header line, in small letters, that only proxies write.
fn is_of_a_proxy(name: &str) -> bool {
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        || ENDS.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('-')))
}

/// True for `localhost` and the addresses of the loopback, as [`Request::host_name`] has them.
fn is_loopback_name(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_known_by_their_headers() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded",
            "forwarded",
            "via",
            "client-ip",
            "true-client-ip",
            "x-client-ip",
            "x-azure-clientip",
            "x-real-ip",
            "cf-connecting-ip",
            "cf-ray",
            "cdn-loop",
            "x-bluecoat-via",
            "x-varnish",
        ] {
            assert!(is_of_a_proxy(name), "{name}");
        }
        for name in ["host", "accept", "x-requested-with", "trivia", "x-forum", "connection", "x-custom-ip"] {
            assert!(!is_of_a_proxy(name), "{name}");
        }
    }

    #[test]
    fn the_loopback_has_names() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in ["", "localhost.example", "192.0.2.1", "::", "0.0.0.0", "1", "2130706433"] {
            assert!(!is_loopback_name(host), "{host}");
        }
    }
}
