//! What keeps the engine from taking proxied sockets over, as far as it can be seen when httpd starts.

use super::front;
use crate::apache::conftree;
use crate::apache::log::{self, Level};
use crate::apache::proxy::is_supported;
use crate::apache::server::{Server, has_module};
use std::ffi::CStr;

/// Where the pool of the configuration keeps [`IsPossible`].
const KEY: &CStr = c"mod_websocket proxied sockets";

/// A tunnel of this configuration may be one that can be taken over.
struct IsPossible(bool);

/// `WebSocketProxyHandoff On` or a `WebSocketHandler proxy` stands somewhere.
pub(crate) fn is_configured() -> bool {
    is_among("WebSocketProxyHandoff", "on") || front::routes().next().is_some()
}

/// A directive has this value somewhere.
fn is_among(directive: &str, value: &str) -> bool {
    conftree::arguments_of(directive).iter().any(|argument| argument.trim().eq_ignore_ascii_case(value))
}

/// In httpd's parent, with a new configuration: looks at it, and says in the log what is in the way.
pub(crate) fn prepare(server: &Server) {
    let facts = Facts {
        is_supported: is_supported(),
        has_proxy: has_module(c"mod_proxy.c"),
        has_http: has_module(c"mod_proxy_http.c"),
        has_wstunnel: has_module(c"mod_proxy_wstunnel.c"),
        keeps_wstunnel: is_among("ProxyWebsocketFallbackToProxyHttp", "off"),
    };
    let is_possible = facts.is_supported && facts.has_proxy && facts.has_http;
    server.configuration_pool().keep(KEY, IsPossible(is_possible && is_configured()));
    if let Some(line) = facts.advice().filter(|_| is_configured()) {
        log::main(Level::Warning, line);
    }
}

/// In httpd's children: it is configured somewhere, and not in vain.
pub(super) fn is_possible(server: &Server) -> bool {
    server.configuration_pool().kept(KEY).is_some_and(|IsPossible(is_possible)| *is_possible)
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    is_supported: bool,
    has_proxy: bool,
    has_http: bool,
    has_wstunnel: bool,
    keeps_wstunnel: bool,
}

impl Facts {
    /// What there is to say where sockets are to be taken over.
    fn advice(self) -> Option<&'static str> {
        if !self.has_proxy {
            return None;
        }
        if !self.is_supported {
            return Some(
                "WS0228: WebSocketProxyHandoff On and WebSocketHandler proxy need httpd 2.4.58 or later to take sockets over: they stay in mod_proxy's \
                 tunnel, with a worker each",
            );
        }
        if self.has_wstunnel && !self.has_http {
            return Some(
                "WS0229: WebSocketProxyHandoff On needs mod_proxy_http: sockets of mod_proxy_wstunnel alone stay in its tunnel, with a worker \
                 each; load mod_proxy_http, which serves ws:// and wss://, too",
            );
        }
        (self.has_wstunnel && self.keeps_wstunnel).then_some(
            "WS0230: where ProxyWebsocketFallbackToProxyHttp is Off, WebSocketProxyHandoff On and WebSocketHandler proxy take no sockets over: \
             they stay in mod_proxy_wstunnel's tunnel, with a worker each",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_has_its_line() {
        let fine =
            Facts { is_supported: true, has_proxy: true, has_http: true, has_wstunnel: true, keeps_wstunnel: false };
        let id = |facts: Facts| facts.advice().map(|line| &line[..6]);
        assert_eq!(id(fine), None);
        assert_eq!(id(Facts { has_wstunnel: false, keeps_wstunnel: true, ..fine }), None);
        assert_eq!(id(Facts { is_supported: false, ..fine }), Some("WS0228"));
        assert_eq!(id(Facts { has_http: false, ..fine }), Some("WS0229"));
        assert_eq!(id(Facts { has_http: false, has_wstunnel: false, ..fine }), None);
        assert_eq!(id(Facts { keeps_wstunnel: true, ..fine }), Some("WS0230"));
        assert_eq!(id(Facts { has_proxy: false, is_supported: false, has_http: false, ..fine }), None);
    }
}
