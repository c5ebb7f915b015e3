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
    (
        Link { stream: PatientStream::new(ours, None, None).unwrap() },
        Receiver::new(tokio::net::UnixStream::from_std(theirs).unwrap()),
    )
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
