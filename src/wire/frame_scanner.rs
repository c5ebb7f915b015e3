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
pub struct FrameScanner {
    header: HeaderReader,
    /// Payload bytes of the current frame that are still to come.
    payload: u64,
    position: u64,
    mask: [u8; 4],
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
    max_message_size: usize,
    /// The first two bytes of the payload of a Close.
    close_code: [u8; 2],
    violation: Option<Violation>,
    /// The largest payload announced since [`FrameScanner::reset_largest`].
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
pub trait FrameVisitor {
    /// Small messages may be passed over, and nothing be told of them.
    fn may_pass(&self) -> bool;
    fn header(&mut self, header: &Header);
    /// Bytes of the payload of a frame with this opcode, as they came: its mask, and where in it they stand. `ends`: with them its
    /// message does, if it is of one.
    fn payload(&mut self, opcode: u8, ends: bool, mask: ([u8; 4], u64), piece: &[u8]);
}

struct Nobody;

impl FrameVisitor for Nobody {
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

impl FrameScanner {
    /// At the begin of a stream of messages of at most `max_message_size` bytes, in which RSV1 means
    /// [`Header::COMPRESSED`] where `compression` was negotiated.
    pub fn new(max_message_size: usize, compression: bool) -> FrameScanner {
        FrameScanner { max_message_size, compression, ..FrameScanner::default() }
    }

    /// Moves on by `bytes`; returns how many of them come before a [`Violation`], or before what follows a Close frame and
    /// is nobody's business (section 1.4).
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        self.visit(bytes, &mut Nobody)
    }

    /// As [`FrameScanner::advance`], and tells `visitor` of what there is.
    pub fn visit(&mut self, bytes: &[u8], visitor: &mut impl FrameVisitor) -> usize {
        let mut rest = bytes;
        loop {
            let here = bytes.len() - rest.len();
            if self.payload > 0 {
                let count = self.payload.min(rest.len() as u64) as usize;
                let (piece, after) = rest.split_at(count);
                let ends = count as u64 == self.payload && !self.fragmented;
                visitor.payload(self.opcode, ends, (self.mask, self.position), piece);
                let passed = self.pass(piece).and_then(|()| self.end_text(ends && !visitor.may_pass()));
                if let Err(violation) = passed {
                    self.violation = Some(violation);
                    return here;
                }
                rest = after;
            }
            if self.opcode == CLOSE && self.payload == 0 {
                return bytes.len() - rest.len();
            }
            if visitor.may_pass()
                && !self.fragmented
                && self.header.begun().is_empty()
                && self.max_message_size >= SMALL
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
            let at_hand = if visitor.may_pass() { rest.len() as u64 } else { 0 };
            if let Err(violation) = self.begin(&header, at_hand) {
                self.violation = Some(violation);
                return here;
            }
            visitor.header(&header);
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

    /// What is wrong with the stream where [`FrameScanner::advance`] stopped.
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
mod tests;
