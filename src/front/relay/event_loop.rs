//! The relay thread's work.
//!
//! Edge-triggered epoll: descriptors are registered once, and each turn of a connection's pump goes on until nothing can
//! move. The thread sleeps as long as it has nothing to do and no deadline.
//!
//! A round reads the muxes, gives each connection that has something to do its turn, and writes the muxes: whatever has
//! come together costs one read and one write of a mux.

use super::connection::{EngineSide, Phase, RelayedConnection};
use super::drain::Drain;
use super::ending::Ending;
use super::hold::Waiter;
use super::mux::{MuxEnd, MuxSocket};
use super::pump::{Pair, Pump};
use super::thread::Relay;
use super::{EngineEnd, Parked, STOP_CHECK};
use crate::apache::connection::Connection;
use crate::apache::log::{self, Level};
use crate::mux::endpoint::StreamEvent;
use rustix::event::{Timespec, epoll};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often the thread looks at the clock while something has a deadline.
const TICK: Duration = Duration::from_millis(100);
/// No connection is destroyed earlier than this after its suspension, see [`crate::apache::suspended::Suspended::destroy`].
const SETTLED: Duration = Duration::from_millis(100);
/// How often connections are looked at that say nothing.
const SILENCE_CHECK: Duration = Duration::from_secs(1);
/// Connections whose memory is given back at a time, at most: then the others have their turn.
const RELEASES: usize = 500;

/// The token of the eventfd; connections have 2n and 2n + 1.
pub(super) const WAKE: u64 = u64::MAX;
/// A mux has this and its key.
const MUX: u64 = 1 << 62;

fn mux_token(key: usize) -> epoll::EventData {
    epoll::EventData::new_u64(MUX | key as u64)
}

/// What to wait for on a mux. Only for room where there was none: a Unix socket tells of room whenever the other end has
/// read something, which would wake this thread for each message.
fn mux_flags(blocked: bool) -> epoll::EventFlags {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    if blocked { flags | epoll::EventFlags::OUT } else { flags }
}

struct Loop {
    relay: &'static Relay,
    epoll: OwnedFd,
    connections: Slab<RelayedConnection>,
    muxes: Slab<Rc<MuxEnd>>,
    /// Room for what a read of the muxes brings: keys of connections, and what has become of their streams.
    news: Vec<(usize, StreamEvent)>,
    again: Vec<usize>,
    buffer: Vec<u8>,
    ending: Ending,
    /// When all connections are looked at for what time asks of them: not in every round, there may be thousands.
    next_look: Instant,
    /// And when for what is silent.
    next_silence: Instant,
}

/// Moves bytes for as long as the process lives. `epoll` watches [`WAKE`] already.
pub(super) fn run(relay: &'static Relay, epoll: OwnedFd) {
    let work = Loop {
        relay,
        epoll,
        connections: Slab::new(),
        muxes: Slab::new(),
        news: Vec::new(),
        again: Vec::new(),
        buffer: vec![0; Connection::PIECE],
        ending: Ending::default(),
        next_look: Instant::now(),
        next_silence: Instant::now(),
    };
    work.run();
}

impl Loop {
    fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            let timeout = self.timeout();
            let timeout =
                timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => {
                    log::main(Level::Critical, &format!("WS0301: the relay thread cannot wait: {why}"));
                    std::thread::sleep(TICK);
                }
            }
            let at_work = self.relay.at_work.lock().unwrap_or_else(PoisonError::into_inner);
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&self.relay.wake, &mut [0; 8]);
                        // New connections, or the child is to end.
                        self.next_look = Instant::now();
                    }
                    token if token & MUX != 0 => {
                        if let Some(mux) = self.muxes.get((token & !MUX) as usize) {
                            mux.readable.set(true);
                        }
                    }
                    token => {
                        let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                        let key = (token / 2) as usize;
                        if token % 2 == 0
                            && { event.flags }.intersects(ended)
                            && let Some(Phase::Pumping(pump, _)) = self.connections.get_mut(key).map(|it| &mut it.phase)
                        {
                            pump.client_hung_up = true;
                        }
                        if token % 2 == 1
                            && { event.flags }.contains(epoll::EventFlags::HUP)
                            && let Some(connection) = self.connections.get_mut(key)
                        {
                            connection.drain.session_is_over(&connection.session);
                        }
                        self.queue(key);
                    }
                }
            }
            self.take_new();
            self.read_muxes();
            self.take_done();
            for key in std::mem::take(&mut self.again) {
                // It may have gone in this round.
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.queued = false;
                    connection.silent = 0;
                    self.guarded(key);
                }
            }
            let now = Instant::now();
            if now >= self.next_look {
                self.look_at_the_clock(now);
            }
            self.write_muxes();
            drop(at_work);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || self.muxes.iter().any(|(_, mux)| mux.readable.get()) {
            return Some(Duration::ZERO);
        }
        if self.connections.is_empty() {
            return None;
        }
        Some(self.next_look.saturating_duration_since(Instant::now()))
    }

    fn queue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.queued
        {
            connection.queued = true;
            self.again.push(key);
        }
    }

    fn take_new(&mut self) {
        let mut inbox = self.relay.inbox();
        // In this order: they refer to each other.
        let (opened, new) = (std::mem::take(&mut inbox.opened), std::mem::take(&mut inbox.new));
        let unwanted = std::mem::take(&mut inbox.unwanted);
        drop(inbox);
        opened.into_iter().for_each(|wire| self.open_mux(wire));
        for (mux, session) in unwanted {
            if let Some(mux) = self.mux(&mux) {
                drop(mux.open(session, usize::MAX));
            }
        }
        for (request, parked) in new {
            let Parked { engine, session, hold } = parked;
            request.never_wait();
            let key = self.connections.vacant_key();
            if let Some(hold) = &hold {
                hold.wake_at_the_end(Waiter::Relay(self.relay, key));
                // It may be over already.
                self.relay.inbox().done.push(key);
            }
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            let token = |n: u64| epoll::EventData::new_u64(2 * key as u64 + n);
            let watched = engine.map(|engine| {
                epoll::add(&self.epoll, request.as_fd(), token(0), flags)?;
                Ok(match engine {
                    EngineEnd::Pair(socket) => {
                        epoll::add(&self.epoll, socket.as_fd(), token(1), flags)?;
                        EngineSide::Pair(Pair::new(socket))
                    }
                    EngineEnd::Mux(pending) => {
                        let wire = pending.enter().ok_or(rustix::io::Errno::NOTCONN)?;
                        // If there is none any more, the engine has gone meanwhile, as it may at any time.
                        let mux = self.mux(&wire).unwrap_or_else(|| MuxEnd::dead(wire));
                        EngineSide::Mux(mux.open(session.id, key))
                    }
                })
            });
            let phase = match watched {
                None => Phase::Held,
                Some(Ok(engine)) => Phase::Pumping(Pump::default(), engine),
                Some(Err::<_, rustix::io::Errno>(why)) => {
                    log::main(
                        Level::Error,
                        &format!("WS0302: session {} is lost, it cannot be watched: {why}", session.id),
                    );
                    Phase::Over
                }
            };
            self.connections.insert(RelayedConnection {
                request,
                phase,
                session,
                hold,
                since: Instant::now(),
                drain: Drain::default(),
                queued: false,
                silent: 0,
            });
            // What arrived before it was registered is there to be read.
            self.queue(key);
        }
    }

    fn mux(&self, wire: &Arc<MuxSocket>) -> Option<Rc<MuxEnd>> {
        self.muxes.iter().map(|(_, mux)| mux).find(|mux| mux.is_of(wire)).cloned()
    }

    fn open_mux(&mut self, wire: Arc<MuxSocket>) {
        let number = wire.number;
        let entry = self.muxes.vacant_entry();
        match epoll::add(&self.epoll, &*wire, mux_token(entry.key()), mux_flags(false)) {
            Ok(()) => {
                entry.insert(MuxEnd::new(wire));
            }
            // Nobody keeps it: the engine finds it closed, and so do its sessions.
            Err(why) => {
                wire.close();
                log::main(Level::Error, &format!("WS0307: mux {number} is lost, it cannot be watched: {why}"));
            }
        }
    }

    /// Reads what the muxes have, and queues the connections that it is for.
    fn read_muxes(&mut self) {
        let readable: Vec<usize> =
            self.muxes.iter().filter(|(_, mux)| mux.readable.get()).map(|(key, _)| key).collect();
        let mut news = std::mem::take(&mut self.news);
        for key in readable {
            if let Err(why) = self.muxes[key].read(&mut news) {
                self.disconnect(key, &why, &mut news);
            }
        }
        for (key, told) in news.drain(..) {
            if told == StreamEvent::Reset
                && let Some(connection) = self.connections.get_mut(key)
            {
                connection.drain.session_is_over(&connection.session);
            }
            self.queue(key);
        }
        self.news = news;
    }

    fn write_muxes(&mut self) {
        let mut again = Vec::new();
        for (key, mux) in &self.muxes {
            let blocked = !mux.flush(&mut again);
            if mux.waits.replace(blocked) != blocked {
                // It fails for want of memory, if ever: then the engine's next message comes first.
                let _ = epoll::modify(&self.epoll, &**mux, mux_token(key), mux_flags(blocked));
            }
        }
        again.into_iter().for_each(|key| self.queue(key));
    }

    /// A mux is no more: the sessions that it carried are over.
    fn disconnect(&mut self, key: usize, why: &io::Error, news: &mut Vec<(usize, StreamEvent)>) {
        let mux = self.muxes.remove(key);
        let _ = epoll::delete(&self.epoll, &*mux);
        mux.disconnect(news);
        if why.kind() == io::ErrorKind::InvalidData {
            let number = mux.number();
            let text = format!("WS0306: mux {number}: protocol error, its sessions are lost: {why}");
            log::main(Level::Error, &text);
        }
    }

    fn take_done(&mut self) {
        let done = std::mem::take(&mut self.relay.inbox().done);
        for key in done {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.hold.take_if(|hold| hold.is_over()).is_some() {
                connection.hold_is_over();
                self.bury(key);
            }
        }
    }

    /// Lets one connection do what it can; a panic costs the others nothing. What it has left of this one is not touched
    /// again, and the MPM goes on counting it.
    fn guarded(&mut self, key: usize) {
        let id = self.connections[key].session.id;
        if catch_unwind(AssertUnwindSafe(|| self.advance(key))).is_err() {
            log::main(Level::Error, &format!("WS0304: session {id}: a panic in the relay thread: it is lost"));
            std::mem::forget(self.connections.try_remove(key));
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        let mut inbox = self.relay.inbox();
        inbox.count = inbox.count.saturating_sub(1);
        if inbox.count == 0 {
            self.relay.emptied.notify_all();
        }
    }

    fn advance(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.advance(&mut self.buffer)
        {
            self.queue(key);
        }
        self.bury(key);
        if self.connections.get(key).is_some_and(|connection| connection.drain.deadline.is_some()) {
            self.next_look = self.next_look.min(Instant::now() + TICK);
        }
    }

    /// Destroys a connection that is over and old enough.
    fn bury(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !matches!(connection.phase, Phase::Over) || connection.hold.is_some() {
            return;
        }
        let due = connection.since + SETTLED;
        if Instant::now() < due {
            connection.drain.deadline = Some(due);
            return;
        }
        let connection = self.connections.remove(key);
        // The descriptor may live on in a fork; epoll would go on to tell of it.
        let _ = epoll::delete(&self.epoll, connection.request.as_fd());
        connection.request.destroy();
        self.forget_one();
    }

    fn look_at_the_clock(&mut self, now: Instant) {
        if let Some(order) = self.ending.look() {
            for (_, connection) in &mut self.connections {
                connection.obey(order);
            }
        }
        let due: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.drain.is_late(now))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.connections[key].deadline_passed();
            self.bury(key);
        }
        let hurry = self.ending.has_begun() || self.connections.iter().any(|(_, it)| it.drain.deadline.is_some());
        self.next_look = now + if hurry { TICK } else { STOP_CHECK };
        if now >= self.next_silence {
            self.next_silence = now + SILENCE_CHECK;
            self.release_memory();
        }
    }

    /// Connections that are silent keep no memory for what comes next.
    fn release_memory(&mut self) {
        let silent = self.connections.iter_mut().filter_map(|(_, connection)| connection.falls_silent());
        let released = silent.take(RELEASES).map(Connection::release_memory).count();
        if released == RELEASES {
            self.next_silence = Instant::now() + TICK;
            self.next_look = self.next_look.min(self.next_silence);
        }
    }
}
