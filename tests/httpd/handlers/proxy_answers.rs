//! Odd answers of servers behind mod_proxy: a client gets the same bytes, whoever moves them.

use super::proxy::tolerate_mod_ssl;
use crate::harness::back_end::{BackEnd, Conversation, accepting};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The paths by which the same back end is reached, and what stands there.
const WAYS: [&str; 3] = ["tunnel", "handoff", "handler"];

/// What a client says behind its handshake, once it has a 101.
const SAID: &str = "from the client";
const MIB: usize = 1 << 20;

struct Row {
    name: &'static str,
    /// The status that the client gets; what mod_proxy says of it in the error log.
    status: u16,
    logged: &'static [&'static str],
    answer: fn(&mut Conversation),
}

const fn row(name: &'static str, status: u16, logged: &'static [&'static str], answer: fn(&mut Conversation)) -> Row {
    Row { name, status, logged, answer }
}

/// The end of a session as most have it: a word of each side, and Close.
fn converse(back_end: &mut Conversation) {
    back_end.say(Frame::text("from the back end").unmasked());
    let length = Frame::text(SAID).masked().len();
    assert_eq!(back_end.hear(length).len(), length, "what the client has said");
    back_end.say(Frame::close(1000, "done").unmasked());
}

fn accept(back_end: &mut Conversation, from: &str, to: &str) {
    let answer = accepting();
    assert!(answer.contains(from), "{from} is a part of {answer}");
    back_end.say(answer.replace(from, to));
    converse(back_end);
}

const READING: &[&str] = &["AH01102", "AH00898", "AH01097"];
const UPGRADE: &[&str] = &["AH00898: Unexpected Upgrade"];

const ROWS: &[Row] = &[
    row("200", 200, &[], |b| b.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\npage")),
    row("401 in chunks", 401, &[], |b| {
        b.say("HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=\"x\"\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n");
    }),
    row("503", 503, &[], |b| b.say("HTTP/1.1 503 Full\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nfull")),
    row("426", 426, &[], |b| {
        b.say(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        );
    }),
    row("101 without Upgrade", 502, UPGRADE, |b| b.say("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n\r\n")),
    row("101 for h2c", 502, UPGRADE, |b| b.say(accepting().replace("websocket", "h2c"))),
    row("101 for two", 502, UPGRADE, |b| b.say(accepting().replace("websocket", "websocket, foo"))),
    row("WebSocket in capitals", 101, &[], |b| accept(b, "websocket\r\n", "WebSocket\r\n")),
    row("101 without Connection", 101, &[], |b| accept(b, "Connection: Upgrade\r\n", "")),
    row("101 with more header lines", 101, &[], |b| {
        accept(
            b,
            "Upgrade: ",
            "Server: its own\r\nSet-Cookie: a=b; Path=/\r\nX-A: b\r\nX-A: c\r\nKeep-Alive: timeout=5\r\nUpgrade: ",
        );
    }),
    row("101 with Content-Length", 101, &[], |b| accept(b, "Upgrade: ", "Content-Length: 0\r\nUpgrade: ")),
    row("101 with Transfer-Encoding", 101, &[], |b| accept(b, "Upgrade: ", "Transfer-Encoding: chunked\r\nUpgrade: ")),
    row("101 with a subprotocol and extensions", 101, &[], |b| {
        accept(
            b,
            "Upgrade: ",
            "Sec-WebSocket-Protocol: odd\r\nSec-WebSocket-Extensions: permessage-deflate, x; y=1\r\nUpgrade: ",
        );
    }),
    row("101 and a frame in one packet", 101, &[], |b| {
        b.say([accepting().into_bytes(), Frame::binary([7; 13]).unmasked()].concat());
        converse(b);
    }),
    row("101 and much at once", 101, &[], |b| {
        b.say([accepting().into_bytes(), Frame::binary(vec![7; MIB + MIB / 5]).unmasked()].concat());
        converse(b);
    }),
    row("101, Close and the end", 101, &[], |b| {
        b.say([accepting().into_bytes(), Frame::close(1001, "gone").unmasked()].concat());
        b.end_speaking();
        b.hear_to_the_end();
    }),
    row("100 and 101", 101, &[], |b| accept(b, "HTTP/1.1 101", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101")),
    row("103 and 101", 101, &[], |b| {
        accept(b, "HTTP/1.1 101", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 101");
    }),
    row("101 of HTTP/1.0", 101, &[], |b| accept(b, "HTTP/1.1", "HTTP/1.0")),
    row("no answer", 502, READING, |b| {
        b.hear_to_the_end();
    }),
    row("a head that trickles in", 101, &[], |b| {
        accepting().bytes().for_each(|byte| b.say([byte]));
        converse(b);
    }),
    row("the end in the place of an answer", 502, READING, |_| {}),
    row("a reset in the place of an answer", 502, READING, |b| b.reset()),
    row("the end within a head", 502, &["AH01102", "AH00898", "AH01106", "AH10404", "AH01097"], |b| {
        b.say(&accepting()[..40])
    }),
    row("a line that is no header", 502, &["AH01106", "AH00898", "AH01097"], |b| {
        b.say(accepting().replace("Upgrade: ", "what is this\r\nUpgrade: "));
    }),
    row("a line that is too long", 502, &["AH10124", "AH01106", "AH00898", "AH01097"], |b| {
        b.say(accepting().replace("Upgrade: ", &format!("X-A: {}\r\nUpgrade: ", "x".repeat(9000))));
    }),
    row("no HTTP", 200, &[], |b| b.say("what is this\r\n")),
    row("another Sec-WebSocket-Accept", 101, &[], |b| accept(b, "Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x")),
    row("no frames", 101, &[], |b| {
        b.say([accepting().as_bytes(), &[0xFF; 3000]].concat());
        converse(b);
    }),
    // What the client says after that still arrives: see `heard`.
    row("the end of its side alone", 101, &[], |b| {
        b.say([accepting().into_bytes(), Frame::text("from the back end").unmasked()].concat());
        b.end_speaking();
    }),
];

/// What a back end has heard behind the handshake for this path.
type Heard = Arc<Mutex<HashMap<String, Vec<u8>>>>;

fn back_end(is_tls: bool) -> (BackEnd, Heard) {
    let heard = Heard::default();
    let serve = {
        let heard = heard.clone();
        move |head: &str, conversation: &mut Conversation| {
            let path = head.split(' ').nth(1).expect("a path").to_owned();
            let number: usize = path.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number");
            (ROWS[number].answer)(conversation);
            if ROWS[number].name.contains("alone") {
                heard.lock().expect("no panic").insert(path, conversation.hear_to_the_end());
            }
        }
    };
    (if is_tls { BackEnd::tls(serve) } else { BackEnd::new(serve) }, heard)
}

fn servers(tls: bool, back_end: &BackEnd, scheme: &str) -> Server {
    let address = &back_end.address;
    let httpd = if tls {
        Httpd::new(Mpm::Event).tls()
    } else {
        Httpd::new(Mpm::Event).module("ssl").config("SSLSessionCache none")
    };
    let server = httpd
        .module("proxy")
        .module("proxy_http")
        .config("KeepAlive Off\nProxyTimeout 2\nSSLProxyEngine On")
        .config(format!("SSLProxyVerify none\nSSLProxyCheckPeerName Off\n<Location \"/tunnel\">\n  ProxyPass \"{scheme}://{address}/tunnel\"\n</Location>\n<Location \"/handoff\">\n  WebSocketProxyHandoff On\n  ProxyPass \"{scheme}://{address}/handoff\"\n</Location>"))
        .config(format!("<Location \"/handler\">\n  WebSocketHandler proxy \"{scheme}://{address}/handler\"\n</Location>"))
        .start();
    tolerate_mod_ssl(&server);
    server
}

/// All that a client hears of one row, in one of the ways; but for the time, and the name of the way.
fn heard_by_client(server: &Server, way: &str, number: usize) -> String {
    let mut client = Raw::connect(server).about(&format!("{way}, {}", ROWS[number].name));
    client.write(&Handshake::new(&format!("/{way}/{number}")).bytes("www.example.com"));
    let is_half = ROWS[number].name.contains("alone");
    if ROWS[number].status == 101 && !is_half {
        client.write(&Frame::text(SAID).masked_with([1, 2, 3, 4]));
    }
    let bytes = client.bytes_to_the_end();
    if is_half {
        client.write(&Frame::text(SAID).masked_with([1, 2, 3, 4]));
        client.end_sending();
    }
    // Byte for byte: each is a character.
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let lines: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
    format!("{}\r\n\r\n{}", lines.join("\r\n"), rest.replace(way, "way"))
}

fn compare(tls: bool, secure_back_end: bool) {
    let (back_end, heard) = back_end(secure_back_end);
    let server = servers(tls, &back_end, if secure_back_end { "wss" } else { "ws" });
    for line in ROWS.iter().flat_map(|row| row.logged) {
        server.tolerate_log(line);
    }
    for (number, row) in ROWS.iter().enumerate() {
        let [first, others @ ..] = WAYS.map(|way| (way, heard_by_client(&server, way, number)));
        let status = format!(" {} ", row.status);
        assert!(first.1.contains(&status), "{}: {}", row.name, first.1);
        for (way, heard) in others {
            assert!(heard == first.1, "{}, {way}: {heard:?} and not {:?}", row.name, first.1);
        }
    }
    let half = ROWS.iter().position(|row| row.name.contains("alone")).expect("a row");
    for way in WAYS {
        let arrives = Frame::text(SAID).masked_with([1, 2, 3, 4]);
        wait_until("what a client says after the back end's end arrives", PATIENCE, || {
            heard.lock().expect("no panic").get(&format!("/{way}/{half}")).is_some_and(|heard| *heard == arrives)
        });
    }
}

#[test]
fn ws_to_ws() {
    compare(false, false);
}

#[test]
fn wss_to_ws() {
    compare(true, false);
}

#[test]
fn ws_to_wss() {
    compare(false, true);
}

#[test]
fn wss_to_wss() {
    compare(true, true);
}
