//! What httpd's children, its parent and an engine see of each other without asking: a few words of shared memory.
//!
//! * [`super::heartbeat`]: the engine's signs of life
//!
//! All words are zero at first, and each of them stands for itself: whoever dies between two of them leaves nothing that
//! others wait for.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::AtomicU64;

/// Engine threads whose signs of life have room, and the main thread.
pub const MAX_BEATS: usize = 1 + 1024;
/// The words of an engine before those of its threads.
const HEAD: usize = 8;
/// The words of an engine.
const WORDS: usize = HEAD + MAX_BEATS;

/// Milliseconds of a clock that all processes of this machine share, and that stands still while it is suspended.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The shared words of some engines.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    words: &'static [AtomicU64],
    engines: usize,
}

impl Board {
    /// How many words a board takes.
    pub const fn size(engines: usize) -> usize {
        engines * WORDS
    }

    /// Of words that are all zero, or a board of as many engines already.
    ///
    /// # Panics
    /// They are too few.
    pub fn new(words: &'static [AtomicU64], engines: usize) -> Board {
        assert!(words.len() >= Board::size(engines), "{} words for {engines} engines", words.len());
        Board { words, engines }
    }

    /// One that is not shared, and never freed.
    pub fn private(engines: usize) -> Board {
        let words: Vec<AtomicU64> = (0..Board::size(engines)).map(|_| AtomicU64::new(0)).collect();
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
}

/// The words of one engine.
#[derive(Debug, Clone, Copy)]
pub struct Signals(&'static [AtomicU64]);

impl Signals {
    /// Of an engine that nobody else sees.
    pub fn private() -> Signals {
        Board::private(1).engine(0)
    }

    /// Engine threads that have started.
    pub(super) fn threads(&self) -> &'static AtomicU64 {
        &self.0[6]
    }

    /// Those of the main thread and of the engine threads, by their numbers.
    pub(super) fn beats(&self) -> &'static [AtomicU64] {
        &self.0[HEAD..]
    }
}
