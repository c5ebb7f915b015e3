//! permessage-deflate (RFC 7692): what is agreed on, what goes over the wire, and what a bomb costs.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use tungstenite::Message;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

every_mpm!(offers, messages);

const FRUGAL: &str = "permessage-deflate; server_no_context_takeover";

fn serve(mpm: Mpm, lines: &str) -> Server {
    Httpd::new(mpm)
        .config(format!(
            "<Location \"/echo\">\n  WebSocketHandler echo\n  WebSocketCompression On\n{lines}\n</Location>"
        ))
        .start()
}

fn offering(offer: &str) -> Handshake {
    Handshake::new("/echo").header("Sec-WebSocket-Extensions", offer)
}

/// A message as a compressor without a context makes it.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() + 100];
    let mut deflate = Deflate::new(6, false, 15);
    deflate.compress(payload, &mut out, DeflateFlush::SyncFlush).expect("zlib compresses");
    out.truncate(deflate.total_out() as usize - 4);
    out
}

fn inflated(payload: &[u8], room: usize) -> Vec<u8> {
    let mut out = vec![0; room];
    let mut inflate = Inflate::new(false, 15);
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    inflate.decompress(&input, &mut out, InflateFlush::SyncFlush).expect("compressed data");
    out.truncate(inflate.total_out() as usize);
    out
}

/// A frame of a compressed message.
fn compressed(frame: Frame) -> Frame {
    Frame { payload: deflated(&frame.payload), ..frame }.reserved(4)
}

fn offers(mpm: Mpm) {
    let server = serve(mpm, "");
    for (offer, answer) in [
        ("permessage-deflate; client_max_window_bits", Some(format!("{FRUGAL}; client_max_window_bits=11"))),
        ("permessage-deflate; client_max_window_bits=9", Some(format!("{FRUGAL}; client_max_window_bits=9"))),
        ("permessage-deflate; client_no_context_takeover", Some(format!("{FRUGAL}; client_no_context_takeover"))),
        ("permessage-deflate; server_max_window_bits=10", Some(format!("{FRUGAL}; server_max_window_bits=10"))),
        ("permessage-deflate; server_max_window_bits=1, permessage-deflate", Some(FRUGAL.to_owned())),
        ("x-other; a=\"permessage-deflate, b\"", None),
        ("permessage-deflate; unknown=1", None),
        (";;,=\"", None),
    ] {
        let mut client = Raw::connect(&server);
        let response = client.ask(&offering(offer));
        response.assert_accepted();
        assert_eq!(response.header("Sec-WebSocket-Extensions"), answer.as_deref(), "{offer}");
        client.echo(&Frame::text("an ordinary frame is always understood"));
        client.close();
    }
    // Several lines, and a page that asks for nothing.
    let mut client = Raw::connect(&server);
    let response = client.ask(&offering("foo").header("Sec-WebSocket-Extensions", "permessage-deflate"));
    assert_eq!(response.header("Sec-WebSocket-Extensions"), Some(FRUGAL));
    client.close();
    let mut client = Raw::connect(&server);
    assert_eq!(client.ask(&Handshake::new("/echo")).header("Sec-WebSocket-Extensions"), None);
    // Not agreed on, so RSV1 has no meaning.
    client.send(&compressed(Frame::text("hello")));
    client.expect_failure(1002);
}

fn messages(mpm: Mpm) {
    let server = serve(mpm, "  WebSocketMaxMessageSize 10485760");
    let mut client = Raw::open_with(&server, &offering("permessage-deflate"));
    let sheep = "sheep and goats and ".repeat(50);
    client.send(&compressed(Frame::text(sheep.as_str())));
    let echo = client.frame();
    assert_eq!((echo.reserved, echo.opcode), (4, Frame::TEXT));
    assert!(echo.payload.len() < 100);
    assert_eq!(inflated(&echo.payload, 2000), sheep.as_bytes());
    // What is small comes back as it is, however it was sent.
    client.send(&compressed(Frame::text("baa")));
    client.expect(&Frame::text("baa"));
    client.send(&compressed(Frame::binary("")));
    client.expect(&Frame::binary(""));
    // Without a byte, as some send it.
    client.send_all(&[Frame::text("").reserved(4), Frame::text("").reserved(4).unfinished(), Frame::continuation("")]);
    client.expect(&Frame::text(""));
    client.expect(&Frame::text(""));
    // In fragments, a Ping between them, and bytes one by one.
    let payload = deflated(sheep.as_bytes());
    let (first, second) = payload.split_at(10);
    let pieces = [Frame::binary(first).reserved(4).unfinished(), Frame::ping("?"), Frame::continuation(second)];
    for byte in pieces.iter().flat_map(Frame::masked) {
        client.write(&[byte]);
    }
    client.expect(&Frame::pong("?"));
    let echo = client.frame();
    assert_eq!((echo.reserved, inflated(&echo.payload, 2000).as_slice()), (4, sheep.as_bytes()));
    let large = sheep.repeat(10_000);
    client.send(&compressed(Frame::binary(large.as_str())));
    assert!(inflated(&client.frame().payload, 11 << 20) == large.as_bytes());
    client.close();
    // A client that compresses nothing is none the worse.
    let mut plain = Client::open(&server, "/echo");
    for size in [0, 1, 300, 70_000, 10 << 20] {
        plain.echo(Message::binary(vec![b'x'; size]));
        plain.echo(Message::text("y".repeat(size)));
    }
    plain.close();
}

/// With a context, the second time costs a reference to the first.
#[test]
fn contexts_are_kept_where_that_is_configured() {
    let server = serve(Mpm::Event, "  WebSocketCompressionContextTakeover Both\n  WebSocketCompressionMinSize 1");
    let mut client = Raw::connect(&server);
    let response = client.ask(&offering("permessage-deflate"));
    assert_eq!(response.header("Sec-WebSocket-Extensions"), Some("permessage-deflate"));
    let message: Vec<u8> = (0..500u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut deflate = Deflate::new(6, false, 15);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let mut out = vec![0; 1000];
        let before = deflate.total_out();
        deflate.compress(&message, &mut out, DeflateFlush::SyncFlush).expect("zlib compresses");
        out.truncate((deflate.total_out() - before) as usize - 4);
        client.send(&Frame::binary(out).reserved(4));
        let echo = client.frame();
        assert_eq!(echo.reserved, 4);
        sizes.push(echo.payload.len());
    }
    assert!(sizes[0] > 400 && sizes[1] < 30 && sizes[2] < 30, "{sizes:?}");
    client.close();
}

/// A client of which nothing was asked refers to what it has said, wherever contexts are off.
#[test]
fn a_client_that_does_not_offer_to_forget_is_understood() {
    let server = serve(Mpm::Event, "  WebSocketCompressionMinSize 1\n  WebSocketMaxMessageSize 10485760");
    let noise: Vec<u8> = (0..1500u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (offer, bits, forgets) in [
        ("permessage-deflate", 15, false),
        ("permessage-deflate; client_max_window_bits", 11, false),
        ("permessage-deflate; client_max_window_bits", 15, true),
        ("permessage-deflate; client_no_context_takeover", 15, true),
    ] {
        let mut client = Raw::open_with(&server, &offering(offer)).about(offer);
        let mut deflate = Deflate::new(6, false, bits);
        let mut send = |client: &mut Raw, payload: &[u8]| {
            let mut out = vec![0; payload.len() + 100];
            let before = deflate.total_out();
            deflate.compress(payload, &mut out, DeflateFlush::SyncFlush).expect("zlib compresses");
            out.truncate((deflate.total_out() - before) as usize - 4);
            client.send(&Frame::binary(out.as_slice()).reserved(4));
            out.len()
        };
        let said = |client: &mut Raw| {
            let frame = client.frame();
            if frame.reserved == 4 { inflated(&frame.payload, 20_000) } else { frame.payload }
        };
        send(&mut client, &noise);
        assert_eq!(said(&mut client), noise, "{offer}");
        // Farther back than some may refer.
        send(&mut client, &[7; 5000]);
        assert_eq!(said(&mut client), [7; 5000], "{offer}");
        let length = send(&mut client, &noise);
        if forgets {
            assert!(length < 100, "{length}");
            let close = client.frame();
            let reason = String::from_utf8_lossy(&close.payload[2..]).into_owned();
            assert_eq!((close.close_code(), reason.contains("agreed to forget")), (Some(1007), true), "{reason}");
        } else {
            assert_eq!(said(&mut client), noise, "{offer}");
            client.close();
        }
    }
    let log = server.error_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WS0175")).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("websocket:info")), "{lines:?}");
}

#[test]
fn what_is_not_compressed_data_is_1007() {
    let server = serve(Mpm::Event, "");
    for (what, frame, code) in [
        ("noise", Frame::binary(vec![0xff; 50]).reserved(4), 1007),
        ("RSV1 on a control frame", Frame::ping("x").reserved(4), 1002),
        ("RSV2", Frame::text("x").reserved(2), 1002),
        ("bad UTF-8 inside", compressed(Frame { payload: vec![b'a', 0xff, b'b'], ..Frame::text("") }), 1007),
    ] {
        let mut client = Raw::open_with(&server, &offering("permessage-deflate")).about(what);
        client.send(&frame);
        client.expect_failure(code);
    }
    let mut client = Raw::open_with(&server, &offering("permessage-deflate"));
    let payload = deflated(b"half and half");
    let (first, second) = payload.split_at(5);
    client.send(&Frame::text(first).reserved(4).unfinished());
    client.send(&Frame::continuation(second).reserved(4));
    client.expect_failure(1002);
}

/// What a message inflates to is bounded as it inflates, and so is what many messages of one packet do.
#[test]
fn bombs_cost_nothing() {
    // Small messages inflate; what they inflate to goes back as it is.
    let server = serve(Mpm::Event, "  WebSocketCompressionMinSize 100000000");
    let megabyte = vec![0; 1 << 20];
    let mut bomb = Deflate::new(6, false, 15);
    let mut payload = vec![0; 1 << 20];
    for _ in 0..256 {
        let at = bomb.total_out() as usize;
        bomb.compress(&megabyte, &mut payload[at..], DeflateFlush::SyncFlush).expect("zlib compresses");
    }
    payload.truncate(bomb.total_out() as usize - 4);
    assert!(payload.len() < 400_000, "256 MB in {} bytes", payload.len());
    let engine = server.engine();
    let before = engine.resident_kib();
    for _ in 0..20 {
        let mut client = Raw::open_with(&server, &offering("permessage-deflate"));
        client.try_write(&Frame::binary(payload.as_slice()).reserved(4).masked());
        assert_eq!(client.close_code(), Some(1009));
    }
    // Just within the limit, sixty of them in 64 KB, from clients that do not read the answers.
    let many: Vec<u8> = (0..60).flat_map(|_| Frame::binary(deflated(&megabyte)).reserved(4).masked()).collect();
    assert!(many.len() < 65_536);
    let mut clients: Vec<Raw> = (0..16).map(|_| Raw::open_with(&server, &offering("permessage-deflate"))).collect();
    for client in &mut clients {
        client.write(&many);
    }
    clients.iter().for_each(Raw::peek_until_readable);
    let after = engine.resident_kib();
    assert!(after < before + 16 * 8 * 1024, "{before} KiB, then {after} KiB");
    let mut patient = clients.pop().expect("one of them");
    for _ in 0..60 {
        assert_eq!(patient.frame().payload.len(), 1 << 20);
    }
    patient.close();
}

/// What compressors have held goes back to the system, and is not kept for others to come.
#[test]
fn contexts_that_have_gone_leave_nothing() {
    let server = serve(Mpm::Event, "  WebSocketCompressionContextTakeover Both\n  WebSocketCompressionMinSize 1");
    let engine = server.engine();
    let before = engine.resident_kib();
    let mut clients: Vec<Raw> = (0..200).map(|_| Raw::open_with(&server, &offering("permessage-deflate"))).collect();
    let sheep = "sheep and goats and ".repeat(2000);
    for client in &mut clients {
        client.send(&compressed(Frame::text(sheep.as_str())));
        assert_eq!(client.frame().reserved, 4);
    }
    let full = engine.resident_kib();
    assert!(full > before + 30 * 1024, "{before} KiB, then {full} KiB");
    clients.into_iter().for_each(Raw::close);
    wait_until("the memory is the system's", PATIENCE, || engine.resident_kib() < before + 20 * 1024);
}

#[test]
fn reserved_close_codes_are_answered_in_kind_where_allowed() {
    let server = Httpd::new(Mpm::Event)
        .echo()
        .config("<Location \"/lenient\">\n  WebSocketHandler echo\n  WebSocketAllowReservedStatusCodes On\n</Location>")
        .start();
    for (path, code, answer) in [
        ("/echo", 1000, 1000),
        ("/echo", 1004, 1002),
        ("/echo", 1014, 1002),
        ("/echo", 2999, 1002),
        ("/lenient", 1004, 1004),
        ("/lenient", 1014, 1014),
        ("/lenient", 1016, 1016),
        ("/lenient", 2999, 2999),
        ("/lenient", 3000, 3000),
        ("/lenient", 1005, 1002),
        ("/lenient", 1006, 1002),
        ("/lenient", 1015, 1002),
        ("/lenient", 999, 1002),
        ("/lenient", 5000, 1002),
    ] {
        let mut client = Raw::open(&server, path).about(&format!("{path} {code}"));
        client.send(&Frame::close(code, "why"));
        assert_eq!(client.close_code(), Some(answer), "{path} {code}");
        client.expect_end();
    }
}

/// RFC 6455 section 8.1, with a look at the bytes as they come.
#[test]
fn a_bad_text_is_refused_before_it_is_complete() {
    let server = serve(Mpm::Event, "");
    for handshake in [Handshake::new("/echo"), offering("permessage-deflate")] {
        let mut client = Raw::open_with(&server, &handshake);
        let mut text = "κόσμε".repeat(20_000).into_bytes();
        text[50_000] = 0xff;
        let bytes = Frame { payload: text, ..Frame::text("") }.masked();
        client.write(&bytes[..60_000]);
        client.expect_failure(1007);
    }
}
