//! The application behind httpd, which decides over sessions and may handle them: what is said to it and by it, whoever asks.
//!
//! * [`answer`]: the header lines with which it answers
//! * [`reserved`]: the header lines that only this module sends to it
//! * [`channel_name`]: the names of channels, which it may give
//! * [`loopback`]: the requests of the engine; [`queue`]: how many of them there may be at a time
//! * [`recheck`]: it is asked again
//! * [`token`]: how it, and httpd, know that this module asks; [`grip_sig`]: how others do
//! * [`ApplicationSpec`]: what the engine needs to ask it again

pub mod answer;
pub mod channel_name;
pub mod grip_sig;
pub mod loopback;
pub mod queue;
pub(crate) mod recheck;
pub mod reserved;
pub mod token;

use loopback::Application;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// What a session has that the application is asked about again: by a recheck, or by each of its messages. Of others nothing is
/// kept: there are secrets among the header lines.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationSpec {
    /// The session's name for the application, `Connection-Id`: [`connection_id`].
    pub connection: String,
    /// Path and query of `WebSocketAuthorize`, as they were asked; `None` without it.
    pub authorize: Option<String>,
    /// The header lines of the handshake that go with each later request ([`reserved::is_replayed`]); Host is among them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What `Set-Meta-NAME` has stored, by names as [`reserved::normal`] has them.
    pub meta: Vec<(String, String)>,
    /// Whether, and how often, it is asked again.
    pub recheck: Option<Recheck>,
    /// The session ends at the latest so long after its handshake.
    pub expires: Option<Duration>,
    /// Where this httpd is asked again.
    pub here: Option<Application>,
    /// The client has come over TLS.
    pub secure: bool,
    /// It may say something of channels: false where an .htaccess file has chosen it, and no prefix keeps them apart.
    pub says_channels: bool,
}

/// Header lines and Meta are not for logs.
impl std::fmt::Debug for ApplicationSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApplicationSpec")
            .field("connection", &self.connection)
            .field("authorize", &self.authorize)
            .field("recheck", &self.recheck)
            .field("expires", &self.expires)
            .field("here", &self.here)
            .finish_non_exhaustive()
    }
}

/// Stores what an answer has said of Meta; an empty value is forgotten.
pub fn store(meta: &mut Vec<(String, String)>, said: Vec<(String, String)>) {
    for (name, value) in said {
        meta.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            meta.push((name, value));
        }
    }
}

/// How often the application is asked whether a session may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recheck {
    /// About so often.
    pub interval: Duration,
    /// How long it may give no answer.
    pub grace: Duration,
}

/// Where this httpd can be reached as the client has reached it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Loopback {
    /// The listener's address on this machine.
    pub address: SocketAddr,
    /// It speaks TLS.
    pub secure: bool,
    /// The name that the client has called for in its TLS (SNI).
    pub server_name: Option<String>,
    /// The SHA-256 of the certificate (DER) that the handshake showed.
    pub certificate: Option<[u8; 32]>,
}

/// 128 bits by chance, in hexadecimal.
///
/// # Errors
/// The system has none.
pub fn connection_id() -> std::io::Result<String> {
    let mut bits = [0; 16];
    token::fill(&mut bits)?;
    Ok(token::hexadecimal(&bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let spec = ApplicationSpec {
            headers: vec![("Cookie".into(), b"secret".to_vec())],
            meta: vec![("user".into(), "secret".into())],
            ..ApplicationSpec::default()
        };
        assert!(!format!("{spec:?}").contains("secret"));
    }

    #[test]
    fn ids_differ() {
        let (a, b) = (connection_id().unwrap(), connection_id().unwrap());
        assert!(a.len() == 32 && a != b && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
