//! Where a handshake is sent on: the back end that the configuration names, and the path that it is asked for.
//!
//! Nothing of a request gets in front of the path: who serves it is the configuration's word alone.

/// What mod_proxy calls the servers of WebSockets.
const SCHEMES: [(&str, &str); 5] =
    [("ws", "ws"), ("wss", "wss"), ("http", "ws"), ("https", "wss"), (BALANCER, BALANCER)];
const BALANCER: &str = "balancer";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// A URL without its path, as mod_proxy takes it: `ws://host:8080`, `unix:/run/app.sock|ws://localhost`.
    server: String,
    /// Of the URL, with the slash that it begins with; or nothing.
    path: String,
    /// Of the `<Location>` that it stands in: what follows this in a request's path is appended to `path`. Without a section
    /// that has one, all of the request's is.
    section: Option<String>,
}

impl Route {
    /// # Errors
    /// What was expected.
    pub(crate) fn parse(text: &str, section: Option<&str>) -> Result<Route, String> {
        let expected = |what: &str| Err(format!("expected {what}, got \"{text}\""));
        let (socket, url) = match text.strip_prefix("unix:") {
            None => (None, text),
            Some(rest) => match rest.split_once('|') {
                Some((path, url)) if path.starts_with('/') => (Some(path), url),
                _ => return expected("a Unix socket such as unix:/run/app.sock|ws://localhost/path"),
            },
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return expected("a URL such as ws://host:8080/path");
        };
        let known = SCHEMES.iter().find(|(written, _)| scheme.eq_ignore_ascii_case(written));
        let Some((_, scheme)) = known.filter(|(_, scheme)| socket.is_none() || *scheme != BALANCER) else {
            return expected("a URL of ws, wss, http, https or balancer");
        };
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            return expected("a URL without blanks, with %XX for what is not ASCII");
        }
        if url.contains(['?', '#']) {
            return expected("a URL without a query, since the client's is sent");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return expected("a URL without a user");
        }
        if !is_authority(authority) {
            return expected("a host, and perhaps a port from 1 to 65535, behind ://");
        }
        let socket = socket.map(|path| format!("unix:{path}|")).unwrap_or_default();
        Ok(Route {
            server: format!("{socket}{scheme}://{authority}"),
            path: path.to_owned(),
            section: section.map(|section| section.trim_end_matches('/').to_owned()),
        })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.server.contains("wss://")
    }

    pub(crate) fn is_balancer(&self) -> bool {
        self.server.starts_with(BALANCER)
    }

    /// What to ask the back end for: `path` is the request's, decoded and normalised; `raw` as the client wrote it, which is
    /// sent where it means the same.
    pub(crate) fn url(&self, path: &[u8], raw: &[u8], query: Option<&[u8]>) -> Vec<u8> {
        let mut url = [self.server.as_bytes(), self.path.as_bytes()].concat();
        let rest = match self.behind_section(raw).filter(|_| decoded(raw) == path) {
            Some(rest) => rest.to_vec(),
            // Rewritten, or with dots or slashes that httpd has taken out: what httpd has judged is sent, and nothing else.
            None => encoded(self.behind_section(path).unwrap_or(path)),
        };
        if rest.is_empty() && self.path.is_empty() || !rest.is_empty() && !rest.starts_with(b"/") {
            url.push(b'/');
        } else if !rest.is_empty() && self.path.ends_with('/') {
            url.pop();
        }
        url.extend(rest);
        if let Some(query) = query {
            url.push(b'?');
            url.extend(query);
        }
        url
    }

    /// What follows the section's path.
    fn behind_section<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let Some(section) = &self.section else { return Some(path) };
        path.strip_prefix(section.as_bytes()).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// A host's name or address, and perhaps a port.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, rest),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_host = !host.is_empty() && !host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._:".contains(c));
    let has_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(has_port))
}

/// As httpd decodes a path under `AllowEncodedSlashes NoDecode`: all but the slash.
fn decoded(raw: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*raw.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::with_capacity(raw.len()), 0);
    while let Some(&byte) = raw.get(at) {
        let value = digit(at + 1).zip(digit(at + 2)).map(|(high, low)| (high * 16 + low) as u8);
        match value.filter(|value| byte == b'%' && *value != b'/') {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// A decoded path for a request line (RFC 3986 section 3.3).
fn encoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(byte);
        } else {
            out.extend(format!("%{byte:02X}").into_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(configured: &str, section: Option<&str>, raw: &str) -> String {
        let (raw, query) = raw.split_once('?').map_or((raw, None), |(raw, query)| (raw, Some(query)));
        let route = Route::parse(configured, section).expect(configured);
        let url = route.url(&decoded(raw.as_bytes()), raw.as_bytes(), query.map(str::as_bytes));
        String::from_utf8(url).expect("a URL")
    }

    #[test]
    fn what_follows_the_section_is_appended() {
        for (configured, section, asked, sent) in [
            ("ws://h", Some("/ws"), "/ws", "ws://h/"),
            ("ws://h", Some("/ws"), "/ws/room/7?a=b", "ws://h/room/7?a=b"),
            ("ws://h/", Some("/ws"), "/ws/room", "ws://h/room"),
            ("ws://h/chat", Some("/ws"), "/ws", "ws://h/chat"),
            ("ws://h/chat", Some("/ws"), "/ws/", "ws://h/chat/"),
            ("ws://h/chat", Some("/ws/"), "/ws/room", "ws://h/chat/room"),
            ("ws://h/chat/", Some("/ws"), "/ws", "ws://h/chat/"),
            ("ws://h/chat/", Some("/ws/"), "/ws/room", "ws://h/chat/room"),
            ("http://h:3000", Some("/"), "/socket?x", "ws://h:3000/socket?x"),
            ("HTTPS://h", None, "/a/b", "wss://h/a/b"),
            ("wss://[::1]:8443/x", None, "/a", "wss://[::1]:8443/x/a"),
            ("balancer://app/x", Some("/ws"), "/ws/a", "balancer://app/x/a"),
            ("unix:/run/a.sock|ws://localhost/x", Some("/ws"), "/ws/a", "unix:/run/a.sock|ws://localhost/x/a"),
            // As the client wrote it: mod_proxy would make one slash or %252F of it.
            ("ws://h", Some("/ws"), "/ws/a%2Fb/%7e%C3%A9", "ws://h/a%2Fb/%7e%C3%A9"),
            ("ws://h", Some("/ws"), "/ws?", "ws://h/?"),
        ] {
            assert_eq!(url(configured, section, asked), sent, "{configured} in {section:?}: {asked}");
        }
    }

    #[test]
    fn what_httpd_has_made_of_a_path_is_sent() {
        let sent = |path: &str, raw: &str| {
            let route = Route::parse("ws://h", Some("/ws")).expect("a route");
            String::from_utf8(route.url(path.as_bytes(), raw.as_bytes(), None)).expect("a URL")
        };
        // Normalised, decoded, or rewritten before.
        assert_eq!(sent("/ws/b", "/ws/a/../b"), "ws://h/b");
        assert_eq!(sent("/ws/a/b", "/ws/a%2Fb"), "ws://h/a/b");
        assert_eq!(sent("/ws/a b?%", "/old"), "ws://h/a%20b%3F%25");
        // The section's own path in disguise.
        assert_eq!(sent("/ws/x@", "/%77s/x@"), "ws://h/x@");
        // Not the section's, as where a pattern of the same text would be.
        assert_eq!(sent("/wsx", "/wsx"), "ws://h/wsx");
    }

    #[test]
    fn other_urls_are_told_what_was_expected() {
        for (text, expected) in [
            ("host:80", "a URL such as ws://"),
            ("ftp://host", "of ws, wss"),
            ("unix:run/x|ws://h", "a Unix socket such as"),
            ("unix:/run/x", "a Unix socket such as"),
            ("unix:/run/x|balancer://h", "of ws, wss"),
            ("ws://", "a host"),
            ("ws:///path", "a host"),
            ("ws://h:0", "a host"),
            ("ws://h:", "a host"),
            ("ws://h:x", "a host"),
            ("ws://h:70000", "a host"),
            ("ws://[::1", "a host"),
            ("ws://[h]", "a host"),
            ("ws://::1", "a host"),
            ("ws://h$1/x", "a host"),
            ("ws://me:pw@h", "without a user"),
            ("ws://h/x?y", "without a query"),
            ("ws://h/x#y", "without a query"),
            ("ws://h/a b", "without blanks"),
            ("ws://h/é", "without blanks"),
        ] {
            let error = Route::parse(text, None).expect_err(text);
            assert!(error.contains(expected) && error.contains(text), "{error}");
        }
        assert!(Route::parse("wss://h", None).is_ok_and(|route| route.is_tls() && !route.is_balancer()));
        assert!(Route::parse("balancer://h", None).is_ok_and(|route| route.is_balancer()));
    }

    proptest! {
        #[test]
        fn a_request_never_names_the_host(path: Vec<u8>, raw: Vec<u8>, section in proptest::option::of("/[a-z]{0,3}")) {
            let route = Route::parse("ws://host:1", section.as_deref()).expect("a route");
            for raw in [&raw, &encoded(&path)] {
                prop_assert!(route.url(&path, raw, None).starts_with(b"ws://host:1/"));
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(path: Vec<u8>) {
            let path: Vec<u8> = path.into_iter().filter(|byte| *byte != b'%').collect();
            prop_assert_eq!(decoded(&encoded(&path)), path);
        }
    }
}
