//! A message that is compressed in slices.

use super::pool::Deflater;
use bytes::Bytes;
use zlib_rs::{Deflate, DeflateFlush};

/// The compression of a large message, slice by slice: others have their turn in between.
pub struct Slices {
    pub(super) payload: Bytes,
    pub(super) read: usize,
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    /// Bytes of a slice.
    pub(super) slice: usize,
    /// Of the session, which goes on with it; or of the pool.
    pub(super) compressor: Result<Box<Deflate>, Box<Deflater>>,
    pub(super) has_failed: bool,
}

impl Slices {
    /// Bytes of a message that are compressed at a time, at this level: some 15 µs of a thread, half as much again as it takes
    /// to echo a small message.
    pub const fn slice(level: u8) -> usize {
        match level {
            0 | 1 => 8192,
            2 | 3 => 4096,
            4..=6 => 2048,
            _ => 1024,
        }
    }

    /// A message of more bytes is compressed in slices, and a smaller one at once.
    pub const fn at_once(level: u8) -> usize {
        4 * Slices::slice(level)
    }

    /// Bytes that become one block (RFC 1951 section 3.2.3), at most. zlib finds the matches as it reads, but the codes at the end
    /// of a block: of a hundred kilobytes, which it takes for one by itself, that is ten slices' time. A block costs some
    /// 80 bytes: half a percent.
    const BLOCK: usize = 16 * 1024;
    /// Bytes by which the room for what it becomes grows at least.
    const ROOM: usize = 16 * 1024;

    /// Compresses the next slice. True when that was the last.
    pub fn step(&mut self) -> bool {
        let end = self.payload.len().min(self.read + self.slice);
        let is_last = end == self.payload.len();
        let flush = if is_last {
            DeflateFlush::SyncFlush
        } else if end.is_multiple_of(Self::BLOCK) {
            DeflateFlush::Block
        } else {
            DeflateFlush::NoFlush
        };
        let deflate = match &mut self.compressor {
            Ok(own) => &mut **own,
            Err(lent) => &mut lent.deflate,
        };
        loop {
            if self.out.len() <= self.written {
                self.out.resize(self.written + Self::ROOM, 0);
            }
            let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
            let status = deflate.compress(&self.payload[self.read..end], &mut self.out[self.written..], flush);
            self.read += (deflate.total_in() - before_in) as usize;
            self.written += (deflate.total_out() - before_out) as usize;
            if status.is_err() {
                // Out of memory, say: the message goes out as it is.
                self.has_failed = true;
                return true;
            }
            if self.read == end && self.written < self.out.len() {
                return is_last;
            }
        }
    }

    /// Bytes that it holds: the message, what has become of it, and the compressor.
    pub fn held(&self) -> usize {
        self.payload.len() + self.out.capacity() + super::COMPRESSOR
    }
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices").field("read", &self.read).field("written", &self.written).finish_non_exhaustive()
    }
}
