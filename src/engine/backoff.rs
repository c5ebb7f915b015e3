//! How long nobody tries again what has failed several times in a row.

use std::time::{Duration, Instant};

/// The second failure and those that follow cost a pause, each twice the one before.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// With the first pause and the longest.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, failures: 0, until: None }
    }

    /// It has failed once more: how long nobody tries it, if there is a pause.
    pub fn fail(&mut self) -> Option<Duration> {
        self.failures += 1;
        let pause = self.failures.checked_sub(2).map(|times| self.longest.min(self.first * (1 << times.min(10))));
        self.until = pause.map(|pause| Instant::now() + pause);
        pause
    }

    /// It has not failed.
    pub fn reset(&mut self) {
        *self = Backoff::new(self.first, self.longest);
    }

    /// How long the pause still lasts.
    pub fn remaining(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_they_are_long_enough() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, longest);
        let pauses: Vec<u64> = (0..8).map(|_| backoff.fail().map_or(0, |pause| pause.as_secs())).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30, 30]);
        assert!(backoff.remaining() > Some(longest / 2));
        backoff.reset();
        assert_eq!((backoff.remaining(), backoff.fail()), (None, None));
    }
}
