//! Any Sec-WebSocket-Extensions lines: the answer is one that the client which sent them has to accept (RFC 7692
//! section 7.1), and there is one wherever there can be.

use mod_websocket::wire::extension::{self, negotiate};

/// The first line of the input is the configuration (a number of bits from 9 to 15, then `s` for context takeover of the
/// server and `c` for the smallest window of clients), each other line one of the header.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let words = lines.next().unwrap_or_default();
    let digits: String = words.chars().filter(char::is_ascii_digit).take(2).collect();
    let bits = digits.parse().unwrap_or(15).clamp(9, 15);
    let config = extension::Config {
        server_context_takeover: words.contains('s'),
        server_window_bits: bits,
        client_window_bits: if words.contains('c') { 9 } else { bits },
    };
    check_answer(&lines.collect::<Vec<_>>(), &config);
}

/// Negotiates, and looks at the answer as the client does.
pub fn check_answer(lines: &[&str], config: &extension::Config) {
    let answer = negotiate(lines, config);
    let line = lines.join(", ");
    assert_eq!(negotiate(&[&line], config), answer);

    let offer = extensions(&line).into_iter().flatten().find_map(|extension| Terms::of(&extension, true));
    let (Some(offer), Some(answer)) = (&offer, &answer) else {
        return assert_eq!(answer.map(|answer| answer.response), None, "offered: {offer:?}");
    };
    assert!(answer.response.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
    let [Some(said)] = &extensions(&answer.response)[..] else { panic!("{}", answer.response) };
    let said = Terms::of(said, false).expect("an answer that is well-formed");

    // Section 7.1.1.1: "by including this extension parameter in the corresponding extension negotiation response".
    assert!(said.server_no_context_takeover || !offer.server_no_context_takeover);
    // Section 7.1.2.1: "with the same or smaller value as the offer".
    let server = said.server_max_window_bits.map(|bits| bits.expect("a value"));
    match offer.server_max_window_bits {
        Some(most) => assert!(server.is_some_and(|bits| Some(bits) <= most)),
        // It would be allowed, but there are clients that fail the connection then.
        None => assert_eq!(server, None),
    }
    // Section 7.1.1.2: a client that does not offer it need not be able to do it.
    assert_eq!(said.client_no_context_takeover, offer.client_no_context_takeover);
    // Section 7.1.2.2: only where the offer has it, with no larger value.
    let client = said.client_max_window_bits.map(|bits| bits.expect("a value"));
    if let Some(bits) = client {
        let most = offer.client_max_window_bits.expect("the offer has it");
        assert!(bits <= most.unwrap_or(15));
    }

    // What the session does is what was said.
    assert_eq!(answer.parameters.server_no_context_takeover, said.server_no_context_takeover);
    assert_eq!(answer.parameters.client_no_context_takeover, said.client_no_context_takeover);
    assert_eq!(answer.parameters.server_max_window_bits, server.unwrap_or(config.server_window_bits));
    assert_eq!(answer.parameters.client_max_window_bits, client.unwrap_or(15));
    // zlib can compress for this.
    assert!(answer.parameters.server_max_window_bits > 8 || said.server_no_context_takeover);

    // What the configuration wants, as far as the client lets it.
    assert!(said.server_no_context_takeover || config.server_context_takeover);
    assert!(server.is_none_or(|bits| bits <= config.server_window_bits));
    assert!(offer.client_max_window_bits.is_none() || client.unwrap_or(15) <= config.client_window_bits);
}

/// An element of the header's list: a name, and parameters with or without a value.
type Extension = (String, Vec<(String, Option<String>)>);

/// What the parameters of permessage-deflate say.
#[derive(Debug, Default)]
struct Terms {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<Option<u8>>,
    client_max_window_bits: Option<Option<u8>>,
}

impl Terms {
    /// `None`: not permessage-deflate, or to be declined. Only an offer may have client_max_window_bits without a value.
    fn of((name, parameters): &Extension, is_offer: bool) -> Option<Terms> {
        if name != "permessage-deflate" {
            return None;
        }
        let mut names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < parameters.len() {
            return None;
        }
        let mut terms = Terms::default();
        for (name, value) in parameters {
            let bits = match value.as_deref() {
                Some("8") => Some(8),
                Some("9") => Some(9),
                Some(value) => Some(*["10", "11", "12", "13", "14", "15"].iter().find(|bits| **bits == value)?)
                    .and_then(|bits| bits.parse().ok()),
                None => None,
            };
            match name.as_str() {
                "server_no_context_takeover" if value.is_none() => terms.server_no_context_takeover = true,
                "client_no_context_takeover" if value.is_none() => terms.client_no_context_takeover = true,
                "server_max_window_bits" if bits.is_some() => terms.server_max_window_bits = Some(bits),
                "client_max_window_bits" if bits.is_some() || is_offer => terms.client_max_window_bits = Some(bits),
                _ => return None,
            }
        }
        Some(terms)
    }
}

#[derive(Debug, PartialEq)]
enum Word {
    Token(String),
    Quoted(String),
    Sign(char),
    Bad,
}

/// The words of RFC 7230 section 3.2.6.
fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut characters = line.chars().peekable();
    let is_token = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
    while let Some(character) = characters.next() {
        words.push(match character {
            ' ' | '\t' => continue,
            ',' | ';' | '=' => Word::Sign(character),
            '"' => {
                let mut content = String::new();
                loop {
                    match characters.next() {
                        None => break Word::Bad,
                        Some('"') => break Word::Quoted(content),
                        Some('\\') => content.extend(characters.next()),
                        Some(other) => content.push(other),
                    }
                }
            }
            first if is_token(&first) => {
                let mut token = String::from(first);
                while let Some(next) = characters.next_if(is_token) {
                    token.push(next);
                }
                Word::Token(token)
            }
            _ => Word::Bad,
        });
    }
    words
}

/// The elements of the list (RFC 6455 section 9.1); `None` for one that is malformed.
fn extensions(line: &str) -> Vec<Option<Extension>> {
    words(line).split(|word| *word == Word::Sign(',')).map(extension).collect()
}

fn extension(words: &[Word]) -> Option<Extension> {
    let mut parts = words.split(|word| *word == Word::Sign(';'));
    let [Word::Token(name)] = parts.next()? else { return None };
    let parameters = parts.map(|part| match part {
        [Word::Token(name)] => Some((name.clone(), None)),
        [Word::Token(name), Word::Sign('='), Word::Token(value)] => Some((name.clone(), Some(value.clone()))),
        // "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform to the
        // 'token' ABNF." The values that count are checked for themselves.
        [Word::Token(name), Word::Sign('='), Word::Quoted(value)] => Some((name.clone(), Some(value.clone()))),
        _ => None,
    });
    Some((name.clone(), parameters.collect::<Option<_>>()?))
}
