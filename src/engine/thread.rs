//! An engine thread: one tokio current-thread runtime, the connections that are pinned to it, and what they share.

use super::application::recheck::{Group, Verdict};
use super::codec::{Contexts, Event};
use super::handle::ConnectionHandle;
use super::handler::LocalBoxFuture;
use super::health::heartbeat;
use super::health::signals::Signals;
use super::memory::{Bound, Holding, Memory};
use super::metrics::ThreadMetrics;
use super::metrics::board::Reserve;
use super::mux_task::MuxTask;
use super::quota::Place;
use super::revocation::names::Names;
use super::revocation::{Directory, Revocation, Tally};
use super::session_log::SessionLogs;
use super::socket::Socket;
use super::timer::Timer;
use super::turns::Turns;
use super::{Adoption, Limits, SessionSource, session_task};
use crate::wire::CloseFrame;
use log::{debug, error};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use tokio::sync::{Notify, mpsc};

pub enum ThreadCommand {
    Adopt(Box<Adoption>),
    OpenMux(Box<NewMux>),
    /// Close the session of this number with this frame, if it is one of the thread's.
    Close(u64, CloseFrame),
    /// Close every session with this frame.
    CloseAll(CloseFrame),
    /// Take this back from the sessions that it is about and that began before then.
    Revoke(Arc<Revocation>, u64, Tally),
    /// This becomes of those of these sessions that are the thread's.
    Decide(Arc<[u64]>, Verdict),
    /// Do this beside the sessions.
    Run(Task),
}

/// What a thread is to do beside its sessions.
pub type Task = Box<dyn FnOnce(ThreadHandle) -> LocalBoxFuture<'static, ()> + Send>;

pub struct NewMux {
    pub number: u64,
    pub mux: OwnedFd,
    /// What it takes of the descriptors.
    pub places: Vec<Place>,
}

/// The handle of a thread. When it is dropped the thread ends, and its connections with it, unsaid.
pub struct Thread {
    commands: mpsc::UnboundedSender<ThreadCommand>,
    count: Arc<SessionCount>,
}

/// The sessions of a thread, those on their way included.
#[derive(Default)]
pub(super) struct SessionCount {
    all: AtomicUsize,
    /// Those of them that come over a mux.
    by_mux: AtomicUsize,
    /// Told of the end of the last.
    ended: Arc<Notify>,
}

impl Thread {
    /// Starts a thread.
    ///
    /// # Errors
    /// The system refuses the thread or its epoll instance.
    pub fn start(
        number: usize,
        signals: Signals,
        logs: Arc<SessionLogs>,
        ended: Arc<Notify>,
        memory: Arc<Memory>,
        directory: Arc<Directory>,
        metrics: &Arc<Reserve>,
    ) -> io::Result<Thread> {
        let (commands, received) = mpsc::unbounded_channel();
        // The thread ends with its handle, and is not kept by what it can be told through the account.
        memory.connect(number, commands.downgrade());
        directory.connect(commands.downgrade());
        let count = Arc::new(SessionCount { ended, ..SessionCount::default() });
        let (counts, metrics) = (count.clone(), metrics.clone());
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name(format!("ws-engine-{number}")).spawn(move || {
            let runtime = heartbeat::runtime();
            let Ok(runtime) = runtime.map_err(|e| started.send(Err(e))) else { return };
            let _ = started.send(Ok(()));
            // The first is the main thread's.
            let metrics = ThreadMetrics::enter(&metrics, 1 + number);
            let state = ThreadState::of(number, memory, directory, metrics);
            let shared = Rc::new(ThreadState { logs, count: counts, ..state });
            let here = ThreadHandle { number, shared };
            heartbeat::run(signals, 1 + number, &runtime, serve(received, here));
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
        Ok(Thread { commands, count })
    }

    /// Sessions of this thread, those on their way included.
    pub fn connections(&self) -> usize {
        self.count.all.load(Ordering::Acquire)
    }

    /// Those of them that have a socket of their own.
    pub fn sockets(&self) -> usize {
        self.connections().saturating_sub(self.count.by_mux.load(Ordering::Acquire))
    }

    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Tells the thread something. One that has ended hears nothing; its sessions ended with it.
    pub fn tell(&self, command: ThreadCommand) {
        let adopted = match &command {
            ThreadCommand::Adopt(adoption) => Some(matches!(adoption.socket, SessionSource::Mux(_))),
            _ => None,
        };
        if let Some(by_mux) = adopted {
            self.count.count(by_mux);
        }
        if let (Err(_), Some(by_mux)) = (self.commands.send(command), adopted) {
            self.count.forget(by_mux);
        }
    }
}

impl SessionCount {
    fn count(&self, by_mux: bool) {
        self.by_mux.fetch_add(usize::from(by_mux), Ordering::AcqRel);
        self.all.fetch_add(1, Ordering::AcqRel);
    }

    fn forget(&self, by_mux: bool) {
        self.by_mux.fetch_sub(usize::from(by_mux), Ordering::AcqRel);
        if self.all.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
        }
    }
}

/// What the connections of a thread share.
pub struct ThreadState {
    /// Where every read lands first.
    pub buffer: RefCell<Box<[u8]>>,
    /// Protocol contexts that no session needs at the moment.
    pub contexts: RefCell<Contexts>,
    /// Empty queues and buffers, for connections that have something to do.
    pub queues: RefCell<FreeList<VecDeque<Event>>>,
    pub buffers: RefCell<FreeList<Vec<u8>>>,
    pub(super) handles: RefCell<HashMap<u64, Rc<ConnectionHandle>>>,
    muxes: RefCell<HashMap<u64, Rc<MuxTask>>>,
    pub(super) timer: Timer,
    /// Whose turn it is to do a slice of something long.
    pub(super) turns: Rc<Turns>,
    /// What sockets hold, and the thread's number there.
    memory: Arc<Memory>,
    number: usize,
    pub(super) names: Names,
    /// Of sessions whose application is asked again, or that have an end.
    pub(super) rechecks: RefCell<HashMap<u64, Arc<Group>>>,
    pub(super) directory: Arc<Directory>,
    pub(super) logs: Arc<SessionLogs>,
    count: Arc<SessionCount>,
    pub(super) metrics: ThreadMetrics,
}

/// Things that are kept for the next who needs one, up to a number.
pub struct FreeList<T>(Vec<T>);

impl<T: Default> FreeList<T> {
    const KEPT: usize = 32;

    pub fn take(&mut self) -> T {
        self.0.pop().unwrap_or_default()
    }

    pub fn put_back(&mut self, thing: T) {
        if self.0.len() < Self::KEPT {
            self.0.push(thing);
        }
    }
}

impl ThreadState {
    /// Bytes that one read takes at most: a message that is as large as they usually are lies whole in it.
    const BUFFER: usize = 256 * 1024;

    /// What a thread starts with that has an account of its own.
    pub fn new() -> ThreadState {
        ThreadState::of(0, Memory::new(1, Bound::Off), Arc::default(), ThreadMetrics::default())
    }

    /// What a thread of this number in the account starts with.
    pub(crate) fn of(
        number: usize,
        memory: Arc<Memory>,
        directory: Arc<Directory>,
        metrics: ThreadMetrics,
    ) -> ThreadState {
        ThreadState {
            buffer: RefCell::new(vec![0; Self::BUFFER].into_boxed_slice()),
            contexts: RefCell::default(),
            queues: RefCell::new(FreeList(Vec::new())),
            buffers: RefCell::new(FreeList(Vec::new())),
            handles: RefCell::default(),
            muxes: RefCell::default(),
            timer: Timer::default(),
            turns: Rc::default(),
            memory,
            number,
            names: Names::default(),
            rechecks: RefCell::default(),
            directory,
            logs: Arc::default(),
            count: Arc::default(),
            metrics,
        }
    }

    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The socket of this session holds something.
    pub fn hold(&self, session: u64, client: &str) -> Holding {
        self.memory.enter(self.number, session, client)
    }

    /// Makes a session known to [`ThreadCommand::Close`] and to the clock.
    pub fn enter(self: &Rc<Self>, id: u64, limits: &Limits) -> Registered {
        let now = self.timer.now();
        let handle = Rc::new(ConnectionHandle::new(id, limits, now));
        self.handles.borrow_mut().insert(id, handle.clone());
        if limits.ping.is_some() || limits.idle_timeout.is_some() {
            self.timer.look_at(&handle, now + 1);
        }
        Registered { shared: self.clone(), handle }
    }

    /// The byte stream of a session.
    ///
    /// # Errors
    /// A socket cannot be watched by epoll, or not be made non-blocking.
    pub fn socket(&self, source: SessionSource, session: u64) -> io::Result<Socket> {
        let number = match source {
            SessionSource::Socket(socket) => return Socket::new(socket),
            SessionSource::Tls(socket, keys) => return Socket::with_keys(socket, &keys),
            SessionSource::Mux(number) => number,
            SessionSource::Unanswered(_) => return Err(io::Error::other("nobody answers its handshake")),
        };
        if let Some(mux) = self.muxes.borrow().get(&number) {
            return Ok(Socket::Mux(mux.open(session)));
        }
        // The child was gone before its session came: so is the client.
        let dead = MuxTask::new(number, UnixStream::pair()?.0)?;
        dead.disconnect();
        Ok(Socket::Mux(dead.open(session)))
    }

    fn open_mux(self: &Rc<Self>, new: NewMux) {
        let NewMux { number, mux, places } = new;
        let mux = match MuxTask::new(number, mux.into()) {
            Ok(mux) => mux,
            // The child finds it closed.
            Err(e) => return error!("WS0119: mux {number}: cannot watch its socket: {e}"),
        };
        debug!("WS0145: mux {number} is open");
        self.muxes.borrow_mut().insert(number, mux.clone());
        let shared = self.clone();
        tokio::task::spawn_local(async move {
            let outcome = mux.run().await;
            shared.muxes.borrow_mut().remove(&number);
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    error!("WS0146: mux {number}: protocol error, its sessions are lost: {e}");
                }
                // The child is gone.
                Ok(()) | Err(_) => debug!("WS0147: mux {number} has ended"),
            }
            drop(places);
        });
    }

    fn close(&self, id: u64, frame: CloseFrame) {
        if let Some(handle) = self.handles.borrow().get(&id) {
            handle.close(frame);
        }
    }

    fn close_all(&self, frame: &CloseFrame) {
        for handle in self.handles.borrow().values() {
            handle.close(frame.clone());
        }
    }
}

impl Default for ThreadState {
    fn default() -> Self {
        ThreadState::new()
    }
}

/// A connection's place in its thread, until dropped.
pub struct Registered {
    pub shared: Rc<ThreadState>,
    pub handle: Rc<ConnectionHandle>,
}

impl Registered {
    /// It is one of the [`SessionCount`], and one that comes over a mux or not; and of the series of this number.
    pub(super) fn count(&self, by_mux: bool, series: u16) {
        self.handle.counted.set(Some(by_mux));
        self.handle.series.set(series);
        self.shared.metrics.begin(series);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Registered { shared, handle } = self;
        shared.names.leave(handle.id);
        if let Some(group) = shared.rechecks.borrow_mut().remove(&handle.id) {
            group.leave(handle.id);
        }
        shared.handles.borrow_mut().remove(&handle.id);
        // Last, so that whoever waits for the end finds nothing of it.
        if let Some(by_mux) = handle.counted.take() {
            shared.metrics.leave(handle.series.get());
            shared.count.forget(by_mux);
        }
    }
}

#[derive(Clone)]
pub struct ThreadHandle {
    number: usize,
    shared: Rc<ThreadState>,
}

impl ThreadHandle {
    pub fn number(&self) -> usize {
        self.number
    }

    /// Takes over a stream: as [`super::Engine::adopt`], on this thread.
    pub fn adopt(&self, adoption: Adoption) {
        self.shared.count.count(matches!(adoption.socket, SessionSource::Mux(_)));
        self.begin(adoption);
    }

    pub fn open_mux(&self, new: NewMux) {
        self.shared.open_mux(new);
    }

    /// Starts a session that counts already.
    fn begin(&self, adoption: Adoption) {
        session_task::begin(adoption, &self.shared);
    }
}

async fn serve(mut commands: mpsc::UnboundedReceiver<ThreadCommand>, here: ThreadHandle) {
    let clock = here.shared.clone();
    tokio::task::spawn_local(async move { clock.timer.tick(&clock.handles).await });
    while let Some(command) = commands.recv().await {
        match command {
            ThreadCommand::Adopt(adoption) => here.begin(*adoption),
            ThreadCommand::OpenMux(new) => here.open_mux(*new),
            ThreadCommand::Close(id, frame) => here.shared.close(id, frame),
            ThreadCommand::CloseAll(frame) => here.shared.close_all(&frame),
            ThreadCommand::Revoke(revocation, before, tally) => here.shared.revoke(&revocation, before, &tally),
            ThreadCommand::Decide(sessions, verdict) => here.shared.decide(&sessions, &verdict),
            ThreadCommand::Run(task) => drop(tokio::task::spawn_local(task(here.clone()))),
        }
    }
}

/// Has the task go on when others had their turn, those included for whom something has come meanwhile: to wake it at once
/// would let it run some sixty times before anybody looks.
pub fn step_aside(cx: &mut Context<'_>) {
    let mut turn = pin!(tokio::task::yield_now());
    let _ = turn.as_mut().poll(cx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::task::Poll;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::{LocalSet, spawn_local};

    /// Who has much to do gets no second turn before those whom something has come for.
    #[tokio::test]
    async fn who_steps_aside_is_behind_what_has_come() {
        let turns = Rc::new(Cell::new(0));
        let (mut reader, mut writer) = tokio::net::UnixStream::pair().unwrap();
        let busy = {
            let turns = turns.clone();
            std::future::poll_fn(move |cx| {
                turns.set(turns.get() + 1);
                step_aside(cx);
                Poll::<()>::Pending
            })
        };
        let tasks = LocalSet::new();
        let read = tasks.run_until(async move {
            let reading = spawn_local(async move { reader.read_u8().await.unwrap() });
            // It waits for its socket, and is alone.
            tokio::task::yield_now().await;
            spawn_local(busy);
            writer.write_u8(7).await.unwrap();
            reading.await.unwrap()
        });
        assert_eq!(read.await, 7);
        assert!((1..=4).contains(&turns.get()), "{} turns", turns.get());
    }
}
