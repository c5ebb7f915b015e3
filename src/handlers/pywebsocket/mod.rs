//! `WebSocketHandler pywebsocket DIR`: handlers in Python, `*_wsh.py`, as pywebsocket and mod_pywebsocket run them.
//!
//! * [`settings`]: what httpd says of a session
//! * [`workers`]: the Python processes, one for each configuration
//! * [`link`]: what is said to a worker about one connection
//! * `worker.py`: what such a process runs
//!
//! The handshake is the worker's before the 101: it takes the session with the header lines of the 101, refuses it, has
//! nothing there, or drops the connection. Then it gets the client's stream, and the engine keeps account of the session
//! until the worker says how it ended.

#[cfg(feature = "httpd")]
pub(crate) mod config;
#[cfg(feature = "httpd")]
pub(crate) mod front;
pub mod link;
pub mod settings;
pub mod workers;

use super::targets::Targets;
use crate::engine::summary::{End, Traffic};
use crate::engine::{Accepted, Handler, LocalBoxFuture, RawStream, RawSummary, Refused, Rejection, Response};
use crate::engine::{HandlerSession, SessionSpec, StreamSession, Streams};
use crate::wire::CloseFrame;
use link::{Verdict, WorkerLink};
use log::{error, warn};
use settings::{PythonSettings, Worker};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use workers::Workers;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;

/// How long a handshake may take in a worker, its start included.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long httpd waits for that.
pub const PATIENCE: Duration = Duration::from_secs(35);

#[derive(Default)]
pub struct PyWebSocket {
    workers: Workers,
    targets: Targets<Worker>,
}

impl Handler for PyWebSocket {
    fn accept<'a>(&'a self, spec: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(self.shake_hands(spec))
    }

    fn configure(&self, _settings: &[u8]) {
        // Handlers may have changed, whatever the configuration says.
        self.workers.retire();
    }
}

fn refused(status: u16, reason: String) -> Rejection {
    Rejection::Refused(Refused { status, reason })
}

impl PyWebSocket {
    async fn shake_hands(&self, spec: &SessionSpec) -> Result<Accepted, Rejection> {
        let settings: PythonSettings = postcard::from_bytes(&spec.handler.settings)
            .map_err(|e| refused(500, format!("no settings of Python: {e}")))?;
        let asked = tokio::time::timeout(HANDSHAKE, self.ask(&settings, spec));
        let asked = self.targets.ask(&settings.worker, settings.crowd, asked, Result::is_err).await;
        let asked = asked.map_err(|busy| busy.refuse(format_args!("Python, {}", settings.worker.root.display())))?;
        let Ok(asked) = asked else {
            warn!("WS0273: {}: the handler did not answer within {} seconds", spec.uri, HANDSHAKE.as_secs());
            return Err(refused(504, "the Python handler has not answered in time".into()));
        };
        let (link, verdict) = asked.map_err(|why| refused(503, format!("the Python worker: {why}")))?;
        let response = match verdict {
            Verdict::Accepted(headers) => Response::Custom(headers),
            Verdict::Claimed => Response::None,
            Verdict::Refused(status, reason) => return Err(refused(status, reason)),
            Verdict::Declined => return Err(Rejection::Declined),
            Verdict::Dropped => return Err(Rejection::Dropped),
        };
        let link = link.into_fd().map_err(|why| refused(503, format!("the Python worker: {why}")))?;
        let session = HandlerSession::Stream(Box::new(Claimed { link }));
        Ok(Accepted { descriptors: 1, ..Accepted::new(response, session) })
    }

    async fn ask(&self, settings: &PythonSettings, spec: &SessionSpec) -> io::Result<(WorkerLink, Verdict)> {
        let (mut link, theirs) = WorkerLink::pair()?;
        self.workers.introduce(&settings.worker, theirs.as_fd()).await?;
        drop(theirs);
        link.offer(spec, settings).await?;
        let verdict = link.verdict().await?;
        Ok((link, verdict))
    }
}

/// A session that a worker has taken, and the link to that.
struct Claimed {
    link: OwnedFd,
}

impl StreamSession for Claimed {
    fn run(self: Box<Self>, streams: Streams, raw: &RawStream) -> LocalBoxFuture<'_, RawSummary> {
        let Claimed { link } = *self;
        let socket = raw.plain_socket(streams.client);
        Box::pin(async move {
            let attended = match socket {
                Some(socket) => attend(link, socket, streams.early, raw).await,
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            };
            match attended {
                Ok(ending) => ending,
                Err(why) => {
                    if why.kind() != io::ErrorKind::UnexpectedEof {
                        error!("WS0274: session {}: the Python worker cannot be told of it: {why}", raw.id());
                    }
                    // A worker that is gone has been told of where it was awaited.
                    RawSummary { end: End::Lost(why), received: Traffic::default(), sent: Traffic::default() }
                }
            }
        })
    }
}

/// Gives the worker the client's stream, and waits until it has done with it.
async fn attend(link: OwnedFd, socket: OwnedFd, early: Vec<u8>, raw: &RawStream) -> io::Result<RawSummary> {
    let mut link = WorkerLink::new(link)?;
    link.give(early, socket.as_fd()).await?;
    // The worker is the only one who has it now, beside httpd if that relays it.
    drop(socket);
    let mut asked: Option<CloseFrame> = None;
    loop {
        tokio::select! {
            frame = raw.close_asked(), if asked.is_none() => {
                link.ask_to_close(&frame).await?;
                asked = Some(frame);
            }
            ending = link.ending() => return ending,
        }
    }
}

pub fn handler() -> impl Handler {
    PyWebSocket::default()
}
