//! Requests of the engine: to this httpd, as a client that is where the session's is, or to an application elsewhere.
//!
//! A connection is kept for a short time, less than httpd's KeepAliveTimeout. A request is repeated by itself only where nobody
//! has read it: nothing of it was sent, or this httpd has ended a kept connection meanwhile. No redirection is followed.

mod connect;
mod pool;

use super::Loopback;
use super::reserved;
use super::token;
use crate::engine::metrics::{self, Timing};
use bytes::Bytes;
use connect::Peer;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, Request, Uri};
use pool::Failure;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer may take, from the connection to its last byte.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom the engine asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Application {
    /// This httpd, where the handshake has come in: with a certificate other than the one that it showed, it is not told anything.
    Here(Loopback),
    /// This httpd, at the listener that `WebSocketLoopback` names.
    Listener(SocketAddr),
    /// Another server.
    Elsewhere {
        /// Its name or address, in brackets where that has colons.
        host: String,
        /// Its port.
        port: u16,
        /// By TLS.
        secure: bool,
    },
}

/// What the requests of a session have in common: whom it asks for what URL, and header lines. Made once, as each message is a
/// request.
#[derive(Debug, Clone)]
pub struct Template {
    peer: Arc<Peer>,
    is_here: bool,
    target: Uri,
    headers: HeaderMap,
}

/// A request that is to be made.
#[derive(Debug, Clone)]
pub struct Inquiry {
    peer: Arc<Peer>,
    is_here: bool,
    request: Request<Full<Bytes>>,
}

/// What it says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status; an interim one (1xx) is none.
    pub status: u16,
    /// The header lines, by names in small letters.
    pub headers: Vec<(String, Vec<u8>)>,
    /// All of the body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nothing of the question was sent: it may be asked again.
    #[error("it was not asked: {0}")]
    NotSent(String),
    /// It may have been understood.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// Likewise.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Likewise; the answer is broken, or too long.
    #[error("{0}")]
    Broken(String),
    /// It can never be asked.
    #[error("this makes no request: {0}")]
    Malformed(String),
}

impl HttpAnswer {
    /// The first header line of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        line.and_then(|(_, value)| std::str::from_utf8(value).ok()).map(str::trim)
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Application::Here(Loopback { address, .. }) | Application::Listener(address) => {
                write!(f, "this httpd at {address}")
            }
            Application::Elsewhere { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

impl Application {
    fn is_here(&self) -> bool {
        !matches!(self, Application::Elsewhere { .. })
    }
}

impl Template {
    /// `target` is path and query. The header lines have a Host, and none says where a body ends. `client` is whom httpd takes for
    /// the request's client; `secure`: its connection is TLS.
    ///
    /// # Errors
    /// This makes no request.
    pub fn new(
        application: &Application,
        target: &str,
        headers: &[(String, Vec<u8>)],
        client: &str,
        secure: bool,
    ) -> Result<Template, AskError> {
        if !target.starts_with('/') {
            return Err(malformed("its path does not begin with /"));
        }
        let target = target.parse().map_err(|_| malformed("its path"))?;
        let is_here = application.is_here();
        let mut template =
            Template { peer: Arc::new(Peer::of(application)), is_here, target, headers: HeaderMap::new() };
        for (name, value) in headers {
            let (name, value) = field(name, value)?;
            // Where the body ends is not for anybody else to say.
            if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
                template.headers.append(name, value);
            }
        }
        if is_here {
            let token = token::value().ok_or_else(|| malformed("there is no token"))?;
            template.set(reserved::TOKEN, token)?;
            template.set(reserved::CLIENT, client)?;
            template.set(reserved::SECURE, if secure { "on" } else { "off" })?;
        }
        if let Application::Elsewhere { host, port, secure } = application {
            let is_usual = *port == if *secure { 443 } else { 80 };
            let value = if is_usual { host.clone() } else { format!("{host}:{port}") };
            template.set("host", &value)?;
        } else if !template.headers.contains_key(HOST) {
            return Err(malformed("there is no Host"));
        }
        Ok(template)
    }

    /// From now on this line is there, and none of its name besides.
    ///
    /// # Errors
    /// This is no header line.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), AskError> {
        let (name, value) = field(name, value.as_bytes())?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// From now on there is no line of this name.
    ///
    /// # Errors
    /// No header line has such a name.
    pub fn remove(&mut self, name: &str) -> Result<(), AskError> {
        self.headers.remove(field(name, b"")?.0);
        Ok(())
    }

    /// A request with these lines besides, each instead of those of its name.
    pub fn inquiry(
        &self,
        method: Method,
        own: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Inquiry {
        let Template { peer, is_here, target, headers } = self;
        let mut headers = headers.clone();
        own.into_iter().for_each(|(name, value)| drop(headers.insert(name, value)));
        headers.insert(CONTENT_LENGTH, body.len().into());
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, target.clone(), headers);
        Inquiry { peer: peer.clone(), is_here: *is_here, request }
    }
}

impl Inquiry {
    /// The same with this line.
    ///
    /// # Errors
    /// This is no header line.
    pub fn with(&self, name: &str, value: &str) -> Result<Inquiry, AskError> {
        let (name, value) = field(name, value.as_bytes())?;
        let mut inquiry = self.clone();
        inquiry.request.headers_mut().insert(name, value);
        Ok(inquiry)
    }
}

fn field(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), AskError> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed(name))?;
    let value = HeaderValue::from_bytes(value).map_err(|_| malformed(name.as_str()))?;
    Ok((name, value))
}

fn malformed(what: &str) -> AskError {
    AskError::Malformed(what.to_owned())
}

/// Asks, and takes in all of the answer, up to `max_body` bytes of body. To be called on a thread with
/// a runtime of its own.
///
/// # Errors
/// There is no whole answer.
pub async fn ask(inquiry: &Inquiry, max_body: usize) -> Result<HttpAnswer, AskError> {
    ask_within(inquiry, max_body, TIMEOUT).await
}

/// As [`ask`], within another time.
///
/// # Errors
/// There is no whole answer.
pub async fn ask_within(inquiry: &Inquiry, max_body: usize, time: Duration) -> Result<HttpAnswer, AskError> {
    let begun = Instant::now();
    match tokio::time::timeout(time, exchange(inquiry, max_body)).await {
        Ok(answer) => {
            if answer.is_ok() {
                metrics::here().note_time(Timing::Http, begun.elapsed());
            }
            answer
        }
        Err(_) => Err(AskError::Late(time)),
    }
}

async fn exchange(inquiry: &Inquiry, max_body: usize) -> Result<HttpAnswer, AskError> {
    let Inquiry { peer, is_here, request } = inquiry;
    loop {
        let taken = pool::take(peer, *is_here).await;
        let mut connection = taken.map_err(|why| AskError::NotSent(why.to_string()))?;
        match connection.exchange(request.clone(), max_body).await {
            Ok(answer) => {
                pool::put_back(peer, connection);
                return Ok(answer);
            }
            // It was closed while it was kept: that says nothing of the next one. httpd ends kept connections when it wants their
            // place, and what crosses with that is not read by anybody.
            Err(Failure::NotSent(_)) if connection.is_used => {}
            Err(Failure::NoAnswer(_)) if connection.is_used && *is_here => {}
            Err(Failure::NotSent(why)) => return Err(AskError::NotSent(why)),
            Err(Failure::NoAnswer(why)) => return Err(AskError::NoAnswer(why)),
            Err(Failure::Broken(why)) => return Err(AskError::Broken(why)),
        }
    }
}

#[cfg(test)]
mod tests;
