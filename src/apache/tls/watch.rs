//! What is seen of a connection's TLS as it passes: secrets, and how many records were protected with them.

use super::openssl::Ssl;
use std::ffi::c_int;

/// Of OpenSSL's headers, where they have been the same since there is TLS 1.3: ssl3.h.
const SSL3_RT_HANDSHAKE: c_int = 22;
const SSL3_RT_APPLICATION_DATA: c_int = 23;
const SSL3_RT_HEADER: c_int = 0x100;
const SSL3_RT_INNER_CONTENT_TYPE: c_int = 0x101;
const SSL3_MT_FINISHED: u8 = 20;
const SSL3_MT_KEY_UPDATE: u8 = 24;
/// Bytes that a record has beside what is in it: the kind, and the tag of the ciphers that the engine knows (RFC 8446 section 5.2).
const SEALING: usize = 17;

/// The longest secret (bytes): of SHA-384.
pub(super) const MAX_SECRET: usize = 48;
/// What is seen of a connection. It lies in the memory of the connection's pool, which is there for longer than the SSL.
pub(super) struct Watch {
    pub(super) ssl: *mut Ssl,
    pub(super) client: DirectionState,
    pub(super) server: DirectionState,
    /// httpd is the client of this connection.
    is_client: bool,
    /// Something was seen after which the secrets are out of date.
    pub(super) is_spoiled: bool,
}

#[derive(Clone, Copy)]
pub(super) struct DirectionState {
    pub(super) secret: [u8; MAX_SECRET],
    pub(super) length: usize,
    /// Records since the Finished message, with which the keys changed to those of the secret.
    pub(super) records: u64,
    /// The same, by their headers: a TLS library that does not report both has not been understood.
    headers: u64,
    is_finished: bool,
    /// Bytes in the records since the last message of the handshake.
    content: usize,
    /// The last record has begun a message of the handshake's kind, and not ended it.
    is_within: bool,
}

impl DirectionState {
    /// The secret is there, and the number of records is right.
    pub(super) fn is_known(&self) -> bool {
        self.length > 0 && self.is_finished && !self.is_within && self.records > 0 && self.records == self.headers
    }
}

impl Watch {
    pub(super) fn new(ssl: *mut Ssl, is_client: bool) -> Watch {
        let way = DirectionState {
            secret: [0; MAX_SECRET],
            length: 0,
            records: 0,
            headers: 0,
            content: 0,
            is_finished: false,
            is_within: false,
        };
        Watch { ssl, client: way, server: way, is_client, is_spoiled: false }
    }

    /// A record or a message went either way (SSL_set_msg_callback(3)).
    pub(super) fn note(&mut self, is_write: bool, kind: c_int, bytes: &[u8]) {
        // RFC 8446 section 5.2: a kind, a version and a length.
        let sealed = bytes.get(3..5).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
        let way = if is_write == self.is_client { &mut self.client } else { &mut self.server };
        // A message is written in records of its own, and OpenSSL tells of it after them: what is longer has padding
        // (SSLOpenSSLConfCmd RecordPadding), which OpenSSL does not tell, and the engine would leave out.
        if is_write && kind == SSL3_RT_HANDSHAKE {
            self.is_spoiled |= way.content > bytes.len();
            way.content = 0;
        }
        match (kind, bytes.first().copied()) {
            // Told of every protected record, and of no other.
            (SSL3_RT_INNER_CONTENT_TYPE, kind) => {
                way.records += 1;
                way.is_within = kind.map(c_int::from) == Some(SSL3_RT_HANDSHAKE);
                if !way.is_within {
                    way.content = 0;
                }
            }
            // Protected records say that they are application data, whatever they are.
            (SSL3_RT_HEADER, Some(kind)) if c_int::from(kind) == SSL3_RT_APPLICATION_DATA => {
                way.headers += 1;
                way.content += sealed.saturating_sub(SEALING);
            }
            // The record that it is in was the last with the keys of the handshake. Another one comes when a client is asked
            // for a certificate later, and changes no keys.
            (SSL3_RT_HANDSHAKE, Some(SSL3_MT_FINISHED)) if !way.is_finished => {
                *way = DirectionState { is_finished: true, is_within: false, records: 0, headers: 0, ..*way };
            }
            (SSL3_RT_HANDSHAKE, Some(SSL3_MT_KEY_UPDATE)) => self.is_spoiled = true,
            (SSL3_RT_HANDSHAKE, _) => way.is_within = false,
            _ => {}
        }
    }

    /// A secret, as a line of an NSS key log: label, client random, secret.
    pub(super) fn note_secret(&mut self, line: &[u8]) {
        let mut words = line.split(|byte| *byte == b' ');
        let way = match words.next() {
            Some(b"CLIENT_TRAFFIC_SECRET_0") => &mut self.client,
            Some(b"SERVER_TRAFFIC_SECRET_0") => &mut self.server,
            _ => return,
        };
        way.length = words.nth(1).map_or(0, |hex| unhex(hex, &mut way.secret));
    }
}

/// Returns how many bytes there were; 0 where it is no hexadecimal, or too much.
fn unhex(hex: &[u8], out: &mut [u8]) -> usize {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !hex.len().is_multiple_of(2) || hex.len() / 2 > out.len() {
        return 0;
    }
    for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return 0 };
        *byte = high << 4 | low;
    }
    hex.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hexadecimal() {
        let mut out = [0; 4];
        assert_eq!((unhex(b"00ffA5", &mut out), out), (3, [0, 0xff, 0xa5, 0]));
        for wrong in [&b"0"[..], b"0g", b"0011223344"] {
            assert_eq!(unhex(wrong, &mut out), 0, "{wrong:?}");
        }
    }
}
