//! What the sessions of one thread are called. A session without a name has no part in it.

use super::{Name, Opening, Revocation, Whom};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A session by its number, and when it began.
type Begun = (u64, u64);

#[derive(Default)]
pub(crate) struct Names {
    sessions: RefCell<HashMap<Rc<Name>, Vec<Begun>>>,
    /// Of sessions that have a prefix, or names.
    own: RefCell<HashMap<u64, OwnNames>>,
}

/// What one session is called.
struct OwnNames {
    prefix: Box<str>,
    names: Rc<[Rc<Name>]>,
}

impl Names {
    /// A session begins; `connection` is its Connection-Id.
    pub(crate) fn enter(
        &self,
        id: u64,
        opening: Opening,
        user: Option<&str>,
        connection: Option<&str>,
    ) -> Rc<[Rc<Name>]> {
        let Opening { began, prefix, member, .. } = opening;
        let user = user.map(|user| Whom::User(user.to_owned()));
        let connection = connection.map(|connection| Whom::Connection(connection.to_owned()));
        let all = [user, member.map(Whom::Member), connection].into_iter().flatten();
        let mut sessions = self.sessions.borrow_mut();
        let names: Rc<[Rc<Name>]> = all
            .map(|whom| {
                let name = Name { prefix: prefix.clone(), whom };
                // Those of one name share it.
                let name = sessions.get_key_value(&name).map_or_else(|| Rc::new(name), |(known, _)| known.clone());
                sessions.entry(name.clone()).or_default().push((id, began));
                name
            })
            .collect();
        if !prefix.is_empty() || !names.is_empty() {
            self.own.borrow_mut().insert(id, OwnNames { prefix: prefix.into(), names: names.clone() });
        }
        names
    }

    pub(crate) fn leave(&self, id: u64) {
        let Some(own) = self.own.borrow_mut().remove(&id) else { return };
        let mut sessions = self.sessions.borrow_mut();
        for name in &*own.names {
            if let Some(of_name) = sessions.get_mut(name) {
                of_name.retain(|(known, _)| *known != id);
                if of_name.is_empty() {
                    sessions.remove(name);
                }
            }
        }
    }

    /// The sessions that it is about, and that had begun then. `is_here` knows numbers.
    pub(crate) fn find(&self, revocation: &Revocation, before: u64, is_here: impl Fn(u64) -> bool) -> Vec<u64> {
        let Revocation { name, except, .. } = revocation;
        let except = except.as_deref().and_then(|except| self.connection(&name.prefix, except, &is_here));
        let sessions = self.sessions.borrow();
        let mut found: Vec<u64> = match (sessions.get(name), &name.whom) {
            (Some(of_name), _) => {
                of_name.iter().filter(|(_, began)| *began <= before).map(|(session, _)| *session).collect()
            }
            (None, Whom::Connection(text)) => self.connection(&name.prefix, text, &is_here).into_iter().collect(),
            (None, _) => Vec::new(),
        };
        found.retain(|session| Some(*session) != except);
        found
    }

    /// The session that is called so: by its Connection-Id, or by its number.
    fn connection(&self, prefix: &str, text: &str, is_here: impl Fn(u64) -> bool) -> Option<u64> {
        let name = Name { prefix: prefix.to_owned(), whom: Whom::Connection(text.to_owned()) };
        if let Some(known) = self.sessions.borrow().get(&name) {
            return known.first().map(|(session, _)| *session);
        }
        let number = number(text).filter(|number| is_here(*number))?;
        let own = self.own.borrow();
        (own.get(&number).map_or("", |own| &own.prefix) == prefix).then_some(number)
    }
}

/// A session's number as it is written: u64::from_str would take a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::Measure;
    use super::*;

    fn revocation(prefix: &str, whom: Whom, except: Option<&str>) -> Revocation {
        let measure = Measure::Close { code: 1008, reason: String::new() };
        Revocation { name: Name { prefix: prefix.into(), whom }, except: except.map(str::to_owned), measure }
    }

    #[test]
    fn sessions_are_found_by_each_of_their_names() {
        let names = Names::default();
        let opening = |began, prefix: &str, member: Option<&str>| Opening {
            began,
            prefix: prefix.into(),
            member: member.map(str::to_owned),
            ..Opening::default()
        };
        assert_eq!(names.enter(1, opening(10, "", Some("ann@desk")), Some("ann"), Some("abc")).len(), 3);
        names.enter(2, opening(20, "", None), Some("ann"), None);
        names.enter(3, opening(10, "site/", None), Some("ann"), None);
        names.enter(4, opening(10, "site/", None), None, None);
        names.enter(5, opening(10, "", None), None, None);
        assert_eq!(names.own.borrow().len(), 4, "one without anything takes no place");
        let find = |prefix, whom, except, before| {
            let mut found = names.find(&revocation(prefix, whom, except), before, |id| (1..=5).contains(&id));
            found.sort_unstable();
            found
        };
        let user = || Whom::User("ann".into());
        let connection = |text: &str| Whom::Connection(text.into());
        assert_eq!(find("", user(), None, 99), [1, 2]);
        assert_eq!(find("", user(), None, 19), [1], "the second began later");
        for except in ["1", "abc"] {
            assert_eq!(find("", user(), Some(except), 99), [2], "{except}");
        }
        assert_eq!(find("", user(), Some("3"), 99), [1, 2], "not of this prefix");
        assert_eq!(find("site/", user(), None, 99), [3]);
        assert_eq!(find("", Whom::Member("ann@desk".into()), None, 99), [1]);
        assert_eq!(find("", Whom::Member("ann".into()), None, 99), [0; 0]);
        assert_eq!(find("", connection("abc"), None, 99), [1]);
        assert_eq!(find("site/", connection("abc"), None, 99), [0; 0]);
        assert_eq!([find("", connection("5"), None, 99), find("site/", connection("4"), None, 99)], [[5], [4]]);
        for (prefix, text) in [("", "4"), ("site/", "5"), ("", "6"), ("", "+5"), ("", ""), ("", "x")] {
            assert_eq!(find(prefix, connection(text), None, 99), [0; 0], "{prefix} {text}");
        }
        (1..=5).for_each(|id| names.leave(id));
        assert!(names.sessions.borrow().is_empty() && names.own.borrow().is_empty());
    }
}
