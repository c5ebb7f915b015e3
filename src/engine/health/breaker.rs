//! The circuit breaker before an engine, which all children of httpd share: open, nobody asks the engine but one at a time, who
//! finds out whether it answers again.

use super::signals::{Signals, now};
use log::{error, warn};
use std::sync::atomic::Ordering;

/// The engine that a question was for, among those that have had this place one after the other.
pub type Generation = u64;

/// How long one may probe, at most (milliseconds): somebody who dies meanwhile is not waited for any longer.
const PROBE: u64 = 7_000;

#[derive(Debug, Clone, Copy)]
pub struct Breaker(Signals);

/// The right to ask while the breaker is open, until dropped.
#[derive(Debug)]
pub struct Probe {
    breaker: Breaker,
    word: u64,
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may have been somebody else's turn already.
        let _ = self.breaker.0.probe().compare_exchange(self.word, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

impl Breaker {
    pub fn new(signals: Signals) -> Breaker {
        Breaker(signals)
    }

    /// In httpd's parent, before it starts an engine: nothing is known of it, and nothing of what is known holds. True when the
    /// breaker was open.
    pub fn renew(self) -> bool {
        self.0.clear_beats();
        self.0.progress(0).answer();
        self.0.progress(1).answer();
        let state = self.0.state().load(Ordering::SeqCst);
        self.0.state().store(((state >> 1) + 1) << 1, Ordering::SeqCst);
        state & 1 != 0
    }

    /// Which engine is there now; true when it is asked by nobody but a probe.
    pub fn state(self) -> (Generation, bool) {
        let state = self.0.state().load(Ordering::SeqCst);
        (state >> 1, state & 1 != 0)
    }

    /// This engine is late: opens the breaker, unless it is open, or there is another engine.
    pub fn open(self, generation: Generation, why: &str) {
        let closed = generation << 1;
        if self.0.state().compare_exchange(closed, closed | 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.0.opened().store(now(), Ordering::Relaxed);
            error!(
                "WS0165: the engine is late ({why}): handshakes and publishers get 503 at once until it answers one that is \
                 let through"
            );
        }
    }

    /// This engine has answered: closes the breaker.
    pub fn close(self, generation: Generation) {
        let closed = generation << 1;
        // Mostly it is closed.
        if self.0.state().load(Ordering::Relaxed) == closed | 1
            && self.0.state().compare_exchange(closed | 1, closed, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            let seconds = now().saturating_sub(self.0.opened().load(Ordering::Relaxed)).div_ceil(1000);
            warn!("WS0166: the engine answers again, after {seconds} s");
        }
    }

    /// The right to ask while the breaker is open; `None`: somebody else has it.
    pub fn probe(self) -> Option<Probe> {
        let (known, now) = (self.0.probe().load(Ordering::SeqCst), now());
        // The process, so that two do not write the same.
        let word = (now + PROBE) << 24 | u64::from(std::process::id() & 0xff_ffff);
        let is_free = known >> 24 <= now;
        let taken = is_free && self.0.probe().compare_exchange(known, word, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        taken.then(|| Probe { breaker: self, word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_opens_and_one_closes() {
        let breaker = Breaker::new(Signals::private());
        breaker.renew();
        let (first, open) = breaker.state();
        assert!(!open);
        breaker.open(first, "test");
        breaker.open(first, "test");
        assert_eq!(breaker.state(), (first, true));
        breaker.close(first);
        breaker.close(first);
        assert_eq!(breaker.state(), (first, false));
    }

    #[test]
    fn what_was_an_engine_before_says_nothing_of_the_next() {
        let breaker = Breaker::new(Signals::private());
        let (first, _) = breaker.state();
        assert!(!breaker.renew());
        breaker.open(first, "test");
        let (second, open) = breaker.state();
        assert!(second != first && !open);
        breaker.open(second, "test");
        breaker.close(first);
        assert_eq!(breaker.state(), (second, true));
        assert!(breaker.renew());
        assert!(!breaker.state().1);
    }

    #[test]
    fn one_probes_at_a_time_and_one_that_died_is_not_waited_for() {
        let breaker = Breaker::new(Signals::private());
        let probe = breaker.probe().unwrap();
        // Nor does one that is refused let another one pass.
        assert!(breaker.probe().is_none() && breaker.probe().is_none());
        drop(probe);
        let dead = Probe { breaker, word: (now() - 1) << 24 | 1 };
        breaker.0.probe().store(dead.word, Ordering::SeqCst);
        let next = breaker.probe().unwrap();
        // Late, but not dead.
        drop(dead);
        assert!(breaker.probe().is_none());
        drop(next);
        assert!(breaker.probe().is_some());
    }
}
