//! One session of a plugin, as the httpd child sees it.

use super::abi::{Callback, Object, Plugin, Private};
use super::executor::Executor;
use super::receive_queue::ReceiveQueue;
use super::send_queue::SendQueue;
use super::watchdog::{self, Caller};
use crate::apache::log::{self, Level};
use crate::apache::request::{Request, RequestRef};
use crate::front::child;
use crate::front::relay::hold::{RequestHold, Waiter};
use crate::handlers::plugin::session::MessageKind;
use crate::wire::handshake::is_token;
use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes that may wait in this process for the engine to take them. While more wait, the plugin gets no further message of
/// this connection, and threads of its own wait in `send`.
const LIMIT: usize = 256 * 1024;
/// Messages that a connection gets at a time, if others wait.
const BATCH: usize = 32;

/// What a plugin has said about the 101.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) headers: Vec<(CString, CString)>,
    pub(super) protocol: Option<CString>,
}

pub(super) struct ConnectionState {
    outbound: SendQueue,
    /// Until the 101 is made.
    pub(super) answer: Option<Box<Answer>>,
    /// `send` takes nothing any more.
    closing: bool,
    /// The engine has said all, and gets what waits, and then the end.
    ending: bool,
    /// The next message waits until less waits for the engine.
    gated: bool,
    /// `on_disconnect` has returned.
    over: bool,
    /// Threads that wait in `send`.
    senders: usize,
    /// It was logged that a text is none.
    complained: bool,
}

pub(super) enum Turn {
    /// Nothing is to be done until something happens.
    Idle,
    Again,
    /// `on_disconnect` has returned.
    Over,
}

const IDLE: u8 = 0;
/// It waits for a thread of the executor, or has one.
const QUEUED: u8 = 1;
/// So, and something has happened since.
const AGAIN: u8 = 2;

pub struct PluginConnection {
    pub(super) executor: &'static Executor,
    pub(super) plugin: Arc<Plugin>,
    pub(super) object: &'static Object,
    /// What `on_connect` has returned; nothing where it has refused.
    pub(super) private: OnceLock<Private>,
    /// The session's number; 0 before the engine has given it one.
    pub(super) session: AtomicU64,
    request: Mutex<Option<RequestRef>>,
    offered: Vec<CString>,
    /// Bytes that may wait for a client where others send to it without waiting.
    send_buffer: usize,
    pub(super) state: Mutex<ConnectionState>,
    room: Condvar,
    pub(super) link: OnceLock<UnixStream>,
    key: AtomicU64,
    turn: AtomicU8,
    inbound: Mutex<ReceiveQueue>,
    over: AtomicBool,
    waiter: Mutex<Option<Waiter>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PluginConnection {
    /// Of a request whose plugin has yet to be asked.
    pub(super) fn new(
        executor: &'static Executor,
        plugin: &Arc<Plugin>,
        request: &mut Request,
        offered: &[String],
        send_buffer: usize,
    ) -> Arc<PluginConnection> {
        let object = Object::take();
        let state = ConnectionState {
            outbound: SendQueue::default(),
            answer: Some(Box::default()),
            closing: false,
            ending: false,
            gated: false,
            over: false,
            senders: 0,
            complained: false,
        };
        Arc::new(PluginConnection {
            executor,
            plugin: plugin.clone(),
            object,
            private: OnceLock::new(),
            session: AtomicU64::new(0),
            request: Mutex::new(Some(request.keep())),
            // Tokens have no NUL in them.
            offered: offered.iter().filter_map(|name| CString::new(&**name).ok()).collect(),
            send_buffer,
            state: Mutex::new(state),
            room: Condvar::new(),
            link: OnceLock::new(),
            key: AtomicU64::new(u64::MAX),
            turn: AtomicU8::new(IDLE),
            inbound: Mutex::default(),
            over: AtomicBool::new(false),
            waiter: Mutex::new(None),
        })
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The session's number; 0 when there is none yet.
    pub fn session(&self) -> u64 {
        self.session.load(Ordering::Relaxed)
    }

    /// The request_rec; NULL when the connection is over.
    pub fn request(&self) -> *mut c_void {
        locked(&self.request).as_ref().map_or(std::ptr::null_mut(), RequestRef::as_ptr)
    }

    /// A header line of the request; NULL for none.
    pub fn header(&self, key: &CStr) -> *const c_char {
        locked(&self.request).as_ref().map_or(std::ptr::null(), |request| request.header(key))
    }

    pub fn offered(&self) -> &[CString] {
        &self.offered
    }

    /// Sets a header line of the 101, in `on_connect`; later it does nothing.
    pub fn set_header(&self, key: &CStr, value: &CStr) {
        if key.to_bytes().eq_ignore_ascii_case(b"Sec-WebSocket-Protocol") {
            return self.set_protocol(value);
        }
        let fits =
            key.to_str().is_ok_and(is_token) && !value.to_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        if !fits {
            return self.complain("has set a header line that cannot be one");
        }
        if let Some(answer) = &mut locked(&self.state).answer {
            answer.headers.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Sets the subprotocol, in `on_connect`; later it does nothing.
    pub fn set_protocol(&self, protocol: &CStr) {
        if !protocol.to_str().is_ok_and(is_token) {
            return self.complain("has set a subprotocol that cannot be one");
        }
        if let Some(answer) = &mut locked(&self.state).answer {
            answer.protocol = Some(protocol.to_owned());
        }
    }

    fn complain(&self, what: &str) {
        let session = match self.session() {
            0 => String::new(),
            session => format!(" in session {session}"),
        };
        log::main(Level::Error, &format!("WS0242: the plugin {} {what}{session}", self.plugin.name()));
    }

    /// `send` of the plugin. Returns the size, or 0 when the message goes nowhere.
    ///
    /// A thread of the plugin's own waits here while too much waits for the client. A function that httpd's threads are
    /// in never does: it would hold up others. What it says to its own connection waits here, and the next message to it
    /// with that; another connection that does not keep up is closed with 1013.
    pub fn send(self: &Arc<Self>, kind: MessageKind, payload: &[u8]) -> usize {
        // RFC 6455 section 5.6. The length goes to the engine in 32 bits.
        let fits =
            (kind != MessageKind::Text || std::str::from_utf8(payload).is_ok()) && u32::try_from(payload.len()).is_ok();
        let mut state = locked(&self.state);
        if !fits {
            if !std::mem::replace(&mut state.complained, true) {
                drop(state);
                self.complain("sent text that is not UTF-8, which is refused,");
            }
            return 0;
        }
        match watchdog::caller(self) {
            Caller::Own => {
                while !state.closing && state.outbound.len() > LIMIT {
                    state.senders += 1;
                    state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.senders -= 1;
                }
            }
            Caller::Other if !state.closing && self.is_open() && state.outbound.len() > LIMIT + self.send_buffer => {
                self.refuse_more(&mut state);
                drop(state);
                self.close_slow();
                return 0;
            }
            Caller::Other | Caller::This => {}
        }
        if state.closing {
            return 0;
        }
        if state.outbound.push(self.link.get(), kind, payload).is_err() {
            self.lose(&mut state);
            return 0;
        }
        if kind == MessageKind::Close {
            self.refuse_more(&mut state);
        }
        payload.len()
    }

    fn is_open(&self) -> bool {
        self.link.get().is_some()
    }

    /// From now on `send` takes nothing, and nobody waits in it.
    pub(super) fn refuse_more(&self, state: &mut ConnectionState) {
        state.closing = true;
        self.room.notify_all();
    }

    /// The engine is gone, or has ended the session.
    fn lose(&self, state: &mut ConnectionState) {
        state.outbound.clear();
        self.refuse_more(state);
    }

    fn close_slow(&self) {
        let asked = child::engine_client().map(|engine| engine.close_session(self.session(), 1013, "slow consumer"));
        if !matches!(asked, Some(Ok(()))) {
            self.cut();
        }
    }

    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.link.get().map(AsFd::as_fd)
    }

    pub(super) fn key(&self) -> &AtomicU64 {
        &self.key
    }

    /// Ends the stream to the engine, both ways: the session ends there, and then here.
    pub(super) fn cut(&self) {
        if let Some(link) = self.link.get() {
            // Fails where the other end is gone already.
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    /// The engine has closed its end: what it has sent is still to be read.
    pub(super) fn hung_up(self: &Arc<Self>) {
        let mut state = locked(&self.state);
        self.lose(&mut state);
        self.conclude(&state);
        drop(state);
        self.wake();
    }

    pub(super) fn flush(self: &Arc<Self>) {
        let mut state = locked(&self.state);
        let Some(link) = self.link.get() else { return };
        if state.outbound.flush(link).is_err() {
            self.lose(&mut state);
        }
        if state.outbound.len() <= LIMIT {
            if state.senders > 0 {
                self.room.notify_all();
            }
            if std::mem::take(&mut state.gated) {
                self.wake();
            }
        }
        self.conclude(&state);
    }

    /// After the engine has got all: tells it so, and lets the executor forget this connection.
    fn conclude(&self, state: &ConnectionState) {
        if !state.ending || !state.outbound.is_empty() {
            return;
        }
        if let Some(link) = self.link.get() {
            // Fails where the other end is gone.
            let _ = link.shutdown(Shutdown::Write);
        }
        if state.over {
            self.executor.forget(self);
        }
    }

    /// Something is there to be read, or to be done: a thread of the executor shall look.
    pub(super) fn wake(self: &Arc<Self>) {
        let step = |now| match now {
            IDLE => Some(QUEUED),
            QUEUED => Some(AGAIN),
            _ => None,
        };
        if self.turn.fetch_update(Ordering::AcqRel, Ordering::Acquire, step) == Ok(IDLE) {
            self.executor.queue(self.clone());
        }
    }

    /// A turn on a thread of the executor, which then calls [`PluginConnection::rest`] if nothing is left to do.
    pub(super) fn take_turn(self: &Arc<Self>, buffer: &mut [u8]) -> Turn {
        self.turn.store(QUEUED, Ordering::Release);
        let mut inbound = locked(&self.inbound);
        for _ in 0..BATCH {
            {
                let mut state = locked(&self.state);
                if state.outbound.len() > LIMIT && !state.closing {
                    state.gated = true;
                    return Turn::Idle;
                }
            }
            match inbound.next(self.link.get(), buffer) {
                Ok(Some((kind, mut payload))) => self.deliver(kind, &mut payload),
                Ok(None) => return Turn::Idle,
                Err(why) => {
                    if why.kind() != io::ErrorKind::UnexpectedEof {
                        let text = format!("WS0243: session {}: the link to the engine broke: {why}", self.session());
                        log::main(Level::Debug, &text);
                    }
                    self.end();
                    return Turn::Over;
                }
            }
        }
        Turn::Again
    }

    /// True when nothing has happened since the turn began: the next waits until something does.
    pub(super) fn rest(&self) -> bool {
        self.turn.compare_exchange(QUEUED, IDLE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn deliver(&self, kind: MessageKind, payload: &mut Vec<u8>) {
        let Some(private) = self.private.get() else { return };
        // C code that takes a message for a string does not read beyond it; not counted.
        payload.push(0);
        let length = payload.len() - 1;
        watchdog::call(self, Callback::Message, || {
            self.plugin.on_message(private, self.object, kind == MessageKind::Text, &mut payload[..length]);
        });
    }

    /// The session is over: no more messages come.
    fn end(&self) {
        {
            let mut state = locked(&self.state);
            self.refuse_more(&mut state);
            state.ending = true;
            if let Some(link) = self.link.get()
                && state.outbound.flush(link).is_err()
            {
                self.lose(&mut state);
            }
            self.conclude(&state);
        }
        self.disconnect();
        let mut state = locked(&self.state);
        state.over = true;
        self.conclude(&state);
    }

    /// Tells the plugin, if it has accepted the connection; then nothing of it is the plugin's any more.
    pub(super) fn disconnect(&self) {
        if let Some(private) = self.private.get()
            && self.plugin.has(Callback::Disconnect)
        {
            watchdog::call(self, Callback::Disconnect, || self.plugin.on_disconnect(private, self.object));
        }
        self.release();
    }

    pub(super) fn release(&self) {
        self.object.detach();
        *locked(&self.request) = None;
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        self.executor.count_down();
        if let Some(waiter) = &*locked(&self.waiter) {
            waiter.wake();
        }
    }
}

/// Until the plugin has nothing to do with it any more.
impl RequestHold for PluginConnection {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn wake_at_the_end(&self, waiter: Waiter) {
        *locked(&self.waiter) = Some(waiter);
    }
}
