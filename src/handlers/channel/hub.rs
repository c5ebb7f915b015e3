//! What all threads of the engine have together: the store, and the way to each thread's subscribers.
//!
//! Whatever goes to subscribers is put on its way while the store is locked: so all of them see it in one order.

use super::call::{self, Answer, Call, Info, Receipt, Server};
use super::post::{Post, share};
use crate::bus::store::{Facts, Full, Page};
use crate::bus::{History, Id, Limits, Store};
use crate::engine::{Broadcast, Refused};
use crate::wire::{CloseCode, CloseFrame, close};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What goes to the subscribers of a thread.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A message.
    Post(Arc<Post>),
    /// Somebody came or went.
    Presence {
        /// Where.
        channel: Arc<str>,
        /// Who.
        member: Arc<str>,
        /// Came, and not went.
        joined: bool,
        /// See [`Begin::presence`].
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
            Delivery::Post(post) => post.channel(),
            Delivery::Presence { channel, .. } | Delivery::Close { channel, .. } => channel,
        }
    }
}

struct State {
    store: Store<Arc<Post>>,
    /// The way to each thread, by its place.
    threads: Vec<UnboundedSender<Delivery>>,
    /// Joins and leaves so far.
    presences: u64,
}

/// Where live messages begin for somebody who has just subscribed.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// After this offset.
    pub offset: u64,
    /// Joins and leaves after this number.
    pub presence: u64,
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
        // Its keys are random. No other engine has had the epoch.
        let epoch = format!("{:x}", RandomState::new().build_hasher().finish());
        let Server { channels, history_bytes } = Server::default();
        Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                store: Store::new(&epoch, Limits { channels, bytes: history_bytes }),
                threads: Vec::new(),
                presences: 0,
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

    fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    /// What the configuration says.
    pub fn configure(&self, server: &Server) {
        self.lock().store.set_limits(Limits { channels: server.channels, bytes: server.history_bytes });
    }

    /// To be called every some seconds.
    pub fn sweep(&self) {
        let now = self.now();
        self.lock().store.sweep(now);
    }

    /// A place for a thread: its number, and what comes for its subscribers.
    pub fn enter(&self) -> (usize, UnboundedReceiver<Delivery>) {
        let (sender, receiver) = unbounded_channel();
        let threads = &mut self.lock().threads;
        threads.push(sender);
        (threads.len() - 1, receiver)
    }

    /// The id of that offset.
    pub fn id(&self, offset: u64) -> Id {
        self.lock().store.id(offset)
    }

    /// Whether somebody may subscribe to these channels.
    ///
    /// # Errors
    /// It would be too many.
    pub fn admit(&self, channels: &[impl AsRef<str>]) -> Result<(), Refused> {
        let is_room = self.lock().store.has_room(channels);
        if is_room { Ok(()) } else { Err(full()) }
    }

    /// True when all messages of these channels after that id are kept.
    pub fn recovers(&self, channels: &[impl AsRef<str>], since: &Id) -> bool {
        let now = self.now();
        self.lock().store.recovers(now, channels, since)
    }

    /// The offset after which a client goes on that knows this id: what it can have missed comes after it.
    pub fn after(&self, since: &Id) -> u64 {
        let state = self.lock();
        // All of another epoch is new to it. An offset that was never given is none of ours.
        if state.store.id(0).epoch == since.epoch { since.offset.min(state.store.sequence()) } else { 0 }
    }

    /// What is kept of these channels after that offset; and where there is no more, `subscribe` is called before anything
    /// else can be published. `None` in the place of an offset: after the last.
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
        subscribe: impl FnOnce(Begin),
    ) -> Result<Page<Arc<Post>>, Refused> {
        let now = self.now();
        let mut state = self.lock();
        let after = after.unwrap_or(state.store.sequence());
        let page = state.store.page(now, channels, after, bytes);
        if page.is_last {
            for (done, channel) in channels.iter().enumerate() {
                match state.store.subscribe(now, place, channel, member) {
                    Ok(true) => state.tell_presence(channel, member, true),
                    Ok(false) => {}
                    Err(_) => {
                        for channel in &channels[..done] {
                            state.leave(now, place, channel, member);
                        }
                        return Err(full());
                    }
                }
            }
            subscribe(Begin { offset: state.store.sequence(), presence: state.presences });
        }
        Ok(page)
    }

    /// Ends a subscription that [`Hub::follow`] began.
    pub fn leave(&self, place: usize, channel: &str, member: Option<&str>) {
        let now = self.now();
        self.lock().leave(now, place, channel, member);
    }

    /// Publishes a message to these channels.
    ///
    /// # Errors
    /// The status for the publisher.
    pub fn publish(
        &self,
        channels: &[impl AsRef<str>],
        message: call::Message,
        history: History,
    ) -> Result<Vec<Receipt>, Refused> {
        let (message, content_type) = share(message).map_err(|e| Refused { status: 400, reason: e.to_string() })?;
        let now = self.now();
        let mut state = self.lock();
        let publish = |channel| state.publish(now, channel, &message, content_type.as_deref(), history);
        channels.iter().map(AsRef::as_ref).map(publish).collect()
    }

    /// Who is in a channel; and how many connections there are.
    pub fn members(&self, channel: &str) -> (Vec<(Arc<str>, u32)>, u64, u64) {
        let now = self.now();
        let mut state = self.lock();
        let subscribers = state.store.facts(now, channel).map_or(0, |facts| facts.subscribers);
        (state.store.members(channel), subscribers, state.presences)
    }

    /// Answers httpd.
    ///
    /// # Errors
    /// The status of the answer.
    pub fn call(&self, call: Call) -> Result<Answer, Refused> {
        let now = self.now();
        match call {
            Call::Publish { channels, message, history } => {
                self.publish(&channels, message, history).map(Answer::Published)
            }
            Call::Info { channel } => {
                let mut state = self.lock();
                let Some(facts) = state.store.facts(now, &channel) else { return Ok(Answer::Info(None)) };
                let members = state.store.members(&channel);
                let members = members.iter().map(|(member, count)| (member.to_string(), u64::from(*count)));
                Ok(Answer::Info(Some(Info { members: members.collect(), ..state.info(&facts) })))
            }
            Call::List { prefix, after, limit } => {
                let mut state = self.lock();
                let (page, more) = state.store.list(now, &prefix, &after, limit as usize);
                Ok(Answer::List { channels: page.iter().map(|facts| state.info(facts)).collect(), more })
            }
            Call::Delete { channels, code, reason } => {
                let code = Some(CloseCode::from(code)).filter(|code| code.is_allowed()).unwrap_or(CloseCode::Normal);
                let frame = close(code, &reason);
                let mut state = self.lock();
                let delete = |channel: &String| state.delete(now, channel, &frame);
                Ok(Answer::Deleted(channels.iter().map(delete).collect()))
            }
        }
    }
}

/// Insufficient Storage (RFC 4918 section 11.5).
fn full() -> Refused {
    Refused { status: 507, reason: Full.to_string() }
}

impl State {
    fn tell(&self, places: &[usize], delivery: &Delivery) {
        for place in places {
            // A thread that has ended has no subscribers any more.
            let _ = self.threads[*place].send(delivery.clone());
        }
    }

    fn tell_presence(&mut self, channel: &str, member: Option<&str>, joined: bool) {
        let Some(member) = member else { return };
        self.presences += 1;
        let number = self.presences;
        let delivery = Delivery::Presence { channel: channel.into(), member: member.into(), joined, number };
        self.tell(&self.store.places(channel), &delivery);
    }

    fn leave(&mut self, now: u64, place: usize, channel: &str, member: Option<&str>) {
        if self.store.unsubscribe(now, place, channel, member) {
            self.tell_presence(channel, member, false);
        }
    }

    fn publish(
        &mut self,
        now: u64,
        channel: &str,
        message: &Arc<Broadcast>,
        content_type: Option<&str>,
        history: History,
    ) -> Result<Receipt, Refused> {
        let mut made = None;
        let make = |id: &Id| {
            let post = Post::new(channel.into(), id.clone(), message.clone(), content_type.map(str::to_owned));
            made.insert(Arc::new(post)).clone()
        };
        let published = self.store.publish(now, channel, history, make);
        let (published, post) = match (published, made) {
            (Ok(published), Some(post)) => (published, post),
            _ => return Err(full()),
        };
        let id = post.id().to_string();
        self.tell(&published.places, &Delivery::Post(post));
        Ok(Receipt { channel: channel.into(), id, subscribers: published.subscribers })
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
            bytes: facts.bytes as u64,
            last_id: (facts.last > 0).then(|| self.store.id(facts.last).to_string()),
            members: Vec::new(),
        }
    }
}
