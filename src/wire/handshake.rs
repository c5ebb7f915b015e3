//! The opening handshake (RFC 6455 section 4): an [`Offer`] and a [`Policy`] go in, an [`Accept`] or a [`Refusal`]
//! comes out. Nothing is read or sent here. May import: std, base64, sha1, thiserror; [`super::extension`],
//! [`super::origin`].
//!
//! A header may arrive as several field lines, or as the one line httpd makes of them (it joins repeated headers with
//! `", "`). Both forms get the same answer: a header that may appear once only is refused in either.

use super::extension;
use super::origin::{Origin, Trusted};
use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

/// The version spoken here (RFC 6455 section 4.1 item 9).
const VERSION: &str = "13";

/// What section 1.3 appends to the key before it is hashed.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How much of an offending value a log line quotes, in characters after escaping.
const QUOTE_LIMIT: usize = 64;

/// The header fields of a request.
///
/// A value that is not UTF-8 should be converted with its bad bytes replaced (as `String::from_utf8_lossy` does): the
/// replacement character is valid in none of the headers read here.
pub trait Headers {
    /// The values of all field lines of that name, compared without regard to case, in the order they came.
    fn values<'a>(&'a self, name: &str) -> Vec<&'a str>;

    /// Whether there is a field line whose name begins so, compared without regard to case.
    fn has_prefix(&self, prefix: &str) -> bool;
}

impl<N: AsRef<str>, V: AsRef<str>> Headers for &[(N, V)] {
    fn values<'a>(&'a self, name: &str) -> Vec<&'a str> {
        values_of(self, name)
    }

    fn has_prefix(&self, prefix: &str) -> bool {
        is_prefix_in(self, prefix)
    }
}

impl<N: AsRef<str>, V: AsRef<str>> Headers for Vec<(N, V)> {
    fn values<'a>(&'a self, name: &str) -> Vec<&'a str> {
        values_of(self, name)
    }

    fn has_prefix(&self, prefix: &str) -> bool {
        is_prefix_in(self, prefix)
    }
}

fn values_of<'a, N: AsRef<str>, V: AsRef<str>>(lines: &'a [(N, V)], name: &str) -> Vec<&'a str> {
    lines.iter().filter(|(n, _)| n.as_ref().eq_ignore_ascii_case(name)).map(|(_, v)| v.as_ref()).collect()
}

fn is_prefix_in<N: AsRef<str>, V>(lines: &[(N, V)], prefix: &str) -> bool {
    lines.iter().any(|(n, _)| n.as_ref().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// What of a request decides about its upgrade.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// The method, as sent: methods are case-sensitive (RFC 7231 section 4.1).
    pub method: &'a str,
    /// Major and minor version: `(1, 1)`. `(2, 0)` is an extended CONNECT (RFC 8441) that mod_http2 has rewritten into
    /// a GET with Upgrade, Connection and a key of its own making.
    pub http_version: (u8, u8),
    /// The request's header fields.
    pub headers: &'a dyn Headers,
    /// `http` or `https`, as httpd sees the request. It counts in [`OriginCheck::Same`] only; behind a proxy that ends
    /// the TLS, httpd says `https` when `ServerName` does.
    pub scheme: &'a str,
    /// The Host header's value, `host[:port]`.
    pub host: Option<&'a str>,
    /// Whether the request announces a body: a Content-Length other than 0, or a Transfer-Encoding. Ignored for
    /// HTTP/2, whose "body" is the WebSocket itself (RFC 8441 section 5): mod_http2 marks every such request chunked.
    pub has_body: bool,
}

/// What the configuration allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The subprotocols to choose from.
    pub protocols: Protocols,
    /// Which web pages may connect.
    pub origin: OriginCheck,
    /// What of permessage-deflate to agree to; `None`: it is not negotiated.
    pub compression: Option<extension::Config>,
}

/// The subprotocols a server speaks (RFC 6455 section 1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocols {
    /// These, in the server's order of preference. An empty list speaks none.
    Listed(Vec<String>),
    /// Whatever the client asks for first.
    Any,
}

impl Default for Protocols {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Protocols {
    /// The subprotocol to use with a client that offers these, in its order of preference.
    ///
    /// `None` is no failure: section 4.2.2 step 4 lets the server answer without a subprotocol, and the client then
    /// decides whether it goes on. Names are compared case-sensitively (section 4.2.1 gives them no other comparison).
    pub fn select<'a>(&self, offered: &'a [String]) -> Option<&'a str> {
        match self {
            Self::Listed(ours) => ours.iter().find_map(|our| offered.iter().find(|theirs| *theirs == our)),
            Self::Any => offered.first(),
        }
        .map(String::as_str)
    }
}

/// Which Origin may connect (RFC 6455 section 10.2). A request without an Origin is allowed in every mode: it comes
/// from a program and not from a page in someone's browser, and a program could write any Origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OriginCheck {
    /// Every one.
    Off,
    /// Pages of the same scheme, host and port as the request.
    #[default]
    Same,
    /// These. `null`, which sandboxed frames and local files send, can be among them.
    Trusted(Vec<Trusted>),
}

impl OriginCheck {
    /// Whether a request may pass that has these Origin lines and was sent to `host` (`host[:port]`) over `scheme`.
    pub fn allows(&self, origins: &[&str], scheme: &str, host: &str) -> bool {
        let origin = match (self, origins) {
            (Self::Off, _) | (_, []) => return true,
            (_, [origin]) => trim(origin),
            // RFC 6454 section 7.3: "the user agent MUST NOT include more than one Origin header field".
            (_, _) => return false,
        };
        match self {
            Self::Off => true,
            Self::Same => {
                let page = Origin::of_page(origin);
                page.is_some() && page == Origin::of_site(scheme, host)
            }
            Self::Trusted(trusted) => trusted.iter().any(|trusted| trusted.admits(origin)),
        }
    }
}

/// What the 101 says, and what the session starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// The subprotocol [`Protocols::select`] chose. It is one of `offered_protocols`, hence a token, hence safe in a
    /// header.
    pub protocol: Option<String>,
    /// The subprotocols the client offers, in its order of preference.
    pub offered_protocols: Vec<String>,
    /// permessage-deflate, if the client offers it in a form that can be accepted.
    pub compression: Option<extension::Negotiated>,
}

/// Why there is no upgrade. The text is for the error log; it has no final full stop, as httpd may append a referer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An ordinary request, which is someone else's to answer.
    #[error("This is not a WebSocket handshake: {why}")]
    NotAnUpgrade {
        /// What it lacks, ready for the log.
        why: String,
        /// It has a Sec-WebSocket-Key all the same: a handshake of which something got lost on the way here.
        has_key: bool,
    },
    /// Section 4.2.1 item 1: the request is a GET.
    #[error("A WebSocket handshake must be a GET request, not {}", quote(.method))]
    MethodNotGet {
        /// The request's method.
        method: String,
    },
    /// Bytes after the header would be taken for frames, or frames for a body.
    #[error("A WebSocket handshake must not have a body, but this one has a Content-Length or a Transfer-Encoding")]
    BodyNotAllowed,
    /// Section 4.2.1 item 2.
    #[error("The WebSocket handshake has no Host header")]
    HostMissing,
    /// Section 4.2.1 item 6.
    #[error("The WebSocket handshake has no Sec-WebSocket-Version header")]
    VersionMissing,
    /// Section 4.2.1 item 6 and section 4.4.
    #[error("The WebSocket handshake asks for Sec-WebSocket-Version {}, and only 13 is supported", quote(.version))]
    VersionUnsupported {
        /// The header's value.
        version: String,
    },
    /// Section 4.2.1 item 5.
    #[error("The WebSocket handshake has no Sec-WebSocket-Key header")]
    KeyMissing,
    /// Section 11.3.1: the key "MUST NOT appear more than once in an HTTP request".
    #[error("The WebSocket handshake has more than one Sec-WebSocket-Key: {}", quote(.keys))]
    KeyRepeated {
        /// All of them, separated by commas.
        keys: String,
    },
    /// Section 4.2.1 item 5.
    #[error("The Sec-WebSocket-Key {} is not 16 bytes written in base64 (22 characters and ==)", quote(.key))]
    KeyMalformed {
        /// The header's value.
        key: String,
    },
    /// Section 10.2: "the server SHOULD respond [...] 403".
    #[error("The Origin {} may not open a WebSocket here: it is {}", quote(.origin), rule(.site.as_deref()))]
    OriginForbidden {
        /// The header's value.
        origin: String,
        /// The origin that would have been allowed; `None` when there is a list of trusted ones.
        site: Option<String>,
    },
}

impl Refusal {
    /// The HTTP status to answer with. `None`: decline, and let another handler serve the request.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::NotAnUpgrade { .. } => None,
            Self::OriginForbidden { .. } => Some(403),
            Self::MethodNotGet { .. }
            | Self::BodyNotAllowed
            | Self::HostMissing
            | Self::VersionMissing
            | Self::VersionUnsupported { .. }
            | Self::KeyMissing
            | Self::KeyRepeated { .. }
            | Self::KeyMalformed { .. } => Some(400),
        }
    }

    /// The headers the answer must have.
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Section 4.4: the server "MUST respond with one or more |Sec-WebSocket-Version| header fields containing
            // all versions it is capable of understanding".
            Self::VersionMissing | Self::VersionUnsupported { .. } => &[("Sec-WebSocket-Version", VERSION)],
            _ => &[],
        }
    }
}

/// Checks a request as section 4.2.1 asks and makes the answer of section 4.2.2.
///
/// First it is decided whether the request is a handshake at all ([`Refusal::NotAnUpgrade`]); then method, body, Host,
/// version, key and Origin are checked in this order, and the first fault is returned.
pub fn negotiate(offer: &Offer<'_>, policy: &Policy) -> Result<Accept, Refusal> {
    let lines = |name| offer.headers.values(name);

    let host = check_request(offer)?;
    let key_lines = lines("Sec-WebSocket-Key");
    let key = check_key(&key_lines)?;
    let offered_protocols = offered(&lines("Sec-WebSocket-Protocol"));
    check_origin(offer, &policy.origin, host)?;

    Ok(Accept {
        accept: accept_key(key),
        protocol: policy.protocols.select(&offered_protocols).map(str::to_owned),
        offered_protocols,
        compression: policy
            .compression
            .and_then(|wish| extension::negotiate(&lines("Sec-WebSocket-Extensions"), &wish)),
    })
}

/// Checks a request that somebody else answers: as [`negotiate`], but for the key and the subprotocols.
pub fn examine(offer: &Offer<'_>, origin: &OriginCheck) -> Result<(), Refusal> {
    let host = check_request(offer)?;
    check_origin(offer, origin, host)
}

/// Section 4.2.1 but for what is negotiated; returns the Host.
fn check_request<'a>(offer: &Offer<'a>) -> Result<&'a str, Refusal> {
    check_upgrade(offer)?;
    if offer.method != "GET" {
        return Err(Refusal::MethodNotGet { method: offer.method.to_owned() });
    }
    if offer.has_body && offer.http_version < (2, 0) {
        return Err(Refusal::BodyNotAllowed);
    }
    let host = offer.host.map(trim).filter(|host| !host.is_empty()).ok_or(Refusal::HostMissing)?;
    check_version(&offer.headers.values("Sec-WebSocket-Version"))?;
    Ok(host)
}

/// Section 10.2.
fn check_origin(offer: &Offer<'_>, check: &OriginCheck, host: &str) -> Result<(), Refusal> {
    let origins = offer.headers.values("Origin");
    if check.allows(&origins, offer.scheme, host) {
        return Ok(());
    }
    let site = matches!(check, OriginCheck::Same).then(|| format!("{}://{host}", offer.scheme));
    Err(Refusal::OriginForbidden { origin: join(&origins), site })
}

/// The Sec-WebSocket-Accept of a key (section 4.2.2 step 5.4): the key as it was sent, not decoded, without the blanks
/// around it.
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Whether this is a token of RFC 7230 section 3.2.6, as the name of a subprotocol must be (section 4.1 item 10).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Section 4.2.1 items 1, 3 and 4: HTTP/1.1 or higher, Upgrade with `websocket`, Connection with `upgrade`; and anything of a
/// WebSocket's beside that, as some servers and proxies write these two lines into every request.
fn check_upgrade(offer: &Offer<'_>) -> Result<(), Refusal> {
    let decline =
        |why| Err(Refusal::NotAnUpgrade { why, has_key: !offer.headers.values("Sec-WebSocket-Key").is_empty() });
    // RFC 7230 section 6.7: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."
    if offer.http_version < (1, 1) {
        let (major, minor) = offer.http_version;
        return decline(format!("it is HTTP/{major}.{minor}, and an upgrade takes HTTP/1.1"));
    }
    for (name, token) in [("Upgrade", "websocket"), ("Connection", "upgrade")] {
        let lines = offer.headers.values(name);
        if lines.is_empty() {
            return decline(format!("it has no {name} header"));
        }
        if !elements(&lines).any(|element| element.eq_ignore_ascii_case(token)) {
            return decline(format!("its {name} header is {}, without \"{token}\"", quote(&join(&lines))));
        }
    }
    if !offer.headers.has_prefix("Sec-WebSocket-") {
        return decline("it has no Sec-WebSocket header".to_owned());
    }
    Ok(())
}

/// Section 11.3.5: the header "MUST NOT appear more than once in an HTTP request", and its value is one number. A list
/// is not a choice of versions: the client tries one, and section 4.4 tells it which others there are.
fn check_version(lines: &[&str]) -> Result<(), Refusal> {
    match lines {
        [] => Err(Refusal::VersionMissing),
        [version] if trim(version) == VERSION => Ok(()),
        _ => Err(Refusal::VersionUnsupported { version: join(lines) }),
    }
}

/// Section 4.2.1 item 5: "a base64-encoded [...] value that, when decoded, is 16 bytes in length". The four bits of the last
/// character that belong to no byte may be set: section 4.1's own example of a key has them so, which some clients always send.
fn check_key<'a>(lines: &[&'a str]) -> Result<&'a str, Refusal> {
    match lines {
        [] => Err(Refusal::KeyMissing),
        // No comma occurs in base64, so one can only come from joined lines.
        [line] if !line.contains(',') => {
            let key = trim(line);
            let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            let is_nonce =
                key.strip_suffix("==").is_some_and(|digits| digits.len() == 22 && digits.bytes().all(is_base64));
            if is_nonce { Ok(key) } else { Err(Refusal::KeyMalformed { key: join(lines) }) }
        }
        _ => Err(Refusal::KeyRepeated { keys: join(lines) }),
    }
}

/// The subprotocols that a client offers and that can be chosen: section 4.1 item 10 wants tokens, none twice. What is
/// otherwise is passed over; some clients put a secret into the list, in a form that is no token. Section 11.3.4 allows
/// several lines.
fn offered(lines: &[&str]) -> Vec<String> {
    // A header of 8 KB holds thousands of names.
    let mut known = HashSet::new();
    elements(lines).filter(|name| is_token(name) && known.insert(*name)).map(str::to_owned).collect()
}

/// The elements of a comma-separated list that may be spread over several lines (RFC 7230 section 3.2.2), without the
/// blanks around them.
fn elements<'a>(lines: &[&'a str]) -> impl Iterator<Item = &'a str> {
    lines.iter().flat_map(|line| line.split(',')).map(trim)
}

/// Without the optional whitespace of RFC 7230 section 3.2.3 around it: blanks and tabs, nothing else.
pub(super) fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// The lines of a header as one (RFC 7230 section 3.2.2).
fn join(lines: &[&str]) -> String {
    lines.join(", ")
}

/// A client's words for the log: in quotes, in printable ASCII, cut after [`QUOTE_LIMIT`] characters.
fn quote(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        let escaped = c.escape_default();
        if quoted.len() + escaped.len() > QUOTE_LIMIT + 1 {
            quoted.push_str("\"...");
            return quoted;
        }
        quoted.extend(escaped);
    }
    quoted.push('"');
    quoted
}

fn rule(site: Option<&str>) -> String {
    match site {
        Some(site) => format!("not that of this site, {}", quote(site)),
        None => "not among the trusted origins".to_owned(),
    }
}

#[cfg(test)]
mod tests;
