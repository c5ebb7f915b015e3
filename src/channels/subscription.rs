//! What httpd tells the engine of a session on channels, and of all of them.

use super::History;
use super::name::Pattern;
use crate::engine::interned::{Intern, Table};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::thread::LocalKey;

/// What a session on channels is, beside what every session is. Travels in [`crate::engine::HandlerSpec::settings`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subscription {
    /// What all of its channels begin with, and the client neither writes nor sees: "", or `NAME/`. It stands in `channels`
    /// and in `allowed`.
    pub prefix: String,
    /// The channels that it begins with, none twice.
    pub channels: Vec<String>,
    /// Which others it may subscribe to while it lasts: those that one of the patterns matches.
    pub allowed: Vec<Pattern>,
    /// Channels that it may be subscribed to at a time.
    pub max: u32,
    /// What the client sends is published.
    pub publishes: bool,
    /// It may ask who is there, and be told who joins and leaves.
    pub presence: bool,
    /// As whom presence counts it; `None`: as nobody in particular.
    pub member: Option<String>,
    /// The id of the last message that the client knows, as it gave it; "*": it wants all that is kept.
    pub since: Option<String>,
    /// How what it publishes is kept.
    pub history: History,
    /// A text of the client that asks whether somebody is there, and the answer: neither is published. For clients that
    /// speak no subprotocol of requests.
    pub heartbeat: Option<Box<(String, String)>>,
}

thread_local! {
    static SUBSCRIPTIONS: Table<Subscription> = RefCell::default();
}

impl Intern for Subscription {
    fn table() -> &'static LocalKey<Table<Subscription>> {
        &SUBSCRIPTIONS
    }
}

impl Subscription {
    /// A pattern of names as clients know them, for names as they are.
    pub fn below(&self, pattern: &Pattern) -> Pattern {
        let mut pieces = pattern.0.clone();
        if let Some(first) = pieces.first_mut() {
            first.insert_str(0, &self.prefix);
        }
        Pattern(pieces)
    }
}

/// What the handler is told of the server as a whole ([`crate::engine::Handler::configure`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSettings {
    /// Channels that may exist at a time.
    pub channels: usize,
    /// Bytes of all messages that are kept, together.
    pub history_bytes: usize,
    /// Where several engines meet: `redis://…` or `rediss://…`; `None`: this engine is alone.
    pub broker: Option<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings { channels: 1_000_000, history_bytes: 64 << 20, broker: None }
    }
}
