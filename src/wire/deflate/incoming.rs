//! The frames of a client, with their compression undone.

use super::{DeflatePool, TAIL};
use crate::wire::extension::MAX_WINDOW_BITS;
use crate::wire::frame::{Header, HeaderReader, unmask};
use bytes::Bytes;
use std::io;
use zlib_rs::{Inflate, InflateFlush, Status};

/// Bytes of a client's payload that are unmasked at a time.
const SCRATCH: usize = 1024;
/// What zlib says of data that refers to what is not there.
const TOO_FAR: &str = "distance too far back";
/// The longest header of a frame that the translator writes: with a 16-bit length and a mask.
const HEADER: usize = 8;

/// What a client's next message may refer to: the last bytes of those before. Between two messages it is all that is kept.
#[derive(Default)]
pub(super) struct Window {
    /// At most two to the power of the window's bits.
    pub(super) bytes: Vec<u8>,
    /// Where the oldest stand, once it is full.
    oldest: usize,
}

impl Window {
    /// Takes in what was said, forgetting what is further back than `most` bytes.
    fn push(&mut self, mut said: &[u8], most: usize) {
        said = &said[said.len().saturating_sub(most)..];
        let (head, mut said) = said.split_at(said.len().min(most - self.bytes.len()));
        if !head.is_empty() {
            // What short messages have said needs no more than that.
            self.bytes.reserve_exact(head.len().next_power_of_two().min(most - self.bytes.len()));
            self.bytes.extend_from_slice(head);
        }
        while !said.is_empty() {
            let (now, later) = said.split_at(said.len().min(most - self.oldest));
            self.bytes[self.oldest..][..now.len()].copy_from_slice(now);
            self.oldest = (self.oldest + now.len()) % most;
            said = later;
        }
    }

    /// Lets a new stream refer to it.
    fn lend(&self, inflate: &mut Inflate) {
        let (newer, older) = self.bytes.split_at(self.oldest);
        for part in [older, newer].into_iter().filter(|part| !part.is_empty()) {
            // It fails only in the middle of a stream, or for want of memory; then what refers to it is no data.
            let _ = inflate.set_dictionary(part);
        }
    }
}

/// The translator of a client's frames. It relies on a [`crate::wire::frame_scanner::FrameScanner`] that has passed over them.
#[derive(Default)]
pub struct Incoming {
    /// How far back, in bits, a message may refer to those before it; 0: not at all.
    kept_bits: u8,
    has_begun: bool,
    /// The client has referred to what it had agreed to forget.
    pub(super) has_forgotten: bool,
    pub(super) window: Option<Box<Window>>,
    /// What of the client's bytes is still to be decoded: kept where a message was found large and others wait.
    pub(super) rest: Option<Box<Bytes>>,
    pub(super) inflate: Option<Box<Inflate>>,
    /// The stream in `inflate` had an end (a DEFLATE block with BFINAL, section 7.2.3.4).
    ended: bool,
    header: HeaderReader,
    frame: Option<OpenFrame>,
    compressed: bool,
    /// What the next piece of it is called: its own opcode, then a continuation's.
    opcode: u8,
    /// How much of the tail the decompressor has seen.
    tail: u8,
    pub(super) inflated: u64,
}

#[derive(Clone, Copy)]
struct OpenFrame {
    header: Header,
    position: u64,
}

impl OpenFrame {
    fn left(&self) -> u64 {
        self.header.length - self.position
    }
}

impl Incoming {
    pub(super) fn new(kept_bits: u8) -> Incoming {
        Incoming { kept_bits, ..Incoming::default() }
    }

    /// Writes what `input` decompresses to into `out`, as (parts of) masked frames of which none is compressed: what
    /// is inflated comes as fragments that fill `out`, so nobody waits for the whole message, and nothing is inflated
    /// that nobody asks for. Takes what it used off `input`; returns how many bytes it wrote.
    ///
    /// `out` has room for a header whenever a frame begins.
    ///
    /// # Errors
    /// `WouldBlock`: `input` is used up. `InvalidData`: it is no compressed data.
    pub fn read(&mut self, pool: &mut DeflatePool, input: &mut &[u8], out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(payload) = self.frame else {
                let header = self.header.read(input).ok_or(io::ErrorKind::WouldBlock)?;
                self.frame = Some(OpenFrame { header, position: 0 });
                if !header.is_control() && header.opcode != 0 {
                    self.compressed = header.reserved == Header::COMPRESSED;
                    self.opcode = header.opcode;
                }
                if self.compressed && !header.is_control() {
                    // A message without a byte is an empty one, though no compressor makes that of it.
                    if self.inflate.is_none() && header.length == 0 && header.fin {
                        self.frame = None;
                        self.compressed = false;
                        let mask = Some([0; 4]);
                        return Ok(put_header(out, &Header { opcode: self.opcode, reserved: 0, mask, ..header }));
                    }
                    continue;
                }
                return Ok(put_header(out, &header));
            };
            let inflates = self.compressed && !payload.header.is_control();
            if payload.left() == 0 && !(inflates && payload.header.fin) {
                self.frame = None;
                continue;
            }
            if !inflates {
                return self.copy(payload, input, out);
            }
            if let Some(written) = self.inflate(payload, pool, input, out)? {
                return Ok(written);
            }
        }
    }

    fn copy(&mut self, payload: OpenFrame, input: &mut &[u8], out: &mut [u8]) -> io::Result<usize> {
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = payload.left().min(input.len().min(out.len()) as u64);
        let (piece, rest) = input.split_at(count as usize);
        out[..piece.len()].copy_from_slice(piece);
        *input = rest;
        self.frame = Some(OpenFrame { position: payload.position + count, ..payload });
        Ok(piece.len())
    }

    /// Writes one fragment. `None`: this frame is used up without one.
    fn inflate(
        &mut self,
        mut payload: OpenFrame,
        pool: &mut DeflatePool,
        input: &mut &[u8],
        out: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let mut inflate = self.inflate.take().unwrap_or_else(|| {
            let mut inflate = pool.inflater();
            if let Some(window) = &self.window {
                window.lend(&mut inflate);
            }
            Box::new(inflate)
        });
        let (head, room) = out.split_at_mut(HEADER.min(out.len()));
        let most = room.len().min(u16::MAX.into());
        let room = &mut room[..most];
        let mut written = 0;
        let is_complete = loop {
            let mut scratch = [0; SCRATCH];
            let in_tail = payload.left() == 0;
            let source = if in_tail {
                if !payload.header.fin {
                    break false;
                }
                &TAIL[usize::from(self.tail)..]
            } else {
                let count = payload.left().min(input.len().min(SCRATCH) as u64) as usize;
                if count == 0 {
                    break false;
                }
                let source = &mut scratch[..count];
                source.copy_from_slice(&input[..count]);
                unmask(source, payload.header.mask.unwrap_or_default(), payload.position);
                source
            };
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            let status = match inflate.decompress(source, &mut room[written..], InflateFlush::SyncFlush) {
                Ok(status) => status,
                Err(e) => {
                    self.has_forgotten = self.has_begun && self.kept_bits < MAX_WINDOW_BITS && {
                        let is_far = |why: &str| why.contains(TOO_FAR);
                        inflate.error_message().is_some_and(is_far) || (before_in == 0 && self.refers_back(source))
                    };
                    return Err(io::Error::new(io::ErrorKind::InvalidData, e.as_str()));
                }
            };
            let read = (inflate.total_in() - before_in) as usize;
            let more = (inflate.total_out() - before_out) as usize;
            if self.kept_bits > 0 && more > 0 {
                self.window.get_or_insert_default().push(&room[written..][..more], 1 << self.kept_bits);
            }
            written += more;
            if read == 0 && more == 0 && !in_tail {
                // It has both input and room, so this is not to be expected; but nothing would end the loop.
                return Err(io::ErrorKind::InvalidData.into());
            }
            if in_tail {
                self.tail += read as u8;
            } else {
                payload.position += read as u64;
                *input = &input[read..];
            }
            if status == Status::StreamEnd {
                // What follows is a stream of its own.
                inflate.reset(false);
                self.ended = true;
            }
            if written == most {
                break false;
            }
            // There was room for more, so there is no more.
            if in_tail && (usize::from(self.tail) == TAIL.len() || read == 0) {
                break true;
            }
        };
        self.frame = Some(payload);
        self.inflated += written as u64;
        if !is_complete && written == 0 {
            self.inflate = Some(inflate);
            return if payload.left() == 0 { Ok(None) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let header = Header {
            fin: is_complete,
            reserved: 0,
            opcode: std::mem::take(&mut self.opcode),
            // It changes nothing, but a client's frame has one.
            mask: Some([0; 4]),
            length: written as u64,
        };
        let begin = put_header(head, &header);
        // A short header leaves a gap before what was inflated.
        out.copy_within(HEADER..HEADER + written, begin);
        if is_complete {
            self.frame = None;
            self.tail = 0;
            self.inflated = 0;
            self.has_begun = true;
            if std::mem::take(&mut self.ended) {
                self.window = None;
            }
            pool.put_back(*inflate);
        } else {
            self.inflate = Some(inflate);
        }
        Ok(Some(begin + written))
    }

    /// Whether a message is wrong for referring to what is not there, of which this is the beginning and has the fault. zlib-rs
    /// says so only where it decodes a few bytes at a time, and otherwise that something is wrong.
    fn refers_back(&self, beginning: &[u8]) -> bool {
        let mut inflate = Inflate::new(false, MAX_WINDOW_BITS);
        if let Some(window) = &self.window {
            window.lend(&mut inflate);
        }
        let mut out = [0; SCRATCH];
        for mut few in beginning.chunks(4) {
            loop {
                let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
                if inflate.decompress(few, &mut out, InflateFlush::SyncFlush).is_err() {
                    return inflate.error_message().is_some_and(|why| why.contains(TOO_FAR));
                }
                few = &few[(inflate.total_in() - before_in) as usize..];
                if inflate.total_out() - before_out < SCRATCH as u64 {
                    break;
                }
            }
        }
        false
    }
}

/// Writes a frame's header, RSV bits apart, to the front of `out`; returns its length.
pub(super) fn put_header(out: &mut [u8], header: &Header) -> usize {
    out[0] = if header.fin { 0x80 } else { 0 } | header.opcode;
    let mut at = match header.length {
        0..=125 => {
            out[1] = header.length as u8;
            2
        }
        126..=0xffff => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(header.length as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&header.length.to_be_bytes());
            10
        }
    };
    if let Some(mask) = header.mask {
        out[1] |= 0x80;
        out[at..at + 4].copy_from_slice(&mask);
        at += 4;
    }
    at
}
