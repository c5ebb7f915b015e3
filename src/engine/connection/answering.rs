//! Messages that are answered where they were received: nothing is allocated for them, and nobody wakes up.

use super::{Conn, Received, Rest};
use crate::engine::codec::Whole;
use crate::engine::health::heartbeat::{self, Activity};
use crate::engine::thread::Registered;
use crate::engine::writer::Writer;
use crate::wire::Message;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

/// Says at once what is sent for a message.
pub type Answer = for<'a> fn(Whole<'a>) -> Option<Whole<'a>>;

impl Conn {
    /// As [`Conn::recv`], but for messages that lie whole where they were received: those go to `answer`, and what it returns goes
    /// to the client. Which these are hangs on the network; so the others are to be answered alike.
    pub fn recv_answering(&mut self, answer: Answer) -> impl Future<Output = Option<Message>> {
        poll_fn(move |cx| self.poll_message(cx, Some(answer)))
    }

    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>, answer: Option<Answer>) -> Poll<Option<Message>> {
        loop {
            match ready!(self.poll_receive(cx, answer)) {
                Some(Received::Message(message)) => return Poll::Ready(Some(message)),
                Some(Received::Change(_)) => {}
                None => return Poll::Ready(None),
            }
        }
    }

    /// Takes in what was received. True where all that was complete in it is answered.
    pub(super) fn answer_or_decode(&mut self, bytes: &mut [u8], answer: Option<Answer>) -> bool {
        let mut bytes = bytes;
        let answered = answer.is_some_and(|answer| self.answer_whole(&mut bytes, answer));
        if !bytes.is_empty() {
            self.decode(bytes);
        }
        answered && self.events.is_empty()
    }

    /// Has the messages at the front of what was received answered, until one is another's business or too much waits for the
    /// client. True when there was one.
    fn answer_whole(&mut self, bytes: &mut &mut [u8], answer: Answer) -> bool {
        let _at = heartbeat::within(Activity::Decoding);
        let Registered { shared, handle } = &self.registered;
        let mut writer = self.writer.borrow_mut();
        let Writer { queue, socket, sent, .. } = &mut *writer;
        let (received_before, sent_before) = (self.received, *sent);
        queue.lend(|| shared.buffers.borrow_mut().take());
        while queue.len() <= self.spec.limits.send_buffer
            && let Some(message) = self.codec.take_whole(bytes)
        {
            self.received.count(message.payload.len());
            let Some(Whole { text, payload }) = answer(message) else { continue };
            sent.count(payload.len());
            let put_header = |out: &mut Vec<u8>| self.codec.put_header(out, text, false, payload.len());
            queue.push_borrowed(put_header, payload, |slices| socket.try_write(slices));
        }
        let (came, went) = (self.received.since(received_before), sent.since(sent_before));
        if came.messages == 0 {
            return false;
        }
        shared.metrics.row.note_received(came.messages, came.bytes);
        shared.metrics.row.note_sent(went.messages, went.bytes);
        let now = shared.timer.now();
        handle.liveness.note_life(now);
        handle.liveness.note_data(now);
        if let Some(keep) = &mut self.keep {
            keep.rest = Rest::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory::{Bound, Memory};
    use crate::engine::metrics::ThreadMetrics;
    use crate::engine::socket::Socket;
    use crate::engine::summary::Summary;
    use crate::engine::testing::{Scripted, spec, websocket};
    use crate::engine::thread::ThreadState;
    use crate::engine::{LocalBoxFuture, MessageSession};
    use crate::wire::{CloseCode, CloseFrame, close};
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::sync::Arc;
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    fn echo_at_once(conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            while let Some(message) = conn.recv_answering(|message| Some(message)).await {
                if conn.send(message).await.is_err() {
                    break;
                }
            }
            close(CloseCode::Normal, "")
        })
    }

    /// The same, with nothing answered where it lies.
    fn echo(conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            while let Some(message) = conn.recv().await {
                if conn.send(message).await.is_err() {
                    break;
                }
            }
            close(CloseCode::Normal, "")
        })
    }

    /// What a client says that is sent `frames` by turns with pieces of this size, and how its session ended.
    fn run(session: Scripted, frames: &[u8], size: usize, send_buffer: usize) -> (Vec<Message>, Summary) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut writer = theirs.try_clone().unwrap();
        let mut spec = spec("echo");
        spec.limits.send_buffer = send_buffer;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || frames.chunks(size).try_for_each(|piece| writer.write_all(piece)));
            let reader = scope.spawn(move || {
                let mut client = websocket(theirs);
                std::iter::from_fn(|| client.read().ok()).collect()
            });
            let memory = Memory::new(1, Bound::Bytes(1 << 30));
            let shared = Rc::new(ThreadState::of(0, memory.clone(), Arc::default(), ThreadMetrics::default()));
            let summary = runtime.block_on(async {
                let (registered, socket) = (shared.enter(1, &spec.limits), Socket::new(ours.into()).unwrap());
                let mut conn = Box::new(Conn::new(registered, socket, spec, &[], vec![], None));
                let verdict = Box::new(session).run(&mut conn).await;
                conn.finish(verdict).await.0
            });
            assert_eq!(memory.held(), 0);
            (reader.join().unwrap(), summary)
        })
    }

    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let text = ("[a-zé€]{0,30}", 0usize..40).prop_map(|(piece, times)| Message::text(piece.repeat(times)));
        let binary = prop_oneof![4 => 0usize..200, 2 => 0usize..5000, 1 => 10_000usize..100_000]
            .prop_map(|length| Message::binary((0..length).map(|n| n as u8).collect::<Vec<_>>()));
        let message = prop_oneof![text, binary].prop_map(|message| vec![message]);
        let ping = Just(vec![Message::Ping("there?".into())]);
        let fragments = Just(vec![
            Message::Frame(Frame::message("be", OpCode::Data(Data::Text), false)),
            Message::Frame(Frame::message("gun", OpCode::Data(Data::Continue), true)),
        ]);
        prop::collection::vec(prop_oneof![12 => message, 1 => ping, 1 => fragments], 0..20).prop_map(|messages| {
            let mut out = std::io::Cursor::new(Vec::new());
            let mut context = tungstenite::protocol::WebSocketContext::new(tungstenite::protocol::Role::Client, None);
            let end = Message::Close(Some(close(CloseCode::Normal, "bye")));
            for message in messages.concat().into_iter().chain([end]) {
                context.write(&mut out, message).unwrap();
            }
            let _ = context.flush(&mut out);
            out.into_inner()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What is said, what is counted and what is held does not hang on where a message is answered.
        #[test]
        fn an_answer_is_the_same_wherever_its_message_lies(
            frames in any_frames(),
            size in prop_oneof![(1usize..3000), Just(70_000), Just(1 << 20)],
            send_buffer in prop_oneof![Just(1 << 20), Just(1 << 14), Just(100)],
        ) {
            let (said, there) = run(Scripted(echo_at_once), &frames, size, send_buffer);
            let (expected, elsewhere) = run(Scripted(echo), &frames, size, send_buffer);
            // A Pong may come before or after the answer to what preceded its Ping.
            let split = |said: Vec<Message>| said.into_iter().partition::<Vec<_>, _>(|message| !message.is_pong());
            prop_assert_eq!(split(said), split(expected));
            prop_assert_eq!((there.received, there.sent), (elsewhere.received, elsewhere.sent));
            prop_assert_eq!(there.end.code(), elsewhere.end.code());
        }
    }
}
