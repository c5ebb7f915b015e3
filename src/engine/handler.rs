//! What a handler is to the engine: straight-line code over a [`Conn`].

use super::Conn;
use crate::wire::CloseFrame;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

/// A session at work; it yields the frame to close with, should the session still be open.
pub type Running<'a> = Pin<Box<dyn Future<Output = CloseFrame> + 'a>>;

/// Runs sessions of one kind. One handler serves all its sessions, on all threads.
pub trait Handler: Send + Sync {
    /// One session, from after the 101 to its end. The future stays on its thread.
    ///
    /// Only while it waits in [`Conn::recv`] or [`Conn::send`] are Pings sent and answered, and is it seen that the client
    /// or the engine wants to close: who waits for something else does so beside `recv` (`tokio::select!`).
    ///
    /// A panic in it closes the session with 1011 and is logged.
    fn run<'a>(&'a self, conn: &'a mut Conn) -> Running<'a>;
}

/// The handlers of an engine, by name.
#[derive(Default)]
pub struct Registry(HashMap<&'static str, Arc<dyn Handler>>);

impl Registry {
    /// Adds one under the name that `WebSocketHandler` uses.
    pub fn with(mut self, name: &'static str, handler: impl Handler + 'static) -> Registry {
        self.0.insert(name, Arc::new(handler));
        self
    }

    /// The handler of that name.
    pub fn find(&self, name: &str) -> Option<Arc<dyn Handler>> {
        self.0.get(name).cloned()
    }
}
