//! The custody of connections whose bytes httpd must go on looking at: TLS, where the engine cannot go on with it by itself
//! ([`super::tls_handoff`]), and the streams of HTTP/2. And of those whose request somebody holds ([`hold`]).
//!
//! The engine gets a stream of a mux ([`mux`]) or one end of a socketpair; what goes between that and the client's
//! connection filters is moved here: by one thread for all suspended connections of a child ([`thread`]), or by the worker
//! thread of the request where the MPM cannot suspend ([`blocking`]). [`pump`] is what both do, [`ending`] what makes them end.

pub mod blocking;
mod connection;
mod drain;
pub mod ending;
mod event_loop;
pub mod hold;
pub mod mux;
pub mod pump;
pub mod thread;

use crate::apache::log::{self, Level};
use crate::front::child;
use ending::Cause;
use hold::RequestHold;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a relay asks whether this child is to end: httpd's hook may come late.
const STOP_CHECK: Duration = Duration::from_secs(1);
/// Over what time the closings of a drain are spread, at most.
const SPREAD: Duration = Duration::from_secs(10);
/// How much longer than WebSocketCloseTimeout a relay goes on when the engine was told to end the session, or has closed
/// its end: then the client has taken what it was sent, or never will.
const CLOSING: Duration = Duration::from_secs(10);

pub struct Parked {
    /// `None` where the engine has the client's socket itself, and only the request is kept.
    pub engine: Option<EngineEnd>,
    pub session: RelaySession,
    pub hold: Option<Arc<dyn RequestHold>>,
}

/// How the bytes of a connection get to the engine.
pub enum EngineEnd {
    /// Our end of a socketpair, non-blocking.
    Pair(UnixStream),
    Mux(mux::PendingStream),
}

#[derive(Debug, Clone, Copy)]
pub struct RelaySession {
    pub id: u64,
    /// How long it may go on when this child is to end.
    pub drain_timeout: Duration,
    /// How long the engine waits for the client's Close.
    pub close_timeout: Duration,
}

impl RelaySession {
    /// In a child that is to end since that moment: it is this session's turn to close.
    fn is_due(&self, since: Instant) -> bool {
        since.elapsed() >= self.drain_timeout + spread(self.id, SPREAD.min(self.drain_timeout))
    }

    /// When it is given up, if it is to end from now on.
    fn last_moment(&self) -> Instant {
        Instant::now() + self.close_timeout + CLOSING
    }

    fn ask_to_close(&self, cause: Cause) {
        let (code, reason) = cause.word();
        let asked = child::engine_client().map(|engine| engine.close_session(self.id, code, reason));
        if let Some(Err(why)) = asked {
            let text = format!("WS0303: session {}: the engine cannot be told to close it: {why}", self.id);
            log::main(Level::Warning, &text);
        }
    }
}

/// The variables that a relayed session has for the access log, see `docs/operations/logging.md`.
fn variables(id: u64, since: Instant, received: u64, sent: u64) -> [(&'static str, String); 4] {
    [
        ("WS_SESSION", id.to_string()),
        ("WS_SECONDS", format!("{:.3}", since.elapsed().as_secs_f64())),
        ("WS_BYTES_IN", received.to_string()),
        ("WS_BYTES_OUT", sent.to_string()),
    ]
}

/// The moment within `window` of a drain at which this session is to close: spread, so that not all clients come back
/// at once; by the session's number, so that it needs not be remembered.
fn spread(id: u64, window: Duration) -> Duration {
    // Fibonacci hashing: neighbours end up far apart.
    let fraction = (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24);
    window.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closings_are_spread_over_the_window() {
        let window = Duration::from_secs(10);
        let mut moments: Vec<Duration> = (1..=100).map(|id| spread(id, window)).collect();
        moments.sort();
        assert!(moments[99] < window);
        let widest = moments.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest < Some(Duration::from_millis(300)), "{widest:?}");
    }
}
