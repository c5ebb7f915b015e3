//! What many sessions have in common in how they send.

use super::Contexts;
use crate::wire::deflate::{Compression, PerMessageDeflate, Slices};
use bytes::Bytes;

/// A way of sending messages: see [`super::Session::encoding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding(pub(super) Option<Compression>);

impl Encoding {
    /// As [`super::Session::encode`] of any session of this encoding.
    pub fn encode(&self, contexts: &mut Contexts, payload: Bytes) -> (Bytes, bool) {
        let deflate = self.0.map(PerMessageDeflate::new);
        match deflate.and_then(|mut deflate| deflate.compress(&mut contexts.deflate, &payload)) {
            Some(compressed) => (compressed, true),
            None => (payload, false),
        }
    }

    /// As [`super::Session::begin_encode`].
    pub fn begin_encode(&self, contexts: &mut Contexts, payload: &Bytes) -> Option<Slices> {
        PerMessageDeflate::new(self.0?).begin(&mut contexts.deflate, payload)
    }

    /// As [`super::Session::end_encode`].
    pub fn end_encode(&self, contexts: &mut Contexts, payload: Bytes, slices: Slices) -> (Bytes, bool) {
        let compressed =
            self.0.map(PerMessageDeflate::new).and_then(|mut deflate| deflate.end(&mut contexts.deflate, slices));
        match compressed {
            Some(compressed) => (compressed, true),
            None => (payload, false),
        }
    }
}
