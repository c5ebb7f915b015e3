//! The engine process: from the moment httpd's parent has forked it to its end.
//!
//! Its main thread waits for what httpd's parent says, for signals, and for the children's links, which the engine threads
//! serve (see [`super::handoff_server`]), as they run the sessions. Besides, it does what concerns the process as a whole.

use super::connection::stopping;
use super::control::{self, Configuration};
use super::entrance::Entrance;
use super::handoff_server::{self, HandoffServer};
use super::health::heartbeat;
use super::health::signals::Signals;
use super::memory::{Bound, Memory};
use super::metrics::board::Reserve;
use super::metrics::{EngineArea, ThreadMetrics};
use super::programs;
use super::session_log::NamedLog;
use super::{Engine, Registry};
use crate::wire::{CloseCode, CloseFrame, close};
use log::{debug, error, info, warn};
use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

/// Descriptors that are not given to sessions: logs, epoll instances, links of children, what a library opens.
const RESERVED_FDS: u64 = 64;
/// Descriptors of an engine thread: its epoll instance, and what its runtime has for itself.
const FDS_PER_THREAD: u64 = 8;
/// How long a full stop waits for the clients' answers to its Close.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How long handlers may take for their end.
pub const HANDLERS_LIMIT: Duration = Duration::from_secs(2);
/// And a little longer, for those that use all of it.
const HANDLERS_GRACE: Duration = Duration::from_millis(500);
/// How long the end waits for session logs that do not take their last lines.
const LOGS_LIMIT: Duration = Duration::from_secs(1);
/// How long it is waited for more to be freed, before it is given back to the system.
const TRIM_AFTER: Duration = Duration::from_secs(1);
/// How long that is not done again.
const TRIM_PAUSE: Duration = Duration::from_secs(9);
/// How long the sessions of an engine that was replaced by one of another version go on.
const RETIREMENT: Duration = Duration::from_secs(60);

/// How often an engine that was replaced says what it still has.
const MEASURE: Duration = Duration::from_secs(2);

/// Called with each new configuration generation, and the error log's descriptor when it changed.
pub type Configure = Box<dyn Fn(&Configuration, Option<OwnedFd>)>;

pub struct Setup {
    /// The engine's end of a [`super::entrance::pair`].
    pub entrance: OwnedFd,
    /// The engine's end of a [`control::pair`].
    pub control: OwnedFd,
    /// A pidfd of httpd's parent, where the system has such: the engine ends with it, whoever else has its ends of the pairs.
    pub parent: Option<OwnedFd>,
    /// Where its threads give signs of life.
    pub signals: Signals,
    /// Where they count.
    pub metrics: EngineArea,
    /// How long a session that was granted may take to come: [`handoff_server::GRANT_TIME`], but for tests.
    pub grant_time: Duration,
    pub threads: usize,
    pub handlers: Registry,
    pub configure: Configure,
    /// What the handlers are told by the first configuration; later ones bring their own. See [`Configuration::settings`].
    pub settings: Vec<(String, Vec<u8>)>,
    /// As [`Configuration::stop_code`], of the first configuration.
    pub stop_code: u16,
    /// The session logs of the first configuration; later ones bring their own.
    pub session_logs: Vec<NamedLog>,
    /// What sockets may hold, by the first configuration; later ones bring their own.
    pub memory: Bound,
    /// Gives the system back what was freed and is kept for later.
    pub trim: fn(),
}

/// Runs the engine until httpd's parent or SIGTERM stops it, or until it was retired and its last session is over.
///
/// # Errors
/// It could not start: no threads, no epoll instance, no signals.
pub fn run(setup: Setup) -> io::Result<()> {
    let runtime = heartbeat::runtime()?;
    let served = heartbeat::run(setup.signals, 0, &runtime, serve(setup));
    // A name that is still being looked up, or a file of tokens on a disk that does not answer, is not waited for.
    runtime.shutdown_background();
    served
}

/// What httpd's parent wants of the main thread.
pub enum ControlMessage {
    Configure {
        configuration: Configuration,
        /// The error log, where that is another one.
        log: Option<OwnedFd>,
        /// The session logs, all of them.
        session_logs: Vec<NamedLog>,
        /// Told when it holds.
        done: oneshot::Sender<()>,
    },
    /// Another engine takes the new sessions.
    Retire,
    /// It is over, for all of httpd.
    Stop,
}

struct MainThread {
    server: Arc<HandoffServer>,
    configure: Configure,
    /// As [`Configuration::stop_code`].
    stop_code: Cell<u16>,
    /// Retired, and no session is left.
    over: Notify,
}

async fn serve(setup: Setup) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let _main = ThreadMetrics::enter(&Arc::new(Reserve::new(setup.metrics)), 0);
    let capacity = programs::raise_file_limit().saturating_sub(RESERVED_FDS + FDS_PER_THREAD * setup.threads as u64);
    let handlers = Arc::new(setup.handlers);
    let engine = Engine::start_watched(setup.threads, setup.memory, setup.signals, setup.metrics)?;
    handlers.all().for_each(|handler| handler.connect(engine.directory()));
    configure_handlers(&handlers, &setup.settings);
    engine.logs().replace(setup.session_logs)?;
    let entrance = Entrance::new(setup.entrance)?;
    let parent = setup.parent.map(watched).transpose()?;
    info!("WS0101: the engine has started: {} threads, up to {capacity} sessions", setup.threads);
    let (errands, mut sent) = mpsc::unbounded_channel();
    tokio::task::spawn_local(control::obey(setup.control, errands));
    tokio::task::spawn_local(programs::collect_orphans());
    let server = Arc::new(HandoffServer::new(engine, handlers, capacity, setup.grant_time));
    tokio::task::spawn_local(trim(server.engine.memory().clone(), setup.trim));
    let main = Rc::new(MainThread {
        server: server.clone(),
        configure: setup.configure,
        stop_code: Cell::new(setup.stop_code),
        over: Notify::new(),
    });
    loop {
        let stopped = tokio::select! {
            _ = terminate.recv() => true,
            () = ended(parent.as_ref()) => true,
            () = main.over.notified() => break,
            Some(message) = sent.recv() => main.run(message),
            entered = entrance.next() => {
                if let Err(e) = entered.map(|stream| handoff_server::serve(&server, stream)) {
                    // Most likely descriptors; those that come now wait, and so do we.
                    warn!("WS0113: cannot accept a child's link: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                false
            }
        };
        if stopped {
            let open = server.engine.connections();
            debug!("WS0104: stopping, {open} sessions are open");
            main.end(stopping(main.stop_code.get())).await;
            break;
        }
    }
    let left = server.engine.connections();
    if left > 0 {
        info!("WS0105: {left} clients did not answer the Close in time");
    }
    server.engine.logs().finish(LOGS_LIMIT).await;
    Ok(())
}

fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(deprecated, reason = "nobody closes the descriptor of an OwnedFd while it is watched")]
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Completes at the end of the process that this is a pidfd of, if it is one.
async fn ended(pidfd: Option<&AsyncFd<OwnedFd>>) {
    match pidfd {
        Some(pidfd) if pidfd.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Gives back what was freed, when it was much: not at once, since more may follow.
async fn trim(memory: Arc<Memory>, trim: fn()) {
    loop {
        memory.freed().await;
        tokio::time::sleep(TRIM_AFTER).await;
        trim();
        tokio::time::sleep(TRIM_PAUSE).await;
    }
}

fn configure_handlers(handlers: &Registry, settings: &[(String, Vec<u8>)]) {
    for (name, settings) in settings {
        // This module's own; an engine of another version is not told.
        if let Some(handler) = handlers.find(name) {
            handler.configure(settings);
        }
    }
}

impl MainThread {
    /// True when the engine is to stop.
    fn run(self: &Rc<Self>, message: ControlMessage) -> bool {
        match message {
            ControlMessage::Stop => return true,
            ControlMessage::Configure { configuration, log, session_logs, done } => {
                (self.configure)(&configuration, log);
                self.stop_code.set(configuration.stop_code);
                self.server.engine.memory().set_bound(configuration.memory);
                configure_handlers(&self.server.handlers, &configuration.settings);
                if let Err(e) = self.server.engine.logs().replace(session_logs) {
                    error!("WS0118: the session logs cannot be written: {e}");
                }
                // Whoever brought it may have gone.
                let _ = done.send(());
            }
            ControlMessage::Retire => self.retire(),
        }
        false
    }

    /// Another engine takes the new sessions. Children of the old configuration may still bring some.
    fn retire(self: &Rc<Self>) {
        info!(
            "WS0106: replaced by an engine of another version; {} sessions are open",
            self.server.engine.connections()
        );
        let measured = self.server.clone();
        tokio::task::spawn_local(async move {
            // No child asks it any more.
            loop {
                measured.measure();
                tokio::time::sleep(MEASURE).await;
            }
        });
        let main = self.clone();
        tokio::task::spawn_local(async move {
            // A session whose 101 is on its way is not there yet.
            let quiet = async {
                while main.server.engine.connections() > 0 || main.server.granted() > 0 {
                    main.server.engine.empty().await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let _ = tokio::time::timeout(RETIREMENT, quiet).await;
            main.end(close(CloseCode::Restart, "server was replaced")).await;
            main.over.notify_one();
        });
    }

    /// Closes every session with this frame, and takes no more.
    async fn end(&self, frame: CloseFrame) {
        self.server.close(frame.clone());
        self.server.engine.drain(frame, DRAIN_LIMIT).await;
        let mut ends = JoinSet::new();
        for handler in self.server.handlers.all() {
            let handler = handler.clone();
            ends.spawn_local(async move {
                if let Some(end) = handler.end(HANDLERS_LIMIT) {
                    end.await;
                }
            });
        }
        // Whoever was to be told by those that are late finds out by itself.
        let _ = tokio::time::timeout(HANDLERS_LIMIT + HANDLERS_GRACE, ends.join_all()).await;
    }
}
