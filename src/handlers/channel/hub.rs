//! What all threads of the engine have together: the store, and the way to each thread's subscribers.
//!
//! Whatever goes to subscribers is put on its way while the store is locked: so all of them see it in one order.

use super::broker::Broker;
use super::call::{self, Answer, Call, Info, Receipt, Server};
use super::post::{Post, share};
use crate::bus::redis::{Entry, Link, Message, Standing, What};
use crate::bus::store::{Facts, Full, Page};
use crate::bus::{History, Id, Limits, Store};
use crate::engine::{Broadcast, Refused};
use crate::wire::{CloseCode, CloseFrame, close};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
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
    /// Joins and leaves so far, where there is no broker.
    presences: u64,
    broker: Option<Arc<Broker>>,
    /// Bytes that history may take.
    budget: usize,
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

/// Letters and digits that nobody else has.
pub fn random() -> String {
    // Its keys are random.
    format!("{:x}", RandomState::new().build_hasher().finish())
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
        let epoch = random();
        let Server { channels, history_bytes, .. } = Server::default();
        Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                store: Store::new(&epoch, Limits { channels, bytes: history_bytes }),
                threads: Vec::new(),
                presences: 0,
                broker: None,
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
        state.broker = server.broker.as_deref().map(|url| Broker::start(self, url));
        if state.broker.is_none() {
            // The messages of the broker are its own.
            state.store.restart(&random(), 0);
            state.close_all("the broker is used no more");
        }
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.lock().broker.clone()
    }

    /// The way to the broker, where there is one.
    fn link(&self) -> Result<Option<Link>, Refused> {
        match self.broker() {
            Some(broker) => broker.link().map(Some).ok_or_else(|| away("the broker is away")),
            None => Ok(None),
        }
    }

    /// The engine ends: the others are told.
    pub async fn end(&self) {
        if let Some(broker) = self.broker() {
            broker.leave().await;
        }
    }

    /// How it stands with the broker's log, of which the store is to be the image.
    pub fn meet(&self, standing: &Standing) {
        let mut state = self.lock();
        if *state.store.id(0).epoch != *standing.epoch {
            state.store.restart(&standing.epoch, standing.gone);
            state.close_all("messages were lost");
        } else if state.store.sequence() < standing.gone {
            state.store.miss(standing.gone);
            state.close_all("messages were lost");
        }
    }

    /// What has happened next.
    pub fn apply(&self, entry: Entry) {
        let now = self.now();
        let Entry { number, at, channel, what } = entry;
        let mut state = self.lock();
        let next = state.store.sequence() + 1;
        if number < next {
            return;
        }
        if number > next {
            state.store.miss(number - 1);
            state.close_all("messages were lost");
        }
        match what {
            What::Message(Message { text, content_type, payload, history }) => {
                let age = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_millis() as u64);
                let time = now - age.saturating_sub(at).min(now);
                let message = call::Message { text, content_type, payload };
                // Whoever published it has seen to it that it is text.
                if let Ok((message, content_type)) = share(message) {
                    state.take(now, time, Some(number), &channel, &message, content_type.as_deref(), history);
                }
            }
            What::Delete { code, reason } => {
                let code = Some(CloseCode::from(code)).filter(|code| code.is_allowed()).unwrap_or(CloseCode::Normal);
                state.delete(now, &channel, &close(code, &reason));
            }
            What::Presence { member, joined } => {
                let (channel, member) = (Arc::from(channel), Arc::from(member));
                let places = state.store.places(&channel);
                state.tell(&places, &Delivery::Presence { channel, member, joined, number });
            }
            What::Unknown => {}
        }
        state.store.advance(number);
    }

    /// The last offset that was given.
    pub fn sequence(&self) -> u64 {
        self.lock().store.sequence()
    }

    /// True for the epoch of the store.
    pub fn is_of(&self, epoch: &str) -> bool {
        *self.lock().store.id(0).epoch == *epoch
    }

    /// The channels that have subscribers in this engine.
    pub fn subscribed(&self) -> Vec<Arc<str>> {
        self.lock().store.subscribed()
    }

    /// Who is in a channel in this engine.
    pub fn own_members(&self, channel: &str) -> Vec<Option<Arc<str>>> {
        self.lock().store.members(channel).into_iter().map(|(member, _)| Some(member)).collect()
    }

    /// How many are subscribed to a channel in this engine, and how many of them are that member.
    pub fn attendance(&self, channel: &str, member: Option<&str>) -> (u64, u32) {
        self.lock().store.attendance(channel, member)
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
                    Ok(changed) => state.attend(channel, member, changed, true),
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
    pub async fn publish(
        &self,
        channels: &[String],
        message: call::Message,
        history: History,
    ) -> Result<Vec<Receipt>, Refused> {
        if let Some(link) = self.link()? {
            let call::Message { text, content_type, payload } = message;
            if text && std::str::from_utf8(&payload).is_err() {
                return Err(Refused { status: 400, reason: super::post::NoText.to_string() });
            }
            let budget = self.lock().budget;
            let message = Message { text, content_type, payload, history };
            let given = link.publish(budget, channels, &message).await.map_err(|why| away(&why.to_string()))?;
            let receipt = |(channel, (id, subscribers)): (&String, (Id, u64))| Receipt {
                channel: channel.clone(),
                id: id.to_string(),
                subscribers,
            };
            return Ok(channels.iter().zip(given).map(receipt).collect());
        }
        let (message, content_type) = share(message).map_err(|e| Refused { status: 400, reason: e.to_string() })?;
        let now = self.now();
        let mut state = self.lock();
        let publish = |channel: &String| {
            state.take(now, now, None, channel, &message, content_type.as_deref(), history).ok_or_else(full)
        };
        channels.iter().map(publish).collect()
    }

    /// Who is in a channel, how many connections there are, and the number of the last join or leave that this knows.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn members(&self, channel: &str) -> Result<(Vec<(Arc<str>, u32)>, u64, u64), Refused> {
        if let Some(link) = self.link()? {
            let (number, subscribers, members) = look(&link, &[channel]).await?;
            let members = members.into_iter().map(|(member, count)| (member.into(), count)).collect();
            return Ok((members, subscribers.first().copied().unwrap_or(0), number));
        }
        let now = self.now();
        let mut state = self.lock();
        let subscribers = state.store.facts(now, channel).map_or(0, |facts| facts.subscribers);
        Ok((state.store.members(channel), subscribers, state.presences))
    }

    /// Answers httpd.
    ///
    /// # Errors
    /// The status of the answer.
    pub async fn call(&self, call: Call) -> Result<Answer, Refused> {
        match call {
            Call::Publish { channels, message, history } => {
                self.publish(&channels, message, history).await.map(Answer::Published)
            }
            Call::Info { channel } => self.tell(&channel).await.map(Answer::Info),
            Call::List { prefix, after, limit } => self.list(&prefix, &after, limit as usize).await,
            Call::Delete { channels, code, reason } => {
                let mut deleted = Vec::new();
                for channel in &channels {
                    deleted.push(self.delete(channel, code, &reason).await?);
                }
                Ok(Answer::Deleted(deleted))
            }
        }
    }

    /// What is known of a channel, here or elsewhere.
    async fn tell(&self, channel: &str) -> Result<Option<Info>, Refused> {
        let own = {
            let now = self.now();
            let mut state = self.lock();
            state.store.facts(now, channel).map(|facts| state.info(&facts))
        };
        // Nobody is anywhere who is not here, where there is no broker.
        let Some(_) = self.broker() else {
            let (members, ..) = self.members(channel).await?;
            return Ok(own.map(|info| Info { members: counts(members), ..info }));
        };
        let (members, subscribers, _) = self.members(channel).await?;
        let info = own.or_else(|| (subscribers > 0).then(|| nothing_of(channel)));
        Ok(info.map(|info| Info { members: counts(members), subscribers, ..info }))
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Answer, Refused> {
        let (mut channels, mut more) = {
            let now = self.now();
            let mut state = self.lock();
            let (page, more) = state.store.list(now, prefix, after, limit);
            (page.iter().map(|facts| state.info(facts)).collect::<Vec<_>>(), more)
        };
        if let Some(link) = self.link()? {
            let elsewhere = link.list(prefix, after, limit + 1).await.map_err(|why| away(&why.to_string()))?;
            let end = channels.last().filter(|_| more).map(|info| info.channel.clone());
            for channel in elsewhere.iter().filter(|name| end.as_ref().is_none_or(|end| *name < end)) {
                if let Err(place) = channels.binary_search_by(|info| info.channel.cmp(channel)) {
                    channels.insert(place, nothing_of(channel));
                }
            }
            more |= channels.len() > limit;
            channels.truncate(limit);
            let names: Vec<&str> = channels.iter().map(|info| info.channel.as_str()).collect();
            let (_, subscribers, _) = look(&link, &names).await?;
            channels.iter_mut().zip(subscribers).for_each(|(info, subscribers)| info.subscribers = subscribers);
        }
        Ok(Answer::List { channels, more })
    }

    async fn delete(&self, channel: &str, code: u16, reason: &str) -> Result<Option<Info>, Refused> {
        if let Some(link) = self.link()? {
            let info = self.tell(channel).await?;
            if info.is_some() {
                link.delete(channel, code, reason).await.map_err(|why| away(&why.to_string()))?;
            }
            return Ok(info.map(|info| Info { members: Vec::new(), ..info }));
        }
        let code = Some(CloseCode::from(code)).filter(|code| code.is_allowed()).unwrap_or(CloseCode::Normal);
        let now = self.now();
        Ok(self.lock().delete(now, channel, &close(code, reason)))
    }
}

async fn look(link: &Link, channels: &[&str]) -> Result<(u64, Vec<u64>, Vec<(String, u32)>), Refused> {
    link.look(channels).await.map_err(|why| away(&why.to_string()))
}

fn counts(members: Vec<(Arc<str>, u32)>) -> Vec<(String, u64)> {
    members.into_iter().map(|(member, count)| (member.to_string(), u64::from(count))).collect()
}

/// A channel that has subscribers elsewhere, and no messages.
fn nothing_of(channel: &str) -> Info {
    let channel = channel.to_owned();
    Info { channel, subscribers: 0, messages: 0, bytes: 0, last_id: None, members: Vec::new() }
}

fn away(why: &str) -> Refused {
    Refused { status: 503, reason: why.into() }
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
            let post = Post::new(channel.into(), id.clone(), message.clone(), content_type.map(str::to_owned));
            made.insert(Arc::new(post)).clone()
        };
        let offset = offset.unwrap_or(self.store.sequence() + 1);
        let published = self.store.publish_at(now, time, offset, channel, history, make).ok()?;
        let post = made?;
        let id = post.id().to_string();
        self.tell(&published.places, &Delivery::Post(post));
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
            bytes: facts.bytes as u64,
            last_id: (facts.last > 0).then(|| self.store.id(facts.last).to_string()),
            members: Vec::new(),
        }
    }
}
