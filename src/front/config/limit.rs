//! Limits: `.htaccess` files make them smaller only.

use super::Merge;
use crate::apache::directive::DirectivePlace;
use crate::engine::{MessageTimeout, Ping, Quota};
use std::fmt::Write;
use std::time::Duration;

/// A limit, as far as a section says something.
///
/// httpd merges sections in groups, those of the configuration and of `.htaccess` files among each other: so both words are
/// kept beside each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit<T> {
    /// What the server's configuration says; an inner section's word is the one that holds.
    set: Option<T>,
    /// The smallest that `.htaccess` files say.
    cap: Option<T>,
}

impl<T> Default for Limit<T> {
    fn default() -> Limit<T> {
        Limit { set: None, cap: None }
    }
}

impl<T: Smaller + Copy> Limit<T> {
    /// What a directive at this place says.
    pub(crate) fn write(&mut self, place: &DirectivePlace, value: T) {
        if place.in_htaccess {
            self.cap = smaller(self.cap, Some(value));
        } else {
            self.set = Some(value);
        }
    }

    pub(crate) fn unwrap_or(&self, default: T) -> T {
        let set = self.set.unwrap_or(default);
        self.cap.map_or(set, |cap| cap.smaller(set))
    }
}

impl<T: Smaller + Copy + 'static> Merge for Limit<T> {
    fn over(&self, outer: &Limit<T>) -> Limit<T> {
        Limit { set: self.set.or(outer.set), cap: smaller(self.cap, outer.cap) }
    }
}

fn smaller<T: Smaller>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.smaller(other)),
        (one, other) => one.or(other),
    }
}

pub(crate) trait Smaller {
    fn smaller(self, other: Self) -> Self;
}

impl Smaller for usize {
    fn smaller(self, other: usize) -> usize {
        self.min(other)
    }
}

impl Smaller for u32 {
    fn smaller(self, other: u32) -> u32 {
        self.min(other)
    }
}

impl Smaller for Duration {
    fn smaller(self, other: Duration) -> Duration {
        self.min(other)
    }
}

impl Smaller for Ping {
    fn smaller(self, other: Ping) -> Ping {
        Ping { interval: self.interval.min(other.interval), timeout: self.timeout.min(other.timeout) }
    }
}

impl Smaller for MessageTimeout {
    fn smaller(self, other: MessageTimeout) -> MessageTimeout {
        // A higher rate adds less time; none at all adds none.
        let rate = if self.rate == 0 || other.rate == 0 { 0 } else { self.rate.max(other.rate) };
        MessageTimeout { seconds: self.seconds.min(other.seconds), rate }
    }
}

/// `None` is `Off`: no limit.
impl<T: Smaller> Smaller for Option<T> {
    fn smaller(self, other: Option<T>) -> Option<T> {
        smaller(self, other)
    }
}

/// A number of sessions that may be open, in the server's configuration; and those of `.htaccess` files, each of which counts
/// beside it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bounds {
    /// `Off` is `Some(None)`.
    set: Option<Option<PlacedBound>>,
    beside: Vec<PlacedBound>,
}

impl Bounds {
    /// What a directive at this place says.
    pub(crate) fn write(&mut self, place: &DirectivePlace, bound: Option<PlacedBound>) {
        if place.in_htaccess {
            // One of its own, where it has one.
            self.beside.retain(|other| other.place != *place);
            self.beside.extend(bound);
        } else {
            self.set = Some(bound);
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &PlacedBound> {
        self.set.iter().flatten().chain(&self.beside)
    }
}

impl Merge for Bounds {
    fn over(&self, outer: &Bounds) -> Bounds {
        let beside = outer.beside.iter().filter(|other| self.beside.iter().all(|bound| bound.place != other.place));
        Bounds {
            set: self.set.clone().or_else(|| outer.set.clone()),
            beside: self.beside.iter().chain(beside).cloned().collect(),
        }
    }
}

/// A number of sessions, and where it was set: those of the same place count together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlacedBound {
    pub(crate) max: u32,
    pub(crate) place: DirectivePlace,
}

impl PlacedBound {
    /// `host` is the virtual host that serves the request.
    pub(crate) fn quota(&self, directive: &str, host: &str, client: Option<&str>) -> Quota {
        let mut scope = format!("{directive} of {}", locate(&self.place, host));
        // A String takes every write.
        if let Some(client) = client {
            let _ = write!(scope, " for {client}");
        }
        Quota { scope, max: self.max }
    }
}

/// What names a place in all that is there.
pub(crate) fn locate(place: &DirectivePlace, host: &str) -> String {
    // What is set outside of all virtual hosts is shared by those that inherit it.
    let host = if place.in_virtual_host { host } else { "the server" };
    match &place.path {
        // A <Directory> has the same path, and counts for itself.
        Some(path) if place.in_htaccess => format!("{host} in {path}.htaccess"),
        Some(path) => format!("{host} in {path}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn what_allows_less_is_smaller() {
        let seconds = Duration::from_secs;
        let ping = |interval, timeout| Ping { interval: seconds(interval), timeout: seconds(timeout) };
        assert_eq!(ping(5, 10).smaller(ping(30, 2)), ping(5, 2));
        assert_eq!(Some(3_u32).smaller(None), Some(3));
        assert_eq!(None.smaller(Some(3_u32)), Some(3));
        let timeout = |seconds, rate| MessageTimeout { seconds: NonZeroU32::new(seconds).unwrap(), rate };
        assert_eq!(timeout(60, 500).smaller(timeout(90, 1000)), timeout(60, 1000));
        assert_eq!(timeout(60, 500).smaller(timeout(90, 0)), timeout(60, 0));
    }

    #[test]
    fn groups_of_sections_are_merged_in_any_way() {
        let section = |in_htaccess, value: u32| {
            let mut limit = Limit::default();
            limit.write(&DirectivePlace { in_htaccess, ..DirectivePlace::default() }, value);
            limit
        };
        let (server, inner, files) = (section(false, 50), section(true, 70), section(false, 60));
        for merged in [files.over(&inner.over(&server)), files.over(&inner).over(&server)] {
            assert_eq!(merged.unwrap_or(10), 60);
        }
        assert_eq!(section(true, 20).over(&server).unwrap_or(10), 20);
        assert_eq!(inner.unwrap_or(10), 10);
        assert_eq!(section(true, 5).unwrap_or(10), 5);
    }
}
