//! What the application is asked: the requests of one session, one after the other.

use super::settings::Mode;
use crate::engine::application::grip_sig::GripKey;
use crate::engine::application::loopback::{self, Application, AskError, HttpAnswer, Inquiry, TIMEOUT, Template};
use crate::engine::application::queue::RequestQueue;
use crate::engine::application::{ApplicationSpec, answer, grip_sig, reserved, store};
use crate::wire::CloseFrame;
use crate::wire::websocket_events::{MEDIA_TYPE, WebSocketEvent};
use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use log::debug;
use std::time::Duration;

/// Bytes of the longest body of an answer.
pub const MAX_BODY: usize = 1 << 20;
/// How often what was not sent is tried again: after 1, 2, 4, 8 and 16 s.
const RETRIES: u32 = 5;

const EVENT: HeaderName = HeaderName::from_static("websocket-event");
const SEQUENCE: HeaderName = HeaderName::from_static("websocket-sequence");
const CLOSE: HeaderName = HeaderName::from_static("websocket-close");
const BYTES_REPLAYED: HeaderName = HeaderName::from_static("content-bytes-replayed");
// PHP takes forms apart, so a message is never one.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain;charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const EVENTS: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);

/// The session, as its application knows it.
#[derive(Debug)]
pub struct Correspondence {
    mode: Mode,
    /// Or why nobody can be asked.
    template: Result<Template, AskError>,
    meta: Vec<(String, String)>,
    grip_key: Option<GripKey>,
    /// The number of the last request.
    sequence: u64,
}

/// A new value of Meta makes it too much.
#[derive(Debug, thiserror::Error)]
#[error("more than {} values of Meta, or more than {} bytes of them", answer::MAX_META_NAMES, answer::MAX_META)]
pub struct TooMuchMeta;

impl Correspondence {
    /// With what goes into each request: the session's name, lines of its handshake, and Meta. `client` and `secure`: as in
    /// [`Template::new`].
    pub fn new(
        application: &Application,
        mode: Mode,
        target: &str,
        client: &str,
        secure: bool,
        session: ApplicationSpec,
    ) -> Correspondence {
        let ApplicationSpec { connection, mut headers, meta, .. } = session;
        if mode == Mode::Plain {
            headers.retain(|(name, _)| !reserved::is_of_the_upgrade(name));
        }
        if let Application::Elsewhere { .. } = application {
            headers = forwarded(headers, client, secure);
        }
        let template = Template::new(application, target, &headers, client, secure).and_then(|mut template| {
            template.set(reserved::CONNECTION_ID, &connection)?;
            meta.iter().try_for_each(|(name, value)| template.set(&meta_line(name), value))?;
            Ok(template)
        });
        Correspondence { mode, template, meta, grip_key: None, sequence: 0 }
    }

    /// Each request is signed with this key, where there is one.
    pub fn signed_by(self, grip_key: Option<GripKey>) -> Correspondence {
        Correspondence { grip_key, ..self }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// httpd has asked so many times already.
    pub fn note_opening(&mut self, requests: u64) {
        self.sequence = requests;
    }

    /// Stores what an answer has said; an empty value is forgotten.
    ///
    /// # Errors
    /// It is too much.
    pub fn set_meta(&mut self, new: Vec<(String, String)>) -> Result<(), TooMuchMeta> {
        for (name, value) in &new {
            let Ok(template) = &mut self.template else { break };
            let line = meta_line(name);
            let set = if value.is_empty() { template.remove(&line) } else { template.set(&line, value) };
            if let Err(why) = set {
                self.template = Err(why);
            }
        }
        store(&mut self.meta, new);
        let bytes: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits = self.meta.len() <= answer::MAX_META_NAMES && bytes <= answer::MAX_META;
        if fits { Ok(()) } else { Err(TooMuchMeta) }
    }

    /// The next request in plain mode, which is about one event.
    pub fn plain(&mut self, event: WebSocketEvent) -> Question {
        let (name, line, body) = match event {
            WebSocketEvent::Open => ("open", None, Bytes::new()),
            WebSocketEvent::Text(content) => ("message", Some((CONTENT_TYPE, TEXT)), content),
            WebSocketEvent::Binary(content) | WebSocketEvent::Ping(content) | WebSocketEvent::Pong(content) => {
                ("message", Some((CONTENT_TYPE, BINARY)), content)
            }
            WebSocketEvent::Close(frame) => {
                ("close", Some((CLOSE, frame.map_or(HeaderValue::from_static("1005"), close_line))), Bytes::new())
            }
            WebSocketEvent::Disconnect => ("disconnect", None, Bytes::new()),
        };
        self.next([Some((EVENT, HeaderValue::from_static(name))), line], body)
    }

    /// Asks whether the session may go on.
    pub fn recheck(&mut self) -> Question {
        let is_events = self.mode == Mode::Events;
        let own = events_lines().map(|line| is_events.then_some(line));
        self.next(own.into_iter().chain([Some((EVENT, HeaderValue::from_static("recheck")))]), Bytes::new())
    }

    /// The next request with events. So many bytes of them were offered before.
    pub fn events<'a>(&mut self, events: impl IntoIterator<Item = &'a WebSocketEvent>, replayed: usize) -> Question {
        let replayed = (replayed > 0).then(|| (BYTES_REPLAYED, replayed.into()));
        let mut body = Vec::new();
        events.into_iter().for_each(|event| event.encode(&mut body));
        self.next(events_lines().map(Some).into_iter().chain([replayed]), body.into())
    }

    fn next(&mut self, own: impl IntoIterator<Item = Option<(HeaderName, HeaderValue)>>, body: Bytes) -> Question {
        self.sequence += 1;
        let own = own.into_iter().flatten().chain([(SEQUENCE, self.sequence.into())]);
        let length = body.len();
        let template = self.template.as_ref().map_err(Clone::clone);
        let inquiry = template.map(|template| template.inquiry(Method::POST, own, body));
        Question { inquiry, length, grip_key: self.grip_key.clone() }
    }
}

fn meta_line(name: &str) -> String {
    format!("{}{name}", reserved::META)
}

/// With what tells a server that is not this httpd who has come here, and where: as mod_proxy does.
fn forwarded(mut headers: Vec<(String, Vec<u8>)>, client: &str, secure: bool) -> Vec<(String, Vec<u8>)> {
    const FOR: &str = "X-Forwarded-For";
    let values = |wanted: &str| -> Vec<Vec<u8>> {
        let lines = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        lines.map(|(_, value)| value.clone()).collect()
    };
    let (mut addresses, host) = (values(FOR), values("Host").concat());
    addresses.push(client.into());
    headers.retain(|(name, _)| !reserved::normal(name).starts_with("x-forwarded-"));
    let scheme = if secure { "https" } else { "http" };
    let own = [(FOR, addresses.join(&b", "[..])), ("X-Forwarded-Host", host), ("X-Forwarded-Proto", scheme.into())];
    headers.extend(own.map(|(name, value)| (name.to_owned(), value)));
    headers
}

fn events_lines() -> [(HeaderName, HeaderValue); 3] {
    [
        (ACCEPT, EVENTS),
        (CONTENT_TYPE, EVENTS),
        // The client's own is no business of the application's; by this it knows who asks.
        (SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("grip")),
    ]
}

/// As in `WebSocket-Close`. What no header may say is left out of the reason.
fn close_line(frame: CloseFrame) -> HeaderValue {
    let reason: String = frame.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = format!("{} {reason}", u16::from(frame.code));
    HeaderValue::from_bytes(line.trim_end().as_bytes()).unwrap_or_else(|_| u16::from(frame.code).into())
}

/// A request that is to be made.
pub struct Question {
    /// Or why it cannot be.
    inquiry: Result<Inquiry, AskError>,
    length: usize,
    grip_key: Option<GripKey>,
}

impl Question {
    /// Bytes of its body.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Asks once, for whom somebody waits: those are bounded otherwise.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask_now(&self) -> Result<HttpAnswer, AskError> {
        self.ask_within(TIMEOUT).await
    }

    /// As [`Question::ask_now`], within another time.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask_within(&self, time: Duration) -> Result<HttpAnswer, AskError> {
        let inquiry = self.inquiry.as_ref().map_err(Clone::clone)?;
        let Some(key) = &self.grip_key else { return loopback::ask_within(inquiry, MAX_BODY, time).await };
        // It may have waited: a signature holds for a minute.
        let signed = inquiry.with(reserved::GRIP_SIG, &key.sign(grip_sig::now()))?;
        loopback::ask_within(&signed, MAX_BODY, time).await
    }

    /// Waits for the turn of a recheck and asks, once.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask_as_recheck(self) -> Result<HttpAnswer, AskError> {
        let _turn = RequestQueue::common().recheck_turn().await;
        self.ask_now().await
    }

    /// Waits for its turn and asks; and again, some seconds later, for as long as nothing of it was sent.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(self, session: u64) -> Result<HttpAnswer, AskError> {
        let mut retries = 0;
        loop {
            let asked = {
                let _turn = RequestQueue::common().turn().await;
                self.ask_now().await
            };
            match asked {
                Err(why @ AskError::NotSent(_)) if retries < RETRIES => {
                    let pause = Duration::from_secs(1 << retries);
                    debug!("session {session}: {why}; once more in {} s", pause.as_secs());
                    tokio::time::sleep(pause).await;
                    retries += 1;
                }
                asked => return asked,
            }
        }
    }
}
