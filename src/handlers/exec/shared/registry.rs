//! The shared programs of an engine.

use super::ToSupervisor;
use super::supervisor::Supervisor;
use crate::engine::backoff::Backoff;
use crate::handlers::exec::group::Groups;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// What waits for the supervisor beyond the program's own queue.
const EVENTS: usize = 16;
/// How long no other is started after several failures in a row: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The place, the program and its arguments.
pub(super) type Key = (String, Vec<String>);

#[derive(Default)]
pub struct SharedPrograms(Mutex<HashMap<Key, Slot>>);

pub(super) struct Slot {
    events: mpsc::Sender<ToSupervisor>,
    pub(super) backoff: Backoff,
}

impl SharedPrograms {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the program is not started, where that is so.
    pub fn pause(&self, place: &str, words: &[String]) -> Option<Duration> {
        self.lock().get(&(place.to_owned(), words.to_vec()))?.backoff.remaining()
    }

    /// There will be no more clients: each program ends as if it had waited for one long enough.
    pub fn end(&self) {
        // With their last senders, those of clients that are leaving, supervisors have no more to wait for.
        self.lock().clear();
    }

    /// The way to the program's supervisor, which begins where there is none.
    pub(super) fn events(self: &Arc<Self>, groups: &Arc<Groups>, key: &Key) -> mpsc::Sender<ToSupervisor> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key).filter(|slot| !slot.events.is_closed()) {
            return slot.events.clone();
        }
        let (sender, events) = mpsc::channel(EVENTS);
        let supervisor = Supervisor { registry: self.clone(), groups: groups.clone(), key: key.clone(), events };
        tokio::task::spawn_local(supervisor.live());
        slots.insert(key.clone(), Slot { events: sender.clone(), backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) });
        sender
    }
}
