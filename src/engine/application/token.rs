//! The secret by which httpd knows requests of its engine: 256 bits that httpd's parent makes, and engine and children inherit.
//! It is in memory alone.

use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use std::sync::OnceLock;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a token.
pub const LENGTH: usize = 32;

/// This httpd's, in hexadecimal.
static TOKEN: OnceLock<Zeroizing<String>> = OnceLock::new();

/// Before this process, or one that it forks, sends or reads requests. The first call counts.
pub fn set(token: &[u8; LENGTH]) {
    TOKEN.get_or_init(|| hexadecimal(token).into());
}

/// What goes into the header line [`super::reserved::TOKEN`]; `None` where none was set.
pub fn value() -> Option<&'static str> {
    TOKEN.get().map(|token| token.as_str())
}

/// In constant time: this is the token.
pub fn is(text: &[u8]) -> bool {
    value().is_some_and(|token| token.as_bytes().ct_eq(text).into())
}

/// Fills it with what nobody can guess.
///
/// # Errors
/// The system has none of it.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the system gives no random bytes"))
}

/// Two small letters or digits a byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_will_do() {
        assert!(!is(b""));
        set(&[0xa1; LENGTH]);
        set(&[0; LENGTH]);
        let token = "a1".repeat(LENGTH);
        assert_eq!(value(), Some(token.as_str()));
        assert!(is(token.as_bytes()));
        for wrong in [&token[1..], &token.to_uppercase(), &format!("{token}0"), "", &"00".repeat(LENGTH)] {
            assert!(!is(wrong.as_bytes()), "{wrong}");
        }
    }
}
