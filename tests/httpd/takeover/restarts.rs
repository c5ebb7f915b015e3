//! Restarts, the end of children, and the stop, with sockets open.

use super::{await_taken, site};
use crate::harness::back_end::{BackEnd, Conversation, accepting};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Mpm, Process, Raw, every_mpm, wait_until};
use std::sync::{Arc, Mutex, PoisonError};

every_mpm!(sockets_outlive_restarts_and_children, a_stop_is_told_to_both);

const SOCKETS: usize = 12;

fn sockets_outlive_restarts_and_children(mpm: Mpm) {
    let (plain, secure) = (BackEnd::echo(), BackEnd::tls(crate::harness::back_end::echo));
    for tls in [false, true] {
        let site = if tls { site(mpm).tls() } else { site(mpm) };
        let site = match tls {
            false => site.config(format!("ProxyPass \"/ws\" \"ws://{}/\"", plain.address)),
            true => site.config(format!(
                "SSLProxyEngine On\nSSLProxyCACertificateFile \"{}\"\nProxyPass \"/ws\" \"wss://{}/\"",
                secure.certificate().display(),
                secure.address
            )),
        };
        // Each child ends after some connections.
        let server = site.config("MaxConnectionsPerChild 8").start();
        // Of so few children some are about to end whenever one is wanted.
        ["AH00161", "AH00484", "AH03490"].iter().for_each(|line| server.tolerate_log(line));
        let engine = server.engine();
        let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::open(&server, "/ws")).collect();
        await_taken(&server, SOCKETS);
        let mut echo = |text: &str| sockets.iter_mut().for_each(|socket| socket.echo(&Frame::text(text)));
        echo("before");
        server.graceful();
        echo("after a graceful restart");
        server.restart();
        echo("after a restart");
        let old: Vec<Process> = server.children();
        wait_until("children have come to their end", PATIENCE, || {
            assert_eq!(Raw::page(&server, "/index.html").status, 200);
            old.iter().all(|child| !child.is_running())
        });
        echo("after the end of children");
        assert_eq!(server.engines(), [engine]);
        sockets.into_iter().for_each(Raw::close);
    }
}

type Codes = Arc<Mutex<Vec<Option<u16>>>>;

/// It echoes, and the codes of the Close frames that it hears.
fn listening() -> (BackEnd, Codes) {
    let heard = Codes::default();
    let told = heard.clone();
    let back_end = BackEnd::new(move |_: &str, conversation: &mut Conversation| {
        conversation.say(accepting());
        while let Some(frame) = conversation.frame() {
            conversation.say(frame.unmasked());
            if frame.opcode == Frame::CLOSE {
                return told.lock().unwrap_or_else(PoisonError::into_inner).push(frame.close_code());
            }
        }
    });
    (back_end, heard)
}

#[track_caller]
fn await_codes(heard: &Codes, codes: &[Option<u16>]) {
    let heard = || heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    wait_until("the server has heard it", PATIENCE, || heard().len() == codes.len());
    assert_eq!(heard(), codes);
}

fn a_stop_is_told_to_both(mpm: Mpm) {
    let (back_end, heard) = listening();
    let server = site(mpm).config(format!("ProxyPass \"/ws\" \"ws://{}/\"", back_end.address)).start();
    let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::open(&server, "/ws")).collect();
    sockets.iter_mut().for_each(|socket| socket.echo(&Frame::text("before")));
    server.begin_to_stop();
    for socket in &mut sockets {
        assert_eq!(socket.close_code(), Some(1012));
        socket.send(&Frame::close(1012, ""));
    }
    sockets.iter_mut().for_each(Raw::await_hangup);
    await_codes(&heard, &[Some(1001); SOCKETS]);
    server.stop();
}

#[test]
fn the_end_of_a_child_is_the_end_of_sockets_that_it_relays() {
    let (back_end, heard) = listening();
    let server = site(Mpm::Event)
        .tls()
        .relayed()
        // Old children and new ones are there at the same time.
        .config(format!("ServerLimit 4\nWebSocketDrainTimeout 0\nProxyPass \"/ws\" \"ws://{}/\"", back_end.address))
        .start();
    let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::open(&server, "/ws")).collect();
    sockets.iter_mut().for_each(|socket| socket.echo(&Frame::text("before")));
    let old = server.begin_graceful();
    for socket in &mut sockets {
        assert_eq!(socket.close_code(), Some(1012));
        socket.send(&Frame::close(1012, ""));
    }
    sockets.iter_mut().for_each(Raw::await_hangup);
    await_codes(&heard, &[Some(1001); SOCKETS]);
    wait_until("the old children are gone", PATIENCE, || !old.iter().any(|child| child.is_running()));
}

#[test]
fn members_of_a_balancer_change_under_open_sockets() {
    let (first, second) = (BackEnd::echo(), BackEnd::echo());
    let server = ["slotmem_shm", "proxy_balancer", "lbmethod_byrequests"]
        .into_iter()
        .fold(site(Mpm::Event), crate::harness::Httpd::module)
        .config("<Proxy \"balancer://app\">\n  Include \"{root}/conf/members.conf\"\n</Proxy>\nProxyPass \"/ws\" \"balancer://app/\"")
        .file("conf/members.conf", format!("BalancerMember \"ws://{}\"\n", first.address))
        .start();
    let mut old = Raw::open(&server, "/ws");
    old.echo(&Frame::text("with the first"));
    std::fs::write(server.path("conf/members.conf"), format!("BalancerMember \"ws://{}\"\n", second.address))
        .expect("the members");
    server.graceful();
    let mut new = Raw::open_with(&server, &Handshake::new("/ws"));
    new.echo(&Frame::text("with the second"));
    old.echo(&Frame::text("still with the first"));
    assert_eq!((first.heads().len(), second.heads().len()), (1, 1));
    await_taken(&server, 2);
    old.close();
    new.close();
}
