//! CPU time to open and close a WebSocket: our module inside httpd beside other servers, and beside a page of the same httpd.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench handshake
//! cargo bench --bench handshake -- --under-way 16 --seconds 5 --rounds 9
//! ```
//!
//! A cycle is a connection, the opening handshake, a Close frame each way, and the end of the connection. What counts is
//! the CPU time, user and system, of the server's *whole process tree* divided by the cycles; processes that ended meanwhile are in
//! it. So many cycles are under way at once, except that over wss the generator has one handshake of TLS at a time; none of
//! them is resumed.
//!
//! httpd has six children with 25 threads, as on Debian: at the end of a connection its worker is still busy for a moment.
//!
//! The row `httpd, a page` is the smallest thing that the same httpd does with a connection: a page of one kilobyte, fetched with
//! `Connection: close`. What a WebSocket costs more than that is what the module and the handoff cost.
//!
//! The servers, the rounds and the ratios are those of `benches/echo.rs`, with nginx and nchan besides. wss also tells what TLS
//! costs: the certificate has a key on the curve P-256.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use support::client::Target;
use support::cycles::{Cycles, Kind};
use support::options::{Options, scheme};
use support::peers::{self, Peer, Setting};
use support::report::{Comparison, Sample};
use support::serve::{SERVE_PEER, serve_peer};
use support::server::Children;
use support::testkit::process::raise_descriptor_limit;
use support::{Result, report};

const USAGE: &str = "\
usage: cargo bench --bench handshake -- [options]
  --under-way N        cycles under way at once (default 16)";

/// The page of the server that has one.
const PAGE: &str = "/page.html";

fn main() -> ExitCode {
    let result = if std::env::args().any(|argument| argument == SERVE_PEER) { serve_peer() } else { run() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handshake: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut options, mut under_way) = (Options::new("handshake")?, 16);
    options.read(USAGE, |option, value| {
        under_way = value.parse().ok().filter(|count| option == "--under-way" && *count > 0)?;
        Some(())
    })?;
    let mut notes = Vec::new();
    raise_descriptor_limit();
    let setting = options.setting(Children::Six, &mut notes)?;
    let mut comparisons = Vec::new();
    for tls in options.schemes.iter().copied() {
        comparisons.push(compare(&options, under_way, &setting, tls, &mut notes)?);
    }
    let text: String = comparisons.iter().map(Comparison::table).collect();
    let figures = json!({
        "settings": {
            "seconds": options.seconds, "rounds": options.rounds, "under_way": under_way, "spin": options.spin,
            "pinned": setting.cpu.is_some(), "module": setting.module,
        },
        "comparisons": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
    });
    report::give("handshake", text, &notes, options.json.as_deref(), figures)
}

fn compare(
    options: &Options,
    under_way: usize,
    setting: &Setting,
    tls: bool,
    notes: &mut Vec<String>,
) -> Result<Comparison> {
    let title = format!("{}, opened and closed", scheme(tls));
    eprintln!("{title}");
    let time = Duration::from_secs_f64(options.seconds);
    let servers = peers::start(&options.peers(tls), setting, tls, notes)?;
    let mut sides = Vec::new();
    for (peer, server) in &servers {
        let mut kinds = vec![(peer.name(), server.target, Kind::WebSocket)];
        if *peer == Peer::Ours {
            kinds.push(("httpd, a page", Target { path: PAGE, ..server.target }, Kind::Page));
        }
        for (name, target, kind) in kinds {
            let mut cycles = Cycles::new(target, kind, under_way, options.spin)?;
            cycles.run(time / 4).map_err(|error| format!("{name}: {error}"))?;
            sides.push((name, server, cycles, Vec::new()));
        }
    }
    for _ in 0..options.rounds {
        for (name, server, cycles, samples) in &mut sides {
            let before = server.cpu_time();
            let done = cycles.run(time).map_err(|error| format!("{name}: {error}"))?;
            let cpu = server.cpu_time().seconds_since(&before);
            samples.push(Sample::new(done.messages, done.seconds, cpu, None));
        }
    }
    notes.extend(servers.iter().flat_map(|(_, server)| server.complaints()));
    let sides = sides.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
    Ok(Comparison { title, load: json!({ "scheme": scheme(tls), "under_way": under_way }), unit: "cycle", sides })
}
