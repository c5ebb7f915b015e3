//! The ids of messages: `epoch:offset`.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::sync::Arc;

/// The id of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id {
    /// Which count of messages it is of: letters and digits.
    pub epoch: Arc<str>,
    /// Its number there; the first is 1.
    pub offset: u64,
}

/// What was given is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message id: expected epoch:offset")]
pub struct ParseIdError;

impl Id {
    /// True for what an epoch is: up to 64 letters and digits.
    pub fn is_epoch(text: &str) -> bool {
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }
}

/// An epoch that there never was: letters and digits that nobody else has.
pub fn epoch() -> String {
    // Its keys are random.
    format!("{:x}", RandomState::new().build_hasher().finish())
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Id, ParseIdError> {
        let (epoch, offset) = text.split_once(':').ok_or(ParseIdError)?;
        // u64::from_str would take a sign.
        if !Id::is_epoch(epoch) || !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseIdError);
        }
        Ok(Id { epoch: epoch.into(), offset: offset.parse().map_err(|_| ParseIdError)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_they_are_read() {
        for text in ["a:0", "5F3xx:18446744073709551615"] {
            assert_eq!(text.parse::<Id>().unwrap().to_string(), text);
        }
        for text in ["", ":", "a:", ":1", "a", "a:-1", "a:+1", "a:1:2", "a b:1", "é:1", "a:18446744073709551616"] {
            assert_eq!(text.parse::<Id>(), Err(ParseIdError), "{text}");
        }
    }
}
