//! The bound on what is asked of applications at a time, `WebSocketHttpMax`: each request takes a worker of httpd's. Whoever comes
//! first is first; a session has one request at a time, so that it is fair by session.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests at a time, where nothing is configured.
pub const DEFAULT_MAX: u32 = 32;

/// Rechecks at a time, of those. They come many at once, and nobody waits for them: messages are not to wait behind them.
const RECHECKS: usize = 8;

static COMMON: LazyLock<RequestQueue> = LazyLock::new(|| RequestQueue::new(DEFAULT_MAX));

/// What waits to be asked, and what is being asked.
#[derive(Debug)]
pub struct RequestQueue {
    turns: Arc<Semaphore>,
    recheck_turns: Arc<Semaphore>,
    bound: Arc<Mutex<Bound>>,
}

#[derive(Debug)]
struct Bound {
    max: u32,
    /// Turns that end without another one, since the bound has become smaller.
    debt: u32,
}

/// A request's turn, until dropped.
#[derive(Debug)]
pub struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    _recheck_permit: Option<OwnedSemaphorePermit>,
    bound: Arc<Mutex<Bound>>,
}

impl RequestQueue {
    /// For so many at a time.
    pub fn new(max: u32) -> RequestQueue {
        let turns = Arc::new(Semaphore::new(max as usize));
        let recheck_turns = Arc::new(Semaphore::new(RECHECKS));
        RequestQueue { turns, recheck_turns, bound: Arc::new(Mutex::new(Bound { max, debt: 0 })) }
    }

    /// The one of all sessions of the process.
    pub fn common() -> &'static RequestQueue {
        &COMMON
    }

    /// Waits for a turn. Who gives up waiting has lost nothing but the place.
    pub async fn turn(&self) -> Turn {
        // It is never closed.
        let permit = self.turns.clone().acquire_owned().await.ok();
        Turn { permit, _recheck_permit: None, bound: self.bound.clone() }
    }

    /// The same for a recheck.
    pub async fn recheck_turn(&self) -> Turn {
        let recheck_permit = self.recheck_turns.clone().acquire_owned().await.ok();
        let mut turn = self.turn().await;
        turn._recheck_permit = recheck_permit;
        turn
    }

    /// From now on so many at a time.
    pub fn set_max(&self, max: u32) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if max >= bound.max {
            let more = max - bound.max;
            let forgiven = more.min(bound.debt);
            bound.debt -= forgiven;
            self.turns.add_permits((more - forgiven) as usize);
        } else {
            let fewer = bound.max - max;
            bound.debt += fewer - self.turns.forget_permits(fewer as usize) as u32;
        }
        bound.max = max;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if bound.debt > 0
            && let Some(permit) = self.permit.take()
        {
            bound.debt -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// How many turns there are.
    fn count(queue: &RequestQueue) -> usize {
        let mut turns = Vec::new();
        while let Some(turn) = now(pin!(queue.turn())) {
            turns.push(turn);
        }
        turns.len()
    }

    #[test]
    fn whoever_comes_first_is_first() {
        let queue = RequestQueue::new(1);
        let held = now(pin!(queue.turn()));
        let (mut first, mut second) = (pin!(queue.turn()), pin!(queue.turn()));
        assert!(now(first.as_mut()).is_none() && now(second.as_mut()).is_none());
        drop(held);
        assert!(now(second.as_mut()).is_none());
        let first = now(first.as_mut());
        assert!(first.is_some() && now(second.as_mut()).is_none());
        drop(first);
        assert!(now(second.as_mut()).is_some());
    }

    #[test]
    fn rechecks_leave_room() {
        let queue = RequestQueue::new(DEFAULT_MAX);
        let mut rechecks = Vec::new();
        while let Some(turn) = now(pin!(queue.recheck_turn())) {
            rechecks.push(turn);
        }
        assert_eq!((rechecks.len(), count(&queue)), (RECHECKS, DEFAULT_MAX as usize - RECHECKS));
        rechecks.pop();
        assert!(now(pin!(queue.recheck_turn())).is_some());
    }

    #[test]
    fn the_bound_changes_while_requests_are_on_their_way() {
        let queue = RequestQueue::new(3);
        let held: Vec<_> = (0..3).map(|_| now(pin!(queue.turn()))).collect();
        queue.set_max(1);
        queue.set_max(2);
        assert_eq!(count(&queue), 0);
        drop(held);
        assert_eq!(count(&queue), 2);
        queue.set_max(5);
        assert_eq!(count(&queue), 5);
        queue.set_max(1);
        assert_eq!(count(&queue), 1);
    }
}
