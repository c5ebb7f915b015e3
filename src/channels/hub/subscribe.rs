//! Subscribers come and go.

use super::queue::Delivery;
use super::{Hub, State};
use crate::channels::publication::Publication;
use crate::channels::store::{CapacityError, HistoryPage};
use crate::channels::{Error, Id};
use std::sync::Arc;

impl Hub {
    /// Whether somebody may subscribe to these channels: there is room for them, and what a broker has of them is here.
    pub async fn admit(&self, channels: &[impl AsRef<str>]) -> Result<(), Error> {
        if let Some(broker) = self.broker()
            && !broker.is_loaded().await
        {
            return Err(Error::unavailable("the broker cannot be reached"));
        }
        let is_room = self.lock().store.has_room(channels);
        if is_room { Ok(()) } else { Err(CapacityError.into()) }
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
    pub fn follow(
        &self,
        shard: usize,
        channels: &[Arc<str>],
        after: Option<u64>,
        bytes: usize,
        member: Option<&str>,
        subscribe: impl FnOnce(u64),
    ) -> Result<HistoryPage<Arc<Publication>>, CapacityError> {
        let now = self.now();
        let mut state = self.lock();
        let after = after.unwrap_or(state.store.sequence());
        let page = state.store.page(now, channels, after, bytes);
        if page.is_last {
            for (done, channel) in channels.iter().enumerate() {
                match state.store.subscribe(now, shard, channel, member) {
                    Ok(changed) => state.note_presence(channel, member, changed, true),
                    Err(full) => {
                        for channel in &channels[..done] {
                            state.leave(now, shard, channel, member);
                        }
                        return Err(full);
                    }
                }
            }
            subscribe(state.store.sequence());
        }
        Ok(page)
    }

    /// Ends a subscription that [`Hub::follow`] began.
    pub fn leave(&self, shard: usize, channel: &str, member: Option<&str>) {
        let now = self.now();
        self.lock().leave(now, shard, channel, member);
    }
}

impl State {
    /// Somebody has come to a channel or gone from it; `changed`: as a member that was not there before, or is no more.
    fn note_presence(&mut self, channel: &str, member: Option<&str>, changed: bool, joined: bool) {
        if let Some(broker) = &self.broker {
            // It tells all, here too.
            broker.note((channel.into(), member.map(Arc::from)));
            return;
        }
        let Some(member) = member.filter(|_| changed) else { return };
        self.presences += 1;
        let number = self.presences;
        let delivery = Delivery::Presence { channel: channel.into(), member: member.into(), joined, number };
        self.deliver(&self.store.shards(channel), &delivery);
    }

    fn leave(&mut self, now: u64, shard: usize, channel: &str, member: Option<&str>) {
        let changed = self.store.unsubscribe(now, shard, channel, member);
        self.note_presence(channel, member, changed, false);
    }
}
