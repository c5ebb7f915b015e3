//! What holds a session in its channels.

use super::hub::Hub;
use super::shard::{Shard, Subscriber};
use std::rc::Rc;
use std::sync::Arc;

/// A session's subscription to one channel, until dropped.
pub struct Subscribed {
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    /// The one that all subscribers on the thread share.
    channel: Arc<str>,
    key: usize,
}

impl Subscribed {
    /// The subscriber is one of its thread from now on. For [`Hub::follow`] to call, which counts it in the hub.
    pub fn new(hub: &Arc<Hub>, shard: &Rc<Shard>, channel: &Arc<str>, subscriber: Subscriber) -> Subscribed {
        let (channel, key) = shard.add(channel, subscriber);
        Subscribed { hub: hub.clone(), shard: shard.clone(), channel, key }
    }

    /// The subscriber's place in the channel's part of the [`Shard`].
    pub fn key(&self) -> usize {
        self.key
    }

    /// The channel's name.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let subscriber = self.shard.remove(&self.channel, self.key);
        let member = subscriber.as_ref().and_then(|subscriber| subscriber.member.as_deref());
        self.hub.leave(self.shard.number(), &self.channel, member);
    }
}

/// The channels that a session is subscribed to, by their names. Most sessions have few, so that a table would cost more than
/// what is in it.
#[derive(Default)]
pub struct SubscribedChannels(Vec<Subscribed>);

impl SubscribedChannels {
    fn find(&self, channel: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| (*known.channel).cmp(channel))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where this is one of them.
    pub fn contains(&self, channel: &str) -> bool {
        self.find(channel).is_ok()
    }

    /// What holds the session there.
    pub fn get(&self, channel: &str) -> Option<&Subscribed> {
        self.find(channel).ok().and_then(|place| self.0.get(place))
    }

    /// One more; in the place of another of the same channel, if there is one.
    pub fn insert(&mut self, subscribed: Subscribed) {
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        match self.find(&subscribed.channel) {
            Ok(place) => self.0[place] = subscribed,
            Err(place) => self.0.insert(place, subscribed),
        }
    }

    /// Ends this subscription. False where there is none.
    pub fn remove(&mut self, channel: &str) -> bool {
        let found = self.find(channel).map(|place| self.0.remove(place));
        found.is_ok()
    }

    /// Ends those that `is_kept` is not true for.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.0.retain(|subscribed| is_kept(&subscribed.channel));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Subscribed> {
        self.0.iter()
    }
}
