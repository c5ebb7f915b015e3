//! What is done to a server on purpose, and what must hold all the while: other sessions echo, pages are served, nothing is
//! left behind, and the error log has no line that was not announced.
//!
//! `make hostile` runs it for half an hour, and `make test` a short share of it. Everything is on the loopback, bounded in count
//! and time, and ends by itself; a process is only ever signalled by the number of one that was started here.

// The harness is that of the integration tests, which use all of it.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../httpd/harness/mod.rs"]
mod harness;

mod bombs;
mod broker;
mod clock;
mod cycles;
mod descriptors;
mod disk;
mod floods;
mod half_open;
mod kills;
mod load;
mod watch;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long all of it takes when nothing else is said (seconds), and what the times and counts in the scenarios are meant for.
const WHOLE: f64 = 1800.0;
/// How long the share in `make test` takes, about.
const SHARE: f64 = 30.0;

/// How much of each scenario is wanted.
#[derive(Clone, Copy)]
struct Scale(f64);

impl Scale {
    /// So many seconds of the half hour.
    fn time(self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds * self.0).max(0.5))
    }

    /// So many of the half hour's, but some at least.
    fn count(self, whole: usize, least: usize) -> usize {
        ((whole as f64 * self.0) as usize).max(least)
    }

    /// True for what is too long for the share.
    fn is_long(self) -> bool {
        self.0 >= 0.1
    }
}

/// What is done, and how it went in figures.
struct Scenario {
    name: &'static str,
    run: fn(Scale) -> String,
}

const SCENARIOS: [Scenario; 10] = [
    Scenario { name: "cycles", run: cycles::over_tcp },
    Scenario { name: "cycles-tls", run: cycles::over_tls },
    Scenario { name: "kills", run: kills::run },
    Scenario { name: "floods", run: floods::run },
    Scenario { name: "bombs", run: bombs::run },
    Scenario { name: "half-open", run: half_open::run },
    Scenario { name: "disk", run: disk::run },
    Scenario { name: "descriptors", run: descriptors::run },
    Scenario { name: "clock", run: clock::run },
    Scenario { name: "broker", run: broker::run },
];

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]
fn main() -> ExitCode {
    let mut time = WHOLE;
    let mut only: Vec<String> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), argument.as_str() == "--share") {
            (_, true) => time = SHARE,
            ("--time", _) => match arguments.next().and_then(|text| text.parse().ok()).filter(|time| *time > 0.0) {
                Some(seconds) => time = seconds,
                None => return usage("--time takes a number of seconds"),
            },
            (name, _) if SCENARIOS.iter().any(|scenario| scenario.name == name) => only.push(name.to_owned()),
            (other, _) => return usage(&format!("{other:?} is none of them")),
        }
    }
    let scale = Scale(time / WHOLE);
    let mut failures = 0;
    for Scenario { name, run } in
        SCENARIOS.iter().filter(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name))
    {
        let began = Instant::now();
        let outcome = catch_unwind(|| run(scale));
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(figures) => println!("{name:12} {seconds:6.1} s  {figures}"),
            Err(_) => {
                println!("{name:12} {seconds:6.1} s  FAILED, see above");
                failures += 1;
            }
        }
    }
    if failures > 0 {
        println!("{failures} scenarios have failed.");
        return ExitCode::FAILURE;
    }
    println!("All has held.");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "a program that reports")]
fn usage(why: &str) -> ExitCode {
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    eprintln!("{why}\nhostile [--share] [--time SECONDS] [SCENARIO …]\nscenarios: {}", names.join(", "));
    ExitCode::from(2)
}
