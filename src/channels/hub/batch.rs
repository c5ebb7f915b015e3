//! Messages that come many at a time. They are published in their order and in slices, between which others have their turn.

use super::Hub;
use super::publish::{Incoming, ROOM, Taken};
use super::queue::Delivery;
use crate::channels::api::{BatchEntry, BatchOutcome, PublishBatch};
use crate::channels::publication::share;
use crate::channels::redis::{PATIENCE, RedisLink};
use crate::channels::{Error, History};
use crate::engine::metrics::{self, Counter};
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Messages of a slice, at most.
const SLICE: usize = 128;
/// And bytes of them; a single message may be longer.
const SLICE_BYTES: usize = 256 * 1024;

impl Hub {
    /// Publishes these messages, whose payloads are one behind the other; says of each what became of it.
    ///
    /// # Errors
    /// That is the same for all: none of them was published, or nobody knows.
    pub async fn publish_batch(&self, batch: &PublishBatch, payloads: &[u8]) -> Result<Vec<BatchOutcome>, Error> {
        let entries =
            batch.entries(payloads).ok_or_else(|| Error::unavailable("the payloads are not the messages'"))?;
        // httpd waits for no longer than the answer to what is begun by then.
        let until = Instant::now() + PATIENCE;
        let results = match self.link().await? {
            Some(link) => self.publish_through(&link, &entries, batch.history, until).await,
            None => self.publish_here(&entries, batch.history).await,
        };
        let published = results.iter().filter(|result| result.is_ok()).count();
        metrics::here().add(Counter::Published, published as u64);
        let alike = results.first().and_then(|first| first.as_ref().err()).cloned();
        match alike.filter(|why| results.iter().all(|result| result.as_ref().is_err_and(|other| other == why))) {
            Some(why) => Err(why),
            None => Ok(results.into_iter().map(outcome).collect()),
        }
    }

    async fn publish_here(&self, entries: &[BatchEntry<'_>], history: History) -> Vec<EntryResult> {
        let until = Instant::now() + ROOM;
        let mut results = Vec::with_capacity(entries.len());
        for slice in slices(entries) {
            if !results.is_empty() {
                tokio::task::yield_now().await;
            }
            if self.overload().is_some() && timeout_at(until, self.room()).await.is_err() {
                let why = Error::unavailable("what was published before is still on its way");
                results.resize(entries.len(), Err(why));
                break;
            }
            // A copy each: what is kept of one does not hold the others.
            let messages: Vec<_> = slice
                .iter()
                .map(|entry| share(entry.text, Bytes::copy_from_slice(entry.payload)).map(Arc::new))
                .collect();
            let now = self.now();
            let mut state = self.lock();
            let mut deliveries = vec![Vec::new(); state.shards.len()];
            for (entry, message) in slice.iter().zip(messages) {
                let BatchEntry { channel, content_type, .. } = *entry;
                let taken = message.and_then(|message| {
                    let message = &message;
                    let incoming = Incoming { now, time: now, offset: None, channel, message, content_type, history };
                    Ok(state.take(incoming)?)
                });
                results.push(taken.map(|Taken { publication, subscribers, shards }| {
                    for shard in shards {
                        deliveries[shard].push(Delivery::Publication(publication.clone()));
                    }
                    (publication.id().to_string(), subscribers)
                }));
            }
            state.deliver_all(deliveries);
        }
        results
    }

    async fn publish_through(
        &self,
        link: &RedisLink,
        entries: &[BatchEntry<'_>],
        history: History,
        until: Instant,
    ) -> Vec<EntryResult> {
        let budget = self.lock().budget;
        let mut results = Vec::with_capacity(entries.len());
        for slice in slices(entries) {
            if !results.is_empty() && Instant::now() > until {
                results.resize(entries.len(), Err(Error::unavailable("the broker takes too long")));
                break;
            }
            match link.publish_batch(budget, slice, history).await {
                Ok(given) => results.extend(
                    given.into_iter().map(|given| given.map(|(id, subscribers)| (id.to_string(), subscribers))),
                ),
                Err(why) => {
                    results.resize(results.len() + slice.len(), Err(why));
                    // What comes after them is not tried: the order would not be that of the messages.
                    results.resize(entries.len(), Err(Error::unavailable("the broker was lost before this message")));
                    break;
                }
            }
        }
        results
    }
}

/// Its id, and connections that it was given to.
type EntryResult = Result<(String, u64), Error>;

fn outcome(result: EntryResult) -> BatchOutcome {
    match result {
        Ok((id, subscribers)) => BatchOutcome::Published { id, subscribers },
        Err(why) => BatchOutcome::Failed { status: why.status(), reason: why.to_string() },
    }
}

/// All of them, some at a time.
fn slices<'a, 'b>(mut entries: &'a [BatchEntry<'b>]) -> impl Iterator<Item = &'a [BatchEntry<'b>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut fits = |entry: &BatchEntry<'_>| {
            bytes += entry.payload.len();
            bytes <= SLICE_BYTES
        };
        let count = entries.iter().take(SLICE).take_while(|entry| fits(entry)).count();
        let (slice, rest) = entries.split_at_checked(count.max(1))?;
        entries = rest;
        Some(slice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_not_too_much_at_a_time() {
        let lengths = |sizes: &[usize]| {
            let payload = vec![0; 2 * SLICE_BYTES];
            let entry =
                |size: &usize| BatchEntry { channel: "a", content_type: None, text: false, payload: &payload[..*size] };
            let entries: Vec<_> = sizes.iter().map(entry).collect();
            slices(&entries).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[0; 2 * SLICE + 1]), [SLICE, SLICE, 1]);
        assert_eq!(lengths(&[1, 2 * SLICE_BYTES, SLICE_BYTES - 1, 1, 1]), [1, 1, 2, 1]);
    }
}
