//! The relay of one connection on the thread of its request: TLS on worker and prefork, streams of HTTP/2.
//!
//! The thread sleeps in poll(2) while nothing moves. And where a plugin has the session, until the plugin is done.

use super::pump::{Pair, Pump, Turn, Waiting};
use super::{Relayed, STOP_CHECK, Session, Way, variables};
use crate::apache::connection::Connection;
use crate::apache::mpm;
use crate::apache::request::Request;
use crate::module::plugin;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

/// Moves the bytes of a session until it ends, and keeps the request until its plugin is done.
pub fn run(request: &Request, relayed: Relayed) {
    let Relayed { engine, session, plugin } = relayed;
    let since = Instant::now();
    let (received, sent) = match engine {
        Some(Way::Pair(engine)) => relay(request.connection(), engine, session),
        // Only the relay thread has trunks.
        Some(Way::Trunk(_)) | None => (0, 0),
    };
    if let Some(plugin) = plugin {
        wait_for_plugin(&plugin, session);
    }
    request.describe(&variables(session.ticket, since, received, sent), sent);
}

/// Returns when the plugin needs the request no more.
fn wait_for_plugin(plugin: &plugin::Connection, session: Session) {
    plugin.tell_at_the_end(plugin::connection::Waiter::Thread(thread::current()));
    let mut draining: Option<Instant> = None;
    let mut told = false;
    while !plugin.is_over() {
        if draining.is_none() && mpm::is_stopping() {
            draining = Some(Instant::now());
        }
        if !told && draining.is_some_and(|begin| session.is_due(begin)) {
            told = true;
            session.ask_to_close();
        }
        thread::park_timeout(STOP_CHECK);
    }
}

/// Moves the bytes of a session until it ends; returns how many were received and sent.
fn relay(connection: &Connection, engine: UnixStream, session: Session) -> (u64, u64) {
    let (mut pump, mut engine) = (Pump::default(), Pair::new(engine));
    let mut buffer = vec![0; Connection::PIECE];
    let mut draining: Option<Instant> = None;
    let mut give_up: Option<Instant> = None;
    let mut engine_gone = false;
    loop {
        match pump.turn(&mut engine, connection, &mut buffer) {
            Turn::Again => {}
            Turn::Ended => break,
            Turn::Lost => {
                connection.abandon();
                break;
            }
            Turn::Wait(waiting) => {
                if wait(connection, &engine, waiting, engine_gone) && !engine_gone {
                    // The session is over: what the client does not take soon, it will not have.
                    engine_gone = true;
                    give_up.get_or_insert(session.last_moment());
                }
            }
        }
        if draining.is_none() && mpm::is_stopping() {
            draining = Some(Instant::now());
        }
        match (draining, give_up) {
            (Some(begin), None) if session.is_due(begin) => {
                give_up = Some(session.last_moment());
                session.ask_to_close();
            }
            (_, Some(end)) if Instant::now() >= end => {
                connection.abandon();
                break;
            }
            _ => {}
        }
    }
    (pump.received, pump.sent)
}

/// Waits until one of them can do what the pump waits for; true when the engine has closed its end.
fn wait(connection: &Connection, engine: &Pair, waiting: Waiting, engine_gone: bool) -> bool {
    let flags = |read: bool, write: bool| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        flags
    };
    let timeout = Timespec { tv_sec: STOP_CHECK.as_secs() as i64, tv_nsec: 0 };
    let engine = PollFd::new(engine.socket(), flags(waiting.engine_read, waiting.engine_write));
    let mut watched = vec![engine];
    // A side of which nothing is wanted is not watched: poll(2) would tell of its hang-up over and over.
    if engine_gone && !waiting.engine_read {
        watched.clear();
    }
    if (waiting.client_read || waiting.client_write)
        && let Some(client) = connection.input_descriptor()
    {
        watched.push(PollFd::from_borrowed_fd(client, flags(waiting.client_read, waiting.client_write)));
    }
    // Whatever it answers, another turn shows what can move.
    let _ = poll(&mut watched, Some(&timeout));
    !engine_gone && watched[0].revents().contains(PollFlags::HUP)
}
