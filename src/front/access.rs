//! `WebSocketPublishAccess`: who may publish over HTTP.
//!
//! What `Require` lets in cannot be told from what nobody has closed, so it is not asked: without a word of the administrator
//! only this machine may.

use crate::apache::request::Request;
use crate::front::WebSocket;
use crate::front::config::PublishAccess;
use crate::wire::handshake::OriginCheck;
use std::borrow::Cow;
use std::ffi::CStr;
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

/// The note on a request that was not of this machine when it came. What an .htaccess file takes out of its header lines
/// later (`RequestHeader unset`) does not make it one; `RequestHeader … early`, which only the administrator can say, does.
const CAME: &CStr = c"websocket-foreign";
static FOREIGN: &CStr = c"1";

/// A request has been read.
pub fn note_foreign(request: &Request) {
    if sent(request).is_some() {
        request.notes().set_constant(CAME, FOREIGN);
    }
}

/// Why a request may not publish here, for a sentence that begins with "the request"; `None`: it may, as far as this goes.
pub fn refusal(request: &Request) -> Option<String> {
    match request.config::<WebSocket>().publish_access() {
        PublishAccess::Require => None,
        PublishAccess::Local => foreign(request),
    }
}

/// False for what a browser sends because a page wants so that may not connect either: with the logins that it has kept, or
/// from this machine.
pub fn is_own_page(request: &Request) -> bool {
    let lines = request.headers_in();
    let values = |name: &'static str| {
        lines.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let origins: Vec<Cow<'_, str>> = values("Origin").collect();
    let origins: Vec<&str> = origins.iter().map(AsRef::as_ref).collect();
    let host = values("Host").next().unwrap_or_default();
    request.config::<WebSocket>().policy().origin.allows(&origins, &request.scheme(), host.trim())
}

/// What says that a request is not of a program on this machine that means this site.
fn foreign(request: &Request) -> Option<String> {
    if !request.is_from_this_machine() {
        return Some(format!("comes from {}", request.client_address()));
    }
    if request.has_given_client() {
        return Some("comes through a proxy (mod_remoteip)".into());
    }
    if request.was_noted(CAME) && sent(request).is_none() {
        return Some(
            "had a header by which it is not of this machine, and that a RequestHeader has taken away (only \
             \"RequestHeader ... early\" counts)"
                .into(),
        );
    }
    // The page of another site may give its own name this machine's address (DNS rebinding).
    let host = request.host_name().unwrap_or_default();
    if !is_loopback_name(&host) && !request.is_written_name(&host) {
        return Some(format!("is for the host \"{host}\", which is neither localhost nor a ServerName or ServerAlias"));
    }
    sent(request)
}

/// What the header lines of a request say of where it comes from, as they are now.
fn sent(request: &Request) -> Option<String> {
    let (mut origins, mut host) = (Vec::new(), Cow::Borrowed(""));
    for (name, value) in request.headers_in().iter() {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is_of_a_proxy(&name) || request.is_header_of_remoteip(&name) {
            return Some(format!("has the header {}, so it comes through a proxy", name.to_ascii_lowercase()));
        }
        if is("sec-fetch-site") && !["same-origin", "none"].contains(&value.trim()) {
            return Some(format!("is of a page that is not of this site (Sec-Fetch-Site: {})", value.trim()));
        }
        if is("origin") {
            origins.push(value);
        } else if is("host") && host.is_empty() {
            host = value;
        }
    }
    let origins: Vec<&str> = origins.iter().map(|origin| origin.trim()).collect();
    if !OriginCheck::Same.allows(&origins, &request.scheme(), host.trim()) {
        return Some(format!("is of a page of another site (Origin: {})", origins.join(", ")));
    }
    None
}

/// True for the name of a header line that only proxies write.
fn is_of_a_proxy(name: &str) -> bool {
    let name = name.as_bytes();
    let is_at = |at: Option<usize>, part: &str| {
        at.and_then(|at| name.get(at..)?.get(..part.len())).is_some_and(|is| is.eq_ignore_ascii_case(part.as_bytes()))
    };
    let ends = |end: &str| {
        let at = name.len().checked_sub(end.len());
        is_at(at, end) && at.is_some_and(|at| at == 0 || name[at - 1] == b'-')
    };
    BEGINNINGS.iter().any(|begin| is_at(Some(0), begin))
        || ENDS.iter().any(|end| ends(end))
        || NAMES.iter().any(|known| known.len() == name.len() && is_at(Some(0), known))
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
            "X-Forwarded-For",
            "VIA",
            "Front-End-HTTPS",
        ] {
            assert!(is_of_a_proxy(name), "{name}");
        }
        for name in ["host", "accept", "x-requested-with", "trivia", "x-forum", "connection", "x-custom-ip", "", "é"] {
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
