//! How others on its thread reach a connection: messages for it, a request to close, and the clock.

use super::broadcast::{Batch, Broadcast};
use super::codec::Encoding;
use super::health::heartbeat::HandlerNumber;
use super::liveness::{Liveness, Look};
use super::memory::Share;
use super::revocation::Change;
use super::spec::Limits;
use super::writer::{Writer, WriterCell, Written};
use crate::wire::{CloseCode, CloseFrame, close};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

/// The reason of a Close since nothing has moved for as long as may be.
pub const IDLE: &str = "idle timeout";

/// A message that others want a connection to send, which waits for that.
pub type Posted = (Arc<Broadcast>, Option<Share>);

/// The part of a connection that its thread can see. Never leaves the thread.
pub struct ConnectionHandle {
    pub id: u64,
    /// The number of what runs it.
    pub handler: Cell<HandlerNumber>,
    /// What runs it looks at [`Change`]s.
    pub takes_changes: Cell<bool>,
    /// Whether it comes over a mux, where it counts as a session.
    pub counted: Cell<Option<bool>>,
    /// And as what: see [`super::metrics::series`].
    pub series: Cell<u16>,
    /// Its closing handshake has begun, or it is lost.
    pub is_ending: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// Boxed, as what follows, since a session seldom has any.
    asked: Cell<Option<Box<Asked>>>,
    writer: WriterCell,
    mailbox: Cell<Option<Box<Mailbox>>>,
    pub(super) liveness: Liveness,
}

/// What was posted.
type Mailbox = Vec<Posted>;

/// What others want of a connection.
#[derive(Default)]
struct Asked {
    close: Option<CloseFrame>,
    changes: VecDeque<Change>,
}

impl ConnectionHandle {
    /// Of a session that begins `now`.
    pub fn new(id: u64, limits: &Limits, now: u32) -> ConnectionHandle {
        ConnectionHandle {
            id,
            handler: Cell::new(0),
            takes_changes: Cell::new(false),
            counted: Cell::default(),
            series: Cell::default(),
            is_ending: Cell::new(false),
            waker: Cell::default(),
            asked: Cell::default(),
            writer: WriterCell::new(),
            mailbox: Cell::default(),
            liveness: Liveness::new(limits, now),
        }
    }

    /// This is the way to the client.
    pub fn connect(&self, writer: Rc<RefCell<Writer>>) {
        self.writer.get_or_init(|| writer);
    }

    /// Asks the connection to close with this frame; the first request counts.
    pub fn close(&self, frame: CloseFrame) {
        self.with_asked(|asked| {
            asked.get_or_insert_default().close.get_or_insert(frame);
        });
        self.wake();
    }

    /// The frame that [`ConnectionHandle::close`] asked for, once.
    pub fn take_close(&self) -> Option<CloseFrame> {
        self.with_asked(|asked| asked.as_mut().and_then(|asked| asked.close.take()))
    }

    /// True when [`ConnectionHandle::close`] was called and nobody has looked.
    pub fn close_asked(&self) -> bool {
        self.with_asked(|asked| asked.as_ref().is_some_and(|asked| asked.close.is_some()))
    }

    /// Wants this of the session, if it can.
    pub fn change(&self, change: Change) {
        if self.takes_changes.get() {
            self.with_asked(|asked| asked.get_or_insert_default().changes.push_back(change));
            self.wake();
        }
    }

    /// The next of what [`ConnectionHandle::change`] has asked for.
    pub fn take_change(&self) -> Option<Change> {
        self.with_asked(|asked| {
            let change = asked.as_mut()?.changes.pop_front();
            asked.take_if(|asked| asked.close.is_none() && asked.changes.is_empty());
            change
        })
    }

    /// True when there is something to close or to change.
    pub fn is_asked(&self) -> bool {
        self.with_asked(|asked| asked.as_ref().is_some_and(|asked| asked.close.is_some() || !asked.changes.is_empty()))
    }

    fn with_asked<T>(&self, step: impl FnOnce(&mut Option<Box<Asked>>) -> T) -> T {
        let mut asked = self.asked.take();
        let done = step(&mut asked);
        self.asked.set(asked);
        done
    }

    /// Has the connection send this message as [`super::Conn::push`] does: in the order of the calls, and after what its
    /// handler has sent so far. Nothing happens where it is closing.
    pub fn enqueue(&self, message: Arc<Broadcast>) {
        let waiting = self.writer.get().map(|writer| message.wait(writer.borrow().memory()));
        let mut mailbox = self.mailbox.take().unwrap_or_default();
        mailbox.push((message, waiting));
        self.mailbox.set(Some(mailbox));
        self.wake();
    }

    /// Posts the messages from the `first` on. Where nothing waits for the client, they are written here and now: returns how
    /// many bytes that were.
    pub fn enqueue_all(&self, batch: &Batch, first: usize) -> usize {
        let written =
            self.writer.get().map_or(Written::Nothing, |writer| writer.borrow_mut().try_write_batch(batch, first));
        match written {
            Written::All(now, bytes) => {
                self.liveness.note_data(now);
                bytes
            }
            Written::Partly(now, bytes) => {
                self.liveness.note_data(now);
                self.wake();
                bytes
            }
            Written::Nothing => {
                for message in batch.messages(first) {
                    self.enqueue(message.clone());
                }
                0
            }
        }
    }

    /// In which encoding the connection sends what many get.
    pub fn encoding(&self) -> Option<Encoding> {
        self.writer.get().and_then(|writer| writer.borrow().encoding().0)
    }

    /// Brings a message into the connection's encoding, by turns with whatever else the thread has to do.
    pub async fn prepare(&self, message: &Broadcast) {
        let Some(writer) = self.writer.get() else { return };
        let (encoding, shared) = {
            let writer = writer.borrow();
            let (encoding, shared) = writer.encoding();
            (encoding, shared.clone())
        };
        if let Some(encoding) = encoding {
            message.prepare(encoding, &shared).await;
        }
    }

    /// What was posted and not taken.
    pub fn take_mailbox(&self) -> Vec<Posted> {
        self.mailbox.take().map(|mailbox| *mailbox).unwrap_or_default()
    }

    /// Takes it back: what could not be sent yet, before anything else is posted.
    pub fn put_back(&self, posted: Vec<Posted>) {
        self.mailbox.set(Some(posted).filter(|posted| !posted.is_empty()).map(Box::new));
    }

    /// Bytes of what was posted and not taken.
    pub fn mailbox_bytes(&self) -> usize {
        let mailbox = self.mailbox.take();
        let bytes = mailbox.iter().flat_map(|mailbox| mailbox.iter()).map(|(message, _)| message.payload().len()).sum();
        self.mailbox.set(mailbox);
        bytes
    }

    /// The clock says `now`, and was to look here at `tick`: does what is due. Returns when to look again, if at all.
    pub fn look(&self, tick: u32, now: u32) -> Option<u32> {
        let Look { next, is_idle, wakes } = self.liveness.look(tick, now);
        if is_idle {
            self.close(close(CloseCode::Away, IDLE));
        } else if wakes {
            self.wake();
        }
        next
    }

    /// The connection's task waits: whoever changes something here wakes it.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.take();
        match &mut waker {
            Some(known) => known.clone_from(cx.waker()),
            None => waker = Some(cx.waker().clone()),
        }
        self.waker.set(waker);
    }

    pub fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = &waker {
            waker.wake_by_ref();
        }
        self.waker.set(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_to_close_counts() {
        let handle = ConnectionHandle::new(1, &Limits::default(), 100);
        handle.close(close(CloseCode::Away, "first"));
        handle.close(close(CloseCode::Error, "second"));
        assert!(handle.close_asked());
        assert_eq!(handle.take_close().map(|f| f.code), Some(CloseCode::Away));
        assert!(handle.take_close().is_none());
    }
}
