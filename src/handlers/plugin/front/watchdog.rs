//! Which functions of plugins are running, and for how long: so that a hang or a crash can be told.

use super::abi::{Callback, Plugin};
use super::connection::PluginConnection;
use crate::apache::crash;
use crate::apache::log::{self, Level};
use slab::Slab;
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A function that has not returned for this long is told of.
pub const LONG: Duration = Duration::from_secs(10);

struct Call {
    plugin: Arc<Plugin>,
    callback: Callback,
    session: u64,
    since: Instant,
    told: bool,
}

static CALLS: Mutex<Slab<Call>> = Mutex::new(Slab::new());

thread_local! {
    /// The address of the connection whose function runs on this thread; 0 for none.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

fn calls() -> MutexGuard<'static, Slab<Call>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On whose behalf the calling thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A thread of the plugin's own.
    Own,
    /// In a function that was called for this connection.
    This,
    /// In one that was called for another.
    Other,
}

pub fn caller(connection: &PluginConnection) -> Caller {
    match INSIDE.get() {
        0 => Caller::Own,
        inside if inside == address(connection) => Caller::This,
        _ => Caller::Other,
    }
}

fn address(connection: &PluginConnection) -> usize {
    std::ptr::from_ref(connection).addr()
}

pub fn call<T>(connection: &PluginConnection, callback: Callback, body: impl FnOnce() -> T) -> T {
    let plugin = connection.plugin();
    let session = connection.session();
    let key = calls().insert(Call { plugin: plugin.clone(), callback, session, since: Instant::now(), told: false });
    let outer = INSIDE.replace(address(connection));
    let inside = crash::enter(plugin.note(callback), session);
    let result = body();
    drop(inside);
    INSIDE.set(outer);
    let call = calls().remove(key);
    if call.told {
        tell(&call, "has returned after");
    }
    result
}

/// Tells of calls that take long, once each.
pub fn look() {
    for (_, call) in calls().iter_mut() {
        if !call.told && call.since.elapsed() >= LONG {
            call.told = true;
            tell(call, "is still running after");
        }
    }
}

pub fn any() -> bool {
    !calls().is_empty()
}

fn tell(call: &Call, what: &str) {
    let Call { plugin, callback, session, since, .. } = call;
    let note = plugin.note(*callback);
    let session = if *session == 0 { String::new() } else { format!(", session {session}") };
    let seconds = since.elapsed().as_secs();
    log::main(
        Level::Warning,
        &format!("WS0241: {} of {} {what} {seconds} seconds{session}", note.function, note.owner),
    );
}
