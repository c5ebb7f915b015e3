//! What holds a session in a channel.

use super::hub::Hub;
use super::shard::{Shard, Subscriber};
use std::rc::Rc;
use std::sync::Arc;

/// A session's subscription to one channel, until dropped.
pub struct Subscribed {
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    channel: Arc<str>,
    key: usize,
    member: Option<Arc<str>>,
}

impl Subscribed {
    /// The subscriber is one of its thread from now on. For [`Hub::follow`] to call, which counts it in the hub.
    pub fn new(hub: &Arc<Hub>, shard: &Rc<Shard>, channel: &Arc<str>, subscriber: Subscriber) -> Subscribed {
        let member = subscriber.member.clone();
        let key = shard.add(channel, subscriber);
        Subscribed { hub: hub.clone(), shard: shard.clone(), channel: channel.clone(), key, member }
    }

    /// The subscriber's place in the channel's part of the [`Shard`].
    pub fn key(&self) -> usize {
        self.key
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.shard.remove(&self.channel, self.key);
        self.hub.leave(self.shard.number(), &self.channel, self.member.as_deref());
    }
}
