//! What httpd asks of the channels, and who is there: from the store, and with a broker from all servers together.

use super::queue::Delivery;
use super::{Hub, State};
use crate::channels::Error;
use crate::channels::api::{self, Info, Reply, may_be_sent};
use crate::channels::publication::{OVERHEAD, share};
use crate::channels::store::ChannelInfo;
use crate::engine::metrics::{EngineArea, Gauge};
use crate::wire::{CloseCode, CloseFrame, close};
use bytes::Bytes;
use std::sync::Arc;

impl Hub {
    /// Who is in a channel, how many connections there are, and the number of the last join or leave that this knows.
    pub async fn members(&self, channel: &str) -> Result<(Vec<(Arc<str>, u32)>, u64, u64), Error> {
        if let Some(link) = self.link().await? {
            let (number, subscribers, members) = link.counts(&[channel]).await?;
            let members = members.into_iter().map(|(member, count)| (member.into(), count)).collect();
            return Ok((members, subscribers.first().copied().unwrap_or(0), number));
        }
        let now = self.now();
        let mut state = self.lock();
        let subscribers = state.store.info(now, channel).map_or(0, |info| info.subscribers);
        Ok((state.store.members(channel), subscribers, state.presences))
    }

    /// Says how much there is now.
    pub fn measure(&self, gauges: EngineArea) {
        let state = self.lock();
        let (channels, messages, bytes) = state.store.size();
        let broker = state.broker.as_ref().map_or(0, |broker| if broker.link().is_some() { 1 } else { 2 });
        gauges.set(Gauge::Channels, channels as u64);
        gauges.set(Gauge::HistoryMessages, messages as u64);
        gauges.set(Gauge::HistoryBytes, bytes as u64);
        gauges.set(Gauge::Broker, broker);
    }

    /// Does what httpd asks for. `payload` is what is published.
    pub async fn execute(&self, command: api::Command, payload: Bytes) -> Result<Reply, Error> {
        match command {
            api::Command::Publish { channels, text, content_type, history } => {
                self.publish(&channels, share(text, payload)?, content_type, history).await.map(Reply::Published)
            }
            api::Command::Info { channel } => self.info(&channel).await.map(Reply::Info),
            api::Command::List { prefix, after, limit } => self.list(&prefix, &after, limit as usize).await,
            api::Command::Delete { channels, code, reason } => {
                let mut deleted = Vec::new();
                for channel in &channels {
                    let done = self.delete(channel, code, &reason).await;
                    // Where one is deleted already, it was not refused as a whole.
                    let done =
                        done.map_err(|why| if deleted.is_empty() { why } else { Error::Unknown(why.to_string()) });
                    deleted.push(done?);
                }
                Ok(Reply::Deleted(deleted))
            }
            api::Command::Revoke(revocation) => self.revoke(*revocation).await.map(Reply::Revoked),
            api::Command::PublishBatch(batch) => self.publish_batch(&batch, &payload).await.map(Reply::Batch),
        }
    }

    /// What is known of a channel, here or elsewhere.
    async fn info(&self, channel: &str) -> Result<Option<Info>, Error> {
        let own = {
            let now = self.now();
            let mut state = self.lock();
            state.store.info(now, channel).map(|info| state.tell(&info))
        };
        let (members, subscribers, _) = self.members(channel).await?;
        let members = members.into_iter().map(|(member, count)| (member.to_string(), u64::from(count))).collect();
        // Nobody is anywhere who is not here, where there is no broker.
        if self.broker().is_none() {
            return Ok(own.map(|info| Info { members, ..info }));
        }
        let info = own.or_else(|| (subscribers > 0).then(|| nothing_of(channel)));
        Ok(info.map(|info| Info { members, subscribers, ..info }))
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Reply, Error> {
        let (mut channels, mut more) = {
            let now = self.now();
            let mut state = self.lock();
            let (page, more) = state.store.list(now, prefix, after, limit);
            (page.iter().map(|info| state.tell(info)).collect::<Vec<_>>(), more)
        };
        if let Some(link) = self.link().await? {
            let elsewhere = link.list(prefix, after, limit + 1).await?;
            let end = channels.last().filter(|_| more).map(|info| info.channel.clone());
            for channel in elsewhere.iter().filter(|name| end.as_ref().is_none_or(|end| *name < end)) {
                if let Err(place) = channels.binary_search_by(|info| info.channel.cmp(channel)) {
                    channels.insert(place, nothing_of(channel));
                }
            }
            more |= channels.len() > limit;
            channels.truncate(limit);
            let names: Vec<&str> = channels.iter().map(|info| info.channel.as_str()).collect();
            let (_, subscribers, _) = link.counts(&names).await?;
            channels.iter_mut().zip(subscribers).for_each(|(info, subscribers)| info.subscribers = subscribers);
        }
        Ok(Reply::List { channels, more })
    }

    async fn delete(&self, channel: &str, code: u16, reason: &str) -> Result<Option<Info>, Error> {
        if let Some(link) = self.link().await? {
            let info = self.info(channel).await?;
            if info.is_some() {
                link.delete(channel, code, reason).await?;
            }
            return Ok(info.map(|info| Info { members: Vec::new(), ..info }));
        }
        let now = self.now();
        Ok(self.lock().delete(now, channel, &close_frame(code, reason)))
    }
}

/// With a code that may be sent.
pub(super) fn close_frame(code: u16, reason: &str) -> CloseFrame {
    close(if may_be_sent(code) { CloseCode::from(code) } else { CloseCode::Normal }, reason)
}

/// A channel that has subscribers elsewhere, and no messages.
fn nothing_of(channel: &str) -> Info {
    let channel = channel.to_owned();
    Info { channel, subscribers: 0, messages: 0, bytes: 0, last_id: None, members: Vec::new() }
}

impl State {
    pub(super) fn delete(&mut self, now: u64, channel: &str, frame: &CloseFrame) -> Option<Info> {
        let shards = self.store.shards(channel);
        let info = self.store.delete(now, channel)?;
        self.deliver(&shards, &Delivery::Close { channel: info.channel.clone(), frame: frame.clone() });
        Some(self.tell(&info))
    }

    fn tell(&self, info: &ChannelInfo) -> Info {
        Info {
            channel: info.channel.to_string(),
            subscribers: info.subscribers,
            messages: info.messages as u64,
            bytes: (info.bytes - info.messages * OVERHEAD) as u64,
            last_id: (info.last > 0).then(|| self.store.id(info.last).to_string()),
            members: Vec::new(),
        }
    }
}
