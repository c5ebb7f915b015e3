//! The negotiation of permessage-deflate (RFC 7692 section 7.1): what a client's Sec-WebSocket-Extensions lines offer
//! and what the configuration wants go in, what both keep to comes out. May import: std, serde; nothing of ours but
//! [`super::handshake`]'s grammar.
//!
//! An offer that cannot be accepted, for whatever reason, is passed over and the client's next one is looked at. No offer
//! makes a handshake fail: without an acceptable one nothing is compressed.

use super::handshake::{is_token, trim};
use serde::{Deserialize, Serialize};
use std::fmt;

const NAME: &str = "permessage-deflate";
/// The largest LZ77 window, in bits (section 7.1.2), which is what applies where nothing else is said.
pub const MAX_WINDOW_BITS: u8 = 15;
/// The smallest one.
pub const MIN_WINDOW_BITS: u8 = 8;
/// The smallest one that a compressor can use by itself (zlib's deflate has no other): see [`Parameters`].
pub const MIN_KEPT_WINDOW_BITS: u8 = 9;

/// What the two directions of a connection keep to (section 7.1). "Server" and "client" say who compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Each message of the server is compressed for itself.
    pub server_no_context_takeover: bool,
    /// Each message of the client is compressed for itself.
    pub client_no_context_takeover: bool,
    /// Nothing that the server sends refers back further than 2 to the power of this many bytes. When it is 8, messages
    /// of the server are compressed for themselves.
    pub server_max_window_bits: u8,
    /// Nothing that the client sends refers back further than 2 to the power of this many bytes.
    pub client_max_window_bits: u8,
}

/// What the configuration wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Whether the server's compressor may keep what it has seen from message to message.
    pub server_context_takeover: bool,
    /// The largest window, in bits (9 to 15), of the server's compressor.
    pub server_window_bits: u8,
    /// The largest window, in bits (9 to 15), of clients that can have a smaller one.
    pub client_window_bits: u8,
}

/// What was agreed on, and the header line that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// For the session.
    pub parameters: Parameters,
    /// The value of Sec-WebSocket-Extensions in the 101.
    pub response: String,
}

/// Chooses among the offers in Sec-WebSocket-Extensions lines: the first that can be accepted. `None`: there is none.
pub fn negotiate(lines: &[&str], config: &Config) -> Option<Negotiated> {
    // As one line, which is what httpd makes of several: in it a string that never ends reaches into the next.
    let line = lines.join(", ");
    let mut offers = unquoted(&line, ',').filter_map(ParsedOffer::parse);
    offers.next().map(|offer| offer.accept(config))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ParsedOffer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Without a value, the client leaves the choice to us.
    client_max_window_bits: Option<Option<u8>>,
}

impl ParsedOffer {
    /// Reads `name *( ";" parameter )`. `None`: another extension, or one of the reasons of section 7.1 to decline: an
    /// unknown parameter, a parameter given twice, a value that is not allowed.
    fn parse(element: &str) -> Option<ParsedOffer> {
        let mut parts = unquoted(element, ';');
        if trim(parts.next()?) != NAME {
            return None;
        }
        let mut offer = ParsedOffer::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (trim(name), Some(plain(trim(value))?)),
                None => (trim(part), None),
            };
            let repeated = match (name, value.as_deref()) {
                ("server_no_context_takeover", None) => std::mem::replace(&mut offer.server_no_context_takeover, true),
                ("client_no_context_takeover", None) => std::mem::replace(&mut offer.client_no_context_takeover, true),
                ("server_max_window_bits", Some(value)) => {
                    offer.server_max_window_bits.replace(window_bits(value)?).is_some()
                }
                ("client_max_window_bits", Some(value)) => {
                    offer.client_max_window_bits.replace(Some(window_bits(value)?)).is_some()
                }
                ("client_max_window_bits", None) => offer.client_max_window_bits.replace(None).is_some(),
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(offer)
    }

    /// Every offer can be met, since the server may always do without its own context and with a smaller window.
    fn accept(&self, config: &Config) -> Negotiated {
        let server_max_window_bits =
            self.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS).min(config.server_window_bits);
        // A window of 256 bytes is kept to by compressing no message longer than it, each for itself.
        let server_no_context_takeover = self.server_no_context_takeover
            || !config.server_context_takeover
            || server_max_window_bits < MIN_KEPT_WINDOW_BITS;
        // Section 7.1.2.2: without the parameter in the offer the client's window cannot be limited.
        let client_max_window_bits = match self.client_max_window_bits {
            None => MAX_WINDOW_BITS,
            Some(most) => most.unwrap_or(MAX_WINDOW_BITS).min(config.client_window_bits),
        };
        let parameters = Parameters {
            server_no_context_takeover,
            // Never of a client that does not offer it: many fail the connection then, or take it for agreed and go on as
            // before.
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        };
        let names_server_window = self.server_max_window_bits.is_some();
        Negotiated { parameters, response: ResponseHeader { parameters, names_server_window }.to_string() }
    }
}

/// An answer's parameters. What is not said stands for the largest window, and for context takeover.
struct ResponseHeader {
    parameters: Parameters,
    /// Section 7.1.2.1 wants the server's window in the answer wherever the offer has it. Where it has not, a window that is
    /// smaller than the client expects needs no word, and some clients fail the connection for one.
    names_server_window: bool,
}

impl fmt::Display for ResponseHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameters {
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        } = self.parameters;
        f.write_str(NAME)?;
        if server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if self.names_server_window {
            write!(f, "; server_max_window_bits={server_max_window_bits}")?;
        }
        if client_max_window_bits < MAX_WINDOW_BITS {
            write!(f, "; client_max_window_bits={client_max_window_bits}")?;
        }
        Ok(())
    }
}

/// Section 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(bits))?;
    (value.len() == if bits < 10 { 1 } else { 2 }).then_some(bits)
}

/// A parameter's value (RFC 6455 section 9.1): a token, or a quoted-string whose content is one.
fn plain(value: &str) -> Option<String> {
    let Some(quoted) = value.strip_prefix('"') else {
        return is_token(value).then(|| value.to_owned());
    };
    let mut content = String::new();
    let mut characters = quoted.strip_suffix('"')?.chars();
    while let Some(character) = characters.next() {
        content.push(match character {
            '\\' => characters.next()?,
            '"' => return None,
            other => other,
        });
    }
    is_token(&content).then_some(content)
}

/// The parts of `text` between separators, those in quoted strings (RFC 7230 section 3.2.6) not counted. A string that
/// never ends takes the rest of the text.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let here = !quoted && character == separator;
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Config = Config { server_context_takeover: true, server_window_bits: 15, client_window_bits: 15 };
    const SMALL: Config = Config { server_context_takeover: false, server_window_bits: 15, client_window_bits: 11 };

    fn answer(line: &str, config: Config) -> Option<String> {
        negotiate(&[line], &config).map(|agreement| agreement.response)
    }

    #[test]
    fn what_browsers_and_libraries_send() {
        let frugal = "permessage-deflate; server_no_context_takeover";
        for (offer, full, small) in [
            // Chromium, Safari; Firefox, Netty, Tornado; websockets for Python; a client without memory; one with a small
            // window.
            (
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate",
                &*format!("{frugal}; client_max_window_bits=11"),
            ),
            ("permessage-deflate", "permessage-deflate", frugal),
            (
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
                &format!("{frugal}; server_max_window_bits=12; client_max_window_bits=11"),
            ),
            (
                "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
                &format!("{frugal}; client_no_context_takeover"),
                &format!("{frugal}; client_no_context_takeover"),
            ),
            (
                "permessage-deflate;server_max_window_bits=8",
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=8",
                &format!("{frugal}; server_max_window_bits=8"),
            ),
            (
                "permessage-deflate; server_max_window_bits=15",
                "permessage-deflate; server_max_window_bits=15",
                &format!("{frugal}; server_max_window_bits=15"),
            ),
        ] {
            assert_eq!(answer(offer, ALL).as_deref(), Some(full), "{offer}");
            assert_eq!(answer(offer, SMALL).as_deref(), Some(small), "{offer}");
        }
    }

    #[test]
    fn a_smaller_window_is_asked_of_clients_that_can() {
        let config = Config { server_window_bits: 10, client_window_bits: 10, ..ALL };
        for (offer, response) in [
            ("permessage-deflate", "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=10"),
            (
                "permessage-deflate; client_max_window_bits=9; server_max_window_bits=11",
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
            ),
        ] {
            assert_eq!(answer(offer, config).as_deref(), Some(response), "{offer}");
        }
    }

    #[test]
    fn a_bad_offer_is_passed_over() {
        for bad in [
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; client_max_window_bits=\"1 0\"",
            "permessage-deflate; client_max_window_bits=1e1",
            "permessage-deflate;",
            "permessage-deflate=1",
            "x-webkit-deflate-frame",
            "permessage-bzip2",
            "",
            ",,",
            "\"permessage-deflate",
        ] {
            assert_eq!(answer(bad, ALL), None, "{bad}");
            // The next one is taken, unless a string goes on through it.
            let next = "permessage-deflate; server_max_window_bits=10";
            let expected = (bad.matches('"').count() != 1).then_some(next);
            assert_eq!(negotiate(&[bad, next], &ALL).map(|a| a.response).as_deref(), expected, "{bad}");
        }
    }

    #[test]
    fn the_first_good_offer_wins() {
        let line = "foo; bar=\"a,b;c\\\"\", permessage-deflate ;\tclient_max_window_bits=\"1\\0\" , permessage-deflate";
        assert_eq!(answer(line, ALL).as_deref(), Some("permessage-deflate; client_max_window_bits=10"));
        assert_eq!(negotiate(&[], &ALL), None);
    }

    #[test]
    fn a_client_that_does_not_offer_it_has_the_largest_window() {
        let config = Config { server_window_bits: 9, client_window_bits: 9, ..ALL };
        let agreed = |line| negotiate(&[line], &config).unwrap().parameters;
        assert_eq!(agreed("permessage-deflate").client_max_window_bits, 15);
        assert_eq!(agreed("permessage-deflate").server_max_window_bits, 9);
        assert_eq!(agreed("permessage-deflate; client_max_window_bits").client_max_window_bits, 9);
    }
}
