//! A TCP connection whose TLS httpd has opened, and the engine goes on with: the socket, and the records on it. The other end is
//! httpd's client, or a server whose client httpd was.

use crate::tls::record::{Alert, Keys, MAX_PLAIN, MAX_RECORD, Opener, Sealer, Unknown};
use rustix::net::{SendFlags, send};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Chunks that one write takes.
pub const CHUNKS: usize = 32;

/// Bytes of application data that one write takes at most.
const BATCH: usize = 4 * MAX_PLAIN;

/// What is written with these goes with what follows at once.
pub const LAST: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT).union(SendFlags::MORE);

thread_local! {
    /// Where records are sealed. What the kernel does not take is copied from here.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the module. What the kernel has taken a part of counts as not written until it has taken all: who writes keeps the
/// bytes, and comes with them again.
#[derive(Debug)]
pub struct Tls {
    pub stream: TcpStream,
    opener: Opener,
    begun: Box<[u8]>,
    is_ended: bool,
    out: RefCell<Out>,
}

#[derive(Debug)]
struct Out {
    sealer: Sealer,
    /// Boxed, since few connections have it.
    waiting: Option<Box<Waiting>>,
    is_closed: bool,
}

/// The rest of what was sealed, from `sent` on.
#[derive(Debug)]
struct Waiting {
    records: Vec<u8>,
    sent: usize,
    /// How much application data it all was.
    owed: usize,
}

impl Tls {
    /// Takes over a client's connection.
    ///
    /// # Errors
    /// The keys are of no use.
    pub fn new(stream: TcpStream, keys: &Keys) -> io::Result<Tls> {
        Tls::with(stream, keys.split())
    }

    /// Takes over a connection to a server.
    ///
    /// # Errors
    /// The keys are of no use.
    pub fn to_server(stream: TcpStream, keys: &Keys) -> io::Result<Tls> {
        Tls::with(stream, keys.split_as_client())
    }

    fn with(stream: TcpStream, halves: Result<(Opener, Sealer), Unknown>) -> io::Result<Tls> {
        let (opener, sealer) = halves.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        let out = Out { sealer, waiting: None, is_closed: false };
        Ok(Tls { stream, opener, begun: Box::default(), is_ended: false, out: RefCell::new(out) })
    }

    /// Reads what has come; 0 is the end of the stream. `buffer` holds some records ([`MAX_RECORD`]).
    ///
    /// # Errors
    /// The connection is broken, or the client breaks the protocol.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        debug_assert!(buffer.len() >= 2 * MAX_RECORD);
        while !self.is_ended {
            let begun = self.begun.len();
            let (front, rest) = buffer.split_at_mut(begun);
            let mut rest = ReadBuf::new(rest);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut rest))?;
            let count = rest.filled().len();
            if count == 0 {
                // Without a close_notify; what WebSocket has to say of that, it says.
                break;
            }
            front.copy_from_slice(&self.begun);
            let opened = self.opener.open(&mut buffer[..begun + count]).map_err(|alert| self.give_up(alert))?;
            self.begun = buffer[opened.rest].into();
            self.is_ended = opened.is_end;
            if opened.wants_update {
                self.renew_keys();
            }
            if opened.plain > 0 {
                return Poll::Ready(Ok(opened.plain));
            }
        }
        Poll::Ready(Ok(0))
    }

    /// The next record comes after new keys (RFC 8446 section 4.6.3).
    pub fn renew_keys(&mut self) {
        self.out.get_mut().sealer.update();
    }

    fn give_up(&mut self, alert: Alert) -> io::Error {
        self.say(|sealer, out| sealer.seal_alert(alert, out), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        io::Error::new(io::ErrorKind::InvalidData, alert)
    }

    /// Writes once; returns how many bytes went.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            // First, so that nothing is sealed for a socket that is known to be full.
            ready!(self.stream.poll_write_ready(cx))?;
            match self.try_write(slices) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Writes once, without waiting for room; returns how many bytes went.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut all = [&[][..]; CHUNKS];
        let (mut used, mut room) = (0, BATCH);
        for (place, slice) in all.iter_mut().zip(slices) {
            *place = &slice[..room.min(slice.len())];
            room -= place.len();
            used += 1;
        }
        match self.write(&all[..used], |bytes| self.stream.try_write(bytes))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    /// As [`Tls::try_write`], whatever the runtime knows of the stream.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(BATCH)];
        self.write(&[bytes], |bytes| Ok(send(&self.stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?))
    }

    /// As [`Tls::write_now`], of what goes with [`Tls::end_writing`] and the end of TCP, which follow at once.
    pub fn write_last(&self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(BATCH)];
        self.write(&[bytes], |bytes| Ok(send(&self.stream, bytes, LAST)?))
    }

    /// Returns 0 when a part of it went: the same bytes have to come again, first.
    fn write(&self, data: &[&[u8]], send: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut out = self.out.borrow_mut();
        let out = &mut *out;
        if let Some(waiting) = &mut out.waiting {
            waiting.sent += send(&waiting.records[waiting.sent..])?;
            if waiting.sent < waiting.records.len() {
                return Ok(0);
            }
            return Ok(out.waiting.take().map_or(0, |waiting| waiting.owed));
        }
        if out.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        SEALED.with_borrow_mut(|sealed| {
            sealed.clear();
            let mark = out.sealer.mark();
            out.sealer.seal(data, sealed);
            let all = data.iter().map(|piece| piece.len()).sum();
            let sent = match (send(sealed), mark) {
                (Ok(sent), _) if sent == sealed.len() => return Ok(all),
                (Ok(sent), _) => sent,
                // Nothing of it went, and perhaps other bytes come next.
                (Err(e), Some(mark)) => {
                    out.sealer.go_back(&mark);
                    return Err(e);
                }
                // There are new keys, and the client is to hear of them.
                (Err(e), None) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
                (Err(e), None) => return Err(e),
            };
            out.waiting = Some(Box::new(Waiting { records: sealed[sent..].to_vec(), sent: 0, owed: all }));
            Ok(0)
        })
    }

    /// Bytes of a record that is not complete, and of records that are not sent.
    pub fn held(&self) -> (usize, usize) {
        (self.begun.len(), self.out.borrow().waiting.as_ref().map_or(0, |waiting| waiting.records.len()))
    }

    /// Says that nothing more will be written. The end of TCP follows at once.
    pub fn end_writing(&self) {
        self.say(|sealer, out| sealer.seal_end(out), LAST);
    }

    /// Sends a last record, if nothing waits before it. Whether it arrives matters to nobody.
    fn say(&self, seal: impl FnOnce(&mut Sealer, &mut Vec<u8>), flags: SendFlags) {
        let mut out = self.out.borrow_mut();
        if out.waiting.is_none() && !out.is_closed {
            out.is_closed = true;
            let mut record = Vec::new();
            seal(&mut out.sealer, &mut record);
            let _ = send(&self.stream, &record, flags);
        }
    }
}
