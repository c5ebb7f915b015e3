//! mod_proxy's tunnels, as where one begins both of its connections can be taken out of it.
//!
//! Three hooks, which need none of mod_proxy's symbols: it may be loaded before this module, after it, or not at all.
//! * `create_req`, an optional one of mod_proxy's: a request has been sent to a back end. The only one that knows the back end's
//!   connection. It may run several times for a request, once for each back end that it was sent to.
//! * `get_pollfd_from_conn`, of httpd's core since 2.4.58: a tunnel looks for what to wait for. The 101 is out then, and the loop
//!   that moves bytes has not begun.
//! * `request_status`, an optional one: mod_proxy has given the back end's connection back, and is about to return from its
//!   content handler.

use super::HookStatus;
use super::connection::Connection;
use super::ffi;
use super::guard::guard;
use super::module::HttpdModule;
use super::request::Request;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::OwnedFd;

/// What becomes of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// It is none of ours, and nothing of it was touched.
    Left,
    /// The back end's connection is somebody else's now, and nothing more is to be read or written on the client's.
    Taken,
}

/// A request, and the back end's connection that it was sent on.
#[derive(Clone, Copy)]
struct Sent {
    request: *mut ffi::request_rec,
    back_end: *mut ffi::conn_rec,
}

thread_local! {
    /// What mod_proxy is waiting for an answer to, on this thread: from `create_req` to the end of the request at the latest.
    static SENT: Cell<Option<Sent>> = const { Cell::new(None) };
}

/// Tunnels can be taken over: httpd is 2.4.58 or later.
pub fn is_supported() -> bool {
    // SAFETY: no arguments.
    unsafe { ffi::shim_has_get_pollfd() != 0 }
}

type Fixups = extern "C" fn(*mut ffi::request_rec) -> c_int;
type CreateReq = extern "C" fn(*mut ffi::request_rec, *mut ffi::request_rec) -> c_int;
type RequestStatus = extern "C" fn(*mut c_int, *mut ffi::request_rec) -> c_int;

/// Registers the hooks: the optional ones are run where there is a mod_proxy.
pub(super) fn register<M: HttpdModule>() {
    type Optional = unsafe extern "C" fn();
    let (nobody, middle) = (std::ptr::null(), ffi::APR_HOOK_MIDDLE as c_int);
    // SAFETY: a function of the hook's type, by its name, which is how APR_OPTIONAL_HOOK casts it.
    unsafe {
        let fixups = std::mem::transmute::<Fixups, Optional>(fixups::<M>);
        ffi::apr_optional_hook_add(c"fixups".as_ptr(), Some(fixups), nobody, nobody, ffi::APR_HOOK_LAST as c_int);
    }
    if !is_supported() {
        return;
    }
    // SAFETY: functions of the hooks' types, by their names, which is how APR_OPTIONAL_HOOK casts them.
    unsafe {
        let create_req = std::mem::transmute::<CreateReq, Optional>(create_req::<M>);
        let request_status = std::mem::transmute::<RequestStatus, Optional>(request_status::<M>);
        ffi::apr_optional_hook_add(c"create_req".as_ptr(), Some(create_req), nobody, nobody, middle);
        ffi::apr_optional_hook_add(c"request_status".as_ptr(), Some(request_status), nobody, nobody, middle);
        ffi::shim_hook_get_pollfd(Some(get_pollfd::<M>));
    }
}

extern "C" fn fixups<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    // SAFETY: safety.md 1.
    guard("mod_proxy's fixups", (), || M::proxy_fixups(unsafe { Request::from_ptr(request) }));
    ffi::DECLINED
}

extern "C" fn create_req<M: HttpdModule>(request: *mut ffi::request_rec, sent: *mut ffi::request_rec) -> c_int {
    guard("create_req", (), || {
        // SAFETY: safety.md 1; `sent` is mod_proxy's request to the back end, with the connection to that.
        unsafe {
            if !M::may_take_tunnel(Request::from_ptr(request)) {
                return;
            }
            SENT.set(Some(Sent { request, back_end: (*sent).connection }));
            ffi::apr_pool_cleanup_register(
                (*request).pool,
                request.cast(),
                Some(forget),
                Some(ffi::apr_pool_cleanup_null),
            );
        }
    });
    ffi::DECLINED
}

/// The request's memory goes.
extern "C" fn forget(request: *mut c_void) -> ffi::apr_status_t {
    SENT.set(SENT.get().filter(|sent| sent.request.cast() != request));
    0
}

extern "C" fn get_pollfd<M: HttpdModule>(
    client: *mut ffi::conn_rec,
    pollfd: *mut ffi::apr_pollfd_t,
    _timeout: *mut ffi::apr_interval_time_t,
) -> ffi::apr_status_t {
    let not_ours = ffi::APR_ENOTIMPL as ffi::apr_status_t;
    guard("get_pollfd_from_conn", not_ours, || {
        let Some(Sent { request, back_end }) = SENT.get() else { return not_ours };
        // SAFETY: mod_proxy is still waiting on this thread for the answer to the request, or `forget` would have run: the
        // request is valid. So is the back end's connection at the status: it is the one of which the 101 came.
        unsafe {
            if (*request).connection != client || (*request).status != ffi::HTTP_SWITCHING_PROTOCOLS as c_int {
                return not_ours;
            }
            SENT.set(None);
            // Nothing fails any more once the connections are given away.
            let Ok(dead) = dead_end() else { return not_ours };
            if M::tunnel(Request::from_ptr(request), Connection::from_ptr(back_end)) == Tunnel::Left {
                return not_ours;
            }
            cut(Connection::from_ptr(back_end), &dead);
            // Read by mod_proxy after this, in the same function: the tunnel ends with its first end of a stream.
            ffi::apr_table_setn((*request).subprocess_env, NO_HALF_CLOSE.as_ptr(), c"1".as_ptr());
            ffi::shim_pollfd_set_none(pollfd);
        }
        ffi::APR_SUCCESS as ffi::apr_status_t
    })
}

/// The variable by which an administrator wants a tunnel to end in both directions when it ends in one.
pub const NO_HALF_CLOSE: &CStr = c"proxy-nohalfclose";

/// A socket whose other end is closed.
fn dead_end() -> io::Result<OwnedFd> {
    let (dead, _) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    Ok(dead)
}

/// Puts the dead end into the place of the connection's socket: whatever mod_proxy, its pool and mod_ssl still read, shut down and
/// close has nothing to do with the back end any more.
fn cut(back_end: &Connection, dead: &OwnedFd) {
    // It fails for no open descriptors.
    let _ = back_end.replace_socket(dead);
    // SAFETY: safety.md 1, 3.
    unsafe { ffi::shim_connection_set_aborted(back_end.as_ptr()) };
}

extern "C" fn request_status<M: HttpdModule>(status: *mut c_int, request: *mut ffi::request_rec) -> c_int {
    guard("request_status", ffi::DECLINED, || {
        // SAFETY: safety.md 1; the status is what mod_proxy's content handler will answer.
        unsafe {
            forget(request.cast());
            if M::proxied(Request::from_ptr(request)) == Some(HookStatus::Suspended) {
                *status = ffi::SUSPENDED;
            }
        }
        ffi::DECLINED
    })
}
