//! permessage-deflate (RFC 7692 section 7.2) under tungstenite, which knows nothing of it: the frames of a client with
//! their compression undone, and the payloads of our own compressed.
//!
//! What a connection does not need between two messages belongs to its thread ([`DeflatePool`]): without context takeover a
//! connection that compresses costs no more than one that does not.

mod incoming;
mod pool;
mod slices;

pub use incoming::Incoming;
pub use pool::DeflatePool;
pub use slices::Slices;

use super::extension::{MAX_WINDOW_BITS, Parameters};
use bytes::Bytes;
use incoming::Window;
use pool::run;
use serde::{Deserialize, Serialize};
use zlib_rs::Deflate;

/// What a compressor ends a message with, and what is left out of it (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Bytes that zlib takes for a compressor with the largest window, about: window, hash chains and symbols.
const COMPRESSOR: usize = (4 << MAX_WINDOW_BITS) + (160 << 10);

/// How a session compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// What both sides agreed on.
    pub parameters: Parameters,
    /// 1 (fast) to 9 (small).
    pub level: u8,
    /// Bytes of the smallest message that is worth compressing.
    pub min_size: u32,
}

impl Compression {
    /// Two sessions of the same encoding send the same bytes for a message. `None`: what a session sends depends on what it
    /// has sent before.
    pub fn encoding(&self) -> Option<Compression> {
        self.parameters.server_no_context_takeover.then_some(*self)
    }

    /// The window that a message of `length` bytes is compressed with when it is compressed for itself; `None` when it
    /// cannot be.
    fn window_bits(&self, length: usize) -> Option<u8> {
        let most = self.parameters.server_max_window_bits;
        // What is no longer than the window refers to nothing beyond it, whatever the compressor is set to.
        if length <= 1 << most {
            return Some(MAX_WINDOW_BITS);
        }
        // zlib has no window of 256 bytes.
        (most > super::extension::MIN_WINDOW_BITS).then_some(most)
    }
}

/// permessage-deflate on one connection, both ways.
pub struct PerMessageDeflate {
    compression: Compression,
    /// With context takeover.
    deflate: Option<Box<Deflate>>,
    incoming: Incoming,
}

impl PerMessageDeflate {
    /// At the begin of a session.
    pub fn new(compression: Compression) -> PerMessageDeflate {
        let Parameters { client_no_context_takeover, client_max_window_bits, .. } = compression.parameters;
        let kept_bits = if client_no_context_takeover { 0 } else { client_max_window_bits };
        PerMessageDeflate { compression, deflate: None, incoming: Incoming::new(kept_bits) }
    }

    /// Two sessions of the same encoding send the same bytes for a message.
    pub fn encoding(&self) -> Option<Compression> {
        self.compression.encoding()
    }

    /// The compressed form of a message; `None`: it goes out as it is.
    pub fn compress(&mut self, pool: &mut DeflatePool, payload: &[u8]) -> Option<Bytes> {
        let Compression { parameters, level, min_size } = self.compression;
        // An empty message has nothing that could become smaller.
        if payload.len() < min_size.max(1) as usize {
            return None;
        }
        if parameters.server_no_context_takeover {
            return pool.compress(level, self.compression.window_bits(payload.len())?, payload);
        }
        let deflate = self
            .deflate
            .get_or_insert_with(|| Box::new(Deflate::new(level.into(), false, parameters.server_max_window_bits)));
        // The compressor has gone on, and with it the client's decompressor must: also when the message became longer.
        let length = run(deflate, payload, &mut pool.scratch);
        let compressed = length.map(|length| Bytes::copy_from_slice(&pool.scratch[..length]));
        pool.tidy();
        compressed
    }

    /// A message of so many bytes is compressed in slices.
    pub fn is_large(&self, bytes: usize) -> bool {
        let Compression { level, min_size, .. } = self.compression;
        bytes > Slices::at_once(level).max(min_size as usize)
    }

    /// As [`PerMessageDeflate::compress`], in slices. `None`: the message is small, or goes out as it is.
    pub fn begin(&mut self, pool: &mut DeflatePool, payload: &Bytes) -> Option<Slices> {
        let Compression { parameters, level, .. } = self.compression;
        if !self.is_large(payload.len()) {
            return None;
        }
        let compressor = if parameters.server_no_context_takeover {
            Err(Box::new(pool.deflater(level, self.compression.window_bits(payload.len())?)))
        } else {
            let new = || Box::new(Deflate::new(level.into(), false, parameters.server_max_window_bits));
            Ok(self.deflate.take().unwrap_or_else(new))
        };
        let payload = payload.clone();
        let slice = Slices::slice(level);
        Some(Slices { payload, read: 0, out: Vec::new(), written: 0, slice, compressor, has_failed: false })
    }

    /// What came of it, after the last slice; `None`: the message goes out as it is.
    pub fn end(&mut self, pool: &mut DeflatePool, slices: Slices) -> Option<Bytes> {
        let Slices { payload, mut out, written, compressor, has_failed, .. } = slices;
        out.truncate(written.saturating_sub(TAIL.len()));
        let mut is_of_use = !has_failed;
        match compressor {
            Ok(own) => self.deflate = Some(own),
            Err(lent) => {
                is_of_use &= out.len() < payload.len();
                pool.keep(*lent);
            }
        }
        is_of_use.then(|| out.into())
    }

    /// What is no compressed data refers to what the client had agreed to forget.
    pub fn has_forgotten(&self) -> bool {
        self.incoming.has_forgotten
    }

    /// Bytes that the message under way has become so far.
    pub fn inflated(&self) -> u64 {
        self.incoming.inflated
    }

    /// Bytes that it holds between two messages, or in the middle of one.
    pub fn held(&self) -> usize {
        let Parameters { server_max_window_bits, .. } = self.compression.parameters;
        let smaller = (4 << MAX_WINDOW_BITS) - (4 << server_max_window_bits);
        let deflate = self.deflate.as_ref().map_or(0, |_| COMPRESSOR - smaller);
        let Incoming { window, inflate, rest, .. } = &self.incoming;
        let inflate = inflate.as_ref().map_or(0, |_| (1 << MAX_WINDOW_BITS) + (10 << 10));
        let window = window.as_ref().map_or(0, |window| size_of::<Window>() + window.bytes.capacity());
        deflate + inflate + window + rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// Something is kept for later.
    pub fn has_rest(&self) -> bool {
        self.incoming.rest.is_some()
    }

    /// Keeps what of the client's bytes is still to be decoded.
    pub fn keep_rest(&mut self, rest: Box<Bytes>) {
        self.incoming.rest = Some(rest);
    }

    /// What was kept, and that no more.
    pub fn take_rest(&mut self) -> Option<Box<Bytes>> {
        self.incoming.rest.take()
    }

    /// The client's frames, decompressed: see [`Incoming::read`].
    pub fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }
}

impl std::fmt::Debug for PerMessageDeflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerMessageDeflate").field("compression", &self.compression).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
