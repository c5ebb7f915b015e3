//! What the application is asked: the requests of one session, one after the other.

use super::settings::Mode;
use crate::engine::application::grip_sig::GripKey;
use crate::engine::application::loopback::{self, Application, AskError, HttpAnswer, Inquiry, TIMEOUT};
use crate::engine::application::queue::RequestQueue;
use crate::engine::application::{answer, grip_sig, reserved, store};
use crate::wire::CloseFrame;
use crate::wire::websocket_events::{MEDIA_TYPE, WebSocketEvent};
use bytes::Bytes;
use hyper::Method;
use log::debug;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the longest body of an answer.
pub const MAX_BODY: usize = 1 << 20;
/// How often what was not sent is tried again: after 1, 2, 4, 8 and 16 s.
const RETRIES: u32 = 5;

/// The session, as its application knows it.
#[derive(Debug)]
pub struct Correspondence {
    application: Arc<Application>,
    mode: Mode,
    target: String,
    client: String,
    secure: bool,
    connection: String,
    headers: Vec<(String, Vec<u8>)>,
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
    pub fn new(application: Application, mode: Mode, target: String, client: String, secure: bool) -> Correspondence {
        Correspondence {
            application: Arc::new(application),
            mode,
            target,
            client,
            secure,
            connection: String::new(),
            headers: Vec::new(),
            meta: Vec::new(),
            grip_key: None,
            sequence: 0,
        }
    }

    /// With what goes into each request: the session's name, lines of its handshake, and Meta.
    pub fn with(
        self,
        connection: String,
        headers: Vec<(String, Vec<u8>)>,
        meta: Vec<(String, String)>,
    ) -> Correspondence {
        Correspondence { connection, headers, meta, ..self }
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
        store(&mut self.meta, new);
        let bytes: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits = self.meta.len() <= answer::MAX_META_NAMES && bytes <= answer::MAX_META;
        if fits { Ok(()) } else { Err(TooMuchMeta) }
    }

    /// The next request in plain mode, which is about one event.
    pub fn plain(&mut self, event: WebSocketEvent) -> Question {
        let mut own = Vec::new();
        // PHP takes forms apart, so a message is never one.
        let text = || ("Content-Type", b"text/plain;charset=utf-8".to_vec());
        let binary = || ("Content-Type", b"application/octet-stream".to_vec());
        let (name, body) = match event {
            WebSocketEvent::Open => ("open", Bytes::new()),
            WebSocketEvent::Text(content) => {
                own.push(text());
                ("message", content)
            }
            WebSocketEvent::Binary(content) | WebSocketEvent::Ping(content) | WebSocketEvent::Pong(content) => {
                own.push(binary());
                ("message", content)
            }
            WebSocketEvent::Close(frame) => {
                own.push((reserved::CLOSE, frame.map_or_else(|| "1005".into(), |frame| close_line(&frame))));
                ("close", Bytes::new())
            }
            WebSocketEvent::Disconnect => ("disconnect", Bytes::new()),
        };
        own.push((reserved::EVENT, name.into()));
        self.next(own, body)
    }

    /// Asks, in plain mode, whether the session may go on.
    pub fn recheck(&mut self) -> Question {
        self.next(vec![(reserved::EVENT, b"recheck".to_vec())], Bytes::new())
    }

    /// The next request with events. So many bytes of them were offered before.
    pub fn events<'a>(&mut self, events: impl IntoIterator<Item = &'a WebSocketEvent>, replayed: usize) -> Question {
        let mut own = vec![
            ("Accept", MEDIA_TYPE.into()),
            ("Content-Type", MEDIA_TYPE.into()),
            // The client's own is no business of the application's; by this it knows who asks.
            ("Sec-WebSocket-Extensions", b"grip".to_vec()),
        ];
        if replayed > 0 {
            own.push(("Content-Bytes-Replayed", replayed.to_string().into()));
        }
        let mut body = Vec::new();
        events.into_iter().for_each(|event| event.encode(&mut body));
        self.next(own, body.into())
    }

    fn next(&mut self, own: Vec<(&str, Vec<u8>)>, body: Bytes) -> Question {
        self.sequence += 1;
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let meta = self.meta.iter().map(|(name, value)| (format!("{}{name}", reserved::META), value.clone().into()));
        let numbered = [
            (reserved::CONNECTION_ID.to_owned(), self.connection.clone().into()),
            (reserved::SEQUENCE.to_owned(), self.sequence.to_string().into()),
        ];
        let inquiry = Inquiry {
            method: Method::POST,
            target: self.target.clone(),
            headers: self.headers.iter().cloned().chain(own).chain(numbered).chain(meta).collect(),
            body,
            client: self.client.clone(),
            secure: self.secure,
        };
        Question { application: self.application.clone(), grip_key: self.grip_key.clone(), inquiry }
    }
}

/// As in `WebSocket-Close`. What no header may say is left out of the reason.
fn close_line(frame: &CloseFrame) -> Vec<u8> {
    let reason: String = frame.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{} {reason}", u16::from(frame.code)).trim_end().into()
}

/// A request that is to be made.
pub struct Question {
    application: Arc<Application>,
    grip_key: Option<GripKey>,
    inquiry: Inquiry,
}

impl Question {
    /// Bytes of its body.
    pub fn len(&self) -> usize {
        self.inquiry.body.len()
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
        let Some(key) = &self.grip_key else {
            return loopback::ask_within(&self.application, &self.inquiry, MAX_BODY, time).await;
        };
        // It may have waited: a signature holds for a minute.
        let mut signed = self.inquiry.clone();
        signed.headers.push((reserved::GRIP_SIG.into(), key.sign(grip_sig::now()).into()));
        loopback::ask_within(&self.application, &signed, MAX_BODY, time).await
    }

    /// Waits for its turn and asks, once.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask_once(self) -> Result<HttpAnswer, AskError> {
        let _turn = RequestQueue::common().turn().await;
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
