//! `SetHandler websocket-publish`: HTTP's way to the channels. POST publishes, GET tells, DELETE ends.

use super::config::ChannelConfig;
use super::media_type::{is_multipart, is_text, told_type};
use super::revoke::{act, revoke};
use super::{NAME, batch};
use crate::apache::body::BodyError;
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::{HookResult, HookStatus};
use crate::channels::api::{self, Info, may_be_sent};
use crate::channels::name::is_decoded_name;
use crate::engine::handoff::HandoffError;
use crate::front::WebSocket;
use crate::front::child;
use crate::front::once::OfEngine;
use crate::front::{access, once};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::ffi::CStr;

/// The name in `SetHandler`.
pub(super) const HANDLER: &str = "websocket-publish";
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
/// Channels in a request, at most.
const MAX_CHANNELS: usize = 255;
/// Bytes of the largest message that goes to the engine.
const MAX_BODY: usize = 64 << 20;
/// Channels of a page, at most; and where nobody says how many.
const MAX_PAGE: u32 = 1000;
const PAGE: u32 = 100;
const JSON: &CStr = c"application/json";
/// What is in an answer comes from others: no browser is to guess what else it could be.
const NOSNIFF: (&CStr, &CStr) = (c"X-Content-Type-Options", c"nosniff");

/// An answer: its status, and what is in it.
pub(super) type JsonReply = (u16, Value);

pub(super) fn handle(request: &mut Request) -> HookResult {
    if request.is_subrequest() {
        return Ok(HookStatus::Declined);
    }
    // Also for what httpd answers on our behalf.
    request.err_headers_out().set_constant(NOSNIFF.0, NOSNIFF.1);
    if request.config::<WebSocket>().of::<ChannelConfig>().prefix().is_empty() && request.is_handler_from_htaccess() {
        log::request(
            Level::Error,
            request,
            &format!(
                "WS0037: an .htaccess file says SetHandler {HANDLER}, which it may only where the server's configuration has \
                 WebSocketChannelPrefix"
            ),
        );
        return Err(500);
    }
    if let Some(why) = access::refusal(request) {
        let why = format!(
            "only this machine may publish here (WebSocketPublishAccess Local), and the request {why}; where Require guards \
             the location, write WebSocketPublishAccess Require into it"
        );
        if once::a_minute("WS0035", request) {
            log::request(Level::Warning, request, &format!("WS0035: refused: {why}"));
        }
        reply(request, 403, JSON, &line(&problem(&why)));
        return Ok(HookStatus::Ok);
    }
    if !access::is_own_page(request) {
        log::request(
            Level::Info,
            request,
            "WS0019: refused: a page of another site may not publish (WebSocketOriginCheck)",
        );
        return Err(403);
    }
    let (status, body) = match &*request.method() {
        "POST" | "PUT" => match publish(request).transpose() {
            Some(reply) => reply,
            None => return Ok(HookStatus::Ok),
        },
        "GET" | "HEAD" => tell(request),
        "DELETE" => delete(request),
        "OPTIONS" => {
            request.headers_out().set(request.pool(), "Allow", METHODS);
            reply(request, 200, JSON, b"");
            return Ok(HookStatus::Ok);
        }
        method => {
            let why = format!("expected {METHODS}, got {method}");
            request.headers_out().set(request.pool(), "Allow", METHODS);
            Err((405, problem(&why)))
        }
    }
    .unwrap_or_else(|refusal| refusal);
    if status == 503 {
        request.headers_out().set(request.pool(), "Retry-After", "5");
    }
    reply(request, status, JSON, &line(&body));
    Ok(HookStatus::Ok)
}

fn line(body: &Value) -> Vec<u8> {
    let mut line = body.to_string().into_bytes();
    line.push(b'\n');
    line
}

pub(super) fn reply(request: &mut Request, status: u16, content_type: &CStr, body: &[u8]) {
    // Once, also where `Header set` says it.
    request.err_headers_out().unset(NOSNIFF.0);
    request.headers_out().set_constant(NOSNIFF.0, NOSNIFF.1);
    // What is said here changes with each message.
    request.headers_out().set(request.pool(), "Cache-Control", "no-store");
    request.answer(status, content_type, body);
}

pub(super) fn problem(why: &str) -> Value {
    json!({ "error": why })
}

pub(super) fn bad(why: &str) -> JsonReply {
    (400, problem(why))
}

pub(super) struct QueryParameters(Vec<(String, String)>);

impl QueryParameters {
    fn of(request: &Request) -> QueryParameters {
        let query = request.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        QueryParameters(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Those of `channel`, none twice.
    pub(super) fn channels(&self) -> Result<Vec<String>, JsonReply> {
        let mut channels: Vec<String> = Vec::new();
        for channel in self.all("channel") {
            if !is_decoded_name(channel) {
                return Err(bad(&format!(
                    "{channel:?} is not a channel name: expected UTF-8 without blanks, up to 1024 bytes"
                )));
            }
            if !channels.iter().any(|known| known == channel) {
                channels.push(channel.to_owned());
            }
        }
        if channels.len() > MAX_CHANNELS {
            return Err(bad(&format!("{} channels, and {MAX_CHANNELS} are allowed", channels.len())));
        }
        Ok(channels)
    }

    fn some_channels(&self) -> Result<Vec<String>, JsonReply> {
        let channels = self.channels()?;
        if channels.is_empty() { Err(bad("which channel? Add ?channel=NAME")) } else { Ok(channels) }
    }

    /// The reason of a Close.
    pub(super) fn reason(&self, default: &str) -> Result<String, JsonReply> {
        let reason = self.get("reason").unwrap_or(default);
        // RFC 6455 section 5.5: what a control frame holds beside the code.
        if reason.len() > 123 { Err(bad("the reason is longer than 123 bytes")) } else { Ok(reason.to_owned()) }
    }

    /// Its code.
    pub(super) fn code(&self, default: u16) -> Result<u16, JsonReply> {
        let Some(code) = self.get("code") else { return Ok(default) };
        let code = code.parse().ok().filter(|code| may_be_sent(*code));
        code.ok_or_else(|| bad("code must be one that a server may send: 1000 to 1014, or 3000 to 4999"))
    }
}

/// True where no coding is left to undo in these values of Content-Encoding.
fn is_decoded<'a>(encodings: impl Iterator<Item = Cow<'a, str>>) -> bool {
    let is_none = |coding: &str| coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case("identity");
    encodings.into_iter().all(|codings| codings.split(',').all(is_none))
}

fn unsupported(why: &str) -> JsonReply {
    (415, problem(why))
}

fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = Cow<'a, str>> {
    let lines = request.headers_in().iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
    lines.map(|(_, value)| value)
}

/// The body of a request, as it is; `None`: httpd has answered already.
pub(super) fn read(request: &mut Request, limit: usize, what: &str) -> Result<Option<Vec<u8>>, JsonReply> {
    let body = match request.read_body(limit) {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return Err((413, problem(&format!("the {what} is longer than {limit} bytes")))),
        Err(BodyError::Status(status)) => return Err((status, problem(&format!("the {what} did not come")))),
        Err(BodyError::Answered) => return Ok(None),
    };
    // An input filter that undoes a coding takes it out of the line as it does.
    if !is_decoded(values(request, "Content-Encoding")) {
        request.headers_out().set(request.pool(), "Accept-Encoding", "identity");
        return Err(unsupported("the body is encoded (Content-Encoding): send it as it is"));
    }
    Ok(Some(body))
}

/// Bytes of the largest message that is published here.
pub(super) fn longest(request: &Request) -> usize {
    request.config::<WebSocket>().limits().max_message_size.min(MAX_BODY)
}

/// `None`: it is answered already.
fn publish(request: &mut Request) -> Result<Option<JsonReply>, JsonReply> {
    let parameters = QueryParameters::of(request);
    if let Some(reply) = act(request, &parameters) {
        return reply.map(Some);
    }
    let content_type = values(request, "Content-Type").next().map(Cow::into_owned);
    let content_type = content_type.as_deref();
    if parameters.get("channel").is_none() && batch::is_batch(content_type) {
        return batch::publish(request, parameters.get("type"));
    }
    let channels = parameters.some_channels()?;
    let history = request.config::<WebSocket>().of::<ChannelConfig>().history();
    if is_multipart(content_type) {
        return Err(unsupported("a multipart body is not a message: send the message itself as the body"));
    }
    let Some(payload) = read(request, longest(request), "message")? else { return Ok(None) };
    let text = is_text(parameters.get("type"), content_type, &payload).map_err(bad)?;
    let command = api::Command::Publish { channels, text, content_type: told_type(content_type), history };
    let api::Reply::Published(results) = call(request, command, &payload)? else {
        return Err(unexpected());
    };
    let status = if results.iter().any(|result| result.subscribers > 0) { 201 } else { 202 };
    let body = results
        .into_iter()
        .map(|result| (result.channel, json!({ "id": result.id, "subscribers": result.subscribers })));
    Ok(Some((status, Value::Object(body.collect()))))
}

fn tell(request: &mut Request) -> Result<JsonReply, JsonReply> {
    let parameters = QueryParameters::of(request);
    let channels = parameters.channels()?;
    match &channels[..] {
        [] => list(request, &parameters),
        [channel] => match call(request, api::Command::Info { channel: channel.clone() }, &[])? {
            api::Reply::Info(Some(info)) => {
                let members = info
                    .members
                    .iter()
                    .map(|(member, connections)| json!({ "member": member, "connections": connections }));
                let members = members.collect();
                let mut body = facts(&info);
                body.insert("members".into(), Value::Array(members));
                Ok((200, Value::Object(body)))
            }
            api::Reply::Info(None) => Err(no_channel()),
            _ => Err(unexpected()),
        },
        _ => Err(bad("one channel at a time, or none for the list")),
    }
}

fn list(request: &mut Request, parameters: &QueryParameters) -> Result<JsonReply, JsonReply> {
    let limit = match parameters.get("limit") {
        None => PAGE,
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_PAGE).contains(limit))
            .ok_or_else(|| bad(&format!("limit must be a number from 1 to {MAX_PAGE}")))?,
    };
    let text = |name| parameters.get(name).unwrap_or_default().to_owned();
    let api::Reply::List { channels, more } =
        call(request, api::Command::List { prefix: text("prefix"), after: text("after"), limit }, &[])?
    else {
        return Err(unexpected());
    };
    let next = channels.last().filter(|_| more).map(|info| info.channel.clone());
    let channels: Vec<Value> = channels.iter().map(|info| Value::Object(facts(info))).collect();
    Ok((200, json!({ "channels": channels, "next": next })))
}

fn delete(request: &mut Request) -> Result<JsonReply, JsonReply> {
    let parameters = QueryParameters::of(request);
    if let Some(reply) = revoke(request, &parameters) {
        return reply;
    }
    let channels = parameters.some_channels()?;
    let (code, reason) = (parameters.code(1000)?, parameters.reason("channel deleted")?);
    let api::Reply::Deleted(infos) =
        call(request, api::Command::Delete { channels: channels.clone(), code, reason }, &[])?
    else {
        return Err(unexpected());
    };
    if infos.iter().all(Option::is_none) {
        return Err(no_channel());
    }
    let infos = channels
        .into_iter()
        .zip(infos)
        .map(|(channel, info)| (channel, info.map_or(Value::Null, |info| Value::Object(facts(&info)))));
    Ok((200, Value::Object(infos.collect())))
}

fn facts(info: &Info) -> Map<String, Value> {
    let Info { channel, subscribers, messages, bytes, last_id, members: _ } = info;
    let pairs = [
        ("channel", json!(channel)),
        ("subscribers", json!(subscribers)),
        ("messages", json!(messages)),
        ("bytes", json!(bytes)),
        ("last_id", json!(last_id)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn no_channel() -> JsonReply {
    (404, problem("there is no such channel"))
}

pub(super) fn unexpected() -> JsonReply {
    (500, problem("the engine gave another answer"))
}

/// The engine has not done what it was asked for.
pub(super) fn note_refusal(request: &Request, status: u16, reason: &str) {
    let level = if status >= 500 { Level::Error } else { Level::Info };
    log::request(level, request, &format!("WS0017: refused with {status}: {reason}"));
}

/// Asks the engine, of channels below the prefix of this place.
pub(super) fn call(request: &Request, command: api::Command, payload: &[u8]) -> Result<api::Reply, JsonReply> {
    let unavailable = || (503, problem("the engine cannot be asked"));
    let engine = child::engine_client().ok_or_else(unavailable)?;
    let prefix = request.config::<WebSocket>().of::<ChannelConfig>().prefix();
    let command =
        command.below(&prefix).map_err(|name| bad(&format!("{name:?} is too long for the name of a channel")))?;
    let question = postcard::to_stdvec(&command).map_err(|_| unexpected())?;
    match engine.call(NAME, question, payload) {
        Ok(answer) => {
            postcard::from_bytes(&answer).map(|answer: api::Reply| answer.without(&prefix)).map_err(|_| unexpected())
        }
        Err(HandoffError::Refused { status, reason, .. }) => {
            note_refusal(request, status, &reason);
            Err((status, problem(&reason)))
        }
        Err(why) => {
            let text = format!("WS0018: cannot reach the engine: {why}");
            if why.is_late() {
                log::request(Level::Debug, request, &text);
            } else {
                once::tell_of_engine(OfEngine::NoAnswer, request, &text);
            }
            let changes = !matches!(command, api::Command::Info { .. } | api::Command::List { .. });
            // Whoever asks for it once more may have it done twice.
            let is_unknown = changes && matches!(why, HandoffError::Unanswered(_));
            let unknown = || (504, problem("the engine gave no answer: it may have been done, or not"));
            Err(if is_unknown { unknown() } else { unavailable() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_decoded_where_no_coding_is_left() {
        for (encodings, decoded) in [
            (&[][..], true),
            (&["identity"], true),
            (&["Identity, "], true),
            (&["gzip"], false),
            (&["identity", "br"], false),
            (&["gzip, identity"], false),
        ] {
            assert_eq!(is_decoded(encodings.iter().map(|encoding| Cow::Borrowed(*encoding))), decoded, "{encodings:?}");
        }
    }
}
