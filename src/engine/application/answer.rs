//! The header lines with which the application answers: what it says of a session, and what else goes into the 101.
//!
//! A value that is not understood makes the whole answer an error: the session is never accepted with less than the application
//! has said, nor with more.

use super::channel_name::{MAX_NAME, Pattern, is_name};
use super::reserved::{self, goes_into_the_101, normal};
use crate::wire::handshake::is_token;
use crate::wire::{CloseCode, CloseFrame, close};
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// Bytes of all names and values of an answer together.
pub const MAX_FIELDS: usize = 64 << 10;
/// Bytes of all that a session has of Meta, names and values.
pub const MAX_META: usize = 8 << 10;
/// Values that a session may have of Meta.
pub const MAX_META_NAMES: usize = 32;
/// The shortest interval of rechecks, and the longest, in seconds.
pub const RECHECK_RANGE: std::ops::RangeInclusive<u64> = 10..=86_400;
/// How long a session may be told to last: up to a year.
const EXPIRES_RANGE: std::ops::RangeInclusive<u64> = 1..=31_536_000;
/// Bytes of the reason in a Close frame (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;
/// Characters of a bad value that are quoted.
const QUOTED: usize = 60;
/// A list of nothing.
const NONE: &str = "none";

/// What the application has said. `None`: it has said nothing of this, and the configuration counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The channels that the session begins with, without the prefix of the configuration; none twice.
    pub channels: Option<Vec<String>>,
    /// Those that it may subscribe to, likewise.
    pub allowed: Option<Vec<Pattern>>,
    /// What it may do besides: exactly this.
    pub rights: Option<Rights>,
    /// As whom presence shows it.
    pub member: Option<String>,
    /// Whose it is.
    pub user: Option<String>,
    /// How often the application wants to be asked again; `Off` is `Some(None)`.
    pub recheck: Option<Option<Duration>>,
    /// How long the session may last.
    pub expires: Option<Duration>,
    /// The Close frame that it wants sent.
    pub close: Option<CloseFrame>,
    /// What is to be stored, by [`normal`] names, none twice; an empty value: is to be forgotten.
    pub meta: Vec<(String, String)>,
    /// The subprotocol, which the client must have offered.
    pub protocol: Option<String>,
    /// What goes into the 101 besides, in its order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What a session may do in its channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// What it sends is published.
    pub publish: bool,
    /// It may ask who is there.
    pub presence: bool,
}

/// What is wrong with an answer, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{header}: {why}")]
pub struct BadAnswer {
    /// The name of the line.
    pub header: String,
    /// What was expected, and what has come.
    pub why: String,
}

impl Answer {
    /// Reads the header lines of an answer. Lists may come as several lines, or as one with commas, as CGI makes of them.
    ///
    /// # Errors
    /// One of them is not as it should be, or they are too many.
    pub fn parse<'a>(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Answer, BadAnswer> {
        let mut answer = Answer::default();
        let mut size = 0;
        for (name, value) in fields {
            size += name.len() + value.len();
            if size > MAX_FIELDS {
                return Err(bad(name, format!("expected header lines of up to {MAX_FIELDS} bytes in all, got more")));
            }
            answer.take(name, value).map_err(|why| bad(name, why))?;
        }
        let meta: usize = answer.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        if meta > MAX_META || answer.meta.len() > MAX_META_NAMES {
            let why = format!("expected up to {MAX_META_NAMES} values of {MAX_META} bytes in all, got more");
            return Err(bad("Set-Meta-*", why));
        }
        Ok(answer)
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        if !is_token(name) {
            return Err("expected the name of a header".into());
        }
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 127) {
            return Err("expected a value without control characters (CR, LF, NUL)".into());
        }
        let normal = normal(name);
        let text =
            || std::str::from_utf8(value).map(str::trim).map_err(|_| "expected UTF-8, got other bytes".to_owned());
        match &*normal {
            "websocket-channel" => add_names(&mut self.channels, text()?, false)?,
            "grip-channel" => add_names(&mut self.channels, text()?, true)?,
            "websocket-allow" => add_patterns(&mut self.allowed, text()?)?,
            "websocket-rights" => add_rights(&mut self.rights, text()?)?,
            "websocket-member" => once(&mut self.member, id(text()?)?)?,
            "websocket-user" => once(&mut self.user, id(text()?)?)?,
            "websocket-recheck" => {
                let text = text()?;
                let recheck = match text.eq_ignore_ascii_case("off") {
                    true => None,
                    false => Some(seconds(text, RECHECK_RANGE, " or Off")?),
                };
                once(&mut self.recheck, recheck)?;
            }
            "websocket-expires" => once(&mut self.expires, seconds(text()?, EXPIRES_RANGE, "")?)?,
            "websocket-close" => once(&mut self.close, close_frame(text()?)?)?,
            "sec-websocket-protocol" => {
                let protocol = text()?;
                if !is_token(protocol) {
                    return Err(format!("expected one subprotocol, got {}", quote(protocol)));
                }
                once(&mut self.protocol, protocol.to_owned())?;
            }
            _ => match normal.strip_prefix(reserved::SET_META) {
                Some("") => return Err("expected a name behind Set-Meta-".into()),
                Some(meta) if self.meta.iter().any(|(known, _)| known == meta) => return Err(TWICE.into()),
                Some(meta) => self.meta.push((meta.to_owned(), text()?.to_owned())),
                // A word that is not known may be one that is misspelt: it would be less, or more.
                None if normal.starts_with("websocket-") => return Err("no header of this name is known".into()),
                None if goes_into_the_101(&normal) => self.headers.push((name.to_owned(), value.to_owned())),
                None => {}
            },
        }
        Ok(())
    }
}

const TWICE: &str = "expected it once, got it twice";

fn bad(header: &str, why: String) -> BadAnswer {
    BadAnswer { header: header.chars().take(QUOTED).flat_map(char::escape_debug).collect(), why }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    if place.is_some() {
        return Err(TWICE.into());
    }
    *place = Some(value);
    Ok(())
}

/// The elements of a list (RFC 9110 section 5.6.1: empty ones do not count). `none` is one without any, an empty text is none.
fn elements(text: &str) -> Result<Vec<&str>, String> {
    let elements: Vec<&str> = text.split(',').map(str::trim).filter(|element| !element.is_empty()).collect();
    match elements[..] {
        [] => Err(format!("expected something, or {NONE}, got nothing")),
        [only] if only.eq_ignore_ascii_case(NONE) => Ok(Vec::new()),
        _ => Ok(elements),
    }
}

fn add_names(place: &mut Option<Vec<String>>, text: &str, grip: bool) -> Result<(), String> {
    let names = place.get_or_insert_default();
    for element in elements(text)? {
        let (name, parameters) = match grip {
            true => element.split_once(';').unwrap_or((element, "")),
            false => (element, ""),
        };
        for parameter in parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
            // Which message was the last is said for HTTP's clients. A filter would have the client get less.
            if parameter.split('=').next().is_none_or(|name| !name.trim().eq_ignore_ascii_case("prev-id")) {
                return Err(format!("expected no parameter but prev-id, got {}", quote(parameter)));
            }
        }
        let name = decode(name.trim())?;
        if !is_name(&name) {
            return Err(format!(
                "expected names of channels without blanks, of up to {MAX_NAME} bytes, got {}",
                quote(element)
            ));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(())
}

fn add_patterns(place: &mut Option<Vec<Pattern>>, text: &str) -> Result<(), String> {
    let patterns = place.get_or_insert_default();
    for element in elements(text)? {
        let pieces = element.split('*').map(decode).collect::<Result<Vec<_>, _>>()?;
        // What lies between asterisks is part of a name, or nothing.
        if element.len() > 3 * MAX_NAME || !pieces.iter().all(|piece| piece.is_empty() || is_name(piece)) {
            return Err(format!("expected patterns of names of channels, without blanks, got {}", quote(element)));
        }
        let pattern = Pattern(pieces);
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Ok(())
}

fn add_rights(place: &mut Option<Rights>, text: &str) -> Result<(), String> {
    let rights = place.get_or_insert_default();
    for element in elements(text)? {
        match element.to_ascii_lowercase().as_str() {
            "publish" => rights.publish = true,
            "presence" => rights.presence = true,
            _ => return Err(format!("expected publish, presence or {NONE}, got {}", quote(element))),
        }
    }
    Ok(())
}

/// Who somebody is: percent-encoded, so that blanks and commas are none of the text's own.
fn id(text: &str) -> Result<String, String> {
    let wrong = || format!("expected a percent-encoded text of 1 to {MAX_NAME} bytes, got {}", quote(text));
    if text.contains([',', ' ', '\t']) {
        return Err(wrong());
    }
    let id = decode(text)?;
    if (1..=MAX_NAME).contains(&id.len()) && !id.contains(char::is_control) { Ok(id) } else { Err(wrong()) }
}

fn seconds(text: &str, range: std::ops::RangeInclusive<u64>, or: &str) -> Result<Duration, String> {
    let number =
        text.parse().ok().filter(|number| text.bytes().all(|byte| byte.is_ascii_digit()) && range.contains(number));
    let wrong = || format!("expected {}–{} seconds{or}, got {}", range.start(), range.end(), quote(text));
    number.map(Duration::from_secs).ok_or_else(wrong)
}

/// `code`, or `code reason`. What no endpoint may send (RFC 6455 section 7.4) is not sent for the application, either.
fn close_frame(text: &str) -> Result<CloseFrame, String> {
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    let number: Option<u16> = code.parse().ok().filter(|_| code.bytes().all(|byte| byte.is_ascii_digit()));
    let code = number.filter(|code| matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999)).map(CloseCode::from);
    let reason = reason.trim();
    match code {
        Some(code) if reason.len() <= MAX_REASON => Ok(close(code, reason)),
        _ => Err(format!(
            "expected a close code (1000–1003, 1007–1013, 3000–4999) and a reason of up to {MAX_REASON} bytes, got {}",
            quote(text)
        )),
    }
}

fn decode(text: &str) -> Result<String, String> {
    let is_encoded = |at: usize| {
        let digits = text.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let decoded = percent_decode_str(text).decode_utf8();
    match decoded {
        Ok(decoded) if text.match_indices('%').all(|(at, _)| is_encoded(at)) => Ok(decoded.into_owned()),
        _ => Err(format!("expected percent-encoded UTF-8, got {}", quote(text))),
    }
}

/// A bad value, for the log.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED).is_some() {
        quoted.push_str("...");
    }
    format!("\"{quoted}\"")
}

#[cfg(test)]
mod tests;
