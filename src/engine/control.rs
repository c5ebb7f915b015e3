//! What only httpd's parent may say to the engine: over a pair of sockets of which the children have no end. When the parent's
//! end closes, it is over for the engine as well.
//!
//! ```text
//! parent                                   engine
//!   Hello { version }                 ──▶
//!   SessionLog { name } + the log     ──▶  for each session log
//!   Configure { … } + the error log   ──▶
//!                           ◀── Hello { version }
//!   Retire                            ──▶  there is a new engine
//!   Stop                              ──▶
//! ```
//!
//! Messages travel as in [`super::handoff`].

use super::handoff::{FromEngine, HandoffMessage, PATIENCE, Receiver, receive, send, send_with, unexpected, version};
use super::memory::Bound;
use super::process::ControlMessage;
use super::session_log::NamedLog;
use log::{error, warn};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, SendFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// From httpd's parent to the engine. The first three stay as they are in every version.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Before each configuration: parent and engine may be of two versions.
    Hello {
        /// The sender's [`version`].
        version: String,
    },
    /// There is a new engine; end with the last session.
    Retire,
    /// Close all sessions, and end.
    Stop,
    /// Before [`Order::Configure`], for each session log of that configuration, whose descriptor comes with it.
    SessionLog {
        /// As [`super::LogSpec::name`] says it.
        name: String,
    },
    /// A new configuration generation; the error log's descriptor comes with it when there is one.
    Configure(Configuration),
}

impl HandoffMessage for Order {}

/// What a configuration generation changes in a running engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// httpd's number for the log level (APLOG_*).
    pub log_level: i32,
    /// A descriptor comes with the message: httpd's new error log.
    pub with_log: bool,
    /// What handlers are told, by their names, each in a form of its own: see [`super::Handler::configure`].
    pub settings: Vec<(String, Vec<u8>)>,
    /// With which code sessions are closed when httpd stops: one that may be sent.
    pub stop_code: u16,
    /// What sockets may hold.
    pub memory: Bound,
}

/// The parent's end. All calls block, for some seconds at most.
#[derive(Debug)]
pub(crate) struct ControlLink {
    stream: UnixStream,
}

impl From<OwnedFd> for ControlLink {
    fn from(end: OwnedFd) -> ControlLink {
        ControlLink { stream: end.into() }
    }
}

/// The pair: the parent's end, and the engine's.
///
/// # Errors
/// There are no descriptors left.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (parent, engine) = UnixStream::pair()?;
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&parent, direction, Some(PATIENCE))?;
    }
    engine.set_nonblocking(true)?;
    Ok((parent.into(), engine.into()))
}

impl ControlLink {
    /// Tells the engine of a new configuration generation: the log level, the error log, all session logs, what handlers
    /// are told, the code of the Close at a stop, what sockets may hold; returns the engine's version.
    ///
    /// # Errors
    /// The engine is gone, or does not answer.
    pub fn configure(
        &mut self,
        log_level: i32,
        log: Option<BorrowedFd<'_>>,
        session_logs: &[NamedLog],
        settings: Vec<(String, Vec<u8>)>,
        stop_code: u16,
        memory: Bound,
    ) -> io::Result<String> {
        let configuration = Configuration { log_level, with_log: log.is_some(), settings, stop_code, memory };
        let said = self.send_configuration(configuration, log, session_logs);
        match receive(&mut self.stream) {
            Ok(FromEngine::Hello { version }) => Ok(version),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => said.and(Err(e)),
        }
    }

    fn send_configuration(
        &mut self,
        configuration: Configuration,
        log: Option<BorrowedFd<'_>>,
        session_logs: &[NamedLog],
    ) -> io::Result<()> {
        send(&mut self.stream, &Order::Hello { version: version().into() })?;
        for (name, descriptor) in session_logs {
            send_with(&mut self.stream, &Order::SessionLog { name: name.clone() }, &[descriptor.as_fd()])?;
        }
        let order = Order::Configure(configuration);
        match log {
            Some(log) => send_with(&mut self.stream, &order, &[log]),
            None => send(&mut self.stream, &order),
        }
    }

    /// Tells an engine of another version to end with its last session.
    ///
    /// # Errors
    /// The engine is gone.
    pub fn retire(&mut self) -> io::Result<()> {
        send(&mut self.stream, &Order::Retire)
    }

    /// Tells the engine to close its sessions and to end. Does not wait.
    ///
    /// # Errors
    /// The engine is gone, or has not listened for long.
    pub fn stop(&self) -> io::Result<()> {
        let order = super::handoff::encode(&Order::Stop)?;
        net::send(&self.stream, &order, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }
}

/// Does what the parent says, with messages for the main thread, until the parent's end closes.
pub(crate) async fn obey(end: OwnedFd, messages: mpsc::UnboundedSender<ControlMessage>) {
    let listened = async { listen(&mut Receiver::new(end.into())?, &messages).await };
    if let Err(why) = listened.await {
        warn!("WS0150: cannot understand a message of httpd's parent: {why}");
    }
    // It fails when the engine is ending already.
    let _ = messages.send(ControlMessage::Stop);
}

async fn listen(parent: &mut Receiver<Order>, messages: &mpsc::UnboundedSender<ControlMessage>) -> io::Result<()> {
    let mut is_stranger = false;
    let mut session_logs = Vec::new();
    while let Some(order) = parent.next_if_known().await? {
        match order {
            // Of another version, in which this means something.
            None if is_stranger => parent.forget_descriptors(),
            None => error!("WS0151: httpd's parent sent a message that this engine does not know"),
            Some(Order::Hello { version: theirs }) => {
                is_stranger = theirs != version();
                session_logs.clear();
                if is_stranger {
                    parent.send(&FromEngine::Hello { version: version().into() }).await?;
                }
            }
            Some(Order::Retire) => drop(messages.send(ControlMessage::Retire)),
            Some(Order::Stop) => return Ok(()),
            Some(Order::SessionLog { .. } | Order::Configure(_)) if is_stranger => parent.forget_descriptors(),
            Some(Order::SessionLog { name }) => session_logs.push((name, parent.descriptor()?)),
            Some(Order::Configure(configuration)) => {
                let log = if configuration.with_log { Some(parent.descriptor()?) } else { None };
                let session_logs = std::mem::take(&mut session_logs);
                let (done, holds) = oneshot::channel();
                let _ = messages.send(ControlMessage::Configure { configuration, log, session_logs, done });
                // It fails when the engine is ending.
                if holds.await.is_ok() {
                    parent.send(&FromEngine::Hello { version: version().into() }).await?;
                }
            }
        }
    }
    Ok(())
}
