//! The functions of the OpenSSL that mod_ssl is linked with, by their names: this module is not linked with it.

use crate::apache::ffi;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ops::RangeInclusive;
use std::sync::{PoisonError, RwLock};

/// Of OpenSSL's headers, where they have been the same since there is TLS 1.3: ssl.h, tls1.h, crypto.h.
pub(super) const TLS1_3_VERSION: c_int = 0x304;
pub(super) const SSL_CTRL_SET_MSG_CALLBACK_ARG: c_int = 16;
pub(super) const CRYPTO_EX_INDEX_SSL: c_int = 0;
pub(super) const SSL_SENT_SHUTDOWN: c_int = 1;
pub(super) const SSL_RECEIVED_SHUTDOWN: c_int = 2;
/// Lengths of records that a client may ask for (RFC 6066 section 4), which are less than the usual ones.
pub(super) const SHORT_FRAGMENTS: RangeInclusive<u8> = 1..=4;

/// OpenSSL's SSL and SSL_CTX.
pub(super) type Ssl = c_void;
pub(super) type SslCtx = c_void;
pub(super) type KeyLog = extern "C" fn(*const Ssl, *const c_char);
pub(super) type MessageCallback = extern "C" fn(c_int, c_int, c_int, *const c_void, usize, *mut Ssl, *mut c_void);

#[derive(Clone, Copy)]
pub(super) struct OpenSsl {
    pub(super) get_keylog: unsafe extern "C" fn(*const SslCtx) -> Option<KeyLog>,
    pub(super) set_keylog: unsafe extern "C" fn(*mut SslCtx, Option<KeyLog>),
    pub(super) set_on_message: unsafe extern "C" fn(*mut Ssl, MessageCallback),
    pub(super) ctrl: unsafe extern "C" fn(*mut Ssl, c_int, c_long, *mut c_void) -> c_long,
    pub(super) set_data: unsafe extern "C" fn(*mut Ssl, c_int, *mut c_void) -> c_int,
    pub(super) get_data: unsafe extern "C" fn(*const Ssl, c_int) -> *mut c_void,
    new_index: NewIndex,
    pub(super) version: unsafe extern "C" fn(*const Ssl) -> c_int,
    pub(super) cipher: unsafe extern "C" fn(*const Ssl) -> *const c_void,
    pub(super) cipher_id: unsafe extern "C" fn(*const c_void) -> u16,
    pub(super) has_pending: unsafe extern "C" fn(*const Ssl) -> c_int,
    pub(super) pending: unsafe extern "C" fn(*const Ssl) -> c_int,
    pub(super) read_state: unsafe extern "C" fn(*const Ssl) -> *const c_char,
    pub(super) session: unsafe extern "C" fn(*const Ssl) -> *const c_void,
    pub(super) max_fragment: unsafe extern "C" fn(*const c_void) -> u8,
    pub(super) set_shutdown: unsafe extern "C" fn(*mut Ssl, c_int),
}

type NewIndex = unsafe extern "C" fn(c_int, c_long, *mut c_void, *const c_void, *const c_void, *const c_void) -> c_int;

/// What the callbacks need, of the configuration that is in force.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) openssl: OpenSsl,
    /// Where an SSL has its [`super::watch::Watch`].
    pub(super) index: c_int,
    /// Another's key log callback, which is to hear what it would have heard (SSLKEYLOGFILE).
    pub(super) other: Option<KeyLog>,
}

/// Written in httpd's parent while it reads its configuration, and only read in its children. OpenSSL is never unloaded.
pub(super) static KNOWN: RwLock<Option<Known>> = RwLock::new(None);

pub(super) fn known() -> Option<Known> {
    *KNOWN.read().unwrap_or_else(PoisonError::into_inner)
}

impl OpenSsl {
    /// `None` where there is no mod_ssl, where it is built into httpd, or its OpenSSL is older than 1.1.1.
    pub(super) fn find() -> Option<OpenSsl> {
        // SAFETY: the list of modules is complete when hooks of mod_ssl run; the handle is NULL or valid.
        let handle = unsafe {
            let module = ffi::ap_find_linked_module(c"mod_ssl.c".as_ptr()).as_ref()?;
            module.dynamic_load_handle.cast::<ffi::apr_dso_handle_t>()
        };
        if handle.is_null() {
            return None;
        }
        /// # Safety
        /// The handle is valid, and the function of that name is an `F`.
        unsafe fn symbol<F: Copy>(handle: *mut ffi::apr_dso_handle_t, name: &CStr) -> Option<F> {
            let mut symbol: *mut c_void = std::ptr::null_mut();
            // SAFETY: the caller's word; a function's address is as large as a pointer. dlsym(3) looks through what the
            // object is linked with, too.
            unsafe {
                let status = ffi::apr_dso_sym(&raw mut symbol, handle, name.as_ptr());
                (status == 0 && !symbol.is_null()).then(|| std::mem::transmute_copy(&symbol))
            }
        }
        // SAFETY: the types are those of ssl.h and crypto.h.
        unsafe {
            Some(OpenSsl {
                get_keylog: symbol(handle, c"SSL_CTX_get_keylog_callback")?,
                set_keylog: symbol(handle, c"SSL_CTX_set_keylog_callback")?,
                set_on_message: symbol(handle, c"SSL_set_msg_callback")?,
                ctrl: symbol(handle, c"SSL_ctrl")?,
                set_data: symbol(handle, c"SSL_set_ex_data")?,
                get_data: symbol(handle, c"SSL_get_ex_data")?,
                new_index: symbol(handle, c"CRYPTO_get_ex_new_index")?,
                version: symbol(handle, c"SSL_version")?,
                cipher: symbol(handle, c"SSL_get_current_cipher")?,
                cipher_id: symbol(handle, c"SSL_CIPHER_get_protocol_id")?,
                has_pending: symbol(handle, c"SSL_has_pending")?,
                pending: symbol(handle, c"SSL_pending")?,
                read_state: symbol(handle, c"SSL_rstate_string")?,
                session: symbol(handle, c"SSL_get_session")?,
                max_fragment: symbol(handle, c"SSL_SESSION_get_max_fragment_length")?,
                set_shutdown: symbol(handle, c"SSL_set_shutdown")?,
            })
        }
    }

    pub(super) fn know(self) -> Option<Known> {
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        match *known {
            // An index stays for as long as OpenSSL does.
            Some(earlier) if std::ptr::fn_addr_eq(earlier.openssl.new_index, self.new_index) => {
                *known = Some(Known { openssl: self, ..earlier });
            }
            _ => {
                let none = std::ptr::null();
                // SAFETY: no callbacks.
                let index = unsafe { (self.new_index)(CRYPTO_EX_INDEX_SSL, 0, std::ptr::null_mut(), none, none, none) };
                *known = (index >= 0).then_some(Known { openssl: self, index, other: None });
            }
        }
        *known
    }
}
