//! What there is to say about a session that has ended: why, and what went either way.

use super::KeptSpec;
use crate::wire::{CloseCode, CloseFrame};
use std::fmt;
use std::io;
use std::time::Duration;

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// The client sent a Close frame.
    Client(Option<CloseFrame>),
    /// The client broke the protocol.
    Violation(CloseFrame),
    /// The engine wants the session to end.
    Engine(CloseFrame),
    /// The handler is done.
    Handler(CloseFrame),
    /// The connection broke, or ended without a Close frame (1006 to either side).
    Lost(io::Error),
    /// The client has neither answered a Ping in time nor given another sign of life (1006 to either side).
    Unanswered,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Client(Some(frame)) => write!(f, "closed by the client, {}", u16::from(frame.code)),
            End::Client(None) => write!(f, "closed by the client, 1005"),
            End::Violation(frame) => write!(f, "protocol violation, {}, {}", u16::from(frame.code), frame.reason),
            End::Engine(frame) => write!(f, "closed by the server, {}, {}", u16::from(frame.code), frame.reason),
            End::Handler(frame) => write!(f, "closed by the handler, {}", u16::from(frame.code)),
            End::Lost(e) => write!(f, "lost, 1006, {e}"),
            End::Unanswered => write!(f, "lost, 1006, no answer to a ping"),
        }
    }
}

impl End {
    /// The code of the Close frame that began the end; 1005 for none in it, 1006 for no frame (RFC 6455 section 7.1.5).
    pub fn code(&self) -> u16 {
        match self {
            End::Client(Some(frame)) | End::Violation(frame) | End::Engine(frame) | End::Handler(frame) => {
                frame.code.into()
            }
            End::Client(None) => CloseCode::Status.into(),
            End::Lost(_) | End::Unanswered => CloseCode::Abnormal.into(),
        }
    }

    /// Who or what ended the session, in a word for the session log.
    pub fn who(&self) -> &'static str {
        match self {
            End::Client(_) => "client",
            End::Violation(_) => "violation",
            End::Engine(_) => "server",
            End::Handler(_) => "handler",
            End::Lost(_) | End::Unanswered => "lost",
        }
    }
}

/// What went one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Data messages.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Traffic {
    /// One more message, of so many bytes.
    pub fn count(&mut self, bytes: usize) {
        self.add(1, bytes as u64);
    }

    /// What has come to it since it was this.
    pub(super) fn since(self, before: Traffic) -> Traffic {
        Traffic { messages: self.messages - before.messages, bytes: self.bytes - before.bytes }
    }

    /// So many more messages, of so many bytes in all.
    pub fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages of {} bytes", self.messages, self.bytes)
    }
}

/// What there is to say about a session that ended.
#[derive(Debug)]
pub struct Summary {
    /// What was known of it.
    pub spec: KeptSpec,
    /// From the client, as the handler took it.
    pub received: Traffic,
    /// To the client, as the handler sent it.
    pub sent: Traffic,
    /// Why it ended.
    pub end: End,
    /// How long it was open, the closing handshake included.
    pub open: Duration,
}
