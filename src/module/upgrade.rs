//! The content handler: a WebSocket's opening handshake, and the handoff of its socket.

use super::{WebSocket, lifecycle, session_logs};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::{HookResult, Verdict};
use crate::engine::handoff::HandoffError;
use crate::engine::{HandlerSpec, SessionSpec};
use crate::wire::handshake::{Accept, Offer, Refusal, negotiate};
use std::borrow::Cow;

const SWITCHING_PROTOCOLS: u16 = 101;
const NOT_IMPLEMENTED: u16 = 501;
const SERVICE_UNAVAILABLE: u16 = 503;

/// Answers a request if it is a WebSocket's and a handler is configured for it.
///
/// # Errors
/// The status of the refusal.
pub fn handle(request: &mut Request) -> HookResult {
    let config = request.config::<WebSocket>();
    let Some(handler) = config.handler() else { return Ok(Verdict::Declined) };
    if request.is_subrequest() {
        return Ok(Verdict::Declined);
    }
    let accept = match consider(request, handler) {
        Ok(accept) => accept,
        Err(refusal) => return refuse(request, &refusal),
    };
    let connection = request.connection();
    if connection.is_secondary() || connection.is_tls() {
        let how = if connection.is_secondary() { "HTTP/2" } else { "TLS" };
        log::request(Level::Error, request, &format!("WS0004: a WebSocket over {how}: only plain HTTP/1.1 is served"));
        return Err(NOT_IMPLEMENTED);
    }
    let config = request.config::<WebSocket>();
    let spec = SessionSpec {
        handler: handler.clone(),
        protocol: accept.protocol.clone(),
        limits: config.limits(),
        client: request.client_address().into(),
        user: request.user().map(Cow::into_owned),
        server: request.server_name().into(),
        uri: request.unparsed_uri().into(),
        log: session_logs::spec(request.server()),
    };
    hand_over(request, &accept, &spec)
}

/// Reads the opening handshake out of a request.
fn consider(request: &Request, _handler: &HandlerSpec) -> Result<Accept, Refusal> {
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
    negotiate(&offer, &request.config::<WebSocket>().policy())
}

fn refuse(request: &Request, refusal: &Refusal) -> HookResult {
    let Some(status) = refusal.status() else {
        log::request(Level::Trace, request, &format!("WS0005: not an upgrade: {refusal}"));
        return Ok(Verdict::Declined);
    };
    log::request(Level::Info, request, &format!("WS0006: refused with {status}: {refusal}"));
    for (name, value) in refusal.headers() {
        request.err_headers_out().set(request.pool(), name, value);
    }
    Err(status)
}

/// Asks the engine, sends the 101, and gives the socket away.
fn hand_over(request: &mut Request, accept: &Accept, spec: &SessionSpec) -> HookResult {
    let door = lifecycle::door().ok_or(SERVICE_UNAVAILABLE)?;
    let (mut link, ticket) = match door.offer(spec) {
        Ok(granted) => granted,
        Err(why) => {
            log::request(Level::Error, request, &format!("WS0007: no session: {why}"));
            let status = if let HandoffError::Refused { status, .. } = why { status } else { SERVICE_UNAVAILABLE };
            if status == SERVICE_UNAVAILABLE {
                request.err_headers_out().set(request.pool(), "Retry-After", "5");
            }
            return Err(status);
        }
    };

    switch_protocols(request, accept);

    let connection = request.connection();
    let given = if connection.is_aborted() {
        Err(std::io::ErrorKind::ConnectionAborted.into())
    } else {
        connection.take_input().and_then(|early| Ok((early, connection.socket()?)))
    };
    match given {
        Ok((early, socket)) => match link.give(ticket, early, socket) {
            Ok(()) => {
                log::request(Level::Debug, request, &format!("WS0008: session {ticket} is the engine's"));
                door.keep(link);
            }
            Err(why) => {
                log::request(
                    Level::Error,
                    request,
                    &format!("WS0009: session {ticket} is lost, the engine is gone: {why}"),
                );
            }
        },
        Err(why) => {
            log::request(Level::Debug, request, &format!("WS0010: session {ticket}: the client is gone: {why}"));
            if link.abandon(ticket).is_ok() {
                door.keep(link);
            }
        }
    }
    // Whether or not it worked: there is no HTTP on this connection any more.
    connection.abandon();
    Ok(Verdict::Answered)
}

/// Sends the 101 (RFC 6455 section 4.2.2), with what other modules want to say with every answer (cookies, say).
fn switch_protocols(request: &mut Request, accept: &Accept) {
    let (pool, headers) = (request.pool(), request.headers_out());
    for (name, value) in request.err_headers_out().iter() {
        headers.add(pool, &name, &value);
    }
    headers.set(pool, "Upgrade", "websocket");
    headers.set(pool, "Connection", "Upgrade");
    headers.set(pool, "Sec-WebSocket-Accept", &accept.accept);
    if let Some(protocol) = &accept.protocol {
        headers.set(pool, "Sec-WebSocket-Protocol", protocol);
    }
    request.send_interim(SWITCHING_PROTOCOLS);
}
