//! The relay of one connection on the thread of its request: TLS on worker and prefork, streams of HTTP/2.
//!
//! The thread sleeps in poll(2) while nothing moves.

use super::pump::{Pump, Turn, Waiting};
use super::{Relayed, spread, variables};
use crate::apache::connection::Connection;
use crate::apache::log::{self, Level};
use crate::apache::mpm;
use crate::apache::request::Request;
use crate::module::lifecycle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};

/// How often the thread looks whether this child is to end.
const STOP_CHECK: Duration = Duration::from_secs(1);
/// See `thread::CLOSING`.
const CLOSING: Duration = Duration::from_secs(10);
/// See `thread::SPREAD`.
const SPREAD: Duration = Duration::from_secs(10);

/// Moves the bytes of a session until it ends.
pub fn run(request: &Request, relayed: Relayed) {
    let Relayed { engine, ticket, drain_timeout } = relayed;
    let connection = request.connection();
    let since = Instant::now();
    let mut pump = Pump::new(engine);
    let mut buffer = vec![0; Connection::PIECE];
    let mut draining: Option<Instant> = None;
    let mut give_up: Option<Instant> = None;
    loop {
        match pump.turn(connection, &mut buffer) {
            Turn::Again => continue,
            Turn::Ended => break,
            Turn::Lost => {
                connection.abandon();
                break;
            }
            Turn::Wait(waiting) => wait(connection, &pump, waiting),
        }
        if draining.is_none() && mpm::is_stopping() {
            draining = Some(Instant::now());
        }
        let window = SPREAD.min(drain_timeout);
        match (draining, give_up) {
            (Some(begin), None) if begin.elapsed() >= drain_timeout + spread(ticket, window) => {
                give_up = Some(Instant::now() + CLOSING);
                let asked = lifecycle::door().map(|door| door.close_session(ticket, 1001, "server is restarting"));
                if let Some(Err(why)) = asked {
                    let text = format!("WS0303: session {ticket}: the engine cannot be told to close it: {why}");
                    log::request(Level::Warning, request, &text);
                }
            }
            (_, Some(end)) if Instant::now() >= end => {
                connection.abandon();
                break;
            }
            _ => {}
        }
    }
    request.describe(&variables(ticket, since, pump.received, pump.sent), pump.sent);
}

fn wait(connection: &Connection, pump: &Pump, waiting: Waiting) {
    let flags = |read: bool, write: bool| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        flags
    };
    let engine = PollFd::new(pump.engine(), flags(waiting.engine_read, waiting.engine_write));
    let client = connection
        .input_descriptor()
        .map(|fd| PollFd::from_borrowed_fd(fd, flags(waiting.client_read, waiting.client_write)));
    let timeout = Timespec { tv_sec: STOP_CHECK.as_secs() as i64, tv_nsec: 0 };
    // Whatever it answers, another turn shows what can move.
    let _ = match client {
        // Without anything to wait for, a hang-up that was seen already would be reported over and over.
        Some(client) if waiting.client_read || waiting.client_write => poll(&mut [engine, client], Some(&timeout)),
        _ => poll(&mut [engine], Some(&timeout)),
    };
}
