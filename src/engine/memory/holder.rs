//! A socket that holds something: how much, how it gets on, and what is asked of it.

use super::Memory;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// What is asked of a socket that holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Demand {
    None,
    /// It is not to be read for now.
    Pause,
    /// It closes, and nothing that it has begun to say is of use.
    Close,
    /// It is to end now, whatever is unsent.
    Drop,
}

#[derive(Debug)]
pub(super) struct Holder {
    pub(super) client: Box<str>,
    /// What has come of a message that is not complete, and windows.
    pub(super) unfinished: AtomicUsize,
    /// What has not been sent.
    pub(super) unsent: AtomicUsize,
    /// Its part of what waits for several.
    pub(super) share: AtomicUsize,
    pub(super) demand: AtomicU8,
    /// How it gets on: bytes, of which half are forgotten each [`HALF_LIFE`], as of `counted`.
    pub(super) moved: AtomicU32,
    pub(super) counted: AtomicU32,
    /// Since when it is not read, which is not to be held against it; 0: it is.
    pub(super) paused: AtomicU32,
}

/// In units of [`UNIT`].
pub(super) const HALF_LIFE: u32 = 2;
/// The unit in which it is noted when something moved.
pub(super) const UNIT: Duration = Duration::from_millis(250);

/// What a socket holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// What has come of a message that is not complete, and windows.
    pub unfinished: usize,
    /// What has not been sent, and waits for no other.
    pub unsent: usize,
    /// Its part of what waits for several.
    pub share: usize,
}

impl Held {
    pub(super) fn own(&self) -> usize {
        self.unfinished + self.unsent
    }
}

impl Holder {
    pub(super) fn held(&self) -> Held {
        Held {
            unfinished: self.unfinished.load(Ordering::Relaxed),
            unsent: self.unsent.load(Ordering::Relaxed),
            share: self.share.load(Ordering::Relaxed),
        }
    }

    pub(super) fn demand(&self) -> Demand {
        match self.demand.load(Ordering::Relaxed) {
            0 => Demand::None,
            1 => Demand::Pause,
            2 => Demand::Close,
            _ => Demand::Drop,
        }
    }

    pub(super) fn ask(&self, demand: Demand, now: u32) {
        self.demand.store(demand as u8, Ordering::Relaxed);
        let since = self.paused.load(Ordering::Relaxed);
        if demand == Demand::Pause && since == 0 {
            self.paused.store(now.max(1), Ordering::Relaxed);
        } else if demand == Demand::Close {
            // From now on it is the time since it was asked to.
            self.paused.store(0, Ordering::Relaxed);
            self.counted.store(now, Ordering::Relaxed);
        } else if demand != Demand::Pause && since != 0 {
            self.counted.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
            self.paused.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn moved(&self, now: u32) -> u32 {
        let now = match self.paused.load(Ordering::Relaxed) {
            0 => now,
            since => since,
        };
        let halvings = now.saturating_sub(self.counted.load(Ordering::Relaxed)) / HALF_LIFE;
        self.moved.load(Ordering::Relaxed).checked_shr(halvings).unwrap_or(0)
    }

    pub(super) fn note_moved(&self, bytes: usize, now: u32) {
        let moved = self.moved(now).saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.moved.store(moved, Ordering::Relaxed);
        // What is left of a half-life goes on.
        let counted = self.counted.load(Ordering::Relaxed);
        let passed = now.saturating_sub(counted) / HALF_LIFE * HALF_LIFE;
        self.counted.store(counted + passed, Ordering::Relaxed);
    }
}

/// The part of a socket in the account, until dropped. For its thread alone.
#[derive(Debug)]
pub struct Holding {
    pub(super) memory: Arc<Memory>,
    pub(super) thread: usize,
    pub(super) session: u64,
    pub(super) holder: Arc<Holder>,
}

impl Holding {
    /// Notes what the socket holds now, of which something may have moved.
    pub fn update(&self, held: Held) {
        let before = self.holder.held();
        if held == before {
            return;
        }
        self.holder.unfinished.store(held.unfinished, Ordering::Relaxed);
        self.holder.unsent.store(held.unsent, Ordering::Relaxed);
        self.holder.share.store(held.share, Ordering::Relaxed);
        // More of a message has come, or it is complete; or something was sent.
        let came = held.unfinished.abs_diff(before.unfinished);
        let went = (before.unsent + before.share).saturating_sub(held.unsent + held.share);
        self.holder.note_moved(came + went, self.memory.now());
        self.memory.change(self.thread, before.own(), held.own());
    }

    pub fn demand(&self) -> Demand {
        let demand = self.holder.demand();
        if demand == Demand::Pause && self.memory.has_room() {
            self.holder.ask(Demand::None, self.memory.now());
            return Demand::None;
        }
        // Who would hold still more waits until there is something to hold.
        if demand == Demand::None && self.memory.is_full() { Demand::Pause } else { demand }
    }

    /// The socket closes, for whatever reason, and nothing that it has begun to say is of use.
    pub fn give_up(&self) {
        if self.holder.demand() < Demand::Close {
            self.holder.ask(Demand::Close, self.memory.now());
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.memory.change(self.thread, self.holder.held().own(), 0);
        self.memory.holders(self.thread).remove(&self.session);
    }
}
