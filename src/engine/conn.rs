//! One connection, as a handler sees it: [`Conn::recv`] and [`Conn::send`].
//!
//! `recv` flushes before it waits, so that all replies to what one read brought leave in one write. While more than the
//! send buffer waits for the client, nothing is read from it.

use super::SessionSpec;
use super::broadcast::{Broadcast, Encoded};
use super::health::heartbeat::{self, Activity};
use super::line::Line;
use super::memory::{Demand, Held, Holding, Share};
use super::peer::{Peer, ticks};
use super::quota::Place;
use super::socket::Socket;
use super::thread::{Entry, step_aside};
use crate::wire::deflate::Slices;
use crate::wire::frame::{Control, Kind, MAX_CONTROL, put_control};
use crate::wire::session::{Contexts, Event, Session};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use bytes::Bytes;
use log::info;
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a client has to end the TCP connection after the closing handshake. Closing at once could turn bytes that
/// it sent meanwhile into a reset, and a reset takes the Close frame with it.
const LINGER: Duration = Duration::from_secs(2);
/// The longest event queue that is kept for the next connection, in events.
const KEPT_EVENTS: usize = 1024;
/// Bytes that are read and thrown away then, at most: what remains of a message that was too long, say.
const LINGER_BYTES: usize = 64 << 20;
/// How long a client that broke the protocol may go on sending in all, if it never pauses for [`LINGER`]: it may come to our
/// Close only when its message is out.
const LINGER_LIMIT: Duration = Duration::from_secs(60);

/// A session is closing: nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is closing")]
pub struct Closing;

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// The client sent a Close frame.
    Client(Option<CloseFrame>),
    /// The client broke the protocol.
    Violation(CloseFrame),
    /// The engine wants the session to end.
    Engine(CloseFrame),
    /// The handler is done.
    Handler(CloseFrame),
    /// The connection broke, or ended without a Close frame (1006 to either side).
    Lost(io::Error),
    /// The client has neither answered a Ping in time nor given another sign of life (1006 to either side).
    Unanswered,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Client(Some(frame)) => write!(f, "closed by the client, {}", u16::from(frame.code)),
            End::Client(None) => write!(f, "closed by the client, 1005"),
            End::Violation(frame) => write!(f, "protocol violation, {}, {}", u16::from(frame.code), frame.reason),
            End::Engine(frame) => write!(f, "closed by the server, {}, {}", u16::from(frame.code), frame.reason),
            End::Handler(frame) => write!(f, "closed by the handler, {}", u16::from(frame.code)),
            End::Lost(e) => write!(f, "lost, 1006, {e}"),
            End::Unanswered => write!(f, "lost, 1006, no answer to a ping"),
        }
    }
}

impl End {
    /// The code of the Close frame that began the end; 1005 for none in it, 1006 for no frame (RFC 6455 section 7.1.5).
    pub fn code(&self) -> u16 {
        match self {
            End::Client(Some(frame)) | End::Violation(frame) | End::Engine(frame) | End::Handler(frame) => {
                frame.code.into()
            }
            End::Client(None) => CloseCode::Status.into(),
            End::Lost(_) | End::Unanswered => CloseCode::Abnormal.into(),
        }
    }

    /// Who or what ended the session, in a word for the session log.
    pub fn who(&self) -> &'static str {
        match self {
            End::Client(_) => "client",
            End::Violation(_) => "violation",
            End::Engine(_) => "server",
            End::Handler(_) => "handler",
            End::Lost(_) | End::Unanswered => "lost",
        }
    }
}

/// What went one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Data messages.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Traffic {
    /// One more message, of so many bytes.
    pub fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages of {} bytes", self.messages, self.bytes)
    }
}

/// What there is to say about a session that ended.
#[derive(Debug)]
pub struct Summary {
    /// What was known of it.
    pub spec: Box<SessionSpec>,
    /// From the client, as the handler took it.
    pub received: Traffic,
    /// To the client, as the handler sent it.
    pub sent: Traffic,
    /// Why it ended.
    pub end: End,
    /// How long it was open, the closing handshake included.
    pub open: Duration,
}

/// One open session.
pub struct Conn {
    line: Rc<RefCell<Line>>,
    session: Session,
    /// What was decoded and not yet handed out.
    events: VecDeque<Event>,
    entry: Entry,
    spec: Box<SessionSpec>,
    /// Boxed, since a session has it only when it is over.
    end: Option<Box<End>>,
    received: Traffic,
    since: Instant,
    places: Vec<Place>,
    link: Option<OwnedFd>,
    /// The last write has left something, for want of room.
    blocked: bool,
    /// What was received and not decoded waits while others have their turn.
    stepped_aside: bool,
    /// The last read has filled the buffer.
    read_much: bool,
    /// While the connection holds something.
    keep: Option<Box<Keep>>,
    /// A large message that is being compressed, and goes out next.
    slow: Option<Box<Slow>>,
}

/// What there is to a connection only while it holds something.
struct Keep {
    holding: Holding,
    rest: Rest,
}

/// A message that is compressed in slices.
struct Slow {
    text: bool,
    payload: Bytes,
    slices: Slices,
}

/// The rest of a message: how long it is waited for, in ticks.
#[derive(Debug, Default)]
struct Rest {
    /// Since when nothing comes; 0: it is not waited for.
    since: u32,
    /// What was waited for the same message before.
    waited: u32,
}

impl Conn {
    /// Takes over a session. To be called on an engine thread.
    pub fn new(
        entry: Entry,
        socket: Socket,
        spec: SessionSpec,
        early: &[u8],
        places: Vec<Place>,
        link: Option<OwnedFd>,
    ) -> Conn {
        let session = spec.session();
        let line = Line::new(socket, session.form(), entry.shared.clone());
        let line = Rc::new(RefCell::new(line));
        entry.peer.connect(line.clone());
        let mut conn = Conn {
            line,
            session,
            events: VecDeque::new(),
            entry,
            spec: Box::new(spec),
            end: None,
            received: Traffic::default(),
            since: Instant::now(),
            places,
            link,
            blocked: false,
            stepped_aside: false,
            read_much: false,
            keep: None,
            slow: None,
        };
        if !early.is_empty() {
            conn.decode(early);
        }
        conn
    }

    /// The session's number.
    pub fn id(&self) -> u64 {
        self.entry.peer.id
    }

    /// What is known of the session.
    pub fn spec(&self) -> &SessionSpec {
        &self.spec
    }

    /// Bytes that wait for the client.
    pub fn backlog(&self) -> usize {
        self.line.borrow().outbox.len()
    }

    /// The next data message, or the next bytes of it where [`super::Limits::UNLIMITED`] holds; `None` when the session is
    /// closing, for whatever reason, and from then on.
    ///
    /// Writes what was sent before it waits. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            if self.end.is_some() {
                return None;
            }
            if self.entry.peer.close_asked() {
                // What was posted before comes before it.
                self.take_posts();
            }
            if let Some(frame) = self.entry.peer.take_close() {
                self.end = Some(Box::new(End::Engine(frame)));
                return None;
            }
            match self.events.pop_front() {
                Some(Event::Message(message)) => {
                    self.received.count(message.len());
                    return Some(message);
                }
                Some(Event::Part(bytes, messages)) => {
                    self.received.messages += messages;
                    self.received.bytes += bytes.len() as u64;
                    return Some(Message::Binary(bytes));
                }
                Some(Event::Closed(frame)) => self.end = Some(Box::new(End::Client(frame))),
                Some(Event::Failed(frame)) => {
                    if self.session.has_forgotten() {
                        let (id, client) = (self.id(), &self.spec.client);
                        info!("WS0175: session {id}: {client} compresses otherwise than was agreed: {}", frame.reason);
                    }
                    self.end = Some(Box::new(End::Violation(frame)));
                }
                None => {
                    self.rest();
                    if let Err(end) = poll_fn(|cx| self.poll_fill(cx)).await {
                        self.end = Some(Box::new(end));
                    }
                }
            }
        }
    }

    /// Queues a message for the client. Waits while the send buffer is full.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub async fn send(&mut self, message: Message) -> Result<(), Closing> {
        self.queue(message)?;
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// As [`Conn::send`], for one of many who get the same message.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub async fn send_shared(&mut self, message: &Broadcast) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        match self.session.form().filter(|_| self.session.is_slow(message.payload().len())) {
            Some(form) => {
                let shared = self.entry.shared.clone();
                // Boxed, so that it makes no handler's state larger.
                Box::pin(message.prepare(form, &shared.contexts)).await;
                self.share(message);
            }
            None => self.share(message),
        }
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// As [`Conn::send`], also when the client has closed already or broken the protocol: what answers messages that came
    /// before that goes out before our Close.
    ///
    /// # Errors
    /// The session is closing for another reason.
    pub async fn send_late(&mut self, message: Message) -> Result<(), Closing> {
        if !matches!(self.end.as_deref(), None | Some(End::Client(_) | End::Violation(_))) {
            return Err(Closing);
        }
        self.put(message);
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Waits until all that was sent is written, for a handler that says no more: after it, its Close may take no longer than
    /// [`super::Limits::close_timeout`].
    ///
    /// # Errors
    /// The session is closing.
    pub async fn flush(&mut self) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        poll_fn(|cx| self.poll_empty(cx)).await
    }

    /// Queues a Ping or a Pong with this payload; its first 125 bytes (RFC 6455 section 5.5). Waits as [`Conn::send`] does.
    ///
    /// # Errors
    /// The session is closing.
    pub async fn send_control(&mut self, kind: Control, payload: &[u8]) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        put_control(self.ready_line().outbox.tail(), kind, &payload[..payload.len().min(MAX_CONTROL)]);
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Writes what was sent, and reads nothing: for a handler that can take no more. Completes when the session is closing.
    ///
    /// No client is given up meanwhile for not answering a Ping: its answer would not be read. One is sent all the same: where
    /// the client has gone and left much unread, its end does not come through, but its system answers the Ping with a reset.
    pub async fn tend(&mut self) {
        poll_fn(|cx| {
            self.entry.peer.register(cx);
            self.stop_waiting();
            if self.end.is_some() || self.entry.peer.close_asked() {
                return Poll::Ready(());
            }
            if self.poll_slow(cx).is_pending() {
                return Poll::Pending;
            }
            self.ping();
            match self.poll_flush(cx) {
                Poll::Ready(Err(e)) => {
                    self.end = Some(Box::new(End::Lost(e)));
                    Poll::Ready(())
                }
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// For a handler that has waited long in [`Conn::tend`], which does not read: true when the client is gone, and the session
    /// over with what it has sent last unread.
    pub fn notice_end(&mut self) -> bool {
        if self.end.is_none() && self.line.borrow().socket.is_ended() {
            self.end = Some(Box::new(End::Lost(io::ErrorKind::UnexpectedEof.into())));
        }
        self.end.is_some()
    }

    /// Why the session ends, when [`Conn::recv`] has said that it does.
    pub fn end(&self) -> Option<&End> {
        self.end.as_deref()
    }

    /// How others on this thread reach the connection.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.entry.peer
    }

    /// What the session takes of the quota with this scope, for something that may last longer than the session.
    pub fn take_place(&mut self, scope: &str) -> Option<Place> {
        let position = self.places.iter().position(|place| place.scope() == scope)?;
        Some(self.places.swap_remove(position))
    }

    /// The stream to the process that the session came from, if there is one, once.
    pub fn take_link(&mut self) -> Option<OwnedFd> {
        self.link.take()
    }

    /// Queues a message that does not wait for anybody: one for many clients. Of a client that does not keep up the
    /// session ends, with 1013.
    ///
    /// A client keeps up as long as no more than the send buffer waits for it, whatever the size of the next message.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub fn push(&mut self, message: &Broadcast) -> Result<(), Closing> {
        self.hasten();
        if self.end.is_none() && self.is_full() {
            // What the client has made room for is not to be held against it.
            let mut line = self.line.borrow_mut();
            let Line { outbox, socket, .. } = &mut *line;
            let waiting = outbox.len();
            let flushed = outbox.flush(|slices| socket.try_write(slices));
            drop(line);
            match flushed {
                Ok(empty) => self.note_flush(waiting, empty),
                Err(e) => self.end = Some(Box::new(End::Lost(e))),
            }
            if self.end.is_none() && self.is_full() {
                self.end = Some(Box::new(slow_consumer()));
            }
        }
        if self.end.is_some() {
            return Err(Closing);
        }
        self.share(message);
        Ok(())
    }

    fn share(&mut self, message: &Broadcast) {
        let _at = heartbeat::within(Activity::Encoding);
        self.hasten();
        let Entry { shared, .. } = &self.entry;
        let contexts = &shared.contexts;
        let encoded = match self.session.form() {
            Some(form) => message.encoded(form, |payload| self.session.encode(&mut contexts.borrow_mut(), payload)),
            None => self.session.encode(&mut contexts.borrow_mut(), message.payload().clone()),
        };
        let common = message.wait_for(&encoded.0, shared.memory());
        self.line.borrow_mut().sent.count(message.payload().len());
        self.enqueue(message.is_text(), encoded, common);
    }

    fn queue(&mut self, message: Message) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        self.put(message);
        Ok(())
    }

    /// Queues a message; a large one that is to be compressed not at once, but when others had their turn.
    fn put(&mut self, message: Message) {
        let (text, payload) = match message {
            Message::Text(text) => (true, text.into()),
            Message::Binary(payload) => (false, payload),
            // Control frames are the session's own business.
            _ => return,
        };
        let _at = heartbeat::within(Activity::Encoding);
        self.hasten();
        let mut line = self.line.borrow_mut();
        line.sent.count(payload.len());
        let mut contexts = self.entry.shared.contexts.borrow_mut();
        if self.session.is_slow(payload.len())
            && let Some(slices) = self.session.begin_encode(&mut contexts, &payload)
        {
            // What others have for the client is not to come in between.
            line.is_open = false;
            self.slow = Some(Box::new(Slow { text, payload, slices }));
            return;
        }
        let encoded = self.session.encode(&mut contexts, payload);
        drop((contexts, line));
        self.enqueue(text, encoded, None);
    }

    /// Compresses the next slice of a large message. True when there is nothing more to do.
    fn step(&mut self) -> bool {
        let Some(slow) = &mut self.slow else { return true };
        let _at = heartbeat::within(Activity::Encoding);
        if !slow.slices.step() {
            return false;
        }
        if let Some(slow) = self.slow.take() {
            let Slow { text, payload, slices } = *slow;
            let encoded = self.session.end_encode(&mut self.entry.shared.contexts.borrow_mut(), payload, slices);
            self.enqueue(text, encoded, None);
        }
        true
    }

    /// Something comes after a large message, and nobody has waited for that.
    fn hasten(&mut self) {
        while !self.step() {}
    }

    /// Ready when no large message is being compressed; else others have their turn before the next slice.
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.step() {
            return Poll::Ready(());
        }
        step_aside(cx);
        Poll::Pending
    }

    /// `common`: others wait for the same payload.
    fn enqueue(&mut self, text: bool, (payload, compressed): Encoded, common: Option<Share>) {
        self.ready_line().outbox.push(Kind { text, compressed }, payload, common);
        self.entry.peer.note_data(self.entry.shared.now());
    }

    /// The line, with a buffer to fill.
    fn ready_line(&self) -> RefMut<'_, Line> {
        let mut line = self.line.borrow_mut();
        line.outbox.lend(|| self.entry.shared.buffers.borrow_mut().take());
        line
    }

    /// Queues what others have posted.
    fn take_posts(&mut self) {
        for (message, _waits) in self.entry.peer.take_posts() {
            if self.push(&message).is_err() {
                break;
            }
        }
    }

    /// What was posted waits while the handler sends: too much of it, and the client is given up, as in [`Conn::push`].
    fn has_fallen_behind(&self) -> bool {
        self.entry.peer.posted() > self.spec.limits.send_buffer
    }

    /// More waits for the client than may.
    fn is_full(&self) -> bool {
        self.slow.is_some() || self.backlog() > self.spec.limits.send_buffer
    }

    /// Completes when there is room in the send buffer.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closing>> {
        self.poll_sent(cx, |conn| !conn.is_full())
    }

    /// Completes when nothing waits for the client.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closing>> {
        self.poll_sent(cx, |_| false)
    }

    /// Completes when nothing waits for the client, or what waits `is_little`.
    fn poll_sent(&mut self, cx: &mut Context<'_>, is_little: fn(&Self) -> bool) -> Poll<Result<(), Closing>> {
        self.entry.peer.register(cx);
        self.stop_waiting();
        if self.entry.peer.close_asked() {
            return Poll::Ready(Err(Closing));
        }
        if self.poll_slow(cx).is_pending() {
            return Poll::Pending;
        }
        self.ping();
        let flushed = self.poll_flush(cx);
        self.settle();
        match flushed {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => self.end = Some(Box::new(End::Lost(e))),
            Poll::Pending if is_little(self) => return Poll::Ready(Ok(())),
            Poll::Pending if self.is_given_up() => self.end = Some(Box::new(End::Unanswered)),
            Poll::Pending if self.has_fallen_behind() => self.end = Some(Box::new(slow_consumer())),
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Err(Closing))
    }

    /// Queues a Ping when the clock wants one.
    fn ping(&mut self) {
        let Entry { shared, peer } = &self.entry;
        if peer.is_doubted() {
            put_control(self.ready_line().outbox.tail(), Control::Ping, b"");
            let late = peer.note_ping(shared.now());
            shared.look_at(peer, late);
        }
    }

    /// After a flush of `waiting` bytes: a client that takes what had to wait for it is alive, though its answer to a
    /// Ping may have to wait until all that was sent before has arrived, or until something is read again.
    fn note_flush(&mut self, waiting: usize, empty: bool) {
        if std::mem::replace(&mut self.blocked, !empty) && self.backlog() < waiting {
            let now = self.entry.shared.now();
            self.entry.peer.note_life(now);
            self.entry.peer.note_data(now);
        }
    }

    /// Notes what the connection holds.
    fn settle(&mut self) {
        let held = self.held();
        if held == Held::default() {
            self.keep = None;
            return;
        }
        let Entry { shared, peer } = &self.entry;
        let new = || Box::new(Keep { holding: shared.hold(peer.id, &self.spec.client), rest: Rest::default() });
        self.keep.get_or_insert_with(new).holding.update(held);
    }

    fn held(&self) -> Held {
        let line = self.line.borrow();
        let (begun, sealed) = line.socket.held();
        let taken: usize = self.events.iter().map(Event::size).sum();
        let unfinished = self.session.held() + begun + taken;
        let (own, share) = if line.outbox.is_empty() { (0, 0) } else { line.outbox.held() };
        Held { unfinished, unsent: own + sealed, share }
    }

    fn demand(&self) -> Demand {
        self.keep.as_ref().map_or(Demand::None, |keep| keep.holding.demand())
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self) {
        let events = std::mem::take(&mut self.events);
        // A queue that a burst of tiny messages made long is not kept for others.
        if (1..=KEPT_EVENTS).contains(&events.capacity()) {
            self.entry.shared.queues.borrow_mut().put_back(events);
        }
    }

    fn decode(&mut self, bytes: &[u8]) {
        let now = self.entry.shared.now();
        self.take_in(|session, contexts, events, control| session.receive(contexts, bytes, events, control));
        self.entry.peer.note_life(now);
        if let (Some(keep), false) = (&mut self.keep, self.events.is_empty()) {
            // What is unfinished now is another message.
            keep.rest = Rest::default();
        }
        // A large message that is still coming is no idleness.
        if !self.events.is_empty() || self.session.is_in_a_message() {
            self.entry.peer.note_data(now);
        }
    }

    /// Decodes what came before and was too much to be decoded at once.
    fn decode_more(&mut self) {
        self.take_in(Session::more);
    }

    fn take_in(&mut self, step: impl FnOnce(&mut Session, &mut Contexts, &mut VecDeque<Event>, &mut Vec<u8>)) {
        let _at = heartbeat::within(Activity::Decoding);
        let shared = &self.entry.shared;
        if self.events.capacity() == 0 {
            self.events = shared.queues.borrow_mut().take();
        }
        let mut line = self.line.borrow_mut();
        line.outbox.lend(|| shared.buffers.borrow_mut().take());
        step(&mut self.session, &mut shared.contexts.borrow_mut(), &mut self.events, line.outbox.tail());
    }

    /// Writes what waits; then, unless too much still waits, reads once. Ready when something was decoded, or somebody
    /// asks the connection to close.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.entry.peer.register(cx);
        self.line.borrow_mut().is_open = false;
        loop {
            if self.entry.peer.close_asked() {
                return Poll::Ready(Ok(()));
            }
            if self.poll_slow(cx).is_pending() {
                return Poll::Pending;
            }
            self.ping();
            self.take_posts();
            self.stop_waiting();
            if let Some(end) = self.end.take() {
                return Poll::Ready(Err(*end));
            }
            if let Poll::Ready(Err(e)) = self.poll_flush(cx) {
                return Poll::Ready(Err(End::Lost(e)));
            }
            if self.is_full() {
                self.settle();
                return self.poll_life();
            }
            if self.demand() == Demand::Pause {
                self.settle();
                self.entry.shared.memory().make_room();
                // Its answer to a Ping could not be read: it is not given up meanwhile.
                self.entry.shared.pause(&self.entry.peer);
                return Poll::Pending;
            }
            if self.session.has_more() {
                // It may be much, and the other sessions of the thread want their turn, too.
                self.stepped_aside = !self.stepped_aside;
                if self.stepped_aside {
                    step_aside(cx);
                    return Poll::Pending;
                }
                self.decode_more();
                self.settle();
                return Poll::Ready(Ok(()));
            }
            if std::mem::take(&mut self.read_much) {
                // Of tiny frames it was thousands, and there is more: a client that floods has one turn as everybody.
                step_aside(cx);
                return Poll::Pending;
            }
            let shared = self.entry.shared.clone();
            let mut buffer = shared.buffer.borrow_mut();
            match self.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Lost(io::ErrorKind::UnexpectedEof.into()))),
                Poll::Ready(Ok(count)) => {
                    self.read_much = count == buffer.len();
                    self.decode(&buffer[..count]);
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(End::Lost(e))),
                Poll::Pending => {
                    self.line.borrow_mut().is_open = true;
                    self.settle();
                    if !self.session.is_in_a_message() {
                        if let Some(keep) = &mut self.keep {
                            keep.rest.waited = 0;
                        }
                    } else if self.is_late() {
                        return Poll::Ready(Err(End::Engine(close(CloseCode::Policy, "message took too long"))));
                    }
                    return self.poll_life();
                }
            }
            if !self.events.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // All of a large message may come without a pause.
            self.settle();
        }
    }

    /// Nothing has come of the rest of a message: the client has from now on what is left of the time for it. True when that
    /// is nothing.
    fn is_late(&mut self) -> bool {
        let (Some(timeout), Some(keep)) = (self.spec.limits.message_timeout, &mut self.keep) else { return false };
        let Entry { shared, peer } = &self.entry;
        let now = shared.now();
        // The first tick is 0, which stands for something else here.
        keep.rest.since = now.max(1);
        let late = now + ticks(timeout.allows(self.session.unfinished())).saturating_sub(keep.rest.waited);
        // As in `is_given_up`: not because of tokio, which wants others to have their turn.
        if late <= now && tokio::task::coop::has_budget_remaining() {
            return true;
        }
        peer.await_message(late);
        shared.look_at(peer, late);
        false
    }

    /// The client is read again, or is not to be read for now: its time for the rest of a message stands still.
    fn stop_waiting(&mut self) {
        if let Some(Keep { rest, .. }) = self.keep.as_deref_mut().filter(|keep| keep.rest.since != 0) {
            rest.waited += self.entry.shared.now().saturating_sub(rest.since);
            rest.since = 0;
            self.entry.peer.await_message(0);
        }
    }

    fn poll_life(&self) -> Poll<Result<(), End>> {
        if self.is_given_up() { Poll::Ready(Err(End::Unanswered)) } else { Poll::Pending }
    }

    /// To be asked last, when nothing could be read or written: a client is only given up when it truly is silent, and
    /// not because this task had no time to listen, or was told by tokio to let others have their turn.
    fn is_given_up(&self) -> bool {
        self.entry.peer.is_denied() && tokio::task::coop::has_budget_remaining()
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.line.borrow_mut().socket.poll_read(cx, buffer)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        let Line { outbox, socket, .. } = &mut *line;
        let waiting = outbox.len();
        let empty = outbox.flush(|slices| match socket.poll_write(cx, slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        })?;
        let buffer = outbox.reclaim();
        drop(line);
        self.note_flush(waiting, empty);
        if !empty {
            return Poll::Pending;
        }
        if let Some(buffer) = buffer {
            self.entry.shared.buffers.borrow_mut().put_back(buffer);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the session in the way it asks for: the closing handshake (RFC 6455 section 7.1), then the TCP connection.
    pub async fn finish(mut self: Box<Self>, verdict: CloseFrame) -> Summary {
        let close_timeout = self.spec.limits.close_timeout;
        self.entry.peer.stop_watching();
        self.line.borrow_mut().is_open = false;
        self.hasten();
        self.take_posts();
        let end = match (self.end.take(), self.entry.peer.take_close()) {
            (Some(end), _) => *end,
            (None, Some(frame)) => End::Engine(frame),
            (None, None) => End::Handler(verdict),
        };
        match &end {
            End::Lost(_) | End::Unanswered => {}
            End::Client(_) => {
                self.session.reply(self.line.borrow_mut().outbox.tail());
                self.hang_up(LINGER).await;
            }
            End::Violation(frame) => {
                self.say_close(frame.clone());
                self.hang_up(LINGER_LIMIT).await;
            }
            // Nothing is read any more, since it would only become more that is held.
            End::Engine(frame) if self.demand() >= Demand::Close => {
                self.session.give_up();
                self.events = VecDeque::new();
                self.say_close(frame.clone());
                self.settle();
                self.hang_up(LINGER).await;
            }
            End::Engine(frame) | End::Handler(frame) => {
                self.say_close(frame.clone());
                self.within(close_timeout, Self::poll_answer).await;
                // Nothing is written here but where the client's Close and ours crossed and its own still waits.
                self.session.reply(self.line.borrow_mut().outbox.tail());
                self.hang_up(LINGER).await;
            }
        }
        let sent = self.line.borrow().sent;
        Summary { spec: self.spec, received: self.received, sent, end, open: self.since.elapsed() }
    }

    fn say_close(&mut self, frame: CloseFrame) {
        let mut contexts = self.entry.shared.contexts.borrow_mut();
        self.session.close(&mut contexts, frame, self.line.borrow_mut().outbox.tail());
    }

    /// Writes what waits, says that nothing follows, and waits until the client has closed its side: as long as it sends, up to
    /// `limit`.
    async fn hang_up(&mut self, limit: Duration) {
        // The client may be back for another session before it has ended this connection.
        self.places = Vec::new();
        self.within(LINGER, Self::poll_flush_only).await;
        self.line.borrow().socket.end_writing();
        let (mut left, mut is_over) = (LINGER_BYTES, false);
        let begun = Instant::now();
        loop {
            let before = left;
            let discard =
                |conn: &mut Self, cx: &mut Context<'_>| conn.poll_discard(cx, &mut left).map(|()| is_over = true);
            self.within(LINGER, discard).await;
            if is_over || left == before || begun.elapsed() >= limit {
                return;
            }
        }
    }

    /// Polls `step` until it is ready or `time` has passed.
    async fn within(&mut self, time: Duration, mut step: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<()>) {
        self.entry.shared.set_deadline(&self.entry.peer, time);
        poll_fn(|cx| {
            self.entry.peer.register(cx);
            let is_over = self.entry.peer.expired() || self.demand() == Demand::Drop;
            if is_over { Poll::Ready(()) } else { step(self, cx) }
        })
        .await;
        self.entry.peer.set_deadline(0);
    }

    fn poll_flush_only(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flush(cx).map(|_| ())
    }

    /// Waits for the client's Close; its messages are of no use any more.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if !matches!(event, Event::Message(_) | Event::Part(..)) {
                    return Poll::Ready(());
                }
            }
            if self.session.has_more() {
                self.decode_more();
                continue;
            }
            // Reading goes on while this is pending: the client's Close may be what it wants to send first.
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(());
            }
            let shared = self.entry.shared.clone();
            let mut buffer = shared.buffer.borrow_mut();
            match self.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => self.decode(&buffer[..count]),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let mut buffer = self.entry.shared.buffer.borrow_mut();
        loop {
            match self.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(count)) if count > 0 && count <= *left => *left -= count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn slow_consumer() -> End {
    End::Engine(close(CloseCode::Again, "slow consumer"))
}

/// The frame of a stop, with the configured code: by default 1012 (service restart, in IANA's registry of RFC 6455 section
/// 11.7), after which clients' libraries come back.
pub fn stopping(code: u16) -> CloseFrame {
    close(code.into(), "server is stopping")
}
