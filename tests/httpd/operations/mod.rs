//! What an administrator does, and what happens to a server.

mod drain;
mod engine;
mod engine_late;
mod idle_memory;
mod limits;
mod log_rotation;
mod metrics;
mod module_upgrade;
mod page_latency;
mod restart;
mod session_log;
mod way_in;
