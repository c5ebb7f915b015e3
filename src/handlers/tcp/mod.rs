//! `WebSocketHandler tcp TARGET`: the bytes of a TCP server, or of one on a Unix socket, in binary messages.
//!
//! * [`target`]: what can be connected to, and connecting
//! * [`tokens`]: the file of the targets that clients may choose from
//! * [`link`]: an open connection to a target
//! * [`session`]: one client
//!
//! The connection is made before the 101, so that a target that is not there becomes an answer of HTTP.

#[cfg(feature = "httpd")]
pub(crate) mod config;
#[cfg(feature = "httpd")]
pub(crate) mod front;
pub mod link;
pub mod session;
pub mod target;
pub mod tokens;

use super::targets::{Crowd, Targets};
use crate::engine::metrics::{self, Timing};
use crate::engine::{Accepted, Handler, LocalBoxFuture, Refused, Rejection, SessionSpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use target::Target;
use tokens::Tokens;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;

/// The one subprotocol that is spoken: that of websockify's clients.
pub const PROTOCOL: &str = "binary";

/// What the handler is to know of a session. Travels in [`crate::engine::HandlerSpec::settings`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSettings {
    pub to: To,
    pub timeout: Duration,
    /// With whom the client's worker of httpd waits.
    pub crowd: Crowd,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    Target(Target),
    /// To what the client's token stands for.
    Token {
        /// The absolute path of the file that says it.
        file: PathBuf,
        /// As the client gave it; `None`: it gave none.
        token: Option<String>,
    },
}

#[derive(Default)]
pub struct Tcp {
    tokens: Arc<Tokens>,
    targets: Targets<Target>,
}

impl Tcp {
    async fn target(&self, to: To) -> Result<Target, Refused> {
        match to {
            To::Target(target) => Ok(target),
            To::Token { token: None, .. } => Err(Refused { status: 403, reason: "the request has no ?token=".into() }),
            To::Token { file, token: Some(token) } => {
                let tokens = self.tokens.clone();
                // The file may lie on a disk that takes its time, and others are asked on this thread.
                let found = tokio::task::spawn_blocking(move || tokens.find(&file, &token)).await;
                found.unwrap_or_else(|e| Err(Refused { status: 500, reason: e.to_string() }))
            }
        }
    }
}

impl Handler for Tcp {
    fn accept<'a>(&'a self, spec: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async {
            let wrong = |e| Refused { status: 500, reason: format!("no settings of tcp: {e}") };
            let TcpSettings { to, timeout, crowd } = postcard::from_bytes(&spec.handler.settings).map_err(wrong)?;
            let target = self.target(to).await?;
            let is_silence = |connected: &Result<_, Refused>| connected.as_ref().is_err_and(|why| why.status == 504);
            let begun = Instant::now();
            let connected = self.targets.ask(&target, crowd, target.connect(timeout), is_silence).await;
            let target = connected.map_err(|busy| busy.refuse(format_args!("no connection to {target}")))??;
            metrics::here().note_time(Timing::Tcp, begun.elapsed());
            Ok(Accepted { descriptors: 1, ..Accepted::messages(session::Opening { target }) })
        })
    }
}

pub fn handler() -> impl Handler {
    Tcp::default()
}

#[cfg(test)]
mod tests;
