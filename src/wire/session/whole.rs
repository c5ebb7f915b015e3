//! Messages of one frame that lie whole in what was received: but for their header there is nothing to be decoded.

use crate::wire::frame::{Header, opcode, unmask};
use crate::wire::{Message, Utf8Bytes};
use bytes::Bytes;

/// A message where it was received, without its mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<'a> {
    /// Of two kinds (RFC 6455 section 5.6).
    pub text: bool,
    /// Of a text it is UTF-8.
    pub payload: &'a [u8],
}

/// The frame at the front of `bytes`: whether it is a text, its mask, and where its payload begins and ends. `None` where it is
/// anything but a whole message of at most `most` bytes that all is well with so far.
#[inline]
fn frame(bytes: &[u8], most: usize) -> Option<(bool, [u8; 4], usize, usize)> {
    // FIN and no more than it; one of two opcodes; masked (RFC 6455 section 5.2).
    let [first @ (0x81 | 0x82), 0x80..=0xff, ..] = bytes else { return None };
    let (Header { length, .. }, at) = Header::before_mask(bytes)?;
    let (mask, payload) = bytes.get(at..)?.split_first_chunk()?;
    let length = usize::try_from(length).ok().filter(|length| *length <= most.min(payload.len()))?;
    let begin = at + mask.len();
    Some((first & 0x0f == opcode::TEXT, *mask, begin, begin + length))
}

/// Takes the message at the front of `bytes` off, if there is one that all is well with.
#[inline]
pub(super) fn take<'a>(bytes: &mut &'a mut [u8], most: usize) -> Option<Whole<'a>> {
    let (text, mask, begin, end) = frame(bytes, most)?;
    let payload = &mut bytes[begin..end];
    unmask(payload, mask, 0);
    if text && std::str::from_utf8(payload).is_err() {
        // Somebody else says so, who reads it as it came.
        unmask(payload, mask, 0);
        return None;
    }
    let (taken, rest) = std::mem::take(bytes).split_at_mut(end);
    *bytes = rest;
    Some(Whole { text, payload: &taken[begin..] })
}

/// As [`take`], of bytes that stay as they are.
#[inline]
pub(super) fn copy(bytes: &mut &[u8], most: usize) -> Option<Message> {
    let (text, mask, begin, end) = frame(bytes, most)?;
    let mut payload = bytes[begin..end].to_vec();
    unmask(&mut payload, mask, 0);
    let payload = Bytes::from(payload);
    let message = if text { Message::Text(Utf8Bytes::try_from(payload).ok()?) } else { Message::Binary(payload) };
    *bytes = &bytes[end..];
    Some(message)
}
