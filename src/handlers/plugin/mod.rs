//! C plugins: their functions are called in httpd's children (`front`), their sessions are the engine's ([`session`]).

#[cfg(feature = "httpd")]
pub mod front;
pub mod session;

pub use session::Plugin;
