//! The engine's end of a trunk: a task of its thread reads it and writes it, and the sessions see their streams.
//!
//! What sessions write is gathered. The first of them wakes the trunk's task, which so comes after all the tasks that the
//! last read has woken, and writes for them all.

use super::thread::step_aside;
use crate::mux::end::{End, FULL, News, Waiting};
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
/// Descriptors that a trunk takes, at most.
pub const DESCRIPTORS: u32 = 2;

/// One trunk.
pub struct Trunk {
    /// Its number in the engine.
    pub number: u64,
    /// The socket. tokio waits here for something to read, and for nothing else: a Unix socket tells of room whenever the other
    /// end has read something, which would wake the thread for each message. (tokio's own UnixStream always waits for both.
    /// What reads a pipe reads a socket as well.)
    socket: RefCell<pipe::Receiver>,
    /// And the same socket, where it was full: to wait for room.
    writer: RefCell<Option<pipe::Sender>>,
    end: RefCell<End<Wakers>>,
    /// Of the trunk's task, while it waits.
    task: Cell<Option<Waker>>,
    /// The socket was full when it was written to last.
    blocked: Cell<bool>,
    /// Of tasks that wait until the trunk is not full.
    crowd: RefCell<Vec<Waker>>,
}

/// Who waits for something of a stream.
#[derive(Debug, Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wakers {
    fn wake(&mut self, news: News) {
        if news != News::Room
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        if matches!(news, News::Room | News::Gone)
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }
}

impl Trunk {
    /// Over this socket.
    ///
    /// # Errors
    /// It cannot be watched by epoll.
    pub fn new(number: u64, socket: UnixStream) -> io::Result<Rc<Trunk>> {
        socket.set_nonblocking(true)?;
        Ok(Rc::new(Trunk {
            number,
            socket: RefCell::new(pipe::Receiver::from_owned_fd_unchecked(socket.into())?),
            writer: RefCell::default(),
            end: RefCell::default(),
            task: Cell::default(),
            blocked: Cell::new(false),
            crowd: RefCell::default(),
        }))
    }

    /// The stream of this session.
    pub fn open(self: &Rc<Trunk>, session: u64) -> Stream {
        self.end.borrow_mut().open(session, Wakers::default());
        Stream { trunk: self.clone(), number: session }
    }

    /// Reads and writes until the other end is closed; then all its streams are broken off.
    ///
    /// # Errors
    /// It broke, or carried what it should not.
    pub async fn run(&self) -> io::Result<()> {
        let outcome = poll_fn(|cx| self.poll(cx)).await;
        self.break_off();
        outcome
    }

    /// The other end is no more.
    pub fn break_off(&self) {
        self.end.borrow_mut().break_off(Wakers::wake);
        self.wake_crowd();
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.task.set(Some(cx.waker().clone()));
        let flushed = self.poll_flush(cx);
        let (mut end, mut socket) = (self.end.borrow_mut(), self.socket.borrow_mut());
        if flushed.is_err() {
            // The child is no more. What it has sent before can still be read, and then the end.
            end.out.clear();
            let _ = shutdown(&*socket, Shutdown::Both);
        }
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(end.space());
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => return Poll::Ready(Ok(())),
                count => end.filled(count, Wakers::wake).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?,
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
        let mut end = self.end.borrow_mut();
        let empty = end.out.write(write)?;
        let full = end.out.len() >= FULL / 2;
        drop(end);
        self.blocked.set(!empty);
        if !full {
            self.wake_crowd();
        }
        Ok(empty)
    }

    fn wake_crowd(&self) {
        self.crowd.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Lets `step` add something, and sees to it that it is written.
    fn add<R>(&self, step: impl FnOnce(&mut End<Wakers>) -> R) -> R {
        let mut end = self.end.borrow_mut();
        let added = step(&mut end);
        let waiting = end.out.len();
        drop(end);
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

impl fmt::Debug for Trunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trunk {}", self.number)
    }
}

/// The bytes of one session; gone when dropped.
#[derive(Debug)]
pub struct Stream {
    trunk: Rc<Trunk>,
    number: u64,
}

impl Stream {
    /// Reads once; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut end = self.trunk.end.borrow_mut();
        let count = match end.waiting(self.number) {
            Waiting::End => return Poll::Ready(Ok(0)),
            Waiting::Nothing => {
                if let Some(wakers) = end.keep(self.number) {
                    wakers.reader = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            Waiting::Bytes(bytes) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                count
            }
        };
        drop(end);
        self.trunk.add(|end| end.take(self.number, count));
        Poll::Ready(Ok(count))
    }

    /// Writes once; returns how many bytes went.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.try_write(slices) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut end = self.trunk.end.borrow_mut();
                if end.out.len() >= FULL {
                    self.trunk.crowd.borrow_mut().push(cx.waker().clone());
                } else if let Some(wakers) = end.keep(self.number) {
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
        self.trunk.add(|end| end.write(self.number, slices))
    }

    /// As [`Stream::try_write`], for bytes that others get as well: all who get them right after each other share a copy.
    ///
    /// # Errors
    /// As there.
    pub fn write_shared(&self, bytes: &Bytes) -> io::Result<usize> {
        self.trunk.add(|end| end.write_shared(self.number, bytes))
    }

    /// The other side sends no more.
    pub fn is_ended(&self) -> bool {
        self.trunk.end.borrow().is_ended(self.number)
    }

    /// Says that nothing more will be written.
    pub fn end_writing(&self) {
        self.trunk.add(|end| end.end(self.number));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.trunk.add(|end| end.close(self.number));
    }
}
