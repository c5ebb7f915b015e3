//! How sections are merged: each directive for itself.

use crate::apache::directive::DirectivePlace;
use std::any::Any;
use std::borrow::Cow;

pub trait Merge: Clone + Default + 'static {
    /// This, an inner section's, over an outer one's.
    fn over(&self, outer: &Self) -> Self;
}

/// `None` says nothing.
impl<T: Clone + 'static> Merge for Option<T> {
    fn over(&self, outer: &Option<T>) -> Option<T> {
        self.clone().or_else(|| outer.clone())
    }
}

/// Where a directive stands is of interest while it is read.
impl Merge for DirectivePlace {
    fn over(&self, _outer: &DirectivePlace) -> DirectivePlace {
        DirectivePlace::default()
    }
}

/// A structure that is merged field by field.
macro_rules! merged {
    ($(#[$about:meta])* $vis:vis struct $name:ident { $($(#[$doc:meta])* $field_vis:vis $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Default)]
        $vis struct $name { $($(#[$doc])* $field_vis $field: $type,)* }

        impl $crate::front::config::Merge for $name {
            fn over(&self, outer: &$name) -> $name {
                $name { $($field: $crate::front::config::Merge::over(&self.$field, &outer.$field),)* }
            }
        }
    };
}
pub(crate) use merged;

/// What a section says to handlers, to each by a type of its own.
#[derive(Default)]
pub(crate) struct Parts(Vec<Box<dyn Part>>);

trait Part: Any {
    fn boxed(&self) -> Box<dyn Part>;

    fn boxed_over(&self, outer: &Parts) -> Box<dyn Part>;
}

impl<T: Merge> Part for T {
    fn boxed(&self) -> Box<dyn Part> {
        Box::new(self.clone())
    }

    fn boxed_over(&self, outer: &Parts) -> Box<dyn Part> {
        Box::new(self.over(&outer.of()))
    }
}

impl Parts {
    /// The part of this type; where nothing is said, its default.
    pub(crate) fn of<T: Merge>(&self) -> Cow<'_, T> {
        let found = self.0.iter().find_map(|part| (&**part as &dyn Any).downcast_ref());
        found.map_or_else(|| Cow::Owned(T::default()), Cow::Borrowed)
    }

    /// Says something in the part of this type.
    pub(crate) fn change<T: Merge>(&mut self, change: impl FnOnce(&mut T)) {
        if let Some(part) = self.0.iter_mut().find_map(|part| (&mut **part as &mut dyn Any).downcast_mut()) {
            return change(part);
        }
        let mut part = T::default();
        change(&mut part);
        self.0.push(Box::new(part));
    }
}

impl Clone for Parts {
    fn clone(&self) -> Parts {
        Parts(self.0.iter().map(|part| part.boxed()).collect())
    }
}

impl Merge for Parts {
    fn over(&self, outer: &Parts) -> Parts {
        let is_ours = |other: &dyn Part| self.0.iter().any(|part| (**part).type_id() == other.type_id());
        let ours = self.0.iter().map(|part| part.boxed_over(outer));
        Parts(ours.chain(outer.0.iter().filter(|part| !is_ours(&***part)).map(|part| part.boxed())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    merged! {
        struct Pair { one: Option<u8>, other: Option<u8>, }
    }

    merged! {
        struct Single { only: Option<u8>, }
    }

    #[test]
    fn each_part_is_merged_field_by_field() {
        let (mut outer, mut inner) = (Parts::default(), Parts::default());
        outer.change(|pair: &mut Pair| (pair.one, pair.other) = (Some(1), Some(2)));
        outer.change(|single: &mut Single| single.only = Some(3));
        inner.change(|pair: &mut Pair| pair.one = Some(4));
        inner.change(|pair: &mut Pair| pair.one = Some(5));
        for merged in
            [inner.over(&outer), inner.over(&outer).over(&Parts::default()), Parts::default().over(&inner.over(&outer))]
        {
            let pair = merged.of::<Pair>();
            assert_eq!((pair.one, pair.other, merged.of::<Single>().only), (Some(5), Some(2), Some(3)));
        }
        assert_eq!(Parts::default().of::<Pair>().one, None);
    }
}
