//! The engine's end of a mux: a task of its thread reads it and writes it, and the sessions see their streams.
//!
//! What sessions write is gathered. The first of them wakes the mux's task, which so comes after all the tasks that the
//! last read has woken, and writes for them all.

use super::thread::step_aside;
use crate::mux::endpoint::{Endpoint, MAX_BUFFERED, Received, StreamEvent};
use bytes::Bytes;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// While more than this waits, it is written before more is added.
const MUCH: usize = 256 * 1024;
/// Reads at a time: then those have their turn who were woken.
const READS: usize = 4;
/// Descriptors that a mux takes, at most.
pub const DESCRIPTORS: u32 = 2;

pub struct MuxTask {
    pub number: u64,
    /// The socket. tokio waits here for something to read, and for nothing else: a Unix socket tells of room whenever the other
    /// end has read something, which would wake the thread for each message. (tokio's own UnixStream always waits for both.
    /// What reads a pipe reads a socket as well.)
    socket: RefCell<pipe::Receiver>,
    /// And the same socket, where it was full: to wait for room.
    writer: RefCell<Option<pipe::Sender>>,
    endpoint: RefCell<Endpoint<Wakers>>,
    /// Of the mux's task, while it waits.
    task: Cell<Option<Waker>>,
    /// The socket was full when it was written to last.
    blocked: Cell<bool>,
    /// Of tasks that wait until the mux is not full.
    blocked_writers: RefCell<Vec<Waker>>,
}

#[derive(Debug, Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wakers {
    fn wake(&mut self, news: StreamEvent) {
        if news != StreamEvent::Writable
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        if matches!(news, StreamEvent::Writable | StreamEvent::Reset)
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }
}

impl MuxTask {
    /// Over this socket.
    ///
    /// # Errors
    /// It cannot be watched by epoll.
    pub fn new(number: u64, socket: UnixStream) -> io::Result<Rc<MuxTask>> {
        socket.set_nonblocking(true)?;
        Ok(Rc::new(MuxTask {
            number,
            socket: RefCell::new(pipe::Receiver::from_owned_fd_unchecked(socket.into())?),
            writer: RefCell::default(),
            endpoint: RefCell::default(),
            task: Cell::default(),
            blocked: Cell::new(false),
            blocked_writers: RefCell::default(),
        }))
    }

    pub fn open(self: &Rc<MuxTask>, session: u64) -> MuxStream {
        self.endpoint.borrow_mut().open(session, Wakers::default());
        MuxStream { mux: self.clone(), number: session, is_ended: Cell::new(false) }
    }

    /// Reads and writes until the other end is closed; then all its streams are broken off.
    ///
    /// # Errors
    /// It broke, or carried what it should not.
    pub async fn run(&self) -> io::Result<()> {
        let outcome = poll_fn(|cx| self.poll(cx)).await;
        self.disconnect();
        outcome
    }

    /// The other end is no more.
    pub fn disconnect(&self) {
        self.endpoint.borrow_mut().disconnect(Wakers::wake);
        self.wake_blocked_writers();
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.task.set(Some(cx.waker().clone()));
        let flushed = self.poll_flush(cx);
        let (mut endpoint, mut socket) = (self.endpoint.borrow_mut(), self.socket.borrow_mut());
        if flushed.is_err() {
            // The child is no more. What it has sent before can still be read, and then the end.
            endpoint.send_buffer.clear();
            let _ = shutdown(&*socket, Shutdown::Both);
        }
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(endpoint.space());
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => return Poll::Ready(Ok(())),
                count => {
                    endpoint.filled(count, Wakers::wake).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?
                }
            }
        }
        step_aside(cx);
        Poll::Pending
    }

    /// Writes what waits; where the socket does not take all, the task is woken when there is room.
    fn poll_flush(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut writer = self.writer.borrow_mut();
        if writer.is_none() {
            if self.flush(|bytes| self.send(bytes))? {
                return Ok(());
            }
            let socket = self.socket.borrow().as_fd().try_clone_to_owned()?;
            *writer = Some(pipe::Sender::from_owned_fd_unchecked(socket)?);
        }
        let emptied =
            self.flush(|bytes| match writer.as_mut().map(|writer| Pin::new(writer).poll_write(cx, bytes)) {
                Some(Poll::Ready(written)) => written,
                Some(Poll::Pending) | None => Err(io::ErrorKind::WouldBlock.into()),
            })?;
        if emptied {
            *writer = None;
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&*self.socket.borrow(), bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&self, write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        let mut endpoint = self.endpoint.borrow_mut();
        let empty = endpoint.send_buffer.write(write)?;
        let full = endpoint.send_buffer.len() >= MAX_BUFFERED / 2;
        drop(endpoint);
        self.blocked.set(!empty);
        if !full {
            self.wake_blocked_writers();
        }
        Ok(empty)
    }

    fn wake_blocked_writers(&self) {
        self.blocked_writers.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Lets `step` add something, and sees to it that it is written.
    fn add<R>(&self, step: impl FnOnce(&mut Endpoint<Wakers>) -> R) -> R {
        let mut endpoint = self.endpoint.borrow_mut();
        let added = step(&mut endpoint);
        let waiting = endpoint.send_buffer.len();
        drop(endpoint);
        // When the socket has room again, the task is woken by that.
        if waiting > 0 && !self.blocked.get() {
            if waiting > MUCH {
                // What is wrong with the socket is found by the task.
                let _ = self.flush(|bytes| self.send(bytes));
            }
            if let Some(task) = self.task.take() {
                task.wake();
            }
        }
        added
    }
}

impl fmt::Debug for MuxTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mux {}", self.number)
    }
}

/// The bytes of one session; gone when dropped.
#[derive(Debug)]
pub struct MuxStream {
    mux: Rc<MuxTask>,
    number: u64,
    /// The other end has been told that nothing more comes.
    is_ended: Cell<bool>,
}

impl MuxStream {
    /// Reads once; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut endpoint = self.mux.endpoint.borrow_mut();
        let count = match endpoint.received(self.number) {
            Received::End => return Poll::Ready(Ok(0)),
            Received::Nothing => {
                if let Some(wakers) = endpoint.keep(self.number) {
                    wakers.reader = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            Received::Bytes(bytes) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                count
            }
        };
        drop(endpoint);
        self.mux.add(|endpoint| endpoint.take(self.number, count));
        Poll::Ready(Ok(count))
    }

    /// Writes once; returns how many bytes went.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.try_write(slices) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut endpoint = self.mux.endpoint.borrow_mut();
                if endpoint.send_buffer.len() >= MAX_BUFFERED {
                    self.mux.blocked_writers.borrow_mut().push(cx.waker().clone());
                } else if let Some(wakers) = endpoint.keep(self.number) {
                    wakers.writer = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    /// Writes once, without waiting for room.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` where the other side takes no more.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.mux.add(|endpoint| endpoint.write(self.number, slices))
    }

    /// As [`MuxStream::try_write`], for bytes that others get as well: all who get them right after each other share a copy.
    pub fn write_shared(&self, bytes: &Bytes) -> io::Result<usize> {
        self.mux.add(|endpoint| endpoint.write_shared(self.number, bytes))
    }

    /// The other side sends no more.
    pub fn is_ended(&self) -> bool {
        self.mux.endpoint.borrow().is_ended(self.number)
    }

    /// Says that nothing more will be written.
    pub fn end_writing(&self) {
        if !self.is_ended.replace(true) {
            self.mux.add(|endpoint| endpoint.end_stream(self.number));
        }
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        self.mux.add(|endpoint| endpoint.close(self.number));
    }
}
