//! The way of a session's bytes to the engine: which one it is, the engine's yes or no, and the moment between the two at which
//! the 101 is sent.

use super::handler::{Hold, Needs, Undo};
use super::once::{self, OfEngine};
use super::relay::mux::{MuxSocket, PendingStream};
use super::relay::{self, EngineEnd, Parked, RelaySession};
use super::response::Head;
use super::{authorize, child, h2, metrics, tls_handoff};
use crate::apache::connection::Connection;
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::{NOT_IMPLEMENTED, SERVICE_UNAVAILABLE, SWITCHING_PROTOCOLS};
use crate::apache::suspended::Suspended;
use crate::apache::{HookResult, HookStatus};
use crate::engine::handoff::{Granted, HandoffError, Link};
use crate::engine::metrics::Transport;
use crate::engine::{Response, SessionSpec};
use crate::wire::handshake::Accept;
use std::cell::RefCell;
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// The way in which a connection's bytes get from here to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handover {
    Socket,
    /// The engine gets the socket itself, and goes on with the TLS on it.
    TlsSocket,
    SuspendedRelay,
    BlockingRelay,
}

impl Handover {
    pub(super) fn transport(self) -> Transport {
        match self {
            Handover::Socket => Transport::Socket,
            Handover::TlsSocket => Transport::Tls,
            Handover::SuspendedRelay => Transport::Mux,
            Handover::BlockingRelay => Transport::Blocking,
        }
    }
}

pub(super) fn choose(request: &Request, needs: Needs) -> Result<Handover, u16> {
    let connection = request.connection();
    if connection.is_secondary() {
        if connection.input_descriptor().is_none() {
            log::request(Level::Error, request, "WS0004: a WebSocket over HTTP/2 needs httpd 2.4.58 or later");
            return Err(NOT_IMPLEMENTED);
        }
        h2::admit(request)?;
        return Ok(Handover::BlockingRelay);
    }
    Ok(match connection.is_tls() {
        false => Handover::Socket,
        true if needs == Needs::Stream && tls_handoff::can_be_handed_over(request) => Handover::TlsSocket,
        true if can_suspend(request) => Handover::SuspendedRelay,
        true => Handover::BlockingRelay,
    })
}

/// True when the MPM goes on without this request, and it may be kept.
pub(crate) fn can_suspend(request: &Request) -> bool {
    // ap_internal_redirect takes SUSPENDED for an error.
    child::relay().is_some() && !request.is_redirected()
}

thread_local! {
    /// What a handler on this thread has just suspended, until the MPM lets go of it.
    static SUSPENDED: RefCell<Option<(Suspended, Parked)>> = const { RefCell::new(None) };
}

/// The handler of this request is about to answer [`HookStatus::Suspended`].
pub(crate) fn suspend(request: &mut Request, parked: Parked) {
    SUSPENDED.set(Some((Suspended::new(request), parked)));
}

/// The MPM lets go of a connection: if it is the one that was suspended, it is the relay thread's now.
pub(crate) fn suspend_connection(connection: &Connection, suspended: bool) {
    let pending = SUSPENDED.take().filter(|(request, _)| request.is(connection) && suspended);
    if let (Some((request, parked)), Some(relay)) = (pending, child::relay()) {
        relay.adopt(request, parked);
    }
}

/// What is known of a session beside what the engine is told.
pub(super) struct Terms<'a> {
    pub(super) handover: Handover,
    pub(super) needs: Needs,
    pub(super) patience: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) hold: Option<Hold>,
    /// What the client has sent in its TLS and was read already.
    pub(super) early: Vec<u8>,
    /// What is to be done unless there is a session, in which case it is taken away.
    pub(super) undo: &'a mut Option<Undo>,
}

/// Asks the engine, sends the 101, and gives the byte stream away.
pub(super) fn hand_over(
    request: &mut Request,
    accept: Option<&Accept>,
    spec: &SessionSpec,
    terms: Terms<'_>,
) -> HookResult {
    let Terms { handover, needs, patience, drain_timeout, hold, early, undo } = terms;
    // Nothing should be left of an earlier request; if something was, it would be taken for this one's.
    SUSPENDED.take();
    let engine = child::engine_client().ok_or(SERVICE_UNAVAILABLE)?;
    let (mut link, Granted { id, response, thread }) = match engine.offer_within(spec, patience) {
        Ok(offered) => offered,
        Err(why) => return answer_for(request, why),
    };
    let session = RelaySession { id, drain_timeout, close_timeout: spec.limits.close_timeout };
    let by_mux = handover == Handover::SuspendedRelay && needs == Needs::Stream;
    let bytes = match child::relay().filter(|_| by_mux) {
        Some(relay) => relay.mux(thread, &mut link).map(Bytes::Mux).map_err(io::Error::other),
        None if handover == Handover::Socket => Ok(Bytes::Socket),
        None if handover == Handover::TlsSocket => Ok(Bytes::TlsSocket),
        None => pair().map(Bytes::Pair),
    };
    let messages = hold.is_some().then(pair).transpose();
    let streams = bytes.and_then(|bytes| Ok(Streams { bytes, messages: messages? })).map_err(|why| {
        log::request(Level::Error, request, &format!("WS0011: session {id}: no way to the engine: {why}"));
        SERVICE_UNAVAILABLE
    })?;

    // Before the 101, after which a client may send as fast as it can.
    let early = match &streams.bytes {
        Bytes::Socket => request.connection().take_input(tls_handoff::MOST_EARLY),
        _ => Ok(early),
    };
    match &response {
        _ if early.is_err() => {}
        Response::Standard(headers) => Head::new(request, accept, headers).send(request),
        Response::Custom(headers) => Head::new(request, None, headers).send(request),
        Response::None => request.set_status(SWITCHING_PROTOCOLS),
    }

    let connection = request.connection();
    if let Err(failure) = send(&mut link, id, connection, &streams, early) {
        if failure.tell(request, id) && link.abandon(id).is_ok() {
            engine.check_in(link);
        }
        connection.detach();
        return Ok(HookStatus::Ok);
    }
    *undo = None;
    metrics::note_opened(request);
    note_given(request, id, handover);
    engine.check_in(link);
    let (engine, messages) = streams.into_ours(id);
    if engine.is_none() && hold.is_none() {
        // There is no HTTP on this connection any more, and httpd has its descriptor only to close it.
        connection.detach();
        return Ok(HookStatus::Ok);
    }
    if engine.is_some() {
        connection.make_raw();
    }
    // Else the end of the request would look for a body, and wait for it.
    connection.close_after();
    request.bypass_http();
    let hold = hold.zip(messages).map(|(hold, ours)| hold(id, ours));
    park(request, handover, Parked { engine, session, hold })
}

/// A session has left this process.
pub(super) fn note_given(request: &Request, id: u64, handover: Handover) {
    log::request(Level::Debug, request, &format!("WS0008: session {id} is the engine's, by {handover:?}"));
}

pub(super) fn note_client_gone(request: &Request, session: &dyn Display, why: &dyn Display) {
    log::request(Level::Debug, request, &format!("WS0010: {session}the client is gone: {why}"));
}

/// What the client is told where the engine takes no session over.
pub(super) fn answer_for(request: &mut Request, why: HandoffError) -> HookResult {
    match why {
        HandoffError::Answered(answer) => authorize::ask::pass_on(request, *answer).into(),
        HandoffError::Declined => Ok(HookStatus::Declined),
        HandoffError::Dropped => {
            log::request(Level::Info, request, "WS0024: the handler dropped the connection");
            request.connection().detach();
            Ok(HookStatus::Ok)
        }
        why => Err(no_session(request, &why)),
    }
}

/// Keeps the request for as long as it is needed: suspended, or on this thread.
fn park(request: &mut Request, handover: Handover, parked: Parked) -> HookResult {
    let suspends = match handover {
        Handover::SuspendedRelay => true,
        Handover::Socket | Handover::TlsSocket => can_suspend(request),
        Handover::BlockingRelay => false,
    };
    if suspends {
        suspend(request, parked);
        return Ok(HookStatus::Suspended);
    }
    relay::blocking::run(request, parked);
    if handover == Handover::Socket {
        request.connection().detach();
    }
    Ok(HookStatus::Ok)
}

/// The engine has refused a session, or does not answer: the status for the client.
pub(crate) fn no_session(request: &Request, why: &HandoffError) -> u16 {
    let text = format!("WS0007: no session: {why}");
    let (status, level) = match why {
        HandoffError::Refused { status, by_quota: true, .. } => (*status, Some(Level::Info)),
        // Below, it is about the request.
        HandoffError::Refused { status: status @ 400..500, .. } => (*status, Some(Level::Info)),
        HandoffError::Refused { status, .. } => (*status, Some(Level::Error)),
        late if late.is_late() => (SERVICE_UNAVAILABLE, Some(Level::Debug)),
        _ => (SERVICE_UNAVAILABLE, None),
    };
    match level {
        Some(level) => log::request(level, request, &text),
        None => once::tell_of_engine(OfEngine::NoSession, request, &text),
    }
    if status == SERVICE_UNAVAILABLE {
        request.err_headers_out().set(request.pool(), "Retry-After", "5");
    }
    status
}

/// What goes between here and the engine for as long as the session lasts.
struct Streams {
    bytes: Bytes,
    /// The messages of who holds the request; the first end is ours.
    messages: Option<(UnixStream, UnixStream)>,
}

/// The client's bytes.
enum Bytes {
    /// They do not come here.
    Socket,
    /// Nor do these; but the keys go from here.
    TlsSocket,
    /// Of a pair, the first end is ours.
    Pair((UnixStream, UnixStream)),
    Mux(Arc<MuxSocket>),
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

impl Streams {
    /// Our ends. The others are closed here: the engine has its own descriptors of them, and must be the only one.
    fn into_ours(self, id: u64) -> (Option<EngineEnd>, Option<UnixStream>) {
        let bytes = match self.bytes {
            Bytes::Socket | Bytes::TlsSocket => None,
            Bytes::Pair((ours, _)) => Some(EngineEnd::Pair(ours)),
            Bytes::Mux(wire) => child::relay().map(|relay| EngineEnd::Mux(PendingStream::new(relay, wire, id))),
        };
        (bytes, self.messages.map(|(ours, _)| ours))
    }
}

/// Who was gone when a session was to be handed over.
enum HandoffFailure {
    Engine(io::Error),
    Client(io::Error),
}

impl HandoffFailure {
    /// Writes it down; true when there is still an engine to be told.
    fn tell(&self, request: &Request, id: u64) -> bool {
        match self {
            HandoffFailure::Engine(why) => {
                let text = format!("WS0009: session {id}: the engine is gone: {why}");
                once::tell_of_engine(OfEngine::LostSession, request, &text);
            }
            HandoffFailure::Client(why) => {
                note_client_gone(request, &format_args!("session {id}: "), why);
            }
        }
        matches!(self, HandoffFailure::Client(_))
    }
}

type Early = io::Result<Vec<u8>>;

/// Gives the engine its end: the one of a relay, or the client's socket with what httpd has read from it; and the end of
/// the holder's messages.
fn send(
    link: &mut Link,
    id: u64,
    connection: &Connection,
    streams: &Streams,
    early: Early,
) -> Result<(), HandoffFailure> {
    let early = early.map_err(HandoffFailure::Client)?;
    if connection.is_aborted() {
        return Err(HandoffFailure::Client(io::ErrorKind::ConnectionAborted.into()));
    }
    let messages = streams.messages.as_ref().map(|(_, theirs)| theirs.as_fd());
    match &streams.bytes {
        Bytes::Mux(wire) => link.carry(id, wire.number).map_err(HandoffFailure::Engine),
        Bytes::Pair((_, theirs)) => {
            link.give(id, Vec::new(), theirs.as_fd(), None, messages).map_err(HandoffFailure::Engine)
        }
        Bytes::Socket => {
            let socket = connection.socket().map_err(HandoffFailure::Client)?;
            link.give(id, early, socket, None, messages).map_err(HandoffFailure::Engine)
        }
        Bytes::TlsSocket => {
            let (rest, keys) = tls_handoff::take(connection).map_err(HandoffFailure::Client)?;
            let early = [early, rest].concat();
            let socket = connection.socket().map_err(HandoffFailure::Client)?;
            link.give(id, early, socket, Some(keys), messages).map_err(HandoffFailure::Engine)
        }
    }
}
