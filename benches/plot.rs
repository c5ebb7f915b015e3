//! Draws what the other benchmarks have measured, for the README and `docs/benchmarks.md`.
//!
//! ```text
//! cargo bench --bench plot
//! cargo bench --bench plot -- --directory DIR
//! ```
//!
//! Reads `echo.json`, `handshake.json` and `fanout.json`, those of them that are there, from `bench/` in the target directory,
//! or DIR, and leaves `results.svg`, the same as a table in `results.md`, and the two small drawings of the README,
//! `speed.svg` and `memory.svg`, beside them.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it draws some figures that nobody has measured, and writes nothing.

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use support::Result;
use support::plot::{Bar, Panel, markdown, svg};
use support::testkit::installation::Installation;

/// The heading of the panel of all idle sockets.
const IDLE: &str = "Memory of an idle socket";
/// The README's drawings, with the headings of their panels: few enough to be read at its width.
const README: [(&str, &[&str]); 2] = [
    (
        "speed.svg",
        &[
            "ws, 64 bytes, one under way",
            "wss, 64 bytes, one under way",
            "500 subscribers, one under way",
            "500 subscribers, 16 under way",
        ],
    ),
    ("memory.svg", &[IDLE]),
];

const USAGE: &str = "usage: cargo bench --bench plot -- [--directory DIR]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut directory, mut bench, mut test) = (Installation::built("bench"), false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => bench = true,
            "--test" => test = true,
            "--directory" => directory = arguments.next().map(PathBuf::from).ok_or(USAGE)?,
            _ => return Err(format!("{argument}: not understood\n{USAGE}").into()),
        }
    }
    if test || !bench {
        return check();
    }
    let reports = ["echo.json", "handshake.json", "fanout.json"].map(|name| read(&directory.join(name)));
    let reports: Vec<Value> = reports.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    if reports.is_empty() {
        return Err(format!("{} holds no figures: the other benchmarks make them", directory.display()).into());
    }
    let (panels, note) = (panels(&reports), note(&reports));
    for (name, text) in drawn(&panels, &note) {
        std::fs::write(directory.join(name), text)?;
        eprintln!("written: {}", directory.join(name).display());
    }
    Ok(())
}

/// All files, by name; those of the README only where there is something in them.
fn drawn(panels: &[Panel], note: &str) -> Vec<(&'static str, String)> {
    let all: Vec<&Panel> = panels.iter().collect();
    let mut files = vec![("results.svg", svg(&all, note)), ("results.md", markdown(panels, note))];
    for (name, headings) in README {
        // The first of a heading is of CPU time.
        let chosen = headings.iter().filter_map(|heading| panels.iter().find(|panel| panel.title == *heading));
        let chosen: Vec<&Panel> = chosen.collect();
        if !chosen.is_empty() {
            files.push((name, svg(&chosen, note)));
        }
    }
    files
}

/// A report, if it is there.
fn read(file: &Path) -> Result<Option<Value>> {
    if !file.is_file() {
        return Ok(None);
    }
    let report = serde_json::from_slice(&std::fs::read(file)?);
    report.map(Some).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Everything in the reports that can be drawn.
fn panels(reports: &[Value]) -> Vec<Panel> {
    let all = |key: &'static str| reports.iter().flat_map(move |report| report[key].as_array().into_iter().flatten());
    let mut panels = Vec::new();
    for comparison in all("comparisons") {
        let (title, unit) = (text(&comparison["title"]), text(&comparison["unit"]));
        let bars = |value: fn(&Value) -> &Value| {
            let servers = comparison["servers"].as_array().into_iter().flatten();
            servers.filter_map(|server| Bar::new(text(&server["server"]), value(server).as_f64()?)).collect::<Vec<_>>()
        };
        panels.push(Panel::new(title.clone(), format!("CPU µs per {unit}"), bars(|server| &server["cpu_us"])));
        panels.push(Panel::new(title, "99 % within µs".into(), bars(|server| &server["latency_us"]["p99"])));
    }
    let idle = all("idle")
        .filter(|row| !text(&row["server"]).starts_with("with "))
        .filter_map(|row| Bar::new(text(&row["server"]), row["bytes_per_connection"].as_f64()? / 1024.0));
    panels.push(Panel::new(IDLE.into(), "KiB".into(), idle.collect()));
    for row in all("fan_out") {
        let bars = [("mod_websocket", "ours"), ("nchan", "nchan")];
        let bars =
            bars.into_iter().filter_map(|(name, key)| Bar::new(name.into(), row[key]["cpu_us_per_delivery"].as_f64()?));
        let title = format!("{} subscribers, {}", row["subscribers"], text(&row["load"]));
        panels.push(Panel::new(title, "CPU µs per delivery".into(), bars.collect()));
    }
    panels.retain(|panel| !panel.bars.is_empty());
    panels
}

/// Where it was measured.
fn note(reports: &[Value]) -> String {
    let machine = &reports[0]["machine"];
    let cpu = machine["cpu"].as_str().unwrap_or("unknown CPU");
    format!(
        "{cpu}, {} cores, Linux {}. Less is better; only ratios mean something elsewhere.",
        machine["cores"],
        text(&machine["kernel"])
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().into()
}

/// Draws invented figures, and looks whether all of them are in the drawing.
fn check() -> Result<()> {
    let server = |name: &str, cpu: f64| json!({ "server": name, "cpu_us": cpu, "latency_us": { "p99": cpu * 3.0 } });
    let reports = [
        json!({
            "machine": { "cpu": "A <fast> one", "cores": 2, "kernel": "6.0" },
            "comparisons": [{
                "title": "ws, 64 bytes", "unit": "message", "servers": [server("mod_websocket", 4.0), server("peer", 8.5)],
            }],
            "idle": [{ "server": "peer", "bytes_per_connection": 2048.0 }],
        }),
        json!({ "fan_out": [{
            "subscribers": 5, "load": "at once", "ours": { "cpu_us_per_delivery": 1.5 }, "nchan": { "cpu_us_per_delivery": 2.5 },
        }] }),
    ];
    let (panels, note) = (panels(&reports), note(&reports));
    let files = drawn(&panels, &note);
    let [(_, drawing), (_, table), (_, memory)] = &files[..] else {
        return Err(format!("{} files", files.len()).into());
    };
    let expected =
        ["ws, 64 bytes", "mod_websocket", "8.5", "99 % within", "25.5", "2.0", "5 subscribers, at once", "2.5"];
    for (name, text) in [("drawing", drawing), ("table", table)] {
        if let Some(missing) = expected.into_iter().find(|expected| !text.contains(expected)) {
            return Err(format!("the {name} lacks {missing:?}").into());
        }
    }
    if !drawing.contains("A &lt;fast&gt; one") || drawing.matches("<g").count() != drawing.matches("</g>").count() {
        return Err("the drawing is no XML".into());
    }
    if !memory.contains(IDLE) || memory.contains("ws, 64 bytes") {
        return Err("the drawing of memory shows something else".into());
    }
    writeln!(std::io::stdout(), "plot: {} panels", panels.len())?;
    Ok(())
}
