//! C plugins: their functions are called in httpd's children (`front`), their sessions are the engine's ([`session`]).

#[cfg(feature = "httpd")]
pub(crate) mod front;
pub mod session;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;
pub use session::PluginHandler;

pub fn handler() -> impl crate::engine::Handler {
    PluginHandler
}
