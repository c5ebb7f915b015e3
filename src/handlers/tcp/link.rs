//! An open connection to a target.

use crate::engine::socket::Socket;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

/// Bytes for the target that are gathered before its client is read no further; and a message more.
const GATHERED: usize = 64 * 1024;
/// Messages that one write takes at most.
const SLICES: usize = 16;

thread_local! {
    /// Where every read lands first: an idle connection keeps no buffer.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

/// The connection, and what is on its way to the target.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    up: VecDeque<Bytes>,
    /// The bytes in `up`.
    waiting: usize,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
}

/// What has happened on a link.
#[derive(Debug)]
pub enum Turn {
    /// The target took something.
    Taken,
    /// The target said this.
    Said(Bytes),
    /// The target says no more: it has ended its side, or the connection is broken.
    End(io::Result<()>),
}

impl Link {
    /// Takes over a connected socket. To be called on an engine thread.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<Link> {
        Ok(Link { socket: Socket::new(socket)?, up: VecDeque::new(), waiting: 0, broken: None })
    }

    /// Adds to what the target is to get. Where it takes nothing any more, nothing is kept for it.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() && self.broken.is_none() {
            self.waiting += bytes.len();
            self.up.push_back(bytes);
        }
    }

    /// More may be pushed.
    pub fn has_room(&self) -> bool {
        self.waiting < GATHERED
    }

    /// Something waits for the target.
    pub fn has_more(&self) -> bool {
        self.waiting > 0
    }

    /// Why the target takes nothing any more.
    pub fn broken(&self) -> Option<&io::Error> {
        self.broken.as_ref()
    }

    /// Says that nothing follows.
    pub fn end_writing(&self) {
        self.socket.end_writing();
    }

    /// Writes what waits, and reads once.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if self.poll_write(cx).is_ready() {
            return Poll::Ready(Turn::Taken);
        }
        BUFFER.with_borrow_mut(|buffer| {
            self.socket.poll_read(cx, buffer).map(|read| match read {
                Ok(0) => Turn::End(Ok(())),
                Ok(count) => Turn::Said(Bytes::copy_from_slice(&buffer[..count])),
                Err(e) => Turn::End(Err(e)),
            })
        })
    }

    /// Writes what waits. Ready when something was taken, or never will be.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let before = self.waiting;
        while self.waiting > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.up.len().min(SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.up) {
                *slice = IoSlice::new(bytes);
            }
            match self.socket.poll_write(cx, &slices[..count]) {
                Poll::Ready(Ok(count)) => self.take(count),
                Poll::Ready(Err(e)) => {
                    self.broken = Some(e);
                    self.take(self.waiting);
                }
                Poll::Pending => break,
            }
        }
        if self.waiting == 0 {
            // An idle connection keeps no queue.
            self.up = VecDeque::new();
        }
        if self.waiting < before { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take(&mut self, mut count: usize) {
        self.waiting -= count;
        while let Some(first) = self.up.front_mut().filter(|_| count > 0) {
            if count < first.len() {
                // What was taken of it is freed with its rest.
                *first = first.slice(count..);
                return;
            }
            count -= first.len();
            self.up.pop_front();
        }
    }
}
