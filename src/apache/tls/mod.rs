//! What it takes to go on with a TLS 1.3 connection that mod_ssl has opened, without OpenSSL: its traffic secrets, and the
//! number of records that were protected with them.
//!
//! mod_ssl has hooks for who wants to know its SSL objects (mod_ssl_openssl.h: `init_server`, `pre_handshake`). OpenSSL tells
//! secrets to the key log callback (SSL_CTX_set_keylog_callback(3)), and every record and handshake message to the message
//! callback (SSL_set_msg_callback(3)). This module is not linked with OpenSSL: the functions are those that mod_ssl calls.

use super::connection::Connection;
use super::ffi;
use super::guard::guard;
use super::log;
use super::module::HttpdModule;
use super::server::Server;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ops::RangeInclusive;
use std::sync::{Once, PoisonError, RwLock};

/// Of OpenSSL's headers, where they have been the same since there is TLS 1.3: ssl.h, ssl3.h, tls1.h, crypto.h.
const TLS1_3_VERSION: c_int = 0x304;
const SSL_CTRL_SET_MSG_CALLBACK_ARG: c_int = 16;
const SSL3_RT_HANDSHAKE: c_int = 22;
const SSL3_RT_APPLICATION_DATA: c_int = 23;
const SSL3_RT_HEADER: c_int = 0x100;
const SSL3_RT_INNER_CONTENT_TYPE: c_int = 0x101;
const SSL3_MT_FINISHED: u8 = 20;
const SSL3_MT_KEY_UPDATE: u8 = 24;
const CRYPTO_EX_INDEX_SSL: c_int = 0;
const SSL_SENT_SHUTDOWN: c_int = 1;
const SSL_RECEIVED_SHUTDOWN: c_int = 2;
/// Lengths of records that a client may ask for (RFC 6066 section 4), which are less than the usual ones.
const SHORT_FRAGMENTS: RangeInclusive<u8> = 1..=4;

/// Bytes that a record has beside what is in it: the kind, and the tag of the ciphers that the engine knows (RFC 8446 section 5.2).
const SEALING: usize = 17;

/// The longest secret (bytes): of SHA-384.
const MAX_SECRET: usize = 48;
/// Under this name the pool of a connection has its [`Watch`].
const WATCH: &CStr = c"mod_websocket tls";

/// OpenSSL's SSL and SSL_CTX.
type Ssl = c_void;
type SslCtx = c_void;
type KeyLog = extern "C" fn(*const Ssl, *const c_char);
type OnMessage = extern "C" fn(c_int, c_int, c_int, *const c_void, usize, *mut Ssl, *mut c_void);

/// The functions of the OpenSSL that mod_ssl is linked with.
#[derive(Clone, Copy)]
struct OpenSsl {
    get_keylog: unsafe extern "C" fn(*const SslCtx) -> Option<KeyLog>,
    set_keylog: unsafe extern "C" fn(*mut SslCtx, Option<KeyLog>),
    set_on_message: unsafe extern "C" fn(*mut Ssl, OnMessage),
    ctrl: unsafe extern "C" fn(*mut Ssl, c_int, c_long, *mut c_void) -> c_long,
    set_data: unsafe extern "C" fn(*mut Ssl, c_int, *mut c_void) -> c_int,
    get_data: unsafe extern "C" fn(*const Ssl, c_int) -> *mut c_void,
    new_index: NewIndex,
    version: unsafe extern "C" fn(*const Ssl) -> c_int,
    cipher: unsafe extern "C" fn(*const Ssl) -> *const c_void,
    cipher_id: unsafe extern "C" fn(*const c_void) -> u16,
    has_pending: unsafe extern "C" fn(*const Ssl) -> c_int,
    read_state: unsafe extern "C" fn(*const Ssl) -> *const c_char,
    session: unsafe extern "C" fn(*const Ssl) -> *const c_void,
    max_fragment: unsafe extern "C" fn(*const c_void) -> u8,
    set_shutdown: unsafe extern "C" fn(*mut Ssl, c_int),
}

type NewIndex = unsafe extern "C" fn(c_int, c_long, *mut c_void, *const c_void, *const c_void, *const c_void) -> c_int;

/// What the callbacks need, of the configuration that is in force.
#[derive(Clone, Copy)]
struct Known {
    openssl: OpenSsl,
    /// Where an SSL has its [`Watch`].
    index: c_int,
    /// Another's key log callback, which is to hear what it would have heard (SSLKEYLOGFILE).
    other: Option<KeyLog>,
}

/// Written in httpd's parent while it reads its configuration, and only read in its children. OpenSSL is never unloaded.
static KNOWN: RwLock<Option<Known>> = RwLock::new(None);

fn known() -> Option<Known> {
    *KNOWN.read().unwrap_or_else(PoisonError::into_inner)
}

impl OpenSsl {
    /// `None` where there is no mod_ssl, where it is built into httpd, or its OpenSSL is older than 1.1.1.
    fn find() -> Option<OpenSsl> {
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
                read_state: symbol(handle, c"SSL_rstate_string")?,
                session: symbol(handle, c"SSL_get_session")?,
                max_fragment: symbol(handle, c"SSL_SESSION_get_max_fragment_length")?,
                set_shutdown: symbol(handle, c"SSL_set_shutdown")?,
            })
        }
    }

    fn know(self) -> Option<Known> {
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

/// What is seen of a connection. It lies in the memory of the connection's pool, which is there for longer than the SSL.
struct Watch {
    ssl: *mut Ssl,
    client: Way,
    server: Way,
    /// Something was seen after which the secrets are out of date.
    is_spoiled: bool,
}

#[derive(Clone, Copy)]
struct Way {
    secret: [u8; MAX_SECRET],
    length: usize,
    /// Records since the Finished message, with which the keys changed to those of the secret.
    records: u64,
    /// The same, by their headers: a TLS library that does not report both has not been understood.
    headers: u64,
    is_finished: bool,
    /// Bytes in the records since the last message of the handshake.
    content: usize,
    /// The last record has begun a message of the handshake's kind, and not ended it.
    is_within: bool,
}

impl Way {
    /// The secret is there, and the number of records is right.
    fn is_known(&self) -> bool {
        self.length > 0 && self.is_finished && !self.is_within && self.records > 0 && self.records == self.headers
    }
}

/// One direction of a connection.
pub struct Traffic {
    /// `client_application_traffic_secret_0`, or the server's (RFC 8446 section 7.1).
    pub secret: Vec<u8>,
    /// Records that were protected with it.
    pub records: u64,
}

/// A connection's TLS, as OpenSSL has left it.
pub struct State {
    /// The number of the cipher suite.
    pub suite: u16,
    /// From the client.
    pub client: Traffic,
    /// To it.
    pub server: Traffic,
}

impl Connection {
    /// The number of the cipher suite, if the TLS of this connection can be gone on with: TLS 1.3 by mod_ssl, for a server of
    /// which [`HttpdModule::wants_tls_secrets`].
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
    pub fn tls(&self) -> Option<State> {
        let (suite, (watch, _)) = self.tls_suite().zip(self.watch())?;
        let traffic = |way: &Way| Traffic { secret: way.secret[..way.length].to_vec(), records: way.records };
        Some(State { suite, client: traffic(&watch.client), server: traffic(&watch.server) })
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

/// Registers the hooks: they are run where there is a mod_ssl.
pub(super) fn register<M: HttpdModule>() {
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
        if is_proxy != 0 || !M::wants_tls_secrets(unsafe { Server::from_ptr(server) }) {
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
        let Some(Known { openssl, index, .. }) = known().filter(|_| is_proxy == 0) else { return ffi::DECLINED };
        let way = Way {
            secret: [0; MAX_SECRET],
            length: 0,
            records: 0,
            headers: 0,
            content: 0,
            is_finished: false,
            is_within: false,
        };
        // SAFETY: connection and SSL are new and this thread's. The memory is the pool's, which is freed after the SSL is;
        // pools align as malloc does. The cleanup may run before that, and leaves the memory what it is: a Watch.
        unsafe {
            let pool = (*connection).pool;
            let watch = ffi::apr_palloc(pool, size_of::<Watch>() as ffi::apr_size_t).cast::<Watch>();
            if watch.is_null() || (openssl.set_data)(ssl, index, watch.cast()) == 0 {
                return ffi::DECLINED;
            }
            watch.write(Watch { ssl, client: way, server: way, is_spoiled: false });
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
    let (watch, first, sealed) = unsafe {
        let Some(watch) = watch.cast::<Watch>().as_mut() else { return };
        let bytes = if data.is_null() { &[] } else { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        // RFC 8446 section 5.2: a kind, a version and a length.
        let sealed = bytes.get(3..5).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
        (watch, bytes.first().copied(), sealed)
    };
    let way = if is_write == 0 { &mut watch.client } else { &mut watch.server };
    // A message is written in records of its own, and OpenSSL tells of it after them: what is longer has padding
    // (SSLOpenSSLConfCmd RecordPadding), which OpenSSL does not tell, and the engine would leave out.
    if is_write != 0 && kind == SSL3_RT_HANDSHAKE {
        watch.is_spoiled |= way.content > length;
        way.content = 0;
    }
    match (kind, first) {
        // Told of every protected record, and of no other.
        (SSL3_RT_INNER_CONTENT_TYPE, kind) => {
            way.records += 1;
            way.is_within = kind.map(c_int::from) == Some(SSL3_RT_HANDSHAKE);
            if !way.is_within {
                way.content = 0;
            }
        }
        // Protected records say that they are application data, whatever they are.
        (SSL3_RT_HEADER, Some(kind)) if c_int::from(kind) == SSL3_RT_APPLICATION_DATA => {
            way.headers += 1;
            way.content += sealed.saturating_sub(SEALING);
        }
        // The record that it is in was the last with the keys of the handshake. Another one comes when a client is asked
        // for a certificate later, and changes no keys.
        (SSL3_RT_HANDSHAKE, Some(SSL3_MT_FINISHED)) if !way.is_finished => {
            *way = Way { is_finished: true, is_within: false, records: 0, headers: 0, ..*way };
        }
        (SSL3_RT_HANDSHAKE, Some(SSL3_MT_KEY_UPDATE)) => watch.is_spoiled = true,
        (SSL3_RT_HANDSHAKE, _) => way.is_within = false,
        _ => {}
    }
}

/// A secret, as a line of an NSS key log: label, client random, secret.
extern "C" fn on_secret(ssl: *const Ssl, line: *const c_char) {
    guard("the key log callback", (), || {
        let Some(Known { openssl, index, other }) = known() else { return };
        if let Some(other) = other {
            other(ssl, line);
        }
        // SAFETY: the line is a string; what the SSL has at our index is a Watch, for this thread alone, or NULL.
        let (line, watch) =
            unsafe { (CStr::from_ptr(line).to_bytes(), (openssl.get_data)(ssl, index).cast::<Watch>().as_mut()) };
        let Some(watch) = watch else { return };
        let mut words = line.split(|byte| *byte == b' ');
        let way = match words.next() {
            Some(b"CLIENT_TRAFFIC_SECRET_0") => &mut watch.client,
            Some(b"SERVER_TRAFFIC_SECRET_0") => &mut watch.server,
            _ => return,
        };
        way.length = words.nth(1).map_or(0, |hex| unhex(hex, &mut way.secret));
    });
}

/// Returns how many bytes there were; 0 where it is no hexadecimal, or too much.
fn unhex(hex: &[u8], out: &mut [u8]) -> usize {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !hex.len().is_multiple_of(2) || hex.len() / 2 > out.len() {
        return 0;
    }
    for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return 0 };
        *byte = high << 4 | low;
    }
    hex.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hexadecimal() {
        let mut out = [0; 4];
        assert_eq!((unhex(b"00ffA5", &mut out), out), (3, [0, 0xff, 0xa5, 0]));
        for wrong in [&b"0"[..], b"0g", b"0011223344"] {
            assert_eq!(unhex(wrong, &mut out), 0, "{wrong:?}");
        }
    }
}
