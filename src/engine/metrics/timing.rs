//! How long things take: for each kind of them, how many took at most so long.

use std::time::Duration;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Timing {
    /// An opening handshake, from its request to its 101.
    Handshake,
    /// An application answers a request of a session.
    Http,
    /// A program starts.
    Exec,
    /// A server is connected to, for a session of bytes.
    Tcp,
    /// A WebSocket server is connected to, and has sent its 101.
    Proxy,
    /// A message is on its way to all subscribers of a thread.
    FanOut,
}

pub const TIMINGS: [Timing; 6] =
    [Timing::Handshake, Timing::Http, Timing::Exec, Timing::Tcp, Timing::Proxy, Timing::FanOut];

/// The upper bounds of the buckets, in microseconds; above the last there is one more.
pub const BOUNDS: [u64; 18] = [
    10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// The sum of the times, in microseconds, behind the buckets.
pub(super) const SUM: usize = BOUNDS.len() + 1;
/// What a kind has.
pub(super) const WORDS: usize = SUM + 1;

/// The bucket of a time.
pub(super) fn place(time: Duration) -> usize {
    let micros = time.as_nanos().div_ceil(1000) as u64;
    BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_bucket() {
        for (nanos, expected) in [(0, 0), (10_000, 0), (10_001, 1), (1_000_000, 5), (10_000_000_000, 17)] {
            assert_eq!(place(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
        assert_eq!(place(Duration::from_secs(11)), BOUNDS.len());
        assert!(BOUNDS.is_sorted());
    }
}
