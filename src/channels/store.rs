//! The channels of an engine: what is kept of each, and who is subscribed from where.
//!
//! A *shard* is the subscribers of one engine thread, by its number. Times are milliseconds of a clock that
//! never goes back.

use super::{History, Id, Payload};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// How long it is remembered of a channel that nobody uses which its last message was (milliseconds).
const REMEMBERED: u64 = 3_600_000;

/// What the store may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Channels; of those without subscribers the one goes first that was used longest ago.
    pub channels: usize,
    /// Bytes of all kept messages, as [`Payload::size`] counts them; the oldest go first.
    pub bytes: usize,
}

/// There are as many channels as there may be, and all have subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit of channels is reached")]
pub struct CapacityError;

/// A message in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<M> {
    pub offset: u64,
    pub time: u64,
    pub message: M,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its channel's name, as the store shares it.
    pub channel: Arc<str>,
    pub offset: u64,
    pub subscribers: u64,
    pub shards: Vec<usize>,
}

/// Kept messages of some channels, in the order of their offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage<M> {
    /// Each with its channel's name.
    pub items: Vec<(Arc<str>, Item<M>)>,
    /// No more than these are kept.
    pub is_last: bool,
    /// The last message of each of the channels that is not kept; 0 for none.
    pub last_lost: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    pub channel: Arc<str>,
    pub subscribers: u64,
    pub messages: usize,
    pub bytes: usize,
    /// The offset of the last message; 0 for none.
    pub last: u64,
}

#[derive(Debug)]
struct StoredChannel<M> {
    kept: VecDeque<Item<M>>,
    bytes: usize,
    history: History,
    /// The last message; 0 for none.
    last: u64,
    /// The last message that was here and is not kept; 0 for none.
    last_lost: u64,
    /// How many are subscribed, by shard.
    subscribers: Vec<(usize, u32)>,
    /// Who is there, with how many connections.
    members: BTreeMap<Arc<str>, u32>,
    /// When it was used last, as `Store::idle` has it.
    used: u64,
    /// As `Store::expiries` has it.
    expiry: Option<u64>,
    /// Deleted, and not used since.
    deleted: bool,
}

impl<M: Payload> StoredChannel<M> {
    fn new(used: u64) -> StoredChannel<M> {
        StoredChannel {
            kept: VecDeque::new(),
            bytes: 0,
            history: History { messages: 0, seconds: 0 },
            last: 0,
            last_lost: 0,
            subscribers: Vec::new(),
            members: BTreeMap::new(),
            used,
            expiry: None,
            deleted: false,
        }
    }

    fn count(&self) -> u64 {
        self.subscribers.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Nothing would be lost with it.
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.subscribers.is_empty() && self.members.is_empty()
    }

    fn drop_front(&mut self) -> Option<(u64, usize)> {
        let item = self.kept.pop_front()?;
        let size = item.message.size();
        self.last_lost = item.offset;
        self.bytes -= size;
        Some((item.offset, size))
    }

    fn info(&self, name: &Arc<str>) -> ChannelInfo {
        ChannelInfo {
            channel: name.clone(),
            subscribers: self.count(),
            messages: self.kept.len(),
            bytes: self.bytes,
            last: self.last,
        }
    }
}

#[derive(Debug)]
pub struct Store<M> {
    epoch: Arc<str>,
    /// The last offset that was given.
    sequence: u64,
    limits: StoreLimits,
    channels: BTreeMap<Arc<str>, StoredChannel<M>>,
    /// Of a channel that is not known, no message after this one is forgotten.
    forgotten: u64,
    bytes: usize,
    /// All that is kept, the oldest first.
    order: BTreeMap<u64, Arc<str>>,
    /// When the oldest message of a channel ends.
    expiries: BTreeSet<(u64, Arc<str>)>,
    /// Channels without subscribers, by their last use.
    idle: BTreeSet<(u64, Arc<str>)>,
}

impl<M: Payload> Store<M> {
    /// Without channels. `epoch` is of letters and digits, and no other store's.
    pub fn new(epoch: &str, limits: StoreLimits) -> Store<M> {
        Store {
            epoch: epoch.into(),
            sequence: 0,
            limits,
            channels: BTreeMap::new(),
            forgotten: 0,
            bytes: 0,
            order: BTreeMap::new(),
            expiries: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }

    pub fn id(&self, offset: u64) -> Id {
        Id { epoch: self.epoch.clone(), offset }
    }

    /// The last offset that was given.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Channels, the messages that are kept of them, and the bytes of these.
    pub fn size(&self) -> (usize, usize, usize) {
        (self.channels.len(), self.order.len(), self.bytes)
    }

    /// Other limits: they hold at once.
    pub fn set_limits(&mut self, limits: StoreLimits) {
        self.limits = limits;
        self.keep_within_bytes();
    }

    /// A message for a channel, with an offset above all there were, and at a time that may be past; `make` makes it from
    /// its id.
    pub fn publish_at(
        &mut self,
        now: u64,
        time: u64,
        offset: u64,
        name: &str,
        history: History,
        make: impl FnOnce(&Id) -> M,
    ) -> Result<Published, CapacityError> {
        self.expire(now);
        let name = self.find_or_make(now, name)?;
        self.sequence = self.sequence.max(offset);
        let message = make(&self.id(offset));
        let Some(channel) = self.channels.get_mut(&name) else { return Err(CapacityError) };
        channel.last = offset;
        channel.deleted = false;
        channel.history = history;
        let size = message.size();
        let fits = history.messages > 0 && history.seconds > 0 && size <= self.limits.bytes;
        while channel.kept.len() > (history.messages as usize).saturating_sub(usize::from(fits))
            && let Some((dropped, size)) = channel.drop_front()
        {
            self.order.remove(&dropped);
            self.bytes -= size;
        }
        if fits {
            channel.kept.push_back(Item { offset, time, message });
            channel.bytes += size;
            self.bytes += size;
            self.order.insert(offset, name.clone());
        } else {
            // What came before it is older, and would end before a gap.
            while let Some((dropped, size)) = channel.drop_front() {
                self.order.remove(&dropped);
                self.bytes -= size;
            }
            channel.last_lost = offset;
        }
        let published = Published {
            channel: name.clone(),
            offset,
            subscribers: channel.count(),
            shards: channel.subscribers.iter().map(|(shard, _)| *shard).collect(),
        };
        self.touch(now, &name);
        self.keep_within_bytes();
        // The change of the history may have made older messages too old.
        self.expire(now);
        Ok(published)
    }

    /// The next offset was given to what is no message.
    pub fn advance(&mut self, offset: u64) {
        self.sequence = self.sequence.max(offset);
    }

    /// Begins anew in another epoch, all of whose messages up to that offset are gone. Subscribers and members stay.
    pub fn restart(&mut self, epoch: &str, last_lost: u64) {
        self.epoch = epoch.into();
        self.sequence = last_lost;
        self.bytes = 0;
        self.order.clear();
        self.expiries.clear();
        self.idle.clear();
        self.channels.retain(|_, channel| !channel.subscribers.is_empty());
        for channel in self.channels.values_mut() {
            let subscribers = std::mem::take(&mut channel.subscribers);
            let members = std::mem::take(&mut channel.members);
            *channel = StoredChannel { subscribers, members, last_lost, ..StoredChannel::new(channel.used) };
        }
        self.forgotten = last_lost;
    }

    /// Messages up to that offset may have been missed, in any channel.
    pub fn mark_lost(&mut self, upto: u64) {
        self.sequence = self.sequence.max(upto);
        self.forgotten = self.forgotten.max(upto);
        self.channels.values_mut().for_each(|channel| channel.last_lost = channel.last_lost.max(upto));
    }

    /// A message of a channel that is not known, with this offset, was [`CapacityError`]'s.
    pub fn skip(&mut self, offset: u64) {
        self.sequence = self.sequence.max(offset);
        self.forgotten = self.forgotten.max(offset);
    }

    pub fn subscribed(&self) -> Vec<Arc<str>> {
        let subscribed = self.channels.iter().filter(|(_, channel)| !channel.subscribers.is_empty());
        subscribed.map(|(name, _)| name.clone()).collect()
    }

    /// How many are subscribed to a channel, and how many of them are this member.
    pub fn presence(&self, name: &str, member: Option<&str>) -> (u64, u32) {
        let channel = self.channels.get(name);
        let connections = |channel: &StoredChannel<M>| member.and_then(|member| channel.members.get(member).copied());
        (channel.map_or(0, StoredChannel::count), channel.and_then(connections).unwrap_or(0))
    }

    /// One more subscriber at `shard`, who is `member`. True when that member was not there before.
    pub fn subscribe(
        &mut self,
        now: u64,
        shard: usize,
        name: &str,
        member: Option<&str>,
    ) -> Result<bool, CapacityError> {
        let name = self.find_or_make(now, name)?;
        let Some(channel) = self.channels.get_mut(&name) else { return Err(CapacityError) };
        channel.deleted = false;
        match channel.subscribers.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, count)) => *count += 1,
            None => channel.subscribers.push((shard, 1)),
        }
        let joined = member.is_some_and(|member| match channel.members.get_mut(member) {
            Some(count) => {
                *count += 1;
                false
            }
            None => channel.members.insert(member.into(), 1).is_none(),
        });
        self.touch(now, &name);
        Ok(joined)
    }

    /// One subscriber less at `shard`, who was `member`. True when that member is there no more.
    pub fn unsubscribe(&mut self, now: u64, shard: usize, name: &str, member: Option<&str>) -> bool {
        let Some(channel) = self.channels.get_mut(name) else { return false };
        if let Some(at) = channel.subscribers.iter().position(|(known, _)| *known == shard) {
            channel.subscribers[at].1 -= 1;
            if channel.subscribers[at].1 == 0 {
                channel.subscribers.swap_remove(at);
            }
        }
        let left = member.is_some_and(|member| match channel.members.get_mut(member) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => channel.members.remove(member).is_some(),
        });
        let name: Arc<str> = name.into();
        self.touch(now, &name);
        left
    }

    pub fn shards(&self, name: &str) -> Vec<usize> {
        let channel = self.channels.get(name);
        channel.map_or(Vec::new(), |channel| channel.subscribers.iter().map(|(shard, _)| *shard).collect())
    }

    /// True when all of these can be channels at a time, as it stands.
    pub fn has_room(&self, names: &[impl AsRef<str>]) -> bool {
        let new = names.iter().filter(|name| !self.channels.contains_key(name.as_ref())).count();
        let free = self.limits.channels.saturating_sub(self.channels.len()) + self.idle.len();
        // Those that are known are not given up for those that are not.
        let kept = names.iter().filter_map(|name| self.channels.get(name.as_ref()));
        new + kept.filter(|channel| channel.subscribers.is_empty()).count() <= free
    }

    /// True when all messages of these channels after that id are kept.
    pub fn recovers(&mut self, now: u64, names: &[impl AsRef<str>], since: &Id) -> bool {
        self.expire(now);
        since.epoch == self.epoch
            && since.offset <= self.sequence
            && names.iter().all(|name| since.offset >= self.last_lost(name.as_ref()))
    }

    /// The last message of this channel that is not kept.
    fn last_lost(&self, name: &str) -> u64 {
        self.channels.get(name).map_or(self.forgotten, |channel| channel.last_lost)
    }

    /// What is kept of these channels after that offset: one message at least, if there is one, and not many more bytes
    /// than `bytes`.
    pub fn page(&mut self, now: u64, names: &[Arc<str>], after: u64, bytes: usize) -> HistoryPage<M> {
        self.expire(now);
        let last_lost = names.iter().map(|name| self.last_lost(name)).collect();
        let mut page = HistoryPage { items: Vec::new(), is_last: true, last_lost };
        // The next of each channel, the lowest offset on top.
        let mut next = BinaryHeap::new();
        for name in names {
            let Some(channel) = self.channels.get(name) else { continue };
            let first = channel.kept.partition_point(|item| item.offset <= after);
            if let Some(item) = channel.kept.get(first) {
                next.push((Reverse(item.offset), first, name));
            }
        }
        let mut taken = 0;
        while let Some((_, at, name)) = next.pop() {
            if taken >= bytes && !page.items.is_empty() {
                page.is_last = false;
                break;
            }
            let Some(channel) = self.channels.get(name) else { continue };
            taken += channel.kept[at].message.size();
            page.items.push((name.clone(), channel.kept[at].clone()));
            if let Some(item) = channel.kept.get(at + 1) {
                next.push((Reverse(item.offset), at + 1, name));
            }
        }
        page
    }

    /// What is known of a channel, if there is one.
    pub fn info(&mut self, now: u64, name: &str) -> Option<ChannelInfo> {
        self.expire(now);
        let (name, channel) = self.channels.get_key_value(name)?;
        (!channel.deleted).then(|| channel.info(name))
    }

    /// Who is in a channel, by name, with the number of connections.
    pub fn members(&self, name: &str) -> Vec<(Arc<str>, u32)> {
        let channel = self.channels.get(name);
        channel
            .map_or(Vec::new(), |channel| channel.members.iter().map(|(name, count)| (name.clone(), *count)).collect())
    }

    /// At most `limit` channels whose names begin with `prefix` and come after `after`, by name; and whether there are
    /// more.
    pub fn list(&mut self, now: u64, prefix: &str, after: &str, limit: usize) -> (Vec<ChannelInfo>, bool) {
        self.expire(now);
        let from = if after >= prefix && !after.is_empty() { Bound::Excluded(after) } else { Bound::Included(prefix) };
        let mut found = self
            .channels
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(_, channel)| !channel.deleted)
            .map(|(name, channel)| channel.info(name));
        let page = found.by_ref().take(limit).collect();
        (page, found.next().is_some())
    }

    /// Drops what is kept of a channel; says what was known of it, if there was one. Its subscribers stay.
    pub fn delete(&mut self, now: u64, name: &str) -> Option<ChannelInfo> {
        let info = self.info(now, name)?;
        let channel = self.channels.get_mut(name)?;
        while let Some((dropped, size)) = channel.drop_front() {
            self.order.remove(&dropped);
            self.bytes -= size;
        }
        channel.last_lost = channel.last_lost.max(channel.last);
        channel.deleted = channel.subscribers.is_empty();
        self.note_expiry(&info.channel);
        Some(info)
    }

    /// To be called now and then: ends what is too old, and forgets channels that nobody uses.
    pub fn sweep(&mut self, now: u64) {
        self.expire(now);
        let old = self.idle.iter().take_while(|(used, _)| used + REMEMBERED <= now);
        let old: Vec<Arc<str>> = old.map(|(_, name)| name.clone()).collect();
        for name in old {
            if self.channels.get(&name).is_some_and(StoredChannel::is_empty) {
                self.forget(&name);
            }
        }
    }

    fn find_or_make(&mut self, now: u64, name: &str) -> Result<Arc<str>, CapacityError> {
        if let Some((name, _)) = self.channels.get_key_value(name) {
            return Ok(name.clone());
        }
        if self.channels.len() >= self.limits.channels {
            let (_, oldest) = self.idle.first().ok_or(CapacityError)?;
            let oldest = oldest.clone();
            self.forget(&oldest);
        }
        if self.limits.channels == 0 {
            return Err(CapacityError);
        }
        let name: Arc<str> = name.into();
        let mut channel = StoredChannel::new(now);
        // What was forgotten of it cannot be told from what never was.
        channel.last_lost = self.forgotten;
        self.channels.insert(name.clone(), channel);
        self.idle.insert((now, name.clone()));
        Ok(name)
    }

    /// The channel was used: brings what is sorted by that up to date.
    fn touch(&mut self, now: u64, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        self.idle.remove(&(channel.used, name.clone()));
        channel.used = now;
        if !channel.subscribers.is_empty() {
            self.note_expiry(name);
        } else if channel.last == 0 && channel.is_empty() {
            // Nobody has published here: there is nothing to remember.
            if channel.last_lost == self.forgotten {
                self.channels.remove(name);
            } else {
                self.forget(&name.clone());
            }
        } else {
            self.idle.insert((now, name.clone()));
            self.note_expiry(name);
        }
    }

    fn note_expiry(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let expiry = channel.kept.front().map(|item| item.time + u64::from(channel.history.seconds) * 1000);
        if expiry == channel.expiry {
            return;
        }
        if let Some(old) = std::mem::replace(&mut channel.expiry, expiry) {
            self.expiries.remove(&(old, name.clone()));
        }
        if let Some(new) = expiry {
            self.expiries.insert((new, name.clone()));
        }
    }

    fn expire(&mut self, now: u64) {
        while let Some((_, name)) = self.expiries.first().filter(|(expiry, _)| *expiry <= now).cloned() {
            self.drop_oldest_of(&name);
        }
    }

    fn keep_within_bytes(&mut self) {
        while self.bytes > self.limits.bytes
            && let Some((_, name)) = self.order.first_key_value()
        {
            let name = name.clone();
            self.drop_oldest_of(&name);
        }
    }

    fn drop_oldest_of(&mut self, name: &Arc<str>) {
        let Some((dropped, size)) = self.channels.get_mut(name).and_then(StoredChannel::drop_front) else { return };
        self.order.remove(&dropped);
        self.bytes -= size;
        self.note_expiry(name);
    }

    fn forget(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.remove(name) else { return };
        self.forgotten = self.forgotten.max(channel.last).max(channel.last_lost);
        self.idle.remove(&(channel.used, name.clone()));
        if let Some(expiry) = channel.expiry {
            self.expiries.remove(&(expiry, name.clone()));
        }
        for item in &channel.kept {
            self.order.remove(&item.offset);
            self.bytes -= item.message.size();
        }
    }
}

#[cfg(test)]
mod tests;
