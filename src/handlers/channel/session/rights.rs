//! What others change in a session: rights are taken back, or are what the application says now.

use super::{Failure, Session, Since};
use crate::channels::name::is_name;
use crate::channels::protocol::ClientEvent;
use crate::channels::shard::Presence;
use crate::engine::application::answer::Answer;
use crate::engine::revocation::{Change, Measure, Tally};
use crate::wire::{CloseCode, close};
use std::collections::HashSet;
use std::sync::Arc;

/// Channels that a session may not subscribe to again.
#[derive(Default)]
pub(super) struct Revoked(pub(super) HashSet<String>);

impl Session<'_> {
    /// Others want something of this session, which has `begun` with its channels or is to do so.
    pub(super) async fn change(&mut self, change: Change, begun: bool) -> Result<(), Failure> {
        match change {
            Change::Unsubscribe(revocation, tally) => match &revocation.measure {
                Measure::Unsubscribe { channels } => self.revoke(channels, begun, tally).await,
                Measure::Close { .. } | Measure::Recheck => Ok(()),
            },
            // Those with an application are asked about elsewhere.
            Change::Recheck(_) => Ok(()),
            Change::Rights(answer) => self.renew(&answer, begun).await,
        }
    }

    async fn revoke(&mut self, channels: &[String], begun: bool, tally: Option<Tally>) -> Result<(), Failure> {
        let mut was_subscribed = false;
        let mut gone = Vec::new();
        for channel in channels {
            let before = self.subscription.channels.len();
            self.subscription.change(|own| own.channels.retain(|own| own != channel));
            self.revoked.get_or_insert_default().0.insert(channel.clone());
            let was_next = !begun && self.subscription.channels.len() < before;
            if self.subscribed.contains(channel) || was_next {
                was_subscribed = true;
                gone.push(channel.clone());
            }
        }
        if let Some(tally) = tally.filter(|_| was_subscribed) {
            tally.count();
        }
        self.end(&gone).await
    }

    /// Ends subscriptions; the client hears of it.
    async fn end(&mut self, channels: &[String]) -> Result<(), Failure> {
        let mut is_told = true;
        for channel in channels {
            self.subscribed.remove(channel);
            let event = ClientEvent::Unsubscribed { channel: self.view.name(channel) };
            is_told &= self.tell(&event, None).await?;
        }
        // Else it would wait for nothing, and not know.
        if !is_told && self.subscription.channels.is_empty() {
            return Err(Failure::Close(close(CloseCode::Policy, "unsubscribed")));
        }
        Ok(())
    }

    /// The application has been asked again: what it says counts from now on. Of what it says nothing, all is as it was.
    async fn renew(&mut self, answer: &Answer, begun: bool) -> Result<(), Failure> {
        if let Some(rights) = answer.rights {
            self.subscription.change(|own| (own.publishes, own.presence) = (rights.publish, rights.presence));
            for subscribed in self.subscribed.iter().filter(|_| !rights.presence) {
                self.shard.set_presence(subscribed.channel(), subscribed.key(), Presence::Off);
            }
        }
        if let Some(allowed) = &answer.allowed {
            let below = |pattern: &_| self.subscription.below(pattern);
            let allowed = allowed.iter().map(below).collect();
            self.subscription.change(|own| own.allowed = allowed);
        }
        let before = self.subscription.channels.clone();
        if let Some(channels) = &answer.channels {
            let channels: Vec<String> = channels.iter().map(|channel| self.full(channel)).collect();
            if channels.iter().any(|channel| !is_name(channel)) || channels.len() > self.subscription.max as usize {
                return Err(Failure::Close(close(CloseCode::Error, "too many channels")));
            }
            if let Some(revoked) = &mut self.revoked {
                revoked.0.retain(|channel| !channels.contains(channel));
            }
            self.subscription.change(|own| own.channels = channels);
        }
        let now = self.subscription.channels.clone();
        let is_kept =
            |channel: &String| now.contains(channel) || (!before.contains(channel) && self.is_allowed(channel));
        let own: Vec<String> =
            if begun { self.subscribed.iter().map(|one| one.channel().to_string()).collect() } else { before.clone() };
        let gone: Vec<String> = own.into_iter().filter(|channel| !is_kept(channel)).collect();
        self.end(&gone).await?;
        // One that the client has left stays left.
        let new = now.into_iter().filter(|channel| !before.contains(channel) && !self.subscribed.contains(channel));
        let new: Vec<Arc<str>> = new.map(Arc::from).collect();
        if !begun || new.is_empty() {
            return Ok(());
        }
        if self.subscribed.len() + new.len() > self.subscription.max as usize {
            return Err(Failure::Close(close(CloseCode::Error, "too many channels")));
        }
        self.hub.admit(&new).await?;
        self.begin(&new, Since::Now, None, None).await
    }
}
