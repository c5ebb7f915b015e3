//! What the benchmarks print and write.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Result, machine};

/// The lower middle of an even number of values; nothing of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The value that this share of all values does not exceed.
pub(crate) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

/// The ratios `ours` ÷ `peer` of the rounds, lowest first.
pub(crate) fn ratios(ours: impl IntoIterator<Item = f64>, peer: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut ratios: Vec<f64> = ours.into_iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

/// The median of sorted ratios, the lowest and the highest, as the last column of a table.
pub(crate) fn ratio_column(ratios: &[f64]) -> String {
    match (median(ratios.iter().copied()), ratios.first(), ratios.last()) {
        (Some(ratio), Some(lowest), Some(highest)) => format!("{ratio:>8.2}  ({lowest:.2}-{highest:.2})"),
        _ => format!("{:>8}", "-"),
    }
}

/// Prints a benchmark's table and what is to be noted beside it; and, where that is wanted, writes the figures, with what they
/// were measured on.
pub(crate) fn give(
    benchmark: &str,
    mut text: String,
    notes: &[String],
    file: Option<&Path>,
    mut figures: Value,
) -> Result<()> {
    for note in notes {
        text += &format!("note: {note}\n");
    }
    io::stdout().write_all(text.as_bytes())?;
    let Some(file) = file else { return Ok(()) };
    figures["benchmark"] = benchmark.into();
    figures["unix_time"] = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().into();
    figures["machine"] = machine::facts();
    figures["notes"] = notes.into();
    write(file, &figures)
}

/// Writes a report, and says so.
fn write(file: &Path, report: &Value) -> Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(file, serde_json::to_string_pretty(report)? + "\n")?;
    eprintln!("written: {}", file.display());
    Ok(())
}

/// One server under load for one round.
pub(crate) struct Sample {
    /// CPU microseconds of its processes for each of what is counted: messages, say.
    pub(crate) cpu: f64,
    /// How many of these a second.
    pub(crate) rate: f64,
    /// The share of one core that the server used.
    pub(crate) busy: f64,
    /// Microseconds until an echo was there, in an open loop.
    pub(crate) latency: Option<Latency>,
}

#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) highest: f64,
}

impl Latency {
    /// Of times in seconds; `None` of none.
    pub(crate) fn new(times: &[f64]) -> Option<Self> {
        let at = |share| percentile(times, share).map(|seconds| seconds * 1e6);
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, highest: at(1.0)? })
    }
}

impl Sample {
    /// `count` things were done in `seconds`, for which the server needed `cpu` seconds.
    pub(crate) fn new(count: u64, seconds: f64, cpu: f64, latency: Option<Latency>) -> Self {
        Self { cpu: cpu * 1e6 / count as f64, rate: count as f64 / seconds, busy: cpu / seconds, latency }
    }
}

/// Servers under the same load.
pub(crate) struct Comparison {
    /// What the load is, in words and for the JSON.
    pub(crate) title: String,
    pub(crate) load: Value,
    /// What is counted, in the singular.
    pub(crate) unit: &'static str,
    /// The samples of each server, by its name. Ours is the first, if it is there.
    pub(crate) sides: Vec<(&'static str, Vec<Sample>)>,
}

impl Comparison {
    /// The first ÷ the one with that index, in each round, lowest first.
    fn ratios(&self, index: usize) -> Vec<f64> {
        let cpu = |index: usize| self.sides[index].1.iter().map(|sample| sample.cpu);
        ratios(cpu(0), cpu(index))
    }

    pub(crate) fn json(&self) -> Value {
        let side = |(index, (name, samples)): (usize, &(&str, Vec<Sample>))| {
            let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
            let latency =
                |value: fn(&Latency) -> f64| median(samples.iter().filter_map(|s| s.latency.as_ref()).map(value));
            let all = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
            json!({
                "server": name,
                "cpu_us": of(|s| s.cpu), "per_second": of(|s| s.rate), "busy": of(|s| s.busy),
                "latency_us": latency(|l| l.p50).map(|p50| json!({
                    "p50": p50, "p99": latency(|l| l.p99), "highest": latency(|l| l.highest),
                })),
                "ratio_of_first": median(self.ratios(index)), "ratios_of_first": self.ratios(index),
                "cpu_us_of_rounds": all(|s| s.cpu), "per_second_of_rounds": all(|s| s.rate),
            })
        };
        json!({
            "title": self.title, "load": self.load, "unit": self.unit,
            "servers": self.sides.iter().enumerate().map(side).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn table(&self) -> String {
        let Some((first, _)) = self.sides.first() else { return String::new() };
        let latency = self.sides.iter().flat_map(|(_, samples)| samples).any(|sample| sample.latency.is_some());
        let mut table = format!("\n{:<34} µs/{:<8}      /s    busy", self.title, self.unit);
        table += if latency { "   p50 µs   p99 µs" } else { "" };
        table += &format!("   {first} ÷ it (lowest-highest)\n");
        for (index, (name, samples)) in self.sides.iter().enumerate() {
            let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value)).unwrap_or(f64::NAN);
            table += &format!(
                "  {name:<32} {:>8.2} {:>10.0}  {:>4.0} %",
                of(|s| s.cpu),
                of(|s| s.rate),
                of(|s| s.busy * 100.0)
            );
            if latency {
                let of = |value: fn(&Latency) -> f64| {
                    median(samples.iter().filter_map(|s| s.latency.as_ref()).map(value)).unwrap_or(f64::NAN)
                };
                table += &format!(" {:>8.0} {:>8.0}", of(|l| l.p50), of(|l| l.p99));
            }
            table += &format!(" {}\n", if index == 0 { String::new() } else { ratio_column(&self.ratios(index)) })
                .replace(" \n", "\n");
        }
        table
    }
}
