//! Where in the byte stream of a client messages begin and end, and what is wrong with it as early as that can be seen.

use super::CloseCode;
use super::frame::opcode::{CLOSE, CONTINUATION, PONG, TEXT};
use super::frame::{Header, HeaderReader, unmask};
use super::utf8::Utf8;

/// Bytes that are unmasked at a time, for a look at them.
const SCRATCH: usize = 1024;

/// Follows a stream of frames from a client without decoding it: is the next byte the first of a message, and has the
/// client kept to what can be checked before a frame is complete?
///
/// Between two messages a session holds no half-read state, and its protocol context can be lent to another.
#[derive(Debug, Default)]
pub struct Cursor {
    header: HeaderReader,
    /// Payload bytes of the current frame that are still to come.
    payload: u64,
    /// How many have come.
    position: u64,
    mask: [u8; 4],
    /// The current frame's opcode.
    opcode: u8,
    /// Payload bytes of the current message that have come, or of the last.
    message: u64,
    /// Between the fragments of a message (section 5.4).
    fragmented: bool,
    /// The current message is a text that is not compressed.
    text: bool,
    utf8: Utf8,
    /// RSV1 was given a meaning (RFC 7692).
    compression: bool,
    /// The current message is compressed: its frames say nothing of its size.
    compressed: bool,
    /// Bytes of the largest message.
    max_message_size: usize,
    /// The first two bytes of the payload of a Close.
    close_code: [u8; 2],
    violation: Option<Violation>,
    /// The largest payload announced since [`Cursor::reset_largest`].
    largest: u64,
}

/// What a frame may get wrong that can be seen before it is complete (RFC 6455 sections 5.1, 5.2, 5.4, 5.5 and 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An RSV bit without an extension that defines it there.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that has no meaning.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// The frame of a client has no mask.
    #[error("unmasked frame")]
    Unmasked,
    /// A control frame in fragments.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame over 125 bytes")]
    OversizedControl,
    /// A continuation of nothing.
    #[error("continuation without a message")]
    UnexpectedContinuation,
    /// A new message in the middle of one.
    #[error("message within a message")]
    ExpectedContinuation,
    /// A data frame that is longer than a message may be.
    #[error("message over the limit")]
    OversizedMessage,
    /// A text that can no longer become UTF-8.
    #[error("invalid UTF-8 in a text")]
    InvalidText,
}

/// Who is told of the frames of a stream while it is followed.
pub trait Parts {
    /// Small messages may be passed over, and nothing be told of them.
    fn may_pass(&self) -> bool;
    /// A frame has begun.
    fn header(&mut self, header: &Header);
    /// Bytes of the payload of a frame with this opcode, as they came: its mask, and where in it they stand. `ends`: with them its
    /// message does, if it is of one.
    fn payload(&mut self, opcode: u8, ends: bool, mask: ([u8; 4], u64), piece: &[u8]);
}

/// Nobody.
struct Whole;

impl Parts for Whole {
    fn may_pass(&self) -> bool {
        true
    }

    fn header(&mut self, _: &Header) {}

    fn payload(&mut self, _: u8, _: bool, _: ([u8; 4], u64), _: &[u8]) {}
}

impl Violation {
    /// The code to close with (section 7.4.1).
    pub fn code(self) -> CloseCode {
        match self {
            Violation::InvalidText => CloseCode::Invalid,
            Violation::OversizedMessage => CloseCode::Size,
            _ => CloseCode::Protocol,
        }
    }
}

impl Cursor {
    /// At the begin of a stream of messages of at most `max_message_size` bytes, in which RSV1 means
    /// [`Header::COMPRESSED`] where `compression` was negotiated.
    pub fn new(max_message_size: usize, compression: bool) -> Cursor {
        Cursor { max_message_size, compression, ..Cursor::default() }
    }

    /// Moves on by `bytes`; returns how many of them come before a [`Violation`], or before what follows a Close frame and
    /// is nobody's business (section 1.4).
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        self.follow(bytes, &mut Whole)
    }

    /// As [`Cursor::advance`], and tells `parts` of what there is.
    pub fn follow(&mut self, bytes: &[u8], parts: &mut impl Parts) -> usize {
        let mut rest = bytes;
        loop {
            let here = bytes.len() - rest.len();
            if self.payload > 0 {
                let count = self.payload.min(rest.len() as u64) as usize;
                let (piece, after) = rest.split_at(count);
                let ends = count as u64 == self.payload && !self.fragmented;
                parts.payload(self.opcode, ends, (self.mask, self.position), piece);
                let passed = self.pass(piece).and_then(|()| self.end_text(ends && !parts.may_pass()));
                if let Err(violation) = passed {
                    self.violation = Some(violation);
                    return here;
                }
                rest = after;
            }
            if self.opcode == CLOSE && self.payload == 0 {
                return bytes.len() - rest.len();
            }
            if parts.may_pass() && !self.fragmented && self.header.begun().is_empty() && self.max_message_size >= SMALL
            {
                rest = after_small_messages(rest);
            }
            if rest.is_empty() {
                return bytes.len();
            }
            let here = bytes.len() - rest.len();
            let Some(header) = self.header.read(&mut rest) else {
                let Some(violation) = self.too_long() else { return bytes.len() };
                self.violation = Some(violation);
                return here;
            };
            let at_hand = if parts.may_pass() { rest.len() as u64 } else { 0 };
            if let Err(violation) = self.begin(&header, at_hand) {
                self.violation = Some(violation);
                return here;
            }
            parts.header(&header);
        }
    }

    /// True in a control frame that is not complete.
    pub fn is_in_control(&self) -> bool {
        self.opcode >= CLOSE && self.payload > 0
    }

    /// A header goes on of a frame whose length is known, and too long: the client may take its time for the rest.
    fn too_long(&mut self) -> Option<Violation> {
        let mut header = self.header.announced().filter(|header| header.length > self.max_message_size as u64)?;
        // Whether there is one has been said.
        header.mask = Some([0; 4]);
        let of_compressed = header.opcode == CONTINUATION && self.compressed;
        if header.is_control() || of_compressed || (header.reserved == Header::COMPRESSED && self.compression) {
            return None;
        }
        // What else is wrong with it comes first, as ever.
        let violation = self.begin(&header, 0).err()?;
        self.header.clear();
        Some(violation)
    }

    /// A frame begins, of whose payload `at_hand` bytes are there.
    fn begin(&mut self, header: &Header, at_hand: u64) -> Result<(), Violation> {
        self.payload = header.length;
        self.largest = self.largest.max(header.length);
        self.opcode = header.opcode;
        self.position = 0;
        self.mask = header.mask.ok_or(Violation::Unmasked)?;
        if header.is_control() {
            return match header {
                Header { reserved: 1.., .. } => Err(Violation::ReservedBits),
                Header { opcode, .. } if *opcode > PONG => Err(Violation::ReservedOpcode),
                Header { fin: false, .. } => Err(Violation::FragmentedControl),
                Header { length: 126.., .. } => Err(Violation::OversizedControl),
                _ => Ok(()),
            };
        }
        let continues = header.opcode == CONTINUATION;
        let compressed = header.reserved == Header::COMPRESSED && self.compression && !continues;
        if header.reserved != 0 && !compressed {
            return Err(Violation::ReservedBits);
        }
        match (continues, self.fragmented) {
            (true, false) => return Err(Violation::UnexpectedContinuation),
            (false, true) => return Err(Violation::ExpectedContinuation),
            _ => {}
        }
        if header.opcode > TEXT + 1 {
            return Err(Violation::ReservedOpcode);
        }
        if !continues {
            self.compressed = compressed;
            self.message = 0;
        }
        if !self.compressed && header.length > self.max_message_size as u64 {
            return Err(Violation::OversizedMessage);
        }
        if !continues {
            // A whole message is checked when it is decoded.
            self.text = header.opcode == TEXT && !compressed && !(header.fin && header.length <= at_hand);
            self.utf8 = Utf8::default();
        }
        self.fragmented = !header.fin;
        Ok(())
    }

    /// Passes over bytes of the current frame's payload.
    fn pass(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let mut position = self.position;
        self.payload -= piece.len() as u64;
        self.position += piece.len() as u64;
        if self.opcode == CLOSE {
            for ((place, mask), byte) in self.close_code.iter_mut().zip(self.mask).skip(position as usize).zip(piece) {
                *place = byte ^ mask;
            }
        }
        if self.opcode >= CLOSE {
            return Ok(());
        }
        self.message += piece.len() as u64;
        if !self.text {
            return Ok(());
        }
        for chunk in piece.chunks(SCRATCH) {
            let mut scratch = [0; SCRATCH];
            let scratch = &mut scratch[..chunk.len()];
            scratch.copy_from_slice(chunk);
            unmask(scratch, self.mask, position);
            self.utf8.feed(scratch).map_err(|_| Violation::InvalidText)?;
            position += chunk.len() as u64;
        }
        Ok(())
    }

    /// A message ends that nobody decodes as a whole.
    fn end_text(&self, ends: bool) -> Result<(), Violation> {
        match ends && self.opcode < CLOSE && self.text && !self.utf8.is_whole() {
            true => Err(Violation::InvalidText),
            false => Ok(()),
        }
    }

    /// Bytes of the largest message.
    pub fn max_message_size(&self) -> usize {
        self.max_message_size
    }

    /// True between two messages: no frame and no fragmented message is under way.
    pub fn at_boundary(&self) -> bool {
        self.payload == 0 && self.header.begun().is_empty() && !self.fragmented
    }

    /// Payload bytes that have come of the message under way, as they came.
    pub fn unfinished(&self) -> u64 {
        if self.fragmented || (self.payload > 0 && self.opcode < CLOSE) { self.message } else { 0 }
    }

    /// The largest payload (bytes) that a header announced since the last call; small ones are not looked at.
    pub fn reset_largest(&mut self) -> u64 {
        std::mem::take(&mut self.largest)
    }

    /// What is wrong with the stream where [`Cursor::advance`] stopped.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// The code in the Close frame that has come; without meaning when it had none.
    pub fn close_code(&self) -> u16 {
        u16::from_be_bytes(self.close_code)
    }
}

/// The longest payload (bytes) whose length fits into the second byte of a header.
const SMALL: usize = 125;

/// Passes over whole messages of one short frame, which is what most streams are made of and nothing is wrong with.
#[inline]
fn after_small_messages(mut bytes: &[u8]) -> &[u8] {
    while let [0x81 | 0x82, length @ 0x80..=0xfd, rest @ ..] = bytes
        && let Some(after) = rest.get(4 + usize::from(length & 0x7f)..)
    {
        bytes = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor() -> Cursor {
        Cursor::new(usize::MAX, false)
    }

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
    fn a_control_frame_between_fragments_is_no_boundary() {
        let mut cursor = cursor();
        cursor.advance(&frame(false, 1, 5));
        assert!(!cursor.at_boundary());
        cursor.advance(&frame(true, 9, 2));
        assert!(!cursor.at_boundary());
        cursor.advance(&frame(true, 0, 70_000));
        assert!(cursor.at_boundary());
        assert_eq!(cursor.reset_largest(), 70_000);
    }

    #[test]
    fn what_has_come_of_a_message_is_counted() {
        let mut cursor = cursor();
        let first = frame(false, 2, 300);
        cursor.advance(&first[..first.len() - 100]);
        assert_eq!(cursor.unfinished(), 200);
        cursor.advance(&first[first.len() - 100..]);
        assert_eq!(cursor.unfinished(), 300);
        let ping = frame(true, 9, 125);
        cursor.advance(&ping[..50]);
        assert_eq!(cursor.unfinished(), 300);
        cursor.advance(&ping[50..]);
        let last = frame(true, 0, 200);
        cursor.advance(&last[..last.len() - 1]);
        assert_eq!(cursor.unfinished(), 499);
        cursor.advance(&last[last.len() - 1..]);
        assert_eq!(cursor.unfinished(), 0);
        cursor.advance(&ping[..50]);
        assert_eq!(cursor.unfinished(), 0, "a Ping is no message");
    }

    #[test]
    fn a_header_is_enough_to_see_what_is_wrong_with_it() {
        let violation = |header: &[u8]| {
            let mut bytes = frame(true, 1, 3);
            let before = bytes.len();
            bytes.extend_from_slice(header);
            let mut cursor = cursor();
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
        assert_eq!(violation(&frame(true, 0, 3)[..6]), Some(Violation::UnexpectedContinuation));
        for opcode in [3, 7, 11, 15] {
            assert_eq!(violation(&frame(true, opcode, 3)[..6]), Some(Violation::ReservedOpcode), "{opcode}");
        }
    }

    #[test]
    fn a_length_over_the_limit_needs_no_mask() {
        for (frame, seen) in [
            (&[0x82, 0x80 | 126, 0, 126, 1, 2, 3, 4][..], Some(4)),
            (&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], Some(10)),
            (&[0x81, 0x80 | 101, 1, 2, 3, 4], Some(2)),
            (&[0x81, 0x80 | 100, 1, 2, 3, 4], None),
            // Control frames have a limit of their own.
            (&[0x89, 0x80 | 101, 1, 2, 3, 4], None),
        ] {
            let mut cursor = Cursor::new(100, false);
            let bytes = frame.iter().position(|byte| {
                cursor.advance(&[*byte]);
                cursor.violation().is_some()
            });
            assert_eq!(bytes.map(|last| last + 1), seen, "{frame:?}");
            assert_eq!(cursor.violation().is_some(), seen.is_some());
            let mut whole = Cursor::new(100, false);
            whole.advance(frame);
            assert_eq!(whole.violation(), cursor.violation(), "{frame:?}");
        }
    }

    #[test]
    fn a_message_may_not_begin_in_another() {
        let mut cursor = cursor();
        cursor.advance(&frame(false, 1, 5));
        assert_eq!(cursor.advance(&frame(true, 2, 5)), 0);
        assert_eq!(cursor.violation(), Some(Violation::ExpectedContinuation));
    }

    #[test]
    fn the_limit_of_messages_is_none_of_control_frames() {
        for (frames, violation) in [
            (vec![(true, 9, 125), (false, 2, 3), (true, 8, 125)], None),
            (vec![(true, 2, 4)], Some(Violation::OversizedMessage)),
            (vec![(false, 1, 3), (true, 0, 4)], Some(Violation::OversizedMessage)),
            // Compressed, they say nothing of the message.
            (vec![(false, 0x42, 4), (true, 0, 4)], None),
            (vec![(true, 0x42, 4), (true, 1, 4)], Some(Violation::OversizedMessage)),
        ] {
            let mut cursor = Cursor::new(3, true);
            for (fin, first, payload) in &frames {
                cursor.advance(&frame(*fin, *first, *payload));
            }
            assert_eq!(cursor.violation(), violation, "{frames:?}");
        }
    }

    #[test]
    fn compression_gives_one_reserved_bit_a_meaning() {
        for (frames, violation) in [
            (vec![(0x40, true, 1)], None),
            (vec![(0x40, false, 2), (0, true, 9), (0, true, 0)], None),
            (vec![(0x20, true, 1)], Some(Violation::ReservedBits)),
            (vec![(0x60, true, 1)], Some(Violation::ReservedBits)),
            (vec![(0x40, true, 9)], Some(Violation::ReservedBits)),
            (vec![(0x40, false, 1), (0x40, true, 0)], Some(Violation::ReservedBits)),
        ] {
            let mut cursor = Cursor::new(usize::MAX, true);
            for (bits, fin, opcode) in &frames {
                let mut bytes = frame(*fin, *opcode, 3);
                bytes[0] |= bits;
                cursor.advance(&bytes);
            }
            assert_eq!(cursor.violation(), violation, "{frames:?}");
        }
    }

    /// A masked frame with this payload.
    fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 0, 255, 90];
        let mut bytes = frame(fin, opcode, payload.len());
        let begin = bytes.len() - payload.len();
        bytes[begin - 4..begin].copy_from_slice(&mask);
        bytes[begin..].copy_from_slice(payload);
        unmask(&mut bytes[begin..], mask, 0);
        bytes
    }

    #[test]
    fn a_bad_text_is_noticed_with_its_first_bad_byte() {
        let text = "κόσμε\u{10ffff}".repeat(400).into_bytes();
        for (at, bad) in [(0, 0x80), (11, 0xff), (12, 0xf5), (1025, 0xc0), (text.len() - 1, 0x20)] {
            let mut broken = text.clone();
            broken[at] = bad;
            for split in [1, 5, 700] {
                let mut stream = masked(false, 1, &broken[..split]);
                stream.extend(masked(true, 9, b"\xff"));
                stream.extend(masked(true, 0, &broken[split..]));
                // The last byte is missing, so no frame check could tell.
                let whole = stream.len() - 1;
                let mut cursor = cursor();
                let mut seen = None;
                for (n, byte) in stream[..whole].iter().enumerate() {
                    cursor.advance(&[*byte]);
                    if cursor.violation().is_some() {
                        seen = Some(n);
                        break;
                    }
                }
                if at + 1 < text.len() {
                    assert_eq!(cursor.violation(), Some(Violation::InvalidText), "{at} {split}");
                    assert!(seen.unwrap() < split + 30 + at + 4, "{at} {split} {seen:?}");
                } else {
                    assert_eq!(cursor.violation(), None);
                }
            }
        }
        let mut cursor = cursor();
        let stream = masked(true, 1, &text);
        assert_eq!(cursor.advance(&stream[..3000]), 3000);
        assert_eq!(cursor.advance(&stream[3000..]), stream.len() - 3000);
    }

    #[test]
    fn the_code_of_a_close_is_kept() {
        for chunk in [1, 3, 100] {
            let mut cursor = cursor();
            let first = masked(true, 8, b"\x03\xf6reason");
            let stream = [&first[..], &masked(true, 8, b"\x03\xe8"), &[0xff; 9]].concat();
            let passed: usize = stream.chunks(chunk).map(|piece| cursor.advance(piece)).sum();
            assert_eq!(passed, first.len());
            assert_eq!((cursor.close_code(), cursor.violation()), (1014, None));
        }
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
            let mut whole = cursor();
            whole.advance(&bytes);
            let mut pieces = cursor();
            for piece in bytes.chunks(chunk) {
                pieces.advance(piece);
                if pieces.violation().is_some() {
                    break;
                }
            }
            prop_assert_eq!(whole.violation(), pieces.violation());
            prop_assert_eq!(whole.at_boundary(), pieces.at_boundary());
            prop_assert_eq!(whole.payload, pieces.payload);
            prop_assert_eq!(whole.header.begun().len(), pieces.header.begun().len());
        }
    }
}
