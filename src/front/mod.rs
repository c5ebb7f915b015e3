//! What all handlers share in httpd's children.
//!
//! * [`upgrade`]: the content handler: the opening handshake
//! * [`custody`]: the way of a session's bytes to the engine
//! * [`opening`]: the shortest way: the engine answers the handshake
//! * [`handler`]: what a handler is to httpd
//! * [`refusal`]: what the log says of handshakes that are refused
//! * [`response`]: the 101
//! * [`others`]: the requests that another module answers, or nobody but httpd
//! * [`access`]: who may publish over HTTP
//! * [`authorize`]: an application that decides over handshakes
//! * [`child`]: what a child has for all its requests: the way to the engine, the relay thread
//! * [`config`]: what the directives of a section say
//! * [`h2`]: how many streams of HTTP/2 may be WebSockets
//! * [`tls_handoff`]: TLS connections that the engine goes on with
//! * [`relay`]: the custody of connections that httpd stays in between: TLS 1.2, HTTP/2
//! * [`metrics`]: figures of the whole server
//! * [`once`]: what the log says once a minute of a location
//! * [`session_logs`]: the logs of `WebSocketLog`
//! * [`signals`]: what children, parent and engine see of each other without asking

pub mod access;
pub(crate) mod authorize;
pub mod child;
pub mod config;
pub mod custody;
pub mod h2;
pub mod handler;
pub mod metrics;
pub mod once;
pub mod opening;
pub mod others;
pub mod refusal;
pub mod relay;
pub mod response;
pub mod session_logs;
pub mod signals;
pub mod tls_handoff;
pub mod upgrade;

pub struct WebSocket;
