//! The end of a connection: the closing handshake (RFC 6455 section 7.1), then that of the stream.

use super::{Conn, Event};
use crate::engine::memory::Demand;
use crate::engine::revocation::clock;
use crate::engine::summary::{End, Summary};
use crate::engine::thread::Registered;
use crate::wire::{CloseFrame, close};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How long a client has to end the TCP connection after the closing handshake. Closing at once could turn bytes that
/// it sent meanwhile into a reset, and a reset takes the Close frame with it.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read and thrown away then, at most: what remains of a message that was too long, say.
const LINGER_BYTES: usize = 64 << 20;
/// How long a client that broke the protocol may go on sending in all, if it never pauses for [`LINGER`]: it may come to our
/// Close only when its message is out.
const LINGER_LIMIT: Duration = Duration::from_secs(60);

impl Conn {
    /// Ends the session in the way it asks for: the closing handshake (RFC 6455 section 7.1), then the TCP connection.
    pub(in crate::engine) async fn finish(mut self, verdict: CloseFrame) -> (Summary, Registered) {
        let close_timeout = self.spec.limits.close_timeout;
        self.registered.handle.liveness.stop_watching();
        self.registered.handle.is_ending.set(true);
        self.writer.borrow_mut().is_open = false;
        let is_lost = matches!(self.end.as_deref(), Some(End::Lost(_) | End::Unanswered));
        if is_lost || self.demand() >= Demand::Close {
            self.slow = None;
        }
        poll_fn(|cx| self.poll_mailbox(cx)).await;
        let end = match (self.end.take(), self.registered.handle.take_close()) {
            (Some(end), _) => *end,
            (None, Some(frame)) => End::Engine(frame),
            (None, None) => End::Handler(verdict),
        };
        match &end {
            End::Lost(_) | End::Unanswered => {}
            End::Client(_) => {
                self.codec.reply(self.writer.borrow_mut().queue.tail());
                self.hang_up(LINGER).await;
            }
            End::Violation(frame) => {
                self.say_close(frame.clone());
                self.hang_up(LINGER_LIMIT).await;
            }
            // Nothing is read any more, since it would only become more that is held.
            End::Engine(frame) if self.demand() >= Demand::Close => {
                self.codec.give_up();
                self.events = VecDeque::new();
                self.say_close(frame.clone());
                self.settle();
                self.hang_up(LINGER).await;
            }
            End::Engine(frame) | End::Handler(frame) => {
                self.say_close(frame.clone());
                self.within(close_timeout, Self::poll_answer).await;
                // Nothing is written here but where the client's Close and ours crossed and its own still waits.
                self.codec.reply(self.writer.borrow_mut().queue.tail());
                self.hang_up(LINGER).await;
            }
        }
        let sent = self.writer.borrow().sent;
        let summary = Summary {
            spec: self.spec,
            received: self.received,
            sent,
            end,
            open: Duration::from_micros(clock().saturating_sub(self.since)),
        };
        (summary, self.registered)
    }

    fn say_close(&mut self, frame: CloseFrame) {
        let mut contexts = self.registered.shared.contexts.borrow_mut();
        self.codec.close(&mut contexts, frame, self.writer.borrow_mut().queue.tail());
    }

    /// Writes what waits, says that nothing follows, and waits until the client has closed its side: as long as it sends, up to
    /// `limit`.
    async fn hang_up(&mut self, limit: Duration) {
        // The client may be back for another session before it has ended this connection.
        self.places = Box::default();
        if !self.writer.borrow_mut().end() {
            self.within(LINGER, Self::poll_flush_only).await;
            self.writer.borrow().socket.end_writing();
        }
        let (mut left, mut is_over) = (LINGER_BYTES, false);
        let begun = Instant::now();
        loop {
            let before = left;
            let discard =
                |conn: &mut Self, cx: &mut Context<'_>| conn.poll_discard(cx, &mut left).map(|()| is_over = true);
            self.within(LINGER, discard).await;
            if is_over || left == before || begun.elapsed() >= limit {
                return;
            }
        }
    }

    /// Polls `step` until it is ready or `time` has passed.
    async fn within(&mut self, time: Duration, mut step: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<()>) {
        self.registered.shared.timer.set_deadline(&self.registered.handle, time);
        poll_fn(|cx| {
            self.registered.handle.register(cx);
            let is_over = self.registered.handle.liveness.expired() || self.demand() == Demand::Drop;
            if is_over { Poll::Ready(()) } else { step(self, cx) }
        })
        .await;
        self.registered.handle.liveness.set_deadline(0);
    }

    fn poll_flush_only(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flush(cx).map(|_| ())
    }

    /// Waits for the client's Close; its messages are of no use any more.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if !matches!(event, Event::Message(_) | Event::Part(..)) {
                    return Poll::Ready(());
                }
            }
            if self.codec.has_more() {
                ready!(self.poll_turn(cx));
                self.decode_more();
                continue;
            }
            // Reading goes on while this is pending: the client's Close may be what it wants to send first.
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(());
            }
            let shared = self.registered.shared.clone();
            let mut buffer = shared.buffer.borrow_mut();
            match self.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => self.decode(&buffer[..count]),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let mut buffer = self.registered.shared.buffer.borrow_mut();
        loop {
            match self.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(count)) if count > 0 && count <= *left => *left -= count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The frame of a stop, with the configured code: by default 1012 (service restart, in IANA's registry of RFC 6455 section
/// 11.7), after which clients' libraries come back.
pub fn stopping(code: u16) -> CloseFrame {
    close(code.into(), "server is stopping")
}
