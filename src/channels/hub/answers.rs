//! What httpd asks of the channels, and who is there: from the store, and with a broker from all servers together.

use super::{Answer, Call, Hub, Info, UNKNOWN, away, call, undone};
use crate::channels::publication::share;
use crate::channels::redis::Link;
use crate::engine::Refused;
use crate::wire::{CloseCode, close};
use bytes::Bytes;
use std::sync::Arc;

impl Hub {
    /// Who is in a channel, how many connections there are, and the number of the last join or leave that this knows.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn members(&self, channel: &str) -> Result<(Vec<(Arc<str>, u32)>, u64, u64), Refused> {
        if let Some(link) = self.link().await? {
            let (number, subscribers, members) = look(&link, &[channel]).await?;
            let members = members.into_iter().map(|(member, count)| (member.into(), count)).collect();
            return Ok((members, subscribers.first().copied().unwrap_or(0), number));
        }
        let now = self.now();
        let mut state = self.lock();
        let subscribers = state.store.facts(now, channel).map_or(0, |facts| facts.subscribers);
        Ok((state.store.members(channel), subscribers, state.presences))
    }

    /// Answers httpd. `payload` is what is published.
    ///
    /// # Errors
    /// The status of the answer.
    pub async fn call(&self, call: Call, payload: Bytes) -> Result<Answer, Refused> {
        match call {
            Call::Publish { channels, text, content_type, history } => {
                let message = share(text, payload).map_err(|e| Refused { status: 400, reason: e.to_string() })?;
                self.publish(&channels, message, content_type, history).await.map(Answer::Published)
            }
            Call::Info { channel } => self.tell(&channel).await.map(Answer::Info),
            Call::List { prefix, after, limit } => self.list(&prefix, &after, limit as usize).await,
            Call::Delete { channels, code, reason } => {
                let mut deleted = Vec::new();
                for channel in &channels {
                    let done = self.delete(channel, code, &reason).await;
                    // Where one is deleted already, it was not refused as a whole.
                    let done =
                        done.map_err(|why| if deleted.is_empty() { why } else { Refused { status: UNKNOWN, ..why } });
                    deleted.push(done?);
                }
                Ok(Answer::Deleted(deleted))
            }
        }
    }

    /// What is known of a channel, here or elsewhere.
    async fn tell(&self, channel: &str) -> Result<Option<Info>, Refused> {
        let own = {
            let now = self.now();
            let mut state = self.lock();
            state.store.facts(now, channel).map(|facts| state.info(&facts))
        };
        // Nobody is anywhere who is not here, where there is no broker.
        let Some(_) = self.broker() else {
            let (members, ..) = self.members(channel).await?;
            return Ok(own.map(|info| Info { members: counts(members), ..info }));
        };
        let (members, subscribers, _) = self.members(channel).await?;
        let info = own.or_else(|| (subscribers > 0).then(|| nothing_of(channel)));
        Ok(info.map(|info| Info { members: counts(members), subscribers, ..info }))
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Answer, Refused> {
        let (mut channels, mut more) = {
            let now = self.now();
            let mut state = self.lock();
            let (page, more) = state.store.list(now, prefix, after, limit);
            (page.iter().map(|facts| state.info(facts)).collect::<Vec<_>>(), more)
        };
        if let Some(link) = self.link().await? {
            let elsewhere = link.list(prefix, after, limit + 1).await.map_err(|why| away(&why.to_string()))?;
            let end = channels.last().filter(|_| more).map(|info| info.channel.clone());
            for channel in elsewhere.iter().filter(|name| end.as_ref().is_none_or(|end| *name < end)) {
                if let Err(place) = channels.binary_search_by(|info| info.channel.cmp(channel)) {
                    channels.insert(place, nothing_of(channel));
                }
            }
            more |= channels.len() > limit;
            channels.truncate(limit);
            let names: Vec<&str> = channels.iter().map(|info| info.channel.as_str()).collect();
            let (_, subscribers, _) = look(&link, &names).await?;
            channels.iter_mut().zip(subscribers).for_each(|(info, subscribers)| info.subscribers = subscribers);
        }
        Ok(Answer::List { channels, more })
    }

    async fn delete(&self, channel: &str, code: u16, reason: &str) -> Result<Option<Info>, Refused> {
        if let Some(link) = self.link().await? {
            let info = self.tell(channel).await?;
            if info.is_some() {
                link.delete(channel, code, reason).await.map_err(|why| undone(&why))?;
            }
            return Ok(info.map(|info| Info { members: Vec::new(), ..info }));
        }
        let code = if call::may_be_sent(code) { CloseCode::from(code) } else { CloseCode::Normal };
        let now = self.now();
        Ok(self.lock().delete(now, channel, &close(code, reason)))
    }
}

async fn look(link: &Link, channels: &[&str]) -> Result<(u64, Vec<u64>, Vec<(String, u32)>), Refused> {
    link.look(channels).await.map_err(|why| away(&why.to_string()))
}

fn counts(members: Vec<(Arc<str>, u32)>) -> Vec<(String, u64)> {
    members.into_iter().map(|(member, count)| (member.to_string(), u64::from(count))).collect()
}

/// A channel that has subscribers elsewhere, and no messages.
fn nothing_of(channel: &str) -> Info {
    let channel = channel.to_owned();
    Info { channel, subscribers: 0, messages: 0, bytes: 0, last_id: None, members: Vec::new() }
}
