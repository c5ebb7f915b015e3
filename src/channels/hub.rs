//! What all threads of the engine have together: the store, and the way to each thread's subscribers.
//!
//! * `queue`: what is on its way to one thread
//! * `publish`, `batch`: messages come in
//! * `subscribe`: subscribers come and go
//! * `query`: what httpd is told, and who is there
//! * `revoke`: sessions lose what they had
//! * `replay`: what a broker's log makes of the store
//!
//! Whatever goes to subscribers is put on its way while the store is locked: so all of them see it in one order.

mod batch;
mod publish;
mod query;
mod queue;
mod replay;
mod revoke;
mod subscribe;

pub use queue::{Deliveries, Delivery};

use super::broker::Broker;
use super::publication::Publication;
use super::redis::RedisLink;
use super::subscription::ServerSettings;
use super::{Error, Id, Store, StoreLimits, epoch};
use crate::engine::revocation::Directory;
use crate::wire::{CloseCode, close};
use queue::Queue;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

struct State {
    store: Store<Arc<Publication>>,
    /// The way to each thread, by the number of its shard.
    shards: Vec<Queue>,
    /// Joins and leaves so far, where there is no broker.
    presences: u64,
    broker: Option<Arc<Broker>>,
    /// The last entry of the broker's log that was read: its number, and when it was written.
    read: (u64, u64),
    /// Bytes that history may take.
    budget: usize,
}

/// The channels of an engine.
pub struct Hub {
    /// No other hub of the process has it.
    number: u64,
    state: Mutex<State>,
    since: Instant,
    directory: OnceLock<Arc<Directory>>,
}

impl Default for Hub {
    fn default() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let epoch = epoch();
        let ServerSettings { channels, history_bytes, .. } = ServerSettings::default();
        Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                store: Store::new(&epoch, StoreLimits { channels, bytes: history_bytes }),
                shards: Vec::new(),
                presences: 0,
                broker: None,
                read: (0, 0),
                budget: history_bytes,
            }),
            since: Instant::now(),
            directory: OnceLock::new(),
        }
    }
}

/// The one of an engine: whichever handler its subscribers have.
static COMMON: LazyLock<Arc<Hub>> = LazyLock::new(Arc::default);

impl Hub {
    /// The one that all handlers of the process have together.
    pub fn common() -> Arc<Hub> {
        COMMON.clone()
    }

    /// No other hub of the process has it.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds, from long before the start: what others have published may be older.
    fn now(&self) -> u64 {
        (1 << 40) + self.since.elapsed().as_millis() as u64
    }

    /// What the configuration says. To be called in a runtime that goes on.
    pub fn configure(self: &Arc<Self>, settings: &ServerSettings) {
        let mut state = self.lock();
        state.budget = settings.history_bytes;
        state.store.set_limits(StoreLimits { channels: settings.channels, bytes: settings.history_bytes });
        if state.broker.as_ref().map(|broker| broker.url()) == settings.broker.as_deref() {
            return;
        }
        let new = settings.broker.as_deref().map(|url| Broker::start(self, url));
        if let Some(old) = std::mem::replace(&mut state.broker, new) {
            tokio::spawn(async move { old.leave().await });
        }
        if state.broker.is_none() {
            // The messages of the broker are its own.
            state.store.restart(&epoch(), 0);
            state.close_all("the broker is used no more");
        }
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.lock().broker.clone()
    }

    /// The way to the broker, where there is one. Its first time may still have to come.
    async fn link(&self) -> Result<Option<RedisLink>, Error> {
        let Some(broker) = self.broker() else { return Ok(None) };
        let link = if broker.is_loaded().await { broker.link() } else { None };
        link.map(Some).ok_or_else(|| Error::unavailable("the broker cannot be reached"))
    }

    /// The engine ends: the others are told.
    pub async fn end(&self) {
        if let Some(broker) = self.broker() {
            broker.leave().await;
        }
    }

    /// To be called every some seconds.
    pub fn sweep(&self) {
        let now = self.now();
        self.lock().store.sweep(now);
    }

    /// A shard for a thread: its number, and what comes for its subscribers.
    pub fn enter(&self) -> (usize, Deliveries) {
        let (queue, deliveries) = Queue::new();
        let shards = &mut self.lock().shards;
        shards.push(queue);
        (shards.len() - 1, deliveries)
    }

    pub fn id(&self, offset: u64) -> Id {
        self.lock().store.id(offset)
    }
}

impl State {
    fn deliver(&self, shards: &[usize], delivery: &Delivery) {
        for shard in shards {
            self.shards[*shard].push(delivery.clone());
        }
    }

    /// What goes to each shard, by its number, in one piece.
    fn deliver_all(&self, deliveries: Vec<Vec<Delivery>>) {
        for (shard, deliveries) in self.shards.iter().zip(deliveries) {
            if !deliveries.is_empty() {
                shard.push_all(deliveries);
            }
        }
    }

    /// Closes all connections, which come back and are told what they can have.
    fn close_all(&self, why: &str) {
        for channel in self.store.subscribed() {
            let frame = close(CloseCode::Restart, why);
            self.deliver(&self.store.shards(&channel), &Delivery::Close { channel, frame });
        }
    }
}
