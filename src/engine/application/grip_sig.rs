//! `Grip-Sig`: the JSON Web Token (RFC 7519) with which a GRIP proxy signs, by HMAC with SHA-256 and a key that both sides have.
//! It says who has signed and until when that holds, and nothing of the request. This module reads what a proxy in front has signed,
//! and signs what it asks applications elsewhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// What Pushpin has where nobody has changed it.
const DEFAULT: &str = "changeme";
/// How long a token of ours holds, in seconds: whoever sees one can say anything with it for so long.
const LIFE: u64 = 60;
/// As whom proxies of GRIP sign, and as whom applications may know them.
const ISSUER: &str = "pushpin";

/// What stands behind `WebSocketGripKey`. It is not for logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GripKey(String);

impl fmt::Debug for GripKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GripKey").finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

impl GripKey {
    /// # Errors
    /// Everybody knows it.
    pub fn new(text: &str) -> Result<GripKey, String> {
        if text.is_empty() || text == DEFAULT {
            return Err("expected a key that nobody can guess".into());
        }
        Ok(GripKey(text.into()))
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }

    /// A token that holds for a minute from `now` on.
    pub fn sign(&self, now: u64) -> String {
        let claims = format!(r#"{{"iss":"{ISSUER}","exp":{}}}"#, now.saturating_add(LIFE));
        self.signed(r#"{"typ":"JWT","alg":"HS256"}"#, &claims)
    }

    fn signed(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&self.hmac(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// True for a token that this key has signed and that has not expired at `now`.
    pub fn has_signed(&self, token: &str, now: u64) -> bool {
        self.claims(token).is_some_and(|claims| {
            let number = |name: &str| claims.get(name).map(serde_json::Value::as_f64);
            // RFC 7519 sections 4.1.4 and 4.1.5. One without an end would hold for ever.
            number("exp").flatten().is_some_and(|end| (now as f64) < end)
                && number("nbf").is_none_or(|begin| begin.is_some_and(|begin| begin <= now as f64))
        })
    }

    /// What a token of this key says.
    fn claims(&self, token: &str) -> Option<serde_json::Value> {
        let (signed, signature) = token.trim().rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        // In constant time.
        hmac::verify(&self.hmac(), signed.as_bytes(), &decode(signature)?).ok()?;
        let header: serde_json::Value = serde_json::from_slice(&decode(header)?).ok()?;
        // RFC 7515 section 4.1.11: what is critical and not understood.
        let is_ours = header.get("alg")?.as_str()? == "HS256" && header.get("crit").is_none();
        is_ours.then(|| serde_json::from_slice(&decode(claims)?).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Pushpin's documentation's form: key `changeme`, exp 1700000000.
    const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJwdXNocGluIiwiZXhwIjoxNzAwMDAwMDAwfQ.\
                         eZzQ_svkTutifWzQutoq4MtMJmYh8d6CDzAb83ycdqw";

    fn key() -> GripKey {
        GripKey(DEFAULT.into())
    }

    #[test]
    fn a_token_holds_for_its_time_and_its_key() {
        let key = key();
        assert!(key.has_signed(TOKEN, 1_699_999_999));
        assert!(!key.has_signed(TOKEN, 1_700_000_000));
        assert!(!GripKey("another".into()).has_signed(TOKEN, 0));
        assert_eq!(key.sign(1_700_000_000 - LIFE), TOKEN);
        for at in [0, 40, TOKEN.len() - 20] {
            let mut changed = TOKEN.to_owned().into_bytes();
            changed[at] ^= 1;
            assert!(!key.has_signed(&String::from_utf8_lossy(&changed), 0), "{at}");
        }
        for cut in ["", ".", "..", "a.b.c", &TOKEN[..TOKEN.len() - 1]] {
            assert!(!key.has_signed(cut, 0), "{cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_signed() {
        let key = key();
        let (header, claims) = (r#"{"alg":"HS256"}"#, r#"{"exp":10}"#);
        assert!(key.has_signed(&key.signed(header, claims), 9));
        assert!(key.has_signed(&key.signed(header, r#"{"exp":10,"nbf":9}"#), 9));
        for (header, claims) in [
            (header, r#"{"iss":"pushpin"}"#),
            (header, r#"{"exp":"10"}"#),
            (header, r#"{"exp":10,"nbf":10}"#),
            (header, r#"{"exp":10,"nbf":"0"}"#),
            (header, "10"),
            (r#"{"alg":"none"}"#, claims),
            (r#"{"alg":"HS512"}"#, claims),
            (r#"{"alg":"HS256","crit":["exp"]}"#, claims),
            ("{}", claims),
        ] {
            assert!(!key.has_signed(&key.signed(header, claims), 9), "{header} {claims}");
        }
    }

    #[test]
    fn a_key_that_everybody_knows_is_none() {
        assert!(GripKey::new("").is_err() && GripKey::new(DEFAULT).is_err() && GripKey::new("secret").is_ok());
        assert!(!format!("{:?}", GripKey::new("secret")).contains("secret"));
    }
}
