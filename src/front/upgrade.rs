//! The content handler: a WebSocket's opening handshake, and the handoff of its socket.

use super::switching::Head;
use super::{h2, once, refusal, session_logs, tls_handoff as encryption};
use crate::apache::connection::Connection;
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::suspended::Suspended;
use crate::apache::{HookResult, Verdict};
use crate::engine::handoff::{Granted, HandoffError, Link};
use crate::engine::{Response, SessionSpec};
use crate::front::handler::{Hold, Needs, Prepared, Registration};
use crate::front::once::OfEngine;
use crate::front::relay::mux::{MuxSocket, PendingStream};
use crate::front::relay::{self, Relayed, Session, Way};
use crate::front::{WebSocket, child};
use crate::wire::handshake::{Accept, Offer, Policy, Refusal, negotiate};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

const SWITCHING_PROTOCOLS: u16 = 101;
const NOT_IMPLEMENTED: u16 = 501;
const INTERNAL_SERVER_ERROR: u16 = 500;
const SERVICE_UNAVAILABLE: u16 = 503;

/// Answers a request if it is a WebSocket's and a handler is configured for it; or if it is one of these handlers' own.
///
/// # Errors
/// The status of the refusal.
pub(crate) fn handle(request: &mut Request, all: &[Registration]) -> HookResult {
    let config = request.config::<WebSocket>();
    let Some(chosen) = config.handler().cloned() else { return without_handler(request, all) };
    let front = chosen.front;
    let mut accept = match front.negotiate(request) {
        Ok(accept) => accept,
        Err(refusal) => {
            let verdict = refusal::answer(request, &refusal)?;
            // Not an upgrade: one address may serve subscribers and publishers.
            return if verdict == Verdict::Declined { answer_ordinary(request, all) } else { Ok(verdict) };
        }
    };
    let custody = custody(request, front.needs())?;
    let Prepared { settings, patience, hold } = front.prepare(request, &chosen.args, accept.as_mut())?;
    if let Some(accept) = &accept {
        tell_of_protocols(request, accept);
    }
    let config = request.config::<WebSocket>();
    let client = request.client_address();
    let compression = accept.as_ref().and_then(|accept| accept.compression.as_ref());
    let spec = SessionSpec {
        handler: chosen.spec(settings),
        protocol: accept.as_ref().and_then(|accept| accept.protocol.clone()),
        limits: if compression.is_some() { config.limits_of_compressed() } else { config.limits() },
        compression: compression.map(|agreed| config.compression(agreed.parameters)),
        reserved_close_codes: config.reserved_close_codes(),
        quotas: config.quotas(&request.server().name(), &client),
        client: client.into(),
        user: request.user().map(Cow::into_owned),
        server: request.server_name().into(),
        uri: request.unparsed_uri().into(),
        log: session_logs::spec(request.server()),
    };
    let terms = Terms { custody, needs: front.needs(), patience, drain_timeout: config.drain_timeout(), hold };
    hand_over(request, accept.as_ref(), &spec, terms)
}

/// An ordinary request, which may be one of these handlers' own.
fn answer_ordinary(request: &mut Request, all: &[Registration]) -> HookResult {
    all.iter().find_map(|known| known.front.answer(request)).unwrap_or(Ok(Verdict::Declined))
}

/// No handler is configured here. Where a configuration of the older mod_websocket has forgotten it, a handshake is told.
fn without_handler(request: &mut Request, all: &[Registration]) -> HookResult {
    if request.handler_name() != "websocket-handler" {
        return answer_ordinary(request, all);
    }
    match consider(request) {
        Err(refusal) => refusal::answer(request, &refusal),
        Ok(_) => {
            log::request(
                Level::Error,
                request,
                "WS0012: SetHandler websocket-handler needs a WebSocketHandler beside it",
            );
            Err(INTERNAL_SERVER_ERROR)
        }
    }
}

/// A client wants subprotocols, and gets none of them.
fn tell_of_protocols(request: &Request, accept: &Accept) {
    /// Of the names that are told, bytes.
    const TOLD: usize = 100;
    if accept.protocol.is_some() || accept.offered_protocols.is_empty() {
        return;
    }
    let mut offered = accept.offered_protocols.join(", ");
    if offered.len() > TOLD {
        // Tokens are ASCII.
        offered.truncate(TOLD);
        offered.push_str("...");
    }
    let text = format!("WS0050: offered {offered}; none of them is in WebSocketProtocols here");
    log::request(Level::Info, request, &text);
}

/// The way in which a connection's bytes get from here to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Custody {
    /// The engine gets the socket itself.
    Socket,
    /// The engine gets the socket itself, and goes on with the TLS on it.
    Encrypted,
    /// A relay of the child's relay thread.
    Suspended,
    /// A relay on this thread.
    Blocking,
}

/// The way that a request's connection goes, and its status where there is none.
fn custody(request: &Request, needs: Needs) -> Result<Custody, u16> {
    let connection = request.connection();
    if connection.is_secondary() {
        if connection.input_descriptor().is_none() {
            log::request(Level::Error, request, "WS0004: a WebSocket over HTTP/2 needs httpd 2.4.58 or later");
            return Err(NOT_IMPLEMENTED);
        }
        h2::admit(request)?;
        return Ok(Custody::Blocking);
    }
    Ok(match connection.is_tls() {
        false => Custody::Socket,
        true if needs == Needs::Stream && encryption::can_be_handed_over(request) => Custody::Encrypted,
        true if can_suspend(request) => Custody::Suspended,
        true => Custody::Blocking,
    })
}

/// True when the MPM goes on without this request, and it may be kept.
fn can_suspend(request: &Request) -> bool {
    // ap_internal_redirect takes SUSPENDED for an error.
    child::relay().is_some() && !request.is_redirected()
}

/// Reads the opening handshake out of a request.
fn consider(request: &Request) -> Result<Accept, Refusal> {
    with_offer(request, negotiate)
}

/// True when a request asks for a WebSocket, as it should or not.
pub fn is_handshake(request: &Request) -> bool {
    !consider(request).is_err_and(|refusal| refusal.status().is_none())
}

/// Lets a request's handshake be judged by the policy that holds here.
///
/// # Errors
/// What `judge` says.
pub fn with_offer<T>(
    request: &Request,
    judge: impl FnOnce(&Offer<'_>, &Policy) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let headers: Vec<(Cow<'_, str>, Cow<'_, str>)> = request.headers_in().iter().collect();
    let find = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
    let has_body =
        find("Transfer-Encoding").is_some() || find("Content-Length").is_some_and(|length| length.trim() != "0");
    let offer = Offer {
        method: &request.method(),
        http_version: request.http_version(),
        headers: &headers,
        scheme: &request.scheme(),
        host: find("Host"),
        has_body,
    };
    judge(&offer, &request.config::<WebSocket>().policy())
}

thread_local! {
    /// What a handler on this thread has just suspended, until the MPM lets go of it.
    static SUSPENDED: RefCell<Option<(Suspended, Relayed)>> = const { RefCell::new(None) };
}

/// The MPM lets go of a connection: if it is the one that was suspended, it is the relay thread's now.
pub fn let_go(connection: &Connection, suspended: bool) {
    let pending = SUSPENDED.take().filter(|(request, _)| request.is(connection) && suspended);
    if let (Some((request, relayed)), Some(relay)) = (pending, child::relay()) {
        relay.adopt(request, relayed);
    }
}

/// What is known of a session beside what the engine is told.
struct Terms {
    custody: Custody,
    needs: Needs,
    patience: Duration,
    drain_timeout: Duration,
    hold: Option<Hold>,
}

/// Asks the engine, sends the 101, and gives the byte stream away.
fn hand_over(request: &mut Request, accept: Option<&Accept>, spec: &SessionSpec, terms: Terms) -> HookResult {
    let Terms { custody, needs, patience, drain_timeout, hold } = terms;
    // Nothing should be left of an earlier request; if something was, it would be taken for this one's.
    SUSPENDED.take();
    let door = child::door().ok_or(SERVICE_UNAVAILABLE)?;
    let (mut link, Granted { ticket, response, thread }) = match door.offer_within(spec, patience) {
        Ok(offered) => offered,
        Err(HandoffError::Declined) => return Ok(Verdict::Declined),
        Err(HandoffError::Dropped) => {
            log::request(Level::Info, request, "WS0024: dropped by the handler");
            request.connection().abandon();
            return Ok(Verdict::Answered);
        }
        Err(why) => return Err(no_session(request, &why)),
    };
    let session = Session { ticket, drain_timeout, close_timeout: spec.limits.close_timeout };
    let by_mux = custody == Custody::Suspended && needs == Needs::Stream;
    let bytes = match child::relay().filter(|_| by_mux) {
        Some(relay) => relay.mux(thread, &mut link).map(Bytes::Mux).map_err(io::Error::other),
        None if custody == Custody::Socket => Ok(Bytes::Socket),
        None if custody == Custody::Encrypted => Ok(Bytes::Encrypted),
        None => pair().map(Bytes::Pair),
    };
    let messages = hold.is_some().then(pair).transpose();
    let ways = bytes.and_then(|bytes| Ok(Ways { bytes, messages: messages? })).map_err(|why| {
        log::request(Level::Error, request, &format!("WS0011: session {ticket}: no way to the engine: {why}"));
        SERVICE_UNAVAILABLE
    })?;

    // Before the 101, after which a client may send as fast as it can.
    let early = match &ways.bytes {
        Bytes::Socket => request.connection().take_input(encryption::MOST_EARLY),
        _ => Ok(Vec::new()),
    };
    match &response {
        _ if early.is_err() => {}
        Response::Standard(headers) => Head::new(request, accept, headers).send(request),
        Response::Custom(headers) => Head::new(request, None, headers).send(request),
        Response::None => request.set_status(SWITCHING_PROTOCOLS),
    }

    let connection = request.connection();
    if let Err(lost) = give(&mut link, ticket, connection, &ways, early) {
        if lost.tell(request, ticket) && link.abandon(ticket).is_ok() {
            door.check_in(link);
        }
        connection.abandon();
        return Ok(Verdict::Answered);
    }
    log::request(Level::Debug, request, &format!("WS0008: session {ticket} is the engine's, by {custody:?}"));
    door.check_in(link);
    let (engine, messages) = ways.into_ours(ticket);
    if engine.is_none() && hold.is_none() {
        // There is no HTTP on this connection any more, and httpd has its descriptor only to close it.
        connection.abandon();
        return Ok(Verdict::Answered);
    }
    if engine.is_some() {
        connection.make_raw();
    }
    // Else the end of the request would look for a body, and wait for it.
    connection.close_after();
    request.bypass_http();
    let hold = hold.zip(messages).map(|(hold, ours)| hold(ticket, ours));
    keep(request, custody, Relayed { engine, session, hold })
}

/// Keeps the request for as long as it is needed: suspended, or on this thread.
fn keep(request: &mut Request, custody: Custody, relayed: Relayed) -> HookResult {
    let suspends = match custody {
        Custody::Suspended => true,
        Custody::Socket | Custody::Encrypted => can_suspend(request),
        Custody::Blocking => false,
    };
    if suspends {
        SUSPENDED.set(Some((Suspended::new(request), relayed)));
        return Ok(Verdict::Suspended);
    }
    relay::blocking::run(request, relayed);
    if custody == Custody::Socket {
        request.connection().abandon();
    }
    Ok(Verdict::Answered)
}

/// The engine has refused a session, or does not answer: the status for the client.
fn no_session(request: &Request, why: &HandoffError) -> u16 {
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
struct Ways {
    bytes: Bytes,
    /// The messages of who holds the request; the first end is ours.
    messages: Option<(UnixStream, UnixStream)>,
}

/// The client's bytes.
enum Bytes {
    /// They do not come here.
    Socket,
    /// Nor do these; but the keys go from here.
    Encrypted,
    /// Of a pair, the first end is ours.
    Pair((UnixStream, UnixStream)),
    Mux(Arc<MuxSocket>),
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

impl Ways {
    /// Our ends. The others are closed here: the engine has its own descriptors of them, and must be the only one.
    fn into_ours(self, ticket: u64) -> (Option<Way>, Option<UnixStream>) {
        let bytes = match self.bytes {
            Bytes::Socket | Bytes::Encrypted => None,
            Bytes::Pair((ours, _)) => Some(Way::Pair(ours)),
            Bytes::Mux(wire) => child::relay().map(|relay| Way::Mux(PendingStream::new(relay, wire, ticket))),
        };
        (bytes, self.messages.map(|(ours, _)| ours))
    }
}

/// Who was gone when a session was to be handed over.
enum Lost {
    Engine(io::Error),
    Client(io::Error),
}

impl Lost {
    /// Writes it down; true when there is still an engine to be told.
    fn tell(&self, request: &Request, ticket: u64) -> bool {
        match self {
            Lost::Engine(why) => {
                let text = format!("WS0009: session {ticket}: the engine is gone: {why}");
                once::tell_of_engine(OfEngine::LostSession, request, &text);
            }
            Lost::Client(why) => {
                let text = format!("WS0010: session {ticket}: the client is gone: {why}");
                log::request(Level::Debug, request, &text);
            }
        }
        matches!(self, Lost::Client(_))
    }
}

/// What a client has sent behind its handshake.
type Early = io::Result<Vec<u8>>;

/// Gives the engine its end: the one of a relay, or the client's socket with what httpd has read from it; and the end of
/// the holder's messages.
fn give(link: &mut Link, ticket: u64, connection: &Connection, ways: &Ways, early: Early) -> Result<(), Lost> {
    let early = early.map_err(Lost::Client)?;
    if connection.is_aborted() {
        return Err(Lost::Client(io::ErrorKind::ConnectionAborted.into()));
    }
    let messages = ways.messages.as_ref().map(|(_, theirs)| theirs.as_fd());
    match &ways.bytes {
        Bytes::Mux(wire) => link.carry(ticket, wire.number).map_err(Lost::Engine),
        Bytes::Pair((_, theirs)) => link.give(ticket, Vec::new(), theirs.as_fd(), None, messages).map_err(Lost::Engine),
        Bytes::Socket => {
            let socket = connection.socket().map_err(Lost::Client)?;
            link.give(ticket, early, socket, None, messages).map_err(Lost::Engine)
        }
        Bytes::Encrypted => {
            let (early, keys) = encryption::take(connection).map_err(Lost::Client)?;
            let socket = connection.socket().map_err(Lost::Client)?;
            link.give(ticket, early, socket, Some(keys), messages).map_err(Lost::Engine)
        }
    }
}
