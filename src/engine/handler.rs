//! What a handler is to the engine: it accepts or rejects a session before the 101, and the session that it accepts with is run
//! after it, as straight-line code over a [`Conn`] or a [`RawStream`].

use super::health::heartbeat::HandlerNumber;
use super::metrics::EngineArea;
use super::raw::{RawStream, RawSummary};
use super::revocation::Directory;
use super::{BackendStream, Conn, SessionSource, SessionSpec};
use crate::wire::CloseFrame;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A future that stays on its thread.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A session that a handler takes.
pub struct Accepted {
    /// What the client is told.
    pub response: Response,
    /// What runs after that.
    pub session: HandlerSession,
    /// Descriptors that the session has, or will open, beside its own: they count where descriptors are short.
    pub descriptors: u32,
    /// Whose it is, where somebody has been asked for that only now.
    pub user: Option<String>,
    /// How long it may last at most, likewise.
    pub expires: Option<Duration>,
}

impl Accepted {
    /// A session, with this response.
    pub fn new(response: Response, session: HandlerSession) -> Accepted {
        Accepted { response, session, descriptors: 0, user: None, expires: None }
    }

    /// A session of messages, with a [`Response::Standard`] that has nothing to add.
    pub fn messages(session: impl MessageSession + 'static) -> Accepted {
        Accepted::new(Response::default(), HandlerSession::Messages(Box::new(session)))
    }
}

/// The answer to the opening handshake of a session that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// httpd sends what it has negotiated, and these header lines, by name and value.
    Standard(Vec<(String, String)>),
    /// httpd sends a 101 whose header lines are these.
    Custom(Vec<(String, String)>),
    /// httpd says nothing to the client: the handler does, or nobody.
    None,
}

impl Default for Response {
    fn default() -> Response {
        Response::Standard(Vec::new())
    }
}

impl Response {
    /// The subprotocol that it names, where httpd has `negotiated` this one.
    pub fn protocol(&self, negotiated: Option<String>) -> Option<String> {
        match self {
            Response::Standard(_) => negotiated,
            Response::Custom(headers) => {
                let protocol = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
                protocol.map(|(_, value)| value.clone())
            }
            Response::None => None,
        }
    }
}

/// A session, before it runs: on whichever thread has room for it.
pub enum HandlerSession {
    /// The engine speaks with the client.
    Messages(Box<dyn MessageSession>),
    /// Somebody else does, on the client's stream.
    Stream(Box<dyn StreamSession>),
}

/// A session of messages.
pub trait MessageSession: Send {
    /// From after the 101 to the end; yields the frame to close with, should the session still be open.
    ///
    /// Only while it waits in [`Conn::recv`] or [`Conn::send`] are Pings sent and answered, and is it seen that the client
    /// or the engine wants to close: who waits for something else does so beside `recv` (`tokio::select!`).
    ///
    /// A panic in it closes the session with 1011 and is logged.
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame>;

    /// It looks at what others want it to change: it waits in [`Conn::receive`].
    fn takes_changes(&self) -> bool {
        false
    }
}

/// A session of bytes.
pub trait StreamSession: Send {
    /// From after the 101 to the end.
    ///
    /// A panic in it ends the session and is logged.
    fn run(self: Box<Self>, streams: Streams, raw: &RawStream) -> LocalBoxFuture<'_, RawSummary>;
}

/// What a session of bytes has.
pub struct Streams {
    /// The client's stream.
    pub client: SessionSource,
    /// What was read of it already.
    pub early: Vec<u8>,
    /// The server that httpd has proxied the session to.
    pub backend: Option<Box<BackendStream>>,
}

/// What becomes of a handshake that leads to no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is answered with a status.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is answered with 503: whom the handler would have to ask is not asked now. That was said in the log already.
    #[error("{0}")]
    Busy(String),
    /// It is answered with what somebody else has said.
    #[error("{0}")]
    Answered(Box<ForeignRefusal>),
    /// It is none of this handler's: whatever else httpd has there answers.
    #[error("the handler has nothing there")]
    Declined,
    /// The connection ends without an answer.
    #[error("the handler dropped the connection")]
    Dropped,
}

/// Somebody else's no, which goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{from} has answered with {status}")]
pub struct ForeignRefusal {
    /// Whoever it was.
    pub from: String,
    /// The HTTP status.
    pub status: u16,
    /// The header lines, by name and value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
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
    /// How sessions of all handlers are found by their names. Called once, before everything else.
    fn connect(&self, _directory: &Arc<Directory>) {}

    /// Before the 101 of a session. Runs on an engine thread, not always the session's; the client waits, and gives up after
    /// some seconds.
    fn accept<'a>(&'a self, spec: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>>;

    /// Something that httpd asks of the handler and that belongs to no session, in a form of the handler's own, and what is
    /// given with it. Runs on an engine thread.
    fn call(&self, _request: Vec<u8>, _payload: Bytes) -> LocalBoxFuture<'_, Result<Vec<u8>, Refused>> {
        Box::pin(async { Err(Refused { status: 500, reason: "the handler cannot be called".into() }) })
    }

    /// The engine ends, and all sessions have ended: what there is to be said to others, and what sessions have left behind
    /// outside of the engine, is to end within `limit`. `None`: nothing. Runs on the engine's main thread.
    fn end(&self, _limit: Duration) -> Option<LocalBoxFuture<'_, ()>> {
        None
    }

    /// Says there what there is of the handler as a whole now.
    fn measure(&self, _gauges: EngineArea) {}

    /// What the configuration says to the handler as a whole, in a form of the handler's own: once before everything else,
    /// and again when it was read anew. Called on the engine's main thread, in its runtime.
    fn configure(&self, _settings: &[u8]) {}
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
