//! What all threads of the engine have together: the store, and the way to each thread's subscribers.
//!
//! Whatever goes to subscribers is put on its way while the store is locked: so all of them see it in one order. [`image`] is
//! what a broker's log makes of the store, [`answers`] what httpd is told.

mod answers;
mod image;
mod queue;

pub use queue::Deliveries;

use super::broker::Broker;
use super::call::{self, Answer, Call, Info, Receipt, Server};
use super::publication::{OVERHEAD, Publication};
use crate::channels::redis::{self, Link, Message};
use crate::channels::store::{Facts, Full, Page};
use crate::channels::{History, Id, Limits, Store, epoch};
use crate::engine::{Broadcast, Refused};
use crate::wire::{CloseCode, CloseFrame, close};
use ::redis::RedisError;
use queue::{Load, Queue};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a publisher waits while too much is on its way; httpd waits a little longer for its answer.
const ROOM: Duration = Duration::from_secs(4);

/// The status where it is not known whether it was done (Gateway Timeout).
pub const UNKNOWN: u16 = 504;

/// What goes to the subscribers of a thread.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A message.
    Publication(Arc<Publication>),
    /// Somebody came or went.
    Presence {
        /// Where.
        channel: Arc<str>,
        /// Who.
        member: Arc<str>,
        /// Came, and not went.
        joined: bool,
        /// Of this join or leave, among all.
        number: u64,
    },
    /// The connections of a channel are to close.
    Close {
        /// Which.
        channel: Arc<str>,
        /// With this frame.
        frame: CloseFrame,
    },
}

impl Delivery {
    /// The channel whose subscribers it is for.
    pub fn channel(&self) -> &Arc<str> {
        match self {
            Delivery::Publication(publication) => publication.channel(),
            Delivery::Presence { channel, .. } | Delivery::Close { channel, .. } => channel,
        }
    }
}

struct State {
    store: Store<Arc<Publication>>,
    /// The way to each thread, by its place.
    threads: Vec<Queue>,
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
}

impl Default for Hub {
    fn default() -> Self {
        Hub::new()
    }
}

impl Hub {
    /// Without channels.
    pub fn new() -> Hub {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let epoch = epoch();
        let Server { channels, history_bytes, .. } = Server::default();
        Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                store: Store::new(&epoch, Limits { channels, bytes: history_bytes }),
                threads: Vec::new(),
                presences: 0,
                broker: None,
                read: (0, 0),
                budget: history_bytes,
            }),
            since: Instant::now(),
        }
    }

    /// See the field.
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
    pub fn configure(self: &Arc<Self>, server: &Server) {
        let mut state = self.lock();
        state.budget = server.history_bytes;
        state.store.set_limits(Limits { channels: server.channels, bytes: server.history_bytes });
        if state.broker.as_ref().map(|broker| broker.url()) == server.broker.as_deref() {
            return;
        }
        let new = server.broker.as_deref().map(|url| Broker::start(self, url));
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
    async fn link(&self) -> Result<Option<Link>, Refused> {
        let Some(broker) = self.broker() else { return Ok(None) };
        let link = if broker.is_loaded().await { broker.link() } else { None };
        link.map(Some).ok_or_else(|| away("the broker is away"))
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

    /// A place for a thread: its number, and what comes for its subscribers.
    pub fn enter(&self) -> (usize, Deliveries) {
        let (queue, deliveries) = Queue::new();
        let threads = &mut self.lock().threads;
        threads.push(queue);
        (threads.len() - 1, deliveries)
    }

    /// The id of that offset.
    pub fn id(&self, offset: u64) -> Id {
        self.lock().store.id(offset)
    }

    /// Whether somebody may subscribe to these channels.
    ///
    /// # Errors
    /// It would be too many, or what the broker has is not here.
    pub async fn admit(&self, channels: &[impl AsRef<str>]) -> Result<(), Refused> {
        if let Some(broker) = self.broker()
            && !broker.is_loaded().await
        {
            return Err(away("the broker is away"));
        }
        let is_room = self.lock().store.has_room(channels);
        if is_room { Ok(()) } else { Err(full()) }
    }

    /// True when all messages of these channels after that id are kept.
    pub async fn recovers(&self, channels: &[impl AsRef<str>], since: &Id) -> bool {
        self.catch_up(since).await;
        let now = self.now();
        self.lock().store.recovers(now, channels, since)
    }

    /// Whoever was at another server may know what is not here yet.
    async fn catch_up(&self, since: &Id) {
        if self.is_of(&since.epoch)
            && self.sequence() < since.offset
            && let Some(broker) = self.broker()
            && let Some(link) = broker.link()
            // Else nobody was ever given it, and it is not waited for.
            && link.sequence().await.is_ok_and(|last| since.offset <= last)
        {
            broker.has_read(since.offset).await;
        }
    }

    /// The offset after which a client goes on that knows this id: what it can have missed comes after it.
    pub fn after(&self, since: &Id) -> u64 {
        let state = self.lock();
        // All of another epoch is new to it. An offset that was never given is none of ours.
        if state.store.id(0).epoch == since.epoch { since.offset.min(state.store.sequence()) } else { 0 }
    }

    /// What is kept of these channels after that offset; and where there is no more, `subscribe` is called with the last
    /// offset before anything else can be published. `None` in the place of an offset: after the last.
    ///
    /// # Errors
    /// It would be one channel too many.
    pub fn follow(
        &self,
        place: usize,
        channels: &[Arc<str>],
        after: Option<u64>,
        bytes: usize,
        member: Option<&str>,
        subscribe: impl FnOnce(u64),
    ) -> Result<Page<Arc<Publication>>, Refused> {
        let now = self.now();
        let mut state = self.lock();
        let after = after.unwrap_or(state.store.sequence());
        let page = state.store.page(now, channels, after, bytes);
        if page.is_last {
            for (done, channel) in channels.iter().enumerate() {
                match state.store.subscribe(now, place, channel, member) {
                    Ok(changed) => state.attend(channel, member, changed, true),
                    Err(_) => {
                        for channel in &channels[..done] {
                            state.leave(now, place, channel, member);
                        }
                        return Err(full());
                    }
                }
            }
            subscribe(state.store.sequence());
        }
        Ok(page)
    }

    /// Ends a subscription that [`Hub::follow`] began.
    pub fn leave(&self, place: usize, channel: &str, member: Option<&str>) {
        let now = self.now();
        self.lock().leave(now, place, channel, member);
    }

    /// Completes when no thread has too much before it: who publishes faster than subscribers can be written to waits here.
    pub async fn room(&self) {
        while let Some(load) = self.overload() {
            load.room().await;
        }
    }

    fn overload(&self) -> Option<Arc<Load>> {
        self.lock().threads.iter().map(Queue::load).find(|load| load.is_full()).cloned()
    }

    /// Publishes a message to these channels.
    ///
    /// # Errors
    /// The status for the publisher.
    pub async fn publish(
        &self,
        channels: &[String],
        message: Broadcast,
        content_type: Option<String>,
        history: History,
    ) -> Result<Vec<Receipt>, Refused> {
        if let Some(link) = self.link().await? {
            let budget = self.lock().budget;
            let (text, payload) = (message.is_text(), message.payload().clone());
            let message = Message { text, content_type, payload, history };
            let given = link.publish(budget, channels, &message).await.map_err(|why| undone(&why))?;
            let receipt = |(channel, (id, subscribers)): (&String, (Id, u64))| Receipt {
                channel: channel.clone(),
                id: id.to_string(),
                subscribers,
            };
            return Ok(channels.iter().zip(given).map(receipt).collect());
        }
        if self.overload().is_some() {
            let room = tokio::time::timeout(ROOM, self.room()).await;
            room.map_err(|_| away("what was published before is still on its way"))?;
        }
        let now = self.now();
        let mut state = self.lock();
        // To all of them or to none: who is refused may try again.
        if !state.store.has_room(channels) {
            return Err(full());
        }
        let message = Arc::new(message);
        let publish = |channel: &String| {
            state.take(now, now, None, channel, &message, content_type.as_deref(), history).ok_or_else(full)
        };
        channels.iter().map(publish).collect()
    }
}

fn away(why: &str) -> Refused {
    Refused { status: 503, reason: why.into() }
}

/// What the broker was to do it has not done, or nobody knows.
fn undone(why: &RedisError) -> Refused {
    if redis::is_refusal(why) {
        return away(&why.to_string());
    }
    // Whoever does it once more may do it twice.
    Refused { status: UNKNOWN, reason: format!("the broker gave no answer, and may have done it or do it yet: {why}") }
}

/// Insufficient Storage (RFC 4918 section 11.5).
fn full() -> Refused {
    Refused { status: 507, reason: Full.to_string() }
}

impl State {
    fn tell(&self, places: &[usize], delivery: &Delivery) {
        for place in places {
            self.threads[*place].push(delivery.clone());
        }
    }

    /// Somebody has come to a channel or gone from it; `changed`: as a member that was not there before, or is no more.
    fn attend(&mut self, channel: &str, member: Option<&str>, changed: bool, joined: bool) {
        if let Some(broker) = &self.broker {
            // It tells all, here too.
            broker.note((channel.into(), member.map(Arc::from)));
            return;
        }
        let Some(member) = member.filter(|_| changed) else { return };
        self.presences += 1;
        let number = self.presences;
        let delivery = Delivery::Presence { channel: channel.into(), member: member.into(), joined, number };
        self.tell(&self.store.places(channel), &delivery);
    }

    fn leave(&mut self, now: u64, place: usize, channel: &str, member: Option<&str>) {
        let changed = self.store.unsubscribe(now, place, channel, member);
        self.attend(channel, member, changed, false);
    }

    /// Takes a message, under that offset or the next; `None`: it would be one channel too many.
    #[expect(clippy::too_many_arguments, reason = "what a message is")]
    fn take(
        &mut self,
        now: u64,
        time: u64,
        offset: Option<u64>,
        channel: &str,
        message: &Arc<Broadcast>,
        content_type: Option<&str>,
        history: History,
    ) -> Option<Receipt> {
        let mut made = None;
        let make = |id: &Id| {
            let publication =
                Publication::new(channel.into(), id.clone(), message.clone(), content_type.map(str::to_owned));
            made.insert(Arc::new(publication)).clone()
        };
        let offset = offset.unwrap_or(self.store.sequence() + 1);
        let published = self.store.publish_at(now, time, offset, channel, history, make).ok()?;
        let publication = made?;
        let id = publication.id().to_string();
        self.tell(&published.places, &Delivery::Publication(publication));
        Some(Receipt { channel: channel.into(), id, subscribers: published.subscribers })
    }

    /// Closes all connections, which come back and are told what they can have.
    fn close_all(&self, why: &str) {
        for channel in self.store.subscribed() {
            let frame = close(CloseCode::Restart, why);
            self.tell(&self.store.places(&channel), &Delivery::Close { channel, frame });
        }
    }

    fn delete(&mut self, now: u64, channel: &str, frame: &CloseFrame) -> Option<Info> {
        let places = self.store.places(channel);
        let facts = self.store.delete(now, channel)?;
        self.tell(&places, &Delivery::Close { channel: facts.channel.clone(), frame: frame.clone() });
        Some(self.info(&facts))
    }

    fn info(&self, facts: &Facts) -> Info {
        Info {
            channel: facts.channel.to_string(),
            subscribers: facts.subscribers,
            messages: facts.messages as u64,
            bytes: (facts.bytes - facts.messages * OVERHEAD) as u64,
            last_id: (facts.last > 0).then(|| self.store.id(facts.last).to_string()),
            members: Vec::new(),
        }
    }
}
