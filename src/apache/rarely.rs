//! What is said at most once a minute: a table that all children of httpd share.

use super::shared_memory;
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The places of the table: so many different lines a minute, at most.
const PLACES: usize = 256;
/// The places in which one is looked for.
const TRIES: usize = 8;
/// Seconds.
const PAUSE: u32 = 60;

/// The layout of what is shared.
const KEY: &CStr = c"mod_websocket said 2";

/// Topics of which it is counted how often they were not said.
pub const COUNTED: usize = 8;

/// What was said when: in each place the hash of a topic, and the second, by the clock of the machine; or zero. Behind them, what
/// was not said how often.
pub struct Rarely(&'static [AtomicU64]);

impl Rarely {
    /// The table of httpd's parent, to be called there; the processes that it forks from now on share it. `None` where there is
    /// no memory.
    pub fn shared() -> Option<Rarely> {
        shared_memory::words(KEY, PLACES + COUNTED).ok().map(Rarely)
    }

    /// True once a minute for each topic, in whichever process.
    pub fn may(&self, topic: impl Hash) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32);
        may(&self.0[..PLACES], topic, now)
    }

    /// As [`Rarely::may`], for one of [`COUNTED`] topics by its number: how often it was not said since the last time.
    pub fn may_counted(&self, topic: usize) -> Option<u64> {
        let missed = &self.0[PLACES + topic];
        if self.may(("counted", topic)) {
            return Some(missed.swap(0, Ordering::Relaxed));
        }
        missed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn may(places: &[AtomicU64], topic: impl Hash, now: u32) -> bool {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    let hash = hasher.finish() as u32;
    let entry = u64::from(hash) << 32 | u64::from(now);
    let recent = |place: u64| place != 0 && (place as u32).abs_diff(now) < PAUSE;
    let tried = || (0..TRIES).map(|n| &places[(hash as usize + n) % places.len()]);
    if let Some(place) = tried().find(|place| (place.load(Ordering::Relaxed) >> 32) as u32 == hash) {
        let before = place.load(Ordering::Relaxed);
        // Where somebody else was faster, he has said it.
        return !recent(before) && replace(place, before, entry);
    }
    // Where all places are taken by what was said just now, this is too much.
    tried().any(|place| {
        let before = place.load(Ordering::Relaxed);
        !recent(before) && replace(place, before, entry)
    })
}

fn replace(place: &AtomicU64, before: u64, entry: u64) -> bool {
    place.compare_exchange(before, entry, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_its_minute() {
        let places: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
        assert!(may(&places, "a", 1000));
        assert!(!may(&places, "a", 1059));
        assert!(may(&places, "b", 1059));
        assert!(may(&places, "a", 1060));
        // The clock was set back.
        assert!(may(&places, "a", 500));
        let said = (0..10_000).filter(|topic| may(&places, topic, 2000)).count();
        assert!((32..=64).contains(&said), "{said}");
        assert!((0..10_000).any(|topic| may(&places, topic, 3000)));
    }

    #[test]
    fn what_is_not_said_is_counted() {
        let words: Vec<AtomicU64> = (0..PLACES + COUNTED).map(|_| AtomicU64::new(0)).collect();
        let rarely = Rarely(words.leak());
        assert_eq!([0, 0, 1, 0].map(|topic| rarely.may_counted(topic)), [Some(0), None, Some(0), None]);
        assert_eq!(rarely.0[PLACES].load(Ordering::Relaxed), 2);
        // A minute later.
        rarely.0[..PLACES].iter().for_each(|place| place.store(0, Ordering::Relaxed));
        assert_eq!([rarely.may_counted(0), rarely.may_counted(1)], [Some(2), Some(0)]);
    }
}
