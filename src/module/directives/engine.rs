//! What is said of an engine that does not answer.

use super::{Config, MAX_SECONDS, Words, is_off, one};
use std::time::Duration;

/// The shortest time after which an engine may be replaced: its threads sleep for 2 s.
const MIN_SECONDS: u64 = 5;

/// `None` where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lateness {
    /// `Off` is `Some(None)`.
    timeout: Option<Option<Duration>>,
}

impl Lateness {
    /// This over an outer one.
    pub fn over(&self, outer: &Lateness) -> Lateness {
        Lateness { timeout: self.timeout.or(outer.timeout) }
    }

    /// After which time without a sign of life the engine is replaced.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.unwrap_or(Some(Duration::from_secs(30)))
    }
}

pub(super) fn timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds or Off")?;
    let seconds = word.parse().ok().filter(|seconds| (MIN_SECONDS..=MAX_SECONDS).contains(seconds));
    config.lateness.timeout = Some(match seconds {
        _ if is_off(word) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => return Err(format!("expected {MIN_SECONDS}–{MAX_SECONDS} seconds or Off, got \"{word}\"")),
    });
    Ok(())
}
