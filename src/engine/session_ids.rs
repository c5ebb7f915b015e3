//! The numbers of sessions: none comes twice, and nobody guesses one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds of the Feistel network; four make it a permutation that nobody tells from a random one.
const ROUNDS: u8 = 6;

/// Counts, and shuffles the count: a permutation of all 64-bit numbers, under a key that nobody knows.
#[derive(Debug, Default)]
pub struct SessionIds {
    /// Keyed with random bits of the system.
    key: RandomState,
    count: AtomicU64,
}

impl SessionIds {
    /// The next number; never 0, which stands for all sessions elsewhere.
    pub fn next(&self) -> u64 {
        loop {
            let number = self.shuffle(self.count.fetch_add(1, Ordering::Relaxed));
            if number != 0 {
                return number;
            }
        }
    }

    /// Different for different counts, whatever the hash does: each round can be undone.
    fn shuffle(&self, count: u64) -> u64 {
        let (mut left, mut right) = ((count >> 32) as u32, count as u32);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.key.hash_one((round, right)) as u32);
        }
        u64::from(left) << 32 | u64::from(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_number_comes_twice_and_none_tells_of_another() {
        let (numbers, others) = (SessionIds::default(), SessionIds::default());
        let seen: HashSet<u64> = (0..100_000).map(|_| numbers.next()).collect();
        assert_eq!(seen.len(), 100_000);
        // Of random numbers each bit is set in half of them: the deviation is 158.
        for bit in 0..64 {
            let set = seen.iter().filter(|number| *number >> bit & 1 == 1).count();
            assert!((48_000..52_000).contains(&set), "bit {bit}: {set}");
        }
        assert!((0..1000).all(|_| !seen.contains(&others.next())), "each engine has its own");
    }
}
