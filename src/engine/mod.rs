//! The engine: it owns every open session, on a few threads. It knows neither Apache nor its configuration: what a
//! session needs travels with it as a [`SessionSpec`].
//!
//! * [`process`]: the process that httpd's parent forks; its signals, its end
//! * [`control`]: what httpd's parent says to it
//! * [`entrance`]: how httpd's children open links to it
//! * [`handoff_server`]: where the children come with their sessions: offers, quotas, session ids
//! * [`handoff`]: how an httpd child gives a socket away; both ends of the protocol
//! * [`thread`]: an engine thread: one tokio current-thread runtime with the connections pinned to it
//! * `session_task`: a session from its begin to its end
//! * [`kept_spec`]: what is known of it meanwhile; [`interned`]: of that, what many sessions have alike
//! * [`connection`]: one connection, as a handler sees it
//! * [`codec`]: what is spoken on it
//! * [`summary`]: what there is to say about one that has ended
//! * [`writer`]: the way to its client, for the connection and for those who have something for many
//! * [`raw`]: one whose bytes are somebody else's
//! * [`socket`]: its byte stream
//! * [`crate::tls`]: one that httpd has opened with TLS
//! * [`mux_task`]: the engine's end of a [`crate::mux`], where a child of httpd stays in between
//! * [`write_queue`]: what is on its way to one client
//! * [`bridge`]: messages between a client and somebody behind its handler
//! * [`broadcast`]: a message for many, encoded once
//! * [`handle`]: how others reach a connection
//! * [`application`]: the application behind httpd, which decides over sessions
//! * `liveness`: whether a session is to go on; `timer`: the clock of a thread, which looks at that
//! * [`memory`]: what sockets hold, and the bound on it
//! * [`session_ids`]: the ids of sessions
//! * [`backoff`]: how long nobody tries again what has failed
//! * [`metrics`]: what is counted; [`query`]: what is asked of all threads
//! * [`programs`]: what holds for all programs that handlers start
//! * [`revocation`]: what is taken back from sessions that are open
//! * [`quota`]: of which sessions there may be only so many
//! * [`handler`]: what the handlers implement
//! * [`session_log`]: the session logs that are open, and the line that a session leaves there
//! * [`health`]: the engine's signs of life, and what a child passes before it asks
//!
//! [`Engine::adopt`] is the only door in.

pub mod application;
pub mod backoff;
pub mod bridge;
pub mod broadcast;
pub mod codec;
pub mod connection;
pub mod control;
pub(crate) mod entrance;
pub(crate) mod handle;
pub mod handler;
pub mod handoff;
pub(crate) mod handoff_server;
pub(crate) mod health;
pub mod interned;
pub mod kept_spec;
mod liveness;
pub mod memory;
pub(crate) mod metrics;
pub(crate) mod mux_task;
pub(crate) mod process;
pub mod programs;
pub(crate) mod query;
pub(crate) mod quota;
pub mod raw;
pub mod revocation;
pub mod session_ids;
pub(crate) mod session_log;
mod session_task;
pub(crate) mod socket;
pub mod spec;
pub mod summary;
pub(crate) mod thread;
pub(crate) mod timer;
pub(crate) mod turns;
pub(crate) mod write_queue;
pub(crate) mod writer;

pub use broadcast::{Batch, Broadcast};
pub use connection::Conn;
pub use handler::{
    Accepted, ForeignRefusal, Handler, HandlerSession, LocalBoxFuture, MessageSession, Refused, Registry, Rejection,
    Response, StreamSession, Streams,
};
pub use kept_spec::KeptSpec;
pub use raw::{RawStream, RawSummary};
pub use spec::{HandlerSpec, Limits, LogSpec, MessageTimeout, Ping, Quota, SessionSpec};

use crate::tls::record::Keys;
use crate::wire::CloseFrame;
use health::signals::Signals;
use memory::{Bound, Memory};
use metrics::EngineArea;
use metrics::board::Reserve;
use revocation::Directory;
use session_log::SessionLogs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thread::{NewMux, Task, Thread, ThreadCommand};

/// What is handed to the engine: an open stream whose opening handshake is done.
pub struct Adoption {
    /// Where its bytes come from.
    pub socket: SessionSource,
    /// All that is known of the session.
    pub spec: SessionSpec,
    /// Bytes that the client sent after its handshake and that were read already.
    pub early: Vec<u8>,
    /// The session's number, as log lines name it. No other session of the engine has it.
    pub id: u64,
    /// What the session takes of its quotas, until it has ended.
    pub places: Vec<quota::Place>,
    /// A stream to the process that the session came from, for a handler whose other half is there.
    pub link: Option<OwnedFd>,
    /// The connection to the server that httpd has proxied the session to.
    pub backend: Option<Box<BackendStream>>,
    /// The handler that has accepted it.
    pub handler: health::heartbeat::HandlerNumber,
    /// What it has accepted it with.
    pub session: HandlerSession,
}

/// The connection of a session to a server behind httpd, which was httpd's as a client.
pub struct BackendStream {
    /// Where its bytes come from.
    pub source: SessionSource,
    /// Bytes that the server sent after its 101 and that were read already.
    pub early: Vec<u8>,
    /// What else the handler is told, in a form of its own.
    pub settings: Vec<u8>,
}

/// Where the bytes of a session come from.
#[derive(Debug)]
pub enum SessionSource {
    /// A connected stream socket of any family.
    Socket(OwnedFd),
    /// A TCP connection, and what its TLS goes on with.
    Tls(OwnedFd, Box<Keys>),
    /// The stream with the session's number of the mux of this number, which the thread that it is for was told of before.
    Mux(u64),
    /// A client's connection whose opening handshake is not answered yet.
    Unanswered(Box<Unanswered>),
}

/// A TCP connection of a client, which does not block and delays nothing; and what is said on it first.
#[derive(Debug)]
pub struct Unanswered {
    /// The connection.
    pub socket: OwnedFd,
    /// It has TLS on it, which goes on with these.
    pub tls: Option<Box<Keys>>,
    /// The 101.
    pub head: Vec<u8>,
}

impl From<OwnedFd> for SessionSource {
    fn from(socket: OwnedFd) -> SessionSource {
        SessionSource::Socket(socket)
    }
}

impl From<UnixStream> for SessionSource {
    fn from(socket: UnixStream) -> SessionSource {
        SessionSource::Socket(socket.into())
    }
}

/// The engine's threads.
pub struct Engine {
    threads: Vec<Thread>,
    ended: Arc<tokio::sync::Notify>,
    logs: Arc<SessionLogs>,
    turn: AtomicUsize,
    memory: Arc<Memory>,
    directory: Arc<Directory>,
    metrics: Arc<Reserve>,
}

impl Engine {
    /// Starts `threads` engine threads (at least one), whose sockets hold no more memory than that.
    ///
    /// # Errors
    /// The system refuses a thread or an epoll instance.
    pub fn start(threads: usize, memory: Bound) -> io::Result<Engine> {
        Engine::start_watched(threads, memory, Signals::private(), EngineArea::private(threads.max(1)))
    }

    /// As [`Engine::start`], with threads that give signs of life and count there.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_watched(threads: usize, memory: Bound, signals: Signals, metrics: EngineArea) -> io::Result<Engine> {
        let ended = Arc::new(tokio::sync::Notify::new());
        let logs = Arc::new(SessionLogs::default());
        let memory = Memory::new(threads.max(1), memory);
        let directory = Arc::<Directory>::default();
        metrics.begin(threads.max(1));
        let metrics = Arc::new(Reserve::new(metrics));
        let start = |number| {
            let (memory, directory) = (memory.clone(), directory.clone());
            Thread::start(number, signals, logs.clone(), ended.clone(), memory, directory, &metrics)
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Engine { threads, ended, logs, turn: AtomicUsize::new(0), memory, directory, metrics })
    }

    /// Takes over a stream, on the thread of that number. The session runs until it ends by itself, or the engine is drained or
    /// dropped.
    pub fn adopt(&self, thread: usize, adoption: Adoption) {
        if let Some(thread) = self.threads.get(thread) {
            thread.tell(ThreadCommand::Adopt(Box::new(adoption)));
        }
    }

    /// Has a thread do this beside its sessions; the threads take turns.
    pub fn spread(&self, task: Task) {
        self.threads[self.next()].tell(ThreadCommand::Run(task));
    }

    /// The number of the thread whose turn it is: of those that run.
    fn next(&self) -> usize {
        let turns = (0..self.threads.len()).map(|_| self.turn.fetch_add(1, Ordering::Relaxed) % self.threads.len());
        { turns }.find(|number| self.threads[*number].is_running()).unwrap_or(0)
    }

    /// The number of the thread that is to have the next session: the one where it is now, unless another has fewer sessions
    /// by so many that the way there is worth it.
    pub fn choose(&self, here: usize) -> usize {
        let running = self.threads.iter().enumerate().filter(|(_, thread)| thread.is_running());
        let fewest = running.min_by_key(|(_, thread)| thread.connections());
        let Some((fewest, least)) = fewest.map(|(number, thread)| (number, thread.connections())) else { return here };
        let own = self.threads.get(here).filter(|thread| thread.is_running());
        if own.is_some_and(|thread| thread.connections() <= least + 1 + least / 16) { here } else { fewest }
    }

    /// Gives a mux to this thread. False where there is no such thread.
    pub fn open_mux(&self, thread: usize, new: NewMux) -> bool {
        let Some(thread) = self.threads.get(thread) else { return false };
        thread.tell(ThreadCommand::OpenMux(Box::new(new)));
        true
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Has the thread of this number do this beside its sessions.
    pub fn run_on(&self, thread: usize, task: Task) {
        self.threads[thread].tell(ThreadCommand::Run(task));
    }

    /// What is counted.
    pub fn metrics(&self) -> EngineArea {
        self.metrics.area()
    }

    /// The account of what sockets hold.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// How sessions are found by their names.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The session logs: none at first.
    pub fn logs(&self) -> &SessionLogs {
        &self.logs
    }

    /// Sessions that are open now.
    pub fn connections(&self) -> usize {
        self.threads.iter().map(Thread::connections).sum()
    }

    /// Those of them that have a socket of their own.
    pub fn sockets(&self) -> usize {
        self.threads.iter().map(Thread::sockets).sum()
    }

    /// Completes when no session is open.
    pub async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.connections() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Closes the session of this number with this frame, if it is open.
    pub fn close(&self, id: u64, frame: &CloseFrame) {
        // Which thread has it, only the threads know.
        for thread in &self.threads {
            thread.tell(ThreadCommand::Close(id, frame.clone()));
        }
    }

    /// Closes every session with this frame, and returns when all have ended or `limit` has passed. What is left then
    /// ends with the process.
    pub async fn drain(&self, frame: CloseFrame, limit: Duration) {
        for thread in &self.threads {
            thread.tell(ThreadCommand::CloseAll(frame.clone()));
        }
        // Whoever is late is told of in the log by the caller, who can count.
        let _ = tokio::time::timeout(limit, self.empty()).await;
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
