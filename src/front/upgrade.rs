//! The content handler: a WebSocket's opening handshake, up to what the engine is asked.

use super::custody::{self, Handover, Terms};
use super::handler::{Prepared, Registration};
use super::{WebSocket, authorize, h2, opening, refusal, session_logs};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::{BAD_REQUEST, INTERNAL_SERVER_ERROR};
use crate::apache::{HookResult, HookStatus};
use crate::engine::SessionSpec;
use crate::engine::revocation::{Opening, clock};
use crate::wire::handshake::{Accept, Offer, Policy, Refusal, negotiate};
use std::borrow::Cow;

/// Answers a request if it is a WebSocket's and a handler is configured for it; or if it is one of these handlers' own.
pub(crate) fn handle(request: &mut Request, all: &[Registration]) -> HookResult {
    let config = request.config::<WebSocket>();
    let Some(chosen) = config.handler().cloned() else { return without_handler(request, all) };
    let front = chosen.front;
    let mut accept = match front.negotiate(request) {
        Ok(accept) => accept,
        Err(refusal) => {
            let verdict = refusal::answer(request, &refusal)?;
            // Not an upgrade: one address may serve subscribers and publishers.
            return if verdict == HookStatus::Declined { answer_ordinary(request, all) } else { Ok(verdict) };
        }
    };
    if front.passes_on(request) {
        h2::admit(request)?;
        return authorize::authorize(request, None).map_or_else(HookResult::from, |()| Ok(HookStatus::Declined));
    }
    let handover = custody::choose(request, front.needs())?;
    if let Err(refused) = authorize::authorize(request, accept.as_mut()) {
        return refused.into();
    }
    let prepared = match front.consult(request, &chosen.args, accept.as_mut()) {
        Ok(prepared) => prepared,
        Err(refused) => return refused.into(),
    };
    let Prepared { settings, member, patience, is_plain, hold, application, mut undo } = prepared;
    if let Some(accept) = &accept {
        tell_of_protocols(request, accept);
    }
    let config = request.config::<WebSocket>();
    let compression = accept.as_ref().and_then(|accept| accept.compression.as_ref());
    let mut spec = SessionSpec {
        handler: chosen.spec(settings),
        protocol: accept.as_ref().and_then(|accept| accept.protocol.clone()),
        compression: compression.map(|agreed| config.compression(agreed.parameters)),
        reserved_close_codes: config.reserved_close_codes(),
        ..spec_of(request, member, all)
    };
    if let Some(opening) = &mut spec.opening {
        opening.transport = handover.transport();
    }
    if compression.is_some() {
        spec.limits = config.limits_of_compressed();
    }
    if application.is_some() {
        spec.application = application;
    }
    let (needs, drain_timeout) = (front.needs(), config.drain_timeout());
    let terms = Terms { handover, needs, patience, drain_timeout, hold, early: Vec::new(), undo: &mut undo };
    let verdict = match terms {
        Terms { handover: Handover::Socket | Handover::TlsSocket, hold: None, .. } if is_plain => {
            opening::open(request, accept.as_ref(), spec, terms)
        }
        terms => custody::hand_over(request, accept.as_ref(), &spec, terms),
    };
    if let Some(undo) = undo {
        undo(request);
    }
    verdict
}

/// What the engine is told of every session of this request, whoever runs it; `member`: whom its handler shows to others.
pub(crate) fn spec_of(request: &Request, member: Option<String>, all: &[Registration]) -> SessionSpec {
    let config = request.config::<WebSocket>();
    let client = request.client_address();
    let prefix = all.iter().find_map(|known| known.front.prefix(config)).unwrap_or_default();
    SessionSpec {
        limits: config.limits(),
        quotas: config.quotas(&request.server().name(), &client),
        client: client.into(),
        user: request.user().map(Cow::into_owned),
        server: request.server_name().into(),
        uri: request.unparsed_uri().into(),
        log: session_logs::spec(request.server()),
        application: authorize::spec::of(request, !prefix.is_empty()),
        opening: Some(Box::new(Opening {
            began: clock().saturating_sub(request.age().as_micros() as u64),
            prefix,
            member,
            vhost: request.server().label(),
            ..Opening::default()
        })),
        ..SessionSpec::default()
    }
}

/// An ordinary request, which may be one of these handlers' own.
fn answer_ordinary(request: &mut Request, all: &[Registration]) -> HookResult {
    all.iter().find_map(|known| known.front.answer(request)).unwrap_or(Ok(HookStatus::Declined))
}

/// No handler is configured here. Where a configuration of the older mod_websocket has forgotten it, a handshake is told.
fn without_handler(request: &mut Request, all: &[Registration]) -> HookResult {
    if request.handler_name() != "websocket-handler" {
        let verdict = authorize_anothers(request)?;
        return if verdict == HookStatus::Declined { answer_ordinary(request, all) } else { Ok(verdict) };
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

/// A handshake that is another module's, as mod_proxy's are, where an application is to decide: it decides over these as well. The
/// 101 is not ours then, nor is the subprotocol.
pub(crate) fn authorize_anothers(request: &mut Request) -> HookResult {
    // Whoever proxies it may look at this header alone.
    if !names_websocket(request) || !authorize::is_asked(request) {
        return Ok(HookStatus::Declined);
    }
    match consider(request) {
        Ok(_) => match authorize::authorize(request, None) {
            Ok(()) => Ok(HookStatus::Declined),
            Err(refused) => refused.into(),
        },
        Err(refusal) => refusal::answer(request, &refusal).and(Err(BAD_REQUEST)),
    }
}

/// The client wants to upgrade to a WebSocket, however else its request is.
pub(crate) fn names_websocket(request: &Request) -> bool {
    let names_it = |value: &str| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket"));
    request.headers_in().iter().any(|(name, value)| name.eq_ignore_ascii_case("Upgrade") && names_it(&value))
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

fn consider(request: &Request) -> Result<Accept, Refusal> {
    with_offer(request, negotiate)
}

/// True when a request asks for a WebSocket, as it should or not.
pub(crate) fn is_handshake(request: &Request) -> bool {
    !consider(request).is_err_and(|refusal| refusal.status().is_none())
}

/// Lets a request's handshake be judged by the policy that holds here.
pub(crate) fn with_offer<T>(
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
