//! What can be connected to: a port of a host, or a Unix socket.

use crate::engine::Refused;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_keepalive;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

/// How often a Unix socket whose queue is full is tried again.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// By its name or address, without brackets, and its port.
    Port(String, u16),
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Port(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Port(host, port) => write!(f, "{host}:{port}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// Of `host:port`, `[address]:port` or `unix:/path`; also `unix_socket:/path`, as websockify has it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.strip_prefix("unix_socket:")) {
            // sockaddr_un has room for so many, and a zero.
            return match path.len() {
                _ if !path.starts_with('/') => Err(format!("\"{text}\" has no absolute path; expected unix:/path")),
                108.. => Err(format!("\"{path}\" is longer than the 107 bytes that a socket's path may have")),
                _ => Ok(Target::Unix(path.into())),
            };
        }
        let wrong = |why: &str| Err(format!("\"{text}\" {why}; write host:port, [address]:port or unix:/path"));
        let Some((host, port)) = text.rsplit_once(':') else { return wrong("has no port") };
        let Some(port) = port.parse().ok().filter(|port| *port > 0) else {
            return wrong("has no port from 1 to 65535");
        };
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':')).unwrap_or_default(),
            None if host.contains(':') => return wrong("is an address without brackets"),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/[]@?#".contains(c)) {
            return wrong("has no host");
        }
        Ok(Target::Port(host.into(), port))
    }

    /// Connects, within `limit`; a host's addresses are tried one after the other.
    ///
    /// # Errors
    /// 502: there is nobody, or nobody who wants us; 504: no answer came in time; 503: there is no descriptor left.
    pub async fn connect(&self, limit: Duration) -> Result<OwnedFd, Refused> {
        let last = Instant::now() + limit;
        let connected = match self {
            Target::Port(host, port) => connect_to_host(host, *port, last).await,
            Target::Unix(path) => within(last, connect_to_path(path)).await,
        };
        connected.map_err(|why| Refused { status: status(&why), reason: format!("no connection to {self}: {why}") })
    }
}

fn status(why: &io::Error) -> u16 {
    match Errno::from_io_error(why) {
        Some(Errno::TIMEDOUT) => 504,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => 503,
        _ if why.kind() == io::ErrorKind::TimedOut => 504,
        _ => 502,
    }
}

async fn within<T>(last: Instant, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in WebSocketConnectTimeout");
    timeout_at(last, step).await.unwrap_or_else(|_| Err(late()))
}

async fn connect_to_host(host: &str, port: u16, last: Instant) -> io::Result<OwnedFd> {
    let addresses: Vec<SocketAddr> = within(last, lookup_host((host, port))).await?.collect();
    let mut why = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for (number, address) in addresses.iter().enumerate() {
        // One that does not answer leaves their share to the others.
        let left = u32::try_from(addresses.len() - number).unwrap_or(u32::MAX);
        let now = Instant::now();
        match within(now + last.saturating_duration_since(now) / left, connect_to_address(*address)).await {
            Ok(link) => return Ok(link),
            Err(e) => why = e,
        }
    }
    Err(why)
}

async fn connect_to_address(address: SocketAddr) -> io::Result<OwnedFd> {
    let stream = TcpStream::connect(address).await?;
    // What arrives in a message is written whole: waiting for more (RFC 896) would only delay it.
    stream.set_nodelay(true)?;
    // Nobody else finds out about a server that is gone without a word: it is the client that is sent Pings.
    set_socket_keepalive(&stream, true)?;
    Ok(stream.into_std()?.into())
}

async fn connect_to_path(path: &PathBuf) -> io::Result<OwnedFd> {
    loop {
        match UnixStream::connect(path).await {
            // connect(2) does not wait for a place in the queue when it may not block.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => sleep(AGAIN).await,
            connected => return Ok(connected?.into_std()?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let port = |host: &str, port| Ok(Target::Port(host.into(), port));
        assert_eq!(Target::parse("localhost:5900"), port("localhost", 5900));
        assert_eq!(Target::parse("192.0.2.1:1"), port("192.0.2.1", 1));
        assert_eq!(Target::parse("[2001:db8::1]:65535"), port("2001:db8::1", 65535));
        for text in ["unix:/run/x.sock", "unix_socket:/run/x.sock"] {
            assert_eq!(Target::parse(text), Ok(Target::Unix("/run/x.sock".into())));
        }
        for (text, why) in [
            ("localhost", "no port"),
            ("localhost:", "no port from"),
            ("localhost:0", "no port from"),
            ("localhost:65536", "no port from"),
            ("localhost:http", "no port from"),
            (":80", "no host"),
            ("::1:80", "without brackets"),
            ("[::1:80", "no host"),
            ("[localhost]:80", "no host"),
            ("http://localhost:80", "without brackets"),
            ("a/b:80", "no host"),
            ("unix:run/x.sock", "no absolute path"),
            ("", "no port"),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
        assert!(Target::parse(&format!("unix:/{}", "x".repeat(106))).is_ok());
        assert!(Target::parse(&format!("unix:/{}", "x".repeat(107))).is_err());
    }

    #[test]
    fn what_is_shown_is_what_is_read() {
        for text in ["localhost:5900", "[::1]:6379", "unix:/run/x.sock"] {
            assert_eq!(Target::parse(text).map(|target| target.to_string()).as_deref(), Ok(text));
        }
    }
}
