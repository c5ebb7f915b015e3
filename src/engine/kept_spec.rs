//! What is kept of a [`SessionSpec`] while its session is open. What the sessions of a location have alike, which is most of it, is
//! there once a thread, as long as one of them is.

use super::interned::{Intern, Interned, Table};
use super::spec::{HandlerSpec, Limits, LogSpec, SessionSpec};
use std::cell::RefCell;
use std::ops::Deref;
use std::thread::LocalKey;

/// What the sessions of a location have alike.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LocationSpec {
    /// See [`SessionSpec::handler`].
    pub handler: HandlerSpec,
    /// See [`SessionSpec::protocol`].
    pub protocol: Option<String>,
    /// See [`SessionSpec::limits`].
    pub limits: Limits,
    /// See [`SessionSpec::log`].
    pub log: Option<Box<LogSpec>>,
}

thread_local! {
    static LOCATIONS: Table<LocationSpec> = RefCell::default();
}

impl Intern for LocationSpec {
    fn table() -> &'static LocalKey<Table<LocationSpec>> {
        &LOCATIONS
    }
}

/// In the place of the length of a user's name.
const NOBODY: u32 = u32::MAX;

/// What is known of an open session.
#[derive(Debug)]
pub struct KeptSpec {
    location: Interned<LocationSpec>,
    /// The client, the user and the URI, one behind the other: each allocation costs more than a short text.
    texts: Box<str>,
    client: u32,
    /// [`NOBODY`]: there is none.
    user: u32,
}

impl KeptSpec {
    /// Of a session that begins.
    pub fn new(spec: SessionSpec) -> KeptSpec {
        let SessionSpec { handler, protocol, limits, log, client, user, uri, .. } = spec;
        // Nobody else asks for it.
        let uri = if log.is_some() { uri } else { String::new() };
        let location = Interned::new(LocationSpec { handler, protocol, limits, log });
        let texts = [&client, user.as_deref().unwrap_or_default(), &uri].concat().into();
        let length = |text: &String| text.len() as u32;
        KeptSpec { location, texts, client: length(&client), user: user.as_ref().map_or(NOBODY, length) }
    }

    /// See [`SessionSpec::client`].
    pub fn client(&self) -> &str {
        &self.texts[..self.client as usize]
    }

    /// See [`SessionSpec::user`].
    pub fn user(&self) -> Option<&str> {
        let begin = self.client as usize;
        (self.user != NOBODY).then(|| &self.texts[begin..begin + self.user as usize])
    }

    /// See [`SessionSpec::uri`]. Empty where there is no session log.
    pub fn uri(&self) -> &str {
        &self.texts[self.client as usize + self.user().map_or(0, str::len)..]
    }
}

impl Deref for KeptSpec {
    type Target = LocationSpec;

    fn deref(&self) -> &LocationSpec {
        &self.location
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::spec;

    fn logged() -> SessionSpec {
        let log = LogSpec { query: true, name: "log".into(), host: "host".into() };
        SessionSpec { log: Some(Box::new(log)), uri: "/uri?query".into(), ..spec("echo") }
    }

    #[test]
    fn what_is_kept_is_what_was_given() {
        for user in [None, Some(""), Some("änn")] {
            let given = SessionSpec { user: user.map(str::to_owned), client: "::1".into(), ..logged() };
            let kept = KeptSpec::new(given.clone());
            assert_eq!((kept.client(), kept.user(), kept.uri()), ("::1", user, "/uri?query"));
            assert_eq!((&kept.handler, &kept.protocol, &kept.limits), (&given.handler, &given.protocol, &given.limits));
            assert_eq!(kept.log, given.log);
        }
        assert_eq!(KeptSpec::new(SessionSpec { log: None, ..logged() }).uri(), "");
    }

    #[test]
    fn sessions_of_a_location_share_what_they_have_alike() {
        let known = || LOCATIONS.with_borrow(|known| known.len());
        let first = KeptSpec::new(logged());
        let second = KeptSpec::new(SessionSpec { client: "::2".into(), uri: "/other".into(), ..logged() });
        assert_eq!(known(), 1);
        let other = KeptSpec::new(SessionSpec { protocol: Some("chat".into()), ..logged() });
        assert_eq!(known(), 2);
        drop(first);
        assert_eq!((known(), second.client()), (2, "::2"));
        drop((second, other));
        assert_eq!(known(), 0, "with its last session goes what they shared");
    }
}
