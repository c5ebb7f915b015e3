//! An open connection to a target.

use crate::engine::bridge::{self, Backend, GATHERED, Said};
use crate::engine::socket::Socket;
use crate::wire::Message;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

/// Messages that one write takes at most.
const SLICES: usize = 16;

/// The connection, and what is on its way to the target.
#[derive(Debug)]
pub struct TargetLink {
    socket: Socket,
    up: VecDeque<Bytes>,
    /// The bytes in `up`.
    waiting: usize,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
    /// What was read and not delivered.
    read: Option<TargetEvent>,
}

#[derive(Debug)]
pub enum TargetEvent {
    Taken,
    Said(Bytes),
    /// The target says no more: it has ended its side, or the connection is broken.
    End(io::Result<()>),
}

impl Backend for TargetLink {
    type End = io::Result<()>;

    fn has_room(&self) -> bool {
        self.waiting < GATHERED
    }

    /// Where the target takes nothing any more, nothing is kept for it.
    fn put(&mut self, message: Message) {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return,
        };
        if !bytes.is_empty() && self.broken.is_none() {
            self.waiting += bytes.len();
            self.up.push_back(bytes);
        }
    }

    async fn turn(&mut self) {
        // Both: neither a flood to the target nor one from it may keep the other from its turn.
        poll_fn(|cx| match (TargetLink::poll_write(self, cx), self.poll_read(cx)) {
            (_, Poll::Ready(read)) => {
                self.read = Some(read);
                Poll::Ready(())
            }
            (written, Poll::Pending) => written,
        })
        .await;
    }

    fn said(&mut self) -> Option<Said<io::Result<()>>> {
        Some(match self.read.take()? {
            TargetEvent::Taken => return None,
            TargetEvent::Said(bytes) => Said::Message(Message::Binary(bytes)),
            // A reset that was noticed in writing is told only there. EPIPE: it had ended before.
            TargetEvent::End(Ok(())) => Said::End(match self.broken.take() {
                Some(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why),
                _ => Ok(()),
            }),
            TargetEvent::End(Err(why)) => Said::End(Err(why)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        let _ = TargetLink::poll_write(self, cx);
    }
}

impl TargetLink {
    /// Takes over a connected socket. To be called on an engine thread.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<TargetLink> {
        Ok(TargetLink { socket: Socket::new(socket)?, up: VecDeque::new(), waiting: 0, broken: None, read: None })
    }

    pub fn has_more(&self) -> bool {
        self.waiting > 0
    }

    pub fn end_writing(&self) {
        self.socket.end_writing();
    }

    /// Writes what waits, and reads once.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<TargetEvent> {
        if self.poll_write(cx).is_ready() {
            return Poll::Ready(TargetEvent::Taken);
        }
        self.poll_read(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<TargetEvent> {
        bridge::with_buffer(|buffer| {
            self.socket.poll_read(cx, buffer).map(|read| match read {
                Ok(0) => TargetEvent::End(Ok(())),
                Ok(count) => TargetEvent::Said(Bytes::copy_from_slice(&buffer[..count])),
                Err(e) => TargetEvent::End(Err(e)),
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
