//! The framing of the private links, to C plugins and to Python workers: a byte says the kind of a message, and four in
//! network byte order the length of its payload. And of what programs and plugins close with.

use crate::wire::{CloseCode, CloseFrame, close};
use std::io;

pub(crate) const HEADER: usize = 5;

/// What stands before a payload of that length, which is below 4 GiB.
pub(crate) fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [kind, a, b, c, d]
}

/// Takes messages out of the stream, however it is cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    head: [u8; HEADER],
    head_length: u8,
    payload: Vec<u8>,
}

impl Splitter {
    /// The payload is not reserved beyond this before it comes.
    const RESERVED: usize = 64 * 1024;

    /// Takes the next message off the front of `bytes`; `None` when it goes on after them. `room` is what is kept free
    /// behind a payload's end.
    ///
    /// # Errors
    /// Its payload is longer than `longest`.
    pub(crate) fn next(&mut self, bytes: &mut &[u8], room: usize, longest: usize) -> io::Result<Option<(u8, Vec<u8>)>> {
        while usize::from(self.head_length) < HEADER {
            let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
            self.head[usize::from(self.head_length)] = *first;
            self.head_length += 1;
            *bytes = rest;
        }
        let [kind, length @ ..] = self.head;
        let length = u32::from_be_bytes(length) as usize;
        if length > longest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes from it")));
        }
        if self.payload.capacity() == 0 {
            self.payload.reserve_exact(length.min(Self::RESERVED) + room);
        }
        let (piece, rest) = bytes.split_at(bytes.len().min(length - self.payload.len()));
        self.payload.extend_from_slice(piece);
        *bytes = rest;
        if self.payload.len() < length {
            return Ok(None);
        }
        self.head_length = 0;
        Ok(Some((kind, std::mem::take(&mut self.payload))))
    }
}

/// The Close frame with this payload (RFC 6455 section 5.5.1). Without a code: one without a code. In the place of a code
/// that no Close frame may carry goes 1011; what is no UTF-8 in the reason is replaced.
pub(crate) fn close_frame(payload: &[u8]) -> CloseFrame {
    match payload {
        [a, b, reason @ ..] => {
            let code = match u16::from_be_bytes([*a, *b]) {
                0..1000 | 1005 | 1006 | 1015 | 5000.. => CloseCode::Error,
                code => CloseCode::from(code),
            };
            close(code, &String::from_utf8_lossy(reason))
        }
        _ => close(CloseCode::Status, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_close_is_one_that_may_be_sent() {
        assert_eq!(close_frame(b""), close(CloseCode::Status, ""));
        assert_eq!(close_frame(b"\x03"), close(CloseCode::Status, ""));
        assert_eq!(close_frame(b"\x03\xe8bye"), close(CloseCode::Normal, "bye"));
        assert_eq!(close_frame(b"\x0f\xa0"), close(CloseCode::Library(4000), ""));
        assert_eq!(close_frame(b"\x03\xee").code, CloseCode::Error);
        assert_eq!(close_frame(b"\x00\x00\xff").reason.as_str(), "\u{fffd}");
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        assert!(Splitter::default().next(&mut &[1, 0, 0, 0, 9][..], 0, 8).is_err());
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            chunk in 1usize..100,
            room in 0usize..2,
        ) {
            let bytes: Vec<u8> = messages
                .iter()
                .flat_map(|(kind, payload)| [&header(*kind, payload.len())[..], payload].concat())
                .collect();
            let (mut splitter, mut seen) = (Splitter::default(), Vec::new());
            for mut piece in bytes.chunks(chunk) {
                while let Some((kind, payload)) = splitter.next(&mut piece, room, 300).unwrap() {
                    prop_assert!(payload.capacity() >= payload.len() + room);
                    seen.push((kind, payload));
                }
            }
            prop_assert_eq!(seen, messages);
        }
    }
}
