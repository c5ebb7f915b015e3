//! Clients that stall, do not read, or vanish. Independent of the MPM: httpd has no part in it.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Raw, heavy, wait_until};
use std::time::Duration;

#[test]
fn one_that_stalls_in_the_middle_of_a_frame() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let mut neighbour = Raw::open(&server, "/echo");
    let whole = Frame::binary(vec![b'x'; 1000]).masked();
    // After each part of the header, and in the payload.
    let mut stalled: Vec<(usize, Raw)> = [1, 2, 3, 5, 8, 9, 500, whole.len() - 1]
        .into_iter()
        .map(|length| {
            let mut client = Raw::open(&server, "/echo");
            client.write(&whole[..length]);
            neighbour.echo(&Frame::text("unaffected"));
            (length, client)
        })
        .collect();
    for number in 0..200 {
        neighbour.echo(&Frame::text(format!("message {number}")));
    }
    for (length, client) in &mut stalled {
        if *length % 2 == 1 {
            client.write(&whole[*length..]);
            client.expect(&Frame::binary(vec![b'x'; 1000]));
            client.write(&whole[..1]);
        }
    }
    // A stop finds them where they are.
    server.begin_to_stop();
    for (length, mut client) in stalled {
        assert_eq!(client.close_code(), Some(1012), "after {length} bytes");
        client.expect_end();
    }
    assert_eq!(neighbour.close_code(), Some(1012));
    server.stop();
}

#[test]
fn many_that_claim_a_large_message_and_do_not_send_it() {
    let server = Httpd::new(Mpm::Event).echo().start();
    let engine = server.engine();
    let mut neighbour = Raw::open(&server, "/echo");
    neighbour.echo(&Frame::text("before"));
    let before = engine.resident_kib();
    let stalled: Vec<Raw> = (0..100)
        .map(|_| {
            let mut client = Raw::open(&server, "/echo");
            client.write(&[Frame::binary("").header_claiming(1 << 20), vec![0; 10]].concat());
            client
        })
        .collect();
    neighbour.echo(&Frame::text("unaffected"));
    wait_until("the engine has all of them", PATIENCE, || engine.network_sockets().len() == stalled.len() + 1);
    let after = engine.resident_kib();
    assert!(after < before + 16 * 1024, "from {before} to {after} KiB for a hundred headers");
    drop(stalled);
    neighbour.close();
}

#[test]
fn one_that_never_reads() {
    const MESSAGE: usize = 64 * 1024;
    const MUCH: usize = 32 << 20;
    let _turn = heavy();
    let server = Httpd::new(Mpm::Event).echo().start();
    let engine = server.engine();
    let mut neighbour = Raw::open(&server, "/echo");
    neighbour.echo(&Frame::binary(vec![b'x'; 1 << 20]));
    let before = engine.resident_kib();
    let message = Frame::binary(vec![b'x'; MESSAGE]).masked();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = Raw::open(&server, "/echo");
        let mut sent = 0;
        // Until the server makes it wait, or has had enough of it.
        while sent < MUCH {
            match client.write_some(&message[sent % message.len()..], Duration::from_millis(300)) {
                Some(0) | None => break,
                Some(written) => sent += written,
            }
            if sent % message.len() == 0 {
                neighbour.echo(&Frame::text("unaffected"));
            }
        }
        assert!(sent < MUCH, "the server took {sent} bytes from a client that reads nothing");
        deaf.push(client);
    }
    let after = engine.resident_kib();
    // A send buffer each, and the messages that did not fit any more.
    assert!(after < before + 4 * 4 * 1024, "from {before} to {after} KiB");
    neighbour.echo(&Frame::text("unaffected"));
    drop(deaf);
    neighbour.close();
}

#[test]
fn one_that_reads_late_loses_nothing() {
    let _turn = heavy();
    let server = Httpd::new(Mpm::Event).echo().start();
    let mut client = Raw::open(&server, "/echo");
    // More than both sides' socket buffers and the send buffer hold together.
    let (mut ahead, mut behind) = (0, 0);
    let frame = |number: usize| Frame::binary(number.to_be_bytes().repeat(8 * 1024));
    while behind < 400 {
        let bytes = if ahead < 400 { frame(ahead).masked() } else { Vec::new() };
        let mut written = 0;
        while written < bytes.len() {
            match client.write_some(&bytes[written..], Duration::from_millis(4)) {
                Some(0) => {
                    // It waits for us to read.
                    client.expect(&frame(behind));
                    behind += 1;
                }
                Some(more) => written += more,
                None => panic!("the server gave up on a slow reader after {ahead} messages"),
            }
        }
        if ahead < 400 {
            ahead += 1;
        } else {
            client.expect(&frame(behind));
            behind += 1;
        }
    }
    client.close();
}

#[test]
fn some_that_vanish() {
    const WORKERS: usize = 40;
    // Enough for those who do not wait for an answer.
    let server = Httpd::new(Mpm::Event).workers(WORKERS).echo().start();
    let engine = server.engine();
    let mut neighbour = Raw::open(&server, "/echo");
    // Enough handshakes for every link between httpd and the engine that will be.
    for _ in 0..50 {
        Raw::open(&server, "/echo").close();
    }
    wait_until("the sockets of the closed connections are closed", PATIENCE, || engine.network_sockets().len() == 1);
    let before = engine.descriptors().len();
    for round in 0..3 {
        for number in 0..60 {
            let mut client = Raw::open(&server, "/echo");
            match number % 6 {
                // Idle; in the middle of a frame, of a message; with the answer unread; with much of it unread; half closed.
                0 => client.reset(),
                1 => {
                    client.write(&Frame::text("hello").masked()[..4]);
                    client.reset();
                }
                2 => {
                    client.send(&Frame::text("to be ").unfinished());
                    client.reset();
                }
                3 => {
                    client.send(&Frame::text("hello"));
                    client.reset();
                }
                4 => {
                    client.send(&Frame::binary(vec![0; 1 << 20]));
                    client.reset();
                }
                _ => {
                    client.end_sending();
                    client.expect_end();
                }
            }
        }
        // And some who do not wait for the answer to their handshake.
        for _ in 0..20 {
            let mut client = Raw::connect(&server);
            let request = crate::harness::Handshake::new("/echo").bytes(&client.host());
            client.write(&request);
            client.reset();
        }
        neighbour.echo(&Frame::text(format!("unaffected in round {round}")));
    }
    wait_until("each socket of those that vanished is closed", PATIENCE, || engine.network_sockets().len() == 1);
    // Several handshakes at once may have opened more links between httpd and the engine: at most one a worker.
    let after = engine.descriptors().len();
    assert!(after <= before + WORKERS, "from {before} to {after} descriptors: {:?}", engine.descriptors());
    assert_eq!(server.engines(), [engine]);
    neighbour.close();
}
