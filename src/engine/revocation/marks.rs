//! What was taken back lately. A handshake that began before, and whose session comes only now, had its login judged when that
//! still held.

use super::names::number;
use super::{Name, Revocation, Whom};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Microseconds that a mark is kept.
const KEPT: u64 = 60_000_000;
/// Marks that are kept, at most.
const MOST: usize = 100_000;

#[derive(Default)]
pub(crate) struct Marks {
    by_name: HashMap<Name, Vec<Mark>>,
    /// The times of all of them, the oldest first.
    order: VecDeque<(u64, Name)>,
    /// Until then marks were made that are forgotten.
    forgotten: u64,
}

struct Mark {
    at: u64,
    revocation: Arc<Revocation>,
}

/// What holds for a session that begins.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) revocations: Vec<Arc<Revocation>>,
    /// Its handshake has taken so long that nobody knows.
    pub(crate) is_too_old: bool,
}

impl Marks {
    /// `at` is when the last handshake can have begun that it holds for; it is `now`.
    pub(crate) fn add(&mut self, revocation: &Arc<Revocation>, at: u64, now: u64) {
        let name = &revocation.name;
        let mark = Mark { at, revocation: revocation.clone() };
        self.by_name.entry(name.clone()).or_default().push(mark);
        self.order.push_back((at, name.clone()));
        self.expire(now);
    }

    /// For a session of these names, with that number, whose handshake began then.
    pub(crate) fn find(&mut self, names: &[Rc<Name>], id: u64, began: u64, now: u64) -> Found {
        self.expire(now);
        let mut found = Found { is_too_old: began < self.forgotten, ..Found::default() };
        for mark in names.iter().filter_map(|name| self.by_name.get(name)).flatten() {
            let is_it = |except: &String| {
                number(except) == Some(id)
                    || names.iter().any(|name| matches!(&name.whom, Whom::Connection(own) if own == except))
            };
            if began < mark.at && !mark.revocation.except.as_ref().is_some_and(is_it) {
                found.revocations.push(mark.revocation.clone());
            }
        }
        found
    }

    fn expire(&mut self, now: u64) {
        while let Some((at, name)) = self.order.front()
            && (*at + KEPT < now || self.order.len() > MOST)
        {
            self.forgotten = self.forgotten.max(*at);
            if let Some(marks) = self.by_name.get_mut(name) {
                // In the order in which they were made.
                marks.remove(0);
                if marks.is_empty() {
                    self.by_name.remove(name);
                }
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Measure;
    use super::*;

    fn name(user: &str) -> Name {
        Name { prefix: String::new(), whom: Whom::User(user.into()) }
    }

    fn mark(user: &str, except: Option<&str>) -> Arc<Revocation> {
        let measure = Measure::Close { code: 1008, reason: String::new() };
        Arc::new(Revocation { name: name(user), except: except.map(str::to_owned), measure })
    }

    #[test]
    fn handshakes_that_began_before_are_caught() {
        let mut marks = Marks::default();
        let own = [Rc::new(name("ann"))];
        marks.add(&mark("ann", None), 100, 100);
        marks.add(&mark("ann", Some("7")), 200, 200);
        marks.add(&mark("joe", None), 200, 200);
        let mut count = |id, began, now| {
            let found = marks.find(&own, id, began, now);
            (found.revocations.len(), found.is_too_old)
        };
        assert_eq!(count(1, 99, 300), (2, false));
        assert_eq!(count(1, 100, 300), (1, false), "it began after the first");
        assert_eq!(count(7, 99, 300), (1, false), "the exception");
        assert_eq!(count(1, 200, 300), (0, false));
        assert_eq!(count(1, 99, KEPT + 150), (1, true), "the first is forgotten");
        assert_eq!(count(1, 150, KEPT + 150), (1, false));
        assert_eq!(count(1, 150, KEPT + 201), (0, true));
        assert_eq!(count(1, 201, 2 * KEPT), (0, false));
        assert!(marks.by_name.is_empty() && marks.order.is_empty());
    }

    #[test]
    fn there_are_only_so_many() {
        let mut marks = Marks::default();
        for n in 0..MOST as u64 + 5 {
            marks.add(&mark(&n.to_string(), None), n, n);
        }
        assert_eq!((marks.order.len(), marks.by_name.len(), marks.forgotten), (MOST, MOST, 4));
    }
}
