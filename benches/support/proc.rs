//! What /proc says about a server: its process tree, the CPU time it used, the memory it holds.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::Result;
use super::testkit::process;

fn tree(root: u32) -> Vec<u32> {
    process::tree(root as i32).into_iter().map(|process| process.pid as u32).collect()
}

/// The processes of that name among them; an empty one is everybody's.
pub(crate) fn named(root: u32, name: &str) -> Vec<u32> {
    let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    tree(root).into_iter().filter(|pid| name.is_empty() || comm(pid).trim() == name).collect()
}

/// CPU time, user and system together, of process trees at one moment.
pub(crate) struct CpuTime {
    /// Nanoseconds of each thread, by process and thread.
    threads: HashMap<(u32, u32), u64>,
    /// Nanoseconds of children that have ended, by the process that has waited for them. In whole clock ticks.
    ended: HashMap<u32, u64>,
}

impl CpuTime {
    /// Reads it now, of the process and all its descendants.
    pub(crate) fn of_tree(root: u32) -> Self {
        Self::of_trees(&[root])
    }

    /// The same of several trees.
    pub(crate) fn of_trees(roots: &[u32]) -> Self {
        Self::of(roots.iter().copied().flat_map(tree))
    }

    /// Of the processes of that name in the tree of `root`, and nobody else's.
    pub(crate) fn of_named(root: u32, name: &str) -> Self {
        Self::of(named(root, name).into_iter())
    }

    fn of(processes: impl Iterator<Item = u32>) -> Self {
        let mut now = Self { threads: HashMap::new(), ended: HashMap::new() };
        for pid in processes {
            now.threads.extend(threads(pid).filter_map(|(_, thread)| Some(((pid, thread), nanoseconds(pid, thread)?))));
            now.ended.extend(ticks(&format!("/proc/{pid}/stat"), [16, 17]).map(|nanoseconds| (pid, nanoseconds)));
        }
        now
    }

    /// Seconds used since `earlier`. The last moments of a thread that ended meanwhile, in a process that goes on, are lost.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        let growth = |now: u64, before: Option<&u64>| now.saturating_sub(before.copied().unwrap_or(0));
        let running: u64 = self.threads.iter().map(|(key, now)| growth(*now, earlier.threads.get(key))).sum();
        let ended: u64 = self.ended.iter().map(|(pid, now)| growth(*now, earlier.ended.get(pid))).sum();
        // Whoever waited for a process has got all of its time, and what it had used before is not new.
        let gone = |pid: &u32| !self.ended.contains_key(pid);
        let old = earlier.threads.iter().filter(|((pid, _), _)| gone(pid)).map(|(_, time)| time).sum::<u64>()
            + earlier.ended.iter().filter(|(pid, _)| gone(pid)).map(|(_, time)| time).sum::<u64>();
        (running + ended.saturating_sub(old)) as f64 / 1e9
    }
}

/// Threads of a process tree.
pub(crate) fn thread_count(root: u32) -> usize {
    tree(root).into_iter().flat_map(threads).count()
}

/// Bytes of memory held by a process tree: the proportional set size, so that a page shared by two of its processes
/// counts once. Kernel memory (socket buffers, file tables) is not in it.
pub(crate) fn memory(root: u32) -> Result<u64> {
    memory_of(root, "")
}

/// The same of the processes of that name alone; an empty one is everybody's.
pub(crate) fn memory_of(root: u32, name: &str) -> Result<u64> {
    let mut bytes = 0;
    for pid in named(root, name) {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.strip_suffix("kB")?.trim().parse().ok());
        bytes += pss.unwrap_or(0_u64) * 1024;
    }
    Ok(bytes)
}

/// Bytes the machine can still give away.
pub(crate) fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB")?.trim().parse().ok());
    line.map_or(u64::MAX, |kib: u64| kib * 1024)
}

fn threads(pid: u32) -> impl Iterator<Item = (u32, u32)> {
    numbers(Path::new(&format!("/proc/{pid}/task"))).into_iter().map(move |thread| (pid, thread))
}

/// From schedstat, which is exact; in clock ticks from stat on a kernel built without it.
fn nanoseconds(pid: u32, thread: u32) -> Option<u64> {
    let task = format!("/proc/{pid}/task/{thread}");
    if let Ok(schedstat) = fs::read_to_string(format!("{task}/schedstat")) {
        return schedstat.split(' ').next()?.parse().ok();
    }
    ticks(&format!("{task}/stat"), [14, 15])
}

/// The sum of two fields that count clock ticks, in nanoseconds.
fn ticks(stat: &str, fields: [usize; 2]) -> Option<u64> {
    let [user, system] = fields.map(|number| field(stat, number));
    Some((user? + system?) * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// A field of a stat file, numbered as in proc_pid_stat(5).
fn field(path: &str, number: usize) -> Option<u64> {
    let stat = fs::read_to_string(path).ok()?;
    // The second field, the name, is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number - 3)?.parse().ok()
}

/// The entries of a directory whose names are numbers.
fn numbers(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
