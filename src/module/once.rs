//! What the log says once a minute of a location, however many requests it is about, and whichever children of httpd they come
//! to: at levels that are shown, for faults of a configuration that would else be told by every request.

use crate::apache::rarely::Rarely;
use crate::apache::request::Request;
use crate::apache::server::Server;
use std::ffi::CStr;

/// Where the pool of the configuration keeps what was said.
const KEY: &CStr = c"mod_websocket said";

/// In httpd's parent, before it forks children: they share what was said.
pub fn prepare(server: &Server) {
    if let Some(said) = Rarely::shared() {
        server.configuration_pool().keep(KEY, said);
    }
}

/// Whether line `id` ("WS0021") may be written now about the place where this request is served: the first within a minute
/// may.
pub fn a_minute(id: &'static str, request: &Request) -> bool {
    let said: Option<&Rarely> = request.server().configuration_pool().kept(KEY);
    said.is_none_or(|said| said.may((id, request.server().name(), request.location())))
}
