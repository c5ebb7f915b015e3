//! The subscribers of one engine thread. What comes for them is posted to their connections, which send it by themselves.

use super::hub::{Deliveries, Delivery, Hub};
use super::protocol::{ClientEvent, View};
use super::publication::Publication;
use crate::channels::Payload;
use crate::engine::handle::ConnectionHandle;
use crate::engine::health::heartbeat::{self, Activity};
use crate::engine::metrics::{self, Timing};
use crate::engine::{Batch, Broadcast};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Messages of a batch, at most.
const BATCH: usize = 64;
/// And bytes of them; a single message may be longer.
const BATCH_BYTES: usize = 64 * 1024;
/// Subscribers that get messages before others have their turn.
const TURN: usize = 64;
/// And bytes that are written to them; one subscriber may get more.
const TURN_BYTES: usize = 64 * 1024;
/// Bytes of messages that are brought into the forms that subscribers need before they are posted: what takes long is done by turns.
const AT_ONCE: usize = 8 * 1024;

/// What a subscriber is told of joins and leaves.
pub enum Presence {
    Off,
    /// It is being found out who is there. What happens meanwhile waits, with its number. Boxed, so that others are small.
    #[expect(clippy::box_collection, reason = "a subscriber that is told of nobody has no room for it")]
    Held(Box<Vec<(u64, Arc<Broadcast>)>>),
    /// Those after this number.
    After(u64),
}

pub struct Subscriber {
    pub handle: Rc<ConnectionHandle>,
    pub view: View,
    /// What came up to this offset it has, or does not want.
    pub known: Cell<u64>,
    /// Whether it wants to hear of joins and leaves.
    pub presence: Presence,
    /// As whom it is there.
    pub member: Option<Arc<str>>,
}

/// Messages of one channel, one after the other, on their way to its subscribers.
struct ChannelBatch {
    publications: Vec<Arc<Publication>>,
    bytes: usize,
    batches: Vec<(View, Batch)>,
}

impl ChannelBatch {
    fn of(publication: Arc<Publication>) -> ChannelBatch {
        ChannelBatch { bytes: publication.size(), publications: vec![publication], batches: Vec::new() }
    }

    /// Takes along the messages of the channel that come next, up to a limit; what is in between is not overtaken, since
    /// all subscribers see everything in one order. True when there were any.
    fn grow(&mut self, pending: &mut VecDeque<Delivery>) -> bool {
        let before = self.publications.len();
        while let (Some(Delivery::Publication(next)), Some(last)) = (pending.front(), self.publications.last()) {
            let bytes = self.bytes + next.size();
            let follows = next.channel() == last.channel() && next.id().offset > last.id().offset;
            if !follows || bytes > BATCH_BYTES || self.publications.len() >= BATCH {
                break;
            }
            self.publications.push(next.clone());
            self.bytes = bytes;
            pending.pop_front();
        }
        let has_grown = self.publications.len() > before;
        if has_grown {
            self.batches.clear();
        }
        has_grown
    }

    /// Posts what the subscriber does not have; returns how many bytes were written to it.
    fn post(&mut self, subscriber: &Subscriber) -> usize {
        let Subscriber { handle, view, known, .. } = subscriber;
        let Some(last) = self.publications.last().map(|publication| publication.id().offset) else { return 0 };
        let first = self.publications.partition_point(|publication| publication.id().offset <= known.get());
        if first == self.publications.len() {
            return 0;
        }
        let made = self.batches.iter().position(|(of, _)| of == view).unwrap_or_else(|| {
            // A protocol has words for all messages, or for none.
            let messages = self.publications.iter().map(|publication| publication.encoded(*view));
            self.batches.push((*view, Batch::new(messages.collect::<Option<_>>().unwrap_or_default())));
            self.batches.len() - 1
        });
        known.set(last);
        handle.enqueue_all(&self.batches[made].1, first)
    }
}

fn gather(deliveries: &mut Deliveries, pending: &mut VecDeque<Delivery>) {
    while let Some(delivery) = deliveries.try_next() {
        pending.push_back(delivery);
    }
}

pub struct Shard {
    number: usize,
    channels: RefCell<HashMap<Arc<str>, Slab<Subscriber>>>,
}

thread_local! {
    /// What this thread is to the hubs that it has met: one, but in tests.
    static SHARDS: RefCell<HashMap<u64, Rc<Shard>>> = RefCell::default();
}

impl Shard {
    /// This thread's. To be called on an engine thread: it has a task there.
    pub fn of(hub: &Hub) -> Rc<Shard> {
        let known = SHARDS.with_borrow(|shards| shards.get(&hub.number()).cloned());
        known.unwrap_or_else(|| {
            let (number, deliveries) = hub.enter();
            let shard = Rc::new(Shard { number, channels: RefCell::default() });
            SHARDS.with_borrow_mut(|shards| shards.insert(hub.number(), shard.clone()));
            tokio::task::spawn_local(shard.clone().distribute(deliveries));
            shard
        })
    }

    pub fn number(&self) -> usize {
        self.number
    }

    async fn distribute(self: Rc<Self>, mut deliveries: Deliveries) {
        let mut pending = VecDeque::new();
        loop {
            gather(&mut deliveries, &mut pending);
            match pending.pop_front() {
                Some(Delivery::Publication(publication)) => {
                    let mut batch = ChannelBatch::of(publication);
                    self.fan_out(&mut batch, &mut deliveries, &mut pending).await;
                    deliveries.note_delivered(batch.bytes);
                    for publication in &batch.publications {
                        metrics::here().note_time(Timing::FanOut, publication.age());
                    }
                }
                Some(other) => self.tell(&other),
                None => match deliveries.next().await {
                    Some(delivery) => pending.push_back(delivery),
                    None => return,
                },
            }
        }
    }

    /// Posts messages to the subscribers of their channel, by turns with whatever else the thread has to do. What is
    /// published meanwhile comes along, and the round begins anew where it is: each subscriber gets at once what it lacks.
    async fn fan_out(&self, batch: &mut ChannelBatch, deliveries: &mut Deliveries, pending: &mut VecDeque<Delivery>) {
        let (mut key, mut end, mut left) = (0, 0, 0);
        let mut has_grown = true;
        loop {
            // A slice of it.
            let at = heartbeat::at(Activity::FanOut, 0);
            gather(deliveries, pending);
            has_grown |= batch.grow(pending);
            if has_grown && batch.bytes > AT_ONCE {
                self.prepare(batch).await;
            }
            {
                let channels = self.channels.borrow();
                let Some(subscribers) = channels.get(batch.publications[0].channel()) else { return };
                if std::mem::take(&mut has_grown) {
                    // Who subscribes after this knows these messages, or does not want them.
                    end = end.max(subscribers.iter().next_back().map_or(0, |(last, _)| last + 1));
                    left = end;
                }
                let (turn, mut room) = (left.saturating_sub(TURN), TURN_BYTES);
                while left > turn && room > 0 {
                    if let Some(subscriber) = subscribers.get(key) {
                        room = room.saturating_sub(batch.post(subscriber));
                    }
                    key = (key + 1) % end;
                    left -= 1;
                }
            }
            if left == 0 {
                return;
            }
            drop(at);
            tokio::task::yield_now().await;
        }
    }

    /// Brings messages into the forms that subscribers need, so that posting them takes no time.
    async fn prepare(&self, batch: &ChannelBatch) {
        let mut handles: Vec<(View, Rc<ConnectionHandle>)> = Vec::new();
        if let Some(subscribers) = self.channels.borrow().get(batch.publications[0].channel()) {
            for (_, Subscriber { handle, view, .. }) in subscribers {
                if handles.iter().all(|(other, known)| other != view || known.encoding() != handle.encoding()) {
                    handles.push((*view, handle.clone()));
                }
            }
        }
        for publication in &batch.publications {
            for (view, handle) in &handles {
                if let Some(message) = publication.encoded(*view) {
                    handle.prepare(&message).await;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn tell(&self, delivery: &Delivery) {
        let mut channels = self.channels.borrow_mut();
        let Some(subscribers) = channels.get_mut(delivery.channel()) else { return };
        let subscribers = subscribers.iter_mut().map(|(_, subscriber)| subscriber);
        match delivery {
            Delivery::Publication(_) => {}
            Delivery::Presence { channel, member, joined, number } => {
                let mut encoded: Vec<(View, Option<Arc<Broadcast>>)> = Vec::new();
                for subscriber in subscribers {
                    let wanted = match subscriber.presence {
                        Presence::Off => false,
                        Presence::Held(_) => true,
                        Presence::After(since) => since < *number,
                    };
                    if !wanted || subscriber.member.as_ref() == Some(member) {
                        continue;
                    }
                    let view = subscriber.view;
                    let made = encoded.iter().position(|(of, _)| *of == view).unwrap_or_else(|| {
                        let channel = view.name(channel);
                        let event = if *joined {
                            ClientEvent::Join { channel, member }
                        } else {
                            ClientEvent::Leave { channel, member }
                        };
                        encoded.push((view, view.protocol().encode(&event, None)));
                        encoded.len() - 1
                    });
                    let Some(message) = encoded[made].1.clone() else { continue };
                    match &mut subscriber.presence {
                        Presence::Held(held) => held.push((*number, message)),
                        _ => subscriber.handle.enqueue(message),
                    }
                }
            }
            Delivery::Close { frame, .. } => subscribers.for_each(|subscriber| subscriber.handle.close(frame.clone())),
        }
    }

    /// One more subscriber of a channel; the channel's name, as all of them have it, and its key there.
    pub fn add(&self, channel: &Arc<str>, subscriber: Subscriber) -> (Arc<str>, usize) {
        let mut channels = self.channels.borrow_mut();
        let channel = channels.get_key_value(channel).map_or(channel, |(known, _)| known).clone();
        let key = channels.entry(channel.clone()).or_default().insert(subscriber);
        (channel, key)
    }

    pub fn remove(&self, channel: &Arc<str>, key: usize) -> Option<Subscriber> {
        let mut channels = self.channels.borrow_mut();
        let subscribers = channels.get_mut(channel)?;
        let subscriber = subscribers.try_remove(key);
        if subscribers.is_empty() {
            channels.remove(channel);
        }
        subscriber
    }

    /// Whether a subscriber wants to hear of joins and leaves; what it was told before.
    pub fn set_presence(&self, channel: &Arc<str>, key: usize, presence: Presence) -> Presence {
        let mut channels = self.channels.borrow_mut();
        match channels.get_mut(channel).and_then(|subscribers| subscribers.get_mut(key)) {
            Some(subscriber) => std::mem::replace(&mut subscriber.presence, presence),
            None => Presence::Off,
        }
    }
}
