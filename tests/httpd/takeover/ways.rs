//! The ways of the client's and the server's bytes to the engine, and what is left to mod_proxy.

use super::{await_taken, left, site, taken};
use crate::harness::back_end::{BackEnd, Conversation, accepting, echo};
use crate::harness::handshake::SAMPLE_ACCEPT;
use crate::harness::tls::client;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use crate::tls::http2::{ROOM_FOR_MANY, Scenario};
use rustls::version::TLS12;
use tungstenite::handshake::derive_accept_key;

every_mpm!(tls_on_either_side_and_both, tls_of_older_versions);

/// To that server, whose certificate it trusts, over TLS. It has mod_ssl.
fn over_tls(site: Httpd, back_end: &BackEnd) -> Httpd {
    site.config(format!(
        "SSLProxyEngine On\nSSLProxyCACertificateFile \"{}\"\nProxyPass \"/secure\" \"wss://{}/\"",
        back_end.certificate().display(),
        back_end.address
    ))
}

/// A site that serves pages without TLS, and may speak it with a server.
fn with_tls_to_servers(mpm: Mpm) -> Httpd {
    let site = site(mpm).module("socache_shmcb").module("ssl");
    site.config("SSLSessionCache \"shmcb:{root}/run/tls-cache(512000)\"")
}

/// Whatever OpenSSL this machine has.
fn tolerate_openssl(server: &Server) {
    server.tolerate_log("AH01882: Init: this version of mod_ssl was compiled against a newer library");
}

/// The closing handshake, and the end, of which mod_proxy's tunnel says nothing in TLS.
#[track_caller]
fn close_in_a_tunnel(mut client: Raw) {
    client.send(&Frame::close(1000, ""));
    client.expect(&Frame::close(1000, ""));
    client.await_hangup();
}

#[track_caller]
fn talk(client: &mut Raw) {
    for size in [1, 125, 4000, 70_000, 300_000] {
        client.echo(&Frame::binary(vec![7; size]));
    }
}

fn tls_on_either_side_and_both(mpm: Mpm) {
    let (plain, secure) = (BackEnd::echo(), BackEnd::tls(echo));
    let plain_pass = format!("ProxyPass \"/plain\" \"ws://{}/\"", plain.address);
    for site in [with_tls_to_servers(mpm), site(mpm).tls()] {
        let server = over_tls(site, &secure).config(&plain_pass).start();
        tolerate_openssl(&server);
        // One side at least.
        let paths: &[&str] = if server.tls().is_some() { &["/plain", "/secure"] } else { &["/secure"] };
        for path in paths {
            let mut client = Raw::open(&server, path).about(path);
            talk(&mut client);
            client.close();
        }
        await_taken(&server, paths.len());
        let by = if server.tls().is_some() { "by TlsSocket" } else { "by Socket" };
        assert_eq!(server.error_log().matches(by).count(), paths.len());
    }
}

/// A client that speaks an older TLS.
fn open_older(server: &Server, path: &str) -> Raw {
    let mut socket = Raw::connect_by(server, Some(&client(server.root(), &[&TLS12], false)));
    socket.ask(&Handshake::new(path)).assert_accepted();
    socket
}

fn tls_of_older_versions(mpm: Mpm) {
    let (plain, secure) = (BackEnd::echo(), BackEnd::tls(echo));
    let server = over_tls(site(mpm).tls(), &secure)
        .config(format!("ProxyPass \"/plain\" \"ws://{}/\"\nSSLProxyProtocol TLSv1.2", plain.address))
        .start();
    let mut socket = open_older(&server, "/plain").about("TLS 1.2 of a client");
    talk(&mut socket);
    if mpm == Mpm::Event {
        socket.close();
        await_taken(&server, 1);
        assert!(server.error_log().contains("by SuspendedRelay"));
    } else {
        close_in_a_tunnel(socket);
        assert_eq!(left(&server), ["the engine cannot go on with the client's TLS"]);
    }
    let before = (taken(&server), left(&server).len());
    let mut socket = Raw::open(&server, "/secure").about("TLS 1.2 of a server");
    talk(&mut socket);
    close_in_a_tunnel(socket);
    assert_eq!((taken(&server), left(&server).len()), (before.0, before.1 + 1));
    assert_eq!(left(&server).pop().as_deref(), Some("the engine cannot go on with the back end's TLS"));
}

#[test]
fn keys_stay_in_httpd_where_they_are_to() {
    let (plain, secure) = (BackEnd::echo(), BackEnd::tls(echo));
    let server = over_tls(site(Mpm::Event).tls().relayed(), &secure)
        .config(format!("ProxyPass \"/plain\" \"ws://{}/\"", plain.address))
        .start();
    let mut socket = Raw::open(&server, "/plain");
    talk(&mut socket);
    socket.close();
    await_taken(&server, 1);
    assert!(server.error_log().contains("by SuspendedRelay"));
    let mut socket = Raw::open(&server, "/secure");
    talk(&mut socket);
    close_in_a_tunnel(socket);
    assert_eq!(left(&server), ["the engine cannot go on with the back end's TLS"]);
}

#[test]
fn what_only_mod_proxy_takes_for_a_websocket_stays_there() {
    let back_end = BackEnd::echo();
    let server = site(Mpm::Event)
        .module("dumpio")
        .config(format!("ProxyPass \"/ws\" \"ws://{}/\"\nErrorDocument 404 /ws", back_end.address))
        .start();
    for (handshake, why) in [
        (Handshake::new("/ws").without("Connection"), "it has no Connection: Upgrade"),
        (Handshake::new("/ws").method("POST").header("Content-Length", "0"), "its method is not GET"),
        (Handshake::new("/missing"), "httpd has made this request"),
    ] {
        let mut socket = Raw::connect(&server).about(why);
        assert_eq!(socket.ask(&handshake).status, 101, "{why}");
        socket.echo(&Frame::text("in the tunnel"));
        socket.close();
        assert_eq!(left(&server).pop().as_deref(), Some(why));
    }
    assert_eq!(taken(&server), 0);
}

#[test]
fn a_filter_that_sees_the_bytes_goes_on_seeing_them() {
    let back_end = BackEnd::echo();
    let server = site(Mpm::Event)
        .module("dumpio")
        .config(format!("LogLevel dumpio:trace7\nDumpIOInput On\nProxyPass \"/ws\" \"ws://{}/\"", back_end.address))
        .start();
    let mut socket = Raw::open(&server, "/ws");
    socket.echo(&Frame::text("seen"));
    socket.close();
    wait_until("the line is there", PATIENCE, || !left(&server).is_empty());
    assert_eq!(left(&server), ["the filter dumpio_in sees the client's bytes"]);
    assert_eq!(taken(&server), 0);
}

#[test]
fn streams_of_http2_stay_in_mod_proxys_tunnel() {
    // mod_http2 checks the Sec-WebSocket-Accept that mod_proxy passes on.
    let back_end = BackEnd::new(|head: &str, conversation: &mut Conversation| {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        conversation.say(accepting().replace(SAMPLE_ACCEPT, &derive_accept_key(key.as_bytes())));
        while conversation.frame().is_some() {}
    });
    let server = site(Mpm::Event)
        .workers(20)
        .http2()
        .config(ROOM_FOR_MANY)
        .config(format!("ProxyPass \"/echo\" \"ws://{}/\"", back_end.address))
        .start();
    let client = Scenario::start(&server, "ten");
    // The others wait for the first six.
    wait_until("streams are open", PATIENCE, || left(&server).len() >= 6);
    drop(client);
    assert!(left(&server).iter().all(|why| why == "the client speaks HTTP/2"), "{:?}", left(&server));
    assert_eq!(taken(&server), 0);
}
