//! TLS 1.3's records (RFC 8446 sections 5, 7.2 and 7.3), for a connection whose handshake somebody else has done: what comes
//! is opened, what goes is sealed. The ciphers are *ring*'s.
//!
//! What may come after the handshake is application data, alerts and KeyUpdate, and NewSessionTicket from a server; anything else
//! ends the connection with the alert that the RFC has for it.

mod half;
mod schedules;
mod server_handshake;

use half::{Half, Suite};
use ring::aead::Aad;
use serde::{Deserialize, Serialize};
use server_handshake::ServerHandshake;
use std::fmt;
use std::ops::Range;
use zeroize::Zeroize;

/// Bytes of application data that a record holds at most.
pub const MAX_PLAIN: usize = 1 << 14;
/// Bytes of a record at most, its header included: 256 more than [`MAX_PLAIN`] are for the type, padding and the tag.
pub const MAX_RECORD: usize = HEADER + MAX_PLAIN + 256;

const HEADER: usize = 5;
/// Bytes that a record has more than its data, for all suites that are known (RFC 8446 section 5.2).
pub const OVERHEAD: usize = HEADER + 1 + TAG;
const TAG: usize = 16;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
/// Records that one key seals: below the 2^24.5 that RFC 8446 section 5.5 allows for AES-GCM.
const RECORDS_PER_KEY: u64 = 1 << 23;
/// Records without application data that may come one after the other: they cost much and bring nothing.
const MAX_EMPTY: u32 = 32;

/// A traffic secret: from it come the key of a direction and the secret after it. It is wiped when dropped, and no debug
/// output shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(Vec<u8>);

impl From<Vec<u8>> for Secret {
    fn from(secret: Vec<u8>) -> Secret {
        Secret(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Where one direction of a connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Its traffic secret (`client_application_traffic_secret_N` or the server's).
    pub secret: Secret,
    /// Records that were protected with it so far.
    pub sequence: u64,
}

/// All that is needed to go on with a connection between two records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The cipher suite's number: 0x1301, 0x1302 or 0x1303.
    pub suite: u16,
    /// From the client.
    pub client: Direction,
    /// To it.
    pub server: Direction,
}

/// What is wrong with a connection; the alert that says so (RFC 8446 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Alert {
    /// A record, or what is in it, that may not come here.
    #[error("TLS: a record that may not come here")]
    UnexpectedMessage = 10,
    /// A record that was not protected with the keys.
    #[error("TLS: a record that cannot be decrypted")]
    BadRecordMac = 20,
    /// A record that is longer than records are.
    #[error("TLS: a record that is too long")]
    RecordOverflow = 22,
    /// A message that is not built as it should be.
    #[error("TLS: a message that cannot be understood")]
    DecodeError = 50,
    /// The other end's own alert: there is nothing to be said to it any more.
    #[error("TLS: the other end gave up with a fatal alert")]
    Theirs = -1,
}

impl Alert {
    /// The description that is sent; `None` where nothing is.
    fn description(self) -> Option<u8> {
        u8::try_from(self as i16).ok()
    }
}

/// Keys of a suite that is none of TLS 1.3's three, or with a secret that does not fit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no keys of a TLS 1.3 cipher suite that is known here")]
pub struct Unknown;

impl Keys {
    /// Whether a suite can be gone on with.
    pub fn knows(suite: u16) -> bool {
        Suite::find(suite).is_ok()
    }

    /// For what comes from the client, and what goes to it.
    ///
    /// # Errors
    /// They are of no suite that is known here.
    pub fn split(&self) -> Result<(Opener, Sealer), Unknown> {
        let suite = Suite::find(self.suite)?;
        Ok((Opener::new(suite, &self.client, None)?, Sealer::new(suite, &self.server)?))
    }

    /// As [`Keys::split`], for who is the client: for what comes from the server, and what goes to it.
    ///
    /// # Errors
    /// They are of no suite that is known here.
    pub fn split_as_client(&self) -> Result<(Opener, Sealer), Unknown> {
        let suite = Suite::find(self.suite)?;
        let opener = Opener::new(suite, &self.server, Some(ServerHandshake::default()))?;
        Ok((opener, Sealer::new(suite, &self.client)?))
    }
}

/// What came of the records in a buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of application data, which are now at the front of the buffer.
    pub plain: usize,
    /// Where the beginning of a record is that has not come whole.
    pub rest: Range<usize>,
    /// The other end will send no more.
    pub is_end: bool,
    /// The other end wants our keys to be new, too.
    pub wants_update: bool,
}

/// What comes from the other end.
#[derive(Debug)]
pub struct Opener {
    keys: Half,
    /// Records without application data since the last with some.
    empty: u32,
    /// The other end is the server.
    server: Option<ServerHandshake>,
}

impl Opener {
    fn new(suite: Suite, direction: &Direction, server: Option<ServerHandshake>) -> Result<Opener, Unknown> {
        Ok(Opener { keys: Half::new(suite, direction)?, empty: 0, server })
    }

    /// Opens the records of a buffer, in their place.
    ///
    /// # Errors
    /// See [`Alert`]; nothing that came with it is to be used.
    pub fn open(&mut self, buffer: &mut [u8]) -> Result<Opened, Alert> {
        let (mut opened, mut at) = (Opened::default(), 0);
        while let Some(header) = buffer[at..].first_chunk::<HEADER>().filter(|_| !opened.is_end) {
            let header = *header;
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if header[0] != APPLICATION_DATA {
                return Err(Alert::UnexpectedMessage);
            }
            if length > MAX_RECORD - HEADER {
                return Err(Alert::RecordOverflow);
            }
            let body = at + HEADER..at + HEADER + length;
            // Opened towards the front, so that what is in the records lies together.
            let Some(record) = buffer.get_mut(opened.plain..body.end) else { break };
            let (keys, sealed) = (&mut self.keys, body.start - opened.plain..);
            let nonce = keys.nonce();
            let opening = keys.with_key(|key| key.open_within(nonce, Aad::from(header), record, sealed));
            let inner = opening.map_err(|_| Alert::BadRecordMac)?;
            keys.sequence += 1;
            // After the content its type, and zeros (RFC 8446 section 5.4).
            let end = inner.iter().rposition(|byte| *byte != 0).ok_or(Alert::UnexpectedMessage)?;
            if end > MAX_PLAIN {
                return Err(Alert::RecordOverflow);
            }
            self.empty = if inner[end] == APPLICATION_DATA && end > 0 { 0 } else { self.empty + 1 };
            let breaks_in =
                inner[end] != HANDSHAKE && self.server.as_ref().is_some_and(ServerHandshake::is_in_a_message);
            if self.empty > MAX_EMPTY || breaks_in {
                return Err(Alert::UnexpectedMessage);
            }
            match inner[end] {
                APPLICATION_DATA => opened.plain += end,
                kind => self.hear(kind, &inner[..end], &mut opened)?,
            }
            at = body.end;
        }
        opened.rest = if opened.is_end { 0..0 } else { at..buffer.len() };
        Ok(opened)
    }

    /// What is not for the application.
    fn hear(&mut self, kind: u8, content: &[u8], opened: &mut Opened) -> Result<(), Alert> {
        if let (HANDSHAKE, Some(server)) = (kind, &mut self.server) {
            if let Some(wants) = server.hear(content)? {
                opened.wants_update |= wants;
                self.keys.update().map_err(|_| Alert::DecodeError)?;
            }
            return Ok(());
        }
        match (kind, content) {
            (ALERT, [_, CLOSE_NOTIFY]) => opened.is_end = true,
            (ALERT, [_, USER_CANCELED]) => {}
            (ALERT, [_, _]) => return Err(Alert::Theirs),
            // Section 4.6.3. No key may change inside a record, so it is one by itself.
            (HANDSHAKE, [KEY_UPDATE, 0, 0, 1, wants @ (0 | 1)]) => {
                opened.wants_update |= *wants == 1;
                self.keys.update().map_err(|_| Alert::DecodeError)?;
            }
            (ALERT, _) | (HANDSHAKE, [KEY_UPDATE, ..]) => return Err(Alert::DecodeError),
            _ => return Err(Alert::UnexpectedMessage),
        }
        Ok(())
    }
}

/// What goes to the other end.
#[derive(Debug)]
pub struct Sealer {
    keys: Half,
    /// The next record comes after a change of keys.
    update: bool,
}

/// Where a [`Sealer`] stood: see [`Sealer::mark`].
#[derive(Debug)]
pub struct Mark(u64);

impl Sealer {
    fn new(suite: Suite, direction: &Direction) -> Result<Sealer, Unknown> {
        Ok(Sealer { keys: Half::new(suite, direction)?, update: false })
    }

    /// The other end has asked for new keys, which it gets before the next record.
    pub fn update(&mut self) {
        self.update = true;
    }

    /// Adds records with these bytes to `out`.
    pub fn seal(&mut self, mut data: &[&[u8]], out: &mut Vec<u8>) {
        self.renew(out);
        let mut from = 0;
        while let [first, others @ ..] = data {
            if from == first.len() {
                (data, from) = (others, 0);
                continue;
            }
            self.record(APPLICATION_DATA, out, |out| {
                let mut room = MAX_PLAIN;
                while let [first, others @ ..] = data
                    && room > 0
                {
                    let count = room.min(first.len() - from);
                    out.extend_from_slice(&first[from..from + count]);
                    room -= count;
                    from += count;
                    if from == first.len() {
                        (data, from) = (others, 0);
                    }
                }
            });
        }
    }

    /// Adds the record after which nothing is sent.
    pub fn seal_end(&mut self, out: &mut Vec<u8>) {
        self.record(ALERT, out, |out| out.extend_from_slice(&[1, CLOSE_NOTIFY]));
    }

    /// Adds the record that says why the connection ends, where one does.
    pub fn seal_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        if let Some(description) = alert.description() {
            self.record(ALERT, out, |out| out.extend_from_slice(&[2, description]));
        }
    }

    /// Where this stands, to come back to when nothing of what is sealed from here on was sent. `None` where it cannot come
    /// back, since the keys change with the next record.
    pub fn mark(&self) -> Option<Mark> {
        (!self.is_due()).then_some(Mark(self.keys.sequence))
    }

    /// Goes back. The same nonces are used again, for other bytes perhaps: so nobody may ever see what they were used for.
    pub fn go_back(&mut self, mark: &Mark) {
        self.keys.sequence = mark.0;
    }

    fn is_due(&self) -> bool {
        self.update || self.keys.sequence >= RECORDS_PER_KEY
    }

    fn renew(&mut self, out: &mut Vec<u8>) {
        if self.is_due() {
            self.record(HANDSHAKE, out, |out| out.extend_from_slice(&[KEY_UPDATE, 0, 0, 1, 0]));
            // It can fail for no secret that was good once.
            self.update = self.keys.update().is_err();
        }
    }

    fn record(&mut self, kind: u8, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[APPLICATION_DATA, 3, 3, 0, 0]);
        content(out);
        out.push(kind);
        let length = (out.len() - start - HEADER + TAG) as u16;
        out[start + 3..start + HEADER].copy_from_slice(&length.to_be_bytes());
        let (header, body) = out[start..].split_at_mut(HEADER);
        let keys = &mut self.keys;
        // It fails for more bytes than a record has.
        let nonce = keys.nonce();
        let tag = keys.with_key(|key| key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body));
        match tag {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => unreachable!("a record of {length} bytes"),
        }
        keys.sequence += 1;
    }
}

#[cfg(test)]
pub(crate) mod tests;
