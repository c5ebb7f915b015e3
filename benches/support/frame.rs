//! WebSocket frames as bytes (RFC 6455 section 5.2), prepared before the clock starts.

use super::Result;
use zlib_rs::{Deflate, DeflateFlush};

/// Final frames.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const COMPRESSED: u8 = 0x40;

/// Frames to send in one write, and the bytes that must come back for them.
pub(crate) struct Batch {
    /// Masked frames, as a client sends them.
    pub(crate) request: Vec<u8>,
    /// The same messages in unmasked frames, as an echo server answers.
    pub(crate) echo: Vec<u8>,
    /// How many messages these are.
    pub(crate) messages: u64,
}

impl Batch {
    /// `messages` binary messages of `length` bytes, no two alike, so that a lost, doubled or swapped one shows.
    pub(crate) fn new(length: usize, messages: usize) -> Self {
        Self::of(BINARY, |random| random.byte(), length, messages)
    }

    /// Text messages without line breaks.
    pub(crate) fn text(length: usize, messages: usize) -> Self {
        Self::of(TEXT, |random| b'@' + random.byte() % 0x3f, length, messages)
    }

    fn of(kind: u8, byte: fn(&mut Random) -> u8, length: usize, messages: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ length as u64);
        let (mut request, mut echo) = (Vec::new(), Vec::new());
        for _ in 0..messages {
            let payload: Vec<u8> = (0..length).map(|_| byte(&mut random)).collect();
            let mask: [u8; 4] = std::array::from_fn(|_| random.byte());
            header(&mut request, kind, length, MASKED);
            request.extend_from_slice(&mask);
            request.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            header(&mut echo, kind, length, 0);
            echo.extend_from_slice(&payload);
        }
        Self { request, echo, messages: messages as u64 }
    }
}

/// A compressed message of `length` bytes, as a client sends it.
pub(crate) fn compressed(length: usize) -> Result<Vec<u8>> {
    let words = (0u32..).flat_map(|n| format!("{} sheep and {} goats; ", n * n % 1013, n % 17).into_bytes());
    let payload: Vec<u8> = words.take(length).collect();
    let mut deflated = vec![0; length + 100];
    let mut deflate = Deflate::new(6, false, 15);
    deflate.compress(&payload, &mut deflated, DeflateFlush::SyncFlush).map_err(|e| e.as_str())?;
    // The last four bytes are left out (RFC 7692 section 7.2.1).
    deflated.truncate(deflate.total_out() as usize - 4);
    let mut out = Vec::new();
    header(&mut out, BINARY | COMPRESSED, deflated.len(), MASKED);
    out.extend([0; 4]);
    out.extend(deflated);
    Ok(out)
}

fn header(out: &mut Vec<u8>, first: u8, length: usize, masked: u8) {
    out.push(first);
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// xorshift64: the same bytes in every run.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }
}
