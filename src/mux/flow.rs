//! The bytes of one stream at one end of a trunk, and how many of them may be under way.

use super::frame::Bad;

/// Bytes of a stream that may be under way in each direction: sent, and not yet taken by those they are for.
pub const WINDOW: u32 = 128 * 1024;
/// So many bytes were taken before the other side is told: it has room all the while.
const TOLD: u32 = WINDOW / 4;

/// Empty inboxes, for the next who needs one.
#[derive(Debug, Default)]
pub struct Spare {
    inboxes: Vec<Vec<u8>>,
    /// What they take together.
    bytes: usize,
}

impl Spare {
    /// So many are kept.
    const INBOXES: usize = 32;
    /// And of so many bytes together.
    const BYTES: usize = 8 * WINDOW as usize;

    fn take(&mut self) -> Vec<u8> {
        let inbox = self.inboxes.pop().unwrap_or_default();
        self.bytes -= inbox.capacity();
        inbox
    }

    fn put_back(&mut self, mut inbox: Vec<u8>) {
        // One that had to grow over what waits is twice as long.
        let bytes = (1..=WINDOW as usize).contains(&inbox.capacity()).then(|| self.bytes + inbox.capacity());
        if let Some(bytes) = bytes.filter(|bytes| *bytes <= Self::BYTES && self.inboxes.len() < Self::INBOXES) {
            inbox.clear();
            self.inboxes.push(inbox);
            self.bytes = bytes;
        }
    }
}

/// What the other side still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Far {
    /// It sends and takes.
    #[default]
    Open,
    /// It takes.
    Ended,
    /// Neither.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub struct Flow {
    /// What has come, from `taken` on.
    inbox: Vec<u8>,
    taken: usize,
    /// Bytes that were taken, and of which the other side was not told.
    untold: u32,
    credit: u32,
    far: Far,
}

impl Default for Flow {
    fn default() -> Self {
        Flow { inbox: Vec::new(), taken: 0, untold: 0, credit: WINDOW, far: Far::Open }
    }
}

impl Flow {
    /// What the other side still does.
    pub fn far(&self) -> Far {
        self.far
    }

    /// Bytes that may be sent.
    pub fn credit(&self) -> usize {
        self.credit as usize
    }

    /// So many were sent, of those that might be.
    pub fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u32);
    }

    /// So many more may be sent.
    ///
    /// # Errors
    /// So many were never sent.
    pub fn grant(&mut self, stream: u64, bytes: u32) -> Result<(), Bad> {
        let credit = self.credit.checked_add(bytes).filter(|credit| *credit <= WINDOW);
        self.credit = credit.ok_or(Bad::Credit(stream))?;
        Ok(())
    }

    /// What has come and was not taken.
    pub fn waiting(&self) -> &[u8] {
        &self.inbox[self.taken..]
    }

    /// Something has come. `spare` is where an empty inbox takes its memory from.
    ///
    /// # Errors
    /// It should not have.
    pub fn receive(&mut self, stream: u64, bytes: &[u8], spare: &mut Spare) -> Result<(), Bad> {
        if self.far != Far::Open {
            return Err(Bad::Ended(stream));
        }
        if self.waiting().len() + bytes.len() > (WINDOW - self.untold) as usize {
            return Err(Bad::Flooded(stream));
        }
        if self.inbox.capacity() == 0 {
            self.inbox = spare.take();
        }
        // Not each time: what waits may be much.
        if self.taken > self.waiting().len() {
            self.inbox.drain(..self.taken);
            self.taken = 0;
        }
        self.inbox.extend_from_slice(bytes);
        Ok(())
    }

    /// So many bytes were taken, of those that waited. Returns what the other side is to be told, if it is.
    pub fn take(&mut self, bytes: usize, spare: &mut Spare) -> Option<u32> {
        self.taken = (self.taken + bytes).min(self.inbox.len());
        if self.taken == self.inbox.len() {
            self.forget(spare);
        }
        self.untold += bytes as u32;
        if self.untold < TOLD || self.far != Far::Open {
            return None;
        }
        Some(std::mem::take(&mut self.untold))
    }

    /// What waits is of use to nobody.
    pub fn forget(&mut self, spare: &mut Spare) {
        self.taken = 0;
        spare.put_back(std::mem::take(&mut self.inbox));
    }

    /// The other side has no more, or does nothing more at all.
    ///
    /// # Errors
    /// It has said so before.
    pub fn end(&mut self, stream: u64, far: Far) -> Result<(), Bad> {
        if self.far == far || self.far == Far::Gone {
            return Err(Bad::Ended(stream));
        }
        self.far = far;
        Ok(())
    }

    /// There is no other side any more, nor a way to it.
    pub fn cut(&mut self) {
        self.far = Far::Gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_in_than_was_let() {
        let (mut flow, mut spare) = (Flow::default(), Spare::default());
        flow.receive(1, &vec![1; WINDOW as usize - 1], &mut spare).unwrap();
        flow.receive(1, &[2], &mut spare).unwrap();
        assert_eq!(flow.receive(1, &[3], &mut spare), Err(Bad::Flooded(1)));
        // What was taken and not told of is no room.
        assert_eq!(flow.take(TOLD as usize - 1, &mut spare), None);
        assert_eq!(flow.receive(1, &[3], &mut spare), Err(Bad::Flooded(1)));
        assert_eq!(flow.take(1, &mut spare), Some(TOLD));
        flow.receive(1, &vec![3; TOLD as usize], &mut spare).unwrap();
        assert_eq!(flow.receive(1, &[3], &mut spare), Err(Bad::Flooded(1)));
        assert_eq!(flow.waiting().len(), WINDOW as usize);
        assert_eq!(flow.waiting()[..2], [1, 1]);
        assert_eq!(flow.waiting()[WINDOW as usize - TOLD as usize - 1..][..2], [2, 3]);
        assert_eq!(flow.take(WINDOW as usize, &mut spare), Some(WINDOW));
        assert_eq!((flow.inbox.capacity(), spare.inboxes.len()), (0, 0), "nobody keeps as much");
        flow.receive(1, b"short", &mut spare).unwrap();
        flow.take(5, &mut spare);
        assert_eq!((flow.inbox.capacity(), spare.inboxes.len()), (0, 1), "an idle stream keeps nothing");
    }

    #[test]
    fn so_much_is_kept_and_no_more() {
        let mut spare = Spare::default();
        for size in [1, 100, WINDOW as usize] {
            (0..2 * Spare::INBOXES).for_each(|_| spare.put_back(Vec::with_capacity(size)));
            let expected = Spare::INBOXES.min(Spare::BYTES / size);
            assert_eq!((spare.inboxes.len(), spare.bytes), (expected, expected * size));
            (0..expected).for_each(|_| assert_eq!(spare.take().capacity(), size));
            assert_eq!((spare.take().capacity(), spare.bytes), (0, 0));
        }
    }

    #[test]
    fn credit_comes_back_and_is_not_made_up() {
        let mut flow = Flow::default();
        assert_eq!(flow.grant(1, 1), Err(Bad::Credit(1)));
        flow.spend(WINDOW as usize);
        assert_eq!(flow.credit(), 0);
        flow.grant(1, WINDOW - 1).unwrap();
        assert_eq!(flow.grant(1, 2), Err(Bad::Credit(1)));
        assert_eq!(flow.grant(1, u32::MAX), Err(Bad::Credit(1)));
        flow.grant(1, 1).unwrap();
    }

    #[test]
    fn an_end_is_an_end() {
        let (mut flow, mut spare) = (Flow::default(), Spare::default());
        flow.receive(1, b"last", &mut spare).unwrap();
        flow.end(1, Far::Ended).unwrap();
        assert_eq!(flow.receive(1, b"more", &mut spare), Err(Bad::Ended(1)));
        assert_eq!(flow.end(1, Far::Ended), Err(Bad::Ended(1)));
        assert_eq!(flow.waiting(), b"last");
        flow.end(1, Far::Gone).unwrap();
        assert_eq!(flow.end(1, Far::Ended), Err(Bad::Ended(1)));
        assert_eq!(flow.end(1, Far::Gone), Err(Bad::Ended(1)));
        assert_eq!(flow.waiting(), b"last");
    }
}
