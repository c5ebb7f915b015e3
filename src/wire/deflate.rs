//! permessage-deflate (RFC 7692 section 7.2) under tungstenite, which knows nothing of it: the frames of a client with
//! their compression undone, and the payloads of our own compressed.
//!
//! What a connection does not need between two messages belongs to its thread ([`Pool`]): without context takeover a
//! connection that compresses costs no more than one that does not.

use super::extension::{MAX_WINDOW_BITS, Parameters};
use super::frame::{Header, HeaderReader, unmask};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

/// What a compressor ends a message with, and what is left out of it (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Bytes of a client's payload that are unmasked at a time.
const SCRATCH: usize = 1024;
/// What zlib says of data that refers to what is not there.
const TOO_FAR: &str = "distance too far back";
/// The longest header of a frame that the translator writes: with a 16-bit length and a mask.
const HEADER: usize = 8;

/// How a session compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// What both sides agreed on.
    pub parameters: Parameters,
    /// 1 (fast) to 9 (small).
    pub level: u8,
    /// Bytes of the smallest message that is worth compressing.
    pub min_size: u32,
}

impl Compression {
    /// Two sessions of the same shape send the same bytes for a message. `None`: what a session sends depends on what it
    /// has sent before.
    pub fn shape(&self) -> Option<Compression> {
        self.parameters.server_no_context_takeover.then_some(*self)
    }

    /// The window that a message of `length` bytes is compressed with when it is compressed for itself; `None` when it
    /// cannot be.
    fn window_bits(&self, length: usize) -> Option<u8> {
        let most = self.parameters.server_max_window_bits;
        // What is no longer than the window refers to nothing beyond it, whatever the compressor is set to.
        if length <= 1 << most {
            return Some(MAX_WINDOW_BITS);
        }
        // zlib has no window of 256 bytes.
        (most > super::extension::MIN_WINDOW_BITS).then_some(most)
    }
}

/// Compressors and decompressors that no session needs at the moment, shared by the sessions of a thread.
#[derive(Default)]
pub struct Pool {
    inflaters: Vec<Inflate>,
    deflaters: Vec<Deflater>,
    /// Where compressed bytes land first.
    scratch: Vec<u8>,
}

/// A compressor with what it was made for, which cannot be asked of it.
struct Deflater {
    level: u8,
    window_bits: u8,
    deflate: Deflate,
}

impl Deflater {
    fn new(level: u8, window_bits: u8) -> Deflater {
        Deflater { level, window_bits, deflate: Deflate::new(level.into(), false, window_bits) }
    }
}

impl Pool {
    /// Decompressors that are kept: as many sessions as are in the middle of a message at a time, usually. Each has 20 to
    /// 50 KB.
    const INFLATERS: usize = 16;
    /// Compressors that are kept: one for each level and window that the configuration and its clients come to. Each has
    /// some 300 KB.
    const DEFLATERS: usize = 4;
    /// Bytes of scratch that are kept.
    const SCRATCH: usize = 64 * 1024;

    fn inflater(&mut self) -> Inflate {
        self.inflaters.pop().unwrap_or_else(|| Inflate::new(false, MAX_WINDOW_BITS))
    }

    fn put_back(&mut self, mut inflate: Inflate) {
        if self.inflaters.len() < Self::INFLATERS {
            inflate.reset(false);
            self.inflaters.push(inflate);
        }
    }

    fn deflater(&mut self, level: u8, window_bits: u8) -> Deflater {
        let found = self.deflaters.iter().position(|d| (d.level, d.window_bits) == (level, window_bits));
        match found {
            Some(place) => self.deflaters.remove(place),
            None => Deflater::new(level, window_bits),
        }
    }

    fn keep(&mut self, mut deflater: Deflater) {
        deflater.deflate.reset();
        // The one that was used last is the last that has to go.
        if self.deflaters.len() >= Self::DEFLATERS {
            self.deflaters.remove(0);
        }
        self.deflaters.push(deflater);
    }

    /// Compresses `payload` for itself; `None` when that makes it no smaller.
    fn compress(&mut self, level: u8, window_bits: u8, payload: &[u8]) -> Option<Bytes> {
        let mut deflater = self.deflater(level, window_bits);
        // To its end also when nothing comes of it: a zlib-rs compressor that is reset with output pending is not as new,
        // and one of level 1 panics later.
        let length = run(&mut deflater.deflate, payload, &mut self.scratch)?;
        let compressed = (length < payload.len()).then(|| Bytes::copy_from_slice(&self.scratch[..length]));
        self.tidy();
        self.keep(deflater);
        compressed
    }

    fn tidy(&mut self) {
        if self.scratch.len() > Self::SCRATCH {
            self.scratch = Vec::new();
        }
    }
}

/// The compression of a large message, slice by slice: others have their turn in between.
pub struct Slices {
    payload: Bytes,
    /// Bytes of it that are compressed.
    read: usize,
    out: Vec<u8>,
    written: usize,
    /// Of the session, which goes on with it; or of the pool.
    compressor: Result<Box<Deflate>, Box<Deflater>>,
    has_failed: bool,
}

impl Slices {
    /// Bytes of a message that are compressed at a time; no larger one is compressed otherwise. At level 9, text takes some
    /// milliseconds.
    pub const SLICE: usize = 64 * 1024;

    /// Compresses the next slice. True when that was the last.
    pub fn step(&mut self) -> bool {
        let end = self.payload.len().min(self.read + Self::SLICE);
        let is_last = end == self.payload.len();
        let flush = if is_last { DeflateFlush::SyncFlush } else { DeflateFlush::NoFlush };
        let deflate = match &mut self.compressor {
            Ok(own) => &mut **own,
            Err(lent) => &mut lent.deflate,
        };
        loop {
            if self.out.len() <= self.written {
                self.out.resize(self.written + Self::SLICE, 0);
            }
            let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
            let status = deflate.compress(&self.payload[self.read..end], &mut self.out[self.written..], flush);
            self.read += (deflate.total_in() - before_in) as usize;
            self.written += (deflate.total_out() - before_out) as usize;
            if status.is_err() {
                // Out of memory, say: the message goes out as it is.
                self.has_failed = true;
                return true;
            }
            if self.read == end && self.written < self.out.len() {
                return is_last;
            }
        }
    }
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices").field("read", &self.read).field("written", &self.written).finish_non_exhaustive()
    }
}

/// Compresses a message into `out`, without the tail; returns its length there. `None`: `deflate` is of no use any more.
fn run(deflate: &mut Deflate, payload: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let (mut read, mut written) = (0, 0);
    loop {
        // The scratch of earlier messages is not cleared again.
        if out.len() <= written {
            out.resize(written + payload.len() / 4 + 256, 0);
        }
        let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
        let status = deflate.compress(&payload[read..], &mut out[written..], DeflateFlush::SyncFlush);
        read += (deflate.total_in() - before_in) as usize;
        written += (deflate.total_out() - before_out) as usize;
        // Out of memory, say: the message goes out as it is.
        if status.is_err() {
            return None;
        }
        if read == payload.len() && written < out.len() {
            return written.checked_sub(TAIL.len());
        }
    }
}

/// permessage-deflate on one connection, both ways.
pub struct PerMessageDeflate {
    compression: Compression,
    /// With context takeover.
    deflate: Option<Box<Deflate>>,
    incoming: Incoming,
}

impl PerMessageDeflate {
    /// At the begin of a session.
    pub fn new(compression: Compression) -> PerMessageDeflate {
        let Parameters { client_no_context_takeover, client_max_window_bits, .. } = compression.parameters;
        let kept_bits = if client_no_context_takeover { 0 } else { client_max_window_bits };
        let incoming = Incoming { kept_bits, ..Incoming::default() };
        PerMessageDeflate { compression, deflate: None, incoming }
    }

    /// Two sessions of the same shape send the same bytes for a message.
    pub fn shape(&self) -> Option<Compression> {
        self.compression.shape()
    }

    /// The compressed form of a message; `None`: it goes out as it is.
    pub fn compress(&mut self, pool: &mut Pool, payload: &[u8]) -> Option<Bytes> {
        let Compression { parameters, level, min_size } = self.compression;
        // An empty message has nothing that could become smaller.
        if payload.len() < min_size.max(1) as usize {
            return None;
        }
        if parameters.server_no_context_takeover {
            return pool.compress(level, self.compression.window_bits(payload.len())?, payload);
        }
        let deflate = self
            .deflate
            .get_or_insert_with(|| Box::new(Deflate::new(level.into(), false, parameters.server_max_window_bits)));
        // The compressor has gone on, and with it the client's decompressor must: also when the message became longer.
        let length = run(deflate, payload, &mut pool.scratch);
        let compressed = length.map(|length| Bytes::copy_from_slice(&pool.scratch[..length]));
        pool.tidy();
        compressed
    }

    /// As [`PerMessageDeflate::compress`], in slices. `None`: the message is small, or goes out as it is.
    pub fn begin(&mut self, pool: &mut Pool, payload: &Bytes) -> Option<Slices> {
        let Compression { parameters, level, min_size } = self.compression;
        if payload.len() <= Slices::SLICE || payload.len() < min_size as usize {
            return None;
        }
        let compressor = if parameters.server_no_context_takeover {
            Err(Box::new(pool.deflater(level, self.compression.window_bits(payload.len())?)))
        } else {
            let new = || Box::new(Deflate::new(level.into(), false, parameters.server_max_window_bits));
            Ok(self.deflate.take().unwrap_or_else(new))
        };
        let payload = payload.clone();
        Some(Slices { payload, read: 0, out: Vec::new(), written: 0, compressor, has_failed: false })
    }

    /// What came of it, after the last slice; `None`: the message goes out as it is.
    pub fn end(&mut self, pool: &mut Pool, slices: Slices) -> Option<Bytes> {
        let Slices { payload, mut out, written, compressor, has_failed, .. } = slices;
        out.truncate(written.saturating_sub(TAIL.len()));
        let mut is_of_use = !has_failed;
        match compressor {
            Ok(own) => self.deflate = Some(own),
            Err(lent) => {
                is_of_use &= out.len() < payload.len();
                pool.keep(*lent);
            }
        }
        is_of_use.then(|| out.into())
    }

    /// What is no compressed data refers to what the client had agreed to forget.
    pub fn has_forgotten(&self) -> bool {
        self.incoming.has_forgotten
    }

    /// Bytes that the message under way has become so far.
    pub fn inflated(&self) -> u64 {
        self.incoming.inflated
    }

    /// Bytes that it holds between two messages, or in the middle of one.
    pub fn held(&self) -> usize {
        let Parameters { server_max_window_bits, .. } = self.compression.parameters;
        // zlib's window, its hash chains and its symbols.
        let deflate = self.deflate.as_ref().map_or(0, |_| (4 << server_max_window_bits) + (160 << 10));
        let Incoming { window, inflate, rest, .. } = &self.incoming;
        let inflate = inflate.as_ref().map_or(0, |_| (1 << MAX_WINDOW_BITS) + (10 << 10));
        let window = window.as_ref().map_or(0, |window| size_of::<Window>() + window.bytes.capacity());
        deflate + inflate + window + rest.as_ref().map_or(0, Vec::capacity)
    }

    /// [`Incoming::keep`] has kept something.
    pub fn has_rest(&self) -> bool {
        self.incoming.rest.is_some()
    }

    /// What it kept, and that no more.
    pub fn take_rest(&mut self) -> Option<Vec<u8>> {
        self.incoming.rest.take()
    }

    /// The client's frames, decompressed: see [`Incoming::read`].
    pub fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }
}

impl std::fmt::Debug for PerMessageDeflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerMessageDeflate").field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// What a client's next message may refer to: the last bytes of those before. Between two messages it is all that is kept.
#[derive(Default)]
struct Window {
    /// At most two to the power of the window's bits.
    bytes: Vec<u8>,
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

/// The translator of a client's frames. It relies on a [`super::cursor::Cursor`] that has passed over them.
#[derive(Default)]
pub struct Incoming {
    /// How far back, in bits, a message may refer to those before it; 0: not at all.
    kept_bits: u8,
    /// The client has begun a compressed message before.
    has_begun: bool,
    /// The client has referred to what it had agreed to forget.
    has_forgotten: bool,
    window: Option<Box<Window>>,
    /// What of the client's bytes is still to be decoded: kept where a message was found large and others wait.
    rest: Option<Vec<u8>>,
    inflate: Option<Box<Inflate>>,
    /// The stream in `inflate` had an end (a DEFLATE block with BFINAL, section 7.2.3.4).
    ended: bool,
    header: HeaderReader,
    /// The frame under way.
    frame: Option<Payload>,
    /// The message under way is compressed.
    compressed: bool,
    /// What the next piece of it is called: its own opcode, then a continuation's.
    opcode: u8,
    /// How much of the tail the decompressor has seen.
    tail: u8,
    /// Bytes that the message under way has become.
    inflated: u64,
}

#[derive(Clone, Copy)]
struct Payload {
    header: Header,
    /// Bytes that have come.
    position: u64,
}

impl Payload {
    fn left(&self) -> u64 {
        self.header.length - self.position
    }
}

impl Incoming {
    /// Writes what `input` decompresses to into `out`, as (parts of) masked frames of which none is compressed: what
    /// is inflated comes as fragments that fill `out`, so nobody waits for the whole message, and nothing is inflated
    /// that nobody asks for. Takes what it used off `input`; returns how many bytes it wrote.
    ///
    /// `out` has room for a header whenever a frame begins.
    ///
    /// # Errors
    /// `WouldBlock`: `input` is used up. `InvalidData`: it is no compressed data.
    pub fn read(&mut self, pool: &mut Pool, input: &mut &[u8], out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(payload) = self.frame else {
                let header = self.header.read(input).ok_or(io::ErrorKind::WouldBlock)?;
                self.frame = Some(Payload { header, position: 0 });
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

    fn copy(&mut self, payload: Payload, input: &mut &[u8], out: &mut [u8]) -> io::Result<usize> {
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = payload.left().min(input.len().min(out.len()) as u64);
        let (piece, rest) = input.split_at(count as usize);
        out[..piece.len()].copy_from_slice(piece);
        *input = rest;
        self.frame = Some(Payload { position: payload.position + count, ..payload });
        Ok(piece.len())
    }

    /// Writes one fragment. `None`: this frame is used up without one.
    fn inflate(
        &mut self,
        mut payload: Payload,
        pool: &mut Pool,
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

    /// Keeps what was not decoded for later.
    pub fn keep(&mut self, rest: &[u8]) {
        self.rest = Some(rest.to_vec());
    }
}

/// Writes a frame's header, RSV bits apart, to the front of `out`; returns its length.
fn put_header(out: &mut [u8], header: &Header) -> usize {
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

#[cfg(test)]
pub(super) mod tests;
