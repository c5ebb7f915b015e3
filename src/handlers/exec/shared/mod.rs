//! One program for all clients of a location: started for the first of them, ended when the last has been gone for a while,
//! and started again when it has ended by itself and somebody wants it.
//!
//! Its supervisor is a task on the thread of the client that came first. Clients give it what is for the program through one
//! bounded queue, and wait beside it when the program does not read; it gives each client its messages through a queue that
//! the client's task empties whether or not the client takes anything: one that does not is closed with 1013, and nobody
//! else waits for it.
//!
//! * [`registry`]: the programs of an engine, and when one that has failed is started again
//! * [`client`]: a session of one
//! * [`supervisor`]: what keeps one running

pub mod client;
pub mod registry;
mod supervisor;

use super::settings::Shared;
use crate::engine::Broadcast;
use crate::wire::{CloseCode, CloseFrame, Message, close};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) enum ToSupervisor {
    Join(Box<Join>),
    Message(u64, Message),
    Leave(u64, u16, String),
}

pub(super) struct Join {
    id: u64,
    /// As JSON.
    environment: Vec<u8>,
    client: mpsc::Sender<ToClient>,
    launch: Launch,
}

pub(super) struct Launch {
    shared: Shared,
    stop_timeout: Duration,
    /// Bytes of a message of the program.
    limit: usize,
}

pub(super) enum ToClient {
    Message(Arc<Broadcast>),
    Close(CloseFrame),
}

/// RFC 6455's registry: 1012 means that the client may come again.
fn gone() -> CloseFrame {
    close(CloseCode::Restart, "the program has ended")
}
