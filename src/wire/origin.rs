//! Origins (RFC 6454): where the page is from that opens a WebSocket, and which of them are trusted. May import: std.

use std::fmt;
use std::net::Ipv6Addr;

/// A scheme, host and port, in the form in which they can be compared (RFC 6454 section 5). A final dot of a host counts, as
/// it does for browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// In lower case; `http` for `ws` as well, `https` for `wss`.
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// In what a page's origin is not the site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The schemes differ.
    pub scheme: bool,
    /// The hosts differ.
    pub host: bool,
    /// The ports differ. A port that is not written is the default one of the page's scheme, so that a Host without one does
    /// not differ where only the scheme does.
    pub port: bool,
}

impl Origin {
    /// Of an Origin header. Some clients write the URL of their socket there, or a slash behind the host: what is behind the
    /// host is passed over. `None` for what cannot be compared: `null`, several origins, what has a user name.
    pub fn of_page(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // A comma may stand between two lines that were joined.
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return None;
        }
        Self::of_site(scheme, authority)
    }

    /// Of a request for `host` (`host[:port]`) over `scheme`. `None` when it is no such thing.
    pub fn of_site(scheme: &str, host: &str) -> Option<Self> {
        let scheme = of_web(scheme).map_or_else(|| scheme.to_owned(), str::to_owned);
        let (host, port) = parse_authority(host)?;
        let port = port.or(default_port(&scheme));
        is_scheme(&scheme).then_some(Self { scheme, host, port })
    }

    /// Its scheme is that of TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }
}

/// As browsers write it: without the port that its scheme has by default.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        match port.filter(|port| Some(*port) != default_port(scheme)) {
            Some(port) => write!(f, "{scheme}://{host}:{port}"),
            None => write!(f, "{scheme}://{host}"),
        }
    }
}

/// In what the origin of a page differs from that of a request for `host` (`host[:port]`) over `scheme`. `None` when either
/// is no origin, or nothing differs.
pub fn difference(origin: &str, scheme: &str, host: &str) -> Option<Difference> {
    let page = Origin::of_page(origin)?;
    let site = Origin::of_site(scheme, host)?;
    let as_page = Origin::of_site(&page.scheme, host)?;
    let difference = Difference {
        scheme: page.scheme != site.scheme,
        host: page.host != site.host,
        port: page.port != as_page.port,
    };
    (page != site).then_some(difference)
}

/// Origins that an administrator trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// This one.
    Origin(Origin),
    /// Those whose host has one label more in front.
    AnyLabel(Origin),
    /// All of this scheme that have a host and no port.
    AnyHost(String),
    /// What is written so: `null`, or an origin of a scheme that is not the web's (`file://`, `app://.`).
    Exact(String),
}

impl Trusted {
    /// Reads what may be trusted.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(word: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "scheme://host, scheme://host:port or null";
        if word == "null" {
            return Ok(Self::Exact(word.to_owned()));
        }
        let (scheme, rest) = word.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).ok_or(EXPECTED)?;
        if !rest.is_ascii() {
            return Err("a name in the form that browsers send (xn--...)");
        }
        if rest.contains('*') {
            return Self::parse_pattern(scheme, rest);
        }
        if of_web(scheme).is_none() {
            let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b",\"\\".contains(&byte));
            return if is_plain { Ok(Self::Exact(word.to_owned())) } else { Err(EXPECTED) };
        }
        if rest.contains('@') {
            return Err("an origin without user name and password");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let origin = Origin::of_site(scheme, authority).ok_or(EXPECTED)?;
        if path.len() > 1 { Err("an origin without a path") } else { Ok(Self::Origin(origin)) }
    }

    fn parse_pattern(scheme: &str, rest: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "* as the first of three or more parts of a name (https://*.example.com), or as the whole \
                                host of a scheme other than http and https (moz-extension://*)";
        if rest == "*" && of_web(scheme).is_none() {
            return Ok(Self::AnyHost(scheme.to_owned()));
        }
        let behind = rest.strip_prefix("*.").filter(|behind| !behind.contains('*')).ok_or(EXPECTED)?;
        let behind = Origin::of_site(scheme, behind.strip_suffix('/').unwrap_or(behind)).ok_or(EXPECTED)?;
        let labels: Vec<&str> = behind.host.split('.').collect();
        let is_address = labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if labels.len() < 2 || labels.contains(&"") || is_address {
            return Err(EXPECTED);
        }
        Ok(Self::AnyLabel(behind))
    }

    /// Whether the value of an Origin header is among them.
    pub fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => origin == exact,
            Self::Origin(trusted) => Origin::of_page(origin).as_ref() == Some(trusted),
            Self::AnyLabel(behind) => Origin::of_page(origin).is_some_and(|page| {
                let labels = page.host.split_once('.');
                page.scheme == behind.scheme
                    && page.port == behind.port
                    && labels.is_some_and(|(first, rest)| !first.is_empty() && rest == behind.host)
            }),
            Self::AnyHost(scheme) => origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_prefix("://"))
                .is_some_and(|host| !host.is_empty() && host.bytes().all(is_in_names)),
        }
    }
}

/// The scheme of the pages of a scheme of the web: a WebSocket's is that of the requests that open it (RFC 6455 section 3).
fn of_web(scheme: &str) -> Option<&'static str> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    match () {
        () if is("http") || is("ws") => Some("http"),
        () if is("https") || is("wss") => Some("https"),
        () => None,
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// What a host's name may be of (RFC 3986 section 3.2.2), but for the comma, which may stand between two lines that were joined.
fn is_in_names(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte)
}

/// The parts of `host[:port]`: the host in lower case, an IPv6 literal in its canonical form (RFC 3986 sections 3.2.2, 3.2.3
/// and 6.2.2.1). `None` for anything else, user names and paths included.
fn parse_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        if host.is_empty() || !host.bytes().all(is_in_names) {
            return None;
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port.strip_prefix(':') {
        None if !port.is_empty() => return None,
        None | Some("") => None,
        // `parse` alone would also take a plus sign.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    Some((host, port))
}

#[cfg(test)]
mod tests;
