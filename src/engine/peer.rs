//! How others on its thread reach a connection: messages for it, a request to close, and the clock.
//!
//! Time is counted in ticks of the thread, since a timer of its own would cost each connection more than all the rest of
//! its state. The clock looks at a connection when something may be due ([`Peer::look`]), and a connection only notes
//! the tick at which something happened: what is due is worked out when it is looked at.

use super::broadcast::{Broadcast, Volley};
use super::health::heartbeat::HandlerNumber;
use super::line::{Line, LineCell, Shot};
use super::memory::Share;
use super::spec::{Limits, Ping};
use crate::wire::session::Form;
use crate::wire::{CloseCode, CloseFrame, close};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

/// The length of a tick: what is due is this much late at most.
pub const TICK: Duration = Duration::from_millis(250);
/// Ticks after which a connection is looked at again though nothing is due until later (one minute).
const LOOK_AHEAD: u32 = 240;

/// A time in ticks. The tick under way may be almost over: never too short.
pub fn ticks(time: Duration) -> u32 {
    let ticks = time.as_millis().div_ceil(TICK.as_millis()) + 1;
    // Half of the range: sums with a tick of today stay in it for decades.
    u32::try_from(ticks).map_or(u32::MAX / 2, |ticks| ticks.min(u32::MAX / 2))
}

/// How it stands with the client's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The client has given a sign of life since the last Ping.
    Given,
    /// A Ping is to be sent.
    Doubted,
    /// A Ping was sent at this tick.
    Asked(u32),
    /// Nothing came in time.
    Denied,
}

/// A message that others want a connection to send, which waits for that.
pub type Post = (Arc<Broadcast>, Option<Share>);

/// The part of a connection that its thread can see. Never leaves the thread.
pub struct Peer {
    /// The session's number.
    pub id: u64,
    /// The number of what runs it.
    pub handler: Cell<HandlerNumber>,
    waker: RefCell<Option<Waker>>,
    close: RefCell<Option<Box<CloseFrame>>>,
    line: LineCell,
    /// Messages that others want it to send.
    posts: Cell<Vec<Post>>,
    /// The tick at which `expired` turns true; 0 is never.
    deadline: Cell<u32>,
    expired: Cell<bool>,
    /// The tick at which the clock looks here; 0 is never.
    scheduled: Cell<u32>,
    /// Ticks of silence before a Ping; 0 is never.
    interval: Cell<u32>,
    /// Ticks that the answer may take.
    timeout: u32,
    life: Cell<Life>,
    /// The tick of the last sign of life.
    alive: Cell<u32>,
    /// Ticks without data before the session is closed; 0 is never.
    idle: Cell<u32>,
    /// The tick of the last data.
    moved: Cell<u32>,
    /// The tick at which the message under way is late; 0: none is waited for.
    message: Cell<u32>,
}

impl Peer {
    /// Of a session that begins `now`.
    pub fn new(id: u64, limits: &Limits, now: u32) -> Peer {
        let (interval, timeout) =
            limits.ping.map_or((0, 0), |Ping { interval, timeout }| (ticks(interval), ticks(timeout)));
        Peer {
            id,
            handler: Cell::new(0),
            waker: RefCell::default(),
            close: RefCell::default(),
            line: LineCell::new(),
            posts: Cell::default(),
            deadline: Cell::new(0),
            expired: Cell::new(false),
            scheduled: Cell::new(0),
            interval: Cell::new(interval),
            timeout,
            life: Cell::new(Life::Given),
            alive: Cell::new(now),
            idle: Cell::new(limits.idle_timeout.map_or(0, ticks)),
            moved: Cell::new(now),
            message: Cell::new(0),
        }
    }

    /// This is the way to the client.
    pub fn connect(&self, line: Rc<RefCell<Line>>) {
        self.line.get_or_init(|| line);
    }

    /// Asks the connection to close with this frame; the first request counts.
    pub fn close(&self, frame: CloseFrame) {
        self.close.borrow_mut().get_or_insert_with(|| Box::new(frame));
        self.wake();
    }

    /// The frame that [`Peer::close`] asked for, once.
    pub fn take_close(&self) -> Option<CloseFrame> {
        self.close.borrow_mut().take().map(|frame| *frame)
    }

    /// True when [`Peer::close`] was called and nobody has looked.
    pub fn close_asked(&self) -> bool {
        self.close.borrow().is_some()
    }

    /// Has the connection send this message as [`super::Conn::push`] does: in the order of the calls, and after what its
    /// handler has sent so far. Nothing happens where it is closing.
    pub fn post(&self, message: Arc<Broadcast>) {
        let waiting = self.line.get().map(|line| message.wait(line.borrow().memory()));
        let mut posts = self.posts.take();
        posts.push((message, waiting));
        self.posts.set(posts);
        self.wake();
    }

    /// Posts the messages from the `first` on. Where nothing waits for the client, they are written here and now.
    pub fn post_all(&self, volley: &Volley, first: usize) {
        let shot = self.line.get().map_or(Shot::Not, |line| line.borrow_mut().shoot(volley, first));
        match shot {
            Shot::Sent(now) => self.note_data(now),
            Shot::Begun(now) => {
                self.note_data(now);
                self.wake();
            }
            Shot::Not => {
                for message in volley.messages(first) {
                    self.post(message.clone());
                }
            }
        }
    }

    /// In which form the connection sends what many get.
    pub fn form(&self) -> Option<Form> {
        self.line.get().and_then(|line| line.borrow().form().0)
    }

    /// Brings a large message into the connection's form, by turns with whatever else the thread has to do.
    pub async fn prepare(&self, message: &Broadcast) {
        let Some(line) = self.line.get() else { return };
        let (form, shared) = {
            let line = line.borrow();
            let (form, shared) = line.form();
            (form, shared.clone())
        };
        if let Some(form) = form {
            message.prepare(form, &shared.contexts).await;
        }
    }

    /// What was posted and not taken.
    pub fn take_posts(&self) -> Vec<Post> {
        self.posts.take()
    }

    /// Bytes of what was posted and not taken.
    pub fn posted(&self) -> usize {
        let posts = self.posts.take();
        let bytes = posts.iter().map(|(message, _)| message.payload().len()).sum();
        self.posts.set(posts);
        bytes
    }

    /// Sets the tick at which [`Peer::expired`] turns true.
    pub fn set_deadline(&self, tick: u32) {
        self.deadline.set(tick);
        self.expired.set(false);
    }

    /// The deadline that was set has passed.
    pub fn expired(&self) -> bool {
        self.expired.get()
    }

    /// The client has given a sign of life `now`: a byte came, or room was made for one that had to wait.
    pub fn note_life(&self, now: u32) {
        self.alive.set(now);
        self.life.set(Life::Given);
    }

    /// Data goes one way or the other `now`.
    pub fn note_data(&self, now: u32) {
        self.moved.set(now);
    }

    /// The rest of a message is waited for until this tick, when the connection is to look at it; 0: no more.
    pub fn await_message(&self, tick: u32) {
        self.message.set(tick);
    }

    /// True when a Ping is to be sent.
    pub fn is_doubted(&self) -> bool {
        self.life.get() == Life::Doubted
    }

    /// A Ping is sent `now`; returns the tick at which its answer is late.
    pub fn note_ping(&self, now: u32) -> u32 {
        self.life.set(Life::Asked(now));
        now + self.timeout
    }

    /// True when the Ping that was sent has had no answer in time.
    pub fn is_denied(&self) -> bool {
        self.life.get() == Life::Denied
    }

    /// The session is ending: from now on only deadlines count.
    pub fn stop_watching(&self) {
        self.interval.set(0);
        self.idle.set(0);
        self.message.set(0);
        self.life.set(Life::Given);
    }

    /// The clock is to look here at `tick`. True when that is sooner than it would have.
    pub fn schedule(&self, tick: u32) -> bool {
        let scheduled = self.scheduled.get();
        let sooner = scheduled == 0 || tick < scheduled;
        if sooner {
            self.scheduled.set(tick);
        }
        sooner
    }

    /// The clock says `now`, and was to look here at `tick`: does what is due. Returns when to look again, if at all.
    pub fn look(&self, tick: u32, now: u32) -> Option<u32> {
        // Somebody has it look sooner, or it has done so already.
        if self.scheduled.get() != tick {
            return None;
        }
        self.scheduled.set(0);
        let due =
            [self.look_at_deadline(now), self.look_at_life(now), self.look_at_data(now), self.look_at_message(now)];
        let next = due.into_iter().flatten().min()?;
        Some(next.min(now + LOOK_AHEAD))
    }

    fn look_at_deadline(&self, now: u32) -> Option<u32> {
        match self.deadline.get() {
            0 => None,
            deadline if deadline <= now => {
                self.deadline.set(0);
                self.expired.set(true);
                self.wake();
                None
            }
            deadline => Some(deadline),
        }
    }

    fn look_at_life(&self, now: u32) -> Option<u32> {
        let interval = self.interval.get();
        if interval == 0 {
            return None;
        }
        let due = match self.life.get() {
            Life::Given => self.alive.get() + interval,
            Life::Asked(then) => then + self.timeout,
            // The connection has been told. Should it give a sign of life after all, a Ping is due this much later.
            Life::Doubted | Life::Denied => return Some(now + interval),
        };
        if now < due {
            return Some(due);
        }
        let doubt = if self.life.get() == Life::Given { Life::Doubted } else { Life::Denied };
        self.life.set(doubt);
        self.wake();
        Some(now + interval)
    }

    fn look_at_data(&self, now: u32) -> Option<u32> {
        let idle = self.idle.get();
        if idle == 0 {
            return None;
        }
        let due = self.moved.get() + idle;
        if now < due {
            return Some(due);
        }
        self.idle.set(0);
        self.close(close(CloseCode::Away, "idle timeout"));
        None
    }

    fn look_at_message(&self, now: u32) -> Option<u32> {
        match self.message.get() {
            0 => None,
            late if late <= now => {
                self.message.set(0);
                self.wake();
                None
            }
            late => Some(late),
        }
    }

    /// The connection's task waits: whoever changes something here wakes it.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    /// Has the connection look at what there is for it.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Ping = Ping { interval: Duration::from_secs(1), timeout: Duration::from_millis(500) };

    fn peer(ping: Option<Ping>, idle_timeout: Option<Duration>) -> Peer {
        Peer::new(1, &Limits { ping, idle_timeout, ..Limits::default() }, 100)
    }

    /// Looks at `now`, as the clock does that was told so; returns what it is told next.
    fn look(peer: &Peer, now: u32) -> Option<u32> {
        peer.schedule(now);
        peer.look(now, now)
    }

    #[test]
    fn a_deadline_passes_once() {
        let peer = peer(None, None);
        assert_eq!(look(&peer, 105), None);
        peer.set_deadline(107);
        assert_eq!(look(&peer, 106), Some(107));
        assert!(!peer.expired());
        assert_eq!(look(&peer, 107), None);
        assert!(peer.expired());
        peer.set_deadline(109);
        assert!(!peer.expired());
    }

    #[test]
    fn the_clock_is_told_the_soonest() {
        let peer = peer(None, None);
        assert!(peer.schedule(120));
        assert!(!peer.schedule(130));
        assert!(peer.schedule(110));
        peer.set_deadline(200);
        assert_eq!(peer.look(110, 110), Some(200));
        peer.schedule(200);
        assert_eq!(peer.look(120, 120), None, "that look was replaced by the one at 110");
        peer.set_deadline(100_000);
        assert_eq!(peer.look(200, 200), Some(200 + LOOK_AHEAD), "not so long that what is over stays in memory");
    }

    #[test]
    fn the_first_request_to_close_counts() {
        let peer = peer(None, None);
        peer.close(close(CloseCode::Away, "first"));
        peer.close(close(CloseCode::Error, "second"));
        assert!(peer.close_asked());
        assert_eq!(peer.take_close().map(|f| f.code), Some(CloseCode::Away));
        assert!(peer.take_close().is_none());
    }

    #[test]
    fn a_silent_client_is_asked_and_given_up() {
        let peer = peer(Some(PING), None);
        // A second is four ticks, and one for the tick under way.
        assert_eq!(look(&peer, 100), Some(105));
        assert_eq!(look(&peer, 104), Some(105));
        assert!(!peer.is_doubted());
        assert_eq!(look(&peer, 105), Some(110));
        assert!(peer.is_doubted());
        // Not before somebody has sent the Ping does the time for its answer begin.
        look(&peer, 110);
        assert!(!peer.is_denied());
        assert_eq!(peer.note_ping(110), 113);
        assert!(!peer.is_doubted());
        assert_eq!(look(&peer, 112), Some(113));
        assert!(!peer.is_denied());
        look(&peer, 113);
        assert!(peer.is_denied());
        // The connection found something to read when it looked for the last time.
        peer.note_life(113);
        assert!(!peer.is_denied());
        assert_eq!(look(&peer, 114), Some(118));
        peer.stop_watching();
        assert_eq!(look(&peer, 200), None);
        assert!(!peer.is_doubted());
    }

    #[test]
    fn a_sign_of_life_keeps_the_ping_away() {
        let peer = peer(Some(PING), None);
        for now in (104..140).step_by(4) {
            peer.note_life(now);
            assert_eq!(look(&peer, now + 3), Some(now + 5));
        }
        assert!(!peer.is_doubted());
    }

    #[test]
    fn a_session_without_data_is_closed_once() {
        let peer = peer(Some(PING), Some(Duration::from_secs(2)));
        peer.note_data(103);
        peer.note_life(108);
        assert_eq!(look(&peer, 108), Some(112));
        peer.note_life(111);
        assert_eq!(look(&peer, 112), Some(116));
        assert!(peer.close_asked());
        assert_eq!(peer.take_close(), Some(close(CloseCode::Away, "idle timeout")));
        look(&peer, 200);
        assert!(!peer.close_asked());
    }

    #[test]
    fn a_message_is_waited_for_until_it_is_late() {
        let peer = peer(None, None);
        peer.await_message(110);
        assert_eq!(look(&peer, 101), Some(110));
        peer.await_message(112);
        assert_eq!(look(&peer, 110), Some(112));
        assert_eq!(look(&peer, 112), None);
        peer.await_message(120);
        peer.await_message(0);
        assert_eq!(look(&peer, 121), None);
    }

    #[test]
    fn no_time_is_too_long() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(251)), 3);
        assert_eq!(ticks(Duration::MAX), u32::MAX / 2);
    }
}
