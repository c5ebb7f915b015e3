//! The echo handler under each MPM: messages of every size and kind, fragments, pings, and the closing handshake.

use crate::harness::{Client, Frame, Httpd, Mpm, Raw, Server, every_mpm};
use tungstenite::Message;

every_mpm!(sizes, texts, fragments, pings, many_messages_at_once, closing_handshake, invalid_close_payloads);

/// The lengths at which the header of a frame changes its form, and the limit of a message.
const SIZES: [usize; 7] = [0, 1, 125, 126, 65535, 65536, 1 << 20];

/// Of many scripts, and of characters of every length in UTF-8.
pub(crate) const TEXTS: [&str; 6] =
    ["你好，世界", "網路通訊端", "🦀🚀 👩‍👩‍👧‍👦 e\u{301}", "\0", "\u{10FFFF}\u{FFFD}", "קוראים לי"];

/// Letters that do not repeat with the period of a mask or a buffer.
pub(crate) fn letters(size: usize) -> Vec<u8> {
    (0..size).map(|index| b'a' + u8::try_from(index * 7 / 3 % 26).expect("a letter")).collect()
}

fn sizes(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Client::open(&server, "/echo");
    for size in SIZES {
        let letters = letters(size);
        client.echo(Message::binary(letters.clone()));
        client.echo(Message::text(String::from_utf8(letters).expect("letters")));
    }
    client.close();
    let mut raw = Raw::open(&server, "/echo");
    echo_sizes(&mut raw);
    raw.close();
}

pub(crate) fn echo_sizes(client: &mut Raw) {
    for size in SIZES {
        client.echo(&Frame::text(letters(size)));
        client.echo(&Frame::binary(letters(size)));
    }
    // Every byte value, which only a binary message may carry.
    client.echo(&Frame::binary((0..=255).cycle().take(1000).collect::<Vec<u8>>()));
}

fn texts(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Client::open(&server, "/echo");
    for text in TEXTS {
        client.echo_text(text);
    }
    client.echo_text(&"汉字与emoji😀".repeat(20_000));
    client.close();
}

fn fragments(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Raw::open(&server, "/echo");
    echo_fragments(&mut client);
    client.close();
}

pub(crate) fn echo_fragments(client: &mut Raw) {
    client.send(&Frame::text("Hel").unfinished());
    client.send(&Frame::continuation("lo, ").unfinished());
    client.send(&Frame::continuation("world"));
    client.expect(&Frame::text("Hello, world"));

    // All in one packet, with empty fragments in front, between, and last.
    client.send_all(&[
        Frame::binary("").unfinished(),
        Frame::continuation("one").unfinished(),
        Frame::continuation("").unfinished(),
        Frame::continuation("two").unfinished(),
        Frame::continuation(""),
    ]);
    client.expect(&Frame::binary("onetwo"));

    // A character may be cut anywhere: only the whole message must be UTF-8 (RFC 6455 section 5.6).
    let text = "字😀";
    let mut pieces: Vec<Frame> = text.bytes().map(|byte| Frame::continuation(vec![byte]).unfinished()).collect();
    pieces[0].opcode = Frame::TEXT;
    pieces.last_mut().expect("a piece").fin = true;
    for piece in &pieces {
        client.send(piece);
    }
    client.expect(&Frame::text(text));

    // The header itself may come in pieces, too.
    for byte in Frame::text("byte by byte").masked() {
        client.write(&[byte]);
    }
    client.expect(&Frame::text("byte by byte"));

    // 1 MiB in 256 fragments.
    let message = letters(1 << 20);
    let mut pieces: Vec<Frame> = message.chunks(4096).map(|chunk| Frame::continuation(chunk).unfinished()).collect();
    pieces[0].opcode = Frame::TEXT;
    pieces.last_mut().expect("a piece").fin = true;
    client.send_all(&pieces);
    client.expect(&Frame::text(message));
}

fn pings(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Raw::open(&server, "/echo");
    answer_pings(&mut client);
    client.close();
}

pub(crate) fn answer_pings(client: &mut Raw) {
    for payload in [Vec::new(), b"are you there?".to_vec(), letters(125), vec![0xFF; 3]] {
        client.send(&Frame::ping(payload.clone()));
        client.expect(&Frame::pong(payload));
    }
    // Between the fragments of a message (RFC 6455 section 5.4); the answer does not wait for the rest.
    client.send(&Frame::text("to be ").unfinished());
    client.send(&Frame::ping("now"));
    client.expect(&Frame::pong("now"));
    client.send(&Frame::continuation("continued"));
    client.expect(&Frame::text("to be continued"));
    // A Pong nobody asked for is no reason to answer (section 5.5.3).
    client.send(&Frame::pong("unsolicited"));
    client.echo(&Frame::text("still here"));
}

fn many_messages_at_once(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Raw::open(&server, "/echo");
    let frames: Vec<Frame> = (0..500).map(|number| Frame::text(format!("message {number}"))).collect();
    client.send_all(&frames);
    for frame in &frames {
        client.expect(frame);
    }
    client.close();
}

fn closing_handshake(mpm: Mpm) {
    answer_closes(&Httpd::new(mpm).echo().start());
}

pub(crate) fn answer_closes(server: &Server) {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
        let mut client = Raw::open(server, "/echo").about(&format!("Close {code}"));
        client.send(&Frame::close(code, "再见"));
        client.expect_failure(code);
    }
    // Without a code there is none to answer with.
    let mut client = Raw::open(server, "/echo");
    client.send(&Frame::new(Frame::CLOSE, ""));
    assert_eq!(client.close_code(), None);
    client.expect_end();

    // What came before the Close is answered, what comes behind it is not read (section 5.5.1).
    let mut client = Raw::open(server, "/echo");
    client.send_all(&[Frame::text("before"), Frame::close(1000, ""), Frame::text("behind"), Frame::ping("behind")]);
    client.expect(&Frame::text("before"));
    assert_eq!(client.frame().close_code(), Some(1000));
    client.expect_end();
}

fn invalid_close_payloads(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    // RFC 6455 section 7.4.2, and codes that must not be sent (7.4.1).
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        let mut client = Raw::open(&server, "/echo").about(&format!("Close {code}"));
        client.send(&Frame::close(code, ""));
        client.expect_failure(1002);
    }
    let mut client = Raw::open(&server, "/echo");
    client.send(&Frame::new(Frame::CLOSE, [3]));
    client.expect_failure(1002);
    let mut client = Raw::open(&server, "/echo");
    client.send(&Frame::close(1000, b"\xE5\xAD"));
    client.expect_failure(1007);
}
