//! Any bytes on the engine's sockets, the children's and the parent's: an error or messages, the same ones in whatever
//! pieces they come, and no more memory than a message may have.

use super::memory::peak;
use super::stream::pieces;
use mod_websocket::engine::control::Order;
use mod_websocket::engine::handoff::{HandoffMessage, MAX_MESSAGE, MessageDecoder, ToEngine, encode};
use std::fmt::Debug;

/// The first byte says how to cut the others: see [`pieces`]. They are the stream.
pub fn check(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    check_messages::<ToEngine>(*cut, stream);
    check_messages::<Order>(*cut, stream);
}

fn check_messages<M: HandoffMessage + PartialEq + Debug>(cut: u8, stream: &[u8]) {
    let (whole, most) = peak(|| read::<M>(&[stream]));
    assert!(most <= MAX_MESSAGE, "{most} bytes for {}", stream.len());
    let pieces: Vec<&[u8]> = pieces(stream, cut).collect();
    assert_eq!(read(&pieces), whole);
    for message in &whole.0 {
        let mut decoder = MessageDecoder::default();
        decoder.put(&encode(message).expect("it was no longer when it came"));
        let again = decoder.take::<M>().expect("it was understood before");
        assert_eq!(again.as_ref(), Some(message));
        assert!(matches!(decoder.take::<M>(), Ok(None)));
    }
}

/// The messages in a stream, and whether something else followed.
fn read<M: HandoffMessage>(pieces: &[&[u8]]) -> (Vec<M>, bool) {
    let (mut decoder, mut messages) = (MessageDecoder::default(), Vec::new());
    for piece in pieces {
        decoder.put(piece);
        loop {
            match decoder.take::<M>() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}
