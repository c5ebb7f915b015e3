//! What httpd says to this handler of a session: plain data, as [`postcard`] writes it. The program and its arguments are in
//! [`crate::engine::HandlerSpec::args`].

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A variable of a program's environment: name and value, which need not be UTF-8.
pub type EnvironmentVariable = (Vec<u8>, Vec<u8>);

/// How messages are told apart on a program's standard input and output. See [`super::framing`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// A message is a line.
    #[default]
    Lines,
    /// Not at all: the program reads and writes bytes.
    Chunks,
    /// By a header with the length.
    Length,
}

/// What a session with a program is, beside what every session is. Travels in [`crate::engine::HandlerSpec::settings`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSettings {
    /// How messages are told apart; of no meaning for a shared program.
    pub framing: Framing,
    pub environment: Vec<EnvironmentVariable>,
    /// How long the program has to end after its input was closed, and again after SIGTERM.
    pub stop_timeout: Duration,
    /// The scopes of the quotas that the program itself takes places of, and not only its session.
    pub quotas: Vec<String>,
    pub shared: Option<Shared>,
}

/// What a program for all sessions of a location is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The location: sessions with the same text, program and arguments have the same program.
    pub place: String,
    /// What of the environment belongs to no client.
    pub environment: Vec<EnvironmentVariable>,
    /// How long the program stays when its last client has left.
    pub linger: Duration,
}
