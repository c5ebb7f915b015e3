//! A request and its connection after the MPM has let go of them: the handler said SUSPENDED, the worker thread is free,
//! and one other thread moves the connection's bytes until it ends it.
//!
//! httpd 2.4 has no way to give such a connection back; this does what event's process_lingering_close does, from the
//! other thread (server/mpm/event/event.c). What makes it sound:
//! * Nothing here is called before the suspend_connection hook has run on the worker thread, which it does last: after
//!   the handler, with the request's mutex released. Only two fields (`c->sbh`, `cs->suspended`) are written after it.
//! * [`Suspended::destroy`] is called some time later than that, see there.
//! * The structures belong to the connection's pool, which nobody else destroys while the state is CONN_STATE_SUSPENDED.

use super::connection::Connection;
use super::ffi;
use super::request::Request;
use std::os::fd::{AsFd, BorrowedFd};

pub struct Suspended {
    request: *mut ffi::request_rec,
    connection: *mut ffi::conn_rec,
}

// SAFETY: safety.md 3; the worker is done when the value is sent.
unsafe impl Send for Suspended {}

impl Suspended {
    /// Of a request whose handler is about to answer [`super::HookStatus::Suspended`].
    pub fn new(request: &mut Request) -> Suspended {
        Suspended { request: request.as_ptr(), connection: request.connection().as_ptr() }
    }

    pub fn connection(&self) -> &Connection {
        // SAFETY: valid until `destroy`.
        unsafe { Connection::from_ptr(self.connection) }
    }

    pub fn is(&self, connection: &Connection) -> bool {
        self.connection == connection.as_ptr()
    }

    /// The request, until it is finished.
    pub fn request(&self) -> Option<&Request> {
        // SAFETY: valid until `finish_request`.
        (!self.request.is_null()).then(|| unsafe { &*Request::from_ptr(self.request) })
    }

    /// From here on nothing is written with waiting: where the filters would wait for the client, as they do when more is
    /// buffered than FlushMaxThreshold allows, the connection is given up instead.
    pub fn never_wait(&self) {
        // SAFETY: the connection and its socket are valid.
        unsafe { ffi::apr_socket_timeout_set(ffi::ap_get_conn_socket(self.connection), 0) };
    }

    /// Ends the request: it is logged, and its memory freed. The connection remains.
    pub fn finish_request(&mut self) {
        let request = std::mem::replace(&mut self.request, std::ptr::null_mut());
        if request.is_null() {
            return;
        }
        // SAFETY: the request is valid, and not used after this.
        unsafe {
            ffi::ap_finalize_request_protocol(request);
            ffi::ap_process_request_after_handler(request);
        }
    }

    /// Says to the client that nothing follows (for TLS: close_notify), and closes the sending side of the connection.
    /// False when there is nothing to wait for: it is broken.
    pub fn start_close(&self) -> bool {
        // SAFETY: the connection is valid; its socket has no timeout to wait for, see `never_wait`.
        unsafe { ffi::ap_start_lingering_close(self.connection) == 0 }
    }

    /// Closes the socket, frees the connection, and with it the MPM's count of it.
    ///
    /// Not to be called within some milliseconds of the suspend_connection hook: the MPM writes to the connection just
    /// after it.
    pub fn destroy(mut self) {
        self.finish_request();
        // SAFETY: the socket and its pool (the connection's, the MPM's "ptrans") are valid, and are not used after this.
        // The pool's cleanups run as for a connection that the MPM closes: in the state that the MPM counted it in.
        unsafe {
            ffi::shim_connection_set_suspended(self.connection);
            let socket = ffi::ap_get_conn_socket(self.connection);
            let pool = ffi::apr_socket_pool_get(socket);
            ffi::apr_socket_close(socket);
            ffi::apr_pool_destroy(pool);
        }
    }
}

impl AsFd for Suspended {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let mut fd = -1;
        // SAFETY: the socket is open until `destroy`, which takes the value.
        unsafe {
            ffi::apr_os_sock_get(&mut fd, ffi::ap_get_conn_socket(self.connection));
            BorrowedFd::borrow_raw(fd)
        }
    }
}
