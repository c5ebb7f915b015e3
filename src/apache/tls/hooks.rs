//! The hooks of mod_ssl (mod_ssl_openssl.h), and the callbacks of OpenSSL that they set.

use super::WATCH;
use super::openssl::{KNOWN, KeyLog, Known, OpenSsl, SSL_CTRL_SET_MSG_CALLBACK_ARG, Ssl, SslCtx, known};
use super::watch::{MAX_SECRET, Watch};
use crate::apache::ffi;
use crate::apache::guard::guard;
use crate::apache::log;
use crate::apache::module::HttpdModule;
use crate::apache::server::Server;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Once, PoisonError};

/// Registers the hooks: they are run where there is a mod_ssl.
pub(in crate::apache) fn register<M: HttpdModule>() {
    type Optional = unsafe extern "C" fn();
    // mod_ssl is loaded anew with each configuration, at another address perhaps.
    if let Some(known) = &mut *KNOWN.write().unwrap_or_else(PoisonError::into_inner) {
        known.other = None;
    }
    let middle = ffi::APR_HOOK_MIDDLE as c_int;
    let (before, after) = (std::ptr::null(), std::ptr::null());
    // SAFETY: functions of the hooks' types, by their names, which is how APR_OPTIONAL_HOOK casts them.
    unsafe {
        let init_server = std::mem::transmute::<InitServer, Optional>(init_server::<M>);
        let pre_handshake = std::mem::transmute::<PreHandshake, Optional>(pre_handshake);
        ffi::apr_optional_hook_add(c"init_server".as_ptr(), Some(init_server), before, after, middle);
        ffi::apr_optional_hook_add(c"pre_handshake".as_ptr(), Some(pre_handshake), before, after, middle);
    }
}

type InitServer = extern "C" fn(*mut ffi::server_rec, *mut ffi::apr_pool_t, c_int, *mut SslCtx) -> c_int;
type PreHandshake = extern "C" fn(*mut ffi::conn_rec, *mut Ssl, c_int) -> c_int;

extern "C" fn init_server<M: HttpdModule>(
    server: *mut ffi::server_rec,
    _pool: *mut ffi::apr_pool_t,
    is_proxy: c_int,
    ctx: *mut SslCtx,
) -> c_int {
    guard("init_server", ffi::DECLINED, || {
        // SAFETY: a server of the configuration that is being set up.
        if !M::wants_tls_secrets(unsafe { Server::from_ptr(server) }, is_proxy != 0) {
            return ffi::DECLINED;
        }
        let Some(Known { openssl, .. }) = OpenSsl::find().and_then(OpenSsl::know) else {
            let text =
                "WS0227: TLS connections stay with httpd: its mod_ssl is built in, or its OpenSSL is older than 1.1.1";
            static TOLD: Once = Once::new();
            TOLD.call_once(|| log::main(log::Level::Notice, text));
            return ffi::DECLINED;
        };
        // SAFETY: the context is being set up, by this thread.
        unsafe {
            let other = (openssl.get_keylog)(ctx).filter(|other| !std::ptr::fn_addr_eq(*other, on_secret as KeyLog));
            if let Some(known) = &mut *KNOWN.write().unwrap_or_else(PoisonError::into_inner) {
                known.other = other.or(known.other);
            }
            (openssl.set_keylog)(ctx, Some(on_secret));
        }
        ffi::OK as c_int
    })
}

extern "C" fn pre_handshake(connection: *mut ffi::conn_rec, ssl: *mut Ssl, is_proxy: c_int) -> c_int {
    guard("pre_handshake", ffi::DECLINED, || {
        let Some(Known { openssl, index, .. }) = known() else { return ffi::DECLINED };
        // SAFETY: connection and SSL are new and this thread's. The memory is the pool's, which is freed after the SSL is;
        // pools align as malloc does. The cleanup may run before that, and leaves the memory what it is: a Watch.
        unsafe {
            let pool = (*connection).pool;
            let watch = ffi::apr_palloc(pool, size_of::<Watch>() as ffi::apr_size_t).cast::<Watch>();
            if watch.is_null() || (openssl.set_data)(ssl, index, watch.cast()) == 0 {
                return ffi::DECLINED;
            }
            watch.write(Watch::new(ssl, is_proxy != 0));
            ffi::apr_pool_cleanup_register(pool, watch.cast(), Some(wipe), Some(ffi::apr_pool_cleanup_null));
            ffi::apr_pool_userdata_setn(watch.cast(), WATCH.as_ptr(), None, pool);
            (openssl.set_on_message)(ssl, on_message);
            (openssl.ctrl)(ssl, SSL_CTRL_SET_MSG_CALLBACK_ARG, 0, watch.cast());
        }
        ffi::OK as c_int
    })
}

extern "C" fn wipe(watch: *mut c_void) -> ffi::apr_status_t {
    let watch = watch.cast::<Watch>();
    // SAFETY: `pre_handshake` registered it; written in a way that no compiler leaves out.
    unsafe {
        (&raw mut (*watch).client.secret).write_volatile([0; MAX_SECRET]);
        (&raw mut (*watch).server.secret).write_volatile([0; MAX_SECRET]);
        (*watch).is_spoiled = true;
    }
    0
}

/// A record or a message went either way (SSL_set_msg_callback(3)).
extern "C" fn on_message(
    is_write: c_int,
    _version: c_int,
    kind: c_int,
    data: *const c_void,
    length: usize,
    _ssl: *mut Ssl,
    watch: *mut c_void,
) {
    // SAFETY: `pre_handshake` gave the pointer; one thread at a time works with an SSL. The data is that long.
    let (watch, bytes) = unsafe {
        let Some(watch) = watch.cast::<Watch>().as_mut() else { return };
        (watch, if data.is_null() { &[] } else { std::slice::from_raw_parts(data.cast::<u8>(), length) })
    };
    watch.note(is_write != 0, kind, bytes);
}

/// OpenSSL has a secret (SSL_CTX_set_keylog_callback(3)).
extern "C" fn on_secret(ssl: *const Ssl, line: *const c_char) {
    guard("the key log callback", (), || {
        let Some(Known { openssl, index, other }) = known() else { return };
        if let Some(other) = other {
            other(ssl, line);
        }
        // SAFETY: the line is a string; what the SSL has at our index is a Watch, for this thread alone, or NULL.
        let (line, watch) =
            unsafe { (CStr::from_ptr(line).to_bytes(), (openssl.get_data)(ssl, index).cast::<Watch>().as_mut()) };
        if let Some(watch) = watch {
            watch.note_secret(line);
        }
    });
}
