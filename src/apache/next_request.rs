//! The request that follows on a connection, where its client sends one after the other.

use super::connection::Connection;
use super::request::Request;
use super::{ffi, mpm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::Cell;
use std::ffi::CStr;

const KEY: &CStr = c"mod_websocket next request";
/// How long a worker waits: about what a program needs that has the next message already.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };
/// Requests after which it is tried again with a client that has not come in time.
const TRY_AGAIN: u32 = 64;

/// How many more requests of a connection are not waited for.
struct Pace(Cell<u32>);

/// Waits when it is dropped, which is when the request has been answered and logged.
struct Wait(*mut ffi::conn_rec);

impl Request {
    /// Has the worker wait a moment for what follows on the connection once this request is over, if the client is one that
    /// comes again at once. An asynchronous MPM would have its listener watch the connection and wake a worker: half of what
    /// a small request costs.
    pub fn await_next(&self) {
        let connection = self.connection();
        if connection.is_secondary() || !mpm::can_suspend() {
            return;
        }
        match connection.pool().kept::<Pace>(KEY) {
            // There may be no other.
            None => connection.pool().keep(KEY, Pace(Cell::new(0))),
            Some(Pace(skipped)) if skipped.get() > 0 => skipped.set(skipped.get() - 1),
            Some(_) => self.pool().hold(Wait(connection.as_ptr())),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // SAFETY: safety.md 2: a connection outlives its requests and what is in their pools.
        let connection = unsafe { Connection::from_ptr(self.0) };
        if !connection.is_kept() || connection.is_aborted() {
            return;
        }
        let Ok(socket) = connection.socket() else { return };
        let came = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&MOMENT)).is_ok_and(|ready| ready > 0);
        if let Some(Pace(skipped)) = connection.pool().kept::<Pace>(KEY).filter(|_| !came) {
            skipped.set(TRY_AGAIN);
        }
    }
}
