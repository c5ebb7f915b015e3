//! The layout of a frame (RFC 6455 section 5.2), where tungstenite keeps it to itself: the headers of frames that we send,
//! and those of a client.

use super::CloseCode;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control as OpControl, Data, OpCode};

/// The longest header of a frame that a server sends: 2 bytes and a 64-bit length.
pub const MAX_SERVER_HEADER: usize = 10;
/// The longest payload of a control frame (section 5.5).
pub const MAX_CONTROL: usize = 125;

/// Appends the header of a whole, unmasked data frame with a payload of `length` bytes to `out`.
pub fn put_data_header(out: &mut Vec<u8>, kind: DataKind, length: usize) {
    let opcode = OpCode::Data(if kind.text { Data::Text } else { Data::Binary });
    let header = FrameHeader { is_final: true, rsv1: kind.compressed, opcode, ..FrameHeader::default() };
    // A Vec takes every write.
    let _ = header.format(length as u64, out);
}

/// What the header of a data frame of ours says of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKind {
    pub text: bool,
    /// permessage-deflate was applied to it (RFC 7692 section 6: RSV1).
    pub compressed: bool,
}

/// What a control frame of ours is (section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Close,
    /// To be answered with the same payload.
    Ping,
    /// The answer, or a sign of life without a question.
    Pong,
}

/// Appends an unmasked control frame with this payload, of at most [`MAX_CONTROL`] bytes, to `out`.
pub fn put_control(out: &mut Vec<u8>, kind: Control, payload: &[u8]) {
    let kind = match kind {
        Control::Close => OpControl::Close,
        Control::Ping => OpControl::Ping,
        Control::Pong => OpControl::Pong,
    };
    let header = FrameHeader { is_final: true, opcode: OpCode::Control(kind), ..FrameHeader::default() };
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Appends a client's Close with this code to `out`.
pub fn put_masked_close(out: &mut Vec<u8>, mask: [u8; 4], code: CloseCode) {
    let opcode = OpCode::Control(OpControl::Close);
    let header = FrameHeader { is_final: true, opcode, mask: Some(mask), ..FrameHeader::default() };
    let mut payload = u16::from(code).to_be_bytes();
    let _ = header.format(payload.len() as u64, out);
    unmask(&mut payload, mask, 0);
    out.extend_from_slice(&payload);
}

/// The opcodes of section 11.8 that somebody here asks for.
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    /// A text, or its first fragment.
    pub const TEXT: u8 = 1;
    /// The first control frame.
    pub const CLOSE: u8 = 8;
    /// The last of those that have a meaning.
    pub const PONG: u8 = 10;
}

/// The header of a frame from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    /// The bits RSV1, RSV2 and RSV3, as 4, 2 and 1.
    pub reserved: u8,
    /// See section 5.2.
    pub opcode: u8,
    /// The mask; `None` is a client's error.
    pub mask: Option<[u8; 4]>,
    pub length: u64,
}

impl Header {
    /// RSV1, which permessage-deflate defines.
    pub const COMPRESSED: u8 = 4;

    /// Close, Ping, Pong, and what may come (section 5.5).
    pub fn is_control(&self) -> bool {
        self.opcode >= opcode::CLOSE
    }

    fn parse(bytes: &[u8]) -> Option<(Header, usize)> {
        let end = header_length(bytes).filter(|length| *length <= bytes.len())?;
        let (header, at) = Header::before_mask(bytes)?;
        Some((Header { mask: bytes[at..end].try_into().ok(), ..header }, end))
    }

    /// A header of which the mask may be missing, and where that begins.
    #[inline]
    pub fn before_mask(bytes: &[u8]) -> Option<(Header, usize)> {
        let (length, at) = match bytes.get(1)? & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let first = bytes[0];
        let (fin, reserved, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 0x0f);
        Some((Header { fin, reserved, opcode, mask: None, length }, at))
    }
}

#[derive(Debug, Default)]
pub struct HeaderReader {
    /// The bytes of a header that is not complete.
    begun: [u8; 14],
    count: u8,
}

impl HeaderReader {
    /// Takes a header off the front of `bytes`; `None` when it goes on after them.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Option<Header> {
        // Most frames lie whole in the buffer: no copying of headers then.
        if self.count == 0
            && let Some((header, length)) = Header::parse(bytes)
        {
            *bytes = &bytes[length..];
            return Some(header);
        }
        while let Some((next, rest)) = bytes.split_first() {
            self.begun[usize::from(self.count)] = *next;
            self.count += 1;
            *bytes = rest;
            if let Some((header, _)) = Header::parse(self.begun()) {
                self.count = 0;
                return Some(header);
            }
        }
        None
    }

    /// What a header that goes on says of its frame, where its length is there.
    pub fn announced(&self) -> Option<Header> {
        Header::before_mask(self.begun()).map(|(header, _)| header)
    }

    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// The part that has been read of a header that goes on.
    pub fn begun(&self) -> &[u8] {
        &self.begun[..usize::from(self.count)]
    }
}

/// Undoes the masking (section 5.3) of bytes that stand at `offset` in the payload of their frame.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    let offset = (offset % 4) as usize;
    let mask: [u8; 4] = std::array::from_fn(|i| mask[(offset + i) % 4]);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let word = u32::from_ne_bytes(mask);
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// How long the header that begins with `bytes` is; `None` when two bytes are not there yet.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    Some(2 + extended + if second & 0x80 != 0 { 4 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_shortest_form() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65535, vec![0x81, 126, 255, 255]),
            (65536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            put_data_header(&mut out, DataKind { text: true, compressed: false }, length);
            assert_eq!(out, header);
        }
        let mut out = Vec::new();
        put_data_header(&mut out, DataKind { text: false, compressed: true }, 1);
        assert_eq!(out, [0xc2, 1]);
        put_control(&mut out, Control::Ping, b"");
        assert_eq!(out[2..], [0x89, 0]);
        out.clear();
        put_control(&mut out, Control::Close, &1014u16.to_be_bytes());
        assert_eq!(out, [0x88, 2, 0x03, 0xf6]);
        out.clear();
        put_masked_close(&mut out, [1, 2, 3, 4], CloseCode::Away);
        assert_eq!(out, [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
    }
}
