//! WebSocket frames as bytes (RFC 6455 section 5.2), prepared before the clock starts.

use super::Result;
use super::testkit::frame::Frame;
use zlib_rs::{Deflate, DeflateFlush};

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
        Self::of(Frame::BINARY, |random| random.byte(), length, messages)
    }

    /// Text messages without line breaks.
    pub(crate) fn text(length: usize, messages: usize) -> Self {
        Self::of(Frame::TEXT, |random| b'@' + random.byte() % 0x3f, length, messages)
    }

    fn of(opcode: u8, byte: fn(&mut Random) -> u8, length: usize, messages: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ length as u64);
        let (mut request, mut echo) = (Vec::new(), Vec::new());
        for _ in 0..messages {
            let payload: Vec<u8> = (0..length).map(|_| byte(&mut random)).collect();
            let mask: [u8; 4] = std::array::from_fn(|_| random.byte());
            let frame = Frame::new(opcode, payload);
            request.extend(frame.masked_with(mask));
            echo.extend(frame.unmasked());
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
    Ok(Frame::binary(deflated).reserved(4).masked_with([0; 4]))
}

/// JSON of so many bytes, as prices are told: what it is compressed to hangs on the number, its length does not.
pub(crate) fn json(number: u64, length: usize) -> String {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ number);
    let mut text = format!("{{\"number\":\"{number:016}\",\"quotes\":[");
    for count in 0u32.. {
        let quote = format!(
            "{{\"symbol\":\"{}{}\",\"bid\":{}.{:02},\"ask\":{}.{:02},\"venue\":\"XETRA\",\"open\":true}},",
            char::from(b'A' + random.byte() % 26),
            char::from(b'A' + random.byte() % 26),
            100 + u32::from(random.byte()),
            random.byte() % 100,
            100 + u32::from(random.byte()),
            count % 100,
        );
        if text.len() + quote.len() + 3 > length {
            break;
        }
        text += &quote;
    }
    // What fills it up is a string.
    format!("{text}\"{:.<1$}\"]}}", "", length.saturating_sub(text.len() + 4))
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
