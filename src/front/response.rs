//! The 101 (RFC 6455 section 4.2.2). Its head is worked out first, with what other modules of httpd say in every answer:
//! security headers, renewed cookies. Sending it is another matter.

use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::SWITCHING_PROTOCOLS;
use crate::front::once;
use crate::wire::handshake::{Accept, is_token};
use std::ffi::{CStr, CString};

/// The output filters that work on header lines alone: mod_headers' (`Header`, and `Header always` for errors) and
/// mod_session's. Others may change bodies, and there is none.
const HEADER_FILTERS: [&CStr; 3] = [c"MOD_SESSION_OUT", c"FIXUP_HEADERS_OUT", c"FIXUP_HEADERS_ERR"];

/// What makes the response of a stream out of the request, in mod_http2: a 200 of a 101 where that is a WebSocket's
/// (RFC 8441 section 5).
const HTTP2: &CStr = c"H2_C2_RESPONSE_OUT";

/// The header lines of a 101, in the order in which they are sent.
pub(super) struct Head(Vec<(CString, CString)>);

impl Head {
    /// Works the head out: the lines of the handshake and those of the handler, and what httpd's modules add, change and
    /// take away. `accept` is what was negotiated, if that was here; else the handler's lines are the handshake's as well.
    pub(super) fn new(request: &mut Request, accept: Option<&Accept>, handlers: &[(String, String)]) -> Head {
        let mut own = accept.map(negotiated).unwrap_or_default();
        let shared = handlers.iter().enumerate().filter(|(_, (name, _))| !is_reserved(name.as_bytes()));
        for (number, (name, value)) in shared {
            let is_again = handlers[..number].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
            let (pool, headers) = (request.pool(), request.headers_out());
            // Cookies are everybody's.
            match is_again || name.eq_ignore_ascii_case("Set-Cookie") {
                true => headers.add(pool, name, value),
                false => headers.set(pool, name, value),
            }
        }
        own.extend(handlers.iter().filter(|(name, _)| is_reserved(name.as_bytes())).cloned());

        // The filters may ask for it.
        request.set_status(SWITCHING_PROTOCOLS);
        for filter in HEADER_FILTERS {
            request.run_header_filter(filter);
        }

        let mut lines: Vec<(CString, CString)> = own
            .into_iter()
            .filter_map(|(name, value)| Some((CString::new(name).ok()?, CString::new(value).ok()?)))
            .collect();
        let others = request.err_headers_out().lines().chain(request.headers_out().lines());
        for (name, value) in others.filter(|(name, _)| !is_reserved(name.to_bytes())) {
            if is_line(name.to_bytes(), value.to_bytes()) {
                lines.push((name.to_owned(), value.to_owned()));
            } else if once::a_minute("WS0023", request) {
                let text = format!(
                    "WS0023: the header {name:?} is left out of the answer to a handshake: {value:?} has \
                     characters that no header may have (logged at most once a minute)"
                );
                log::request(Level::Warning, request, &text);
            }
        }
        Head(lines)
    }

    /// As HTTP/1.1 has it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        for (name, value) in &self.0 {
            for part in [name.to_bytes(), b": ", value.to_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    /// Sends the head, and returns when it has gone. It is the last of HTTP on this connection, or stream: nothing of the
    /// request's filters is run again when it ends.
    pub(super) fn send(&self, request: &mut Request) {
        self.note(request);
        if !(request.connection().is_secondary() && request.respond_by(HTTP2)) {
            request.send(&self.bytes());
        }
        request.bypass_http();
    }

    /// Somebody else has sent it, or is about to: nothing of the request's filters is run when it ends.
    pub(super) fn note_sent(&self, request: &mut Request) {
        self.note(request);
        request.bypass_http();
    }

    /// The access log may want to know.
    fn note(&self, request: &Request) {
        request.err_headers_out().clear();
        request.headers_out().clear();
        for (name, value) in &self.0 {
            request.headers_out().add_bytes(name, value);
        }
    }
}

/// The lines of the handshake itself, as it was negotiated.
pub(crate) fn negotiated(accept: &Accept) -> Vec<(String, String)> {
    let mut lines =
        vec![("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept.accept.as_str())];
    lines.extend(accept.protocol.as_deref().map(|protocol| ("Sec-WebSocket-Protocol", protocol)));
    lines.extend(accept.compression.as_ref().map(|agreed| ("Sec-WebSocket-Extensions", agreed.response.as_str())));
    lines.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What nobody but the handshake decides: whether it is one; and what would announce a body (RFC 9110 section 15.2).
fn is_reserved(name: &[u8]) -> bool {
    const NAMES: [&str; 9] = [
        "Upgrade",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Content-Length",
        "Content-Encoding",
        "Transfer-Encoding",
        "TE",
        "Trailer",
    ];
    const PREFIX: &[u8] = b"Sec-WebSocket-";
    NAMES.iter().any(|reserved| reserved.as_bytes().eq_ignore_ascii_case(name))
        || name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// RFC 9110 section 5.5, which httpd asks of every answer.
fn is_line(name: &[u8], value: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(is_token)
        && value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 127))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_nobody_elses() {
        for name in [
            "upgrade",
            "CONNECTION",
            "Sec-WebSocket-Accept",
            "sec-websocket-protocol",
            "Content-length",
            "content-encoding",
            "TE",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in ["Set-Cookie", "Sec-WebSocket", "Sec-Fetch-Site", "X-Upgrade", "WebSocket-Recovered", ""] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn nothing_ends_a_line_early() {
        assert!(is_line(b"X-A", b"a\tb \xe9 \xc3\xa9") && is_line(b"X-A", b""));
        for (name, value) in [
            (&b"X A"[..], &b"a"[..]),
            (b"", b"a"),
            (b"X-A", b"a\r\nX-B: c"),
            (b"X-A", b"a\n"),
            (b"X-A", b"\x7f"),
            (b"\xe9", b""),
        ] {
            assert!(!is_line(name, value), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn a_head_is_its_lines() {
        let line = |name: &str, value: &str| (CString::new(name).unwrap(), CString::new(value).unwrap());
        let head = Head(vec![line("Upgrade", "websocket"), line("Set-Cookie", "a=1"), line("Set-Cookie", "b=2")]);
        let expected =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n";
        assert_eq!(head.bytes(), expected.as_bytes());
    }
}
