//! How far a relayed session is on its way to its end.

use super::RelaySession;
use super::ending::EndOrder;
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Drain {
    told: bool,
    pub(super) deadline: Option<Instant>,
}

impl Drain {
    /// This child is to end: when that concerns this session, the engine is told to close it. To be called again: it may
    /// become more urgent.
    pub(super) fn obey(&mut self, order: EndOrder, session: &RelaySession) {
        if !order.concerns(session) {
            return;
        }
        self.end_by(order.last_moment(session));
        if !std::mem::replace(&mut self.told, true) {
            session.ask_to_close(order.cause());
        }
    }

    /// The engine does nothing more for the session: what the client does not take soon, it will not have.
    pub(super) fn session_is_over(&mut self, session: &RelaySession) {
        self.deadline.get_or_insert(session.last_moment());
    }

    pub(super) fn end_by(&mut self, last: Instant) {
        self.deadline = Some(self.deadline.map_or(last, |earlier| earlier.min(last)));
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}
