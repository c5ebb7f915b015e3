//! mod_proxy's tunnels, taken over: mod_proxy finds the back end, asks it and sends the 101; then both connections go to the engine.
//!
//! A place in the engine is kept from before the back end is asked ([`reserve`]) to the beginning of the tunnel ([`take`]). Until
//! bytes of either connection are taken out of httpd's filters, everything can still be left to mod_proxy, which serves the socket then as it
//! always has; `LogLevel websocket:debug` says why.

use super::config::ProxyConfig;
use super::{ProxySettings, startup};
use crate::apache::connection::Connection;
use crate::apache::log::{self, Level};
use crate::apache::proxy::{NO_HALF_CLOSE, Tunnel};
use crate::apache::request::{Proxying, Request};
use crate::apache::{HookResult, HookStatus};
use crate::engine::handoff::{Granted, HandoffError, Link, PATIENCE, Side};
use crate::engine::handoff_server::GRANT_TIME;
use crate::engine::{HandlerSpec, SessionSpec};
use crate::front::once::{self, OfEngine};
use crate::front::relay::mux::{MuxSocket, PendingStream};
use crate::front::relay::thread::Relay;
use crate::front::relay::{EngineEnd, Parked, RelaySession};
use crate::front::{WebSocket, child, custody, metrics, others, tls_handoff, upgrade};
use crate::handlers::FRONTS;
use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Under this name the pool of a request has its [`Place`].
const PLACE: &CStr = c"mod_websocket proxied";
/// The schemes of URLs that mod_proxy_http serves.
const SCHEMES: [&str; 6] = ["ws:", "wss:", "http:", "https:", "balancer:", "unix:"];

/// A session of this request is expected.
struct Place {
    request: usize,
    state: Cell<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Over,
    Granted(Grant),
    /// The engine has both sockets.
    Taken,
    /// The engine has the back end's socket, and the client's bytes go through this child.
    Relayed(Parked),
}

/// What the engine keeps for it; given back when it is dropped.
struct Grant {
    link: Option<Link>,
    id: u64,
    thread: u32,
    since: Instant,
}

impl Drop for Grant {
    fn drop(&mut self) {
        let Some((mut link, engine)) = self.link.take().zip(child::engine_client()) else { return };
        if link.abandon(self.id).is_ok() {
            engine.check_in(link);
        }
    }
}

/// How the client's bytes get to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    TlsSocket,
    SuspendedRelay,
}

/// Asks the engine for a place, before mod_proxy's content handler, for a handshake that this is going to send to a back end.
///
/// # Errors
/// A quota is used up. Whatever else is the matter, mod_proxy serves the socket.
pub(crate) fn reserve(request: &mut Request) -> HookResult {
    let config = request.config::<WebSocket>();
    let is_meant = config.of::<ProxyConfig>().handoff() || others::is_routed(request);
    let is_wanted = is_meant && startup::is_possible(request.server());
    let is_ours = is_wanted && is_upgrade(request) && is_proxied(request);
    if !is_ours {
        return Ok(HookStatus::Declined);
    }
    match consider(request) {
        Ok(grant) => {
            let place = Place { request: request.number(), state: Cell::new(State::Granted(grant)) };
            request.pool().keep(PLACE, place);
        }
        Err(Unreserved::Refused(why)) => return Err(custody::no_session(request, &why)),
        Err(Unreserved::Left(why)) => leave(request, &why),
    }
    Ok(HookStatus::Declined)
}

/// Why there is no place.
enum Unreserved {
    /// A quota is used up.
    Refused(HandoffError),
    Left(Cow<'static, str>),
}

impl<T: Into<Cow<'static, str>>> From<T> for Unreserved {
    fn from(why: T) -> Unreserved {
        Unreserved::Left(why.into())
    }
}

fn leave(request: &Request, why: &str) {
    log::request(Level::Debug, request, &format!("WS0055: left to mod_proxy: {why}"));
}

/// It asks for a WebSocket, as far as mod_proxy looks at it.
fn is_upgrade(request: &Request) -> bool {
    let headers = request.headers_in();
    !headers.find(c"Upgrade").is_null()
        && headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("Upgrade") && value.trim().eq_ignore_ascii_case("websocket"))
}

/// mod_proxy_http is going to answer it. (What it is asked for by `SetHandler` it learns in its own content handler.)
fn is_proxied(request: &Request) -> bool {
    let target = match request.proxying() {
        Proxying::Reverse => request.filename(),
        Proxying::None => request.handler_name(),
        Proxying::Forward => return false,
    };
    let url = target.strip_prefix("proxy:").map(str::to_ascii_lowercase);
    url.is_some_and(|url| SCHEMES.iter().any(|scheme| url.starts_with(scheme)))
}

/// What keeps a request in mod_proxy, whatever comes of it.
fn obstacle(request: &Request) -> Option<&'static str> {
    if request.is_subrequest() || request.is_for_error() {
        return Some("httpd has made this request");
    }
    if request.http_version() < (1, 1) {
        return Some("it is of HTTP/1.0");
    }
    if request.method() != "GET" {
        return Some("its method is not GET");
    }
    let is_token = |value: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let headers = request.headers_in();
    let is_upgraded = headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("Connection") && is_token(&value));
    (!is_upgraded).then_some("it has no Connection: Upgrade")
}

fn consider(request: &Request) -> Result<Grant, Unreserved> {
    obstacle(request).map_or(Ok(()), Err)?;
    way(request)?;
    let engine = child::engine_client().ok_or("this child has no way to the engine")?;
    match engine.offer_within(&spec(request), PATIENCE) {
        Ok((link, Granted { id, thread, .. })) => Ok(Grant { link: Some(link), id, thread, since: Instant::now() }),
        Err(why @ HandoffError::Refused { by_quota: true, .. }) => Err(Unreserved::Refused(why)),
        Err(why) => Err(why.to_string())?,
    }
}

/// The way that the client's bytes will go.
fn way(request: &Request) -> Result<Way, Cow<'static, str>> {
    let connection = request.connection();
    if connection.is_secondary() {
        return Err("the client speaks HTTP/2".into());
    }
    if let Some(filter) = connection.unknown_filter() {
        return Err(format!("the filter {filter} sees the client's bytes").into());
    }
    if !connection.is_tls() {
        return Ok(Way::Socket);
    }
    if tls_handoff::can_be_taken(request.server(), connection) {
        return Ok(Way::TlsSocket);
    }
    if custody::can_suspend(request) {
        return Ok(Way::SuspendedRelay);
    }
    Err("the engine cannot go on with the client's TLS".into())
}

fn spec(request: &Request) -> SessionSpec {
    SessionSpec {
        handler: HandlerSpec { name: "proxy".into(), ..HandlerSpec::default() },
        ..upgrade::spec_of(request, None, FRONTS)
    }
}

fn place(request: &Request) -> Option<&Place> {
    // A request that httpd has made of another one has the same pool.
    request.pool().kept::<Place>(PLACE).filter(|place| place.request == request.number())
}

/// The engine keeps a place for a session of this request.
pub(crate) fn is_reserved(request: &Request) -> bool {
    place(request).is_some()
}

/// Takes over a tunnel that is about to begin.
pub(crate) fn take(request: &mut Request, back_end: &Connection) -> Tunnel {
    let Some(place) = place(request) else { return Tunnel::Left };
    let State::Granted(mut grant) = place.state.take() else { return Tunnel::Left };
    match Taking::prepare(request, back_end, &mut grant) {
        Ok(taking) => {
            place.state.set(taking.give(request, back_end, grant));
            Tunnel::Taken
        }
        Err(why) => {
            leave(request, &why);
            Tunnel::Left
        }
    }
}

/// mod_proxy is done with this request, and has given the back end's connection back.
pub(crate) fn end(request: &mut Request) -> Option<HookStatus> {
    match place(request)?.state.take() {
        State::Over | State::Granted(_) => None,
        State::Taken => {
            // httpd has the descriptor only to close it.
            request.connection().detach();
            None
        }
        State::Relayed(parked) => {
            // Not detached: event would close and free it.
            request.connection().make_raw();
            request.connection().close_after();
            request.bypass_http();
            custody::suspend(request, parked);
            Some(HookStatus::Suspended)
        }
    }
}

/// A takeover that can be: all that can be known before anything is read.
struct Taking {
    way: Way,
    /// Where the way is a relay.
    mux: Option<(&'static Relay, Arc<MuxSocket>)>,
    is_back_end_tls: bool,
    settings: Vec<u8>,
}

/// Who was gone when it was too late to leave it to mod_proxy.
enum Lost {
    Engine(io::Error),
    End(io::Error),
}

impl Taking {
    fn prepare(request: &Request, back_end: &Connection, grant: &mut Grant) -> Result<Taking, Cow<'static, str>> {
        /// Nearer than this to its end, a place may be given up while the connections are on their way to it.
        const MARGIN: Duration = Duration::from_secs(10);
        if grant.since.elapsed() + MARGIN > GRANT_TIME {
            return Err("the back end took too long to answer".into());
        }
        let link = grant.link.as_mut().filter(|link| !link.is_ended()).ok_or("the engine is gone")?;
        let client = request.connection();
        if client.is_aborted() || client.socket().is_err() || back_end.socket().is_err() {
            return Err("a connection is lost".into());
        }
        if let Some(filter) = back_end.unknown_filter() {
            return Err(format!("the filter {filter} sees the back end's bytes").into());
        }
        let is_back_end_tls = back_end.is_tls();
        if is_back_end_tls && !tls_handoff::can_be_taken(request.server(), back_end) {
            return Err("the engine cannot go on with the back end's TLS".into());
        }
        let settings = ProxySettings {
            backend: back_end_name(request),
            idle_timeout: idle_timeout(request, back_end),
            half_close: request.variable(NO_HALF_CLOSE).is_none(),
        };
        let settings = postcard::to_stdvec(&settings).map_err(|why| why.to_string())?;
        let way = way(request)?;
        let relay = child::relay().filter(|_| way == Way::SuspendedRelay);
        let mux = relay.map(|relay| relay.mux(grant.thread, link).map(|mux| (relay, mux))).transpose();
        let mux = mux.map_err(|why| why.to_string())?;
        Ok(Taking { way, mux, is_back_end_tls, settings })
    }

    /// From here on the connections are not httpd's any more, whatever happens.
    fn give(self, request: &Request, back_end: &Connection, mut grant: Grant) -> State {
        let (id, way) = (grant.id, self.way);
        let relay = self.mux.clone();
        match self.send(request, back_end, &mut grant) {
            Ok(()) => {
                let text = format!("WS0056: session {id} is the engine's, and so is its back end, by {way:?}");
                log::request(Level::Debug, request, &text);
                metrics::note_proxied(request, grant.since.elapsed());
            }
            Err(Lost::Engine(why)) => {
                // It is of no use any more.
                grant.link = None;
                let text = format!("WS0057: session {id}: the engine is gone, and the proxied socket lost: {why}");
                once::tell_of_engine(OfEngine::LostSession, request, &text);
                return State::Taken;
            }
            Err(Lost::End(why)) => {
                log::request(
                    Level::Debug,
                    request,
                    &format!("WS0058: session {id}: the client or its server is gone: {why}"),
                );
                return State::Taken;
            }
        }
        if let Some((engine, link)) = child::engine_client().zip(grant.link.take()) {
            engine.check_in(link);
        }
        let Some((relay, mux)) = relay else { return State::Taken };
        let config = request.config::<WebSocket>();
        let (drain_timeout, close_timeout) = (config.drain_timeout(), config.limits().close_timeout);
        let session = RelaySession { id, drain_timeout, close_timeout };
        let engine = Some(EngineEnd::Mux(PendingStream::new(relay, mux, id)));
        State::Relayed(Parked { engine, session, hold: None })
    }

    /// Gives the engine both connections, with what httpd has read of them and its keys.
    fn send(self, request: &Request, back_end: &Connection, grant: &mut Grant) -> Result<(), Lost> {
        let gone = || Lost::Engine(io::ErrorKind::NotConnected.into());
        let (id, link) = (grant.id, grant.link.as_mut().ok_or_else(gone)?);
        let back_end = side(back_end, self.is_back_end_tls).map_err(Lost::End)?;
        match self.mux {
            Some((_, mux)) => link.carry_proxied(id, mux.number, back_end, self.settings),
            None => {
                let client = side(request.connection(), self.way == Way::TlsSocket).map_err(Lost::End)?;
                link.give_proxied(id, client, back_end, self.settings)
            }
        }
        .map_err(Lost::Engine)
    }
}

fn side(connection: &Connection, is_tls: bool) -> io::Result<Side<'_>> {
    let (early, keys) = match is_tls {
        true => tls_handoff::take_to_the_end(connection).map(|(early, keys)| (early, Some(keys)))?,
        false => (connection.take_buffered(), None),
    };
    Ok(Side { socket: connection.socket()?, early, keys })
}

/// Whom the error log names.
fn back_end_name(request: &Request) -> String {
    let url = || request.filename().trim_start_matches("proxy:").split('?').next().unwrap_or_default().to_owned();
    request.variable(c"BALANCER_WORKER_NAME").map_or_else(url, Cow::into_owned)
}

/// mod_proxy's tunnels end when nothing moves for as long as the longer of both connections' timeouts. That is `Timeout` where nobody
/// has said another thing of the back end, and nobody meant it for WebSockets.
fn idle_timeout(request: &Request, back_end: &Connection) -> Option<Duration> {
    let (client, server) = request.connection().timeout().zip(back_end.timeout())?;
    (Some(server) != request.server().timeout()).then(|| client.max(server))
}
