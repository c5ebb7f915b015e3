//! Requests of the engine: to this httpd, as a client that is where the session's is, or to an application elsewhere.
//!
//! A connection is kept for a short time, less than httpd's KeepAliveTimeout. A request is repeated by itself only where nobody
//! has read it: nothing of it was sent, or this httpd has ended a kept connection meanwhile. No redirection is followed.

mod connect;
mod pool;

use super::Loopback;
use super::reserved;
use super::token;
use bytes::Bytes;
use connect::Peer;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

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

/// What it is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// GET or POST.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// With Host, and without what says where the body ends.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What follows the head.
    pub body: Bytes,
    /// For whom: what httpd takes the request's client for.
    pub client: String,
    /// The client's connection is TLS.
    pub secure: bool,
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

/// Asks, and takes in all of the answer, up to `max_body` bytes of body. To be called on a thread with
/// a runtime of its own.
///
/// # Errors
/// There is no whole answer.
pub async fn ask(application: &Application, inquiry: &Inquiry, max_body: usize) -> Result<HttpAnswer, AskError> {
    ask_within(application, inquiry, max_body, TIMEOUT).await
}

/// As [`ask`], within another time.
///
/// # Errors
/// There is no whole answer.
pub async fn ask_within(
    application: &Application,
    inquiry: &Inquiry,
    max_body: usize,
    time: Duration,
) -> Result<HttpAnswer, AskError> {
    let request = request(application, inquiry)?;
    let peer = Peer::of(application);
    match tokio::time::timeout(time, exchange(&peer, request, max_body, application.is_here())).await {
        Ok(answer) => answer,
        Err(_) => Err(AskError::Late(time)),
    }
}

async fn exchange(
    peer: &Peer,
    mut request: Request<Full<Bytes>>,
    max_body: usize,
    is_here: bool,
) -> Result<HttpAnswer, AskError> {
    loop {
        let mut connection = pool::take(peer).await.map_err(|why| AskError::NotSent(why.to_string()))?;
        // httpd ends kept connections when it wants their place, and what crosses with that is not read by anybody.
        let spare = (is_here && connection.is_used).then(|| request.clone());
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let answer = take_in(response, max_body).await?;
                pool::put_back(peer, connection);
                return Ok(answer);
            }
            Err(mut failure) => match failure.take_message().or(spare) {
                // It was closed while it was kept: that says nothing of the next one.
                Some(again) if connection.is_used => request = again,
                Some(_) => return Err(AskError::NotSent(failure.into_error().to_string())),
                None => return Err(AskError::NoAnswer(failure.into_error().to_string())),
            },
        }
    }
}

async fn take_in(response: Response<Incoming>, max_body: usize) -> Result<HttpAnswer, AskError> {
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, max_body).collect().await.map_err(|why| match why.downcast::<LengthLimitError>() {
            Ok(_) => AskError::Broken(format!("its answer has more than {max_body} bytes")),
            Err(why) => AskError::Broken(format!("its answer breaks off: {why}")),
        })?;
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Ok(HttpAnswer { status: head.status.as_u16(), headers: headers.collect(), body: body.to_bytes() })
}

fn request(application: &Application, inquiry: &Inquiry) -> Result<Request<Full<Bytes>>, AskError> {
    let malformed = |what: &str| AskError::Malformed(what.to_owned());
    if !inquiry.target.starts_with('/') {
        return Err(malformed("its path does not begin with /"));
    }
    let body = Full::new(inquiry.body.clone());
    let mut request = Request::new(body);
    *request.method_mut() = inquiry.method.clone();
    *request.uri_mut() = inquiry.target.parse().map_err(|_| malformed("its path"))?;
    let headers = request.headers_mut();
    let mut add = |name: &str, value: &[u8]| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed(name))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| malformed(name.as_str()))?;
        // Where the body ends is not for anybody else to say.
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            headers.append(name, value);
        }
        Ok(())
    };
    for (name, value) in &inquiry.headers {
        add(name, value)?;
    }
    if application.is_here() {
        let token = token::value().ok_or_else(|| malformed("there is no token"))?;
        add(reserved::TOKEN, token.as_bytes())?;
        add(reserved::CLIENT, inquiry.client.as_bytes())?;
        add(reserved::SECURE, if inquiry.secure { b"on" } else { b"off" })?;
    }
    if let Application::Elsewhere { host, port, secure } = application {
        let is_usual = *port == if *secure { 443 } else { 80 };
        let value = if is_usual { host.clone() } else { format!("{host}:{port}") };
        headers.insert(HOST, HeaderValue::from_str(&value).map_err(|_| malformed("its host"))?);
    } else if !headers.contains_key(HOST) {
        return Err(malformed("there is no Host"));
    }
    headers.insert(CONTENT_LENGTH, inquiry.body.len().into());
    Ok(request)
}

#[cfg(test)]
mod tests;
