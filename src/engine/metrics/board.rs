//! The shared words, and whose they are: httpd's parent makes them before it forks, and they stay until it ends.

use super::row::{self, Row};
use super::series::{self, Series};
use crate::engine::health::signals::MAX_BEATS;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows of httpd's children, which share them.
const CHILD_ROWS: usize = 64;
/// The board's own.
const HEAD: usize = 16;
/// An engine's own: how many rows any engine here has had, and its gauges.
const ENGINE_HEAD: usize = 32;
const ROWS: usize = 0;
const GAUGES: usize = 1;
const ENGINE: usize = ENGINE_HEAD + series::WORDS + MAX_BEATS * row::WORDS;

/// What an engine says of itself as a whole: some when it starts, some when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// 0: there is no engine.
    Pid,
    /// Seconds since 1970.
    Started,
    Threads,
    OpenFiles,
    MaxFiles,
    /// Bytes that sockets hold, and may; `u64::MAX`: there is no bound.
    Memory,
    MaxMemory,
    /// Sessions whose clients have not taken all that was sent.
    SlowConsumers,
    Channels,
    HistoryMessages,
    HistoryBytes,
    /// Programs that handlers have started.
    Programs,
    /// 0: there is none; 1: connected; 2: not connected.
    Broker,
}

const _: () = assert!(GAUGES + Gauge::Broker as usize <= ENGINE_HEAD);

/// All of them.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    words: &'static [AtomicU64],
    engines: usize,
}

impl Board {
    pub const fn size(engines: usize) -> usize {
        HEAD + CHILD_ROWS * row::WORDS + engines * ENGINE
    }

    /// Of words that are all zero, or a board of as many engines already.
    ///
    /// # Panics
    /// They are too few.
    pub fn new(words: &'static [AtomicU64], engines: usize) -> Board {
        assert!(words.len() >= Board::size(engines), "{} words for {engines} engines", words.len());
        // By whoever is first.
        let _ = words[0].compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed);
        Board { words, engines }
    }

    /// Since when there is something to count, in seconds since 1970.
    pub fn began(&self) -> u64 {
        self.words[0].load(Ordering::Relaxed)
    }

    /// What was counted some time ago: see [`super::totals::Totals::sample`].
    pub(super) fn samples(&self) -> &'static [AtomicU64] {
        &self.words[1..HEAD]
    }

    /// A row of children: of whoever has this number, and others.
    pub fn child(&self, number: usize) -> Row {
        Row::new(&self.words[HEAD + number % CHILD_ROWS * row::WORDS..][..row::WORDS])
    }

    pub(super) fn children(&self) -> impl Iterator<Item = Row> {
        (0..CHILD_ROWS).map(|number| self.child(number))
    }

    /// Of the engine with this number, from 0.
    ///
    /// # Panics
    /// There is no such engine.
    pub fn engine(&self, number: usize) -> EngineArea {
        assert!(number < self.engines, "engine {number} of {}", self.engines);
        EngineArea(&self.words[HEAD + CHILD_ROWS * row::WORDS + number * ENGINE..][..ENGINE])
    }

    pub fn engines(&self) -> impl Iterator<Item = EngineArea> {
        (0..self.engines).map(|number| self.engine(number))
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The words of one engine after another.
#[derive(Debug, Clone, Copy)]
pub struct EngineArea(&'static [AtomicU64]);

impl EngineArea {
    /// Of an engine with so many threads that nobody else sees. Never freed.
    pub fn private(threads: usize) -> EngineArea {
        let words = ENGINE_HEAD + series::WORDS + (threads + 1) * row::WORDS;
        let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        EngineArea(words.leak())
    }

    /// An engine begins here: with its main thread, and so many more.
    pub fn begin(self, threads: usize) {
        self.0[ROWS].fetch_max(threads as u64 + 1, Ordering::Relaxed);
        self.set(Gauge::Pid, u64::from(std::process::id()));
        self.set(Gauge::Started, now());
        self.set(Gauge::Threads, threads as u64);
    }

    /// What was counted stays; what there was is no more.
    pub fn end(self) {
        self.0[GAUGES..ENGINE_HEAD].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.series().clear();
        self.rows().for_each(Row::forget_open);
    }

    pub fn set(self, gauge: Gauge, value: u64) {
        self.0[GAUGES + gauge as usize].store(value, Ordering::Relaxed);
    }

    pub fn read(self, gauge: Gauge) -> u64 {
        self.0[GAUGES + gauge as usize].load(Ordering::Relaxed)
    }

    pub fn series(self) -> Series {
        Series::new(&self.0[ENGINE_HEAD..][..series::WORDS])
    }

    /// Of the thread with this number; the main thread is 0. Where there is no more room, of the last.
    pub fn row(self, thread: usize) -> Row {
        let rows = &self.0[ENGINE_HEAD + series::WORDS..];
        let number = thread.min(rows.len() / row::WORDS - 1);
        Row::new(&rows[number * row::WORDS..][..row::WORDS])
    }

    /// Of all threads that have been here.
    pub(super) fn rows(self) -> impl Iterator<Item = Row> {
        (0..self.0[ROWS].load(Ordering::Relaxed) as usize).map(move |number| self.row(number))
    }
}

/// The series of an engine, as its threads number them.
#[derive(Debug)]
pub(crate) struct Reserve {
    area: EngineArea,
    known: Mutex<HashMap<Box<str>, u16>>,
}

impl Reserve {
    pub(crate) fn new(area: EngineArea) -> Reserve {
        Reserve { area, known: Mutex::default() }
    }

    pub(crate) fn area(&self) -> EngineArea {
        self.area
    }

    pub(super) fn number(&self, text: &str) -> u16 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.get(text) {
            return *number;
        }
        let number = self.area.series().push(text);
        known.insert(text.into(), number);
        number
    }
}
