//! What a session holds of what its client has said, for `WebSocketMemory`: what waits for the application, and what is on its way
//! there.

use super::Running;
use crate::engine::memory::Share;
use log::info;

impl Running<'_> {
    pub(super) fn note_held(&mut self) {
        let held = self.outbox.held() + if self.asked.is_some() { self.asked_bytes } else { 0 };
        if held != self.held {
            self.held = held;
            self.conn.hold(held);
        }
    }

    /// It is over. What its application is still to be told is held beyond it, but for messages of a session that was closed because
    /// too much is held.
    pub(super) fn hold_beyond(&mut self) -> Option<Share> {
        if self.conn.is_short_of_memory() {
            let count = self.outbox.clear();
            if count > 0 {
                let id = self.conn.id();
                info!(
                    "WS0337: session {id}: {count} messages of its client were not told to the application: too little memory"
                );
            }
        }
        self.note_held();
        let held = (self.held > 0).then(|| self.conn.hold_beyond(self.held));
        self.conn.hold(0);
        held
    }
}
