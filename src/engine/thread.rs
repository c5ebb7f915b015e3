//! An engine thread: one tokio current-thread runtime, the connections that are pinned to it, and what they share.

use super::conn::{self, Conn};
use super::handler::Registry;
use super::log_writer::Logs;
use super::peer::{Peer, TICK};
use super::{Adoption, HandlerSpec};
use crate::wire::session::{Contexts, Event};
use crate::wire::{CloseCode, CloseFrame, close};
use log::{debug, error};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// What a thread is told from outside.
pub enum Command {
    /// Run this session.
    Adopt(Box<Adoption>),
    /// Close every session with this frame.
    CloseAll(CloseFrame),
}

/// The handle of a thread. When it is dropped the thread ends, and its connections with it, unsaid.
pub struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    connections: Arc<AtomicUsize>,
}

impl Thread {
    /// Starts a thread.
    ///
    /// # Errors
    /// The system refuses the thread or its epoll instance.
    pub fn start(number: usize, handlers: Arc<Registry>, logs: Arc<Logs>, ended: Arc<Notify>) -> io::Result<Thread> {
        let (commands, received) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let count = Count { connections: connections.clone(), ended };
        std::thread::Builder::new().name(format!("ws-engine-{number}")).spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, serve(received, handlers, logs, count));
        })?;
        Ok(Thread { commands, connections })
    }

    /// Sessions of this thread, those on their way included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Tells the thread something. A thread that is gone took its sessions with it; nothing is owed then.
    pub fn tell(&self, command: Command) {
        if matches!(command, Command::Adopt(_)) {
            self.connections.fetch_add(1, Ordering::AcqRel);
        }
        let _ = self.commands.send(command);
    }
}

/// Counts the sessions of a thread, and tells who waits for the end of the last.
#[derive(Clone)]
struct Count {
    connections: Arc<AtomicUsize>,
    ended: Arc<Notify>,
}

/// One session in the count, until dropped.
struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

/// What the connections of a thread share.
pub struct Shared {
    /// Where every read lands first.
    pub buffer: RefCell<Box<[u8]>>,
    /// Protocol contexts that no session needs at the moment.
    pub contexts: RefCell<Contexts>,
    /// Empty queues and buffers, for connections that have something to do.
    pub queues: RefCell<Spare<VecDeque<Event>>>,
    /// See `queues`.
    pub buffers: RefCell<Spare<Vec<u8>>>,
    peers: RefCell<Slab<Rc<Peer>>>,
    /// Ticks since the start, while there are deadlines.
    now: Cell<u64>,
    deadlines: Notify,
}

/// Things that are kept for the next who needs one, up to a number.
pub struct Spare<T>(Vec<T>);

impl<T: Default> Spare<T> {
    const KEPT: usize = 32;

    /// One of them, or a new one.
    pub fn take(&mut self) -> T {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps one for the next.
    pub fn put_back(&mut self, thing: T) {
        if self.0.len() < Self::KEPT {
            self.0.push(thing);
        }
    }
}

impl Shared {
    /// Bytes that one read takes at most.
    const BUFFER: usize = 64 * 1024;

    /// What a thread starts with.
    pub fn new() -> Shared {
        Shared {
            buffer: RefCell::new(vec![0; Self::BUFFER].into_boxed_slice()),
            contexts: RefCell::default(),
            queues: RefCell::new(Spare(Vec::new())),
            buffers: RefCell::new(Spare(Vec::new())),
            peers: RefCell::default(),
            now: Cell::new(0),
            deadlines: Notify::new(),
        }
    }

    /// Lets `peer` expire after `time`, which is rounded up to whole ticks.
    pub fn set_deadline(&self, peer: &Peer, time: Duration) {
        let ticks = time.as_millis().div_ceil(TICK.as_millis()) as u64;
        // The tick under way may be almost over.
        peer.set_deadline(self.now.get() + ticks + 1);
        self.deadlines.notify_one();
    }

    /// Ticks while there are deadlines, sleeps while there are none.
    pub async fn tick(&self) {
        loop {
            self.deadlines.notified().await;
            let mut ahead = true;
            while ahead {
                tokio::time::sleep(TICK).await;
                self.now.set(self.now.get() + 1);
                ahead = self.peers.borrow().iter().fold(false, |ahead, (_, peer)| peer.tick(self.now.get()) || ahead);
            }
        }
    }

    /// Makes a peer known to [`Command::CloseAll`] and to the clock.
    pub fn enter(self: &Rc<Self>) -> Entry {
        let peer = Rc::new(Peer::default());
        let key = self.peers.borrow_mut().insert(peer.clone());
        Entry { shared: self.clone(), peer, key }
    }

    fn close_all(&self, frame: &CloseFrame) {
        for (_, peer) in self.peers.borrow().iter() {
            peer.close(frame.clone());
        }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Shared::new()
    }
}

/// A connection's place in its thread, until dropped.
pub struct Entry {
    /// What the thread shares.
    pub shared: Rc<Shared>,
    /// The connection as the thread sees it.
    pub peer: Rc<Peer>,
    key: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.peers.borrow_mut().try_remove(self.key);
    }
}

async fn serve(mut commands: mpsc::UnboundedReceiver<Command>, handlers: Arc<Registry>, logs: Arc<Logs>, count: Count) {
    let shared = Rc::new(Shared::new());
    let clock = shared.clone();
    tokio::task::spawn_local(async move { clock.tick().await });
    while let Some(command) = commands.recv().await {
        match command {
            Command::Adopt(adoption) => begin(*adoption, &shared, &handlers, &logs, Counted(count.clone())),
            Command::CloseAll(frame) => shared.close_all(&frame),
        }
    }
}

/// Starts a session's task.
fn begin(adoption: Adoption, shared: &Rc<Shared>, handlers: &Arc<Registry>, logs: &Arc<Logs>, counted: Counted) {
    let id = adoption.id;
    let HandlerSpec { name, .. } = &adoption.spec.handler;
    // The front asks before the upgrade whether the engine has the handler, so this is an engine of another version.
    let Some(handler) = handlers.find(name) else {
        error!("WS0111: session {id}: this engine has no handler {name}");
        return;
    };
    let mut conn = match Conn::new(adoption, shared.enter()) {
        Ok(conn) => conn,
        Err(e) => {
            error!("WS0112: session {id}: cannot watch its socket: {e}");
            return;
        }
    };
    let logs = logs.clone();
    tokio::task::spawn_local(async move {
        let mut running = handler.run(&mut conn);
        // A panic ends this session and no other.
        let verdict = std::future::poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))).unwrap_or_else(|panic| {
                error!("WS0110: session {id}: the handler panicked: {}", panic_text(&*panic));
                std::task::Poll::Ready(close(CloseCode::Error, "internal error"))
            })
        })
        .await;
        drop(running);
        let summary = conn.finish(verdict).await;
        let conn::Summary { received, sent, end, .. } = &summary;
        debug!("WS0103: session {id} ended: {end}; received {received}, sent {sent}");
        logs.note(id, &summary);
        drop(counted);
    });
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
