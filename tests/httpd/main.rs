//! Integration tests: a real httpd with the module loaded, on a free loopback port, for each test.
//!
//! `cargo build --release` first; then `cargo test --test httpd`. The environment may name another `HTTPD`, `APXS`,
//! `PYTHON` (with the packages of tests/requirements.txt) and `MOD_WEBSOCKET_SO`. What the tests have in common is in `harness`, and
//! explained there.

mod harness;

mod advice;
mod bad_clients;
mod bad_config;
mod bad_frames;
mod browser;
mod channel_history;
mod channel_load;
mod channel_names;
mod channel_requests;
mod channel_resume;
mod channel_transports;
mod channels;
mod compression;
mod contexts;
mod docs;
mod drain;
mod echo;
mod engine;
mod engine_late;
mod exec;
mod foreign;
mod front;
mod handshake;
mod harness_itself;
mod htaccess;
mod http2;
mod limits;
mod log_rotation;
mod mux;
mod other_modules;
mod php;
mod plugin;
mod plugin_end;
mod plugin_examples;
mod plugin_load;
mod publish;
mod pywebsocket;
mod redis;
mod redis_foreign;
mod redis_lost;
mod refusals;
mod relay;
mod response_headers;
mod restart;
mod same_packet;
mod session_log;
mod site;
mod standalone;
mod tcp;
mod tls;
mod tls_handoff;
mod tls_load;
mod upgrade_of_the_module;
mod way_in;
