//! The WebSocket protocol, pure: bytes and values in, bytes and values out. No I/O, no threads, no clock.
//!
//! [`handshake`] decides on an opening handshake, [`origin`] on the page that it comes from, and [`extension`] on compression in
//! it; [`session`] turns a byte stream into messages: the [`frame_scanner`] decides what is wrong with it, as early as can be and
//! with [`utf8`] for texts, and tungstenite's `WebSocketContext` assembles messages, answers control frames and closes. [`deflate`]
//! is under it where messages are compressed; [`frame`] is the layout of a frame, where tungstenite does not tell.
//! [`frame_follower`] counts what passes by where somebody else speaks the protocol.
//! [`websocket_events`] is how a WebSocket is told of over HTTP.

pub mod deflate;
pub mod extension;
pub(crate) mod frame;
pub mod frame_follower;
pub(crate) mod frame_scanner;
pub mod handshake;
pub mod origin;
#[cfg(test)]
mod round_trip;
pub mod session;
mod utf8;
pub mod websocket_events;

/// A message, a Close frame's content and its codes, as tungstenite defines them.
pub use tungstenite::protocol::{CloseFrame, Message, frame::Utf8Bytes, frame::coding::CloseCode};

/// A [`CloseFrame`] with this code and reason.
///
/// The reason is cut to the 123 bytes that fit a control frame (RFC 6455 section 5.5), at a character's border.
pub fn close(code: CloseCode, reason: &str) -> CloseFrame {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame { code, reason: Utf8Bytes::from(&reason[..end]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = close(CloseCode::Error, &"é".repeat(70));
        assert_eq!(frame.reason.len(), 122);
        assert_eq!(close(CloseCode::Normal, "bye").reason.as_str(), "bye");
    }
}
