//! Client sockets with the opening handshake done (RFC 6455 section 4.1).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::Result;
use super::frame::compressed;
use super::testkit::handshake::{Handshake, SAMPLE_ACCEPT};
use super::tls::Socket;

/// Handshakes under way at once: enough to keep the server busy, fewer than httpd has workers.
const WAVE: usize = 16;

/// Connections from one source address: many times as many as that may be opened within a minute, and a port of one that
/// was closed is free again after that.
const PER_ADDRESS: usize = 1000;
/// Source addresses in turn, for those who never stop opening connections.
const ADDRESSES: usize = 250;

/// Where to open a WebSocket.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddrV4,
    pub(crate) path: &'static str,
    /// wss://.
    pub(crate) tls: bool,
    /// permessage-deflate is offered, and has to be agreed on.
    pub(crate) compressed: bool,
}

/// Opens `count` WebSockets. They come back blocking, with `TCP_NODELAY`, and with a read timeout.
pub(crate) fn open(server: Target, count: usize) -> Result<Vec<Socket>> {
    open_more(server, 0, count)
}

/// The same, when there are `first` already.
pub(crate) fn open_more(server: Target, first: usize, count: usize) -> Result<Vec<Socket>> {
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let wave = first + open.len()..first + count.min(open.len() + WAVE);
        let mut sockets = wave.map(|index| request(server, index)).collect::<Result<Vec<_>>>()?;
        sockets.iter_mut().try_for_each(|socket| response(socket, server.compressed))?;
        open.append(&mut sockets);
    }
    Ok(open)
}

/// Sends a compressed message on every socket, and takes an answer of one frame from each.
pub(crate) fn exchange(sockets: &mut [Socket]) -> Result<()> {
    let request = compressed(1000)?;
    for socket in sockets {
        socket.write_all(&request)?;
        let mut header = [0; 2];
        socket.read_exact(&mut header)?;
        let length = match header {
            [0xc2, length @ 0..=125] => usize::from(length),
            [0xc2, 126] => {
                socket.read_exact(&mut header)?;
                u16::from_be_bytes(header).into()
            }
            other => return Err(format!("no compressed message, but a frame that begins with {other:x?}").into()),
        };
        socket.read_exact(&mut vec![0; length])?;
    }
    Ok(())
}

fn request(server: Target, index: usize) -> Result<Socket> {
    let mut socket = connect_to(server, index)?;
    socket.write_all(&opening(server))?;
    Ok(socket)
}

/// A connection, blocking, with the handshake of TLS done if it is to be TLS. `index`: every connection that is open, or was
/// within the last minute, has another one.
pub(crate) fn connect_to(server: Target, index: usize) -> Result<Socket> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(source(index), 0))?;
    connect(&socket, &server.address)?;
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Socket::new(socket, server.tls)
}

/// The beginning of a connection, which does not block: that it is there shows in writing. `number` counts those that were begun,
/// one after the other.
pub(crate) fn begin(server: Target, number: usize) -> Result<Socket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let tcp = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&tcp, &SocketAddrV4::new(source(number % (ADDRESSES * PER_ADDRESS)), 0))?;
    match connect(&tcp, &server.address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let tcp = TcpStream::from(tcp);
    tcp.set_nodelay(true)?;
    Socket::begin(tcp, server.tls)
}

/// The request of the opening handshake.
pub(crate) fn opening(Target { address, path, compressed, .. }: Target) -> Vec<u8> {
    let plain = Handshake::new(path);
    let request = if compressed { plain.header("Sec-WebSocket-Extensions", "permessage-deflate") } else { plain };
    request.bytes(&address.to_string())
}

/// The address from which the connection of that number comes.
pub(crate) fn source(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + (index / PER_ADDRESS) as u32)
}

fn response(socket: &mut Socket, compressed: bool) -> Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        let mut buffer = [0; 512];
        match socket.read(&mut buffer)? {
            0 => break,
            n => head.extend_from_slice(&buffer[..n]),
        }
        if head.len() > 8192 {
            break;
        }
    }
    accepted(&head, compressed)
}

/// Whether the head of a response is what the opening handshake has to be answered with.
pub(crate) fn accepted(head: &[u8], compressed: bool) -> Result<()> {
    let head = String::from_utf8_lossy(head);
    let agreed = head.contains("permessage-deflate");
    if head.starts_with("HTTP/1.1 101 ")
        && head.contains(SAMPLE_ACCEPT)
        && head.ends_with("\r\n\r\n")
        && agreed == compressed
    {
        Ok(())
    } else {
        Err(format!("the opening handshake was answered with {:?}", head.lines().next().unwrap_or("nothing")).into())
    }
}
