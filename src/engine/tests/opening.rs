//! A handshake that the engine answers: one message brings the socket, what came early, and the 101.

use super::process::Process;
use super::*;
use crate::engine::entrance;
use crate::engine::handoff::{ToEngine, encode};
use std::os::fd::BorrowedFd;
use tokio::sync::Semaphore;

const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Accepts when there is a permit.
pub(super) struct Hesitates;

static PERMITS: Semaphore = Semaphore::const_new(0);

impl Handler for Hesitates {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async {
            PERMITS.acquire().await.unwrap().forget();
            Ok(Accepted::messages(Echo))
        })
    }
}

/// Has a line of its own for the 101.
pub(super) struct Adds;

impl Handler for Adds {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        let response = Response::Standard(vec![("X-Line".into(), "own".into())]);
        Box::pin(async { Ok(Accepted { response, ..Accepted::messages(Echo) }) })
    }
}

fn opening(spec: SessionSpec, early: Vec<u8>) -> ToEngine {
    ToEngine::Open { spec: Box::new(spec), head: HEAD.to_vec(), early, tls: None }
}

/// As httpd gives them: the second does not block.
fn bare_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn open(child: &EngineClient, spec: SessionSpec, early: Vec<u8>) -> (Result<u64, HandoffError>, UnixStream) {
    let (ours, theirs) = bare_pair();
    (child.open(opening(spec, early), theirs.as_fd(), PATIENCE), ours)
}

/// The 101 comes first; then it is a WebSocket.
fn answered(mut client: UnixStream) -> Client {
    let mut head = [0; HEAD.len()];
    client.read_exact(&mut head).unwrap();
    assert_eq!(head, HEAD);
    websocket(client)
}

/// Nobody has it any more, and nobody has said anything.
fn is_let_go(mut client: UnixStream) {
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_101_goes_before_all_else() {
    let mut engine = Process::start();
    let child = engine.child();
    for early in [vec![], encoded(Message::text("early"))] {
        let is_early = !early.is_empty();
        let (id, client) = open(&child, spec("echo"), early);
        assert_ne!(id.unwrap(), 0);
        let mut client = answered(client);
        if is_early {
            assert_eq!(client.read().unwrap(), Message::text("early"));
        }
        echoes(&mut client, "late");
        client.close(None).unwrap();
        assert_eq!(closed(&mut client), None);
    }
    drop(child);
    engine.retire();
}

#[test]
fn a_101_for_which_there_is_no_room_goes_when_there_is() {
    let mut engine = Process::start();
    let child = engine.child();
    let (ours, theirs) = bare_pair();
    let mut filled = 0;
    while let Ok(count) = (&theirs).write(&[7; 4096]) {
        filled += count;
    }
    let early = encoded(Message::text("early"));
    child.open(opening(spec("echo"), early), theirs.as_fd(), PATIENCE).unwrap();
    drop(theirs);
    (&ours).read_exact(&mut vec![0; filled]).unwrap();
    let mut client = answered(ours);
    assert_eq!(client.read().unwrap(), Message::text("early"));
    drop((client, child));
    engine.retire();
}

#[test]
fn a_refusal_leaves_the_socket_to_httpd() {
    let mut engine = Process::start();
    let child = engine.child();
    let limited = || SessionSpec { quotas: vec![Quota { scope: "all".into(), max: 1 }], ..spec("echo") };
    let (_, first) = open(&child, limited(), vec![]);
    let mut first = answered(first);
    let refused = |spec: SessionSpec| match open(&child, spec, vec![1]) {
        (Err(HandoffError::Refused { status, by_quota, .. }), client) => {
            is_let_go(client);
            (status, by_quota)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(limited()), (503, true));
    assert_eq!(refused(spec("nobody")), (500, false));
    for handler in ["adds", "greets"] {
        assert_eq!(refused(spec(handler)), (500, false), "{handler}: it was not to be opened so");
    }
    echoes(&mut first, "still there");
    // With them its place is free again.
    first.close(None).unwrap();
    closed(&mut first);
    answered(open(&child, limited(), vec![]).1);
    drop(child);
    engine.retire();
}

/// Hello and the message, over a link of its own.
fn send(engine: &Process, message: &ToEngine, descriptors: &[BorrowedFd<'_>]) -> UnixStream {
    let mut link = entrance::open(engine.entrance.as_fd()).unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    link.write_all(&encode(&ToEngine::Hello { version: version().into() }).unwrap()).unwrap();
    let bytes = encode(message).unwrap();
    match descriptors {
        [] => link.write_all(&bytes).unwrap(),
        some => {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            let sent = crate::engine::handoff::sendmsg_with(&link, &bytes, some, flags).unwrap();
            link.write_all(&bytes[sent..]).unwrap();
        }
    }
    link
}

#[test]
fn who_has_given_up_is_answered_by_nobody() {
    let mut engine = Process::start();
    let (ours, theirs) = bare_pair();
    let mut link = send(&engine, &opening(spec("hesitates"), vec![]), &[theirs.as_fd()]);
    drop(theirs);
    // It asks somebody, says so, and meanwhile the child of httpd goes.
    let mut asking = [0; 5];
    link.read_exact(&mut asking).unwrap();
    drop(link);
    PERMITS.add_permits(1);
    is_let_go(ours);
    // A child that waits gets its session.
    PERMITS.add_permits(1);
    let child = engine.child();
    let (id, client) = open(&child, spec("hesitates"), vec![]);
    id.unwrap();
    echoes(&mut answered(client), "patient");
    drop(child);
    engine.retire();
}

#[test]
fn a_message_without_its_socket_ends_the_link() {
    let mut engine = Process::start();
    let mut link = send(&engine, &opening(spec("echo"), vec![]), &[]);
    assert_eq!(link.read(&mut [0]).unwrap(), 0, "hung up");
    let (ours, theirs) = bare_pair();
    let (other, more) = pair();
    // One that is too many is closed, when the next message does not want it either.
    let mut link = send(&engine, &opening(spec("echo"), vec![]), &[theirs.as_fd(), more.as_fd()]);
    drop((theirs, more));
    let mut client = answered(ours);
    echoes(&mut client, "hello");
    link.write_all(&encode(&ToEngine::Abandon { id: 1 }).unwrap()).unwrap();
    drop(link);
    is_let_go(other);
    drop(client);
    engine.retire();
}
