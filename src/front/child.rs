//! What a child of httpd has for all its requests: the way to the engine, and the thread that relays.

use super::relay::ending;
use super::relay::thread::Relay;
use crate::apache::log::{self, Level};
use crate::apache::{mpm, pool::Pool};
use crate::engine::handoff::EngineClient;
use once_cell::sync::OnceCell;

static ENGINE_CLIENT: OnceCell<EngineClient> = OnceCell::new();

static RELAY: OnceCell<&'static Relay> = OnceCell::new();

/// In a new child, whose way to the engine this is.
pub(crate) fn enter(pool: &Pool, client: Option<EngineClient>) {
    ending::enter_child(pool);
    let Some(client) = client else { return };
    // In one-process mode (httpd -X) the child is the parent, and comes once.
    drop(ENGINE_CLIENT.set(client));
    if mpm::can_suspend() {
        match RELAY.get_or_try_init(Relay::start) {
            Ok(_) => pool.on_end(|| relay().map_or((), Relay::halt)),
            Err(why) => {
                log::main(Level::Error, &format!("WS0213: no TLS WebSockets in this child: no relay thread: {why}"))
            }
        }
    }
}

/// The relay thread, in a child of httpd whose MPM can suspend connections.
pub(crate) fn relay() -> Option<&'static Relay> {
    RELAY.get().copied()
}

/// The way to the engine, in a child of httpd.
pub(crate) fn engine_client() -> Option<&'static EngineClient> {
    ENGINE_CLIENT.get()
}
