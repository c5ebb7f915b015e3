//! The bound on what sockets hold, and how much memory there is.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// A quarter of what the machine has, or its control group may have.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
    /// None.
    Off,
}

impl Bound {
    /// In bytes; [`usize::MAX`]: none.
    pub(super) fn bytes(self) -> usize {
        let bytes = match self {
            Bound::Share => available(Path::new("/")).map(|bytes| bytes / 4),
            Bound::Bytes(bytes) => Some(bytes),
            Bound::Off => None,
        };
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }
}

/// Bytes of memory that this process may use: the machine's, or the least that a control group (v1 or v2) on its path may
/// have. `None`: nobody says.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let total = read("proc/meminfo").and_then(|info| {
        let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        // hierarchy:controllers:path (cgroups(7)).
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mounts, file): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => (&[], ""),
        };
        // Where a container sees its own group as the root, the upper part of the path is not there.
        let levels = Path::new(path.trim_start_matches('/')).ancestors();
        let files =
            levels.flat_map(move |level| mounts.iter().map(move |mount| Path::new(mount).join(level).join(file)));
        files.filter_map(|file| read(file.to_str()?)?.trim().parse::<u64>().ok()).collect::<Vec<_>>()
    });
    limits.chain(total).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_holds() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(available(root.path()), None);
        write("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        // Version 2: the parent's holds, too.
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        write("sys/fs/cgroup/a/memory.max", "500000\n");
        assert_eq!(available(root.path()), Some(500_000));
        write("sys/fs/cgroup/a/b/memory.max", "600000\n");
        assert_eq!(available(root.path()), Some(500_000));
        // A container that sees its own group as the root.
        write("sys/fs/cgroup/memory.max", "400000\n");
        assert_eq!(available(root.path()), Some(400_000));
        // Version 1, whose "none" is a large number.
        write("proc/self/cgroup", "3:cpu,cpuacct:/x\n2:memory:/y/z\n1:name=systemd:/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        write("sys/fs/cgroup/memory/y/memory.limit_in_bytes", "300000\n");
        assert_eq!(available(root.path()), Some(300_000));
    }
}
