//! Whether a site stays fast while the engine hangs and those who have lost it come back again and again.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench engine_late
//! cargo bench --bench engine_late -- --clients 1000 --spread 0 --rounds 5
//! ```
//!
//! httpd (event MPM, Debian's 150 workers in six children) is confined to one core, the load generator to another one (if there
//! is one). Clients try to open a WebSocket, close their connection as soon as they are refused, and come back a second
//! later; they come for the first time evenly within `--spread` seconds. Meanwhile a page of one kilobyte is fetched as in
//! `benches/site.rs`: at a steady rate, whether or not the page before has come, half of them on new connections, half on kept
//! ones, and the time counts from the moment when the page is due to its last byte.
//!
//! A round has two parts, with the same clients:
//!
//! * *quota*: `WebSocketMaxConnections 1` refuses them all, as one socket is open. This is what they cause by themselves. It
//!   takes about as long as the other part, as pages get slower while clients come and go.
//! * *late*: the engine is stopped with SIGSTOP as the first of them come, and stays so until httpd's parent replaces it
//!   (`WebSocketEngineTimeout`, 30 s unless `--directive` says something else, and the parent looks about every ten seconds).
//!   It ends when the first client gets in; then all of them have to.
//!
//! In the table stand the medians over the rounds, for the first second of either part and for all of it, and the ratio *late ÷
//! quota* of the 99th percentiles: the median of the rounds' ratios, and the lowest and the highest. A page that has not come after
//! ten seconds counts as one that took so long.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works: a few clients, and an
//! engine that goes on by itself soon; and nothing when the module is not built.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use support::client::{self, Target};
use support::page::{Pages, Times};
use support::report::{self, median, percentile};
use support::returning::{NO_ANSWER, Returning};
use support::server::{Children, Httpd, Server};
use support::testkit::installation::Installation;
use support::testkit::process::raise_descriptor_limit;
use support::{Result, idle, machine, proc};

const USAGE: &str = "\
usage: cargo bench --bench engine_late -- [options]
  --clients N        clients that come back (default 1000)
  --spread S         seconds within which they come for the first time; 0: all at once (default 1)
  --rate R           pages a second on new connections, and as many on kept ones (default 200)
  --seconds S        pages while a quota refuses the clients, for each round (default 30)
  --rounds N         rounds (default 3)
  --directive LINE   a line for httpd's configuration; may be repeated
  --json FILE        where the JSON goes (default: bench/engine_late.json in the target directory)
  --module FILE      the module (default: release/libmod_websocket.so in the target directory)";

/// A socket that does nothing stays open, so that the quota is used up.
const SITE: &str = "\
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
WebSocketPing Off
<Location \"/\">
Require all granted
</Location>
<LocationMatch \"^/(echo|full)$\">
WebSocketHandler echo
WebSocketOriginCheck Off
</LocationMatch>
<Location \"/full\">
WebSocketMaxConnections 1
</Location>
";

/// How long clients stay away that were refused.
const PAUSE: Duration = Duration::from_secs(1);

/// How long pages under way at the end are waited for, and what one counts as that has not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that is not replaced by then is not going to be.
const AT_MOST: Duration = Duration::from_secs(180);

/// And how long a check leaves it stopped.
const SHORTLY: Duration = Duration::from_millis(300);

/// How long it may take until all clients are in again.
const RETURN: Duration = Duration::from_secs(30);

/// Between two parts, in which httpd closes what is left of the clients.
const REST: Duration = Duration::from_secs(3);

/// What an engine that is late has the log say: late, answers again, too many wait, replaced (three lines).
const EXPECTED: [&str; 6] = ["WS0165: ", "WS0166: ", "WS0167: ", "WS0168: ", "WS0169: ", "WS0201: "];

struct Options {
    clients: usize,
    spread: f64,
    rate: f64,
    seconds: f64,
    rounds: usize,
    /// Lines of the configuration.
    directives: String,
    json: Option<PathBuf>,
    module: PathBuf,
    /// Only check that it works.
    smoke: bool,
}

fn main() -> ExitCode {
    match Options::parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engine_late: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let smoke = !arguments.iter().any(|a| a == "--bench") || arguments.iter().any(|a| a == "--test");
        let mut options = Self {
            clients: if smoke { 20 } else { 1000 },
            spread: if smoke { 0.1 } else { 1.0 },
            rate: 200.0,
            seconds: if smoke { 0.3 } else { 30.0 },
            rounds: if smoke { 1 } else { 3 },
            directives: String::new(),
            json: (!smoke).then(|| Installation::built("bench/engine_late.json")),
            module: Installation::built("release/libmod_websocket.so"),
            smoke,
        };
        let mut arguments = arguments.iter().filter(|argument| !["--bench", "--test"].contains(&argument.as_str()));
        while let Some(argument) = arguments.next() {
            let usage = || format!("{argument}: not understood\n{USAGE}");
            let value = arguments.next().ok_or_else(usage)?;
            let number = |lowest: f64, highest: f64| {
                value.parse().ok().filter(|number| (lowest..=highest).contains(number)).ok_or_else(usage)
            };
            match argument.as_str() {
                "--clients" => options.clients = number(1.0, 10_000.0)? as usize,
                "--spread" => options.spread = number(0.0, 60.0)?,
                "--rate" => options.rate = number(1.0, 1e5)?,
                "--seconds" => options.seconds = number(0.1, 3600.0)?,
                "--rounds" => options.rounds = number(1.0, 1000.0)? as usize,
                "--directive" => options.directives += &format!("{value}\n"),
                "--json" => options.json = Some(value.into()),
                "--module" => options.module = value.into(),
                _ => return Err(usage().into()),
            }
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<()> {
    if !options.module.is_file() {
        let message = format!("{} does not exist: run `cargo build --release` first", options.module.display());
        if !options.smoke {
            return Err(message.into());
        }
        eprintln!("engine_late: {message}; nothing is tried");
        return Ok(());
    }
    let module = options.module.canonicalize()?;
    let mut notes = Vec::new();
    if let Some(newer) = machine::newer_source(&module) {
        notes.push(format!("the module is older than {}: `cargo build --release` makes a new one", newer.display()));
    }
    raise_descriptor_limit();
    let cpu = machine::pin_generator();
    if cpu.is_none() {
        notes.push("server and generator are not on cores of their own".into());
    }
    // A sleep until a page is due shall end then, and not some 50 µs later.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;

    let site = [SITE, &options.directives].concat();
    let (module, children) = (Some(module.as_path()), Children::Six);
    let server = Httpd { module, modules: &[], site: &site, path: "/echo", tls: false, children, cpu }.start()?;
    let mut bench = Bench { options, pages: Pages::new(server.target)?, server, opened: 0 };
    // All that is there on first use, and the kept connections.
    bench.pages.fetch(2.0 * options.rate, Duration::from_secs(1), PATIENCE, None)?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        eprintln!("round {number} of {}", options.rounds);
        rounds.push(Round { quota: bench.quota()?, late: bench.late()? });
    }
    let expected = |line: &String| EXPECTED.iter().any(|id| line.contains(id));
    notes.extend(bench.server.complaints().into_iter().filter(|line| !expected(line)));

    let text = table(&rounds);
    let figures = json!({
        "settings": {
            "clients": options.clients, "spread": options.spread, "rate": options.rate, "seconds": options.seconds,
            "rounds": options.rounds, "directives": options.directives, "pinned": cpu.is_some(), "module": module,
        },
        "spans": SPANS.map(|span| span.json(&rounds)),
        "rounds": rounds.iter().map(Round::json).collect::<Vec<_>>(),
    });
    report::give("engine_late", text, &notes, options.json.as_deref(), figures)
}

struct Bench<'a> {
    options: &'a Options,
    server: Server,
    pages: Pages,
    /// Connections of clients so far.
    opened: usize,
}

/// The pages beside the clients.
struct Part {
    start: Instant,
    /// How long it was.
    seconds: f64,
    /// When each page was due, and its milliseconds.
    pages: Vec<(Instant, f64)>,
    missing: usize,
    /// What the clients were answered meanwhile.
    answers: BTreeMap<u16, usize>,
    /// How long it took after that until all clients were in.
    all_in: Option<f64>,
}

struct Round {
    quota: Part,
    late: Part,
}

impl Bench<'_> {
    fn clients(&self, path: &'static str) -> Result<Returning> {
        let target = Target { path, ..self.server.target };
        let spread = Duration::from_secs_f64(self.options.spread);
        Returning::new(target, self.options.clients, spread, PAUSE, self.opened)
    }

    fn fetch(&mut self, time: Duration, clients: &mut Returning) -> Result<Times> {
        self.pages.fetch(2.0 * self.options.rate, time, PATIENCE, Some(clients))
    }

    fn quota(&mut self) -> Result<Part> {
        std::thread::sleep(REST);
        let holder = client::open(Target { path: "/full", ..self.server.target }, 1)?;
        let (start, mut clients) = (Instant::now(), self.clients("/full")?);
        let times = self.fetch(Duration::from_secs_f64(self.options.seconds), &mut clients)?;
        drop(holder);
        self.opened = clients.opened();
        if clients.first_in.is_some() {
            return Err("the quota has let a client in".into());
        }
        Ok(Part::new(start, self.options.seconds, times, clients.answers))
    }

    fn late(&mut self) -> Result<Part> {
        std::thread::sleep(REST);
        let engine = self.engine()?;
        let (start, mut clients) = (Instant::now(), self.clients("/echo")?);
        kill_process(engine, Signal::STOP)?;
        let times = self.fetch(if self.options.smoke { SHORTLY } else { AT_MOST }, &mut clients)?;
        if self.options.smoke {
            kill_process(engine, Signal::CONT)?;
        } else if clients.first_in.is_none() {
            // httpd ends it when it ends itself.
            return Err(format!("the engine was not replaced within {} s", AT_MOST.as_secs()).into());
        }
        let answers = clients.answers.clone();
        let all_in = clients.all_in(RETURN)?;
        self.opened = clients.opened();
        let Some(all_in) = all_in else {
            return Err(format!("not all clients were in after {} s: {:?}", RETURN.as_secs(), clients.answers).into());
        };
        let end = clients.first_in.unwrap_or(start);
        let mut part = Part::new(start, end.duration_since(start).as_secs_f64(), times, answers);
        part.all_in = Some(all_in.as_secs_f64());
        eprintln!("  replaced after {:.1} s, all in {:.1} s later", part.seconds, all_in.as_secs_f64());
        Ok(part)
    }

    fn engine(&self) -> Result<Pid> {
        let engines = proc::named(self.server.pid(), idle::ENGINE);
        match engines[..] {
            [engine] => Pid::from_raw(engine as i32).ok_or_else(|| "no pid".into()),
            _ => Err(format!("one engine was expected, not {engines:?}").into()),
        }
    }
}

impl Part {
    fn new(start: Instant, seconds: f64, times: Times, answers: BTreeMap<u16, usize>) -> Self {
        Self { start, seconds, pages: times.all, missing: times.missing, answers, all_in: None }
    }

    /// The milliseconds of the pages that were due within so many seconds.
    fn within(&self, seconds: f64) -> Vec<f64> {
        let end = self.start + Duration::from_secs_f64(seconds.min(self.seconds));
        let mut times: Vec<f64> = self.pages.iter().filter(|(due, _)| *due < end).map(|(_, time)| *time).collect();
        if seconds >= self.seconds {
            times.extend(std::iter::repeat_n(PATIENCE.as_secs_f64() * 1e3, self.missing));
        }
        times
    }

    /// The 99th percentile of each second.
    fn p99_of_seconds(&self) -> Vec<Option<f64>> {
        let mut seconds = vec![Vec::new(); self.seconds.ceil() as usize];
        for (due, time) in &self.pages {
            if let Some(times) = seconds.get_mut(due.duration_since(self.start).as_secs() as usize) {
                times.push(*time);
            }
        }
        seconds.iter().map(|times| percentile(times, 0.99)).collect()
    }

    fn json(&self) -> Value {
        let answers: BTreeMap<String, usize> = self.answers.iter().map(|(status, n)| (name(*status), *n)).collect();
        json!({
            "seconds": self.seconds, "pages": self.pages.len(), "pages_missing": self.missing, "answers": answers,
            "all_in_seconds": self.all_in, "p99_ms_of_seconds": self.p99_of_seconds(),
        })
    }
}

impl Round {
    fn json(&self) -> Value {
        json!({ "quota": self.quota.json(), "late": self.late.json() })
    }
}

/// The same time of both parts.
#[derive(Clone, Copy)]
struct Span {
    name: &'static str,
    seconds: f64,
}

const SPANS: [Span; 2] =
    [Span { name: "the first second", seconds: 1.0 }, Span { name: "until replaced", seconds: f64::INFINITY }];

impl Span {
    fn of(self, part: &Part, share: f64) -> Option<f64> {
        percentile(&part.within(self.seconds), share)
    }

    /// Of the quota and of the late engine, the rounds in their order.
    fn rounds(self, rounds: &[Round], share: f64) -> [Vec<f64>; 2] {
        let of = |part: fn(&Round) -> &Part| rounds.iter().filter_map(|round| self.of(part(round), share)).collect();
        [of(|round| &round.quota), of(|round| &round.late)]
    }

    fn ratios(self, rounds: &[Round]) -> Vec<f64> {
        let [quota, late] = self.rounds(rounds, 0.99);
        report::ratios(late, quota)
    }

    fn json(self, rounds: &[Round]) -> Value {
        let side = |index: usize| {
            let [p50, p99, highest] = [0.5, 0.99, 1.0].map(|share| self.rounds(rounds, share)[index].clone());
            json!({
                "p50_ms": median(p50), "p99_ms": median(p99.iter().copied()), "p99_ms_of_rounds": p99,
                "highest_ms": median(highest),
            })
        };
        let ratios = self.ratios(rounds);
        json!({
            "span": self.name, "quota": side(0), "late": side(1), "ratio_p99": median(ratios.iter().copied()),
            "ratios_p99": ratios,
        })
    }
}

fn name(status: u16) -> String {
    if status == NO_ANSWER { "none".into() } else { status.to_string() }
}

fn table(rounds: &[Round]) -> String {
    let mut table = String::from(
        "\nPages: milliseconds from when it is due to its last byte, while a quota refuses the clients and while the engine is late\n\
         span              |  p50 quota   late |  p99 quota   late |  highest quota    late |  p99 late ÷ quota (lowest-highest)\n",
    );
    for span in SPANS {
        let values = |share| {
            span.rounds(rounds, share)
                .map(|values| median(values).map_or_else(|| "-".into(), |milliseconds| format!("{milliseconds:.2}")))
        };
        let [[quota50, late50], [quota99, late99], [quota, late]] = [0.5, 0.99, 1.0].map(values);
        table += &format!(
            "{:<17} | {quota50:>10} {late50:>6} | {quota99:>10} {late99:>6} | {quota:>14} {late:>7} | {}\n",
            span.name,
            report::ratio_column(&span.ratios(rounds))
        );
    }
    let of = |part: &Part| {
        let answers: Vec<String> = part.answers.iter().map(|(status, n)| format!("{} {n}", name(*status))).collect();
        format!(
            "{:.1} s, {} pages, {} missing, clients: {}",
            part.seconds,
            part.pages.len(),
            part.missing,
            answers.join(", ")
        )
    };
    for round in rounds {
        let all_in = round.late.all_in.unwrap_or_default();
        table += &format!("quota {}; late {}, all in {all_in:.1} s later\n", of(&round.quota), of(&round.late));
    }
    table
}
