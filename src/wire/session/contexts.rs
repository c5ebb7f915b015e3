//! What the sessions of a thread share.

use crate::wire::deflate::DeflatePool;
use crate::wire::frame::MAX_CONTROL;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

/// Protocol contexts in between two uses, and what compression needs, shared by the sessions of a thread.
#[derive(Default)]
pub struct Contexts {
    // Boxed, so that lending one moves a pointer and not some hundred bytes.
    #[allow(clippy::vec_box)]
    pub(super) spare: Vec<Box<WebSocketContext>>,
    pub(super) deflate: DeflatePool,
}

impl Contexts {
    /// Bytes that a context takes in at once. It zeroes this much before each read, so larger is not faster.
    pub(super) const READ_BUFFER: usize = 4096;
    /// How many are kept: as many sessions as are in the middle of a message at a time, usually.
    const KEPT: usize = 32;
    /// A context that has seen a payload this large (bytes) holds a buffer of that size, and is not kept.
    pub(super) const LARGE: u64 = 16 * 1024;

    pub(super) fn take(&mut self, max_message_size: usize) -> Box<WebSocketContext> {
        let limit = |config: &mut WebSocketConfig| {
            config.max_message_size = Some(max_message_size);
            // Control frames are messages of their own kind (RFC 6455 section 5.5); data frames the scanner checks.
            config.max_frame_size = Some(max_message_size.max(MAX_CONTROL));
        };
        match self.spare.pop() {
            Some(mut context) => {
                context.set_config(limit);
                context
            }
            None => {
                let mut config = WebSocketConfig::default().read_buffer_size(Self::READ_BUFFER).write_buffer_size(0);
                limit(&mut config);
                Box::new(WebSocketContext::new(Role::Server, Some(config)))
            }
        }
    }

    pub(super) fn put_back(&mut self, context: Box<WebSocketContext>) {
        if self.spare.len() < Self::KEPT {
            self.spare.push(context);
        }
    }
}
