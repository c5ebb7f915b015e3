//! The sums of what is counted, as they are now.

use super::board::{Board, EngineArea, Gauge, now};
use super::row::{CODE_PLACES, Counter, Row, STATUS_PLACES, code_label, status_label};
use super::timing::{BOUNDS, SUM, Timing};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// A board, to be read.
#[derive(Debug, Clone, Copy)]
pub struct Totals {
    board: Board,
}

/// How many took how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// In each bucket alone: up to so many seconds.
    pub buckets: Vec<(f64, u64)>,
    /// In seconds.
    pub sum: f64,
}

impl Histogram {
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Totals {
    pub fn of(board: Board) -> Totals {
        Totals { board }
    }

    pub fn began(&self) -> u64 {
        self.board.began()
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        self.board.children().chain(self.board.engines().flat_map(EngineArea::rows))
    }

    /// The engines that are there.
    pub fn engines(&self) -> impl Iterator<Item = EngineArea> {
        self.board.engines().filter(|engine| engine.read(Gauge::Pid) != 0)
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.rows().map(|row| row.counted(counter)).sum()
    }

    /// The sum over all engines.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.engines().fold(0, |sum, engine| sum.saturating_add(engine.read(gauge)))
    }

    /// Connections to servers behind this one.
    pub fn backends(&self) -> u64 {
        self.engines().flat_map(EngineArea::rows).map(Row::backends).sum()
    }

    fn by_label(
        &self,
        places: usize,
        read: impl Fn(Row, usize) -> u64,
        label: impl Fn(usize) -> String,
    ) -> Vec<(String, u64)> {
        let rows: Vec<Row> = self.rows().collect();
        let sums = (0..places).map(|place| (label(place), rows.iter().map(|row| read(*row, place)).sum()));
        sums.filter(|(_, count)| *count > 0).collect()
    }

    /// By close code.
    pub fn closed(&self) -> Vec<(String, u64)> {
        self.by_label(CODE_PLACES, Row::closed, code_label)
    }

    /// By HTTP status.
    pub fn refused(&self) -> Vec<(String, u64)> {
        self.by_label(STATUS_PLACES, Row::refused, status_label)
    }

    pub fn histogram(&self, timing: Timing) -> Histogram {
        let rows: Vec<Row> = self.rows().collect();
        let sum = |place| rows.iter().map(|row| row.timed(timing, place)).sum::<u64>();
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        Histogram {
            buckets: bounds.enumerate().map(|(place, bound)| (bound, sum(place))).collect(),
            sum: sum(SUM) as f64 / 1e6,
        }
    }

    /// Open sessions: handler, transport, virtual host, and how many.
    pub fn sessions(&self) -> BTreeMap<[String; 3], u64> {
        let mut sessions = BTreeMap::new();
        for (labels, open) in self.engines().flat_map(|engine| engine.series().read()) {
            // The row for what finds no room stands there only when there is something.
            if open > 0 || labels[0] != "other" {
                *sessions.entry(labels).or_default() += open;
            }
        }
        sessions
    }
}

/// Counters of which the rate is told: what they were some time ago.
pub const RATED: [Counter; 5] =
    [Counter::Opened, Counter::ReceivedMessages, Counter::SentMessages, Counter::ReceivedBytes, Counter::SentBytes];
/// A sample: its time, and the counters.
const SAMPLE: usize = 1 + RATED.len();

impl Totals {
    /// To be called every some seconds, by one process: remembers what rates are told of.
    pub fn sample(&self) {
        let words = self.board.samples();
        // The last one is the one before now.
        for place in 0..SAMPLE {
            words[SAMPLE + place].store(words[place].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        words[0].store(now(), Ordering::Relaxed);
        for (place, counter) in RATED.into_iter().enumerate() {
            words[1 + place].store(self.counter(counter), Ordering::Relaxed);
        }
    }

    /// How much each of [`RATED`] grew a second, lately: in the last 10 to 20 seconds, or since the start.
    pub fn rates(&self) -> [f64; RATED.len()] {
        let word = |place: usize| self.board.samples()[place].load(Ordering::Relaxed);
        // The older one, if there is one.
        let (since, first) = match [word(SAMPLE), word(0)] {
            [0, _] => (self.began(), None),
            [older, _] => (older, Some(SAMPLE + 1)),
        };
        let time = now().saturating_sub(since).max(1) as f64;
        let mut place = 0;
        RATED.map(|counter| {
            let before = first.map_or(0, |first| word(first + place));
            place += 1;
            self.counter(counter).saturating_sub(before) as f64 / time
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    fn board() -> Board {
        let words: Vec<AtomicU64> = (0..Board::size(2)).map(|_| AtomicU64::new(0)).collect();
        Board::new(words.leak(), 2)
    }

    #[test]
    fn counters_outlive_engines_and_gauges_do_not() {
        let board = board();
        let totals = Totals::of(board);
        let engine = board.engine(0);
        engine.begin(2);
        engine.row(1).add(Counter::Opened, 2);
        engine.row(2).note_closed(1009);
        engine.row(2).note_time(Timing::FanOut, Duration::from_millis(3));
        board.child(70).share_refused(403);
        engine.series().enter(engine.series().push("echo\0tls\0a.example:443"));
        engine.set(Gauge::Channels, 7);
        std::mem::forget(engine.row(1).backend());
        // Another one beside it, which drains.
        board.engine(1).begin(1);
        board.engine(1).row(1).add(Counter::Opened, 5);
        board.engine(1).set(Gauge::Channels, 1);
        let key = ["echo", "tls", "a.example:443"].map(str::to_owned);
        assert_eq!((totals.engines().count(), totals.gauge(Gauge::Channels), totals.backends()), (2, 8, 1));
        assert_eq!(totals.sessions().get(&key), Some(&1));
        let counted = || {
            assert_eq!(totals.counter(Counter::Opened), 7);
            assert_eq!(totals.closed(), [("1009".to_owned(), 1)]);
            assert_eq!(totals.refused(), [("403".to_owned(), 1)]);
            let fan_out = totals.histogram(Timing::FanOut);
            assert_eq!((fan_out.count(), fan_out.sum, fan_out.buckets[7]), (1, 0.003, (0.005, 1)));
        };
        counted();
        engine.end();
        counted();
        assert_eq!((totals.engines().count(), totals.gauge(Gauge::Channels), totals.backends()), (1, 1, 0));
        assert!(totals.sessions().is_empty());
        // The next one has fewer threads.
        engine.begin(1);
        counted();
    }

    #[test]
    fn rates_are_of_the_last_samples() {
        let board = board();
        let totals = Totals::of(board);
        board.engine(0).begin(1);
        totals.sample();
        totals.sample();
        let row = board.engine(0).row(1);
        row.add(Counter::SentMessages, 1_000_000);
        assert!(totals.rates()[2] > 0.0);
        totals.sample();
        totals.sample();
        assert_eq!(totals.rates(), [0.0; RATED.len()]);
    }
}
