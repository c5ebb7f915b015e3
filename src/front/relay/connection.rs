//! A connection of the relay thread.

use super::ending::Order;
use super::hold::RequestHold;
use super::pump::{Pair, Pump};
use super::trunk::Stream;
use super::{Session, variables};
use crate::apache::connection::Connection;
use crate::apache::suspended::Suspended;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the client has to close its side of a connection that we have closed; httpd's own SECONDS_TO_LINGER.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// And how long if it never pauses for that long: it may be in the middle of a message that was too long.
const LINGER_LIMIT: Duration = Duration::from_secs(60);
/// Reads of what such a client still sends, in a turn; and bytes in all.
pub(super) const LINGER_READS: usize = 64;
const LINGER_BYTES: usize = 64 << 20;
/// At how many looks in a row a connection has to be silent until its memory is given back.
const SILENT_LOOKS: u8 = 3;

/// A connection of the thread.
pub(super) struct Relaying {
    pub(super) request: Suspended,
    pub(super) phase: Phase,
    pub(super) session: Session,
    /// Until it is over.
    pub(super) hold: Option<Arc<dyn RequestHold>>,
    pub(super) since: Instant,
    /// When it is to be told to close, or to be given up.
    pub(super) deadline: Option<Instant>,
    pub(super) told: bool,
    pub(super) queued: bool,
    /// Looks for silence since its last turn, up to [`SILENT_LOOKS`].
    pub(super) silent: u8,
}

pub(super) enum Phase {
    Pumping(Pump, Far),
    /// The engine has the client's socket, and somebody holds the request.
    Held,
    /// The client is to close its side: until then at the latest, and with so many bytes at most.
    Lingering(Instant, usize),
    /// Nothing more happens; destroyed when it is old enough.
    Over,
}

/// The engine's side of a pump.
pub(super) enum Far {
    Pair(Pair),
    Trunk(Stream),
}

impl Relaying {
    /// To be called at each look for silence: the connection, when it has just been silent for long enough.
    pub(super) fn falls_silent(&mut self) -> Option<&Connection> {
        if self.silent >= SILENT_LOOKS || !matches!(self.phase, Phase::Pumping(..)) {
            return None;
        }
        self.silent += 1;
        (self.silent == SILENT_LOOKS).then(|| self.request.connection())
    }

    /// The engine has ended the session: so does the connection, in the way that httpd closes one.
    pub(super) fn hang_up(&mut self) {
        self.end_request();
        let now = Instant::now();
        self.phase = match self.request.start_close() {
            true => Phase::Lingering(now + LINGER_LIMIT, LINGER_BYTES),
            false => Phase::Over,
        };
        self.deadline = Some(now + LINGER);
    }

    /// The client is gone, or has to be given up.
    pub(super) fn give_up(&mut self) {
        self.request.connection().abandon();
        self.end_request();
        self.phase = Phase::Over;
    }

    pub(super) fn end_request(&mut self) {
        // Dropping our end of the way to the engine ends the session there, if it has not ended.
        if let Phase::Pumping(pump, _) = std::mem::replace(&mut self.phase, Phase::Over)
            && let Some(request) = self.request.request()
        {
            request.describe(&variables(self.session.ticket, self.since, pump.received, pump.sent), pump.sent);
        }
        if self.hold.is_none() {
            self.request.finish_request();
        }
    }

    /// The engine does nothing more for the session: what the client does not take soon, it will not have.
    pub(super) fn session_is_over(&mut self) {
        let last = self.session.last_moment();
        self.deadline.get_or_insert(last);
    }

    /// The request is held no more.
    pub(super) fn hold_is_over(&mut self) {
        match self.phase {
            // The client has yet to get the rest.
            Phase::Pumping(..) => return,
            Phase::Held => {
                if let Some(request) = self.request.request() {
                    request.describe(&variables(self.session.ticket, self.since, 0, 0), 0);
                }
                self.phase = Phase::Over;
            }
            Phase::Lingering(..) | Phase::Over => {}
        }
        // Nothing that the end of the request writes is for the client.
        self.request.connection().abandon();
        self.request.finish_request();
    }

    /// This child is to end: when that concerns this session, the engine is told to close it.
    pub(super) fn obey(&mut self, order: Order) {
        if !order.concerns(&self.session) {
            return;
        }
        let last = order.last_moment(&self.session);
        match &mut self.phase {
            Phase::Pumping(..) | Phase::Held => {}
            Phase::Lingering(latest, _) => {
                *latest = last.min(*latest);
                self.deadline = self.deadline.map(|deadline| deadline.min(last));
                return;
            }
            Phase::Over => return,
        }
        if self.told {
            // It may have become more urgent meanwhile.
            self.deadline = self.deadline.map(|deadline| deadline.min(last));
            return;
        }
        self.told = true;
        self.deadline = Some(last);
        self.session.ask_to_close(order.cause());
    }

    pub(super) fn deadline_passed(&mut self) {
        self.deadline = None;
        match self.phase {
            Phase::Pumping(..) => self.give_up(),
            Phase::Lingering(..) => self.phase = Phase::Over,
            // A hold cannot be ended from here, and a plugin may hang.
            Phase::Held | Phase::Over => {}
        }
    }
}
