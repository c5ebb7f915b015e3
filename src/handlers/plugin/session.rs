//! The engine's half of a C plugin: it moves messages between the client and the httpd child in which the plugin runs,
//! over a Unix stream socket. The other half is `module::plugin`. May import: `engine`, `wire`.
//!
//! A message on that stream is its kind (1 byte, see [`Kind`]), the length of its payload (4 bytes, big-endian) and the
//! payload. Nobody asks for anything: who cannot take more does not read.
//!
//! The end: who has nothing more to say closes its side for writing. When the client closes, the child still gets what
//! came before, and what the plugin answers to that goes out before our Close.

use crate::engine::summary::End;
use crate::engine::{Accepted, Conn, Handler, LocalBoxFuture, MessageSession, Rejection, SessionSpec};
use crate::handlers::framing::{Splitter, header};
use crate::wire::frame::Control;
use crate::wire::{CloseCode, CloseFrame, Message, Utf8Bytes, close};
use bytes::Bytes;
use log::{debug, error};
use std::cell::RefCell;
use std::io;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// What a message on the stream is: RFC 6455's numbers (section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Either way. UTF-8.
    Text = 1,
    /// Either way.
    Binary = 2,
    /// From the plugin: the payload of a Close frame, as the plugin has it. Nothing follows.
    Close = 8,
    /// From the plugin.
    Ping = 9,
    /// From the plugin.
    Pong = 10,
}

impl Kind {
    /// The kind of that number.
    ///
    /// # Errors
    /// There is none.
    pub fn from_byte(byte: u8) -> io::Result<Kind> {
        let kinds = [Kind::Text, Kind::Binary, Kind::Close, Kind::Ping, Kind::Pong];
        let what = || format!("a message of kind {byte} from the plugin's process");
        kinds
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, what()))
    }
}

/// Bytes for the child that are gathered before they are written.
const GATHERED: usize = 64 * 1024;

thread_local! {
    /// Where every read of a link lands first.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

/// The plugin handler, and each of its sessions.
pub struct Plugin;

impl Handler for Plugin {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async { Ok(Accepted::messages(Plugin)) })
    }
}

impl MessageSession for Plugin {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            let link = conn.take_link().map(|link| {
                rustix::io::ioctl_fionbio(&link, true)?;
                UnixStream::from_std(link.into())
            });
            match link {
                Some(Ok(link)) => Box::pin(relay(conn, Link::new(link))).await,
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

/// The stream to the child.
struct Link {
    stream: UnixStream,
    /// What the child has not taken yet, from `up_sent` on.
    up: Vec<u8>,
    up_sent: usize,
    splitter: Splitter,
    down: std::vec::IntoIter<(Kind, Vec<u8>)>,
}

/// What a link has for the session.
enum Heard {
    Message(Kind, Vec<u8>),
    /// The child has nothing more to say, or is gone.
    End,
}

impl Link {
    fn new(stream: UnixStream) -> Link {
        Link { stream, up: Vec::new(), up_sent: 0, splitter: Splitter::default(), down: Vec::new().into_iter() }
    }

    fn push(&mut self, message: &Message) {
        let (kind, payload) = match message {
            Message::Text(text) => (Kind::Text, text.as_bytes()),
            Message::Binary(payload) => (Kind::Binary, &payload[..]),
            _ => return,
        };
        // What is written already would stay as long as something waits.
        if self.up_sent >= GATHERED {
            self.up.drain(..self.up_sent);
            self.up_sent = 0;
        }
        self.up.extend_from_slice(&header(kind as u8, payload.len()));
        self.up.extend_from_slice(payload);
    }

    /// Bytes that wait for the child.
    fn waiting(&self) -> usize {
        self.up.len() - self.up_sent
    }

    fn has_room(&self) -> bool {
        self.waiting() < GATHERED
    }

    fn has_more(&self) -> bool {
        self.waiting() > 0
    }

    /// Waits until something was written or read; what was read is there for [`Link::heard`]. Dropping the future loses
    /// nothing.
    async fn turn(&mut self) -> io::Result<()> {
        let wanted = if self.has_more() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let ready = self.stream.ready(wanted).await?;
        if ready.is_writable() {
            self.write()?;
        }
        if ready.is_readable() || ready.is_read_closed() {
            self.read()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while self.has_more() {
            match self.stream.try_write(&self.up[self.up_sent..]) {
                Ok(count) => self.up_sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        // An idle session keeps no buffer.
        self.up = Vec::new();
        self.up_sent = 0;
        Ok(())
    }

    /// Reads once. The end of the stream is the error `UnexpectedEof`.
    fn read(&mut self) -> io::Result<()> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut bytes = match self.stream.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => &buffer[..count],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let mut messages = Vec::new();
            while let Some((kind, payload)) = self.splitter.next(&mut bytes, 0, usize::MAX)? {
                messages.push((Kind::from_byte(kind)?, payload));
            }
            self.down = messages.into_iter();
            Ok(())
        })
    }

    /// The next message from the child, waiting for it; writes meanwhile.
    async fn heard(&mut self) -> Heard {
        loop {
            if let Some((kind, payload)) = self.down.next() {
                return Heard::Message(kind, payload);
            }
            if let Err(why) = self.turn().await {
                if why.kind() != io::ErrorKind::UnexpectedEof {
                    debug!("WS0232: the link to a plugin broke: {why}");
                }
                return Heard::End;
            }
        }
    }

    /// The next message from the child, or `None` when something could be written before one came.
    async fn heard_or_room(&mut self) -> Option<Heard> {
        let before = self.waiting();
        loop {
            if let Some((kind, payload)) = self.down.next() {
                return Some(Heard::Message(kind, payload));
            }
            if self.turn().await.is_err() {
                return Some(Heard::End);
            }
            if self.waiting() != before {
                return None;
            }
        }
    }

    /// Says that nothing follows.
    fn end_writing(&self) {
        // Fails where the child is gone, and then there is nobody to tell.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }
}

/// Moves messages until the session ends.
async fn relay(conn: &mut Conn, mut link: Link) -> CloseFrame {
    loop {
        let heard = if link.has_room() {
            tokio::select! {
                biased;
                message = conn.recv() => match message {
                    Some(message) => {
                        link.push(&message);
                        continue;
                    }
                    None => break,
                },
                heard = link.heard() => heard,
            }
        } else {
            tokio::select! {
                () = conn.tend() => break,
                heard = link.heard_or_room() => match heard {
                    Some(heard) => heard,
                    None => continue,
                },
            }
        };
        // All that came at once, before `recv` writes it.
        let mut next = Some(heard);
        let mut closing = false;
        while let Some(heard) = next {
            closing |= match heard {
                Heard::Message(kind, payload) => match take(kind, payload) {
                    Taken::Message(message) => conn.send(message).await.is_err(),
                    Taken::Control(kind, payload) => conn.send_control(kind, &payload).await.is_err(),
                    Taken::Close(frame) => return frame,
                    Taken::Nothing => false,
                },
                Heard::End => return close(CloseCode::Error, "the plugin is gone"),
            };
            next = link.down.next().map(|(kind, payload)| Heard::Message(kind, payload)).filter(|_| !closing);
        }
        if closing {
            break;
        }
    }
    let verdict = close(CloseCode::Normal, "");
    if matches!(conn.end(), Some(End::Client(_) | End::Violation(_))) {
        // What the client said before it closed gets its answers.
        let limit = conn.spec().limits.close_timeout;
        if tokio::time::timeout(limit, last_answers(conn, &mut link)).await.is_ok() {
            return verdict;
        }
    }
    if link.has_more() {
        // The plugin hears what came before the end, however long it takes; the session does not wait for it.
        tokio::task::spawn_local(last_messages(link));
    }
    verdict
}

/// Lets the child have the last messages, and the client what the plugin says to them.
async fn last_answers(conn: &mut Conn, link: &mut Link) {
    loop {
        let all_written = !link.has_more();
        if all_written {
            // A second time does no harm.
            link.end_writing();
        }
        match if all_written { Some(link.heard().await) } else { link.heard_or_room().await } {
            None => {}
            Some(Heard::Message(kind, payload)) => {
                if let Taken::Message(message) = take(kind, payload)
                    && conn.send_late(message).await.is_err()
                {
                    return;
                }
            }
            Some(Heard::End) => return,
        }
    }
}

/// Lets the child have the last messages of a session that is over; nobody is there for what it says.
async fn last_messages(mut link: Link) {
    while link.has_more() {
        if let Some(Heard::End) = link.heard_or_room().await {
            return;
        }
    }
}

enum Taken {
    Message(Message),
    Control(Control, Vec<u8>),
    Close(CloseFrame),
    Nothing,
}

/// What the session makes of a message of the child.
fn take(kind: Kind, payload: Vec<u8>) -> Taken {
    match kind {
        // The child has looked, so this is UTF-8.
        Kind::Text => match Utf8Bytes::try_from(Bytes::from(payload)) {
            Ok(text) => Taken::Message(Message::Text(text)),
            Err(_) => Taken::Nothing,
        },
        Kind::Binary => Taken::Message(Message::Binary(payload.into())),
        Kind::Close => Taken::Close(close_frame(&payload)),
        Kind::Ping => Taken::Control(Control::Ping, payload),
        Kind::Pong => Taken::Control(Control::Pong, payload),
    }
}

/// The Close frame with this payload (RFC 6455 section 5.5.1). Without a code: one without a code. In the place of a code
/// that no Close frame may carry goes 1011; what is no UTF-8 in the reason is replaced.
pub fn close_frame(payload: &[u8]) -> CloseFrame {
    match payload {
        [a, b, reason @ ..] => {
            let code = match u16::from_be_bytes([*a, *b]) {
                0..1000 | 1005 | 1006 | 1015 | 5000.. => CloseCode::Error,
                code => CloseCode::from(code),
            };
            close(code, &String::from_utf8_lossy(reason))
        }
        _ => close(CloseCode::Status, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_one_that_may_be_sent() {
        assert_eq!(close_frame(b""), close(CloseCode::Status, ""));
        assert_eq!(close_frame(b"\x03"), close(CloseCode::Status, ""));
        assert_eq!(close_frame(b"\x03\xe8bye"), close(CloseCode::Normal, "bye"));
        assert_eq!(close_frame(b"\x0f\xa0"), close(CloseCode::Library(4000), ""));
        assert_eq!(close_frame(b"\x03\xee").code, CloseCode::Error);
        assert_eq!(close_frame(b"\x00\x00\xff").reason.as_str(), "\u{fffd}");
    }

    #[test]
    fn a_message_of_no_kind_is_an_error() {
        assert!(Kind::from_byte(3).is_err());
    }
}
