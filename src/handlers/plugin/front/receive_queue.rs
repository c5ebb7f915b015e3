//! What the engine has sent and the plugin has not got yet.

use crate::handlers::framing::Splitter;
use crate::handlers::plugin::session::MessageKind;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

#[derive(Default)]
pub(super) struct ReceiveQueue {
    bytes: Vec<u8>,
    taken: usize,
    splitter: Splitter,
}

impl ReceiveQueue {
    /// The next message; `None` when no whole one is there.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the stream.
    pub(super) fn next(
        &mut self,
        link: Option<&UnixStream>,
        buffer: &mut [u8],
    ) -> io::Result<Option<(MessageKind, Vec<u8>)>> {
        let Some(mut link) = link else { return Ok(None) };
        loop {
            let mut bytes = &self.bytes[self.taken..];
            let message = self.splitter.next(&mut bytes, 1, usize::MAX)?;
            self.taken = self.bytes.len() - bytes.len();
            if let Some((kind, payload)) = message {
                return Ok(Some((MessageKind::from_byte(kind)?, payload)));
            }
            // An idle connection keeps no buffer.
            self.bytes = Vec::new();
            self.taken = 0;
            match link.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
