//! Two plugins for mod_websocket: an echo, and a counter that sends from a thread of its own twenty times a second and
//! speaks a subprotocol of its own.
//!
//! ```apache
//! <Location "/echo">
//!     WebSocketHandler /path/to/libplugin_example.so echo_init
//! </Location>
//! <Location "/counter">
//!     WebSocketHandler /path/to/libplugin_example.so counter_init
//! </Location>
//! ```

mod abi;

use abi::{Message, Plugin, RawPlugin, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

struct Echo;

impl Plugin for Echo {
    fn connect(_server: Server) -> Option<Echo> {
        Some(Echo)
    }

    fn message(&self, server: Server, message: Message<'_>) {
        server.send(message);
    }
}

/// The subprotocol of the counter.
const PROTOCOL: &str = "counter";

struct Counter {
    count: Arc<Count>,
    thread: JoinHandle<()>,
}

struct Count {
    number: AtomicU64,
    ended: AtomicBool,
}

impl Plugin for Counter {
    fn connect(server: Server) -> Option<Counter> {
        if !server.offers(PROTOCOL) {
            return None;
        }
        server.choose(PROTOCOL);
        let count = Arc::new(Count { number: AtomicU64::new(0), ended: AtomicBool::new(false) });
        let shared = count.clone();
        let thread = std::thread::Builder::new().spawn(move || {
            while !shared.ended.load(Ordering::Relaxed) {
                let number = shared.number.fetch_add(1, Ordering::Relaxed);
                if !server.send(Message::Text(&number.to_string())) {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        Some(Counter { count, thread: thread.ok()? })
    }

    fn message(&self, _server: Server, message: Message<'_>) {
        if matches!(message, Message::Text("reset")) {
            self.count.number.store(0, Ordering::Relaxed);
        }
    }

    fn disconnect(self) {
        self.count.ended.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // It ends at its next look; a panic of it is no matter of this thread.
        let _ = self.thread.join();
    }
}

/// `WebSocketHandler … echo_init`
#[unsafe(no_mangle)]
pub extern "C" fn echo_init() -> *mut RawPlugin {
    abi::structure::<Echo>()
}

/// `WebSocketHandler … counter_init`
#[unsafe(no_mangle)]
pub extern "C" fn counter_init() -> *mut RawPlugin {
    abi::structure::<Counter>()
}
