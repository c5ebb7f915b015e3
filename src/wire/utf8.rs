//! UTF-8 that arrives in pieces: what can never become valid is noticed with the byte that makes it so (RFC 6455
//! section 8.1), and not when the frame is complete.

use std::str::from_utf8;

/// No continuation makes these bytes UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// What a text that has been valid so far ended with: nothing, or the beginning of a character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8 {
    begun: [u8; 3],
    count: u8,
}

impl Utf8 {
    /// Takes the next piece of the text.
    ///
    /// # Errors
    /// The text can no longer become valid.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Invalid> {
        while self.count > 0 {
            let Some((next, rest)) = piece.split_first() else { return Ok(()) };
            let count = usize::from(self.count);
            let mut character = [0; 4];
            character[..count].copy_from_slice(&self.begun[..count]);
            character[count] = *next;
            piece = rest;
            self.keep(&character[..=count])?;
        }
        self.keep(piece)
    }

    pub fn is_whole(&self) -> bool {
        self.count == 0
    }

    /// Checks a piece that begins with a character, and keeps what is incomplete at its end.
    fn keep(&mut self, piece: &[u8]) -> Result<(), Invalid> {
        let incomplete = match from_utf8(piece) {
            Ok(_) => &[],
            Err(e) if e.error_len().is_none() => &piece[e.valid_up_to()..],
            Err(_) => return Err(Invalid),
        };
        // Four bytes would be a whole character, or no beginning of one.
        self.count = incomplete.len() as u8;
        self.begun[..incomplete.len()].copy_from_slice(incomplete);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bad_byte_is_seen_at_once() {
        for (good, bad) in [
            (&b"\xce\xba"[..], b'\x80'),
            (b"\xf4", b'\x90'),
            (b"\xed", b'\xa0'),
            (b"\xe2\x82", b'a'),
            (b"", b'\xc0'),
            (b"a", b'\xff'),
        ] {
            let mut utf8 = Utf8::default();
            assert_eq!(utf8.feed(good), Ok(()), "{good:x?}");
            assert_eq!(utf8.feed(&[bad]), Err(Invalid), "{good:x?} {bad:x}");
        }
    }

    proptest! {
        #[test]
        fn a_valid_text_is_valid_in_any_pieces(text in "[a-zé€😀]{0,40}", cuts in prop::collection::vec(0usize..100, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut utf8 = Utf8::default();
            for ends in cuts.windows(2) {
                prop_assert_eq!(utf8.feed(&bytes[ends[0]..ends[1]]), Ok(()));
            }
            prop_assert_eq!(utf8.count, 0);
        }

        #[test]
        fn a_byte_is_bad_where_no_continuation_helps(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut utf8 = Utf8::default();
            let bad = bytes.iter().position(|byte| utf8.feed(&[*byte]).is_err());
            let expected = match from_utf8(&bytes) {
                Ok(_) => None,
                Err(e) => e.error_len().map(|_| e.valid_up_to()),
            };
            // std points at the beginning of the bad sequence, which is at most three bytes before the bad byte.
            match (bad, expected) {
                (None, None) => {}
                (Some(at), Some(begin)) => prop_assert!((begin..begin + 4).contains(&at)),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
