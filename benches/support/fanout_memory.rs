//! What a subscriber that has nothing to do takes of a server's memory.

use std::time::Duration;

use serde_json::{Value, json};

use super::Result;
use super::fanout::FanOut;
use super::load::Pace;
use super::server::Server;

/// A server with subscribers that have nothing to do.
pub(crate) struct Memory {
    subscribers: usize,
    bytes_before: u64,
    bytes_after: u64,
    threads: usize,
}

/// `count` subscribers, messages of so many bytes; `publish` is path and query of the publish location.
pub(crate) fn measure(server: &Server, publish: &str, count: usize, bytes: usize) -> Result<Memory> {
    let open = |count| -> Result<FanOut> {
        let mut subscribers = FanOut::open(server.target, publish, count, bytes, false)?;
        subscribers.run(Pace::UnderWay(1), Duration::from_millis(1))?;
        Ok(subscribers)
    };
    // What is allocated once, on first use, is not the price of a subscriber.
    open((count / 100).clamp(1, 64))?.close(server.target, publish)?;
    let bytes_before = server.settled_memory()?;
    let mut subscribers = open(count)?;
    let (bytes_after, threads) = (server.settled_memory()?, server.thread_count());
    // They have to be there still, all of them.
    subscribers.run(Pace::UnderWay(1), Duration::from_millis(1))?;
    Ok(Memory { subscribers: count, bytes_before, bytes_after, threads })
}

impl Memory {
    fn bytes_per_subscriber(&self) -> f64 {
        (self.bytes_after as f64 - self.bytes_before as f64) / self.subscribers as f64
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        json!({
            "server": name, "subscribers": self.subscribers, "bytes_per_subscriber": self.bytes_per_subscriber(),
            "bytes_before": self.bytes_before, "bytes_after": self.bytes_after, "threads": self.threads,
        })
    }
}

pub(crate) fn table(rows: &[(&str, Memory)]) -> String {
    let mut table = String::from(
        "\nIdle subscribers: memory (Pss) of the server's whole process tree\n\
         \u{20}      subscribers  bytes each  MiB before  MiB after  threads\n",
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (name, row) in rows {
        table += &format!(
            "{name:<5}  {:>11}  {:>10.0}  {:>10.1}  {:>9.1}  {:>7}\n",
            row.subscribers,
            row.bytes_per_subscriber(),
            mib(row.bytes_before),
            mib(row.bytes_after),
            row.threads,
        );
    }
    if let [(_, ours), (_, nchan)] = rows {
        table += &format!("ours ÷ nchan: {:.2}\n", ours.bytes_per_subscriber() / nchan.bytes_per_subscriber());
    }
    table
}
