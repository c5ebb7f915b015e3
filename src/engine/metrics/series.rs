//! Sessions by handler, transport and virtual host: a table of texts with a count each. An engine numbers what it meets, up to a
//! bound, and all that comes after it counts together.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// How the bytes of a session come to the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// It has the client's socket.
    #[default]
    Socket,
    /// It has the client's socket, and the keys of its TLS.
    Tls,
    /// A relay thread of a child sends them, with those of others.
    Mux,
    /// A worker of a child sends them, and does nothing else meanwhile.
    Blocking,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::Socket => "socket",
            Transport::Tls => "tls",
            Transport::Mux => "mux",
            Transport::Blocking => "blocking",
        }
    }

    /// A child of httpd has the client's socket.
    pub fn is_relayed(name: &str) -> bool {
        [Transport::Mux, Transport::Blocking].iter().any(|transport| transport.name() == name)
    }
}

/// Entries of a table. The first is for what finds no room.
pub const ENTRIES: usize = 1024;
/// Words of an entry: the length of its text, its count, and the text.
const ENTRY: usize = 42;
const TEXT: usize = 8 * (ENTRY - 2);
/// Words of a table: behind the number of its entries, and one for nothing.
pub const WORDS: usize = 2 + ENTRIES * ENTRY;
const OVERFLOW: &str = "other\0other\0other";

/// The table of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Series(&'static [AtomicU64]);

impl Series {
    pub(super) fn new(words: &'static [AtomicU64]) -> Series {
        Series(words)
    }

    fn entry(self, number: usize) -> &'static [AtomicU64] {
        &self.0[2 + number * ENTRY..][..ENTRY]
    }

    fn len(self) -> usize {
        (self.0[0].load(Ordering::Acquire) as usize).min(ENTRIES)
    }

    /// One more text; the number of what counts it. One thread at a time.
    pub(super) fn push(self, text: &str) -> u16 {
        if self.len() == 0 {
            self.write(0, OVERFLOW);
        }
        let number = self.len();
        if number >= ENTRIES || text.len() > TEXT {
            return 0;
        }
        self.write(number, text);
        number as u16
    }

    fn write(self, number: usize, text: &str) {
        let entry = self.entry(number);
        entry[0].store(text.len() as u64, Ordering::Relaxed);
        entry[1].store(0, Ordering::Relaxed);
        for (word, bytes) in entry[2..].iter().zip(text.as_bytes().chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
        self.0[0].store(number as u64 + 1, Ordering::Release);
    }

    /// A session begins.
    pub fn enter(self, number: u16) {
        self.entry(usize::from(number))[1].fetch_add(1, Ordering::Relaxed);
    }

    /// It ends.
    pub fn leave(self, number: u16) {
        self.entry(usize::from(number))[1].fetch_sub(1, Ordering::Relaxed);
    }

    /// The engine is no more, nor is what it had.
    pub(super) fn clear(self) {
        self.0[0].store(0, Ordering::Release);
    }

    /// Each entry: handler, transport, virtual host, and how many are open.
    pub fn read(self) -> impl Iterator<Item = ([String; 3], u64)> {
        (0..self.len()).filter_map(move |number| {
            let entry = self.entry(number);
            let bytes: Vec<u8> =
                entry[2..].iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
            let text = bytes.get(..entry[0].load(Ordering::Relaxed) as usize)?;
            let mut parts = str::from_utf8(text).ok()?.split('\0').map(str::to_owned);
            Some(([parts.next()?, parts.next()?, parts.next()?], entry[1].load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::EngineArea;
    use super::*;

    #[test]
    fn what_finds_no_room_counts_together() {
        let series = EngineArea::private(0).series();
        let long = "x".repeat(TEXT + 1);
        assert_eq!(series.push(&long), 0);
        let numbers: Vec<u16> = (0..ENTRIES).map(|number| series.push(&format!("echo\0tls\0host{number}"))).collect();
        assert_eq!(numbers[..3], [1, 2, 3]);
        assert_eq!(numbers[ENTRIES - 1], 0);
        series.enter(0);
        series.enter(2);
        series.enter(2);
        series.leave(2);
        let open: Vec<_> = series.read().filter(|(_, open)| *open > 0).collect();
        assert_eq!(open[0], (["other".into(), "other".into(), "other".into()], 1));
        assert_eq!(open[1], (["echo".into(), "tls".into(), "host1".into()], 1));
        series.clear();
        assert_eq!(series.read().count(), 0);
    }
}
