//! The subscribers of one engine thread. What comes for them is posted to their connections, which send it by themselves.

use super::hub::{Begin, Delivery, Hub};
use super::post::{Dialect, Post};
use super::v1::Say;
use crate::bus::Payload;
use crate::engine::peer::Peer;
use crate::engine::{Broadcast, Volley};
use slab::Slab;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Messages that are distributed together, at most.
const TOGETHER: usize = 64;
/// And bytes of them; a single message may be longer.
const TOGETHER_BYTES: usize = 64 * 1024;
/// Subscribers that get messages before others have their turn.
const TURN: usize = 64;

/// One connection, subscribed to one channel.
pub struct Subscriber {
    /// The connection.
    pub peer: Rc<Peer>,
    /// How it gets messages.
    pub dialect: Dialect,
    /// What came before this it has, or does not want.
    pub begin: Begin,
    /// It wants to hear of joins and leaves: those after this number.
    pub presence: Option<u64>,
    /// As whom it is there.
    pub member: Option<Arc<str>>,
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

    async fn distribute(self: Rc<Self>, mut deliveries: UnboundedReceiver<Delivery>) {
        let mut come = Vec::new();
        // What has come while the last was distributed is distributed together.
        while deliveries.recv_many(&mut come, TOGETHER).await > 0 {
            let mut come = come.drain(..).peekable();
            while let Some(delivery) = come.next() {
                let Delivery::Post(post) = delivery else {
                    self.tell(&delivery);
                    continue;
                };
                let mut bytes = post.size();
                let mut posts = vec![post];
                // In between, nothing else: subscribers see everything in one order.
                while let Some(Delivery::Post(next)) = come.next_if(|next| match next {
                    Delivery::Post(post) => {
                        bytes += post.size();
                        post.channel() == posts[0].channel() && bytes <= TOGETHER_BYTES
                    }
                    _ => false,
                }) {
                    posts.push(next);
                }
                self.fan_out(&posts).await;
            }
        }
    }

    /// Posts messages of one channel to its subscribers. Others of the thread get their turn meanwhile.
    async fn fan_out(&self, posts: &[Arc<Post>]) {
        let mut volleys: [Option<Volley>; Dialect::ALL] = Default::default();
        let (mut key, mut end) = (0, None);
        loop {
            {
                let channels = self.channels.borrow();
                let Some(subscribers) = channels.get(posts[0].channel()) else { return };
                // Those who subscribe from now on do so after these messages.
                let end = *end.get_or_insert_with(|| subscribers.iter().next_back().map_or(0, |(last, _)| last + 1));
                let turn = key..end.min(key + TURN);
                for subscriber in turn.clone().filter_map(|key| subscribers.get(key)) {
                    let Subscriber { peer, dialect, begin, .. } = subscriber;
                    let first = posts.partition_point(|post| post.id().offset <= begin.offset);
                    if first < posts.len() {
                        let volley = volleys[*dialect as usize].get_or_insert_with(|| {
                            Volley::new(posts.iter().map(|post| post.form(*dialect).clone()).collect())
                        });
                        peer.post_all(volley, first);
                    }
                }
                key = turn.end;
                if key == end {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn tell(&self, delivery: &Delivery) {
        let channels = self.channels.borrow();
        let Some(subscribers) = channels.get(delivery.channel()) else { return };
        let subscribers = subscribers.iter().map(|(_, subscriber)| subscriber);
        match delivery {
            Delivery::Post(_) => {}
            Delivery::Presence { channel, member, joined, number } => {
                let mut message: Option<Arc<Broadcast>> = None;
                for subscriber in subscribers {
                    let wanted = subscriber.presence.is_some_and(|since| since < *number);
                    if wanted && subscriber.member.as_ref() != Some(member) {
                        let message = message.get_or_insert_with(|| {
                            let say =
                                if *joined { Say::Join { channel, member } } else { Say::Leave { channel, member } };
                            Arc::new(say.to_all())
                        });
                        subscriber.peer.post(message.clone());
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

    /// Whether a subscriber wants to hear of joins and leaves; those after this number.
    pub fn set_presence(&self, channel: &Arc<str>, key: usize, presence: Option<u64>) {
        let mut channels = self.channels.borrow_mut();
        if let Some(subscriber) = channels.get_mut(channel).and_then(|subscribers| subscribers.get_mut(key)) {
            subscriber.presence = presence;
        }
    }
}
