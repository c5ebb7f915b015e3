//! What the directives of a section say, each merged for itself: those that hold for every handler, and a type of its own for
//! each handler's ([`Config::of`]).
//!
//! * [`merge`]: an inner section over an outer one
//! * [`words`]: how what stands behind a directive is read
//! * [`limit`]: numbers that `.htaccess` files make smaller only, and where they count
//! * [`handshake`], [`limits`], [`compression`], [`server`]: the directives, in groups

pub mod compression;
pub mod handshake;
pub mod limit;
pub mod limits;
pub mod merge;
pub mod server;
pub mod words;

use super::handler::Chosen;
use crate::apache::directive::{Directive, DirectivePlace, Section};
use crate::engine::memory::Bound as Memory;
use crate::engine::{MessageTimeout, Ping};
use crate::wire::handshake::{Policy, Protocols};
use crate::wire::origin::Trusted;
use compression::Takeover;
use handshake::OriginRule;
use limit::{Bounds, Limit};
use merge::Parts;
use std::borrow::Cow;
use std::time::Duration;

pub(crate) use handshake::PublishAccess;
pub(crate) use limit::PlacedBound;
pub use merge::Merge;
pub(crate) use merge::merged;
pub(crate) use server::Lateness;

/// A table of directives: of each its name, what follows, where it may stand, its default, its parser and its help.
macro_rules! directives {
    ($vis:vis $table:ident = $($name:literal $arguments:literal in $context:ident, else $default:literal => $set:expr, $help:literal;)*) => {
        $vis const $table: &[$crate::apache::directive::Directive<$crate::front::config::Config>] =
            &[$($crate::apache::directive::Directive {
                name: $name,
                arguments: $arguments,
                context: $crate::apache::directive::Context::$context,
                default: $default,
                help: $help,
                set: $set,
            }),*];
    };
}
pub(crate) use directives;

pub(crate) const DIRECTIVES: [&[Directive<Config>]; 5] = [
    handshake::DIRECTIVES,
    limits::DIRECTIVES,
    compression::DIRECTIVES,
    server::DIRECTIVES,
    super::authorize::DIRECTIVES,
];

merged! {
    /// What the directives of a section say; `None` where they say nothing.
    pub struct Config {
        /// `WebSocketHandler`; `Off` is `Some(None)`.
        pub(super) handler: Option<Option<Chosen>>,
        parts: Parts,
        protocols: Option<Protocols>,
        max_message_size: Limit<usize>,
        origin_check: Option<OriginRule>,
        publish_access: Option<PublishAccess>,
        trusted_origins: Option<Vec<Trusted>>,
        engine_threads: Option<usize>,
        lateness: Lateness,
        memory: Option<Memory>,
        /// Where to, and whether with queries.
        session_log: Option<(String, bool)>,
        drain_timeout: Limit<Duration>,
        stop_code: Option<u16>,
        h2_streams: Option<usize>,
        tls_handoff: Option<bool>,
        /// In this and those below, `Off` is `Some(None)`.
        ping: Limit<Option<Ping>>,
        idle_timeout: Limit<Option<Duration>>,
        message_timeout: Limit<Option<MessageTimeout>>,
        close_timeout: Limit<Duration>,
        send_buffer: Limit<usize>,
        compression: Option<bool>,
        compression_level: Option<u8>,
        /// Of the server, and of clients.
        compression_window: Option<(u8, u8)>,
        compression_takeover: Option<Takeover>,
        compression_min_size: Option<u32>,
        reserved_close_codes: Option<bool>,
        max_connections: Bounds,
        max_connections_per_client: Bounds,
        /// Where the directive stands that is being read.
        pub(crate) place: DirectivePlace,
    }
}

impl Section for Config {
    fn enter(&mut self, place: DirectivePlace) {
        self.place = place;
    }
}

impl Config {
    pub(crate) fn handler(&self) -> Option<&Chosen> {
        self.handler.as_ref()?.as_ref()
    }

    /// What is said to a handler, in its own type.
    pub(crate) fn of<T: Merge>(&self) -> Cow<'_, T> {
        self.parts.of()
    }

    /// Says something to a handler, in its own type.
    pub(crate) fn change<T: Merge>(&mut self, change: impl FnOnce(&mut T)) {
        self.parts.change(change);
    }

    /// What the opening handshake is measured against.
    pub(crate) fn policy(&self) -> Policy {
        let own = || self.handler().map(|chosen| chosen.front.protocols()).unwrap_or_default();
        Policy {
            protocols: self.protocols.clone().unwrap_or_else(own),
            origin: self.origins(),
            compression: self.wish(),
        }
    }
}
