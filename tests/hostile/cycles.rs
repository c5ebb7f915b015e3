//! Sessions that open and close, many times, in all ways that there are to end one: the engine and httpd's children do not
//! grow.

use crate::Scale;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Process, Raw, Server, wait_until};
use crate::load::{self, Size, mib};
use crate::watch::watched;
use rustix::net::sockopt::set_socket_linger;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

/// What a process may have more of at the end, for what the allocator happens to keep (KiB): of 200,000 sessions 20 bytes each
/// would be seen.
const SLACK: u64 = 4096;
/// Clients at a time.
const THREADS: usize = 4;

pub(crate) fn over_tcp(scale: Scale) -> String {
    let server = Httpd::new(Mpm::Event).workers(32).config("LogLevel notice").echo().start();
    let count = scale.count(200_000, 2_000);
    grow_not(&server, count, |number| cycle(server.address(), number).expect("a session from its beginning to its end"))
}

pub(crate) fn over_tls(scale: Scale) -> String {
    let server = Httpd::new(Mpm::Event).workers(32).config("LogLevel notice").tls().echo().start();
    let count = scale.count(10_000, 300);
    grow_not(&server, count, |number| {
        let mut client = Raw::open(&server, "/echo");
        client.echo(&Frame::text("hello"));
        match number % 3 {
            0 => client.close(),
            1 => client.reset(),
            _ => {
                client.end_sending();
                client.await_hangup();
            }
        }
    })
}

/// One session, whose end depends on its number.
fn cycle(to: SocketAddr, number: usize) -> io::Result<()> {
    let mut stream = load::open(to, "/echo")?;
    if number % 5 != 4 {
        load::echo(&mut stream)?;
    }
    match number % 5 {
        0 => {
            stream.write_all(&Frame::close(1000, "").masked())?;
            load::read_to_end(&mut stream)
        }
        1 => Ok(set_socket_linger(&stream, Some(Duration::ZERO))?),
        2 => {
            stream.shutdown(Shutdown::Write)?;
            load::read_to_end(&mut stream)
        }
        // With what is a protocol error.
        3 => {
            stream.write_all(&Frame::text("x").reserved(7).masked())?;
            load::read_to_end(&mut stream)
        }
        _ => Ok(()),
    }
}

/// Does it so many times, and looks at the processes after a fifth of it and at the end.
fn grow_not(server: &Server, count: usize, cycle: impl Fn(usize) + Sync) -> String {
    let engine = server.engine();
    let processes: Vec<Process> = [engine].into_iter().chain(server.children()).collect();
    let ((before, after), seen) = watched(server, || {
        let idle = engine.network_sockets().len();
        let run = |from: usize, to: usize| {
            thread::scope(|scope| {
                for first in 0..THREADS {
                    let cycle = &cycle;
                    scope.spawn(move || (from..to).skip(first).step_by(THREADS).for_each(cycle));
                }
            });
            wait_until("all sessions have ended", PATIENCE, || engine.network_sockets().len() <= idle);
            processes.iter().map(|process| Size::of(*process)).collect::<Vec<_>>()
        };
        (run(0, count / 5), run(count / 5, count))
    });
    for (before, after) in before.iter().zip(&after) {
        assert!(after.kib <= before.kib + SLACK, "{} KiB became {}", before.kib, after.kib);
        // A child's connection to the page that is just being served comes and goes.
        assert!(
            after.descriptors <= before.descriptors + 4,
            "{} descriptors, {}",
            before.descriptors,
            after.descriptors
        );
    }
    let (engine, after_engine) = (before[0], after[0]);
    let children = |sizes: &[Size]| mib(sizes[1..].iter().map(|size| size.kib).sum());
    format!(
        "{count} sessions opened and closed; engine {} → {} MiB, {} → {} descriptors; children {} → {} MiB; {seen}",
        mib(engine.kib),
        mib(after_engine.kib),
        engine.descriptors,
        after_engine.descriptors,
        children(&before),
        children(&after),
    )
}
