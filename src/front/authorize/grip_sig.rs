//! `Grip-Sig`: the JSON Web Token (RFC 7519) with which a GRIP proxy signs, by HMAC with SHA-256 and a key that both sides have.
//! It says who has signed and until when that holds, and nothing of the request.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// What Pushpin has where nobody has changed it.
const DEFAULT: &str = "changeme";

/// What stands behind `WebSocketGripKey`.
#[derive(Clone)]
pub(crate) struct GripKey(hmac::Key);

impl GripKey {
    pub(crate) fn new(text: &str) -> Result<GripKey, String> {
        if text.is_empty() || text == DEFAULT {
            return Err("expected a key that nobody can guess".into());
        }
        Ok(GripKey::of(text))
    }

    fn of(text: &str) -> GripKey {
        GripKey(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// True for a token that this key has signed and that has not expired at `now`, in seconds since 1970.
    pub(crate) fn has_signed(&self, token: &str, now: u64) -> bool {
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
        hmac::verify(&self.0, signed.as_bytes(), &decode(signature)?).ok()?;
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

    fn sign(header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&GripKey::of(DEFAULT).0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    #[test]
    fn a_token_holds_for_its_time_and_its_key() {
        let key = GripKey::of(DEFAULT);
        assert!(key.has_signed(TOKEN, 1_699_999_999));
        assert!(!key.has_signed(TOKEN, 1_700_000_000));
        assert!(!GripKey::of("another").has_signed(TOKEN, 0));
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
        let key = GripKey::of(DEFAULT);
        let (header, claims) = (r#"{"alg":"HS256"}"#, r#"{"exp":10}"#);
        assert!(key.has_signed(&sign(header, claims), 9));
        assert!(key.has_signed(&sign(header, r#"{"exp":10,"nbf":9}"#), 9));
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
            assert!(!key.has_signed(&sign(header, claims), 9), "{header} {claims}");
        }
    }

    #[test]
    fn a_key_that_everybody_knows_is_none() {
        assert!(GripKey::new("").is_err() && GripKey::new(DEFAULT).is_err() && GripKey::new("secret").is_ok());
    }
}
