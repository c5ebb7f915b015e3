//! What an application in PHP costs that decides over handshakes, handles messages, and is asked again about idle sockets; beside
//! the same PHP page, asked by HTTP.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench application
//! cargo bench --bench application -- --connections 32 --recheck 60 --watch 120
//! ```
//!
//! CPU time, user and system, is that of httpd, the engine and PHP-FPM together, all confined to one core; the load is on another
//! one. The rounds and the ratios are those of `benches/echo.rs`. PHP-FPM has eight processes behind a Unix socket, and httpd asks it
//! as Debian's configuration has it.
//!
//! **Handshakes**, opened and closed as in `benches/handshake.rs`: with `WebSocketAuthorize`, beside those without it *and* its
//! page on a kept connection (`ab -k`), added.
//!
//! **Messages** of 64 bytes: `WebSocketHandler http` in plain mode makes a POST of each, beside `ab -k` with the same POST to
//! the same page and as many connections. Here it is the messages each second that count, divided by the requests. `ab` itself is on the
//! generator's core, and the engine, which does its work, on the server's.
//!
//! **Idle sockets with rechecks**: the share of a core of httpd and the engine, PHP aside; answered Pings are in it. So that it does not
//! take an hour, a few of the sockets have a recheck every 10 seconds, as many as give the rechecks of all at `--recheck`. Each of
//! these has a recheck of its own, since the application has told them apart (`Set-Meta-`). PHP counts them. Beside that stand as many
//! pages, asked by HTTP one at a time at even distances on a kept connection: they pay for waking the server, too.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::ab::Ab;
use support::client::{self, Target};
use support::crowd::Crowd;
use support::cycles::{Cycles, Kind};
use support::fpm::Fpm;
use support::frame::Batch;
use support::idle;
use support::load::{Done, Load};
use support::options::Options;
use support::page::{Beside as _, KeptPage};
use support::parts::{Clock, Cpu};
use support::report::{self, Comparison, Sample, median, ratio_column, ratios};
use support::server::{Children, Httpd, Server};
use support::testkit::process::raise_descriptor_limit;
use support::{Result, testkit};

const USAGE: &str = "\
usage: cargo bench --bench application -- [options]
  --connections N      handshakes, sockets and connections of ab at once (default 16)
  --sockets N          idle sockets, 0 for none (default 10000)
  --recheck S          seconds between the rechecks of a socket (default 300)
  --watch S            how long idle sockets are watched (default 30)";

/// Decides.
const DECIDE: &str = "<?php
header('WebSocket-User: ann');
header('Content-Length: 9');
echo \"Come in.\\n\";
";

/// Gives back what it is sent.
const ANSWER: &str = "<?php
$body = file_get_contents('php://input');
header('Content-Type: text/plain; charset=utf-8');
header('Content-Length: ' . strlen($body));
echo $body;
";

/// Tells sockets apart, and counts how often it is asked again.
const RECHECK: &str = "<?php
if ($_SERVER['HTTP_WEBSOCKET_EVENT'] === 'recheck') {
    file_put_contents(__DIR__ . '/../rechecks', '.', FILE_APPEND);
} else {
    header('Set-Meta-Socket: ' . $_SERVER['HTTP_CONNECTION_ID']);
}
";

const BODY_TYPE: &str = "text/plain; charset=utf-8";
const MESSAGE: usize = 64;

/// Seconds between the rechecks of those who have any: the least there can be.
const OFTEN: u64 = 10;

/// What opening sockets has left to do is over by then.
const SETTLED: Duration = Duration::from_secs(2);

/// How long one crowd is served while the other one waits.
const TURN: Duration = Duration::from_millis(50);

/// httpd with the pages.
struct Site {
    httpd: Server,
    fpm: Fpm,
    /// As many bytes as there were rechecks.
    rechecks: PathBuf,
}

/// What one side of a comparison has used.
#[derive(Default)]
struct Side {
    samples: Vec<Sample>,
    /// Microseconds for each of what is counted.
    parts: Vec<Cpu>,
}

/// Idle sockets that were watched.
struct Watched {
    sockets: usize,
    /// The time between two rechecks of a socket that they stand for.
    interval: u64,
    each_second: f64,
    /// Shares of a core: without rechecks, with them, and with as many pages instead.
    idle: Cpu,
    busy: Cpu,
    pages: Cpu,
}

struct Application {
    options: Options,
    connections: usize,
    sockets: usize,
    recheck: u64,
    watch: f64,
}

fn main() -> ExitCode {
    match Application::read().and_then(|application| application.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("application: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Application {
    fn read() -> Result<Self> {
        let mut options = Options::new("application")?;
        let (mut connections, mut sockets, mut watch) = if options.smoke { (4, 20, 0.1) } else { (16, 10_000, 30.0) };
        let mut recheck = 300;
        options.read(USAGE, |option, value| {
            match option {
                "--connections" => connections = value.parse().ok().filter(|count| *count > 0)?,
                "--sockets" => sockets = value.parse().ok()?,
                "--recheck" => recheck = value.parse().ok().filter(|seconds| (OFTEN..=86400).contains(seconds))?,
                "--watch" => watch = value.parse().ok().filter(|seconds| (0.1..=86400.0).contains(seconds))?,
                _ => return None,
            }
            Some(())
        })?;
        Ok(Self { options, connections, sockets, recheck, watch })
    }

    fn run(&self) -> Result<()> {
        let mut notes = Vec::new();
        let descriptors = raise_descriptor_limit();
        let setting = self.options.setting(Children::Six, &mut notes)?;
        let Some(module) = setting.module.as_deref() else {
            eprintln!("application: left out, it needs the module (cargo build --release)");
            return Ok(());
        };
        let pages = [("decide.php", DECIDE), ("answer.php", ANSWER), ("recheck.php", RECHECK)];
        let has_modules = testkit::installation::installation().modules.join("mod_proxy_fcgi.so").is_file();
        let Some(fpm) = Fpm::start(setting.cpu, &pages)?.filter(|_| has_modules) else {
            eprintln!("application: left out, it needs PHP-FPM (Debian's package php-fpm), and httpd's mod_proxy_fcgi");
            return Ok(());
        };
        let rechecks = fpm.writable("rechecks")?;
        let httpd = Httpd {
            module: Some(module),
            modules: &["env", "proxy", "proxy_fcgi"],
            site: &(Self::directives() + &fpm.site()),
            path: "/echo",
            tls: false,
            children: Children::Six,
            cpu: setting.cpu,
        };
        let site = Site { httpd: httpd.start()?, fpm, rechecks };

        let (mut text, mut figures) = (String::new(), json!({}));
        match self.compare(&site)? {
            Some(compared) => (text, figures) = compared,
            None => {
                notes.push("ab is not installed (Debian's package apache2-utils): nothing is compared with it".into())
            }
        }
        if self.sockets > 0 {
            let sockets = idle::possible(self.sockets, descriptors, &mut notes);
            let complaints = |error| format!("{error}\n{}", site.httpd.complaints().join("\n"));
            let watched = self.watch_idle(&site, sockets).map_err(complaints)?;
            // In a check nobody waits until there are enough to tell.
            if !self.options.smoke {
                text += &watched.table();
            }
            figures["idle"] = watched.json();
        }
        notes.extend(site.httpd.complaints());
        figures["settings"] = json!({
            "seconds": self.options.seconds, "rounds": self.options.rounds, "connections": self.connections,
            "recheck": self.recheck, "spin": self.options.spin, "pinned": setting.cpu.is_some(), "module": module,
        });
        report::give("application", text, &notes, self.options.json.as_deref(), figures)
    }

    fn directives() -> String {
        // ab speaks HTTP/1.0, where no connection is kept without a Content-Length. httpd throws a program's away, unless the
        // environment says otherwise.
        format!(
            "KeepAliveTimeout 3600\nMaxKeepAliveRequests 0\nAsyncRequestWorkerFactor 1000\nWebSocketOriginCheck Off\n\
             SetEnv ap_trust_cgilike_cl 1\n\
             <Location \"/\">\nRequire all granted\n</Location>\n\
             <LocationMatch \"^/(echo|decided|rechecked)$\">\nWebSocketHandler echo\n</LocationMatch>\n\
             <Location \"/decided\">\nWebSocketAuthorize /decide.php\n</Location>\n\
             <Location \"/rechecked\">\nWebSocketAuthorize /recheck.php\nWebSocketRecheck {OFTEN}\n</Location>\n\
             <Location \"/messages\">\nWebSocketHandler http /answer.php\n</Location>\n"
        )
    }

    /// Handshakes and messages. `None`: there is no `ab`.
    fn compare(&self, site: &Site) -> Result<Option<(String, Value)>> {
        let (address, seconds, spin) = (site.httpd.target.address, self.options.seconds, self.options.spin);
        let time = Duration::from_secs_f64(seconds);
        let Some(mut page) = Ab::new(address, "/decide.php", self.connections, None)? else { return Ok(None) };
        let batch = Batch::text(MESSAGE, 1);
        let body = site.fpm.writable("body")?;
        // The payload of the echo: its frame has a head of two bytes.
        fs::write(&body, &batch.echo[2..])?;
        let post = Some((body, BODY_TYPE));
        let Some(mut posts) = Ab::new(address, "/answer.php", self.connections, post)? else { return Ok(None) };
        let cycles = |path| Cycles::new(site.at(path), Kind::WebSocket, self.connections, spin);
        let (mut decided, mut plain) = (cycles("/decided")?, cycles("/echo")?);

        eprintln!("handshakes");
        decided.run(time / 4)?;
        plain.run(time / 4)?;
        let mut sides: [Side; 5] = Default::default();
        let [of_decided, of_plain, of_page, of_messages, of_posts] = &mut sides;
        for _ in 0..self.options.rounds {
            site.sample(of_decided, || decided.run(time))?;
            site.sample(of_plain, || plain.run(time))?;
            site.sample(of_page, || page.run(seconds))?;
        }
        eprintln!("messages");
        // Not earlier: a silent socket gets Pings.
        let mut messages = Load::new(client::open(site.at("/messages"), self.connections)?, batch, spin)?;
        messages.verify()?;
        messages.run(time / 4)?;
        for _ in 0..self.options.rounds {
            site.sample(of_messages, || messages.run(time))?;
            site.sample(of_posts, || posts.run(seconds))?;
        }
        messages.verify()?;

        let both = of_plain.samples.iter().zip(&of_page.samples).map(|(plain, page)| plain.cpu + page.cpu);
        let handshakes = ratios(of_decided.samples.iter().map(|sample| sample.cpu), both);
        let rate = |side: &Side| side.samples.iter().map(|sample| sample.rate).collect::<Vec<_>>();
        let rates = ratios(rate(of_messages), rate(of_posts));

        let [decided, plain, page, messages, posts] = sides;
        let load = json!({ "under_way": self.connections });
        let first = Group {
            title: "Handshakes",
            unit: "handshake",
            sides: vec![("with WebSocketAuthorize", decided), ("without", plain), ("its page, ab -k", page)],
        };
        let second = Group {
            title: "Messages in plain mode",
            unit: "message",
            sides: vec![("WebSocketHandler http", messages), ("ab -k", posts)],
        };
        let (parts_first, first) = first.finish(&load);
        let (parts_second, second) = second.finish(&load);
        let text = format!(
            "{}{parts_first}  CPU, with ÷ (without + its page)      {}  to be at most 1.15\n\
             {}{parts_second}  messages /s ÷ requests /s of ab -k   {}  to be at least 0.8\n",
            first.table(),
            ratio_column(&handshakes),
            second.table(),
            ratio_column(&rates),
        );
        let figures = json!({
            "comparisons": [first.json(), second.json()],
            "handshake_ratio": median(handshakes.iter().copied()), "handshake_ratios": handshakes,
            "message_rate_ratio": median(rates.iter().copied()), "message_rate_ratios": rates,
        });
        Ok(Some((text, figures)))
    }

    fn watch_idle(&self, site: &Site, sockets: usize) -> Result<Watched> {
        let time = Duration::from_secs_f64(self.watch);
        let asked = (sockets * OFTEN as usize).div_ceil(self.recheck as usize);
        eprintln!("{sockets} idle sockets");
        let mut silent = Crowd::open(site.at("/echo"), sockets - asked)?;
        if !self.options.smoke {
            silent.stay(SETTLED)?;
        }
        let (before, start) = (site.clock(), Instant::now());
        silent.stay(time)?;
        let idle = site.clock().since(&before).shares(start);

        eprintln!("{asked} of them with rechecks");
        let mut crowd = Crowd::open(site.at("/rechecked"), asked)?;
        let mut stay = |time: Duration| -> Result<()> {
            let start = Instant::now();
            while let Some(left) = time.checked_sub(start.elapsed()) {
                silent.stay(left.min(TURN))?;
                crowd.stay(Duration::ZERO)?;
                while crowd.turn()? {}
            }
            Ok(())
        };
        // The first comes after four fifths of the interval, and all have had one after six fifths.
        let (start, patience) = (Instant::now(), Duration::from_secs(2 * OFTEN + 10));
        while site.rechecks()? == 0 {
            if start.elapsed() > patience {
                return Err(format!("nobody was asked about within {} s", patience.as_secs()).into());
            }
            stay(TURN)?;
        }
        if !self.options.smoke {
            stay(Duration::from_secs_f64(OFTEN as f64 * 1.2).saturating_sub(start.elapsed()))?;
        }
        let (rechecks, before, start) = (site.rechecks()?, site.clock(), Instant::now());
        stay(time)?;
        let busy = site.clock().since(&before).shares(start);
        let each_second = (site.rechecks()? - rechecks) as f64 / start.elapsed().as_secs_f64();
        crowd.verify()?;
        drop(crowd);

        eprintln!("as many pages");
        silent.stay(SETTLED)?;
        let mut page = KeptPage::new(site.at("/decide.php"))?;
        let between = Duration::from_secs_f64(1.0 / each_second.max(1.0));
        let (before, start) = (site.clock(), Instant::now());
        let mut due = start;
        while start.elapsed() < time {
            page.fetch()?;
            due += between;
            silent.stay(due.saturating_duration_since(Instant::now()))?;
        }
        let pages = site.clock().since(&before).shares(start);
        silent.verify()?;
        Ok(Watched { sockets, interval: self.recheck, each_second, idle, busy, pages })
    }
}

impl Site {
    fn at(&self, path: &'static str) -> Target {
        Target { path, ..self.httpd.target }
    }

    fn clock(&self) -> Clock {
        Clock::now(self.httpd.pid(), self.fpm.pid())
    }

    /// One round of one side.
    fn sample(&self, side: &mut Side, load: impl FnOnce() -> Result<Done>) -> Result<()> {
        let before = self.clock();
        let done = load()?;
        let cpu = self.clock().since(&before);
        side.samples.push(Sample::new(done.messages, done.seconds, cpu.sum(), None));
        side.parts.push(cpu.each(done.messages));
        Ok(())
    }

    fn rechecks(&self) -> Result<u64> {
        Ok(self.rechecks.metadata()?.len())
    }
}

/// Sides that stand in one table.
struct Group {
    title: &'static str,
    unit: &'static str,
    sides: Vec<(&'static str, Side)>,
}

impl Group {
    /// Lines that say what each process has of it, and the comparison.
    fn finish(self, load: &Value) -> (String, Comparison) {
        let mut parts = String::new();
        for (name, side) in &self.sides {
            let of = |part: fn(&Cpu) -> f64| median(side.parts.iter().map(part)).unwrap_or(f64::NAN);
            let [httpd, engine, php] = [of(|cpu| cpu.httpd), of(|cpu| cpu.engine), of(|cpu| cpu.php)];
            let _ = writeln!(parts, "  {name:<32} of that httpd {httpd:.0}, engine {engine:.0}, PHP {php:.0}");
        }
        let sides = self.sides.into_iter().map(|(name, side)| (name, side.samples)).collect();
        (parts, Comparison { title: self.title.into(), load: load.clone(), unit: self.unit, sides })
    }
}

impl Watched {
    /// Microseconds of httpd, of the engine and of PHP for a recheck, or for a page. What idle sockets take anyway is not in it.
    fn each(&self, of: &Cpu) -> [f64; 3] {
        let each = |part: fn(&Cpu) -> f64| (part(of) - part(&self.idle)) * 1e6 / self.each_second;
        [each(|cpu| cpu.httpd), each(|cpu| cpu.engine), each(|cpu| cpu.php)]
    }

    /// Percent of a core, without PHP: before the rechecks, and with them.
    fn percent(&self) -> [f64; 2] {
        [self.idle, self.busy].map(|cpu| (cpu.httpd + cpu.engine) * 100.0)
    }

    fn table(&self) -> String {
        let ([httpd, engine, php], [idle, busy]) = (self.each(&self.busy), self.percent());
        let [page, _, page_php] = self.each(&self.pages);
        format!(
            "\nIdle: {} sockets, rechecks as of {} s: {:.1} each second\n  \
             a recheck, µs                    httpd {httpd:.0}, engine {engine:.0}; and PHP {php:.0}\n  \
             a page, as often, one at a time  httpd {page:.0}; and PHP {page_php:.0}\n  \
             share of a core, PHP aside       without rechecks {idle:.2} %, with them {busy:.2} %  to be at most 1 %\n",
            self.sockets, self.interval, self.each_second
        )
    }

    fn json(&self) -> Value {
        let ([httpd, engine, php], [idle, busy]) = (self.each(&self.busy), self.percent());
        let [page, _, page_php] = self.each(&self.pages);
        json!({
            "sockets": self.sockets, "recheck_seconds": self.interval, "rechecks_per_second": self.each_second,
            "httpd_us_per_recheck": httpd, "engine_us_per_recheck": engine, "php_us_per_recheck": php,
            "httpd_us_per_page": page, "php_us_per_page": page_php,
            "percent_of_core_without": idle, "percent_of_core_with": busy,
        })
    }
}
