//! The custody of connections whose bytes httpd must go on looking at: TLS, and the streams of HTTP/2.
//!
//! The engine gets one end of a socketpair; what goes between the other end and the client's connection filters is moved
//! here: by one thread for all suspended connections of a child ([`thread`]), or by the worker thread of the request
//! where the MPM cannot suspend ([`blocking`]). [`pump`] is what both do.

pub mod blocking;
pub mod pump;
pub mod thread;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a relay needs to know.
pub struct Relayed {
    /// Our end of the socketpair, non-blocking.
    pub engine: UnixStream,
    /// The session's number in the engine.
    pub ticket: u64,
    /// How long the session may go on when this child is to end.
    pub drain_timeout: Duration,
}

impl Relayed {
    /// A relay and the engine's end of it.
    ///
    /// # Errors
    /// The limit of open files is reached.
    pub fn new(ticket: u64, drain_timeout: Duration) -> std::io::Result<(Relayed, UnixStream)> {
        let (engine, theirs) = UnixStream::pair()?;
        engine.set_nonblocking(true)?;
        Ok((Relayed { engine, ticket, drain_timeout }, theirs))
    }
}

/// The variables that a relayed session has for the access log, see README.md.
fn variables(ticket: u64, since: Instant, received: u64, sent: u64) -> [(&'static str, String); 4] {
    [
        ("WS_SESSION", ticket.to_string()),
        ("WS_SECONDS", format!("{:.3}", since.elapsed().as_secs_f64())),
        ("WS_BYTES_IN", received.to_string()),
        ("WS_BYTES_OUT", sent.to_string()),
    ]
}

/// The moment within `window` of a drain at which this session is to close: spread, so that not all clients come back
/// at once; by the session's number, so that it needs not be remembered.
fn spread(ticket: u64, window: Duration) -> Duration {
    // Fibonacci hashing: neighbours end up far apart.
    let fraction = (ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24);
    window.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closings_are_spread_over_the_window() {
        let window = Duration::from_secs(10);
        let mut moments: Vec<Duration> = (1..=100).map(|ticket| spread(ticket, window)).collect();
        moments.sort();
        assert!(moments[99] < window);
        let widest = moments.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest < Some(Duration::from_millis(300)), "{widest:?}");
    }
}
