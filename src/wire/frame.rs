//! The layout of a frame (RFC 6455 section 5.2), where tungstenite keeps it to itself: the header of a frame we send, and
//! where in a byte stream frames begin and end.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header of a frame that a server sends: 2 bytes and a 64-bit length.
pub const MAX_SERVER_HEADER: usize = 10;

/// Appends the header of a whole, unmasked data frame with a payload of `length` bytes to `out`.
pub fn put_data_header(out: &mut Vec<u8>, text: bool, length: usize) {
    let opcode = OpCode::Data(if text { Data::Text } else { Data::Binary });
    let header = FrameHeader { is_final: true, opcode, ..FrameHeader::default() };
    // A Vec takes every write.
    let _ = header.format(length as u64, out);
}

/// Appends an unmasked Ping frame without a payload to `out`.
pub fn put_ping(out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: true, opcode: OpCode::Control(Control::Ping), ..FrameHeader::default() };
    let _ = header.format(0, out);
}

/// Follows a stream of frames from a client without decoding it: is the next byte the first of a message?
///
/// At such a point a session holds no half-read state, and its protocol context can be lent to another.
#[derive(Debug, Default)]
pub struct Cursor {
    /// Payload bytes of the current frame that are still to come.
    payload: u64,
    /// The header bytes of a frame whose header is not complete.
    header: [u8; 14],
    header_len: u8,
    /// Between the fragments of a message (section 5.4).
    fragmented: bool,
    /// The largest payload announced since [`Cursor::reset_largest`].
    largest: u64,
    oversized_control: bool,
}

impl Cursor {
    /// Moves on by `bytes`.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let here = self.payload.min(bytes.len() as u64);
                self.payload -= here;
                bytes = &bytes[here as usize..];
                continue;
            }
            // Most frames lie whole in the buffer: no copying of headers then.
            if self.header_len == 0
                && let Some(length) = header_length(bytes)
                && bytes.len() >= length
            {
                self.begin(&bytes[..length]);
                bytes = &bytes[length..];
                continue;
            }
            self.header[self.header_len as usize] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            let header = self.header;
            let seen = &header[..self.header_len as usize];
            if header_length(seen) == Some(seen.len()) {
                self.begin(seen);
                self.header_len = 0;
            }
        }
    }

    fn begin(&mut self, header: &[u8]) {
        let (fin, opcode) = (header[0] & 0x80 != 0, header[0] & 0x0f);
        self.payload = match header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => u64::from_be_bytes(header[2..10].try_into().unwrap_or_default()),
            short => u64::from(short),
        };
        self.largest = self.largest.max(self.payload);
        if opcode < 8 {
            self.fragmented = !fin;
        } else if self.payload > 125 {
            self.oversized_control = true;
        }
    }

    /// True between two messages: no frame and no fragmented message is under way.
    pub fn at_boundary(&self) -> bool {
        self.payload == 0 && self.header_len == 0 && !self.fragmented
    }

    /// The largest payload (bytes) that a header announced since the last call.
    pub fn reset_largest(&mut self) -> u64 {
        std::mem::take(&mut self.largest)
    }

    /// A control frame announced more than the 125 bytes it may carry (section 5.5).
    pub fn oversized_control(&self) -> bool {
        self.oversized_control
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
    use proptest::prelude::*;

    /// A masked frame as a client sends it (the mask is zero: the cursor does not look).
    pub(crate) fn frame(fin: bool, opcode: u8, payload: usize) -> Vec<u8> {
        let mut out = vec![opcode | if fin { 0x80 } else { 0 }];
        match payload {
            0..=125 => out.push(0x80 | payload as u8),
            126..=65535 => {
                out.push(0x80 | 126);
                out.extend((payload as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend((payload as u64).to_be_bytes());
            }
        }
        out.extend([0; 4]);
        out.resize(out.len() + payload, 0);
        out
    }

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
            put_data_header(&mut out, true, length);
            assert_eq!(out, header);
        }
        let mut out = Vec::new();
        put_data_header(&mut out, false, 1);
        assert_eq!(out, [0x82, 1]);
        put_ping(&mut out);
        assert_eq!(out[2..], [0x89, 0]);
    }

    #[test]
    fn a_control_frame_between_fragments_is_no_boundary() {
        let mut cursor = Cursor::default();
        cursor.advance(&frame(false, 1, 5));
        assert!(!cursor.at_boundary());
        cursor.advance(&frame(true, 9, 2));
        assert!(!cursor.at_boundary());
        cursor.advance(&frame(true, 0, 70_000));
        assert!(cursor.at_boundary());
        assert_eq!(cursor.reset_largest(), 70_000);
        assert!(!cursor.oversized_control());
        cursor.advance(&frame(true, 9, 126));
        assert!(cursor.oversized_control());
    }

    proptest! {
        #[test]
        fn any_chunking_ends_in_the_same_place(
            frames in prop::collection::vec((any::<bool>(), 0u8..11, 0usize..300), 1..8),
            cut in 0usize..2000,
            chunk in 1usize..40,
        ) {
            let mut bytes: Vec<u8> = frames.iter().flat_map(|f| frame(f.0, f.1, f.2)).collect();
            bytes.truncate(bytes.len().saturating_sub(cut));
            let mut whole = Cursor::default();
            whole.advance(&bytes);
            let mut pieces = Cursor::default();
            for piece in bytes.chunks(chunk) {
                pieces.advance(piece);
            }
            prop_assert_eq!(whole.at_boundary(), pieces.at_boundary());
            prop_assert_eq!(whole.payload, pieces.payload);
            prop_assert_eq!(whole.header_len, pieces.header_len);
        }
    }
}
