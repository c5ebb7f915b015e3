//! Waiting for a condition, and taking turns.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a condition may take that is normally met in milliseconds. It only bounds a failure, so it is generous.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(4);

/// Polls until `condition` holds; panics with `what` was awaited when it does not within `deadline`.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, condition), "waited {deadline:?} in vain until {what}");
}

/// Polls until `condition` holds; false when it does not within `deadline`.
pub(crate) fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        // Not a guess at how long something takes: the interval at which the condition is looked at.
        std::thread::park_timeout(POLL);
    }
}

/// Held by a test that opens a thousand sockets or moves many megabytes: one such test runs at a time.
pub(crate) fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed in its turn has not harmed the next one.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
