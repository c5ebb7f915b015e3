//! The frames of a mux. All numbers are little-endian.
//!
//! ```text
//! length of what follows the head (u32), kind (u8), stream (u64)
//!   1 data           bytes of the stream
//!   2 window update  u32: so many bytes were taken, and as many more may come
//!   3 end stream     the sender has no more of this stream
//!   4 reset          nor does it take any more; nothing of the sender follows
//!   5 multicast      in the place of the stream stands a number of them; bytes for them all, then their numbers (u64)
//! ```

use std::ops::Range;

/// Bytes of a frame before its body.
pub(crate) const HEAD: usize = 13;
/// The longest body.
pub const MAX_BODY: usize = 1 << 20;
/// Bytes of a stream's number.
pub(crate) const NUMBER: usize = 8;
/// Bytes that one read of a mux takes, at least half of it.
const READ: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Data = 1,
    WindowUpdate = 2,
    EndStream = 3,
    Reset = 4,
    Multicast = 5,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Bytes of a stream: a frame of them, or what has come of it.
    Data { stream: u64, bytes: &'a [u8] },
    /// So many bytes more may be sent.
    WindowUpdate { stream: u64, bytes: u32 },
    /// The other side has no more of this stream.
    EndStream { stream: u64 },
    /// The other side has nothing more to do with this stream.
    Reset { stream: u64 },
    /// The same bytes for several streams.
    Multicast { streams: StreamNumbers<'a>, bytes: &'a [u8] },
}

/// The numbers of streams, as they travel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StreamNumbers<'a>(&'a [u8]);

impl StreamNumbers<'_> {
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.as_chunks::<NUMBER>().0.iter().map(|number| u64::from_le_bytes(*number))
    }
}

/// The other side does not speak this language: what follows cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// There is no such frame.
    #[error("a frame of kind {kind} and {length} bytes")]
    Frame {
        /// Its kind.
        kind: u8,
        /// Of the body.
        length: usize,
    },
    /// More bytes came than were let.
    #[error("more of stream {0} than there is room for")]
    WindowExceeded(u64),
    /// More room was given than was taken.
    #[error("more window for stream {0} than there was before")]
    WindowOverflow(u64),
    /// Something came of a stream whose end had come.
    #[error("more of stream {0} after its end")]
    StreamEnded(u64),
}

#[derive(Debug)]
pub(crate) struct FrameDecoder {
    buffer: Vec<u8>,
    /// What is not yet understood.
    pending: Range<usize>,
    /// The data frame that is coming: its stream, and how much of it is missing.
    data: Option<(u64, usize)>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        FrameDecoder { buffer: Vec::new(), pending: 0..0, data: None }
    }
}

impl FrameDecoder {
    /// Where to read to; to be called when [`FrameDecoder::frame`] has nothing more.
    pub fn space(&mut self) -> &mut [u8] {
        let waiting = self.pending.len();
        if self.pending.start > 0 {
            self.buffer.copy_within(self.pending.clone(), 0);
            self.pending = 0..waiting;
        }
        // Long frames are rare.
        let size = if waiting < READ / 2 { READ } else { waiting + READ };
        if self.buffer.len() != size {
            self.buffer.resize(size, 0);
            self.buffer.shrink_to_fit();
        }
        &mut self.buffer[waiting..]
    }

    /// So many bytes were read to [`FrameDecoder::space`].
    pub fn filled(&mut self, count: usize) {
        self.pending.end = (self.pending.end + count).min(self.buffer.len());
    }

    /// The next frame; `None` when more has to be read first.
    ///
    /// # Errors
    /// There is none: nor will there be.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        if let Some((stream, missing)) = self.data {
            return Ok(Some(self.next_data(stream, missing)));
        }
        let pending = &self.buffer[self.pending.clone()];
        let Some((head, body)) = pending.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [a, b, c, d, kind, stream @ ..] = *head;
        let (length, stream) = (u32::from_le_bytes([a, b, c, d]) as usize, u64::from_le_bytes(stream));
        let bad = ProtocolError::Frame { kind, length };
        if length > MAX_BODY {
            return Err(bad);
        }
        const DATA: u8 = FrameKind::Data as u8;
        const WINDOW_UPDATE: u8 = FrameKind::WindowUpdate as u8;
        const END_STREAM: u8 = FrameKind::EndStream as u8;
        const RESET: u8 = FrameKind::Reset as u8;
        const MULTICAST: u8 = FrameKind::Multicast as u8;
        match (kind, length) {
            (DATA, 1..) => {
                self.pending.start += HEAD;
                if body.is_empty() {
                    self.data = Some((stream, length));
                    return Ok(None);
                }
                return Ok(Some(self.next_data(stream, length)));
            }
            (WINDOW_UPDATE, 4) | (END_STREAM | RESET, 0) => {}
            (MULTICAST, _) if (1..=(length.saturating_sub(1) / NUMBER) as u64).contains(&stream) => {}
            _ => return Err(bad),
        }
        let begin = self.pending.start + HEAD;
        if body.len() < length {
            return Ok(None);
        }
        self.pending.start = begin + length;
        let body = &self.buffer[begin..begin + length];
        Ok(Some(match kind {
            END_STREAM => Frame::EndStream { stream },
            RESET => Frame::Reset { stream },
            WINDOW_UPDATE => {
                Frame::WindowUpdate { stream, bytes: u32::from_le_bytes(body.try_into().map_err(|_| bad)?) }
            }
            _ => {
                let (bytes, numbers) = body.split_at(length - stream as usize * NUMBER);
                Frame::Multicast { streams: StreamNumbers(numbers), bytes }
            }
        }))
    }

    fn next_data(&mut self, stream: u64, missing: usize) -> Frame<'_> {
        let begin = self.pending.start;
        let count = missing.min(self.pending.len());
        self.pending.start += count;
        self.data = (count < missing).then_some((stream, missing - count));
        Frame::Data { stream, bytes: &self.buffer[begin..begin + count] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What [`Frame`] says, with the pieces of a data frame put together.
    #[derive(Debug, Clone, PartialEq)]
    enum Told {
        Data(u64, Vec<u8>),
        WindowUpdate(u64, u32),
        EndStream(u64),
        Reset(u64),
        Multicast(Vec<u64>, Vec<u8>),
    }

    fn decode(bytes: &[u8], chunk: usize) -> (Vec<Told>, Option<ProtocolError>) {
        let (mut decoder, mut told) = (FrameDecoder::default(), Vec::new());
        let mut whole = true;
        for piece in bytes.chunks(chunk.max(1)) {
            let mut piece = piece;
            while !piece.is_empty() {
                let space = decoder.space();
                assert!(!space.is_empty());
                let count = piece.len().min(space.len());
                space[..count].copy_from_slice(&piece[..count]);
                decoder.filled(count);
                piece = &piece[count..];
                loop {
                    let was_whole = whole;
                    let frame = match decoder.frame() {
                        Ok(Some(frame)) => frame,
                        Ok(None) => break,
                        Err(bad) => return (told, Some(bad)),
                    };
                    match frame {
                        Frame::Data { stream, bytes } => match told.last_mut() {
                            Some(Told::Data(last, all)) if !was_whole && *last == stream => all.extend(bytes),
                            _ => told.push(Told::Data(stream, bytes.to_vec())),
                        },
                        Frame::WindowUpdate { stream, bytes } => told.push(Told::WindowUpdate(stream, bytes)),
                        Frame::EndStream { stream } => told.push(Told::EndStream(stream)),
                        Frame::Reset { stream } => told.push(Told::Reset(stream)),
                        Frame::Multicast { streams, bytes } => {
                            told.push(Told::Multicast(streams.iter().collect(), bytes.to_vec()));
                        }
                    }
                    whole = decoder.data.is_none();
                }
            }
            assert!(decoder.buffer.len() <= HEAD + MAX_BODY + READ);
        }
        (told, None)
    }

    fn encode(frames: &[Told]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |kind: FrameKind, stream: u64, body: &[u8]| {
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.push(kind as u8);
            bytes.extend(stream.to_le_bytes());
            bytes.extend(body);
        };
        for frame in frames {
            match frame {
                Told::Data(stream, data) => put(FrameKind::Data, *stream, data),
                Told::WindowUpdate(stream, count) => put(FrameKind::WindowUpdate, *stream, &count.to_le_bytes()),
                Told::EndStream(stream) => put(FrameKind::EndStream, *stream, &[]),
                Told::Reset(stream) => put(FrameKind::Reset, *stream, &[]),
                Told::Multicast(streams, data) => {
                    let numbers = streams.iter().flat_map(|stream| stream.to_le_bytes());
                    put(
                        FrameKind::Multicast,
                        streams.len() as u64,
                        &data.iter().copied().chain(numbers).collect::<Vec<_>>(),
                    );
                }
            }
        }
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<Told>> {
        let data = || prop::collection::vec(any::<u8>(), 1..300);
        let frame = prop_oneof![
            (any::<u64>(), data()).prop_map(|(stream, data)| Told::Data(stream, data)),
            (any::<u64>(), any::<u32>()).prop_map(|(stream, count)| Told::WindowUpdate(stream, count)),
            any::<u64>().prop_map(Told::EndStream),
            any::<u64>().prop_map(Told::Reset),
            (prop::collection::vec(any::<u64>(), 1..9), data())
                .prop_map(|(streams, data)| Told::Multicast(streams, data)),
        ];
        prop::collection::vec(frame, 0..20)
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(frames in frames(), chunk in 1usize..100) {
            prop_assert_eq!(decode(&encode(&frames), chunk), (frames, None));
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400), chunk in 1usize..100, kind in 0u8..7,
        ) {
            let whole = decode(&bytes, bytes.len()).1;
            prop_assert_eq!(decode(&bytes, chunk).1, whole);
            // A head that is nearly one.
            if bytes.len() > HEAD {
                bytes[1..4].fill(0);
                bytes[4] = kind;
                bytes[6..HEAD].fill(0);
                let whole = decode(&bytes, bytes.len()).1;
                prop_assert_eq!(decode(&bytes, chunk).1, whole);
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_by_its_head() {
        let refused = |kind: u8, length: u32, stream: u64| {
            let mut head = length.to_le_bytes().to_vec();
            head.push(kind);
            head.extend(stream.to_le_bytes());
            assert_eq!(
                decode(&head, 5).1,
                Some(ProtocolError::Frame { kind, length: length as usize }),
                "{kind} {length} {stream}"
            );
        };
        for (kind, length, stream) in [(0, 0, 1), (6, 1, 1), (1, 0, 1), (2, 3, 1), (3, 1, 1), (4, 1, 1)] {
            refused(kind, length, stream);
        }
        // Nobody; nothing for somebody; more than fit in.
        for (length, streams) in [(8, 0), (8, 1), (16, 2), (17, 3), (17, u64::MAX)] {
            refused(FrameKind::Multicast as u8, length, streams);
        }
        for kind in [1, 5] {
            refused(kind, MAX_BODY as u32 + 1, 1);
        }
    }

    #[test]
    fn a_long_frame_leaves_no_long_buffer() {
        let long = Told::Multicast((0..1000).collect(), vec![7; 900_000]);
        let bytes = encode(&[long.clone(), long.clone()]);
        assert_eq!(decode(&bytes, 10_000).0, [long.clone(), long]);
        let mut decoder = FrameDecoder::default();
        for piece in bytes.chunks(1000) {
            decoder.space()[..piece.len()].copy_from_slice(piece);
            decoder.filled(piece.len());
            while decoder.frame().unwrap().is_some() {}
        }
        assert_eq!((decoder.space().len(), decoder.buffer.capacity()), (READ, READ));
    }
}
