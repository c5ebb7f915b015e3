//! What a handler is to the engine: straight-line code over a [`Conn`].

use super::health::heartbeat::HandlerNumber;
use super::raw::{Ending, Raw};
use super::{Conn, SessionSpec};
use crate::wire::CloseFrame;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A session at work; it yields the frame to close with, should the session still be open.
pub type Running<'a> = Pin<Box<dyn Future<Output = CloseFrame> + 'a>>;

/// What comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a handler has ready for a session before its 101.
#[derive(Debug, Default)]
pub struct Welcome {
    /// Header lines for the 101, by name and value.
    pub headers: Vec<(String, String)>,
    /// What [`Conn::take_link`] finds, where the session does not bring a link itself: a connection that was made for it.
    pub link: Option<OwnedFd>,
    /// Who sends the 101.
    pub reply: Reply,
    /// Descriptors that the session will open beside its own and the link: they count where descriptors are short.
    pub descriptors: u32,
}

/// Who sends a session's 101.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// httpd: what it has negotiated, and the handler's header lines.
    #[default]
    Negotiated,
    /// httpd: the handler's header lines are all of it.
    Dictated,
    /// The handler, or nobody: httpd says nothing to the client.
    Silent,
}

/// What a session is welcomed with; or what is done in the place of that.
pub type Greeting<'a> = Later<'a, Result<Welcome, Unwelcome>>;

/// What becomes of a handshake that leads to no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    /// It is answered with a status.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is answered with 503: whom the handler would have to ask is not asked now. That was said in the log already.
    #[error("{0}")]
    Later(String),
    /// It is none of this handler's: whatever else httpd has there answers.
    #[error("the handler has nothing there")]
    Declined,
    /// The connection ends without an answer.
    #[error("the handler dropped the connection")]
    Dropped,
}

/// A handler's no: what becomes the answer to a request of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// For the log.
    pub reason: String,
}

/// Runs sessions of one kind. One handler serves all its sessions, on all threads.
pub trait Handler: Send + Sync {
    /// One session, from after the 101 to its end. The future stays on its thread.
    ///
    /// Only while it waits in [`Conn::recv`] or [`Conn::send`] are Pings sent and answered, and is it seen that the client
    /// or the engine wants to close: who waits for something else does so beside `recv` (`tokio::select!`).
    ///
    /// A panic in it closes the session with 1011 and is logged.
    fn run<'a>(&'a self, conn: &'a mut Conn) -> Running<'a>;

    /// What runs the sessions instead of [`Handler::run`], where it is their bytes that the handler wants.
    fn raw(&self) -> Option<&dyn RawHandler> {
        None
    }

    /// Before the 101 of a session. `None`: it is welcome, and there is nothing to be said. Runs on an engine thread, not
    /// always the session's; the client waits, and gives up after some seconds. What it notes in the settings is there when
    /// the session runs.
    fn greet<'a>(&'a self, _spec: &'a mut SessionSpec) -> Option<Greeting<'a>> {
        None
    }

    /// Something that httpd asks of the handler and that belongs to no session, in a form of the handler's own. Runs on
    /// an engine thread.
    fn call(&self, _request: Vec<u8>) -> Later<'_, Result<Vec<u8>, Refused>> {
        Box::pin(async { Err(Refused { status: 500, reason: "the handler cannot be called".into() }) })
    }

    /// The engine ends, and all sessions have ended: what there is to be said to others, and what sessions have left behind
    /// outside of the engine, is to end within `limit`. `None`: nothing. Runs on the engine's main thread.
    fn end(&self, _limit: Duration) -> Option<Later<'_, ()>> {
        None
    }

    /// What the configuration says to the handler as a whole, in a form of the handler's own: once before everything else,
    /// and again when it was read anew. Called on the engine's main thread, in its runtime.
    fn configure(&self, _settings: &[u8]) {}
}

/// Runs sessions by their bytes.
pub trait RawHandler {
    /// One session, from after the 101 to its end. The future stays on its thread.
    ///
    /// A panic in it ends the session and is logged.
    fn run<'a>(&'a self, raw: &'a mut Raw) -> Later<'a, Ending>;
}

/// The handlers of an engine, by name.
#[derive(Default)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn Handler>>);

impl Registry {
    /// Adds one under the name that `WebSocketHandler` uses.
    pub fn with(mut self, name: &'static str, handler: impl Handler + 'static) -> Registry {
        self.0.insert(name, Arc::new(handler));
        self
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Handler>> {
        self.0.values()
    }

    /// Their names, in the order of their numbers.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    /// The number of the handler of that name, from 1; 0 for none.
    pub fn number(&self, name: &str) -> HandlerNumber {
        self.0.keys().position(|known| *known == name).map_or(0, |place| place as HandlerNumber + 1)
    }

    /// The handler of that name.
    pub fn find(&self, name: &str) -> Option<Arc<dyn Handler>> {
        self.0.get(name).cloned()
    }
}
