//! What is on its way to the subscribers of one thread, and how much of it: publishers wait while it is too much.

use crate::channels::Payload;
use crate::channels::publication::Publication;
use crate::wire::CloseFrame;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of messages that may be on their way to a thread's subscribers before publishers have to wait.
const ENOUGH: usize = 8 << 20;

/// What goes to the subscribers of a thread.
#[derive(Debug, Clone)]
pub enum Delivery {
    Publication(Arc<Publication>),
    Presence {
        channel: Arc<str>,
        member: Arc<str>,
        joined: bool,
        /// Of this join or leave, among all.
        number: u64,
    },
    /// The connections of a channel are to close.
    Close {
        channel: Arc<str>,
        frame: CloseFrame,
    },
}

impl Delivery {
    pub fn channel(&self) -> &Arc<str> {
        match self {
            Delivery::Publication(publication) => publication.channel(),
            Delivery::Presence { channel, .. } | Delivery::Close { channel, .. } => channel,
        }
    }

    fn size(&self) -> usize {
        match self {
            Delivery::Publication(publication) => publication.size(),
            Delivery::Presence { .. } | Delivery::Close { .. } => 0,
        }
    }
}

#[derive(Debug, Default)]
pub struct Load {
    bytes: AtomicUsize,
    room: Notify,
}

impl Load {
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= ENOUGH
    }

    fn take_off(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= ENOUGH && before - bytes < ENOUGH {
            self.room.notify_waiters();
        }
    }

    pub async fn room(&self) {
        loop {
            let room = self.room.notified();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }
}

/// What a thread is woken for.
#[derive(Debug)]
enum Parcel {
    One(Delivery),
    Many(Vec<Delivery>),
}

#[derive(Debug)]
pub struct Queue {
    sender: UnboundedSender<Parcel>,
    load: Arc<Load>,
}

impl Queue {
    pub fn new() -> (Queue, Deliveries) {
        let (sender, receiver) = unbounded_channel();
        let load = Arc::<Load>::default();
        (Queue { sender, load: load.clone() }, Deliveries { receiver, opened: Vec::new().into_iter(), load })
    }

    pub fn push(&self, delivery: Delivery) {
        self.send(delivery.size(), Parcel::One(delivery));
    }

    /// In their order, and the thread is woken once.
    pub fn push_all(&self, deliveries: Vec<Delivery>) {
        self.send(deliveries.iter().map(Delivery::size).sum(), Parcel::Many(deliveries));
    }

    fn send(&self, bytes: usize, parcel: Parcel) {
        self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.sender.send(parcel).is_err() {
            // A thread that has ended has no subscribers any more.
            self.load.take_off(bytes);
        }
    }

    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

/// What comes for the subscribers of a thread.
#[derive(Debug)]
pub struct Deliveries {
    receiver: UnboundedReceiver<Parcel>,
    /// What is left of the last parcel.
    opened: vec::IntoIter<Delivery>,
    load: Arc<Load>,
}

impl Deliveries {
    /// The next one; `None` when the hub is gone.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(next) = self.opened.next() {
                return Some(next);
            }
            let parcel = self.receiver.recv().await?;
            if let Some(one) = self.open(parcel) {
                return Some(one);
            }
        }
    }

    pub fn try_next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(next) = self.opened.next() {
                return Some(next);
            }
            let parcel = self.receiver.try_recv().ok()?;
            if let Some(one) = self.open(parcel) {
                return Some(one);
            }
        }
    }

    /// The only one that is in it; others are the next.
    fn open(&mut self, parcel: Parcel) -> Option<Delivery> {
        match parcel {
            Parcel::One(delivery) => Some(delivery),
            Parcel::Many(deliveries) => {
                self.opened = deliveries.into_iter();
                None
            }
        }
    }

    /// Messages of so many bytes, as [`Payload::size`] counts them, are with their subscribers.
    pub fn note_delivered(&self, bytes: usize) {
        self.load.take_off(bytes);
    }
}

impl Drop for Deliveries {
    /// Nobody is to wait for a thread that has ended.
    fn drop(&mut self) {
        self.receiver.close();
        while let Some(delivery) = self.try_next() {
            self.load.take_off(delivery.size());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::Id;
    use crate::channels::publication::{OVERHEAD, share};
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn delivery(bytes: usize) -> Delivery {
        let message = Arc::new(share(false, vec![0; bytes].into()).unwrap());
        let id = Id { epoch: "e".into(), offset: 1 };
        Delivery::Publication(Arc::new(Publication::new("a".into(), id, message, None)))
    }

    #[test]
    fn publishers_wait_for_a_thread_that_has_enough() {
        let (queue, mut deliveries) = Queue::new();
        let load = queue.load().clone();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(load.room()).poll(&mut cx).is_ready());
        queue.push(delivery(ENOUGH));
        queue.push(delivery(1));
        let mut room = pin!(load.room());
        assert!(room.as_mut().poll(&mut cx).is_pending());
        let first = deliveries.try_next().unwrap();
        deliveries.note_delivered(first.size());
        assert!(room.as_mut().poll(&mut cx).is_ready());
        assert!(!load.is_full());
        queue.push(delivery(ENOUGH));
        let mut room = pin!(load.room());
        assert!(room.as_mut().poll(&mut cx).is_pending());
        drop(deliveries);
        assert!(room.as_mut().poll(&mut cx).is_ready());
        queue.push(delivery(ENOUGH));
        assert!(!load.is_full(), "nobody is there");
    }

    #[test]
    fn what_is_pushed_together_comes_in_its_order() {
        let (queue, mut deliveries) = Queue::new();
        queue.push(delivery(1));
        queue.push_all((2..5).map(delivery).collect());
        queue.push_all(Vec::new());
        queue.push(delivery(5));
        let sizes: Vec<usize> =
            std::iter::from_fn(|| deliveries.try_next()).map(|delivery| delivery.size() - OVERHEAD).collect();
        assert_eq!(sizes, [1, 2, 3, 4, 5]);
        queue.push_all((0..3).map(|_| delivery(ENOUGH)).collect());
        assert!(queue.load().is_full());
        drop(deliveries.try_next());
        deliveries.note_delivered(5 * OVERHEAD + 15 + ENOUGH + OVERHEAD);
        drop(deliveries);
        assert!(!queue.load().is_full(), "nobody waits for what is left of a parcel");
    }
}
