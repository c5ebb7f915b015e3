//! Any body of `application/websocket-events`: an error or events, the same in whatever pieces it comes; and events that can be
//! said again.

use super::memory::peak;
use super::stream::pieces;
use mod_websocket::wire::websocket_events::{EventDecoder, EventError, WebSocketEvent, decode};
use std::mem::discriminant;

/// The longest content: less than an input has, so that some are too long.
const MAX_CONTENT: usize = 512;

/// The first byte says how to cut the others: see [`pieces`]. They are the body.
pub fn check(input: &[u8]) {
    let Some((cut, body)) = input.split_first() else { return };
    let (whole, most) = peak(|| read(&[body]));
    // The shortest event is of 6 bytes.
    let events = body.len() / 6 + 1;
    assert!(
        most <= 4096 + 4 * body.len() + 4 * events * size_of::<WebSocketEvent>(),
        "{most} bytes for {}",
        body.len()
    );
    let pieces: Vec<&[u8]> = pieces(body, *cut).collect();
    let (events, outcome) = read(&pieces);
    assert_eq!(events, whole.0);
    match (&outcome, &whole.1) {
        // Of what is none, more or less is quoted.
        (Err(one), Err(other)) => assert_eq!(discriminant(one), discriminant(other)),
        (one, other) => assert_eq!(one, other),
    }
    events.iter().for_each(check_event);
    let mut again = Vec::new();
    events.iter().for_each(|event| event.encode(&mut again));
    assert_eq!(decode(&again, MAX_CONTENT), Ok((events, None)));
}

fn read(pieces: &[&[u8]]) -> (Vec<WebSocketEvent>, Result<Option<String>, EventError>) {
    let (mut decoder, mut events) = (EventDecoder::new(MAX_CONTENT), Vec::new());
    for piece in pieces {
        if let Err(why) = decoder.receive(piece, &mut events) {
            return (events, Err(why));
        }
    }
    (events, decoder.finish())
}

/// It can be a frame, or several (RFC 6455 sections 5.5 and 5.6).
fn check_event(event: &WebSocketEvent) {
    match event {
        WebSocketEvent::Text(content) => {
            assert!(content.len() <= MAX_CONTENT && std::str::from_utf8(content).is_ok());
        }
        WebSocketEvent::Binary(content) => assert!(content.len() <= MAX_CONTENT),
        WebSocketEvent::Ping(content) | WebSocketEvent::Pong(content) => assert!(content.len() <= 125),
        WebSocketEvent::Close(Some(frame)) => assert!(frame.code.is_allowed() && frame.reason.len() <= 123),
        WebSocketEvent::Open | WebSocketEvent::Close(None) | WebSocketEvent::Disconnect => {}
    }
}
