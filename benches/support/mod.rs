//! What the benchmarks share: servers to measure, a load generator, and the readings of /proc.
//!
//! Nothing here knows the module's code: all servers are measured from outside, as processes behind a TCP port.

#![allow(dead_code, reason = "no benchmark uses all of it")]

pub(crate) mod ab;
pub(crate) mod bare;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod cycles;
pub(crate) mod fanout;
pub(crate) mod fanout_memory;
pub(crate) mod fanout_sides;
pub(crate) mod fpm;
pub(crate) mod frame;
pub(crate) mod idle;
pub(crate) mod kernel;
pub(crate) mod large;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod options;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod peers;
pub(crate) mod plot;
pub(crate) mod proc;
pub(crate) mod report;
pub(crate) mod returning;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod tls;

#[path = "../../testkit/mod.rs"]
pub(crate) mod testkit;

/// Whatever stops a benchmark: it is printed, and the run fails.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
