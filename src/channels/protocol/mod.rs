//! How clients and the engine speak of channels: one file for each way. A protocol knows syntax; what a client may do is
//! the session's business.
//!
//! * [`bare`]: messages as they were published, and nothing else
//! * [`nchan`]: `ws+meta.nchan`, messages after lines of metadata
//! * [`v1`]: `channels.v1`, JSON both ways

pub mod bare;
pub mod nchan;
pub mod v1;

use super::Id;
use super::publication::Publication;
use crate::engine::Broadcast;
use crate::wire::{CloseFrame, Message};
use std::sync::Arc;

pub trait Protocol: Sync {
    /// No other protocol has it. Where clients choose the protocol by a subprotocol, it is that one's.
    fn name(&self) -> &'static str;

    /// Clients are told the names of channels.
    fn shows_channels(&self) -> bool {
        false
    }

    fn decode(&self, message: Message) -> Result<ClientRequest, DecodeError>;

    /// An event as clients get it, as the reply to the request of that reference where there is one. `None`: the protocol
    /// has no words for such events.
    fn encode(&self, event: &ClientEvent<'_>, reference: Option<&Reference>) -> Option<Arc<Broadcast>>;
}

/// All protocols. Caches of what is encoded have a place for each of them.
pub const PROTOCOLS: [&dyn Protocol; 3] = [&bare::Bare, &nchan::Nchan, &v1::V1];

/// The subprotocols by which clients choose one of them, the preferred first.
#[cfg(any(test, feature = "httpd"))]
pub const SUBPROTOCOLS: [&str; 2] = [v1::NAME, nchan::NAME];

/// What a client calls a request of its own: comes back with the reply.
pub type Reference = serde_json::Value;

#[derive(Debug, PartialEq)]
pub struct ClientRequest {
    pub command: ClientCommand,
    pub reference: Option<Reference>,
}

/// What a client wants. Channels are named as the client names them: see [`View::name`].
#[derive(Debug, PartialEq)]
pub enum ClientCommand {
    Subscribe {
        channel: String,
        /// The id after which it begins; "*" for all that is kept.
        since: Option<String>,
        /// With joins and leaves, or without them; `None`: as it was.
        presence: Option<bool>,
    },
    Unsubscribe {
        channel: String,
    },
    Presence {
        channel: String,
    },
    Publish {
        /// `None`: to all channels that the session began with.
        channel: Option<String>,
        message: Message,
    },
}

#[derive(Debug, PartialEq)]
pub enum DecodeError {
    Close(CloseFrame),
    /// It is told, and the session goes on.
    Reply(CommandError, Option<Reference>),
}

/// Why a command was not done, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    pub code: ErrorCode,
    pub message: String,
}

impl CommandError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> CommandError {
        CommandError { code, message: message.into() }
    }
}

/// What a client can do about a command that was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    BadRequest,
    Forbidden,
    TooMany,
    NotSubscribed,
    /// It may be tried again later.
    Unavailable,
    /// It was done, or will be, or not: the broker has not answered.
    Unknown,
}

#[derive(Debug)]
pub enum ClientEvent<'a> {
    Message {
        channel: &'a str,
        publication: &'a Publication,
    },
    Subscribed {
        channel: &'a str,
        /// After this one nothing is missed; `None`: it had begun before.
        id: Option<&'a Id>,
        /// All that came after the client's id is there.
        recovered: Option<bool>,
    },
    Unsubscribed {
        channel: &'a str,
    },
    /// The client's message was published under this id, to so many connections.
    Published {
        channel: &'a str,
        id: &'a str,
        subscribers: u64,
    },
    /// Who is there, each with the number of connections; `subscribers` counts those of nobody in particular, too.
    Presence {
        channel: &'a str,
        members: &'a [(Arc<str>, u32)],
        subscribers: u64,
    },
    /// A member that was not there before has come.
    Join {
        channel: &'a str,
        member: &'a str,
    },
    Leave {
        channel: &'a str,
        member: &'a str,
    },
    /// A command was not done.
    Error(&'a CommandError),
}

/// How a subscriber is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The place in [`PROTOCOLS`].
    protocol: u8,
    /// Bytes that names of channels begin with, and that are not shown. Where none are, 0.
    hidden: u16,
}

impl View {
    /// In the protocol of that name, or without one [`bare`]; of names, so many bytes at the beginning are hidden.
    pub fn new(protocol: Option<&str>, hidden: usize) -> View {
        let place = PROTOCOLS.iter().position(|known| Some(known.name()) == protocol).unwrap_or_default();
        // Where names are not shown, all is the same for all. A name is no longer than that.
        let hidden = if PROTOCOLS[place].shows_channels() { hidden } else { 0 };
        View { protocol: place as u8, hidden: u16::try_from(hidden).unwrap_or(u16::MAX) }
    }

    pub fn protocol(self) -> &'static dyn Protocol {
        PROTOCOLS[self.place()]
    }

    /// Of the protocol, in [`PROTOCOLS`].
    pub fn place(self) -> usize {
        self.protocol.into()
    }

    pub fn hides(self) -> bool {
        self.hidden > 0
    }

    /// The name of a channel, as it is shown.
    pub fn name(self, channel: &str) -> &str {
        channel.get(usize::from(self.hidden)..).unwrap_or(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subprotocols_choose_protocols() {
        let chosen = |name| View::new(name, 5).protocol().name();
        assert_eq!(SUBPROTOCOLS.map(|name| chosen(Some(name))), SUBPROTOCOLS);
        assert_eq!([chosen(None), chosen(Some("chat"))], [bare::NAME; 2]);
        assert_eq!(View::new(None, 5), View::new(None, 0));
        assert_eq!(View::new(Some(v1::NAME), 5).name("room/1"), "1");
    }
}
