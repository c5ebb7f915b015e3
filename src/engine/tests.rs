//! The engine over socketpairs: no httpd, real threads, a real client.

use super::connection::{Closing, stopping};
use super::control::{self, ControlLink};
use super::handoff::{EngineClient, Granted, HandoffError, Link, Side, version};
use super::memory::Bound;
use super::process::{Setup, run};
use super::session_log::NamedLog;
use super::socket::Socket;
use super::summary::{End, Traffic};
use super::testing::{Client, PATIENCE, Scripted, TestEngine, pair, spec, websocket};
use super::*;
use crate::handlers::echo::Echo;
use crate::wire::deflate::Compression;
use crate::wire::extension::Parameters;
use crate::wire::{CloseCode, Message, close};
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

mod memory;
mod mux;
mod opening;
mod process;
mod tls;

fn panics(conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
    Box::pin(async {
        let _ = conn.recv().await;
        panic!("as it was asked to");
    })
}

/// Ends after one message, of its own accord.
fn once(conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
    Box::pin(async {
        let _ = conn.recv().await;
        close(CloseCode::Normal, "that was it")
    })
}

/// Sends without end, and waits for the client to take it.
fn flood(conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
    Box::pin(async {
        while conn.send(Message::binary(vec![7; 60_000])).await.is_ok() {}
        assert!(conn.recv().await.is_none());
        close(CloseCode::Normal, "")
    })
}

const PUSHED: usize = 60_000;

/// Answers a message with as many as it says, without waiting for the client.
fn push(conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
    Box::pin(async {
        while let Some(message) = conn.recv().await {
            let pushed = Broadcast::new(Message::binary(vec![7; PUSHED])).unwrap();
            for _ in 0..message.to_text().unwrap().parse().unwrap() {
                if conn.push(&pushed) == Err(Closing) {
                    break;
                }
                assert!(conn.backlog() <= Limits::default().send_buffer + PUSHED + 10);
            }
        }
        close(CloseCode::Normal, "")
    })
}

/// Tells the client what came with its server, and the server what came with its client.
struct Greets;

impl Handler for Greets {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        let session = HandlerSession::Stream(Box::new(Greets));
        Box::pin(async { Ok(Accepted { descriptors: 1, ..Accepted::new(Response::None, session) }) })
    }
}

impl StreamSession for Greets {
    fn run(self: Box<Self>, streams: Streams, raw: &RawStream) -> LocalBoxFuture<'_, RawSummary> {
        let backend = *streams.backend.unwrap();
        let mut client = raw.stream(streams.client).unwrap();
        let mut server = Socket::of_server(backend.source).unwrap();
        Box::pin(async move {
            let greeting = [&backend.early[..], b" ", &backend.settings].concat();
            for (socket, bytes) in [(&mut client, greeting), (&mut server, streams.early)] {
                let slices = [IoSlice::new(&bytes)];
                std::future::poll_fn(|cx| socket.poll_write(cx, &slices)).await.unwrap();
            }
            RawSummary { end: End::Unanswered, received: Traffic::default(), sent: Traffic::default() }
        })
    }
}

fn registry() -> Registry {
    let registry = Registry::default().with("echo", Echo).with("panics", Scripted(panics));
    registry
        .with("once", Scripted(once))
        .with("flood", Scripted(flood))
        .with("push", Scripted(push))
        .with("greets", Greets)
        .with("hesitates", opening::Hesitates)
        .with("adds", opening::Adds)
}

fn engine() -> TestEngine {
    TestEngine::start(2, registry(), Bound::Off)
}

/// As short as ticks allow.
fn impatient(handler: &str) -> SessionSpec {
    let soon = Duration::from_millis(200);
    let limits = Limits { ping: Some(Ping { interval: soon, timeout: soon }), ..spec(handler).limits };
    SessionSpec { limits, ..spec(handler) }
}

/// As a client sends it.
fn encoded(message: Message) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut encoder = WebSocket::from_raw_socket(std::io::Cursor::new(&mut frame), Role::Client, None);
    encoder.send(message).unwrap();
    drop(encoder);
    frame
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
    let frame = encoded(Message::text("early"));
    let engine = engine();
    let accepted = engine.accept(&spec("echo")).unwrap();
    engine.run(theirs, spec("echo"), accepted, frame, vec![]);
    let mut client = websocket(ours);
    assert_eq!(client.read().unwrap(), Message::text("early"));
    echoes(&mut client, "late");
}

#[test]
fn a_panic_ends_one_session() {
    let engine = TestEngine::start(1, registry(), Bound::Off);
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
    let engine = TestEngine::start(1, registry(), Bound::Off);
    let mut neighbour = engine.session("echo");
    let client = engine.session("echo");
    let mut stream = client.get_ref().try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut frame = encoded(Message::binary(vec![7; 60_000]));
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

/// Of a large message that is inflated, and compressed again at the highest level, by turns with others.
#[test]
fn others_have_their_turn_beside_a_large_message() {
    let engine = TestEngine::start(1, registry(), Bound::Off);
    let parameters = Parameters {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    let compression = Some(Compression { parameters, level: 9, min_size: 1 });
    let large = Limits { max_message_size: 64 << 20, ..Limits::default() };
    let (_, mut slow) = engine.session_of(SessionSpec { compression, limits: large, ..spec("echo") });
    let mut quick = engine.session("echo");
    let words =
        (0u32..).flat_map(|n| format!("{} sheep and {} goats; ", n.wrapping_mul(n) % 1013, n % 17).into_bytes());
    let payload: Vec<u8> = words.take(8 << 20).collect();
    let mut deflate = zlib_rs::Deflate::new(6, false, 15);
    let mut compressed = vec![0; payload.len()];
    deflate.compress(&payload, &mut compressed, zlib_rs::DeflateFlush::SyncFlush).unwrap();
    compressed.truncate(deflate.total_out() as usize - 4);
    let length = compressed.len() as u64;
    let frame = [&[0xc2, 0xff][..], &length.to_be_bytes(), &[0; 4], &compressed].concat();
    let stream = slow.get_mut();
    stream.write_all(&frame).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut turns = 0;
    let mut answer = [0; 10];
    while stream.read(&mut answer[..1]).is_err() {
        echoes(&mut quick, "not held up");
        turns += 1;
    }
    // There are as many slices as megabytes at least, whatever the machine is at.
    assert!(turns >= 8, "{turns}");
    stream.set_nonblocking(false).unwrap();
    stream.read_exact(&mut answer[1..]).unwrap();
    assert_eq!(answer[..2], [0xc2, 127]);
    let mut answered = vec![0; u64::from_be_bytes(answer[2..].try_into().unwrap()) as usize];
    stream.read_exact(&mut answered).unwrap();
    answered.extend([0, 0, 0xff, 0xff]);
    let mut inflated = vec![0; payload.len() + 1];
    let mut inflate = zlib_rs::Inflate::new(false, 15);
    inflate.decompress(&answered, &mut inflated, zlib_rs::InflateFlush::SyncFlush).unwrap();
    assert!(inflated[..inflate.total_out() as usize] == payload[..]);
}

#[test]
fn draining_closes_everyone_with_the_code_of_a_stop() {
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
    runtime.block_on(engine.drain(stopping(1012), PATIENCE));
    assert_eq!(engine.connections(), 0);
    assert_eq!(readers.join().unwrap(), vec![Some(CloseCode::Restart); 9]);
}

#[test]
fn an_answered_ping_keeps_a_session_open() {
    let engine = engine();
    let (_, mut client) = engine.session_of(impatient("echo"));
    for _ in 0..4 {
        // The answer is queued by this call and sent by the next.
        assert_eq!(client.read().unwrap(), Message::Ping(vec![].into()));
        // Nobody has asked for these; they do no harm.
        client.send(Message::Pong(vec![1, 2, 3].into())).unwrap();
    }
    client.send(Message::text("still here")).unwrap();
    while client.read().unwrap() != Message::text("still here") {}
    client.close(None).unwrap();
    assert_eq!(closed(&mut client), None);
    engine.wait_for(0);
}

#[test]
fn an_unanswered_ping_ends_a_session_without_a_word() {
    let engine = engine();
    let (_, mut waits_in_recv) = engine.session_of(impatient("echo"));
    let (_, waits_in_send) = engine.session_of(impatient("flood"));
    let (_, mut does_not_read) = engine.session_of(impatient("echo"));
    let stream = does_not_read.get_mut();
    stream.set_nonblocking(true).unwrap();
    let frame = [&[0x82, 0xfe, 0x7f, 0xff, 0, 0, 0, 0][..], &[7; 0x7fff]].concat();
    let mut position = 0;
    // It says a lot, but takes nothing back: a proof of life that would be no reason to wait.
    while engine.connections() == 3 {
        match stream.write(&frame[position..]) {
            Ok(count) => position = (position + count) % frame.len(),
            Err(_) => std::thread::yield_now(),
        }
    }
    engine.wait_for(0);
    let mut said = Vec::new();
    waits_in_recv.get_mut().read_to_end(&mut said).unwrap();
    assert_eq!(said, [0x89, 0], "a Ping, and no Close");
    drop(waits_in_send);
}

#[test]
fn a_client_that_takes_its_time_is_alive() {
    let engine = engine();
    let (_, mut client) = engine.session_of(impatient("flood"));
    let start = Instant::now();
    // Several times what a silent one is given. It never gets to see the Pings behind all that, and answers none.
    while start.elapsed() < Duration::from_secs(3) {
        client.get_mut().read_exact(&mut vec![0; 300_000]).unwrap();
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(engine.connections(), 1);
    drop(client);
    engine.wait_for(0);
}

#[test]
fn a_session_without_data_is_closed() {
    let engine = engine();
    let mut spec = impatient("echo");
    spec.limits.idle_timeout = Some(Duration::from_secs(1));
    let (_, mut client) = engine.session_of(spec);
    echoes(&mut client, "hello");
    let start = Instant::now();
    // It answers Pings all the while.
    assert_eq!(closed(&mut client), Some(close(CloseCode::Away, "idle timeout")));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    drop(client);
    engine.wait_for(0);
}

#[test]
fn what_others_push_waits_for_nobody() {
    let engine = engine();
    let mut spec = spec("push");
    spec.limits.close_timeout = PATIENCE;
    let (_, mut client) = engine.session_of(spec.clone());
    // All that fits is sent, also to a client that is late.
    for _ in 0..3 {
        client.send(Message::text("17")).unwrap();
        for _ in 0..17 {
            assert_eq!(client.read().unwrap().len(), PUSHED);
        }
    }
    client.send(Message::text("1000")).unwrap();
    let mut messages = 0;
    let end = loop {
        match client.read().unwrap() {
            Message::Close(frame) => break frame,
            message => messages += message.len() / PUSHED,
        }
    };
    assert_eq!(end, Some(close(CloseCode::Again, "slow consumer")));
    assert!((17..1000).contains(&messages), "{messages} messages came before");
    assert!(client.read().is_err());
    // Of another that reads nothing nothing is left.
    spec.limits.close_timeout = Duration::from_millis(200);
    let (_, mut client) = engine.session_of(spec);
    client.send(Message::text("1000")).unwrap();
    engine.wait_for(0);
}

#[test]
fn a_session_is_closed_by_its_number() {
    let engine = engine();
    let (id, mut one) = engine.session_of(spec("echo"));
    let (_, mut other) = engine.session_of(spec("echo"));
    let frame = close(CloseCode::Policy, "you only");
    engine.close(id, &frame);
    assert_eq!(closed(&mut one), Some(frame.clone()));
    drop(one);
    engine.wait_for(1);
    engine.close(id, &frame);
    echoes(&mut other, "still here");
}
