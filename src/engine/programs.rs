//! What holds for all programs that handlers start: their limit of open files, and who collects the processes that they leave
//! behind.
//!
//! The engine is the subreaper of its programs (prctl(2)): a process whose parent has ended becomes the engine's child, and
//! not that of process 1, which in a container is httpd's parent.

use super::metrics::{self, Timing};
use log::{debug, warn};
use rustix::process::{
    Pid, Resource, Rlimit, WaitId, WaitIdOptions, child_subreaper, getpid, getrlimit, prlimit, set_child_subreaper,
    setrlimit, waitid,
};
use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long a process that has ended may stay uncollected.
const LOOK: Duration = Duration::from_secs(1);

/// The limit of open files that the engine was started with.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// The processes that were started here and are collected by who started them.
static STARTED: Mutex<Option<HashSet<Pid>>> = Mutex::new(None);

/// Raises the soft limit of open files to the hard one; returns what holds then. Programs get the one that was.
pub fn raise_file_limit() -> u64 {
    let limit = *INHERITED.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        warn!("WS0114: the limit of open files stays as it is: {e}");
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

/// The limit of open files that holds for the engine.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors that the engine has open.
pub fn open_files() -> u64 {
    const DIRECTORY: &str = "/proc/self/fd";
    // Linux 6.2 and later say it as the size. To count them takes a while where there are many.
    match std::fs::metadata(DIRECTORY).map_or(0, |directory| directory.len()) {
        0 => std::fs::read_dir(DIRECTORY).map_or(0, |entries| entries.count().saturating_sub(1) as u64),
        count => count,
    }
}

/// Programs that were started and have not ended.
pub fn count() -> usize {
    started().as_ref().map_or(0, HashSet::len)
}

fn started() -> MutexGuard<'static, Option<HashSet<Pid>>> {
    // Nothing in here panics half-way.
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program by `spawn`, which returns it with its pid. It has the engine's old limit of open files before anything is
/// said to it. Whoever has collected it says so by [`collected`].
///
/// # Errors
/// Those of `spawn`.
pub fn start<T>(spawn: impl FnOnce() -> io::Result<(T, Pid)>) -> io::Result<T> {
    let begun = Instant::now();
    // Held meanwhile: one that ends at once is not taken for an orphan.
    let mut started = started();
    let (program, pid) = spawn()?;
    started.get_or_insert_default().insert(pid);
    drop(started);
    metrics::here().note_time(Timing::Exec, begun.elapsed());
    if let Some(limit) = INHERITED.get()
        && let Err(why) = prlimit(Some(pid), Resource::Nofile, *limit)
    {
        debug!("WS0155: process {pid:?} has the engine's limit of open files: {why}");
    }
    Ok(program)
}

/// This program has ended, and was collected.
pub fn collected(pid: Pid) {
    if let Some(started) = &mut *started() {
        started.remove(&pid);
    }
}

/// Lets the processes that programs leave behind be this process's, once [`collect_orphans`] runs.
///
/// # Errors
/// The system does not know that.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Collects what programs leave behind, for as long as the engine lives. Does nothing in a process that has not called
/// [`adopt_orphans`]: there, other children may be somebody else's.
pub async fn collect_orphans() {
    if !matches!(child_subreaper(), Ok(Some(_))) {
        return;
    }
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        // Many may end together; and those who wait for their own are first.
        tokio::time::sleep(LOOK).await;
        for pid in children() {
            if started().as_ref().is_some_and(|started| started.contains(&pid)) {
                continue;
            }
            // `None` where it still runs.
            if let Ok(Some(_)) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                debug!("WS0157: process {pid:?} was collected: its parent had ended before it");
            }
        }
    }
}

fn children() -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}
