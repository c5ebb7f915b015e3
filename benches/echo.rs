//! CPU time per echoed message, and memory per idle connection: our engine inside httpd beside a tokio-tungstenite
//! server as usually written.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench echo
//! cargo bench --bench echo -- --seconds 5 --rounds 9 --connections 64 --idle 10000 --json echo.json
//! ```
//!
//! **Echo.** Both servers run at once, on the same core, and the load generator on another one (if there is one). In
//! each round first one is loaded and then the other, while the first sleeps. What counts is the CPU time, user and
//! system, of the server's *whole process tree* (httpd's parent and child are in ours) divided by the messages echoed.
//! The rows: 64 bytes one at a time, 64 bytes with 16 under way, 64 KiB one at a time, on every connection. A batch is
//! written at once, and the next one when all its echoes are back. Before and after, every connection's echo is
//! compared byte for byte, and so is one batch in 64 under load.
//!
//! **Idle.** A fresh server takes that many connections, each echoes one message and is then silent. What counts is
//! the growth of the process tree's memory (Pss) divided by the connections. Socket buffers in the kernel are not in
//! it. With compression the message is a compressed one of 1,000 bytes, and a server with contexts keeps one for each way
//! and connection. The thread count before and after shows that no thread waits on a connection.
//!
//! **How to read it.** Ratios only: *ours ÷ peer*, below 1 is better than the peer. The ratio in the table is the
//! median of the rounds' ratios, and beside it stand the lowest and the highest: when they lie far apart, something
//! else was running. Microseconds belong to one machine on one day. `busy` is the share of its core that the server
//! used: far below 100 %, the generator was slower than the server, or something else had the core.
//!
//! On a loopback interface it is the server's CPU time that wakes a sleeping client. With `--spin` the generator does
//! not sleep, which is nearer to clients on other machines, and takes the same cost off both sides. What both pay alike
//! (one receive, one send, the kernel's TCP) bounds the ratio from below.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works: a fraction of
//! a second a row, and only the peer when the module is not built.

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use support::client::Target;
use support::frame::Batch;
use support::load::Load;
use support::proc::CpuTime;
use support::report::median;
use support::server::{SERVE_PEER, Server, serve_peer};
use support::{Result, client, idle, machine, report};

const USAGE: &str = "\
usage: cargo bench --bench echo -- [options]
  --seconds S        load per server, row and round (default 2)
  --rounds N         rounds per row (default 5)
  --connections N    connections under load (default 64)
  --idle N           idle connections for the memory row, 0 for none (default 10000)
  --spin             the generator never sleeps (see the module's documentation)
  --json FILE        where the JSON goes (default: bench/echo.json in the target directory)
  --module FILE      the module (default: release/libmod_websocket.so in the target directory)";

/// Payload bytes and messages under way on each connection.
const ROWS: [(usize, usize); 3] = [(64, 1), (64, 16), (64 * 1024, 1)];

/// What httpd serves.
const SITE: &str = r#"<Location "/">
Require all granted
WebSocketHandler echo
WebSocketOriginCheck Off
</Location>
<Location "/compressed">
WebSocketCompression On
</Location>
<Location "/compressed/contexts">
WebSocketCompressionContextTakeover Both
</Location>
"#;

struct Options {
    seconds: f64,
    rounds: usize,
    connections: usize,
    idle: usize,
    spin: bool,
    json: Option<PathBuf>,
    module: PathBuf,
    /// Only check that it works.
    smoke: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = if arguments.iter().any(|argument| argument == SERVE_PEER) {
        machine::raise_descriptor_limit().and_then(|_| serve_peer())
    } else {
        Options::parse(&arguments).and_then(|options| run(&options))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let smoke = !arguments.iter().any(|a| a == "--bench") || arguments.iter().any(|a| a == "--test");
        let module = machine::target_directory()?.join("release/libmod_websocket.so");
        let mut options = if smoke {
            Self { seconds: 0.2, rounds: 1, connections: 8, idle: 100, spin: false, json: None, module, smoke }
        } else {
            let json = Some(machine::target_directory()?.join("bench/echo.json"));
            Self { seconds: 2.0, rounds: 5, connections: 64, idle: 10_000, spin: false, json, module, smoke }
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" | "--test" => continue,
                "--spin" => {
                    options.spin = true;
                    continue;
                }
                _ => {}
            }
            let usage = || format!("{argument}: not understood\n{USAGE}");
            let value = arguments.next().ok_or_else(usage)?;
            let number = || value.parse::<usize>().map_err(|_| usage());
            match argument.as_str() {
                "--seconds" => options.seconds = value.parse().map_err(|_| usage())?,
                "--rounds" => options.rounds = number()?,
                "--connections" => options.connections = number()?,
                "--idle" => options.idle = number()?,
                "--json" => options.json = Some(value.into()),
                "--module" => options.module = value.into(),
                _ => return Err(usage().into()),
            }
        }
        if options.rounds == 0 || options.connections == 0 || !(0.01..=3600.0).contains(&options.seconds) {
            return Err(format!("--seconds, --rounds and --connections must be more than nothing\n{USAGE}").into());
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<()> {
    let module = options.module.is_file().then(|| options.module.canonicalize()).transpose()?;
    if module.is_none() {
        let message = format!("{} does not exist: run `cargo build --release` first", options.module.display());
        if !options.smoke {
            return Err(message.into());
        }
        eprintln!("echo: {message}; only the peer is tried");
    }
    let mut notes = Vec::new();
    if let Some(newer) = module.as_deref().and_then(machine::newer_source) {
        notes.push(format!("the module is older than {}: `cargo build --release` makes a new one", newer.display()));
    }
    let descriptors = machine::raise_descriptor_limit()?;
    let cpu = machine::pin_generator();
    if cpu.is_none() {
        notes.push("server and generator are not on cores of their own".into());
    }

    let (mut text, mut rows) = (String::new(), Vec::new());
    {
        let ours = module.as_deref().map(|module| Server::httpd(module, cpu, SITE, "/echo")).transpose()?;
        let peer = Server::peer(cpu)?;
        for (payload, depth) in ROWS {
            rows.push(echo(options, ours.as_ref(), &peer, payload, depth)?);
        }
        notes.extend(ours.iter().flat_map(Server::complaints));
    }
    text += &echo_table(&rows);

    let mut idle_rows = Vec::new();
    if options.idle > 0 {
        // Each on a server of its own, and the expensive kind a tenth as often.
        for (name, path, share) in [
            ("ours", None, 1),
            ("ours, compressed", Some("/compressed"), 1),
            ("ours, with contexts", Some("/compressed/contexts"), 10),
        ] {
            if let Some(module) = &module {
                let server = Server::httpd(module, cpu, SITE, "/echo")?;
                let target = path.map_or(server.target, |path| Target { path, compressed: true, ..server.target });
                let connections = idle::possible(options.idle.div_ceil(share), descriptors, &mut notes);
                idle_rows.push((name, idle::measure(connections, &server, target)?));
            }
        }
        let server = Server::peer(cpu)?;
        let connections = idle::possible(options.idle, descriptors, &mut notes);
        idle_rows.push(("tokio-tungstenite", idle::measure(connections, &server, server.target)?));
        text += &idle::table(&idle_rows);
    }
    for note in &notes {
        text += &format!("note: {note}\n");
    }
    std::io::stdout().write_all(text.as_bytes())?;

    if let Some(file) = &options.json {
        let figures = json!({
            "benchmark": "echo",
            "unix_time": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            "machine": machine::facts(),
            "settings": {
                "seconds": options.seconds, "rounds": options.rounds, "connections": options.connections,
                "idle": options.idle, "spin": options.spin, "pinned": cpu.is_some(), "module": module,
            },
            "echo": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "idle": idle_rows.iter().map(|(name, row)| row.json(name)).collect::<Vec<_>>(),
            "notes": notes,
        });
        report::write(file, &figures)?;
    }
    Ok(())
}

/// One server under load for one round.
struct Sample {
    /// CPU microseconds of the process tree per message.
    cpu: f64,
    /// Messages a second.
    rate: f64,
    /// The share of one core that the server used.
    busy: f64,
}

/// One line of the echo table.
struct Row {
    payload: usize,
    depth: usize,
    ours: Vec<Sample>,
    peer: Vec<Sample>,
}

fn echo(options: &Options, ours: Option<&Server>, peer: &Server, payload: usize, depth: usize) -> Result<Row> {
    eprintln!("{payload} bytes, {depth} under way");
    let time = Duration::from_secs_f64(options.seconds);
    let mut servers = Vec::new();
    for server in ours.into_iter().chain([peer]) {
        let sockets = client::open(server.target, options.connections)?;
        let mut load = Load::new(sockets, Batch::new(payload, depth), options.spin)?;
        load.verify()?;
        load.run(time / 4)?;
        servers.push((server, load, Vec::new()));
    }
    for _ in 0..options.rounds {
        for (server, load, samples) in &mut servers {
            let before = CpuTime::of_tree(server.pid());
            let done = load.run(time)?;
            let cpu = CpuTime::of_tree(server.pid()).seconds_since(&before);
            samples.push(Sample {
                cpu: cpu * 1e6 / done.messages as f64,
                rate: done.messages as f64 / done.seconds,
                busy: cpu / done.seconds,
            });
        }
    }
    for (_, load, _) in &mut servers {
        load.verify()?;
    }
    let mut samples = servers.into_iter().map(|(_, _, samples)| samples);
    let ours = if ours.is_some() { samples.next().unwrap_or_default() } else { Vec::new() };
    Ok(Row { payload, depth, ours, peer: samples.next().unwrap_or_default() })
}

impl Row {
    /// Ours ÷ peer in each round, lowest first.
    fn ratios(&self) -> Vec<f64> {
        report::ratios(self.ours.iter().map(|s| s.cpu), self.peer.iter().map(|s| s.cpu))
    }

    fn json(&self) -> Value {
        let side = |samples: &[Sample]| {
            json!({
                "cpu_us_per_message": median(samples.iter().map(|s| s.cpu)),
                "messages_per_second": median(samples.iter().map(|s| s.rate)),
                "busy": median(samples.iter().map(|s| s.busy)),
                "cpu_us_per_message_of_rounds": samples.iter().map(|s| s.cpu).collect::<Vec<_>>(),
            })
        };
        json!({
            "payload_bytes": self.payload, "under_way": self.depth,
            "ours": side(&self.ours), "tokio_tungstenite": side(&self.peer),
            "ratio": median(self.ratios()), "ratios": self.ratios(),
        })
    }
}

fn echo_table(rows: &[Row]) -> String {
    let mut table = String::from(
        "\nEcho: CPU of the server's whole process tree, µs per message\n\
         payload  under way |     ours  msg/s    busy | tokio-tungstenite  msg/s    busy |  ours ÷ peer (lowest-highest)\n",
    );
    for row in rows {
        let side = |samples: &[Sample], width| {
            let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
            match (of(|s| s.cpu), of(|s| s.rate), of(|s| s.busy)) {
                (Some(cpu), Some(rate), Some(busy)) => {
                    format!("{cpu:>width$.3} {rate:>9.0} {:>4.0} %", busy * 100.0)
                }
                _ => format!("{:>width$} {:>9} {:>6}", "-", "-", "-"),
            }
        };
        let ratio = report::ratio_column(&row.ratios());
        let (ours, peer) = (side(&row.ours, 8), side(&row.peer, 17));
        table += &format!("{:>7}  {:>9} | {ours} | {peer} | {ratio}\n", row.payload, row.depth);
    }
    table
}
