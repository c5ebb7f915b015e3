//! The threads of a child that has connections of plugins: one that watches the sockets to the engine, and a few on which
//! the plugins' functions run. They are started when they are needed first.

use super::connection::{PluginConnection, Turn};
use super::watchdog;
use crate::apache::log::{self, Level};
use crate::apache::server::Server;
use crate::apache::{crash, process};
use crate::front::child;
use crate::front::relay::ending::Cause;
use once_cell::sync::OnceCell;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked after functions that take long, while there are connections.
const LOOK: Duration = Duration::from_secs(3);
/// How long a child that is to end at once waits for `on_disconnect` of all connections.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What C code is used to.
const STACK: usize = 8 << 20;
/// Bytes that one read takes at most.
const BUFFER: usize = 16 * 1024;
/// The token of the eventfd.
const WAKE: u64 = u64::MAX;

static EXECUTOR: OnceCell<Executor> = OnceCell::new();
static WATCHED: OnceCell<()> = OnceCell::new();

pub struct Executor {
    epoll: OwnedFd,
    alarm: OwnedFd,
    /// By a number that no other connection of this process has had: an event may be told when its connection is forgotten.
    connections: Mutex<HashMap<u64, Arc<PluginConnection>>>,
    next_key: AtomicU64,
    /// Connections whose plugin has not been told of their end, those that are opening included.
    count: AtomicUsize,
    work: Mutex<Work>,
    more: Condvar,
    max_threads: usize,
    /// The process ends: no function of a plugin is called any more.
    halted: AtomicBool,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<Arc<PluginConnection>>,
    threads: usize,
    idle: usize,
}

/// The executor of this process.
///
/// # Errors
/// The system refuses a thread, an epoll instance or an eventfd.
pub fn start(server: &Server, max_threads: usize) -> io::Result<&'static Executor> {
    let executor = EXECUTOR.get_or_try_init(|| Executor::new(max_threads))?;
    WATCHED.get_or_try_init(|| {
        crash::tell(server.error_log().map_or(2, |log| log.as_raw_fd()));
        thread("ws-plugins", move || {
            // Nothing is heard from the engine any more: httpd is to replace this child.
            if catch_unwind(AssertUnwindSafe(|| executor.watch_all())).is_err() {
                log::main(
                    Level::Critical,
                    "WS0249: the thread that watches plugins panicked: this child of httpd ends",
                );
                std::process::abort();
            }
        })
    })?;
    Ok(executor)
}

pub fn started() -> Option<&'static Executor> {
    EXECUTOR.get()
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(|| {
        process::block_signals();
        crash::prepare_thread();
        body();
    })?;
    Ok(())
}

impl Executor {
    fn new(max_threads: usize) -> io::Result<Executor> {
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Executor {
            epoll,
            alarm,
            connections: Mutex::default(),
            next_key: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            work: Mutex::default(),
            more: Condvar::new(),
            max_threads,
            halted: AtomicBool::new(false),
        })
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<PluginConnection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_up(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) == 0 {
            // The watching thread is to look at the clock from now on. Fails only when it is going to wake anyway.
            let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
        }
    }

    pub(super) fn count_down(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn watch(&self, connection: &Arc<PluginConnection>) {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        connection.key().store(key, Ordering::Relaxed);
        self.connections().insert(key, connection.clone());
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let watched =
            connection.link().map(|link| epoll::add(&self.epoll, link, epoll::EventData::new_u64(key), flags));
        if let Some(Err(why)) = watched {
            let session = connection.session();
            log::main(Level::Error, &format!("WS0244: session {session} is lost, it cannot be watched: {why}"));
            connection.cut();
        }
    }

    pub(super) fn forget(&self, connection: &PluginConnection) {
        let forgotten = self.connections().remove(&connection.key().load(Ordering::Relaxed));
        // Not with the lock: it may be the last of it.
        drop(forgotten);
    }

    pub(super) fn queue(&'static self, connection: Arc<PluginConnection>) {
        let mut work = self.work();
        work.queue.push_back(connection);
        if work.queue.len() > work.idle && work.threads < self.max_threads {
            work.threads += 1;
            drop(work);
            if let Err(why) = thread("ws-plugin", move || self.serve()) {
                let left = {
                    let mut work = self.work();
                    work.threads -= 1;
                    work.threads
                };
                log::main(
                    Level::Error,
                    &format!("WS0245: cannot start another thread for plugins, {left} are running: {why}"),
                );
            }
        }
        self.more.notify_one();
    }

    fn serve(&'static self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            let connection = self.next();
            let turn = catch_unwind(AssertUnwindSafe(|| connection.take_turn(&mut buffer))).unwrap_or_else(|_| {
                let session = connection.session();
                log::main(
                    Level::Critical,
                    &format!("WS0246: session {session}: a panic beside its plugin: it is lost"),
                );
                connection.cut();
                Turn::Again
            });
            let again = match turn {
                Turn::Again => true,
                Turn::Idle => !connection.rest(),
                Turn::Over => false,
            };
            if again {
                self.queue(connection);
            }
        }
    }

    fn next(&self) -> Arc<PluginConnection> {
        let mut work = self.work();
        loop {
            if !self.halted.load(Ordering::SeqCst)
                && let Some(connection) = work.queue.pop_front()
            {
                return connection;
            }
            work.idle += 1;
            work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
            work.idle -= 1;
        }
    }

    fn watch_all(&self) {
        let mut events = Vec::with_capacity(256);
        let mut looked = Instant::now();
        loop {
            events.clear();
            let timeout = (self.count.load(Ordering::SeqCst) > 0 || watchdog::any())
                .then_some(Timespec { tv_sec: LOOK.as_secs() as i64, tv_nsec: 0 });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => {
                    log::main(Level::Critical, &format!("WS0247: the sockets to the engine cannot be watched: {why}"));
                    std::thread::sleep(LOOK);
                }
            }
            for event in &events {
                let (token, flags) = (event.data.u64(), { event.flags });
                if token == WAKE {
                    let _ = rustix::io::read(&self.alarm, &mut [0; 8]);
                    continue;
                }
                let connection = self.connections().get(&token).cloned();
                let Some(connection) = connection else { continue };
                if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    connection.hung_up();
                    continue;
                }
                if flags.contains(epoll::EventFlags::OUT) {
                    connection.flush();
                }
                if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
                    connection.wake();
                }
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                watchdog::look();
            }
        }
    }

    /// This child ends now: the engine is asked to close every session.
    pub fn close_all(&self) {
        // Under prefork this runs in a signal handler, on a thread that may have the lock.
        let last = Instant::now() + Duration::from_millis(200);
        let sessions: Vec<u64> = loop {
            if let Ok(connections) = self.connections.try_lock() {
                break connections.values().map(|connection| connection.session()).collect();
            }
            if Instant::now() > last {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let Some(engine) = child::engine_client() else { return };
        let (code, reason) = Cause::now().word();
        for session in sessions {
            if let Err(why) = engine.close_session(session, code, reason) {
                log::main(Level::Warning, &format!("WS0248: the engine cannot be told to close its sessions: {why}"));
                return;
            }
        }
    }

    /// Returns when all plugins have been told of the end of all their connections, or after some seconds.
    pub fn await_all(&self) {
        let last = Instant::now() + LAST_WORDS;
        while self.count.load(Ordering::SeqCst) > 0 && Instant::now() < last {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The memory of the requests goes: plugins get nothing of them any more.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
        if let Ok(connections) = self.connections.try_lock() {
            for connection in connections.values() {
                connection.release();
            }
        }
    }
}
