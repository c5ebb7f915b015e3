//! A session with permessage-deflate: a client's stream as in [`crate::session`], and the messages that are sent to it,
//! which any client that keeps to what was agreed on can decompress.

use super::inflate::{End, inflate};
use super::session::Setup;
use super::stream::{Compressor, TAIL, frames};
use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use mod_websocket::wire::deflate::Compression;
use mod_websocket::wire::extension::Parameters;
use mod_websocket::wire::session::{Contexts, Rules, Session};

/// What the first bytes of an input say.
#[derive(Debug, Clone, Copy)]
struct Agreed {
    /// The rest is what the server sends, and not a [`Setup`] with a client's stream.
    sends: bool,
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: u8,
    client_max_window_bits: u8,
    level: u8,
    min_size: u8,
}

impl<'a> Arbitrary<'a> for Agreed {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Agreed> {
        Ok(Agreed {
            sends: input.arbitrary()?,
            server_no_context_takeover: input.arbitrary()?,
            client_no_context_takeover: input.arbitrary()?,
            server_max_window_bits: input.arbitrary()?,
            client_max_window_bits: input.arbitrary()?,
            level: input.arbitrary()?,
            min_size: input.arbitrary()?,
        })
    }
}

impl Agreed {
    /// Whatever the numbers are, something that [`mod_websocket::wire::extension::negotiate`] agrees on.
    fn compression(&self) -> Compression {
        let bits = |number: u8| 15 - number % 8;
        let server_max_window_bits = bits(self.server_max_window_bits);
        Compression {
            parameters: Parameters {
                server_no_context_takeover: self.server_no_context_takeover || server_max_window_bits == 8,
                client_no_context_takeover: self.client_no_context_takeover,
                server_max_window_bits,
                client_max_window_bits: bits(self.client_max_window_bits),
            },
            level: 1 + self.level % 9,
            min_size: self.min_size.into(),
        }
    }
}

/// See [`Agreed`].
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(agreed) = input.arbitrary::<Agreed>() else { return };
    let compression = agreed.compression();
    if agreed.sends {
        return sent(compression, &messages(input.take_rest()));
    }
    let Ok(setup) = input.arbitrary::<Setup>() else { return };
    let rest = input.take_rest();
    let Parameters { client_no_context_takeover, client_max_window_bits, .. } = compression.parameters;
    let compressor = Compressor::new(!client_no_context_takeover, client_max_window_bits);
    let stream = if setup.is_raw() { rest.to_vec() } else { frames(rest, Some(compressor)) };
    setup.check(&stream, Some(compression));
}

/// The messages that a script describes. The first byte of a step says what the next is:
///
/// * 0 to 199: this many of the following bytes
/// * 200 to 229: the message of before, twice and so on
/// * 230 to 249: the following byte some ten thousand times
/// * 250 and more: bytes without a pattern, some thousand
fn messages(script: &[u8]) -> Vec<Vec<u8>> {
    /// Bytes of all messages.
    const MOST: usize = 50_000;
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let (mut rest, mut total) = (script, 0);
    while let [what, after @ ..] = rest
        && total < MOST
    {
        rest = after;
        let message = match what {
            0..200 => {
                let (bytes, after) = rest.split_at(rest.len().min(usize::from(*what)));
                rest = after;
                bytes.to_vec()
            }
            200..230 => messages.last().map_or(vec![], |last| last.repeat((what - 198).into())),
            230..250 => {
                let [byte, after @ ..] = rest else { break };
                rest = after;
                vec![*byte; 2000 * usize::from(*what - 229)]
            }
            250.. => {
                let numbers = (1..=3000 * u32::from(what - 249)).scan(u32::from(*what), |state, _| {
                    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    Some((*state >> 24) as u8)
                });
                numbers.collect()
            }
        };
        if message.len() > MOST {
            break;
        }
        total += message.len();
        messages.push(message);
    }
    messages
}

/// Compresses the messages, and decompresses them as a client with no larger window than it has to have.
fn sent(compression: Compression, messages: &[Vec<u8>]) {
    let rules = Rules { max_message_size: 1, compression: Some(compression), reserved_close_codes: false };
    let mut contexts = Contexts::default();
    let (mut session, mut client) = (Session::new(&rules), Client { compression, history: Vec::new() });
    for message in messages {
        let payload = Bytes::from(message.clone());
        let encoded = session.encode(&mut contexts, payload.clone());
        client.receive(message, &encoded);
        // What was encoded by another session of the same form may be sent as well.
        let mut other = Session::new(&rules);
        if session.encoding().is_some() {
            assert_eq!(session.encoding(), other.encoding());
            client.receive(message, &other.encode(&mut contexts, payload));
        }
    }
}

struct Client {
    compression: Compression,
    /// What messages may refer to.
    history: Vec<u8>,
}

impl Client {
    fn receive(&mut self, message: &[u8], (encoded, compressed): &(Bytes, bool)) {
        if !compressed {
            return assert_eq!(encoded, message);
        }
        let Compression { parameters, min_size, .. } = self.compression;
        assert!(message.len() >= min_size as usize && !message.is_empty());
        let data = [&encoded[..], &TAIL].concat();
        let before = self.history.len();
        let inflated = inflate(&data, std::mem::take(&mut self.history), usize::MAX);
        assert_eq!(inflated.end, End::Open(true));
        assert!(inflated.distance <= 1 << parameters.server_max_window_bits, "{} bytes back", inflated.distance);
        assert_eq!(&inflated.output[before..], message);
        if parameters.server_no_context_takeover {
            assert!(encoded.len() < message.len());
        } else {
            self.history = inflated.output;
        }
    }
}
