//! What httpd's children, its parent and an engine see of each other without asking: a few words of shared memory.
//!
//! All words are zero at first, and each of them stands for itself: whoever dies between two of them leaves nothing that
//! others wait for.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};

/// Engine threads whose signs of life have room, and the main thread.
pub const MAX_BEATS: usize = 1 + 1024;
/// The words of an engine before those of its threads.
const HEAD: usize = 8;
const WORDS: usize = HEAD + MAX_BEATS;

/// Milliseconds of a clock that all processes of this machine share, and that stands still while it is suspended.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The shared words: of some engines, and places of those who wait.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    words: &'static [AtomicU64],
    engines: usize,
}

impl Board {
    pub const fn size(engines: usize, places: usize) -> usize {
        engines * WORDS + places
    }

    /// Of words that are all zero, or a board of as many engines already. What is beyond these are places.
    ///
    /// # Panics
    /// They are too few.
    pub fn new(words: &'static [AtomicU64], engines: usize) -> Board {
        assert!(words.len() >= Board::size(engines, 0), "{} words for {engines} engines", words.len());
        Board { words, engines }
    }

    /// One that is not shared, and never freed.
    pub fn private(engines: usize, places: usize) -> Board {
        let words: Vec<AtomicU64> = (0..Board::size(engines, places)).map(|_| AtomicU64::new(0)).collect();
        Board::new(words.leak(), engines)
    }

    /// Of the engine with this number, from 0.
    ///
    /// # Panics
    /// There is no such engine.
    pub fn engine(&self, number: usize) -> Signals {
        assert!(number < self.engines, "engine {number} of {}", self.engines);
        Signals(&self.words[number * WORDS..(number + 1) * WORDS])
    }

    pub fn places(&self) -> &'static [AtomicU64] {
        &self.words[Board::size(self.engines, 0)..]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Signals(&'static [AtomicU64]);

impl Signals {
    /// Of an engine that nobody else sees.
    pub fn private() -> Signals {
        Board::private(1, 0).engine(0)
    }

    pub(super) fn state(&self) -> &'static AtomicU64 {
        &self.0[0]
    }

    pub(super) fn probe(&self) -> &'static AtomicU64 {
        &self.0[1]
    }

    pub(super) fn opened(&self) -> &'static AtomicU64 {
        &self.0[2]
    }

    pub(super) fn progress(&self, number: usize) -> Progress {
        Progress(&self.0[[3, 4][number]])
    }

    /// When it was last said in the log that too many wait.
    pub(super) fn said(&self) -> &'static AtomicU64 {
        &self.0[5]
    }

    pub(super) fn threads(&self) -> &'static AtomicU64 {
        &self.0[6]
    }

    /// Those of the main thread and of the engine threads, by their numbers.
    pub(super) fn beats(&self) -> &'static [AtomicU64] {
        &self.0[HEAD..]
    }
}

/// Whether answers come: since when questions have been asked without one coming.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress(&'static AtomicU64);

impl Progress {
    pub fn ask(self) {
        // Who dies with a question leaves this until the next answer: it says that none has come, and so it is.
        let _ = self.0.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub fn answer(self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Questions have waited for longer than this (milliseconds), and none was answered meanwhile.
    pub fn has_stopped(self, time: u64) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != 0 && now().saturating_sub(since) > time
    }
}
