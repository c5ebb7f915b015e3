//! The store as the image of the broker's log: what every server reads there, in the same order.

use super::Hub;
use super::publish::Incoming;
use super::query::close_frame;
use super::queue::Delivery;
use crate::channels::Id;
use crate::channels::name::is_name;
use crate::channels::publication::share;
use crate::channels::redis::{Entry, LogEvent, LogMessage, Position, StreamState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

impl Hub {
    /// The state of the broker's log, of which the store is to be the image.
    pub fn synchronize(&self, log: &StreamState) {
        let mut state = self.lock();
        if *state.store.id(0).epoch != *log.epoch {
            state.store.restart(&log.epoch, log.gone);
            state.close_all("messages were lost");
        } else if state.store.sequence() < log.gone {
            state.store.mark_lost(log.gone);
            state.close_all("messages were lost");
        }
    }

    pub fn apply(&self, entry: Entry) {
        let now = self.now();
        let Entry { number, at, channel, event } = entry;
        let mut state = self.lock();
        let next = state.store.sequence() + 1;
        if number < next {
            return;
        }
        if number > next {
            state.store.mark_lost(number - 1);
            state.close_all("messages were lost");
        }
        // Who else writes to the broker may have written it.
        let event = if is_name(&channel) { event } else { LogEvent::Unknown };
        match event {
            LogEvent::Message(LogMessage { text, content_type, payload, history }) => {
                let age = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_millis() as u64);
                let time = now - age.saturating_sub(at).min(now);
                // Whoever published it has seen to it that it is text.
                if let Ok(message) = share(text, payload).map(Arc::new) {
                    let (channel, message, content_type) = (&*channel, &message, content_type.as_deref());
                    let offset = Some(number);
                    let incoming = Incoming { now, time, offset, channel, message, content_type, history };
                    if state.publish(incoming).is_err() {
                        state.store.skip(number);
                    }
                }
            }
            LogEvent::Delete { code, reason } => {
                state.delete(now, &channel, &close_frame(code, &reason));
            }
            LogEvent::Presence { member, joined } if !member.is_empty() => {
                let (channel, member) = (Arc::from(channel), Arc::from(member));
                let shards = state.store.shards(&channel);
                state.deliver(&shards, &Delivery::Presence { channel, member, joined, number });
            }
            LogEvent::Presence { .. } | LogEvent::Revoke(_) | LogEvent::Unknown => {}
        }
        state.store.advance(number);
        state.read = (number, at);
    }

    /// The last offset that was given.
    pub fn sequence(&self) -> u64 {
        self.lock().store.sequence()
    }

    /// Which entry of the broker's log was read last.
    pub fn position(&self) -> Position {
        let state = self.lock();
        let Id { epoch, offset: number } = state.store.id(state.store.sequence());
        let at = if state.read.0 == number { state.read.1 } else { 0 };
        Position { epoch: epoch.to_string(), number, at }
    }

    /// True for the epoch of the store.
    pub fn is_of(&self, epoch: &str) -> bool {
        *self.lock().store.id(0).epoch == *epoch
    }

    /// The channels that have subscribers in this engine.
    pub fn subscribed(&self) -> Vec<Arc<str>> {
        self.lock().store.subscribed()
    }

    /// Who is in a channel in this engine.
    pub fn own_members(&self, channel: &str) -> Vec<Option<Arc<str>>> {
        self.lock().store.members(channel).into_iter().map(|(member, _)| Some(member)).collect()
    }

    /// How many are subscribed to a channel in this engine, and how many of them are that member.
    pub fn presence(&self, channel: &str, member: Option<&str>) -> (u64, u32) {
        self.lock().store.presence(channel, member)
    }
}
