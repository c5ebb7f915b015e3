//! What the integration tests and the benchmarks share: the httpd of this machine, processes, and a client's side of the wire.

pub(crate) mod certificate;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod installation;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod wait;
