//! Those who need a request, and so its relay, until they say that they are done.

use super::thread::Relay;
use std::thread::Thread;

/// What keeps a request until it is over.
pub trait RequestHold: Send + Sync {
    fn is_over(&self) -> bool;

    /// Names whom to wake when it is over. (It may be over already.)
    fn wake_at_the_end(&self, waiter: Waiter);
}

pub enum Waiter {
    Relay(&'static Relay, usize),
    Thread(Thread),
}

impl Waiter {
    pub fn wake(&self) {
        match self {
            Waiter::Relay(relay, key) => relay.hold_is_over(*key),
            Waiter::Thread(thread) => thread.unpark(),
        }
    }
}
