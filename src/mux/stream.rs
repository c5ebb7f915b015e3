//! One stream at one end: its bytes, what this side does with it, and what becomes of it.

use super::flow::{Flow, SpareBuffers};
use super::frame::ProtocolError;

#[derive(Debug, Default)]
pub(super) struct Stream<T> {
    pub(super) flow: Flow,
    pub(super) local: Local,
    pub(super) keep: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Local {
    /// Nothing yet: its session is on its way here.
    #[default]
    Awaited,
    Open,
    /// It is closed, and waits for the other side to say the same.
    Closed,
}

/// What has become of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent {
    /// There is something to take.
    Data,
    /// More may be sent.
    Writable,
    /// The other side has no more.
    Ended,
    /// The other side is gone.
    Reset,
}

/// What there is to take of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// These bytes, at least one.
    Bytes(&'a [u8]),
    /// Nothing yet.
    Nothing,
    /// Nothing, and no more will come.
    End,
}

impl<T> Stream<T> {
    pub(super) fn receive(
        &mut self,
        number: u64,
        bytes: &[u8],
        spare: &mut SpareBuffers,
        tell: &mut impl FnMut(&mut T, StreamEvent),
    ) -> Result<(), ProtocolError> {
        // It was under way when this side went.
        if self.local == Local::Closed {
            return Ok(());
        }
        self.flow.receive(number, bytes, spare)?;
        self.tell(StreamEvent::Data, tell);
        Ok(())
    }

    pub(super) fn tell(&mut self, news: StreamEvent, tell: &mut impl FnMut(&mut T, StreamEvent)) {
        if self.local == Local::Open {
            tell(&mut self.keep, news);
        }
    }
}
