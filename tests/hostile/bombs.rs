//! Messages that are small on the wire and large when they are decompressed.

use crate::Scale;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, wait_until};
use crate::load::mib;
use crate::watch::{SESSIONS, watched};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use zlib_rs::{Deflate, DeflateFlush};

/// Clients at a time.
const CLIENTS: usize = 6;
/// Bytes of a bomb, decompressed.
const SIZE: usize = 16 << 20;
/// What the engine may need for all of them (KiB): a message at its limit of 1 MiB and its echo, for each.
const ENOUGH: u64 = 65_536;

fn deflated(size: usize) -> Vec<u8> {
    let payload = vec![b' '; size];
    let mut out = vec![0; size / 50 + 100];
    let mut deflate = Deflate::new(9, false, 15);
    deflate.compress(&payload, &mut out, DeflateFlush::SyncFlush).expect("zlib compresses");
    out.truncate(deflate.total_out() as usize - 4);
    out
}

fn open(server: &Server, offer: &str) -> Raw {
    Raw::open_with(server, &Handshake::new("/deflate").header("Sec-WebSocket-Extensions", offer))
}

pub(crate) fn run(scale: Scale) -> String {
    let location = "<Location \"/deflate\">\n  WebSocketHandler echo\n  WebSocketCompression On\n\
                    WebSocketCompressionContextTakeover Both\n</Location>";
    let server = Httpd::new(Mpm::Event).workers(32).config("LogLevel notice").echo().config(location).start();
    let engine = server.engine();
    let (bomb, large) = (deflated(SIZE), deflated(1 << 20));
    let [bombs, messages] = [const { AtomicU64::new(0) }; 2];
    let time = scale.time(120.0);
    let ((before, after), seen) = watched(&server, || {
        let before = engine.resident_kib();
        let end = Instant::now() + time;
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (server, bomb, large, bombs, messages) = (&server, &bomb, &large, &bombs, &messages);
                scope.spawn(move || {
                    while Instant::now() < end {
                        match client % 3 {
                            // In one frame.
                            0 => {
                                let mut client = open(server, "permessage-deflate");
                                client.send(&Frame::text(&bomb[..]).reserved(4));
                                client.expect_failure(1009);
                                bombs.fetch_add(1, Ordering::Relaxed);
                            }
                            // In many; the server may end it before the last.
                            1 => {
                                let mut client = open(server, "permessage-deflate; server_no_context_takeover");
                                let mut pieces = bomb.chunks(100);
                                let first = Frame::text(pieces.next().expect("a piece")).reserved(4).unfinished();
                                client.write(&first.masked());
                                let rest: Vec<u8> =
                                    pieces.flat_map(|piece| Frame::continuation(piece).unfinished().masked()).collect();
                                client.try_write(&rest);
                                client.await_hangup();
                                bombs.fetch_add(1, Ordering::Relaxed);
                            }
                            // At the limit, and so allowed: a thousand times what was sent, there and back.
                            _ => {
                                let mut client = open(server, "permessage-deflate");
                                client.send(&Frame::text(&large[..]).reserved(4));
                                let echo = client.frame();
                                assert!(echo.opcode == Frame::TEXT && echo.payload.len() < 100_000, "{echo:?}");
                                client.reset();
                                messages.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        wait_until("all of them are gone", PATIENCE, || engine.network_sockets().len() <= SESSIONS);
        (before, engine.resident_kib())
    });
    assert!(after <= before + ENOUGH, "{} MiB became {}", mib(before), mib(after));
    format!(
        "{} bombs of {} MiB, {} messages of 1 MiB; engine {} → {} MiB; {seen}",
        bombs.into_inner(),
        SIZE >> 20,
        messages.into_inner(),
        mib(before),
        mib(after)
    )
}
