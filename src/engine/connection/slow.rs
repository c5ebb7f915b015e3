//! What takes long: a large message is compressed, and one that becomes large decoded, in slices. Nothing of the connection
//! overtakes it, and the others of the thread have their turn between two slices.

use super::Conn;
use crate::engine::health::heartbeat::{self, Activity};
use crate::engine::turns::Turn;
use crate::wire::deflate::Slices;
use bytes::Bytes;
use std::task::{Context, Poll};

/// There is something to be done in slices.
#[derive(Default)]
pub(super) struct Slow {
    turn: Turn,
    message: Option<SlowMessage>,
}

/// A message that is to be compressed.
struct SlowMessage {
    text: bool,
    payload: Bytes,
    /// When it has begun: a compressor is not held by those who wait for their turn.
    slices: Option<Slices>,
}

impl Slow {
    /// Bytes that it holds.
    pub(super) fn held(&self) -> usize {
        let message = self.message.as_ref();
        message.map_or(0, |message| message.slices.as_ref().map_or(message.payload.len(), Slices::held))
    }
}

impl Conn {
    /// A message is being compressed.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.as_ref().is_some_and(|slow| slow.message.is_some())
    }

    /// A large message is to go out, and nothing else before it is compressed.
    pub(super) fn begin_slow(&mut self, text: bool, payload: Bytes) {
        let mut writer = self.writer.borrow_mut();
        writer.count(payload.len());
        // Others have things for the client, too.
        writer.is_open = false;
        drop(writer);
        let message = SlowMessage { text, payload, slices: None };
        self.slow.get_or_insert_default().message = Some(message);
    }

    /// Ready when no message is being compressed; else others have their turn before the next slice.
    pub(super) fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.is_slow() {
            if self.poll_turn(cx).is_pending() {
                self.settle();
                return Poll::Pending;
            }
            self.step();
        }
        Poll::Ready(())
    }

    /// Something comes after a large message, and nobody has waited for that.
    pub(super) fn hasten(&mut self) {
        while self.is_slow() {
            self.step();
        }
    }

    /// Ready when a slice may be done.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.slow.get_or_insert_default().turn.poll(&self.registered.shared.turns, cx)
    }

    /// A slice was done: where it was the last, nothing is kept.
    pub(super) fn end_slice(&mut self) {
        if !self.is_slow() && !self.codec.has_more() {
            self.slow = None;
        }
    }

    /// Compresses the next slice of a message.
    fn step(&mut self) {
        let Some(message) = self.slow.as_mut().and_then(|slow| slow.message.as_mut()) else { return };
        let _at = heartbeat::within(Activity::Encoding);
        let contexts = &self.registered.shared.contexts;
        if message.slices.is_none() {
            message.slices = self.codec.begin_encode(&mut contexts.borrow_mut(), &message.payload);
        }
        if message.slices.as_mut().is_some_and(|slices| !slices.step()) {
            return;
        }
        let Some(SlowMessage { text, payload, slices }) = self.slow.as_mut().and_then(|slow| slow.message.take())
        else {
            return;
        };
        let encoded = match slices {
            Some(slices) => self.codec.end_encode(&mut contexts.borrow_mut(), payload, slices),
            None => self.codec.encode(&mut contexts.borrow_mut(), payload),
        };
        self.enqueue(text, encoded, None);
        self.end_slice();
    }
}
