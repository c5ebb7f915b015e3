//! httpd's API behind safe functions. Knows nothing of WebSocket.
//!
//! The words are httpd's: [`request::Request`], [`pool::Pool`], [`table::Table`], [`server::Server`]. What all of it relies on,
//! `docs/development/safety.md` says once, in points that SAFETY comments cite.

pub mod body;
pub mod conftree;
pub mod connection;
pub mod crash;
pub mod directive;
pub mod dso;
pub mod expr;
mod ffi;
pub(crate) mod guard;
pub mod local;
pub mod log;
pub mod log_file;
pub mod module;
pub mod mpm;
pub mod pool;
pub mod process;
pub mod proxy;
pub mod rarely;
pub mod request;
pub mod response;
pub mod server;
pub mod server_status;
pub mod shared_memory;
pub mod status;
pub mod subrequest;
pub mod suspended;
pub mod table;
pub mod tls;

/// What a hook answers where it is neither "mine" nor "not mine": an HTTP status, or a failure of the start.
pub type HookResult = Result<HookStatus, u16>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookStatus {
    /// The request was answered (OK).
    Ok,
    Declined,
    /// The request goes on without this thread (SUSPENDED), see [`suspended`].
    Suspended,
}
