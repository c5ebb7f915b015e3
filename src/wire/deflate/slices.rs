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
    /// Of the session, which goes on with it; or of the pool.
    pub(super) compressor: Result<Box<Deflate>, Box<Deflater>>,
    pub(super) has_failed: bool,
}

impl Slices {
    /// Bytes of a message that are compressed at a time; no larger one is compressed otherwise. At level 9, text takes some
    /// milliseconds.
    pub const SLICE: usize = 64 * 1024;

    /// Compresses the next slice. True when that was the last.
    pub fn step(&mut self) -> bool {
        let end = self.payload.len().min(self.read + Self::SLICE);
        let is_last = end == self.payload.len();
        let flush = if is_last { DeflateFlush::SyncFlush } else { DeflateFlush::NoFlush };
        let deflate = match &mut self.compressor {
            Ok(own) => &mut **own,
            Err(lent) => &mut lent.deflate,
        };
        loop {
            if self.out.len() <= self.written {
                self.out.resize(self.written + Self::SLICE, 0);
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
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices").field("read", &self.read).field("written", &self.written).finish_non_exhaustive()
    }
}
