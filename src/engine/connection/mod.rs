//! One connection, as a handler sees it: [`Conn::recv`] and [`Conn::send`].
//!
//! `recv` flushes before it waits, so that all replies to what one read brought leave in one write. While more than the
//! send buffer waits for the client, nothing is read from it.

use super::codec::{Codec, Contexts, Event};
use super::handle::ConnectionHandle;
use super::health::heartbeat::{self, Activity};
use super::memory::{Demand, Held, Holding};
use super::quota::Place;
use super::revocation::{Change, clock};
use super::socket::Socket;
use super::summary::{End, Traffic};
use super::thread::{Registered, step_aside};
use super::timer::ticks;
use super::writer::Writer;
use super::{KeptSpec, SessionSpec};
use crate::wire::{CloseCode, Message, close};
use answering::Answer;
use log::info;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

mod answering;
mod closing;
mod holding;
mod sending;
mod slow;

pub use closing::stopping;
pub use sending::Closing;
use slow::Slow;

/// The longest event queue that is kept for the next connection, in events.
const KEPT_EVENTS: usize = 1024;

/// One open session.
pub struct Conn {
    writer: Rc<RefCell<Writer>>,
    codec: Codec,
    /// What was decoded and not yet handed out.
    events: VecDeque<Event>,
    registered: Registered,
    spec: KeptSpec,
    /// Boxed, since a session has it only when it is over.
    end: Option<Box<End>>,
    received: Traffic,
    /// In microseconds of [`clock`].
    since: u64,
    places: Box<[Place]>,
    link: Option<OwnedFd>,
    /// The last write has left something, for want of room.
    blocked: bool,
    /// The last read has filled the buffer.
    read_much: bool,
    /// While the connection holds something.
    keep: Option<Box<Keep>>,
    /// What is done in slices: a large message that is being compressed, and goes out next, or what is still to be decoded.
    slow: Option<Box<Slow>>,
}

/// What comes to a session.
pub enum Received {
    /// From the client.
    Message(Message),
    /// From others.
    Change(Change),
}

/// What there is to a connection only while it holds something.
struct Keep {
    holding: Holding,
    rest: Rest,
    /// Bytes that the handler has, and has not got rid of.
    handled: usize,
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
        registered: Registered,
        socket: Socket,
        spec: SessionSpec,
        early: &[u8],
        places: Vec<Place>,
        link: Option<OwnedFd>,
    ) -> Conn {
        let codec = Codec::new(&spec);
        let writer = Writer::new(socket, codec.encoding(), registered.shared.clone());
        let writer = Rc::new(RefCell::new(writer));
        registered.handle.connect(writer.clone());
        let mut conn = Conn {
            writer,
            codec,
            events: VecDeque::new(),
            registered,
            spec: KeptSpec::new(spec),
            end: None,
            received: Traffic::default(),
            since: clock(),
            places: places.into(),
            link,
            blocked: false,
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
        self.registered.handle.id
    }

    /// What is known of the session.
    pub fn spec(&self) -> &KeptSpec {
        &self.spec
    }

    /// Bytes that wait for the client.
    pub fn backlog(&self) -> usize {
        self.writer.borrow().queue.len()
    }

    /// The next data message, or the next bytes of it where [`super::Limits::UNLIMITED`] holds; `None` when the session is
    /// closing, for whatever reason, and from then on.
    ///
    /// Writes what was sent before it waits. Dropping the future loses nothing.
    pub fn recv(&mut self) -> impl Future<Output = Option<Message>> {
        // Polled here and not awaited: it makes every session's state smaller.
        poll_fn(|cx| self.poll_message(cx, None))
    }

    /// As [`Conn::recv`], and what others want the session to change: see [`super::MessageSession::takes_changes`].
    pub fn receive(&mut self) -> impl Future<Output = Option<Received>> {
        poll_fn(|cx| self.poll_receive(cx, None))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, answer: Option<Answer>) -> Poll<Option<Received>> {
        loop {
            if self.end.is_some() {
                return Poll::Ready(None);
            }
            if self.registered.handle.close_asked() {
                // What was posted before comes before it.
                ready!(self.poll_mailbox(cx));
            }
            if let Some(frame) = self.registered.handle.take_close() {
                self.end = Some(Box::new(End::Engine(frame)));
                return Poll::Ready(None);
            }
            if let Some(change) = self.registered.handle.take_change() {
                return Poll::Ready(Some(Received::Change(change)));
            }
            match self.events.pop_front() {
                Some(Event::Message(message)) => {
                    self.received.count(message.len());
                    self.registered.shared.metrics.row.note_received(1, message.len() as u64);
                    return Poll::Ready(Some(Received::Message(message)));
                }
                Some(Event::Part(bytes, messages)) => {
                    self.received.add(messages, bytes.len() as u64);
                    self.registered.shared.metrics.row.note_received(messages, bytes.len() as u64);
                    return Poll::Ready(Some(Received::Message(Message::Binary(bytes))));
                }
                Some(Event::Closed(frame)) => self.end = Some(Box::new(End::Client(frame))),
                Some(Event::Failed(frame)) => {
                    if self.codec.has_forgotten() {
                        let (id, client) = (self.id(), self.spec.client());
                        info!("WS0175: session {id}: {client} does not compress as agreed: {}", frame.reason);
                    }
                    self.end = Some(Box::new(End::Violation(frame)));
                }
                None => {
                    self.rest();
                    if let Err(end) = ready!(self.poll_fill(cx, answer)) {
                        self.end = Some(Box::new(end));
                    }
                }
            }
        }
    }

    /// For a handler that has waited long in [`Conn::tend`], which does not read: true when the client is gone, and the session
    /// over with what it has sent last unread.
    pub fn notice_end(&mut self) -> bool {
        if self.end.is_none() && self.writer.borrow().socket.is_ended() {
            self.end = Some(Box::new(End::Lost(io::ErrorKind::UnexpectedEof.into())));
        }
        self.end.is_some()
    }

    /// Ends the session without a Close frame: to its client, it is lost.
    pub fn abort(&mut self) {
        self.end.get_or_insert_with(|| Box::new(End::Lost(io::ErrorKind::ConnectionAborted.into())));
    }

    /// Why the session ends, when [`Conn::recv`] has said that it does.
    pub fn end(&self) -> Option<&End> {
        self.end.as_deref()
    }

    /// How others on this thread reach the connection.
    pub fn handle(&self) -> &Rc<ConnectionHandle> {
        &self.registered.handle
    }

    /// What the session takes of the quota with this scope, for something that may last longer than the session.
    pub fn take_place(&mut self, scope: &str) -> Option<Place> {
        let position = self.places.iter().position(|place| place.scope() == scope)?;
        let mut places = std::mem::take(&mut self.places).into_vec();
        let place = places.swap_remove(position);
        self.places = places.into();
        Some(place)
    }

    /// The stream to the process that the session came from, if there is one, once.
    pub fn take_link(&mut self) -> Option<OwnedFd> {
        self.link.take()
    }

    fn settle(&mut self) {
        let held = self.held();
        if held == Held::default() {
            self.keep = None;
            return;
        }
        self.keep().holding.update(held);
    }

    fn keep(&mut self) -> &mut Keep {
        let Registered { shared, handle } = &self.registered;
        let new = || {
            let holding = shared.hold(handle.id, self.spec.client());
            Box::new(Keep { holding, rest: Rest::default(), handled: 0 })
        };
        self.keep.get_or_insert_with(new)
    }

    fn held(&self) -> Held {
        let writer = self.writer.borrow();
        let (begun, sealed) = writer.socket.held();
        let taken: usize = self.events.iter().map(Event::size).sum();
        let unfinished = self.codec.held() + begun + taken;
        let (own, share) = if writer.queue.is_empty() { (0, 0) } else { writer.queue.held() };
        let handled = self.keep.as_ref().map_or(0, |keep| keep.handled);
        let slow = self.slow.as_ref().map_or(0, |slow| slow.held());
        Held { unfinished, unsent: own + sealed + handled + slow, share }
    }

    fn demand(&self) -> Demand {
        self.keep.as_ref().map_or(Demand::None, |keep| keep.holding.demand())
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self) {
        let events = std::mem::take(&mut self.events);
        // A queue that a burst of tiny messages made long is not kept for others.
        if (1..=KEPT_EVENTS).contains(&events.capacity()) {
            self.registered.shared.queues.borrow_mut().put_back(events);
        }
    }

    fn decode(&mut self, bytes: &[u8]) {
        let now = self.registered.shared.timer.now();
        self.take_in(|codec, contexts, events, control| codec.receive(contexts, bytes, events, control));
        self.registered.handle.liveness.note_life(now);
        if let (Some(keep), false) = (&mut self.keep, self.events.is_empty()) {
            // What is unfinished now is another message.
            keep.rest = Rest::default();
        }
        // A large message that is still coming is no idleness.
        if !self.events.is_empty() || self.codec.is_in_a_message() {
            self.registered.handle.liveness.note_data(now);
        }
    }

    /// Decodes what came before and was too much to be decoded at once.
    fn decode_more(&mut self) {
        self.take_in(Codec::more);
        self.end_slice();
    }

    fn take_in(&mut self, step: impl FnOnce(&mut Codec, &mut Contexts, &mut VecDeque<Event>, &mut Vec<u8>)) {
        let _at = heartbeat::within(Activity::Decoding);
        let shared = &self.registered.shared;
        if self.events.capacity() == 0 {
            self.events = shared.queues.borrow_mut().take();
        }
        let mut writer = self.writer.borrow_mut();
        writer.queue.lend(|| shared.buffers.borrow_mut().take());
        step(&mut self.codec, &mut shared.contexts.borrow_mut(), &mut self.events, writer.queue.tail());
    }

    fn poll_life(&self) -> Poll<Result<(), End>> {
        if self.is_given_up() { Poll::Ready(Err(End::Unanswered)) } else { Poll::Pending }
    }

    /// Writes what waits; then, unless too much still waits, reads once. Ready when something was decoded that has no answer
    /// yet, or somebody asks the connection to close.
    fn poll_fill(&mut self, cx: &mut Context<'_>, answer: Option<Answer>) -> Poll<Result<(), End>> {
        self.registered.handle.register(cx);
        self.writer.borrow_mut().is_open = false;
        loop {
            if self.registered.handle.is_asked() {
                return Poll::Ready(Ok(()));
            }
            if self.poll_slow(cx).is_pending() {
                return Poll::Pending;
            }
            self.ping();
            self.take_mailbox();
            if self.is_slow() {
                continue;
            }
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
                self.registered.shared.memory().make_room();
                // Its answer to a Ping could not be read: it is not given up meanwhile.
                self.registered.shared.timer.pause(&self.registered.handle);
                return Poll::Pending;
            }
            if self.codec.has_more() {
                // It may be much, and the other sessions of the thread want their turn, too.
                ready!(self.poll_turn(cx));
                self.decode_more();
                self.settle();
                return Poll::Ready(Ok(()));
            }
            if std::mem::take(&mut self.read_much) {
                // Of tiny frames it was thousands, and there is more: a client that floods has one turn as everybody.
                step_aside(cx);
                return Poll::Pending;
            }
            let shared = self.registered.shared.clone();
            let mut buffer = shared.buffer.borrow_mut();
            match self.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Lost(io::ErrorKind::UnexpectedEof.into()))),
                Poll::Ready(Ok(count)) => {
                    self.read_much = count == buffer.len();
                    if self.answer_or_decode(&mut buffer[..count], answer) {
                        // What is held is counted when the answers are out.
                        continue;
                    }
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(End::Lost(e))),
                Poll::Pending => {
                    self.writer.borrow_mut().is_open = true;
                    self.settle();
                    if !self.codec.is_in_a_message() {
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
        let Registered { shared, handle } = &self.registered;
        let now = shared.timer.now();
        // The first tick is 0, which stands for something else here.
        keep.rest.since = now.max(1);
        let late = now + ticks(timeout.allows(self.codec.unfinished())).saturating_sub(keep.rest.waited);
        // As in `is_given_up`: not because of tokio, which wants others to have their turn.
        if late <= now && tokio::task::coop::has_budget_remaining() {
            return true;
        }
        handle.liveness.await_message(late);
        shared.timer.look_at(handle, late);
        false
    }

    /// The client is read again, or is not to be read for now: its time for the rest of a message stands still.
    fn stop_waiting(&mut self) {
        if let Some(Keep { rest, .. }) = self.keep.as_deref_mut().filter(|keep| keep.rest.since != 0) {
            rest.waited += self.registered.shared.timer.now().saturating_sub(rest.since);
            rest.since = 0;
            self.registered.handle.liveness.await_message(0);
        }
    }

    /// To be asked last, when nothing could be read or written: a client is only given up when it truly is silent, and
    /// not because this task had no time to listen, or was told by tokio to let others have their turn.
    fn is_given_up(&self) -> bool {
        self.registered.handle.liveness.is_timed_out() && tokio::task::coop::has_budget_remaining()
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.writer.borrow_mut().socket.poll_read(cx, buffer)
    }
}
