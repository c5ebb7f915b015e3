//! What the tests of the engine and of handlers share: an engine with its handlers, over socketpairs, and its clients.

use super::memory::Bound;
use super::quota::Place;
use super::*;
use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

pub type Client = WebSocket<Uninterrupted>;

/// A read with a timeout is ended by every signal of the process (signal(7)), and other tests have children that end.
#[derive(Debug)]
pub struct Uninterrupted(UnixStream);

impl Uninterrupted {
    fn again<T>(&self, mut step: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match step(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl Deref for Uninterrupted {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        &self.0
    }
}

impl Read for Uninterrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.again(|mut stream| stream.read(buffer))
    }
}

impl Write for Uninterrupted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.again(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A wait that is longer than anything here takes, unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A session of this handler, with a short closing handshake.
pub fn spec(handler: &str) -> SessionSpec {
    SessionSpec {
        handler: HandlerSpec { name: handler.into(), ..HandlerSpec::default() },
        limits: Limits { close_timeout: Duration::from_millis(200), ..Limits::default() },
        client: "192.0.2.1".into(),
        server: "localhost".into(),
        uri: "/".into(),
        ..SessionSpec::default()
    }
}

pub fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, theirs)
}

pub fn websocket(stream: UnixStream) -> Client {
    WebSocket::from_raw_socket(Uninterrupted(stream), Role::Client, None)
}

/// A handler whose sessions are this function.
#[derive(Clone, Copy)]
pub struct Scripted(pub fn(&mut Conn) -> LocalBoxFuture<'_, CloseFrame>);

impl Handler for Scripted {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async { Ok(Accepted::messages(*self)) })
    }
}

impl MessageSession for Scripted {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        self.0(conn)
    }
}

/// An engine, and what accepts its sessions.
pub struct TestEngine {
    engine: Engine,
    pub handlers: Registry,
    runtime: tokio::runtime::Runtime,
}

/// What malloc(3) takes for so many bytes: eight of its own, and a multiple of 16.
pub fn chunk(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

impl Deref for TestEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl TestEngine {
    pub fn start(threads: usize, handlers: Registry, memory: Bound) -> TestEngine {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = Engine::start(threads, memory).unwrap();
        handlers.all().for_each(|handler| handler.connect(engine.directory()));
        TestEngine { engine, handlers, runtime }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn accept(&self, spec: &SessionSpec) -> Result<Accepted, Rejection> {
        let handler = self.handlers.find(&spec.handler.name).unwrap();
        self.block_on(handler.accept(spec))
    }

    /// Runs what was accepted; returns its number.
    pub fn run(
        &self,
        socket: impl Into<SessionSource>,
        spec: SessionSpec,
        accepted: Accepted,
        early: Vec<u8>,
        places: Vec<Place>,
    ) -> u64 {
        self.run_before(socket, None, spec, accepted, early, places)
    }

    /// As [`TestEngine::run`], with the connection to a server behind.
    pub fn run_before(
        &self,
        socket: impl Into<SessionSource>,
        backend: Option<Box<BackendStream>>,
        spec: SessionSpec,
        accepted: Accepted,
        early: Vec<u8>,
        places: Vec<Place>,
    ) -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let (handler, session) = (self.handlers.number(&spec.handler.name), accepted.session);
        let adoption =
            Adoption { socket: socket.into(), spec, early, id, places, link: None, backend, handler, session };
        self.adopt(self.choose(self.next()), adoption);
        id
    }

    /// A session of this kind that is accepted: its number and its client.
    pub fn session_of(&self, spec: SessionSpec) -> (u64, Client) {
        let accepted = self.accept(&spec).unwrap();
        let (ours, theirs) = pair();
        (self.run(theirs, spec, accepted, vec![], vec![]), websocket(ours))
    }

    pub fn session(&self, handler: &str) -> Client {
        self.session_of(spec(handler)).1
    }

    pub fn wait_for(&self, connections: usize) {
        let start = Instant::now();
        while self.connections() != connections {
            assert!(start.elapsed() < PATIENCE, "{} connections and not {connections}", self.connections());
            std::thread::yield_now();
        }
    }
}
