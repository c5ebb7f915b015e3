//! The tcp handler in an engine of two threads, with real sockets.

use super::*;
use crate::engine::memory::Bound;
use crate::engine::testing::{self, Client, PATIENCE, TestEngine};
use crate::engine::{HandlerSpec, Limits, Registry, Response};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout, socket_keepalive, tcp_nodelay};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept, bind, connect, getsockname, listen, socket};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

/// After which a write that has not got on waits for a reader.
const STUCK: Duration = Duration::from_millis(500);
/// What may be under way from one end to the other: kernel buffers, above all.
const UNDER_WAY: usize = 24 << 20;

struct TcpEngine {
    engine: TestEngine,
}

impl TcpEngine {
    fn new() -> TcpEngine {
        TcpEngine { engine: TestEngine::start(2, Registry::default().with("tcp", Tcp::default()), Bound::Off) }
    }

    fn spec(settings: &TcpSettings) -> SessionSpec {
        let settings = postcard::to_stdvec(settings).unwrap();
        let spec = testing::spec("tcp");
        SessionSpec {
            handler: HandlerSpec { settings, ..spec.handler },
            protocol: Some(PROTOCOL.into()),
            limits: Limits { send_buffer: 100_000, ..spec.limits },
            ..spec
        }
    }

    fn open(&self, settings: &TcpSettings) -> Result<Client, Refused> {
        let spec = TcpEngine::spec(settings);
        let accepted = match self.engine.accept(&spec) {
            Ok(accepted) => accepted,
            Err(Rejection::Refused(refused)) => return Err(refused),
            Err(other) => panic!("{other}"),
        };
        assert_eq!((&accepted.response, accepted.descriptors), (&Response::default(), 1));
        let (ours, theirs) = testing::pair();
        self.engine.run(theirs, spec, accepted, vec![], vec![]);
        Ok(testing::websocket(ours))
    }

    fn client(&self, target: &str) -> Client {
        self.open(&to(target)).unwrap()
    }

    fn status(&self, target: &str, timeout: Duration) -> u16 {
        match self.open(&TcpSettings { timeout, ..to(target) }) {
            Ok(_) => 101,
            Err(refused) => refused.status,
        }
    }

    /// A client, and the other end of the connection that was made for it.
    fn connected(&self) -> (Client, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = self.client(&listener.local_addr().unwrap().to_string());
        let target = listener.accept().unwrap().0;
        target.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, target)
    }
}

const CROWD: Crowd = Crowd { group: 1, limit: 4 };

fn to(target: &str) -> TcpSettings {
    TcpSettings { to: To::Target(Target::parse(target).unwrap()), timeout: PATIENCE, crowd: CROWD }
}

fn send(client: &mut Client, bytes: &[u8]) {
    client.send(Message::binary(bytes.to_vec())).unwrap();
}

/// So many bytes from the server, in whatever messages.
fn receive(client: &mut Client, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match client.read().unwrap() {
            Message::Binary(piece) => bytes.extend_from_slice(&piece),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes.len(), count);
    bytes
}

fn closed(client: &mut Client) -> Option<CloseFrame> {
    match client.read().unwrap() {
        Message::Close(frame) => frame,
        other => panic!("{other:?}"),
    }
}

/// Bytes that show where they belong.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}

/// Writes `bytes`, over and over, until nobody takes any more; how many were taken.
fn fill(stream: &mut (impl Write + AsFd), bytes: &[u8]) -> usize {
    set_socket_timeout(&stream, Timeout::Send, Some(STUCK)).unwrap();
    let mut count = 0;
    loop {
        match stream.write(&bytes[count % bytes.len()..]) {
            Ok(taken) => count += taken,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return count,
            Err(e) => panic!("{e}"),
        }
        assert!(count < UNDER_WAY, "{count} bytes were taken for a client that reads nothing");
    }
}

#[test]
fn bytes_go_both_ways() {
    let engine = TcpEngine::new();
    let (mut client, mut target) = engine.connected();
    send(&mut client, b"\x00\xff");
    client.send(Message::text("PING\r\n")).unwrap();
    send(&mut client, b"");
    client.send(Message::Ping("!".into())).unwrap();
    let mut bytes = [0; 8];
    target.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\x00\xffPING\r\n");
    assert_eq!(client.read().unwrap(), Message::Pong("!".into()));
    target.write_all(b"+PONG\r\n\x00\xfe").unwrap();
    assert_eq!(receive(&mut client, 9), b"+PONG\r\n\x00\xfe");
}

#[test]
fn a_unix_socket_is_a_target() {
    let engine = TcpEngine::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("target.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = engine.client(&format!("unix:{}", path.display()));
    let mut target = listener.accept().unwrap().0;
    send(&mut client, b"hello");
    let mut bytes = [0; 5];
    target.read_exact(&mut bytes).unwrap();
    target.write_all(&bytes).unwrap();
    assert_eq!(receive(&mut client, 5), b"hello");
    drop(target);
    assert_eq!(closed(&mut client).unwrap().code, CloseCode::Normal);
}

#[test]
fn the_connection_is_made_as_it_should_be() {
    let engine = TcpEngine::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Of the addresses of this name, some have nobody.
    let target = Target::parse(&format!("localhost:{port}")).unwrap();
    let link = engine.engine.block_on(target.connect(PATIENCE)).unwrap();
    assert!(tcp_nodelay(&link).unwrap());
    assert!(socket_keepalive(&link).unwrap());
    assert_eq!(fcntl_getfd(&link).unwrap(), FdFlags::CLOEXEC);
}

/// A socket that listens, and whose queue is full: who wants to connect is not answered.
fn full(address: &impl SocketAddrArg, family: AddressFamily) -> (OwnedFd, Vec<OwnedFd>) {
    let listener = socket(family, SocketType::STREAM, None).unwrap();
    bind(&listener, address).unwrap();
    listen(&listener, 0).unwrap();
    let address = getsockname(&listener).unwrap();
    let waiting = (0..3).map(|_| {
        let client = socket(family, SocketType::STREAM, None).unwrap();
        rustix::io::ioctl_fionbio(&client, true).unwrap();
        // It is under way, or has no place.
        let _ = connect(&client, &address);
        client
    });
    let waiting = waiting.collect();
    (listener, waiting)
}

#[test]
fn a_target_that_is_not_there_is_an_answer_of_http() {
    let engine = TcpEngine::new();
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.sock");
    let short = Duration::from_millis(300);
    assert_eq!(engine.status(&unused.to_string(), PATIENCE), 502);
    assert_eq!(engine.status("unix:/nowhere/x.sock", PATIENCE), 502);
    // RFC 6761: there is no such name.
    assert_eq!(engine.status("nobody.invalid:80", PATIENCE), 502);

    let (listener, waiting) = full(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), AddressFamily::INET);
    let port = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap().port();
    assert_eq!(engine.status(&format!("127.0.0.1:{port}"), short), 504);
    drop((listener, waiting));

    let (listener, waiting) = full(&SocketAddrUnix::new(&path).unwrap(), AddressFamily::UNIX);
    let target = format!("unix:{}", path.display());
    assert_eq!(engine.status(&target, short), 504);
    // One that has been too busy for a moment; under another name, since it is remembered that this one did not answer.
    let again = directory.path().join("again.sock");
    std::os::unix::fs::symlink(&path, &again).unwrap();
    let target = format!("unix:{}", again.display());
    let taker = std::thread::spawn(move || {
        for _ in 0..=waiting.len() {
            accept(&listener).unwrap();
        }
        (listener, waiting)
    });
    assert_eq!(engine.status(&target, PATIENCE), 101);
    drop(taker);
}

#[test]
fn a_token_names_the_target() {
    let engine = TcpEngine::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("targets");
    fs::write(&file, format!("desk: {}\n", listener.local_addr().unwrap())).unwrap();
    let open = |file: &Path, token: Option<&str>| {
        let to = To::Token { file: file.to_owned(), token: token.map(str::to_owned) };
        engine.open(&TcpSettings { to, timeout: PATIENCE, crowd: CROWD })
    };
    let mut client = open(&file, Some("desk")).unwrap();
    listener.accept().unwrap().0.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut client, 5), b"hello");
    assert_eq!(open(&file, Some("chair")).unwrap_err().status, 404);
    assert_eq!(open(&file, None).unwrap_err().status, 403);
    assert_eq!(open(&directory.path().join("none"), Some("desk")).unwrap_err().status, 500);
}

#[test]
fn what_a_target_said_before_its_end_is_delivered() {
    let engine = TcpEngine::new();
    let (mut client, mut target) = engine.connected();
    // More than the send buffer; and nobody reads until all of it was said.
    let said = pattern(400_000);
    target.write_all(&said).unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    // For longer than the closing handshake may take.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(receive(&mut client, said.len()), said);
    assert_eq!(closed(&mut client), Some(close(CloseCode::Normal, "")));
    // The target hears that this was all.
    assert_eq!(target.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_a_client_said_before_its_close_is_delivered() {
    let engine = TcpEngine::new();
    let (mut client, mut target) = engine.connected();
    let said = pattern(900_000);
    send(&mut client, &said[..600_000]);
    send(&mut client, &said[600_000..]);
    client.close(None).unwrap();
    assert_eq!(closed(&mut client), None);
    drop(client);
    // It talks on, to nobody.
    target.write_all(b"still here").unwrap();
    let mut heard = Vec::new();
    target.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, said);
    target.write_all(b"and here").unwrap();
}

#[test]
fn a_client_that_vanishes_is_an_end_for_the_target() {
    let engine = TcpEngine::new();
    let (mut client, mut target) = engine.connected();
    send(&mut client, b"hello");
    drop(client);
    let mut heard = Vec::new();
    target.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"hello");
}

#[test]
fn a_reset_is_an_error() {
    let engine = TcpEngine::new();
    let (mut client, mut target) = engine.connected();
    target.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut client, 5), b"hello");
    set_socket_linger(&target, Some(Duration::ZERO)).unwrap();
    drop(target);
    let lost = close(CloseCode::Error, "the connection to the target was lost");
    assert_eq!(closed(&mut client), Some(lost.clone()));
    // Closed with something unread, which is a reset, too.
    let (mut client, target) = engine.connected();
    send(&mut client, b"hello");
    target.peek(&mut [0]).unwrap();
    drop(target);
    assert_eq!(closed(&mut client), Some(lost));
}

#[test]
fn who_does_not_take_holds_the_other_up() {
    let engine = TcpEngine::new();
    let bytes = pattern(1 << 20);
    let (mut client, mut target) = engine.connected();
    let count = fill(&mut target, &bytes);
    let reader = std::thread::spawn(move || receive(&mut client, count));
    let received = reader.join().unwrap();
    assert!(received.iter().zip(bytes.iter().cycle()).all(|(a, b)| a == b));

    // The other way round, in frames as a client has them.
    let (client, mut target) = engine.connected();
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend(60_000u64.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(&bytes[..60_000]);
    let count = fill(&mut &**client.get_ref(), &frame);
    let whole = count / frame.len() * 60_000;
    assert!(whole > 0);
    let mut heard = vec![0; whole];
    target.read_exact(&mut heard).unwrap();
    assert!(heard.iter().zip(bytes[..60_000].iter().cycle()).all(|(a, b)| a == b));
}

#[test]
fn one_that_goes_while_it_is_held_up_is_noticed() {
    let engine = TcpEngine::new();
    let (client, mut target) = engine.connected();
    let mut frame = vec![0x82, 0x80 | 126, 0xff, 0xff, 0, 0, 0, 0];
    frame.extend([b'x'; 0xffff]);
    fill(&mut &**client.get_ref(), &frame);
    drop(client);
    let start = Instant::now();
    while engine.engine.connections() > 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    // What was taken from the client is for the target, though the session is over.
    let mut heard = Vec::new();
    target.read_to_end(&mut heard).unwrap();
    assert!(!heard.is_empty() && heard.iter().all(|byte| *byte == b'x'));
}
