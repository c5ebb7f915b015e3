//! What the log says once a minute of a location, however many requests it is about, and whichever children of httpd they come
//! to: at levels that are shown, for faults of a configuration that would else be told by every request.

use crate::apache::log::{self, Level};
use crate::apache::rarely::Rarely;
use crate::apache::request::Request;
use crate::apache::server::Server;
use std::ffi::CStr;

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

/// Lines that are about the engine, and would be told by every request meanwhile.
#[derive(Debug, Clone, Copy)]
pub enum OfEngine {
    /// No session, since the engine cannot be asked.
    NoSession,
    /// No answer to a publisher, likewise.
    NoAnswer,
    /// It was lost between the grant and the session.
    LostSession,
}

/// Writes such a line: in full and at level error once a minute, with how many were not since the last one; the others at debug.
pub fn tell_of_engine(line: OfEngine, request: &Request, text: &str) {
    let said: Option<&Rarely> = request.server().configuration_pool().kept(KEY);
    match said.map_or(Some(0), |said| said.may_counted(line as usize)) {
        Some(0) => log::request(Level::Error, request, text),
        Some(missed) => log::request(Level::Error, request, &format!("{text}; so it was for {missed} requests before")),
        None => log::request(Level::Debug, request, text),
    }
}
