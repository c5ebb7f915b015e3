//! How messages travel over a link: framed, with descriptors beside them.

use super::{FromEngine, HandoffMessage};
use crate::engine::health::patient::Wait;
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use zeroize::{Zeroize, Zeroizing};

/// The longest message (bytes): room for a published message of 64 MiB. A request head at httpd's limits, and what arrived
/// with it, are far below.
pub const MAX_MESSAGE: usize = 65 << 20;
/// Descriptors that come with a message, at most.
pub(super) const DESCRIPTORS: usize = 2;
/// Bytes that the engine reads of a link at a time.
pub(super) const READ: usize = 16 * 1024;
/// Bytes that a child expects of an answer, for the first.
const ANSWER: usize = 512;

/// A message as it travels.
///
/// # Errors
/// It is longer than [`MAX_MESSAGE`].
pub fn encode(message: &impl HandoffMessage) -> io::Result<Vec<u8>> {
    let mut out = encode_before(message, message.payload())?;
    out.extend_from_slice(message.payload());
    Ok(out)
}

fn encode_before(message: &impl HandoffMessage, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let length = out.len() - 4 + payload.len();
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a handoff message of {length} bytes")));
    }
    out[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(out)
}

/// A message, and how many of the bytes are its payload.
fn decode<M: HandoffMessage>(bytes: &[u8]) -> io::Result<(M, usize)> {
    let decoded = postcard::take_from_bytes(bytes).map(|(message, payload)| (message, payload.len()));
    decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// What the engine has read of a link and not yet understood.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    pub(super) buffer: Vec<u8>,
}

impl MessageDecoder {
    /// Adds the next piece of the stream.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the first message out; `None` while it is not complete.
    ///
    /// # Errors
    /// What has come is no message; nor is what follows it.
    pub fn take<M: HandoffMessage>(&mut self) -> io::Result<Option<M>> {
        self.take_if_known().and_then(Option::transpose)
    }

    /// As [`MessageDecoder::take`], but what is no message `M` is an error inside, and taken out.
    pub(super) fn take_if_known<M: HandoffMessage>(&mut self) -> io::Result<Option<io::Result<M>>> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a handoff message of {length} bytes")));
        }
        let Some(message) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let (message, end) = (decode::<M>(message), 4 + length);
        let message = message.map(|(mut message, payload)| {
            if message.is_secret() {
                self.buffer[..end].zeroize();
            }
            if payload > 0 {
                message.set_payload(self.payload(end - payload..end));
            }
            message
        });
        self.buffer.drain(..end.min(self.buffer.len()));
        // A link is kept for long, and a large message is rare.
        self.buffer.shrink_to(READ);
        Ok(Some(message))
    }

    /// A payload out of the buffer: one that has the buffer for itself keeps it.
    fn payload(&mut self, at: Range<usize>) -> Bytes {
        if at.len() < READ || self.buffer.len() > at.end {
            return Bytes::copy_from_slice(&self.buffer[at]);
        }
        Bytes::from(std::mem::take(&mut self.buffer)).slice(at)
    }

    /// Bytes that the first message lacks, where it is a long one.
    pub(super) fn missing(&self) -> usize {
        let length = self.buffer.first_chunk::<4>().map_or(0, |head| u32::from_be_bytes(*head) as usize);
        if (READ..=MAX_MESSAGE).contains(&length) { (4 + length).saturating_sub(self.buffer.len()) } else { 0 }
    }
}

/// Sends a message over a stream that blocks.
pub(in crate::engine) fn send(stream: &mut impl Write, message: &impl HandoffMessage) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// As [`send`], with this payload in the place of the message's own.
pub(super) fn send_before(stream: &mut impl Write, message: &impl HandoffMessage, payload: &[u8]) -> io::Result<()> {
    let mut bytes = encode_before(message, payload)?;
    if payload.len() < READ {
        bytes.extend_from_slice(payload);
        return stream.write_all(&bytes);
    }
    // The first tells the engine how much room to make, and it reads the second into that.
    stream.write_all(&bytes)?;
    stream.write_all(payload)
}

/// One sendmsg(2): bytes, and with the first of them at most [`DESCRIPTORS`] descriptors.
///
/// # Errors
/// As sendmsg(2).
pub(crate) fn sendmsg_with(
    stream: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, flags)
}

/// As [`send`], with these descriptors.
pub(in crate::engine) fn send_with(
    stream: &mut impl Wait,
    message: &impl HandoffMessage,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    // Wiped when it has gone: it may have a client's keys in it.
    send_bytes_with(stream, &Zeroizing::new(encode(message)?), descriptors)
}

/// As [`send_with`], of a message that is encoded.
pub(super) fn send_bytes_with(stream: &mut impl Wait, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = loop {
        match sendmsg_with(stream.as_fd(), bytes, descriptors, SendFlags::NOSIGNAL) {
            Ok(sent) => break sent,
            Err(Errno::INTR) => {}
            // It waits as long as the stream may.
            Err(Errno::AGAIN) => stream.wait()?,
            Err(why) => return Err(why.into()),
        }
    };
    stream.write_all(&bytes[sent..])
}

/// Waits for an answer, over a stream that blocks.
pub(in crate::engine) fn receive(stream: &mut (impl Read + Wait)) -> io::Result<FromEngine> {
    // But for what is said before an answer, nothing follows before the next question, and most are short. A long one grows
    // with what comes of it.
    let (mut heard, mut count) = (vec![0; ANSWER], 0);
    loop {
        if count == heard.len() {
            heard.resize(2 * count, 0);
        }
        count += match stream.read(&mut heard[count..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        while let Some((head, message)) = heard[..count].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > MAX_MESSAGE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some((message, rest)) = message.split_at_checked(length) else { break };
            match decode(message)?.0 {
                FromEngine::Asking => stream.pass_on(),
                answer if rest.is_empty() => return Ok(answer),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            heard.copy_within(4 + length..count, 0);
            count -= 4 + length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ToEngine;
    use super::super::tests::spec;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_any_chunking() {
        let messages = [
            ToEngine::Hello { version: "x".into() },
            ToEngine::Offer(Box::new(spec())),
            ToEngine::Take { id: 7, early: vec![1; 300], linked: false, tls: None, backend: None },
            ToEngine::Open { spec: Box::new(spec()), head: vec![2; 200], early: vec![3], tls: None },
            ToEngine::Mux { thread: 1 },
            ToEngine::Carry { id: 8, mux: 3, backend: None },
            ToEngine::Close { id: 7, code: 1001, reason: "bye".into() },
            ToEngine::Call { handler: "channel".into(), request: vec![1], payload: vec![2; 2 * READ].into() },
            ToEngine::Abandon { id: 9 },
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        for chunk in [1, 3, 100, 10_000, 40_000] {
            let (mut decoder, mut seen) = (MessageDecoder::default(), Vec::<ToEngine>::new());
            for piece in bytes.chunks(chunk) {
                decoder.put(piece);
                while let Some(message) = decoder.take().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages);
            assert!(decoder.buffer.is_empty());
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_refused() {
        assert!(MessageDecoder { buffer: vec![0xff; 8] }.take::<ToEngine>().is_err());
        assert!(
            encode(&ToEngine::Take { id: 1, early: vec![0; MAX_MESSAGE], linked: false, tls: None, backend: None })
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<ToEngine>(&bytes);
            let _ = MessageDecoder { buffer: bytes }.take::<ToEngine>();
        }
    }
}
