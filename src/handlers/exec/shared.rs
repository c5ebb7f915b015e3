//! One program for all clients of a location: started for the first of them, ended when the last has been gone for a while,
//! and started again when it has ended by itself and somebody wants it.
//!
//! Its supervisor is a task on the thread of the client that came first. Clients give it what is for the program through one
//! bounded queue, and wait beside it when the program does not read; it gives each client its messages through a queue that
//! the client's task empties whether or not the client takes anything: one that does not is closed with 1013, and nobody
//! else waits for it.

use super::framing::{self, Kind, Record, Said, Splitter, Wrong, put_record, said};
use super::group::Groups;
use super::program::{Program, Turn};
use super::session::{end_of, environment_of};
use super::settings::{Shared, Variable};
use crate::engine::backoff::Backoff;
use crate::engine::{Broadcast, Conn, LocalBoxFuture, MessageSession};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use log::{debug, error, info, warn};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What waits for the supervisor beyond the program's own queue.
const EVENTS: usize = 16;
/// What waits for a client's task, which is never long.
const MESSAGES: usize = 32;
/// How often it is looked whether a client is still there that has to wait.
const LOOK: Duration = Duration::from_secs(1);
/// The client that stands for all of them.
const ALL: u64 = 0;
/// A program that ends within this time of its start has failed.
const STILLBORN: Duration = Duration::from_secs(10);
/// How long no other is started after several failures in a row: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The place, the program and its arguments.
type Key = (String, Vec<String>);

/// The shared programs of an engine.
#[derive(Default)]
pub struct Hub(Mutex<HashMap<Key, Slot>>);

struct Slot {
    events: mpsc::Sender<Event>,
    backoff: Backoff,
}

/// What a supervisor is told by clients.
enum Event {
    Join(Box<Join>),
    Message(u64, Message),
    Leave(u64, u16, String),
}

struct Join {
    id: u64,
    /// As JSON.
    environment: Vec<u8>,
    client: mpsc::Sender<Down>,
    /// How the program is started, should it be needed.
    launch: Launch,
}

struct Launch {
    shared: Shared,
    stop_timeout: Duration,
    /// Bytes of a message of the program.
    limit: usize,
}

/// What a client is told.
enum Down {
    Message(Arc<Broadcast>),
    Close(CloseFrame),
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the program is not started, where that is so.
    pub fn pause(&self, place: &str, words: &[String]) -> Option<Duration> {
        self.lock().get(&(place.to_owned(), words.to_vec()))?.backoff.remaining()
    }

    /// There will be no more clients: each program ends as if it had waited for one long enough.
    pub fn end(&self) {
        // With their last senders, those of clients that are leaving, supervisors have no more to wait for.
        self.lock().clear();
    }

    /// The way to the program's supervisor, which begins where there is none.
    fn events(self: &Arc<Self>, groups: &Arc<Groups>, key: &Key) -> mpsc::Sender<Event> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key).filter(|slot| !slot.events.is_closed()) {
            return slot.events.clone();
        }
        let (sender, events) = mpsc::channel(EVENTS);
        let supervisor = Supervisor { hub: self.clone(), groups: groups.clone(), key: key.clone(), events };
        tokio::task::spawn_local(supervisor.live());
        slots.insert(key.clone(), Slot { events: sender.clone(), backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) });
        sender
    }
}

/// A session that was accepted.
pub struct Opening {
    pub(super) hub: Arc<Hub>,
    pub(super) groups: Arc<Groups>,
    pub(super) shared: Shared,
    pub(super) environment: Vec<Variable>,
    pub(super) stop_timeout: Duration,
}

impl MessageSession for Opening {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(run(*self, conn))
    }
}

async fn run(opening: Opening, conn: &mut Conn) -> CloseFrame {
    let Opening { hub, groups, shared, environment, stop_timeout } = opening;
    let id = conn.id();
    let limit = conn.spec().limits.max_message_size;
    let key = (shared.place.clone(), conn.spec().handler.args.clone());
    let environment = serde_json::Value::Object(environment_of(environment, conn)).to_string().into_bytes();
    let (client, mut messages) = mpsc::channel(MESSAGES);
    let launch = Launch { shared, stop_timeout, limit };
    let mut first = Event::Join(Box::new(Join { id, environment, client, launch }));
    let events = loop {
        let events = hub.events(&groups, &key);
        match give(conn, &events, &mut messages, first).await {
            Given::Taken => break events,
            // It has just ended.
            Given::Gone(event) => first = event,
            Given::Closing => return close(CloseCode::Normal, ""),
            Given::Closed(frame) => return frame,
        }
    };
    drop(key);
    let verdict = converse(conn, &events, &mut messages).await;
    let (code, reason) = match (conn.end(), &verdict) {
        (None, Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        _ => end_of(conn),
    };
    // The client needs not wait for it.
    tokio::task::spawn_local(async move {
        let _ = events.send(Event::Leave(id, code, reason)).await;
    });
    verdict.unwrap_or_else(|| close(CloseCode::Normal, ""))
}

/// Moves messages until the session ends; yields what the program closes it with, if it does.
async fn converse(
    conn: &mut Conn,
    events: &mpsc::Sender<Event>,
    messages: &mut mpsc::Receiver<Down>,
) -> Option<CloseFrame> {
    let id = conn.id();
    loop {
        tokio::select! {
            message = conn.recv() => match give(conn, events, messages, Event::Message(id, message?)).await {
                Given::Taken => {}
                Given::Closing => return None,
                Given::Closed(frame) => return Some(frame),
                Given::Gone(_) => return Some(gone()),
            },
            down = messages.recv() => match down {
                Some(Down::Message(message)) => conn.push(&message).ok()?,
                Some(Down::Close(frame)) => return Some(frame),
                None => return Some(gone()),
            },
        }
    }
}

/// RFC 6455's registry: 1012 means that the client may come again.
fn gone() -> CloseFrame {
    close(CloseCode::Restart, "the program has ended")
}

/// What became of an event.
enum Given {
    Taken,
    /// The supervisor has ended before it took it.
    Gone(Event),
    /// The session is closing.
    Closing,
    /// The program closes the session.
    Closed(CloseFrame),
}

/// Gives the supervisor an event as soon as it takes it. The client is not read meanwhile, but gets its messages.
async fn give(
    conn: &mut Conn,
    events: &mpsc::Sender<Event>,
    messages: &mut mpsc::Receiver<Down>,
    event: Event,
) -> Given {
    loop {
        tokio::select! {
            biased;
            permit = events.reserve() => {
                return match permit {
                    Ok(permit) => {
                        permit.send(event);
                        Given::Taken
                    }
                    Err(_) => Given::Gone(event),
                };
            }
            () = conn.tend() => return Given::Closing,
            () = tokio::time::sleep(LOOK) => {
                if conn.notice_end() {
                    return Given::Closing;
                }
            }
            // Its sender may be in the event.
            Some(down) = messages.recv() => match down {
                Down::Message(message) => {
                    if conn.push(&message).is_err() {
                        return Given::Closing;
                    }
                }
                Down::Close(frame) => return Given::Closed(frame),
            },
        }
    }
}

/// Keeps the program of a location.
struct Supervisor {
    hub: Arc<Hub>,
    groups: Arc<Groups>,
    key: Key,
    events: mpsc::Receiver<Event>,
}

/// A program and its clients.
struct Running {
    program: Program,
    splitter: Splitter,
    clients: HashMap<u64, mpsc::Sender<Down>>,
    /// What it has said and nobody was told.
    records: VecDeque<Record>,
    wrong: Option<Wrong>,
}

/// Why a program runs no longer.
enum Ended {
    /// By itself.
    Exited(io::Result<ExitStatus>),
    /// It has had no client for a while.
    Idle,
    /// It cannot be understood.
    Wrong(Wrong),
    /// There is no supervisor's queue any more.
    Over,
}

impl Supervisor {
    async fn live(mut self) {
        while let Some(first) = self.first().await {
            self.serve(first).await;
        }
    }

    /// The client for which the program is to be started; `None`: there has been none for a while, and the supervisor is no
    /// more.
    async fn first(&mut self) -> Option<Box<Join>> {
        loop {
            // The pause is remembered as long as it lasts.
            match tokio::time::timeout(LONGEST_PAUSE, self.events.recv()).await {
                Ok(Some(Event::Join(join))) => match self.hub.pause(&self.key.0, &self.key.1) {
                    None => return Some(join),
                    Some(_) => tell(&join.client, Down::Close(close(CloseCode::Again, "the program has failed"))).await,
                },
                // Of clients of the last program.
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(_) => {
                    self.hub.lock().remove(&self.key);
                    // Whoever is about to give an event begins anew; who has given one in this instant, comes again.
                    self.events.close();
                    while let Some(event) = self.events.recv().await {
                        if let Event::Join(join) = event {
                            tell(&join.client, Down::Close(gone())).await;
                        }
                    }
                    return None;
                }
            }
        }
    }

    async fn serve(&mut self, first: Box<Join>) {
        let (place, words) = &self.key;
        let name = format!("the shared program of {place}");
        let started = Instant::now();
        let program = match Program::start(&self.groups, words, &first.launch.shared.environment, vec![], name.clone())
        {
            Ok(program) => program,
            Err(why) => {
                error!("WS0127: {name}: {} cannot be started: {why}", words.join(" "));
                tell(&first.client, Down::Close(close(CloseCode::Error, "the program cannot be started"))).await;
                self.fail(None);
                return;
            }
        };
        let Launch { shared: Shared { linger, .. }, stop_timeout, limit } = &first.launch;
        let (linger, stop_timeout, limit) = (*linger, *stop_timeout, *limit);
        let mut running = Running {
            program,
            splitter: Splitter::new(true, limit),
            clients: HashMap::new(),
            records: VecDeque::new(),
            wrong: None,
        };
        running.join(*first);
        let ended = running.live(&mut self.events, linger).await;
        let count = running.clients.len();
        let frame = match &ended {
            Ended::Wrong(_) => close(CloseCode::Error, "the program has failed"),
            _ => gone(),
        };
        for client in running.clients.values() {
            tell(client, Down::Close(frame.clone())).await;
        }
        match ended {
            Ended::Exited(status) => {
                let status = status.as_ref().map_or_else(ToString::to_string, ExitStatus::to_string);
                let pause = self.fail(Some(started));
                warn!(
                    "WS0134: {name}: {} has ended, {status}, and its {count} clients with it; it is started again when it is \
                     wanted{}",
                    self.path(),
                    pause.map_or(String::new(), |pause| format!(", not within {} s", pause.as_secs()))
                );
            }
            Ended::Wrong(wrong) => {
                error!("WS0128: {name}: {}: {wrong}; its {count} clients are closed", self.path());
                self.fail(Some(started));
                running.program.stop(stop_timeout).await;
            }
            Ended::Idle | Ended::Over => {
                self.with_backoff(Backoff::reset);
                info!("WS0139: {name}: {} is ended, since it has no clients", self.path());
                running.program.stop(stop_timeout).await;
            }
        }
    }

    fn path(&self) -> &str {
        self.key.1.first().map_or("", String::as_str)
    }

    /// The program that was started then, or could not be, has ended: returns how long no other is started.
    fn fail(&mut self, started: Option<Instant>) -> Option<Duration> {
        if started.is_none_or(|started| started.elapsed() < STILLBORN) {
            self.with_backoff(Backoff::fail).flatten()
        } else {
            self.with_backoff(Backoff::reset);
            None
        }
    }

    fn with_backoff<T>(&self, change: impl FnOnce(&mut Backoff) -> T) -> Option<T> {
        self.hub.lock().get_mut(&self.key).map(|slot| change(&mut slot.backoff))
    }
}

impl Running {
    async fn live(&mut self, events: &mut mpsc::Receiver<Event>, linger: Duration) -> Ended {
        let mut lonely = None;
        loop {
            match (self.clients.is_empty(), lonely) {
                (false, _) => lonely = None,
                (true, None) => lonely = Some(Instant::now() + linger),
                _ => {}
            }
            let Running { program, splitter, records, wrong, .. } = self;
            let has_room = program.has_room();
            let idle = async {
                match lonely {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            let turn = tokio::select! {
                event = events.recv(), if has_room => {
                    match event {
                        Some(event) => self.note(event),
                        None => return Ended::Over,
                    }
                    continue;
                }
                turn = program.turn(|bytes| split(splitter, bytes, records, wrong)) => turn,
                () = idle => return Ended::Idle,
            };
            match turn {
                Turn::Wrote => {}
                Turn::Read => self.deliver().await,
                Turn::Exited => {
                    let status = self.program.reap();
                    self.last_words().await;
                    return Ended::Exited(status);
                }
            }
            if let Some(wrong) = self.wrong.take() {
                return Ended::Wrong(wrong);
            }
        }
    }

    async fn last_words(&mut self) {
        let mut read = 0;
        loop {
            let Running { program, splitter, records, wrong, .. } = self;
            let goes_on = program.read_rest(&mut read, |bytes| split(splitter, bytes, records, wrong));
            self.deliver().await;
            if !goes_on {
                return;
            }
        }
    }

    fn join(&mut self, Join { id, environment, client, .. }: Join) {
        debug!("WS0129: session {id} is one of {}", self.program.name());
        self.clients.insert(id, client);
        self.program.put(|out| put_record(Kind::Open, Some(id), &environment, out));
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Join(join) => self.join(*join),
            Event::Message(id, message) => {
                let (kind, payload) = match &message {
                    Message::Text(text) => (Kind::Text, text.as_bytes()),
                    Message::Binary(payload) => (Kind::Binary, &payload[..]),
                    _ => return,
                };
                if self.clients.contains_key(&id) {
                    self.program.put(|out| put_record(kind, Some(id), payload, out));
                }
            }
            Event::Leave(id, code, reason) => {
                if self.clients.remove(&id).is_some() {
                    let payload = framing::close_payload(code, &reason);
                    self.program.put(|out| put_record(Kind::Close, Some(id), &payload, out));
                }
            }
        }
    }

    async fn deliver(&mut self) {
        while let Some((kind, id, payload)) = self.records.pop_front() {
            let down = match said(kind, payload) {
                Ok(Said::Close(frame)) => Down::Close(frame),
                Ok(Said::Message(message)) => match Broadcast::new(message) {
                    Some(message) => Down::Message(Arc::new(message)),
                    None => continue,
                },
                Err(wrong) => {
                    self.wrong = Some(wrong);
                    return;
                }
            };
            let clients: &mut dyn Iterator<Item = &mpsc::Sender<Down>> = match id {
                ALL => &mut self.clients.values(),
                // One that has left meanwhile gets nothing.
                id => &mut self.clients.get(&id).into_iter(),
            };
            for client in clients {
                let down = match &down {
                    Down::Message(message) => Down::Message(message.clone()),
                    Down::Close(frame) => Down::Close(frame.clone()),
                };
                tell(client, down).await;
            }
        }
        self.records = VecDeque::new();
    }
}

/// Takes the program's records apart.
fn split(splitter: &mut Splitter, mut bytes: &[u8], records: &mut VecDeque<Record>, wrong: &mut Option<Wrong>) {
    while wrong.is_none() {
        match splitter.next(&mut bytes) {
            Ok(Some(record)) => records.push_back(record),
            Ok(None) => return,
            Err(why) => *wrong = Some(why),
        }
    }
}

async fn tell(client: &mpsc::Sender<Down>, down: Down) {
    // It may be gone.
    let _ = client.send(down).await;
}
