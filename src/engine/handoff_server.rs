//! Where httpd's children come with their sessions. Each link is served by one engine thread, and most of its sessions stay
//! there: a handshake wakes that thread and no other.

mod opening;

use super::handoff::{self, FromEngine, ProxiedBackend, Receiver, ToEngine};
use super::health::heartbeat::{self, Activity, HandlerNumber};
use super::metrics::Gauge;
use super::mux_task as carrier;
use super::programs;
use super::query::Query;
use super::quota::{Counts, Place};
use super::session_ids::SessionIds;
use super::thread::{NewMux, ThreadHandle};
use super::{
    Accepted, Adoption, BackendStream, Engine, HandlerSession, Quota, Refused, Registry, Rejection, Response,
    SessionSource, SessionSpec, Unanswered,
};
use crate::tls::record::Keys;
use crate::wire::{CloseCode, CloseFrame, close};
use bytes::Bytes;
use log::{debug, info, warn};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How long a session that was granted may take to come: httpd writes the 101 meanwhile, for which its `Timeout` holds.
pub const GRANT_TIME: Duration = Duration::from_secs(360);
/// Grants that may wait in a link: there is one handshake at a time, and some may be lost.
const GRANTS: usize = 16;

/// What counts the descriptors that handlers have for sessions: see [`Accepted::descriptors`].
const DESCRIPTORS: &str = "descriptors of sessions";
/// What counts those of muxes.
const MUXES: &str = "muxes";

/// What the links of the children share.
pub struct HandoffServer {
    pub engine: Engine,
    /// What they are run by.
    pub handlers: Arc<Registry>,
    /// Sessions that the descriptors suffice for.
    capacity: u64,
    links: Arc<AtomicU64>,
    /// Sessions that were granted and have not come.
    granted: Arc<AtomicU64>,
    /// Sessions of each quota, granted or open.
    counts: Arc<Counts>,
    ids: SessionIds,
    grant_time: Duration,
    next_mux: AtomicU64,
    /// What every session is closed with, when the end has come: those that arrive late, too.
    ending: Mutex<Option<CloseFrame>>,
    /// The last refusal for want of descriptors was logged, and nothing was granted since.
    full: AtomicBool,
}

/// Serves a link, until its other end closes it, on one of the engine's threads.
pub fn serve(server: &Arc<HandoffServer>, stream: UnixStream) {
    if server.links.load(Ordering::Relaxed) >= server.capacity / 2 {
        // Its other end hears of it. There are more children than any configuration has.
        return warn!("WS0153: a child's link was closed: links have half of the engine's descriptors");
    }
    // The threads end when the server does, and the links with them.
    let weak = Arc::downgrade(server);
    server.engine.spread(Box::new(move |here| Box::pin(serve_link(weak, stream, here))));
}

async fn serve_link(server: Weak<HandoffServer>, stream: UnixStream, here: ThreadHandle) {
    let stream = match Receiver::new(stream) {
        Ok(stream) => stream,
        Err(e) => return warn!("WS0109: a handoff link cannot be watched: {e}"),
    };
    let Some(counted) = server.upgrade().map(|server| CountGuard::of(&server.links)) else { return };
    let mut link = ServedLink { stream, here, granted: HashMap::new() };
    match link.listen(&server).await {
        // The child has ended, or has not waited for the answer.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => debug!("WS0172: nobody waits for an answer any more"),
        Err(e) => warn!("WS0116: a handoff link broke: {e}"),
        Ok(()) => {}
    }
    drop((link, counted));
}

/// One in a count, until dropped.
struct CountGuard(Arc<AtomicU64>);

impl CountGuard {
    fn of(count: &Arc<AtomicU64>) -> CountGuard {
        count.fetch_add(1, Ordering::Relaxed);
        CountGuard(count.clone())
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is kept ready for a session that has not come yet.
struct PendingSession {
    spec: SessionSpec,
    places: Vec<Place>,
    handler: HandlerNumber,
    session: HandlerSession,
    thread: usize,
    granted: CountGuard,
    /// It is given up then.
    until: Instant,
}

/// What comes of a session that was granted.
struct Arrived {
    source: SessionSource,
    early: Vec<u8>,
    link: Option<OwnedFd>,
    backend: Option<Box<BackendStream>>,
}

struct ServedLink {
    stream: Receiver,
    here: ThreadHandle,
    granted: HashMap<u64, PendingSession>,
}

impl ServedLink {
    async fn listen(&mut self, weak: &Weak<HandoffServer>) -> io::Result<()> {
        while let Some(message) = self.next().await? {
            let Some(server) = weak.upgrade() else { return Ok(()) };
            match message {
                ToEngine::Hello { version } if version == handoff::version() => {}
                // It is told, and understood no further.
                ToEngine::Hello { .. } => {
                    return self.stream.send(&FromEngine::Hello { version: handoff::version().into() }).await;
                }
                // Whoever asked has given up meanwhile, and nobody hears the answer.
                ToEngine::Offer(_) if self.stream.is_hung_up() => return Ok(()),
                ToEngine::Offer(_) if self.granted.len() >= GRANTS => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "too many grants that nobody takes"));
                }
                ToEngine::Offer(spec) => {
                    let considered = server.consider(*spec, self.here.number());
                    let answer = match await_answer(&mut self.stream, considered).await? {
                        Ok((pending, response)) => {
                            let (id, thread) = (server.ids.next(), pending.thread as u32);
                            self.granted.insert(id, pending);
                            FromEngine::Granted { id, response, thread }
                        }
                        Err(refusal) => refusal,
                    };
                    self.stream.send(&answer).await?;
                }
                ToEngine::Open { spec, head, early, tls } => {
                    let socket = self.stream.descriptor()?;
                    if self.stream.was_hung_up() {
                        return Ok(());
                    }
                    self.open(&server, *spec, Unanswered { socket, tls, head }, early).await?;
                }
                ToEngine::Take { id, early, linked, tls, backend } => {
                    let socket = self.stream.descriptor()?;
                    let link = if linked { Some(self.stream.descriptor()?) } else { None };
                    let backend = self.backend(backend)?;
                    let pending = self.pending(id)?;
                    let arrived = Arrived { source: source(socket, tls), early, link, backend };
                    self.begin(&server, id, pending, arrived);
                }
                ToEngine::Carry { id, mux: number, backend } => {
                    let backend = self.backend(backend)?;
                    let pending = self.pending(id)?;
                    let source = SessionSource::Mux(number);
                    self.begin(&server, id, pending, Arrived { source, early: Vec::new(), link: None, backend });
                }
                ToEngine::Mux { thread } => {
                    let mux = self.stream.descriptor()?;
                    let answer = self.open_mux(&server, thread as usize, mux);
                    self.stream.send(&answer).await?;
                }
                ToEngine::Abandon { id } => drop(self.granted.remove(&id)),
                ToEngine::Close { id, code, reason } => {
                    // RFC 6455 section 7.4.1: some codes stand for what no Close frame may say.
                    let code = Some(CloseCode::from(code)).filter(|code| code.is_allowed()).unwrap_or(CloseCode::Away);
                    server.engine.close(id, &close(code, &reason));
                }
                ToEngine::Call { handler, request, payload } => {
                    let held = server.engine.memory().take(request.len() + payload.len());
                    let answer = match held {
                        Some(_) => await_answer(&mut self.stream, server.call(&handler, request, payload)).await?,
                        None => refused(503, "no memory is left for it (WebSocketMemory)".into()),
                    };
                    drop(held);
                    self.stream.send(&answer).await?;
                }
                ToEngine::Query(query) => {
                    let answer = await_answer(&mut self.stream, server.answer(query)).await?;
                    self.stream.send(&FromEngine::Answer { answer }).await?;
                }
            }
        }
        Ok(())
    }

    /// The next message; grants that nobody has taken for long are given up meanwhile.
    async fn next(&mut self) -> io::Result<Option<ToEngine>> {
        loop {
            let Some(until) = self.granted.values().map(|pending| pending.until).min() else {
                return self.stream.next().await;
            };
            if let Ok(message) = tokio::time::timeout_at(until, self.stream.next()).await {
                return message;
            }
            self.granted.retain(|id, pending| {
                let waits = pending.until > Instant::now();
                if !waits {
                    info!("WS0154: session {id} was granted but never arrived: its place is free again");
                }
                waits
            });
        }
    }

    /// What was kept for the session that comes now.
    fn pending(&mut self, id: u64) -> io::Result<PendingSession> {
        let pending = self.granted.remove(&id);
        pending.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no session {id} was granted")))
    }

    /// The server's side of a session that was proxied.
    fn backend(&mut self, backend: Option<Box<ProxiedBackend>>) -> io::Result<Option<Box<BackendStream>>> {
        let Some(backend) = backend else { return Ok(None) };
        let ProxiedBackend { early, tls, settings } = *backend;
        let source = source(self.stream.descriptor()?, tls);
        Ok(Some(Box::new(BackendStream { source, early, settings })))
    }

    fn open_mux(&self, server: &HandoffServer, thread: usize, mux: OwnedFd) -> FromEngine {
        let number = server.next_mux.fetch_add(1, Ordering::Relaxed);
        let new = NewMux { number, mux, places: server.counted(MUXES, carrier::DESCRIPTORS) };
        // Before anything else comes over this link, in which case a session may be the first to look for it.
        if thread == self.here.number() {
            self.here.open_mux(new);
        } else if !server.engine.open_mux(thread, new) {
            return refused(500, format!("it has no thread {thread}"));
        }
        FromEngine::Mux { number }
    }

    fn begin(&self, server: &HandoffServer, id: u64, pending: PendingSession, arrived: Arrived) {
        let Arrived { source: socket, early, link, backend } = arrived;
        let PendingSession { spec, places, handler, session, thread, granted, .. } = pending;
        debug!("WS0102: session {id} begins: {} for {} from {}", spec.handler.name, spec.uri, spec.client);
        let adoption = Adoption { socket, spec, early, id, places, link, backend, handler, session };
        if thread == self.here.number() {
            self.here.adopt(adoption);
        } else {
            server.engine.adopt(thread, adoption);
        }
        // Not before it counts as open.
        drop(granted);
        if let Some(frame) = &*server.ending() {
            server.engine.close(id, frame);
        }
    }
}

/// The bytes of this socket, which may have TLS on it.
fn source(socket: OwnedFd, tls: Option<Box<Keys>>) -> SessionSource {
    match tls {
        Some(keys) => {
            keep_to_itself();
            SessionSource::Tls(socket, keys)
        }
        None => SessionSource::Socket(socket),
    }
}

/// Now there are keys in this process: its memory is nobody's business, and goes into no core file, even where
/// `CoreDumpDirectory` has allowed that to httpd's processes.
fn keep_to_itself() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(why) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            warn!("WS0152: other processes of this user may read the keys of TLS connections: {why}");
        }
    });
}

/// What becomes of a question. Where that takes its time, since somebody else is asked, the child is told: it waits differently
/// then.
async fn await_answer<T>(stream: &mut Receiver, answer: impl Future<Output = T>) -> io::Result<T> {
    let mut answer = pin!(answer);
    match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => {
            stream.send(&FromEngine::Asking).await?;
            Ok(answer.await)
        }
    }
}

fn refused(status: u16, reason: String) -> FromEngine {
    FromEngine::Refused { status, reason, by_quota: false }
}

fn no_handler(name: &str) -> FromEngine {
    refused(500, format!("it has no handler {name}"))
}

impl HandoffServer {
    /// For an engine that may have `capacity` descriptors, where a session may take so long to come.
    pub fn new(engine: Engine, handlers: Arc<Registry>, capacity: u64, grant_time: Duration) -> HandoffServer {
        HandoffServer {
            engine,
            handlers,
            capacity,
            links: Arc::default(),
            granted: Arc::default(),
            counts: Arc::default(),
            ids: SessionIds::default(),
            grant_time,
            next_mux: AtomicU64::new(1),
            ending: Mutex::default(),
            full: AtomicBool::new(false),
        }
    }

    /// Sessions that were granted and have not come.
    pub fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }

    /// The end has come: nothing is granted any more, and a session that comes now is closed with this frame.
    pub fn close(&self, frame: CloseFrame) {
        *self.ending() = Some(frame);
    }

    fn ending(&self) -> MutexGuard<'_, Option<CloseFrame>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on an offer that has come to that thread: what is kept for the session, and what its client is told. A grant
    /// counts as a session from now on.
    async fn consider(
        self: &Arc<Self>,
        mut spec: SessionSpec,
        here: usize,
    ) -> Result<(PendingSession, Response), FromEngine> {
        let handler = self.handlers.find(&spec.handler.name).ok_or_else(|| no_handler(&spec.handler.name))?;
        // Before the handler, which may have somebody else work for the session; and who counts them are the places from now on.
        let mut places = self.counts.take(std::mem::take(&mut spec.quotas)).map_err(|Quota { scope, max }| {
            FromEngine::Refused { status: 503, reason: format!("{scope}: {max} are open"), by_quota: true }
        })?;
        let taken = self.engine.sockets() as u64
            + self.granted()
            + self.links.load(Ordering::Relaxed)
            + u64::from(self.counts.taken(DESCRIPTORS))
            + u64::from(self.counts.taken(MUXES))
            + self.engine.logs().count() as u64;
        if taken >= self.capacity {
            if !self.full.swap(true, Ordering::Relaxed) {
                warn!(
                    "WS0117: full: {taken} descriptors are in use; raise the limit of open files (LimitNOFILE= of httpd's \
                     unit; on Debian APACHE_ULIMIT_MAX_FILES in envvars, too; else ulimit -Hn)"
                );
            }
            return Err(refused(503, "the engine has reached its limit of open files".into()));
        }
        self.full.store(false, Ordering::Relaxed);
        let granted = CountGuard::of(&self.granted);
        let number = self.handlers.number(&spec.handler.name);
        let accepted = heartbeat::during(Activity::Asked, number, handler.accept(&spec)).await;
        let Accepted { response, session, descriptors, user, expires } =
            accepted.map_err(|rejection| match rejection {
                Rejection::Refused(Refused { status, reason }) => refused(status, reason),
                Rejection::Busy(reason) => FromEngine::Refused { status: 503, reason, by_quota: true },
                Rejection::Answered(answer) => FromEngine::Answered(answer),
                Rejection::Declined => FromEngine::Declined,
                Rejection::Dropped => FromEngine::Dropped,
            })?;
        if self.ending().is_some() {
            return Err(refused(503, "the engine is ending".into()));
        }
        places.extend(self.counted(DESCRIPTORS, descriptors));
        // The session has understood them.
        spec.handler.settings = Vec::new();
        spec.protocol = response.protocol(spec.protocol);
        spec.user = user.or(spec.user);
        if let (Some(expires), Some(application)) = (expires, &mut spec.application) {
            application.expires = Some(expires);
        }
        let thread = self.engine.choose(here);
        let until = Instant::now() + self.grant_time;
        Ok((PendingSession { spec, places, handler: number, session, thread, granted, until }, response))
    }

    async fn answer(&self, query: Query) -> Vec<u8> {
        match query {
            Query::Gauges => {
                // One that is late is not waited for: what it has counted is known, and the page says that it is late.
                self.engine.ask_threads(|_| ()).await;
                self.measure();
                Vec::new()
            }
        }
    }

    /// Brings the gauges up to date.
    pub fn measure(&self) {
        let (gauges, memory) = (self.engine.metrics(), self.engine.memory());
        gauges.set(Gauge::OpenFiles, programs::open_files());
        gauges.set(Gauge::MaxFiles, programs::file_limit());
        gauges.set(Gauge::Memory, memory.held() as u64);
        gauges.set(Gauge::MaxMemory, memory.limit() as u64);
        gauges.set(Gauge::SlowConsumers, memory.slow() as u64);
        gauges.set(Gauge::Programs, programs::count() as u64);
        self.handlers.all().for_each(|handler| handler.measure(gauges));
    }

    /// So many descriptors in this count.
    fn counted(&self, scope: &str, count: u32) -> Vec<Place> {
        let one = || Quota { scope: scope.into(), max: u32::MAX };
        self.counts.take((0..count).map(|_| one()).collect()).unwrap_or_default()
    }

    async fn call(&self, name: &str, request: Vec<u8>, payload: Bytes) -> FromEngine {
        let Some(handler) = self.handlers.find(name) else { return no_handler(name) };
        match heartbeat::during(Activity::Asked, self.handlers.number(name), handler.call(request, payload)).await {
            Ok(answer) => FromEngine::Answer { answer },
            Err(Refused { status, reason }) => refused(status, reason),
        }
    }
}
