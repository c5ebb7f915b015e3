//! Sessions between a client and a server, over socketpairs.

use super::*;
use crate::engine::memory::Bound;
use crate::engine::testing::{PATIENCE, TestEngine, pair, spec};
use crate::engine::{BackendStream, Registry, SessionSpec};
use crate::wire::{CloseCode, close};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

mod whole;

fn engine() -> TestEngine {
    TestEngine::start(1, Registry::default().with("proxy", Proxy), Bound::Off)
}

fn settings() -> ProxySettings {
    ProxySettings { backend: "ws://server".into(), idle_timeout: None, half_close: true }
}

/// What comes with a session, and how it is configured.
struct Terms {
    spec: SessionSpec,
    settings: ProxySettings,
    early: Vec<u8>,
    said: Vec<u8>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { spec: spec("proxy"), settings: settings(), early: vec![], said: vec![] }
    }
}

/// A session: its number, its client and its server.
fn session(engine: &TestEngine, terms: Terms) -> (u64, UnixStream, UnixStream) {
    let Terms { spec, settings, early, said } = terms;
    let ((client, ours), (server, theirs)) = (pair(), pair());
    let settings = postcard::to_stdvec(&settings).unwrap();
    let backend = BackendStream { source: theirs.into(), early: said, settings };
    let accepted = engine.accept(&spec).unwrap();
    assert_eq!((&accepted.response, accepted.descriptors), (&Response::None, 1));
    (engine.run_before(ours, Some(Box::new(backend)), spec, accepted, early, vec![]), client, server)
}

fn read(stream: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_go_both_ways_and_those_that_came_before_go_first() {
    let engine = engine();
    let terms = Terms { early: b"early ".to_vec(), said: b"said ".to_vec(), ..Terms::default() };
    let (_, mut client, mut server) = session(&engine, terms);
    client.write_all(b"question").unwrap();
    server.write_all(b"answer").unwrap();
    assert_eq!(read(&mut server, 14), b"early question");
    assert_eq!(read(&mut client, 11), b"said answer");
    drop(client);
    assert_eq!(rest(&mut server), b"");
    drop(server);
    engine.wait_for(0);
}

#[test]
fn an_end_is_passed_on_and_the_other_may_go_on() {
    let engine = engine();
    for client_first in [true, false] {
        let (_, client, server) = session(&engine, Terms::default());
        let (mut first, mut other) = if client_first { (client, server) } else { (server, client) };
        first.write_all(&[7; 300_000][..100_000]).unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut other).len(), 100_000);
        other.write_all(b"last words").unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut first), b"last words");
        engine.wait_for(0);
    }
}

#[test]
fn where_none_may_go_on_both_end() {
    let engine = engine();
    let settings = ProxySettings { half_close: false, ..settings() };
    let (_, mut client, mut server) = session(&engine, Terms { settings, ..Terms::default() });
    client.write_all(b"bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), b"bye");
    assert_eq!(rest(&mut client), b"");
    drop(server);
    engine.wait_for(0);
}

#[test]
fn a_stop_is_said_to_both_where_a_frame_may_stand() {
    let engine = engine();
    let (id, mut client, mut server) = session(&engine, Terms::default());
    client.write_all(&[0x81, 0x81, 1, 2, 3, 4, 5]).unwrap();
    // A fragment, and a frame that is not complete.
    server.write_all(&[0x01, 1, b'a']).unwrap();
    assert_eq!((read(&mut server, 7).len(), read(&mut client, 3).len()), (7, 3));
    engine.close(id, &close(CloseCode::from(1012), "stop"));
    assert_eq!(read(&mut client, 8), [&[0x88, 6, 0x03, 0xf4], &b"stop"[..]].concat());
    let frame = read(&mut server, 8);
    assert_eq!(frame[..2], [0x88, 0x82]);
    assert_eq!([frame[6] ^ frame[2], frame[7] ^ frame[3]], 1001_u16.to_be_bytes());
    client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    server.write_all(&[0x88, 0]).unwrap();
    assert_eq!((rest(&mut client).len(), rest(&mut server).len()), (0, 0), "what they answer is for nobody");
    drop((client, server));
    engine.wait_for(0);
}

#[test]
fn a_stop_within_a_frame_is_an_end() {
    let engine = engine();
    let (id, mut client, mut server) = session(&engine, Terms::default());
    client.write_all(&[0x81, 0x81]).unwrap();
    server.write_all(b"no frame").unwrap();
    assert_eq!((read(&mut server, 2).len(), read(&mut client, 8).len()), (2, 8));
    engine.close(id, &close(CloseCode::from(1012), "stop"));
    assert_eq!((rest(&mut client).len(), rest(&mut server).len()), (0, 0));
    drop((client, server));
    engine.wait_for(0);
}

/// It holds what one read brings, and reads no more.
#[test]
fn what_is_held_is_bounded() {
    let engine = engine();
    for client_talks in [true, false] {
        let (_, client, server) = session(&engine, Terms::default());
        let (mut talks, mut listens) = if client_talks { (client, server) } else { (server, client) };
        let talker = std::thread::spawn(move || {
            for _ in 0..100 {
                talks.write_all(&[7; 1 << 16]).unwrap();
            }
        });
        let begin = Instant::now();
        while engine.memory().held() == 0 {
            assert!(begin.elapsed() < PATIENCE, "nothing waits");
            std::thread::yield_now();
        }
        let most = (0..200).map(|_| {
            std::thread::yield_now();
            engine.memory().held()
        });
        assert!(most.max().unwrap() <= 1 << 16);
        assert_eq!(rest(&mut listens).len(), 100 << 16);
        drop(listens);
        talker.join().unwrap();
        engine.wait_for(0);
        assert_eq!(engine.memory().held(), 0);
    }
}

#[test]
fn who_is_gone_is_missed_by_the_other() {
    let engine = engine();
    for client_goes in [true, false] {
        let (_, client, server) = session(&engine, Terms::default());
        let (goes, mut stays) = if client_goes { (client, server) } else { (server, client) };
        // With something unread in it, a socket is reset when it closes.
        stays.write_all(b"unread").unwrap();
        let mut seen = [0; 1];
        rustix::net::recv(&goes, &mut seen[..], rustix::net::RecvFlags::PEEK).unwrap();
        drop(goes);
        assert_eq!(rest(&mut stays), b"");
        drop(stays);
        engine.wait_for(0);
    }
}

#[test]
fn nothing_moves_for_as_long_as_may_be() {
    let engine = engine();
    let soon = Duration::from_millis(250);
    let mut spec = spec("proxy");
    spec.limits.idle_timeout = Some(soon);
    let by_proxy = ProxySettings { idle_timeout: Some(soon), ..settings() };
    for terms in [Terms { spec, ..Terms::default() }, Terms { settings: by_proxy, ..Terms::default() }] {
        let (_, mut client, mut server) = session(&engine, terms);
        let frame = rest_of_close(&mut client);
        assert_eq!(frame, [&[0x88, 14, 0x03, 0xe9], &b"idle timeout"[..]].concat());
        assert_eq!(read(&mut server, 8)[..2], [0x88, 0x82]);
        drop((client, server));
        engine.wait_for(0);
    }
}

fn rest_of_close(client: &mut UnixStream) -> Vec<u8> {
    let head = read(client, 2);
    [&head[..], &read(client, usize::from(head[1]))].concat()
}

#[test]
fn a_close_is_not_said_twice() {
    let engine = engine();
    let (id, mut client, mut server) = session(&engine, Terms::default());
    server.write_all(&[0x88, 0]).unwrap();
    assert_eq!(read(&mut client, 2), [0x88, 0]);
    engine.close(id, &close(CloseCode::from(1012), "stop"));
    assert_eq!(rest(&mut client), b"");
    assert_eq!(read(&mut server, 8)[..2], [0x88, 0x82]);
    drop((client, server));
    engine.wait_for(0);
}

#[test]
fn a_session_without_a_server_ends() {
    let engine = engine();
    let (mut client, ours) = pair();
    let accepted = engine.accept(&spec("proxy")).unwrap();
    engine.run(ours, spec("proxy"), accepted, vec![], vec![]);
    assert_eq!(rest(&mut client), b"");
    engine.wait_for(0);
}

#[test]
fn an_idle_session_is_small() {
    let session = size_of::<session::Session<'_>>();
    assert!(session <= 384, "{session}");
}
