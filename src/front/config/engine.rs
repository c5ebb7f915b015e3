//! What is said of an engine that does not answer.

use super::{Config, MAX_SECONDS, Words, is_off, one};
use std::time::Duration;

/// The shortest time after which an engine may be replaced: its threads sleep for 2 s.
const MIN_SECONDS: u64 = 5;

/// `None` where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lateness {
    wait: Option<u32>,
    /// `Off` is `Some(None)`.
    timeout: Option<Option<Duration>>,
}

impl Lateness {
    /// This over an outer one.
    pub fn over(&self, outer: &Lateness) -> Lateness {
        Lateness { wait: self.wait.or(outer.wait), timeout: self.timeout.or(outer.timeout) }
    }

    /// How many of those that have so many workers among them may wait for the engine.
    pub fn wait(&self, workers: u64) -> u32 {
        self.wait.unwrap_or_else(|| u32::try_from(workers / 4).unwrap_or(u32::MAX).max(1))
    }

    /// After which time without a sign of life the engine is replaced.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.unwrap_or(Some(Duration::from_secs(30)))
    }
}

pub(super) fn wait(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=i32::MAX as u32).contains(number));
    config.lateness.wait =
        Some(number.ok_or_else(|| format!("expected a number from 1 to {}, got \"{word}\"", i32::MAX))?);
    Ok(())
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
