//! The way in for httpd's children. It has no name, so nobody else finds it.
//!
//! httpd's parent makes a pair of sockets before it forks the engine, and keeps both ends: one for its children, one for the
//! engine that follows a killed one. A child opens a link by sending one end of a pair of its own through it. What no engine
//! has taken yet waits in the pair. A link that was on its way to an engine when that was killed, or came when there
//! will be none any more, is hung up by the system.

use super::handoff::{PATIENCE, sendmsg_with};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, socketpair,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes for the links that wait in the pair; the system may give less (net.core.wmem_max). A link takes some hundred.
const QUEUE: usize = 1 << 20;

/// The pair: the end of the children, and the engine's.
///
/// # Errors
/// There are no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (children, engine) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_send_buffer_size(&children, QUEUE)?;
    set_socket_timeout(&children, Timeout::Send, Some(PATIENCE))?;
    // Every engine has this very end, one after the other, and nobody else reads from it.
    rustix::io::ioctl_fionbio(&engine, true)?;
    Ok((children, engine))
}

/// Opens a link through the children's end.
///
/// # Errors
/// There is no engine any more, nor will there be one; or too many links wait for it, and none was taken within
/// [`PATIENCE`].
pub fn open(entrance: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let send = || sendmsg_with(entrance, &[0], &[theirs.as_fd()], SendFlags::NOSIGNAL);
    match rustix::io::retry_on_intr(send) {
        Ok(_) => Ok(ours),
        Err(rustix::io::Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no links, and no more of them can wait"))
        }
        Err(rustix::io::Errno::TOOMANYREFS) => {
            Err(io::Error::other("more descriptors are on their way than this user may have open"))
        }
        Err(why) => Err(why.into()),
    }
}

pub struct Entrance(AsyncFd<OwnedFd>);

impl Entrance {
    /// Of the second end of a [`pair`].
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(end: OwnedFd) -> io::Result<Entrance> {
        #[expect(deprecated, reason = "nobody closes the descriptor of an OwnedFd while it is watched")]
        Ok(Entrance(AsyncFd::with_interest(end, Interest::READABLE)?))
    }

    /// The next link. It never comes when all the other ends are closed: then there are no children any more.
    ///
    /// # Errors
    /// The link could not be taken, most likely for want of descriptors: it is lost, and its other end hears so.
    pub async fn next(&self) -> io::Result<UnixStream> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|end| receive(end.as_fd())) {
                Ok(Ok(Some(link))) => return Ok(link),
                Ok(Ok(None)) => std::future::pending().await,
                Ok(Err(why)) => return Err(why),
                Err(_would_block) => {}
            }
        }
    }
}

/// `None` when all the other ends are closed.
pub(super) fn receive(end: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(end, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let link = descriptors.by_ref().flatten().next();
    match link {
        Some(link) => {
            let link = UnixStream::from(link);
            link.set_nonblocking(true)?;
            Ok(Some(link))
        }
        None if received.flags.contains(ReturnFlags::CTRUNC) => Err(io::Error::other("no descriptor is left for it")),
        None if received.bytes == 0 => Ok(None),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "no descriptor came")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    #[tokio::test]
    async fn links_wait_for_the_next_engine() {
        let (children, engine) = pair().unwrap();
        let killed = Entrance::new(engine.try_clone().unwrap()).unwrap();
        let mut first = open(children.as_fd()).unwrap();
        let mut waits = open(children.as_fd()).unwrap();
        waits.write_all(b"hello").unwrap();
        drop(killed.next().await.unwrap());
        drop(killed);
        assert_eq!(first.read(&mut [0]).unwrap(), 0, "hung up");
        let next = Entrance::new(engine).unwrap();
        let mut link = next.next().await.unwrap();
        link.set_nonblocking(false).unwrap();
        let mut heard = [0; 5];
        link.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn an_engine_outlives_all_children() {
        let (children, engine) = pair().unwrap();
        drop(open(children.as_fd()).unwrap());
        drop(children);
        let entrance = Entrance::new(engine).unwrap();
        assert_eq!(entrance.next().await.unwrap().read(&mut [0]).unwrap(), 0);
        assert!(tokio::time::timeout(Duration::from_millis(20), entrance.next()).await.is_err());
    }

    #[test]
    fn nothing_waits_for_an_engine_that_will_not_come() {
        let (children, engine) = pair().unwrap();
        let mut waits = open(children.as_fd()).unwrap();
        drop(engine);
        assert_eq!(waits.read(&mut [0]).unwrap(), 0, "hung up");
        assert!(open(children.as_fd()).is_err());
    }

    #[test]
    fn only_so_many_links_wait_and_not_for_ever() {
        let (children, _engine) = pair().unwrap();
        set_socket_timeout(&children, Timeout::Send, Some(Duration::from_millis(20))).unwrap();
        let mut waiting = Vec::new();
        let why = loop {
            match open(children.as_fd()) {
                Ok(link) => waiting.push(link),
                Err(why) => break why,
            }
            assert!(waiting.len() < 10_000, "no bound");
        };
        assert_eq!(why.kind(), io::ErrorKind::TimedOut, "{why}");
        assert!(waiting.len() >= 100, "only {} links can wait", waiting.len());
    }
}
