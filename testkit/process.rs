//! Processes as /proc shows them.

use super::wait::{PATIENCE, wait_until};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use std::collections::HashSet;
use std::fs;

/// A process, told apart from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

/// The fields of /proc/PID/stat that matter here.
struct Stat {
    state: u8,
    parent: i32,
    session: i32,
    started: u64,
}

impl Process {
    pub(crate) fn with_pid(pid: i32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started })
    }

    /// Whether it is still there. A zombie is not: nothing of it runs, and init may be slow to collect it.
    pub(crate) fn is_running(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, b'Z' | b'X'))
    }

    /// Whether it leads a session of its own, as only the engine does among the children of httpd's parent.
    pub(crate) fn leads_a_session(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.session == self.pid)
    }

    /// Sends `signal` to this very process; nothing when it has ended. One that is stopped (SIGSTOP) does nothing any more when
    /// this returns.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the look and the signal.
            let _ = kill_process(pid, signal);
            if signal == Signal::STOP {
                // The signal stops one thread after the other.
                wait_until("all its threads are stopped", PATIENCE, || self.is_stopped() || !self.is_running());
            }
        }
    }

    fn is_stopped(self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return false };
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state stands behind the name, which may have anything in it.
            stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
        })
    }

    /// Lets it, and those it starts from now on, have no more than so many descriptors.
    pub(crate) fn limit_descriptors(self, number: u64) {
        let limit = Rlimit { current: Some(number), maximum: Some(number) };
        prlimit(Pid::from_raw(self.pid), Resource::Nofile, limit).expect("a lower limit");
    }

    /// What its descriptors refer to, one entry each ("socket:[4711]", "/var/log/…").
    pub(crate) fn descriptors(self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .collect()
    }

    /// Its sockets that are not Unix sockets: connections of clients and listeners, closed ones included.
    pub(crate) fn network_sockets(self) -> Vec<String> {
        let descriptors = self.descriptors();
        let unix = unix_sockets();
        descriptors
            .into_iter()
            .filter(|target| {
                let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
                inode.is_some_and(|inode| !unix.contains(inode))
            })
            .collect()
    }

    /// Resident memory in KiB (VmRSS).
    pub(crate) fn resident_kib(self) -> u64 {
        self.status("VmRSS:").and_then(|value| value.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// The real user it runs as.
    pub(crate) fn uid(self) -> Option<u32> {
        self.status("Uid:")?.split_whitespace().next()?.parse().ok()
    }

    /// How many threads it has.
    pub(crate) fn threads(self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count)
    }

    /// Its children, zombies left out.
    pub(crate) fn children(self) -> Vec<Self> {
        let child =
            |(process, stat): (Self, Stat)| (stat.parent == self.pid && process.is_running()).then_some(process);
        all().filter_map(child).collect()
    }

    fn status(self, field: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
    }
}

/// The process and all its descendants, zombies among them.
pub(crate) fn tree(root: i32) -> Vec<Process> {
    let everyone: Vec<(Process, Stat)> = all().collect();
    let mut tree = Vec::from_iter(Process::with_pid(root));
    let mut next = 0;
    while let Some(&Process { pid: parent, .. }) = tree.get(next) {
        tree.extend(everyone.iter().filter(|(_, stat)| stat.parent == parent).map(|(process, _)| *process));
        next += 1;
    }
    tree
}

/// Every process whose environment at its start had `entry` ("NAME=value"), or that descends from `root`.
pub(crate) fn family(root: Option<Process>, entry: &str) -> Vec<Process> {
    let root = root.filter(|root| root.is_running());
    let mut family = root.map_or_else(Vec::new, |root| tree(root.pid));
    let others: Vec<Process> = all().map(|(process, _)| process).filter(|process| !family.contains(process)).collect();
    family.extend(others.into_iter().filter(|process| has_environment(process.pid, entry)));
    family.retain(|process| process.is_running());
    family
}

/// Raises the soft limit of open files to the hard one, which it returns. Children inherit it.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the descriptor limit");
    limit.maximum.unwrap_or(u64::MAX)
}

/// Every process whose command line contains `text`.
pub(crate) fn with_command(text: &str) -> Vec<Process> {
    let command = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let matches = |pid| String::from_utf8_lossy(&command(pid)).contains(text);
    all().map(|(process, _)| process).filter(|process| matches(process.pid)).collect()
}

fn has_environment(pid: i32, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes()))
}

/// Those that are there, zombies among them.
fn all() -> impl Iterator<Item = (Process, Stat)> {
    fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = stat(pid)?;
        Some((Process { pid, started: stat.started }, stat))
    })
}

fn stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may contain anything, so fields are counted from the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The inodes of the Unix sockets of this machine.
fn unix_sockets() -> HashSet<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(6)).map(str::to_owned).collect()
}
