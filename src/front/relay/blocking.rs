//! The relay of one connection on the thread of its request: TLS on worker and prefork, streams of HTTP/2.
//!
//! The thread sleeps in poll(2) while nothing moves. And where somebody holds the request, until that is over.

use super::drain::Drain;
use super::ending::{self, Ending, LAST_WORDS};
use super::hold::{RequestHold, Waiter};
use super::pump::{Interest, Pair, Pump, TurnEnd};
use super::{EngineEnd, Parked, RelaySession, STOP_CHECK, variables};
use crate::apache::connection::Connection;
use crate::apache::mpm;
use crate::apache::process::Deferral;
use crate::apache::request::Request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// How often a relay looks at the clock, and for what httpd says next, when this child is to end.
const TICK: Duration = Duration::from_millis(100);

/// Moves the bytes of a session until it ends, and keeps the request as long as it is held.
pub fn run(request: &Request, parked: Parked) {
    let Parked { engine, session, hold } = parked;
    let since = Instant::now();
    // A process with one thread is ended by its parent's signal wherever it is: the client is to hear of it first.
    let deferral = (!mpm::is_threaded()).then(Deferral::begin);
    let (mut ending, mut drain) = (Ending::default(), Drain::default());
    let (received, sent) = match engine {
        Some(EngineEnd::Pair(engine)) => relay(request.connection(), engine, session, &mut ending, &mut drain),
        // Only the relay thread has muxes.
        Some(EngineEnd::Mux(_)) | None => (0, 0),
    };
    if let Some(hold) = hold {
        wait_for(&*hold, session, &mut ending, &mut drain);
    }
    request.set_log_variables(&variables(session.id, since, received, sent), sent);
    drop(deferral);
}

/// Returns when nobody holds the request any more, or the process can wait no longer.
fn wait_for(hold: &dyn RequestHold, session: RelaySession, ending: &mut Ending, drain: &mut Drain) {
    hold.wake_at_the_end(Waiter::Thread(thread::current()));
    let mut last: Option<Instant> = None;
    while !hold.is_over() {
        if let Some(order) = ending.look() {
            drain.obey(order, &session);
            if order.is_urgent() && !mpm::is_threaded() {
                let last = *last.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                if Instant::now() >= last {
                    return;
                }
            }
        }
        thread::park_timeout(pause(ending));
    }
}

/// How long a relay waits, at most, until it looks at the clock again.
fn pause(ending: &Ending) -> Duration {
    if ending.has_begun() { TICK } else { STOP_CHECK }
}

/// Moves the bytes of a session until it ends; returns how many were received and sent.
fn relay(
    connection: &Connection,
    engine: UnixStream,
    session: RelaySession,
    ending: &mut Ending,
    drain: &mut Drain,
) -> (u64, u64) {
    let (mut pump, mut engine) = (Pump::default(), Pair::new(engine));
    let mut buffer = vec![0; Connection::PIECE];
    let mut engine_gone = false;
    loop {
        match pump.turn(&mut engine, connection, &mut buffer) {
            TurnEnd::Again => {}
            TurnEnd::Ended => break,
            TurnEnd::Lost => {
                connection.detach();
                break;
            }
            TurnEnd::Wait(waiting) => {
                if wait(connection, &engine, waiting, engine_gone, ending) && !engine_gone {
                    engine_gone = true;
                    drain.session_is_over(&session);
                }
            }
        }
        if let Some(order) = ending.look() {
            drain.obey(order, &session);
        }
        if drain.is_late(Instant::now()) {
            connection.detach();
            break;
        }
    }
    (pump.received, pump.sent)
}

/// Waits until one of them can do what the pump waits for; true when the engine has closed its end.
fn wait(connection: &Connection, engine: &Pair, waiting: Interest, engine_gone: bool, ending: &Ending) -> bool {
    let flags = |read: bool, write: bool| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        flags
    };
    let longest = pause(ending);
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
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
    if let Some(alarm) = ending::alarm().filter(|_| !ending.has_begun()) {
        watched.push(PollFd::from_borrowed_fd(alarm, PollFlags::IN));
    }
    // Whatever it answers, another turn shows what can move.
    let _ = poll(&mut watched, Some(&timeout));
    !engine_gone && watched.first().is_some_and(|engine| engine.revents().contains(PollFlags::HUP))
}
