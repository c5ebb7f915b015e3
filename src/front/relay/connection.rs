//! A connection of the relay thread.

use super::drain::Drain;
use super::ending::EndOrder;
use super::hold::RequestHold;
use super::mux::RelayedStream;
use super::pump::{Pair, Pump, TurnEnd};
use super::{RelaySession, variables};
use crate::apache::connection::Connection;
use crate::apache::suspended::Suspended;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the client has to close its side of a connection that we have closed; httpd's own SECONDS_TO_LINGER.
const LINGER: Duration = Duration::from_secs(2);
/// And how long if it never pauses for that long: it may be in the middle of a message that was too long.
const LINGER_LIMIT: Duration = Duration::from_secs(60);
/// Reads of what such a client still sends, in a turn; and bytes in all.
const LINGER_READS: usize = 64;
const LINGER_BYTES: usize = 64 << 20;
/// At how many looks in a row a connection has to be silent until its memory is given back.
const SILENT_LOOKS: u8 = 3;

pub(super) struct RelayedConnection {
    pub(super) request: Suspended,
    pub(super) phase: Phase,
    pub(super) session: RelaySession,
    /// Until it is over.
    pub(super) hold: Option<Arc<dyn RequestHold>>,
    pub(super) since: Instant,
    /// Its deadline is also that of a phase.
    pub(super) drain: Drain,
    pub(super) queued: bool,
    /// Looks for silence since its last turn, up to [`SILENT_LOOKS`].
    pub(super) silent: u8,
}

pub(super) enum Phase {
    Pumping(Pump, EngineSide),
    /// The engine has the client's socket, and somebody holds the request.
    Held,
    /// The client is to close its side: until then at the latest, and with so many bytes at most.
    Lingering(Instant, usize),
    /// Nothing more happens; destroyed when it is old enough.
    Over,
}

pub(super) enum EngineSide {
    Pair(Pair),
    Mux(RelayedStream),
}

impl RelayedConnection {
    /// Does what can be done; true when there is more. `buffer` is for the time of the call.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> bool {
        match &mut self.phase {
            Phase::Pumping(pump, engine) => {
                let client = self.request.connection();
                let turn = match engine {
                    EngineSide::Pair(pair) => pump.turn(pair, client, buffer),
                    EngineSide::Mux(stream) => pump.turn(stream, client, buffer),
                };
                match turn {
                    TurnEnd::Wait(_) => return false,
                    TurnEnd::Again => {}
                    // What the client has sent meanwhile had its edge already.
                    TurnEnd::Ended => self.hang_up(),
                    TurnEnd::Lost => {
                        self.give_up();
                        return false;
                    }
                }
                true
            }
            Phase::Lingering(last, left) => {
                let (last, before) = (*last, *left);
                let read = (0..LINGER_READS).find_map(|_| match rustix::io::read(self.request.as_fd(), &mut *buffer) {
                    Ok(count) if count > 0 && count <= *left => {
                        *left -= count;
                        None
                    }
                    Err(rustix::io::Errno::INTR) => None,
                    Err(rustix::io::Errno::AGAIN) => Some(true),
                    Ok(_) | Err(_) => Some(false),
                });
                if *left < before {
                    self.drain.deadline = Some(last.min(Instant::now() + LINGER));
                }
                if read == Some(false) {
                    self.phase = Phase::Over;
                }
                read.is_none()
            }
            Phase::Held | Phase::Over => false,
        }
    }

    /// To be called at each look for silence: the connection, when it has just been silent for long enough.
    pub(super) fn falls_silent(&mut self) -> Option<&Connection> {
        if self.silent >= SILENT_LOOKS || !matches!(self.phase, Phase::Pumping(..)) {
            return None;
        }
        self.silent += 1;
        (self.silent == SILENT_LOOKS).then(|| self.request.connection())
    }

    /// The engine has ended the session: so does the connection, in the way that httpd closes one.
    fn hang_up(&mut self) {
        self.end_request();
        let now = Instant::now();
        self.phase = match self.request.start_close() {
            true => Phase::Lingering(now + LINGER_LIMIT, LINGER_BYTES),
            false => Phase::Over,
        };
        self.drain.deadline = Some(now + LINGER);
    }

    /// The client is gone, or has to be given up.
    fn give_up(&mut self) {
        self.request.connection().detach();
        self.end_request();
        self.phase = Phase::Over;
    }

    fn end_request(&mut self) {
        // Dropping our end of the way to the engine ends the session there, if it has not ended.
        if let Phase::Pumping(pump, _) = std::mem::replace(&mut self.phase, Phase::Over)
            && let Some(request) = self.request.request()
        {
            request.set_log_variables(&variables(self.session.id, self.since, pump.received, pump.sent), pump.sent);
        }
        if self.hold.is_none() {
            self.request.finish_request();
        }
    }

    pub(super) fn hold_is_over(&mut self) {
        match self.phase {
            // The client has yet to get the rest.
            Phase::Pumping(..) => return,
            Phase::Held => {
                if let Some(request) = self.request.request() {
                    request.set_log_variables(&variables(self.session.id, self.since, 0, 0), 0);
                }
                self.phase = Phase::Over;
            }
            Phase::Lingering(..) | Phase::Over => {}
        }
        // Nothing that the end of the request writes is for the client.
        self.request.connection().detach();
        self.request.finish_request();
    }

    /// This child is to end.
    pub(super) fn obey(&mut self, order: EndOrder) {
        match &mut self.phase {
            Phase::Pumping(..) | Phase::Held => self.drain.obey(order, &self.session),
            Phase::Lingering(latest, _) if order.concerns(&self.session) => {
                *latest = order.last_moment(&self.session).min(*latest);
                self.drain.end_by(*latest);
            }
            Phase::Lingering(..) | Phase::Over => {}
        }
    }

    pub(super) fn deadline_passed(&mut self) {
        self.drain.deadline = None;
        match self.phase {
            Phase::Pumping(..) => self.give_up(),
            Phase::Lingering(..) => self.phase = Phase::Over,
            // A hold cannot be ended from here, and a plugin may hang.
            Phase::Held | Phase::Over => {}
        }
    }
}
