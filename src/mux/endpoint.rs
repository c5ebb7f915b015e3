//! One end of a mux, without its socket: what is read goes in, what is to be written comes out.

use super::flow::{Remote, SpareBuffers};
use super::frame::{Frame, FrameDecoder, ProtocolError};
use super::send_buffer::SendBuffer;
use super::stream::{Local, Stream};
pub use super::stream::{Received, StreamEvent};
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, IoSlice};

/// While this much waits to be written, nobody adds to it.
pub const MAX_BUFFERED: usize = 1 << 20;

/// One end. `T` is what its owner keeps of a stream.
#[derive(Debug)]
pub struct Endpoint<T> {
    decoder: FrameDecoder,
    /// What is to be written.
    pub send_buffer: SendBuffer,
    streams: HashMap<u64, Stream<T>, BuildHasherDefault<Spread>>,
    spare: SpareBuffers,
    broken: bool,
}

impl<T> Default for Endpoint<T> {
    fn default() -> Self {
        Endpoint {
            decoder: FrameDecoder::default(),
            send_buffer: SendBuffer::default(),
            streams: HashMap::default(),
            spare: SpareBuffers::default(),
            broken: false,
        }
    }
}

impl<T: Default> Endpoint<T> {
    /// A session of this number is here, and takes and sends what goes over its stream.
    pub fn open(&mut self, stream: u64, keep: T) {
        let broken = self.broken;
        let stream = self.streams.entry(stream).or_default();
        stream.local = Local::Open;
        stream.keep = keep;
        if broken {
            stream.flow.close();
        }
    }

    /// The session has nothing more to do with its stream.
    pub fn close(&mut self, stream: u64) {
        let Entry::Occupied(mut entry) = self.streams.entry(stream) else { return };
        let known = entry.get_mut();
        if known.local == Local::Closed {
            return;
        }
        if !self.broken {
            self.send_buffer.reset(stream);
        }
        if known.flow.remote() == Remote::Closed {
            entry.remove();
        } else {
            known.flow.discard(&mut self.spare);
            known.local = Local::Closed;
            known.keep = T::default();
        }
    }

    /// StreamNumbers that are not over.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// No stream is left.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// What the owner keeps of a stream.
    pub fn keep(&mut self, stream: u64) -> Option<&mut T> {
        self.streams.get_mut(&stream).map(|stream| &mut stream.keep)
    }

    /// Where to read to.
    pub fn space(&mut self) -> &mut [u8] {
        self.decoder.space()
    }

    /// So many bytes were read to [`Endpoint::space`]. `tell` hears what that means for streams that are open.
    ///
    /// # Errors
    /// The other side does not keep to the rules: the mux is of no use any more.
    pub fn filled(&mut self, count: usize, mut tell: impl FnMut(&mut T, StreamEvent)) -> Result<(), ProtocolError> {
        let Endpoint { decoder, streams, spare, .. } = self;
        decoder.filled(count);
        while let Some(frame) = decoder.frame()? {
            match frame {
                Frame::Data { stream, bytes } => {
                    streams.entry(stream).or_default().receive(stream, bytes, spare, &mut tell)?;
                }
                Frame::Multicast { streams: numbers, bytes } => {
                    for stream in numbers.iter() {
                        streams.entry(stream).or_default().receive(stream, bytes, spare, &mut tell)?;
                    }
                }
                Frame::WindowUpdate { stream, bytes } => {
                    // For one that is over, it was under way.
                    if let Some(known) = streams.get_mut(&stream).filter(|known| known.local == Local::Open) {
                        known.flow.widen(stream, bytes)?;
                        tell(&mut known.keep, StreamEvent::Writable);
                    }
                }
                Frame::EndStream { stream } => {
                    let known = streams.entry(stream).or_default();
                    known.flow.remote_ends(stream, Remote::HalfClosed)?;
                    known.tell(StreamEvent::Ended, &mut tell);
                }
                Frame::Reset { stream } => {
                    let known = streams.entry(stream).or_default();
                    known.flow.remote_ends(stream, Remote::Closed)?;
                    known.tell(StreamEvent::Reset, &mut tell);
                    if known.local == Local::Closed {
                        streams.remove(&stream);
                    }
                }
            }
        }
        Ok(())
    }

    /// The other end is no more. `tell` hears of every stream that is open.
    pub fn disconnect(&mut self, mut tell: impl FnMut(&mut T, StreamEvent)) {
        self.broken = true;
        self.send_buffer.clear();
        self.streams.retain(|_, stream| stream.local == Local::Open);
        for stream in self.streams.values_mut().filter(|stream| stream.flow.remote() != Remote::Closed) {
            stream.flow.close();
            stream.tell(StreamEvent::Reset, &mut tell);
        }
    }

    /// What there is to take of a stream.
    pub fn received(&self, stream: u64) -> Received<'_> {
        let Some(Stream { flow, .. }) = self.streams.get(&stream) else { return Received::End };
        match flow.waiting() {
            [] if flow.remote() == Remote::Open => Received::Nothing,
            [] => Received::End,
            bytes => Received::Bytes(bytes),
        }
    }

    /// So many bytes were taken, of those that waited.
    pub fn take(&mut self, stream: u64, bytes: usize) {
        if let Some(known) = self.streams.get_mut(&stream)
            && let Some(told) = known.flow.take(bytes, &mut self.spare)
        {
            self.send_buffer.window_update(stream, told);
        }
    }

    /// The other side sends no more of this stream, though perhaps not all that it has sent is taken.
    pub fn is_ended(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_none_or(|known| known.flow.remote() != Remote::Open)
    }

    /// Bytes that may be added for this stream now.
    ///
    /// # Errors
    /// `BrokenPipe`: the other side takes no more of it, or is no more.
    pub fn room(&self, stream: u64) -> io::Result<usize> {
        let known = self.streams.get(&stream).filter(|known| known.flow.remote() != Remote::Closed);
        let known = known.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(if self.send_buffer.len() < MAX_BUFFERED { known.flow.send_window() } else { 0 })
    }

    /// Adds bytes for this stream, as many as may be; returns how many.
    ///
    /// # Errors
    /// As [`Endpoint::room`], and `WouldBlock` where none may.
    pub fn write(&mut self, stream: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = self.some_room(stream)?;
        let mut written = 0;
        for slice in slices {
            let piece = &slice[..slice.len().min(room - written)];
            if !piece.is_empty() {
                self.send_buffer.data(stream, piece);
                written += piece.len();
            }
        }
        self.spend(stream, written);
        Ok(written)
    }

    /// As [`Endpoint::write`], for bytes that the next may get as well: those that come right after this share a copy.
    pub fn write_shared(&mut self, stream: u64, bytes: &Bytes) -> io::Result<usize> {
        let room = self.some_room(stream)?;
        if bytes.len() > room {
            return self.write(stream, &[IoSlice::new(bytes)]);
        }
        if !bytes.is_empty() {
            self.send_buffer.shared(stream, bytes);
            self.spend(stream, bytes.len());
        }
        Ok(bytes.len())
    }

    /// Adds what `read` puts behind the buffer for this stream, which is at most `most` bytes; returns what it says.
    ///
    /// # Errors
    /// What `read` says, and as [`Endpoint::room`]. `WouldBlock` where not so many may be added: then it is not called.
    pub fn fill(
        &mut self,
        stream: u64,
        most: usize,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.room(stream)? < most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.send_buffer.fill(stream, most, read)?;
        self.spend(stream, count);
        Ok(count)
    }

    /// Says that nothing more will be written for this stream.
    pub fn end_stream(&mut self, stream: u64) {
        if !self.broken {
            self.send_buffer.end_stream(stream);
        }
    }

    fn some_room(&self, stream: u64) -> io::Result<usize> {
        self.room(stream).and_then(|room| if room > 0 { Ok(room) } else { Err(io::ErrorKind::WouldBlock.into()) })
    }

    fn spend(&mut self, stream: u64, bytes: usize) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.flow.note_sent(bytes);
        }
    }
}

/// Numbers that are given one after the other, spread over the table: nobody chooses them to collide.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the table looks at the highest bits and at the lowest.
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests;
