//! httpd's conn_rec.

use super::ffi;
use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, recv, shutdown, socketpair};
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Filters of connections that let all bytes pass: httpd's own ends, TLS, mod_logio's count, mod_reqtimeout's clock (which is over),
/// and mod_remoteip's reader of the PROXY line.
const TRANSPARENT: [&str; 7] = [
    "core_in",
    "core",
    "ssl/tls filter",
    "ssl/tls coalescing filter",
    "log_input_output",
    "reqtimeout",
    "remoteip_input",
];

const NONBLOCK: ffi::apr_read_type_e = ffi::apr_read_type_e_APR_NONBLOCK_READ;

#[repr(transparent)]
pub struct Connection(UnsafeCell<ffi::conn_rec>);

impl Connection {
    /// # Safety
    /// `ptr` is a connection that httpd is processing, and outlives `'a`.
    pub(super) unsafe fn from_ptr<'a>(ptr: *mut ffi::conn_rec) -> &'a Connection {
        // SAFETY: the caller's word; the wrapper is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::conn_rec {
        self.0.get()
    }

    fn record(&self) -> &ffi::conn_rec {
        // SAFETY: safety.md 1, 5.
        unsafe { &*self.0.get() }
    }

    /// One stream of an HTTP/2 connection: it has no socket of its own.
    pub fn is_secondary(&self) -> bool {
        !self.record().master.is_null()
    }

    /// The connection that it is a stream of.
    pub fn master(&self) -> Option<&Connection> {
        // SAFETY: NULL, or a connection that outlives its streams.
        (!self.record().master.is_null()).then(|| unsafe { Connection::from_ptr(self.record().master) })
    }

    /// What tells it from others that are open in this process.
    pub fn number(&self) -> usize {
        self.as_ptr() as usize
    }

    /// Its bytes go through TLS.
    pub fn is_tls(&self) -> bool {
        // SAFETY: safety.md 1.
        unsafe { ffi::ap_ssl_conn_is_ssl(self.as_ptr()) != 0 }
    }

    /// The client is gone, or httpd has given up on it.
    pub fn is_aborted(&self) -> bool {
        // SAFETY: safety.md 1.
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

    /// As [`Connection::socket`], of TCP, for somebody who knows nothing of it: it does not block, and delays nothing.
    ///
    /// # Errors
    /// It is closed already, or not of TCP.
    pub fn bare_socket(&self) -> io::Result<BorrowedFd<'_>> {
        let socket = self.socket()?;
        // SAFETY: safety.md 1, 3.
        match unsafe { ffi::shim_socket_lay_bare(ffi::ap_get_conn_socket(self.as_ptr())) } {
            0 => Ok(socket),
            status => Err(io::Error::other(format!("its socket takes no options ({status})"))),
        }
    }

    /// Sends what the filters hold, and waits until it has gone.
    pub fn send_all(&self) {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_connection_send_all(self.as_ptr()) }
    }

    /// Somebody else sends so many bytes on it, which the access log is to count (mod_logio).
    pub fn count_sent(&self, bytes: usize) {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_connection_count_sent(self.as_ptr(), bytes as ffi::apr_off_t) }
    }

    /// Has the connection's descriptor stand for another socket, which stays the caller's to close.
    ///
    /// # Errors
    /// The socket is closed already.
    pub(super) fn replace_socket(&self, with: &OwnedFd) -> io::Result<()> {
        let socket = self.socket()?.as_raw_fd();
        // SAFETY: the descriptor is open, and APR's to close: it is replaced in one step, and not dropped here.
        let mut socket = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(socket) });
        Ok(dup3(with, &mut socket, DupFlags::CLOEXEC)?)
    }

    /// From now on what is read here comes by a [`Detour`].
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn detour(&self) -> io::Result<Detour<'_>> {
        let source = fcntl_dupfd_cloexec(self.socket()?, 0)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (end, feed) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        self.replace_socket(&end)?;
        Ok(Detour { connection: self, source, feed })
    }

    /// What the client has sent by now; the rest will be in the socket. Waits for nothing, whatever filters there are: httpd's
    /// AP_MODE_EXHAUSTIVE, made for who passes a connection on, hands out the socket itself as well, and a filter that looks
    /// at what passes, as mod_dumpio's does, would read that to its end.
    ///
    /// # Errors
    /// A filter fails, or the client sends more than `limit` bytes and waits for no answer: the connection is of no use any
    /// more.
    pub fn take_input(&self, limit: usize) -> io::Result<Vec<u8>> {
        self.make_raw();
        let mut taken = Vec::new();
        loop {
            match self.read(&mut taken) {
                // Whoever has the socket next will see the end as well.
                Ok(0) => return Ok(taken),
                Ok(_) if taken.len() > limit => return Err(io::Error::other("it sends much, and waits for no answer")),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(e) => return Err(e),
            }
        }
    }

    /// What httpd has read of the socket and given to nobody yet; the rest will be in the socket. For a connection whose filters
    /// are all known ([`Connection::unknown_filter`]), and without TLS. Nothing can be read here after that.
    pub fn take_buffered(&self) -> Vec<u8> {
        self.make_raw();
        let mut taken = Vec::new();
        // SAFETY: safety.md 2, 3; a bucket's data is valid until the brigade is cleaned up. The socket's own bucket, which is
        // among them, does not close it.
        unsafe {
            let brigade = self.kept_brigade(c"mod_websocket read");
            let mode = ffi::ap_input_mode_t_AP_MODE_EXHAUSTIVE;
            // It fails where the stream is at its end.
            let status = ffi::ap_get_brigade(self.record().input_filters, brigade, mode, NONBLOCK, 0);
            let mut bucket = ffi::shim_brigade_first(brigade);
            while status == 0 && !bucket.is_null() && ffi::shim_bucket_is_socket(bucket) == 0 {
                let (mut data, mut length) = (std::ptr::null(), 0);
                if ffi::shim_bucket_is_metadata(bucket) == 0
                    && ffi::shim_bucket_read(bucket, &mut data, &mut length, NONBLOCK) == 0
                    && length > 0
                {
                    taken.extend_from_slice(std::slice::from_raw_parts(data.cast::<u8>(), length));
                }
                bucket = ffi::shim_brigade_next(brigade, bucket);
            }
            ffi::apr_brigade_cleanup(brigade.cast());
        }
        taken
    }

    /// The name of a filter of this connection that is not known to let everything pass as it is, TLS aside: it may count, slow
    /// down, look at or change the bytes.
    pub fn unknown_filter(&self) -> Option<String> {
        // SAFETY: safety.md 2.
        let first = unsafe { [(*self.as_ptr()).input_filters, (*self.as_ptr()).output_filters] };
        // SAFETY: safety.md 2; NULL, or a filter that points to its record and to the next one.
        let at = |filter: *mut ffi::ap_filter_t| unsafe { filter.as_ref() };
        let filters = first.into_iter().flat_map(|first| std::iter::successors(at(first), |filter| at(filter.next)));
        // SAFETY: a registered filter has a name, which lives as long as the configuration.
        let mut names = filters.map(|filter| unsafe { CStr::from_ptr((*filter.frec).name) }.to_string_lossy());
        names.find(|name| !TRANSPARENT.iter().any(|known| name.eq_ignore_ascii_case(known))).map(Cow::into_owned)
    }

    /// How long httpd waits for the other end, at most.
    pub fn timeout(&self) -> Option<Duration> {
        let mut timeout: ffi::apr_interval_time_t = -1;
        // SAFETY: the connection is valid, and so is its socket.
        let status = unsafe { ffi::apr_socket_timeout_get(ffi::ap_get_conn_socket(self.as_ptr()), &mut timeout) };
        u64::try_from(timeout).ok().filter(|_| status == 0).map(Duration::from_micros)
    }

    /// Reads what the input filters have ready, decrypted and all, up to some kilobytes: `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is ready, else the connection is broken.
    pub fn read(&self, out: &mut Vec<u8>) -> io::Result<usize> {
        let before = out.len();
        // The stream of an upgraded HTTP/2 request begins with an EOS, which ends the request and not the stream: so an
        // empty answer is asked again once. Of a socket alone it says that there is nothing.
        for _ in 0..if self.is_secondary() || self.is_tls() { 2 } else { 1 } {
            let status = self.read_brigade(out);
            if out.len() > before {
                return Ok(out.len() - before);
            }
            // SAFETY: no pointers.
            let (eof, again) =
                unsafe { (ffi::shim_status_is_eof(status) != 0, ffi::shim_status_is_eagain(status) != 0) };
            match status {
                0 => {}
                _ if eof => return Ok(0),
                _ if again => break,
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// A brigade of this connection, empty, that is kept for the next time: what is taken from a pool comes back only with
    /// the pool, and a connection may carry millions of messages.
    ///
    /// # Safety
    /// The connection is valid, and the brigade of that name not in use.
    unsafe fn kept_brigade(&self, name: &'static CStr) -> *mut ffi::apr_bucket_brigade {
        let mut kept = std::ptr::null_mut();
        // SAFETY: the caller's word; the name is static, as `setn` wants it.
        unsafe {
            ffi::apr_pool_userdata_get(&mut kept, name.as_ptr(), self.record().pool);
            if kept.is_null() {
                kept = ffi::apr_brigade_create(self.record().pool, self.record().bucket_alloc).cast();
                ffi::apr_pool_userdata_setn(kept, name.as_ptr(), None, self.record().pool);
            }
        }
        kept.cast()
    }

    /// One non-blocking ap_get_brigade; returns its status.
    fn read_brigade(&self, out: &mut Vec<u8>) -> c_int {
        // SAFETY: safety.md 2, 3; a bucket's data is valid until the brigade is cleaned up.
        unsafe {
            let brigade = self.kept_brigade(c"mod_websocket read");
            let mut status = ffi::ap_get_brigade(
                self.record().input_filters,
                brigade,
                ffi::ap_input_mode_t_AP_MODE_READBYTES,
                NONBLOCK,
                Self::PIECE as ffi::apr_off_t,
            );
            let mut bucket = ffi::shim_brigade_first(brigade);
            while status == 0 && !bucket.is_null() {
                if ffi::shim_bucket_is_metadata(bucket) == 0 {
                    let (mut data, mut length) = (std::ptr::null(), 0);
                    status = ffi::shim_bucket_read(bucket, &mut data, &mut length, NONBLOCK);
                    if status == 0 && length > 0 {
                        out.extend_from_slice(std::slice::from_raw_parts(data.cast::<u8>(), length));
                    }
                }
                bucket = ffi::shim_brigade_next(brigade, bucket);
            }
            ffi::apr_brigade_cleanup(brigade.cast());
            status
        }
    }

    /// Bytes that are moved at a time, in both directions: well below FlushMaxThreshold (64 KiB), over which httpd's network
    /// filter would block until the client has taken them.
    pub const PIECE: usize = 16 * 1024;

    /// Passes bytes to the output filters, at most [`Connection::PIECE`] of them, and when [`Connection::flush`] has said
    /// that the ones before are gone: so that the network filter never waits. (A stream of HTTP/2 does wait for its flow
    /// control.)
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: safety.md 2, 3; the filters have copied what they keep when the call returns.
        let status = unsafe {
            let brigade = self.kept_brigade(c"mod_websocket write");
            let mut status =
                ffi::apr_brigade_write(brigade, None, std::ptr::null_mut(), bytes.as_ptr().cast(), bytes.len());
            if status == 0 {
                status = ffi::ap_pass_brigade(self.record().output_filters, brigade);
            }
            ffi::apr_brigade_cleanup(brigade.cast());
            status
        };
        if status == 0 && !self.is_aborted() { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
    }

    /// Writes to the socket what the filters hold, without waiting: true when nothing is left.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&self) -> io::Result<bool> {
        // SAFETY: the connection and its filters are valid.
        let status = unsafe { ffi::shim_connection_flush(self.as_ptr()) };
        if status != 0 || self.is_aborted() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        // SAFETY: safety.md 1.
        Ok(unsafe { ffi::shim_connection_has_output(self.as_ptr()) } == 0)
    }

    /// Prepares the filters for a stream of bytes of which each piece matters at once, with pauses of any length.
    ///
    /// mod_reqtimeout's filter would cut the connection; mod_ssl's coalescing filter holds small writes back until a FLUSH
    /// bucket comes, and a FLUSH bucket lets the network filter wait for the client.
    pub fn make_raw(&self) {
        // SAFETY: the connection is valid; a filter that is not there is not removed.
        unsafe {
            ffi::ap_remove_input_filter_byhandle(self.record().input_filters, c"reqtimeout".as_ptr());
            ffi::ap_remove_output_filter_byhandle(self.record().output_filters, c"SSL/TLS Coalescing Filter".as_ptr());
        }
    }

    /// Where to poll(2) for input: the socket, or for a stream of HTTP/2 a pipe of mod_http2 (since httpd 2.4.58).
    pub fn input_descriptor(&self) -> Option<BorrowedFd<'_>> {
        if !self.is_secondary() {
            return self.socket().ok();
        }
        // SAFETY: the connection is valid; the pipe lives as long as it does.
        match unsafe { ffi::shim_connection_pollfd(self.as_ptr()) } {
            fd if fd < 0 => None,
            // SAFETY: as said.
            fd => Some(unsafe { BorrowedFd::borrow_raw(fd) }),
        }
    }

    /// Lets several threads use the connection's pool's relatives at the same time, each its own pool: by default the
    /// memory that they are made of belongs to the one thread that has the connection.
    pub fn share_memory(&self) {
        // SAFETY: the connection is valid, and no other thread uses its pool yet.
        unsafe { ffi::shim_connection_share_memory(self.as_ptr()) }
    }

    /// Gives memory back to the system that reading and writing has left to the connection's pool for the next time. For a
    /// connection that will be silent for some time: the next time costs some microseconds more.
    pub fn release_memory(&self) {
        // SAFETY: the connection is valid, and its pool has an allocator of its own (or one with a mutex).
        unsafe { ffi::shim_connection_release_memory(self.as_ptr()) }
    }

    /// There is no further request on this connection: httpd closes it after this one.
    pub fn close_after(&self) {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_connection_close_after(self.as_ptr()) }
    }

    /// Somebody else has the socket now: httpd is to close its own descriptor, and to say nothing more on it.
    ///
    /// With `aborted` set the core's output filter drops what later filters and the end of the request still write, and
    /// `ap_start_lingering_close` closes without a shutdown(2), which would reach the other owner of the socket too.
    pub fn detach(&self) {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_connection_abandon(self.as_ptr()) }
    }
}

/// What a connection reads comes byte by byte, so that nothing is read of its socket that nobody asks for: filters read as much as
/// there is. Dropped, it reads of the socket again.
pub struct Detour<'a> {
    connection: &'a Connection,
    source: OwnedFd,
    feed: OwnedFd,
}

impl Detour<'_> {
    /// Lets the next byte through, or the end; false where there is none yet.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn let_through(&self) -> io::Result<bool> {
        let mut byte = [0];
        match recv(&self.source, &mut byte[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => shutdown(&self.feed, Shutdown::Write)?,
            Ok(_) => drop(rustix::io::write(&self.feed, &byte)?),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        Ok(true)
    }

    /// The socket itself.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Drop for Detour<'_> {
    fn drop(&mut self) {
        // It fails for no open descriptors.
        let _ = self.connection.replace_socket(&self.source);
    }
}
