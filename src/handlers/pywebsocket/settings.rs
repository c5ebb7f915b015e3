//! What httpd says of a session with a Python handler, beside what is said of every session. Travels in
//! [`crate::engine::HandlerSpec::settings`].

use crate::handlers::targets::Crowd;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a worker is started with: equal ones have one worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Worker {
    /// The Python that has the package pywebsocket3.
    pub python: PathBuf,
    /// The folder of the handlers; a handler's resource is its path below it.
    pub root: PathBuf,
    /// The part of it that is searched, if not all.
    pub scan: Option<PathBuf>,
    pub map: Option<PathBuf>,
    /// Handlers that links lead to out of the folder are taken, too.
    pub outside_root: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonSettings {
    pub worker: Worker,
    pub headers: Vec<(String, String)>,
    pub remote: (String, u16),
    pub local: (String, u16),
    pub secure: bool,
    /// With whom the client's worker of httpd waits.
    pub crowd: Crowd,
}
