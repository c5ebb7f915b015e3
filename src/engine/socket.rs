//! The byte stream of a session: a client's TCP connection, with or without TLS on it; or where httpd must stay in between,
//! one end of a socketpair, or a stream of a mux.

use super::mux_task::MuxStream;
use super::{SessionSource, Unanswered};
use crate::tls::record::Keys;
use crate::tls::stream::{LAST, Tls};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_keepalive;
use rustix::net::{AddressFamily, SendFlags, Shutdown, getsockname, send, shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Never waits; is watched by the runtime of its thread.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    /// The client itself, over TLS. Boxed, since others need no room for its keys.
    Tls(Box<Tls>),
    /// A relay in an httpd child, of this connection alone. Boxed, likewise.
    Unix(Box<UnixStream>),
    /// A relay in an httpd child, of many.
    Mux(MuxStream),
}

impl Socket {
    /// Takes over a connected stream socket.
    ///
    /// # Errors
    /// It is no socket of these families, or cannot be watched by epoll.
    pub fn new(fd: OwnedFd) -> io::Result<Socket> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        if getsockname(&fd)?.address_family() == AddressFamily::UNIX {
            return Ok(Socket::Unix(Box::new(UnixStream::from_std(fd.into())?)));
        }
        Ok(Socket::Tcp(tcp(fd)?))
    }

    /// Takes over a TCP connection with TLS on it.
    ///
    /// # Errors
    /// As [`Socket::new`], or the keys are of no use.
    pub fn with_keys(fd: OwnedFd, keys: &Keys) -> io::Result<Socket> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Socket::Tls(Box::new(Tls::new(tcp(fd)?, keys)?)))
    }

    /// Takes over a connection of a client whose handshake is not answered, and answers it. Returns what is left of the answer, to go
    /// before all else.
    ///
    /// # Errors
    /// It cannot be watched by epoll, or the keys are of no use.
    pub fn answering(unanswered: Unanswered) -> io::Result<(Socket, Bytes)> {
        let Unanswered { socket, tls, head } = unanswered;
        let stream = TcpStream::from_std(socket.into())?;
        let socket = match tls {
            Some(keys) => Socket::Tls(Box::new(Tls::new(stream, &keys)?)),
            None => Socket::Tcp(stream),
        };
        let mut head = Bytes::from(head);
        // Whoever is gone is found out by the session.
        let sent = socket.write_now(&head).unwrap_or(0);
        Ok((socket, head.split_off(sent)))
    }

    /// Takes over a connection to a server, which was httpd's.
    ///
    /// # Errors
    /// As [`Socket::with_keys`].
    pub fn of_server(source: SessionSource) -> io::Result<Socket> {
        match source {
            SessionSource::Socket(fd) => Socket::new(fd),
            SessionSource::Tls(fd, keys) => {
                rustix::io::ioctl_fionbio(&fd, true)?;
                Ok(Socket::Tls(Box::new(Tls::to_server(tcp(fd)?, &keys)?)))
            }
            SessionSource::Mux(_) | SessionSource::Unanswered(_) => {
                Err(io::Error::other("a server's bytes come over a socket, and it has been answered"))
            }
        }
    }

    /// Has the system see to it that a connection is noticed that is no more.
    pub fn keep_alive(&self) {
        let stream = match self {
            Socket::Tcp(stream) => stream,
            Socket::Tls(tls) => &tls.stream,
            Socket::Unix(_) | Socket::Mux(_) => return,
        };
        // What it fails for is broken, which shows soon enough.
        let _ = set_socket_keepalive(stream, true);
    }

    /// Reads once; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = match self {
            Socket::Mux(stream) => return stream.poll_read(cx, buffer),
            Socket::Tls(tls) => return tls.poll_read(cx, buffer),
            _ => ReadBuf::new(buffer),
        };
        ready!(match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Socket::Unix(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buffer),
            Socket::Mux(_) | Socket::Tls(_) => Poll::Pending,
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes once; returns how many bytes went.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match (self, slices) {
            (Socket::Tcp(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Socket::Tcp(stream), many) => Pin::new(stream).poll_write_vectored(cx, many),
            (Socket::Unix(stream), many) => Pin::new(&mut **stream).poll_write_vectored(cx, many),
            (Socket::Mux(stream), many) => stream.poll_write(cx, many),
            (Socket::Tls(tls), many) => tls.poll_write(cx, many),
        }
    }

    /// Writes once, without waiting for room; returns how many bytes went.
    ///
    /// # Errors
    /// `WouldBlock`, or what makes the stream useless.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write_vectored(slices),
            Socket::Unix(stream) => stream.try_write_vectored(slices),
            Socket::Mux(stream) => stream.try_write(slices),
            Socket::Tls(tls) => tls.try_write(slices),
        }
    }

    /// As [`Socket::try_write`], whatever the runtime knows of the stream: for those who do not wait on it, and have the same
    /// bytes for others.
    pub fn write_now(&self, bytes: &Bytes) -> io::Result<usize> {
        let send = |socket: &dyn AsFd| send(socket.as_fd(), bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        match self {
            Socket::Tcp(stream) => Ok(send(stream)?),
            Socket::Unix(stream) => Ok(send(stream)?),
            Socket::Mux(stream) => stream.write_shared(bytes),
            Socket::Tls(tls) => tls.write_now(bytes),
        }
    }

    /// The other end has ended its side, though perhaps not all that it has sent is read.
    pub fn is_ended(&self) -> bool {
        let is_ended = |socket: &dyn AsFd| {
            let socket = socket.as_fd();
            let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
            // HUP and ERR are told of in any case.
            poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        };
        match self {
            Socket::Tcp(stream) => is_ended(stream),
            Socket::Unix(stream) => is_ended(stream),
            Socket::Mux(stream) => stream.is_ended(),
            Socket::Tls(tls) => is_ended(&tls.stream),
        }
    }

    /// Bytes that it holds by itself: of records that are not complete, or not sent.
    pub fn held(&self) -> (usize, usize) {
        match self {
            Socket::Tls(tls) => tls.held(),
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Mux(_) => (0, 0),
        }
    }

    /// As [`Socket::try_write`], whatever the runtime knows of the stream, of what goes with the end that follows at once: in one
    /// segment of TCP, where both fit into one.
    pub fn write_last(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Socket::Tcp(stream), [one]) => Ok(send(stream, one, LAST)?),
            (Socket::Tls(tls), [one]) => match tls.write_last(one)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            },
            (_, many) => self.try_write(many),
        }
    }

    /// Says that nothing more will be written.
    pub fn end_writing(&self) {
        // Fails where the connection is gone, and then there is nobody to tell.
        let _ = match self {
            Socket::Tcp(stream) => shutdown(stream, Shutdown::Write),
            Socket::Tls(tls) => {
                tls.end_writing();
                shutdown(&tls.stream, Shutdown::Write)
            }
            Socket::Unix(stream) => shutdown(stream, Shutdown::Write),
            Socket::Mux(stream) => {
                stream.end_writing();
                Ok(())
            }
        };
    }
}

/// # Errors
/// It is no TCP connection, or cannot be watched by epoll.
fn tcp(fd: OwnedFd) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(fd.into())?;
    // Replies are written whole; waiting for more (RFC 896) would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}
