//! Bytes that are there before the engine is, and ends that come one after the other.

use super::{await_taken, left, site, taken};
use crate::harness::back_end::{BackEnd, Conversation, accepting, echo};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Mpm, Raw, every_mpm, wait_until};

every_mpm!(bytes_behind_the_handshake, bytes_behind_the_answer);

fn message(size: usize) -> Frame {
    Frame::binary((0..size).map(|index| (index % 251) as u8).collect::<Vec<u8>>())
}

fn bytes_behind_the_handshake(mpm: Mpm) {
    let back_end = BackEnd::echo();
    let pass = format!("ProxyPass \"/ws\" \"ws://{}/\"", back_end.address);
    for site in [site(mpm), site(mpm).tls()] {
        let server = site.config(&pass).start();
        for size in [5, 7_000, 60_000] {
            let mut socket = Raw::connect(&server).about(&format!("{size} bytes"));
            let host = socket.host();
            let mut bytes = Handshake::new("/ws").bytes(&host);
            bytes.extend(message(size).masked());
            socket.write(&bytes);
            socket.response(false).assert_accepted();
            socket.expect(&message(size));
            socket.echo(&Frame::text("and then"));
            socket.send(&Frame::close(1000, ""));
            socket.expect(&Frame::close(1000, ""));
            socket.await_hangup();
        }
        if server.tls().is_none() {
            await_taken(&server, 3);
        } else {
            // A record that is not all there is waited for by httpd.
            wait_until("each has its line", PATIENCE, || taken(&server) + left(&server).len() == 3);
        }
    }
}

fn bytes_behind_the_answer(mpm: Mpm) {
    const SIZES: [usize; 4] = [13, 9_000, 1_200_000, 20_000_000];
    let serve = |head: &str, conversation: &mut Conversation| {
        let size = head.split(['/', ' ']).find_map(|word| word.parse().ok()).expect("a size");
        let mut bytes = accepting().into_bytes();
        bytes.extend(message(size).unmasked());
        conversation.say(bytes);
        while let Some(frame) = conversation.frame() {
            conversation.say(frame.unmasked());
        }
    };
    let (plain, unix, secure) = (BackEnd::new(serve), BackEnd::unix(serve), BackEnd::tls(serve));
    let server = site(mpm)
        .tls()
        .config(format!(
            "SSLProxyEngine On\nSSLProxyCACertificateFile \"{}\"\nProxyPass \"/secure\" \"wss://{}\"\n\
             ProxyPass \"/plain\" \"ws://{}\"\nProxyPass \"/unix\" \"unix:{}|ws://localhost\"",
            secure.certificate().display(),
            secure.address,
            plain.address,
            unix.socket().display(),
        ))
        .start();
    let mut sockets = 0;
    for path in ["/plain", "/unix", "/secure"] {
        for size in SIZES {
            let path = format!("{path}/{size}");
            let mut socket = Raw::open(&server, &path).about(&path);
            socket.expect(&message(size));
            socket.echo(&Frame::text("and then"));
            socket.reset();
            sockets += 1;
        }
    }
    wait_until("each has its line", PATIENCE, || taken(&server) + left(&server).len() == sockets);
    assert!(taken(&server) >= 6, "{:?}", left(&server));
}

#[test]
fn an_end_is_passed_on_and_what_the_other_still_says_is_too() {
    let back_end = BackEnd::new(|head: &str, conversation: &mut Conversation| {
        conversation.say(accepting());
        if head.starts_with("GET /first") {
            conversation.say(Frame::text("the last").unmasked());
            conversation.end_speaking();
            let heard = conversation.frame().expect("a frame behind its end");
            assert_eq!(heard, Frame::text("still here"));
        } else {
            assert_eq!(conversation.frame(), Some(Frame::text("the last")));
            assert_eq!(conversation.frame(), None);
            conversation.say(Frame::text("still here").unmasked());
        }
    });
    let server = site(Mpm::Event).config(format!("ProxyPass \"/\" \"ws://{}/\"", back_end.address)).start();
    let mut socket = Raw::open(&server, "/first");
    socket.expect(&Frame::text("the last"));
    assert_eq!(socket.frame_or_end(), None);
    socket.send(&Frame::text("still here"));
    drop(socket);
    let mut socket = Raw::open(&server, "/second");
    socket.send(&Frame::text("the last"));
    socket.end_sending();
    socket.expect(&Frame::text("still here"));
    socket.expect_end();
    await_taken(&server, 2);
}

#[test]
fn pages_and_sockets_share_connections_to_the_server() {
    let back_end = BackEnd::new(|head: &str, conversation: &mut Conversation| {
        let mut head = Some(head.to_owned());
        while let Some(request) = head {
            if request.contains("Upgrade: websocket") {
                return echo(&request, conversation);
            }
            conversation.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
            head = conversation.head();
        }
    });
    let server = site(Mpm::Worker)
        .config(format!(
            "ServerLimit 1\nStartServers 1\nMaxRequestWorkers 4\nMaxSpareThreads 4\nProxyPass \"/\" \"http://{}/\" upgrade=websocket",
            back_end.address
        ))
        .start();
    let mut client = Raw::connect(&server);
    for _ in 0..3 {
        assert_eq!(client.ask(&Handshake::page("/").header("Connection", "keep-alive")).text(), "page");
    }
    client.ask(&Handshake::new("/ws")).assert_accepted();
    client.echo(&Frame::text("on a connection that has served pages"));
    await_taken(&server, 1);
    for _ in 0..3 {
        assert_eq!(Raw::page(&server, "/").text(), "page");
    }
    client.close();
}
