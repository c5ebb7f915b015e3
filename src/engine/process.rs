//! The engine process: from the moment httpd's parent has forked it to its end.
//!
//! Its main thread serves the handoff socket and waits for signals; the sessions run on the engine threads.

use super::conn::going_away;
use super::handoff::{self, Configuration, FromEngine, Receiver, ToEngine};
use super::log_writer::NamedLog;
use super::quota::{Counts, Place};
use super::{Adoption, Engine, Quota, Refused, Registry, SessionSpec, Source, Unwelcome, Welcome};
use crate::wire::{CloseCode, CloseFrame, close};
use log::{debug, error, info, warn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Descriptors that are not given to sessions: logs, epoll instances, links of children, what a library opens.
const RESERVED_FDS: u64 = 64;
/// Descriptors of an engine thread: its epoll instance, and what its runtime has for itself.
const FDS_PER_THREAD: u64 = 8;
/// What counts the descriptors that handlers have for sessions: see [`Welcome::link`] and [`Welcome::descriptors`].
const DESCRIPTORS: &str = "descriptors of sessions";
/// What counts those of trunks.
const TRUNKS: &str = "trunks";
/// How long a full stop waits for the clients' answers to its Close.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How long handlers may take for their end.
pub const HANDLERS_LIMIT: Duration = Duration::from_secs(2);
/// And a little longer, for those that use all of it.
const HANDLERS_GRACE: Duration = Duration::from_millis(500);
/// How long the end waits for session logs that do not take their last lines.
const LOGS_LIMIT: Duration = Duration::from_secs(1);
/// How long the sessions of an engine that was replaced by one of another version go on.
const RETIREMENT: Duration = Duration::from_secs(60);

/// Called with each new configuration generation, and the error log's descriptor when it changed.
pub type Configure = Box<dyn Fn(&Configuration, Option<OwnedFd>)>;

/// What the process is started with.
pub struct Setup {
    /// The handoff socket, listening.
    pub listener: UnixListener,
    /// Engine threads.
    pub threads: usize,
    /// What the threads run.
    pub handlers: Registry,
    /// See [`Configure`].
    pub configure: Configure,
    /// What the handlers are told by the first configuration; later ones bring their own. See [`Configuration::settings`].
    pub settings: Vec<(String, Vec<u8>)>,
    /// The session logs of the first configuration; later ones bring their own.
    pub session_logs: Vec<NamedLog>,
}

/// Runs the engine until SIGTERM, or until it was retired and its last session is over.
///
/// # Errors
/// It could not start: no threads, no epoll instance, no signals.
pub fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = tokio::task::LocalSet::new().block_on(&runtime, serve(setup));
    // A name that is still being looked up, or a file of tokens on a disk that does not answer, is not waited for.
    runtime.shutdown_background();
    served
}

/// What the links of the children share.
struct Desk {
    engine: Engine,
    handlers: Arc<Registry>,
    configure: Configure,
    /// Sessions that the descriptors suffice for.
    capacity: u64,
    links: Cell<u64>,
    /// Sessions that were granted and have not come.
    granted: Cell<u64>,
    /// Sessions of each quota, granted or open.
    counts: Arc<Counts>,
    next_ticket: Cell<u64>,
    next_trunk: Cell<u64>,
    /// Retired, and no session is left.
    over: Notify,
    /// What every session is closed with, when the end has come: those that arrive late, too.
    ending: RefCell<Option<CloseFrame>>,
    /// The last refusal for want of descriptors was logged, and nothing was granted since.
    full: Cell<bool>,
}

async fn serve(setup: Setup) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let capacity = raise_fd_limit().saturating_sub(RESERVED_FDS + FDS_PER_THREAD * setup.threads as u64);
    let handlers = Arc::new(setup.handlers);
    configure_handlers(&handlers, &setup.settings);
    let engine = Engine::start(setup.threads, &handlers)?;
    engine.logs().replace(setup.session_logs)?;
    setup.listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(setup.listener)?;
    info!("WS0101: the engine has started: {} threads, up to {capacity} sessions", setup.threads);
    let desk = Rc::new(Desk {
        engine,
        handlers,
        configure: setup.configure,
        capacity,
        links: Cell::new(0),
        granted: Cell::new(0),
        counts: Arc::default(),
        next_ticket: Cell::new(1),
        next_trunk: Cell::new(1),
        over: Notify::new(),
        ending: RefCell::default(),
        full: Cell::new(false),
    });
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                let open = desk.engine.connections();
                debug!("WS0104: stopping, {open} sessions are open");
                desk.end(going_away()).await;
                break;
            }
            () = desk.over.notified() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(attend(desk.clone(), stream));
                }
                Err(e) => {
                    // Most likely descriptors; the connection waits in the queue, and so do we.
                    warn!("WS0113: the handoff socket cannot accept: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let left = desk.engine.connections();
    if left > 0 {
        info!("WS0105: {left} clients did not answer the Close in time");
    }
    desk.engine.logs().finish(LOGS_LIMIT).await;
    Ok(())
}

fn configure_handlers(handlers: &Registry, settings: &[(String, Vec<u8>)]) {
    for (name, settings) in settings {
        // This module's own; an engine of another version is not told.
        if let Some(handler) = handlers.find(name) {
            handler.configure(settings);
        }
    }
}

/// Raises the soft limit of descriptors to the hard one; returns what holds then.
fn raise_fd_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        warn!("WS0114: the limit of open files stays as it is: {e}");
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

/// Serves one link until its other end closes it.
async fn attend(desk: Rc<Desk>, stream: tokio::net::UnixStream) {
    // The socket's mode keeps others out already; this holds where a file system has no modes for sockets.
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() => {}
        Ok(peer) => return error!("WS0115: uid {} may not use the handoff socket", peer.uid()),
        Err(e) => return error!("WS0115: who uses the handoff socket? {e}"),
    }
    desk.links.set(desk.links.get() + 1);
    let granted = RefCell::new(HashMap::new());
    if let Err(e) = listen(&desk, Receiver::new(stream), &granted).await {
        warn!("WS0116: a handoff link broke: {e}");
    }
    desk.granted.set(desk.granted.get() - granted.borrow().len() as u64);
    desk.links.set(desk.links.get() - 1);
}

/// What is kept ready for a session that has not come yet.
struct Seat {
    spec: SessionSpec,
    places: Vec<Place>,
    /// See [`Welcome::link`].
    link: Option<OwnedFd>,
    thread: usize,
}

/// A session in the count of those that were granted, until dropped, unless it is kept there.
struct Reserved<'a>(Option<&'a Cell<u64>>);

impl<'a> Reserved<'a> {
    fn new(granted: &'a Cell<u64>) -> Reserved<'a> {
        granted.set(granted.get() + 1);
        Reserved(Some(granted))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(granted) = self.0 {
            granted.set(granted.get() - 1);
        }
    }
}

/// The tickets of one link.
type Granted = RefCell<HashMap<u64, Seat>>;

async fn listen(desk: &Rc<Desk>, mut link: Receiver, granted: &Granted) -> io::Result<()> {
    let mut session_logs = Vec::new();
    while let Some(message) = link.next().await? {
        match message {
            ToEngine::Hello { version } if version == handoff::version() => {}
            ToEngine::Hello { .. } => {
                // It may not wait for the answer, and have said already what it wants.
                let _ = link.say(&FromEngine::Hello { version: handoff::version().into() }).await;
                return listen_to_stranger(desk, link).await;
            }
            ToEngine::Offer(spec) => {
                let answer = desk.consider(*spec, granted).await;
                link.say(&answer).await?;
            }
            ToEngine::Take { ticket, early, linked } => {
                let socket = link.descriptor()?;
                let brought = if linked { Some(link.descriptor()?) } else { None };
                let mut seat = desk.seat(granted, ticket)?;
                seat.link = brought.or(seat.link);
                desk.begin(ticket, seat, socket.into(), early);
            }
            ToEngine::Carry { ticket, trunk: number } => {
                let seat = desk.seat(granted, ticket)?;
                let source = Source::Trunk { thread: seat.thread, number };
                desk.begin(ticket, seat, source, Vec::new());
            }
            ToEngine::Trunk { thread } => {
                let trunk = link.descriptor()?;
                let answer = desk.lay(thread, trunk);
                link.say(&answer).await?;
            }
            ToEngine::Abandon { ticket } => {
                if granted.borrow_mut().remove(&ticket).is_some() {
                    desk.granted.set(desk.granted.get() - 1);
                }
            }
            ToEngine::Close { ticket, code, reason } => {
                // RFC 6455 section 7.4.1: some codes stand for what no Close frame may say.
                let code = Some(CloseCode::from(code)).filter(|code| code.is_allowed()).unwrap_or(CloseCode::Away);
                desk.engine.close(ticket, &close(code, &reason));
            }
            ToEngine::Call { handler, request } => {
                let answer = desk.call(&handler, request).await;
                link.say(&answer).await?;
            }
            ToEngine::Configure(configuration) => {
                let log = if configuration.with_log { Some(link.descriptor()?) } else { None };
                (desk.configure)(&configuration, log);
                configure_handlers(&desk.handlers, &configuration.settings);
                if let Err(e) = desk.engine.logs().replace(std::mem::take(&mut session_logs)) {
                    error!("WS0118: the session logs cannot be written: {e}");
                }
                link.say(&FromEngine::Hello { version: handoff::version().into() }).await?;
            }
            ToEngine::SessionLog { name } => session_logs.push((name, link.descriptor()?)),
            ToEngine::Retire => desk.retire(),
        }
    }
    Ok(())
}

/// The other end is of another version: all it can be understood to say is that this engine has been replaced.
async fn listen_to_stranger(desk: &Rc<Desk>, mut link: Receiver) -> io::Result<()> {
    while let Ok(Some(message)) = link.next().await {
        if message == ToEngine::Retire {
            desk.retire();
        }
    }
    Ok(())
}

fn refused(status: u16, reason: String) -> FromEngine {
    FromEngine::Refused { status, reason, by_quota: false }
}

fn no_handler(name: &str) -> FromEngine {
    refused(500, format!("it has no handler {name}"))
}

impl Desk {
    /// Decides on an offer; a grant counts as a session from now on.
    async fn consider(&self, mut spec: SessionSpec, granted: &Granted) -> FromEngine {
        let Some(handler) = self.handlers.find(&spec.handler.name) else {
            return no_handler(&spec.handler.name);
        };
        // Before the greeting, which may have somebody else work for the session; and who counts them are the places from now
        // on.
        let mut places = match self.counts.take(std::mem::take(&mut spec.quotas)) {
            Ok(places) => places,
            Err(Quota { scope, max }) => {
                return FromEngine::Refused { status: 503, reason: format!("{scope}: {max} are open"), by_quota: true };
            }
        };
        let taken = self.engine.sockets() as u64
            + self.granted.get()
            + self.links.get()
            + u64::from(self.counts.taken(DESCRIPTORS))
            + u64::from(self.counts.taken(TRUNKS))
            + self.engine.logs().count() as u64;
        if taken >= self.capacity {
            if !self.full.replace(true) {
                warn!("WS0117: full: {taken} descriptors are in use; raise the limit of open files (ulimit -Hn)");
            }
            return refused(503, "its limit of open files is reached".into());
        }
        self.full.set(false);
        let reserved = Reserved::new(&self.granted);
        let Welcome { headers, link, reply, descriptors } = match handler.greet(&mut spec) {
            Some(greeting) => match greeting.await {
                Ok(welcome) => welcome,
                Err(Unwelcome::Refused(Refused { status, reason })) => return refused(status, reason),
                Err(Unwelcome::Declined) => return FromEngine::Declined,
                Err(Unwelcome::Dropped) => return FromEngine::Dropped,
            },
            None => Welcome::default(),
        };
        if self.ending.borrow().is_some() {
            return refused(503, "it is ending".into());
        }
        let more = descriptors + u32::from(link.is_some());
        places.extend((0..more).filter_map(|_| self.counted(DESCRIPTORS)));
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        reserved.keep();
        let thread = self.engine.choose(ticket);
        granted.borrow_mut().insert(ticket, Seat { spec, places, link, thread });
        FromEngine::Granted { ticket, headers, reply, thread: thread as u32 }
    }

    /// A descriptor in this count.
    fn counted(&self, scope: &str) -> Option<Place> {
        self.counts.take(vec![Quota { scope: scope.into(), max: u32::MAX }]).unwrap_or_default().pop()
    }

    /// What was kept for the session that comes now.
    fn seat(&self, granted: &Granted, ticket: u64) -> io::Result<Seat> {
        let seat = granted.borrow_mut().remove(&ticket);
        let seat = seat.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no ticket {ticket}")))?;
        self.granted.set(self.granted.get() - 1);
        Ok(seat)
    }

    fn begin(&self, ticket: u64, seat: Seat, socket: Source, early: Vec<u8>) {
        let Seat { spec, places, link, .. } = seat;
        debug!("WS0102: session {ticket} begins: {} for {} from {}", spec.handler.name, spec.uri, spec.client);
        self.engine.adopt(Adoption { socket, spec, early, id: ticket, places, link });
        if let Some(frame) = &*self.ending.borrow() {
            self.engine.close(ticket, frame);
        }
    }

    fn lay(&self, thread: u32, trunk: OwnedFd) -> FromEngine {
        let number = self.next_trunk.get();
        self.next_trunk.set(number + 1);
        let laid = self.counted(TRUNKS).is_some_and(|place| self.engine.lay(thread as usize, number, trunk, place));
        if laid { FromEngine::Trunk { number } } else { refused(500, format!("it has no thread {thread}")) }
    }

    async fn call(&self, name: &str, request: Vec<u8>) -> FromEngine {
        let Some(handler) = self.handlers.find(name) else { return no_handler(name) };
        match handler.call(request).await {
            Ok(answer) => FromEngine::Answer { answer },
            Err(Refused { status, reason }) => refused(status, reason),
        }
    }

    /// Another engine takes the new sessions. Children of the old configuration may still bring some.
    fn retire(self: &Rc<Self>) {
        info!("WS0106: replaced by an engine of another version; {} sessions are open", self.engine.connections());
        let desk = self.clone();
        tokio::task::spawn_local(async move {
            // A session whose 101 is on its way is not there yet.
            let quiet = async {
                while desk.engine.connections() > 0 || desk.granted.get() > 0 {
                    desk.engine.empty().await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let _ = tokio::time::timeout(RETIREMENT, quiet).await;
            desk.end(close(CloseCode::Restart, "server was replaced")).await;
            desk.over.notify_one();
        });
    }

    /// Closes every session with this frame, and takes no more.
    async fn end(&self, frame: CloseFrame) {
        *self.ending.borrow_mut() = Some(frame.clone());
        self.engine.drain(frame, DRAIN_LIMIT).await;
        let mut ends = JoinSet::new();
        for handler in self.handlers.all() {
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
