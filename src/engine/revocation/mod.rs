//! Something is taken back from sessions that are open, or that are about to be: they are found by what names them.
//!
//! * [`directory`]: all threads of an engine, and the count of the sessions that were reached
//! * [`names`]: what the sessions of one thread are called
//! * [`reach`]: what is done to a session
//! * [`marks`]: what was taken back lately, for handshakes that are still under way

mod directory;
pub(crate) mod marks;
pub(crate) mod names;
mod reach;

pub use directory::{Directory, Tally};

use super::application::answer::Answer;
use super::metrics::Transport;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a session is known by: several may have the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Name {
    /// What the channels begin with where the session was opened: `NAME/`, or nothing.
    pub prefix: String,
    /// Who it is there.
    pub whom: Whom,
}

/// By what sessions are found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Whom {
    /// REMOTE_USER, or whom the application has named.
    User(String),
    /// As whom presence counts it.
    Member(String),
    /// Its Connection-Id; or its number, in decimal, as the session log has it.
    Connection(String),
}

/// What is taken back, and from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// From the sessions of this name.
    pub name: Name,
    /// A connection that keeps what it has; called as in [`Whom::Connection`].
    pub except: Option<String>,
    /// What becomes of them.
    pub measure: Measure,
}

/// What becomes of a session from which something is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// It is closed.
    Close {
        /// One that may be sent.
        code: u16,
        /// Up to 123 bytes.
        reason: String,
    },
    /// It is not subscribed to these channels any more, nor may it be again.
    Unsubscribe {
        /// By their whole names.
        channels: Vec<String>,
    },
    /// Its application is asked now whether it may go on.
    Recheck,
}

/// What others want a session to change in itself, for those that can ([`super::MessageSession::takes_changes`]).
#[derive(Debug)]
pub enum Change {
    /// It is not subscribed to the channels of this [`Measure::Unsubscribe`] any more; whoever counts is told of it.
    Unsubscribe(Arc<Revocation>, Option<Tally>),
    /// Its application is asked now, by the session itself, if at all; whoever counts is told of it.
    Recheck(Option<Tally>),
    /// These are its rights now.
    Rights(Arc<Answer>),
}

/// What is known of a session's opening, and kept for nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// When its request came: see [`clock`].
    pub began: u64,
    /// See [`Name::prefix`].
    pub prefix: String,
    /// See [`Whom::Member`].
    pub member: Option<String>,
    /// How the bytes of its socket come, where that is none of the client's.
    pub transport: Transport,
    /// The virtual host, by the configuration: `ServerName:port`.
    pub vhost: String,
}

/// Microseconds on a clock that all processes of this machine share, and that is never set.
pub fn clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}
