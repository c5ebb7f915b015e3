//! What a plugin has sent and the engine has not taken yet: a queue of bytes in front of a non-blocking socket.

use crate::handlers::framing::{HEADER, header};
use crate::handlers::plugin::session::MessageKind;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;

/// Small messages share a chunk up to this size (bytes).
const CHUNK: usize = 16 * 1024;
/// Chunks that one write takes.
const CHUNKS: usize = 32;

#[derive(Debug, Default)]
pub struct SendQueue {
    /// What waits, the first of it perhaps partly written.
    chunks: VecDeque<Vec<u8>>,
    written: usize,
    waiting: usize,
}

impl SendQueue {
    pub fn len(&self) -> usize {
        self.waiting
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Adds a message, after it has written what can be written if nothing waited before.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn push(&mut self, link: Option<&UnixStream>, kind: MessageKind, payload: &[u8]) -> io::Result<()> {
        let head = header(kind as u8, payload.len());
        let mut sent = 0;
        if let Some(link) = link.filter(|_| self.is_empty()) {
            sent = write(link, &[IoSlice::new(&head), IoSlice::new(payload)])?;
        }
        self.keep(&head[sent.min(HEADER)..]);
        self.keep(&payload[sent.saturating_sub(HEADER)..]);
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.waiting += bytes.len();
        match self.chunks.back_mut() {
            Some(last) if last.len() + bytes.len() <= CHUNK => last.extend_from_slice(bytes),
            _ => self.chunks.push_back(bytes.to_vec()),
        }
    }

    /// Writes what can be written.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn flush(&mut self, link: &UnixStream) -> io::Result<()> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); CHUNKS];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(if used == 0 { &chunk[self.written..] } else { chunk });
                used += 1;
            }
            let sent = write(link, &slices[..used])?;
            if sent == 0 {
                return Ok(());
            }
            self.advance(sent);
        }
        self.chunks = VecDeque::new();
        Ok(())
    }

    fn advance(&mut self, mut sent: usize) {
        self.waiting -= sent;
        while let Some(first) = self.chunks.front() {
            let here = first.len() - self.written;
            if sent < here {
                self.written += sent;
                return;
            }
            sent -= here;
            self.written = 0;
            self.chunks.pop_front();
        }
    }

    /// Forgets what waits: nobody will take it.
    pub fn clear(&mut self) {
        *self = SendQueue::default();
    }
}

/// Writes once; 0 when there is no room.
fn write(link: &UnixStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match sendmsg(link, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => return Ok(sent),
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::framing::Splitter;
    use proptest::prelude::*;
    use std::io::Read;

    proptest! {
        #[test]
        fn messages_come_out_in_order_however_they_are_taken(
            sizes in prop::collection::vec(0usize..60_000, 0..60),
            late in any::<bool>(),
            piece in 1000usize..100_000,
        ) {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let mut outbound = SendQueue::default();
            let expected: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
            for payload in &expected {
                outbound.push((!late).then_some(&ours), MessageKind::Binary, payload).unwrap();
            }
            let (mut seen, mut splitter, mut buffer) = (Vec::new(), Splitter::default(), vec![0; piece]);
            while seen.len() < expected.len() {
                outbound.flush(&ours).unwrap();
                let Ok(count) = theirs.read(&mut buffer) else { continue };
                let mut bytes = &buffer[..count];
                while let Some((kind, payload)) = splitter.next(&mut bytes, 0, usize::MAX).unwrap() {
                    prop_assert_eq!(kind, MessageKind::Binary as u8);
                    seen.push(payload);
                }
            }
            prop_assert!(outbound.is_empty() && outbound.chunks.capacity() == 0);
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn who_is_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut outbound = SendQueue::default();
        assert!(outbound.push(Some(&ours), MessageKind::Text, b"x").is_err());
    }
}
