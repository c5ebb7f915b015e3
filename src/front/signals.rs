//! What children, parent and engine see of each other without asking ([`crate::engine::health::signals`]): the memory for it, and the
//! parent's look at the engine's signs of life.

use crate::apache::log::{self, Level};
use crate::apache::server::{self, Server};
use crate::apache::{mpm, shared_memory};
use crate::engine::handoff::PATIENCE;
use crate::engine::health::breaker::Breaker;
use crate::engine::health::bulkhead::Bulkhead;
use crate::engine::health::gate::Gate;
use crate::engine::health::heartbeat::Watchdog;
use crate::engine::health::signals::{Board, Signals};
use crate::front::WebSocket;
use std::ffi::CStr;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The layout of what is shared, under a name of its own.
const KEY: &CStr = c"mod_websocket signals 1";

/// Engines that can be at once: the one that is used, and some of other versions that end with their last session.
pub(crate) const ENGINES: usize = 8;

static WATCHDOG: Mutex<Option<Watchdog>> = Mutex::new(None);

/// The shared words. In httpd's parent first.
fn board() -> io::Result<Board> {
    // Where a child serves one request at a time, all children have the places together: one for the engine, and one for what
    // is behind it.
    let places = if mpm::is_threaded() { 0 } else { 2 * mpm::most_children() as usize };
    let words = shared_memory::words(KEY, Board::size(ENGINES, places))?;
    Ok(Board::new(words, ENGINES))
}

/// In httpd's parent, before it starts the engine with this number: its signals, of which none is known yet.
pub fn renew(number: usize) -> io::Result<Signals> {
    let signals = board()?.engine(number);
    if Breaker::new(signals).renew() {
        log::main(Level::Notice, "WS0168: a new engine replaces one that was late: handshakes go to it");
    }
    Ok(signals)
}

/// In httpd's parent, about every ten seconds: whether the engine with this pid and number has given no sign of life for too
/// long, which is logged then with the names of its `handlers`.
pub fn is_dead(server: &Server, pid: i32, number: usize, handlers: &[&str]) -> bool {
    let Some(limit) = server.config::<WebSocket>().lateness().timeout() else { return false };
    let Ok(board) = board() else { return false };
    let mut watchdog = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner);
    let watchdog = watchdog.get_or_insert_default();
    let seen = watchdog.look(pid, board.engine(number), limit, handlers);
    if let Some(threads) = &seen {
        log::main(
            Level::Critical,
            &format!(
                "WS0169: the engine process {pid} gives no sign of life (WebSocketEngineTimeout {}): it is killed and replaced, \
                 and all its sessions are lost. Last signs: {threads}",
                limit.as_secs()
            ),
        );
    }
    seen.is_some()
}

/// In httpd's parent, which has waited for an answer of the engine with this number: its main thread has given a sign of life
/// meanwhile.
pub fn has_time(number: usize) -> bool {
    board().is_ok_and(|board| board.engine(number).is_alive(PATIENCE))
}

/// How many threads of a child, or children where each has one, may wait for the engine.
pub(crate) fn limit() -> u32 {
    let workers = if mpm::is_threaded() { mpm::threads_per_child() } else { mpm::max_children() };
    server::main().map_or(1, |server| server.config::<WebSocket>().lateness().wait(workers))
}

/// In a new child of httpd: what it passes before it asks the engine with this number.
pub fn gate(number: usize) -> io::Result<Gate> {
    let board = board()?;
    let bulkhead = match mpm::is_threaded() {
        // Also for the workers of mod_http2, which are more.
        true => Bulkhead::private(8 * mpm::threads_per_child() as usize + 64, limit()),
        false => Bulkhead::new(board.places(), limit()),
    };
    Ok(Gate::new(board.engine(number), bulkhead))
}
