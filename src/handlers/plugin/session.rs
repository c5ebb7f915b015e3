//! The engine's half of a C plugin: it moves messages between the client and the httpd child in which the plugin runs,
//! over a Unix stream socket. The other half is `module::plugin`. May import: `engine`, `wire`.
//!
//! A message on that stream is its kind (1 byte, see [`MessageKind`]), the length of its payload (4 bytes, big-endian) and the
//! payload. Nobody asks for anything: who cannot take more does not read.
//!
//! The end: who has nothing more to say closes its side for writing. When the client closes, the child still gets what
//! came before, and what the plugin answers to that goes out before our Close.

use crate::engine::bridge::{self, Backend, GATHERED, Gathered, Said};
use crate::engine::summary::End;
use crate::engine::{Accepted, Conn, Handler, LocalBoxFuture, MessageSession, Rejection, SessionSpec};
use crate::handlers::framing::{Splitter, close_frame, header};
use crate::wire::frame::Control;
use crate::wire::{CloseCode, CloseFrame, Message, Utf8Bytes, close};
use bytes::Bytes;
use log::{debug, error};
use std::io;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// What a message on the stream is: RFC 6455's numbers (section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// Either way. UTF-8.
    Text = 1,
    Binary = 2,
    /// From the plugin: the payload of a Close frame, as the plugin has it. Nothing follows.
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl MessageKind {
    /// The kind of that number.
    ///
    /// # Errors
    /// There is none.
    pub fn from_byte(byte: u8) -> io::Result<MessageKind> {
        let kinds = [MessageKind::Text, MessageKind::Binary, MessageKind::Close, MessageKind::Ping, MessageKind::Pong];
        let what = || format!("a message of kind {byte} from the plugin's process");
        kinds
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, what()))
    }
}

/// How often it is looked whether a client is still there that is not read.
const LOOK: Duration = Duration::from_secs(5);

pub struct PluginHandler;

impl Handler for PluginHandler {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async { Ok(Accepted::messages(PluginHandler)) })
    }
}

impl MessageSession for PluginHandler {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            let link = conn.take_link().map(|link| {
                rustix::io::ioctl_fionbio(&link, true)?;
                UnixStream::from_std(link.into())
            });
            match link {
                Some(Ok(link)) => Box::pin(relay(conn, PluginLink::new(link))).await,
                Some(Err(why)) => {
                    error!("WS0231: session {}: the link to its plugin cannot be watched: {why}", conn.id());
                    close(CloseCode::Error, "internal error")
                }
                None => {
                    error!("WS0233: session {}: there is no link to its plugin", conn.id());
                    close(CloseCode::Error, "internal error")
                }
            }
        })
    }
}

struct PluginLink {
    stream: UnixStream,
    /// What the child has not taken yet.
    up: Gathered,
    splitter: Splitter,
    down: std::vec::IntoIter<(MessageKind, Vec<u8>)>,
    ended: bool,
}

impl Backend for PluginLink {
    type End = CloseFrame;

    fn has_room(&self) -> bool {
        self.up.len() < GATHERED
    }

    fn put(&mut self, message: Message) {
        let (kind, payload) = match &message {
            Message::Text(text) => (MessageKind::Text, text.as_bytes()),
            Message::Binary(payload) => (MessageKind::Binary, &payload[..]),
            _ => return,
        };
        let up = self.up.tail();
        up.extend_from_slice(&header(kind as u8, payload.len()));
        up.extend_from_slice(payload);
    }

    async fn turn(&mut self) {
        self.hear(!self.has_room()).await;
    }

    fn said(&mut self) -> Option<Said<CloseFrame>> {
        let said = self.down.find_map(|(kind, payload)| said(kind, payload));
        said.or_else(|| self.ended.then(|| Said::End(close(CloseCode::Error, "the plugin is gone"))))
    }
}

impl PluginLink {
    fn new(stream: UnixStream) -> PluginLink {
        let down = Vec::new().into_iter();
        PluginLink { stream, up: Gathered::default(), splitter: Splitter::default(), down, ended: false }
    }

    /// Waits until the child has said something; with `or_room`, or taken something. Writes meanwhile.
    async fn hear(&mut self, or_room: bool) {
        let before = self.up.len();
        while !self.ended && self.down.len() == 0 && !(or_room && self.up.len() != before) {
            if let Err(why) = self.step().await {
                if why.kind() != io::ErrorKind::UnexpectedEof {
                    debug!("WS0232: the link to a plugin broke: {why}");
                }
                self.ended = true;
            }
        }
    }

    /// Waits until something can be written or read. Dropping the future loses nothing.
    async fn step(&mut self) -> io::Result<()> {
        let wanted = if self.up.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(wanted).await?;
        if ready.is_writable() {
            self.up.write(|bytes| self.stream.try_write(bytes))?;
        }
        if ready.is_readable() || ready.is_read_closed() {
            self.read()?;
        }
        Ok(())
    }

    /// Reads once. The end of the stream is the error `UnexpectedEof`.
    fn read(&mut self) -> io::Result<()> {
        bridge::with_buffer(|buffer| {
            let mut bytes = match self.stream.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => &buffer[..count],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let mut messages = Vec::new();
            while let Some((kind, payload)) = self.splitter.next(&mut bytes, 0, usize::MAX)? {
                messages.push((MessageKind::from_byte(kind)?, payload));
            }
            self.down = messages.into_iter();
            Ok(())
        })
    }

    fn end_writing(&self) {
        // Fails where the child is gone, and then there is nobody to tell.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }
}

/// Moves messages until the session ends.
async fn relay(conn: &mut Conn, mut link: PluginLink) -> CloseFrame {
    if let Some(frame) = bridge::run(conn, &mut link, LOOK).await {
        return frame;
    }
    let verdict = close(CloseCode::Normal, "");
    if matches!(conn.end(), Some(End::Client(_) | End::Violation(_))) {
        // What the client said before it closed gets its answers.
        let limit = conn.spec().limits.close_timeout;
        if tokio::time::timeout(limit, last_answers(conn, &mut link)).await.is_ok() {
            return verdict;
        }
    }
    if !link.up.is_empty() {
        // The plugin hears what came before the end, however long it takes; the session does not wait for it.
        tokio::task::spawn_local(last_messages(link));
    }
    verdict
}

/// Lets the child have the last messages, and the client what the plugin says to them.
async fn last_answers(conn: &mut Conn, link: &mut PluginLink) {
    loop {
        if link.up.is_empty() {
            // A second time does no harm.
            link.end_writing();
        }
        link.hear(!link.up.is_empty()).await;
        while let Some(said) = link.said() {
            match said {
                Said::Message(message) => {
                    let sent = conn.send_late(message).await;
                    if sent.is_err() {
                        return;
                    }
                }
                Said::End(_) if link.ended => return,
                _ => {}
            }
        }
    }
}

/// Lets the child have the last messages of a session that is over; nobody is there for what it says.
async fn last_messages(mut link: PluginLink) {
    while !link.up.is_empty() && !link.ended {
        link.hear(true).await;
        link.down = Vec::new().into_iter();
    }
}

/// What a message of the child says, if it says anything.
fn said(kind: MessageKind, payload: Vec<u8>) -> Option<Said<CloseFrame>> {
    Some(match kind {
        // The child has looked, so this is UTF-8.
        MessageKind::Text => Said::Message(Message::Text(Utf8Bytes::try_from(Bytes::from(payload)).ok()?)),
        MessageKind::Binary => Said::Message(Message::Binary(payload.into())),
        MessageKind::Close => Said::End(close_frame(&payload)),
        MessageKind::Ping => Said::Control(Control::Ping, payload),
        MessageKind::Pong => Said::Control(Control::Pong, payload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_no_kind_is_an_error() {
        assert!(MessageKind::from_byte(3).is_err());
    }
}
