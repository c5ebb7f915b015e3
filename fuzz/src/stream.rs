//! What a client sends after the handshake: put together from the description that an input is, and cut into pieces.

use zlib_rs::{Deflate, DeflateFlush};

/// What a compressor ends a message with, and what is left out of it (RFC 7692 section 7.2.1).
pub const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Cuts a stream: into pieces of `cut` / 2 + 1 bytes where `cut` is even, into pieces of different lengths where it is
/// odd. Into no more than a thousand or so.
pub fn pieces(stream: &[u8], cut: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = stream;
    let (mut random, least) = (u32::from(cut), stream.len() / 1000);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Mostly short ones, so that headers are cut too; some that hold many frames.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = if cut.is_multiple_of(2) { cut as usize / 2 + 1 } else { 1 << (random >> 28) };
        let (piece, after) = rest.split_at(length.max(least).min(rest.len()));
        rest = after;
        Some(piece)
    })
}

/// A client that compresses, with what RFC 7692 calls context takeover where `takes_over`.
pub struct Compressor {
    deflate: Option<Deflate>,
    takes_over: bool,
    bits: u8,
}

impl Compressor {
    /// With a window of `bits`; zlib has none of 8.
    pub fn new(takes_over: bool, bits: u8) -> Compressor {
        Compressor { deflate: None, takes_over, bits: bits.max(9) }
    }

    fn compress(&mut self, payload: &[u8]) -> Vec<u8> {
        if payload.is_empty() {
            // Section 7.2.3.6, and zlib makes nothing of it when it has just been flushed.
            return vec![0];
        }
        // Not made before it is needed, for it is large.
        let deflate = self.deflate.get_or_insert_with(|| Deflate::new(6, false, self.bits));
        if !self.takes_over {
            deflate.reset();
        }
        let mut out = vec![0; payload.len() + payload.len() / 100 + 200];
        let before = deflate.total_out();
        deflate.compress(payload, &mut out, DeflateFlush::SyncFlush).expect("there is room for all");
        out.truncate((deflate.total_out() - before) as usize - TAIL.len());
        out
    }
}

/// Puts masked frames together, so that an input need not get lengths and masks right. Of each step of `script` the
/// first byte is the first byte of a frame (FIN, RSV1 to RSV3, opcode), and the second says what its payload is; a long
/// stream ends early:
///
/// * 0 to 199: this many of the following bytes
/// * 200 to 219: the following byte, again and again: 7 times, 14 times, 28 times, …
/// * 220 to 239: the payload of before, compressed where there is a compressor, in two to 21 fragments of which this is the
///   first
/// * 240 and more: the payload of before, with a compressor compressed
pub fn frames(script: &[u8], compressor: Option<Compressor>) -> Vec<u8> {
    /// Bytes of a long stream.
    const MOST: usize = 1 << 16;
    let (mut stream, mut payload, mut compressor) = (Vec::new(), Vec::new(), compressor);
    let mut rest = script;
    while let [first, what, after @ ..] = rest
        && stream.len() < MOST
    {
        rest = after;
        let mut parts = 1;
        match what {
            0..200 => {
                let (bytes, after) = rest.split_at(rest.len().min(usize::from(*what)));
                payload = bytes.to_vec();
                rest = after;
            }
            200..220 => {
                let [byte, after @ ..] = rest else { break };
                payload = vec![*byte; 7 << (what - 200).min(12)];
                rest = after;
            }
            220.. => {
                if let Some(compressor) = &mut compressor {
                    payload = compressor.compress(&payload);
                }
                if *what < 240 {
                    parts = usize::from(what - 218);
                }
            }
        }
        let part = payload.len().div_ceil(parts).max(1);
        for n in 0..parts {
            let piece = payload.get(n * part..).map_or(&[][..], |rest| &rest[..rest.len().min(part)]);
            let fin = if n + 1 == parts { first & 0x80 } else { 0 };
            let first = if n == 0 { first & 0x7f } else { 0 };
            frame(&mut stream, fin | first, piece);
        }
    }
    stream
}

/// Appends a masked frame.
pub fn frame(stream: &mut Vec<u8>, first: u8, payload: &[u8]) {
    stream.push(first);
    match payload.len() {
        length @ 0..126 => stream.push(0x80 | length as u8),
        length @ 126..0x10000 => {
            stream.push(0x80 | 126);
            stream.extend((length as u16).to_be_bytes());
        }
        length => {
            stream.push(0x80 | 127);
            stream.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    stream.extend(mask);
    stream.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
