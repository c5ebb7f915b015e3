//! The subscribers of one engine thread. What comes for them is posted to their connections, which send it by themselves.

use super::hub::{Deliveries, Delivery, Hub};
use super::protocol::v1::Say;
use super::publication::{Post, View};
use crate::channels::Payload;
use crate::engine::health::heartbeat::{self, Activity};
use crate::engine::peer::Peer;
use crate::engine::{Broadcast, Volley};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Messages of a run, at most.
const RUN: usize = 64;
/// And bytes of them; a single message may be longer.
const RUN_BYTES: usize = 64 * 1024;
/// Subscribers that get messages before others have their turn.
const TURN: usize = 64;

/// What a subscriber is told of joins and leaves.
pub enum Presence {
    /// Nothing.
    Off,
    /// It is being found out who is there. What happens meanwhile waits, with its number.
    Held(Vec<(u64, Arc<Broadcast>)>),
    /// Those after this number.
    After(u64),
}

/// One connection, subscribed to one channel.
pub struct Subscriber {
    /// The connection.
    pub peer: Rc<Peer>,
    /// How it sees them.
    pub view: View,
    /// What came up to this offset it has, or does not want.
    pub known: Cell<u64>,
    /// Whether it wants to hear of joins and leaves.
    pub presence: Presence,
    /// As whom it is there.
    pub member: Option<Arc<str>>,
}

/// Messages of one channel, one after the other, on their way to its subscribers.
struct Run {
    posts: Vec<Arc<Post>>,
    bytes: usize,
    volleys: Vec<(View, Volley)>,
}

impl Run {
    fn of(post: Arc<Post>) -> Run {
        Run { bytes: post.size(), posts: vec![post], volleys: Vec::new() }
    }

    /// Takes along the messages of the channel that come next, up to a limit; what is in between is not overtaken, since
    /// all subscribers see everything in one order. True when there were any.
    fn grow(&mut self, come: &mut VecDeque<Delivery>) -> bool {
        let before = self.posts.len();
        while let (Some(Delivery::Post(next)), Some(last)) = (come.front(), self.posts.last()) {
            let bytes = self.bytes + next.size();
            let follows = next.channel() == last.channel() && next.id().offset > last.id().offset;
            if !follows || bytes > RUN_BYTES || self.posts.len() >= RUN {
                break;
            }
            self.posts.push(next.clone());
            self.bytes = bytes;
            come.pop_front();
        }
        let has_grown = self.posts.len() > before;
        if has_grown {
            self.volleys.clear();
        }
        has_grown
    }

    /// Posts what the subscriber does not have.
    fn post(&mut self, subscriber: &Subscriber) {
        let Subscriber { peer, view, known, .. } = subscriber;
        let Some(last) = self.posts.last().map(|post| post.id().offset) else { return };
        let first = self.posts.partition_point(|post| post.id().offset <= known.get());
        if first == self.posts.len() {
            return;
        }
        let made = self.volleys.iter().position(|(of, _)| of == view).unwrap_or_else(|| {
            let messages = self.posts.iter().map(|post| post.form(*view));
            self.volleys.push((*view, Volley::new(messages.collect())));
            self.volleys.len() - 1
        });
        peer.post_all(&self.volleys[made].1, first);
        known.set(last);
    }
}

/// Takes what has come.
fn gather(deliveries: &mut Deliveries, come: &mut VecDeque<Delivery>) {
    while let Some(delivery) = deliveries.try_next() {
        come.push_back(delivery);
    }
}

/// The subscribers of a thread, by channel.
pub struct Local {
    place: usize,
    channels: RefCell<HashMap<Arc<str>, Slab<Subscriber>>>,
}

thread_local! {
    /// What this thread is to the hubs that it has met: one, but in tests.
    static LOCALS: RefCell<HashMap<u64, Rc<Local>>> = RefCell::default();
}

impl Local {
    /// This thread's. To be called on an engine thread: it has a task there.
    pub fn of(hub: &Hub) -> Rc<Local> {
        let known = LOCALS.with_borrow(|locals| locals.get(&hub.number()).cloned());
        known.unwrap_or_else(|| {
            let (place, deliveries) = hub.enter();
            let local = Rc::new(Local { place, channels: RefCell::default() });
            LOCALS.with_borrow_mut(|locals| locals.insert(hub.number(), local.clone()));
            tokio::task::spawn_local(local.clone().distribute(deliveries));
            local
        })
    }

    /// Its number.
    pub fn place(&self) -> usize {
        self.place
    }

    async fn distribute(self: Rc<Self>, mut deliveries: Deliveries) {
        let mut come = VecDeque::new();
        loop {
            gather(&mut deliveries, &mut come);
            match come.pop_front() {
                Some(Delivery::Post(post)) => {
                    let mut run = Run::of(post);
                    self.fan_out(&mut run, &mut deliveries, &mut come).await;
                    deliveries.note_delivered(run.bytes);
                }
                Some(other) => self.tell(&other),
                None => match deliveries.next().await {
                    Some(delivery) => come.push_back(delivery),
                    None => return,
                },
            }
        }
    }

    /// Posts messages to the subscribers of their channel, by turns with whatever else the thread has to do. What is
    /// published meanwhile comes along, and the round begins anew where it is: each subscriber gets at once what it lacks.
    async fn fan_out(&self, run: &mut Run, deliveries: &mut Deliveries, come: &mut VecDeque<Delivery>) {
        let (mut key, mut end, mut left) = (0, 0, 0);
        let mut has_grown = true;
        loop {
            // A slice of it.
            let at = heartbeat::at(Activity::FanOut, 0);
            gather(deliveries, come);
            has_grown |= run.grow(come);
            if has_grown && run.posts.iter().any(|post| post.size() > RUN_BYTES) {
                self.prepare(run).await;
            }
            {
                let channels = self.channels.borrow();
                let Some(subscribers) = channels.get(run.posts[0].channel()) else { return };
                if std::mem::take(&mut has_grown) {
                    // Who subscribes after this knows these messages, or does not want them.
                    end = end.max(subscribers.iter().next_back().map_or(0, |(last, _)| last + 1));
                    left = end;
                }
                for _ in 0..left.min(TURN) {
                    if let Some(subscriber) = subscribers.get(key) {
                        run.post(subscriber);
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

    /// Brings the large ones among the messages into the forms that subscribers need, so that posting them takes no time.
    async fn prepare(&self, run: &Run) {
        let mut peers: Vec<(View, Rc<Peer>)> = Vec::new();
        if let Some(subscribers) = self.channels.borrow().get(run.posts[0].channel()) {
            for (_, Subscriber { peer, view, .. }) in subscribers {
                if peers.iter().all(|(other, known)| other != view || known.form() != peer.form()) {
                    peers.push((*view, peer.clone()));
                }
            }
        }
        for post in run.posts.iter().filter(|post| post.size() > RUN_BYTES) {
            for (view, peer) in &peers {
                peer.prepare(&post.form(*view)).await;
            }
        }
    }

    fn tell(&self, delivery: &Delivery) {
        let mut channels = self.channels.borrow_mut();
        let Some(subscribers) = channels.get_mut(delivery.channel()) else { return };
        let subscribers = subscribers.iter_mut().map(|(_, subscriber)| subscriber);
        match delivery {
            Delivery::Post(_) => {}
            Delivery::Presence { channel, member, joined, number } => {
                let mut messages: Vec<(View, Arc<Broadcast>)> = Vec::new();
                for subscriber in subscribers {
                    let wanted = match subscriber.presence {
                        Presence::Off => false,
                        Presence::Held(_) => true,
                        Presence::After(since) => since < *number,
                    };
                    if wanted && subscriber.member.as_ref() != Some(member) {
                        let view = subscriber.view;
                        let made = messages.iter().position(|(of, _)| *of == view).unwrap_or_else(|| {
                            let channel = view.name(channel);
                            let say =
                                if *joined { Say::Join { channel, member } } else { Say::Leave { channel, member } };
                            messages.push((view, Arc::new(say.to_all())));
                            messages.len() - 1
                        });
                        let message = &messages[made].1;
                        match &mut subscriber.presence {
                            Presence::Held(held) => held.push((*number, message.clone())),
                            _ => subscriber.peer.post(message.clone()),
                        }
                    }
                }
            }
            Delivery::Close { frame, .. } => subscribers.for_each(|subscriber| subscriber.peer.close(frame.clone())),
        }
    }

    /// One more subscriber of a channel; its key there.
    pub fn add(&self, channel: &Arc<str>, subscriber: Subscriber) -> usize {
        let mut channels = self.channels.borrow_mut();
        match channels.get_mut(channel) {
            Some(subscribers) => subscribers.insert(subscriber),
            None => channels.entry(channel.clone()).or_default().insert(subscriber),
        }
    }

    /// Takes a subscriber away.
    pub fn remove(&self, channel: &Arc<str>, key: usize) {
        let mut channels = self.channels.borrow_mut();
        if let Some(subscribers) = channels.get_mut(channel) {
            subscribers.remove(key);
            if subscribers.is_empty() {
                channels.remove(channel);
            }
        }
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
