//! The binary interface of plugins, as include/websocket_plugin.h declares it for C.

use super::connection::PluginConnection;
use crate::apache::crash::Note;
use crate::apache::dso::Library;
use crate::apache::guard::guard;
use crate::handlers::plugin::session::MessageKind;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::{offset_of, size_of};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MESSAGE_TYPE_TEXT: c_int = 0;
const MESSAGE_TYPE_BINARY: c_int = 128;
const MESSAGE_TYPE_PING: c_int = 256;
const MESSAGE_TYPE_PONG: c_int = 257;

const SERVER_VERSION: c_uint = 1;
const PLUGIN_VERSION: c_uint = 0;

/// What a plugin gets: `WebSocketServer`.
#[repr(C)]
struct WebSocketServer {
    size: c_uint,
    version: c_uint,
    /// The [`Object`]. A plugin may have copied the structure, and the copy is as good.
    state: *const Object,
    request: extern "C" fn(*const WebSocketServer) -> *mut c_void,
    header_get: extern "C" fn(*const WebSocketServer, *const c_char) -> *const c_char,
    header_set: extern "C" fn(*const WebSocketServer, *const c_char, *const c_char),
    protocol_count: extern "C" fn(*const WebSocketServer) -> usize,
    protocol_index: extern "C" fn(*const WebSocketServer, usize) -> *const c_char,
    protocol_set: extern "C" fn(*const WebSocketServer, *const c_char),
    send: extern "C" fn(*const WebSocketServer, c_int, *const u8, usize) -> usize,
    close: extern "C" fn(*const WebSocketServer),
}

type OnDestroy = extern "C" fn(*mut WebSocketPlugin);
type OnConnect = extern "C" fn(*const WebSocketServer) -> *mut c_void;
type OnMessage = extern "C" fn(*mut c_void, *const WebSocketServer, c_int, *mut u8, usize) -> usize;
type OnDisconnect = extern "C" fn(*mut c_void, *const WebSocketServer);

/// What a plugin gives: `WebSocketPlugin`.
#[repr(C)]
struct WebSocketPlugin {
    size: c_uint,
    version: c_uint,
    destroy: Option<OnDestroy>,
    on_connect: Option<OnConnect>,
    on_message: Option<OnMessage>,
    on_disconnect: Option<OnDisconnect>,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<WebSocketServer>() == 80);
    assert!(offset_of!(WebSocketServer, version) == 4);
    assert!(offset_of!(WebSocketServer, state) == 8);
    assert!(offset_of!(WebSocketServer, request) == 16);
    assert!(offset_of!(WebSocketServer, header_get) == 24);
    assert!(offset_of!(WebSocketServer, header_set) == 32);
    assert!(offset_of!(WebSocketServer, protocol_count) == 40);
    assert!(offset_of!(WebSocketServer, protocol_index) == 48);
    assert!(offset_of!(WebSocketServer, protocol_set) == 56);
    assert!(offset_of!(WebSocketServer, send) == 64);
    assert!(offset_of!(WebSocketServer, close) == 72);
    assert!(size_of::<WebSocketPlugin>() == 40);
    assert!(offset_of!(WebSocketPlugin, version) == 4);
    assert!(offset_of!(WebSocketPlugin, destroy) == 8);
    assert!(offset_of!(WebSocketPlugin, on_connect) == 16);
    assert!(offset_of!(WebSocketPlugin, on_message) == 24);
    assert!(offset_of!(WebSocketPlugin, on_disconnect) == 32);
};

/// A plugin. When the last who has it drops it, it is told (`destroy`), and then unloaded.
pub struct Plugin {
    structure: *mut WebSocketPlugin,
    on_connect: Option<OnConnect>,
    on_message: OnMessage,
    on_disconnect: Option<OnDisconnect>,
    /// The file and the function that a configuration names.
    name: String,
    notes: [Note; 3],
    /// Last, as the functions are in it.
    _library: Library,
}

// SAFETY: the structure is the plugin's, and only handed back to it; its functions are made to be called from any thread.
unsafe impl Send for Plugin {}
// SAFETY: safety.md 8.
unsafe impl Sync for Plugin {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    Connect,
    Message,
    Disconnect,
}

impl Plugin {
    /// Loads the object at `path`, relative to ServerRoot, and calls the function `init` in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &str, init: &str) -> Result<Plugin, String> {
        let library = Library::load(path)?;
        let symbol = library.symbol(init)?;
        // SAFETY: the configuration says that this is a plugin's init function, `WebSocketPlugin *NAME(void)`.
        let structure =
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut WebSocketPlugin>(symbol)() };
        let wrong = |what: String| Err(format!("{init} of {} {what}", library.path()));
        if structure.is_null() {
            return wrong("has returned NULL".into());
        }
        // SAFETY: a plugin of any version begins with these two numbers.
        let (size, version) = unsafe { ((*structure).size, (*structure).version) };
        if version != PLUGIN_VERSION {
            return wrong(format!("has returned a plugin of version {version}, and {PLUGIN_VERSION} is known here"));
        }
        if (size as usize) < size_of::<WebSocketPlugin>() {
            let known = size_of::<WebSocketPlugin>();
            return wrong(format!(
                "has returned a plugin of {size} bytes instead of {known}: is it built for this machine?"
            ));
        }
        // SAFETY: version and size say that it is one.
        let plugin = unsafe { &*structure };
        let Some(on_message) = plugin.on_message else {
            return wrong("has returned a plugin without on_message".into());
        };
        let name = format!("{} {init}", library.path());
        let note = |function| Note { owner: format!("the plugin {name}"), function };
        Ok(Plugin {
            structure,
            on_connect: plugin.on_connect,
            on_message,
            on_disconnect: plugin.on_disconnect,
            notes: [note("on_connect"), note("on_message"), note("on_disconnect")],
            name,
            _library: library,
        })
    }

    /// Its file and its init function.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is said when a function of it crashes.
    pub fn note(&self, callback: Callback) -> &Note {
        &self.notes[callback as usize]
    }

    pub fn has(&self, callback: Callback) -> bool {
        match callback {
            Callback::Connect => self.on_connect.is_some(),
            Callback::Message => true,
            Callback::Disconnect => self.on_disconnect.is_some(),
        }
    }

    /// Asks it whether it wants this connection; `None`: no.
    pub fn on_connect(&self, server: &Object) -> Option<Private> {
        let Some(on_connect) = self.on_connect else { return Some(Private(std::ptr::null_mut())) };
        let private = on_connect(&server.server);
        (!private.is_null()).then_some(Private(private))
    }

    /// Gives it a message, in a buffer that it may write to.
    pub fn on_message(&self, private: &Private, server: &Object, text: bool, payload: &mut [u8]) {
        let kind = if text { MESSAGE_TYPE_TEXT } else { MESSAGE_TYPE_BINARY };
        (self.on_message)(private.0, &server.server, kind, payload.as_mut_ptr(), payload.len());
    }

    pub fn on_disconnect(&self, private: &Private, server: &Object) {
        if let Some(on_disconnect) = self.on_disconnect {
            on_disconnect(private.0, &server.server);
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // SAFETY: the plugin's own structure; no other function of it runs, as who calls one holds it.
        if let Some(destroy) = unsafe { (*self.structure).destroy } {
            destroy(self.structure);
        }
    }
}

pub struct Private(*mut c_void);

// SAFETY: handed back to the plugin only, which gets it on any thread.
unsafe impl Send for Private {}
// SAFETY: safety.md 8.
unsafe impl Sync for Private {}

/// A `WebSocketServer`, and the connection that it stands for.
///
/// Plugins keep the pointer longer than they may. So an object is at the same address as long as the process lives, and
/// stands for another connection only after a long time.
#[repr(C)]
pub struct Object {
    server: WebSocketServer,
    connection: Mutex<Option<Arc<PluginConnection>>>,
}

// SAFETY: the structure is constant, its pointer to itself included.
unsafe impl Send for Object {}
// SAFETY: safety.md 8.
unsafe impl Sync for Object {}

/// Objects without a connection, and since when: the oldest first.
static RETIRED: Mutex<VecDeque<(Instant, &'static Object)>> = Mutex::new(VecDeque::new());
/// After this time an object may stand for another connection.
const QUARANTINE: Duration = Duration::from_secs(600);
/// Before that, if more than this number wait.
const MAX_RETIRED: usize = 65_536;

impl Object {
    /// An object that stands for no connection yet.
    pub fn take() -> &'static Object {
        let mut retired = RETIRED.lock().unwrap_or_else(PoisonError::into_inner);
        let many = retired.len() > MAX_RETIRED;
        if retired.front().is_some_and(|(since, _)| many || since.elapsed() > QUARANTINE)
            && let Some((_, object)) = retired.pop_front()
        {
            return object;
        }
        drop(retired);
        let object = Box::leak(Box::new(Object {
            server: WebSocketServer {
                size: size_of::<WebSocketServer>() as c_uint,
                version: SERVER_VERSION,
                state: std::ptr::null(),
                request,
                header_get,
                header_set,
                protocol_count,
                protocol_index,
                protocol_set,
                send,
                close,
            },
            connection: Mutex::new(None),
        }));
        object.server.state = &raw const *object;
        object
    }

    pub fn attach(&self, connection: Arc<PluginConnection>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }

    /// Lets it stand for none.
    pub fn detach(&'static self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if connection.is_some() {
            RETIRED.lock().unwrap_or_else(PoisonError::into_inner).push_back((Instant::now(), self));
        }
    }
}

/// The connection that a plugin means; `None` when it is over.
fn connection(server: *const WebSocketServer) -> Option<Arc<PluginConnection>> {
    // SAFETY: NULL, or what the plugin got from us or a copy of it: `state` is an object, and objects are there for ever.
    let object = unsafe { server.as_ref()?.state.as_ref()? };
    object.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The text of an argument; `None` for NULL.
fn text<'a>(argument: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the plugin passes NULL or a NUL-terminated string, which is valid during the call.
    (!argument.is_null()).then(|| unsafe { CStr::from_ptr(argument) })
}

extern "C" fn request(server: *const WebSocketServer) -> *mut c_void {
    guard("request()", std::ptr::null_mut(), || {
        connection(server).map_or(std::ptr::null_mut(), |connection| connection.request())
    })
}

extern "C" fn header_get(server: *const WebSocketServer, key: *const c_char) -> *const c_char {
    guard("header_get()", std::ptr::null(), || match (connection(server), text(key)) {
        (Some(connection), Some(key)) => connection.header(key),
        _ => std::ptr::null(),
    })
}

extern "C" fn header_set(server: *const WebSocketServer, key: *const c_char, value: *const c_char) {
    guard("header_set()", (), || {
        if let (Some(connection), Some(key), Some(value)) = (connection(server), text(key), text(value)) {
            connection.set_header(key, value);
        }
    });
}

extern "C" fn protocol_count(server: *const WebSocketServer) -> usize {
    guard("protocol_count()", 0, || connection(server).map_or(0, |connection| connection.offered().len()))
}

extern "C" fn protocol_index(server: *const WebSocketServer, index: usize) -> *const c_char {
    guard("protocol_index()", std::ptr::null(), || {
        // The plugin may use it as long as the connection is open, and the connection keeps it that long.
        connection(server)
            .and_then(|connection| connection.offered().get(index).map(|name| name.as_ptr()))
            .unwrap_or(std::ptr::null())
    })
}

extern "C" fn protocol_set(server: *const WebSocketServer, protocol: *const c_char) {
    guard("protocol_set()", (), || {
        if let (Some(connection), Some(protocol)) = (connection(server), text(protocol)) {
            connection.set_protocol(protocol);
        }
    });
}

extern "C" fn send(server: *const WebSocketServer, kind: c_int, buffer: *const u8, size: usize) -> usize {
    guard("send()", 0, || {
        let Some(connection) = connection(server) else { return 0 };
        let payload = match size {
            _ if buffer.is_null() => &[],
            0 => &[],
            // SAFETY: the plugin says that the buffer is that long, and leaves it alone during the call.
            size => unsafe { std::slice::from_raw_parts(buffer, size) },
        };
        let kind = match kind {
            MESSAGE_TYPE_TEXT => MessageKind::Text,
            MESSAGE_TYPE_BINARY => MessageKind::Binary,
            MESSAGE_TYPE_PING => MessageKind::Ping,
            MESSAGE_TYPE_PONG => MessageKind::Pong,
            _ => MessageKind::Close,
        };
        connection.send(kind, payload)
    })
}

extern "C" fn close(server: *const WebSocketServer) {
    guard("close()", (), || {
        if let Some(connection) = connection(server) {
            connection.send(MessageKind::Close, &[]);
        }
    });
}
