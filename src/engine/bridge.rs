//! Messages between a client and somebody behind its handler, both ways. Who does not take holds the other up: nothing is read
//! of a backend whose client has a full send buffer, nor of a client whose backend has no room.

use super::Broadcast;
use super::Conn;
use super::connection::Closing;
use crate::wire::Message;
use crate::wire::frame::Control;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

/// Bytes for a backend that are gathered before its client is read no further; and a message more.
pub(crate) const GATHERED: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

/// Lends the buffer where every read of a backend lands first: an idle one keeps none.
pub(crate) fn with_buffer<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| read(buffer))
}

pub(crate) trait Backend {
    type End;

    fn has_room(&self) -> bool;

    fn put(&mut self, message: Message);

    /// Waits until it has said something, or has ended, or, where there was no room, has taken something. Dropping the future
    /// loses nothing.
    fn turn(&mut self) -> impl Future<Output = ()>;

    /// The next of what it has said, without waiting.
    fn said(&mut self) -> Option<Said<Self::End>>;

    /// Lets it take what waits for it, while the client holds it up.
    fn poll_write(&mut self, _cx: &mut Context<'_>) {}
}

pub(crate) enum Said<End> {
    Message(Message),
    /// A message that others get as well: its client is not waited for.
    Shared(Arc<Broadcast>),
    Control(Control, Vec<u8>),
    End(End),
}

/// Moves messages until the backend ends, and says how it did, or until the session is closing. While there is no room, it is
/// looked after each `look` of silence whether the client is still there.
pub(crate) async fn run<B: Backend>(conn: &mut Conn, backend: &mut B, look: Duration) -> Option<B::End> {
    loop {
        if backend.has_room() {
            tokio::select! {
                // All that a client has sent at once goes at once; a backend without room has its turn in any case.
                biased;
                message = conn.recv() => {
                    backend.put(message?);
                    continue;
                }
                () = backend.turn() => {}
            }
        } else {
            tokio::select! {
                () = conn.tend() => return None,
                () = backend.turn() => {}
                () = tokio::time::sleep(look) => {
                    if conn.notice_end() {
                        return None;
                    }
                    continue;
                }
            }
        }
        if let Some(end) = deliver(conn, backend).await.ok()? {
            return Some(end);
        }
    }
}

/// Gives the client what the backend has said; yields its end, when that has come.
///
/// # Errors
/// The session is closing.
pub(crate) async fn deliver<B: Backend>(conn: &mut Conn, backend: &mut B) -> Result<Option<B::End>, Closing> {
    while let Some(said) = backend.said() {
        match said {
            Said::Message(message) => {
                let mut sent = pin!(conn.send(message));
                poll_fn(|cx| {
                    backend.poll_write(cx);
                    sent.as_mut().poll(cx)
                })
                .await?;
            }
            Said::Shared(message) => conn.push_in_turn(&message).await?,
            Said::Control(kind, payload) => conn.send_control(kind, &payload).await?,
            Said::End(end) => return Ok(Some(end)),
        }
    }
    Ok(None)
}

/// Bytes that a backend has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    sent: usize,
}

impl Gathered {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To add to. What is sent already would stay as long as something waits.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.sent >= GATHERED {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.bytes
    }

    /// Has `write` take what it can, until all is gone or that would wait. Nothing waits after an error.
    ///
    /// # Errors
    /// What `write` says.
    pub(crate) fn write(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.is_empty() {
            match write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => {
                    *self = Gathered::default();
                    return Err(e);
                }
            }
        }
        // An idle session keeps no buffer.
        *self = Gathered::default();
        Ok(())
    }
}
