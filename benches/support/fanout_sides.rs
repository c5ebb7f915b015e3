//! What a delivery costs beside the least that it can cost, over TLS, and compressed: one message at a time, all subscribers
//! alike, and the CPU time of the process alone that sends.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Target;
use super::fanout::FanOut;
use super::idle::ENGINE;
use super::load::Pace;
use super::proc::CpuTime;
use super::report::{median, ratio_column, ratios};
use super::server::{Children, Httpd, Server};
use super::{Result, bare};

const SITE: &str = r#"AsyncRequestWorkerFactor 1000
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
WebSocketOriginCheck Off
WebSocketPing Off
<Location "/">
Require all granted
</Location>
<Location "/sub">
WebSocketHandler channel bench
</Location>
<Location "/sub/compressed">
WebSocketCompression On
</Location>
<Location "/pub">
SetHandler websocket-publish
WebSocketPublishAccess Require
WebSocketChannelHistory 10 3600
</Location>
"#;

/// Bytes of the JSON.
const JSON: usize = 1024;

/// What is measured.
pub(crate) struct Settings<'a> {
    pub(crate) module: &'a Path,
    pub(crate) cpu: Option<usize>,
    pub(crate) subscribers: usize,
    /// Of a message that is no JSON.
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
}

/// One line of the table.
pub(crate) struct Side {
    title: String,
    /// Microseconds of CPU for each delivery.
    cpu: Vec<f64>,
    /// Bytes of each.
    bytes: Vec<f64>,
    /// The line above with which it is compared, by its place.
    beside: Option<usize>,
}

/// Who sends, and what.
struct Load<'a> {
    server: &'a Server,
    target: Target,
    is_json: bool,
    /// The process that sends; `None`: all of the server.
    process: Option<&'static str>,
}

impl Load<'_> {
    fn cpu_time(&self) -> CpuTime {
        self.process.map_or_else(|| self.server.cpu_time(), |name| CpuTime::of_named(self.server.pid(), name))
    }
}

/// All of them, and what the servers complained of.
pub(crate) fn measure(settings: &Settings<'_>) -> Result<(Vec<Side>, Vec<String>)> {
    let Settings { module, cpu, subscribers, bytes, time, rounds } = *settings;
    let httpd = |tls| {
        let (site, path, children) = (SITE, "/sub", Children::One);
        Httpd { module: Some(module), modules: &[], site, path, tls, children, cpu }.start()
    };
    let (bare, ours, secure) = (bare::start(cpu)?, httpd(false)?, httpd(true)?);
    let compressed = Target { path: "/sub/compressed", compressed: true, ..ours.target };
    let load = |server, target, is_json, process| Load { server, target, is_json, process };
    let engine = Some(ENGINE);
    let loads = [
        (load(&bare, bare.target, false, None), format!("bare loop of send(2), {bytes} bytes"), None),
        (load(&ours, ours.target, false, engine), format!("ws, {bytes} bytes"), Some(0)),
        (load(&secure, secure.target, false, engine), format!("wss, {bytes} bytes"), Some(1)),
        (load(&bare, bare.target, true, None), format!("bare loop of send(2), {JSON} bytes"), None),
        (load(&ours, ours.target, true, engine), format!("ws, {JSON} bytes of JSON"), Some(3)),
        (load(&ours, compressed, true, engine), "ws, the same, compressed".to_owned(), Some(4)),
    ];
    let new = |(_, title, beside): &(Load<'_>, String, Option<usize>)| {
        let (cpu, bytes) = (Vec::new(), Vec::new());
        Side { title: title.clone(), cpu, bytes, beside: *beside }
    };
    let mut sides: Vec<Side> = loads.iter().map(new).collect();
    for round in 1..=rounds {
        for ((load, title, _), side) in loads.iter().zip(&mut sides) {
            eprintln!("{subscribers} subscribers, round {round}, {title}");
            let publish = "/pub?channel=bench";
            let length = if load.is_json { JSON } else { bytes };
            let mut fan_out = FanOut::open(load.target, publish, subscribers, length, false)?;
            if load.is_json {
                fan_out = fan_out.of_json();
            }
            fan_out.run(Pace::UnderWay(1), time / 4)?;
            let (received, before) = (fan_out.received, load.cpu_time());
            let done = fan_out.run(Pace::UnderWay(1), time)?;
            let deliveries = done.messages as f64 * subscribers as f64;
            side.cpu.push(load.cpu_time().seconds_since(&before) * 1e6 / deliveries);
            side.bytes.push((fan_out.received - received) as f64 / deliveries);
            fan_out.close(load.target, publish)?;
        }
    }
    let complaints = [&ours, &secure].into_iter().flat_map(Server::complaints).collect();
    Ok((sides, complaints))
}

pub(crate) fn json(sides: &[Side]) -> Value {
    let side = |side: &Side| {
        let beside = side.beside.map(|place| &sides[place]);
        let cpu = beside.map(|beside| ratios(side.cpu.iter().copied(), beside.cpu.iter().copied()));
        let bytes = beside.map(|beside| ratios(side.bytes.iter().copied(), beside.bytes.iter().copied()));
        json!({
            "title": side.title, "beside": beside.map(|beside| &beside.title),
            "cpu_us_per_delivery": median(side.cpu.iter().copied()), "bytes": median(side.bytes.iter().copied()),
            "cpu_ratios": cpu, "byte_ratios": bytes,
        })
    };
    sides.iter().map(side).collect()
}

pub(crate) fn table(sides: &[Side], subscribers: usize) -> String {
    let mut table = format!(
        "\nFan-out of one message at a time to {subscribers} subscribers: CPU of the process that sends, µs per delivery\n\
         {:<35} |    CPU    bytes |  CPU ÷ that of (lowest-highest)\n",
        ""
    );
    for side in sides {
        let of = |values: &[f64]| median(values.iter().copied()).unwrap_or(f64::NAN);
        table += &format!("{:<35} | {:>6.2} {:>8.0} |", side.title, of(&side.cpu), of(&side.bytes));
        if let Some(beside) = side.beside.map(|place| &sides[place]) {
            let ratios = ratios(side.cpu.iter().copied(), beside.cpu.iter().copied());
            table += &format!(" {}  {}", ratio_column(&ratios), beside.title);
        }
        table += "\n";
    }
    table
}
