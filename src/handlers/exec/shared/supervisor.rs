//! What keeps the program of a location running.

use super::registry::{Key, LONGEST_PAUSE, SharedPrograms};
use super::{Join, Launch, ToClient, ToSupervisor, gone};
use crate::engine::Broadcast;
use crate::engine::backoff::Backoff;
use crate::handlers::exec::framing::{
    self, ProgramOutput, Record, RecordKind, RecordSplitter, Wrong, put_record, said,
};
use crate::handlers::exec::group::Groups;
use crate::handlers::exec::program::{Program, ProgramEvent};
use crate::handlers::exec::settings::Shared;
use crate::wire::{CloseCode, Message, close};
use log::{debug, error, info, warn};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The client that stands for all of them.
const ALL: u64 = 0;
/// A program that ends within this time of its start has failed.
const STILLBORN: Duration = Duration::from_secs(10);

pub(super) struct Supervisor {
    pub(super) registry: Arc<SharedPrograms>,
    pub(super) groups: Arc<Groups>,
    pub(super) key: Key,
    pub(super) events: mpsc::Receiver<ToSupervisor>,
}

struct Running {
    program: Program,
    splitter: RecordSplitter,
    clients: HashMap<u64, mpsc::Sender<ToClient>>,
    /// What it has said and nobody was told.
    records: VecDeque<Record>,
    wrong: Option<Wrong>,
}

enum Ended {
    Exited(io::Result<ExitStatus>),
    Idle,
    Wrong(Wrong),
    Over,
}

impl Supervisor {
    pub(super) async fn live(mut self) {
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
                Ok(Some(ToSupervisor::Join(join))) => match self.registry.pause(&self.key.0, &self.key.1) {
                    None => return Some(join),
                    Some(_) => {
                        tell(&join.client, ToClient::Close(close(CloseCode::Again, "the program has failed"))).await
                    }
                },
                // Of clients of the last program.
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(_) => {
                    self.registry.lock().remove(&self.key);
                    // Whoever is about to give an event begins anew; who has given one in this instant, comes again.
                    self.events.close();
                    while let Some(event) = self.events.recv().await {
                        if let ToSupervisor::Join(join) = event {
                            tell(&join.client, ToClient::Close(gone())).await;
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
                tell(&first.client, ToClient::Close(close(CloseCode::Error, "the program cannot be started"))).await;
                self.fail(None);
                return;
            }
        };
        let Launch { shared: Shared { linger, .. }, stop_timeout, limit } = &first.launch;
        let (linger, stop_timeout, limit) = (*linger, *stop_timeout, *limit);
        let mut running = Running {
            program,
            splitter: RecordSplitter::new(true, limit),
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
            tell(client, ToClient::Close(frame.clone())).await;
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
        self.registry.lock().get_mut(&self.key).map(|slot| change(&mut slot.backoff))
    }
}

impl Running {
    async fn live(&mut self, events: &mut mpsc::Receiver<ToSupervisor>, linger: Duration) -> Ended {
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
                ProgramEvent::Wrote => {}
                ProgramEvent::Read => self.deliver().await,
                ProgramEvent::Exited => {
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
        self.program.put(|out| put_record(RecordKind::Open, Some(id), &environment, out));
    }

    fn note(&mut self, event: ToSupervisor) {
        match event {
            ToSupervisor::Join(join) => self.join(*join),
            ToSupervisor::Message(id, message) => {
                let (kind, payload) = match &message {
                    Message::Text(text) => (RecordKind::Text, text.as_bytes()),
                    Message::Binary(payload) => (RecordKind::Binary, &payload[..]),
                    _ => return,
                };
                if self.clients.contains_key(&id) {
                    self.program.put(|out| put_record(kind, Some(id), payload, out));
                }
            }
            ToSupervisor::Leave(id, code, reason) => {
                if self.clients.remove(&id).is_some() {
                    let payload = framing::close_payload(code, &reason);
                    self.program.put(|out| put_record(RecordKind::Close, Some(id), &payload, out));
                }
            }
        }
    }

    async fn deliver(&mut self) {
        while let Some((kind, id, payload)) = self.records.pop_front() {
            let down = match said(kind, payload) {
                Ok(ProgramOutput::Close(frame)) => ToClient::Close(frame),
                Ok(ProgramOutput::Message(message)) => match Broadcast::new(message) {
                    Some(message) => ToClient::Message(Arc::new(message)),
                    None => continue,
                },
                Err(wrong) => {
                    self.wrong = Some(wrong);
                    return;
                }
            };
            let clients: &mut dyn Iterator<Item = &mpsc::Sender<ToClient>> = match id {
                ALL => &mut self.clients.values(),
                // One that has left meanwhile gets nothing.
                id => &mut self.clients.get(&id).into_iter(),
            };
            for client in clients {
                let down = match &down {
                    ToClient::Message(message) => ToClient::Message(message.clone()),
                    ToClient::Close(frame) => ToClient::Close(frame.clone()),
                };
                tell(client, down).await;
            }
        }
        self.records = VecDeque::new();
    }
}

fn split(splitter: &mut RecordSplitter, mut bytes: &[u8], records: &mut VecDeque<Record>, wrong: &mut Option<Wrong>) {
    while wrong.is_none() {
        match splitter.next(&mut bytes) {
            Ok(Some(record)) => records.push_back(record),
            Ok(None) => return,
            Err(why) => *wrong = Some(why),
        }
    }
}

async fn tell(client: &mpsc::Sender<ToClient>, down: ToClient) {
    // It may be gone.
    let _ = client.send(down).await;
}
