//! The handler `proxy`: a session between a client and a server behind httpd, which mod_proxy has opened. Both have their 101,
//! and what mod_proxy's tunnel would do is done here: bytes go either way as they came, and no worker of httpd's is held.
//!
//! * `session`: from the takeover to the end; who is told what when httpd stops
//! * `one_way`: the bytes of one direction; `splice`: those of large payloads
//! * `takeover`: in httpd's children, from before the server is asked to the beginning of the tunnel; `startup`: what stands in its way
//! * `route`, `config`, `front`: `WebSocketHandler proxy URL`, by which a handshake is mod_proxy's
//!
//! httpd has the place granted before it asks the server, and tells who the server is with the streams: see [`ProxySettings`] and
//! [`give_proxied`](crate::engine::handoff::Link::give_proxied).

use crate::engine::{Accepted, Handler, HandlerSession, LocalBoxFuture, Rejection, Response, SessionSpec};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[cfg(feature = "httpd")]
pub(crate) mod config;
#[cfg(feature = "httpd")]
mod front;
mod one_way;
#[cfg(any(feature = "httpd", test))]
mod route;
mod session;
mod splice;
#[cfg(feature = "httpd")]
pub(crate) mod startup;
#[cfg(feature = "httpd")]
pub(crate) mod takeover;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;

/// What comes with the two streams of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxySettings {
    /// Who the server is, for the error log.
    pub backend: String,
    /// How long nothing may move either way, where somebody meant that of the proxy; `WebSocketIdleTimeout` counts first.
    pub idle_timeout: Option<Duration>,
    /// One end may go on when the other has said all it has to say. False (`proxy-nohalfclose`): both end then.
    pub half_close: bool,
}

struct Proxy;

impl Handler for Proxy {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        let session = HandlerSession::Stream(Box::new(session::Proxied));
        // The server answers the handshake; its socket is the one descriptor more.
        Box::pin(async { Ok(Accepted { descriptors: 1, ..Accepted::new(Response::None, session) }) })
    }
}

pub fn handler() -> impl Handler {
    Proxy
}

#[cfg(test)]
mod tests;
