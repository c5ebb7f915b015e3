//! The metrics: their names, what they mean, and where their figures come from. `docs/operations/metrics.md` has the same table,
//! and a test compares the two.

use super::board::Gauge;
use super::row::Counter;
use super::series::Transport;
use super::timing::Timing;
use super::totals::{Histogram, Totals};

/// What is known when somebody wants to see it.
#[derive(Debug)]
pub struct Figures {
    pub totals: Totals,
    /// The engine that takes new sessions has answered just now.
    pub answers: bool,
    /// Requests that the MPM serves at a time, each of which may be a socket that a child relays.
    pub workers: u64,
}

impl Figures {
    /// Open sessions whose bytes go through a child of httpd.
    pub fn relayed(&self) -> u64 {
        let sessions = self.totals.sessions();
        let relayed = sessions.iter().filter(|([_, transport, _], _)| Transport::is_relayed(transport));
        relayed.map(|(_, open)| open).sum()
    }

    /// Of the engine that began last.
    pub fn newest(&self, gauge: Gauge) -> u64 {
        let newest = self.totals.engines().max_by_key(|engine| engine.read(Gauge::Started));
        newest.map_or(0, |engine| engine.read(gauge))
    }
}

/// One figure of a metric, with the values of its labels.
pub type Sample = (Vec<String>, Value);

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Counter(u64),
    Gauge(u64),
    Histogram(Histogram),
}

/// A metric, as Prometheus has it.
pub struct Family {
    /// Without the `_total` that follows the name of a counter.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    pub samples: fn(&Figures) -> Vec<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Figures) -> Vec<Sample>,
) -> Family {
    Family { name, kind: Kind::Counter, labels, help, samples }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Figures) -> Vec<Sample>,
) -> Family {
    Family { name, kind: Kind::Gauge, labels, help, samples }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Figures) -> Vec<Sample>,
) -> Family {
    Family { name, kind: Kind::Histogram, labels, help, samples }
}

/// The state of the broker, by the numbers of [`Gauge::Broker`].
pub const BROKER: [&str; 3] = ["none", "connected", "lost"];

pub const FAMILIES: &[Family] = &[
    gauge("websocket_up", &[], "1 if the engine has answered, 0 if not", |of| level(of.answers.into())),
    gauge("websocket_engines", &[], "Engines: one, and those of other versions that drain", |of| {
        level(of.totals.engines().count() as u64)
    }),
    gauge("websocket_engine_pid", &[], "The process id of the engine", |of| level(of.newest(Gauge::Pid))),
    gauge("websocket_engine_start_time_seconds", &[], "When the engine began, in seconds since 1970", |of| {
        level(of.newest(Gauge::Started))
    }),
    gauge("websocket_engine_threads", &[], "Threads of all engines", |of| sum(of, Gauge::Threads)),
    gauge("websocket_engine_open_files", &[], "Descriptors that engines have open", |of| sum(of, Gauge::OpenFiles)),
    gauge("websocket_engine_max_files", &[], "Descriptors that an engine may have open", |of| {
        level(of.newest(Gauge::MaxFiles))
    }),
    gauge("websocket_engine_memory_bytes", &[], "What sockets hold: incomplete and unsent messages", |of| {
        sum(of, Gauge::Memory)
    }),
    gauge("websocket_engine_max_memory_bytes", &[], "What sockets may hold (WebSocketMemory)", |of| {
        // No number stands for Off.
        let max = of.newest(Gauge::MaxMemory);
        if max == u64::MAX { Vec::new() } else { level(max) }
    }),
    gauge("websocket_sessions", &["handler", "transport", "vhost"], "Open sessions", |of| {
        of.totals.sessions().into_iter().map(|(labels, open)| (labels.to_vec(), Value::Gauge(open))).collect()
    }),
    gauge("websocket_relayed_sockets", &[], "Open sessions whose bytes go through a child of httpd", |of| {
        level(of.relayed())
    }),
    gauge("websocket_mpm_workers", &[], "Requests that the MPM serves at a time (MaxRequestWorkers)", |of| {
        level(of.workers)
    }),
    counter("websocket_opened", &[], "Sessions that have begun", |of| counted(of, Counter::Opened)),
    counter("websocket_refused", &["status"], "Handshakes that were refused, by HTTP status", |of| {
        labelled(of.totals.refused())
    }),
    counter("websocket_closed", &["code"], "Sessions that have ended, by close code", |of| {
        labelled(of.totals.closed())
    }),
    counter("websocket_messages", &["direction"], "Messages from clients and to them", |of| {
        both(of, [Counter::ReceivedMessages, Counter::SentMessages])
    }),
    counter("websocket_bytes", &["direction"], "Bytes of the payloads of these messages", |of| {
        both(of, [Counter::ReceivedBytes, Counter::SentBytes])
    }),
    gauge("websocket_slow_consumers", &[], "Sessions whose clients have not taken all that was sent", |of| {
        sum(of, Gauge::SlowConsumers)
    }),
    counter(
        "websocket_slow_consumers_closed",
        &[],
        "Sessions that were closed since their clients took too little",
        |of| counted(of, Counter::SlowClosed),
    ),
    counter("websocket_published", &[], "Messages that were published, each channel counted", |of| {
        counted(of, Counter::Published)
    }),
    gauge("websocket_channels", &[], "Channels that are known", |of| sum(of, Gauge::Channels)),
    gauge("websocket_history_messages", &[], "Messages that channels keep", |of| sum(of, Gauge::HistoryMessages)),
    gauge("websocket_history_bytes", &[], "Bytes that these take", |of| sum(of, Gauge::HistoryBytes)),
    gauge("websocket_programs", &[], "Programs of exec and pywebsocket that run", |of| sum(of, Gauge::Programs)),
    gauge(
        "websocket_backend_connections",
        &[],
        "Connections of the handlers tcp and proxy, and of taken-over tunnels",
        |of| level(of.totals.backends()),
    ),
    gauge("websocket_broker", &["state"], "1 for the state of the broker, 0 for the others", |of| {
        let now = of.newest(Gauge::Broker);
        let states = BROKER.iter().enumerate();
        states.map(|(number, state)| (vec![(*state).into()], Value::Gauge((number as u64 == now).into()))).collect()
    }),
    histogram("websocket_handshake_seconds", &[], "From the request of a handshake to its 101", |of| {
        vec![(Vec::new(), Value::Histogram(of.totals.histogram(Timing::Handshake)))]
    }),
    histogram("websocket_handler_seconds", &["operation"], "What handlers wait for, by what it is", |of| {
        let operations =
            [("http", Timing::Http), ("exec", Timing::Exec), ("tcp", Timing::Tcp), ("proxy", Timing::Proxy)];
        let timed = |timing| Value::Histogram(of.totals.histogram(timing));
        operations.map(|(name, timing)| (vec![name.into()], timed(timing))).into()
    }),
    histogram("websocket_fan_out_seconds", &[], "From a publish until a thread has served all its subscribers", |of| {
        vec![(Vec::new(), Value::Histogram(of.totals.histogram(Timing::FanOut)))]
    }),
];

fn level(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), Value::Gauge(value))]
}

fn sum(of: &Figures, gauge: Gauge) -> Vec<Sample> {
    level(of.totals.gauge(gauge))
}

fn counted(of: &Figures, counter: Counter) -> Vec<Sample> {
    vec![(Vec::new(), Value::Counter(of.totals.counter(counter)))]
}

fn labelled(counts: Vec<(String, u64)>) -> Vec<Sample> {
    counts.into_iter().map(|(label, count)| (vec![label], Value::Counter(count))).collect()
}

fn both(of: &Figures, [received, sent]: [Counter; 2]) -> Vec<Sample> {
    let sample = |name: &str, counter| (vec![name.to_owned()], Value::Counter(of.totals.counter(counter)));
    vec![sample("received", received), sample("sent", sent)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has each metric as it is, and no other.
    #[test]
    fn the_page_agrees() {
        let page = include_str!("../../../docs/operations/metrics.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `websocket_")).collect();
        let expected = FAMILIES.iter().map(|Family { name, kind, labels, help, .. }| {
            let total = if *kind == Kind::Counter { "_total" } else { "" };
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            format!("| `{name}{total}` | {} | {labels} | {help} |", kind.name())
        });
        assert_eq!(rows, expected.collect::<Vec<_>>());
        for label in FAMILIES.iter().flat_map(|family| family.labels) {
            assert!(page.contains(&format!("\n| `{label}` |")), "the label {label}");
        }
    }
}
