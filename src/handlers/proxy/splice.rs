//! Large payloads from one plain TCP connection to another without a copy: splice(2), through a pipe that is lent while something
//! is in it.

use crate::engine::socket::Socket;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Payloads of so many bytes on, since it takes system calls of its own.
pub const LARGE: u64 = 16 * 1024;
/// Bytes that are in a pipe at most.
const MOST: u64 = 64 * 1024;
/// What a pipe has room for: a packet takes a page of it, however little is in it.
const ROOM: usize = 256 * 1024;
/// Pipes of a thread, since they are descriptors: whoever gets none copies.
const PIPES: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // When the thread ends nobody counts any more.
        let _ = COUNT.try_with(|count| count.set(count.get() - 1));
    }
}

impl Pipe {
    fn new() -> Option<Pipe> {
        if COUNT.get() >= PIPES {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        COUNT.set(COUNT.get() + 1);
        // With less room it takes more calls.
        let _ = fcntl_setpipe_size(&write, ROOM);
        Some(Pipe { read, write })
    }
}

/// A pipe with something in it.
#[derive(Debug)]
pub struct Piped {
    pipe: Option<Pipe>,
    /// The bytes that are in it.
    pub count: usize,
}

impl Drop for Piped {
    fn drop(&mut self) {
        // What has something in it is of no use to others.
        if let (0, Some(pipe)) = (self.count, self.pipe.take()) {
            let _ = FREE.try_with(|free| free.borrow_mut().push(pipe));
        }
    }
}

/// Both are such that bytes can go from one to the other.
pub fn is_possible(from: &Socket, to: &Socket) -> bool {
    matches!((from, to), (Socket::Tcp(_), Socket::Tcp(_)))
}

impl Piped {
    /// Takes up to `limit` bytes out of the socket. `None`: there is no pipe for them, or this is no socket for that.
    pub fn fill(cx: &mut Context<'_>, from: &Socket, limit: u64) -> Option<Poll<io::Result<Piped>>> {
        let Socket::Tcp(from) = from else { return None };
        let pipe = FREE.with_borrow_mut(Vec::pop).or_else(Pipe::new)?;
        let mut piped = Piped { pipe: Some(pipe), count: 0 };
        let filled = piped.poll_fill(cx, from, limit.min(MOST) as usize);
        Some(filled.map_ok(|()| piped))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream, limit: usize) -> Poll<io::Result<()>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(())) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || Ok(splice(from, None, &pipe.write, None, limit, FLAGS)?)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(count) => {
                    self.count = count;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Lets the socket have what is in the pipe: ready when it has all.
    pub fn poll_empty(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<()>> {
        let (Socket::Tcp(to), Some(pipe)) = (to, &self.pipe) else { return Poll::Ready(Ok(())) };
        while self.count > 0 {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, to, None, self.count, FLAGS)?)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.count -= count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
