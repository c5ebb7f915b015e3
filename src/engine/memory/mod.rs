//! What sockets hold in the engine, and the bound on it: messages that are not complete, windows of compressors, what has
//! not been sent, bodies of publishes under way. What waits for many counts once. What channels keep does not count.
//!
//! A thread adds up what its sockets hold, and is the only one to write its sum; whoever asks adds up the threads'. A socket
//! that holds nothing, as most do, has no part in it.
//!
//! When the bound is near, the client that holds most pays: of its sockets those that have got on least are not read any more
//! ([`Memory::NEAR`]), and closed when that does not suffice ([`Memory::SHORT`]). What is still held above the bound is
//! dropped without a word.

mod bound;
mod holder;
mod shared;

pub use bound::Bound;
pub(crate) use holder::{Demand, Held, Holding};
use holder::{Holder, UNIT};
pub(crate) use shared::{Share, SharedBytes};

use super::thread::ThreadCommand;
use crate::wire::{CloseCode, CloseFrame, close};
use log::warn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// The account of an engine.
#[derive(Debug)]
pub struct Memory {
    /// [`usize::MAX`]: none.
    limit: AtomicUsize,
    threads: Box<[ThreadAccount]>,
    /// What waits for many, and bodies of publishes.
    shared: AtomicUsize,
    /// What sockets have given back since [`Memory::freed`] was last told.
    released: AtomicUsize,
    much_is_released: Notify,
    relief: Mutex<Relief>,
}

/// A thread's part of it.
#[derive(Debug, Default)]
struct ThreadAccount {
    held: AtomicUsize,
    /// Those that hold something, by the numbers of their sessions.
    holders: Mutex<HashMap<u64, Arc<Holder>>>,
    commands: OnceLock<mpsc::WeakUnboundedSender<ThreadCommand>>,
}

/// What was done about a want of memory, and when it was said.
#[derive(Debug, Default)]
struct Relief {
    looked: Option<(Instant, usize)>,
    /// Since when the bound is near.
    near: Option<Instant>,
    closed: usize,
    said: Option<Instant>,
}

/// A socket that might pay: its thread, its session, and what it holds.
type Candidate = (usize, u64, Arc<Holder>);

/// What a socket that is to close has for what is unsent, and for its Close, when the bound is reached; in units of [`UNIT`].
const LAST_WORDS: u32 = 4;

/// The time that [`Memory::now`] counts from.
fn begin() -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now)
}

impl Memory {
    /// From this eighth of the bound on sockets are not read any more,
    const NEAR: usize = 7;
    /// and from this sixteenth on, or when that has taken as long, they are closed,
    const SHORT: usize = 15;
    const PATIENCE: Duration = Duration::from_secs(3);
    /// until it is less than this fourth.
    const ROOM: usize = 3;
    /// How often it is looked for somebody to pay, unless what is held has grown much.
    const LOOK: Duration = Duration::from_millis(50);
    /// How often the log has a line.
    const SAY: Duration = Duration::from_secs(60);
    /// Bytes that were given back, from which on the system may want them.
    const MUCH: usize = 16 << 20;

    /// Of an engine with so many threads.
    pub fn new(threads: usize, bound: Bound) -> Arc<Memory> {
        begin();
        Arc::new(Memory {
            limit: AtomicUsize::new(bound.bytes()),
            threads: (0..threads).map(|_| ThreadAccount::default()).collect(),
            shared: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            much_is_released: Notify::new(),
            relief: Mutex::default(),
        })
    }

    /// From now on this is the bound.
    pub fn set_bound(&self, bound: Bound) {
        self.limit.store(bound.bytes(), Ordering::Relaxed);
    }

    /// How a thread is told what its sockets are to do.
    pub fn connect(&self, thread: usize, commands: mpsc::WeakUnboundedSender<ThreadCommand>) {
        let _ = self.threads[thread].commands.set(commands);
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        let own: usize = self.threads.iter().map(|thread| thread.held.load(Ordering::Relaxed)).sum();
        own + self.shared.load(Ordering::Relaxed)
    }

    /// Sockets that have not taken all that was sent.
    pub fn slow(&self) -> usize {
        let is_slow =
            |holder: &&Arc<Holder>| holder.unsent.load(Ordering::Relaxed) + holder.share.load(Ordering::Relaxed) > 0;
        (0..self.threads.len()).map(|thread| self.holders(thread).values().filter(is_slow).count()).sum()
    }

    /// The bound, in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sockets that were asked to close.
    #[cfg(test)]
    pub fn closed(&self) -> usize {
        self.relief.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    fn is_full(&self) -> bool {
        let limit = self.limit();
        limit != usize::MAX && self.held() >= limit
    }

    fn has_room(&self) -> bool {
        self.held() < self.limit() / 4 * Self::ROOM
    }

    /// Room for something that nobody can be asked for later. `None`: there is none.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        (self.held().saturating_add(bytes) <= self.limit()).then(|| SharedBytes::new(self, bytes).wait())
    }

    /// The socket of this session, of this thread and client, holds something.
    pub fn enter(self: &Arc<Self>, thread: usize, session: u64, client: &str) -> Holding {
        let holder = Arc::new(Holder {
            client: client.into(),
            unfinished: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            share: AtomicUsize::new(0),
            demand: AtomicU8::new(0),
            moved: AtomicU32::new(0),
            counted: AtomicU32::new(self.now()),
            paused: AtomicU32::new(0),
        });
        self.holders(thread).insert(session, holder.clone());
        Holding { memory: self.clone(), thread, session, holder }
    }

    /// Completes when so much was given back that the system may want it.
    pub async fn freed(&self) {
        self.much_is_released.notified().await;
        self.released.store(0, Ordering::Relaxed);
    }

    fn now(&self) -> u32 {
        (begin().elapsed().as_millis() / UNIT.as_millis()) as u32
    }

    fn holders(&self, thread: usize) -> MutexGuard<'_, HashMap<u64, Arc<Holder>>> {
        self.threads[thread].holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, thread: usize, before: usize, after: usize) {
        let account = &self.threads[thread].held;
        // Nobody else writes it.
        account.store(account.load(Ordering::Relaxed) + after - before, Ordering::Relaxed);
        if after < before {
            let released = self.released.fetch_add(before - after, Ordering::Relaxed);
            if released < Self::MUCH && released + (before - after) >= Self::MUCH {
                self.much_is_released.notify_one();
            }
        } else {
            self.relieve();
        }
    }

    /// Something has grown: sees to it that it does not grow too much.
    pub fn relieve(&self) {
        self.look_from(self.limit() / 8 * Self::NEAR);
    }

    /// A socket is not read for want of room: somebody is to make some, though nothing grows any more.
    pub fn make_room(&self) {
        self.look_from(self.limit() / 4 * Self::ROOM);
    }

    /// Looks for somebody to pay, where so much is held.
    fn look_from(&self, bytes: usize) {
        let limit = self.limit();
        if limit == usize::MAX {
            return;
        }
        let held = self.held();
        if held < bytes {
            return;
        }
        // Another thread is at it.
        let Ok(mut relief) = self.relief.try_lock() else { return };
        let now = Instant::now();
        if relief.looked.is_some_and(|(then, before)| now < then + Self::LOOK && held < before + limit / 64) {
            return;
        }
        // Sockets that are not read look each quarter of a second.
        if relief.looked.is_none_or(|(then, _)| now > then + Duration::from_secs(1)) {
            relief.near = Some(now);
        }
        relief.looked = Some((now, held));
        self.choose(&mut relief, held, limit, now);
    }

    fn choose(&self, relief: &mut Relief, held: usize, limit: usize, now: Instant) {
        let mut clients: HashMap<Box<str>, Vec<Candidate>> = HashMap::new();
        let mut going = 0;
        let tick = self.now();
        for thread in 0..self.threads.len() {
            for (session, holder) in &*self.holders(thread) {
                if holder.demand() >= Demand::Close {
                    going += holder.held().own();
                    let asked = holder.counted.load(Ordering::Relaxed);
                    if held >= limit && tick.saturating_sub(asked) >= LAST_WORDS {
                        holder.ask(Demand::Drop, tick);
                        self.tell(thread, *session, &close(CloseCode::Again, OUT_OF_MEMORY));
                    }
                } else {
                    clients.entry(holder.client.clone()).or_default().push((thread, *session, holder.clone()));
                }
            }
        }
        let is_long = relief.near.is_some_and(|since| now >= since + Self::PATIENCE);
        let demand = if is_long || held >= limit / 16 * Self::SHORT { Demand::Close } else { Demand::Pause };
        let size = |holder: &Holder| holder.held().own() + holder.held().share;
        let mut clients: Vec<_> = clients
            .into_iter()
            .map(|(client, mut sockets)| {
                // The last is the first to go: it has got on least, and of several such holds most.
                sockets.sort_by_cached_key(|(_, _, holder)| (holder.moved(tick), std::cmp::Reverse(size(holder))));
                sockets.reverse();
                let sum: usize = sockets.iter().map(|(_, _, holder)| size(holder)).sum();
                (sum, client, sockets)
            })
            .collect();
        while held.saturating_sub(going) >= limit / 4 * Self::ROOM {
            let Some((sum, client, sockets)) = clients.iter_mut().max_by_key(|(sum, ..)| *sum) else { break };
            let Some((thread, session, holder)) = sockets.pop() else { break };
            let (bytes, Held { unfinished, unsent, share }) = (size(&holder), holder.held());
            going += holder.held().own();
            *sum -= bytes.min(*sum);
            holder.ask(demand, tick);
            if demand == Demand::Close {
                let code = if unfinished >= unsent + share { CloseCode::Size } else { CloseCode::Again };
                self.tell(thread, session, &close(code, OUT_OF_MEMORY));
                relief.closed += 1;
                if relief.said.is_none_or(|then| now >= then + Self::SAY) {
                    relief.said = Some(now);
                    warn!(
                        "WS0176: WebSocketMemory: {held} of {limit} bytes are held; closing sockets that get on least, of \
                         {client} which holds most: {} in all until now",
                        relief.closed
                    );
                }
            }
        }
        // Those that were not read until now, and have got on better than others since.
        for (_, _, holder) in clients.iter().flat_map(|(.., sockets)| sockets) {
            if holder.demand() == Demand::Pause {
                holder.ask(Demand::None, tick);
            }
        }
    }

    fn tell(&self, thread: usize, session: u64, frame: &CloseFrame) {
        if let Some(commands) = self.threads[thread].commands.get().and_then(mpsc::WeakUnboundedSender::upgrade) {
            // One that has ended holds nothing.
            let _ = commands.send(ThreadCommand::Close(session, frame.clone()));
        }
    }
}

/// The reason for a socket that is closed.
const OUT_OF_MEMORY: &str = "server is short of memory";

#[cfg(test)]
mod tests {
    use super::holder::HALF_LIFE;
    use super::*;

    const MIB: usize = 1 << 20;

    fn memory(mib: u64) -> Arc<Memory> {
        Memory::new(2, Bound::Bytes(mib << 20))
    }

    fn unfinished(bytes: usize) -> Held {
        Held { unfinished: bytes, ..Held::default() }
    }

    #[test]
    fn the_sum_is_exact() {
        let memory = memory(1000);
        let holdings: Vec<Holding> = (0..100).map(|n| memory.enter(n as usize % 2, n, "client")).collect();
        for (n, holding) in holdings.iter().enumerate() {
            holding.update(unfinished(n * 1000));
            holding.update(Held { unfinished: n, unsent: 2 * n, share: 5000 });
        }
        assert_eq!(memory.held(), 3 * 99 * 100 / 2, "what is shared counts where it is");
        let common = SharedBytes::new(&memory, 7777);
        let (first, second) = (common.wait(), common.wait());
        assert_eq!((memory.held(), first.count()), (3 * 99 * 100 / 2 + 7777, 2));
        drop(first);
        assert_eq!((memory.held(), second.count()), (3 * 99 * 100 / 2 + 7777, 1));
        drop((second, common, holdings));
        assert_eq!(memory.held(), 0);
        assert!(memory.holders(0).is_empty() && memory.holders(1).is_empty());
    }

    /// What is held stays between the eighths at which sockets are read again and are not read any more.
    #[test]
    fn who_is_not_read_does_not_wait_for_ever() {
        let memory = memory(160);
        let (deaf, waiting) = (memory.enter(0, 1, "deaf"), memory.enter(1, 2, "waiting"));
        deaf.update(Held { unsent: 120 * MIB, ..Held::default() });
        waiting.update(unfinished(24 * MIB));
        assert_eq!(deaf.demand(), Demand::Pause);
        deaf.update(Held { unsent: 110 * MIB, ..Held::default() });
        let begin = Instant::now();
        while deaf.demand() != Demand::Close {
            assert!(begin.elapsed() < 10 * Memory::PATIENCE, "nobody makes room");
            std::thread::sleep(Duration::from_millis(5));
            memory.make_room();
        }
        drop(deaf);
        assert_eq!(waiting.demand(), Demand::None);
    }

    #[test]
    fn the_client_that_holds_most_pays() {
        let memory = memory(160);
        let large = memory.enter(0, 1000, "large");
        large.update(unfinished(40 * MIB));
        let small: Vec<Holding> = (0..120).map(|n| memory.enter(1, n, "many")).collect();
        for holding in &small {
            holding.update(unfinished(MIB));
        }
        let count = |demand| small.iter().filter(|holding| holding.holder.demand() == demand).count();
        // Near the bound they are not read any more, and above that they close: as many as it takes, and no more.
        assert_eq!(memory.held(), 160 * MIB);
        assert!((40..=60).contains(&count(Demand::Close)), "{}", count(Demand::Close));
        assert_eq!(large.holder.demand(), Demand::None);
        assert_eq!(large.demand(), Demand::Pause, "there is nothing that it could get");
        drop(small);
        assert_eq!(large.demand(), Demand::None);
        drop(large);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn who_gets_on_least_is_the_first() {
        let memory = memory(16);
        let sockets: Vec<Holding> = (0..14).map(|n| memory.enter(0, n, "client")).collect();
        for (n, holding) in sockets.iter().enumerate() {
            // All hold as much; the later ones have moved more on the way.
            for _ in 0..n {
                holding.update(unfinished(MIB));
                holding.update(unfinished(MIB / 2));
            }
            holding.update(unfinished(MIB / 10 * 9));
        }
        let paused = || -> Vec<usize> {
            let is_paused = |n: &usize| sockets[*n].holder.demand() == Demand::Pause;
            (0..sockets.len()).filter(is_paused).collect()
        };
        assert!(paused().is_empty());
        sockets[13].update(unfinished(3 * MIB));
        assert_eq!(paused(), [0, 1, 2]);
        // Whoever is not read cannot get on, and that is not held against it.
        let holder = &sockets[0].holder;
        let (now, moved) = (memory.now(), holder.moved(memory.now()));
        assert_eq!(holder.moved(now + 100 * HALF_LIFE), moved);
        holder.ask(Demand::None, now + 100 * HALF_LIFE);
        assert_eq!(holder.moved(now + 100 * HALF_LIFE), moved);
        assert!(holder.moved(now + 102 * HALF_LIFE) < moved);
        // When there is room again they go on.
        sockets[13].update(unfinished(0));
        assert_eq!(sockets[2].demand(), Demand::None);
    }

    #[test]
    fn without_a_bound_nobody_is_asked_for_anything() {
        let memory = Memory::new(1, Bound::Off);
        let holding = memory.enter(0, 1, "client");
        holding.update(unfinished(usize::MAX / 2));
        assert_eq!(holding.demand(), Demand::None);
    }

    #[test]
    fn moving_is_forgotten_in_time() {
        let memory = memory(16);
        let holder = memory.enter(0, 1, "client").holder.clone();
        let begin = holder.counted.load(Ordering::Relaxed);
        holder.note_moved(1000, begin);
        assert_eq!(holder.moved(begin + HALF_LIFE - 1), 1000);
        assert_eq!(holder.moved(begin + HALF_LIFE), 500);
        holder.note_moved(100, begin + HALF_LIFE + 1);
        assert_eq!(holder.moved(begin + HALF_LIFE + 1), 600);
        assert_eq!(holder.moved(begin + 2 * HALF_LIFE), 300);
        assert_eq!(holder.moved(begin + 40 * HALF_LIFE), 0);
    }

    #[test]
    fn bodies_have_to_fit() {
        let memory = memory(16);
        let first = memory.take(10 * MIB);
        assert!(first.is_some() && memory.take(10 * MIB).is_none());
        drop(first);
        assert!(memory.take(10 * MIB).is_some());
        assert_eq!(memory.held(), 0);
        memory.set_bound(Bound::Off);
        assert!(memory.take(usize::MAX).is_some());
    }
}
