//! What sockets hold: the account comes back to nothing, and the bound holds.

use super::*;

fn with_bound(bound: Bound) -> TestEngine {
    TestEngine::start(2, registry(), bound)
}

fn begun(bytes: usize) -> Vec<u8> {
    let mut whole = encoded(Message::binary(vec![7; bytes + 1]));
    whole.pop();
    whole
}

/// Awaits what the account says.
fn await_held(engine: &TestEngine, what: impl Fn(usize) -> bool) {
    await_that(&format!("{} bytes were held, and it changes", engine.memory().held()), || what(engine.memory().held()));
}

fn await_that(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(10), "awaited that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_account_comes_back_to_nothing() {
    let engine = with_bound(Bound::Bytes(1 << 30));
    // What is not finished, what is not taken, and what was finished after all.
    let mut stalled: Vec<Client> = (0..10).map(|_| engine.session("echo")).collect();
    for client in &mut stalled {
        client.get_mut().write_all(&begun(100_000)).unwrap();
    }
    await_held(&engine, |held| held >= 1_000_000);
    assert!(engine.memory().held() < 1_200_000, "{}", engine.memory().held());
    let mut deaf = engine.session("echo");
    for _ in 0..20 {
        deaf.send(Message::binary(vec![7; PUSHED])).unwrap();
    }
    await_held(&engine, |held| held >= 1_700_000);
    for client in &mut stalled[..5] {
        client.get_mut().write_all(&[0]).unwrap();
        assert_eq!(client.read().unwrap().len(), 100_001);
    }
    await_held(&engine, |held| held < 1_650_000);
    for _ in 0..20 {
        assert_eq!(deaf.read().unwrap().len(), PUSHED);
    }
    await_held(&engine, |held| held < 700_000);
    drop((stalled, deaf));
    engine.wait_for(0);
    assert_eq!(engine.memory().held(), 0);
}

#[test]
fn windows_are_counted() {
    let engine = with_bound(Bound::Bytes(1 << 30));
    let parameters = Parameters {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    let compression = Some(Compression { parameters, level: 3, min_size: 1 });
    let (_, mut client) = engine.session_of(SessionSpec { compression, ..spec("echo") });
    assert_eq!(engine.memory().held(), 0);
    // The same as in RFC 7692 section 7.2.3.1.
    client.get_mut().write_all(&[0xc1, 0x87, 0, 0, 0, 0, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).unwrap();
    await_held(&engine, |held| held > 200_000);
    drop(client);
    engine.wait_for(0);
    assert_eq!(engine.memory().held(), 0);
}

#[test]
fn who_holds_too_much_is_closed() {
    let engine = with_bound(Bound::Bytes(16 << 20));
    let large = Limits { max_message_size: 32 << 20, send_buffer: 32 << 20, ..spec("echo").limits };
    let of = |client: &str| SessionSpec { client: client.into(), limits: large.clone(), ..spec("echo") };
    let mut stalled: Vec<Client> = (0..40).map(|_| engine.session_of(of("many")).1).collect();
    for client in &mut stalled {
        client.get_mut().write_all(&begun(250_000)).unwrap();
    }
    await_held(&engine, |held| held >= 10_000_000);
    // One message of another, as large as can be while they are there, and more.
    let (_, mut other) = engine.session_of(of("one"));
    other.send(Message::binary(vec![1; 6 << 20])).unwrap();
    assert_eq!(other.read().unwrap().len(), 6 << 20);
    let codes: Vec<u16> = stalled
        .iter_mut()
        .filter_map(|client| {
            client.get_mut().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            client.read().ok().map(|message| match message {
                Message::Close(Some(frame)) => frame.code.into(),
                other => panic!("{other:?}"),
            })
        })
        .collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 1009), "{codes:?}");
    drop((stalled, other));
    engine.wait_for(0);
    assert_eq!(engine.memory().held(), 0);
}

#[test]
fn who_takes_nothing_is_closed() {
    let engine = with_bound(Bound::Bytes(4 << 20));
    let limits = Limits { max_message_size: 8 << 20, ..spec("echo").limits };
    let session = || engine.session_of(SessionSpec { limits: limits.clone(), ..spec("echo") }).1;
    let (mut deaf, mut other) = (session(), session());
    deaf.send(Message::binary(vec![7; 3 << 20])).unwrap();
    await_held(&engine, |held| held >= 2_500_000);
    let echo = std::thread::spawn(move || {
        other.send(Message::binary(vec![8; 3 << 19])).unwrap();
        assert_eq!(other.read().unwrap().len(), 3 << 19);
    });
    // It has a second for what is unsent where the bound is reached.
    await_that("it is asked to close", || engine.memory().closed() > 0);
    assert_eq!(deaf.read().unwrap().len(), 3 << 20);
    assert_eq!(closed(&mut deaf).map(|frame| frame.code), Some(CloseCode::Again));
    echo.join().unwrap();
    drop(deaf);
    engine.wait_for(0);
    assert_eq!(engine.memory().held(), 0);
}

#[test]
fn what_waits_for_many_counts_once() {
    let engine = with_bound(Bound::Bytes(1 << 30));
    let mut deaf = engine.session("push");
    deaf.send(Message::text("20")).unwrap();
    await_held(&engine, |held| held >= PUSHED);
    assert!(engine.memory().held() < 2 * PUSHED, "{}", engine.memory().held());
    for _ in 0..20 {
        assert_eq!(deaf.read().unwrap().len(), PUSHED);
    }
    drop(deaf);
    engine.wait_for(0);
    assert_eq!(engine.memory().held(), 0);
}

/// A compressed message that becomes as long, as a client sends it; and how its sessions compress.
fn large(server_no_context_takeover: bool) -> (SessionSpec, Vec<u8>, Vec<u8>) {
    let parameters = Parameters {
        server_no_context_takeover,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    let payload: Vec<u8> = (0u32..).flat_map(|n| (n % 100_003).to_string().into_bytes()).take(LARGE).collect();
    let mut compressed = vec![0; payload.len()];
    let mut deflate = zlib_rs::Deflate::new(6, false, 15);
    deflate.compress(&payload, &mut compressed, zlib_rs::DeflateFlush::SyncFlush).unwrap();
    let compressed = &compressed[..deflate.total_out() as usize - 4];
    let frame = [&[0xc2, 0xff][..], &(compressed.len() as u64).to_be_bytes(), &[0; 4], compressed].concat();
    let compression = Some(Compression { parameters, level: 9, min_size: 1 });
    let limits = Limits { max_message_size: 2 * LARGE, send_buffer: 2 * LARGE, ..spec("echo").limits };
    (SessionSpec { compression, limits, ..spec("echo") }, payload, frame)
}

const LARGE: usize = 4 << 20;

/// The message that a frame at the front of what a client gets holds, compressed.
fn inflated(stream: &mut impl Read) -> Vec<u8> {
    let mut header = [0; 10];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[..2], [0xc2, 127]);
    let mut compressed = vec![0; u64::from_be_bytes(header[2..].try_into().unwrap()) as usize];
    stream.read_exact(&mut compressed).unwrap();
    compressed.extend([0, 0, 0xff, 0xff]);
    let mut inflated = vec![0; LARGE + 1];
    let mut inflate = zlib_rs::Inflate::new(false, 15);
    inflate.decompress(&compressed, &mut inflated, zlib_rs::InflateFlush::SyncFlush).unwrap();
    inflated.truncate(inflate.total_out() as usize);
    inflated
}

#[test]
fn who_goes_in_the_middle_of_a_large_message_leaves_nothing() {
    let engine = TestEngine::start(1, registry(), Bound::Bytes(1 << 30));
    for contexts in [true, false] {
        let (spec, _, frame) = large(contexts);
        let mut clients: Vec<Client> = (0..3).map(|_| engine.session_of(spec.clone()).1).collect();
        for client in &mut clients {
            client.get_mut().write_all(&frame).unwrap();
        }
        // It was inflated, and is held while it is compressed.
        await_held(&engine, |held| held >= LARGE);
        drop(clients);
        engine.wait_for(0);
        assert_eq!(engine.memory().held(), 0);
    }
}

#[test]
fn a_large_message_that_is_under_way_comes_before_our_close() {
    let engine = TestEngine::start(1, registry(), Bound::Bytes(1 << 30));
    for contexts in [true, false] {
        let (spec, payload, frame) = large(contexts);
        let (_, mut client) = engine.session_of(spec);
        client.get_mut().write_all(&frame).unwrap();
        await_held(&engine, |held| held >= LARGE);
        // Not yet complete, or being compressed: what has come before is answered.
        let answered = std::thread::spawn(move || {
            let answer = inflated(client.get_mut());
            (answer, closed(&mut client).map(|frame| frame.code))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        await_that("the message is inflated", || engine.memory().held() >= LARGE + (LARGE >> 4));
        runtime.block_on(engine.drain(stopping(1012), PATIENCE));
        let (answer, code) = answered.join().unwrap();
        assert!(answer == payload);
        assert_eq!(code, Some(CloseCode::Restart));
        engine.wait_for(0);
        assert_eq!(engine.memory().held(), 0);
    }
}
