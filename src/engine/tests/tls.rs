//! Sessions whose TLS the engine goes on with. The client is rustls.

use super::*;
use crate::tls::record::tests::{SUITES, connect};
use crate::tls::stream::Tls;
use rustls::{AlertDescription, ClientConnection, StreamOwned};
use std::net::{TcpListener, TcpStream};

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// A client, the other end of its connection, and the keys for that.
fn secure(suite: usize) -> (Secure, TcpStream, Keys) {
    let (client, keys) = connect(SUITES[suite]);
    let (ours, theirs) = tcp();
    (StreamOwned::new(client, ours), theirs, keys)
}

fn session(engine: &TestEngine, handler: &str, suite: usize) -> WebSocket<Secure> {
    let (client, theirs, keys) = secure(suite);
    let socket = SessionSource::Tls(theirs.into(), Box::new(keys));
    engine.run(socket, spec(handler), engine.accept(&spec(handler)).unwrap(), vec![], vec![]);
    WebSocket::from_raw_socket(client, Role::Client, None)
}

#[test]
fn messages_come_back_as_they_were_over_tls() {
    for suite in 0..SUITES.len() {
        let engine = engine();
        let mut client = session(&engine, "echo", suite);
        for size in [0, 1, 125, 16_383, 16_384, 60_000] {
            let message = Message::binary(vec![size as u8; size]);
            client.send(message.clone()).unwrap();
            assert_eq!(client.read().unwrap(), message);
            client.get_mut().conn.refresh_traffic_keys().unwrap();
        }
        client.close(Some(close(CloseCode::Normal, "bye"))).unwrap();
        while client.read().is_ok() {}
        // rustls tells an end that was said from one that was not.
        assert_eq!(client.get_mut().read(&mut [0]).unwrap(), 0);
        drop(client);
        engine.wait_for(0);
    }
}

#[test]
fn a_record_may_come_in_pieces() {
    let engine = engine();
    let mut client = session(&engine, "echo", 0);
    let stream = client.get_mut();
    stream.conn.writer().write_all(&encoded(Message::text("in pieces"))).unwrap();
    let mut record = Vec::new();
    stream.conn.write_tls(&mut record).unwrap();
    let mut neighbour = session(&engine, "echo", 1);
    for piece in record.chunks(7) {
        client.get_mut().sock.write_all(piece).unwrap();
        // The piece before has been looked at when the neighbour's message is back, or it comes with this one.
        neighbour.send(Message::text("x")).unwrap();
        assert_eq!(neighbour.read().unwrap(), Message::text("x"));
    }
    assert_eq!(client.read().unwrap(), Message::text("in pieces"));
}

#[test]
fn a_slow_client_over_tls_gets_everything() {
    let engine = engine();
    let mut client = session(&engine, "flood", 0);
    for _ in 0..300 {
        assert_eq!(client.read().unwrap(), Message::binary(vec![7; 60_000]));
    }
    drop(client);
    engine.wait_for(0);
}

#[test]
fn what_is_no_record_of_the_client_ends_its_session() {
    let engine = engine();
    let mut client = session(&engine, "echo", 2);
    client.send(Message::text("x")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("x"));
    client.get_mut().sock.write_all(&[[23, 3, 3, 0, 40].as_slice(), &[1; 40]].concat()).unwrap();
    let why = client.get_mut().read(&mut [0]).unwrap_err().to_string();
    let alert = rustls::Error::AlertReceived(AlertDescription::BadRecordMac).to_string();
    assert!(why.contains(&alert), "{why}");
    engine.wait_for(0);
}

#[test]
fn an_end_that_tls_says_ends_a_session() {
    let engine = engine();
    let mut client = session(&engine, "echo", 0);
    client.get_mut().conn.send_close_notify();
    client.get_mut().flush().unwrap();
    engine.wait_for(0);
}

#[test]
fn keys_that_are_none_end_a_session() {
    let engine = engine();
    let (_client, theirs, keys) = secure(0);
    let socket = SessionSource::Tls(theirs.into(), Box::new(Keys { suite: 0xc02f, ..keys }));
    engine.run(socket, spec("echo"), engine.accept(&spec("echo")).unwrap(), vec![], vec![]);
    engine.wait_for(0);
}

/// What is written while there is room and while there is none arrives in its order, whoever writes it, and with new keys in
/// between.
#[tokio::test]
async fn nothing_is_lost_where_there_is_no_room() {
    const TOTAL: usize = 20 << 20;
    let (mut client, theirs, keys) = secure(1);
    theirs.set_nonblocking(true).unwrap();
    let byte = |at: usize| (at ^ (at >> 8) ^ (at >> 16)) as u8;
    let reader = std::thread::spawn(move || {
        let mut piece = vec![0; 100_000];
        let mut at = 0;
        while at < TOTAL {
            let count = client.read(&mut piece).unwrap();
            assert!(count > 0 && piece[..count].iter().enumerate().all(|(n, got)| *got == byte(at + n)), "after {at}");
            at += count;
            if at < TOTAL / 2 {
                // So that the writer is the faster one.
                std::thread::yield_now();
            }
        }
        client
    });
    let mut tls = Tls::new(tokio::net::TcpStream::from_std(theirs).unwrap(), &keys).unwrap();
    let data: Vec<u8> = (0..TOTAL).map(byte).collect();
    let (mut at, mut full) = (0, 0);
    while at < TOTAL {
        let rest = &data[at..];
        let piece = &rest[..rest.len().min(1 + at % 150_000)];
        match tls.write_now(piece) {
            Ok(count) if count > 0 => at += count,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => panic!("{e}"),
            // Nothing or a part: what waits comes first, and is the beginning of what is written now.
            _ => {
                full += 1;
                if full % 5 == 0 {
                    tls.renew_keys();
                }
                let (one, two) = rest.split_at(rest.len() / 2);
                let slices = [IoSlice::new(one), IoSlice::new(two)];
                at += std::future::poll_fn(|cx| tls.poll_write(cx, &slices)).await.unwrap();
            }
        }
    }
    assert!(full > 10, "there was room for everything");
    tls.end_writing();
    let mut client = reader.join().unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(at, TOTAL);
    drop(client);
    let mut buffer = vec![0; 64 << 10];
    let end = std::future::poll_fn(|cx| tls.poll_read(cx, &mut buffer)).await.unwrap();
    assert_eq!(end, 0);
}
