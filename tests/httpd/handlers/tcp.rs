//! TCP servers behind sockets: a Redis, an HTTP server, and ones that misbehave.

use crate::harness::port::Port;
use crate::harness::redis::{PASSWORD, Redis};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};
use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

every_mpm!(a_page_over_a_socket, a_redis_over_a_socket);

const MIB: usize = 1 << 20;

/// A location that is connected to `target`.
fn location(path: &str, target: &str) -> String {
    format!("<Location \"{path}\">\n  WebSocketHandler tcp {target}\n</Location>")
}

fn serving(target: &str) -> Server {
    Httpd::new(Mpm::Event).config(location("/tcp", target)).start()
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let address = listener.local_addr().expect("its address").to_string();
    (listener, address)
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let stream = listener.accept().expect("the engine").0;
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What the server says until it closes, and the code.
fn heard_to_the_end(client: &mut Raw) -> (Vec<u8>, Option<u16>) {
    let mut heard = Vec::new();
    loop {
        let frame = client.frame();
        match frame.opcode {
            Frame::BINARY => heard.extend(frame.payload),
            _ => return (heard, frame.close_code()),
        }
    }
}

/// What the server says until it ends so.
fn heard_until(client: &mut Raw, end: &str) -> String {
    let mut heard = String::new();
    while !heard.ends_with(end) {
        let frame = client.frame();
        assert_eq!(frame.opcode, Frame::BINARY, "{frame:?} after {heard}");
        heard += std::str::from_utf8(&frame.payload).expect("text");
    }
    heard
}

fn get_a_page(client: &mut Raw) {
    // A request in pieces, and the answer to its end.
    client.send(&Frame::text("GET / HTTP/1.0\r\n"));
    client.send(&Frame::binary("\r\n"));
    let (page, code) = heard_to_the_end(client);
    let page = String::from_utf8(page).expect("a page");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("A page of the site.</p>\n"), "{page}");
    assert_eq!(code, Some(1000));
    client.send(&Frame::close(1000, ""));
    client.expect_end();
}

fn a_page_over_a_socket(mpm: Mpm) {
    let server = Httpd::new(mpm).module("dir").config(location("/http", "localhost:{port}")).start();
    get_a_page(&mut Raw::open(&server, "/http"));
}

#[test]
fn over_tls_too() {
    let (listener, address) = listener();
    let server = Httpd::new(Mpm::Event).tls().config(location("/tcp", &address)).start();
    let mut client = Raw::open(&server, "/tcp");
    let mut target = accepted(&listener);
    client.send(&Frame::binary("hello"));
    target.read_exact(&mut [0; 5]).expect("hello");
    target.write_all(b"bye").expect("bye");
    target.shutdown(Shutdown::Write).expect("no more");
    client.expect(&Frame::binary("bye"));
    assert_eq!(client.frame().close_code(), Some(1000));
}

fn a_redis_over_a_socket(mpm: Mpm) {
    let redis = Redis::start();
    let server = Httpd::new(mpm).config(location("/redis", &format!("127.0.0.1:{}", redis.port()))).start();
    let mut client = Raw::connect(&server);
    let offer = Handshake::new("/redis").header("Sec-WebSocket-Protocol", "base64, binary");
    let answer = client.ask(&offer);
    answer.assert_accepted();
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("binary"));
    client.send(&Frame::text(format!("AUTH {PASSWORD}\r\nSET key value\r\n")));
    assert_eq!(heard_until(&mut client, "+OK\r\n+OK\r\n"), "+OK\r\n+OK\r\n");
    // Both sockets are the engine's.
    server.graceful();
    client.send(&Frame::binary("GET key\r\n"));
    assert_eq!(heard_until(&mut client, "value\r\n"), "$5\r\nvalue\r\n");

    // Another one hears what is published by the first.
    let mut subscriber = Raw::open(&server, "/redis");
    subscriber.send(&Frame::text(format!("AUTH {PASSWORD}\r\nSUBSCRIBE news\r\n")));
    heard_until(&mut subscriber, ":1\r\n");
    client.send(&Frame::text("PUBLISH news hello\r\n"));
    assert!(heard_until(&mut subscriber, "hello\r\n").contains("message"));
    heard_until(&mut client, ":1\r\n");
    // Redis ends the connection.
    client.send(&Frame::text("QUIT\r\n"));
    assert_eq!(heard_to_the_end(&mut client), (b"+OK\r\n".to_vec(), Some(1000)));
    subscriber.close();
}

#[test]
fn a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    for (path, mode) in [(folder.path(), 0o755), (path.as_path(), 0o777)] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("permissions");
    }
    let server = serving(&format!("unix:{}", path.display()));
    let mut client = Raw::open(&server, "/tcp");
    let mut target = listener.accept().expect("the engine").0;
    client.send(&Frame::binary("hello"));
    let mut bytes = [0; 5];
    target.read_exact(&mut bytes).expect("hello");
    target.write_all(&bytes).expect("the same");
    client.expect(&Frame::binary("hello"));
    client.close();
    assert_eq!(target.read(&mut bytes).expect("the end"), 0);
}

/// A listener that answers nobody: its queue is full.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _sockets: Vec<OwnedFd>,
}

impl Full {
    pub(crate) fn new() -> Full {
        let new = || socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let listener = new();
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        listen(&listener, 0).expect("listening");
        let address = SocketAddr::try_from(getsockname(&listener).expect("its address")).expect("an IP address");
        let waiting = (0..3).map(|_| {
            let client = new();
            rustix::io::ioctl_fionbio(&client, true).expect("not waiting");
            let _ = connect(&client, &address);
            client
        });
        let mut sockets: Vec<OwnedFd> = waiting.collect();
        sockets.push(listener);
        Full { address, _sockets: sockets }
    }
}

#[test]
fn a_server_that_is_not_there_is_a_bad_gateway() {
    let nobody = Port::reserve();
    let full = Full::new();
    let server = Httpd::new(Mpm::Event)
        .config("WebSocketConnectTimeout 1")
        .config(location("/refused", &format!("127.0.0.1:{}", nobody.number())))
        .config(location("/unknown", "nobody.invalid:80"))
        .config(location("/socket", "unix:/nowhere/target.sock"))
        .config(location("/slow", &full.address.to_string()))
        .config(location("/away", "192.0.2.1:80"))
        .start();
    server.expect_log("no connection to");
    let status = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    assert_eq!(status("/refused"), 502);
    assert_eq!(status("/unknown"), 502);
    assert_eq!(status("/socket"), 502);
    assert_eq!(status("/slow"), 504);
    // As the machine has a route to documentation's own network, or none.
    assert!([502, 504].contains(&status("/away")));
    let log = server.error_log();
    assert!(log.contains(&format!("no connection to 127.0.0.1:{}: Connection refused", nobody.number())), "{log}");
    // What is no handshake is httpd's business.
    assert_eq!(Raw::answer(&server, &Handshake::page("/refused")).status, 404);
}

#[test]
fn one_that_answers_late_holds_up_no_other() {
    let full = Full::new();
    let (listener, address) = listener();
    // Longer than a child waits for the engine otherwise.
    let server = Httpd::new(Mpm::Event)
        .config("WebSocketConnectTimeout 6\nWebSocketEngineWait 3")
        .config(location("/slow", &full.address.to_string()))
        .config(location("/tcp", &address))
        .start();
    server.expect_log("no connection to");
    let begin = Instant::now();
    let mut slow: Vec<Raw> = (0..3).map(|_| Raw::connect(&server)).collect();
    for client in &mut slow {
        client.write(&Handshake::new("/slow").bytes(&client.host()));
    }
    for _ in 0..10 {
        let mut client = Raw::open(&server, "/tcp");
        accepted(&listener).write_all(b"hello").expect("hello");
        client.expect(&Frame::binary("hello"));
    }
    let others = begin.elapsed();
    for client in &mut slow {
        assert_eq!(client.response(false).status, 504);
    }
    assert!(begin.elapsed() >= Duration::from_secs(6) && others < Duration::from_secs(6), "{others:?}");
}

#[test]
fn tokens_are_those_of_the_file() {
    let (listener, address) = listener();
    let httpd = Httpd::new(Mpm::Event)
        .module("rewrite")
        .file("conf/targets", format!("# desks\nann: {address}\nchair\n"))
        .config(
            "WebSocketTcpTargets conf/targets\n\
             RewriteEngine On\nRewriteRule ^/desk/(\\w+)$ /tcp?token=$1 [PT]",
        )
        .config(location("/tcp", "token"));
    let file = httpd.root().join("conf/targets");
    let server = httpd.start();
    server.expect_log("targets line 3 is ignored");
    let status = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    for path in ["/tcp?token=ann", "/tcp?a=b&token=a%6en", "/desk/ann"] {
        let mut client = Raw::open(&server, path);
        accepted(&listener).write_all(b"hello").expect("hello");
        client.expect(&Frame::binary("hello"));
    }
    assert_eq!(status("/tcp?token=bob"), 404);
    assert_eq!(status("/tcp?token=Ann"), 404);
    assert_eq!((status("/tcp"), status("/tcp?token=")), (403, 403));
    // Read again, without a restart.
    fs::write(&file, format!("bob: {address}\n")).expect("the file");
    assert_eq!((status("/tcp?token=bob"), status("/tcp?token=ann")), (101, 404));
    server.expect_log("targets cannot be read: No such file");
    fs::remove_file(&file).expect("the file gone");
    assert_eq!(status("/tcp?token=bob"), 500);
    // Nothing is wrong with the server when a client does not know its token.
    let log = server.error_log();
    let line = log.lines().find(|line| line.contains("no such token")).expect("a line");
    assert!(line.contains("websocket:info") && !line.contains("bob"), "{line}");
}

#[test]
fn who_may_not_say_where_to() {
    let server = Httpd::new(Mpm::Event)
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>")
        .config(location("/bare", "token"))
        .file("htdocs/a/.htaccess", "WebSocketHandler tcp localhost:1\n")
        .file("htdocs/b/.htaccess", "WebSocketConnectTimeout 60\n")
        .start();
    let status = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    server.expect_log("no .htaccess file may do: write this line into httpd's configuration");
    assert_eq!(status("/a/"), 500);
    server.expect_log("WebSocketConnectTimeout not allowed here");
    assert_eq!(status("/b/"), 500);
    server.expect_log("WS0020: WebSocketHandler tcp token needs a WebSocketTcpTargets beside it");
    assert_eq!(status("/bare?token=x"), 500);
}

/// Waits until a counter has not moved for a while, and returns it.
fn standstill(counter: &AtomicUsize) -> usize {
    let (mut last, mut since) = (usize::MAX, Instant::now());
    wait_until("nothing moves", PATIENCE, || {
        let now = counter.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
    last
}

#[test]
fn much_in_both_directions_takes_little_memory() {
    const COUNT: usize = 100;
    let _turn = heavy();
    let (listener, address) = listener();
    let server = serving(&address);
    let engine = server.engine();
    let mut client = Raw::open(&server, "/tcp");
    let mut target = accepted(&listener);
    let before = engine.resident_kib();
    let growth = || engine.resident_kib().saturating_sub(before);
    let letters = super::echo::letters(MIB);

    // From the target, to a client that does not read at first.
    let counter = Arc::new(AtomicUsize::new(0));
    let target = thread::spawn({
        let (counter, letters) = (counter.clone(), letters.clone());
        move || {
            for piece in (0..COUNT).flat_map(|_| letters.chunks(MIB / 16)) {
                target.write_all(piece).expect("a piece");
                counter.fetch_add(piece.len(), Ordering::Relaxed);
            }
            target
        }
    });
    let taken = standstill(&counter);
    assert!(taken < 40 * MIB, "{taken} bytes were taken for a client that does not read");
    assert!(growth() < 8 * 1024, "{} KiB", growth());
    let mut at = 0;
    while at < COUNT * MIB {
        let frame = client.frame();
        let mut rest = &frame.payload[..];
        while !rest.is_empty() {
            let here = at % MIB;
            let count = rest.len().min(MIB - here);
            assert!(rest[..count] == letters[here..here + count], "what arrives is what was sent");
            (at, rest) = (at + count, &rest[count..]);
        }
    }
    let mut target = target.join().expect("the target");
    assert!(growth() < 8 * 1024, "{} KiB", growth());

    // To the target, which does not read at first.
    let sent = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let (sent, frame) = (sent.clone(), Frame::binary(letters.clone()).masked_with([0; 4]));
        move || {
            for piece in (0..COUNT).flat_map(|_| frame.chunks(MIB / 16)) {
                client.write(piece);
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
            client
        }
    });
    let taken = standstill(&sent);
    assert!(taken < 40 * MIB, "{taken} bytes were taken for a target that does not read");
    assert!(growth() < 8 * 1024, "{} KiB", growth());
    let mut bytes = vec![0; MIB];
    for _ in 0..COUNT {
        target.read_exact(&mut bytes).expect("a piece");
        assert!(bytes == letters, "what arrives is what was sent");
    }
    let mut client = writer.join().expect("the writer");
    assert!(growth() < 8 * 1024, "{} KiB", growth());

    // Half-closed: the answer still comes, and then the end.
    target.write_all(b"bye").expect("bye");
    target.shutdown(Shutdown::Write).expect("no more");
    assert_eq!(heard_to_the_end(&mut client), (b"bye".to_vec(), Some(1000)));
}

/// mqtt.js sends what it publishes as one message, of whatever size.
#[test]
fn a_message_of_any_size() {
    let (listener, address) = listener();
    let limited = location("/limited", &format!("{address}\n  WebSocketMaxMessageSize 1000000"));
    let server = Httpd::new(Mpm::Event).config(location("/tcp", &address)).config(limited).start();
    let mut client = Raw::open(&server, "/tcp");
    let mut target = accepted(&listener);
    let bytes: Vec<u8> = (0..3 * MIB).map(|n| (n % 251) as u8).collect();
    let arrived = thread::spawn(move || {
        let mut arrived = vec![0; 3 * MIB];
        target.read_exact(&mut arrived).expect("the message");
        target.write_all(b"PUBACK").expect("an answer");
        (target, arrived)
    });
    client.send(&Frame::binary(bytes.clone()));
    client.expect(&Frame::binary("PUBACK"));
    let (_target, arrived) = arrived.join().expect("the target");
    assert!(arrived == bytes, "what arrives is what was sent");
    client.close();

    let mut client = Raw::open(&server, "/limited");
    client.write(&Frame::binary("").header_claiming(1_000_001));
    client.expect_failure(1009);
}

/// What has come of a frame goes on, before the rest is there.
#[test]
fn a_frame_that_is_under_way() {
    let (listener, address) = listener();
    let server = serving(&address);
    let mut client = Raw::open(&server, "/tcp");
    let mut target = accepted(&listener);
    let frame = Frame::text("half of it").masked();
    client.write(&frame[..frame.len() - 5]);
    let mut half = [0; 5];
    target.read_exact(&mut half).expect("what has come");
    assert_eq!(&half, b"half ");
    client.write(&frame[frame.len() - 5..]);
    target.read_exact(&mut half).expect("the rest");
    assert_eq!(&half, b"of it");
    client.close();
}

#[test]
fn a_stop_closes_both_sides() {
    let (listener, address) = listener();
    let server = serving(&address);
    let mut client = Raw::open(&server, "/tcp");
    let mut target = accepted(&listener);
    server.begin_to_stop();
    assert_eq!(client.frame().close_code(), Some(1012));
    client.send(&Frame::close(1012, ""));
    client.expect_end();
    assert_eq!(target.read(&mut [0]).expect("the end"), 0);
}
