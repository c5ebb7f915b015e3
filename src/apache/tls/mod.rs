//! What it takes to go on with a TLS 1.3 connection that mod_ssl has opened, without OpenSSL: its traffic secrets, and the
//! number of records that were protected with them.
//!
//! mod_ssl has hooks for who wants to know its SSL objects (mod_ssl_openssl.h: `init_server`, `pre_handshake`). OpenSSL tells
//! secrets to the key log callback (SSL_CTX_set_keylog_callback(3)), and every record and handshake message to the message
//! callback (SSL_set_msg_callback(3)). This module is not linked with OpenSSL: the functions are those that mod_ssl calls.

mod hooks;
mod openssl;
mod watch;

use super::connection::Connection;
use super::ffi;
pub(super) use hooks::register;
use openssl::{OpenSsl, SHORT_FRAGMENTS, SSL_RECEIVED_SHUTDOWN, SSL_SENT_SHUTDOWN, TLS1_3_VERSION, known};
use std::ffi::{CStr, c_void};
use watch::{DirectionState, Watch};

/// Under this name the pool of a connection has its [`Watch`].
const WATCH: &CStr = c"mod_websocket tls";

pub struct TlsDirection {
    /// `client_application_traffic_secret_0`, or the server's (RFC 8446 section 7.1).
    pub secret: Vec<u8>,
    /// Records that were protected with it.
    pub records: u64,
}

/// A connection's TLS, as OpenSSL has left it.
pub struct TlsState {
    pub suite: u16,
    pub client: TlsDirection,
    pub server: TlsDirection,
}

impl Connection {
    /// The number of the cipher suite, if the TLS of this connection can be gone on with: TLS 1.3 by mod_ssl, for a server of
    /// which [`crate::apache::module::HttpdModule::wants_tls_secrets`].
    pub fn tls_suite(&self) -> Option<u16> {
        let (watch, openssl) = self.watch()?;
        // SAFETY: safety.md 3; the SSL lives as long as the connection.
        let (version, cipher, session) =
            unsafe { ((openssl.version)(watch.ssl), (openssl.cipher)(watch.ssl), (openssl.session)(watch.ssl)) };
        let is_known = watch.client.is_known() && watch.server.is_known() && !watch.is_spoiled;
        if version != TLS1_3_VERSION || !is_known || cipher.is_null() || session.is_null() {
            return None;
        }
        // SAFETY: neither is NULL.
        let (suite, max_fragment) = unsafe { ((openssl.cipher_id)(cipher), (openssl.max_fragment)(session)) };
        (!SHORT_FRAGMENTS.contains(&max_fragment)).then_some(suite)
    }

    /// What it takes to go on with it. True for as long as nothing is read or written here.
    pub fn tls(&self) -> Option<TlsState> {
        let (suite, (watch, _)) = self.tls_suite().zip(self.watch())?;
        let traffic =
            |way: &DirectionState| TlsDirection { secret: way.secret[..way.length].to_vec(), records: way.records };
        Some(TlsState { suite, client: traffic(&watch.client), server: traffic(&watch.server) })
    }

    /// Somebody else goes on with it: OpenSSL is to say nothing more, and to keep the session for the client's next connection,
    /// as it does after an end that was said.
    pub fn leave_tls(&self) {
        if let Some((watch, openssl)) = self.watch() {
            // SAFETY: safety.md 3; the SSL lives as long as the connection.
            unsafe { (openssl.set_shutdown)(watch.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN) };
        }
    }

    /// OpenSSL has the beginning of a record, or more than was read.
    pub fn tls_has_pending(&self) -> bool {
        let Some((watch, openssl)) = self.watch() else { return false };
        // SSL_has_pending(3) does not count a header that was read and whose record is yet to come: that is "read body" of
        // SSL_rstate_string(3).
        // SAFETY: safety.md 3; the SSL lives as long as the connection, and the string is a constant.
        unsafe { (openssl.has_pending)(watch.ssl) != 0 || CStr::from_ptr((openssl.read_state)(watch.ssl)) == c"RB" }
    }

    /// OpenSSL has a record that is not all there, and nothing before it.
    pub fn tls_awaits_rest(&self) -> bool {
        let Some((watch, openssl)) = self.watch() else { return false };
        // SAFETY: safety.md 3; the SSL lives as long as the connection.
        self.tls_has_pending() && unsafe { (openssl.pending)(watch.ssl) } == 0
    }

    /// What was seen of this connection, and the functions to ask for more.
    fn watch(&self) -> Option<(&Watch, OpenSsl)> {
        // mod_ssl frees the SSL of a connection that it aborts.
        if self.is_aborted() {
            return None;
        }
        let mut watch: *mut c_void = std::ptr::null_mut();
        // SAFETY: the connection is valid; `pre_handshake` put there what is there, and its thread is this one.
        let watch = unsafe {
            ffi::apr_pool_userdata_get(&mut watch, WATCH.as_ptr(), (*self.as_ptr()).pool);
            watch.cast::<Watch>().as_ref()
        };
        watch.zip(known().map(|known| known.openssl))
    }
}
