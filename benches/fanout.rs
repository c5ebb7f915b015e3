//! CPU time per delivery of a message to many, and memory per subscriber: our channels inside httpd beside nginx with nchan.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! scripts/need-packages fanout nginx-light libnginx-mod-nchan
//! cargo bench --bench fanout
//! cargo bench --bench fanout -- --seconds 5 --rounds 9 --subscribers 500 --rates 50 --bytes 64 --json fanout.json
//! ```
//!
//! **Fan-out.** One channel, and that many subscribers. A message is published by POST on a kept-alive connection, one
//! after the other, and goes to every subscriber. What counts is the CPU time, user and system, of the server's *whole
//! process tree* (the publishing and httpd's parent and child are in ours) divided by the messages that subscribers got. The loads:
//!
//! * at full speed, the next message when all have got the last;
//! * at full speed, 16 messages under way: the requests do not wait for the answers to those before them;
//! * some messages a second, and in between nothing.
//!
//! Both servers run at once, on the same core, and the load generator on another one (if there is one). In each round
//! the subscribers are connected first to one server and then to the other, which sleeps meanwhile, as the descriptors of
//! the generator may not be enough for both. Every byte that a subscriber gets is compared with what is due: the benchmark fails when a message is
//! missing, doubled, changed or out of order. Neither server compresses, sends Pings or writes an access log; both
//! keep the last 10 messages.
//!
//! **Sides** (`--sides N` subscribers). One message under way. A program that sends the same bytes in a bare loop of send(2) to
//! as many sockets is the least that it can cost; beside it ours over TCP and over TLS, and of JSON as it is and compressed.
//! What counts is the CPU time of the process alone that sends: how much a publisher costs, `benches/publish.rs` says.
//!
//! **Memory.** A fresh server takes that many subscribers, each of which gets one message. What counts is the growth of
//! the process tree's memory (Pss) divided by the subscribers. Socket buffers in the kernel are not in it.
//!
//! **How to read it.** As `benches/echo.rs` says: ratios only, and *ours ÷ nchan*. Sending on a loopback interface is
//! also receiving: the kernel does most of the receiver's work, and wakes it, on the sender's account, on both sides alike.
//! A server whose clients are on other machines does not pay for that. With `--remote` this one does not either: everything
//! that arrives is steered to the generator's core (receive packet steering), in a network namespace, so that nothing
//! else on the machine is changed.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works: a few subscribers
//! and a fraction of a second, and only with what is there, the module and nchan.

mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use support::fanout::{DIGITS, FanOut};
use support::load::Pace;
use support::report::median;
use support::server::Server;
use support::testkit::installation::Installation;
use support::testkit::process::raise_descriptor_limit;
use support::{Result, bare, fanout_memory, fanout_sides, machine, report};

const USAGE: &str = "\
usage: cargo bench --bench fanout -- [options]
  --seconds S             load per server, row and round (default 2)
  --rounds N              rounds per row (default 5)
  --subscribers N[,N...]  how many (default 500,10000)
  --rates R[,R...]        messages a second of the slow load, for each number of subscribers (default 50,5)
  --bytes N               payload of a message, at least 16 (default 64)
  --sides N               subscribers beside a bare loop of send(2), over TLS and compressed, 0 for none (default 500)
  --memory N              subscribers for the memory row, 0 for none (default 10000)
  --only NAME             ours or nchan
  --remote                clients as if on another machine: their core does the receiving (as root; needs unshare, ip)
  --spin                  the generator never sleeps (see benches/echo.rs)
  --json FILE             where the JSON goes (default: bench/fanout.json in the target directory)
  --module FILE           the module (default: release/libmod_websocket.so in the target directory)";

/// What httpd serves. Pings are off as they are in nchan.
const OURS: &str = r#"KeepAliveTimeout 3600
MaxKeepAliveRequests 0
WebSocketOriginCheck Off
WebSocketPing Off
<Location "/sub">
Require all granted
WebSocketHandler channel bench
</Location>
<Location "/pub">
Require local
SetHandler websocket-publish
WebSocketChannelHistory 10 3600
</Location>
"#;

/// What nginx serves. A subscriber begins with the next message, as it does with us.
const NCHAN: &str = "\
location = /sub { nchan_subscriber websocket; nchan_channel_id bench; nchan_subscriber_first_message newest; }
location = /pub {
    nchan_publisher http; nchan_channel_id bench; nchan_message_buffer_length 10; nchan_message_timeout 1h;
}";

/// Messages under way under the second load.
const DEPTH: usize = 16;

/// Descriptors for everything but the subscribers.
const OTHER_DESCRIPTORS: u64 = 200;

/// What `--remote` becomes where it is done.
const STEERED: &str = "--steered";

/// Whose the work of receiving is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remote {
    /// The sender's, as is usual on a loopback interface.
    No,
    /// It is to be the generator's.
    Wanted,
    /// It is.
    Yes,
}

struct Options {
    seconds: f64,
    rounds: usize,
    /// Subscribers, and the messages a second of the slow load.
    sizes: Vec<(usize, f64)>,
    bytes: usize,
    sides: usize,
    memory: usize,
    only: Option<String>,
    remote: Remote,
    spin: bool,
    json: Option<PathBuf>,
    module: PathBuf,
    /// Only check that it works.
    smoke: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == bare::SERVE_BARE) {
        return finish(bare::serve());
    }
    let result = Options::parse(&arguments).and_then(|options| {
        if options.remote == Remote::Wanted {
            let steered = |argument: &String| if argument == "--remote" { STEERED.into() } else { argument.clone() };
            machine::run_steered(&arguments.iter().map(steered).collect::<Vec<_>>())
        } else {
            run(&options)
        }
    });
    finish(result)
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let smoke = !arguments.iter().any(|a| a == "--bench") || arguments.iter().any(|a| a == "--test");
        let module = Installation::built("release/libmod_websocket.so");
        let mut options = Self {
            seconds: if smoke { 0.2 } else { 2.0 },
            rounds: if smoke { 1 } else { 5 },
            sizes: Vec::new(),
            bytes: 64,
            sides: if smoke { 20 } else { 500 },
            memory: if smoke { 100 } else { 10_000 },
            only: None,
            remote: Remote::No,
            spin: false,
            json: if smoke { None } else { Some(Installation::built("bench/fanout.json")) },
            module,
            smoke,
        };
        let (mut subscribers, mut rates) = if smoke { ("20", "50") } else { ("500,10000", "50,5") };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" | "--test" => continue,
                "--spin" => {
                    options.spin = true;
                    continue;
                }
                "--remote" => {
                    options.remote = Remote::Wanted;
                    continue;
                }
                STEERED => {
                    options.remote = Remote::Yes;
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
                "--subscribers" => subscribers = value,
                "--rates" => rates = value,
                "--bytes" => options.bytes = number()?,
                "--sides" => options.sides = number()?,
                "--memory" => options.memory = number()?,
                "--only" if ["ours", "nchan"].contains(&value.as_str()) => options.only = Some(value.clone()),
                "--json" => options.json = Some(value.into()),
                "--module" => options.module = value.into(),
                _ => return Err(usage().into()),
            }
        }
        let wrong = |what: &str| format!("{what}\n{USAGE}");
        for (count, rate) in subscribers.split(',').zip(rates.split(',')) {
            let size = count.parse().ok().zip(rate.parse().ok());
            options.sizes.push(size.ok_or_else(|| wrong("--subscribers and --rates are lists of numbers"))?);
        }
        if subscribers.split(',').count() != rates.split(',').count() {
            return Err(wrong("as many --rates as --subscribers are needed").into());
        }
        let sizes_are_right = options.sizes.iter().all(|(count, rate)| *count > 0 && (0.01..1e6).contains(rate));
        if options.rounds == 0 || !sizes_are_right || !(0.01..=3600.0).contains(&options.seconds) {
            return Err(wrong("--seconds, --rounds, --subscribers and --rates must be more than nothing").into());
        }
        if options.bytes < DIGITS {
            return Err(wrong("--bytes: a message has room for its number").into());
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }
}

/// A server under test.
struct Candidate {
    server: Server,
    name: &'static str,
    /// Path and query of the publish location.
    publish: &'static str,
}

/// Those that are there and wanted, ours first.
fn candidates(options: &Options, cpu: Option<usize>) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    if options.wants("ours") && options.module.is_file() {
        let server = Server::httpd(&options.module.canonicalize()?, cpu, OURS, "/sub")?;
        candidates.push(Candidate { server, name: "ours", publish: "/pub?channel=bench" });
    }
    if options.wants("nchan")
        && let Some(server) = Server::nchan(cpu, NCHAN, "/sub")?
    {
        candidates.push(Candidate { server, name: "nchan", publish: "/pub" });
    }
    Ok(candidates)
}

fn run(options: &Options) -> Result<()> {
    let mut notes = Vec::new();
    if options.wants("ours") {
        if !options.module.is_file() {
            let message = format!("{} does not exist: run `cargo build --release` first", options.module.display());
            if !options.smoke {
                return Err(message.into());
            }
            notes.push(message);
        } else if let Some(newer) = machine::newer_source(&options.module) {
            notes
                .push(format!("the module is older than {}: `cargo build --release` makes a new one", newer.display()));
        }
    }
    let descriptors = raise_descriptor_limit().saturating_sub(OTHER_DESCRIPTORS) as usize;
    let mut fitting = |wanted: usize| {
        if descriptors < wanted {
            notes.push(format!("{descriptors} subscribers in place of {wanted}: the limit of open files (ulimit -Hn)"));
        }
        wanted.min(descriptors)
    };
    let sizes: Vec<(usize, f64)> = options.sizes.iter().map(|(count, rate)| (fitting(*count), *rate)).collect();
    let (counted, memory) = (fitting(options.sides), fitting(options.memory));
    let cpu = machine::pin_generator();
    if cpu.is_none() {
        notes.push("server and generator are not on cores of their own".into());
    }

    let candidates_now = candidates(options, cpu)?;
    let names: Vec<&str> = candidates_now.iter().map(|candidate| candidate.name).collect();
    if options.wants("nchan") && !names.contains(&"nchan") {
        notes.push("nginx with nchan is not there (Debian: nginx-light, libnginx-mod-nchan)".into());
    }
    let mut rows = Vec::new();
    for (count, rate) in sizes {
        rows.extend(fan_out(options, &candidates_now, count, rate)?);
    }
    notes.extend(candidates_now.iter().flat_map(|candidate| candidate.server.complaints()));
    drop(candidates_now);
    let mut text = fan_out_table(&rows);

    let mut sides = Vec::new();
    if counted > 0 && options.wants("ours") && options.module.is_file() {
        let module = &options.module.canonicalize()?;
        let (time, rounds, bytes) = (Duration::from_secs_f64(options.seconds), options.rounds, options.bytes);
        let settings = fanout_sides::Settings { module, cpu, subscribers: counted, bytes, time, rounds };
        let (measured, complaints) = fanout_sides::measure(&settings)?;
        notes.extend(complaints);
        text += &fanout_sides::table(&measured, counted);
        sides = measured;
    }
    let mut memory_rows = Vec::new();
    if memory > 0 {
        // Fresh ones: what the loads have made a server allocate is not the price of a subscriber.
        for candidate in candidates(options, cpu)? {
            let Candidate { server, name, publish } = candidate;
            eprintln!("{memory} subscribers, memory, {name}");
            memory_rows.push((name, fanout_memory::measure(&server, publish, memory, options.bytes)?));
        }
        text += &fanout_memory::table(&memory_rows);
    }
    let figures = json!({
        "settings": {
            "seconds": options.seconds, "rounds": options.rounds, "bytes": options.bytes, "depth": DEPTH,
            "remote": options.remote == Remote::Yes, "spin": options.spin, "pinned": cpu.is_some(), "module": options.module,
        },
        "fan_out": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "sides": fanout_sides::json(&sides),
        "memory": memory_rows.iter().map(|(name, row)| row.json(name)).collect::<Vec<_>>(),
    });
    report::give("fanout", text, &notes, options.json.as_deref(), figures)
}

/// One server under load for one round.
struct Sample {
    /// CPU microseconds of the process tree per delivery.
    cpu: f64,
    /// Deliveries a second.
    rate: f64,
    /// The share of one core that the server used.
    busy: f64,
}

/// One line of the fan-out table.
struct Row {
    subscribers: usize,
    load: String,
    ours: Vec<Sample>,
    nchan: Vec<Sample>,
}

fn fan_out(options: &Options, candidates: &[Candidate], count: usize, rate: f64) -> Result<Vec<Row>> {
    let time = Duration::from_secs_f64(options.seconds);
    let loads = [
        ("one under way".to_owned(), Pace::UnderWay(1)),
        (format!("{DEPTH} under way"), Pace::UnderWay(DEPTH)),
        (format!("{rate} a second"), Pace::EachSecond(rate)),
    ];
    let row = |load: &String| Row { subscribers: count, load: load.clone(), ours: Vec::new(), nchan: Vec::new() };
    let mut rows: Vec<Row> = loads.iter().map(|(load, _)| row(load)).collect();
    for round in 1..=options.rounds {
        for Candidate { server, name, publish } in candidates {
            eprintln!("{count} subscribers, round {round}, {name}");
            let mut subscribers = FanOut::open(server.target, publish, count, options.bytes, options.spin)?;
            subscribers.run(Pace::UnderWay(1), time / 4)?;
            for (row, (_, pace)) in rows.iter_mut().zip(&loads) {
                let before = server.cpu_time();
                let done = subscribers.run(*pace, time)?;
                let cpu = server.cpu_time().seconds_since(&before);
                let deliveries = done.messages as f64 * count as f64;
                let sample =
                    Sample { cpu: cpu * 1e6 / deliveries, rate: deliveries / done.seconds, busy: cpu / done.seconds };
                if *name == "ours" { row.ours.push(sample) } else { row.nchan.push(sample) }
            }
            subscribers.close(server.target, publish)?;
        }
    }
    Ok(rows)
}

impl Row {
    /// Ours ÷ nchan in each round, lowest first.
    fn ratios(&self) -> Vec<f64> {
        report::ratios(self.ours.iter().map(|s| s.cpu), self.nchan.iter().map(|s| s.cpu))
    }

    fn json(&self) -> Value {
        let side = |samples: &[Sample]| {
            json!({
                "cpu_us_per_delivery": median(samples.iter().map(|s| s.cpu)),
                "deliveries_per_second": median(samples.iter().map(|s| s.rate)),
                "busy": median(samples.iter().map(|s| s.busy)),
                "cpu_us_per_delivery_of_rounds": samples.iter().map(|s| s.cpu).collect::<Vec<_>>(),
            })
        };
        json!({
            "subscribers": self.subscribers, "load": self.load,
            "ours": side(&self.ours), "nchan": side(&self.nchan),
            "ratio": median(self.ratios()), "ratios": self.ratios(),
        })
    }
}

fn fan_out_table(rows: &[Row]) -> String {
    let mut table = String::from(
        "\nFan-out: CPU of the server's whole process tree, µs per delivery\n\
         subscribers  load          |   ours       /s    busy |  nchan       /s    busy |  ours ÷ nchan (lowest-highest)\n",
    );
    for row in rows {
        let side = |samples: &[Sample]| {
            let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
            match (of(|s| s.cpu), of(|s| s.rate), of(|s| s.busy)) {
                (Some(cpu), Some(rate), Some(busy)) => format!("{cpu:>6.2} {rate:>8.0} {:>5.0} %", busy * 100.0),
                _ => format!("{:>6} {:>8} {:>7}", "-", "-", "-"),
            }
        };
        let (ours, nchan, ratio) = (side(&row.ours), side(&row.nchan), report::ratio_column(&row.ratios()));
        table += &format!("{:>11}  {:<13} | {ours} | {nchan} | {ratio}\n", row.subscribers, row.load);
    }
    table
}
