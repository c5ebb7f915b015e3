//! A session whose bytes the engine does not read: its handler passes the stream on to somebody who knows WebSockets. The
//! engine keeps account of it as of every other: its number, its places, requests to close it, its line in the session log.

use super::conn::{End, Summary, Traffic};
use super::peer::Peer;
use super::quota::Place;
use super::thread::Entry;
use super::{Adoption, SessionSpec, Source};
use crate::wire::CloseFrame;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

/// One open session.
pub struct Raw {
    stream: Option<(OwnedFd, Vec<u8>)>,
    link: Option<OwnedFd>,
    entry: Entry,
    spec: Box<SessionSpec>,
    since: Instant,
    /// Given back when the session is dropped.
    _places: Vec<Place>,
}

/// How such a session ended, as its handler knows it.
#[derive(Debug)]
pub struct Ending {
    /// Why.
    pub end: End,
    /// From the client.
    pub received: Traffic,
    /// To the client.
    pub sent: Traffic,
}

impl Raw {
    /// Of what was handed over; a session without a socket of its own has no stream to take.
    pub fn new(adoption: Adoption, entry: Entry) -> Raw {
        let Adoption { socket, spec, early, places, link, .. } = adoption;
        let stream = match socket {
            Source::Socket(socket) => Some((socket, early)),
            Source::Tls(..) | Source::Trunk { .. } => None,
        };
        Raw { stream, link, entry, spec: Box::new(spec), since: Instant::now(), _places: places }
    }

    /// The session's number.
    pub fn id(&self) -> u64 {
        self.entry.peer.id
    }

    /// How others on this thread reach the connection.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.entry.peer
    }

    /// What is known of the session.
    pub fn spec(&self) -> &SessionSpec {
        &self.spec
    }

    /// The client's stream, and what was read of it already; once.
    pub fn take_stream(&mut self) -> Option<(OwnedFd, Vec<u8>)> {
        self.stream.take()
    }

    /// The connection that was made for the session; once.
    pub fn take_link(&mut self) -> Option<OwnedFd> {
        self.link.take()
    }

    /// Waits until the session is to be closed with this frame.
    pub async fn close_asked(&self) -> CloseFrame {
        poll_fn(|cx| {
            self.entry.peer.register(cx);
            self.entry.peer.take_close().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// What there is to say about it now that it has ended.
    pub fn finish(self, ending: Ending) -> Summary {
        let Ending { end, received, sent } = ending;
        Summary { spec: self.spec, received, sent, end, open: self.since.elapsed() }
    }
}
