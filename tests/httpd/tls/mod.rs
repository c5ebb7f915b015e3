//! TLS, HTTP/2 and the ways in which bytes come to the engine.

mod connections;
mod handoff;
pub mod http2;
mod load;
mod mux;
mod relay;
