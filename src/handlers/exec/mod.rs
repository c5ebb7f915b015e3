//! `WebSocketHandler exec PROGRAM …`: a program for each connection, or one for all of a location, that reads what clients
//! send and writes what they get.
//!
//! * [`settings`]: what httpd says of a session
//! * [`executable`]: whether a file is a program
//! * [`framing`]: how messages travel through pipes
//! * [`group`]: a program and all that it starts: one process group, which ends with it
//! * [`program`]: a running program and its pipes
//! * [`stderr`]: what it writes for the error log
//! * [`session`]: a client with a program of its own
//! * [`shared`]: a program with many clients
//!
//! Back-pressure goes both ways: what a program says is read when its client has room for it, and a client is not read while
//! its program has not taken what came before.

#[cfg(feature = "httpd")]
pub(crate) mod config;
pub mod executable;
pub mod framing;
#[cfg(feature = "httpd")]
pub(crate) mod front;
pub mod group;
pub mod program;
pub mod session;
pub mod settings;
pub mod shared;
pub mod stderr;

use crate::engine::{Accepted, Handler, LocalBoxFuture, Refused, Rejection, SessionSpec};
use group::Groups;
use settings::ExecSettings;
use shared::registry::SharedPrograms;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;

/// Descriptors for a program: its three pipes, and what its end is seen by.
const DESCRIPTORS: u32 = 4;

#[derive(Default)]
pub struct Exec {
    groups: Arc<Groups>,
    shared: Arc<SharedPrograms>,
}

impl Handler for Exec {
    fn accept<'a>(&'a self, spec: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async {
            let handler = &spec.handler;
            let refuse = |status, reason| Refused { status, reason };
            let settings: ExecSettings = postcard::from_bytes(&handler.settings)
                .map_err(|why| refuse(500, format!("what is said of the program cannot be read: {why}")))?;
            let program = handler.args.first().map_or("", String::as_str);
            let path = PathBuf::from(program);
            // The file may lie on a disk that takes its time, and others are asked on this thread.
            let checked = tokio::task::spawn_blocking(move || executable::check(&path)).await;
            let checked = checked.unwrap_or_else(|why| Err(why.to_string()));
            checked.map_err(|why| refuse(500, format!("{program} {why}")))?;
            let groups = self.groups.clone();
            let Some(shared) = settings.shared else {
                let own = session::Opening { groups, settings };
                return Ok(Accepted { descriptors: DESCRIPTORS, ..Accepted::messages(own) });
            };
            if let Some(pause) = self.shared.pause(&shared.place, &handler.args) {
                let seconds = pause.as_secs() + 1;
                return Err(refuse(503, format!("{program} has failed, and is not started within {seconds} s")).into());
            }
            let ExecSettings { environment, stop_timeout, .. } = settings;
            let registry = self.shared.clone();
            Ok(Accepted::messages(shared::client::Opening { registry, groups, shared, environment, stop_timeout }))
        })
    }

    fn end(&self, limit: Duration) -> Option<LocalBoxFuture<'_, ()>> {
        self.shared.end();
        Some(Box::pin(self.groups.terminate(limit)))
    }
}

pub fn handler() -> impl Handler {
    Exec::default()
}

#[cfg(test)]
mod tests;
