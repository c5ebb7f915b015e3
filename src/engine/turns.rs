//! Long work goes on in slices. Between two looks at its sockets a thread does one, whosever it is, so that nobody waits for
//! more than that, however many there are that have much to do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// Those of a thread that have long work, in the order in which it is their turn.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: RefCell<VecDeque<Rc<Seat>>>,
    /// Somebody calls them.
    is_open: Cell<bool>,
}

#[derive(Debug)]
struct Seat {
    place: Cell<Place>,
    waker: RefCell<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Away,
    Waiting,
    /// Until the thread has looked at its sockets: who has something else to do keeps nobody waiting.
    Called,
}

/// Long work's place among that of others. Whose turn it is has some slices, and between two of them everybody else of the thread
/// who has no long work has theirs. Then comes whoever waits for it: so much is not begun at once.
#[derive(Debug)]
pub struct Turn {
    seat: Rc<Seat>,
    /// Slices that it has before others.
    left: usize,
}

impl Default for Turn {
    fn default() -> Self {
        let seat = Seat { place: Cell::new(Place::Away), waker: RefCell::new(Waker::noop().clone()) };
        Turn { seat: Rc::new(seat), left: 0 }
    }
}

impl Turn {
    /// Slices that follow one another.
    const SLICES: usize = 16;

    /// Ready when a slice is to be done. To be called in a task of the thread.
    pub fn poll(&mut self, turns: &Rc<Turns>, cx: &mut Context<'_>) -> Poll<()> {
        let place = self.seat.place.get();
        if place == Place::Called {
            self.seat.place.set(Place::Away);
            return Poll::Ready(());
        }
        self.seat.waker.borrow_mut().clone_from(cx.waker());
        if place == Place::Away {
            self.seat.place.set(Place::Waiting);
            let mut waiting = turns.waiting.borrow_mut();
            if self.left == 0 {
                self.left = Self::SLICES;
                waiting.push_back(self.seat.clone());
            } else {
                waiting.push_front(self.seat.clone());
            }
            self.left -= 1;
            drop(waiting);
            if !turns.is_open.replace(true) {
                tokio::task::spawn_local(turns.clone().call());
            }
        }
        Poll::Pending
    }
}

impl Turns {
    /// Calls one after the other, as long as somebody waits.
    async fn call(self: Rc<Self>) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(seat) = next else {
                self.is_open.set(false);
                return;
            };
            // Who has gone has left the seat.
            if Rc::strong_count(&seat) > 1 {
                seat.place.set(Place::Called);
                seat.waker.borrow().wake_by_ref();
                tokio::task::yield_now().await;
                if seat.place.get() == Place::Called {
                    seat.place.set(Place::Away);
                }
            }
        }
    }

    /// Has `step` do its slices, until it says that it was the last.
    pub async fn take(self: &Rc<Self>, mut step: impl FnMut() -> bool) {
        let mut turn = Turn::default();
        std::future::poll_fn(|cx| {
            loop {
                ready!(turn.poll(self, cx));
                if step() {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    /// Of three that have much to do, one does a slice between two turns of a fourth that has little; and all get on.
    #[tokio::test]
    async fn one_slice_is_done_at_a_time() {
        const WORK: usize = 5 * Turn::SLICES;
        let (turns, slices) = (Rc::new(Turns::default()), Rc::new(RefCell::new(Vec::new())));
        let tasks = LocalSet::new();
        for number in 0..3 {
            let (turns, slices) = (turns.clone(), slices.clone());
            tasks.spawn_local(async move {
                let mut left = WORK;
                let step = || {
                    slices.borrow_mut().push(number);
                    left -= 1;
                    left == 0
                };
                turns.take(step).await;
            });
        }
        let most = Rc::new(Cell::new(0));
        let (seen, largest) = (slices.clone(), most.clone());
        tasks.spawn_local(async move {
            let mut before = 0;
            while before < 3 * WORK {
                yield_now().await;
                let now = seen.borrow().len();
                largest.set(largest.get().max(now - before));
                before = now;
            }
        });
        tasks.await;
        assert_eq!(most.get(), 1);
        let slices = slices.borrow();
        let rounds: Vec<&[i32]> = slices.chunks(Turn::SLICES).collect();
        let whose: Vec<i32> = rounds.iter().map(|round| round[0]).collect();
        assert!(rounds.iter().zip(&whose).all(|(round, whose)| round.iter().all(|one| one == whose)));
        assert_eq!(whose, (0..5).flat_map(|_| 0..3).collect::<Vec<_>>());
    }

    /// Neither who has gone, nor who waits for something else.
    #[tokio::test]
    async fn who_does_not_come_is_not_waited_for() {
        let turns = Rc::new(Turns::default());
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                let endless = |turns: Rc<Turns>| async move { turns.take(|| false).await };
                let (first, second) = (spawn_local(endless(turns.clone())), spawn_local(endless(turns.clone())));
                let absent = turns.clone();
                let absent = spawn_local(async move {
                    let mut turn = Turn::default();
                    std::future::poll_fn(|cx| turn.poll(&absent, cx)).await;
                    // It asks for the next, and does not look.
                    std::future::poll_fn(|cx| Poll::Ready(turn.poll(&absent, cx))).await.is_pending();
                    std::future::pending::<()>().await;
                });
                for _ in 0..3 * Turn::SLICES {
                    yield_now().await;
                }
                second.abort();
                first.abort();
                turns.take(|| true).await;
                absent.abort();
            })
            .await;
    }
}
