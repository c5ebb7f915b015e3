//! The figures as a section of mod_status' page.

use super::figures;
use crate::apache::request::Request;
use crate::apache::server_status::Form;
use crate::engine::metrics::board::now;
use crate::engine::metrics::families::{BROKER, Figures};
use crate::engine::metrics::totals::RATED;
use crate::engine::metrics::{Counter, Gauge};
use std::fmt::Write;

/// Adds the section to the page.
pub(crate) fn show(request: &mut Request, form: Form) {
    match figures() {
        Ok(figures) => {
            let rows = rows(&figures);
            let text = match form {
                Form::Lines => lines(&rows),
                Form::Html => html(&rows, true),
                Form::HtmlWithoutTables => html(&rows, false),
            };
            request.write(&text);
        }
        Err(why) => super::tell(request, &why),
    }
}

/// A figure of the page.
struct Row {
    /// In `?auto`, after `WebSocket`.
    key: &'static str,
    /// What the figure is of, where there are several.
    of: Option<String>,
    /// In HTML.
    text: &'static str,
    value: String,
}

fn row(key: &'static str, text: &'static str, value: impl ToString) -> Row {
    Row { key, of: None, text, value: value.to_string() }
}

/// Of bytes; there may be no bound.
fn bytes(value: u64) -> String {
    if value == u64::MAX { "Off".into() } else { value.to_string() }
}

fn rows(figures: &Figures) -> Vec<Row> {
    let Figures { totals, answers, workers } = figures;
    let counter = |counter| totals.counter(counter);
    let engines = totals.engines().count();
    let state = match (answers, engines) {
        (true, _) => "answers",
        (false, 0) => "is being replaced",
        (false, _) => "does not answer",
    };
    let uptime = match figures.newest(Gauge::Started) {
        0 => 0,
        started => now().saturating_sub(started),
    };
    let mut rows = vec![
        row("Engine", "Engine", state),
        row("Engines", "Engines, with those that drain", engines),
        row("EnginePid", "Process of the engine", figures.newest(Gauge::Pid)),
        row("EngineUptime", "It runs for (seconds)", uptime),
        row("EngineThreads", "Threads", totals.gauge(Gauge::Threads)),
        row("OpenFiles", "Open files", totals.gauge(Gauge::OpenFiles)),
        row("MaxFiles", "Limit of open files", bytes(figures.newest(Gauge::MaxFiles))),
        row("Memory", "Bytes that sockets hold", totals.gauge(Gauge::Memory)),
        row("MaxMemory", "Bytes that they may hold", bytes(figures.newest(Gauge::MaxMemory))),
    ];
    let sessions = totals.sessions();
    rows.push(row("Sessions", "Open sessions", sessions.values().sum::<u64>()));
    let each = |key, text| move |(of, count): (String, u64)| Row { key, of: Some(of), text, value: count.to_string() };
    rows.extend(
        sessions.into_iter().map(|(labels, open)| (labels.join(","), open)).map(each("Sessions", "Open sessions")),
    );
    rows.push(row("RelayedSockets", "Sockets that children relay", figures.relayed()));
    rows.push(row("MpmWorkers", "Requests that the MPM serves at a time", workers));
    rows.push(row("Opened", "Sessions that have begun", counter(Counter::Opened)));
    let refused = totals.refused();
    rows.push(row("Refused", "Refused handshakes", refused.iter().map(|(_, count)| count).sum::<u64>()));
    rows.extend(refused.into_iter().map(each("Refused", "Refused handshakes")));
    let closed = totals.closed();
    rows.push(row("Closed", "Sessions that have ended", closed.iter().map(|(_, count)| count).sum::<u64>()));
    rows.extend(closed.into_iter().map(each("Closed", "Sessions that have ended")));
    rows.extend([
        row("ReceivedMessages", "Messages from clients", counter(Counter::ReceivedMessages)),
        row("SentMessages", "Messages to clients", counter(Counter::SentMessages)),
        row("ReceivedBytes", "Bytes from clients", counter(Counter::ReceivedBytes)),
        row("SentBytes", "Bytes to clients", counter(Counter::SentBytes)),
    ]);
    for (counter, rate) in RATED.into_iter().zip(totals.rates()) {
        let (key, text) = match counter {
            Counter::ReceivedMessages => ("ReceivedMessagesPerSec", "Messages from clients a second, lately"),
            Counter::SentMessages => ("SentMessagesPerSec", "Messages to clients a second, lately"),
            Counter::ReceivedBytes => ("ReceivedBytesPerSec", "Bytes from clients a second, lately"),
            Counter::SentBytes => ("SentBytesPerSec", "Bytes to clients a second, lately"),
            _ => ("OpenedPerSec", "Sessions that begin a second, lately"),
        };
        rows.push(row(key, text, format!("{rate:.3}")));
    }
    let broker = BROKER.get(figures.newest(Gauge::Broker) as usize).copied().unwrap_or_default();
    rows.extend([
        row("SlowConsumers", "Clients that have not taken all", totals.gauge(Gauge::SlowConsumers)),
        row("SlowConsumersClosed", "Sessions closed for that", counter(Counter::SlowClosed)),
        row("Published", "Published messages", counter(Counter::Published)),
        row("Channels", "Channels", totals.gauge(Gauge::Channels)),
        row("HistoryMessages", "Messages that they keep", totals.gauge(Gauge::HistoryMessages)),
        row("HistoryBytes", "Bytes that these take", totals.gauge(Gauge::HistoryBytes)),
        row("Programs", "Programs that run", totals.gauge(Gauge::Programs)),
        row("BackendConnections", "Connections to servers behind", totals.backends()),
        row("Broker", "Broker", broker),
        row("CountedSince", "Counters since (seconds since 1970)", totals.began()),
    ]);
    rows
}

fn lines(rows: &[Row]) -> String {
    rows.iter().fold(String::new(), |mut text, Row { key, of, value, .. }| {
        let of = of.as_ref().map_or(String::new(), |of| format!("[{of}]"));
        // Into a String, which takes everything.
        let _ = writeln!(text, "WebSocket{key}{of}: {value}");
        text
    })
}

fn html(rows: &[Row], tables: bool) -> String {
    let mut text = String::from("<hr />\n<h2>WebSockets</h2>\n");
    text += if tables { "<table border=\"0\">\n" } else { "<dl>\n" };
    for Row { of, text: what, value, .. } in rows {
        let what = of.as_ref().map_or_else(|| (*what).to_owned(), |of| format!("{what}: {of}"));
        let (what, value) = (escaped(&what), escaped(value));
        // As above.
        let _ = match tables {
            true => writeln!(text, "<tr><td>{what}</td><td>{value}</td></tr>"),
            false => writeln!(text, "<dt>{what}</dt><dd>{value}</dd>"),
        };
    }
    text + if tables { "</table>\n" } else { "</dl>\n" }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_text() {
        let rows = [Row { key: "Sessions", of: Some("<b>&\"".into()), text: "Open sessions", value: "1".into() }];
        assert_eq!(lines(&rows), "WebSocketSessions[<b>&\"]: 1\n");
        assert!(html(&rows, true).contains("<tr><td>Open sessions: &lt;b&gt;&amp;&quot;</td><td>1</td></tr>"));
        assert!(html(&rows, false).contains("<dt>Open sessions: &lt;b&gt;&amp;&quot;</dt><dd>1</dd>"));
    }
}
