//! What an answer of the application asks for.

use crate::engine::application::answer::{Answer, BadAnswer};
use crate::engine::application::loopback::HttpAnswer;
use crate::wire::{CloseFrame, Message};
use bytes::Bytes;
use std::time::Duration;

/// Something to be done, in the order in which the application has said it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// For the client.
    Send(Message),
    Ping(Bytes),
    Pong(Bytes),
    Subscribe(String),
    Unsubscribe(String),
    /// Exactly these channels, from now on.
    Channels(Vec<String>),
    /// As whom presence counts the session; for what it subscribes to from now on.
    Member(String),
    /// It wants to be asked again so often whether the session may go on; `None`: not at all.
    Recheck(Option<Duration>),
    /// To be stored.
    Meta(Vec<(String, String)>),
    /// The client gets this when it has had nothing for so long; `None`: nothing any more.
    KeepAlive(Option<ClientKeepAlive>),
    /// The client gets this after a while, unless another one takes its place.
    SendDelayed(Message, Duration),
    /// What waits so is sent now.
    FlushDelayed,
    /// The application is told nothing more.
    Detach,
    /// So many bytes of the content that it was offered are done.
    Accepted(usize),
    /// It wants to be asked again after so long, when there is nothing else; `None`: no more.
    Interval(Option<Duration>),
    Close(CloseFrame),
    /// The connection ends without a Close frame.
    Cut,
}

/// What a client is sent so that it, and what is between, hears something.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientKeepAlive {
    pub what: ClientKeepAliveContent,
    pub after: Duration,
    /// Whatever else it was sent.
    pub always: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClientKeepAliveContent {
    Message(Message),
    Ping(Bytes),
    Pong(Bytes),
}

/// The session cannot go on: what is wrong with an answer, for the log, and what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    pub why: String,
    pub close: CloseFrame,
}

/// What the header lines of an answer say.
///
/// # Errors
/// One of them is not as it should be, or has no meaning here: clients of this handler neither subscribe nor publish.
pub fn lines(answer: &HttpAnswer) -> Result<Answer, BadAnswer> {
    let said = Answer::parse(answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
    for (header, is_said) in [("WebSocket-Allow", said.allowed.is_some()), ("WebSocket-Rights", said.rights.is_some())]
    {
        if is_said {
            let why = "clients of the handler http neither subscribe nor publish by themselves".to_owned();
            return Err(BadAnswer { header: header.to_owned(), why });
        }
    }
    Ok(said)
}

/// What they ask for, whatever the mode; but for a Close, which comes last.
pub fn of_lines(said: &mut Answer) -> Vec<Effect> {
    let mut effects = Vec::new();
    if !said.meta.is_empty() {
        effects.push(Effect::Meta(std::mem::take(&mut said.meta)));
    }
    effects.extend(said.member.take().map(Effect::Member));
    effects.extend(said.channels.take().map(Effect::Channels));
    effects.extend(said.recheck.take().map(Effect::Recheck));
    effects
}

/// How many bytes an application has taken of what it was offered, where it says that.
pub fn accepted(effects: &[Effect]) -> Option<usize> {
    effects.iter().find_map(|effect| match effect {
        Effect::Accepted(count) => Some(*count),
        _ => None,
    })
}

/// The media type, without its parameters, in small letters.
pub fn media_type(answer: &HttpAnswer) -> String {
    let line = answer.header("content-type").unwrap_or_default();
    line.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The first bytes of a body, for the log.
pub fn beginning(body: &[u8]) -> String {
    const SHOWN: usize = 80;
    String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).escape_debug().to_string()
}
