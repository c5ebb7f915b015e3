//! Advice at startup: settings that cannot carry what `WebSocketMaxConnections` or `WebSocketHttpMax` allows, and what to set
//! instead.

use crate::apache::log::{self, Level};
use crate::apache::{conftree, mpm};
use crate::engine::application::queue::DEFAULT_MAX;
use crate::handlers::plugin::front as plugin;
use rustix::process::{Resource, getrlimit};

/// What httpd does not document as a number to ask for: `AsyncRequestWorkerFactor`'s default.
const DEFAULT_FACTOR: f64 = 2.0;
/// Descriptors that the engine, or a child of httpd, needs beside those of sessions.
const OTHER_FDS: u64 = 100;

#[derive(Debug, Clone, Copy)]
struct Facts {
    /// The largest `WebSocketMaxConnections`.
    wanted: u64,
    /// Some virtual host has `SSLEngine on`, with `WebSocketTLSHandoff Off` somewhere, or a plugin is configured: httpd keeps
    /// such connections.
    kept: bool,
    suspends: bool,
    /// Threads of all children together: `MaxRequestWorkers`.
    workers: u64,
    children: u64,
    /// `AsyncRequestWorkerFactor`.
    factor: f64,
    /// The hard limit of open files of a process.
    files: u64,
}

/// Logs the advice for the configuration that was just read.
pub fn give() {
    if conftree::arguments_of("WebSocketHandler").iter().any(|words| asks_this_httpd(words)) {
        let max = conftree::arguments_of("WebSocketHttpMax").last().and_then(|max| max.trim().parse().ok());
        let workers = mpm::max_children() * mpm::threads_per_child();
        if let Some(line) = requests(max.unwrap_or(DEFAULT_MAX).into(), workers) {
            log::main(Level::Warning, &line);
        }
    }
    let numbers = conftree::arguments_of("WebSocketMaxConnections");
    let Some(wanted) = numbers.iter().filter_map(|number| number.trim().parse().ok()).max() else { return };
    let factor =
        conftree::arguments_of("AsyncRequestWorkerFactor").last().and_then(|factor| factor.trim().parse().ok());
    let children = mpm::max_children();
    let facts = Facts {
        wanted,
        kept: (is_among("SSLEngine", "on") && is_among("WebSocketTLSHandoff", "off"))
            || conftree::arguments_of("WebSocketHandler").iter().any(|words| names_plugin(words)),
        suspends: mpm::can_suspend(),
        workers: children * mpm::threads_per_child(),
        children,
        factor: factor.unwrap_or(DEFAULT_FACTOR),
        files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
    };
    for line in advice(&facts) {
        log::main(Level::Warning, &line);
    }
}

/// A directive has this value somewhere.
fn is_among(directive: &str, value: &str) -> bool {
    conftree::arguments_of(directive).iter().any(|argument| argument.trim().eq_ignore_ascii_case(value))
}

/// True for the words of a WebSocketHandler that is a plugin: its first is a file.
fn names_plugin(words: &str) -> bool {
    words.split_whitespace().next().is_some_and(|word| plugin::is_file(word.trim_matches('"')))
}

/// True for the words of a WebSocketHandler whose sessions the engine asks this httpd about.
fn asks_this_httpd(words: &str) -> bool {
    let mut words = words.split_whitespace().map(|word| word.trim_matches('"'));
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("http"))
        && words.next().is_some_and(|url| url.starts_with('/'))
}

/// The engine's requests may take so many of the threads.
fn requests(max: u64, workers: u64) -> Option<String> {
    (2 * max >= workers).then(|| {
        format!(
            "WS0225: WebSocketHttpMax {max}: so many requests of the engine take half of this server's threads or more, \
             MaxRequestWorkers {workers}: set WebSocketHttpMax to less than {}, or MaxRequestWorkers to more than {}",
            workers.div_ceil(2),
            2 * max
        )
    })
}

/// Where the hard limit of open files comes from. Debian's `apache2ctl` lowers that of the unit.
const LIMIT_OF_FILES: &str =
    "LimitNOFILE= of httpd's unit; on Debian APACHE_ULIMIT_MAX_FILES in envvars, too; else ulimit -Hn";

fn advice(facts: &Facts) -> Vec<String> {
    let Facts { wanted, kept, suspends, workers, children, factor, files } = *facts;
    let mut lines = Vec::new();
    if wanted + OTHER_FDS > files {
        lines.push(format!(
            "WS0221: WebSocketMaxConnections {wanted} needs {} open files in the engine, and the hard limit is {files}: \
             raise it ({LIMIT_OF_FILES})",
            wanted + OTHER_FDS
        ));
    }
    if !kept {
        return lines;
    }
    if !suspends {
        if wanted > workers {
            lines.push(format!(
                "WS0222: WebSocketMaxConnections {wanted}: over TLS or with a plugin each holds a thread of this MPM, and MaxRequestWorkers \
                 is {workers}: use the event MPM, or set MaxRequestWorkers to more than {wanted}"
            ));
        }
        return lines;
    }
    // httpd's documentation of AsyncRequestWorkerFactor: (factor + 1) * MaxRequestWorkers connections at most.
    let carried = ((factor + 1.0) * workers as f64) as u64;
    if wanted > carried {
        lines.push(format!(
            "WS0223: WebSocketMaxConnections {wanted}: over TLS or with plugins event carries {carried} connections, (AsyncRequestWorkerFactor \
             {factor} + 1) x MaxRequestWorkers {workers}: set AsyncRequestWorkerFactor to {} or more",
            wanted.div_ceil(workers.max(1))
        ));
    }
    // The client's socket, and the end of a socketpair.
    let per_child = 2 * wanted.div_ceil(children.max(1)) + OTHER_FDS;
    if per_child > files {
        lines.push(format!(
            "WS0224: WebSocketMaxConnections {wanted}: over TLS or with plugins a child of httpd needs {per_child} open files, and the hard \
             limit is {files}: raise it ({LIMIT_OF_FILES}), or ServerLimit"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Facts =
        Facts { wanted: 1000, kept: true, suspends: true, workers: 400, children: 16, factor: 2.0, files: 20_000 };

    fn ids(facts: Facts) -> Vec<String> {
        advice(&facts).iter().map(|line| line[..6].to_owned()).collect()
    }

    #[test]
    fn what_suffices_is_not_spoken_of() {
        assert!(advice(&ENOUGH).is_empty());
        assert!(advice(&Facts { wanted: 15_000, kept: false, ..ENOUGH }).is_empty());
    }

    #[test]
    fn requests_leave_half_of_the_threads() {
        assert_eq!((requests(199, 400), requests(32, 65)), (None, None));
        for (max, workers) in [(200, 400), (33, 65)] {
            let line = requests(max, workers).unwrap();
            assert!(line.starts_with("WS0225: ") && line.contains(&format!("more than {}", 2 * max)), "{line}");
        }
        assert!(asks_this_httpd("http /app.php") && asks_this_httpd("HTTP \"/app.php?q=%{QUERY_STRING}\""));
        assert!(
            !asks_this_httpd("http http://localhost/") && !asks_this_httpd("channel /a") && !asks_this_httpd("http")
        );
    }

    #[test]
    fn each_want_has_its_line_and_its_value() {
        assert_eq!(ids(Facts { wanted: 30_000, kept: false, ..ENOUGH }), ["WS0221"]);
        assert_eq!(ids(Facts { suspends: false, ..ENOUGH }), ["WS0222"]);
        let lines = advice(&Facts { wanted: 8000, ..ENOUGH });
        assert!(lines[0].contains("set AsyncRequestWorkerFactor to 20 or more"), "{lines:?}");
        assert!(advice(&Facts { wanted: 8000, factor: 20.0, ..ENOUGH }).is_empty());
        assert_eq!(ids(Facts { wanted: 15_000, factor: 40.0, children: 1, ..ENOUGH }), ["WS0224"]);
        for facts in [
            Facts { wanted: 30_000, kept: false, ..ENOUGH },
            Facts { wanted: 15_000, factor: 40.0, children: 1, ..ENOUGH },
        ] {
            let lines = advice(&facts);
            assert!(lines[0].contains("APACHE_ULIMIT_MAX_FILES"), "{lines:?}");
        }
    }
}
