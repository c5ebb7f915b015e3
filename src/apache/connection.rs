//! httpd's conn_rec.

use super::ffi;
use std::io;
use std::os::fd::BorrowedFd;

/// A client's connection.
#[repr(transparent)]
pub struct Connection(ffi::conn_rec);

impl Connection {
    /// # Safety
    /// `ptr` is a connection that httpd is processing, and outlives `'a`.
    pub(super) unsafe fn from_ptr<'a>(ptr: *mut ffi::conn_rec) -> &'a Connection {
        // SAFETY: the caller's word; the wrapper is transparent.
        unsafe { &*ptr.cast() }
    }

    fn as_ptr(&self) -> *mut ffi::conn_rec {
        std::ptr::from_ref(&self.0).cast_mut()
    }

    /// One stream of an HTTP/2 connection: it has no socket of its own.
    pub fn is_secondary(&self) -> bool {
        !self.0.master.is_null()
    }

    /// Its bytes go through TLS.
    pub fn is_tls(&self) -> bool {
        // SAFETY: the connection is valid.
        unsafe { ffi::ap_ssl_conn_is_ssl(self.as_ptr()) != 0 }
    }

    /// The client is gone, or httpd has given up on it.
    pub fn is_aborted(&self) -> bool {
        // SAFETY: the connection is valid.
        unsafe { ffi::shim_connection_is_aborted(self.as_ptr()) != 0 }
    }

    /// The client's socket. httpd closes it at the end of the connection.
    ///
    /// # Errors
    /// It is closed already.
    pub fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        let mut fd = -1;
        // SAFETY: the connection is valid; the socket of a connection that is being processed is too.
        let status = unsafe {
            match ffi::ap_get_conn_socket(self.as_ptr()) {
                socket if socket.is_null() => return Err(io::ErrorKind::NotConnected.into()),
                socket => ffi::apr_os_sock_get(&mut fd, socket),
            }
        };
        if status != 0 || fd < 0 {
            return Err(io::ErrorKind::NotConnected.into());
        }
        // SAFETY: it stays open as long as the connection is processed, which outlives this borrow.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// What the client sent and httpd has read from the socket without looking at it. The rest is in the socket.
    ///
    /// AP_MODE_EXHAUSTIVE hands out all that the input filters hold, and the socket itself as a bucket, from which nothing
    /// is read: httpd's httpd.h says of the mode that it is there for who passes a connection on. After this httpd can
    /// read nothing on this connection.
    ///
    /// # Errors
    /// A filter fails: the connection is of no use any more.
    pub fn take_input(&self) -> io::Result<Vec<u8>> {
        let broken = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let mut taken = Vec::new();
        // SAFETY: connection, its pool, allocator and filters are valid while it is processed; the brigade is ours and
        // is destroyed below, with the buckets in it; a bucket's data is valid until then. Destroying a socket bucket
        // leaves the socket as it is.
        unsafe {
            let brigade = ffi::apr_brigade_create(self.0.pool, self.0.bucket_alloc);
            let status = ffi::ap_get_brigade(
                self.0.input_filters,
                brigade,
                ffi::ap_input_mode_t_AP_MODE_EXHAUSTIVE,
                ffi::apr_read_type_e_APR_NONBLOCK_READ,
                0,
            );
            let mut outcome = if status == 0 { Ok(()) } else { Err(broken()) };
            let mut bucket = ffi::shim_brigade_first(brigade);
            while !bucket.is_null() && ffi::shim_bucket_is_socket(bucket) == 0 && outcome.is_ok() {
                if ffi::shim_bucket_is_metadata(bucket) == 0 {
                    let (mut data, mut length) = (std::ptr::null(), 0);
                    if ffi::shim_bucket_read(bucket, &mut data, &mut length) != 0 {
                        outcome = Err(broken());
                    } else if length > 0 {
                        taken.extend_from_slice(std::slice::from_raw_parts(data.cast::<u8>(), length));
                    }
                }
                bucket = ffi::shim_brigade_next(brigade, bucket);
            }
            ffi::apr_brigade_destroy(brigade);
            outcome.map(|()| taken)
        }
    }

    /// Somebody else has the socket now: httpd is to close its own descriptor, and to say nothing more on it.
    ///
    /// With `aborted` set the core's output filter drops what later filters and the end of the request still write, and
    /// `ap_start_lingering_close` closes without a shutdown(2), which would reach the other owner of the socket too.
    pub fn abandon(&self) {
        // SAFETY: the connection is valid, and this thread processes it.
        unsafe { ffi::shim_connection_abandon(self.as_ptr()) }
    }
}
