//! Frames that break the protocol: the close code of each, the orderly end behind it, and neighbours that notice nothing.
//! Independent of the MPM: httpd has no part in it.

use crate::harness::{Frame, Httpd, Mpm, Raw, Server, every_mpm};
use std::time::Duration;

every_mpm!(a_large_message_sent_slowly);

/// Sends each and awaits its close code, with a neighbour that echoes before and after.
fn refuses(server: &Server, path: &str, cases: &[(&str, Vec<u8>, u16)]) {
    let mut neighbour = Raw::open(server, "/echo");
    for (what, bytes, code) in cases {
        // By itself; after a good message in the same packet; with much more behind it than anybody will read.
        let good = Frame::text("good").masked();
        let flood: Vec<u8> = (0..200).flat_map(|_| Frame::binary(vec![b'x'; 1000]).masked()).collect();
        for (front, behind) in [(&[][..], &[][..]), (&good, &[]), (&good, &flood)] {
            let mut client = Raw::open(server, path).about(what);
            neighbour.echo(&Frame::text(*what));
            client.write(&[front, bytes, behind].concat());
            if !front.is_empty() {
                client.expect(&Frame::text("good"));
            }
            client.expect_failure(*code);
            neighbour.echo(&Frame::text("unaffected"));
        }
        // In single bytes.
        let mut client = Raw::open(server, path).about(what);
        for byte in bytes.iter().take(20) {
            client.try_write(&[*byte]);
        }
        client.try_write(bytes.get(20..).unwrap_or_default());
        client.expect_failure(*code);
    }
    neighbour.close();
}

#[test]
fn protocol_errors() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let masked = |frame: Frame| frame.masked();
    let mut cases = vec![
        ("an unmasked text", Frame::text("hello").unmasked(), 1002),
        ("an unmasked empty text", Frame::text("").unmasked(), 1002),
        ("an unmasked ping", Frame::ping("hello").unmasked(), 1002),
        ("a ping in fragments", masked(Frame::ping("hello").unfinished()), 1002),
        ("a close in fragments", masked(Frame::close(1000, "").unfinished()), 1002),
        ("a ping of 126 bytes", masked(Frame::ping(vec![0; 126])), 1002),
        ("a pong of 70000 bytes", masked(Frame::pong(vec![0; 70_000])), 1002),
        ("a close of 126 bytes", masked(Frame::close(1000, vec![b'x'; 124])), 1002),
        ("a lone continuation", masked(Frame::continuation("hello")), 1002),
        ("a lone unfinished continuation", masked(Frame::continuation("hello").unfinished()), 1002),
        (
            "a text between fragments",
            [Frame::text("a").unfinished().masked(), Frame::text("b").masked()].concat(),
            1002,
        ),
        (
            "a continuation after the end",
            [
                Frame::binary("a").unfinished().masked(),
                Frame::continuation("b").masked(),
                Frame::continuation("c").masked(),
            ]
            .concat(),
            1002,
        ),
    ];
    for bits in 1..=7 {
        cases.push(("reserved bits", masked(Frame::text("hello").reserved(bits)), 1002));
        cases.push(("reserved bits of a ping", masked(Frame::ping("").reserved(bits)), 1002));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("an unknown opcode", masked(Frame::new(opcode, "hello")), 1002));
        cases.push(("an unknown opcode without payload", masked(Frame::new(opcode, "")), 1002));
    }
    // "after the end" echoes a message first.
    let (echoing, plain): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|(what, ..)| *what == "a continuation after the end");
    refuses(&server, "/echo", &plain);
    for (what, bytes, code) in echoing {
        let mut client = Raw::open(&server, "/echo").about(what);
        client.write(&bytes);
        client.expect(&Frame::binary("ab"));
        client.expect_failure(code);
    }
}

/// The header says it all: nobody waits for a payload that must not be (RFC 6455 section 5.5).
#[test]
fn oversized_control_frames_by_their_header() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let cases = [
        ("the header of a ping of an exabyte", Frame::ping("").header_claiming(1 << 60), 1002),
        ("the header of a close of 2000 bytes", Frame::new(Frame::CLOSE, "").header_claiming(2000), 1002),
        ("the header of a ping of 126 bytes", Frame::ping("").header_claiming(126), 1002),
    ];
    refuses(&server, "/echo", &cases);
}

#[test]
fn bad_utf8() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let text = |bytes: &[u8]| Frame::text(bytes).masked();
    let cases = [
        ("a byte that never occurs", text(b"\xFF"), 1007),
        ("a continuation byte alone", text(b"caf\xA9"), 1007),
        ("an overlong slash", text(b"\xC0\xAF"), 1007),
        ("an overlong NUL", text(b"\xE0\x80\x80"), 1007),
        ("a surrogate", text(b"\xED\xA0\x80"), 1007),
        ("beyond U+10FFFF", text(b"\xF4\x90\x80\x80"), 1007),
        ("a character cut off at the end", text("字".as_bytes().split_last().expect("bytes").1), 1007),
        ("a bad byte behind 64 KiB", text(&[vec![b'x'; 65536], vec![0xFE]].concat()), 1007),
        (
            "a bad fragment",
            [Frame::text("good").unfinished().masked(), Frame::continuation(b"\xFF").masked()].concat(),
            1007,
        ),
        (
            "a character cut off at the end of the last fragment",
            [Frame::text(b"\xE5\xAD").unfinished().masked(), Frame::continuation("").masked()].concat(),
            1007,
        ),
        ("a close reason", Frame::close(1000, b"\xFF").masked(), 1007),
    ];
    refuses(&server, "/echo", &cases);
    // In a binary message each byte is good.
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::binary(b"\xFF\xC0\xAF"));
    client.close();
}

#[test]
fn messages_over_the_limit() {
    let server = Httpd::new(Mpm::Event)
        .echo()
        .config("<Location \"/small\">\n  WebSocketHandler echo\n  WebSocketMaxMessageSize 1000\n</Location>")
        .start();
    let fragments = |sizes: &[usize]| {
        let mut pieces: Vec<Frame> =
            sizes.iter().map(|size| Frame::continuation(vec![b'x'; *size]).unfinished()).collect();
        pieces[0].opcode = Frame::BINARY;
        pieces.last_mut().expect("a piece").fin = true;
        pieces.iter().flat_map(Frame::masked).collect::<Vec<u8>>()
    };
    let cases = [
        ("one byte over", Frame::binary(vec![0; 1001]).masked(), 1009),
        ("a text over", Frame::text(vec![b'x'; 5000]).masked(), 1009),
        ("two fragments", fragments(&[500, 501]), 1009),
        ("many fragments", fragments(&[10; 101]), 1009),
        ("a large last fragment", fragments(&[1, 100_000]), 1009),
        ("a header that claims 1 MiB", Frame::binary("").header_claiming(1 << 20), 1009),
        ("a header that claims 4 GiB", Frame::text("").header_claiming(1 << 32), 1009),
        ("a header that claims an exabyte", Frame::text("").header_claiming(1 << 60), 1009),
        (
            "a continuation that claims an exabyte",
            [Frame::text("a").unfinished().masked(), Frame::continuation("").header_claiming(1 << 60)].concat(),
            1009,
        ),
    ];
    refuses(&server, "/small", &cases);
    // Up to the limit all is well, whatever the pieces, and the next message counts anew.
    let mut client = Raw::open(&server, "/small");
    for _ in 0..3 {
        client.echo(&Frame::binary(vec![0; 1000]));
        client.write(&fragments(&[10; 100]));
        client.expect(&Frame::binary(vec![b'x'; 1000]));
    }
    client.close();
    // The default is 1 MiB.
    let mut client = Raw::open(&server, "/echo");
    client.write(&Frame::binary("").header_claiming((1 << 20) + 1));
    client.expect_failure(1009);
}

/// The client learns of it before it has sent the mask, however it takes its time.
#[test]
fn a_length_is_enough() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let mut client = Raw::open(&server, "/echo");
    let header = Frame::binary("").header_claiming(1 << 30);
    client.write(&header[..header.len() - 4]);
    client.expect_failure(1009);
}

/// A large message that is sent slowly: its client comes to the Close frame when it has sent all, which takes longer than any
/// pause that it makes.
fn a_large_message_sent_slowly(mpm: Mpm) {
    for httpd in [Httpd::new(mpm).echo(), Httpd::new(mpm).tls().relayed().echo()] {
        let server = httpd.start();
        let mut client = Raw::open(&server, "/echo");
        let piece = vec![0; 100_000];
        client.write(&Frame::binary("").header_claiming(8 * piece.len() as u64 + (1 << 20)));
        // Nothing can be awaited: it is the time that matters.
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(500));
            client.write(&piece);
        }
        client.expect_failure(1009);
    }
}

/// What the client still sends, when the server has already failed the connection, must not become a reset that takes
/// the Close frame away before the client has read it.
#[test]
fn the_close_frame_survives_what_is_in_flight() {
    let server = Httpd::new(Mpm::Event).echo().start();
    for _ in 0..10 {
        let mut client = Raw::open(&server, "/echo");
        client.write(&Frame::text("hello").unmasked());
        // The server has answered and said that nothing follows, …
        client.peek_until_readable();
        // … and the client, which has not looked yet, goes on.
        for _ in 0..50 {
            client.write(&Frame::binary(vec![b'x'; 1000]).masked());
        }
        client.expect_failure(1002);
    }
}
