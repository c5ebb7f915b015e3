//! What the sessions of a thread share, and a message that is compressed at once.

use super::TAIL;
use crate::wire::extension::MAX_WINDOW_BITS;
use bytes::Bytes;
use zlib_rs::{Deflate, DeflateFlush, Inflate};

/// Compressors and decompressors that no session needs at the moment, shared by the sessions of a thread.
#[derive(Default)]
pub struct DeflatePool {
    pub(super) inflaters: Vec<Inflate>,
    pub(super) deflaters: Vec<Deflater>,
    /// Where compressed bytes land first.
    pub(super) scratch: Vec<u8>,
}

/// A compressor with what it was made for, which cannot be asked of it.
pub(super) struct Deflater {
    pub(super) level: u8,
    window_bits: u8,
    pub(super) deflate: Deflate,
}

impl Deflater {
    fn new(level: u8, window_bits: u8) -> Deflater {
        Deflater { level, window_bits, deflate: Deflate::new(level.into(), false, window_bits) }
    }
}

impl DeflatePool {
    /// Decompressors that are kept: as many sessions as are in the middle of a message at a time, usually. Each has 20 to
    /// 50 KB.
    pub(super) const INFLATERS: usize = 16;
    /// Compressors that are kept: one for each level and window that the configuration and its clients come to. Each has
    /// some 300 KB.
    pub(super) const DEFLATERS: usize = 4;
    /// Bytes of scratch that are kept.
    pub(super) const SCRATCH: usize = 64 * 1024;

    pub(super) fn inflater(&mut self) -> Inflate {
        self.inflaters.pop().unwrap_or_else(|| Inflate::new(false, MAX_WINDOW_BITS))
    }

    pub(super) fn put_back(&mut self, mut inflate: Inflate) {
        if self.inflaters.len() < Self::INFLATERS {
            inflate.reset(false);
            self.inflaters.push(inflate);
        }
    }

    pub(super) fn deflater(&mut self, level: u8, window_bits: u8) -> Deflater {
        let found = self.deflaters.iter().position(|d| (d.level, d.window_bits) == (level, window_bits));
        match found {
            Some(place) => self.deflaters.remove(place),
            None => Deflater::new(level, window_bits),
        }
    }

    pub(super) fn keep(&mut self, mut deflater: Deflater) {
        deflater.deflate.reset();
        // The one that was used last is the last that has to go.
        if self.deflaters.len() >= Self::DEFLATERS {
            self.deflaters.remove(0);
        }
        self.deflaters.push(deflater);
    }

    /// Compresses `payload` for itself; `None` when that makes it no smaller.
    pub(super) fn compress(&mut self, level: u8, window_bits: u8, payload: &[u8]) -> Option<Bytes> {
        let mut deflater = self.deflater(level, window_bits);
        // To its end also when nothing comes of it: a zlib-rs compressor that is reset with output pending is not as new,
        // and one of level 1 panics later.
        let length = run(&mut deflater.deflate, payload, &mut self.scratch)?;
        let compressed = (length < payload.len()).then(|| Bytes::copy_from_slice(&self.scratch[..length]));
        self.tidy();
        self.keep(deflater);
        compressed
    }

    pub(super) fn tidy(&mut self) {
        if self.scratch.len() > Self::SCRATCH {
            self.scratch = Vec::new();
        }
    }
}

/// Compresses a message into `out`, without the tail; returns its length there. `None`: `deflate` is of no use any more.
pub(super) fn run(deflate: &mut Deflate, payload: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let (mut read, mut written) = (0, 0);
    loop {
        // The scratch of earlier messages is not cleared again.
        if out.len() <= written {
            out.resize(written + payload.len() / 4 + 256, 0);
        }
        let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
        let status = deflate.compress(&payload[read..], &mut out[written..], DeflateFlush::SyncFlush);
        read += (deflate.total_in() - before_in) as usize;
        written += (deflate.total_out() - before_out) as usize;
        // Out of memory, say: the message goes out as it is.
        if status.is_err() {
            return None;
        }
        if read == payload.len() && written < out.len() {
            return written.checked_sub(TAIL.len());
        }
    }
}
