//! Channels: their history, who is subscribed, and the way of a message to all subscribers.
//!
//! * `id`: the ids of messages, `epoch:offset`
//! * [`name`]: the names of channels, and patterns of them, which the application behind httpd may give, too
//! * `subscription`: what httpd tells the engine of a session
//! * `api`: what httpd has channels do
//! * `store`: the channels of this engine
//! * `redis`: where several engines meet
//! * `broker`: what makes the channels of several engines one
//! * `hub`: what all threads have together: the store, and the way to the subscribers
//! * `shard`: the subscribers of one thread
//! * `subscribed`: what holds a session in a channel
//! * `publication`: a message, as subscribers get it
//! * `protocol`: how clients and the engine speak of channels
//!
//! # Ids
//!
//! Offsets are counted over all channels together, by whoever orders the messages: so a client that follows several
//! channels needs one id to go on from, that of the last message it got, and every client sees the messages of all its
//! channels in one order. Within a channel they increase, with gaps. The epoch names the count: another engine after a
//! crash begins a new one, and an id of another epoch tells nothing.

pub mod api;
pub mod broker;
mod error;
pub mod hub;
pub mod id;

pub mod protocol;
pub mod publication;
pub mod redis;
pub mod shard;
pub mod store;
pub mod subscribed;
pub mod subscription;

pub use crate::engine::application::channel_name as name;
pub use error::Error;
pub use id::{Id, epoch};
pub use store::{Store, StoreLimits};

use serde::{Deserialize, Serialize};

/// How the messages of a channel are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct History {
    /// That many of the last.
    pub messages: u32,
    pub seconds: u32,
}

impl Default for History {
    /// Enough for a client that was away for a moment.
    fn default() -> Self {
        History { messages: 10, seconds: 3600 }
    }
}

pub trait Payload: Clone {
    /// The bytes that it counts for in the history.
    fn size(&self) -> usize;
}
