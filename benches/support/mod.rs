//! What the benchmarks share: servers to measure, a load generator, and the readings of /proc.
//!
//! Nothing here knows the module's code: both servers are measured from outside, as processes behind a TCP port.

pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod load;
pub(crate) mod proc;
pub(crate) mod server;

/// Whatever stops a benchmark: it is printed, and the run fails.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
