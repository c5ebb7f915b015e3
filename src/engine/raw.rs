//! A session whose bytes the engine does not read: its handler passes the stream on to somebody who knows WebSockets. The
//! engine keeps account of it as of every other: its number, its places, requests to close it, its line in the session log.

use super::handle::ConnectionHandle;
use super::memory::Holding;
use super::quota::Place;
use super::revocation::clock;
use super::socket::Socket;
use super::summary::{End, Summary, Traffic};
use super::thread::Registered;
use super::{KeptSpec, SessionSource, SessionSpec};
use crate::wire::CloseFrame;
use log::error;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// One open session.
pub struct RawStream {
    registered: Registered,
    spec: KeptSpec,
    /// In microseconds of [`clock`].
    since: u64,
    /// Given back when the session is dropped.
    _places: Box<[Place]>,
}

/// How such a session ended, as its handler knows it.
#[derive(Debug)]
pub struct RawSummary {
    /// Why.
    pub end: End,
    /// From the client.
    pub received: Traffic,
    /// To the client.
    pub sent: Traffic,
}

impl RawStream {
    /// A session that begins.
    pub fn new(registered: Registered, spec: SessionSpec, places: Vec<Place>) -> RawStream {
        RawStream { registered, spec: KeptSpec::new(spec), since: clock(), _places: places.into() }
    }

    /// The session's number.
    pub fn id(&self) -> u64 {
        self.registered.handle.id
    }

    /// How others on this thread reach the connection.
    pub fn handle(&self) -> &Rc<ConnectionHandle> {
        &self.registered.handle
    }

    /// The client's socket, for a handler that passes it on. `None`: it does not come over a plain one, which was said in the log.
    pub fn plain_socket(&self, client: SessionSource) -> Option<OwnedFd> {
        match client {
            SessionSource::Socket(socket) => Some(socket),
            other => {
                error!("WS0148: session {}: {} needs a socket that it can pass on", self.id(), self.spec.handler.name);
                // Where it comes over a mux, somebody has to say that it is over.
                let _ = self.stream(other);
                None
            }
        }
    }

    /// The client's bytes.
    ///
    /// # Errors
    /// The socket cannot be watched, or its keys are of no use.
    pub(crate) fn stream(&self, client: SessionSource) -> io::Result<Socket> {
        self.registered.shared.socket(client, self.id())
    }

    /// What is known of the session.
    pub fn spec(&self) -> &KeptSpec {
        &self.spec
    }

    /// From now on the session is to close when for so long nothing moves.
    pub fn limit_idleness(&self, limit: Duration) {
        let Registered { shared, handle } = &self.registered;
        handle.liveness.limit_idleness(limit, shared.timer.now());
        shared.timer.look_at(handle, shared.timer.now() + 1);
    }

    /// Something moves.
    pub fn note_data(&self) {
        self.registered.handle.liveness.note_data(self.registered.shared.timer.now());
    }

    /// The session's socket holds something.
    pub(crate) fn hold(&self) -> Holding {
        self.registered.shared.hold(self.id(), self.spec.client())
    }

    /// It is not read for want of memory: it looks again with the next tick.
    pub fn pause(&self) {
        self.registered.shared.memory().make_room();
        self.registered.shared.timer.pause(self.handle());
    }

    /// Waits until the session is to be closed with this frame.
    pub async fn close_asked(&self) -> CloseFrame {
        poll_fn(|cx| self.poll_close_asked(cx)).await
    }

    /// As [`RawStream::close_asked`].
    pub fn poll_close_asked(&self, cx: &mut Context<'_>) -> Poll<CloseFrame> {
        self.registered.handle.register(cx);
        self.registered.handle.take_close().map_or(Poll::Pending, Poll::Ready)
    }

    /// What there is to say about it now that it has ended.
    pub(super) fn finish(self, ending: RawSummary) -> (Summary, Registered) {
        let RawSummary { end, received, sent } = ending;
        let open = Duration::from_micros(clock().saturating_sub(self.since));
        (Summary { spec: self.spec, received, sent, end, open }, self.registered)
    }
}
