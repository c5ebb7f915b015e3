//! What is to go over a mux next: frames behind each other in one buffer, written at once.
//!
//! The last of them may grow until it is written: by more bytes of its stream, or by more streams for the same bytes.

use super::frame::{FrameKind, HEAD, MAX_BODY, NUMBER};
use bytes::Bytes;
use std::io;

/// A buffer that grew over this many bytes is not kept.
const KEPT: usize = 256 * 1024;

/// The frames that wait.
#[derive(Debug, Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    written: usize,
    last: Last,
}

/// The last frame, if it may grow. Where it begins, and:
#[derive(Debug, Default)]
enum Last {
    #[default]
    Finished,
    Data {
        begin: usize,
        stream: u64,
    },
    /// Bytes that others may get as well, for so many streams. They are kept so that no others can take their place.
    Shared {
        begin: usize,
        stream: u64,
        payload: Bytes,
        count: usize,
    },
}

impl SendBuffer {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes of a stream, no more than a frame takes.
    pub fn data(&mut self, stream: u64, bytes: &[u8]) {
        let begin = self.begin_data(stream, bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.end_data(begin, stream);
    }

    /// Adds what `read` puts behind the buffer, at most `most` bytes: to be sent to this stream.
    ///
    /// # Errors
    /// What `read` says.
    pub fn fill(
        &mut self,
        stream: u64,
        most: usize,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let before = self.bytes.len();
        let begin = self.begin_data(stream, most);
        let filled = self.bytes.len();
        let outcome = read(&mut self.bytes);
        if self.bytes.len() > filled {
            self.end_data(begin, stream);
        } else {
            // Where there was a frame to go on with, it is as it was.
            self.bytes.truncate(before);
        }
        outcome
    }

    /// The place of the frame in which `more` bytes of a stream can go.
    fn begin_data(&mut self, stream: u64, more: usize) -> usize {
        match self.last {
            Last::Data { begin, stream: last } if last == stream && self.body(begin) + more <= MAX_BODY => begin,
            _ => {
                let begin = self.bytes.len();
                self.head(FrameKind::Data, stream, 0);
                begin
            }
        }
    }

    fn end_data(&mut self, begin: usize, stream: u64) {
        self.set_length(begin);
        self.last = Last::Data { begin, stream };
    }

    /// Adds bytes that others may get as well: those that come right after this are all served by one copy.
    pub fn shared(&mut self, stream: u64, payload: &Bytes) {
        if let Last::Shared { begin, stream: first, payload: last, count } = &mut self.last
            && (last.as_ptr(), last.len()) == (payload.as_ptr(), payload.len())
            && last.len() + (*count + 1) * NUMBER <= MAX_BODY
        {
            if *count == 1 {
                self.bytes[*begin + 4] = FrameKind::Multicast as u8;
                self.bytes.extend_from_slice(&first.to_le_bytes());
            }
            *count += 1;
            self.bytes.extend_from_slice(&stream.to_le_bytes());
            let (begin, count) = (*begin, *count as u64);
            self.bytes[begin + 5..begin + HEAD].copy_from_slice(&count.to_le_bytes());
            self.set_length(begin);
            return;
        }
        let begin = self.bytes.len();
        self.head(FrameKind::Data, stream, payload.len());
        self.bytes.extend_from_slice(payload);
        self.last = Last::Shared { begin, stream, payload: payload.clone(), count: 1 };
    }

    /// Adds a [`FrameKind::WindowUpdate`].
    pub fn window_update(&mut self, stream: u64, bytes: u32) {
        self.head(FrameKind::WindowUpdate, stream, 4);
        self.bytes.extend_from_slice(&bytes.to_le_bytes());
        self.last = Last::Finished;
    }

    /// Adds a [`FrameKind::EndStream`].
    pub fn end_stream(&mut self, stream: u64) {
        self.head(FrameKind::EndStream, stream, 0);
        self.last = Last::Finished;
    }

    /// Adds a [`FrameKind::Reset`].
    pub fn reset(&mut self, stream: u64) {
        self.head(FrameKind::Reset, stream, 0);
        self.last = Last::Finished;
    }

    fn head(&mut self, kind: FrameKind, stream: u64, length: usize) {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[4] = kind as u8;
        head[5..].copy_from_slice(&stream.to_le_bytes());
        self.bytes.extend_from_slice(&head);
    }

    /// How long the body of the last frame is, which begins there.
    fn body(&self, begin: usize) -> usize {
        self.bytes.len() - begin - HEAD
    }

    fn set_length(&mut self, begin: usize) {
        let length = self.body(begin) as u32;
        self.bytes[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Writes until nothing is left or `write` says `WouldBlock`, which is `Ok(false)`.
    ///
    /// # Errors
    /// What `write` says, but for `WouldBlock` and `Interrupted`.
    pub fn write(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        self.last = Last::Finished;
        while self.written < self.bytes.len() {
            match write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Else it would grow for as long as something is left.
                    if self.written > self.len() {
                        self.bytes.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        self.clear();
        Ok(true)
    }

    /// Nothing of it is of use any more.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.written = 0;
        self.last = Last::Finished;
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Frame, FrameDecoder};
    use super::*;

    /// All that waits, in words.
    fn told(out: &mut SendBuffer) -> Vec<String> {
        let mut bytes = Vec::new();
        assert!(
            out.write(|piece| {
                bytes.extend_from_slice(piece);
                Ok(piece.len())
            })
            .unwrap()
        );
        assert!(out.is_empty());
        let (mut decoder, mut told) = (FrameDecoder::default(), Vec::new());
        decoder.space()[..bytes.len()].copy_from_slice(&bytes);
        decoder.filled(bytes.len());
        while let Some(frame) = decoder.frame().unwrap() {
            told.push(match frame {
                Frame::Data { stream, bytes } => format!("{stream} {}", String::from_utf8_lossy(bytes)),
                Frame::Multicast { streams, bytes } => {
                    format!("{:?} {}", streams.iter().collect::<Vec<_>>(), String::from_utf8_lossy(bytes))
                }
                other => format!("{other:?}"),
            });
        }
        told
    }

    #[test]
    fn bytes_of_a_stream_that_follow_each_other_are_one_frame() {
        let mut out = SendBuffer::default();
        out.data(1, b"a");
        out.data(1, b"b");
        assert_eq!(
            out.fill(1, 5, |bytes| {
                bytes.push(b'c');
                Ok(1)
            })
            .unwrap(),
            1
        );
        assert_eq!(out.fill(1, 5, |_| Ok(0)).unwrap(), 0);
        assert!(out.fill(2, 5, |_| Err(io::ErrorKind::WouldBlock.into())).is_err());
        out.data(1, b"d");
        out.data(2, b"e");
        out.data(1, b"f");
        out.end_stream(1);
        out.data(2, b"g");
        assert_eq!(told(&mut out), ["1 abcd", "2 e", "1 f", "EndStream { stream: 1 }", "2 g"]);
        out.data(2, b"h");
        assert_eq!(told(&mut out), ["2 h"]);
    }

    #[test]
    fn what_is_for_many_goes_once() {
        let mut out = SendBuffer::default();
        let text = Bytes::from_static(b"news and more news");
        let news = text.slice(..4);
        out.shared(1, &news);
        assert_eq!(out.len(), HEAD + 4);
        for stream in 2..=5 {
            out.shared(stream, &news);
        }
        assert_eq!(out.len(), HEAD + 4 + 5 * NUMBER);
        // The same text at another place, a part of it, and once more after something else.
        out.shared(1, &text.slice(14..));
        out.shared(2, &text.slice(14..));
        out.shared(3, &text.slice(14..17));
        out.shared(3, &news);
        out.data(3, b"!");
        out.shared(4, &news);
        out.window_update(4, 7);
        out.shared(5, &news);
        let expected = [
            "[1, 2, 3, 4, 5] news",
            "[1, 2] news",
            "3 new",
            "3 news",
            "3 !",
            "4 news",
            "WindowUpdate { stream: 4, bytes: 7 }",
            "5 news",
        ];
        assert_eq!(told(&mut out), expected);
    }

    #[test]
    fn what_is_being_written_does_not_change() {
        let mut out = SendBuffer::default();
        let news = Bytes::from_static(b"news");
        out.shared(1, &news);
        let mut begin = Vec::new();
        let mut one = |piece: &[u8]| match begin.is_empty() {
            true => {
                begin.push(piece[0]);
                Ok(1)
            }
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        assert!(!out.write(&mut one).unwrap());
        out.shared(2, &news);
        let mut rest = begin;
        assert!(
            out.write(|piece| {
                rest.extend_from_slice(piece);
                Ok(piece.len())
            })
            .unwrap()
        );
        let mut whole = SendBuffer::default();
        whole.data(1, b"news");
        whole.end_stream(9);
        whole.data(2, b"news");
        let mut expected = Vec::new();
        whole
            .write(|piece| {
                expected.extend_from_slice(piece);
                Ok(piece.len())
            })
            .unwrap();
        expected.drain(HEAD + 4..2 * HEAD + 4);
        assert_eq!(rest, expected);
    }

    #[test]
    fn no_frame_grows_too_long() {
        let mut out = SendBuffer::default();
        for _ in 0..3 {
            out.data(1, &[0; MAX_BODY / 2]);
        }
        assert_eq!(out.len(), 3 * (MAX_BODY / 2) + 2 * HEAD);
        out.clear();
        assert!(out.bytes.capacity() <= KEPT);
        let payload = Bytes::from(vec![0; MAX_BODY - NUMBER]);
        out.shared(1, &payload);
        out.shared(2, &payload);
        assert_eq!(out.len(), 2 * (HEAD + payload.len()));
    }
}
