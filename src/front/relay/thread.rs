//! The relay thread of a child, as others see it: it moves the bytes of all its suspended connections.

use super::Parked;
use super::ending::LAST_WORDS;
use super::event_loop::{self, WAKE};
use super::mux::{MuxSocket, Muxes};
use crate::apache::log::{self, Level};
use crate::apache::process;
use crate::apache::suspended::Suspended;
use crate::engine::handoff::{HandoffError, Link};
use rustix::event::{EventfdFlags, epoll, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub struct Relay {
    pub(super) wake: OwnedFd,
    inbox: Mutex<Inbox>,
    pub(super) emptied: Condvar,
    muxes: Muxes,
    /// Held by the thread while it touches connections.
    pub(super) at_work: Mutex<()>,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) opened: Vec<Arc<MuxSocket>>,
    pub(super) new: Vec<(Suspended, Parked)>,
    /// Muxes and sessions of streams that nobody wants.
    pub(super) unwanted: Vec<(Arc<MuxSocket>, u64)>,
    /// How many connections the thread has, those in `new` included.
    pub(super) count: usize,
    /// Connections whose holds are over, or were when it was noted.
    pub(super) done: Vec<usize>,
}

impl Relay {
    /// Starts the thread of this child.
    ///
    /// # Errors
    /// The system refuses the thread, an epoll instance or an eventfd.
    pub fn start() -> io::Result<&'static Relay> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        // As long as the process: the thread has no end of its own.
        let relay: &'static Relay = Box::leak(Box::new(Relay {
            wake,
            inbox: Mutex::default(),
            emptied: Condvar::new(),
            muxes: Muxes::default(),
            at_work: Mutex::new(()),
        }));
        std::thread::Builder::new().name("ws-relay".into()).spawn(move || {
            process::block_signals();
            // Without its relay thread this child serves no TLS session, and cannot end: httpd is to replace it.
            if catch_unwind(AssertUnwindSafe(|| event_loop::run(relay, epoll))).is_err() {
                log::main(Level::Critical, "WS0305: the relay thread panicked: this child of httpd ends");
                std::process::abort();
            }
        })?;
        Ok(relay)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the thread wakes anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes over a connection, after the MPM has let go of it.
    pub fn adopt(&self, request: Suspended, parked: Parked) {
        let mut inbox = self.inbox();
        inbox.new.push((request, parked));
        inbox.count += 1;
        drop(inbox);
        self.wake();
    }

    /// The mux to that engine thread, opened over `link` if there is none.
    ///
    /// # Errors
    /// As [`Muxes::to`].
    pub fn mux(&self, thread: u32, link: &mut Link) -> Result<Arc<MuxSocket>, HandoffError> {
        self.muxes.to(thread, link, |wire| {
            self.inbox().opened.push(wire);
            self.wake();
        })
    }

    /// The connection of that session will not come.
    pub fn close_stream(&self, mux: Arc<MuxSocket>, session: u64) {
        self.inbox().unwanted.push((mux, session));
        self.wake();
    }

    /// Nobody holds the request of that connection any more.
    pub fn hold_is_over(&self, key: usize) {
        self.inbox().done.push(key);
        self.wake();
    }

    /// This child ends now: every session is closed. Returns when they are, or after some seconds.
    pub fn stop_now(&self) {
        let mut inbox = self.inbox();
        self.wake();
        let last = Instant::now() + LAST_WORDS;
        while inbox.count > 0 {
            let left = last.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inbox = self.emptied.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The memory of the connections goes: returns when the thread touches none, and lets it never touch one again.
    pub fn halt(&self) {
        std::mem::forget(self.at_work.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// This child ends when its connections have: the thread is to look at its deadlines.
    pub fn stop_gracefully(&self) {
        self.wake();
    }
}
