//! What stands behind the names of directives: how it is read, and what is said of what cannot be.

use super::{Config, PlacedBound};
use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) type Words<'a, 'b> = &'a [Cow<'b, str>];

/// The longest time that a directive takes: a day.
pub(super) const MAX_SECONDS: u64 = 86_400;

pub(crate) fn one<'a>(words: Words<'a, '_>, expected: &str) -> Result<&'a str, String> {
    match words {
        [word] => Ok(word),
        _ => Err(format!("expected one argument, {expected}, got {}", words.len())),
    }
}

pub(super) fn set<T>(field: &mut Option<T>, word: Result<T, String>) -> Result<(), String> {
    *field = Some(word?);
    Ok(())
}

pub(crate) fn is_off(word: &str) -> bool {
    word.eq_ignore_ascii_case("off")
}

pub(crate) fn on_off(words: Words<'_, '_>) -> Result<bool, String> {
    let word = one(words, "On or Off")?;
    match word.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected On or Off, got \"{word}\"")),
    }
}

pub(super) fn bytes(words: Words<'_, '_>) -> Result<usize, String> {
    let word = one(words, "a number of bytes")?;
    // More than this no WebSocket message can be counted in on all platforms.
    let size = word.parse::<usize>().ok().filter(|size| (1..=i32::MAX as usize).contains(size));
    size.ok_or_else(|| format!("expected 1–{} bytes, got \"{word}\"", i32::MAX))
}

pub(crate) fn seconds(word: &str) -> Result<Duration, String> {
    seconds_or(word, "")
}

/// Seconds where something `else_taken` could stand, such as " or Off", which the caller has looked for.
pub(crate) fn seconds_or(word: &str, else_taken: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("expected 1–{MAX_SECONDS} seconds{else_taken}, got \"{word}\""))
}

/// A small number within bounds.
pub(super) fn within(words: Words<'_, '_>, what: &str, bounds: RangeInclusive<u8>) -> Result<u8, String> {
    let word = one(words, what)?;
    let number = word.parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| format!("expected {what} from {} to {}, got \"{word}\"", bounds.start(), bounds.end()))
}

pub(crate) fn threads(words: Words<'_, '_>) -> Result<usize, String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=1024).contains(number));
    number.ok_or_else(|| format!("expected 1–1024, got \"{word}\""))
}

/// A number of connections, which counts where the directive stands; `None`: Off.
pub(crate) fn bound(config: &Config, words: Words<'_, '_>) -> Result<Option<PlacedBound>, String> {
    let word = one(words, "a number of connections or Off")?;
    if is_off(word) {
        return Ok(None);
    }
    let max = word.parse().ok().filter(|max| (1..=i32::MAX as u32).contains(max));
    let max = max.ok_or_else(|| format!("expected 1–{} connections or Off, got \"{word}\"", i32::MAX))?;
    Ok(Some(PlacedBound { max, place: config.place.clone() }))
}
