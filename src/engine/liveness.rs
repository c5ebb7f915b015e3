//! Whether a session is to go on: Pings and their answers, data, the message under way, and a deadline.
//!
//! Time is counted in ticks of the thread, since a timer of its own would cost each connection more than all the rest of
//! its state. The clock looks at a connection when something may be due ([`Liveness::look`]), and a connection only notes
//! the tick at which something happened: what is due is worked out when it is looked at.

use super::spec::{Limits, Ping};
use super::timer::ticks;
use std::cell::Cell;
use std::time::Duration;

/// Ticks after which a connection is looked at again though nothing is due until later (one minute).
const LOOK_AHEAD: u32 = 240;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PingState {
    /// The client has given a sign of life since the last Ping.
    Alive,
    PingDue,
    /// A Ping was sent at this tick.
    AwaitingPong(u32),
    TimedOut,
}

#[derive(Debug, Default)]
pub(super) struct Look {
    /// When to look again, if at all.
    pub(super) next: Option<u32>,
    /// The session is to be closed, for want of data.
    pub(super) is_idle: bool,
    /// The connection is to see to something.
    pub(super) wakes: bool,
}

/// What a connection notes of its client. Never leaves the thread.
pub(super) struct Liveness {
    /// The tick at which `expired` turns true; 0 is never.
    deadline: Cell<u32>,
    expired: Cell<bool>,
    /// The tick at which the clock looks here; 0 is never.
    scheduled: Cell<u32>,
    /// Ticks of silence before a Ping; 0 is never.
    interval: Cell<u32>,
    /// Ticks that the answer may take.
    timeout: u32,
    ping: Cell<PingState>,
    /// The tick of the last sign of life.
    alive: Cell<u32>,
    /// Ticks without data before the session is closed; 0 is never.
    idle: Cell<u32>,
    /// The tick of the last data.
    moved: Cell<u32>,
    /// The tick at which the message under way is late; 0: none is waited for.
    message: Cell<u32>,
}

impl Liveness {
    /// Of a session that begins `now`.
    pub(super) fn new(limits: &Limits, now: u32) -> Liveness {
        let (interval, timeout) =
            limits.ping.map_or((0, 0), |Ping { interval, timeout }| (ticks(interval), ticks(timeout)));
        Liveness {
            deadline: Cell::new(0),
            expired: Cell::new(false),
            scheduled: Cell::new(0),
            interval: Cell::new(interval),
            timeout,
            ping: Cell::new(PingState::Alive),
            alive: Cell::new(now),
            idle: Cell::new(limits.idle_timeout.map_or(0, ticks)),
            moved: Cell::new(now),
            message: Cell::new(0),
        }
    }

    /// Sets the tick at which [`Liveness::expired`] turns true.
    pub(super) fn set_deadline(&self, tick: u32) {
        self.deadline.set(tick);
        self.expired.set(false);
    }

    pub(super) fn expired(&self) -> bool {
        self.expired.get()
    }

    /// The client has given a sign of life `now`: a byte came, or room was made for one that had to wait.
    pub(super) fn note_life(&self, now: u32) {
        self.alive.set(now);
        self.ping.set(PingState::Alive);
    }

    /// Data goes one way or the other `now`.
    pub(super) fn note_data(&self, now: u32) {
        self.moved.set(now);
    }

    /// From `now` on the session is closed when for so long no data goes either way.
    pub(super) fn limit_idleness(&self, limit: Duration, now: u32) {
        self.idle.set(ticks(limit));
        self.moved.set(now);
    }

    /// The rest of a message is waited for until this tick, when the connection is to look at it; 0: no more.
    pub(super) fn await_message(&self, tick: u32) {
        self.message.set(tick);
    }

    /// True when a Ping is to be sent.
    pub(super) fn is_ping_due(&self) -> bool {
        self.ping.get() == PingState::PingDue
    }

    /// A Ping is sent `now`; returns the tick at which its answer is late.
    pub(super) fn note_ping(&self, now: u32) -> u32 {
        self.ping.set(PingState::AwaitingPong(now));
        now + self.timeout
    }

    /// True when the Ping that was sent has had no answer in time.
    pub(super) fn is_timed_out(&self) -> bool {
        self.ping.get() == PingState::TimedOut
    }

    /// The session is ending: from now on only deadlines count.
    pub(super) fn stop_watching(&self) {
        self.interval.set(0);
        self.idle.set(0);
        self.message.set(0);
        self.ping.set(PingState::Alive);
    }

    /// The clock is to look here at `tick`. True when that is sooner than it would have.
    pub(super) fn schedule(&self, tick: u32) -> bool {
        let scheduled = self.scheduled.get();
        let sooner = scheduled == 0 || tick < scheduled;
        if sooner {
            self.scheduled.set(tick);
        }
        sooner
    }

    /// The clock says `now`, and was to look here at `tick`.
    pub(super) fn look(&self, tick: u32, now: u32) -> Look {
        let mut look = Look::default();
        // Else somebody has it look sooner, or it has done so already.
        if self.scheduled.get() == tick {
            self.scheduled.set(0);
            let due = [
                self.look_at_deadline(now, &mut look),
                self.look_at_life(now, &mut look),
                self.look_at_data(now, &mut look),
                self.look_at_message(now, &mut look),
            ];
            look.next = due.into_iter().flatten().min().map(|next| next.min(now + LOOK_AHEAD));
        }
        look
    }

    fn look_at_deadline(&self, now: u32, look: &mut Look) -> Option<u32> {
        match self.deadline.get() {
            0 => None,
            deadline if deadline <= now => {
                self.deadline.set(0);
                self.expired.set(true);
                look.wakes = true;
                None
            }
            deadline => Some(deadline),
        }
    }

    fn look_at_life(&self, now: u32, look: &mut Look) -> Option<u32> {
        let interval = self.interval.get();
        if interval == 0 {
            return None;
        }
        let due = match self.ping.get() {
            PingState::Alive => self.alive.get() + interval,
            PingState::AwaitingPong(then) => then + self.timeout,
            // The connection has been told. Should it give a sign of life after all, a Ping is due this much later.
            PingState::PingDue | PingState::TimedOut => return Some(now + interval),
        };
        if now < due {
            return Some(due);
        }
        let doubt = if self.ping.get() == PingState::Alive { PingState::PingDue } else { PingState::TimedOut };
        self.ping.set(doubt);
        look.wakes = true;
        Some(now + interval)
    }

    fn look_at_data(&self, now: u32, look: &mut Look) -> Option<u32> {
        let idle = self.idle.get();
        if idle == 0 {
            return None;
        }
        let due = self.moved.get() + idle;
        if now < due {
            return Some(due);
        }
        self.idle.set(0);
        look.is_idle = true;
        None
    }

    fn look_at_message(&self, now: u32, look: &mut Look) -> Option<u32> {
        match self.message.get() {
            0 => None,
            late if late <= now => {
                self.message.set(0);
                look.wakes = true;
                None
            }
            late => Some(late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PING: Ping = Ping { interval: Duration::from_secs(1), timeout: Duration::from_millis(500) };

    fn liveness(ping: Option<Ping>, idle_timeout: Option<Duration>) -> Liveness {
        Liveness::new(&Limits { ping, idle_timeout, ..Limits::default() }, 100)
    }

    /// Looks at `now`, as the clock does that was told so; returns what it is told next.
    fn look(liveness: &Liveness, now: u32) -> Option<u32> {
        liveness.schedule(now);
        liveness.look(now, now).next
    }

    #[test]
    fn a_deadline_passes_once() {
        let liveness = liveness(None, None);
        assert_eq!(look(&liveness, 105), None);
        liveness.set_deadline(107);
        assert_eq!(look(&liveness, 106), Some(107));
        assert!(!liveness.expired());
        assert_eq!(look(&liveness, 107), None);
        assert!(liveness.expired());
        liveness.set_deadline(109);
        assert!(!liveness.expired());
    }

    #[test]
    fn the_clock_is_told_the_soonest() {
        let liveness = liveness(None, None);
        assert!(liveness.schedule(120));
        assert!(!liveness.schedule(130));
        assert!(liveness.schedule(110));
        liveness.set_deadline(200);
        assert_eq!(liveness.look(110, 110).next, Some(200));
        liveness.schedule(200);
        assert_eq!(liveness.look(120, 120).next, None, "that look was replaced by the one at 110");
        liveness.set_deadline(100_000);
        assert_eq!(
            liveness.look(200, 200).next,
            Some(200 + LOOK_AHEAD),
            "not so long that what is over stays in memory"
        );
    }

    #[test]
    fn a_silent_client_is_asked_and_given_up() {
        let liveness = liveness(Some(PING), None);
        // A second is four ticks, and one for the tick under way.
        assert_eq!(look(&liveness, 100), Some(105));
        assert_eq!(look(&liveness, 104), Some(105));
        assert!(!liveness.is_ping_due());
        assert_eq!(look(&liveness, 105), Some(110));
        assert!(liveness.is_ping_due());
        // Not before somebody has sent the Ping does the time for its answer begin.
        look(&liveness, 110);
        assert!(!liveness.is_timed_out());
        assert_eq!(liveness.note_ping(110), 113);
        assert!(!liveness.is_ping_due());
        assert_eq!(look(&liveness, 112), Some(113));
        assert!(!liveness.is_timed_out());
        look(&liveness, 113);
        assert!(liveness.is_timed_out());
        // The connection found something to read when it looked for the last time.
        liveness.note_life(113);
        assert!(!liveness.is_timed_out());
        assert_eq!(look(&liveness, 114), Some(118));
        liveness.stop_watching();
        assert_eq!(look(&liveness, 200), None);
        assert!(!liveness.is_ping_due());
    }

    #[test]
    fn a_sign_of_life_keeps_the_ping_away() {
        let liveness = liveness(Some(PING), None);
        for now in (104..140).step_by(4) {
            liveness.note_life(now);
            assert_eq!(look(&liveness, now + 3), Some(now + 5));
        }
        assert!(!liveness.is_ping_due());
    }

    #[test]
    fn a_session_without_data_is_closed_once() {
        let liveness = liveness(Some(PING), Some(Duration::from_secs(2)));
        liveness.note_data(103);
        liveness.note_life(108);
        assert_eq!(look(&liveness, 108), Some(112));
        liveness.note_life(111);
        liveness.schedule(112);
        let look = liveness.look(112, 112);
        assert_eq!((look.next, look.is_idle), (Some(116), true));
        liveness.schedule(200);
        assert!(!liveness.look(200, 200).is_idle);
    }

    #[test]
    fn a_message_is_waited_for_until_it_is_late() {
        let liveness = liveness(None, None);
        liveness.await_message(110);
        assert_eq!(look(&liveness, 101), Some(110));
        liveness.await_message(112);
        assert_eq!(look(&liveness, 110), Some(112));
        assert_eq!(look(&liveness, 112), None);
        liveness.await_message(120);
        liveness.await_message(0);
        assert_eq!(look(&liveness, 121), None);
    }
}
