//! A session with a program of its own.

use super::framing::{self, Decoder, Kind, Said, Wrong};
use super::group::Groups;
use super::program::{Program, Turn};
use super::settings::{Framing, Settings, Variable};
use crate::engine::summary::End;
use crate::engine::{Conn, LocalBoxFuture, MessageSession};
use crate::wire::{CloseCode, CloseFrame, close};
use log::{debug, error, warn};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a session goes no further.
enum Stop {
    /// It is closing already.
    Closing,
    /// The program says so.
    Close(CloseFrame),
    /// The program cannot be understood.
    Wrong(Wrong),
    /// The program has ended.
    Exited,
}

/// A session that was accepted.
pub struct Opening {
    pub(super) groups: Arc<Groups>,
    pub(super) settings: Settings,
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
fn name_session(environment: &mut Vec<Variable>, conn: &Conn) {
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
pub fn environment_of(mut environment: Vec<Variable>, conn: &Conn) -> serde_json::Map<String, serde_json::Value> {
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

struct Session<'a> {
    conn: &'a mut Conn,
    program: Program,
    decoder: Decoder,
    framing: Framing,
    stop_timeout: Duration,
}

impl Session<'_> {
    #[expect(clippy::boxed_local, reason = "the box is freed here, and not with the session")]
    fn start(opening: Box<Opening>, conn: &mut Conn) -> Result<Session<'_>, CloseFrame> {
        let Opening { groups, settings } = *opening;
        let Settings { framing, mut environment, stop_timeout, quotas, .. } = settings;
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
        Ok(Session { conn, program, decoder, framing, stop_timeout })
    }

    async fn live(mut self) -> CloseFrame {
        let stop = loop {
            if let Err(stop) = self.step().await {
                break stop;
            }
        };
        let verdict = match stop {
            Stop::Exited => {
                let verdict = self.last_words().await;
                let _ = self.conn.flush().await;
                return verdict;
            }
            Stop::Close(frame) => frame,
            Stop::Wrong(wrong) => self.complain(&wrong),
            Stop::Closing => close(CloseCode::Normal, ""),
        };
        if self.framing == Framing::Length {
            let (code, reason) = match self.conn.end() {
                None => (verdict.code.into(), verdict.reason.to_string()),
                Some(_) => end_of(self.conn),
            };
            let payload = framing::close_payload(code, &reason);
            self.program.put(|out| framing::put_record(Kind::Close, None, &payload, out));
        }
        // The client needs not wait for it.
        tokio::task::spawn_local(self.program.stop(self.stop_timeout));
        // What the program has said is not to be cut off by the time that the closing handshake may take.
        let _ = self.conn.flush().await;
        verdict
    }

    async fn step(&mut self) -> Result<(), Stop> {
        let Session { conn, program, decoder, framing, stop_timeout } = self;
        let turn = if program.has_room() {
            tokio::select! {
                message = conn.recv() => {
                    let message = message.ok_or(Stop::Closing)?;
                    program.put(|out| framing::put(*framing, &message, out));
                    return Ok(());
                }
                turn = program.turn(|bytes| decoder.take(bytes)) => turn,
            }
        } else {
            tokio::select! {
                () = conn.tend() => return Err(Stop::Closing),
                // The program has taken nothing all that time.
                () = tokio::time::sleep(*stop_timeout) => {
                    return if conn.notice_end() { Err(Stop::Closing) } else { Ok(()) };
                }
                turn = program.turn(|bytes| decoder.take(bytes)) => turn,
            }
        };
        match turn {
            Turn::Wrote => Ok(()),
            Turn::Read => self.deliver().await,
            Turn::Exited => Err(Stop::Exited),
        }
    }

    /// Sends what the program has said. Nothing more is read from it before the client has room.
    async fn deliver(&mut self) -> Result<(), Stop> {
        while let Some(said) = self.decoder.pop().map_err(Stop::Wrong)? {
            match said {
                Said::Message(message) => self.conn.send(message).await.map_err(|_| Stop::Closing)?,
                Said::Close(frame) => return Err(Stop::Close(frame)),
            }
        }
        Ok(())
    }

    /// The program has ended: sends what it has left behind.
    async fn last_words(&mut self) -> CloseFrame {
        let status = self.program.reap();
        let mut read = 0;
        loop {
            let decoder = &mut self.decoder;
            let goes_on = self.program.read_rest(&mut read, |bytes| decoder.take(bytes));
            if !goes_on {
                decoder.end();
            }
            match self.deliver().await {
                Ok(()) if goes_on => {}
                Ok(()) => break,
                Err(Stop::Close(frame)) => return frame,
                Err(Stop::Wrong(wrong)) => return self.complain(&wrong),
                Err(Stop::Closing | Stop::Exited) => break,
            }
        }
        match status {
            Ok(status) if status.success() => {
                debug!("WS0149: {}: it has ended", self.program.name());
                close(CloseCode::Normal, "")
            }
            status => {
                let status = status.as_ref().map_or_else(ToString::to_string, ExitStatus::to_string);
                warn!("WS0132: {}: {} has failed: {status}", self.program.name(), self.path());
                close(CloseCode::Error, "the program has failed")
            }
        }
    }

    fn complain(&self, wrong: &Wrong) -> CloseFrame {
        error!("WS0133: {}: {}: {wrong}", self.program.name(), self.path());
        close(CloseCode::Error, "the program has failed")
    }

    fn path(&self) -> &str {
        self.conn.spec().handler.args.first().map_or("", String::as_str)
    }
}
