//! Values that many sessions of a thread have alike: each is there once, as long as somebody has it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Deref;
use std::rc::Rc;
use std::thread::LocalKey;

/// The values of a type that a thread knows.
pub type Table<T> = RefCell<HashSet<Rc<T>>>;

/// What is worth it.
pub trait Intern: Eq + Hash + Sized + 'static {
    /// The thread's.
    fn table() -> &'static LocalKey<Table<Self>>;
}

/// A value that others may have, too.
#[derive(Debug)]
pub struct Interned<T: Intern>(Rc<T>);

impl<T: Intern> Interned<T> {
    /// The one that is equal, if there is one.
    pub fn new(value: T) -> Interned<T> {
        T::table().with_borrow_mut(|known| {
            if let Some(known) = known.get(&value) {
                return Interned(known.clone());
            }
            let value = Rc::new(value);
            known.insert(value.clone());
            Interned(value)
        })
    }

    /// Changes it for who has this one, and for nobody else.
    pub fn change(&mut self, change: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        let mut value = T::clone(&self.0);
        change(&mut value);
        *self = Interned::new(value);
    }
}

impl<T: Intern> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Intern> Drop for Interned<T> {
    fn drop(&mut self) {
        // This one, and that in the table. Where the thread ends, the table may have gone before.
        if Rc::strong_count(&self.0) == 2 {
            let _ = T::table().try_with(|known| known.borrow_mut().remove(&self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static TEXTS: Table<String> = RefCell::default();
    }

    impl Intern for String {
        fn table() -> &'static LocalKey<Table<String>> {
            &TEXTS
        }
    }

    #[test]
    fn each_value_is_there_once_and_goes_with_its_last_owner() {
        let known = || TEXTS.with_borrow(|known| known.len());
        let (first, mut second) = (Interned::new(String::from("a")), Interned::new(String::from("a")));
        assert!(Rc::ptr_eq(&first.0, &second.0));
        assert_eq!(known(), 1);
        second.change(|text| text.push('b'));
        assert_eq!((first.as_str(), second.as_str(), known()), ("a", "ab", 2));
        drop(first);
        assert_eq!(known(), 1);
        drop(second);
        assert_eq!(known(), 0);
    }
}
