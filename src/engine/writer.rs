//! The way to one client: its socket, and what is on its way. The connection's task writes here, and so does whoever has
//! something for many: while nothing waits, a message goes straight into the socket, and the task sleeps on.

use super::broadcast::Batch;
use super::codec::Encoding;
use super::memory::Memory;
use super::socket::Socket;
use super::summary::Traffic;
use super::thread::ThreadState;
use super::write_queue::WriteQueue;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

pub struct Writer {
    pub socket: Socket,
    /// What the socket has not taken.
    pub queue: WriteQueue,
    pub sent: Traffic,
    /// The handler has sent what it has to send, and waits for the client: what others send may go out.
    pub is_open: bool,
    encoding: Option<Encoding>,
    shared: Rc<ThreadState>,
}

/// A writer, and whether there is one yet.
pub type WriterCell = OnceCell<Rc<RefCell<Writer>>>;

/// What became of messages that were to be written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// They are in the socket, at this tick, and so many bytes.
    All(u32, usize),
    /// They are, in part. The task is to see to the rest.
    Partly(u32, usize),
    /// They are not: something comes before them, or the socket is full or broken.
    Nothing,
}

impl Writer {
    /// To this socket; messages go out in this encoding.
    pub fn new(socket: Socket, encoding: Option<Encoding>, shared: Rc<ThreadState>) -> Writer {
        Writer { socket, queue: WriteQueue::default(), sent: Traffic::default(), is_open: false, encoding, shared }
    }

    /// The encoding in which messages go out that many get; and what is needed to bring them into it.
    pub fn encoding(&self) -> (Option<Encoding>, &Rc<ThreadState>) {
        (self.encoding, &self.shared)
    }

    pub fn memory(&self) -> &Arc<Memory> {
        self.shared.memory()
    }

    /// One more message is sent, of so many bytes.
    pub fn count(&mut self, bytes: usize) {
        self.sent.count(bytes);
        self.shared.metrics.row.note_sent(1, bytes as u64);
    }

    /// Writes what waits and says that nothing follows, where the socket takes it all at once.
    pub fn end(&mut self) -> bool {
        let Writer { queue, socket, .. } = self;
        let is_all = queue.flush(|slices| socket.write_last(slices)).is_ok_and(|is_all| is_all);
        if is_all {
            socket.end_writing();
        }
        is_all
    }

    /// Writes the messages from the `first` on, if nothing has to go before them.
    pub fn try_write_batch(&mut self, batch: &Batch, first: usize) -> Written {
        let Some(encoding) = self.encoding.filter(|_| self.is_open && self.queue.is_empty()) else {
            return Written::Nothing;
        };
        let frames = batch.frames(encoding, &self.shared.contexts, first);
        let Ok(count) = self.socket.write_now(&frames) else { return Written::Nothing };
        for message in batch.messages(first) {
            self.count(message.payload().len());
        }
        let now = self.shared.timer.now();
        if count == frames.len() {
            return Written::All(now, count);
        }
        self.queue.push_encoded(frames.slice(count..), batch.wait(encoding, self.shared.memory()));
        Written::Partly(now, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Broadcast;
    use crate::engine::codec::Codec;
    use crate::engine::testing;
    use std::io::{self, Read};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn batch(texts: &[&str]) -> Batch {
        Batch::new(texts.iter().map(|text| Arc::new(Broadcast::text((*text).into()))).collect())
    }

    fn writer() -> (Writer, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let encoding = Codec::new(&testing::spec("echo")).encoding();
        (Writer::new(Socket::new(ours.into()).unwrap(), encoding, Rc::new(ThreadState::new())), theirs)
    }

    #[tokio::test]
    async fn nothing_overtakes_what_waits() {
        let (mut writer, mut client) = writer();
        let batch = batch(&["one", "two", "three"]);
        assert_eq!(writer.try_write_batch(&batch, 0), Written::Nothing, "its handler may be about to send something");
        writer.is_open = true;
        assert_eq!(writer.try_write_batch(&batch, 1), Written::All(0, 12));
        let mut received = [0; 12];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, *b"\x81\x03two\x81\x05three");
        assert_eq!(writer.sent, Traffic { messages: 2, bytes: 8 });
        writer.queue.push_encoded("rest".into(), None);
        assert_eq!(writer.try_write_batch(&batch, 0), Written::Nothing);
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_waits() {
        let (mut writer, mut client) = writer();
        writer.is_open = true;
        let text = "x".repeat(1 << 20);
        let written = writer.try_write_batch(&batch(&["first", &text]), 0);
        assert_eq!(written, Written::Partly(0, 7 + 10 + text.len() - writer.queue.len()));
        let mut received = vec![0; 7 + 10 + text.len() - writer.queue.len()];
        client.read_exact(&mut received).unwrap();
        writer
            .queue
            .flush(|slices| {
                received.extend(slices.iter().flat_map(|slice| slice.to_vec()));
                Ok(slices.iter().map(|slice| slice.len()).sum())
            })
            .unwrap();
        assert!(received.ends_with(text.as_bytes()));
        assert_eq!(received[..7], *b"\x81\x05first");
        drop(client);
        assert_eq!(writer.try_write_batch(&batch(&["lost"]), 0), Written::Nothing, "the task finds out by itself");
        assert_eq!(writer.sent.messages, 2);
        let gone = writer.socket.write_now(&"x".into()).map_err(|e| e.kind());
        assert_eq!(gone, Err(io::ErrorKind::BrokenPipe));
    }
}
