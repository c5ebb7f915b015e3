//! The engine's end of a link.

use super::codec::{DESCRIPTORS, READ};
use super::{FromEngine, HandoffMessage, MessageDecoder, ToEngine, encode};
use bytes::BufMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tokio::time::Instant;

/// How long a message may take that has begun: whoever sends it has all of it.
const MESSAGE_TIME: Duration = Duration::from_secs(10);

/// The engine's end of a stream of messages.
#[derive(Debug)]
pub struct Receiver<M = ToEngine> {
    stream: tokio::net::UnixStream,
    decoder: MessageDecoder,
    descriptors: VecDeque<OwnedFd>,
    /// When the message began that is not complete.
    begun: Option<Instant>,
    /// How long it may take.
    pub(super) message_time: Duration,
    messages: PhantomData<fn() -> M>,
}

impl<M: HandoffMessage> Receiver<M> {
    pub fn new(stream: tokio::net::UnixStream) -> Receiver<M> {
        Receiver {
            stream,
            decoder: MessageDecoder::default(),
            descriptors: VecDeque::new(),
            begun: None,
            message_time: MESSAGE_TIME,
            messages: PhantomData,
        }
    }

    /// The next message; `None` when the other end has closed.
    ///
    /// # Errors
    /// The stream broke, or carried what is no message, or one that does not end.
    pub async fn next(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(message) = self.decoder.take()? {
                self.begun = None;
                return Ok(Some(message));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// As [`Receiver::next`]; `Some(None)` for a message that means nothing here.
    ///
    /// # Errors
    /// The stream broke, or carried no messages at all, or one that does not end.
    pub async fn next_if_known(&mut self) -> io::Result<Option<Option<M>>> {
        loop {
            if let Some(message) = self.decoder.take_if_known()? {
                self.begun = None;
                return Ok(Some(message.ok()));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for the next piece; false when the other end has closed.
    async fn read(&mut self) -> io::Result<bool> {
        if self.decoder.buffer.is_empty() {
            self.stream.readable().await?;
        } else {
            let end = *self.begun.get_or_insert_with(Instant::now) + self.message_time;
            tokio::select! {
                // What has come counts, however late it is looked at.
                biased;
                readable = self.stream.readable() => readable?,
                () = tokio::time::sleep_until(end) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "a handoff message has begun and does not end"));
                }
            }
        }
        let missing = self.decoder.missing();
        if missing > 0 {
            // To where it stays. Descriptors come with the first byte of a message, and so not with these.
            self.decoder.buffer.reserve_exact(missing);
            return match self.stream.try_read_buf(&mut (&mut self.decoder.buffer).limit(missing)) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
                read => Ok(!matches!(read, Ok(0))),
            };
        }
        let (decoder, descriptors, stream) = (&mut self.decoder, &mut self.descriptors, &self.stream);
        let mut ended = false;
        let read = stream.try_io(tokio::io::Interest::READABLE, || {
            let had = descriptors.len();
            let count = receive(stream.as_fd(), decoder, descriptors)?;
            ended = count == 0;
            // recvmsg(2) stops short where there is no more, and behind descriptors: there is an edge for what comes after
            // the former.
            let more = count == READ || descriptors.len() > had || ended;
            if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match read {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ if descriptors.len() > DESCRIPTORS => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors that belong to no message"))
            }
            _ => Ok(!ended),
        }
    }

    /// The descriptor that came with the message just read, where one should have.
    ///
    /// # Errors
    /// None came.
    pub fn descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"))
    }

    /// The other end is closed, whatever of it is still to be read.
    pub fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.stream, PollFlags::empty())];
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Closes those that have come and were not taken.
    pub fn forget_descriptors(&mut self) {
        self.descriptors.clear();
    }

    /// Answers.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn send(&mut self, message: &FromEngine) -> io::Result<()> {
        let bytes = encode(message)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// One recvmsg(2): bytes to `decoder`, descriptors to `descriptors`.
fn receive(
    stream: BorrowedFd<'_>,
    decoder: &mut MessageDecoder,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut piece = [0; READ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut piece)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    decoder.put(&piece[..received]);
    Ok(received)
}
