//! Integration tests: a real httpd with the module loaded, on a free loopback port, for each test.
//!
//! `cargo build --release` first; then `cargo test --test httpd`. The environment may name another `HTTPD`, `APXS`,
//! `PYTHON` (with the packages of tests/requirements.txt) and `MOD_WEBSOCKET_SO`. What the tests have in common is in `harness`, and
//! explained there.

mod harness;

mod application;
mod browser;
mod channels;
mod docs;
mod front;
mod handlers;
mod harness_itself;
mod operations;
mod protocol;
mod takeover;
mod tls;
