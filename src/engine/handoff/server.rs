//! The engine's end of a link.

use super::codec::{DESCRIPTORS, READ};
use super::{FromEngine, HandoffMessage, MessageDecoder, ToEngine, encode};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use zeroize::Zeroize;

/// How long a message may take that has begun: whoever sends it has all of it.
const MESSAGE_TIME: Duration = Duration::from_secs(10);

thread_local! {
    /// Where what comes over a link lands first.
    static PIECE: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// The engine's end of a stream of messages.
#[derive(Debug)]
pub struct Receiver<M = ToEngine> {
    /// Watched for what comes alone: an answer that the other end takes is no news.
    stream: AsyncFd<UnixStream>,
    decoder: MessageDecoder,
    descriptors: VecDeque<OwnedFd>,
    /// The other end had been closed when the last piece came.
    is_closed: bool,
    /// When the message began that is not complete.
    begun: Option<Instant>,
    /// How long it may take.
    pub(super) message_time: Duration,
    messages: PhantomData<fn() -> M>,
}

impl<M: HandoffMessage> Receiver<M> {
    /// Of a stream that does not block.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(stream: UnixStream) -> io::Result<Receiver<M>> {
        #[expect(deprecated, reason = "nobody closes the descriptor of a UnixStream while it is watched")]
        let stream = AsyncFd::with_interest(stream, Interest::READABLE)?;
        Ok(Receiver {
            stream,
            decoder: MessageDecoder::default(),
            descriptors: VecDeque::new(),
            is_closed: false,
            begun: None,
            message_time: MESSAGE_TIME,
            messages: PhantomData,
        })
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
            self.is_closed = self.stream.readable().await?.ready().is_read_closed();
        } else {
            let end = *self.begun.get_or_insert_with(Instant::now) + self.message_time;
            tokio::select! {
                // What has come counts, however late it is looked at.
                biased;
                readable = self.stream.readable() => drop(readable?),
                () = tokio::time::sleep_until(end) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "a handoff message has begun and does not end"));
                }
            }
        }
        let missing = self.decoder.missing();
        if missing > 0 {
            // To where it stays. Descriptors come with the first byte of a message, and so not with these.
            let buffer = &mut self.decoder.buffer;
            buffer.reserve_exact(missing);
            if buffer.capacity() - buffer.len() == missing {
                let read = |stream: &UnixStream| Ok(rustix::io::read(stream, spare_capacity(buffer))?);
                return match self.stream.try_io(Interest::READABLE, read) {
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
                    read => Ok(!matches!(read, Ok(0))),
                };
            }
        }
        let (decoder, descriptors, stream) = (&mut self.decoder, &mut self.descriptors, &self.stream);
        let mut ended = false;
        let read = stream.try_io(Interest::READABLE, |stream| {
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

    /// As [`Receiver::is_hung_up`], when the message just read came, and without asking the system.
    pub fn was_hung_up(&self) -> bool {
        self.is_closed
    }

    /// The other end is closed, whatever of it is still to be read.
    pub fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.stream.get_ref(), PollFlags::empty())];
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
            match self.stream.get_ref().write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.await_room().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whoever has not read its answers yet gets no more of them.
    async fn await_room(&self) -> io::Result<()> {
        // Under a number of its own, since this one is watched for something else; and for this once.
        let stream = self.stream.get_ref().try_clone()?;
        #[expect(deprecated, reason = "nobody closes the descriptor of a UnixStream while it is watched")]
        let stream = AsyncFd::with_interest(stream, Interest::WRITABLE)?;
        drop(stream.writable().await?);
        Ok(())
    }

    /// After a message behind which nothing is until it was answered: there is no need to look.
    pub fn note_empty(&self) {
        if self.decoder.buffer.is_empty() && self.descriptors.is_empty() {
            let _: io::Result<()> = self.stream.try_io(Interest::READABLE, |_| Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// One recvmsg(2): bytes to `decoder`, descriptors to `descriptors`.
fn receive(
    stream: BorrowedFd<'_>,
    decoder: &mut MessageDecoder,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    PIECE.with_borrow_mut(|piece| receive_by(stream, piece, decoder, descriptors))
}

fn receive_by(
    stream: BorrowedFd<'_>,
    piece: &mut [u8],
    decoder: &mut MessageDecoder,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(piece)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    decoder.put(&piece[..received]);
    // It may have been keys.
    piece[..received].zeroize();
    Ok(received)
}
