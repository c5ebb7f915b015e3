//! The bytes of one stream at one end of a mux, and how many of them may be under way.

use super::frame::ProtocolError;

/// Bytes of a stream that may be under way in each direction: sent, and not yet taken by those they are for.
pub const WINDOW: u32 = 128 * 1024;
/// So many bytes were taken before the other side is told: it has room all the while.
const UPDATE_AFTER: u32 = WINDOW / 4;

/// Empty inboxes, for the next who needs one.
#[derive(Debug, Default)]
pub(crate) struct SpareBuffers {
    inboxes: Vec<Vec<u8>>,
    bytes: usize,
}

impl SpareBuffers {
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
pub(crate) enum Remote {
    #[default]
    Open,
    /// It takes.
    HalfClosed,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Flow {
    /// What has come, from `taken` on.
    inbox: Vec<u8>,
    taken: usize,
    /// Bytes that were taken, and of which the other side was not told.
    untold: u32,
    send_window: u32,
    remote: Remote,
}

impl Default for Flow {
    fn default() -> Self {
        Flow { inbox: Vec::new(), taken: 0, untold: 0, send_window: WINDOW, remote: Remote::Open }
    }
}

impl Flow {
    /// What the other side still does.
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// Bytes that may be sent.
    pub fn send_window(&self) -> usize {
        self.send_window as usize
    }

    /// So many were sent, of those that might be.
    pub fn note_sent(&mut self, bytes: usize) {
        self.send_window = self.send_window.saturating_sub(bytes as u32);
    }

    /// So many more may be sent.
    ///
    /// # Errors
    /// So many were never sent.
    pub fn widen(&mut self, stream: u64, bytes: u32) -> Result<(), ProtocolError> {
        let window = self.send_window.checked_add(bytes).filter(|window| *window <= WINDOW);
        self.send_window = window.ok_or(ProtocolError::WindowOverflow(stream))?;
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
    pub fn receive(&mut self, stream: u64, bytes: &[u8], spare: &mut SpareBuffers) -> Result<(), ProtocolError> {
        if self.remote != Remote::Open {
            return Err(ProtocolError::StreamEnded(stream));
        }
        if self.waiting().len() + bytes.len() > (WINDOW - self.untold) as usize {
            return Err(ProtocolError::WindowExceeded(stream));
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
    pub fn take(&mut self, bytes: usize, spare: &mut SpareBuffers) -> Option<u32> {
        self.taken = (self.taken + bytes).min(self.inbox.len());
        if self.taken == self.inbox.len() {
            self.discard(spare);
        }
        self.untold += bytes as u32;
        if self.untold < UPDATE_AFTER || self.remote != Remote::Open {
            return None;
        }
        Some(std::mem::take(&mut self.untold))
    }

    /// What waits is of use to nobody.
    pub fn discard(&mut self, spare: &mut SpareBuffers) {
        self.taken = 0;
        spare.put_back(std::mem::take(&mut self.inbox));
    }

    /// The other side has no more, or does nothing more at all.
    ///
    /// # Errors
    /// It has said so before.
    pub fn remote_ends(&mut self, stream: u64, remote: Remote) -> Result<(), ProtocolError> {
        if self.remote == remote || self.remote == Remote::Closed {
            return Err(ProtocolError::StreamEnded(stream));
        }
        self.remote = remote;
        Ok(())
    }

    /// There is no other side any more, nor a way to it.
    pub fn close(&mut self) {
        self.remote = Remote::Closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_in_than_was_let() {
        let (mut flow, mut spare) = (Flow::default(), SpareBuffers::default());
        flow.receive(1, &vec![1; WINDOW as usize - 1], &mut spare).unwrap();
        flow.receive(1, &[2], &mut spare).unwrap();
        assert_eq!(flow.receive(1, &[3], &mut spare), Err(ProtocolError::WindowExceeded(1)));
        // What was taken and not told of is no room.
        assert_eq!(flow.take(UPDATE_AFTER as usize - 1, &mut spare), None);
        assert_eq!(flow.receive(1, &[3], &mut spare), Err(ProtocolError::WindowExceeded(1)));
        assert_eq!(flow.take(1, &mut spare), Some(UPDATE_AFTER));
        flow.receive(1, &vec![3; UPDATE_AFTER as usize], &mut spare).unwrap();
        assert_eq!(flow.receive(1, &[3], &mut spare), Err(ProtocolError::WindowExceeded(1)));
        assert_eq!(flow.waiting().len(), WINDOW as usize);
        assert_eq!(flow.waiting()[..2], [1, 1]);
        assert_eq!(flow.waiting()[WINDOW as usize - UPDATE_AFTER as usize - 1..][..2], [2, 3]);
        assert_eq!(flow.take(WINDOW as usize, &mut spare), Some(WINDOW));
        assert_eq!((flow.inbox.capacity(), spare.inboxes.len()), (0, 0), "nobody keeps as much");
        flow.receive(1, b"short", &mut spare).unwrap();
        flow.take(5, &mut spare);
        assert_eq!((flow.inbox.capacity(), spare.inboxes.len()), (0, 1), "an idle stream keeps nothing");
    }

    #[test]
    fn so_much_is_kept_and_no_more() {
        let mut spare = SpareBuffers::default();
        for size in [1, 100, WINDOW as usize] {
            (0..2 * SpareBuffers::INBOXES).for_each(|_| spare.put_back(Vec::with_capacity(size)));
            let expected = SpareBuffers::INBOXES.min(SpareBuffers::BYTES / size);
            assert_eq!((spare.inboxes.len(), spare.bytes), (expected, expected * size));
            (0..expected).for_each(|_| assert_eq!(spare.take().capacity(), size));
            assert_eq!((spare.take().capacity(), spare.bytes), (0, 0));
        }
    }

    #[test]
    fn credit_comes_back_and_is_not_made_up() {
        let mut flow = Flow::default();
        assert_eq!(flow.widen(1, 1), Err(ProtocolError::WindowOverflow(1)));
        flow.note_sent(WINDOW as usize);
        assert_eq!(flow.send_window(), 0);
        flow.widen(1, WINDOW - 1).unwrap();
        assert_eq!(flow.widen(1, 2), Err(ProtocolError::WindowOverflow(1)));
        assert_eq!(flow.widen(1, u32::MAX), Err(ProtocolError::WindowOverflow(1)));
        flow.widen(1, 1).unwrap();
    }

    #[test]
    fn an_end_is_an_end() {
        let (mut flow, mut spare) = (Flow::default(), SpareBuffers::default());
        flow.receive(1, b"last", &mut spare).unwrap();
        flow.remote_ends(1, Remote::HalfClosed).unwrap();
        assert_eq!(flow.receive(1, b"more", &mut spare), Err(ProtocolError::StreamEnded(1)));
        assert_eq!(flow.remote_ends(1, Remote::HalfClosed), Err(ProtocolError::StreamEnded(1)));
        assert_eq!(flow.waiting(), b"last");
        flow.remote_ends(1, Remote::Closed).unwrap();
        assert_eq!(flow.remote_ends(1, Remote::HalfClosed), Err(ProtocolError::StreamEnded(1)));
        assert_eq!(flow.remote_ends(1, Remote::Closed), Err(ProtocolError::StreamEnded(1)));
        assert_eq!(flow.waiting(), b"last");
    }
}
