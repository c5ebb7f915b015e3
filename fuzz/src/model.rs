//! What a session has to make of a client's stream: a decoder that has all of it at once and takes it frame by frame, so
//! that it has no state that could be lost between two pieces.

use super::inflate::{End, inflate};
use super::stream::TAIL;
use mod_websocket::wire::Message;
use mod_websocket::wire::session::Rules;
use std::str::{Utf8Error, from_utf8};

/// What a stream holds.
#[derive(Debug, Default)]
pub struct Expected {
    /// The data messages.
    pub messages: Vec<Message>,
    /// What the Pongs have to say.
    pub pongs: Vec<Vec<u8>>,
    /// What comes after the last message.
    pub ending: Ending,
}

/// How a stream ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    #[default]
    Open,
    /// With a Close frame, to be answered with this code. With ours out, the code is whichever the client sent.
    Closed(Option<u16>),
    /// With a violation, to be answered with one of these codes.
    Failed(&'static [u16]),
    /// In the middle of a compressed frame, which may be good so far or not.
    Unclear,
}

const PROTOCOL: Ending = Ending::Failed(&[1002]);
const INVALID: Ending = Ending::Failed(&[1007]);
const SIZE: Ending = Ending::Failed(&[1009]);
/// Compressed data is looked at in parts whose sizes hang on how it arrives, so that of two faults either may be seen.
const COMPRESSED: Ending = Ending::Failed(&[1007, 1009]);

/// Decodes `stream`, in which our own Close frame goes out after `close_at` bytes.
pub fn expect(rules: &Rules, stream: &[u8], close_at: usize) -> Expected {
    let mut decoder = Decoder {
        rules,
        stream,
        position: 0,
        close_at,
        message: None,
        history: Vec::new(),
        inflating: Vec::new(),
        inflated: 0,
        seen: Expected::default(),
    };
    let ending = decoder.run();
    Expected { ending, ..decoder.seen }
}

struct Decoder<'a> {
    rules: &'a Rules,
    stream: &'a [u8],
    position: usize,
    close_at: usize,
    message: Option<Begun>,
    /// What later messages may refer to.
    history: Vec<u8>,
    /// Compressed bytes that come after it.
    inflating: Vec<u8>,
    /// How much of their output belongs to earlier fragments.
    inflated: usize,
    seen: Expected,
}

/// A message under way.
struct Begun {
    text: bool,
    compressed: bool,
    /// There was a byte in one of its frames.
    came: bool,
    /// A DEFLATE stream has ended in it.
    ended: bool,
    payload: Vec<u8>,
}

impl Decoder<'_> {
    fn run(&mut self) -> Ending {
        loop {
            match self.frame() {
                Ok(()) => {}
                Err(ending) => return ending,
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Ending> {
        let taken = self.stream.get(self.position..self.position + count).ok_or(Ending::Open)?;
        self.position += count;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, Ending> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn frame(&mut self) -> Result<(), Ending> {
        let (first, second) = (self.number(1)? as u8, self.number(1)? as u8);
        let length = match second & 0x7f {
            126 => self.number(2)?,
            127 => self.number(8)?,
            short => short.into(),
        };
        if second & 0x80 == 0 {
            return Err(PROTOCOL);
        }
        let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let compresses = self.rules.compression.is_some();
        let mask = self.take(4).map(<[u8]>::to_vec);
        let of_compressed = opcode == 0 && self.message.as_ref().is_some_and(|message| message.compressed);
        let is_data = opcode < 8 && !of_compressed && !(compresses && reserved == 0x40);
        // What is too long is so before its mask has come.
        let mask = match mask {
            Err(_) if is_data && length > self.rules.max_message_size as u64 => vec![0; 4],
            mask => mask?,
        };
        match (opcode, &self.message) {
            (0..8, _) if reserved != 0 && !(compresses && reserved == 0x40 && opcode != 0) => return Err(PROTOCOL),
            (0, None) | (1 | 2, Some(_)) | (3..8, _) => return Err(PROTOCOL),
            (8.., _) if reserved != 0 || opcode > 10 || !fin || length > 125 => return Err(PROTOCOL),
            (1 | 2, None) => {
                let compressed = reserved != 0;
                self.message =
                    Some(Begun { text: opcode == 1, compressed, came: false, ended: false, payload: Vec::new() });
            }
            _ => {}
        }
        let inflates = opcode < 8 && self.message.as_ref().is_some_and(|message| message.compressed);
        if !inflates && opcode < 8 && length > self.rules.max_message_size as u64 {
            return Err(SIZE);
        }
        let rest = &self.stream[self.position..];
        let there = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let payload: Vec<u8> = rest[..there].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.position += there;
        let complete = there as u64 == length;
        if opcode >= 8 {
            return if complete { self.control(opcode, payload) } else { Err(Ending::Open) };
        }
        if inflates && !complete {
            return Err(if payload.is_empty() { Ending::Open } else { Ending::Unclear });
        }
        self.data(fin && complete, complete, &payload)
    }

    fn control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<(), Ending> {
        let open = self.position <= self.close_at;
        match (opcode, &payload[..]) {
            (8, []) => Err(Ending::Closed(None)),
            (8, [_]) => Err(PROTOCOL),
            (8, [high, low, reason @ ..]) => {
                from_utf8(reason).map_err(|_| INVALID)?;
                let code = u16::from_be_bytes([*high, *low]);
                let usual = matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999);
                let reserved = matches!(code, 1004 | 1014 | 1016..=2999) && self.rules.reserved_close_codes;
                Err(Ending::Closed(Some(if usual || reserved || !open { code } else { 1002 })))
            }
            (9, _) if open => {
                self.seen.pongs.push(payload);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A fragment, or as much of an uncompressed one as is there.
    fn data(&mut self, last: bool, complete: bool, payload: &[u8]) -> Result<(), Ending> {
        let limit = self.rules.max_message_size;
        let Some(mut message) = self.message.take() else { return Err(PROTOCOL) };
        let too_large = if message.compressed { COMPRESSED } else { SIZE };
        let bad_text = if message.compressed { COMPRESSED } else { INVALID };
        if message.compressed {
            message.came |= !payload.is_empty();
            self.inflate(&mut message, payload)?;
            // Without a byte in any of its frames it is empty.
            if last && message.came {
                self.inflate(&mut message, &TAIL)?;
                let takes_over = self.rules.compression.is_some_and(|c| !c.parameters.client_no_context_takeover);
                if message.ended || !takes_over {
                    self.history.clear();
                    self.inflating.clear();
                    self.inflated = 0;
                }
            }
        } else {
            message.payload.extend(payload);
        }
        let text = if message.text { from_utf8(&message.payload).map(|_| ()) } else { Ok(()) };
        let hopeless = |e: &Utf8Error| e.error_len().is_some();
        if text.as_ref().is_err_and(hopeless) {
            return Err(bad_text);
        }
        if !complete {
            return Err(Ending::Open);
        }
        if message.payload.len() > limit {
            return Err(too_large);
        }
        if !last {
            self.message = Some(message);
            return Ok(());
        }
        if text.is_err() {
            return Err(bad_text);
        }
        self.seen.messages.push(match String::from_utf8(message.payload) {
            Ok(payload) if message.text => Message::text(payload),
            Ok(payload) => Message::binary(payload.into_bytes()),
            Err(e) => Message::binary(e.into_bytes()),
        });
        Ok(())
    }

    fn inflate(&mut self, message: &mut Begun, bytes: &[u8]) -> Result<(), Ending> {
        self.inflating.extend(bytes);
        loop {
            let known = self.history.len() + self.inflated;
            let room = self.rules.max_message_size - message.payload.len();
            let mut more = inflate(&self.inflating, self.history.clone(), known + room);
            message.payload.extend(&more.output[known..]);
            match more.end {
                End::Bad | End::Long => return Err(COMPRESSED),
                End::Open(true) => {
                    // The window is no larger.
                    self.history = more.output.split_off(more.output.len().saturating_sub(1 << 15));
                    self.inflating.clear();
                    self.inflated = 0;
                    return Ok(());
                }
                End::Open(false) => {
                    self.inflated = more.output.len() - self.history.len();
                    return Ok(());
                }
                End::Last(length) => {
                    self.inflating.drain(..length);
                    self.history.clear();
                    self.inflated = 0;
                    message.ended = true;
                }
            }
        }
    }
}
