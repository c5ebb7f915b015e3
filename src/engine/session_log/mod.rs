//! The session logs that are open, and the thread that writes to them.
//!
//! A session's end must not wait for a disk or for a log program that does not read: the engine threads queue their lines,
//! and one thread writes them, each with one write(2), each log's in a task of its own. A line that goes nowhere is
//! counted, and the count is logged.

mod line;

use crate::engine::LogSpec;
use crate::engine::summary::Summary;
use jiff::Zoned;
use line::line;
use log::{debug, warn};
use rustix::fs::{FileType, fstat};
use rustix::io::{retry_on_intr, write};
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};

/// Bytes that may wait for one log: some ten thousand lines.
const CAPACITY: usize = 8 << 20;

/// A log, by its name in the configuration (the path, or `|program`), and what to write to.
pub type NamedLog = (String, OwnedFd);

/// The logs of the current configuration, for all threads of the engine.
#[derive(Default)]
pub struct SessionLogs(Mutex<OpenLogs>);

#[derive(Default)]
struct OpenLogs {
    open: HashMap<String, Log>,
    /// Not started before there is a log.
    writer: Option<WriterThread>,
    /// Of logs that are no longer configured, while lines wait for them.
    closed: Vec<Arc<Stats>>,
}

#[derive(Clone)]
struct Log {
    commands: mpsc::UnboundedSender<LogCommand>,
    stats: Arc<Stats>,
}

struct WriterThread {
    logs: mpsc::UnboundedSender<(mpsc::UnboundedReceiver<LogCommand>, Arc<Stats>)>,
    ended: oneshot::Receiver<()>,
}

/// What the task of a log is told.
enum LogCommand {
    /// From now on, write here.
    Open(OwnedFd),
    Line(String),
}

impl SessionLogs {
    /// Lets these be all the logs. Lines that wait for one of the same name go to its new descriptor.
    ///
    /// # Errors
    /// The thread cannot be started. Everything is as before.
    pub fn replace(&self, logs: Vec<NamedLog>) -> io::Result<()> {
        let mut state = self.state();
        if state.writer.is_none() && !logs.is_empty() {
            state.writer = Some(WriterThread::start()?);
        }
        let mut before = std::mem::take(&mut state.open);
        for (name, descriptor) in logs {
            let log = before.remove(&name).unwrap_or_else(|| {
                let (commands, received) = mpsc::unbounded_channel();
                let stats = Arc::new(Stats::new(&name));
                if let Some(writer) = &state.writer {
                    // The thread ends after its sender, which is here.
                    let _ = writer.logs.send((received, stats.clone()));
                }
                Log { commands, stats }
            });
            // The task ends after its sender, too.
            let _ = log.commands.send(LogCommand::Open(descriptor));
            state.open.insert(name, log);
        }
        state.closed.retain(|stats| stats.counts().waiting > 0);
        state.closed.extend(before.into_values().map(|log| log.stats));
        Ok(())
    }

    /// How many there are: each holds a descriptor.
    pub fn count(&self) -> usize {
        self.state().open.len()
    }

    /// Session `id` has ended: adds a line to its log, if it has one.
    pub fn note(&self, id: u64, summary: &Summary) {
        if let Some(LogSpec { name, host, .. }) = summary.spec.log.as_deref()
            && !self.append(name, || line(id, summary, host, &Zoned::now()))
        {
            debug!("WS0107: session {id}: its log {name} is no longer configured");
        }
    }

    /// Adds a line to the log of that name. False when there is no such log.
    fn append(&self, name: &str, line: impl FnOnce() -> String) -> bool {
        let Some(Log { commands, stats }) = self.state().open.get(name).cloned() else { return false };
        let line = line();
        if stats.admit(line.len()) {
            let _ = commands.send(LogCommand::Line(line));
        }
        true
    }

    /// Writes what waits, for so long at most. There are no logs afterwards.
    pub async fn finish(&self, limit: Duration) {
        let (writer, all_stats) = {
            let mut state = self.state();
            let open = std::mem::take(&mut state.open).into_values().map(|log| log.stats);
            let all_stats: Vec<_> = open.chain(std::mem::take(&mut state.closed)).collect();
            (state.writer.take(), all_stats)
        };
        let Some(WriterThread { logs, ended }) = writer else { return };
        drop(logs);
        if tokio::time::timeout(limit, ended).await.is_err() {
            all_stats.iter().for_each(|stats| stats.close());
        }
    }

    fn state(&self) -> MutexGuard<'_, OpenLogs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriterThread {
    fn start() -> io::Result<WriterThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (logs, mut begun) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("ws-log".into()).spawn(move || {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                while let Some((commands, stats)) = begun.recv().await {
                    while tasks.try_join_next().is_some() {}
                    tasks.spawn(keep(commands, stats));
                }
                tasks.join_all().await;
            });
            // Whoever waited may have given up.
            let _ = end.send(());
        })?;
        Ok(WriterThread { logs, ended })
    }
}

/// Keeps one log, until nobody can add to it and all is written.
async fn keep(mut commands: mpsc::UnboundedReceiver<LogCommand>, stats: Arc<Stats>) {
    let (mut sink, mut lines, mut written) = (Sink::None, VecDeque::<String>::new(), 0);
    let mut closed = false;
    while !closed || !lines.is_empty() {
        tokio::select! {
            command = commands.recv(), if !closed => match command {
                Some(LogCommand::Line(line)) => lines.push_back(line),
                Some(LogCommand::Open(descriptor)) => {
                    sink = Sink::new(descriptor);
                    written = 0;
                }
                None => closed = true,
            },
            result = sink.write_first(&lines, written), if sink.is_open() && !lines.is_empty() => {
                let length = lines.front().map_or(0, String::len);
                match result {
                    Ok(count) if written + count < length => written += count,
                    Ok(_) => {
                        lines.pop_front();
                        written = 0;
                        stats.settle(length, None);
                    }
                    // httpd ends the log programs of the old configuration before there are new ones. Its parent keeps
                    // the pipe of one that ends by itself, and starts it again.
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => sink = Sink::None,
                    Err(e) => {
                        lines.pop_front();
                        written = 0;
                        stats.settle(length, Some(&e));
                    }
                }
                // A file never makes the task wait, and there are others.
                yield_now().await;
            },
            // No more commands, and nowhere to write to.
            else => break,
        }
    }
    stats.close();
}

enum Sink {
    None,
    /// A program's, or a FIFO: it may have no room.
    Pipe(Sender),
    File(OwnedFd),
    /// A pipe that epoll(7) does not take.
    Broken(io::Error),
}

impl Sink {
    fn new(descriptor: OwnedFd) -> Sink {
        if !fstat(&descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
            return Sink::File(descriptor);
        }
        Sender::from_owned_fd(descriptor).map_or_else(Sink::Broken, Sink::Pipe)
    }

    fn is_open(&self) -> bool {
        !matches!(self, Sink::None)
    }

    /// Writes the first line from `written` on, or as much of it as there is room for. Dropping the future loses nothing.
    async fn write_first(&self, lines: &VecDeque<String>, written: usize) -> io::Result<usize> {
        let bytes = &lines.front().map_or(&[][..], |line| line.as_bytes())[written..];
        match self {
            Sink::None => pending().await,
            Sink::Pipe(pipe) => loop {
                pipe.writable().await?;
                match pipe.try_write(bytes) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
            Sink::File(file) => Ok(retry_on_intr(|| write(file, bytes))?),
            Sink::Broken(why) => Err(io::Error::new(why.kind(), why.to_string())),
        }
    }
}

/// What becomes of the lines of a log: each is let go once, written or lost.
struct Stats {
    name: String,
    counts: Mutex<LineCounts>,
}

#[derive(Default)]
struct LineCounts {
    /// Lines on their way, and their bytes.
    waiting: u64,
    bytes: usize,
    /// Lines lost since the last that was written.
    lost: u64,
}

impl Stats {
    fn new(name: &str) -> Stats {
        Stats { name: name.into(), counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, LineCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of that length is to be written. False when too much waits: it is lost.
    fn admit(&self, length: usize) -> bool {
        let mut counts = self.counts();
        if counts.bytes + length <= CAPACITY {
            counts.waiting += 1;
            counts.bytes += length;
            return true;
        }
        counts.lost += 1;
        if counts.lost == 1 {
            warn!("WS0123: the session log {} is not being written: {} lines wait", self.name, counts.waiting);
        }
        false
    }

    /// A line of that length was written, or lost for this reason.
    fn settle(&self, length: usize, lost: Option<&io::Error>) {
        let mut counts = self.counts();
        counts.waiting -= 1;
        counts.bytes -= length;
        match lost {
            Some(why) => {
                counts.lost += 1;
                if counts.lost == 1 {
                    warn!("WS0120: the session log {} cannot be written: {why}", self.name);
                }
            }
            None => self.report(&mut counts),
        }
    }

    /// Nothing more is written: what waits is lost.
    fn close(&self) {
        let mut counts = self.counts();
        counts.lost += std::mem::take(&mut counts.waiting);
        self.report(&mut counts);
    }

    fn report(&self, counts: &mut LineCounts) {
        let lost = std::mem::take(&mut counts.lost);
        if lost > 0 {
            warn!("WS0124: the session log {} has lost {lost} lines", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read};
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn finish(logs: &SessionLogs, limit: Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(logs.finish(limit));
    }

    fn pipe() -> (File, OwnedFd) {
        let (ours, theirs) = std::io::pipe().unwrap();
        (OwnedFd::from(ours).into(), theirs.into())
    }

    fn read(mut file: impl Read) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn append(logs: &SessionLogs, line: &str) {
        assert!(logs.append("x", || format!("{line}\n")));
    }

    #[track_caller]
    fn wait_for(logs: &SessionLogs, what: impl Fn(&LineCounts) -> bool) {
        let start = Instant::now();
        while !what(&logs.state().open["x"].stats.counts()) {
            assert!(start.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_go_to_the_log_of_their_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = || File::options().append(true).create(true).open(&path).unwrap();
        let (read_end, write_end) = pipe();
        let logs = SessionLogs::default();
        assert!(!logs.append("x", || unreachable!()));
        logs.replace(vec![("x".into(), write_end), ("y".into(), file().into())]).unwrap();
        assert_eq!(logs.count(), 2);
        for number in 0..100 {
            append(&logs, &format!("x {number}"));
            logs.append("y", || format!("y {number}\n"));
        }
        finish(&logs, PATIENCE);
        let expected = |name| (0..100).map(|number| format!("{name} {number}\n")).collect::<String>();
        assert_eq!(read(read_end), expected("x"));
        assert_eq!(read(File::open(path).unwrap()), expected("y"));
        assert!(!logs.append("x", || unreachable!()));
    }

    #[test]
    fn a_new_descriptor_takes_the_lines_that_wait() {
        let logs = SessionLogs::default();
        let (full, write_end) = pipe();
        logs.replace(vec![("x".into(), write_end)]).unwrap();
        // More than a pipe holds; the line under way is torn.
        let long = "long".repeat(100_000);
        append(&logs, &long);
        append(&logs, "waits");
        let mut first = [0; 4];
        (&full).read_exact(&mut first).unwrap();
        let (second, write_end) = pipe();
        logs.replace(vec![("x".into(), write_end)]).unwrap();
        let reader = std::thread::spawn(move || read(second));
        append(&logs, "new");
        finish(&logs, PATIENCE);
        assert_eq!(reader.join().unwrap(), format!("{long}\nwaits\nnew\n"));
        // The old descriptor was closed.
        assert!(long.starts_with(&read(full)));
    }

    #[test]
    fn lines_wait_while_a_program_is_replaced() {
        let logs = SessionLogs::default();
        let (gone, write_end) = pipe();
        drop(gone);
        logs.replace(vec![("x".into(), write_end)]).unwrap();
        append(&logs, "one");
        append(&logs, "two");
        wait_for(&logs, |counts| counts.waiting == 2);
        let (read_end, write_end) = pipe();
        logs.replace(vec![("x".into(), write_end)]).unwrap();
        let mut lines = BufReader::new(read_end).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        logs.replace(vec![]).unwrap();
        assert!(!logs.append("x", || unreachable!()));
        assert!(lines.next().is_none());
    }

    #[test]
    fn one_that_is_stuck_stops_neither_the_others_nor_the_end() {
        let logs = SessionLogs::default();
        let (stuck, write_end) = pipe();
        let (fine, other) = pipe();
        logs.replace(vec![("x".into(), write_end), ("fine".into(), other)]).unwrap();
        let line = "x".repeat(CAPACITY / 64 - 1);
        for _ in 0..64 {
            append(&logs, &line);
        }
        assert_eq!(logs.state().open["x"].stats.counts().lost, 0);
        append(&logs, "too much");
        append(&logs, "too much");
        wait_for(&logs, |counts| (counts.lost, counts.waiting) == (2, 64));
        let mut lines = BufReader::new(fine).lines();
        for number in 0..1000 {
            logs.append("fine", || format!("{number}\n"));
            assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
        }
        let stats = logs.state().open["x"].stats.clone();
        finish(&logs, Duration::from_millis(10));
        let counts = stats.counts();
        assert_eq!((counts.lost, counts.waiting), (0, 0), "all were counted and reported");
        drop(stuck);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let logs = SessionLogs::default();
        let full = || File::options().append(true).open("/dev/full").unwrap();
        logs.replace(vec![("x".into(), full().into())]).unwrap();
        append(&logs, "one");
        append(&logs, "two");
        wait_for(&logs, |counts| (counts.lost, counts.waiting) == (2, 0));
        let (read_end, write_end) = pipe();
        logs.replace(vec![("x".into(), write_end)]).unwrap();
        append(&logs, "three");
        wait_for(&logs, |counts| (counts.lost, counts.waiting, counts.bytes) == (0, 0, 0));
        finish(&logs, PATIENCE);
        assert_eq!(read(read_end), "three\n");
    }
}
