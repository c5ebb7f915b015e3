//! `DELETE ?user=`, `?member=` or `?connection=`: something is taken back from sessions, of whichever handler. `POST` with
//! `action=recheck`: their applications are asked now.

use super::publish::{JsonReply, QueryParameters, bad, call, unexpected};
use crate::apache::request::Request;
use crate::channels::api::{self, RevokeResult};
use crate::engine::revocation::{Measure, Name, Revocation, Whom};
use serde_json::json;

/// Bytes of the longest name.
const LONGEST: usize = 1024;

/// `None`: no session is named.
pub(super) fn revoke(request: &Request, parameters: &QueryParameters) -> Option<Result<JsonReply, JsonReply>> {
    let whom = whom(parameters)?;
    Some(whom.and_then(|whom| execute(request, revocation(parameters, whom)?)))
}

/// `None`: no action is named.
pub(super) fn act(request: &Request, parameters: &QueryParameters) -> Option<Result<JsonReply, JsonReply>> {
    let action = parameters.get("action")?;
    let nobody = || Err(bad("whose sockets? Add user=NAME, member=NAME or connection=ID"));
    Some(whom(parameters).unwrap_or_else(nobody).and_then(|whom| {
        if action != "recheck" {
            return Err(bad(&format!("expected action=recheck, got {action:?}")));
        }
        if let Some(other) = ["channel", "code", "reason"].iter().find(|name| parameters.get(name).is_some()) {
            return Err(bad(&format!("{other} is not for action=recheck")));
        }
        execute(request, Revocation { measure: Measure::Recheck, ..revocation(parameters, whom)? })
    }))
}

fn execute(request: &Request, revocation: Revocation) -> Result<JsonReply, JsonReply> {
    let api::Reply::Revoked(RevokeResult { sockets, servers, unanswered }) =
        call(request, api::Command::Revoke(Box::new(revocation)), &[])?
    else {
        return Err(unexpected());
    };
    // Accepted: they read of it in the broker's log.
    let status = if unanswered > 0 { 202 } else { 200 };
    Ok((status, json!({ "sockets": sockets, "servers": servers, "unanswered": unanswered })))
}

fn whom(parameters: &QueryParameters) -> Option<Result<Whom, JsonReply>> {
    type Make = fn(String) -> Whom;
    let kinds: [(&str, Make); 3] = [("user", Whom::User), ("member", Whom::Member), ("connection", Whom::Connection)];
    let mut named =
        kinds.iter().flat_map(|(name, make)| parameters.all(name).map(move |value| named(name, value).map(make)));
    let first = named.next()?;
    Some(if named.next().is_some() { Err(bad("one of user, member and connection, once")) } else { first })
}

/// An empty name is nobody's: it never means all.
fn named(name: &str, value: &str) -> Result<String, JsonReply> {
    // What is not UTF-8 was decoded to U+FFFD.
    if value.is_empty() || value.len() > LONGEST || value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(bad(&format!("expected {name}=NAME, UTF-8 of 1 to {LONGEST} bytes, got {value:?}")));
    }
    Ok(value.to_owned())
}

fn revocation(parameters: &QueryParameters, whom: Whom) -> Result<Revocation, JsonReply> {
    let channels = parameters.channels()?;
    let measure = if channels.is_empty() {
        Measure::Close { code: parameters.code(1008)?, reason: parameters.reason("disconnected")? }
    } else if parameters.get("code").or(parameters.get("reason")).is_some() {
        return Err(bad("code and reason are for closing, and with a channel nothing is closed"));
    } else {
        Measure::Unsubscribe { channels }
    };
    let except = match parameters.all("except").collect::<Vec<_>>()[..] {
        [] => None,
        [except] => Some(named("except", except)?),
        _ => return Err(bad("except is one connection")),
    };
    // The prefix is that of the place.
    Ok(Revocation { name: Name { prefix: String::new(), whom }, except, measure })
}
