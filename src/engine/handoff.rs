//! How an httpd child gives a socket to the engine, over a link: see [`super::entrance`].
//!
//! ```text
//! child                                     engine
//!   Hello { version } Offer(SessionSpec) ──▶
//!                            ◀── Granted { ticket, … } or  Refused { … }: the client gets that status, and no 101
//!                                                     or   Declined, Dropped: no answer of ours, or none at all
//!   (the 101 goes to the client, unless the handler has said that it answers by itself)
//!   Take { ticket, early }  + the socket  ──▶           or   Abandon { ticket }: the client was gone
//!                           (and a link to the child, for a handler that has its other half there)
//!   Carry { ticket, … }                   ──▶           or, in the place of Take: its bytes come over a trunk
//!   Trunk { thread }  + its other end     ──▶           before the first of these
//!                            ◀── Trunk { number }
//!   Close { ticket, … }                   ──▶           later, over any link
//!   Call { handler, … }                   ──▶           something a handler is asked that belongs to no session
//!                            ◀── Answer { … }         or   Refused { … }
//! ```
//!
//! A message is its length (4 bytes, big-endian) and its [`postcard`] form. A descriptor travels with the first byte of
//! the message it belongs to (SCM_RIGHTS, unix(7)). A link serves one handshake after the other; a ticket lives as long
//! as the link it came over.

use super::entrance;
use super::gate::{Gate, Late, Patient, Question, Wait};
use super::{Reply, SessionSpec};
use crate::tls::record::Keys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

/// What both ends must agree on: the messages below, and [`SessionSpec`].
const VERSION: &str = "mod_websocket handoff 10";

/// What this code speaks: see [`super::control::Control::configure`].
///
/// Read from the library's data and not compiled into comparisons: so that a copy of the library with another text in that
/// place stands for another version, in tests.
pub fn version() -> &'static str {
    std::hint::black_box(VERSION)
}

/// The longest message (bytes): room for a published message of 64 MiB. A request head at httpd's limits, and what arrived
/// with it, are far below.
pub const MAX_MESSAGE: usize = 65 << 20;
/// Descriptors that come with a message, at most.
const DESCRIPTORS: usize = 2;
/// Bytes that the engine reads of a link at a time.
const READ: usize = 16 * 1024;
/// Bytes that a child expects of an answer, for the first.
const ANSWER: usize = 512;
/// Links that a child keeps open between two handshakes.
const KEPT_LINKS: usize = 16;
/// How long a message may take that has begun: whoever sends it has all of it.
const MESSAGE_TIME: Duration = Duration::from_secs(10);
/// How long a child waits for the engine. A new engine in the place of one that crashed is there sooner.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What travels: see [`encode`].
pub trait Message: Serialize + DeserializeOwned {
    /// It is to be wiped where it has been.
    fn is_secret(&self) -> bool {
        false
    }
}

/// From httpd's children to the engine.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// First on every link.
    Hello {
        /// The sender's [`version`].
        version: String,
    },
    /// Will you run this session?
    Offer(Box<SessionSpec>),
    /// The session's socket comes with this message.
    Take {
        /// From [`FromEngine::Granted`].
        ticket: u64,
        /// Bytes that the client sent after its handshake and that httpd has read.
        early: Vec<u8>,
        /// A second descriptor comes behind the socket: see [`super::Adoption::link`].
        linked: bool,
        /// The socket has TLS on it, with these keys. `early` is what came in it.
        tls: Option<Box<Keys>>,
    },
    /// The session comes over a trunk, as the stream with the ticket's number.
    Carry {
        /// From [`FromEngine::Granted`].
        ticket: u64,
        /// From [`FromEngine::Trunk`].
        trunk: u64,
    },
    /// The other end of a new trunk comes with this message: see [`super::trunk`].
    Trunk {
        /// The engine thread that is to have it: the one of the sessions that will come over it.
        thread: u32,
    },
    /// The session will not come.
    Abandon {
        /// From [`FromEngine::Granted`].
        ticket: u64,
    },
    /// Close an open session. Nothing happens where it has ended.
    Close {
        /// From [`FromEngine::Granted`].
        ticket: u64,
        /// The close code; in the place of one that may not be sent goes 1001.
        code: u16,
        /// The reason that the Close frame gives; its first 123 bytes.
        reason: String,
    },
    /// A question to a handler, or something it is to do: see [`super::Handler::call`].
    Call {
        /// As in `WebSocketHandler NAME`.
        handler: String,
        /// In the handler's own form.
        request: Vec<u8>,
    },
}

impl Message for ToEngine {
    fn is_secret(&self) -> bool {
        matches!(self, ToEngine::Take { tls: Some(_), .. })
    }
}

/// From the engine to httpd.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum FromEngine {
    /// The answer to a Hello of another version, and to [`super::control::Order::Configure`]. Stays as it is in every version.
    Hello {
        /// The engine's [`version`].
        version: String,
    },
    /// The engine keeps a place for the session.
    Granted {
        /// The session's number, as log lines name it.
        ticket: u64,
        /// Header lines for the 101, by name and value.
        headers: Vec<(String, String)>,
        /// Who sends it.
        reply: Reply,
        /// The engine thread that a trunk for it has to go to.
        thread: u32,
    },
    /// The answer to [`ToEngine::Trunk`].
    Trunk {
        /// The trunk's number; no other of this engine has it.
        number: u64,
    },
    /// The handler has nothing there: somebody else is to answer.
    Declined,
    /// The client gets no answer: its connection is to end.
    Dropped,
    /// The answer to [`ToEngine::Call`].
    Answer {
        /// In the handler's own form.
        answer: Vec<u8>,
    },
    /// The engine cannot run the session, or the handler cannot do what it was called for.
    Refused {
        /// The HTTP status for the client.
        status: u16,
        /// For the log.
        reason: String,
        /// It was configured so: one of the session's quotas is used up.
        by_quota: bool,
    },
    /// Before the answer to an offer or a call that takes its time, since the handler has asked somebody else.
    Asking,
}

/// A place that the engine keeps for a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// The session's number.
    pub ticket: u64,
    /// Header lines for the 101, by name and value.
    pub headers: Vec<(String, String)>,
    /// Who sends it.
    pub reply: Reply,
    /// The engine thread that a trunk for it has to go to.
    pub thread: u32,
}

/// Why a session could not be handed over, or a handler not be called; whatever it is, no 101 was sent.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The engine said no: answer with this status.
    #[error("the engine refused: {reason}")]
    Refused {
        /// An HTTP status.
        status: u16,
        /// For the log.
        reason: String,
        /// It was configured so, and is no error.
        by_quota: bool,
    },
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

/// A message as it travels.
///
/// # Errors
/// It is longer than [`MAX_MESSAGE`].
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut out = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let length = out.len() - 4;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a handoff message of {length} bytes")));
    }
    out[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(out)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// What the engine has read of a link and not yet understood.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Vec<u8>,
}

impl Inbox {
    /// Adds the next piece of the stream.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the first message out; `None` while it is not complete.
    ///
    /// # Errors
    /// What has come is no message; nor is what follows it.
    pub fn take<M: Message>(&mut self) -> io::Result<Option<M>> {
        self.take_if_known().and_then(Option::transpose)
    }

    /// As [`Inbox::take`], but what is no message `M` is an error inside, and taken out.
    fn take_if_known<M: Message>(&mut self) -> io::Result<Option<io::Result<M>>> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a handoff message of {length} bytes")));
        }
        let Some(message) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = decode::<M>(message);
        if message.as_ref().is_ok_and(Message::is_secret) {
            self.buffer[..4 + length].zeroize();
        }
        self.buffer.drain(..4 + length);
        // A link is kept for long, and a large message is rare.
        self.buffer.shrink_to(READ);
        Ok(Some(message))
    }
}

/// Says something, over a stream that blocks.
pub(super) fn say(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// As [`say`], with these descriptors.
pub(super) fn say_with(
    stream: &mut impl Wait,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    // Wiped when it has gone: it may have a client's keys in it.
    let bytes = Zeroizing::new(encode(message)?);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    let sent = loop {
        match sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(sent) => break sent,
            Err(Errno::INTR) => {}
            // It waits as long as the stream may.
            Err(Errno::AGAIN) => stream.wait()?,
            Err(why) => return Err(why.into()),
        }
    };
    stream.write_all(&bytes[sent..])
}

/// Waits for an answer, over a stream that blocks.
pub(super) fn hear(stream: &mut (impl Read + Wait)) -> io::Result<FromEngine> {
    // But for what is said before an answer, nothing follows before the next question, and most are short. A long one grows with
    // what comes of it.
    let (mut heard, mut count) = (vec![0; ANSWER], 0);
    loop {
        if count == heard.len() {
            heard.resize(2 * count, 0);
        }
        count += match stream.read(&mut heard[count..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        while let Some((head, message)) = heard[..count].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > MAX_MESSAGE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some((message, rest)) = message.split_at_checked(length) else { break };
            match decode(message)? {
                FromEngine::Asking => stream.pass_on(),
                answer if rest.is_empty() => return Ok(answer),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            heard.copy_within(4 + length..count, 0);
            count -= 4 + length;
        }
    }
}

/// httpd's end of a link. All calls block, for some seconds at most.
#[derive(Debug)]
pub struct Link {
    stream: Patient,
}

impl Link {
    /// Opens a link to the engine, through the end of a [`entrance::pair`] that is the children's.
    ///
    /// # Errors
    /// As [`entrance::open`].
    pub fn open(entrance: BorrowedFd<'_>) -> io::Result<Link> {
        Link::open_with(entrance, None, None)
    }

    /// As [`Link::open`], past this gate, and for this question.
    fn open_with(entrance: BorrowedFd<'_>, gate: Option<Gate>, question: Option<Question>) -> io::Result<Link> {
        let mut link = Link { stream: Patient::new(entrance::open(entrance)?, gate, question)? };
        link.say(&ToEngine::Hello { version: version().into() })?;
        Ok(link)
    }

    fn say(&mut self, message: &ToEngine) -> io::Result<()> {
        say(&mut self.stream, message)
    }

    fn say_with(&mut self, message: &ToEngine, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        say_with(&mut self.stream, message, descriptors)
    }

    fn hear(&mut self) -> io::Result<FromEngine> {
        hear(&mut self.stream)
    }

    /// Offers a session.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn offer(&mut self, spec: &SessionSpec) -> Result<Grant, HandoffError> {
        // The spec is borrowed; the enum wants to own it.
        match self.ask(&ToEngine::Offer(Box::new(spec.clone())))? {
            FromEngine::Granted { ticket, headers, reply, thread } => Ok(Grant { ticket, headers, reply, thread }),
            FromEngine::Declined => Err(HandoffError::Declined),
            FromEngine::Dropped => Err(HandoffError::Dropped),
            other => Err(unexpected(&other).into()),
        }
    }

    /// As [`Link::offer`], for a handler that may take some time.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn offer_within(&mut self, spec: &SessionSpec, patience: Duration) -> Result<Grant, HandoffError> {
        self.stream.be_patient(patience);
        let answer = self.offer(spec);
        self.stream.be_patient(PATIENCE);
        answer
    }

    /// Calls a handler; returns its answer.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn call(&mut self, handler: &str, request: Vec<u8>) -> Result<Vec<u8>, HandoffError> {
        match self.ask(&ToEngine::Call { handler: handler.into(), request })? {
            FromEngine::Answer { answer } => Ok(answer),
            other => Err(HandoffError::Unanswered(unexpected(&other))),
        }
    }

    /// Gives an engine thread the other end of a trunk; returns the trunk's number.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn lay(&mut self, thread: u32, trunk: BorrowedFd<'_>) -> Result<u64, HandoffError> {
        self.stream.enter()?;
        self.say_with(&ToEngine::Trunk { thread }, &[trunk])?;
        match self.answer()? {
            FromEngine::Trunk { number } => Ok(number),
            other => Err(unexpected(&other).into()),
        }
    }

    fn ask(&mut self, question: &ToEngine) -> Result<FromEngine, HandoffError> {
        self.say(question)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<FromEngine, HandoffError> {
        let answer = self.hear().map_err(HandoffError::Unanswered)?;
        self.stream.answered();
        match answer {
            FromEngine::Refused { status, reason, by_quota } => Err(HandoffError::Refused { status, reason, by_quota }),
            FromEngine::Hello { version } => Err(HandoffError::Version(version)),
            answer => Ok(answer),
        }
    }

    /// Hands the socket of a granted session over, and with it the keys of its TLS, if it has any, and the end of a link to
    /// this process, if its handler wants one. The caller's descriptors stay the caller's to close.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn give(
        &mut self,
        ticket: u64,
        early: Vec<u8>,
        socket: BorrowedFd<'_>,
        tls: Option<Box<Keys>>,
        link: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = [socket].into_iter().chain(link).collect();
        self.say_with(&ToEngine::Take { ticket, early, linked: link.is_some(), tls }, &descriptors)
    }

    /// Says that a granted session comes over this trunk, which was laid to the thread of its [`Grant`].
    ///
    /// # Errors
    /// The engine is gone.
    pub fn carry(&mut self, ticket: u64, trunk: u64) -> io::Result<()> {
        self.say(&ToEngine::Carry { ticket, trunk })
    }

    /// Gives a ticket back.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn abandon(&mut self, ticket: u64) -> io::Result<()> {
        self.say(&ToEngine::Abandon { ticket })
    }

    /// Closes a session that was handed over, over this link or another, with this code and reason.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn close_session(&mut self, ticket: u64, code: u16, reason: &str) -> io::Result<()> {
        self.say(&ToEngine::Close { ticket, code, reason: reason.into() })
    }
}

/// No answer has come in [`PATIENCE`].
fn is_late(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

pub(super) fn unexpected(answer: &FromEngine) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {answer:?}"))
}

/// A child's way to the engine: links that are kept between two handshakes.
#[derive(Debug)]
pub struct Door {
    entrance: OwnedFd,
    gate: Option<Gate>,
    idle: Mutex<Vec<Link>>,
}

impl Door {
    /// Through the children's end of a [`entrance::pair`].
    pub fn new(entrance: OwnedFd) -> Door {
        Door { entrance, gate: None, idle: Mutex::new(Vec::new()) }
    }

    /// Before which there is a gate.
    pub fn behind(self, gate: Gate) -> Door {
        Door { gate: Some(gate), ..self }
    }

    /// Offers a session; returns the link to go on with, and the place that was granted.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn offer(&self, spec: &SessionSpec) -> Result<(Link, Grant), HandoffError> {
        self.ask(true, PATIENCE, |link| link.offer(spec))
    }

    /// As [`Door::offer`], for a handler that may take some time.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn offer_within(&self, spec: &SessionSpec, patience: Duration) -> Result<(Link, Grant), HandoffError> {
        self.ask(true, patience, |link| link.offer_within(spec, patience))
    }

    /// Calls a handler; returns its answer.
    ///
    /// # Errors
    /// See [`HandoffError`].
    pub fn call(&self, handler: &str, request: Vec<u8>) -> Result<Vec<u8>, HandoffError> {
        let (link, answer) = self.ask(false, PATIENCE, |link| link.call(handler, request.clone()))?;
        self.keep(link);
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
                    self.keep(link);
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
                    self.keep(link);
                }
                Err(why)
            }
        }
    }

    /// Asks the engine to close a session with this Close frame.
    ///
    /// # Errors
    /// The engine is gone, and the session with it.
    pub fn close_session(&self, ticket: u64, code: u16, reason: &str) -> io::Result<()> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut link = match kept {
            Some(link) => link,
            None => Link::open_with(self.entrance.as_fd(), self.gate, None)?,
        };
        link.close_session(ticket, code, reason)?;
        self.keep(link);
        Ok(())
    }

    /// Takes a link back after use.
    pub fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT_LINKS {
            idle.push(link);
        }
    }
}

/// The engine's end of a stream of messages.
#[derive(Debug)]
pub struct Receiver<M = ToEngine> {
    stream: tokio::net::UnixStream,
    inbox: Inbox,
    descriptors: VecDeque<OwnedFd>,
    /// When the message began that is not complete.
    begun: Option<Instant>,
    /// How long it may take.
    message_time: Duration,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message> Receiver<M> {
    /// Of one end of a pair.
    pub fn new(stream: tokio::net::UnixStream) -> Receiver<M> {
        Receiver {
            stream,
            inbox: Inbox::default(),
            descriptors: VecDeque::new(),
            begun: None,
            message_time: MESSAGE_TIME,
            messages: PhantomData,
        }
    }

    /// The next message; `None` when the other end has closed.
    ///
    /// # Errors
    /// The stream broke, or carried what is no message, or one that does not end.
    pub async fn next(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(message) = self.inbox.take()? {
                self.begun = None;
                return Ok(Some(message));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// As [`Receiver::next`]; `Some(None)` for a message that means nothing here.
    ///
    /// # Errors
    /// The stream broke, or carried no messages at all, or one that does not end.
    pub async fn next_if_known(&mut self) -> io::Result<Option<Option<M>>> {
        loop {
            if let Some(message) = self.inbox.take_if_known()? {
                self.begun = None;
                return Ok(Some(message.ok()));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for the next piece; false when the other end has closed.
    async fn read(&mut self) -> io::Result<bool> {
        if self.inbox.buffer.is_empty() {
            self.stream.readable().await?;
        } else {
            let end = *self.begun.get_or_insert_with(Instant::now) + self.message_time;
            tokio::select! {
                // What has come counts, however late it is looked at.
                biased;
                readable = self.stream.readable() => readable?,
                () = tokio::time::sleep_until(end) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "a handoff message has begun and does not end"));
                }
            }
        }
        let (inbox, descriptors, stream) = (&mut self.inbox, &mut self.descriptors, &self.stream);
        let mut ended = false;
        let read = stream.try_io(tokio::io::Interest::READABLE, || {
            let had = descriptors.len();
            let count = receive(stream.as_fd(), inbox, descriptors)?;
            ended = count == 0;
            // recvmsg(2) stops short where there is no more, and behind descriptors: there is an edge for what comes after
            // the former.
            let more = count == READ || descriptors.len() > had || ended;
            if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match read {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ if descriptors.len() > DESCRIPTORS => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors that belong to no message"))
            }
            _ => Ok(!ended),
        }
    }

    /// The descriptor that came with the message just read, where one should have.
    ///
    /// # Errors
    /// None came.
    pub fn descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"))
    }

    /// The other end is closed, whatever of it is still to be read.
    pub fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.stream, PollFlags::empty())];
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Closes those that have come and were not taken.
    pub fn forget_descriptors(&mut self) {
        self.descriptors.clear();
    }

    /// Answers.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn say(&mut self, message: &FromEngine) -> io::Result<()> {
        let bytes = encode(message)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// One recvmsg(2): bytes to `inbox`, descriptors to `descriptors`.
fn receive(stream: BorrowedFd<'_>, inbox: &mut Inbox, descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut piece = [0; READ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut piece)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    inbox.put(&piece[..received]);
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{HandlerSpec, Limits, LogSpec, Quota};
    use crate::tls::record::Direction;
    use proptest::prelude::*;
    use std::os::unix::net::UnixStream;

    fn spec() -> SessionSpec {
        SessionSpec {
            handler: HandlerSpec { name: "echo".into(), args: vec![], settings: vec![] },
            protocol: Some("chat".into()),
            limits: Limits::default(),
            compression: None,
            reserved_close_codes: false,
            client: "127.0.0.1".into(),
            user: None,
            server: "localhost".into(),
            uri: "/echo?a=b".into(),
            quotas: vec![Quota { scope: "everybody".into(), max: 7 }],
            log: Some(Box::new(LogSpec { query: false, name: "logs/ws.log".into(), host: "www.example.com".into() })),
        }
    }

    #[test]
    fn messages_survive_any_chunking() {
        let messages = [
            ToEngine::Hello { version: VERSION.into() },
            ToEngine::Offer(Box::new(spec())),
            ToEngine::Take { ticket: 7, early: vec![1; 300], linked: false, tls: None },
            ToEngine::Trunk { thread: 1 },
            ToEngine::Carry { ticket: 8, trunk: 3 },
            ToEngine::Close { ticket: 7, code: 1001, reason: "bye".into() },
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        for chunk in [1, 3, 100, 10_000] {
            let (mut inbox, mut seen) = (Inbox::default(), Vec::<ToEngine>::new());
            for piece in bytes.chunks(chunk) {
                inbox.put(piece);
                while let Some(message) = inbox.take().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages);
            assert!(inbox.buffer.is_empty());
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_refused() {
        assert!(Inbox { buffer: vec![0xff; 8] }.take::<ToEngine>().is_err());
        assert!(encode(&ToEngine::Take { ticket: 1, early: vec![0; MAX_MESSAGE], linked: false, tls: None }).is_err());
    }

    /// Reads of a link up to the next call; false when it has ended.
    fn hears_a_call(stream: &mut UnixStream, inbox: &mut Inbox) -> bool {
        loop {
            match inbox.take().unwrap() {
                Some(ToEngine::Call { .. }) => return true,
                Some(_) => {}
                None => {
                    let mut piece = [0; 100];
                    match stream.read(&mut piece).unwrap() {
                        0 => return false,
                        count => inbox.put(&piece[..count]),
                    }
                }
            }
        }
    }

    #[test]
    fn a_call_that_was_heard_is_not_made_again() {
        let (entrance, inside) = entrance::pair().unwrap();
        rustix::io::ioctl_fionbio(&inside, false).unwrap();
        let enters = move || {
            let stream = entrance::receive(inside.as_fd()).unwrap().unwrap();
            stream.set_nonblocking(false).unwrap();
            stream
        };
        let engine = std::thread::spawn(move || {
            let mut stream = enters();
            let mut inbox = Inbox::default();
            assert!(hears_a_call(&mut stream, &mut inbox));
            stream.write_all(&encode(&FromEngine::Answer { answer: vec![1] }).unwrap()).unwrap();
            // It dies over the second one.
            assert!(hears_a_call(&mut stream, &mut inbox));
            drop(stream);
            let mut stream = enters();
            let mut calls = 0;
            while hears_a_call(&mut stream, &mut inbox) {
                stream.write_all(&encode(&FromEngine::Answer { answer: vec![3] }).unwrap()).unwrap();
                calls += 1;
            }
            calls
        });
        let door = Door::new(entrance);
        assert_eq!(door.call("channel", vec![1]).unwrap(), [1]);
        assert!(matches!(door.call("channel", vec![2]), Err(HandoffError::Unanswered(_))));
        assert_eq!(door.call("channel", vec![3]).unwrap(), [3]);
        drop(door);
        assert_eq!(engine.join().unwrap(), 1);
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<ToEngine>(&bytes);
            let _ = Inbox { buffer: bytes }.take::<ToEngine>();
        }
    }

    fn link() -> (Link, Receiver) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (
            Link { stream: Patient::new(ours, None, None).unwrap() },
            Receiver::new(tokio::net::UnixStream::from_std(theirs).unwrap()),
        )
    }

    #[tokio::test]
    async fn a_message_that_does_not_end_is_an_error() {
        let (mut link, mut receiver) = link();
        receiver.message_time = Duration::from_millis(20);
        let message = encode(&ToEngine::Abandon { ticket: 1 }).unwrap();
        let (begin, end) = message.split_at(3);
        link.stream.write_all(begin).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), receiver.next()).await.is_err());
        link.stream.write_all(end).unwrap();
        assert_eq!(receiver.next().await.unwrap(), Some(ToEngine::Abandon { ticket: 1 }));
        let silence = tokio::time::timeout(3 * receiver.message_time, receiver.next()).await;
        assert!(silence.is_err(), "there may be silence between two");
        link.stream.write_all(begin).unwrap();
        assert_eq!(receiver.next().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(link);
    }

    #[tokio::test]
    async fn descriptors_do_not_pile_up() {
        let (mut link, mut receiver) = link();
        let (socket, mut far) = UnixStream::pair().unwrap();
        for ticket in 0..=DESCRIPTORS as u64 {
            link.say_with(&ToEngine::Abandon { ticket }, &[socket.as_fd()]).unwrap();
        }
        drop(socket);
        let mut heard = 0;
        let why = loop {
            match receiver.next().await {
                Ok(message) => heard += usize::from(message.is_some()),
                Err(why) => break why,
            }
        };
        assert_eq!((heard, why.kind()), (DESCRIPTORS, io::ErrorKind::InvalidData));
        drop((receiver, link));
        assert_eq!(far.read(&mut [0]).unwrap(), 0, "all are closed");
    }

    #[tokio::test]
    async fn a_descriptor_arrives_with_its_message() {
        let (mut link, mut receiver) = link();
        link.say(&ToEngine::Abandon { ticket: 1 }).unwrap();
        // More than one read's worth: the descriptor belongs to the first byte.
        let (socket, mut far) = UnixStream::pair().unwrap();
        let (second, mut far_second) = UnixStream::pair().unwrap();
        let direction = |byte, sequence| Direction { secret: vec![byte; 32].into(), sequence };
        let keys = Box::new(Keys { suite: 0x1301, client: direction(1, 2), server: direction(3, 4) });
        link.give(2, vec![9; 10_000], socket.as_fd(), Some(keys.clone()), Some(second.as_fd())).unwrap();
        drop((link, socket, second));
        assert_eq!(receiver.next().await.unwrap(), Some(ToEngine::Abandon { ticket: 1 }));
        assert_eq!(
            receiver.next().await.unwrap(),
            Some(ToEngine::Take { ticket: 2, early: vec![9; 10_000], linked: true, tls: Some(keys) })
        );
        for far in [&mut far, &mut far_second] {
            let mut received = UnixStream::from(receiver.descriptor().unwrap());
            received.write_all(b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
        assert!(receiver.descriptor().is_err());
        assert_eq!(receiver.next().await.unwrap(), None);
    }
}
