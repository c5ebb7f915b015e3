//! How messages travel through a program's pipes.
//!
//! * lines: a message and a newline; from the program `\n` or `\r\n`
//! * chunks: the bytes of messages, one after the other; what one read brings from the program is a binary message
//! * length: the length of the payload (4 bytes, big-endian), its kind (1 byte, see [`RecordKind`]), the payload; for a shared
//!   program the number of the client (8 bytes, big-endian) stands between kind and payload

use super::settings::Framing;
use crate::wire::{CloseFrame, Message, Utf8Bytes};
use bytes::Bytes;
use std::collections::VecDeque;

/// What a record is: RFC 6455's numbers (section 11.8) where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Either way. UTF-8.
    Text = 1,
    Binary = 2,
    /// To a shared program: a client has come; the payload is a JSON object, its environment.
    Open = 3,
    /// The payload is that of a Close frame. To the program: how the client has ended; nothing follows of it. From the
    /// program: the client is to be closed with this.
    Close = 8,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        [RecordKind::Text, RecordKind::Binary, RecordKind::Open, RecordKind::Close]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("it wrote a message of more than {0} bytes (WebSocketMaxMessageSize)")]
    TooLong(usize),
    /// No [`RecordKind`] that a program may send.
    #[error("it wrote a record of kind {0}; expected 1 (text), 2 (binary) or 8 (close)")]
    Kind(u8),
    #[error("it wrote text that is not UTF-8")]
    Utf8,
    /// The end of the output in the middle of a record.
    #[error("its output ended in the middle of a record")]
    Cut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramOutput {
    Message(Message),
    Close(CloseFrame),
}

/// Puts a message of the client behind what waits for the program.
pub fn put(framing: Framing, message: &Message, out: &mut Vec<u8>) {
    let (kind, payload) = match message {
        Message::Text(text) => (RecordKind::Text, text.as_bytes()),
        Message::Binary(payload) => (RecordKind::Binary, &payload[..]),
        _ => return,
    };
    match framing {
        Framing::Lines => {
            out.extend_from_slice(payload);
            out.push(b'\n');
        }
        Framing::Chunks => out.extend_from_slice(payload),
        Framing::Length => put_record(kind, None, payload, out),
    }
}

pub fn put_record(kind: RecordKind, client: Option<u64>, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.push(kind as u8);
    if let Some(client) = client {
        out.extend_from_slice(&client.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// A record as it comes: kind, client (0 where records name none) and payload.
pub type Record = (RecordKind, u64, Vec<u8>);

/// Takes records out of a stream, however it is cut into pieces.
#[derive(Debug)]
pub struct RecordSplitter {
    head: Vec<u8>,
    head_length: usize,
    payload: Vec<u8>,
    limit: usize,
}

impl RecordSplitter {
    /// The payload is not reserved beyond this before it comes.
    const RESERVED: usize = 64 * 1024;

    /// Of records that name their client, or do not; `limit` bytes are the longest payload.
    pub fn new(with_clients: bool, limit: usize) -> RecordSplitter {
        let head_length = if with_clients { 13 } else { 5 };
        RecordSplitter { head: Vec::with_capacity(head_length), head_length, payload: Vec::new(), limit }
    }

    /// Takes the next record off the front of `bytes`; `None` when it goes on after them.
    ///
    /// # Errors
    /// It is of no kind that a program may send, or too long. Nothing after it can be understood.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Record>, Wrong> {
        let missing = self.head_length - self.head.len();
        let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
        self.head.extend_from_slice(piece);
        *bytes = rest;
        if self.head.len() < self.head_length {
            return Ok(None);
        }
        let [a, b, c, d, kind, client @ ..] = &self.head[..] else { return Ok(None) };
        let kind = RecordKind::from_byte(*kind).filter(|kind| *kind != RecordKind::Open).ok_or(Wrong::Kind(*kind))?;
        let client = client.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if length > self.limit {
            return Err(Wrong::TooLong(self.limit));
        }
        if self.payload.capacity() == 0 {
            self.payload.reserve_exact(length.min(Self::RESERVED));
        }
        let (piece, rest) = bytes.split_at((length - self.payload.len()).min(bytes.len()));
        self.payload.extend_from_slice(piece);
        *bytes = rest;
        if self.payload.len() < length {
            return Ok(None);
        }
        self.head.clear();
        Ok(Some((kind, client, std::mem::take(&mut self.payload))))
    }

    pub fn is_between_records(&self) -> bool {
        self.head.is_empty()
    }
}

/// What a record without a client says.
///
/// # Errors
/// It is a text that is none.
pub fn said(kind: RecordKind, payload: Vec<u8>) -> Result<ProgramOutput, Wrong> {
    Ok(match kind {
        RecordKind::Text => {
            let text = Utf8Bytes::try_from(Bytes::from(payload)).map_err(|_| Wrong::Utf8)?;
            ProgramOutput::Message(Message::Text(text))
        }
        RecordKind::Close => ProgramOutput::Close(crate::handlers::framing::close_frame(&payload)),
        RecordKind::Binary | RecordKind::Open => ProgramOutput::Message(Message::Binary(payload.into())),
    })
}

#[derive(Debug)]
pub struct Decoder {
    form: Form,
    said: VecDeque<ProgramOutput>,
    wrong: Option<Wrong>,
}

#[derive(Debug)]
enum Form {
    /// The begin of a line, and the length of the longest.
    Lines(Vec<u8>, usize),
    Chunks,
    Length(RecordSplitter),
}

impl Decoder {
    /// `limit` bytes are the longest message.
    pub fn new(framing: Framing, limit: usize) -> Decoder {
        let form = match framing {
            Framing::Lines => Form::Lines(Vec::new(), limit),
            Framing::Chunks => Form::Chunks,
            Framing::Length => Form::Length(RecordSplitter::new(false, limit)),
        };
        Decoder { form, said: VecDeque::new(), wrong: None }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        if self.wrong.is_none()
            && let Err(wrong) = self.decode(bytes)
        {
            self.wrong = Some(wrong);
        }
    }

    fn decode(&mut self, mut bytes: &[u8]) -> Result<(), Wrong> {
        match &mut self.form {
            Form::Lines(begun, limit) => {
                while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
                    bytes = rest;
                    let message = if begun.is_empty() {
                        text(line, *limit)?
                    } else {
                        begun.extend_from_slice(line);
                        text(&std::mem::take(begun), *limit)?
                    };
                    self.said.push_back(ProgramOutput::Message(message));
                }
                begun.extend_from_slice(bytes);
                // One more for a \r that does not count.
                if begun.len() > limit.saturating_add(1) {
                    return Err(Wrong::TooLong(*limit));
                }
            }
            Form::Chunks => {
                if !bytes.is_empty() {
                    self.said.push_back(ProgramOutput::Message(Message::binary(Bytes::copy_from_slice(bytes))));
                }
            }
            Form::Length(splitter) => {
                while let Some((kind, _, payload)) = splitter.next(&mut bytes)? {
                    self.said.push_back(said(kind, payload)?);
                }
            }
        }
        Ok(())
    }

    /// The output has ended: a last line needs no newline.
    pub fn end(&mut self) {
        match &mut self.form {
            Form::Lines(begun, limit) if !begun.is_empty() => match text(&std::mem::take(begun), *limit) {
                Ok(message) => self.said.push_back(ProgramOutput::Message(message)),
                Err(wrong) => self.wrong = self.wrong.take().or(Some(wrong)),
            },
            Form::Length(splitter) if !splitter.is_between_records() => {
                self.wrong.get_or_insert(Wrong::Cut);
            }
            _ => {}
        }
    }

    /// The next that the program has said.
    ///
    /// # Errors
    /// After all that came before it: what is wrong. Nothing can be understood any more.
    pub fn pop(&mut self) -> Result<Option<ProgramOutput>, Wrong> {
        match (self.said.pop_front(), &self.wrong) {
            (Some(said), _) => Ok(Some(said)),
            (None, Some(wrong)) => Err(wrong.clone()),
            (None, None) => {
                // An idle session keeps no queue.
                self.said = VecDeque::new();
                Ok(None)
            }
        }
    }
}

/// A line as a message. What is not UTF-8 in it is replaced: a page expects texts.
fn text(line: &[u8], limit: usize) -> Result<Message, Wrong> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > limit {
        return Err(Wrong::TooLong(limit));
    }
    Ok(Message::text(String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CloseCode, close};
    use proptest::prelude::*;

    fn decoded(framing: Framing, limit: usize, pieces: &[&[u8]]) -> (Vec<ProgramOutput>, Option<Wrong>) {
        let mut decoder = Decoder::new(framing, limit);
        let mut all = Vec::new();
        let mut read = |decoder: &mut Decoder| loop {
            match decoder.pop() {
                Ok(Some(said)) => all.push(said),
                Ok(None) => break None,
                Err(wrong) => break Some(wrong),
            }
        };
        for piece in pieces {
            decoder.take(piece);
            if let Some(wrong) = read(&mut decoder) {
                return (all, Some(wrong));
            }
        }
        decoder.end();
        let wrong = read(&mut decoder);
        (all, wrong)
    }

    fn texts(said: &[ProgramOutput]) -> Vec<&str> {
        said.iter()
            .map(|said| match said {
                ProgramOutput::Message(Message::Text(text)) => text.as_str(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_line_is_a_message() {
        let (said, wrong) = decoded(Framing::Lines, 10, &[b"one\ntw", b"o\r", b"\n\n\xff\nlast"]);
        assert_eq!((texts(&said), wrong), (vec!["one", "two", "", "\u{fffd}", "last"], None));
        let (said, wrong) = decoded(Framing::Lines, 3, &[b"one\r\nfour\n"]);
        assert_eq!((texts(&said), wrong), (vec!["one"], Some(Wrong::TooLong(3))));
        assert_eq!(decoded(Framing::Lines, 3, &[b"never", b" ends"]).1, Some(Wrong::TooLong(3)));
        assert_eq!(decoded(Framing::Lines, 3, &[b"four"]).1, Some(Wrong::TooLong(3)));
    }

    #[test]
    fn records_say_what_they_are() {
        let records = b"\0\0\0\x02\x01hi\0\0\0\0\x02\0\0\0\x05\x08\x0f\xa0bye";
        let (said, wrong) = decoded(Framing::Length, 10, &[records]);
        let expected = vec![
            ProgramOutput::Message(Message::text("hi")),
            ProgramOutput::Message(Message::binary(vec![])),
            ProgramOutput::Close(close(CloseCode::Library(4000), "bye")),
        ];
        assert_eq!((said, wrong), (expected, None));
        for (bytes, wrong) in [
            (&b"\0\0\0\x01\x01\xff"[..], Wrong::Utf8),
            (b"\0\0\0\x01\x03{", Wrong::Kind(3)),
            (b"text\n", Wrong::Kind(b'\n')),
            (b"\0\0\0\x0b\x01", Wrong::TooLong(10)),
            (b"\0\0\0\x02\x01h", Wrong::Cut),
            (b"\0", Wrong::Cut),
        ] {
            assert_eq!(decoded(Framing::Length, 10, &[bytes]), (vec![], Some(wrong)));
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(0), Just(1), any::<u8>()], 0..300), cut in 1usize..50) {
            for framing in [Framing::Lines, Framing::Length] {
                let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
                prop_assert_eq!(decoded(framing, 20, &[&bytes]), decoded(framing, 20, &pieces));
            }
        }

        #[test]
        fn records_survive_the_way(messages in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..100)), 0..10), cut in 1usize..50) {
            let mut bytes = Vec::new();
            for (client, payload) in &messages {
                put_record(RecordKind::Binary, Some(*client), payload, &mut bytes);
            }
            let (mut splitter, mut seen) = (RecordSplitter::new(true, 100), Vec::new());
            for mut piece in bytes.chunks(cut) {
                while let Some((kind, client, payload)) = splitter.next(&mut piece).unwrap() {
                    prop_assert_eq!(kind, RecordKind::Binary);
                    seen.push((client, payload));
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(splitter.is_between_records());
        }
    }

    #[test]
    fn the_client_is_framed_as_the_program() {
        let framed = |framing, message: Message| {
            let mut out = Vec::new();
            put(framing, &message, &mut out);
            out
        };
        assert_eq!(framed(Framing::Lines, Message::text("hi")), b"hi\n");
        assert_eq!(framed(Framing::Chunks, Message::text("hi")), b"hi");
        assert_eq!(framed(Framing::Length, Message::text("hi")), b"\0\0\0\x02\x01hi");
        assert_eq!(framed(Framing::Length, Message::binary(vec![7])), b"\0\0\0\x01\x02\x07");
        assert_eq!(close_payload(1005, "x"), b"\x03\xedx");
    }
}
