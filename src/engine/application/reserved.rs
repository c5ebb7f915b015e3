//! Names of header lines between this module and the application: those that only this module sends, and that are taken away
//! from what clients send; those of a handshake that go with later requests; and those of an answer that go to the client.
//!
//! Names are compared in small letters with `-` for `_`: CGI makes one variable of `Meta-User` and `Meta_User`.

use std::borrow::Cow;

/// This httpd's [`super::token`]. It never reaches the application.
pub const TOKEN: &str = "WebSocket-Token";
/// The client's address, for httpd, from the engine. It never reaches the application, either.
pub const CLIENT: &str = "WebSocket-Client";
/// Likewise: `on` where the client has come over TLS.
pub const SECURE: &str = "WebSocket-Secure";
/// What a request is about: `open`, `message`, `close`, `disconnect`, `recheck`.
pub const EVENT: &str = "WebSocket-Event";
/// Which request of its session it is, from 1.
pub const SEQUENCE: &str = "WebSocket-Sequence";
/// Code and reason of a Close frame, from the client or for it.
pub const CLOSE: &str = "WebSocket-Close";
/// By which applications elsewhere know who asks: [`super::grip_sig`].
pub const GRIP_SIG: &str = "Grip-Sig";
/// The session: see [`super::connection_id`].
pub const CONNECTION_ID: &str = "Connection-Id";
/// Before the names of what the application has stored.
pub const META: &str = "Meta-";
/// Before the [`normal`] names of what it wants stored.
pub const SET_META: &str = "set-meta-";

/// How a name is compared.
pub fn normal(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_') {
        true => name.to_ascii_lowercase().replace('_', "-").into(),
        false => name.into(),
    }
}

/// The same of one of its bytes.
fn normal_byte(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// The two are one name.
pub fn is_same(name: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> bool {
    let (name, other) = (name.as_ref(), other.as_ref());
    name.len() == other.len() && begins(name, other)
}

fn begins(name: &[u8], beginning: &[u8]) -> bool {
    name.len() >= beginning.len() && name.iter().zip(beginning).all(|(a, b)| normal_byte(*a) == normal_byte(*b))
}

/// A client must not say this: the application would take it for this module's word. Each line of each request is asked about.
pub fn is_reserved(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    ["websocket-", "meta-", "grip-"].iter().any(|prefix| begins(name, prefix.as_bytes()))
        || ["connection-id", "content-bytes-replayed", "content-bytes-accepted", "keep-alive-interval"]
            .iter()
            .any(|known| is_same(name, known))
}

/// A line of the handshake that goes with later requests of its session: it is about the client, and neither about the connection
/// nor about that one request.
pub fn is_replayed(name: &str) -> bool {
    let normal = normal(name);
    let is_about_the_request = ["content-", "if-", "proxy-"].iter().any(|prefix| normal.starts_with(prefix))
        || [
            "accept",
            "accept-encoding",
            "cache-control",
            "connection",
            "early-data",
            "expect",
            "http2-settings",
            "keep-alive",
            "max-forwards",
            "pragma",
            "proxy",
            "range",
            "sec-websocket-extensions",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ]
        .contains(&&*normal);
    !is_about_the_request && !is_reserved(name)
}

/// A line of an answer that refuses, which is the client's: not what is between the module and the application, nor what whoever
/// sends the answer on says of its own.
pub fn goes_with_a_refusal(name: &str) -> bool {
    let normal = normal(name);
    let is_about_the_connection = normal.starts_with("sec-websocket-")
        || [
            "connection",
            "content-length",
            "content-type",
            "date",
            "keep-alive",
            "proxy-connection",
            "server",
            "status",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ]
        .contains(&&*normal);
    !is_about_the_connection && !is_reserved(&*normal) && !normal.starts_with(SET_META)
}

/// A line of an answer that accepts, which goes into the 101: it is not about the page that it came with, either.
pub fn goes_into_the_101(name: &str) -> bool {
    let normal = normal(name);
    let is_about_the_page = ["content-", "proxy-"].iter().any(|prefix| normal.starts_with(prefix))
        || ["accept-ranges", "age", "etag", "last-modified", "via"].contains(&&*normal);
    !is_about_the_page && goes_with_a_refusal(&normal)
}

/// One that only the upgrade is about: nobody is asked with it, but whoever takes the part of the WebSocket server.
pub fn is_of_the_upgrade(name: &str) -> bool {
    ["sec-websocket-key", "sec-websocket-version"].iter().any(|known| is_same(name, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_is_meant() {
        for name in [
            "Connection-Id",
            "connection_id",
            "META-USER",
            "Meta_User",
            "meta-",
            "Grip-Sig",
            "grip_feature",
            "WebSocket-Event",
            "websocket_token",
            "Content-Bytes-Replayed",
            TOKEN,
            CLIENT,
            SECURE,
            SEQUENCE,
            CLOSE,
        ] {
            assert!(is_reserved(name), "{name}");
            assert!(!is_replayed(name), "{name}");
        }
        for name in ["Cookie", "Sec-WebSocket-Key", "Connection", "Metadata", "Gripe", "WebSocket", "X-Meta-User", ""] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn the_client_goes_along_and_the_request_does_not() {
        for name in
            ["Host", "Cookie", "Authorization", "Origin", "User-Agent", "Sec-WebSocket-Protocol", "X-Forwarded-For"]
        {
            assert!(is_replayed(name), "{name}");
        }
        for name in [
            "Upgrade",
            "connection",
            "Content-Length",
            "content_type",
            "Transfer-Encoding",
            "If-None-Match",
            "Range",
            "Expect",
            "Proxy",
            "Proxy-Authorization",
            "Sec-WebSocket-Extensions",
            "Accept-Encoding",
        ] {
            assert!(!is_replayed(name), "{name}");
        }
    }

    #[test]
    fn an_answer_is_the_applications_and_not_the_modules() {
        for name in ["WWW-Authenticate", "Location", "Set-Cookie", "Retry-After", "X-Any"] {
            assert!(goes_with_a_refusal(name) && goes_into_the_101(name), "{name}");
        }
        for name in ["Content-Encoding", "Content-Language", "ETag", "Last-Modified", "Proxy-Authenticate", "Via"] {
            assert!(goes_with_a_refusal(name) && !goes_into_the_101(name), "{name}");
        }
        for name in [
            "WebSocket-User",
            "Set-Meta-User",
            "Grip-Hold",
            "Connection",
            "Content-Length",
            "Content-Type",
            "Transfer-Encoding",
            "Upgrade",
            "Sec-WebSocket-Accept",
            "sec_websocket_extensions",
            "Date",
            "Server",
            "Status",
        ] {
            assert!(!goes_with_a_refusal(name) && !goes_into_the_101(name), "{name}");
        }
    }
}
