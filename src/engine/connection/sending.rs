//! What goes to the client: what the handler sends, what others have posted, and Pings.

use super::Conn;
use crate::engine::broadcast::Broadcast;
use crate::engine::codec::Encoded;
use crate::engine::health::heartbeat::{self, Activity};
use crate::engine::memory::Share;
use crate::engine::metrics::{self, Counter};
use crate::engine::summary::End;
use crate::engine::thread::Registered;
use crate::engine::writer::Writer;
use crate::wire::frame::Control;
use crate::wire::{CloseCode, Message, close};
use bytes::Bytes;
use std::cell::RefMut;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

/// A session is closing: nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is closing")]
pub struct Closing;

impl Conn {
    /// Before anything was written: this goes before all else.
    pub(in crate::engine) fn say_first(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.writer.borrow_mut().queue.push_first(bytes);
        }
    }

    /// Queues a message for the client, at once. Waits while the send buffer is full.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub fn send(&mut self, message: Message) -> impl Future<Output = Result<(), Closing>> {
        // Not in the future, which would have room for a message as long as its session is open.
        let queued = self.queue(message);
        let mut waits = false;
        poll_fn(move |cx| {
            if queued.is_err() || !(waits || self.is_full()) {
                return Poll::Ready(queued);
            }
            waits = true;
            self.poll_room(cx)
        })
    }

    /// As [`Conn::send`], for one of many who get the same message.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub async fn send_shared(&mut self, message: &Broadcast) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        if self.codec.is_slow(message.payload().len()) {
            self.prepare(message).await;
        }
        self.share_in_turn(message);
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// As [`Conn::send`], also when the client has closed already or broken the protocol: what answers messages that came
    /// before that goes out before our Close.
    ///
    /// # Errors
    /// The session is closing for another reason.
    pub async fn send_late(&mut self, message: Message) -> Result<(), Closing> {
        if !matches!(self.end.as_deref(), None | Some(End::Client(_) | End::Violation(_))) {
            return Err(Closing);
        }
        self.put(message);
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Waits until all that was sent is written, for a handler that says no more: after it, its Close may take no longer than
    /// [`crate::engine::Limits::close_timeout`].
    ///
    /// # Errors
    /// The session is closing.
    pub async fn flush(&mut self) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        poll_fn(|cx| self.poll_empty(cx)).await
    }

    /// Queues a Ping or a Pong with this payload; its first 125 bytes (RFC 6455 section 5.5). Waits as [`Conn::send`] does.
    ///
    /// # Errors
    /// The session is closing.
    pub async fn send_control(&mut self, kind: Control, payload: &[u8]) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        self.codec.put_control(self.ready_writer().queue.tail(), kind, payload);
        if !self.is_full() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    /// Writes what was sent, and reads nothing: for a handler that can take no more. Completes when the session is closing.
    ///
    /// No client is given up meanwhile for not answering a Ping: its answer would not be read. One is sent all the same: where
    /// the client has gone and left much unread, its end does not come through, but its system answers the Ping with a reset.
    pub async fn tend(&mut self) {
        poll_fn(|cx| {
            self.registered.handle.register(cx);
            self.stop_waiting();
            if self.end.is_some() || self.registered.handle.close_asked() {
                return Poll::Ready(());
            }
            if self.poll_slow(cx).is_pending() {
                return Poll::Pending;
            }
            self.ping();
            match self.poll_flush(cx) {
                Poll::Ready(Err(e)) => {
                    self.end = Some(Box::new(End::Lost(e)));
                    Poll::Ready(())
                }
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// Queues a message that does not wait for anybody: one for many clients. Of a client that does not keep up the
    /// session ends, with 1013.
    ///
    /// A client keeps up as long as no more than the send buffer waits for it, whatever the size of the next message.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub fn push(&mut self, message: &Broadcast) -> Result<(), Closing> {
        self.hasten();
        if self.end.is_none() && self.is_full() {
            // What the client has made room for is not to be held against it.
            let mut writer = self.writer.borrow_mut();
            let Writer { queue, socket, .. } = &mut *writer;
            let waiting = queue.len();
            let flushed = queue.flush(|slices| socket.try_write(slices));
            drop(writer);
            match flushed {
                Ok(empty) => self.note_flush(waiting, empty),
                Err(e) => self.end = Some(Box::new(End::Lost(e))),
            }
            if self.end.is_none() && self.is_full() {
                self.end = Some(Box::new(slow_consumer()));
            }
        }
        if self.end.is_some() {
            return Err(Closing);
        }
        self.share_in_turn(message);
        Ok(())
    }

    /// As [`Conn::push`], and waits while a large message is compressed.
    ///
    /// # Errors
    /// The session is closing: the message goes nowhere.
    pub async fn push_in_turn(&mut self, message: &Broadcast) -> Result<(), Closing> {
        if self.end.is_some() || !self.codec.is_slow(message.payload().len()) {
            return self.push(message);
        }
        self.prepare(message).await;
        self.push(message)?;
        poll_fn(|cx| self.poll_slow(cx)).await;
        Ok(())
    }

    /// Has a large message encoded, where others get the same.
    async fn prepare(&self, message: &Broadcast) {
        if let Some(encoding) = self.codec.encoding().filter(|_| self.codec.is_slow(message.payload().len())) {
            let shared = self.registered.shared.clone();
            // Boxed, so that it makes no handler's state larger.
            Box::pin(message.prepare(encoding, &shared)).await;
        }
    }

    /// A large message that is compressed for this client alone is so in slices.
    fn share_in_turn(&mut self, message: &Broadcast) {
        if self.codec.encoding().is_none() && self.codec.is_slow(message.payload().len()) {
            self.hasten();
            self.begin_slow(message.is_text(), message.payload().clone());
        } else {
            self.share(message);
        }
    }

    fn share(&mut self, message: &Broadcast) {
        let _at = heartbeat::within(Activity::Encoding);
        self.hasten();
        let Registered { shared, .. } = &self.registered;
        let contexts = &shared.contexts;
        let encoded = match self.codec.encoding() {
            Some(encoding) => {
                message.encoded(encoding, |payload| self.codec.encode(&mut contexts.borrow_mut(), payload))
            }
            None => self.codec.encode(&mut contexts.borrow_mut(), message.payload().clone()),
        };
        let common = message.wait_for(&encoded.0, shared.memory());
        self.writer.borrow_mut().count(message.payload().len());
        self.enqueue(message.is_text(), encoded, common);
    }

    fn queue(&mut self, message: Message) -> Result<(), Closing> {
        if self.end.is_some() {
            return Err(Closing);
        }
        self.put(message);
        Ok(())
    }

    /// Queues a message; a large one that is to be compressed not at once, but when others had their turn.
    fn put(&mut self, message: Message) {
        let (text, payload) = match message {
            Message::Text(text) => (true, text.into()),
            Message::Binary(payload) => (false, payload),
            // Control frames are the session's own business.
            _ => return,
        };
        let _at = heartbeat::within(Activity::Encoding);
        self.hasten();
        if self.codec.is_slow(payload.len()) {
            self.begin_slow(text, payload);
            return;
        }
        self.writer.borrow_mut().count(payload.len());
        let encoded = self.codec.encode(&mut self.registered.shared.contexts.borrow_mut(), payload);
        self.enqueue(text, encoded, None);
    }

    /// `common`: others wait for the same payload.
    pub(super) fn enqueue(&mut self, text: bool, (payload, compressed): Encoded, common: Option<Share>) {
        let length = payload.len();
        let put_header = |out: &mut Vec<u8>| self.codec.put_header(out, text, compressed, length);
        self.ready_writer().queue.push(put_header, payload, common);
        self.registered.handle.liveness.note_data(self.registered.shared.timer.now());
    }

    /// The writer, with a buffer to fill.
    fn ready_writer(&self) -> RefMut<'_, Writer> {
        let mut writer = self.writer.borrow_mut();
        writer.queue.lend(|| self.registered.shared.buffers.borrow_mut().take());
        writer
    }

    pub(super) fn take_mailbox(&mut self) {
        let mut posted = self.registered.handle.take_mailbox().into_iter();
        while let Some((message, _waits)) = posted.next() {
            if self.push(&message).is_err() {
                return;
            }
            if self.is_slow() {
                self.registered.handle.put_back(posted.collect());
                return;
            }
        }
    }

    /// Ready when nothing that others have posted waits.
    pub(super) fn poll_mailbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.poll_slow(cx));
            self.take_mailbox();
            if !self.is_slow() {
                return Poll::Ready(());
            }
        }
    }

    /// What was posted waits while the handler sends: too much of it, and the client is given up, as in [`Conn::push`].
    fn has_fallen_behind(&self) -> bool {
        self.registered.handle.mailbox_bytes() > self.spec.limits.send_buffer
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_slow() || self.backlog() > self.spec.limits.send_buffer
    }

    /// Completes when there is room in the send buffer.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closing>> {
        self.poll_sent(cx, |conn| !conn.is_full())
    }

    /// Completes when nothing waits for the client.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closing>> {
        self.poll_sent(cx, |_| false)
    }

    /// Completes when nothing waits for the client, or what waits `is_little`.
    fn poll_sent(&mut self, cx: &mut Context<'_>, is_little: fn(&Self) -> bool) -> Poll<Result<(), Closing>> {
        self.registered.handle.register(cx);
        self.stop_waiting();
        if self.registered.handle.close_asked() {
            return Poll::Ready(Err(Closing));
        }
        if self.poll_slow(cx).is_pending() {
            return Poll::Pending;
        }
        self.ping();
        let flushed = self.poll_flush(cx);
        self.settle();
        match flushed {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => self.end = Some(Box::new(End::Lost(e))),
            Poll::Pending if is_little(self) => return Poll::Ready(Ok(())),
            Poll::Pending if self.is_given_up() => self.end = Some(Box::new(End::Unanswered)),
            Poll::Pending if self.has_fallen_behind() => self.end = Some(Box::new(slow_consumer())),
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Err(Closing))
    }

    /// Queues a Ping when the clock wants one.
    pub(super) fn ping(&mut self) {
        let Registered { shared, handle } = &self.registered;
        if handle.liveness.is_ping_due() {
            self.codec.put_control(self.ready_writer().queue.tail(), Control::Ping, b"");
            let late = handle.liveness.note_ping(shared.timer.now());
            shared.timer.look_at(handle, late);
        }
    }

    /// After a flush of `waiting` bytes: a client that takes what had to wait for it is alive, though its answer to a
    /// Ping may have to wait until all that was sent before has arrived, or until something is read again.
    fn note_flush(&mut self, waiting: usize, empty: bool) {
        if std::mem::replace(&mut self.blocked, !empty) && self.backlog() < waiting {
            let now = self.registered.shared.timer.now();
            self.registered.handle.liveness.note_life(now);
            self.registered.handle.liveness.note_data(now);
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = self.writer.borrow_mut();
        let Writer { queue, socket, .. } = &mut *writer;
        let waiting = queue.len();
        let empty = queue.flush(|slices| match socket.poll_write(cx, slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        })?;
        let buffer = queue.reclaim();
        drop(writer);
        self.note_flush(waiting, empty);
        if !empty {
            return Poll::Pending;
        }
        if let Some(buffer) = buffer {
            self.registered.shared.buffers.borrow_mut().put_back(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

fn slow_consumer() -> End {
    metrics::here().add(Counter::SlowClosed, 1);
    End::Engine(close(CloseCode::Again, "slow consumer"))
}
