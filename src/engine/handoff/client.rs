//! httpd's end of a link, and the links that a child keeps.

use super::codec::{encode, send_before, send_bytes_with};
use super::{FromEngine, PATIENCE, ProxiedBackend, ToEngine, receive, send, send_with, version};
use crate::engine::health::gate::{Gate, Late, Question};
use crate::engine::health::patient::PatientStream;
use crate::engine::query::Query;
use crate::engine::{ForeignRefusal, Response, SessionSpec, entrance};
use crate::tls::record::Keys;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Links that a child keeps open between two handshakes.
const KEPT_LINKS: usize = 16;

/// A place that the engine keeps for a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    pub id: u64,
    pub response: Response,
    /// The engine thread that a mux for it has to go to.
    pub thread: u32,
}

/// Why a session could not be handed over, or a handler not be called; whatever it is, no 101 was sent.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The engine said no: answer with this status.
    #[error("the engine refused: {reason}")]
    Refused {
        status: u16,
        reason: String,
        /// It was configured so, and is no error.
        by_quota: bool,
    },
    /// Somebody else said no: answer as they did.
    #[error("{0}")]
    Answered(Box<ForeignRefusal>),
    /// The handler has nothing there: decline.
    #[error("the handler has nothing there")]
    Declined,
    /// The handler wants the connection to end: answer nothing.
    #[error("the handler dropped the connection")]
    Dropped,
    /// The engine could not be asked: answer 503.
    #[error("the engine cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// The engine was asked and gave no answer: answer 503, but where it may have done what must not be done twice.
    #[error("the engine gave no answer: {0}")]
    Unanswered(io::Error),
    /// The engine was not asked, since it is known to be late or enough wait for it: answer 503.
    #[error("{0}")]
    Late(#[from] Late),
    /// The engine is of another version than this module: answer 503. httpd's parent replaces it.
    #[error("the engine speaks \"{0}\", this module \"{own}\"", own = version())]
    Version(String),
}

impl HandoffError {
    /// The engine is late, which is said in the log once and not of each request.
    pub fn is_late(&self) -> bool {
        match self {
            HandoffError::Late(_) => true,
            HandoffError::Unreachable(why) | HandoffError::Unanswered(why) => {
                why.get_ref().is_some_and(|why| why.is::<Late>())
            }
            _ => false,
        }
    }
}

/// httpd's end of a link. All calls block, for some seconds at most.
#[derive(Debug)]
pub struct Link {
    pub(super) stream: PatientStream,
}

impl Link {
    /// Opens a link to the engine, through the end of a [`entrance::pair`] that is the children's.
    ///
    /// # Errors
    /// As [`entrance::open`].
    #[cfg(test)]
    pub fn open(entrance: BorrowedFd<'_>) -> io::Result<Link> {
        Link::open_with(entrance, None, None)
    }

    /// Opens a link past this gate, and for this question.
    fn open_with(entrance: BorrowedFd<'_>, gate: Option<Gate>, question: Option<Question>) -> io::Result<Link> {
        let mut link = Link { stream: PatientStream::new(entrance::open(entrance)?, gate, question)? };
        link.send(&ToEngine::Hello { version: version().into() })?;
        Ok(link)
    }

    pub(super) fn send(&mut self, message: &ToEngine) -> io::Result<()> {
        send(&mut self.stream, message)
    }

    pub(super) fn send_with(&mut self, message: &ToEngine, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_with(&mut self.stream, message, descriptors)
    }

    /// The engine is gone, or has closed the link.
    pub fn is_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn receive(&mut self) -> io::Result<FromEngine> {
        receive(&mut self.stream)
    }

    /// Offers a session.
    pub fn offer(&mut self, spec: &SessionSpec) -> Result<Granted, HandoffError> {
        // The spec is borrowed; the enum wants to own it.
        match self.ask(&ToEngine::Offer(Box::new(spec.clone())))? {
            FromEngine::Granted { id, response, thread } => Ok(Granted { id, response, thread }),
            FromEngine::Answered(answer) => Err(HandoffError::Answered(answer)),
            FromEngine::Declined => Err(HandoffError::Declined),
            FromEngine::Dropped => Err(HandoffError::Dropped),
            other => Err(unexpected(&other).into()),
        }
    }

    /// As [`Link::offer`], for a handler that may take some time.
    pub fn offer_within(&mut self, spec: &SessionSpec, patience: Duration) -> Result<Granted, HandoffError> {
        self.stream.be_patient(patience);
        let answer = self.offer(spec);
        self.stream.be_patient(PATIENCE);
        answer
    }

    /// Has the engine open a session over this socket, with an encoded [`ToEngine::Open`]. Returns the session's number.
    fn open_session(
        &mut self,
        message: &[u8],
        socket: BorrowedFd<'_>,
        patience: Duration,
    ) -> Result<u64, HandoffError> {
        self.stream.be_patient(patience);
        let answer = send_bytes_with(&mut self.stream, message, &[socket]).map_err(HandoffError::from);
        let answer = match answer.and_then(|()| self.answer()) {
            Err(HandoffError::Unanswered(why)) if is_late(&why) => {
                self.last_word().map_or(Err(HandoffError::Unanswered(why)), understand)
            }
            answer => answer,
        };
        self.stream.be_patient(PATIENCE);
        match answer? {
            FromEngine::Opened { id } => Ok(id),
            FromEngine::Answered(answer) => Err(HandoffError::Answered(answer)),
            FromEngine::Declined => Err(HandoffError::Declined),
            FromEngine::Dropped => Err(HandoffError::Dropped),
            other => Err(unexpected(&other).into()),
        }
    }

    /// The answer to what is given up now, if it has come at the last moment. From then on the engine finds that nobody listens,
    /// and takes nothing over.
    pub(super) fn last_word(&mut self) -> Option<FromEngine> {
        shutdown(&self.stream, Shutdown::Both).ok()?;
        self.receive().ok()
    }

    fn call(&mut self, call: &ToEngine, payload: &[u8]) -> Result<Vec<u8>, HandoffError> {
        send_before(&mut self.stream, call, payload)?;
        match self.answer()? {
            FromEngine::Answer { answer } => Ok(answer),
            other => Err(HandoffError::Unanswered(unexpected(&other))),
        }
    }

    /// Gives an engine thread the other end of a mux; returns the mux's number.
    pub fn open_mux(&mut self, thread: u32, mux: BorrowedFd<'_>) -> Result<u64, HandoffError> {
        self.stream.enter()?;
        self.send_with(&ToEngine::Mux { thread }, &[mux])?;
        match self.answer()? {
            FromEngine::Mux { number } => Ok(number),
            other => Err(unexpected(&other).into()),
        }
    }

    fn ask(&mut self, question: &ToEngine) -> Result<FromEngine, HandoffError> {
        self.send(question)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<FromEngine, HandoffError> {
        let answer = self.receive().map_err(HandoffError::Unanswered)?;
        self.stream.answered();
        understand(answer)
    }

    /// Hands the socket of a granted session over, and with it the keys of its TLS, if it has any, and the end of a link to
    /// this process, if its handler wants one. The caller's descriptors stay the caller's to close.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn give(
        &mut self,
        id: u64,
        early: Vec<u8>,
        socket: BorrowedFd<'_>,
        tls: Option<Box<Keys>>,
        link: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = [socket].into_iter().chain(link).collect();
        self.send_with(&ToEngine::Take { id, early, linked: link.is_some(), tls, backend: None }, &descriptors)
    }

    /// Says that a granted session comes over this mux, which goes to the thread of its [`Granted`].
    ///
    /// # Errors
    /// The engine is gone.
    pub fn carry(&mut self, id: u64, mux: u64) -> io::Result<()> {
        self.send(&ToEngine::Carry { id, mux, backend: None })
    }

    /// As [`Link::give`], with the connection to the server that the session was proxied to; `settings` are the handler's.
    ///
    /// # Errors
    /// The engine is gone.
    #[allow(dead_code, reason = "what takes over mod_proxy's tunnels calls it")]
    pub fn give_proxied(&mut self, id: u64, client: Side<'_>, backend: Side<'_>, settings: Vec<u8>) -> io::Result<()> {
        let Side { socket, early, keys: tls } = client;
        let (server, backend) = backend.split(settings);
        self.send_with(&ToEngine::Take { id, early, linked: false, tls, backend: Some(backend) }, &[socket, server])
    }

    /// As [`Link::carry`], with the connection to the server that the session was proxied to; `settings` are the handler's.
    ///
    /// # Errors
    /// The engine is gone.
    #[allow(dead_code, reason = "what takes over mod_proxy's tunnels calls it")]
    pub fn carry_proxied(&mut self, id: u64, mux: u64, backend: Side<'_>, settings: Vec<u8>) -> io::Result<()> {
        let (server, backend) = backend.split(settings);
        self.send_with(&ToEngine::Carry { id, mux, backend: Some(backend) }, &[server])
    }

    /// Gives a granted session back.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn abandon(&mut self, id: u64) -> io::Result<()> {
        self.send(&ToEngine::Abandon { id })
    }

    /// Closes a session that was handed over, over this link or another, with this code and reason.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn close_session(&mut self, id: u64, code: u16, reason: &str) -> io::Result<()> {
        self.send(&ToEngine::Close { id, code, reason: reason.into() })
    }
}

/// One of the two connections of a session that was proxied. The descriptor stays the caller's to close.
#[allow(dead_code, reason = "what takes over mod_proxy's tunnels calls it")]
#[derive(Debug)]
pub struct Side<'a> {
    pub socket: BorrowedFd<'a>,
    /// What httpd has read of it and not passed on.
    pub early: Vec<u8>,
    /// It has TLS on it, with these keys, whichever end of it httpd is.
    pub keys: Option<Box<Keys>>,
}

impl<'a> Side<'a> {
    /// As that of the server.
    #[allow(dead_code, reason = "what takes over mod_proxy's tunnels calls it")]
    fn split(self, settings: Vec<u8>) -> (BorrowedFd<'a>, Box<ProxiedBackend>) {
        let Side { socket, early, keys: tls } = self;
        (socket, Box::new(ProxiedBackend { early, tls, settings }))
    }
}

fn understand(answer: FromEngine) -> Result<FromEngine, HandoffError> {
    match answer {
        FromEngine::Refused { status, reason, by_quota } => Err(HandoffError::Refused { status, reason, by_quota }),
        FromEngine::Hello { version } => Err(HandoffError::Version(version)),
        answer => Ok(answer),
    }
}

/// No answer has come in [`PATIENCE`].
fn is_late(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

pub(in crate::engine) fn unexpected(answer: &FromEngine) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {answer:?}"))
}

/// A child's way to the engine: links that are kept between two handshakes.
#[derive(Debug)]
pub struct EngineClient {
    entrance: OwnedFd,
    gate: Option<Gate>,
    idle: Mutex<Vec<Link>>,
}

impl EngineClient {
    /// Through the children's end of a [`entrance::pair`].
    pub fn new(entrance: OwnedFd) -> EngineClient {
        EngineClient { entrance, gate: None, idle: Mutex::new(Vec::new()) }
    }

    /// Before which there is a gate.
    pub fn behind(self, gate: Gate) -> EngineClient {
        EngineClient { gate: Some(gate), ..self }
    }

    #[cfg(test)]
    pub fn offer(&self, spec: &SessionSpec) -> Result<(Link, Granted), HandoffError> {
        self.ask(true, PATIENCE, |link| link.offer(spec))
    }

    /// Offers a session to a handler that may take some time; returns the link to go on with, and the place that was granted.
    pub fn offer_within(&self, spec: &SessionSpec, patience: Duration) -> Result<(Link, Granted), HandoffError> {
        self.ask(true, patience, |link| link.offer_within(spec, patience))
    }

    /// Has the engine open a session over this socket, which stays the caller's to close. Returns the session's number: the client
    /// gets its 101 from the engine then, and nothing from here.
    ///
    /// # Errors
    /// The client has heard nothing, and will not from there.
    pub fn open(&self, session: ToEngine, socket: BorrowedFd<'_>, patience: Duration) -> Result<u64, HandoffError> {
        // Wiped when it has gone: it may have a client's keys in it.
        let message = Zeroizing::new(encode(&session)?);
        let (link, id) = self.ask(true, patience, |link| link.open_session(&message, socket, patience))?;
        self.check_in(link);
        Ok(id)
    }

    /// Calls a handler, which is given the payload with the request; returns its answer.
    pub fn call(&self, handler: &str, request: Vec<u8>, payload: &[u8]) -> Result<Vec<u8>, HandoffError> {
        let call = ToEngine::Call { handler: handler.into(), request, payload: Bytes::new() };
        let (link, answer) = self.ask(false, PATIENCE, |link| link.call(&call, payload))?;
        self.check_in(link);
        Ok(answer)
    }

    /// Asks all threads of the engine; returns the answer.
    pub fn query(&self, query: Query, patience: Duration) -> Result<Vec<u8>, HandoffError> {
        let query = ToEngine::Query(query);
        let (link, answer) = self.ask(true, patience, |link| {
            link.stream.be_patient(patience);
            let answer = link.call(&query, &[]);
            link.stream.be_patient(PATIENCE);
            answer
        })?;
        self.check_in(link);
        Ok(answer)
    }

    /// `is_void`: a question whose link has broken counts for nothing, and may be asked once more. `patience` is for what is
    /// behind the engine.
    fn ask<T>(
        &self,
        is_void: bool,
        patience: Duration,
        question: impl Fn(&mut Link) -> Result<T, HandoffError>,
    ) -> Result<(Link, T), HandoffError> {
        let mut asked = self.gate.map(|gate| gate.enter(patience)).transpose()?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut link) = kept {
            link.stream.ask(asked.take());
            match question(&mut link) {
                Ok(answer) => return Ok((link, answer)),
                // It is there and has heard the question, or was: that must not be asked twice.
                Err(HandoffError::Unanswered(why)) if !is_void || is_late(&why) => {
                    return Err(HandoffError::Unanswered(why));
                }
                Err(HandoffError::Unreachable(why)) if is_late(&why) => return Err(why.into()),
                // That engine is gone; there may be another.
                Err(HandoffError::Unreachable(_) | HandoffError::Unanswered(_)) => asked = link.stream.take_question(),
                Err(refusal) => {
                    self.check_in(link);
                    return Err(refusal);
                }
            }
        }
        let mut link = Link::open_with(self.entrance.as_fd(), self.gate, asked)?;
        match question(&mut link) {
            Ok(answer) => Ok((link, answer)),
            Err(why) => {
                let is_broken = matches!(why, HandoffError::Unreachable(_) | HandoffError::Unanswered(_));
                if !is_broken && !matches!(why, HandoffError::Version(_)) {
                    self.check_in(link);
                }
                Err(why)
            }
        }
    }

    /// Asks the engine to close a session with this Close frame.
    ///
    /// # Errors
    /// The engine is gone, and the session with it.
    pub fn close_session(&self, id: u64, code: u16, reason: &str) -> io::Result<()> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut link = match kept {
            Some(link) => link,
            None => Link::open_with(self.entrance.as_fd(), self.gate, None)?,
        };
        link.close_session(id, code, reason)?;
        self.check_in(link);
        Ok(())
    }

    pub fn check_in(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT_LINKS {
            idle.push(link);
        }
    }
}
