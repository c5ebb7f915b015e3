//! How others on its thread reach a connection: a request to close, and a deadline.
//!
//! Deadlines are counted in ticks of the thread, since a timer of its own would cost each connection more than all the
//! rest of its state.

use crate::wire::CloseFrame;
use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::Duration;

/// The length of a tick: deadlines are this much late at most.
pub const TICK: Duration = Duration::from_millis(250);

/// The part of a connection that its thread can see. Never leaves the thread.
#[derive(Debug, Default)]
pub struct Peer {
    waker: RefCell<Option<Waker>>,
    close: RefCell<Option<CloseFrame>>,
    /// The tick at which `expired` turns true; 0 is never.
    deadline: Cell<u64>,
    expired: Cell<bool>,
}

impl Peer {
    /// Asks the connection to close with this frame; the first request counts.
    pub fn close(&self, frame: CloseFrame) {
        self.close.borrow_mut().get_or_insert(frame);
        self.wake();
    }

    /// The frame that [`Peer::close`] asked for, once.
    pub fn take_close(&self) -> Option<CloseFrame> {
        self.close.borrow_mut().take()
    }

    /// True when [`Peer::close`] was called and nobody has looked.
    pub fn close_asked(&self) -> bool {
        self.close.borrow().is_some()
    }

    /// Sets the tick at which [`Peer::expired`] turns true.
    pub fn set_deadline(&self, tick: u64) {
        self.deadline.set(tick);
        self.expired.set(false);
    }

    /// The deadline that was set has passed.
    pub fn expired(&self) -> bool {
        self.expired.get()
    }

    /// The thread's clock says `now`. True while a deadline is still ahead.
    pub fn tick(&self, now: u64) -> bool {
        match self.deadline.get() {
            0 => false,
            deadline if deadline <= now => {
                self.deadline.set(0);
                self.expired.set(true);
                self.wake();
                false
            }
            _ => true,
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

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CloseCode, close};

    #[test]
    fn a_deadline_passes_once() {
        let peer = Peer::default();
        assert!(!peer.tick(5));
        peer.set_deadline(7);
        assert!(peer.tick(6) && !peer.expired());
        assert!(!peer.tick(7) && peer.expired());
        peer.set_deadline(9);
        assert!(!peer.expired());
    }

    #[test]
    fn the_first_request_to_close_counts() {
        let peer = Peer::default();
        peer.close(close(CloseCode::Away, "first"));
        peer.close(close(CloseCode::Error, "second"));
        assert!(peer.close_asked());
        assert_eq!(peer.take_close().map(|f| f.code), Some(CloseCode::Away));
        assert!(peer.take_close().is_none());
    }
}
