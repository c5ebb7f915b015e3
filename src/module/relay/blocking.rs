//! The relay of one connection on the thread of its request: TLS on worker and prefork, streams of HTTP/2.
//!
//! The thread sleeps in poll(2) while nothing moves.

use super::pump::{Pump, Turn, Waiting};
use super::{Relayed, STOP_CHECK, variables};
use crate::apache::connection::Connection;
use crate::apache::mpm;
use crate::apache::request::Request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Instant;

/// Moves the bytes of a session until it ends.
pub fn run(request: &Request, relayed: Relayed) {
    let Relayed { engine, session } = relayed;
    let connection = request.connection();
    let since = Instant::now();
    let mut pump = Pump::new(engine);
    let mut buffer = vec![0; Connection::PIECE];
    let mut draining: Option<Instant> = None;
    let mut give_up: Option<Instant> = None;
    let mut engine_gone = false;
    loop {
        match pump.turn(connection, &mut buffer) {
            Turn::Again => {}
            Turn::Ended => break,
            Turn::Lost => {
                connection.abandon();
                break;
            }
            Turn::Wait(waiting) => {
                if wait(connection, &pump, waiting, engine_gone) && !engine_gone {
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
    request.describe(&variables(session.ticket, since, pump.received, pump.sent), pump.sent);
}

/// Waits until one of them can do what the pump waits for; true when the engine has closed its end.
fn wait(connection: &Connection, pump: &Pump, waiting: Waiting, engine_gone: bool) -> bool {
    let flags = |read: bool, write: bool| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        flags
    };
    let timeout = Timespec { tv_sec: STOP_CHECK.as_secs() as i64, tv_nsec: 0 };
    let engine = PollFd::new(pump.engine(), flags(waiting.engine_read, waiting.engine_write));
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
