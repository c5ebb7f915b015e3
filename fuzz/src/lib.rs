//! What has to hold for whatever bytes come: a check for each part of the module that takes bytes from others.
//!
//! A check takes any input, and panics where the module breaks a promise. libFuzzer runs it on inputs that it makes up
//! (`make fuzz`), and `cargo test` on those in `seeds/`, one folder a check. The module is linked without its feature
//! `httpd`.
//!
//! * [`handshake`], [`extension`]: an opening handshake, as text
//! * [`session`], [`deflate`]: the bytes of a client after it, and with [`deflate`] those of the server too
//! * [`record`]: what is below that where TLS is
//! * [`handoff`]: what comes over the engine's sockets
//! * [`mux`]: what comes over a mux, from either side
//! * [`events`]: what an application answers that handles sessions by events
//!
//! What the sessions are measured by: [`model`], a decoder of frames that has the whole stream at once, and
//! [`inflate`], one of compressed data. [`memory`] counts what is allocated.

pub mod deflate;
pub mod events;
pub mod extension;
pub mod handoff;
pub mod handshake;
pub mod inflate;
pub mod memory;
pub mod model;
pub mod mux;
pub mod record;
pub mod session;
pub mod stream;

/// A check; it panics when something is wrong.
pub type Check = fn(&[u8]);

/// The checks by name.
pub const CHECKS: [(&str, Check); 8] = [
    ("handshake", handshake::check),
    ("extension", extension::check),
    ("session", session::check),
    ("deflate", deflate::check),
    ("handoff", handoff::check),
    ("mux", mux::check),
    ("record", record::check),
    ("events", events::check),
];

/// The program of a target: libFuzzer's, or without it one that checks the files it is given.
#[macro_export]
macro_rules! target {
    ($check:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $check(input));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for file in std::env::args_os().skip(1) {
                $check(&std::fs::read(file)?);
            }
            Ok(())
        }
    };
}
