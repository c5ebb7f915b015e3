//! What the kernel holds for sockets, as far as it says so.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// What the names of the caches begin with from which a socket's objects are taken. The kernel merges caches whose objects
/// are alike, and so the names of some are those of others.
const CACHES: [&str; 9] =
    ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_", "ep_head", "tcp_bind", "lsm_", "kmalloc-"];

/// Kernel memory at one moment.
pub(crate) struct Kernel {
    /// Objects in use and bytes of one, by cache; empty when this is no root.
    slabs: BTreeMap<String, (u64, u64)>,
    /// Pages in the buffers of TCP sockets.
    buffer_pages: u64,
}

/// What a socket costs the kernel.
pub(crate) struct PerSocket {
    /// Bytes of the objects that each socket has one or more of, by cache.
    pub(crate) objects: BTreeMap<String, u64>,
    /// Bytes in its buffers.
    pub(crate) buffers: f64,
}

impl Kernel {
    /// Reads it now.
    pub(crate) fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let slabs = read("/proc/slabinfo").lines().filter_map(slab).collect();
        let sockstat = read("/proc/net/sockstat");
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
        let buffer_pages = tcp.split(' ').skip_while(|word| *word != "mem").nth(1).and_then(|n| n.parse().ok());
        Self { slabs, buffer_pages: buffer_pages.unwrap_or(0) }
    }

    /// Since `earlier` so many TCP sockets have come, and each is watched by an epoll: half of them are the clients', when
    /// those are on this machine.
    ///
    /// The whole machine makes objects, and only whole objects count: what others do is left out, as long as it is less
    /// than half an object a socket.
    pub(crate) fn per_socket(&self, earlier: &Self, sockets: usize) -> PerSocket {
        let each = |(name, (count, size)): (&String, &(u64, u64))| {
            let before = earlier.slabs.get(name).map_or(0, |(count, _)| *count);
            let objects = count.saturating_sub(before) as f64 / sockets as f64;
            (name.clone(), objects.round() as u64 * size)
        };
        let of_sockets = |(name, _): &(&String, _)| CACHES.iter().any(|cache| name.starts_with(cache));
        let objects = self.slabs.iter().filter(of_sockets).map(each).filter(|(_, bytes)| *bytes > 0).collect();
        let pages = self.buffer_pages as f64 - earlier.buffer_pages as f64;
        PerSocket { objects, buffers: pages * rustix::param::page_size() as f64 / sockets as f64 }
    }
}

impl PerSocket {
    pub(crate) fn bytes(&self) -> f64 {
        self.objects.values().sum::<u64>() as f64 + self.buffers
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "bytes": self.bytes(), "objects": self.objects, "buffers": self.buffers })
    }
}

/// `name active_objs num_objs objsize …`.
fn slab(line: &str) -> Option<(String, (u64, u64))> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let active = words.next()?.parse().ok()?;
    let size = words.nth(1)?.parse().ok()?;
    Some((name.to_owned(), (active, size)))
}
