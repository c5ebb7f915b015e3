//! A session whose bytes the engine does not read: its handler passes the stream on to somebody who knows WebSockets. The
//! engine keeps account of it as of every other: its number, its places, requests to close it, its line in the session log.

use super::SessionSpec;
use super::handle::ConnectionHandle;
use super::quota::Place;
use super::summary::{End, Summary, Traffic};
use super::thread::Registered;
use crate::wire::CloseFrame;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

/// One open session.
pub struct RawStream {
    registered: Registered,
    spec: Box<SessionSpec>,
    since: Instant,
    /// Given back when the session is dropped.
    _places: Vec<Place>,
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
        RawStream { registered, spec: Box::new(spec), since: Instant::now(), _places: places }
    }

    /// The session's number.
    pub fn id(&self) -> u64 {
        self.registered.handle.id
    }

    /// How others on this thread reach the connection.
    pub fn handle(&self) -> &Rc<ConnectionHandle> {
        &self.registered.handle
    }

    /// Waits until the session is to be closed with this frame.
    pub async fn close_asked(&self) -> CloseFrame {
        poll_fn(|cx| {
            self.registered.handle.register(cx);
            self.registered.handle.take_close().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// What there is to say about it now that it has ended.
    pub fn finish(self, ending: RawSummary) -> Summary {
        let RawSummary { end, received, sent } = ending;
        Summary { spec: self.spec, received, sent, end, open: self.since.elapsed() }
    }
}
