//! Graceful restarts and stops with sockets over TLS, whose bytes go through a child that is to end.

use crate::harness::installation::installation;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until, with_http2};
use crate::tls::http2::{Scenario, wait_for_sessions};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

every_mpm!(
    sockets_go_on_until_the_drain_timeout,
    no_drain_timeout,
    a_child_ends_with_its_last_socket,
    a_graceful_stop_closes_at_once,
    a_restart_ends_a_drain,
    a_stop_ends_a_drain,
    the_code_of_a_stop,
);
with_http2!(http2);

/// Room for the children of two generations beside each other: one that drains keeps its place among the ServerLimit.
fn site(mpm: Mpm) -> Httpd {
    let httpd = Httpd::new(mpm).tls().relayed().echo();
    match mpm {
        Mpm::Event => httpd.config("ServerLimit 6\nAsyncRequestWorkerFactor 20"),
        Mpm::Worker => httpd.workers(40).config("ServerLimit 6"),
        Mpm::Prefork => httpd.workers(40),
    }
}

/// Awaits the Close of a drain, answers it, and sees the connection end properly; returns when it came.
#[track_caller]
fn await_drain(mut client: Raw) -> Instant {
    client.expect(&Frame::close(1012, "server is restarting"));
    let came = Instant::now();
    client.send(&Frame::close(1012, ""));
    client.expect_end();
    came
}

#[track_caller]
fn wait_for_the_end_of(old: &[Process]) {
    wait_until("the old children are gone", PATIENCE, || !old.iter().any(|child| child.is_running()));
}

/// A WebSocket in a child that is none of these: they may accept for a moment after the new ones do.
fn open_in_a_new_child(server: &Server, old: &[Process]) -> Raw {
    let served_by_new = || {
        let new: Vec<Process> = server.children().into_iter().filter(|child| !old.contains(child)).collect();
        new.iter().flat_map(|child| server.logged_by(*child)).filter(|line| line.contains("is the engine's")).count()
    };
    let mut opened = None;
    wait_until("a child of the new generation serves", PATIENCE, || {
        let before = served_by_new();
        let client = Raw::open(server, "/echo");
        if served_by_new() > before {
            opened = Some(client);
        } else {
            client.close();
        }
        opened.is_some()
    });
    opened.expect("just seen")
}

fn sockets_go_on_until_the_drain_timeout(mpm: Mpm) {
    const TIMEOUT: Duration = Duration::from_secs(6);
    let server = site(mpm).config(format!("WebSocketDrainTimeout {}", TIMEOUT.as_secs())).start();
    let engine = server.engine();
    let mut sockets = Raw::open_some(&server, 16);
    let begin = Instant::now();
    let old = server.begin_graceful();
    // The children of the new generation serve meanwhile, and those of the old one their sockets.
    let mut new = open_in_a_new_child(&server, &old);
    for round in 0..10 {
        let text = Frame::text(format!("round {round}"));
        new.echo(&text);
        for socket in &mut sockets {
            socket.echo(&text);
        }
        assert_eq!(Raw::page(&server, "/index.html").status, 200);
    }
    assert!(begin.elapsed() < TIMEOUT, "this machine is too slow for this test");

    let closed: Vec<Duration> = thread::scope(|scope| {
        let clients: Vec<_> =
            sockets.into_iter().map(|socket| scope.spawn(move || await_drain(socket) - begin)).collect();
        clients.into_iter().map(|client| client.join().expect("a closed socket")).collect()
    });
    let (first, last) = (closed.iter().min().expect("one"), closed.iter().max().expect("one"));
    assert!(*first >= TIMEOUT, "closed after {closed:?}");
    // Over as much time again; a second for whom the thread looks after.
    assert!(*last - *first > TIMEOUT / 3 && *last < 2 * TIMEOUT + Duration::from_secs(4), "closed after {closed:?}");
    wait_for_the_end_of(&old);

    new.echo(&Frame::text("not concerned"));
    new.close();
    assert_eq!(server.engines(), [engine]);
}

fn no_drain_timeout(mpm: Mpm) {
    let server = site(mpm).config("<Location \"/echo\">\n  WebSocketDrainTimeout 0\n</Location>").start();
    for _ in 0..2 {
        let sockets = Raw::open_some(&server, 6);
        let old = server.begin_graceful();
        for socket in sockets {
            await_drain(socket);
        }
        wait_for_the_end_of(&old);
    }
}

/// The drain timeout is not waited for when nobody needs it.
fn a_child_ends_with_its_last_socket(mpm: Mpm) {
    let server = site(mpm).start();
    let sockets = Raw::open_some(&server, 6);
    let old = server.begin_graceful();
    for mut socket in sockets {
        socket.echo(&Frame::text("in the old child"));
        assert!(old.iter().any(|child| child.is_running()));
        socket.close();
    }
    wait_for_the_end_of(&old);
}

/// Sees the Close with this code and reason, answers it, and sees the connection end.
#[track_caller]
fn await_close(mut client: Raw, code: u16, reason: &str) {
    client.expect(&Frame::close(code, reason));
    client.send(&Frame::close(code, ""));
    client.await_hangup();
}

#[track_caller]
fn await_the_end(server: &Server) {
    wait_until("httpd has ended", PATIENCE, || !server.parent().is_running());
}

/// No new generation follows: nobody has to wait for the drain timeout, which is a minute.
fn a_graceful_stop_closes_at_once(mpm: Mpm) {
    let server = site(mpm).start();
    let sockets = Raw::open_some(&server, 12);
    let begin = Instant::now();
    server.begin_to_stop_gracefully();
    for socket in sockets {
        await_close(socket, 1012, "server is stopping");
    }
    await_the_end(&server);
    assert!(begin.elapsed() < Duration::from_secs(20), "stopped after {:?}", begin.elapsed());
}

/// A second signal while sockets drain: they are told before their children are killed.
fn a_restart_ends_a_drain(mpm: Mpm) {
    let server = site(mpm).start();
    let sockets = Raw::open_some(&server, 6);
    let old = server.begin_graceful();
    let new = open_in_a_new_child(&server, &old);
    thread::scope(|scope| {
        scope.spawn(|| server.restart());
        for socket in sockets {
            await_close(socket, 1012, "server is restarting");
        }
        // Worker closes its sockets first.
        if mpm != Mpm::Worker {
            await_close(new, 1012, "server is restarting");
        }
    });
    wait_for_the_end_of(&old);
}

fn a_stop_ends_a_drain(mpm: Mpm) {
    let server = site(mpm).start();
    let sockets = Raw::open_some(&server, 6);
    server.begin_graceful();
    server.begin_to_stop();
    for socket in sockets {
        await_close(socket, 1012, "server is stopping");
    }
    await_the_end(&server);
}

/// `WebSocketStopCode` is that of all sockets, wherever their bytes go.
fn the_code_of_a_stop(mpm: Mpm) {
    for httpd in [Httpd::new(mpm).echo(), Httpd::new(mpm).tls().echo()] {
        let server = httpd.config("WebSocketStopCode 1001").start();
        let sockets = Raw::open_some(&server, 3);
        server.begin_to_stop();
        for socket in sockets {
            await_close(socket, 1001, "server is stopping");
        }
        await_the_end(&server);
    }
    let server = site(mpm).config("WebSocketStopCode 1001").start();
    let sockets = Raw::open_some(&server, 3);
    server.begin_to_stop_gracefully();
    for socket in sockets {
        await_close(socket, 1001, "server is stopping");
    }
    await_the_end(&server);
}

/// A child that ends alone says so, and that clients are to come back.
#[test]
fn a_child_that_retires() {
    for mpm in [Mpm::Event, Mpm::Worker] {
        let server = site(mpm).config("StartServers 1\nMaxConnectionsPerChild 5\nWebSocketDrainTimeout 1").start();
        let sockets = Raw::open_some(&server, 3);
        // Event counts connections as they come, worker as they end; the last ones are another child's.
        for _ in 0..7 {
            assert_eq!(Raw::page(&server, "/index.html").status, 200);
        }
        for socket in sockets {
            await_close(socket, 1012, "server process is retiring");
        }
    }
}

/// mpm-itk serves each connection in a process of its own, as another user, and httpd's parent says nothing to that process.
#[test]
fn users_of_mpm_itk() {
    let Some(load) = installation().load_mpm_itk().filter(|_| rustix::process::geteuid().is_root()) else {
        eprintln!("not tried: it takes root, and Debian's libapache2-mpm-itk");
        return;
    };
    let httpd = || site(Mpm::Prefork).config(format!("{load}\nAssignUserID daemon daemon\nWebSocketDrainTimeout 2"));
    let server = httpd().start();
    let mut sockets = Raw::open_some(&server, 3);
    server.begin_graceful();
    for socket in &mut sockets {
        socket.echo(&Frame::text("still there"));
    }
    sockets.into_iter().map(await_drain).for_each(drop);
    let sockets = Raw::open_some(&server, 3);
    server.restart();
    for socket in sockets {
        await_close(socket, 1012, "server is restarting");
    }
    drop(server);

    let server = httpd().config("WebSocketDrainTimeout 86400").start();
    let sockets = Raw::open_some(&server, 3);
    server.begin_to_stop_gracefully();
    for socket in sockets {
        await_close(socket, 1012, "server is stopping");
    }
    await_the_end(&server);
}

/// Pages are served and sockets open while httpd is restarted and restarted again; each socket that is closed is told
/// why, and its client comes back.
#[test]
fn restarts_under_load() {
    let server = site(Mpm::Event).config("ServerLimit 12\nWebSocketDrainTimeout 1").start();
    // Draining children keep their places: what is left may be in use for a moment, and httpd says so.
    server.tolerate_log("AH00484: server reached MaxRequestWorkers");
    let (done, pages, echoes, closed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    struct Finally<'a>(&'a AtomicBool);
    impl Drop for Finally<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let going_on = || !done.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let finally = Finally(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while going_on() {
                    assert_eq!(Raw::page(&server, "/index.html").text(), "<p>A page of the site.</p>\n");
                    pages.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..8 {
            scope.spawn(|| {
                while going_on() {
                    let mut client = Raw::open(&server, "/echo");
                    while going_on() {
                        let text = Frame::text("hello");
                        client.send(&text);
                        let answer = client.frame();
                        if answer.opcode == Frame::CLOSE {
                            assert_eq!(answer, Frame::close(1012, "server is restarting"));
                            closed.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        assert_eq!(answer, text);
                        echoes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..3 {
            let before = [&pages, &echoes].map(|count| count.load(Ordering::Relaxed));
            server.graceful();
            wait_until("pages and sockets go on", PATIENCE, || {
                pages.load(Ordering::Relaxed) > before[0] + 20 && echoes.load(Ordering::Relaxed) > before[1] + 20
            });
        }
        drop(finally);
    });
    let closed = closed.into_inner();
    assert!(closed >= 8, "only {closed} sockets were closed by three restarts");
}

/// `apachectl stop`: no drain, but a word to everybody.
#[test]
fn stop_is_announced() {
    let server = site(Mpm::Event).start();
    let sockets = Raw::open_some(&server, 30);
    let begin = Instant::now();
    server.begin_to_stop();
    for mut socket in sockets {
        assert_eq!(socket.close_code(), Some(1012));
        socket.send(&Frame::close(1012, ""));
        socket.await_hangup();
    }
    server.stop();
    assert!(begin.elapsed() < Duration::from_secs(6), "stopped after {:?}", begin.elapsed());
}

/// A stream of HTTP/2 goes on in the old child as well.
fn http2(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .workers(20)
        .http2()
        .echo()
        .config("ServerLimit 6\nWebSocketDrainTimeout 2\nWebSocketOriginCheck Off")
        .start();
    let mut client = Scenario::start(&server, "drain");
    client.says("two are open");
    let old = server.begin_graceful();
    let begin = Instant::now();
    client.go_on();
    client.says("they go on");
    client.go_on();
    client.ends_well();
    assert!(begin.elapsed() >= Duration::from_millis(1900), "closed after {:?}", begin.elapsed());
    wait_for_sessions(&server, 0);
    wait_for_the_end_of(&old);
}
