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
pub mod config;
#[cfg(feature = "httpd")]
pub mod front;
pub mod link;
pub mod settings;
pub mod workers;

use super::targets::Targets;
use crate::engine::conn::{End, Traffic};
use crate::engine::{Conn, Ending, Greeting, Handler, Later, Raw, RawHandler, Refused, Reply, Running};
use crate::engine::{SessionSpec, Unwelcome, Welcome};
use crate::wire::{CloseCode, CloseFrame, close};
use link::{Link, Verdict};
use log::{error, warn};
use settings::{Settings, Worker};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use workers::Workers;

/// How long a handshake may take in a worker, its start included.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long httpd waits for that.
pub const PATIENCE: Duration = Duration::from_secs(35);

/// The pywebsocket handler.
#[derive(Default)]
pub struct PyWebSocket {
    workers: Workers,
    targets: Targets<Worker>,
}

impl Handler for PyWebSocket {
    /// Not called: see [`Handler::raw`].
    fn run<'a>(&'a self, _conn: &'a mut Conn) -> Running<'a> {
        Box::pin(std::future::ready(close(CloseCode::Error, "internal error")))
    }

    fn raw(&self) -> Option<&dyn RawHandler> {
        Some(self)
    }

    fn greet<'a>(&'a self, spec: &'a mut SessionSpec) -> Option<Greeting<'a>> {
        Some(Box::pin(self.shake_hands(spec)))
    }

    fn configure(&self, _settings: &[u8]) {
        // Handlers may have changed, whatever the configuration says.
        self.workers.retire();
    }
}

fn refused(status: u16, reason: String) -> Unwelcome {
    Unwelcome::Refused(Refused { status, reason })
}

impl PyWebSocket {
    async fn shake_hands(&self, spec: &mut SessionSpec) -> Result<Welcome, Unwelcome> {
        // Of no use after this.
        let settings = std::mem::take(&mut spec.handler.settings);
        let settings: Settings =
            postcard::from_bytes(&settings).map_err(|e| refused(500, format!("no settings of Python: {e}")))?;
        let asked = tokio::time::timeout(HANDSHAKE, self.ask(&settings, spec));
        let asked = self.targets.ask(&settings.worker, settings.crowd, asked, Result::is_err).await;
        let asked = asked.map_err(|busy| busy.refuse(format_args!("Python, {}", settings.worker.root.display())))?;
        let Ok(asked) = asked else {
            warn!("WS0273: {}: no answer of the handler in {} seconds", spec.uri, HANDSHAKE.as_secs());
            return Err(refused(504, "the Python handler has not answered in time".into()));
        };
        let (link, verdict) = asked.map_err(|why| refused(503, format!("the Python worker: {why}")))?;
        let (headers, reply) = match verdict {
            Verdict::Accepted(headers) => (headers, Reply::Dictated),
            Verdict::Claimed => (Vec::new(), Reply::Silent),
            Verdict::Refused(status, reason) => return Err(refused(status, reason)),
            Verdict::Declined => return Err(Unwelcome::Declined),
            Verdict::Dropped => return Err(Unwelcome::Dropped),
        };
        let protocol = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
        spec.protocol = protocol.map(|(_, value)| value.clone());
        let link = link.into_fd().map_err(|why| refused(503, format!("the Python worker: {why}")))?;
        Ok(Welcome { headers, link: Some(link), reply, ..Welcome::default() })
    }

    async fn ask(&self, settings: &Settings, spec: &SessionSpec) -> io::Result<(Link, Verdict)> {
        let (mut link, theirs) = Link::pair()?;
        self.workers.introduce(&settings.worker, theirs.as_fd()).await?;
        drop(theirs);
        link.offer(spec, settings).await?;
        let verdict = link.verdict().await?;
        Ok((link, verdict))
    }
}

impl RawHandler for PyWebSocket {
    fn run<'a>(&'a self, raw: &'a mut Raw) -> Later<'a, Ending> {
        Box::pin(async {
            match attend(raw).await {
                Ok(ending) => ending,
                Err(why) => {
                    if why.kind() != io::ErrorKind::UnexpectedEof {
                        error!("WS0274: session {}: the Python worker cannot be told of it: {why}", raw.id());
                    }
                    // A worker that is gone has been told of where it was awaited.
                    Ending { end: End::Lost(why), received: Traffic::default(), sent: Traffic::default() }
                }
            }
        })
    }
}

/// Gives the worker the client's stream, and waits until it has done with it.
async fn attend(raw: &mut Raw) -> io::Result<Ending> {
    let absent = || io::Error::other("it came without its stream");
    let mut link = Link::new(raw.take_link().ok_or_else(absent)?)?;
    let (stream, early) = raw.take_stream().ok_or_else(absent)?;
    link.give(early, stream.as_fd()).await?;
    // The worker is the only one who has it now, beside httpd if that relays it.
    drop(stream);
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
