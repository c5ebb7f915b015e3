//! Processes that have no descriptors left: the engine from its beginning, the engine while it runs, and httpd's children.

use crate::Scale;
use crate::harness::wait::PATIENCE;
use crate::harness::{Httpd, Mpm, Process, Server, wait_until};
use crate::load;
use crate::watch::{SESSIONS, watched, watched_sessions};
use rustix::process::Signal;
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// More than any of them needs here.
const PLENTY: u64 = 4096;
/// After this time httpd has seen that its children are well.
const HEALTHY: Duration = Duration::from_secs(3);

/// Lets a process have so many; it may be allowed more again.
fn limit(process: Process, number: u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("its status");
    let id = |name: &str| -> u32 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a user and a group");
        line.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a number")
    };
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={}", process.pid)).arg(format!("--nofile={number}:{PLENTY}"));
    // As the same user: another one, be it root, needs CAP_SYS_RESOURCE.
    if rustix::process::geteuid().is_root() {
        command.uid(id("Uid:")).gid(id("Gid:"));
    }
    let output = command.output().expect("prlimit (Debian: util-linux)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn run(scale: Scale) -> String {
    let began = from_the_beginning();
    let server = Httpd::new(Mpm::Event).workers(16).config("LogLevel notice").echo().start();
    let started = Instant::now();
    let (mut rounds, mut told) = (0, String::new());
    // httpd gives up where no child of it has been well for a second or two.
    while rounds == 0 || started.elapsed() < HEALTHY {
        told = while_it_runs(&server);
        rounds += 1;
    }
    let end = Instant::now() + scale.time(100.0);
    let mut more = 0;
    while more == 0 || Instant::now() < end {
        told = format!("{}; {}", while_it_runs(&server), in_a_child(&server));
        more += 1;
    }
    format!("{began}; {told} ({} rounds)", rounds + more)
}

/// Opens sessions until one is refused; those that are open.
fn open_all(server: &Server, most: usize) -> Vec<TcpStream> {
    let mut sessions = Vec::new();
    while let Ok(session) = load::open(server.address(), "/echo") {
        sessions.push(session);
        assert!(sessions.len() < most, "more than {most} sessions");
    }
    sessions
}

/// An engine that starts with few knows how many, and says no in time.
fn from_the_beginning() -> String {
    let server = &Httpd::new(Mpm::Event).workers(16).config("LogLevel notice").echo().start();
    server.parent().limit_descriptors(150);
    server.expect_log("WS0201: the engine process");
    server.expect_log("WS0117: full");
    server.expect_log("the engine has reached its limit of open files");
    let old = server.engine();
    old.signal(Signal::KILL);
    wait_until("there is another engine", PATIENCE, || {
        server.engines().iter().any(|engine| *engine != old) && load::open(server.address(), "/echo").is_ok()
    });
    let (count, seen) = watched(server, || {
        let mut sessions = open_all(server, 150);
        assert!(sessions.len() > 50, "{} sessions", sessions.len());
        sessions.iter_mut().for_each(|session| load::echo(session).expect("an echo"));
        let count = sessions.len();
        sessions.truncate(count / 2);
        wait_until("there is room again", PATIENCE, || load::open(server.address(), "/echo").is_ok());
        count
    });
    format!("150 for the engine: {count} sessions and a 503; {seen}")
}

/// One that has counted on more.
fn while_it_runs(server: &Server) -> String {
    let engine = server.engine();
    for line in
        ["WS0007", "WS0009", "WS0010", "WS0011", "WS0110", "WS0112", "WS0113", "WS0109", "WS0116", "os error 24"]
    {
        server.tolerate_log(line);
    }
    let (count, seen) = watched(server, || {
        limit(engine, engine.descriptors().len() as u64 + 3);
        let mut open = Vec::new();
        let mut lost = 0;
        for _ in 0..40 {
            let session = load::open(server.address(), "/echo");
            match session.and_then(|mut session| load::echo(&mut session).map(|()| session)) {
                Ok(session) => open.push(session),
                Err(_) => lost += 1,
            }
        }
        assert!(lost > 0, "no limit was met");
        limit(engine, PLENTY);
        open.iter_mut().for_each(|session| load::echo(session).expect("an echo"));
        wait_until("sessions open again", PATIENCE, || {
            load::open(server.address(), "/echo").is_ok_and(|mut session| load::echo(&mut session).is_ok())
        });
        lost
    });
    wait_until("all are gone", PATIENCE, || engine.network_sockets().is_empty());
    assert_eq!(server.engine(), engine, "it is the same as before");
    format!("none left in the engine: {count} of 40 sessions lost, none of {SESSIONS} that were open; {seen}")
}

fn in_a_child(server: &Server) -> String {
    let children: Vec<Process> = server.children().into_iter().take(1).collect();
    server.tolerate_log("Too many open files");
    server.tolerate_log("AH03490: scoreboard is full");
    let ((), seen) = watched_sessions(server, || {
        for child in &children {
            limit(*child, child.descriptors().len() as u64);
        }
        for _ in 0..10 {
            let Ok(mut client) = load::connected(server.address()) else { continue };
            client.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            // It may have an answer, or none before there are descriptors again.
            let _ = load::ask(&mut client, &load::handshake(server.address(), "/echo"));
        }
        // One that cannot accept ends, and httpd starts another.
        for child in children.iter().filter(|child| child.is_running()) {
            limit(*child, PLENTY);
        }
        wait_until("pages are served again", PATIENCE, || {
            load::page(server.address()).is_ok_and(|status| status == 200)
        });
        wait_until("sessions open again", PATIENCE, || load::open(server.address(), "/echo").is_ok());
    });
    wait_until("all are gone", PATIENCE, || server.engine().network_sockets().is_empty());
    format!("none left in a child of httpd's; {seen}")
}
