//! Latency of small messages while others on the same engine thread send large compressed ones.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench neighbours
//! cargo bench --bench neighbours -- --rows echo --bytes 1048576 --large 2 --rate 2000 --seconds 5 --rounds 9
//! ```
//!
//! One engine thread serves all. The neighbours are 64 sockets, on which together so many messages of 64 bytes a second are
//! echoed, as in the open loop of `benches/echo.rs`: the latency of each counts from when it was due. In each round they
//! are measured twice, alone and beside clients whose large messages follow one another without a pause. So the thread
//! always has one of these to work at:
//!
//! * `echo`: a message is inflated, and compressed again to be sent back;
//! * `discard`: it is inflated;
//! * `publish`: one client's is inflated, compressed once for all subscribers of a channel, and sent to as many as there are
//!   clients.
//!
//! The ratio in the table is *beside ÷ alone*: the median of the rounds' ratios, and the lowest and the highest. Beside it
//! stands how many large messages a second there were meanwhile, and how long one of them kept the server busy.
//!
//! What else the machine does is in the latencies: run it on a quiet one with two cores, or with `nice -n -20`.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works, where the module
//! is built.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use support::client::{self, Target};
use support::frame::Batch;
use support::large::{Exchange, Large};
use support::load::Load;
use support::options::Options;
use support::peers::Setting;
use support::report::{Latency, median, ratio_column, ratios};
use support::server::{Children, Server};
use support::{Result, report};

const USAGE: &str = "\
usage: cargo bench --bench neighbours -- [options]
  --rows ROW[,ROW]     what becomes of large messages: echo, discard, publish (default: all)
  --bytes N            bytes of a large message (default 1048576)
  --large N            clients that send them, or subscribers (default 4)
  --connections N      neighbours (default 64)
  --rate N             messages a second, on all of these together (default 2000)";

const SITE: &str = r#"WebSocketOriginCheck Off
WebSocketMaxMessageSize 67108864
<Location "/">
Require all granted
</Location>
<Location "/neighbour">
WebSocketHandler echo
</Location>
<Location "/echo">
WebSocketHandler echo
WebSocketCompression On
</Location>
<Location "/discard">
WebSocketHandler discard
WebSocketCompression On
</Location>
<Location "/publish">
WebSocketHandler channel bench
WebSocketChannelPublish On
WebSocketCompression On
</Location>
"#;

/// What becomes of large messages, and where.
const ROWS: [(&str, Exchange, &str); 3] = [
    ("echo", Exchange::Echo, "/echo"),
    ("discard", Exchange::None, "/discard"),
    ("publish", Exchange::Publish, "/publish"),
];

struct Neighbours {
    options: Options,
    rows: Vec<usize>,
    bytes: usize,
    large: usize,
    connections: usize,
    rate: f64,
}

fn main() -> ExitCode {
    match Neighbours::read().and_then(|neighbours| neighbours.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("neighbours: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of them, with and without what is beside it.
struct Row {
    name: &'static str,
    alone: Vec<Latency>,
    beside: Vec<Latency>,
    /// Large messages a second.
    rate: Vec<f64>,
    /// Milliseconds of the server for each.
    cpu: Vec<f64>,
}

impl Neighbours {
    fn read() -> Result<Self> {
        let mut options = Options::new("neighbours")?;
        let mut rows: Vec<usize> = (0..ROWS.len()).collect();
        let (mut bytes, mut large, mut connections, mut rate) = (1 << 20, 4, 64, 2000.0);
        options.read(USAGE, |option, value| {
            let count = || value.parse().ok().filter(|count| *count > 0);
            let row = |name| ROWS.iter().position(|(known, ..)| *known == name);
            match option {
                "--rows" => rows = value.split(',').map(row).collect::<Option<_>>()?,
                "--bytes" => bytes = count()?,
                "--large" => large = count()?,
                "--connections" => connections = count()?,
                "--rate" => rate = value.parse().ok().filter(|rate| (1.0..1e6).contains(rate))?,
                _ => return None,
            }
            Some(())
        })?;
        Ok(Self { options, rows, bytes, large, connections, rate })
    }

    fn run(&self) -> Result<()> {
        let mut notes = Vec::new();
        let setting = self.options.setting(Children::One, &mut notes)?;
        let Setting { module: Some(module), cpu, .. } = setting else {
            eprintln!("the module is not built: cargo build --release");
            return Ok(());
        };
        let server = Server::httpd(&module, cpu, SITE, "/neighbour")?;
        let rows =
            self.rows.iter().map(|row| self.measure(&server, *row, cpu.is_some())).collect::<Result<Vec<_>>>()?;
        notes.extend(server.complaints());
        let settings = json!({
            "seconds": self.options.seconds, "rounds": self.options.rounds, "bytes": self.bytes, "large": self.large,
            "connections": self.connections, "rate": self.rate, "pinned": cpu.is_some(), "module": module,
        });
        let figures = json!({ "settings": settings, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() });
        report::give("neighbours", self.table(&rows), &notes, self.options.json.as_deref(), figures)
    }

    fn measure(&self, server: &Server, row: usize, spin: bool) -> Result<Row> {
        let (name, exchange, path) = ROWS[row];
        eprintln!("{name}");
        let time = Duration::from_secs_f64(self.options.seconds);
        let sockets = client::open(server.target, self.connections)?;
        let mut load = Load::new(sockets, Batch::new(64, 1), spin)?;
        load.verify()?;
        let mut large = Large::open(Target { path, ..server.target }, exchange, self.large, self.bytes)?;
        load.run_open(self.rate, time / 4)?;
        let mut row = Row { name, alone: Vec::new(), beside: Vec::new(), rate: Vec::new(), cpu: Vec::new() };
        for _ in 0..self.options.rounds {
            let cpu = server.cpu_time();
            let (_, times) = load.run_open(self.rate, time)?;
            let alone = server.cpu_time().seconds_since(&cpu);
            row.alone.extend(Latency::new(&times));
            let (messages, cpu) = (large.messages, server.cpu_time());
            large.begin()?;
            let (done, times) = load.run_open_beside(self.rate, time, Some(&mut large))?;
            let messages = (large.messages - messages).max(1) as f64;
            let beside = server.cpu_time().seconds_since(&cpu);
            large.end()?;
            row.beside.extend(Latency::new(&times));
            row.rate.push(messages / done.seconds);
            row.cpu.push((beside - alone) * 1e3 / messages);
        }
        Ok(row)
    }

    fn table(&self, rows: &[Row]) -> String {
        let mut table = format!(
            "\nLatency of 64 bytes at {} a second, beside messages of {} bytes, compressed (µs)\n\
             {:<10} | alone p50     p99 | beside p50     p99 |  p99 beside ÷ alone  (lowest-highest) |   /s   ms of CPU\n",
            self.rate, self.bytes, ""
        );
        for row in rows {
            let of =
                |samples: &[Latency], value: fn(&Latency) -> f64| median(samples.iter().map(value)).unwrap_or(f64::NAN);
            table += &format!(
                "{:<10} | {:>9.0} {:>7.0} | {:>10.0} {:>7.0} | {:>37} | {:>4.0} {:>10.2}\n",
                row.name,
                of(&row.alone, |l| l.p50),
                of(&row.alone, |l| l.p99),
                of(&row.beside, |l| l.p50),
                of(&row.beside, |l| l.p99),
                ratio_column(&row.ratios()),
                median(row.rate.iter().copied()).unwrap_or(f64::NAN),
                median(row.cpu.iter().copied()).unwrap_or(f64::NAN),
            );
        }
        table
    }
}

impl Row {
    /// Beside ÷ alone in each round, lowest first.
    fn ratios(&self) -> Vec<f64> {
        ratios(self.beside.iter().map(|latency| latency.p99), self.alone.iter().map(|latency| latency.p99))
    }

    fn json(&self) -> Value {
        let all = |samples: &[Latency]| {
            let latency = |l: &Latency| json!({ "p50": l.p50, "p99": l.p99, "highest": l.highest });
            samples.iter().map(latency).collect::<Vec<_>>()
        };
        json!({
            "row": self.name, "alone_us_of_rounds": all(&self.alone), "beside_us_of_rounds": all(&self.beside),
            "p99_ratio": median(self.ratios()), "p99_ratios": self.ratios(),
            "large_per_second": median(self.rate.iter().copied()), "large_cpu_ms": median(self.cpu.iter().copied()),
        })
    }
}
