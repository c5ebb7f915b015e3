//! What frames pass by, in one direction of a stream that is somebody else's: messages, bytes, and the Close. Nothing is
//! judged and no payload is looked into; at what can be no frame, following ends.

use super::CloseCode;
use super::frame::opcode::{CLOSE, CONTINUATION, PONG, TEXT};
use super::frame::{Header, HeaderReader, MAX_CONTROL};

/// Follows a stream of frames.
#[derive(Debug)]
pub struct FrameFollower {
    header: HeaderReader,
    /// Frames are masked: it is the client's side (RFC 6455 section 5.1).
    masked: bool,
    /// Between the fragments of a message (section 5.4).
    fragmented: bool,
    is_lost: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Payload bytes of the current frame that are still to come, and those that have.
    payload: u64,
    position: u64,
    close: Option<[u8; 2]>,
    close_length: u8,
    /// Data messages that have passed whole.
    pub messages: u64,
    /// Bytes of payloads of data frames that have passed, as they came.
    pub bytes: u64,
}

impl FrameFollower {
    /// At the begin of a stream of frames: a client's, or a server's.
    pub fn new(masked: bool) -> FrameFollower {
        FrameFollower {
            header: HeaderReader::default(),
            masked,
            fragmented: false,
            is_lost: false,
            opcode: CONTINUATION,
            mask: [0; 4],
            payload: 0,
            position: 0,
            close: None,
            close_length: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// These bytes pass.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.has_ended() {
            if self.payload > 0 {
                let count = self.payload.min(bytes.len() as u64) as usize;
                let (piece, rest) = bytes.split_at(count);
                if self.opcode == CLOSE {
                    self.hear_close(piece);
                }
                self.pass(count as u64);
                bytes = rest;
            } else if let Some(header) = self.header.read(&mut bytes) {
                self.begin(&header);
            }
        }
    }

    /// Bytes of a payload pass that nobody looks at: at most [`FrameFollower::unseen`].
    pub fn pass(&mut self, count: u64) {
        self.payload -= count;
        self.position += count;
        if self.opcode < CLOSE {
            self.bytes += count;
        }
        if self.payload == 0 {
            self.end();
        }
    }

    /// Bytes that are next and need not be seen: the rest of the payload of a data frame.
    pub fn unseen(&self) -> u64 {
        if self.opcode < CLOSE { self.payload } else { 0 }
    }

    /// Bytes of the payload of the current frame, or of the last.
    pub fn length(&self) -> u64 {
        if self.is_lost { 0 } else { self.position + self.payload }
    }

    /// Whether a frame may be put in here.
    pub fn at_boundary(&self) -> bool {
        !self.has_ended() && self.payload == 0 && self.header.begun().is_empty()
    }

    /// Something came that is no frame.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// A Close has passed whole: its code, where it had one.
    pub fn close(&self) -> Option<Option<CloseCode>> {
        let close = self.close.filter(|_| self.payload == 0)?;
        Some((self.close_length > 1).then(|| CloseCode::from(u16::from_be_bytes(close))))
    }

    /// Nothing that comes now is a frame, or of use as one (section 5.5.1).
    fn has_ended(&self) -> bool {
        self.is_lost || (self.close.is_some() && self.payload == 0)
    }

    fn begin(&mut self, header: &Header) {
        let Header { fin, opcode, mask, length, .. } = *header;
        // The reserved bits are for the ends to agree on.
        let may_be = if header.is_control() {
            fin && opcode <= PONG && length <= MAX_CONTROL as u64
        } else {
            opcode <= TEXT + 1 && (opcode == CONTINUATION) == self.fragmented && length >> 63 == 0
        };
        if !may_be || mask.is_some() != self.masked {
            self.is_lost = true;
            return;
        }
        if !header.is_control() {
            self.fragmented = !fin;
        }
        (self.opcode, self.mask, self.payload, self.position) = (opcode, mask.unwrap_or_default(), length, 0);
        if opcode == CLOSE {
            self.close = Some([0; 2]);
            self.close_length = length as u8;
        }
        if length == 0 {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.opcode < CLOSE && !self.fragmented {
            self.messages += 1;
        }
    }

    fn hear_close(&mut self, piece: &[u8]) {
        let Some(code) = &mut self.close else { return };
        for ((place, mask), byte) in code.iter_mut().zip(self.mask).skip(self.position as usize).zip(piece) {
            *place = byte ^ mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Header, unmask};
    use super::super::frame_scanner::{FrameScanner, FrameVisitor};
    use super::*;
    use proptest::prelude::*;

    /// A frame, and whether its direction masks.
    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut out = match payload.len() {
            short @ ..126 => vec![first, bit | short as u8],
            long @ 126..0x1_0000 => [&[first, bit | 126][..], &(long as u16).to_be_bytes()].concat(),
            longest => [&[first, bit | 127][..], &(longest as u64).to_be_bytes()].concat(),
        };
        out.extend(mask.iter().flatten());
        let begin = out.len();
        out.extend(payload);
        unmask(&mut out[begin..], mask.unwrap_or_default(), 0);
        out
    }

    /// What the scanner of our own sessions makes of a stream.
    #[derive(Default)]
    struct Counts {
        messages: u64,
        bytes: u64,
        last: Option<Header>,
    }

    impl FrameVisitor for Counts {
        fn may_pass(&self) -> bool {
            false
        }

        fn header(&mut self, header: &Header) {
            self.last = Some(*header);
            if header.length == 0 && header.fin && !header.is_control() {
                self.messages += 1;
            }
        }

        fn payload(&mut self, opcode: u8, ends: bool, _: ([u8; 4], u64), piece: &[u8]) {
            if opcode < CLOSE {
                self.bytes += piece.len() as u64;
                self.messages += u64::from(ends);
            }
        }
    }

    fn followed(bytes: &[u8], cuts: &[usize], masked: bool) -> FrameFollower {
        let mut follower = FrameFollower::new(masked);
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < bytes.len() {
            let next = bytes.len().min(at + cuts.next().map_or(usize::MAX / 2, |cut| cut + 1));
            follower.follow(&bytes[at..next]);
            at = next;
        }
        follower
    }

    fn state(follower: &FrameFollower) -> (u64, u64, Option<Option<CloseCode>>, bool, bool) {
        (follower.messages, follower.bytes, follower.close(), follower.at_boundary(), follower.is_lost())
    }

    proptest! {
        #[test]
        fn it_counts_what_the_scanner_counts(
            frames in prop::collection::vec((0..12_u8, any::<bool>(), prop_oneof![0..200_usize, 65_000..70_000_usize]), 0..12),
            cut in any::<u16>(),
            cuts in prop::collection::vec(0..300_usize, 1..8),
        ) {
            let stream: Vec<u8> = frames
                .iter()
                .flat_map(|(opcode, fin, length)| {
                    frame(opcode | if *fin { 0x80 } else { 0 }, &vec![b'x'; *length], Some([1, 2, 3, 4]))
                })
                .collect();
            let stream = &stream[..stream.len().min(stream.len() - usize::from(cut) % (stream.len() / 4 + 1))];
            let follower = followed(stream, &cuts, true);
            prop_assert_eq!(state(&follower), state(&followed(stream, &[], true)));
            let mut scanner = FrameScanner::new(usize::MAX, false);
            let mut counts = Counts::default();
            scanner.visit(stream, &mut counts);
            prop_assert_eq!(follower.is_lost(), scanner.violation().is_some());
            prop_assert_eq!((follower.messages, follower.bytes), (counts.messages, counts.bytes));
            if scanner.violation().is_none() && follower.close().is_none() && scanner.at_boundary() {
                prop_assert!(follower.at_boundary());
            }
        }

        #[test]
        fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(0..20_usize, 1..8), masked: bool) {
            prop_assert_eq!(state(&followed(&bytes, &cuts, masked)), state(&followed(&bytes, &[], masked)));
        }
    }

    #[test]
    fn a_close_tells_its_code() {
        for mask in [None, Some([7, 8, 9, 10])] {
            for (payload, code) in
                [(&[][..], None), (&[3, 0xe8], Some(1000)), (&[0x0f, 0xa0, b'b', b'y', b'e'], Some(4000))]
            {
                let stream = [frame(0x82, b"hello", mask), frame(0x89, b"", mask), frame(0x88, payload, mask)].concat();
                for cut in 0..12 {
                    let follower = followed(&[&stream[..], b"?"].concat(), &[cut], mask.is_some());
                    assert_eq!((follower.messages, follower.bytes), (1, 5));
                    assert_eq!(follower.close(), Some(code.map(CloseCode::from)));
                    assert!(!follower.at_boundary() && !follower.is_lost(), "nothing may follow a Close");
                }
            }
        }
    }

    #[test]
    fn a_frame_may_come_between_fragments() {
        let mut follower = FrameFollower::new(false);
        follower.follow(&frame(0x01, b"a", None));
        assert!(follower.at_boundary());
        follower.follow(&[0x80]);
        assert!(!follower.at_boundary());
        follower.follow(&[3, b'b']);
        assert_eq!(follower.unseen(), 2);
        follower.pass(2);
        assert!(follower.at_boundary());
        assert_eq!((follower.messages, follower.bytes), (1, 4));
    }

    #[test]
    fn what_is_no_frame_ends_it() {
        for bytes in
            [&b"HTTP/1.1 500"[..], &[0x81, 0x80, 1, 2, 3, 4], &[0x80, 0], &[0x08, 0], &[0x89, 126, 0, 126], &[0x8b, 0]]
        {
            let mut follower = FrameFollower::new(false);
            follower.follow(bytes);
            assert!(follower.is_lost() && !follower.at_boundary(), "{bytes:?}");
            assert_eq!((follower.messages, follower.bytes, follower.close()), (0, 0, None));
        }
    }
}
