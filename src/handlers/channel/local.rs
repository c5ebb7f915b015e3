//! The subscribers of one engine thread. What comes for them is posted to their connections, which send it by themselves.

use super::hub::{Begin, Delivery, Hub};
use super::post::Dialect;
use super::v1::Say;
use crate::engine::Broadcast;
use crate::engine::peer::Peer;
use slab::Slab;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

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
    /// How it gets messages.
    pub dialect: Dialect,
    /// What came before this it has, or does not want.
    pub begin: Begin,
    /// Whether it wants to hear of joins and leaves.
    pub presence: Presence,
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
        while let Some(delivery) = deliveries.recv().await {
            self.deliver(&delivery);
        }
    }

    fn deliver(&self, delivery: &Delivery) {
        let mut channels = self.channels.borrow_mut();
        let Some(subscribers) = channels.get_mut(delivery.channel()) else { return };
        let subscribers = subscribers.iter_mut().map(|(_, subscriber)| subscriber);
        match delivery {
            Delivery::Post(post) => {
                for subscriber in subscribers.filter(|known| known.begin.offset < post.id().offset) {
                    subscriber.peer.post(post.form(subscriber.dialect).clone());
                }
            }
            Delivery::Presence { channel, member, joined, number } => {
                let mut message: Option<Arc<Broadcast>> = None;
                for subscriber in subscribers {
                    let wanted = match subscriber.presence {
                        Presence::Off => false,
                        Presence::Held(_) => true,
                        Presence::After(since) => since < *number,
                    };
                    if wanted && subscriber.member.as_ref() != Some(member) {
                        let message = message.get_or_insert_with(|| {
                            let say =
                                if *joined { Say::Join { channel, member } } else { Say::Leave { channel, member } };
                            Arc::new(say.to_all())
                        });
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
