//! Places of which there are only so many: sessions of a site, or of one client.

use super::spec::Quota;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many places of each scope are taken. A scope without any takes no memory.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HashMap<Arc<str>, u32>>);

/// A place that is taken, until dropped; on whichever thread.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Counts>,
    /// As all who have a place of it share it.
    scope: Arc<str>,
}

impl Place {
    pub fn scope(&self) -> &str {
        &self.scope
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place of each scope, or none of any.
    ///
    /// # Errors
    /// The first quota that is used up.
    pub fn take(self: &Arc<Self>, quotas: Vec<Quota>) -> Result<Vec<Place>, Quota> {
        // Where one is used up, the places taken before it are given back by being dropped.
        quotas.into_iter().map(|quota| self.take_one(quota)).collect()
    }

    /// How many places of this scope are taken.
    pub fn taken(&self, scope: &str) -> u32 {
        self.lock().get(scope).copied().unwrap_or(0)
    }

    fn take_one(self: &Arc<Self>, quota: Quota) -> Result<Place, Quota> {
        let mut counts = self.lock();
        let (scope, taken) = match counts.get_key_value(&*quota.scope) {
            Some((scope, taken)) => (scope.clone(), *taken),
            None => (Arc::from(&*quota.scope), 0),
        };
        if taken >= quota.max {
            return Err(quota);
        }
        counts.insert(scope.clone(), taken + 1);
        Ok(Place { counts: self.clone(), scope })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.scope) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.scope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(scope: &str, max: u32) -> Quota {
        Quota { scope: scope.into(), max }
    }

    #[test]
    fn places_come_back() {
        let counts = Arc::new(Counts::default());
        let first = counts.take(vec![quota("site", 2), quota("client", 1)]).unwrap();
        // The place of the site that the refused one had for a moment is free again.
        assert_eq!(counts.take(vec![quota("site", 2), quota("client", 1)]).unwrap_err(), quota("client", 1));
        let second = counts.take(vec![quota("site", 2), quota("another", 1)]).unwrap();
        assert_eq!(counts.take(vec![quota("site", 2)]).unwrap_err(), quota("site", 2));
        // A limit that has changed counts those who came under the old one.
        let third = counts.take(vec![quota("site", 3)]).unwrap();
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert_eq!((counts.taken("client"), counts.taken("site")), (0, 2));
        assert_eq!(counts.lock().get("client"), None);
        drop((second, third));
        assert!(counts.lock().is_empty());
        assert!(counts.take(vec![quota("site", 0)]).is_err());
    }
}
