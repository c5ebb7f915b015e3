//! What the log says once a minute of a location, however many requests it is about: at levels that are shown, for faults of
//! a configuration that would else be told by every request.

use crate::apache::request::Request;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a line stands for those after it.
const MINUTE: Duration = Duration::from_secs(60);
/// Locations that are told apart at a time; those beyond share one line.
const MOST: usize = 1024;

/// Lines of this child of httpd, by id and location.
static TOLD: LazyLock<Mutex<Told>> = LazyLock::new(Mutex::default);

/// Whether line `id` ("WS0021") may be written now about the place where this request is served: the first within a minute
/// may.
pub fn a_minute(id: &'static str, request: &Request) -> bool {
    let place = format!("{} {}", request.server().name(), request.location());
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).admits(id, place, Instant::now())
}

#[derive(Default)]
struct Told(HashMap<(&'static str, String), Instant>);

impl Told {
    fn admits(&mut self, id: &'static str, place: String, now: Instant) -> bool {
        let mut key = (id, place);
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.retain(|_, since| now.duration_since(*since) < MINUTE);
            if self.0.len() >= MOST {
                key.1.clear();
            }
        }
        match self.0.get_mut(&key) {
            Some(since) if now.duration_since(*since) < MINUTE => return false,
            Some(since) => *since = now,
            None => _ = self.0.insert(key, now),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_comes_once_a_minute_for_each_place() {
        let mut told = Told::default();
        let start = Instant::now();
        let mut at = |id, place: &str, seconds| told.admits(id, place.into(), start + Duration::from_secs(seconds));
        assert!(at("WS1", "/a", 0));
        assert!(!at("WS1", "/a", 0) && !at("WS1", "/a", 59));
        assert!(at("WS1", "/b", 1) && at("WS2", "/a", 1));
        assert!(at("WS1", "/a", 60) && !at("WS1", "/a", 119) && at("WS1", "/a", 120));
    }

    #[test]
    fn many_places_share_a_line_until_there_is_room() {
        let mut told = Told::default();
        let now = Instant::now();
        for number in 0..MOST {
            assert!(told.admits("WS1", number.to_string(), now));
        }
        assert!(told.admits("WS1", "one more".into(), now) && !told.admits("WS1", "another".into(), now));
        assert!(told.0.len() <= MOST + 1);
        assert!(told.admits("WS1", "another".into(), now + MINUTE));
        assert_eq!(told.0.len(), 1);
    }
}
