//! What a client has said and its application has not taken yet.

use crate::wire::Message;
use crate::wire::websocket_events::WebSocketEvent;
use std::collections::VecDeque;

/// Messages that wait before the client is read no further.
const BATCH: usize = 64;
/// And bytes of them; a single message may be longer.
const BATCH_BYTES: usize = 200_000;

#[derive(Debug, Default)]
pub struct Outbox {
    events: VecDeque<WebSocketEvent>,
    /// Bytes of their content.
    bytes: usize,
    /// How many of them, the first, the application was offered.
    offered: usize,
    /// Bytes of their content that it was offered before, and did not take.
    replayed: usize,
}

/// An application has taken what it was not offered, or nothing where nothing more fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAcceptance {
    #[error("it has accepted {0} bytes of {1}")]
    TooMuch(usize, usize),
    #[error("it has accepted nothing, and more than {0} bytes do not fit")]
    Nothing(usize),
}

impl Outbox {
    pub fn has_room(&self) -> bool {
        self.events.len() < BATCH && self.bytes < BATCH_BYTES
    }

    /// There is something that it was not offered.
    pub fn has_news(&self) -> bool {
        self.events.len() > self.offered
    }

    /// Bytes that it takes.
    pub fn held(&self) -> usize {
        self.bytes + self.events.len() * size_of::<WebSocketEvent>()
    }

    pub fn put(&mut self, message: Message) {
        let is_text = message.is_text();
        let content = message.into_data();
        self.bytes += content.len();
        let event = if is_text { WebSocketEvent::Text(content) } else { WebSocketEvent::Binary(content) };
        self.events.push_back(event);
    }

    /// The next event alone, which is gone from here.
    pub fn pop(&mut self) -> Option<WebSocketEvent> {
        let event = self.events.pop_front()?;
        self.bytes -= event.content_len();
        Some(event)
    }

    /// All that waits: it is offered now. And how many bytes of it were before.
    pub fn offer(&mut self) -> (&VecDeque<WebSocketEvent>, usize) {
        self.offered = self.events.len();
        (&self.events, self.replayed)
    }

    /// Nobody knows what has become of what was offered: it is not offered twice.
    pub fn forget_offered(&mut self) {
        let _ = self.accept(None);
    }

    /// So many bytes of the content that was offered are done; `None`: all of it is.
    ///
    /// # Errors
    /// That cannot be.
    pub fn accept(&mut self, count: Option<usize>) -> Result<(), BadAcceptance> {
        let offered: usize = self.events.iter().take(self.offered).map(WebSocketEvent::content_len).sum();
        let Some(count) = count else {
            self.events.drain(..self.offered);
            self.bytes -= offered;
            (self.offered, self.replayed) = (0, 0);
            return Ok(());
        };
        if count > offered {
            return Err(BadAcceptance::TooMuch(count, offered));
        }
        if count == 0 && offered > 0 && !self.has_room() {
            return Err(BadAcceptance::Nothing(self.bytes));
        }
        let mut left = count;
        while let Some(first) = self.events.front_mut().filter(|_| self.offered > 0) {
            let length = first.content_len();
            if length > left {
                first.advance(left);
                break;
            }
            left -= length;
            self.events.pop_front();
            self.offered -= 1;
        }
        self.bytes -= count;
        self.replayed = offered - count;
        Ok(())
    }

    /// Forgets all of them; how many it was.
    pub fn clear(&mut self) -> usize {
        std::mem::take(self).events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_may_not_be_taken_for_ever() {
        let mut outbox = Outbox::default();
        outbox.put(Message::text("a"));
        outbox.offer();
        assert_eq!(outbox.accept(Some(0)), Ok(()));
        while outbox.has_room() {
            outbox.put(Message::text("a"));
        }
        outbox.offer();
        assert_eq!(outbox.accept(Some(0)), Err(BadAcceptance::Nothing(BATCH)));
        assert_eq!(outbox.accept(Some(BATCH + 1)), Err(BadAcceptance::TooMuch(BATCH + 1, BATCH)));
        assert_eq!(outbox.accept(Some(1)), Ok(()));
        assert!(outbox.has_room() && !outbox.has_news());
    }

    proptest! {
        /// Whatever is taken of what is offered: each byte is taken once, in order.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(steps in proptest::collection::vec((0_usize..4, 0_usize..6), 1..40)) {
            let (mut outbox, mut said, mut taken) = (Outbox::default(), Vec::<u8>::new(), Vec::<u8>::new());
            for (length, count) in steps {
                let bytes: Vec<u8> = (said.len()..said.len() + length).map(|number| number as u8).collect();
                said.extend(&bytes);
                if outbox.has_room() {
                    outbox.put(Message::binary(bytes));
                } else {
                    said.truncate(said.len() - length);
                }
                let (events, replayed) = outbox.offer();
                let offered: Vec<u8> = events.iter().flat_map(|event| match event {
                    WebSocketEvent::Binary(content) => content.to_vec(),
                    _ => Vec::new(),
                }).collect();
                prop_assert!(replayed <= offered.len());
                let count = count.min(offered.len());
                taken.extend(&offered[..count]);
                prop_assert_eq!(outbox.accept(Some(count)), Ok(()));
                prop_assert_eq!(outbox.bytes, said.len() - taken.len());
                prop_assert_eq!(&said[..taken.len()], &taken[..]);
            }
        }
    }
}
