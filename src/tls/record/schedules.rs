//! The key schedules that a thread has used lately. One is some 550 bytes and made in a fraction of a microsecond: what is idle
//! has none, and what is busy finds its own where it was.

use ring::aead::LessSafeKey;
use ring::error::Unspecified;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Schedules that a thread keeps, at most.
const KEPT: usize = 512;

/// Where the schedule of a key is, if it is still there.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// No other has it, whichever thread it is on; 0: it was never there.
    number: u64,
    slot: u16,
}

struct Slot {
    /// Of the [`Place`]; 0: nothing is here.
    number: u64,
    schedule: Option<LessSafeKey>,
    /// It was used since the hand came by.
    is_used: bool,
}

/// The clock algorithm: the hand goes round, and takes what was not used since it came by.
#[derive(Default)]
struct Schedules {
    slots: Vec<Slot>,
    hand: usize,
}

thread_local! {
    static SCHEDULES: RefCell<Schedules> = RefCell::default();
}

/// Lends the schedule of a key, which `make` makes where it is not there any more.
///
/// # Errors
/// What `make` or `step` says.
pub(super) fn with<T>(
    place: &mut Place,
    make: impl FnOnce() -> Result<LessSafeKey, Unspecified>,
    step: impl FnOnce(&LessSafeKey) -> Result<T, Unspecified>,
) -> Result<T, Unspecified> {
    SCHEDULES.with_borrow_mut(|schedules| {
        if let Some(Slot { number, schedule: Some(schedule), is_used }) =
            schedules.slots.get_mut(usize::from(place.slot))
            && *number == place.number
        {
            *is_used = true;
            return step(schedule);
        }
        let schedule = make()?;
        step(schedules.put(place, schedule))
    })
}

/// The key is used no more.
pub(super) fn forget(place: &mut Place) {
    // Where the thread ends, its schedules have gone before.
    let _ = SCHEDULES.try_with(|schedules| {
        let mut schedules = schedules.borrow_mut();
        if let Some(slot) = schedules.slots.get_mut(usize::from(place.slot)).filter(|slot| slot.number == place.number)
        {
            *slot = Slot { number: 0, schedule: None, is_used: false };
        }
    });
    *place = Place::default();
}

impl Schedules {
    fn put(&mut self, place: &mut Place, schedule: LessSafeKey) -> &LessSafeKey {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let new = Slot { number: NUMBERS.fetch_add(1, Ordering::Relaxed), schedule: None, is_used: true };
        let slot = self.free();
        *place = Place { number: new.number, slot: slot as u16 };
        if slot == self.slots.len() {
            self.slots.push(new);
        } else {
            self.slots[slot] = new;
        }
        self.slots[slot].schedule.insert(schedule)
    }

    /// The place for another: the next after the last.
    fn free(&mut self) -> usize {
        if self.slots.len() < KEPT {
            return self.slots.len();
        }
        loop {
            let here = self.hand;
            self.hand = (here + 1) % KEPT;
            if !std::mem::take(&mut self.slots[here].is_used) {
                return here;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};

    fn schedule(number: usize) -> Result<LessSafeKey, Unspecified> {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new)
    }

    fn tag(key: &LessSafeKey) -> Result<[u8; MAX_TAG_LEN], Unspecified> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut [])?;
        Ok(tag.as_ref().try_into().unwrap())
    }

    #[test]
    fn each_key_has_its_own_schedule_however_many_there_are() {
        let mut places: Vec<Place> = (0..2 * KEPT + 7).map(|_| Place::default()).collect();
        let expected: Vec<_> = (0..places.len()).map(|number| tag(&schedule(number).unwrap()).unwrap()).collect();
        for step in [1, 2, 3] {
            for number in (0..places.len()).step_by(step) {
                let made = with(&mut places[number], || schedule(number), tag).unwrap();
                assert_eq!(made, expected[number], "{number}");
            }
        }
        assert_eq!(SCHEDULES.with_borrow(|schedules| schedules.slots.len()), KEPT);
        places.iter_mut().for_each(forget);
        let left = SCHEDULES.with_borrow(|schedules| schedules.slots.iter().any(|slot| slot.schedule.is_some()));
        assert!(!left, "who has gone leaves none");
    }

    #[test]
    fn what_is_busy_keeps_its_schedule() {
        let (mut busy, mut made) = (Place::default(), 0);
        let mut others: Vec<Place> = (0..4 * KEPT).map(|_| Place::default()).collect();
        for (number, other) in others.iter_mut().enumerate() {
            with(other, || schedule(number), tag).unwrap();
            let make = || {
                made += 1;
                schedule(0)
            };
            with(&mut busy, make, tag).unwrap();
        }
        assert_eq!(made, 1);
    }
}
