//! What is on its way to one client: frames as shared bytes, written many at a time.
//!
//! A small message is copied behind its header into one buffer, so that all replies of one readiness leave in one write. A
//! large payload is queued as it is, shared with whoever else holds it.

use super::codec::MAX_HEADER;
use super::memory::Share;
use crate::tls::stream::CHUNKS;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Payloads of at least this many bytes are shared, smaller ones copied: about where a copy costs what a second entry
/// in the write's vector costs.
const SHARED: usize = 2048;
/// Payloads of at least this many bytes that are somebody else's are written at once, where that is possible: a system call
/// costs less than their copy.
const DIRECT: usize = 16 * 1024;
/// A buffer that grew over this many bytes is not kept for others.
const KEPT: usize = 64 * 1024;

/// The queue. Its length is counted in bytes; who fills it watches [`WriteQueue::len`].
#[derive(Debug, Default)]
pub struct WriteQueue {
    /// Complete chunks, the first perhaps partly written.
    sealed: VecDeque<Chunk>,
    /// Where small frames are added; it goes out after `sealed`.
    open: Vec<u8>,
    sealed_len: usize,
}

/// Bytes that wait, and who else waits for them.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    common: Option<Share>,
}

impl WriteQueue {
    /// Bytes that wait for this client alone, and its part of what waits for others, too.
    pub fn held(&self) -> (usize, usize) {
        let (mut own, mut share) = (self.open.len(), 0);
        for chunk in &self.sealed {
            match &chunk.common {
                None => own += chunk.bytes.len(),
                Some(common) => share += chunk.bytes.len() / common.count(),
            }
        }
        (own, share)
    }

    pub fn len(&self) -> usize {
        self.sealed_len + self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sealed_len == 0 && self.open.is_empty()
    }

    /// The end of the queue, for frames that somebody else encodes.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.open
    }

    /// Whether a payload is shared, and not copied.
    pub fn shares(payload: &Bytes) -> bool {
        payload.len() >= SHARED
    }

    /// Adds a whole message; `common`: others wait for the same payload.
    pub(super) fn push(&mut self, put_header: impl FnOnce(&mut Vec<u8>), payload: Bytes, common: Option<Share>) {
        if payload.len() < SHARED {
            self.open.reserve(MAX_HEADER + payload.len());
            put_header(&mut self.open);
            self.open.extend_from_slice(&payload);
        } else {
            put_header(&mut self.open);
            self.push_encoded(payload, common);
        }
    }

    /// Adds a whole message whose payload stays where it is. A large one is written at once with what waits, as far as `write` takes
    /// it; what is wrong with the stream shows when the rest is flushed.
    pub(super) fn push_borrowed(
        &mut self,
        put_header: impl FnOnce(&mut Vec<u8>),
        payload: &[u8],
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) {
        if payload.len() < SHARED {
            self.open.reserve(MAX_HEADER + payload.len());
        }
        put_header(&mut self.open);
        let mut rest = payload;
        while payload.len() >= DIRECT && self.sealed.is_empty() && !rest.is_empty() {
            let written = match write(&[IoSlice::new(&self.open), IoSlice::new(rest)]) {
                Ok(count) if count > 0 => count,
                _ => break,
            };
            let of_open = written.min(self.open.len());
            self.advance(of_open);
            rest = &rest[written - of_open..];
        }
        if rest.len() < SHARED {
            self.open.extend_from_slice(rest);
        } else {
            self.push_encoded(Bytes::copy_from_slice(rest), None);
        }
    }

    /// Adds what is encoded already, be it the rest of a frame.
    pub fn push_encoded(&mut self, bytes: Bytes, common: Option<Share>) {
        self.seal();
        self.sealed_len += bytes.len();
        self.sealed.push_back(Chunk { bytes, common });
    }

    /// Adds what is to go before all that waits, of which nothing has been written.
    pub fn push_first(&mut self, bytes: Bytes) {
        self.sealed_len += bytes.len();
        self.sealed.push_front(Chunk { bytes, common: None });
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed_len += self.open.len();
            self.sealed.push_back(Chunk { bytes: Bytes::from(std::mem::take(&mut self.open)), common: None });
        }
    }

    /// Writes until nothing is left or `write` says `WouldBlock`, which is `Ok(false)`.
    ///
    /// # Errors
    /// What `write` says, but for `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<bool> {
        while !self.is_empty() {
            let written = if self.sealed.is_empty() {
                write(&[IoSlice::new(&self.open)])
            } else {
                let mut slices = [IoSlice::new(&[]); CHUNKS];
                let chunks = self.sealed.iter().map(|chunk| &chunk.bytes[..]).chain([&self.open[..]]);
                let used = slices.iter_mut().zip(chunks).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count();
                write(&slices[..used])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.sealed.front_mut() {
            if count == 0 {
                return;
            }
            let here = count.min(front.bytes.len());
            front.bytes.advance(here);
            count -= here;
            self.sealed_len -= here;
            if front.bytes.is_empty() {
                self.sealed.pop_front();
            }
        }
        if count == self.open.len() {
            self.open.clear();
        } else if count > 0 {
            // The rest becomes a chunk of its own: no byte is moved.
            self.seal();
            self.advance(count);
        }
    }

    /// Gives an empty queue a buffer to fill, so that idle ones need none of their own.
    pub fn lend(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.open.capacity() == 0 {
            self.open = buffer();
        }
    }

    /// Takes the buffer back from a queue that is empty.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        if !self.is_empty() || self.open.capacity() == 0 {
            return None;
        }
        if self.sealed.capacity() > 0 {
            self.sealed = VecDeque::new();
        }
        Some(std::mem::take(&mut self.open)).filter(|buffer| buffer.capacity() <= KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_header(out: &mut Vec<u8>) {
        out.extend(b"header");
    }

    fn drain(queue: &mut WriteQueue, per_write: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut blocked = false;
        while !queue
            .flush(|slices| {
                blocked = !blocked;
                if blocked {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let all: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
                let count = per_write.min(all.len());
                out.extend_from_slice(&all[..count]);
                Ok(count)
            })
            .unwrap()
        {}
        out
    }

    proptest! {
        #[test]
        fn bytes_come_out_in_order_however_they_are_written(
            sizes in prop::collection::vec(0usize..5000, 0..100),
            per_write in 100usize..20_000,
        ) {
            let mut queue = WriteQueue::default();
            let mut expected = Vec::new();
            for (n, size) in sizes.iter().enumerate() {
                let payload = vec![n as u8; *size];
                put_header(&mut expected);
                expected.extend_from_slice(&payload);
                queue.push(put_header, payload.into(), None);
                prop_assert_eq!(queue.len(), expected.len());
            }
            prop_assert_eq!(drain(&mut queue, per_write), expected);
            prop_assert!(queue.is_empty());
            prop_assert_eq!(queue.len(), 0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_borrowed_is_written_or_copied(
            sizes in prop::collection::vec(prop_oneof![4 => 0usize..5000, 1 => 15_000usize..40_000], 0..10),
            taken in prop::collection::vec(prop_oneof![Just(0), 1usize..60_000], 1..20),
            flushes in any::<u32>(),
        ) {
            let (mut queue, mut expected, mut out) = (WriteQueue::default(), Vec::new(), Vec::new());
            let mut taken = taken.into_iter().cycle();
            let mut write = |slices: &[IoSlice<'_>]| {
                let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                let count = taken.next().unwrap().min(all.len());
                out.extend_from_slice(&all[..count]);
                if count > 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
            };
            for (n, size) in sizes.iter().enumerate() {
                let payload = vec![n as u8; *size];
                put_header(&mut expected);
                expected.extend_from_slice(&payload);
                queue.push_borrowed(put_header, &payload, &mut write);
                if flushes >> n & 1 == 1 {
                    queue.flush(&mut write).unwrap();
                }
            }
            let waiting = queue.len();
            out.extend(drain(&mut queue, 10_000));
            prop_assert!(out == expected);
            prop_assert!(waiting <= expected.len());
        }
    }

    #[test]
    fn a_large_borrowed_payload_is_not_copied() {
        let mut queue = WriteQueue::default();
        let payload = vec![1; DIRECT];
        queue.push(put_header, Bytes::from_static(b"before"), None);
        let mut written = Vec::new();
        queue.push_borrowed(put_header, &payload, |slices| {
            assert_eq!(slices[1].as_ptr(), payload.as_ptr());
            written.extend(slices.iter().flat_map(|slice| slice.to_vec()));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        });
        assert_eq!((written.len(), queue.is_empty()), (2 * 6 + 6 + DIRECT, true));
        queue.push_borrowed(put_header, &payload, |_| Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(queue.len(), 6 + DIRECT, "whoever flushes it hears of that");
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let payload = Bytes::from(vec![1; SHARED]);
        let mut queue = WriteQueue::default();
        queue.push(put_header, payload.clone(), None);
        assert_eq!(queue.sealed[1].bytes.as_ptr(), payload.as_ptr());
        assert!(queue.reclaim().is_none());
    }

    #[test]
    fn an_idle_queue_owns_nothing() {
        let mut queue = WriteQueue::default();
        queue.lend(|| Vec::with_capacity(100));
        queue.push(put_header, Bytes::from_static(b"x"), None);
        drain(&mut queue, 10);
        assert_eq!(queue.reclaim().map(|b| b.capacity()), Some(100));
        assert_eq!((queue.open.capacity(), queue.sealed.capacity()), (0, 0));
    }

    #[test]
    fn a_dead_socket_is_an_error() {
        let mut queue = WriteQueue::default();
        queue.push(put_header, Bytes::from_static(b"x"), None);
        assert!(queue.flush(|_| Err(io::ErrorKind::BrokenPipe.into())).is_err());
        assert!(queue.flush(|_| Ok(0)).is_err());
    }
}
