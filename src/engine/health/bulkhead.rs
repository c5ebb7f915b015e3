//! The bulkhead before an engine: of the threads that may wait there are only so many, so that the others have pages to serve.
//!
//! Places are words, shared by the processes among which they are counted. Who has one writes its pid, and until when: what a
//! process that died has left is free as soon as somebody wants it.

use super::signals::now;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Engine = 0,
    /// What the engine waits for: a server, a program, a broker.
    Behind = 1,
}

#[derive(Debug, Clone, Copy)]
pub struct Bulkhead {
    places: &'static [AtomicU64],
    /// Of either side, who may wait.
    limits: [u32; 2],
    /// The process that takes places here.
    pid: u32,
}

/// A place of one who waits, until dropped.
#[derive(Debug)]
pub struct Permit {
    place: &'static AtomicU64,
    word: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // One whose time was over may be somebody else's.
        let _ = self.place.compare_exchange(self.word, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// 31 bits of a pid, 32 bits of seconds, and the side.
fn word(pid: u32, until: u64, side: Side) -> u64 {
    u64::from(pid) << 33 | (until & 0xffff_ffff) << 1 | side as u64
}

fn until(word: u64) -> u64 {
    word >> 1 & 0xffff_ffff
}

/// Nobody has the place any more, whatever is written there.
fn is_free(word: u64, now: u64) -> bool {
    word == 0 || until(word) < now
}

fn is_dead(word: u64) -> bool {
    let pid = i32::try_from(word >> 33).ok().and_then(Pid::from_raw);
    // Of another user (EPERM) it is alive.
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

impl Bulkhead {
    /// For this process: these places, of which `limit` may be waiting for the engine, and twice as many for what is behind it.
    pub fn new(places: &'static [AtomicU64], limit: u32) -> Bulkhead {
        Bulkhead { places, limits: [limit, limit.saturating_mul(2)], pid: std::process::id() }
    }

    /// Of this process alone. Never freed.
    pub fn private(places: usize, limit: u32) -> Bulkhead {
        let places: Vec<AtomicU64> = (0..places).map(|_| AtomicU64::new(0)).collect();
        Bulkhead::new(places.leak(), limit)
    }

    pub fn limit(&self, side: Side) -> u32 {
        self.limits[side as usize]
    }

    /// A place for one who waits no longer than this; `None`: they are all taken.
    pub fn take(&self, side: Side, time: Duration) -> Option<Permit> {
        let now = now() / 1000;
        let word = word(self.pid, now + time.as_secs() + 1, side);
        let place = self.claim(word, now)?;
        let held = Permit { place, word };
        // Counted when the place is taken: of two who come together one at least sees the other.
        let is_within = || self.count(side, now) <= self.limits[side as usize];
        if is_within() {
            return Some(held);
        }
        self.bury(now);
        is_within().then_some(held)
    }

    fn claim(&self, word: u64, now: u64) -> Option<&'static AtomicU64> {
        // Not all at the same one.
        let begin = self.pid as usize % self.places.len().max(1);
        self.places[begin..].iter().chain(&self.places[..begin]).find(|place| {
            let known = place.load(Ordering::SeqCst);
            is_free(known, now) && place.compare_exchange(known, word, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }

    fn count(&self, side: Side, now: u64) -> u32 {
        let words = self.places.iter().map(|place| place.load(Ordering::SeqCst));
        words.filter(|word| !is_free(*word, now) && word & 1 == side as u64).count() as u32
    }

    /// Frees what those have left who are dead.
    fn bury(&self, now: u64) {
        for place in self.places {
            let word = place.load(Ordering::SeqCst);
            if !is_free(word, now) && is_dead(word) {
                let _ = place.compare_exchange(word, 0, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const TIME: Duration = Duration::from_secs(60);

    #[test]
    fn there_are_so_many_on_either_side() {
        let bulkhead = Bulkhead::private(20, 2);
        let take = |side| bulkhead.take(side, TIME);
        let mut held: Vec<Permit> = (0..2).map(|_| take(Side::Engine).unwrap()).collect();
        assert!(take(Side::Engine).is_none());
        held.extend((0..4).map(|_| take(Side::Behind).unwrap()));
        assert!(take(Side::Behind).is_none() && take(Side::Engine).is_none());
        held.remove(0);
        assert!(take(Side::Behind).is_none());
        held.push(take(Side::Engine).unwrap());
        assert!(take(Side::Engine).is_none());
        drop(held);
        assert!(bulkhead.places.iter().all(|place| place.load(Ordering::SeqCst) == 0));
    }

    #[test]
    fn the_dead_and_the_late_give_their_places_back() {
        let bulkhead = Bulkhead::private(4, 2);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let soon = now() / 1000 + 60;
        bulkhead.places[0].store(word(dead, soon, Side::Engine), Ordering::SeqCst);
        bulkhead.places[1].store(word(std::process::id(), soon - 61, Side::Engine), Ordering::SeqCst);
        // Somebody who lives, of another user perhaps.
        bulkhead.places[2].store(word(1, soon, Side::Engine), Ordering::SeqCst);
        let held = bulkhead.take(Side::Engine, TIME);
        assert!(held.is_some());
        assert!(bulkhead.take(Side::Engine, TIME).is_none());
        // Late, and somebody else has the place meanwhile.
        let late = held.unwrap();
        late.place.store(word(1, soon, Side::Engine), Ordering::SeqCst);
        drop(late);
        assert!(bulkhead.take(Side::Engine, TIME).is_none());
    }

    #[test]
    fn never_too_many_at_a_time() {
        const LIMIT: u32 = 3;
        let bulkhead = Bulkhead::private(16, LIMIT);
        let (inside, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(held) = bulkhead.take(Side::Engine, TIME) {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < LIMIT);
                            taken.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) > 100);
    }
}
