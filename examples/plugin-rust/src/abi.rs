//! The interface of include/websocket_plugin.h, and a Rust face for it: a plugin implements [`Plugin`], and [`structure`]
//! makes of that what its init function returns.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

/// `WebSocketServer`
#[repr(C)]
pub struct RawServer {
    size: c_uint,
    version: c_uint,
    state: *mut c_void,
    request: extern "C" fn(*const RawServer) -> *mut c_void,
    header_get: extern "C" fn(*const RawServer, *const c_char) -> *const c_char,
    header_set: extern "C" fn(*const RawServer, *const c_char, *const c_char),
    protocol_count: extern "C" fn(*const RawServer) -> usize,
    protocol_index: extern "C" fn(*const RawServer, usize) -> *const c_char,
    protocol_set: extern "C" fn(*const RawServer, *const c_char),
    send: extern "C" fn(*const RawServer, c_int, *const u8, usize) -> usize,
    close: extern "C" fn(*const RawServer),
}

/// `WebSocketPlugin`
#[repr(C)]
pub struct RawPlugin {
    size: c_uint,
    version: c_uint,
    destroy: Option<extern "C" fn(*mut RawPlugin)>,
    on_connect: Option<extern "C" fn(*const RawServer) -> *mut c_void>,
    on_message: Option<extern "C" fn(*mut c_void, *const RawServer, c_int, *mut u8, usize) -> usize>,
    on_disconnect: Option<extern "C" fn(*mut c_void, *const RawServer)>,
}

const TEXT: c_int = 0;
const BINARY: c_int = 128;

/// A message.
pub enum Message<'a> {
    /// UTF-8.
    Text(&'a str),
    /// Anything.
    Binary(&'a [u8]),
}

/// A client's connection, for all threads. After `on_disconnect` nothing is sent any more.
#[derive(Clone, Copy)]
pub struct Server(*const RawServer);

// SAFETY: the module says that its functions may be called from any thread.
unsafe impl Send for Server {}
// SAFETY: as above.
unsafe impl Sync for Server {}

impl Server {
    fn raw(&self) -> &RawServer {
        // SAFETY: the module keeps it at its address, also after the connection.
        unsafe { &*self.0 }
    }

    /// Sends a message; false when the connection is closing. (An empty message is sent and answers false.)
    pub fn send(&self, message: Message<'_>) -> bool {
        let (kind, bytes) = match message {
            Message::Text(text) => (TEXT, text.as_bytes()),
            Message::Binary(bytes) => (BINARY, bytes),
        };
        (self.raw().send)(self.0, kind, bytes.as_ptr(), bytes.len()) > 0
    }

    /// Whether the client offers this subprotocol.
    pub fn offers(&self, protocol: &str) -> bool {
        (0..(self.raw().protocol_count)(self.0)).any(|index| {
            let name = (self.raw().protocol_index)(self.0, index);
            // SAFETY: there are so many of them, each a string.
            unsafe { CStr::from_ptr(name) }.to_bytes() == protocol.as_bytes()
        })
    }

    /// Chooses the subprotocol, in [`Plugin::connect`].
    pub fn choose(&self, protocol: &str) {
        if let Ok(protocol) = CString::new(protocol) {
            (self.raw().protocol_set)(self.0, protocol.as_ptr());
        }
    }
}

/// What a plugin does for one connection.
pub trait Plugin: Send + Sync + Sized + 'static {
    /// A client wants to connect; `None` refuses it.
    fn connect(server: Server) -> Option<Self>;

    /// It has sent a message.
    fn message(&self, server: Server, message: Message<'_>);

    /// It is gone.
    fn disconnect(self) {}
}

/// A panic must not leave a function that C has called: it would end the process. The answer is `otherwise` instead.
fn guard<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(otherwise)
}

extern "C" fn on_connect<P: Plugin>(server: *const RawServer) -> *mut c_void {
    guard(std::ptr::null_mut(), || match P::connect(Server(server)) {
        // Not NULL, which would refuse the connection, also for a P without any fields.
        Some(plugin) => Box::into_raw(Box::new((plugin, 0_u8))).cast(),
        None => std::ptr::null_mut(),
    })
}

extern "C" fn on_message<P: Plugin>(
    private: *mut c_void,
    server: *const RawServer,
    kind: c_int,
    buffer: *mut u8,
    size: usize,
) -> usize {
    guard(0, || {
        // SAFETY: what `on_connect` has returned, until `on_disconnect`; the buffer is valid during the call, and text is
        // UTF-8. `P` may be used on any thread.
        let (plugin, bytes) = unsafe { (&(*private.cast::<(P, u8)>()).0, std::slice::from_raw_parts(buffer, size)) };
        match kind {
            TEXT => {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    plugin.message(Server(server), Message::Text(text));
                }
            }
            _ => plugin.message(Server(server), Message::Binary(bytes)),
        }
        0
    })
}

extern "C" fn on_disconnect<P: Plugin>(private: *mut c_void, _server: *const RawServer) {
    guard((), || {
        // SAFETY: made by `on_connect`, and handed back once.
        let (plugin, _) = *unsafe { Box::from_raw(private.cast::<(P, u8)>()) };
        plugin.disconnect();
    });
}

/// What an init function returns. It is the module's for as long as the plugin is loaded.
pub fn structure<P: Plugin>() -> *mut RawPlugin {
    extern "C" fn destroy(plugin: *mut RawPlugin) {
        // SAFETY: made below, and handed back once.
        drop(unsafe { Box::from_raw(plugin) });
    }
    Box::into_raw(Box::new(RawPlugin {
        size: size_of::<RawPlugin>() as c_uint,
        version: 0,
        destroy: Some(destroy),
        on_connect: Some(on_connect::<P>),
        on_message: Some(on_message::<P>),
        on_disconnect: Some(on_disconnect::<P>),
    }))
}
