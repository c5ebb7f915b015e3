//! CPU time per echoed message, its latency, and memory per idle connection: our engine inside httpd beside other servers.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench echo
//! cargo bench --bench echo -- --rows 64x1,64x16,65536x1,64@2000 --connections 64 --seconds 5 --rounds 9
//! cargo bench --bench echo -- --only mod_websocket,mod_proxy_wstunnel --schemes wss --idle 0
//! ```
//!
//! **The servers.** uWebSockets with its own event loop, where `benches/peers/uwebsockets/build` has built it; tokio-tungstenite
//! and fastwebsockets on one thread, as their examples have it; Node with the package ws; httpd with
//! mod_proxy_wstunnel, of which the tokio-tungstenite server behind it is a part; websocketd with `cat`, a process each
//! connection, which is sent text since it passes on lines, and only short ones, as it cuts longer ones into frames. Over wss those that are usual there. What is not installed is left out,
//! and a note says so. All are confined to one core, the same for all of them, and the load generator to another one
//! (if there is one).
//!
//! **Echo, one or more under way** (`64x16`: 64 bytes, 16 under way). All servers run at once. In each round one after the other is
//! loaded, while the rest sleep. What counts is the CPU time, user and system, of the server's *whole
//! process tree* (httpd's parent and children are in it) divided by the messages echoed. A batch is written at once, on
//! every connection, and the next one when all its echoes are back. Before and after, every connection's echo is
//! compared byte for byte, and so is one batch in 64 under load.
//!
//! **Echo at a rate** (`64@2000`: 64 bytes, 2,000 messages a second over all connections). A message is sent when it is due,
//! whether or not earlier ones are back, and its latency counts from then until its echo is read. The generator does not
//! sleep, if it has a core of its own. The table has the medians over the rounds of each round's percentiles. CPU time per message
//! is higher than at full speed: a server that wakes up for each message gathers nothing.
//!
//! **Idle.** A fresh server takes that many connections, each echoes one message and is then silent. What counts is
//! the growth of the process tree's memory (Pss) divided by the connections. Socket buffers in the kernel are not in
//! it. With compression the message is a compressed one of 1,000 bytes, and a server with contexts keeps one for each way
//! and connection. The thread count before and after shows that no thread waits on a connection.
//!
//! **How to read it.** Ratios only: *ours ÷ peer*, below 1 is better than the peer. The ratio in the table is the
//! median of the rounds' ratios, and beside it stand the lowest and the highest: when they lie far apart, something
//! else was running. Microseconds belong to one machine on one day. `busy` is the share of its core that the server
//! used: far below 100 % at full speed, the generator was slower than the server, or something else had the core.
//!
//! On a loopback interface it is the server's CPU time that wakes a sleeping client. With `--spin` the generator does
//! not sleep, which is nearer to clients on other machines, and takes the same cost off both sides. What both pay alike
//! (one receive, one send, the kernel's TCP) bounds the ratio from below.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works: a fraction of
//! a second a row, and only the peers when the module is not built.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use support::client::Target;
use support::load::{Load, Pace};
use support::options::{Options, scheme};
use support::peers::{self, Peer, Setting};
use support::report::{Comparison, Latency, Sample};
use support::serve::{SERVE_PEER, serve_peer};
use support::server::{Children, Server};
use support::testkit::process::raise_descriptor_limit;
use support::{Result, client, idle, report};

const USAGE: &str = "\
usage: cargo bench --bench echo -- [options]
  --rows LOAD[,LOAD]   payload bytes x messages under way on each connection, or payload bytes @ messages a second on
                       all of them together (default 64x1,64x16,65536x1,64@2000)
  --connections N      connections under load (default 64)
  --idle N             idle connections for the memory rows, 0 for none (default 10000)";

/// What is sent.
#[derive(Clone, Copy)]
struct Row {
    payload: usize,
    pace: Pace,
}

struct Echo {
    options: Options,
    rows: Vec<Row>,
    connections: usize,
    idle: usize,
}

fn main() -> ExitCode {
    let result = if std::env::args().any(|argument| argument == SERVE_PEER) {
        serve_peer()
    } else {
        Echo::read().and_then(|echo| echo.run())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Row {
    fn parse(row: &str) -> Option<Self> {
        if let Some((payload, depth)) = row.split_once('x') {
            let depth = depth.parse().ok().filter(|depth| *depth > 0)?;
            return Some(Self { payload: payload.parse().ok()?, pace: Pace::UnderWay(depth) });
        }
        let (payload, rate) = row.split_once('@')?;
        let rate = rate.parse().ok().filter(|rate| (0.01..1e6).contains(rate))?;
        Some(Self { payload: payload.parse().ok()?, pace: Pace::EachSecond(rate) })
    }

    fn title(self, tls: bool) -> String {
        let size = match self.payload {
            bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
            bytes => format!("{bytes} bytes"),
        };
        let pace = match self.pace {
            Pace::UnderWay(1) => "one under way".into(),
            Pace::UnderWay(depth) => format!("{depth} under way"),
            Pace::EachSecond(rate) => format!("{rate} a second"),
        };
        format!("{}, {size}, {pace}", scheme(tls))
    }
}

impl Echo {
    fn read() -> Result<Self> {
        let mut options = Options::new("echo")?;
        let rows = |list: &str| list.split(',').map(Row::parse).collect::<Option<Vec<_>>>();
        let mut all = rows("64x1,64x16,65536x1,64@2000").unwrap_or_default();
        let (mut connections, mut idle) = if options.smoke { (8, 100) } else { (64, 10_000) };
        options.read(USAGE, |option, value| {
            match option {
                "--rows" => all = rows(value)?,
                "--connections" => connections = value.parse().ok().filter(|count| *count > 0)?,
                "--idle" => idle = value.parse().ok()?,
                _ => return None,
            }
            Some(())
        })?;
        Ok(Self { options, rows: all, connections, idle })
    }

    fn run(&self) -> Result<()> {
        let mut notes = Vec::new();
        let descriptors = raise_descriptor_limit();
        let setting = self.options.setting(Children::One, &mut notes)?;
        let (mut text, mut comparisons) = (String::new(), Vec::new());
        for tls in self.options.schemes.iter().copied() {
            let echoing = self.options.peers(tls).into_iter().filter(|peer| peer.echoes());
            let (fitting, crowded) = echoing.partition::<Vec<_>, _>(|peer| peer.room() >= self.connections);
            notes.extend(crowded.iter().map(|peer| format!("{} has room for {}", peer.name(), peer.room())));
            let servers = peers::start(&fitting, &setting, tls, &mut notes)?;
            for row in &self.rows {
                let comparison = self.compare(*row, &servers, &setting, tls)?;
                text += &comparison.table();
                comparisons.push(comparison);
            }
            notes.extend(servers.iter().flat_map(|(_, server)| server.complaints()));
        }
        let idle_rows = if self.idle > 0 { self.idle(&setting, descriptors, &mut notes)? } else { Vec::new() };
        if !idle_rows.is_empty() {
            text += &idle::table(&idle_rows);
        }
        let figures = json!({
            "settings": {
                "seconds": self.options.seconds, "rounds": self.options.rounds, "connections": self.connections,
                "idle": self.idle, "spin": self.options.spin, "pinned": setting.cpu.is_some(), "module": setting.module,
            },
            "comparisons": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
            "idle": idle_rows.iter().map(|(name, row)| row.json(name)).collect::<Vec<_>>(),
        });
        report::give("echo", text, &notes, self.options.json.as_deref(), figures)
    }

    /// One row, all servers.
    fn compare(&self, row: Row, servers: &[(Peer, Server)], setting: &Setting, tls: bool) -> Result<Comparison> {
        eprintln!("{}", row.title(tls));
        let time = Duration::from_secs_f64(self.options.seconds);
        let depth = if let Pace::UnderWay(depth) = row.pace { depth } else { 1 };
        // The moment that a sleeper takes to wake up is none of the server's.
        let spin = self.options.spin || depth == 1 && matches!(row.pace, Pace::EachSecond(_)) && setting.cpu.is_some();
        let mut loaded = Vec::new();
        for (peer, server) in servers.iter().filter(|(peer, _)| peer.longest() >= row.payload) {
            let failed = |error| format!("{}: {error}", peer.name());
            let sockets = client::open(server.target, self.connections).map_err(failed)?;
            let mut load = Load::new(sockets, peer.batch(row.payload, depth), spin)?;
            load.verify().and_then(|()| load.run(time / 4)).map_err(failed)?;
            loaded.push((peer.name(), server, load, Vec::new()));
        }
        for _ in 0..self.options.rounds {
            for (name, server, load, samples) in &mut loaded {
                let before = server.cpu_time();
                let (done, times) = match row.pace {
                    Pace::UnderWay(_) => load.run(time).map(|done| (done, Vec::new())),
                    Pace::EachSecond(rate) => load.run_open(rate, time),
                }
                .map_err(|error| format!("{name}: {error}"))?;
                let cpu = server.cpu_time().seconds_since(&before);
                samples.push(Sample::new(done.messages, done.seconds, cpu, Latency::new(&times)));
            }
        }
        for (name, _, load, _) in &mut loaded {
            load.verify().map_err(|error| format!("{name}: {error}"))?;
        }
        let load = match row.pace {
            Pace::UnderWay(depth) => json!({ "scheme": scheme(tls), "payload_bytes": row.payload, "under_way": depth }),
            Pace::EachSecond(rate) => {
                json!({ "scheme": scheme(tls), "payload_bytes": row.payload, "per_second": rate })
            }
        };
        let sides = loaded.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
        Ok(Comparison { title: row.title(tls), load, unit: "message", sides })
    }

    /// Each on a server of its own, and the expensive kind with fewer connections.
    fn idle(
        &self,
        setting: &Setting,
        descriptors: u64,
        notes: &mut Vec<String>,
    ) -> Result<Vec<(&'static str, idle::Idle)>> {
        let mut rows = Vec::new();
        for (name, peer, tls, path, share) in [
            ("mod_websocket", Peer::Ours, false, None, 1),
            ("with compression", Peer::Ours, false, Some("/echo/compressed"), 1),
            ("with contexts", Peer::Ours, false, Some("/echo/compressed/contexts"), 10),
            ("mod_websocket, wss", Peer::Ours, true, None, 1),
            ("uwebsockets", Peer::UWebSockets, false, None, 1),
            ("uwebsockets, wss", Peer::UWebSockets, true, None, 1),
            ("tokio-tungstenite", Peer::TokioTungstenite, false, None, 1),
            ("fastwebsockets", Peer::FastWebSockets, false, None, 1),
            ("node-ws", Peer::NodeWs, false, None, 1),
            ("mod_proxy_wstunnel", Peer::Wstunnel, false, None, 10),
            ("wstunnel, wss", Peer::Wstunnel, true, None, 10),
        ] {
            // The check does not need all of them.
            let wanted = !self.options.smoke || matches!(peer, Peer::Ours | Peer::TokioTungstenite);
            if !wanted || !self.options.schemes.contains(&tls) || !self.options.peers(tls).contains(&peer) {
                continue;
            }
            let servers = peers::start(&[peer], setting, tls, notes)?;
            let Some((_, server)) = servers.first() else { continue };
            let target = path.map_or(server.target, |path| Target { path, compressed: true, ..server.target });
            let connections = idle::possible(self.idle.div_ceil(share).min(peer.room()), descriptors, notes);
            rows.push((
                name,
                idle::measure(connections, server, target).map_err(|error| format!("idle, {name}: {error}"))?,
            ));
        }
        Ok(rows)
    }
}
