//! The engine's end of a connection's link to a worker: `worker.py` says what goes over it.

use super::settings::PythonSettings;
use crate::engine::metrics;
use crate::engine::summary::{End, Traffic};
use crate::engine::{RawSummary, SessionSpec, handoff};
use crate::handlers::framing::{Splitter, header};
use crate::wire::{CloseCode, CloseFrame, close};
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest payload that a worker may send: the 101's header lines.
const LONGEST: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A session: the 101 is to have these header lines.
    Accepted(Vec<(String, String)>),
    /// A session, of sorts: the worker wants the stream, and says to the client what there is to say.
    Claimed,
    Refused(u16, String),
    Declined,
    /// No answer, and no connection.
    Dropped,
}

/// `o`, see `worker.py`.
#[derive(Serialize)]
struct OpeningMessage<'a> {
    line: String,
    uri: &'a str,
    headers: &'a [(String, String)],
    remote: &'a (String, u16),
    local: &'a (String, u16),
    user: Option<&'a str>,
    secure: bool,
    max_message_size: usize,
    close_timeout: f64,
    idle_timeout: Option<f64>,
    /// Seconds of silence, and for the answer.
    ping: Option<(u64, u64)>,
}

/// `e`.
#[derive(Deserialize)]
struct Over {
    by: String,
    code: u16,
    received: (u64, u64),
    sent: (u64, u64),
}

pub struct WorkerLink {
    stream: UnixStream,
    /// What was read and is not taken apart yet.
    inbox: Vec<u8>,
    splitter: Splitter,
}

/// Sends bytes, and a descriptor with the first of them.
///
/// # Errors
/// The other end is gone.
pub async fn send_with(stream: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    stream
        .async_io(Interest::WRITABLE, || {
            Ok(handoff::sendmsg_with(stream, bytes, &[descriptor], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
        })
        .await
}

fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&header(kind, payload.len())[..], payload].concat()
}

impl WorkerLink {
    /// A new one, and the worker's end of it.
    ///
    /// # Errors
    /// No descriptors.
    pub fn pair() -> io::Result<(WorkerLink, StdUnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        Ok((WorkerLink::new(ours.into())?, theirs))
    }

    /// Of our end.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(fd: OwnedFd) -> io::Result<WorkerLink> {
        let stream = StdUnixStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(WorkerLink { stream: UnixStream::from_std(stream)?, inbox: Vec::new(), splitter: Splitter::default() })
    }

    /// The descriptor, for another runtime.
    ///
    /// # Errors
    /// The runtime cannot let go of it.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(self.stream.into_std()?.into())
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn send(&self, kind: u8, payload: &impl Serialize) -> io::Result<()> {
        self.write(&message(kind, &serde_json::to_vec(payload)?)).await
    }

    /// The next message. Dropping the future loses nothing.
    async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            let mut bytes = &self.inbox[..];
            let message = self.splitter.next(&mut bytes, 0, LONGEST)?;
            self.inbox = bytes.to_vec();
            if let Some(message) = message {
                return Ok(message);
            }
            self.stream.readable().await?;
            let mut piece = [0; 4096];
            match self.stream.try_read(&mut piece) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone")),
                Ok(count) => self.inbox.extend_from_slice(&piece[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Tells of the handshake.
    ///
    /// # Errors
    /// The worker is gone.
    pub async fn offer(&self, spec: &SessionSpec, settings: &PythonSettings) -> io::Result<()> {
        let opening = OpeningMessage {
            // A stream of HTTP/2 looks like this, too (RFC 8441): what the package knows is HTTP/1.1.
            line: format!("GET {} HTTP/1.1", spec.uri),
            uri: &spec.uri,
            headers: &settings.headers,
            remote: &settings.remote,
            local: &settings.local,
            user: spec.user.as_deref(),
            secure: settings.secure,
            max_message_size: spec.limits.max_message_size,
            close_timeout: spec.limits.close_timeout.as_secs_f64(),
            idle_timeout: spec.limits.idle_timeout.map(|time| time.as_secs_f64()),
            ping: spec.limits.ping.map(|ping| (ping.interval.as_secs(), ping.timeout.as_secs())),
        };
        self.send(b'o', &opening).await
    }

    /// Waits for the answer to the handshake.
    ///
    /// # Errors
    /// The worker is gone, or says what it should not.
    pub async fn verdict(&mut self) -> io::Result<Verdict> {
        let (kind, payload) = self.receive().await?;
        verdict(kind, &payload)
    }

    /// Gives the client's stream away, and what was read of it.
    ///
    /// # Errors
    /// The worker is gone.
    pub async fn give(&self, early: Vec<u8>, stream: BorrowedFd<'_>) -> io::Result<()> {
        let bytes = message(b't', &early);
        let sent = send_with(&self.stream, &bytes, stream).await?;
        self.write(&bytes[sent..]).await
    }

    /// Asks for a Close.
    ///
    /// # Errors
    /// The worker is gone.
    pub async fn ask_to_close(&self, frame: &CloseFrame) -> io::Result<()> {
        self.send(b'x', &(u16::from(frame.code), frame.reason.as_str())).await
    }

    /// Waits for the end of the session.
    ///
    /// # Errors
    /// The worker is gone, or says what it should not.
    pub async fn ending(&mut self) -> io::Result<RawSummary> {
        let (kind, payload) = self.receive().await?;
        if kind != b'e' {
            return Err(unexpected(kind));
        }
        let Over { by, code, received, sent } = serde_json::from_slice(&payload)?;
        metrics::here().note_received(received.0, received.1);
        metrics::here().note_sent(sent.0, sent.1);
        let traffic = |(messages, bytes)| Traffic { messages, bytes };
        Ok(RawSummary { end: end(&by, code), received: traffic(received), sent: traffic(sent) })
    }
}

fn unexpected(kind: u8) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of kind {kind} from it"))
}

fn verdict(kind: u8, payload: &[u8]) -> io::Result<Verdict> {
    Ok(match kind {
        b'a' => Verdict::Accepted(serde_json::from_slice(payload)?),
        b'c' => Verdict::Claimed,
        b'r' => {
            let (status, reason) = serde_json::from_slice(payload)?;
            // What is no error could not become httpd's error page.
            Verdict::Refused(if (400..600).contains(&status) { status } else { 403 }, reason)
        }
        b'd' => Verdict::Declined,
        b'q' => Verdict::Dropped,
        kind => return Err(unexpected(kind)),
    })
}

/// As a worker tells it.
fn end(by: &str, code: u16) -> End {
    let frame = close(CloseCode::from(code), "");
    match by {
        "client" if code == u16::from(CloseCode::Status) => End::Client(None),
        "client" => End::Client(Some(frame)),
        "violation" => End::Violation(frame),
        "server" => End::Engine(frame),
        "handler" => End::Handler(frame),
        _ => End::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, "no closing handshake")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_understood() {
        let headers = vec![("Upgrade".to_owned(), "websocket".to_owned())];
        assert_eq!(verdict(b'a', br#"[["Upgrade", "websocket"]]"#).unwrap(), Verdict::Accepted(headers));
        assert_eq!(verdict(b'r', br#"[404, "no"]"#).unwrap(), Verdict::Refused(404, "no".into()));
        assert_eq!(verdict(b'r', br#"[101, "no"]"#).unwrap(), Verdict::Refused(403, "no".into()));
        assert_eq!(verdict(b'd', b"").unwrap(), Verdict::Declined);
        assert!(verdict(b'a', b"").is_err() && verdict(b'e', b"").is_err());
    }

    #[test]
    fn ends_have_their_codes() {
        for (by, code, who) in [
            ("client", 1000, "client"),
            ("client", 1005, "client"),
            ("violation", 1009, "violation"),
            ("server", 1001, "server"),
            ("handler", 4321, "handler"),
            ("lost", 1006, "lost"),
        ] {
            let end = end(by, code);
            assert_eq!((end.who(), end.code()), (who, code));
        }
    }
}
