//! `application/websocket-events`: what happens on a WebSocket, as the body of a request or an answer of HTTP
//! (WebSocket-over-HTTP, as GRIP has it).
//!
//! ```text
//! event = TYPE CRLF                            no content
//!       | TYPE SP length CRLF content CRLF     the length of the content in bytes, in hexadecimal
//! ```

use super::{CloseCode, CloseFrame, Utf8Bytes};
use bytes::{Buf, Bytes, BytesMut};

/// The type of such a body.
pub const MEDIA_TYPE: &str = "application/websocket-events";

/// The longest name of a type that is read, known or not.
const MAX_NAME: usize = 32;
/// The digits of the longest length.
const MAX_DIGITS: usize = 8;
/// The longest content of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;

/// Something that happens on a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebSocketEvent {
    /// It was opened, or is to be.
    Open,
    /// A whole message of text. What is decoded is UTF-8; of what is offered again, the first bytes may be gone.
    Text(Bytes),
    /// A whole message of bytes.
    Binary(Bytes),
    /// A Ping frame.
    Ping(Bytes),
    /// A Pong frame.
    Pong(Bytes),
    /// A Close frame; `None`: there is no code in it.
    Close(Option<CloseFrame>),
    /// It has ended without one.
    Disconnect,
}

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// An event begins with something else.
    #[error("expected the type of an event, got {0:?}")]
    Type(String),
    /// Behind a type is something else.
    #[error("expected the length of an event as 1–8 hexadecimal digits, got {0:?}")]
    Length(String),
    /// Its content has so many bytes.
    #[error("an event of {0} bytes, which is too long")]
    TooLong(usize),
    /// The content is longer than was said.
    #[error("no CRLF after the content of an event")]
    NoEnd,
    /// The body ends within an event.
    #[error("the last event is not complete")]
    Incomplete,
    /// RFC 6455 section 5.6 wants UTF-8.
    #[error("a TEXT that is not UTF-8")]
    NotText,
    /// Its code may not be sent, or its reason is too long or not UTF-8 (RFC 6455 section 7.4).
    #[error("a CLOSE that no Close frame can say")]
    BadClose,
}

impl WebSocketEvent {
    /// Writes it behind what is there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            WebSocketEvent::Open => put_bare(out, "OPEN"),
            WebSocketEvent::Disconnect => put_bare(out, "DISCONNECT"),
            WebSocketEvent::Text(content) => put(out, "TEXT", content),
            WebSocketEvent::Binary(content) => put(out, "BINARY", content),
            WebSocketEvent::Ping(content) if content.is_empty() => put_bare(out, "PING"),
            WebSocketEvent::Ping(content) => put(out, "PING", content),
            WebSocketEvent::Pong(content) if content.is_empty() => put_bare(out, "PONG"),
            WebSocketEvent::Pong(content) => put(out, "PONG", content),
            WebSocketEvent::Close(None) => put_bare(out, "CLOSE"),
            WebSocketEvent::Close(Some(frame)) => {
                put(out, "CLOSE", &[&u16::from(frame.code).to_be_bytes(), frame.reason.as_bytes()].concat());
            }
        }
    }

    /// Bytes of a message's content; 0 for what is none.
    pub fn content_len(&self) -> usize {
        match self {
            WebSocketEvent::Text(content) | WebSocketEvent::Binary(content) => content.len(),
            _ => 0,
        }
    }

    /// Takes away the first bytes of a message's content.
    pub fn advance(&mut self, count: usize) {
        if let WebSocketEvent::Text(content) | WebSocketEvent::Binary(content) = self {
            content.advance(count.min(content.len()));
        }
    }
}

fn put_bare(out: &mut Vec<u8>, name: &str) {
    out.extend([name.as_bytes(), b"\r\n"].concat());
}

fn put(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    out.extend(format!("{name} {:x}\r\n", content.len()).as_bytes());
    out.extend(content);
    out.extend(b"\r\n");
}

/// Reads events as their bytes come.
#[derive(Debug)]
pub struct EventDecoder {
    buffer: BytesMut,
    /// The event whose content comes next: its type and its length.
    begun: Option<(String, usize)>,
    max_content: usize,
    unknown: Option<String>,
}

impl EventDecoder {
    /// For events whose content has so many bytes at most.
    pub fn new(max_content: usize) -> EventDecoder {
        EventDecoder { buffer: BytesMut::new(), begun: None, max_content, unknown: None }
    }

    /// Takes in the next bytes, and appends what is complete then. What precedes an error is appended, too.
    ///
    /// # Errors
    /// These are no events; nothing that follows can be read.
    pub fn receive(&mut self, bytes: &[u8], events: &mut Vec<WebSocketEvent>) -> Result<(), EventError> {
        self.buffer.extend_from_slice(bytes);
        while let Some((name, content)) = self.step()? {
            match event(&name, content)? {
                Some(event) => events.push(event),
                None => drop(self.unknown.get_or_insert(name)),
            }
        }
        Ok(())
    }

    /// Nothing follows. Returns the first type that is not known, whose events were passed over.
    ///
    /// # Errors
    /// Something should.
    pub fn finish(self) -> Result<Option<String>, EventError> {
        let is_complete = self.buffer.is_empty() && self.begun.is_none();
        if is_complete { Ok(self.unknown) } else { Err(EventError::Incomplete) }
    }

    /// The next event, if all of it is there.
    fn step(&mut self) -> Result<Option<(String, Bytes)>, EventError> {
        let (name, length) = match self.begun.take() {
            Some(begun) => begun,
            None => match self.line()? {
                None => return Ok(None),
                Some((name, None)) => return Ok(Some((name, Bytes::new()))),
                Some((name, Some(length))) => (name, length),
            },
        };
        let end = self.buffer.get(length..).unwrap_or_default();
        if !b"\r\n".starts_with(&end[..end.len().min(2)]) {
            return Err(EventError::NoEnd);
        }
        if end.len() < 2 {
            self.begun = Some((name, length));
            return Ok(None);
        }
        let content = self.buffer.split_to(length).freeze();
        self.buffer.advance(2);
        Ok(Some((name, content)))
    }

    /// The first line of an event, if all of it is there: the type, and the length of the content.
    fn line(&mut self) -> Result<Option<(String, Option<usize>)>, EventError> {
        const MAX_LINE: usize = MAX_NAME + 1 + MAX_DIGITS;
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE + 1)]).into_owned();
        let Some(end) = self.buffer.iter().take(MAX_LINE + 2).position(|byte| *byte == b'\n') else {
            // What can be no line is not waited for, so that the chunks make no difference.
            let name = self.buffer[..].split(|byte| matches!(byte, b' ' | b'\r')).next().unwrap_or_default();
            let is_line = self.buffer.len() < MAX_LINE + 2 && (name.is_empty() || is_name(name));
            return if is_line { Ok(None) } else { Err(EventError::Type(text(&self.buffer))) };
        };
        let line = &self.buffer[..end];
        let Some(line) = line.strip_suffix(b"\r") else { return Err(EventError::Type(text(line))) };
        let mut parts = line.splitn(2, |byte| *byte == b' ');
        let name = parts.next().filter(|name| is_name(name)).ok_or_else(|| EventError::Type(text(line)))?;
        let length = parts.next().map(|digits| length(digits).ok_or_else(|| EventError::Length(text(digits))));
        let length = length.transpose()?;
        if let Some(length) = length.filter(|length| *length > self.max_content) {
            return Err(EventError::TooLong(length));
        }
        let name = text(name);
        self.buffer.advance(end + 1);
        Ok(Some((name, length)))
    }
}

/// Reads a whole body: the events in it, and the first type that is not known.
///
/// # Errors
/// It is none, or an event has more than `max_content` bytes.
pub fn decode(body: &[u8], max_content: usize) -> Result<(Vec<WebSocketEvent>, Option<String>), EventError> {
    let (mut decoder, mut events) = (EventDecoder::new(max_content), Vec::new());
    decoder.receive(body, &mut events)?;
    decoder.finish().map(|unknown| (events, unknown))
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

fn length(digits: &[u8]) -> Option<usize> {
    // from_str_radix would take a sign.
    let is_number = (1..=MAX_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    usize::from_str_radix(digits, 16).ok()
}

/// `None`: its type is not known.
fn event(name: &str, content: Bytes) -> Result<Option<WebSocketEvent>, EventError> {
    Ok(Some(match name {
        "OPEN" => WebSocketEvent::Open,
        "DISCONNECT" => WebSocketEvent::Disconnect,
        "TEXT" if std::str::from_utf8(&content).is_err() => return Err(EventError::NotText),
        "TEXT" => WebSocketEvent::Text(content),
        "BINARY" => WebSocketEvent::Binary(content),
        "PING" | "PONG" if content.len() > MAX_CONTROL => return Err(EventError::TooLong(content.len())),
        "PING" => WebSocketEvent::Ping(content),
        "PONG" => WebSocketEvent::Pong(content),
        "CLOSE" => WebSocketEvent::Close(close_frame(content)?),
        _ => return Ok(None),
    }))
}

fn close_frame(mut content: Bytes) -> Result<Option<CloseFrame>, EventError> {
    if content.is_empty() {
        return Ok(None);
    }
    if !(2..=MAX_CONTROL).contains(&content.len()) {
        return Err(EventError::BadClose);
    }
    let code = match content.get_u16() {
        // What libraries write that were given no code.
        0 => CloseCode::Normal,
        code => CloseCode::from(code),
    };
    let reason = Utf8Bytes::try_from(content).map_err(|_| EventError::BadClose)?;
    if code.is_allowed() { Ok(Some(CloseFrame { code, reason })) } else { Err(EventError::BadClose) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::close;
    use WebSocketEvent::{Binary, Close, Disconnect, Open, Ping, Pong, Text};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(events: &[WebSocketEvent]) -> Vec<u8> {
        let mut out = Vec::new();
        events.iter().for_each(|event| event.encode(&mut out));
        out
    }

    fn decoded(body: &[u8]) -> Result<Vec<WebSocketEvent>, EventError> {
        decode(body, 1000).map(|(events, _)| events)
    }

    #[test]
    fn vectors() {
        let control = r#"c:{"type":"subscribe","channel":"room"}"#;
        let opening = format!("OPEN\r\nTEXT 27\r\n{control}\r\nTEXT 7\r\nm:hello\r\n");
        assert_eq!(opening.len(), 73);
        let text = |text: &'static str| Text(Bytes::from_static(text.as_bytes()));
        let cases: [(&[u8], Vec<WebSocketEvent>); 6] = [
            (b"OPEN\r\n", vec![Open]),
            (opening.as_bytes(), vec![Open, Text(control.to_owned().into()), text("m:hello")]),
            (
                b"TEXT 6\r\nh\xc3\xa9llo\r\nBINARY 2\r\n\x00\xff\r\n",
                vec![text("héllo"), Binary(Bytes::from_static(b"\x00\xff"))],
            ),
            (b"CLOSE d\r\n\x10\x01again later\r\n", vec![Close(Some(close(4097.into(), "again later")))]),
            (b"DISCONNECT\r\n", vec![Disconnect]),
            (b"", vec![]),
        ];
        for (bytes, events) in cases {
            assert_eq!(decoded(bytes), Ok(events.clone()));
            assert_eq!(encoded(&events), bytes);
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let five = || Text(Bytes::from_static(b"12345"));
        for (bytes, event) in [
            ("TEXT 05\r\n12345\r\n", five()),
            ("TEXT 00000005\r\n12345\r\n", five()),
            ("TEXT\r\n", Text(Bytes::new())),
            ("TEXT 0\r\n\r\n", Text(Bytes::new())),
            ("BINARY A\r\n\r\n\r\n\r\n\r\n\r\n\r\n", Binary(Bytes::from_static(b"\r\n\r\n\r\n\r\n\r\n"))),
            ("BINARY a\r\n0123456789\r\n", Binary(Bytes::from_static(b"0123456789"))),
            ("OPEN 0\r\n\r\n", Open),
            ("DISCONNECT 2\r\nno\r\n", Disconnect),
            ("PING\r\n", Ping(Bytes::new())),
            ("PONG 1\r\n!\r\n", Pong(Bytes::from_static(b"!"))),
            ("CLOSE\r\n", Close(None)),
            ("CLOSE 0\r\n\r\n", Close(None)),
            ("CLOSE 2\r\n\0\0\r\n", Close(Some(close(CloseCode::Normal, "")))),
            ("CLOSE 5\r\n\0\0bye\r\n", Close(Some(close(CloseCode::Normal, "bye")))),
        ] {
            assert_eq!(decoded(bytes.as_bytes()), Ok(vec![event]), "{bytes:?}");
        }
        assert_eq!(encoded(&[Text(Bytes::new()), Ping(Bytes::new()), Close(None)]), b"TEXT 0\r\n\r\nPING\r\nCLOSE\r\n");
    }

    #[test]
    fn an_unknown_type_is_passed_over() {
        let body = b"FUTURE 3\r\nabc\r\nlater_2\r\nTEXT 1\r\na\r\n";
        assert_eq!(decode(body, 10), Ok((vec![Text(Bytes::from_static(b"a"))], Some("FUTURE".into()))));
    }

    #[test]
    fn broken_bodies() {
        use EventError::{BadClose, Incomplete, Length, NoEnd, NotText, TooLong, Type};
        for (bytes, error) in [
            (&b"<html>\r\n"[..], Type("<html>".into())),
            (b"<html><body>Fatal error", Type("<html><body>Fatal error".into())),
            (b"OPEN\n", Type("OPEN".into())),
            (b"\r\n", Type(String::new())),
            (b"TEXT +1\r\na\r\n", Length("+1".into())),
            (b"TEXT  1\r\na\r\n", Length(" 1".into())),
            (b"TEXT 1 \r\na\r\n", Length("1 ".into())),
            (b"TEXT 0x1\r\na\r\n", Length("0x1".into())),
            (b"TEXT \r\n", Length(String::new())),
            (b"TEXT 000000001\r\na\r\n", Length("000000001".into())),
            (b"TEXT 3e9\r\n", TooLong(1001)),
            (b"PING 7e\r\n", Incomplete),
            (b"TEXT 1\r\nab\r\n", NoEnd),
            (b"TEXT 1\r\na\n", NoEnd),
            (b"TEXT 2\r\na", Incomplete),
            (b"TEXT 1\r\na", Incomplete),
            (b"TEXT 1\r\na\r", Incomplete),
            (b"TEXT 1\r", Incomplete),
            (b"OPEN", Incomplete),
            (b"TEXT 1\r\n\xff\r\n", NotText),
            (b"CLOSE 1\r\n\x03\r\n", BadClose),
            (b"CLOSE 2\r\n\x03\xee\r\n", BadClose),
            (b"CLOSE 3\r\n\x03\xe8\xff\r\n", BadClose),
        ] {
            assert_eq!(decoded(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
        }
        let ping = [b"PING 7e\r\n".as_slice(), &[b'x'; 126], b"\r\n"].concat();
        assert_eq!(decoded(&ping), Err(TooLong(126)));
        let reason = [b"CLOSE 7e\r\n\x03\xe8".as_slice(), &[b'x'; 124], b"\r\n"].concat();
        assert_eq!(decoded(&reason), Err(BadClose));
        assert!(decoded(&b"A".repeat(MAX_NAME + 1)).is_err());
    }

    fn any_event() -> impl Strategy<Value = WebSocketEvent> {
        let bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let control = || vec(any::<u8>(), 0..=125).prop_map(Bytes::from);
        prop_oneof![
            Just(Open),
            Just(Disconnect),
            ".{0,20}".prop_map(|text| Text(text.into())),
            bytes().prop_map(Binary),
            control().prop_map(Ping),
            control().prop_map(Pong),
            Just(Close(None)),
            (3000_u16..5000, ".{0,30}").prop_map(|(code, reason)| Close(Some(close(code.into(), &reason)))),
        ]
    }

    fn in_chunks(body: &[u8], sizes: &[usize]) -> (Vec<WebSocketEvent>, Result<Option<String>, EventError>) {
        let (mut decoder, mut events, mut rest) = (EventDecoder::new(1000), Vec::new(), body);
        for size in sizes.iter().copied().chain(std::iter::once(usize::MAX)) {
            let (chunk, more) = rest.split_at(size.min(rest.len()));
            if let Err(why) = decoder.receive(chunk, &mut events) {
                return (events, Err(why));
            }
            rest = more;
        }
        (events, decoder.finish())
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(events in vec(any_event(), 0..10), sizes in vec(0_usize..20, 0..60)) {
            prop_assert_eq!(in_chunks(&encoded(&events), &sizes), (events, Ok(None)));
        }

        #[test]
        fn chunks_make_no_difference(
            body in prop_oneof![
                vec(any::<u8>(), 0..60),
                "((TEXT|CLOSE|OPEN|NEW|é)( [0-9a-f]{0,2})?\r?\n?[a-z\r\n]{0,5}(\r\n)?){0,6}".prop_map(String::into_bytes),
            ],
            sizes in vec(0_usize..6, 0..40),
        ) {
            let (events, outcome) = in_chunks(&body, &[]);
            let (others, other) = in_chunks(&body, &sizes);
            prop_assert_eq!(events, others);
            // Of what is no event, more or less is quoted.
            let kind = |outcome: &Result<Option<String>, EventError>| match outcome {
                Err(EventError::Type(_)) => Err(None),
                Err(why) => Err(Some(why.clone())),
                Ok(unknown) => Ok(unknown.clone()),
            };
            prop_assert_eq!(kind(&outcome), kind(&other));
        }
    }
}
