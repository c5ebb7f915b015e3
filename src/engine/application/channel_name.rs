//! The names of channels, and patterns of them.

use serde::{Deserialize, Serialize};

/// The bytes of the longest channel name.
pub const MAX_NAME: usize = 1024;

/// True for what can be a channel's name: text of 1 to [`MAX_NAME`] bytes without blanks and control characters.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// As [`is_name`], of what was decoded: there U+FFFD stands for what is not UTF-8.
pub fn is_decoded_name(name: &str) -> bool {
    is_name(name) && !name.contains(char::REPLACEMENT_CHARACTER)
}

/// A pattern of names: its pieces with anything, even nothing, between them.
///
/// `["room/", ""]` is written `room/*`, and `["room/1"]` is that very name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pattern(pub Vec<String>);

impl Pattern {
    /// The whole name is one of those that are meant.
    pub fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = &self.0[..] else {
            return self.0.first().is_some_and(|only| only == name);
        };
        let inner = name.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut inner) = inner else { return false };
        middle.iter().all(|piece| match inner.split_once(piece.as_str()) {
            Some((_, rest)) => {
                inner = rest;
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_from_end_to_end() {
        let pattern = |text: &str| Pattern(text.split('*').map(str::to_owned).collect());
        for (text, yes, no) in [
            ("room/1", "room/1", "room/12"),
            ("room/*", "room/", "room"),
            ("*", "anything", "\u{0}"),
            ("a*a", "aa", "a"),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("*/private", "x/private", "x/private/y"),
        ] {
            assert!(pattern(text).matches(yes), "{text} {yes}");
            assert!(text == "*" || !pattern(text).matches(no), "{text} {no}");
        }
        assert!(!Pattern(vec![]).matches(""));
    }

    #[test]
    fn names_are_words() {
        for name in ["a", "room/1", "café/☕", "%2F", &"x".repeat(MAX_NAME)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a\u{a0}b", "a\nb", "\0", &"x".repeat(MAX_NAME + 1)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
