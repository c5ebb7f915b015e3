//! A running program and its pipes. Nothing is read of it that nobody takes, and what waits for it is bounded by whoever asks
//! [`Program::has_room`] first.

use super::group::{Groups, Leader};
use super::settings::EnvironmentVariable;
use super::stderr;
use crate::engine::bridge::{self, GATHERED, Gathered};
use crate::engine::quota::Place;
use log::{debug, info};
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Bytes that are read after a program's end, at most: what a pipe holds at most, where the system's limit is the usual one.
/// Somebody who has left the group may still be writing.
const REST: usize = 1 << 20;

pub struct Program {
    leader: Leader,
    /// `None`: closed, on either side.
    stdin: Option<pipe::Sender>,
    /// What the program has not taken yet.
    up: Gathered,
    /// Nothing follows for the program.
    finished: bool,
    /// `None`: it has closed it.
    stdout: Option<pipe::Receiver>,
    /// Dropped, it tells the task that writes its standard error down to end.
    _stderr: oneshot::Sender<()>,
    /// As whom the log names it.
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramEvent {
    Read,
    /// Something was written, or its input is closed: there may be room.
    Wrote,
    /// The program has ended: [`Program::reap`] it.
    Exited,
}

impl Program {
    /// Starts a program. `name` is what its lines in the error log begin with.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        groups: &Arc<Groups>,
        words: &[String],
        environment: &[EnvironmentVariable],
        places: Vec<Place>,
        name: String,
    ) -> io::Result<Program> {
        let (leader, (stdin, stdout, errors)) = Leader::start(groups, words, environment, places)?;
        let stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
        let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
        let errors = pipe::Receiver::from_owned_fd(OwnedFd::from(errors))?;
        let (ends, end) = oneshot::channel();
        tokio::task::spawn_local(stderr::write_down(errors, name.clone(), end));
        debug!("WS0136: {name}: {} has started, process {}", words[0], leader.pid());
        Ok(Program {
            leader,
            stdin: Some(stdin),
            up: Gathered::default(),
            finished: false,
            stdout: Some(stdout),
            _stderr: ends,
            name,
        })
    }

    /// As whom the log names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets `put` add to what waits for the program. It goes nowhere when that has closed its input.
    pub fn put(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        if self.stdin.is_some() {
            put(self.up.tail());
        }
    }

    pub fn has_room(&self) -> bool {
        self.up.len() < GATHERED
    }

    /// Waits until something happens. Dropping the future loses nothing.
    pub async fn turn(&mut self, mut take: impl FnMut(&[u8])) -> ProgramEvent {
        loop {
            let Program { stdin, stdout, leader, .. } = self;
            let has_more = !self.up.is_empty();
            // In no fixed order: neither a flood of output nor one of input may keep the other from its turn.
            tokio::select! {
                () = writable(stdin.as_ref()), if has_more => {
                    self.write();
                    return ProgramEvent::Wrote;
                }
                () = readable(stdout.as_ref()) => {
                    if self.read(&mut take) > 0 {
                        return ProgramEvent::Read;
                    }
                }
                () = leader.exited() => return ProgramEvent::Exited,
            }
        }
    }

    fn write(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let written = self.up.write(|bytes| stdin.try_write(bytes));
        if let Err(why) = &written {
            debug!("WS0137: {}: it has closed its input: {why}", self.name);
        }
        if written.is_err() || self.finished && self.up.is_empty() {
            self.stdin = None;
        }
    }

    fn read(&mut self, take: &mut impl FnMut(&[u8])) -> usize {
        let Some(stdout) = &self.stdout else { return 0 };
        let read = bridge::with_buffer(|buffer| {
            let count = stdout.try_read(buffer)?;
            take(&buffer[..count]);
            io::Result::Ok(count)
        });
        match read {
            Ok(count) if count > 0 => count,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Ok(_) | Err(_) => {
                self.stdout = None;
                0
            }
        }
    }

    /// Nothing follows for the program: its input is closed after what waits.
    pub fn finish(&mut self) {
        self.finished = true;
        if self.up.is_empty() {
            self.stdin = None;
        }
    }

    /// After [`ProgramEvent::Exited`]: what is left of its group ends.
    ///
    /// # Errors
    /// Its exit status is not known.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        self.leader.reap()
    }

    /// After its end: reads what it has left in its pipe, in pieces; false when that was all. `read` counts its bytes.
    pub fn read_rest(&mut self, read: &mut usize, mut take: impl FnMut(&[u8])) -> bool {
        let count = self.read(&mut take);
        *read += count;
        count > 0 && *read < REST
    }

    /// Ends the program: closes its input after what waits; after `timeout` has its group told to end, and after that time
    /// again killed. What it says meanwhile is read and dropped, so that it is not stopped by that.
    pub async fn stop(mut self, timeout: Duration) {
        self.finish();
        if tokio::time::timeout(timeout, self.end()).await.is_ok() {
            return self.note_end();
        }
        self.leader.signal(Signal::TERM);
        if tokio::time::timeout(timeout, self.end()).await.is_ok() {
            self.leader.reap_gently(timeout).await;
            return debug!("WS0140: {}: it ended after SIGTERM", self.name);
        }
        info!("WS0135: {}: it did not end after SIGTERM, so it gets SIGKILL", self.name);
        self.leader.signal(Signal::KILL);
        self.end().await;
        self.note_end();
    }

    fn note_end(&mut self) {
        let status = self.reap().map_or_else(|why| why.to_string(), |status| status.to_string());
        debug!("WS0138: {}: it has ended: {status}", self.name);
    }

    async fn end(&mut self) {
        while self.turn(|_| ()).await != ProgramEvent::Exited {}
    }
}

async fn writable(stdin: Option<&pipe::Sender>) {
    if let Some(stdin) = stdin {
        // An error is the next write's to find.
        let _ = stdin.writable().await;
    } else {
        std::future::pending().await
    }
}

async fn readable(stdout: Option<&pipe::Receiver>) {
    if let Some(stdout) = stdout {
        let _ = stdout.readable().await;
    } else {
        std::future::pending().await
    }
}
