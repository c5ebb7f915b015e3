//! Both ends of a link.

use super::codec::{DESCRIPTORS, send_before};
use super::*;
use crate::engine::health::patient::PatientStream;
use crate::engine::{LogSpec, Quota, SessionSpec, entrance, testing};
use crate::tls::record::{Direction, Keys};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

pub(super) fn spec() -> SessionSpec {
    SessionSpec {
        protocol: Some("chat".into()),
        quotas: vec![Quota { scope: "everybody".into(), max: 7 }],
        log: Some(Box::new(LogSpec { query: false, name: "logs/ws.log".into(), host: "www.example.com".into() })),
        ..testing::spec("echo")
    }
}

/// Reads of a link up to the next call; false when it has ended.
fn hears_a_call(stream: &mut UnixStream, decoder: &mut MessageDecoder) -> bool {
    loop {
        match decoder.take().unwrap() {
            Some(ToEngine::Call { .. }) => return true,
            Some(_) => {}
            None => {
                let mut piece = [0; 100];
                match stream.read(&mut piece).unwrap() {
                    0 => return false,
                    count => decoder.put(&piece[..count]),
                }
            }
        }
    }
}

#[test]
fn a_call_that_was_heard_is_not_made_again() {
    let (entrance, inside) = entrance::pair().unwrap();
    rustix::io::ioctl_fionbio(&inside, false).unwrap();
    let enters = move || {
        let stream = entrance::receive(inside.as_fd()).unwrap().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    };
    let engine = std::thread::spawn(move || {
        let mut stream = enters();
        let mut decoder = MessageDecoder::default();
        assert!(hears_a_call(&mut stream, &mut decoder));
        stream.write_all(&encode(&FromEngine::Answer { answer: vec![1] }).unwrap()).unwrap();
        // It dies over the second one.
        assert!(hears_a_call(&mut stream, &mut decoder));
        drop(stream);
        let mut stream = enters();
        let mut calls = 0;
        while hears_a_call(&mut stream, &mut decoder) {
            stream.write_all(&encode(&FromEngine::Answer { answer: vec![3] }).unwrap()).unwrap();
            calls += 1;
        }
        calls
    });
    let client = EngineClient::new(entrance);
    assert_eq!(client.call("channel", vec![1], &[]).unwrap(), [1]);
    assert!(matches!(client.call("channel", vec![2], &[]), Err(HandoffError::Unanswered(_))));
    assert_eq!(client.call("channel", vec![3], &[]).unwrap(), [3]);
    drop(client);
    assert_eq!(engine.join().unwrap(), 1);
}

fn link() -> (Link, Receiver) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Link { stream: PatientStream::new(ours, None, None).unwrap() }, Receiver::new(theirs).unwrap())
}

#[tokio::test]
async fn a_message_that_does_not_end_is_an_error() {
    let (mut link, mut receiver) = link();
    receiver.message_time = Duration::from_millis(20);
    let message = encode(&ToEngine::Abandon { id: 1 }).unwrap();
    let (begin, end) = message.split_at(3);
    link.stream.write_all(begin).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), receiver.next()).await.is_err());
    link.stream.write_all(end).unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(ToEngine::Abandon { id: 1 }));
    let silence = tokio::time::timeout(3 * receiver.message_time, receiver.next()).await;
    assert!(silence.is_err(), "there may be silence between two");
    link.stream.write_all(begin).unwrap();
    assert_eq!(receiver.next().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(link);
}

#[tokio::test]
async fn descriptors_do_not_pile_up() {
    let (mut link, mut receiver) = link();
    let (socket, mut far) = UnixStream::pair().unwrap();
    for id in 0..=DESCRIPTORS as u64 {
        link.send_with(&ToEngine::Abandon { id }, &[socket.as_fd()]).unwrap();
    }
    drop(socket);
    let mut heard = 0;
    let why = loop {
        match receiver.next().await {
            Ok(message) => heard += usize::from(message.is_some()),
            Err(why) => break why,
        }
    };
    assert_eq!((heard, why.kind()), (DESCRIPTORS, io::ErrorKind::InvalidData));
    drop((receiver, link));
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "all are closed");
}

#[tokio::test]
async fn a_descriptor_arrives_with_its_message() {
    let (mut link, mut receiver) = link();
    link.send(&ToEngine::Abandon { id: 1 }).unwrap();
    // More than one read's worth: the descriptor belongs to the first byte.
    let (socket, mut far) = UnixStream::pair().unwrap();
    let (second, mut far_second) = UnixStream::pair().unwrap();
    let direction = |byte, sequence| Direction { secret: vec![byte; 32].into(), sequence };
    let keys = Box::new(Keys { suite: 0x1301, client: direction(1, 2), server: direction(3, 4) });
    link.give(2, vec![9; 10_000], socket.as_fd(), Some(keys.clone()), Some(second.as_fd())).unwrap();
    drop((link, socket, second));
    assert_eq!(receiver.next().await.unwrap(), Some(ToEngine::Abandon { id: 1 }));
    assert_eq!(
        receiver.next().await.unwrap(),
        Some(ToEngine::Take { id: 2, early: vec![9; 10_000], linked: true, tls: Some(keys), backend: None })
    );
    for far in [&mut far, &mut far_second] {
        let mut received = UnixStream::from(receiver.descriptor().unwrap());
        received.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
    }
    assert!(receiver.descriptor().is_err());
    assert_eq!(receiver.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_payload_arrives_with_its_message_and_takes_nothing_of_the_next() {
    let (mut link, mut receiver) = link();
    let (socket, mut far) = UnixStream::pair().unwrap();
    let call = |payload: Vec<u8>| ToEngine::Call { handler: "a".into(), request: vec![1], payload: payload.into() };
    for length in [0, 100, 3 << 20] {
        let sender = std::thread::spawn({
            let socket = socket.try_clone().unwrap();
            move || {
                send_before(&mut link.stream, &call(vec![]), &vec![7; length]).unwrap();
                link.give(2, vec![9; 100], socket.as_fd(), None, None).unwrap();
                link
            }
        });
        assert_eq!(receiver.next().await.unwrap(), Some(call(vec![7; length])));
        let take = ToEngine::Take { id: 2, early: vec![9; 100], linked: false, tls: None, backend: None };
        assert_eq!(receiver.next().await.unwrap(), Some(take));
        UnixStream::from(receiver.descriptor().unwrap()).write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        link = sender.join().unwrap();
    }
}

#[tokio::test]
async fn a_proxied_session_brings_its_server() {
    let (mut link, mut receiver) = link();
    let ((socket, far), (second, far_second)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let direction = |byte, sequence| Direction { secret: vec![byte; 32].into(), sequence };
    let keys = || Some(Box::new(Keys { suite: 0x1302, client: direction(1, 2), server: direction(3, 4) }));
    let client = Side { socket: socket.as_fd(), early: vec![1], keys: None };
    let server = || Side { socket: second.as_fd(), early: vec![2], keys: keys() };
    link.give_proxied(7, client, server(), vec![3]).unwrap();
    link.carry_proxied(8, 9, server(), vec![3]).unwrap();
    drop((link, socket, second));
    let backend = || Some(Box::new(ProxiedBackend { early: vec![2], tls: keys(), settings: vec![3] }));
    let take = ToEngine::Take { id: 7, early: vec![1], linked: false, tls: None, backend: backend() };
    let carry = ToEngine::Carry { id: 8, mux: 9, backend: backend() };
    assert!(take.is_secret() && carry.is_secret());
    for (message, far) in [(take, &[&far, &far_second][..]), (carry, &[&far_second])] {
        assert_eq!(receiver.next().await.unwrap(), Some(message));
        for mut far in far.iter().copied() {
            UnixStream::from(receiver.descriptor().unwrap()).write_all(b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
    }
}

/// An end of a link as the engine has it, but for what it says.
fn inside(entrance: &std::os::fd::OwnedFd) -> UnixStream {
    let stream = entrance::receive(entrance.as_fd()).unwrap().unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn opening() -> ToEngine {
    ToEngine::Open { spec: Box::new(spec()), head: b"101".to_vec(), early: vec![4], tls: None }
}

/// The session and the socket that come over a link.
async fn hears_a_session(receiver: &mut Receiver) -> UnixStream {
    assert!(matches!(receiver.next().await.unwrap(), Some(ToEngine::Hello { .. })));
    assert_eq!(receiver.next().await.unwrap(), Some(opening()));
    receiver.descriptor().unwrap().into()
}

#[tokio::test]
async fn a_session_that_nobody_has_answered_is_opened_by_the_next_engine() {
    let (entrance, engine) = entrance::pair().unwrap();
    rustix::io::ioctl_fionbio(&engine, false).unwrap();
    let client = EngineClient::new(entrance);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = std::thread::spawn(move || {
        let socket = theirs;
        let open = |client: &EngineClient| client.open(opening(), socket.as_fd(), PATIENCE).map_err(|e| e.to_string());
        let ids = [open(&client), open(&client)];
        drop((client, socket));
        ids
    });
    let mut first = Receiver::new(inside(&engine)).unwrap();
    let mut socket = hears_a_session(&mut first).await;
    first.send(&FromEngine::Opened { id: 7 }).await.unwrap();
    socket.write_all(b"one").unwrap();
    // The second comes over the same link, and that engine dies with it.
    assert_eq!(first.next().await.unwrap(), Some(opening()));
    drop(first);
    let mut next = Receiver::new(inside(&engine)).unwrap();
    let mut again = hears_a_session(&mut next).await;
    next.send(&FromEngine::Opened { id: 8 }).await.unwrap();
    again.write_all(b"two").unwrap();
    assert_eq!(child.join().unwrap(), [Ok(7), Ok(8)]);
    drop((socket, again, next));
    let mut said = String::new();
    (&ours).read_to_string(&mut said).unwrap();
    assert_eq!(said, "onetwo", "once each, and all descriptors are closed");
}

#[tokio::test]
async fn an_answer_that_comes_at_the_last_moment_counts_and_none_comes_after_it() {
    let (mut link, mut receiver) = link();
    receiver.send(&FromEngine::Opened { id: 9 }).await.unwrap();
    assert_eq!(link.last_word(), Some(FromEngine::Opened { id: 9 }));
    let late = receiver.send(&FromEngine::Opened { id: 10 }).await;
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let (mut link, receiver) = self::link();
    assert_eq!(link.last_word(), None);
    drop(receiver);
}

#[tokio::test]
async fn what_follows_an_answered_session_is_heard() {
    let (mut link, mut receiver) = link();
    let (socket, _far) = UnixStream::pair().unwrap();
    for id in 0..3 {
        link.send_with(&opening(), &[socket.as_fd()]).unwrap();
        assert_eq!(receiver.next().await.unwrap(), Some(opening()));
        drop(receiver.descriptor().unwrap());
        receiver.note_empty();
        receiver.send(&FromEngine::Opened { id }).await.unwrap();
        let answer = receive(&mut link.stream).unwrap();
        assert_eq!(answer, FromEngine::Opened { id });
    }
    // More than the other end takes at once.
    let long = FromEngine::Answer { answer: vec![7; 4 << 20] };
    let reader = std::thread::spawn(move || receive(&mut link.stream));
    receiver.send(&long).await.unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), long);
}

#[tokio::test]
async fn it_is_known_without_asking_whether_somebody_waits() {
    let (mut link, mut receiver) = link();
    link.send(&opening()).unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(opening()));
    assert!(!receiver.was_hung_up());
    receiver.note_empty();
    link.send(&opening()).unwrap();
    drop(link);
    assert_eq!(receiver.next().await.unwrap(), Some(opening()));
    assert!(receiver.was_hung_up() && receiver.is_hung_up());
}
