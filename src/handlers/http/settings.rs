//! What the handler is told of a session, beside what the engine is told of the application.

use crate::engine::application::grip_sig::GripKey;
use crate::engine::application::loopback::Application;
use crate::handlers::targets::Crowd;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How messages become requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mode {
    /// A message is a request, and the answer's body a message.
    #[default]
    Plain,
    /// Requests and answers are `application/websocket-events`.
    Events,
}

/// Travels in [`crate::engine::HandlerSpec::settings`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSettings {
    pub mode: Mode,
    /// Whom it asks.
    pub application: Application,
    /// Path and query there.
    pub target: String,
    pub opening: Opening,
    pub channels: ChannelRules,
    /// Those that `WebSocketAuthorize` has named, without the prefix.
    pub given: Vec<String>,
    /// The client's connection is TLS.
    pub secure: bool,
    /// The application is asked again by this handler, and nobody else has it asked.
    pub recheck: Option<RecheckRules>,
    /// By which an application elsewhere knows who asks.
    pub grip_key: Option<GripKey>,
}

/// How often an application is asked again at its own URL, by the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecheckRules {
    /// About so often; `None`: where its answers do not say it, it is not.
    pub interval: Option<Duration>,
    /// How long it may give no answer that counts.
    pub grace: Duration,
}

/// Who asks the application whether it wants the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// httpd has asked already, with so many requests, and it does: with these header lines, and this body.
    Accepted { requests: u64, headers: Vec<(String, Vec<u8>)>, body: Vec<u8> },
    /// The engine asks. The 101 has these lines besides what the application says.
    Engine {
        lines: Vec<(String, String)>,
        /// The subprotocols that the client has offered.
        protocols: Vec<String>,
        /// With whom the client's worker of httpd waits.
        crowd: Crowd,
    },
}

/// What the session may do with channels, by the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRules {
    /// What all of its channels begin with, and the application neither writes nor sees.
    pub prefix: String,
    /// Channels that it may be subscribed to at a time.
    pub max: u32,
    /// As whom presence counts it.
    pub member: Option<String>,
}
