//! WebSockets over TLS 1.3 that the engine goes on with by itself: nothing of httpd is needed for them, on any MPM.

use crate::harness::tls::{CERTIFICATE, CLIENT_AUTHORITY, client};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until};
use rustls::version;
use std::env;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

every_mpm!(
    more_sockets_than_workers,
    a_restart_is_not_noticed,
    keys_change_on_the_way,
    sessions_of_tls_that_go_on,
    a_record_in_two_pieces,
    certificates_after_the_handshake,
    short_records,
    padded_records,
    the_line_in_the_access_log,
    where_it_is_off,
);

fn site(mpm: Mpm) -> Httpd {
    Httpd::new(mpm).tls().echo()
}

/// How many of so many sessions the engine has with their TLS. Children say it after they have done it.
fn handed_over(server: &Server, sessions: usize) -> usize {
    let by = |way: &str| server.error_log().matches(&format!("is the engine's, by {way}")).count();
    wait_until("each session has its line", PATIENCE, || by("") == sessions);
    by("TlsSocket")
}

fn more_sockets_than_workers(mpm: Mpm) {
    let server = site(mpm).workers(4).start();
    let sockets = Raw::open_some(&server, 60);
    assert_eq!(handed_over(&server, 60), 60);
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    let children = || server.children().iter().map(|child| child.network_sockets().len()).sum::<usize>();
    wait_until("the children have let go of the sockets", PATIENCE, || children() < 20);
    for mut socket in sockets {
        socket.echo(&Frame::text("after"));
        socket.close();
    }
}

fn a_restart_is_not_noticed(mpm: Mpm) {
    let server = site(mpm).config("WebSocketDrainTimeout 0").start();
    let mut sockets = Raw::open_some(&server, 10);
    for _ in 0..2 {
        let old: Vec<Process> = server.begin_graceful();
        wait_until("the old children are gone", PATIENCE, || !old.iter().any(|child| child.is_running()));
        for socket in &mut sockets {
            socket.echo(&Frame::text("still here"));
            socket.echo(&Frame::binary(vec![7; 100_000]));
        }
    }
    sockets.into_iter().for_each(Raw::close);
}

fn keys_change_on_the_way(mpm: Mpm) {
    let server = site(mpm).start();
    let mut client = Raw::open(&server, "/echo");
    for size in [1, 1000, 70_000] {
        client.echo(&Frame::binary(vec![1; size]));
        client.renew_keys();
    }
    client.echo(&Frame::text("the last"));
    client.close();
    // Before the handshake: the secrets that httpd has told of are no good any more, and httpd goes on with the connection.
    let mut client = Raw::connect(&server);
    assert_eq!(client.ask(&Handshake::page("/index.html").header("Connection", "keep-alive")).status, 200);
    client.renew_keys();
    client.ask(&Handshake::new("/echo")).assert_accepted();
    client.echo(&Frame::text("by way of httpd"));
    client.close();
    assert_eq!(handed_over(&server, 2), 1);
}

/// Sessions that are resumed have fewer messages in their handshake, and tickets come after it. The server's cache keeps a
/// session whose connection was handed over.
fn sessions_of_tls_that_go_on(mpm: Mpm) {
    for tickets in ["On", "Off"] {
        let server = site(mpm).config(format!("SSLSessionTickets {tickets}")).start();
        let config = client(server.root(), &[&version::TLS13], false);
        for number in 0..4 {
            let mut client = Raw::connect_by(&server, Some(&config)).about(&format!("connection {number}"));
            if number == 3 {
                // Something has gone both ways before.
                let page = client.ask(&Handshake::page("/index.html").header("Connection", "keep-alive"));
                assert_eq!(page.status, 200);
            }
            client.ask(&Handshake::new("/echo")).assert_accepted();
            assert_eq!(client.is_resumed(), number > 0, "connection {number}, tickets {tickets}");
            client.echo(&Frame::text("hello"));
            client.close();
        }
        assert_eq!(handed_over(&server, 4), 4);
    }
}

/// A message comes right behind the request, and a part of it later: httpd's TLS has begun with its record.
fn a_record_in_two_pieces(mpm: Mpm) {
    let server = site(mpm).start();
    let message = Frame::binary(vec![b'x'; 3000]);
    for cut in [3, 5, 6, 1000, 3020] {
        let mut client = Raw::connect(&server).about(&format!("cut at {cut}"));
        let request = Handshake::new("/echo").bytes(&client.host());
        // The handshake of TLS comes first.
        client.write(&request[..10]);
        let mut records = client.sealed(&request[10..]);
        records.extend(client.sealed(&Frame::text("whole").masked()));
        let last = client.sealed(&message.masked());
        records.extend(&last[..cut]);
        client.write_sealed(&records);
        client.response(false).assert_accepted();
        client.write_sealed(&last[cut..]);
        client.expect(&Frame::text("whole"));
        client.expect(&message);
        client.echo(&Frame::text("more"));
        client.close();
    }
    // The rest never comes: the connection is given up, and nobody waits for longer than that.
    let mut client = Raw::connect(&server).about("never whole");
    let request = Handshake::new("/echo").bytes(&client.host());
    client.write(&request[..10]);
    let mut records = client.sealed(&request[10..]);
    records.extend(&client.sealed(&message.masked())[..100]);
    client.write_sealed(&records);
    client.await_hangup();
}

/// Python's TLS client shows a certificate when it is asked for one after the handshake; rustls does not.
fn certificates_after_the_handshake(mpm: Mpm) {
    let server = site(mpm)
        .client_certificate()
        .config(format!(
            "SSLCACertificateFile \"{{root}}/{CLIENT_AUTHORITY}\"\n<Location \"/echo\">\n  SSLVerifyClient require\n</Location>"
        ))
        .start();
    let address = server.address();
    let path = |name: &str| server.path(name);
    let output = Command::new(env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/clients/post_handshake.py"))
        .args([&address.ip().to_string(), &address.port().to_string(), "/echo"])
        .args([path(CERTIFICATE), path("conf/client.pem"), path("conf/client-key.pem")])
        .output()
        .expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("shown\n{}\n", "x".repeat(100)));
    assert_eq!(handed_over(&server, 1), 1);
}

/// A client that wants its records short (RFC 6066 section 4) keeps its TLS in httpd, which knows of that.
fn short_records(mpm: Mpm) {
    let server = site(mpm).start();
    let address = server.address().to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-tls1_3", "-maxfraglen", "512", "-connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let (mut input, mut output) = (client.stdin.take().expect("stdin"), client.stdout.take().expect("stdout"));
    let message = Frame::binary(vec![b'x'; 3000]);
    input.write_all(&Handshake::new("/echo").bytes(&address)).expect("a handshake");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    input.write_all(&message.masked()).expect("a message");
    let mut received = Vec::new();
    while Frame::from_server(&received).is_none() {
        let mut piece = [0; 1000];
        let count = output.read(&mut piece).expect("the echo");
        assert!(count > 0, "the end after {} bytes", received.len());
        received.extend(&piece[..count]);
    }
    assert!(Frame::from_server(&received).is_some_and(|(frame, _)| frame == message));
    assert_eq!(handed_over(&server, 1), 0);
    client.kill().expect("openssl is ours to end");
    client.wait().expect("its end");
}

/// As without TLS, it is written when httpd has nothing more to do with the connection.
/// Padding hides how long messages are, and the engine has none: httpd goes on with what it was told to pad.
fn padded_records(mpm: Mpm) {
    for (padding, by_engine) in [("SSLOpenSSLConfCmd RecordPadding 512", 0), ("", 3)] {
        let server = site(mpm).config(padding).start();
        // The later ones resume the session of the first.
        for _ in 0..3 {
            let mut client = Raw::open(&server, "/echo");
            client.echo(&Frame::text("how long am I?"));
            client.close();
        }
        assert_eq!(handed_over(&server, 3), by_engine, "{padding}");
    }
}

fn the_line_in_the_access_log(mpm: Mpm) {
    let server = site(mpm).start();
    let mut client = Raw::open(&server, "/echo");
    wait_until("the line is in the access log", PATIENCE, || server.access_log().contains("/echo HTTP/1.1\" 101"));
    client.echo(&Frame::text("and the socket is open"));
    client.close();
}

/// A virtual host may have it Off; who logs the keys for Wireshark goes on having them, of the others, too.
fn where_it_is_off(mpm: Mpm) {
    let keys = tempfile::NamedTempFile::new().expect("a file");
    let server = site(mpm)
        .environment("SSLKEYLOGFILE", keys.path())
        .config(
            "<VirtualHost *:{port}>\n  ServerName localhost\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName 127.0.0.1\n  WebSocketTLSHandoff Off\n</VirtualHost>",
        )
        .start();
    for (sessions, host) in (1..).zip(["localhost", "127.0.0.1"]) {
        let mut client = Raw::connect(&server).about(host);
        client.ask(&Handshake::new("/echo").header("Host", host)).assert_accepted();
        client.echo(&Frame::text("hello"));
        client.close();
        assert_eq!(handed_over(&server, sessions), 1, "{host}");
    }
    let logged = std::fs::read_to_string(keys.path()).expect("the key log");
    assert_eq!(logged.matches("SERVER_TRAFFIC_SECRET_0 ").count(), 2, "{logged}");
}
