//! `WebSocketAuthorize`: an application of this httpd is asked at the opening handshake, and decides.
//!
//! * [`url`]: whom the directive means
//! * [`ask`]: the question, on the handshake's thread
//! * [`trust`]: how the application knows that it is this module that asks
//! * [`spec`]: what the engine gets to ask again

pub(crate) mod ask;
pub(crate) mod spec;
pub(crate) mod trust;
pub(crate) mod url;

use super::config::limit::Limit;
use super::config::words::{Words, is_off, one};
use super::config::{Config, directives, merged};
use super::{WebSocket, once};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::INTERNAL_SERVER_ERROR;
use crate::apache::{HookResult, HookStatus};
use crate::engine::application::Recheck;
use crate::engine::application::answer::{Answer, RECHECK_RANGE};
use crate::engine::application::connection_id;
use crate::engine::application::grip_sig::GripKey;
use crate::wire::handshake::Accept;
use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use url::LocalUrl;

merged! {
    /// What the directives of a section say of applications.
    pub(crate) struct ApplicationConfig {
        /// `Off` is `Some(None)`.
        authorize: Option<Option<Authorize>>,
        /// Likewise.
        recheck: Option<Option<Duration>>,
        grace: Limit<Duration>,
        grip_key: Option<Option<GripKey>>,
        /// Likewise.
        listener: Option<Option<SocketAddr>>,
    }
}

/// How long an application may give no answer, in seconds.
const GRACE_RANGE: RangeInclusive<u64> = 1..=86_400;
const GRACE: Duration = Duration::from_secs(300);

impl ApplicationConfig {
    /// How often the application is asked again that has said this at the handshake.
    fn recheck(&self, answer: &Answer) -> Option<Recheck> {
        let interval = answer.recheck.or(self.recheck).flatten()?;
        Some(Recheck { interval, grace: self.grace.unwrap_or(GRACE) })
    }
}

#[derive(Clone)]
struct Authorize {
    url: LocalUrl,
    in_htaccess: bool,
}

directives! { pub(super) DIRECTIVES =
    c"WebSocketAuthorize" "url|Off" in Everywhere, else "Off" => authorize_url,
        c"The URL of this server that decides over each handshake: with expressions, as /auth.php?room=%{QUERY_STRING}; or 'Off'";
    c"WebSocketRecheck" "seconds|Off" in Everywhere, else "Off" => recheck,
        c"How often the application of WebSocketAuthorize is asked again whether a socket may go on; or 'Off'";
    c"WebSocketRecheckGrace" "seconds" in Everywhere, else "300" => grace,
        c"How long the application may give no answer that counts before its sockets are closed";
    c"WebSocketGripKey" "key|Off" in Host, else "Off" => grip_key,
        c"The key of GRIP: what a proxy in front has signed is believed, and requests to applications elsewhere are signed; or 'Off'";
    c"WebSocketLoopback" "url|Off" in Host, else "Off" => listener,
        c"A listener of this server without TLS, as http://127.0.0.1:8080, for the engine's requests; 'Off': where the client has come in";
}

fn authorize_url(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a URL of this server, as /auth.php, or Off")?;
    let in_htaccess = config.place.in_htaccess;
    let authorize = match is_off(word) {
        true => None,
        false => Some(Authorize { url: LocalUrl::compile(word)?, in_htaccess }),
    };
    config.change(|application: &mut ApplicationConfig| application.authorize = Some(authorize));
    Ok(())
}

fn recheck(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds, or Off")?;
    let recheck = if is_off(word) { None } else { Some(seconds(word, RECHECK_RANGE, " or Off")?) };
    config.change(|application: &mut ApplicationConfig| application.recheck = Some(recheck));
    Ok(())
}

fn grace(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let grace = seconds(one(words, "a number of seconds")?, GRACE_RANGE, "")?;
    let place = config.place.clone();
    config.change(|application: &mut ApplicationConfig| application.grace.write(&place, grace));
    Ok(())
}

fn seconds(word: &str, range: RangeInclusive<u64>, or: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds| range.contains(seconds));
    let wrong = || format!("expected {}–{} seconds{or}, got \"{word}\"", range.start(), range.end());
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn grip_key(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "the key of a GRIP proxy, or Off")?;
    let key = if is_off(word) { None } else { Some(GripKey::new(word)?) };
    config.change(|application: &mut ApplicationConfig| application.grip_key = Some(key));
    Ok(())
}

fn listener(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a URL, as http://127.0.0.1:8080, or Off")?;
    let listener = match is_off(word) {
        true => None,
        // What is said there is a secret, so it is an address, which nobody else can be looked up under.
        false => {
            let address = word.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
            let address =
                address.and_then(|address| address.parse::<SocketAddr>().ok()).filter(|known| known.port() > 0);
            Some(address.ok_or_else(|| {
                format!("expected the address and port of a listener of this server, as http://127.0.0.1:8080, or Off, got \"{word}\"")
            })?)
        }
    };
    config.change(|application: &mut ApplicationConfig| application.listener = Some(listener));
    Ok(())
}

/// What an application has said of the session to come, and how it was asked.
pub(crate) struct Said {
    pub(crate) answer: Answer,
    /// The session's name for the application.
    pub(crate) connection: String,
    /// Path and query of `WebSocketAuthorize`, where that was asked.
    pub(crate) url: Option<String>,
    /// Whom httpd's login has named.
    pub(crate) login: Option<String>,
    /// An .htaccess file has said whom to ask.
    pub(crate) is_from_htaccess: bool,
}

impl Said {
    /// Whom an .htaccess file has chosen says something of channels.
    pub(crate) fn decides_in_htaccess(&self) -> bool {
        let Answer { channels, allowed, rights, member, .. } = &self.answer;
        self.is_from_htaccess && (channels.is_some() || allowed.is_some() || rights.is_some() || member.is_some())
    }
}

const SAID: &CStr = c"mod_websocket application";

/// What the application has said of this request, if it was asked.
pub(crate) fn said(request: &Request) -> Option<&Said> {
    request.pool().kept(SAID)
}

/// A handshake that leads to no session.
pub(crate) enum Refused {
    /// httpd makes the page for this status.
    Status(u16),
    /// The application's answer has gone to the client.
    Answered,
}

impl From<Refused> for HookResult {
    fn from(refused: Refused) -> HookResult {
        match refused {
            Refused::Status(status) => Err(status),
            Refused::Answered => Ok(HookStatus::Ok),
        }
    }
}

/// Asks whom `WebSocketAuthorize` names here, if anybody. What it says is found by [`said`] then; the subprotocol is in `accept`.
pub(super) fn authorize(request: &mut Request, accept: Option<&mut Accept>) -> Result<(), Refused> {
    let config = request.config::<WebSocket>().of::<ApplicationConfig>().into_owned();
    let Some(Authorize { url, in_htaccess }) = config.authorize.flatten() else { return Ok(()) };
    let url = url.evaluate(request).map_err(|why| {
        let (level, status) = (if why.status() == 500 { Level::Error } else { Level::Info }, why.status());
        log::request(level, request, &format!("WS0060: refused with {status}: WebSocketAuthorize: {why}"));
        Refused::Status(status)
    })?;
    let connection = connection_id().map_err(|why| {
        log::request(Level::Error, request, &format!("WS0061: a session cannot be given an id: {why}"));
        Refused::Status(INTERNAL_SERVER_ERROR)
    })?;
    let answer = ask::ask(request, &ask::Asked::authorize(&url, &connection))?;
    let login = request.user().map(|user| user.into_owned());
    admit(request, accept, Said { answer, connection, url: Some(url), login, is_from_htaccess: in_htaccess })
}

/// An application is to decide over handshakes here.
pub(super) fn is_asked(request: &Request) -> bool {
    request.config::<WebSocket>().of::<ApplicationConfig>().authorize.as_ref().is_some_and(Option::is_some)
}

/// Takes over what the application has said of the handshake. Channels and the like are their handler's to look for.
pub(crate) fn admit(request: &mut Request, accept: Option<&mut Accept>, said: Said) -> Result<(), Refused> {
    let bad = |why: &str| {
        tell_of_bad_answer(request, said.url.as_deref().unwrap_or_default(), why);
        Refused::Status(INTERNAL_SERVER_ERROR)
    };
    if let Some(protocol) = &said.answer.protocol {
        let Some(accept) = accept else {
            return Err(bad("Sec-WebSocket-Protocol: the handler here chooses the subprotocol itself"));
        };
        if !accept.offered_protocols.contains(protocol) {
            return Err(bad(&format!("Sec-WebSocket-Protocol: {protocol} was not offered by the client")));
        }
        accept.protocol = Some(protocol.clone());
    }
    if let Some(user) = &said.answer.user {
        request.set_user(Some(user));
    }
    for (name, value) in &said.answer.headers {
        // Neither has a NUL in it.
        if let (Ok(name), Ok(value)) = (CString::new(name.as_str()), CString::new(value.as_slice())) {
            request.err_headers_out().add_bytes(&name, &value);
        }
    }
    request.pool().keep(SAID, said);
    Ok(())
}

/// The application's fault, which all handshakes have: once a minute at a level that is shown.
pub(crate) fn tell_of_bad_answer(request: &Request, url: &str, why: &str) {
    let text = format!("the answer of {url} to a handshake is none: {why}");
    match once::a_minute("WS0062", request) {
        true => log::request(Level::Error, request, &format!("WS0062: {text} (said once a minute)")),
        false => log::request(Level::Debug, request, &text),
    }
}
