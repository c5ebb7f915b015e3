//! Memory per connection that does nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{self, Target};
use super::crowd::Crowd;
use super::server::Server;
use super::tls::Socket;
use super::{Result, proc};

/// Descriptors for everything but the connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// The name of the engine's process.
pub(crate) const ENGINE: &str = "ws-engine";

/// What an idle connection may cost (without contexts): with more of them than fit into memory at this price, the row is cut short.
const DEAREST_CONNECTION: u64 = 192 * 1024;

/// How long they have been silent when it counts: a server may give memory back that it keeps for the next message.
const SILENCE: Duration = Duration::from_secs(6);

/// One server with idle connections.
pub(crate) struct Idle {
    connections: usize,
    bytes_before: u64,
    bytes_after: u64,
    /// How much of the growth is the engine's, if there is one.
    engine_growth: i64,
    threads_before: usize,
    threads_after: usize,
}

/// How many connections there can be: `descriptors` is the limit of open files, and a note says when it is too low.
pub(crate) fn possible(wanted: usize, descriptors: u64, notes: &mut Vec<String>) -> usize {
    let by_descriptors = descriptors.saturating_sub(OTHER_DESCRIPTORS) as usize;
    let by_memory = (proc::available() / DEAREST_CONNECTION) as usize;
    let connections = wanted.min(by_descriptors).min(by_memory);
    if connections < wanted {
        let note = format!("{connections} idle connections: descriptors allow {by_descriptors}, memory {by_memory}");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    connections
}

/// Opens that many idle connections on a fresh server.
pub(crate) fn measure(connections: usize, server: &Server, target: Target) -> Result<Idle> {
    eprintln!("{connections} idle connections");
    // What is allocated once, on first use, is not the price of a connection.
    drop(Silent::open(target, (connections / 100).clamp(1, 64))?);
    let (bytes_before, threads_before) = (server.settled_memory()?, server.thread_count());
    let engine = || proc::memory_of(server.pid(), ENGINE);
    let engine_before = engine()?;
    let mut silent = Silent::open(target, connections)?;
    std::thread::sleep(SILENCE);
    let (bytes_after, threads_after) = (server.settled_memory()?, server.thread_count());
    let engine_growth = engine()? as i64 - engine_before as i64;
    // They have to be there still, all of them.
    silent.verify()?;
    Ok(Idle { connections, bytes_before, bytes_after, engine_growth, threads_before, threads_after })
}

/// Connections that have echoed a message and are silent now.
enum Silent {
    Plain(Crowd),
    Compressed(Vec<Socket>),
}

impl Silent {
    fn open(target: Target, count: usize) -> Result<Self> {
        if !target.compressed {
            return Crowd::open(target, count).map(Self::Plain);
        }
        let mut sockets = client::open(target, count)?;
        client::exchange(&mut sockets)?;
        Ok(Self::Compressed(sockets))
    }

    fn verify(&mut self) -> Result<()> {
        match self {
            Self::Plain(crowd) => crowd.verify(),
            Self::Compressed(sockets) => client::exchange(sockets),
        }
    }
}

impl Idle {
    pub(crate) fn bytes_per_connection(&self) -> f64 {
        (self.bytes_after as f64 - self.bytes_before as f64) / self.connections as f64
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        json!({
            "server": name, "connections": self.connections, "bytes_per_connection": self.bytes_per_connection(),
            "engine_bytes_per_connection": self.engine_growth as f64 / self.connections as f64,
            "bytes_before": self.bytes_before, "bytes_after": self.bytes_after,
            "threads_before": self.threads_before, "threads_after": self.threads_after,
        })
    }
}

pub(crate) fn table(rows: &[(impl AsRef<str>, Idle)]) -> String {
    let mut table = String::from(
        "\nIdle: memory (Pss) of the server's whole process tree\n\
         \u{20}                    connections  bytes each  in the engine  MiB before  MiB after  threads before, after\n",
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (name, row) in rows {
        let name = name.as_ref();
        table += &format!(
            "{name:<19}  {:>11}  {:>10.0}  {:>13.0}  {:>10.1}  {:>9.1}  {:>3}, {}\n",
            row.connections,
            row.bytes_per_connection(),
            row.engine_growth as f64 / row.connections as f64,
            mib(row.bytes_before),
            mib(row.bytes_after),
            row.threads_before,
            row.threads_after,
        );
    }
    table
}
