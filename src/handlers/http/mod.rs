//! `WebSocketHandler http URL`: an application that speaks HTTP handles the session. Messages become requests, and answers messages.
//!
//! * [`settings`]: what the engine is told
//! * [`request`]: what the application is asked; [`effect`]: what its answers ask for
//! * [`outbox`]: what a client has said and the application has not taken yet
//! * [`plain`]: the mode in which a body is a message
//! * [`events`]: the mode of `application/websocket-events`; [`control`]: GRIP's control messages in it
//! * [`channels`]: the channels of a session
//! * [`session`]: one client
//! * [`farewell`]: the last that the application hears of it

pub mod channels;
#[cfg(feature = "httpd")]
pub(crate) mod config;
pub mod control;
pub mod effect;
pub mod events;
pub mod farewell;
#[cfg(feature = "httpd")]
pub(crate) mod front;
pub mod outbox;
pub mod plain;
pub mod request;
pub mod session;
pub mod settings;

use super::targets::{Crowd, Targets};
use crate::channels::hub::Hub;
use crate::engine::application::loopback::{Application, AskError, HttpAnswer, TIMEOUT};
use crate::engine::application::queue::RequestQueue;
use crate::engine::{
    Accepted, ForeignRefusal, Handler, HandlerSession, LocalBoxFuture, Refused, Rejection, Response, SessionSpec,
};
use crate::wire::websocket_events::WebSocketEvent;
use effect::{Effect, Unusable, lines};
use events::{EventsDialect, postponed};
use farewell::Farewells;
use log::error;
use request::Correspondence;
use session::{HttpOpening, HttpSession};
use settings::{HttpSettings, Mode, Opening};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;

pub struct Http {
    hub: Arc<Hub>,
    farewells: Arc<Farewells>,
    targets: Targets<Application>,
}

impl Handler for Http {
    fn accept<'a>(&'a self, spec: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async {
            let wrong = |e| Refused { status: 500, reason: format!("no settings of http: {e}") };
            let settings: HttpSettings = postcard::from_bytes(&spec.handler.settings).map_err(wrong)?;
            let HttpSettings { mode, application, target, opening, channels, given, secure, recheck, grip_key } =
                settings;
            let known = spec.application.as_deref().cloned().unwrap_or_default();
            let correspondence = Correspondence::new(&application, mode, &target, &spec.client, secure, known);
            let mut correspondence = correspondence.signed_by(grip_key);
            let mut dialect = EventsDialect::default();
            let (mut user, mut expires) = (None, None);
            let (first, response, is_ours) = match opening {
                Opening::Accepted { requests, headers, body } => {
                    correspondence.note_opening(requests);
                    let answer = HttpAnswer { status: 200, headers, body: body.into() };
                    let first = understand(mode, &mut dialect, answer).map_err(|why| unusable(&why))?;
                    (first, Response::default(), false)
                }
                Opening::Engine { lines, protocols, crowd } => {
                    let answer = self.ask(&mut correspondence, &application, crowd).await?;
                    let opened = open(&application, mode, &mut dialect, answer, lines, &protocols)?;
                    (user, expires) = (opened.user, opened.expires);
                    (opened.first, opened.response, true)
                }
            };
            let (hub, farewells) = (self.hub.clone(), self.farewells.clone());
            let session =
                HttpSession { correspondence, dialect, hub, rules: channels, given, recheck, farewells, first };
            let session = HttpOpening { session: Some(session), is_ours };
            Ok(Accepted { user, expires, ..Accepted::new(response, HandlerSession::Messages(Box::new(session))) })
        })
    }

    fn end(&self, limit: Duration) -> Option<LocalBoxFuture<'_, ()>> {
        Some(Box::pin(self.farewells.end(limit)))
    }

    fn configure(&self, settings: &[u8]) {
        match postcard::from_bytes(settings) {
            Ok(max) => RequestQueue::common().set_max(max),
            Err(e) => error!("WS0332: the configuration of http cannot be read: {e}"),
        }
    }
}

impl Http {
    /// Asks an application elsewhere whether it wants a session.
    async fn ask(
        &self,
        correspondence: &mut Correspondence,
        application: &Application,
        crowd: Crowd,
    ) -> Result<HttpAnswer, Rejection> {
        let is_silence = |asked: &Result<_, AskError>| matches!(asked, Err(AskError::Late(_) | AskError::NotSent(_)));
        let asked = self.targets.ask(application, crowd, ask_to_open(correspondence), is_silence).await;
        let asked = asked.map_err(|busy| busy.refuse(format_args!("{application} was not asked")))?;
        let answer = asked.map_err(|why| {
            let status = if matches!(why, AskError::Late(_)) { 504 } else { 502 };
            Refused { status, reason: format!("{application}: {why}") }
        })?;
        if let (Mode::Events, Some(wait)) = (correspondence.mode(), postponed(&answer)) {
            let reason = format!("{application} wants to be asked again in {} s: {TOO_LATE}", wait.as_secs());
            return Err(Refused { status: 504, reason }.into());
        }
        Ok(answer)
    }
}

/// Why an application is not asked again whether it wants a session.
pub(crate) const TOO_LATE: &str = "a client waits no longer than 30 s";

/// Asks an application whether it wants a session: again, when it says so, for as long as a client waits.
async fn ask_to_open(correspondence: &mut Correspondence) -> Result<HttpAnswer, AskError> {
    let end = Instant::now() + TIMEOUT;
    loop {
        let mode = correspondence.mode();
        let question = match mode {
            Mode::Plain => correspondence.plain(WebSocketEvent::Open),
            Mode::Events => correspondence.events([&WebSocketEvent::Open], 0),
        };
        let answer = question.ask_within(end.saturating_duration_since(Instant::now())).await?;
        let wait = postponed(&answer).filter(|wait| mode == Mode::Events && Instant::now() + *wait < end);
        let Some(wait) = wait else { return Ok(answer) };
        let said = lines(&answer).map_err(|why| AskError::Broken(format!("its answer says {why}")))?;
        correspondence.set_meta(said.meta).map_err(|why| AskError::Broken(why.to_string()))?;
        tokio::time::sleep(wait).await;
    }
}

/// What the first answer asks for.
fn understand(mode: Mode, dialect: &mut EventsDialect, answer: HttpAnswer) -> Result<Vec<Effect>, Unusable> {
    match mode {
        Mode::Plain => plain::effects(answer),
        Mode::Events => dialect.opening(0, answer),
    }
}

fn unusable(why: &Unusable) -> Refused {
    Refused { status: 502, reason: format!("the application: {why}") }
}

/// What an application elsewhere has accepted with.
struct Opened {
    first: Vec<Effect>,
    response: Response,
    user: Option<String>,
    expires: Option<Duration>,
}

/// An application elsewhere has answered.
fn open(
    application: &Application,
    mode: Mode,
    dialect: &mut EventsDialect,
    answer: HttpAnswer,
    mut handshake: Vec<(String, String)>,
    protocols: &[String],
) -> Result<Opened, Rejection> {
    let is_yes = match mode {
        Mode::Plain => (200..300).contains(&answer.status),
        Mode::Events => answer.status == 200,
    };
    if !is_yes {
        let HttpAnswer { status, headers, body } = answer;
        // What makes no sense as an answer to a handshake is none.
        return Err(match (300..600).contains(&status) {
            true => {
                let (from, body) = (application.to_string(), body.to_vec());
                Rejection::Answered(Box::new(ForeignRefusal { from, status, headers, body }))
            }
            false => Refused { status: 502, reason: format!("the application has answered with {status}") }.into(),
        });
    }
    let said = lines(&answer);
    let first = understand(mode, dialect, answer).map_err(|why| unusable(&why))?;
    let said = said.map_err(|why| Refused { status: 502, reason: format!("the application says {why}") })?;
    if let Some(protocol) = said.protocol {
        if !protocols.contains(&protocol) {
            let reason = format!("the application wants the subprotocol {protocol:?}, which was not offered");
            return Err(Refused { status: 500, reason }.into());
        }
        handshake.retain(|(name, _)| !name.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
        handshake.push(("Sec-WebSocket-Protocol".into(), protocol));
    }
    let others = said.headers.into_iter().filter_map(|(name, value)| Some((name, String::from_utf8(value).ok()?)));
    handshake.extend(others);
    Ok(Opened { first, response: Response::Custom(handshake), user: said.user, expires: said.expires })
}

pub fn handler() -> impl Handler {
    Http { hub: Hub::common(), farewells: Arc::default(), targets: Targets::default() }
}

#[cfg(test)]
mod tests;
