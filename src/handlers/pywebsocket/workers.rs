//! The Python processes: started when the first handshake wants one, again when one has ended, and replaced after a restart
//! of httpd; the old ones then end with their last connections. Every thread of the engine may want one: who is the first
//! starts it, and waits for its end.

use super::link::send_with;
use super::settings::Worker;
use crate::engine::backoff::Backoff;
use crate::engine::programs;
use crate::handlers::lines::Lines;
use log::{Level, debug, error, info, log, log_enabled};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{Shutdown, shutdown};
use rustix::process::Pid;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

const SCRIPT: &str = include_str!("worker.py");
/// A worker that ends within this time of its start has failed to start.
const STILLBORN: Duration = Duration::from_secs(10);
/// How long no other is started after several such ones in a row: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the end of a worker may stay unnoticed.
const UNNOTICED: Duration = Duration::from_secs(2);
/// Bytes of a line that a handler writes; what is longer is cut into several.
const LINE: usize = 8 * 1024;

#[derive(Default)]
pub struct Workers(Arc<Mutex<HashMap<Worker, Slot>>>);

/// What there is of one configuration.
struct Slot {
    running: Option<Running>,
    backoff: Backoff,
}

struct Running {
    control: Arc<UnixStream>,
    pid: u32,
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Worker, Slot>> {
        lock(&self.0)
    }

    /// Gives the worker of this configuration the end of a connection's link; starts it where it does not run.
    ///
    /// # Errors
    /// It cannot be started, or has failed to too often.
    pub async fn introduce(&self, worker: &Worker, link: BorrowedFd<'_>) -> io::Result<()> {
        let until = Instant::now() + UNNOTICED;
        loop {
            match send_with(&*self.control(worker)?, b"c", link).await {
                Ok(_) => return Ok(()),
                Err(why) if Instant::now() > until => return Err(why),
                // It has just ended, or was replaced: soon there is another.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn control(&self, worker: &Worker) -> io::Result<Arc<UnixStream>> {
        let mut slots = self.lock();
        let slot = slots
            .entry(worker.clone())
            .or_insert_with(|| Slot { running: None, backoff: Backoff::new(PAUSES.0, PAUSES.1) });
        if let Some(running) = &slot.running {
            return Ok(running.control.clone());
        }
        if slot.backoff.remaining().is_some() {
            return Err(io::Error::other("it ended just after its start, see above"));
        }
        let (child, control, output) = start(worker)?;
        let pid = child.id().unwrap_or_default();
        let control = Arc::new(control);
        info!(
            "WS0270: {} with handlers of {} has started: process {pid}",
            worker.python.display(),
            worker.root.display()
        );
        slot.running = Some(Running { control: control.clone(), pid });
        tokio::spawn(write_down(worker.root.display().to_string(), output));
        tokio::spawn(watch(self.0.clone(), worker.clone(), child, pid));
        Ok(control)
    }

    /// The configuration was read anew: every worker ends when its connections have ended.
    pub fn retire(&self) {
        for (worker, slot) in self.lock().drain() {
            if let Some(Running { control, pid }) = slot.running {
                debug!("WS0275: process {pid}, with handlers of {}, is replaced", worker.root.display());
                // Where it is gone, it needs not be told.
                let _ = shutdown(&*control, Shutdown::Both);
            }
        }
    }
}

fn lock(slots: &Mutex<HashMap<Worker, Slot>>) -> MutexGuard<'_, HashMap<Worker, Slot>> {
    // Nothing in here panics half-way.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process; returns it with its control socket and what it writes for the log.
fn start(worker: &Worker) -> io::Result<(Child, UnixStream, pipe::Receiver)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (output, their_output) = io::pipe()?;
    let mut script = File::from(memfd_create("worker.py", MemfdFlags::CLOEXEC)?);
    script.write_all(SCRIPT.as_bytes())?;
    script.rewind()?;
    let level = [(Level::Debug, "debug"), (Level::Info, "info"), (Level::Warn, "warn")];
    let level = level.into_iter().find(|(level, _)| log_enabled!(*level)).map_or("error", |(_, name)| name);
    let mut command = Command::new(&worker.python);
    command.args(["-", "--log-level", level, "--parent", &std::process::id().to_string()]);
    for (name, value) in [("--scan", &worker.scan), ("--map", &worker.map)] {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    }
    if worker.outside_root {
        command.arg("--outside-root");
    }
    command
        .arg(&worker.root)
        .current_dir(&worker.root)
        .stdin(script)
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::from(OwnedFd::from(their_output)));
    let spawn = || {
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32)).ok_or(io::ErrorKind::NotFound)?;
        Ok((child, pid))
    };
    let child = programs::start(spawn).inspect_err(|why| {
        error!("WS0271: WebSocketPython {} cannot be run in {}: {why}", worker.python.display(), worker.root.display());
    })?;
    // Nobody else is to keep what it reads and writes open.
    drop(command);
    let output = OwnedFd::from(output);
    rustix::io::ioctl_fionbio(&output, true)?;
    Ok((child, UnixStream::from_std(ours)?, pipe::Receiver::from_owned_fd(output)?))
}

async fn watch(slots: Arc<Mutex<HashMap<Worker, Slot>>>, worker: Worker, mut child: Child, pid: u32) {
    let started = Instant::now();
    let status = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(why) => why.to_string(),
    };
    if let Some(pid) = Pid::from_raw(pid as i32) {
        programs::collected(pid);
    }
    let mut slots = lock(&slots);
    let is_current = |slot: &&mut Slot| slot.running.as_ref().is_some_and(|running| running.pid == pid);
    let Some(slot) = slots.get_mut(&worker).filter(is_current) else {
        debug!("WS0276: process {pid}, which was replaced, has ended: {status}");
        return;
    };
    slot.running = None;
    if started.elapsed() >= STILLBORN {
        slot.backoff.reset();
    }
    let pause = slot.backoff.fail();
    error!(
        "WS0272: process {pid}, with handlers of {}, ended and its connections with it: {status}; another is started when it \
         is wanted{}",
        worker.root.display(),
        pause.map_or(String::new(), |pause| format!(", not within {} s", pause.as_secs()))
    );
}

/// What handlers print and log goes to the error log, with the level that `<N>` in front of a line says (sd-daemon(3)).
async fn write_down(root: String, output: pipe::Receiver) {
    let mut lines = Lines::new(LINE);
    let mut piece = [0; 4096];
    while output.readable().await.is_ok() {
        match output.try_read(&mut piece) {
            Ok(count) if count > 0 => lines.put(&piece[..count], |line| write_line(&root, line)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break,
        }
    }
    lines.end(|line| write_line(&root, line));
}

fn write_line(root: &str, line: &str) {
    match level(line) {
        (_, "") => {}
        (level @ Level::Error, text) => log!(level, "WS0277: {root}: {text}"),
        (level @ Level::Warn, text) => log!(level, "WS0278: {root}: {text}"),
        (level, text) => log!(level, "WS0279: {root}: {text}"),
    }
}

fn level(line: &str) -> (Level, &str) {
    let marked = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match marked {
        Some(("0" | "1" | "2" | "3", text)) => (Level::Error, text),
        Some(("4" | "5", text)) => (Level::Warn, text),
        Some(("6", text)) => (Level::Info, text),
        Some(("7", text)) => (Level::Debug, text),
        _ => (Level::Info, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_levels() {
        assert_eq!(level("<4>a warning"), (Level::Warn, "a warning"));
        assert_eq!(level("printed"), (Level::Info, "printed"));
        assert_eq!(level("<3>bad"), (Level::Error, "bad"));
        assert_eq!(level("<9>x"), (Level::Info, "<9>x"));
        assert_eq!(level("<6>"), (Level::Info, ""));
    }
}
