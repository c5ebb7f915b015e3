//! What sockets hold in the engine, and the bound on it: messages that are not complete, windows of compressors, what has
//! not been sent, bodies of publishes under way. What waits for many counts once. What channels keep does not count.
//!
//! A thread adds up what its sockets hold, and is the only one to write its sum; whoever asks adds up the threads'. A socket
//! that holds nothing, as most do, has no part in it.
//!
//! When the bound is near, the client that holds most pays: of its sockets those that have got on least are not read any more
//! ([`Memory::NEAR`]), and closed when that does not suffice ([`Memory::SHORT`]). What is still held above the bound is
//! dropped without a word.

use super::thread::Command;
use crate::wire::{CloseCode, CloseFrame, close};
use log::warn;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// The bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// A quarter of what the machine has, or its control group may have.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
    /// None.
    Off,
}

impl Bound {
    /// In bytes; [`usize::MAX`]: none.
    fn bytes(self) -> usize {
        let bytes = match self {
            Bound::Share => available(Path::new("/")).map(|bytes| bytes / 4),
            Bound::Bytes(bytes) => Some(bytes),
            Bound::Off => None,
        };
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }
}

/// Bytes of memory that this process may use: the machine's, or the least that a control group (v1 or v2) on its path may
/// have. `None`: nobody says.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let total = read("proc/meminfo").and_then(|info| {
        let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        // hierarchy:controllers:path (cgroups(7)).
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mounts, file): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => (&[], ""),
        };
        // Where a container sees its own group as the root, the upper part of the path is not there.
        let levels = Path::new(path.trim_start_matches('/')).ancestors();
        let files =
            levels.flat_map(move |level| mounts.iter().map(move |mount| Path::new(mount).join(level).join(file)));
        files.filter_map(|file| read(file.to_str()?)?.trim().parse::<u64>().ok()).collect::<Vec<_>>()
    });
    limits.chain(total).min()
}

/// The account of an engine.
#[derive(Debug)]
pub struct Memory {
    /// [`usize::MAX`]: none.
    limit: AtomicUsize,
    threads: Box<[Account]>,
    /// What waits for many, and bodies of publishes.
    shared: AtomicUsize,
    /// What sockets have given back since [`Memory::freed`] was last told.
    released: AtomicUsize,
    much_is_released: Notify,
    relief: Mutex<Relief>,
}

/// A thread's part of it.
#[derive(Debug, Default)]
struct Account {
    held: AtomicUsize,
    /// Those that hold something, by the numbers of their sessions.
    holders: Mutex<HashMap<u64, Arc<Holder>>>,
    commands: OnceLock<mpsc::WeakUnboundedSender<Command>>,
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

/// What is asked of a socket that holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Demand {
    /// Nothing.
    None,
    /// It is not to be read for now.
    Pause,
    /// It closes, and nothing that it has begun to say is of use.
    Close,
    /// It is to end now, whatever is unsent.
    Drop,
}

/// A socket that holds something.
#[derive(Debug)]
struct Holder {
    client: Box<str>,
    /// What has come of a message that is not complete, and windows.
    unfinished: AtomicUsize,
    /// What has not been sent.
    unsent: AtomicUsize,
    /// Its part of what waits for several.
    share: AtomicUsize,
    demand: AtomicU8,
    /// How it gets on: bytes, of which half are forgotten each [`HALF_LIFE`], as of `counted`.
    moved: AtomicU32,
    counted: AtomicU32,
    /// Since when it is not read, which is not to be held against it; 0: it is.
    paused: AtomicU32,
}

/// A socket that might pay: its thread, its session, and what it holds.
type Candidate = (usize, u64, Arc<Holder>);

/// In units of [`UNIT`].
const HALF_LIFE: u32 = 2;
/// What a socket that is to close has for what is unsent, and for its Close, when the bound is reached; in units of [`UNIT`].
const LAST_WORDS: u32 = 4;
/// The unit in which it is noted when something moved.
const UNIT: Duration = Duration::from_millis(250);

/// What a socket holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// What has come of a message that is not complete, and windows.
    pub unfinished: usize,
    /// What has not been sent, and waits for no other.
    pub unsent: usize,
    /// Its part of what waits for several.
    pub share: usize,
}

impl Held {
    fn own(&self) -> usize {
        self.unfinished + self.unsent
    }
}

impl Holder {
    fn held(&self) -> Held {
        Held {
            unfinished: self.unfinished.load(Ordering::Relaxed),
            unsent: self.unsent.load(Ordering::Relaxed),
            share: self.share.load(Ordering::Relaxed),
        }
    }

    fn demand(&self) -> Demand {
        match self.demand.load(Ordering::Relaxed) {
            0 => Demand::None,
            1 => Demand::Pause,
            2 => Demand::Close,
            _ => Demand::Drop,
        }
    }

    fn ask(&self, demand: Demand, now: u32) {
        self.demand.store(demand as u8, Ordering::Relaxed);
        let since = self.paused.load(Ordering::Relaxed);
        if demand == Demand::Pause && since == 0 {
            self.paused.store(now.max(1), Ordering::Relaxed);
        } else if demand == Demand::Close {
            // From now on it is the time since it was asked to.
            self.paused.store(0, Ordering::Relaxed);
            self.counted.store(now, Ordering::Relaxed);
        } else if demand != Demand::Pause && since != 0 {
            self.counted.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
            self.paused.store(0, Ordering::Relaxed);
        }
    }

    fn moved(&self, now: u32) -> u32 {
        let now = match self.paused.load(Ordering::Relaxed) {
            0 => now,
            since => since,
        };
        let halvings = now.saturating_sub(self.counted.load(Ordering::Relaxed)) / HALF_LIFE;
        self.moved.load(Ordering::Relaxed).checked_shr(halvings).unwrap_or(0)
    }

    fn note_moved(&self, bytes: usize, now: u32) {
        let moved = self.moved(now).saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.moved.store(moved, Ordering::Relaxed);
        // What is left of a half-life goes on.
        let counted = self.counted.load(Ordering::Relaxed);
        let passed = now.saturating_sub(counted) / HALF_LIFE * HALF_LIFE;
        self.counted.store(counted + passed, Ordering::Relaxed);
    }
}

/// The part of a socket in the account, until dropped. For its thread alone.
#[derive(Debug)]
pub struct Holding {
    memory: Arc<Memory>,
    thread: usize,
    session: u64,
    holder: Arc<Holder>,
}

impl Holding {
    /// Notes what the socket holds now, of which something may have moved.
    pub fn update(&self, held: Held) {
        let before = self.holder.held();
        if held == before {
            return;
        }
        self.holder.unfinished.store(held.unfinished, Ordering::Relaxed);
        self.holder.unsent.store(held.unsent, Ordering::Relaxed);
        self.holder.share.store(held.share, Ordering::Relaxed);
        // More of a message has come, or it is complete; or something was sent.
        let came = held.unfinished.abs_diff(before.unfinished);
        let went = (before.unsent + before.share).saturating_sub(held.unsent + held.share);
        self.holder.note_moved(came + went, self.memory.now());
        self.memory.change(self.thread, before.own(), held.own());
    }

    /// What is asked of the socket.
    pub fn demand(&self) -> Demand {
        let demand = self.holder.demand();
        if demand == Demand::Pause && self.memory.has_room() {
            self.holder.ask(Demand::None, self.memory.now());
            return Demand::None;
        }
        // Who would hold still more waits until there is something to hold.
        if demand == Demand::None && self.memory.is_full() { Demand::Pause } else { demand }
    }

    /// The socket closes, for whatever reason, and nothing that it has begun to say is of use.
    pub fn give_up(&self) {
        if self.holder.demand() < Demand::Close {
            self.holder.ask(Demand::Close, self.memory.now());
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.memory.change(self.thread, self.holder.held().own(), 0);
        self.memory.holders(self.thread).remove(&self.session);
    }
}

/// Something that waits for several, or for nobody in particular; it counts once as long as anybody waits for it.
#[derive(Debug)]
pub struct Common {
    memory: Arc<Memory>,
    bytes: usize,
    waiting: AtomicUsize,
}

/// One who waits for it, until dropped.
#[derive(Debug)]
pub struct Waiting(Arc<Common>);

impl Common {
    /// Of so many bytes, which nobody waits for yet.
    pub fn new(memory: &Arc<Memory>, bytes: usize) -> Arc<Common> {
        Arc::new(Common { memory: memory.clone(), bytes, waiting: AtomicUsize::new(0) })
    }

    /// One more waits for it.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.memory.shared.fetch_add(self.bytes, Ordering::Relaxed);
        }
        Waiting(self.clone())
    }
}

impl Waiting {
    /// Who else waits for it, this one included.
    pub fn count(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.memory.shared.fetch_sub(self.0.bytes, Ordering::Relaxed);
        }
    }
}

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
    /// See there.
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
            threads: (0..threads).map(|_| Account::default()).collect(),
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
    pub fn connect(&self, thread: usize, commands: mpsc::WeakUnboundedSender<Command>) {
        let _ = self.threads[thread].commands.set(commands);
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        let own: usize = self.threads.iter().map(|thread| thread.held.load(Ordering::Relaxed)).sum();
        own + self.shared.load(Ordering::Relaxed)
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
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Waiting> {
        (self.held().saturating_add(bytes) <= self.limit()).then(|| Common::new(self, bytes).wait())
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
            let _ = commands.send(Command::Close(session, frame.clone()));
        }
    }
}

/// The reason for a socket that is closed.
const OUT_OF_MEMORY: &str = "server is short of memory";

#[cfg(test)]
mod tests {
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
        let common = Common::new(&memory, 7777);
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

    #[test]
    fn the_least_limit_holds() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(available(root.path()), None);
        write("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        // Version 2: the parent's holds, too.
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        write("sys/fs/cgroup/a/memory.max", "500000\n");
        assert_eq!(available(root.path()), Some(500_000));
        write("sys/fs/cgroup/a/b/memory.max", "600000\n");
        assert_eq!(available(root.path()), Some(500_000));
        // A container that sees its own group as the root.
        write("sys/fs/cgroup/memory.max", "400000\n");
        assert_eq!(available(root.path()), Some(400_000));
        // Version 1, whose "none" is a large number.
        write("proc/self/cgroup", "3:cpu,cpuacct:/x\n2:memory:/y/z\n1:name=systemd:/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        write("sys/fs/cgroup/memory/y/memory.limit_in_bytes", "300000\n");
        assert_eq!(available(root.path()), Some(300_000));
    }
}
