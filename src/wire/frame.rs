//! The layout of a frame (RFC 6455 section 5.2), where tungstenite keeps it to itself: the header of a frame we send, and
//! where in a byte stream frames begin and end.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control as OpControl, Data, OpCode};

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
    let header = FrameHeader { is_final: true, opcode: OpCode::Control(OpControl::Ping), ..FrameHeader::default() };
    let _ = header.format(0, out);
}

/// A control frame that carries what somebody wants to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// To be answered with the same payload.
    Ping,
    /// The answer, or a sign of life without a question.
    Pong,
}

/// Appends an unmasked Ping or Pong frame with this payload, of at most 125 bytes, to `out`.
pub fn put_control(out: &mut Vec<u8>, kind: Control, payload: &[u8]) {
    let kind = match kind {
        Control::Ping => OpControl::Ping,
        Control::Pong => OpControl::Pong,
    };
    let header = FrameHeader { is_final: true, opcode: OpCode::Control(kind), ..FrameHeader::default() };
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
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
    violation: Option<Violation>,
}

/// What the header of a frame alone may get wrong (RFC 6455 sections 5.1, 5.2, 5.5): there is no need to wait for its
/// payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An RSV bit without an extension that defines it.
    #[error("reserved bits are set")]
    ReservedBits,
    /// The frame of a client has no mask.
    #[error("unmasked frame")]
    Unmasked,
    /// A control frame in fragments.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame over 125 bytes")]
    OversizedControl,
}

impl Cursor {
    /// Moves on by `bytes`; returns how many of them come before a frame whose header is a [`Violation`].
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let all = bytes.len();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let here = all - bytes.len();
            if self.payload > 0 {
                let count = self.payload.min(bytes.len() as u64);
                self.payload -= count;
                bytes = &bytes[count as usize..];
                continue;
            }
            // Most frames lie whole in the buffer: no copying of headers then.
            if self.header_len == 0
                && let Some(length) = header_length(bytes)
                && bytes.len() >= length
            {
                self.begin(&bytes[..length]);
                if self.violation.is_some() {
                    return here;
                }
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
                if self.violation.is_some() {
                    return here;
                }
            }
        }
        all
    }

    fn begin(&mut self, header: &[u8]) {
        let (fin, opcode) = (header[0] & 0x80 != 0, header[0] & 0x0f);
        self.payload = match header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => u64::from_be_bytes(header[2..10].try_into().unwrap_or_default()),
            short => u64::from(short),
        };
        self.largest = self.largest.max(self.payload);
        let is_control = opcode >= 8;
        if !is_control {
            self.fragmented = !fin;
        }
        self.violation = if header[0] & 0x70 != 0 {
            Some(Violation::ReservedBits)
        } else if header[1] & 0x80 == 0 {
            Some(Violation::Unmasked)
        } else if is_control && !fin {
            Some(Violation::FragmentedControl)
        } else if is_control && self.payload > 125 {
            Some(Violation::OversizedControl)
        } else {
            None
        };
    }

    /// True between two messages: no frame and no fragmented message is under way.
    pub fn at_boundary(&self) -> bool {
        self.payload == 0 && self.header_len == 0 && !self.fragmented
    }

    /// The largest payload (bytes) that a header announced since the last call.
    pub fn reset_largest(&mut self) -> u64 {
        std::mem::take(&mut self.largest)
    }

    /// What the header at which [`Cursor::advance`] stopped got wrong.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
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
    }

    #[test]
    fn a_header_is_enough_to_see_what_is_wrong_with_it() {
        let violation = |header: &[u8]| {
            let mut bytes = frame(true, 1, 3);
            let before = bytes.len();
            bytes.extend_from_slice(header);
            let mut cursor = Cursor::default();
            let stop = cursor.advance(&bytes);
            assert_eq!(stop == before, cursor.violation().is_some());
            cursor.violation()
        };
        assert_eq!(violation(&frame(true, 9, 126)[..8]), Some(Violation::OversizedControl));
        assert_eq!(violation(&frame(false, 9, 1)[..6]), Some(Violation::FragmentedControl));
        assert_eq!(violation(&[0x81, 5]), Some(Violation::Unmasked));
        for bit in [0x40, 0x20, 0x10] {
            assert_eq!(violation(&[0x81 | bit, 0x85, 0, 0, 0, 0]), Some(Violation::ReservedBits));
        }
        assert_eq!(violation(&frame(true, 9, 125)), None);
        assert_eq!(violation(&[0x81, 0xfe, 1]), None);
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
                if pieces.violation().is_some() {
                    break;
                }
            }
            prop_assert_eq!(whole.violation(), pieces.violation());
            prop_assert_eq!(whole.at_boundary(), pieces.at_boundary());
            prop_assert_eq!(whole.payload, pieces.payload);
            prop_assert_eq!(whole.header_len, pieces.header_len);
        }
    }
}
