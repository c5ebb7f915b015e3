//! How an httpd child gives a socket to the engine, over a link: see [`super::entrance`].
//!
//! ```text
//! child                                     engine
//!   Hello { version } Open { spec, head, early, … } + the socket ──▶
//!                            ◀── Opened { id }: the 101, which is `head`, goes to the client from here, and then what the session says
//!                                                     or   Refused { … }: the client gets that status, and no 101
//!
//!   (or where more is to be said before the 101 can be, or the socket stays with httpd)
//!   Offer(SessionSpec)                ──▶
//!                            ◀── Granted { id, … } or  Refused { … }
//!                                                     or   Declined, Dropped: no answer of ours, or none at all
//!   (the 101 goes to the client, unless the handler has said that it answers by itself)
//!   Take { id, early }  + the socket  ──▶           or   Abandon { id }: the client was gone
//!                           (and a link to the child, for a handler that has its other half there; or the socket of
//!                            the server that httpd has proxied it to)
//!   Carry { id, … }                   ──▶           or, in the place of Take: its bytes come over a mux
//!                           (and the socket of that server)
//!   Mux { thread }    + its other end     ──▶           before the first of these
//!                            ◀── Mux { number }
//!   Close { id, … }                   ──▶           later, over any link
//!   Call { handler, … }                   ──▶           something a handler is asked that belongs to no session
//!                            ◀── Answer { … }         or   Refused { … }
//!   Query(…)                          ──▶           something that is asked of all threads
//!                            ◀── Answer { … }
//! ```

mod client;
mod codec;
mod message;
mod server;

#[allow(unused_imports, reason = "what takes over mod_proxy's tunnels has it")]
pub(crate) use client::Side;
pub(super) use client::unexpected;
pub(crate) use client::{EngineClient, Granted, HandoffError, Link};
pub(crate) use codec::sendmsg_with;
pub use codec::{MAX_MESSAGE, MessageDecoder, encode};
pub(super) use codec::{receive, send, send_with};
pub(crate) use message::FromEngine;
pub use message::{HandoffMessage, ProxiedBackend, ToEngine};
pub(crate) use server::Receiver;

use std::time::Duration;

/// What both ends must agree on: the messages, [`SessionSpec`](super::SessionSpec), and which handlers there are.
const VERSION: &str = concat!("mod_websocket handoff 22, with ", env!("HANDLERS"));

/// The digest of one value of each of them: `handlers/layout.rs` compares it.
#[cfg(test)]
pub(crate) const LAYOUT: &str = "3Fc1KJTrgqT6w9/Y/ILOdBzTOoI=";

/// What this code speaks: see [`super::control::ControlLink::configure`].
///
/// Read from the library's data and not compiled into comparisons: so that a copy of the library with another text in that
/// place stands for another version, in tests.
pub fn version() -> &'static str {
    std::hint::black_box(VERSION)
}

/// How long a child waits for the engine. A new engine in the place of one that crashed is there sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
