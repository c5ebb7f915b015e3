//! The clock of an engine thread, which ticks while somebody needs it.

use super::handle::ConnectionHandle;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// The length of a tick: what is due is this much late at most.
pub const TICK: Duration = Duration::from_millis(250);

/// A time in ticks. The tick under way may be almost over: never too short.
pub fn ticks(time: Duration) -> u32 {
    let ticks = time.as_millis().div_ceil(TICK.as_millis()) + 1;
    // Half of the range: sums with a tick of today stay in it for decades.
    u32::try_from(ticks).map_or(u32::MAX / 2, |ticks| ticks.min(u32::MAX / 2))
}

#[derive(Default)]
pub(super) struct Timer {
    /// Ticks since the start. Stands still while nobody needs the clock.
    now: Cell<u32>,
    /// At which ticks to look at which sessions, the soonest first. What is out of date is found out when looking.
    looks: RefCell<BinaryHeap<Reverse<(u32, u64)>>>,
    wanted: Notify,
    /// Sessions that are not read for want of memory: they look again with the next tick.
    paused: RefCell<Vec<Rc<ConnectionHandle>>>,
}

impl Timer {
    /// Wakes `handle` with the next tick.
    pub(super) fn pause(&self, handle: &Rc<ConnectionHandle>) {
        let mut paused = self.paused.borrow_mut();
        if !paused.iter().any(|known| Rc::ptr_eq(known, handle)) {
            paused.push(handle.clone());
            self.wanted.notify_one();
        }
    }

    /// The time in ticks; see [`ticks`].
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Lets `handle` expire after `time`.
    pub(super) fn set_deadline(&self, handle: &ConnectionHandle, time: Duration) {
        let deadline = self.now.get() + ticks(time);
        handle.liveness.set_deadline(deadline);
        self.look_at(handle, deadline);
    }

    /// Has the clock look at `handle` at this tick, or sooner.
    pub(super) fn look_at(&self, handle: &ConnectionHandle, tick: u32) {
        if handle.liveness.schedule(tick) {
            self.looks.borrow_mut().push(Reverse((tick, handle.id)));
            self.wanted.notify_one();
        }
    }

    /// Ticks while there is something to look at, sleeps while there is not.
    pub(super) async fn tick(&self, handles: &RefCell<HashMap<u64, Rc<ConnectionHandle>>>) {
        loop {
            self.wanted.notified().await;
            while !self.looks.borrow().is_empty() || !self.paused.borrow().is_empty() {
                tokio::time::sleep(TICK).await;
                self.now.set(self.now.get() + 1);
                self.look(&handles.borrow());
                self.paused.take().iter().for_each(|handle| handle.wake());
            }
        }
    }

    fn look(&self, handles: &HashMap<u64, Rc<ConnectionHandle>>) {
        let now = self.now.get();
        loop {
            let mut looks = self.looks.borrow_mut();
            let Some((tick, id)) = looks.peek().map(|look| look.0).filter(|(tick, _)| *tick <= now) else { break };
            looks.pop();
            drop(looks);
            if let Some(handle) = handles.get(&id)
                && let Some(next) = handle.look(tick, now)
            {
                self.look_at(handle, next);
            }
        }
        if handles.is_empty() {
            *self.looks.borrow_mut() = BinaryHeap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_too_long() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(251)), 3);
        assert_eq!(ticks(Duration::MAX), u32::MAX / 2);
    }
}
