//! The question to an application of this httpd, and what becomes of its answer.

use super::{Refused, tell_of_bad_answer, trust};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::{BAD_GATEWAY, INTERNAL_SERVER_ERROR};
use crate::apache::subrequest::{Question, Reply};
use crate::engine::ForeignRefusal;
use crate::engine::application::answer::Answer;
use crate::engine::application::reserved::{self, goes_with_a_refusal, is_replayed};
use crate::front::{WebSocket, once};
use std::borrow::Cow;
use std::ffi::{CStr, CString};

/// Of an answer's body, bytes that a client gets with a refusal.
const KEPT: usize = 64 << 10;
/// Bytes of an answer's body at which it is no answer any more.
const MOST: usize = 1 << 20;
/// Bytes of an answer that the log quotes.
const QUOTED: usize = 80;

/// What the application is asked.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'static CStr,
    /// Path and query.
    pub(crate) url: &'a str,
    /// What it is about: [`reserved::EVENT`].
    pub(crate) event: &'a str,
    /// The session's name: [`reserved::CONNECTION_ID`].
    pub(crate) connection: &'a str,
    /// Other header lines, by name and value.
    pub(crate) headers: Vec<(&'a str, Cow<'a, str>)>,
    /// The body's type, and the body.
    pub(crate) body: Option<(&'a str, &'a [u8])>,
    /// Whether a header line of the handshake goes along.
    pub(crate) goes_along: fn(&str) -> bool,
    /// Bytes of the answer's body that are kept.
    pub(crate) kept: usize,
}

impl<'a> Asked<'a> {
    /// What `WebSocketAuthorize` asks.
    pub(crate) fn authorize(url: &'a str, connection: &'a str) -> Asked<'a> {
        Asked {
            method: c"GET",
            url,
            event: "authorize",
            connection,
            headers: Vec::new(),
            body: None,
            goes_along: is_about_the_client,
            kept: KEPT,
        }
    }
}

/// A line of the handshake that is neither about the connection nor about the upgrade: whoever proxies the question would switch
/// protocols.
fn is_about_the_client(name: &str) -> bool {
    is_replayed(name) && !reserved::is_of_the_upgrade(name)
}

/// Asks, and reads what an acceptance says. A refusal goes to the client as it is.
pub(crate) fn ask(request: &mut Request, asked: &Asked<'_>) -> Result<Answer, Refused> {
    let reply = reply(request, asked)?;
    match parse(&reply) {
        Ok(answer) => Ok(answer),
        Err(why) => {
            tell_of_bad_answer(request, asked.url, &why);
            Err(Refused::Status(INTERNAL_SERVER_ERROR))
        }
    }
}

/// Asks. What comes back accepts; whatever does not has gone to the client.
pub(crate) fn reply(request: &mut Request, asked: &Asked<'_>) -> Result<Reply, Refused> {
    // Nothing that a URL cannot have in it is left there.
    let url = CString::new(asked.url).map_err(|_| Refused::Status(INTERNAL_SERVER_ERROR))?;
    let mut headers = vec![
        (reserved::EVENT, Cow::Borrowed(asked.event)),
        (reserved::CONNECTION_ID, Cow::Borrowed(asked.connection)),
        // Not out of a cache.
        ("Cache-Control", Cow::Borrowed("no-store")),
    ];
    headers.extend(asked.headers.iter().cloned());
    let question = Question {
        method: asked.method,
        url: &url,
        goes_along: &asked.goes_along,
        headers: &headers,
        environment: trust::ENVIRONMENT,
        body: asked.body,
        kept: asked.kept,
        most: MOST.max(asked.kept),
    };
    let reply = request.ask::<WebSocket>(&question);
    let why = match reply.status {
        // Whoever it was has been told that nobody listens, and failed.
        _ if reply.length > question.most => format!("more than {} bytes", question.most),
        200..=299 => return Ok(reply),
        300..=599 => return Err(refuse(request, asked.url, reply)),
        status => format!("the status {status}{}", quote(&reply)),
    };
    tell_of_bad_answer(request, asked.url, &why);
    Err(Refused::Status(BAD_GATEWAY))
}

/// What an acceptance says.
pub(crate) fn parse(reply: &Reply) -> Result<Answer, String> {
    let lines = reply.headers.iter().map(|(name, value)| (name.to_str().unwrap_or_default(), value.to_bytes()));
    Answer::parse(lines).map_err(|why| format!("{why}{}", quote(reply)))
}

/// Sends the client the answer that refuses: status, header lines and body.
fn refuse(request: &mut Request, url: &str, reply: Reply) -> Refused {
    let Reply { was_refused_before, is_httpds, status, status_line, content_type, headers, body, length } = &reply;
    let status = *status;
    match (was_refused_before, status) {
        // httpd has said why. What is configured cannot work, or the client may not ask.
        (true, _) => {
            let text = format!("refused with {status}: httpd lets nobody through to {url} (Require, or another rule)");
            match once::a_minute("WS0063", request) {
                true => log::request(Level::Warning, request, &format!("WS0063: {text} (said once a minute)")),
                false => log::request(Level::Debug, request, &text),
            }
        }
        (false, 500..) => {
            let text = format!("refused with {status}: {url} has failed{}", quote(&reply));
            match once::a_minute("WS0064", request) {
                true => log::request(Level::Error, request, &format!("WS0064: {text} (said once a minute)")),
                false => log::request(Level::Debug, request, &text),
            }
        }
        (false, _) => log::request(Level::Info, request, &format!("WS0065: refused with {status} by {url}")),
    }
    for (name, value) in headers.iter().filter(|(name, _)| goes_with_a_refusal(&name.to_string_lossy())) {
        request.err_headers_out().add_bytes(name, value);
    }
    // httpd has a page for it, as for every other request that it refuses itself.
    if *was_refused_before || *is_httpds {
        return Refused::Status(status);
    }
    // Half a page is none.
    let body: &[u8] = if *length > body.len() { &[] } else { body };
    request.pass_on(status, status_line.as_deref(), content_type.as_deref(), body);
    Refused::Answered
}

/// Sends the client what an application elsewhere has refused with.
pub(crate) fn pass_on(request: &mut Request, answer: ForeignRefusal) -> Refused {
    let ForeignRefusal { from, status, headers, body } = answer;
    let is_type = |(name, _): &&(String, Vec<u8>)| name.eq_ignore_ascii_case("Content-Type");
    let content_type = headers.iter().find(is_type).and_then(|(_, value)| CString::new(value.clone()).ok());
    let lines =
        headers.into_iter().filter_map(|(name, value)| Some((CString::new(name).ok()?, CString::new(value).ok()?)));
    let (headers, length) = (lines.collect(), body.len());
    refuse(request, &from, Reply { status, content_type, headers, body, length, ..Reply::default() })
}

/// The beginning of an answer, for the log: whoever wrote it knows it again.
fn quote(reply: &Reply) -> String {
    if reply.body.is_empty() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(QUOTED)]);
    let content_type = reply.content_type.as_deref().unwrap_or(c"no type").to_string_lossy();
    let quoted: String = text.trim().chars().flat_map(char::escape_debug).collect();
    format!("; it is {} bytes of {}: \"{quoted}\"", reply.length, content_type.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_goes_along_and_the_upgrade_does_not() {
        for name in ["Cookie", "Authorization", "Origin", "Sec-WebSocket-Protocol", "Host", "X-Requested-With"] {
            assert!(is_about_the_client(name), "{name}");
        }
        for name in
            ["Upgrade", "Connection", "Sec-WebSocket-Key", "sec_websocket_version", "If-Match", "Range", "Meta-A"]
        {
            assert!(!is_about_the_client(name), "{name}");
        }
    }
}
