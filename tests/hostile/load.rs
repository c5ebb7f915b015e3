//! Clients that are many, quick, and do not mind to be refused: each step says what happened.

use crate::harness::{Frame, Handshake, Process};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What no answer may take, without anybody being dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);

/// A connection from an address of this machine that changes, so that the ports of a single one do not run short.
pub(crate) fn connected(to: SocketAddr) -> io::Result<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = (NEXT.fetch_add(1, Ordering::Relaxed) % 4000 + 2).to_be_bytes();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, high, low), 0))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The status of the answer to a request, whose body is left.
pub(crate) fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request)?;
    let mut head = Vec::new();
    let mut byte = [0; 512];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        // Nothing follows a 101 before the client speaks.
        let count = stream.read(&mut byte)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&byte[..count]);
    }
    let status = head.split(|byte| *byte == b' ').nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The bytes of a handshake.
pub(crate) fn handshake(to: SocketAddr, path: &str) -> Vec<u8> {
    Handshake::new(path).bytes(&to.to_string())
}

/// An open session.
pub(crate) fn open(to: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = connected(to)?;
    match ask(&mut stream, &handshake(to, path))? {
        101 => Ok(stream),
        status => Err(io::Error::other(format!("refused with {status}"))),
    }
}

/// A short message and its echo.
pub(crate) fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let frame = Frame::text("hello");
    stream.write_all(&frame.masked())?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if answer == frame.unmasked()[..] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The end of the connection, whatever comes before it.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// A page of the site.
pub(crate) fn page(to: SocketAddr) -> io::Result<u16> {
    let mut stream = connected(to)?;
    ask(&mut stream, &Handshake::page("/index.html").version("HTTP/1.0").bytes(&to.to_string()))
}

/// Memory and descriptors of a process.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) kib: u64,
    pub(crate) descriptors: usize,
}

impl Size {
    pub(crate) fn of(process: Process) -> Size {
        Size { kib: process.resident_kib(), descriptors: process.descriptors().len() }
    }
}

/// KiB as MiB.
pub(crate) fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}
