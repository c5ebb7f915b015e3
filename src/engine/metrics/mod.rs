//! What is counted: by httpd's children and by engines, in memory that they share with whoever shows the figures.
//!
//! * [`board`]: the shared words, and whose they are
//! * [`row`]: what one thread of an engine counts, or some threads of children together
//! * [`timing`]: how long things take
//! * [`series`]: sessions by handler, transport and virtual host
//! * [`totals`]: the sums of it
//! * [`families`]: what they are called
//!
//! Counters never go back: an engine that takes the place of another goes on with its words. A thread of an engine is the only
//! one to write its row, so that counting costs an addition and no more.

pub mod board;
pub mod families;
pub mod row;
pub mod series;
pub mod timing;
pub mod totals;

pub use board::{Board, EngineArea, Gauge};
pub use row::{Counter, Row};
pub use series::Transport;
pub use timing::Timing;

use board::Reserve;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

thread_local! {
    static HERE: Cell<Option<Row>> = const { Cell::new(None) };
}

/// What this engine thread counts into. Elsewhere, words that nobody reads.
pub fn here() -> Row {
    HERE.get().unwrap_or_else(|| {
        let row = EngineArea::private(0).row(0);
        HERE.set(Some(row));
        row
    })
}

/// What an engine thread needs in order to count.
pub struct ThreadMetrics {
    pub row: Row,
    series: Arc<Reserve>,
    /// The numbers of series that this thread has met, by their texts.
    known: RefCell<HashMap<Box<str>, u16>>,
    text: RefCell<String>,
}

impl ThreadMetrics {
    /// Of the thread with this number (the main thread is 0), on which this is called.
    pub(crate) fn enter(series: &Arc<Reserve>, number: usize) -> ThreadMetrics {
        let row = series.area().row(number);
        HERE.set(Some(row));
        ThreadMetrics { row, series: series.clone(), known: RefCell::default(), text: RefCell::default() }
    }

    /// A session begins, in the series of this number.
    pub fn begin(&self, series: u16) {
        self.series.area().series().enter(series);
        self.row.add(Counter::Opened, 1);
    }

    /// It has ended.
    pub fn leave(&self, series: u16) {
        self.series.area().series().leave(series);
    }

    /// The number of the series that such a session counts in.
    pub fn series(&self, handler: &str, transport: Transport, vhost: &str) -> u16 {
        let mut text = self.text.borrow_mut();
        text.clear();
        // Into a String, which takes everything.
        let _ = write!(text, "{handler}\0{}\0{vhost}", transport.name());
        if let Some(number) = self.known.borrow().get(text.as_str()) {
            return *number;
        }
        let number = self.series.number(&text);
        self.known.borrow_mut().insert(text.as_str().into(), number);
        number
    }
}

impl Default for ThreadMetrics {
    fn default() -> ThreadMetrics {
        let series = Arc::new(Reserve::new(EngineArea::private(0)));
        let row = series.area().row(0);
        ThreadMetrics { row, series, known: RefCell::default(), text: RefCell::default() }
    }
}
