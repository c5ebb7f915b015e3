//! The Autobahn suite's fuzzing client against the echo of a real httpd.
//!
//! `tests/conformance/run` installs the suite and starts this program. It compares each outcome with `expected.tsv`; a
//! case that does better than the table says is a deviation too, so that the table is what the module does. The suite's
//! own reports, with the bytes on the wire, stay in `conformance` in the target directory.

// The harness is that of the integration tests, which use all of it.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../httpd/harness/mod.rs"]
mod harness;

mod case;
mod suite;
mod table;

use harness::{Httpd, Mpm, Server};
use std::process::ExitCode;
use std::time::Instant;
use suite::Suite;
use table::Table;

/// A server, and the cases that it is put through.
struct Run {
    name: &'static str,
    tls: bool,
    /// What its echo is configured with, beside the largest message.
    config: &'static str,
    /// The cases in `make test`.
    share: &'static [&'static str],
    /// The cases in `make conformance`.
    whole: &'static [&'static str],
}

/// 9 moves large messages. A case of 12 or 13 moves a thousand, compressed: up to 10 its last number stands for their
/// size, from 16 bytes to 128 KiB, and from 11 to 18 they come in fragments.
const RUNS: [Run; 3] = [
    Run {
        name: "ws",
        tls: false,
        config: "",
        share: &[
            "1", "2", "3", "4", "5", "6", "7", "9", "10", "12.*.1", "12.*.4", "12.*.7", "12.*.11", "12.1.18", "13.*.4",
            "13.1.10",
        ],
        whole: &["*"],
    },
    Run {
        name: "ws with context takeover",
        tls: false,
        config: "WebSocketCompressionContextTakeover Both\nWebSocketCompressionMinSize 1\n",
        share: &["12.*.2", "12.*.6", "12.*.12", "12.1.17", "13.*.5", "13.*.11", "13.1.15"],
        whole: &["12", "13"],
    },
    Run {
        name: "wss",
        tls: true,
        config: "",
        share: &["1", "2", "3", "5", "7", "9.*.1", "10", "12.*.3", "12.1.10", "13.*.12"],
        whole: &["1", "2", "3", "4", "5", "6", "7", "9", "10", "12.*.3", "12.*.8", "12.*.13", "13.*.12"],
    },
];

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]
fn main() -> ExitCode {
    let (mut share, mut write) = (false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--share" => share = true,
            "--write" => write = true,
            _ => {
                eprintln!("{argument:?} is neither --share nor --write");
                return ExitCode::from(2);
            }
        }
    }
    let suite = Suite::find();
    let mut table = Table::read();
    let mut deviations = 0;
    for run in RUNS {
        println!("{}:", run.name);
        let began = Instant::now();
        let patterns = if share { run.share } else { run.whole };
        let server = run.start();
        let outcomes = suite.run(run.name, &server.url("/echo"), &table.cases(), patterns);
        print!("{}", table::counts(&outcomes));
        println!("  {} cases in {} s", outcomes.len(), began.elapsed().as_secs());
        if write {
            table.update(&outcomes);
        }
        for deviation in table.deviations(&outcomes, patterns) {
            println!("  {deviation}");
            deviations += 1;
        }
    }
    if write {
        table.write();
    }
    if deviations > 0 {
        println!(
            "{deviations} outcomes are not as expected. The suite's reports are in {}.",
            suite.reports().display()
        );
        return ExitCode::FAILURE;
    }
    println!("All outcomes are as expected.");
    ExitCode::SUCCESS
}

impl Run {
    /// Dropping the server fails if its error log has something to say.
    fn start(&self) -> Server {
        let httpd = Httpd::new(Mpm::Event)
            // A TLS connection counts as one of its child's for a moment after its end, and the suite soon opens the next.
            .workers(200)
            .config("LogLevel notice")
            .config(format!(
                "<Location \"/echo\">\nWebSocketHandler echo\nWebSocketMaxMessageSize 16777216\nWebSocketCompression On\n\
                 {}</Location>",
                self.config
            ));
        if self.tls { httpd.tls() } else { httpd }.start()
    }
}
