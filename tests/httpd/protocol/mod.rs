//! RFC 6455 and RFC 7692 as clients speak them, the right way and the wrong way.

mod bad_clients;
mod bad_frames;
mod compression;
mod handshake;
mod other_clients;
mod pipelined_frames;
