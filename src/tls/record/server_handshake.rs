//! What a server may say after the handshake that is not for the application (RFC 8446 section 4.6).

use super::{Alert, KEY_UPDATE};

const NEW_SESSION_TICKET: u8 = 4;

/// They may be several in a record, and one go on in the next.
#[derive(Debug, Default)]
pub(super) struct ServerHandshake {
    header: [u8; 4],
    count: u8,
    /// Bytes of a NewSessionTicket that are still to come.
    ticket: u32,
}

impl ServerHandshake {
    pub(super) fn is_in_a_message(&self) -> bool {
        self.count > 0 || self.ticket > 0
    }

    /// Goes on by what a record has of them. True where with it the server's keys change, and whether it wants ours to.
    pub(super) fn hear(&mut self, mut content: &[u8]) -> Result<Option<bool>, Alert> {
        if content.is_empty() {
            // Section 5.1.
            return Err(Alert::UnexpectedMessage);
        }
        while let [next, rest @ ..] = content {
            if self.ticket > 0 {
                let count = content.len().min(self.ticket as usize);
                self.ticket -= count as u32;
                content = &content[count..];
                continue;
            }
            self.header[usize::from(self.count)] = *next;
            self.count += 1;
            content = rest;
            // A CertificateRequest may come to none who has not offered it (section 4.6.2).
            if !matches!(self.header[0], NEW_SESSION_TICKET | KEY_UPDATE) {
                return Err(Alert::UnexpectedMessage);
            }
            if self.count < 4 {
                continue;
            }
            self.count = 0;
            match (self.header, content) {
                // Nobody resumes the session here.
                ([NEW_SESSION_TICKET, high, middle, low], _) => {
                    self.ticket = u32::from_be_bytes([0, high, middle, low])
                }
                // Section 5.1: a record ends where keys change.
                ([_, 0, 0, 1], [wants @ (0 | 1)]) => return Ok(Some(*wants == 1)),
                _ => return Err(Alert::DecodeError),
            }
        }
        Ok(None)
    }
}
