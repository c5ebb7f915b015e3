//! The engine over socketpairs and its handoff socket: no httpd, real threads, a real client.

use super::handoff::{Door, HandoffError, Link, VERSION};
use super::log_writer::NamedLog;
use super::process::{Setup, run};
use super::*;
use crate::handlers::echo::Echo;
use crate::wire::{CloseCode, Message, close};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

type Client = WebSocket<UnixStream>;

/// A wait that is longer than anything here takes, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

struct Panics;

impl Handler for Panics {
    fn run<'a>(&'a self, conn: &'a mut Conn) -> Running<'a> {
        Box::pin(async {
            let _ = conn.recv().await;
            panic!("as it was asked to");
        })
    }
}

/// Ends after one message, of its own accord.
struct Once;

impl Handler for Once {
    fn run<'a>(&'a self, conn: &'a mut Conn) -> Running<'a> {
        Box::pin(async {
            let _ = conn.recv().await;
            close(CloseCode::Normal, "that was it")
        })
    }
}

fn registry() -> Registry {
    Registry::default().with("echo", Echo).with("panics", Panics).with("once", Once)
}

fn engine() -> Engine {
    Engine::start(2, &Arc::new(registry())).unwrap()
}

fn spec(handler: &str) -> SessionSpec {
    SessionSpec {
        handler: HandlerSpec { name: handler.into(), args: vec![] },
        protocol: None,
        limits: Limits { close_timeout: Duration::from_millis(200), ..Limits::default() },
        client: "192.0.2.1".into(),
        user: None,
        server: "localhost".into(),
        uri: "/".into(),
        log: None,
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, theirs)
}

fn websocket(stream: UnixStream) -> Client {
    WebSocket::from_raw_socket(stream, Role::Client, None)
}

impl Engine {
    /// A session, and its client.
    fn session(&self, handler: &str) -> Client {
        let (ours, theirs) = pair();
        self.adopt(Adoption { socket: theirs.into(), spec: spec(handler), early: vec![], id: 1 });
        websocket(ours)
    }

    fn wait_for(&self, connections: usize) {
        let start = Instant::now();
        while self.connections() != connections {
            assert!(start.elapsed() < PATIENCE, "{} connections and not {connections}", self.connections());
            std::thread::yield_now();
        }
    }
}

fn echoes(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
    assert_eq!(client.read().unwrap(), Message::text(text));
}

/// The Close frame that the server sends, and the end of the stream after it.
fn closed(client: &mut Client) -> Option<CloseFrame> {
    let frame = loop {
        match client.read().unwrap() {
            Message::Close(frame) => break frame,
            _ => continue,
        }
    };
    // Sends the answer; then there is nothing but the end.
    while client.read().is_ok() {}
    frame
}

#[test]
fn messages_come_back_as_they_were() {
    let engine = engine();
    let mut client = engine.session("echo");
    echoes(&mut client, "");
    echoes(&mut client, "你好，世界 🌍");
    for size in [0, 1, 125, 126, 2047, 2048, 65535, 65536, 1 << 20] {
        let payload = vec![size as u8; size];
        let mut writer = websocket(client.get_ref().try_clone().unwrap());
        let sent = payload.clone();
        // The pair's buffers hold less than the largest: who only writes would wait for ever.
        let sender = std::thread::spawn(move || writer.send(Message::binary(sent)).unwrap());
        assert_eq!(client.read().unwrap(), Message::binary(payload));
        sender.join().unwrap();
    }
    client.close(Some(close(CloseCode::Normal, "bye"))).unwrap();
    assert_eq!(closed(&mut client), Some(close(CloseCode::Normal, "bye")));
    drop(client);
    engine.wait_for(0);
}

#[test]
fn what_came_with_the_handshake_is_not_lost() {
    let (ours, theirs) = pair();
    let mut frame = Vec::new();
    let mut early = WebSocket::from_raw_socket(std::io::Cursor::new(&mut frame), Role::Client, None);
    early.send(Message::text("early")).unwrap();
    drop(early);
    let engine = engine();
    engine.adopt(Adoption { socket: theirs.into(), spec: spec("echo"), early: frame, id: 1 });
    let mut client = websocket(ours);
    assert_eq!(client.read().unwrap(), Message::text("early"));
    echoes(&mut client, "late");
}

#[test]
fn a_panic_ends_one_session() {
    let engine = Engine::start(1, &Arc::new(registry())).unwrap();
    let (mut bad, mut good) = (engine.session("panics"), engine.session("echo"));
    bad.send(Message::text("go")).unwrap();
    assert_eq!(closed(&mut bad).map(|f| f.code), Some(CloseCode::Error));
    echoes(&mut good, "still here");
    drop(bad);
    engine.wait_for(1);
}

#[test]
fn a_handler_may_end_the_session() {
    let engine = engine();
    let mut client = engine.session("once");
    client.send(Message::text("one")).unwrap();
    assert_eq!(closed(&mut client), Some(close(CloseCode::Normal, "that was it")));
    engine.wait_for(0);
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let engine = engine();
    let mut client = engine.session("echo");
    echoes(&mut client, "hello");
    drop(client);
    engine.wait_for(0);
}

#[test]
fn a_client_that_never_answers_is_left_after_the_close_timeout() {
    let engine = engine();
    let mut client = engine.session("once");
    client.send(Message::text("one")).unwrap();
    // Nothing is read and nothing answered: both the closing handshake and the end of the connection time out.
    engine.wait_for(0);
    let mut rest = Vec::new();
    client.get_mut().read_to_end(&mut rest).unwrap();
    assert_eq!(&rest[..4], b"\x88\x0d\x03\xe8");
}

#[test]
fn nothing_is_read_from_a_client_that_does_not_read() {
    let engine = Engine::start(1, &Arc::new(registry())).unwrap();
    let mut neighbour = engine.session("echo");
    let client = engine.session("echo");
    let mut stream = client.get_ref().try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut frame = Vec::new();
    let mut encoder = WebSocket::from_raw_socket(std::io::Cursor::new(&mut frame), Role::Client, None);
    encoder.send(Message::binary(vec![7; 60_000])).unwrap();
    drop(encoder);
    let (mut taken, mut position, mut idle) = (0, 0, 0);
    // As long as the engine takes anything at all; it has had a hundred chances to when it takes no more.
    while idle < 100 {
        match stream.write(&frame[position..]) {
            Ok(count) => {
                taken += count;
                position = (position + count) % frame.len();
                idle = 0;
            }
            Err(_) => {
                idle += 1;
                echoes(&mut neighbour, "unaffected");
            }
        }
    }
    let limit = Limits::default().send_buffer;
    assert!(taken > limit, "only {taken} bytes were taken");
    assert!(taken < 2 * limit, "{taken} bytes were taken");
    // And it goes on where it stopped.
    stream.set_nonblocking(false).unwrap();
    let (length, rest) = (frame.len(), frame.split_off(position));
    let finish = std::thread::spawn(move || stream.write_all(if position == 0 { &[] } else { &rest }).unwrap());
    let mut client = client;
    for _ in 0..taken.div_ceil(length) {
        assert_eq!(client.read().unwrap().len(), 60_000);
    }
    finish.join().unwrap();
}

#[test]
fn draining_closes_everyone_with_1001() {
    let engine = engine();
    let mut clients: Vec<Client> = (0..10).map(|_| engine.session("echo")).collect();
    for client in &mut clients {
        echoes(client, "hello");
    }
    // One is in the middle of a frame, one does not read.
    clients[1].get_mut().write_all(&[0x81, 0xfe, 1]).unwrap();
    let readers = std::thread::spawn(move || {
        clients.iter_mut().skip(1).map(|client| closed(client).map(|frame| frame.code)).collect::<Vec<_>>()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(engine.drain(conn::going_away(), PATIENCE));
    assert_eq!(engine.connections(), 0);
    assert_eq!(readers.join().unwrap(), vec![Some(CloseCode::Away); 9]);
}

/// An engine process, but for the process.
struct Process {
    path: PathBuf,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Process {
    fn start() -> Process {
        Process::start_with(vec![])
    }

    fn start_with(session_logs: Vec<NamedLog>) -> Process {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let configure = Box::new(|configuration: &handoff::Configuration, log: Option<OwnedFd>| {
                assert_eq!((configuration.log_level, log.is_some()), (7, configuration.with_log));
            });
            run(Setup { listener, threads: 1, handlers: registry(), configure, session_logs }).unwrap();
        });
        Process { path, thread: Some(thread), _directory: directory }
    }

    fn retire(&mut self) {
        Link::connect(&self.path).unwrap().retire().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_socket_is_handed_over() {
    let mut engine = Process::start();
    let door = Door::new(engine.path.clone());
    for _ in 0..3 {
        let (mut link, ticket) = door.offer(&spec("echo")).unwrap();
        let (ours, theirs) = pair();
        link.give(ticket, vec![], theirs.as_fd()).unwrap();
        drop(theirs);
        door.keep(link);
        let mut client = websocket(ours);
        echoes(&mut client, "hello");
        client.close(None).unwrap();
        assert_eq!(closed(&mut client), None);
    }
    drop(door);
    engine.retire();
}

#[test]
fn offers_are_refused_before_the_upgrade() {
    let mut engine = Process::start();
    let door = Door::new(engine.path.clone());
    match door.offer(&spec("nobody")) {
        Err(HandoffError::Refused { status: 500, reason }) => assert!(reason.contains("nobody")),
        other => panic!("{other:?}"),
    }
    let (mut link, ticket) = door.offer(&spec("echo")).unwrap();
    link.abandon(ticket).unwrap();
    assert!(link.offer(&spec("echo")).unwrap() > ticket);
    engine.retire();
    drop(link);
    assert!(matches!(door.offer(&spec("echo")), Err(HandoffError::Unreachable(_))));
}

#[test]
fn a_new_configuration_and_its_log_arrive() {
    let mut engine = Process::start();
    let (log, _) = pair();
    let mut link = Link::connect(&engine.path).unwrap();
    assert_eq!(link.configure(7, Some(log.as_fd()), &[]).unwrap(), VERSION);
    assert_eq!(link.configure(7, None, &[]).unwrap(), VERSION);
    engine.retire();
}

/// A session that has ended, with this log.
fn logged_session(door: &Door, name: &str) -> String {
    let (mut link, ticket) = door.offer(&logged(name)).unwrap();
    let (ours, theirs) = pair();
    link.give(ticket, vec![], theirs.as_fd()).unwrap();
    drop(theirs);
    door.keep(link);
    let mut client = websocket(ours);
    echoes(&mut client, "hello");
    echoes(&mut client, "");
    client.close(Some(close(CloseCode::Normal, ""))).unwrap();
    closed(&mut client);
    format!(" 192.0.2.1 - www.example.com \"/\" echo - 0.000 2 5 2 5 1000 client {ticket}")
}

fn logged(name: &str) -> SessionSpec {
    SessionSpec { log: Some(LogSpec { name: name.into(), host: "www.example.com".into() }), ..spec("echo") }
}

/// Reads a line of a session log, and puts zeros where the seconds are.
fn read_line(log: &mut impl BufRead) -> String {
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let (_, fields) = line.split_once(']').expect("the time");
    let seconds = fields.split(' ').nth(7).unwrap();
    assert!(seconds.split_once('.').is_some_and(|(_, fraction)| fraction.len() == 3), "{line}");
    fields.trim_end().replacen(seconds, "0.000", 1)
}

#[test]
fn session_logs_come_with_the_start_and_with_each_configuration() {
    let log = || UnixStream::pair().unwrap();
    let ((a, a_write), (b, b_write)) = (log(), log());
    let mut engine = Process::start_with(vec![("a".into(), a_write.into()), ("b".into(), b_write.into())]);
    let door = Door::new(engine.path.clone());
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    let first = logged_session(&door, "a");
    assert_eq!(read_line(&mut a), first);
    let second = logged_session(&door, "b");
    assert_eq!(read_line(&mut b), second);

    // One is open while the configuration changes.
    let (mut link, ticket) = door.offer(&logged("a")).unwrap();
    let (ours, theirs) = pair();
    link.give(ticket, vec![], theirs.as_fd()).unwrap();
    drop(theirs);
    let mut client = websocket(ours);
    echoes(&mut client, "old");
    // More than one SCM_RIGHTS message carries on Linux.
    let mut logs: Vec<NamedLog> = (0..300).map(|n| (format!("log {n}"), log().0.into())).collect();
    let (new, write) = log();
    logs.push(("a".into(), write.into()));
    assert_eq!(link.configure(7, None, &logs).unwrap(), VERSION);
    drop(logs);
    let mut new = BufReader::new(new);
    drop(client);
    let line = read_line(&mut new);
    assert!(line.ends_with(&format!(" 1 3 1 3 1006 lost {ticket}")), "{line}");
    let third = logged_session(&door, "a");
    assert_eq!(read_line(&mut new), third);
    // No such log any more: no line, and nothing else either.
    logged_session(&door, "b");
    drop((link, door));
    engine.retire();
    for mut log in [a, b, new] {
        assert_eq!(log.read(&mut [0]).unwrap(), 0, "nothing more");
    }
}

#[test]
fn another_version_is_told_so_and_may_retire_the_engine() {
    let mut engine = Process::start();
    let mut stranger = UnixStream::connect(&engine.path).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    // Hello { version: "x" } and then Retire, byte for byte: these two stay as they are in every version.
    stranger.write_all(&[0, 0, 0, 3, 0, 1, b'x']).unwrap();
    let mut answer = vec![0; 4 + 2 + VERSION.len()];
    stranger.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[..6], [0, 0, 0, 2 + VERSION.len() as u8, 0, VERSION.len() as u8]);
    assert_eq!(&answer[6..], VERSION.as_bytes());
    stranger.write_all(&[0, 0, 0, 1, 1]).unwrap();
    engine.thread.take().unwrap().join().unwrap();
}
