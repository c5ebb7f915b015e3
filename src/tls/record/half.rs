//! The keys of one direction of a connection: a traffic secret and what comes from it (RFC 8446 sections 7.2 and 7.3). They are
//! what an idle connection keeps, and are kept inline: the key schedule is made anew where it is needed ([`schedules`]).

use super::schedules::{self, Place};
use super::{Direction, Secret, Unknown};
use ring::aead::{self, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use std::fmt;
use zeroize::Zeroize;

/// Bytes of the longest traffic secret, which is SHA-384's.
const MAX_SECRET: usize = 48;
/// And of the longest key.
const MAX_KEY: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    Aes128,
    Aes256,
    Chacha20,
}

impl Suite {
    pub(super) fn find(number: u16) -> Result<Suite, Unknown> {
        Ok(match number {
            0x1301 => Suite::Aes128,
            0x1302 => Suite::Aes256,
            0x1303 => Suite::Chacha20,
            _ => return Err(Unknown),
        })
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Suite::Aes128 => &AES_128_GCM,
            Suite::Aes256 => &AES_256_GCM,
            Suite::Chacha20 => &CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Suite::Aes128 | Suite::Chacha20 => HKDF_SHA256,
            Suite::Aes256 => HKDF_SHA384,
        }
    }
}

/// Lengths of what is derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand(suite: Suite, secret: &[u8], label: &str, out: &mut [u8]) -> Result<(), Unknown> {
    let full = 6 + label.len();
    let (length, label_length) = ((out.len() as u16).to_be_bytes(), [full as u8]);
    let info: [&[u8]; 5] = [&length, &label_length, b"tls13 ", label.as_bytes(), &[0]];
    let secret = Prk::new_less_safe(suite.hkdf(), secret);
    secret.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| Unknown)
}

/// Where a direction stands. Wiped when dropped.
pub(super) struct Half {
    secret: [u8; MAX_SECRET],
    key: [u8; MAX_KEY],
    iv: [u8; NONCE_LEN],
    suite: Suite,
    schedule: Place,
    pub(super) sequence: u64,
}

impl Half {
    pub(super) fn new(suite: Suite, direction: &Direction) -> Result<Half, Unknown> {
        let Direction { secret: Secret(secret), sequence } = direction;
        if secret.len() != suite.hkdf().len() {
            return Err(Unknown);
        }
        let mut half = Half {
            secret: [0; MAX_SECRET],
            key: [0; MAX_KEY],
            iv: [0; NONCE_LEN],
            suite,
            schedule: Place::default(),
            sequence: *sequence,
        };
        half.secret[..secret.len()].copy_from_slice(secret);
        half.derive()?;
        Ok(half)
    }

    fn secret(&self) -> &[u8] {
        &self.secret[..self.suite.hkdf().len()]
    }

    /// Makes the keys of the secret.
    fn derive(&mut self) -> Result<(), Unknown> {
        let suite = self.suite;
        let (mut key, mut iv) = ([0; MAX_KEY], [0; NONCE_LEN]);
        expand(suite, self.secret(), "key", &mut key[..suite.aead().key_len()])?;
        expand(suite, self.secret(), "iv", &mut iv)?;
        (self.key, self.iv) = (key, iv);
        key.zeroize();
        schedules::forget(&mut self.schedule);
        Ok(())
    }

    /// Goes on with the next generation of keys.
    pub(super) fn update(&mut self) -> Result<(), Unknown> {
        let mut next = [0; MAX_SECRET];
        expand(self.suite, self.secret(), "traffic upd", &mut next[..self.suite.hkdf().len()])?;
        self.secret = next;
        next.zeroize();
        self.derive()?;
        self.sequence = 0;
        Ok(())
    }

    /// Lends the key schedule.
    ///
    /// # Errors
    /// What `step` says.
    pub(super) fn with_key<T>(
        &mut self,
        step: impl FnOnce(&LessSafeKey) -> Result<T, ring::error::Unspecified>,
    ) -> Result<T, ring::error::Unspecified> {
        let (suite, key) = (self.suite, &self.key);
        let make = || UnboundKey::new(suite.aead(), &key[..suite.aead().key_len()]).map(LessSafeKey::new);
        schedules::with(&mut self.schedule, make, step)
    }

    /// The nonce of the next record (RFC 8446 section 5.3).
    pub(super) fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        schedules::forget(&mut self.schedule);
    }
}

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Half").field("suite", &self.suite).field("sequence", &self.sequence).finish()
    }
}
