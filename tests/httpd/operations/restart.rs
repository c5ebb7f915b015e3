//! Restarts, the loss of the engine, and the full stop, with sockets open.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Handshake, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

every_mpm!(
    sockets_outlive_graceful,
    sockets_outlive_restart,
    a_new_configuration_meets_an_old_engine,
    a_killed_engine_is_replaced,
    stop_is_announced,
    stop_does_not_wait_for_the_deaf,
);

/// How often httpd is restarted in a test: a descriptor lost each time would show.
const RESTARTS: usize = 5;

/// Runs `disturb` while a client echoes without a pause; returns how often it did.
fn echoing(server: &Server, disturb: impl FnOnce(&dyn Fn() -> usize)) -> usize {
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Also when `disturb` panics, so that the scope ends.
    struct Finally<'a>(&'a AtomicBool);
    impl Drop for Finally<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Raw::open(server, "/echo");
            while !done.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                client.echo(&Frame::text(format!("message {number}")));
                count.store(number + 1, Ordering::Relaxed);
            }
            client.close();
        });
        let finally = Finally(&done);
        wait_until("the client echoes", PATIENCE, || count.load(Ordering::Relaxed) > 0);
        disturb(&|| count.load(Ordering::Relaxed));
        drop(finally);
    });
    count.into_inner()
}

/// Five more echoes than now.
fn wait_for_more(echoes: &dyn Fn() -> usize) {
    let now = echoes();
    wait_until("the client goes on echoing", PATIENCE, || echoes() > now + 5);
}

fn open_some(server: &Server) -> Vec<Client> {
    (0..30).map(|_| Client::open(server, "/echo")).collect()
}

#[track_caller]
fn all_echo(clients: &mut [Client], text: &str) {
    for client in clients {
        client.echo_text(text);
    }
}

fn most_descriptors(processes: &[Process]) -> usize {
    processes.iter().map(|process| process.descriptors().len()).max().unwrap_or(0)
}

fn sockets_outlive_graceful(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let engine = server.engine();
    let mut clients = open_some(&server);
    all_echo(&mut clients, "before");
    echoing(&server, |echoes| {
        // The first restart settles what is only opened once.
        server.graceful();
        Client::open(&server, "/echo").close();
        let links = server.children().len();
        let counts = || {
            let children = server.children();
            (engine.descriptors().len(), server.parent().descriptors().len(), most_descriptors(&children))
        };
        let before = counts();
        for round in 1..=RESTARTS {
            server.graceful();
            wait_for_more(echoes);
            all_echo(&mut clients, "after a graceful restart");
            // New sockets come through the new children to the same engine.
            let mut new = Client::open(&server, "/echo");
            new.echo_text("new");
            new.close();
            assert_eq!(server.engines(), [engine], "after {round} graceful restarts");
        }
        // A child has a link to the engine only once it needed one.
        wait_until("as many descriptors are open as before", PATIENCE, || {
            let now = counts();
            now.0 <= before.0 + links && now.1 <= before.1 && now.2 <= before.2 + 1
        });
    });
    for client in clients {
        client.close();
    }
}

fn sockets_outlive_restart(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let engine = server.engine();
    let mut clients = open_some(&server);
    echoing(&server, |echoes| {
        for _ in 0..3 {
            server.restart();
            wait_for_more(echoes);
            all_echo(&mut clients, "after a restart");
            assert_eq!(server.engines(), [engine]);
        }
        server.graceful();
        wait_for_more(echoes);
        all_echo(&mut clients, "after all of them");
        assert_eq!(server.engines(), [engine]);
    });
    for client in clients {
        client.close();
    }
}

/// A session has the limits of the configuration it began under; what is new applies to new sessions.
fn a_new_configuration_meets_an_old_engine(mpm: Mpm) {
    let server =
        Httpd::new(mpm).echo().file("conf/extra.conf", "").config("Include \"{root}/conf/extra.conf\"").start();
    let engine = server.engine();
    let mut old = Raw::open(&server, "/echo");
    let extra = "<Location \"/echo\">\n  WebSocketMaxMessageSize 10\n</Location>\n\
                 <Location \"/more\">\n  WebSocketHandler echo\n</Location>\n";
    assert_eq!(Raw::answer(&server, &Handshake::new("/more")).status, 404);
    std::fs::write(server.path("conf/extra.conf"), extra).expect("the new configuration");
    server.graceful();
    assert_eq!(server.engines(), [engine]);
    let long = Frame::text("longer than ten bytes");
    old.echo(&long);
    let mut more = Raw::open(&server, "/more");
    more.echo(&long);
    let mut new = Raw::open(&server, "/echo");
    new.echo(&Frame::text("ten bytes!"));
    new.send(&long);
    new.expect_failure(1009);
    old.close();
    more.close();
}

fn a_killed_engine_is_replaced(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    for round in 0..2 {
        let engine = server.engine();
        let children = server.children();
        let mut clients = open_some(&server);
        // A client may read its 101 before the engine has its socket.
        all_echo(&mut clients, "before");
        server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
        engine.signal(Signal::KILL);
        // Never a Close frame: nobody was left to send one.
        for mut client in clients {
            client.expect_broken();
        }
        wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
        assert!(!engine.is_running());
        // Each child finds it, whatever it knew of the old one.
        for _ in 0..20 {
            let mut client = Client::open(&server, "/echo");
            client.echo_text("with the new engine");
            client.close();
        }
        assert_eq!(server.engines().len(), 1, "round {round}");
        assert_eq!(server.children(), children, "no child was replaced");
    }
    server.graceful();
    let mut client = Client::open(&server, "/echo");
    client.echo_text("the watch over it goes on in the next generation");
    client.close();
    let engine = server.engine();
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    engine.signal(Signal::KILL);
    wait_until("there is a third engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
    let mut client = Client::open(&server, "/echo");
    client.echo_text("hello");
    client.close();
}

fn stop_is_announced(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut clients = open_some(&server);
    all_echo(&mut clients, "before");
    server.begin_to_stop();
    for mut client in clients {
        let close = client.close_frame().expect("a Close frame with a code");
        assert_eq!(u16::from(close.code), 1012);
        client.expect_end();
    }
    server.stop();
}

/// Clients that do not answer the Close, do not read it, or are in the middle of a frame.
fn stop_does_not_wait_for_the_deaf(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let silent = Raw::open(&server, "/echo");
    let mut stalled = Raw::open(&server, "/echo");
    stalled.write(&Frame::text("").header_claiming(1000));
    let mut fragmenting = Raw::open(&server, "/echo");
    fragmenting.send(&Frame::text("to be ").unfinished());
    server.begin_to_stop();
    for mut client in [silent, stalled, fragmenting] {
        assert_eq!(client.close_code(), Some(1012));
        client.expect_end();
    }
    server.stop();
}
