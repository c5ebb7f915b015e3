//! mod_websocket: a WebSocket server inside Apache httpd.
//!
//! # The map of the house
//!
//! A request with `Upgrade: websocket` passes through httpd like any other: TLS, virtual host, rewriting, login. Our
//! content handler checks the opening handshake and gives the socket away to the *engine process*, which sends the 101 that httpd
//! has worked out, and owns every open session. The httpd worker is free at once.
//!
//! ```text
//! httpd child                                     engine process (one per httpd)
//!   front::upgrade    negotiate, handoff            engine::process   signals, the way in
//!        │            SCM_RIGHTS fd + SessionSpec + 101  │
//!        └──────────────────────────────────────▶  engine::thread    one tokio current-thread runtime each
//!                                                         │
//!                                                   engine::connection  socket + codec + engine::write_queue
//!                                                         │
//!   handlers::plugin  C plugins' functions  ◀─────▶  handlers          echo, plugin, …
//! ```
//!
//! | folder | what it is | may import |
//! |---|---|---|
//! | `apache` | safe wrappers of httpd's API; knows nothing of WebSocket | nothing of ours |
//! | [`wire`] | the protocol: no I/O, no threads, no clock | nothing of ours |
//! | [`tls`] | TLS 1.3 records of connections that httpd has opened | nothing of ours |
//! | [`mux`] | many streams over one socket between a child and an engine thread | nothing of ours |
//! | [`engine`] | the process that owns the sockets | those above |
//! | `channels` | channels: their history, who is there, the way to all subscribers | those above |
//! | `front` | what all handlers share in httpd's children | those above |
//! | `handlers` | what a location does with its sessions: a folder each | those above |
//! | `module` | the composition root: directives, hooks, the parent that supervises the engine | everything |
//!
//! `apache`, `front`, `module` and the parts of handlers that are httpd's are compiled with the feature `httpd` (the default)
//! only: without it the crate builds and tests with neither httpd's headers nor libclang, which proves the border.
//!
//! # Where is …
//!
//! | what | where |
//! |---|---|
//! | an opening handshake judged | `front/upgrade.rs` asks [`wire::handshake`], and then the engine: [`engine::handoff`], `engine/handoff_server.rs` |
//! | an application asked whether a session may open | `front/authorize/`, `apache/subrequest.rs`; what it answers: [`engine::application`] |
//! | the socket given away, or the bytes relayed | `front/opening.rs`, the longer way in `front/custody.rs`; `front/relay/`, [`mux`] |
//! | where TLS keys leave httpd | `apache/tls/` sees them, `front/tls_handoff.rs` takes them, [`tls::record`] goes on with them |
//! | a handshake sent on to a server behind mod_proxy | `handlers/proxy/front.rs`, `handlers/proxy/route.rs` |
//! | a session run | `engine/session_task.rs`, [`engine::connection`] over [`wire::session`], its handler: `handlers/echo` is the smallest |
//! | a message answered where it was received | `engine/connection/answering.rs`, `wire/session/whole.rs` |
//! | a message published and fanned out | `handlers/channel/publish.rs`, `channels/hub/`, `channels/shard.rs`, [`engine::broadcast`] |
//! | a proxied session's bytes moved | `handlers/proxy/session.rs`, `handlers/proxy/one_way.rs`; [`wire::frame_follower`] counts what passes |
//! | a message that becomes a request | `handlers/http/session.rs`, `engine/application/loopback.rs`; the opening: `handlers/http/front.rs` |
//! | a directive declared and merged | `front/config/`, `handlers/*/config.rs`; all of them together: `module/directives` |
//! | a figure counted, and shown | `engine/metrics/`; `front/metrics/`; what all threads are asked: `engine/query.rs` |
//! | the engine started, told and replaced | `module/parent.rs`, [`engine::process`], [`engine::control`] |

// Its docs are for those who work on it.
#![allow(rustdoc::private_intra_doc_links)]
// Much of the engine is called by httpd's half alone.
#![cfg_attr(not(feature = "httpd"), allow(dead_code, unused_imports))]

// The one folder that speaks C, but for the interface of plugins: every block in it says who guarantees what it relies on.
#[cfg(feature = "httpd")]
#[allow(unsafe_code)]
mod apache;
pub(crate) mod channels;
pub mod engine;
#[cfg(feature = "httpd")]
mod front;
mod handlers;
#[cfg(feature = "httpd")]
mod module;
pub mod mux;
pub mod tls;
pub mod wire;
