//! TLS connections that the engine goes on with by itself: what it needs of them is taken here.

use crate::apache::connection::{Connection, Detour};
use crate::apache::request::Request;
use crate::apache::server::Server;
use crate::apache::tls::{TlsDirection, TlsState};
use crate::engine::handoff::PATIENCE;
use crate::front::WebSocket;
use crate::tls::record::{Direction, Keys};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::time::Instant;

/// Bytes that a client may have sent behind its handshake (bytes): it has been told nothing yet.
pub const MOST_EARLY: usize = 16 << 20;

/// Bytes behind the handshake after which no more is read of the socket than it takes to the end of a record.
const MUCH: usize = 64 * 1024;

/// Whether a TLS connection may go to the engine, and can: not one whose cipher only OpenSSL knows, or that is in the middle
/// of a record.
pub fn can_be_handed_over(request: &Request) -> bool {
    let connection = request.connection();
    // The connection may be of another virtual host than its request.
    request.server().config::<WebSocket>().tls_handoff()
        && connection.tls_suite().is_some_and(Keys::knows)
        && !connection.tls_has_pending()
}

/// As [`can_be_handed_over`], where somebody else has to be able to go on with it if not: what OpenSSL has of it is taken along, but for
/// a record whose rest is yet to come.
pub fn can_be_taken(server: &Server, connection: &Connection) -> bool {
    server.config::<WebSocket>().tls_handoff()
        && connection.tls_suite().is_some_and(Keys::knows)
        && !connection.tls_awaits_rest()
}

/// What has come in a connection's TLS, and the keys for all that follows. Nothing can be read or written here after that.
///
/// # Errors
/// The client is gone, or does not end a record that it has begun.
pub fn take(connection: &Connection) -> io::Result<(Vec<u8>, Box<Keys>)> {
    take_all(connection, || Err(io::ErrorKind::UnexpectedEof.into()))
}

/// What has come in a connection's TLS, and the keys for what follows; none where there is more than is read here, or the rest of a
/// record is still to come: [`take`] has them. httpd can go on with it, but for what has come.
///
/// # Errors
/// The client is gone.
pub fn copy(connection: &Connection) -> io::Result<(Vec<u8>, Option<Box<Keys>>)> {
    connection.make_raw();
    let mut early = Vec::new();
    while early.len() <= MUCH {
        let read = connection.read(&mut early);
        // mod_ssl may have ended the TLS, and then what is read is not decrypted.
        if connection.is_aborted() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let state = connection.tls().filter(|_| !connection.tls_has_pending());
                return Ok((early, state.map(|state| Box::new(keys(state)))));
            }
            Err(e) => return Err(e),
        }
    }
    // There may be more that httpd has read.
    Ok((early, None))
}

/// As [`take`], where whoever is on the other end may have said all it has to say: that end is then the next thing to be read.
///
/// # Errors
/// As of [`take`].
pub fn take_to_the_end(connection: &Connection) -> io::Result<(Vec<u8>, Box<Keys>)> {
    // Its close_notify has been read, and the end of TCP may come much later.
    take_all(connection, || Ok(shutdown(connection.socket()?, Shutdown::Read)?))
}

fn take_all(connection: &Connection, at_end: impl FnOnce() -> io::Result<()>) -> io::Result<(Vec<u8>, Box<Keys>)> {
    connection.make_raw();
    let (mut early, mut detour) = (Vec::new(), None);
    let since = Instant::now();
    // Until nothing is left that httpd has read and not given out.
    let has_ended = loop {
        let read = connection.read(&mut early);
        // mod_ssl may have ended the TLS, and then what is read is not decrypted.
        if connection.is_aborted() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match read {
            Ok(0) => break true,
            Ok(_) if since.elapsed() > PATIENCE => return Err(io::ErrorKind::TimedOut.into()),
            // Who sends without a pause may be faster than it is read here.
            Ok(_) if early.len() > MUCH && detour.is_none() => detour = Some(connection.detour()?),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !connection.tls_has_pending() => break false,
            // The rest of a record is under way.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if detour.as_ref().map(Detour::let_through).transpose()? == Some(true) {
                    continue;
                }
                let left = PATIENCE.checked_sub(since.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
                let left = left.try_into().map_err(io::Error::other)?;
                let socket = detour.as_ref().map_or_else(|| connection.socket(), |detour| Ok(detour.socket()))?;
                let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
                rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left)))?;
            }
            Err(e) => return Err(e),
        }
    };
    drop(detour);
    if has_ended {
        at_end()?;
    }
    let state = connection.tls().ok_or_else(|| io::Error::other("its TLS has changed meanwhile"))?;
    connection.leave_tls();
    Ok((early, Box::new(keys(state))))
}

fn keys(state: TlsState) -> Keys {
    let direction = |TlsDirection { secret, records }| Direction { secret: secret.into(), sequence: records };
    Keys { suite: state.suite, client: direction(state.client), server: direction(state.server) }
}
