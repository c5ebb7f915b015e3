//! A session with a program of its own.

use super::framing::{self, Decoder, ProgramOutput, RecordKind, Wrong};
use super::group::Groups;
use super::program::{Program, ProgramEvent};
use super::settings::{EnvironmentVariable, ExecSettings, Framing};
use crate::engine::bridge::{self, Backend};
use crate::engine::summary::End;
use crate::engine::{Conn, LocalBoxFuture, MessageSession};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use log::{debug, error, warn};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

enum Stop {
    Close(CloseFrame),
    Wrong(Wrong),
    Exited,
}

pub struct Opening {
    pub(super) groups: Arc<Groups>,
    pub(super) settings: ExecSettings,
}

impl MessageSession for Opening {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            match Session::start(self, conn) {
                Ok(session) => Box::pin(session.live()).await,
                Err(verdict) => verdict,
            }
        })
    }
}

/// What a program may want to know beside what CGI programs are told.
fn name_session(environment: &mut Vec<EnvironmentVariable>, conn: &Conn) {
    let mut set = |name: &str, value: String| {
        environment.retain(|(known, _)| known != name.as_bytes());
        environment.push((name.into(), value.into()));
    };
    set("WS_SESSION", conn.id().to_string());
    if let Some(protocol) = &conn.spec().protocol {
        set("WS_PROTOCOL", protocol.clone());
    }
    // mod_unique_id's, where it is loaded.
    if environment.iter().all(|(name, _)| name != b"UNIQUE_ID") {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
        environment.push((b"UNIQUE_ID".to_vec(), format!("{time:x}-{:x}", conn.id()).into()));
    }
}

/// The environment of one client of a shared program, by names.
pub fn environment_of(
    mut environment: Vec<EnvironmentVariable>,
    conn: &Conn,
) -> serde_json::Map<String, serde_json::Value> {
    name_session(&mut environment, conn);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    environment.iter().map(|(name, value)| (text(name), text(value).into())).collect()
}

/// With which code and reason a session has ended, for its program.
pub fn end_of(conn: &Conn) -> (u16, String) {
    match conn.end() {
        Some(end) => {
            let reason = match end {
                End::Client(Some(frame)) | End::Violation(frame) | End::Engine(frame) | End::Handler(frame) => {
                    frame.reason.to_string()
                }
                _ => String::new(),
            };
            (end.code(), reason)
        }
        // Asked to close from outside, and not yet come to it.
        None => (CloseCode::Restart.into(), String::new()),
    }
}

struct Own {
    program: Program,
    decoder: Decoder,
    framing: Framing,
    exited: bool,
}

impl Backend for Own {
    type End = Stop;

    fn has_room(&self) -> bool {
        self.program.has_room()
    }

    fn put(&mut self, message: Message) {
        let framing = self.framing;
        self.program.put(|out| framing::put(framing, &message, out));
    }

    async fn turn(&mut self) {
        let Own { program, decoder, exited, .. } = self;
        *exited = program.turn(|bytes| decoder.take(bytes)).await == ProgramEvent::Exited;
    }

    fn said(&mut self) -> Option<bridge::Said<Stop>> {
        Some(match self.decoder.pop() {
            Ok(Some(ProgramOutput::Message(message))) => bridge::Said::Message(message),
            Ok(Some(ProgramOutput::Close(frame))) => bridge::Said::End(Stop::Close(frame)),
            Err(wrong) => bridge::Said::End(Stop::Wrong(wrong)),
            Ok(None) if std::mem::take(&mut self.exited) => bridge::Said::End(Stop::Exited),
            Ok(None) => return None,
        })
    }
}

struct Session<'a> {
    conn: &'a mut Conn,
    own: Own,
    stop_timeout: Duration,
}

impl Session<'_> {
    #[expect(clippy::boxed_local, reason = "the box is freed here, and not with the session")]
    fn start(opening: Box<Opening>, conn: &mut Conn) -> Result<Session<'_>, CloseFrame> {
        let Opening { groups, settings } = *opening;
        let ExecSettings { framing, mut environment, stop_timeout, quotas, .. } = settings;
        name_session(&mut environment, conn);
        // As long as the program lives, though its client be gone.
        let places = quotas.iter().filter_map(|scope| conn.take_place(scope)).collect();
        let words = &conn.spec().handler.args;
        let started = Program::start(&groups, words, &environment, places, format!("session {}", conn.id()));
        let program = started.map_err(|why| {
            error!("WS0131: session {}: {} cannot be started: {why}", conn.id(), words.join(" "));
            close(CloseCode::Error, "the program cannot be started")
        })?;
        let decoder = Decoder::new(framing, conn.spec().limits.max_message_size);
        Ok(Session { conn, own: Own { program, decoder, framing, exited: false }, stop_timeout })
    }

    async fn live(mut self) -> CloseFrame {
        let verdict = match bridge::run(self.conn, &mut self.own, self.stop_timeout).await {
            Some(Stop::Exited) => {
                let verdict = self.last_words().await;
                let _ = self.conn.flush().await;
                return verdict;
            }
            Some(Stop::Close(frame)) => frame,
            Some(Stop::Wrong(wrong)) => self.complain(&wrong),
            None => close(CloseCode::Normal, ""),
        };
        let Own { mut program, framing, .. } = self.own;
        if framing == Framing::Length {
            let (code, reason) = match self.conn.end() {
                None => (verdict.code.into(), verdict.reason.to_string()),
                Some(_) => end_of(self.conn),
            };
            let payload = framing::close_payload(code, &reason);
            program.put(|out| framing::put_record(RecordKind::Close, None, &payload, out));
        }
        // The client needs not wait for it.
        tokio::task::spawn_local(program.stop(self.stop_timeout));
        // What the program has said is not to be cut off by the time that the closing handshake may take.
        let _ = self.conn.flush().await;
        verdict
    }

    /// The program has ended: sends what it has left behind.
    async fn last_words(&mut self) -> CloseFrame {
        let status = self.own.program.reap();
        let mut read = 0;
        loop {
            let Own { program, decoder, .. } = &mut self.own;
            let goes_on = program.read_rest(&mut read, |bytes| decoder.take(bytes));
            if !goes_on {
                decoder.end();
            }
            match bridge::deliver(self.conn, &mut self.own).await {
                Ok(None) if goes_on => {}
                Ok(Some(Stop::Close(frame))) => return frame,
                Ok(Some(Stop::Wrong(wrong))) => return self.complain(&wrong),
                Ok(_) | Err(_) => break,
            }
        }
        match status {
            Ok(status) if status.success() => {
                debug!("WS0149: {}: it has ended", self.own.program.name());
                close(CloseCode::Normal, "")
            }
            status => {
                let status = status.as_ref().map_or_else(ToString::to_string, ExitStatus::to_string);
                warn!("WS0132: {}: {} has failed: {status}", self.own.program.name(), self.path());
                close(CloseCode::Error, "the program has failed")
            }
        }
    }

    fn complain(&self, wrong: &Wrong) -> CloseFrame {
        error!("WS0133: {}: {}: {wrong}", self.own.program.name(), self.path());
        close(CloseCode::Error, "the program has failed")
    }

    fn path(&self) -> &str {
        self.conn.spec().handler.args.first().map_or("", String::as_str)
    }
}
