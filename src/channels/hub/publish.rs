//! Messages come in.

use super::queue::{Delivery, Load, Queue};
use super::{Hub, State};
use crate::channels::api::PublishResult;
use crate::channels::publication::Publication;
use crate::channels::store::CapacityError;
use crate::channels::{Error, History, Id, redis};
use crate::engine::Broadcast;
use crate::engine::metrics::{self, Counter};
use std::sync::Arc;
use std::time::Duration;

/// How long a publisher waits while too much is on its way; httpd waits a little longer for its answer.
pub(super) const ROOM: Duration = Duration::from_secs(4);

impl Hub {
    /// Completes when no thread has too much before it: who publishes faster than subscribers can be written to waits here.
    pub async fn room(&self) {
        while let Some(load) = self.overload() {
            load.room().await;
        }
    }

    pub(super) fn overload(&self) -> Option<Arc<Load>> {
        self.lock().shards.iter().map(Queue::load).find(|load| load.is_full()).cloned()
    }

    /// Publishes a message to these channels: to all of them, or to none.
    pub async fn publish(
        &self,
        channels: &[String],
        message: Broadcast,
        content_type: Option<String>,
        history: History,
    ) -> Result<Vec<PublishResult>, Error> {
        if let Some(link) = self.link().await? {
            let budget = self.lock().budget;
            let (text, payload) = (message.is_text(), message.payload().clone());
            let message = redis::LogMessage { text, content_type, payload, history };
            let given = link.publish(budget, channels, &message).await?;
            metrics::here().add(Counter::Published, given.len() as u64);
            let result = |(channel, (id, subscribers)): (&String, (Id, u64))| PublishResult {
                channel: channel.clone(),
                id: id.to_string(),
                subscribers,
            };
            return Ok(channels.iter().zip(given).map(result).collect());
        }
        if self.overload().is_some() {
            let room = tokio::time::timeout(ROOM, self.room()).await;
            room.map_err(|_| Error::unavailable("what was published before is still on its way"))?;
        }
        let now = self.now();
        let mut state = self.lock();
        if !state.store.has_room(channels) {
            return Err(CapacityError.into());
        }
        let message = Arc::new(message);
        let (message, content_type) = (&message, content_type.as_deref());
        let publish = |channel: &String| {
            state.publish(Incoming { now, time: now, offset: None, channel, message, content_type, history })
        };
        let published: Vec<_> = channels.iter().map(publish).collect::<Result<_, _>>()?;
        metrics::here().add(Counter::Published, published.len() as u64);
        Ok(published)
    }
}

/// A message for one channel.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub now: u64,
    /// When it was published.
    pub time: u64,
    /// `None`: it gets the next.
    pub offset: Option<u64>,
    pub channel: &'a str,
    pub message: &'a Arc<Broadcast>,
    pub content_type: Option<&'a str>,
    pub history: History,
}

/// A message that the store has taken.
pub(super) struct Taken {
    pub publication: Arc<Publication>,
    pub subscribers: u64,
    /// Where they are.
    pub shards: Vec<usize>,
}

impl State {
    pub(super) fn publish(&mut self, incoming: Incoming<'_>) -> Result<PublishResult, CapacityError> {
        let Taken { publication, subscribers, shards } = self.take(incoming)?;
        let id = publication.id().to_string();
        self.deliver(&shards, &Delivery::Publication(publication));
        Ok(PublishResult { channel: incoming.channel.into(), id, subscribers })
    }

    /// As [`State::publish`], but it is still to be delivered.
    pub(super) fn take(&mut self, incoming: Incoming<'_>) -> Result<Taken, CapacityError> {
        let Incoming { now, time, offset, channel, message, content_type, history } = incoming;
        let mut made = None;
        let make = |id: &Id| {
            let publication =
                Publication::new(channel.into(), id.clone(), message.clone(), content_type.map(str::to_owned));
            made.insert(Arc::new(publication)).clone()
        };
        let offset = offset.unwrap_or(self.store.sequence() + 1);
        let published = self.store.publish_at(now, time, offset, channel, history, make)?;
        let publication = made.ok_or(CapacityError)?;
        Ok(Taken { publication, subscribers: published.subscribers, shards: published.shards })
    }
}
