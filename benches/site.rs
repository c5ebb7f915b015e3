//! Whether a site stays fast while thousands of WebSockets are open, and what each of them costs.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench site
//! cargo bench --bench site -- --seconds 10 --rounds 9 --idle 10000 --echo 1000 --schemes wss --json site.json
//! cargo bench --bench site -- --scale 19000
//! ```
//!
//! **Pages.** Two httpds with the same configuration (event MPM, Debian's 150 workers in six children) run side by side on
//! one core, the load generator on another one (if there is one). WebSockets are opened on one of them: idle ones, which
//! answer the server's Pings, or ones that echo 64 bytes each second. Meanwhile a page of one kilobyte is fetched from the
//! one and from the other in turn, a fifth of a second each, at a steady rate, whether or not the page before has come: half of them
//! each on a new connection, half on kept ones. The time counts from the moment when the page is due to its last byte; on
//! a new connection the handshakes of TCP and TLS are in it. In the table stand the medians over the rounds, and the
//! ratio *with ÷ without sockets* of the 99th percentiles: the median of the rounds' ratios, and the lowest and the highest.
//!
//! Beside it the same for httpd's mod_proxy_wstunnel, with a tokio-tungstenite server behind it. A row is refused where the
//! sockets do not open, and says after how many; pages are then fetched for a second, and counted if they do not come.
//!
//! **Memory.** As in `benches/echo.rs`: the growth of the process tree's memory (Pss) divided by the idle sockets, over TCP
//! and over TLS, and how much of it is the engine's. httpd has one child here.
//!
//! **Scale** (`--scale N`, alone). That many sockets on one engine: all of them open, each echoes a message at the beginning
//! and at the end, and what they cost: in the processes; in the kernel (as root), where client and server have a socket
//! each on this machine; and in CPU time while the server does nothing but ask with Pings who is still there.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works: a few sockets and
//! a fraction of a second a row, and nothing when the module is not built.

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::crowd::Crowd;
use support::kernel::{Kernel, PerSocket};
use support::page::{Pages, Times};
use support::proc::{self, CpuTime};
use support::report::{median, percentile};
use support::serve::{SERVE_PEER, serve_peer};
use support::server::{Children, Httpd, Server};
use support::testkit::installation::Installation;
use support::testkit::process::raise_descriptor_limit;
use support::{Result, idle, machine, report};

const USAGE: &str = "\
usage: cargo bench --bench site -- [options]
  --schemes S[,S]    ws and wss (default ws,wss)
  --only NAME        pages of ours or of wstunnel
  --idle N[,N...]    idle sockets beside the pages, or none (default 0,100,1000,10000)
  --echo N[,N...]    sockets that echo a message a second beside the pages, or none (default 100,1000)
  --rate R           pages a second on new connections, and as many on kept ones (default 200)
  --seconds S        pages with and without sockets, each, for each row and round (default 5)
  --rounds N         rounds per row (default 5)
  --memory N,N       idle sockets for the memory rows of ws and wss, 0 for none (default 10000,2000)
  --scale N          only this: so many sockets on one engine
  --watch S          how long --scale looks at the Pings (default 65)
  --directive LINE   a line for the configuration of every httpd; may be repeated
  --json FILE        where the JSON goes (default: bench/site.json in the target directory)
  --module FILE      the module (default: release/libmod_websocket.so in the target directory)";

/// What httpd serves, beside the WebSockets.
const SITE: &str = "\
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
<Location \"/\">
Require all granted
</Location>
";

const ECHO: &str = "\
<Location \"/echo\">
WebSocketHandler echo
WebSocketOriginCheck Off
</Location>
";

/// Seconds for which pages come from one of the two servers: so short that what else the machine does hits both.
const SLICE: f64 = 0.2;

/// How often the sockets that echo say something.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long pages under way at the end are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

struct Options {
    schemes: Vec<String>,
    only: Option<String>,
    idle: Vec<usize>,
    echo: Vec<usize>,
    rate: f64,
    seconds: f64,
    rounds: usize,
    /// Of ws and of wss.
    memory: [usize; 2],
    scale: usize,
    watch: f64,
    /// Lines of every configuration.
    directives: String,
    json: Option<PathBuf>,
    module: PathBuf,
    /// Only check that it works.
    smoke: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = if arguments.iter().any(|argument| argument == SERVE_PEER) {
        serve_peer()
    } else {
        Options::parse(&arguments).and_then(|options| run(&options))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("site: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let smoke = !arguments.iter().any(|a| a == "--bench") || arguments.iter().any(|a| a == "--test");
        let mut options = Self {
            schemes: vec!["ws".into(), "wss".into()],
            only: None,
            idle: if smoke { vec![20] } else { vec![0, 100, 1000, 10_000] },
            echo: if smoke { vec![20] } else { vec![100, 1000] },
            rate: 200.0,
            seconds: if smoke { 0.1 } else { 5.0 },
            rounds: if smoke { 1 } else { 5 },
            memory: if smoke { [0, 50] } else { [10_000, 2000] },
            scale: 0,
            watch: if smoke { 1.0 } else { 65.0 },
            directives: String::new(),
            json: if smoke { None } else { Some(Installation::built("bench/site.json")) },
            module: Installation::built("release/libmod_websocket.so"),
            smoke,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if ["--bench", "--test"].contains(&argument.as_str()) {
                continue;
            }
            let usage = || format!("{argument}: not understood\n{USAGE}");
            let value = arguments.next().ok_or_else(usage)?;
            let number = || value.parse::<usize>().map_err(|_| usage());
            let list = || match value.as_str() {
                "none" => Ok(Vec::new()),
                list => list.split(',').map(|n| n.parse().map_err(|_| usage())).collect::<std::result::Result<_, _>>(),
            };
            match argument.as_str() {
                "--schemes" => options.schemes = value.split(',').map(String::from).collect(),
                "--only" if ["ours", "wstunnel"].contains(&value.as_str()) => options.only = Some(value.clone()),
                "--idle" => options.idle = list()?,
                "--echo" => options.echo = list()?,
                "--rate" => options.rate = value.parse().map_err(|_| usage())?,
                "--seconds" => options.seconds = value.parse().map_err(|_| usage())?,
                "--rounds" => options.rounds = number()?,
                "--memory" => options.memory = list()?.try_into().map_err(|_| usage())?,
                "--scale" => options.scale = number()?,
                "--watch" => options.watch = value.parse().map_err(|_| usage())?,
                "--directive" => options.directives += &format!("{value}\n"),
                "--json" => options.json = Some(value.into()),
                "--module" => options.module = value.into(),
                _ => return Err(usage().into()),
            }
        }
        if !options.schemes.iter().all(|scheme| ["ws", "wss"].contains(&scheme.as_str())) {
            return Err(format!("--schemes: ws, wss or both\n{USAGE}").into());
        }
        let times_are_right = (0.01..=3600.0).contains(&options.seconds) && (0.01..=86_400.0).contains(&options.watch);
        if options.rounds == 0 || !times_are_right || !(1.0..=1e5).contains(&options.rate) {
            return Err(format!("--rate, --seconds, --rounds and --watch must be more than nothing\n{USAGE}").into());
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }
}

fn run(options: &Options) -> Result<()> {
    if !options.module.is_file() {
        let message = format!("{} does not exist: run `cargo build --release` first", options.module.display());
        if !options.smoke {
            return Err(message.into());
        }
        eprintln!("site: {message}; nothing is tried");
        return Ok(());
    }
    let module = options.module.canonicalize()?;
    let mut notes = Vec::new();
    if let Some(newer) = machine::newer_source(&module) {
        notes.push(format!("the module is older than {}: `cargo build --release` makes a new one", newer.display()));
    }
    let descriptors = raise_descriptor_limit();
    let cpu = machine::pin_generator();
    if cpu.is_none() {
        notes.push("server and generator are not on cores of their own".into());
    }
    // A sleep until a page is due shall end then, and not some 50 µs later.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;

    let (mut text, mut rows, mut memory, mut scale_row) = (String::new(), Vec::new(), Vec::new(), None);
    if options.scale > 0 || options.smoke {
        let wanted = if options.smoke { 50 } else { options.scale };
        let row = scale(options, idle::possible(wanted, descriptors, &mut notes), &module, cpu, &mut notes)?;
        text += &row.text();
        scale_row = Some(row.json());
    }
    if options.scale == 0 {
        for scheme in &options.schemes {
            for (name, is_ours) in [("ours", true), ("wstunnel", false)] {
                if options.wants(name) {
                    let module = is_ours.then_some(module.as_path());
                    rows.extend(pages(options, name, module, scheme, descriptors, cpu, &mut notes)?);
                }
            }
        }
        text += &pages_table(&rows);
        for (scheme, name, wanted) in [("ws", "ours, ws", options.memory[0]), ("wss", "ours, wss", options.memory[1])] {
            if wanted == 0 || !options.schemes.iter().any(|wish| wish == scheme) {
                continue;
            }
            let connections = idle::possible(wanted, descriptors, &mut notes);
            let server = start(
                Some(&module),
                scheme == "wss",
                Children::One,
                connections,
                cpu,
                &site(ECHO, &options.directives),
            )?;
            memory.push((name, idle::measure(connections, &server, server.target)?));
            notes.extend(server.complaints());
        }
        text += &idle::table(&memory);
    }
    let figures = json!({
        "settings": {
            "seconds": options.seconds, "rounds": options.rounds, "rate": options.rate, "idle": options.idle,
            "echo": options.echo, "directives": options.directives, "pinned": cpu.is_some(), "module": module,
        },
        "pages": rows.iter().flat_map(Row::json).collect::<Vec<_>>(),
        "memory": memory.iter().map(|(name, row)| row.json(name)).collect::<Vec<_>>(),
        "scale": scale_row,
    });
    report::give("site", text, &notes, options.json.as_deref(), figures)
}

/// A site with WebSockets.
fn site(sockets: &str, more: &str) -> String {
    [SITE, sockets, more].concat()
}

/// An httpd that takes so many sockets; without the module it passes them on, as `site` says.
fn start(
    module: Option<&Path>,
    tls: bool,
    children: Children,
    sockets: usize,
    cpu: Option<usize>,
    site: &str,
) -> Result<Server> {
    let threads = match children {
        Children::One => 25,
        Children::Six => 150,
    };
    // Twice as many as needed, as the children do not get equal shares.
    let factor = format!("AsyncRequestWorkerFactor {}\n", (2 * sockets).div_ceil(threads).max(2));
    let site = if tls { format!("{factor}{site}") } else { site.into() };
    let modules: &[&str] = if module.is_some() { &[] } else { &["proxy", "proxy_wstunnel"] };
    Httpd { module, modules, site: &site, path: "/echo", tls, children, cpu }.start()
}

/// What the sockets do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sockets {
    Idle(usize),
    Echo(usize),
}

impl Sockets {
    fn count(self) -> usize {
        match self {
            Self::Idle(count) | Self::Echo(count) => count,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Idle(count) => format!("{count} idle"),
            Self::Echo(count) => format!("{count} echo"),
        }
    }
}

/// Pages of one server beside some sockets.
struct Row {
    server: &'static str,
    scheme: String,
    sockets: Sockets,
    /// Of each round.
    without: Vec<Times>,
    with: Vec<Times>,
    refused: Option<Refused>,
}

/// The sockets did not all open.
struct Refused {
    opened: usize,
    why: String,
    /// Pages asked for then, and those that did not come.
    pages: usize,
    missing: usize,
}

fn pages(
    options: &Options,
    name: &'static str,
    module: Option<&Path>,
    scheme: &str,
    descriptors: u64,
    cpu: Option<usize>,
    notes: &mut Vec<String>,
) -> Result<Vec<Row>> {
    let loads = options.idle.iter().map(|n| Sockets::Idle(*n)).chain(options.echo.iter().map(|n| Sockets::Echo(*n)));
    let loads: Vec<Sockets> = loads.collect();
    let most = loads.iter().map(|load| load.count()).max().unwrap_or(0);
    let backend = if module.is_none() { Some(Server::peer(cpu)?) } else { None };
    let sockets = match &backend {
        // An idle socket is not closed after a minute.
        Some(backend) => {
            let port = backend.target.address.port();
            format!("ProxyTimeout 3600\nProxyPass \"/echo\" \"ws://127.0.0.1:{port}/\"\n")
        }
        None => ECHO.into(),
    };
    let start = || start(module, scheme == "wss", Children::Six, most, cpu, &site(&sockets, &options.directives));
    let servers = [start()?, start()?];
    let mut rows = Vec::new();
    for load in loads {
        eprintln!("pages, {name}, {scheme}, {}", load.name());
        let count = idle::possible(load.count(), descriptors, notes);
        let mut row = Row {
            server: name,
            scheme: scheme.into(),
            sockets: if matches!(load, Sockets::Idle(_)) { Sockets::Idle(count) } else { Sockets::Echo(count) },
            without: Vec::new(),
            with: Vec::new(),
            refused: None,
        };
        row.measure(options, &servers, backend.is_some())?;
        rows.push(row);
    }
    for complaint in servers.iter().flat_map(Server::complaints) {
        notes.push(format!("{name}, {scheme}: {complaint}"));
    }
    Ok(rows)
}

impl Row {
    /// Without sockets on the first server, with them on the second.
    fn measure(&mut self, options: &Options, servers: &[Server; 2], may_refuse: bool) -> Result<()> {
        let mut crowd = Crowd::new(servers[1].target)?;
        let mut pages = [Pages::new(servers[0].target)?, Pages::new(servers[1].target)?];
        let slices = (options.seconds / SLICE).ceil() as usize;
        let slice = Duration::from_secs_f64(options.seconds / slices as f64);
        let rate = 2.0 * options.rate;
        // One by one, so that the number of those that open is known.
        let step = if may_refuse { 1 } else { self.sockets.count().max(1) };
        while crowd.len() < self.sockets.count() {
            let Err(error) = crowd.grow(step) else { continue };
            if !may_refuse {
                return Err(error);
            }
            let times = pages[1].fetch(rate, Duration::from_secs_f64(options.seconds.min(1.0)), PATIENCE, None)?;
            self.refused = Some(Refused {
                opened: crowd.len(),
                why: match error.downcast_ref::<io::Error>() {
                    // How a read timeout ends.
                    Some(error) if error.kind() == io::ErrorKind::WouldBlock => "no answer for 5 s".into(),
                    _ => error.to_string(),
                },
                pages: times.new.len() + times.kept.len() + times.missing,
                missing: times.missing,
            });
            return Ok(());
        }
        crowd.verify()?;
        for round in 0..=options.rounds {
            let mut times = [Times::default(), Times::default()];
            for slice_number in 0..slices {
                let first = (round + slice_number) % 2;
                for with in [first, 1 - first] {
                    if with == 1 && matches!(self.sockets, Sockets::Echo(_)) {
                        crowd.chat(Some(INTERVAL))?;
                    }
                    times[with].extend(pages[with].fetch(rate, slice, PATIENCE, Some(&mut crowd))?);
                    crowd.chat(None)?;
                }
            }
            let [without, with] = times;
            // The first round warms up.
            if round > 0 {
                self.without.push(without);
                self.with.push(with);
            }
        }
        crowd.verify()
    }

    /// With ÷ without in each round, lowest first.
    fn ratios(&self, kind: Kind) -> Vec<f64> {
        let p99 = |times: &[Times]| -> Vec<f64> {
            times.iter().filter_map(|times| percentile(kind.of(times), 0.99)).collect()
        };
        report::ratios(p99(&self.with), p99(&self.without))
    }

    fn json(&self) -> Vec<Value> {
        if let Some(refused) = &self.refused {
            return vec![json!({
                "server": self.server, "scheme": self.scheme, "sockets": self.sockets.name(), "opened": refused.opened,
                "refused": refused.why, "pages": refused.pages, "pages_missing": refused.missing,
            })];
        }
        let kinds = KINDS.map(|kind| {
            let side = |times: &[Times]| {
                json!({
                    "p50_ms": kind.median(times, 0.5), "p99_ms": kind.median(times, 0.99),
                    "p99_ms_of_rounds": times.iter().map(|times| percentile(kind.of(times), 0.99)).collect::<Vec<_>>(),
                    "pages": times.iter().map(|times| kind.of(times).len()).sum::<usize>(),
                    "pages_missing": times.iter().map(|times| times.missing).sum::<usize>(),
                    "pages_asked_for_again": times.iter().map(|times| times.again).sum::<usize>(),
                })
            };
            json!({
                "server": self.server, "scheme": self.scheme, "sockets": self.sockets.name(), "connection": kind.name,
                "without": side(&self.without), "with": side(&self.with),
                "ratio_p99": median(self.ratios(kind)), "ratios_p99": self.ratios(kind),
            })
        });
        kinds.into()
    }
}

/// Pages on new or on kept connections.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    times: fn(&Times) -> &Vec<f64>,
}

const KINDS: [Kind; 2] =
    [Kind { name: "new", times: |times| &times.new }, Kind { name: "kept", times: |times| &times.kept }];

impl Kind {
    fn of(self, times: &Times) -> &[f64] {
        (self.times)(times)
    }

    /// The median over rounds of a percentile.
    fn median(self, rounds: &[Times], share: f64) -> Option<f64> {
        median(rounds.iter().filter_map(|times| percentile(self.of(times), share)))
    }
}

fn pages_table(rows: &[Row]) -> String {
    let mut table = String::from(
        "\nPages: milliseconds from when it is due to its last byte, without sockets and with them\n\
         server    scheme  sockets     connection |  p50 without   with |  p99 without   with |  p99 with ÷ without (lowest-highest)\n",
    );
    for row in rows {
        let begin = format!("{:<8}  {:<6}  {:<10}", row.server, row.scheme, row.sockets.name());
        if let Some(Refused { opened, why, pages, missing }) = &row.refused {
            table +=
                &format!("{begin}  refused after {opened} ({why}); then {missing} of {pages} pages did not come\n");
            continue;
        }
        for kind in KINDS {
            let value = |times: &[Times], share| {
                kind.median(times, share).map_or_else(|| "-".into(), |milliseconds| format!("{milliseconds:.2}"))
            };
            let pair = |share| format!("{:>12} {:>6}", value(&row.without, share), value(&row.with, share));
            let (p50, p99, ratio) = (pair(0.5), pair(0.99), report::ratio_column(&row.ratios(kind)));
            table += &format!("{begin}  {:<10} | {p50} | {p99} | {ratio}\n", kind.name);
        }
        let missing: usize = row.without.iter().chain(&row.with).map(|times| times.missing).sum();
        if missing > 0 {
            table += &format!("{begin}  {missing} pages did not come\n");
        }
    }
    table
}

/// Many sockets on one engine.
struct Scale {
    sockets: usize,
    /// Until all were open and had echoed a message.
    open_seconds: f64,
    bytes: f64,
    engine_bytes: f64,
    kernel: PerSocket,
    watch: f64,
    pings: u64,
    /// CPU seconds of the process tree while it was watched.
    cpu: f64,
}

fn scale(
    options: &Options,
    sockets: usize,
    module: &Path,
    cpu: Option<usize>,
    notes: &mut Vec<String>,
) -> Result<Scale> {
    eprintln!("{sockets} sockets on one engine");
    let ping = if options.smoke { "WebSocketPing 1 5\n" } else { "" };
    let lines = format!("{ping}{}", options.directives);
    let server = start(Some(module), false, Children::One, sockets, cpu, &site(ECHO, &lines))?;
    drop(Crowd::open(server.target, (sockets / 100).clamp(1, 64))?);
    let bytes = server.settled_memory()?;
    let engine_bytes = proc::memory_of(server.pid(), idle::ENGINE)?;
    let (kernel, start) = (Kernel::now(), Instant::now());
    let mut crowd = Crowd::open(server.target, sockets)?;
    let open_seconds = start.elapsed().as_secs_f64();
    // What was under way is gone from the kernel's buffers.
    crowd.stay(Duration::from_secs(1))?;
    let kernel = Kernel::now().per_socket(&kernel, 2 * sockets);
    let each = |after: u64, before: u64| (after as f64 - before as f64) / sockets as f64;
    let bytes = each(proc::memory(server.pid())?, bytes);
    let engine_bytes = each(proc::memory_of(server.pid(), idle::ENGINE)?, engine_bytes);
    let (cpu, pings) = (CpuTime::of_tree(server.pid()), crowd.pings());
    crowd.stay(Duration::from_secs_f64(options.watch))?;
    let cpu = CpuTime::of_tree(server.pid()).seconds_since(&cpu);
    let pings = crowd.pings() - pings;
    crowd.verify()?;
    notes.extend(server.complaints());
    Ok(Scale { sockets, open_seconds, bytes, engine_bytes, kernel, watch: options.watch, pings, cpu })
}

impl Scale {
    fn text(&self) -> String {
        let Self { sockets, open_seconds, bytes, engine_bytes, kernel, watch, pings, cpu } = self;
        let mut text = format!(
            "\n{sockets} sockets on one engine, all open after {open_seconds:.1} s, each with an echo then and at the end\n\
             memory of all processes  {bytes:>8.0} bytes each, {engine_bytes:.0} of them in the engine\n\
             memory of the kernel     {:>8.0} bytes each (the client's end costs the same): buffers {:.0}",
            kernel.bytes(),
            kernel.buffers
        );
        for (name, bytes) in &kernel.objects {
            text += &format!(", {name} {bytes}");
        }
        let each = if *pings > 0 { cpu * 1e6 / *pings as f64 } else { 0.0 };
        text += &format!(
            "\nCPU while idle           {:>8.2} % of a core over {watch} s, {pings} Pings, {each:.1} µs each\n",
            cpu / watch * 100.0
        );
        text
    }

    fn json(&self) -> Value {
        json!({
            "sockets": self.sockets, "open_seconds": self.open_seconds, "bytes_per_socket": self.bytes,
            "engine_bytes_per_socket": self.engine_bytes, "kernel_per_socket": self.kernel.json(),
            "watch_seconds": self.watch, "pings": self.pings, "cpu_seconds": self.cpu,
        })
    }
}
