//! What children, parent and engine see of each other without asking ([`crate::engine::signals`]): the memory for it, and the
//! parent's look at the engine's signs of life.

use super::{WebSocket, lifecycle};
use crate::apache::log::{self, Level};
use crate::apache::server::Server;
use crate::apache::shared_memory;
use crate::engine::heartbeat::Watchdog;
use crate::engine::signals::{Board, Signals};
use crate::handlers;
use std::ffi::CStr;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The layout of what is shared, under a name of its own.
const KEY: &CStr = c"mod_websocket signals 1";

/// The parent's.
static WATCHDOG: Mutex<Option<Watchdog>> = Mutex::new(None);

/// The shared words. In httpd's parent first.
fn board() -> io::Result<Board> {
    let words = shared_memory::words(KEY, Board::size(lifecycle::ENGINES))?;
    Ok(Board::new(words, lifecycle::ENGINES))
}

/// In httpd's parent, before it starts the engine with this number: its signals, of which none is known yet.
///
/// # Errors
/// There is no memory to share.
pub fn renew(number: usize) -> io::Result<Signals> {
    let signals = board()?.engine(number);
    signals.clear_beats();
    Ok(signals)
}

/// In httpd's parent, about every ten seconds: whether the engine with this pid and number has given no sign of life for too
/// long, which is logged then.
pub fn is_dead(server: &Server, pid: i32, number: usize) -> bool {
    let Some(limit) = server.config::<WebSocket>().lateness().timeout() else { return false };
    let Ok(board) = board() else { return false };
    let mut watchdog = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner);
    let watchdog = watchdog.get_or_insert_default();
    let seen = watchdog.look(pid, board.engine(number), limit, handlers::NUMBERED);
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
