//! How many streams of HTTP/2 may be WebSockets. mod_http2 holds a thread of its own for each as long as it is open: it serves
//! six of a connection at first, and all of a child share `H2MaxWorkers` of them. What takes more leaves none for pages.

use crate::apache::conftree;
use crate::apache::connection::Connection;
use crate::apache::log::{self, Level};
use crate::apache::mpm;
use crate::apache::request::Request;
use crate::apache::status::SERVICE_UNAVAILABLE;
use crate::front::WebSocket;
use once_cell::sync::OnceCell;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Streams that may be WebSockets in this child.
static CHILD: OnceCell<usize> = OnceCell::new();

static HELD: Mutex<Option<HeldStreams>> = Mutex::new(None);

#[derive(Debug, Default)]
struct HeldStreams {
    /// By their connections: at least one each.
    connections: HashMap<usize, usize>,
    all: usize,
}

/// Why there may not be one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Connection,
    Child,
}

impl HeldStreams {
    fn take(&mut self, connection: usize, of_connection: usize, of_child: usize) -> Result<(), Full> {
        if self.connections.get(&connection).is_some_and(|held| *held >= of_connection) {
            return Err(Full::Connection);
        }
        if self.all >= of_child {
            return Err(Full::Child);
        }
        *self.connections.entry(connection).or_default() += 1;
        self.all += 1;
        Ok(())
    }

    fn give_back(&mut self, connection: usize) {
        self.all -= 1;
        if let Some(held) = self.connections.get_mut(&connection) {
            *held -= 1;
            if *held == 0 {
                self.connections.remove(&connection);
            }
        }
    }
}

fn held() -> MutexGuard<'static, Option<HeldStreams>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of a connection and of a child, until dropped.
#[derive(Debug)]
struct StreamPlace(usize);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        if let Some(held) = held().as_mut() {
            held.give_back(self.0);
        }
    }
}

/// Takes a place for the stream of this request, which it keeps until its end, whoever has it.
///
/// # Errors
/// 503: there are as many as there may be.
pub fn admit(request: &Request) -> Result<(), u16> {
    let Some(connection) = request.connection().master().map(Connection::number) else { return Ok(()) };
    let of_connection = request.config::<WebSocket>().h2_streams();
    let of_child = *CHILD.get_or_init(half);
    let taken = held().get_or_insert_default().take(connection, of_connection, of_child);
    match taken {
        Ok(()) => {
            request.pool().hold(StreamPlace(connection));
            Ok(())
        }
        Err(full) => {
            let why = match full {
                Full::Connection => format!("this connection of HTTP/2 has {of_connection} (WebSocketH2Streams)"),
                Full::Child => format!("this child of httpd has {of_child} over HTTP/2, half of H2MaxWorkers"),
            };
            log::request(Level::Info, request, &format!("WS0051: refused with {SERVICE_UNAVAILABLE}: {why}"));
            Err(SERVICE_UNAVAILABLE)
        }
    }
}

/// At startup: what `H2WebSockets On` costs, where it is written.
pub fn advise(streams: usize) {
    if !conftree::arguments_of("H2WebSockets").iter().any(|value| value.trim().eq_ignore_ascii_case("on")) {
        return;
    }
    let (workers, half) = (workers(), half());
    log::main(
        Level::Notice,
        &format!(
            "WS0052: H2WebSockets On: each WebSocket over HTTP/2 holds a thread of mod_http2, of which a child has {workers} \
             (H2MaxWorkers); {half} may be WebSockets in a child, and {streams} of one connection (WebSocketH2Streams). With \
             H2WebSockets Off browsers open them over HTTP/1.1, where they hold none"
        ),
    );
}

/// Streams that may be WebSockets in a child.
fn half() -> usize {
    (workers() / 2).max(1)
}

/// Threads of mod_http2 in a child.
fn workers() -> usize {
    let number = |name| conftree::argument_outside_of_sections(name)?.trim().trim_matches('"').parse().ok();
    workers_of(number("H2MinWorkers"), number("H2MaxWorkers"), mpm::threads_per_child() as usize)
}

/// What mod_http2 makes of its directives (h2_config.c), which no other module can ask it for: those of the main server count.
fn workers_of(least: Option<usize>, most: Option<usize>, threads_per_child: usize) -> usize {
    let least = least.filter(|number| *number > 0).unwrap_or(threads_per_child);
    most.filter(|number| *number > 0).unwrap_or((3 * least / 2).max(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_a_connection_and_of_the_child() {
        let mut held = HeldStreams::default();
        assert_eq!(
            [1, 1, 1, 2, 3].map(|connection| held.take(connection, 2, 3)),
            [Ok(()), Ok(()), Err(Full::Connection), Ok(()), Err(Full::Child)]
        );
        held.give_back(2);
        assert_eq!(held.take(3, 2, 3), Ok(()));
        for connection in [1, 1, 3] {
            held.give_back(connection);
        }
        assert_eq!((held.all, held.connections.len()), (0, 0));
    }

    #[test]
    fn workers_are_counted_as_mod_http2_does() {
        assert_eq!(workers_of(None, None, 25), 37);
        assert_eq!(workers_of(None, None, 1), 4);
        assert_eq!(workers_of(None, Some(150), 25), 150);
        assert_eq!(workers_of(Some(20), None, 25), 30);
        assert_eq!(workers_of(None, Some(5), 25), 5);
        assert_eq!(workers_of(Some(0), Some(0), 25), 37);
    }
}
