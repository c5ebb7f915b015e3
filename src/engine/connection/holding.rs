//! What the handler of a connection has of what its client has said, for `WebSocketMemory`.

use super::Conn;
use crate::engine::memory::{Demand, Share, SharedBytes};

impl Conn {
    /// So many bytes of what the client has said are with the handler, which has not got rid of them yet: for `WebSocketMemory`.
    pub fn hold(&mut self, bytes: usize) {
        if bytes > 0 || self.keep.is_some() {
            self.keep().handled = bytes;
            self.settle();
        }
    }

    /// It ends because too much is held: what it holds is in the way of others.
    pub fn is_short_of_memory(&self) -> bool {
        self.demand() >= Demand::Close
    }

    /// As many bytes that outlive the session, until dropped.
    pub fn hold_beyond(&self, bytes: usize) -> Share {
        SharedBytes::new(self.registered.shared.memory(), bytes).wait()
    }
}
