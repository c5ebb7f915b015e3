//! What travels with a session from httpd to the engine: plain data, so that a restarted httpd with a new configuration
//! and an engine that was started before it agree on every session.

use super::application::ApplicationSpec;
use super::revocation::Opening;
use crate::wire::deflate::Compression;
use crate::wire::session::Rules;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::time::Duration;

/// All that the engine and a handler know of a session.
///
/// Its layout is part of the handoff protocol: who changes it raises the VERSION of [`super::handoff`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// What runs the session.
    pub handler: HandlerSpec,
    /// The subprotocol that the 101 named.
    pub protocol: Option<String>,
    /// What the session may use.
    pub limits: Limits,
    /// permessage-deflate, as the 101 says; `None`: nothing is compressed.
    pub compression: Option<Compression>,
    /// See [`Rules::reserved_close_codes`].
    pub reserved_close_codes: bool,
    /// The client's address as httpd sees it (mod_remoteip's word counts).
    pub client: String,
    /// REMOTE_USER, when httpd's login named one.
    pub user: Option<String>,
    /// The name of the virtual host.
    pub server: String,
    /// The request's path and query, as the client sent it.
    pub uri: String,
    /// The places that the session takes, each of which there may be only so many of.
    pub quotas: Vec<Quota>,
    /// The session log, if there is one. Boxed, since most sessions have none.
    pub log: Option<Box<LogSpec>>,
    /// Where the application is asked again while the session lasts. Boxed, likewise.
    pub application: Option<Box<ApplicationSpec>>,
    /// Until the session has begun.
    pub opening: Option<Box<Opening>>,
}

impl SessionSpec {
    /// What the protocol state of the session keeps to.
    pub fn rules(&self) -> Rules {
        Rules {
            max_message_size: self.limits.max_message_size,
            compression: self.compression,
            reserved_close_codes: self.reserved_close_codes,
        }
    }
}

/// One of at most `max` sessions of a `scope` that are open at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Which sessions count together: those with the same text, which also names the limit in the log.
    pub scope: String,
    /// How many may be open.
    pub max: u32,
}

/// Where the line goes that a session leaves when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogSpec {
    /// The query of the URI is written, too.
    pub query: bool,
    /// The log's name: a path or `|program`, as configured.
    pub name: String,
    /// The virtual host's own name, whatever the client called it.
    pub host: String,
}

/// A handler by its name, and the arguments that its directive gave.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HandlerSpec {
    /// As in `WebSocketHandler NAME`.
    pub name: String,
    /// The words after the name.
    pub args: Vec<String>,
    /// What else the handler wants to be told of the session, in a form of its own.
    pub settings: Vec<u8>,
}

/// There may be secrets among the settings.
impl std::fmt::Debug for HandlerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerSpec").field("name", &self.name).field("args", &self.args).finish_non_exhaustive()
    }
}

/// What one session may use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the largest message that is taken, its fragments added up; a larger one is answered with 1009.
    pub max_message_size: usize,
    /// Bytes that may wait for a client. While more wait, nothing is read from it, [`super::Conn::send`] waits, and
    /// [`super::Conn::push`] gives the client up.
    pub send_buffer: usize,
    /// How long the client has to answer our Close.
    pub close_timeout: Duration,
    /// How a client is noticed that is gone without a word; `None`: not at all.
    pub ping: Option<Ping>,
    /// How long a session may be open without a data message either way; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a message may take to come, once it has begun; `None`: for ever.
    pub message_timeout: Option<MessageTimeout>,
}

/// How long a message may take from its first byte to its last, the time not counted in which nothing is read from the
/// client. Small, since every session has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MessageTimeout {
    /// For the first byte as for the last.
    pub seconds: NonZeroU32,
    /// So many bytes of it add a second; 0: none do.
    pub rate: u32,
}

impl MessageTimeout {
    /// For a message of which so many bytes have come.
    pub fn allows(&self, bytes: u64) -> Duration {
        let more = bytes.checked_div(self.rate.into()).unwrap_or(0);
        Duration::from_secs(u64::from(self.seconds.get()) + more)
    }
}

impl Default for MessageTimeout {
    fn default() -> Self {
        MessageTimeout { seconds: const { NonZeroU32::new(60).unwrap() }, rate: 500 }
    }
}

/// When a client that says nothing is asked whether it is there. All times are rounded up to
/// [`super::timer::TICK`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ping {
    /// The silence after which a Ping is sent.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Ping { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}

impl Limits {
    /// As [`Limits::max_message_size`]: no message is too long, and the handler takes them as the stream that they are. What is
    /// compressed cannot be taken so.
    pub const UNLIMITED: usize = usize::MAX;
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message_size: 1 << 20,
            send_buffer: 1 << 20,
            close_timeout: Duration::from_secs(5),
            ping: Some(Ping::default()),
            idle_timeout: None,
            message_timeout: Some(MessageTimeout::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_add_time() {
        let timeout = MessageTimeout::default();
        for (bytes, seconds) in [(0, 60), (499, 60), (500, 61), (1 << 20, 60 + 2097)] {
            assert_eq!(timeout.allows(bytes), Duration::from_secs(seconds), "{bytes}");
        }
        assert_eq!(MessageTimeout { rate: 0, ..timeout }.allows(1 << 30), Duration::from_secs(60));
        assert_eq!(size_of::<Option<MessageTimeout>>(), 8);
    }
}
