//! What holds for the server, or a virtual host: of the engine, its threads, memory and logs; of TLS and HTTP/2.

use super::words::{MAX_SECONDS, Words, is_off, on_off, one, set, threads};
use super::{Config, directives, merged};
use crate::engine::memory::Bound as Memory;
use std::time::Duration;

/// The shortest time after which an engine may be replaced: its threads sleep for 2 s.
const MIN_SECONDS: u64 = 5;

merged! {
    /// What is said of an engine that does not answer.
    pub(crate) struct Lateness {
        wait: Option<u32>,
        /// `Off` is `Some(None)`.
        timeout: Option<Option<Duration>>,
    }
}

directives! { pub(super) DIRECTIVES =
    c"WebSocketEngineThreads" "number" in Global, else "the number of CPUs" => |config, words| set(&mut config.engine_threads, threads(words)),
        c"Threads that run all sessions; takes effect when the server is started";
    c"WebSocketEngineWait" "number" in Global, else "a quarter of the workers" => engine_wait,
        c"How many worker threads of a child (under prefork: how many children) may wait for the engine; others then get 503";
    c"WebSocketEngineTimeout" "seconds|Off" in Global, else "30" => engine_timeout,
        c"Seconds without a sign of life of an engine thread after which the engine is replaced, or 'Off'";
    c"WebSocketMemory" "bytes|Off" in Global, else "a quarter of the machine's" => memory,
        c"Bytes that all sockets may hold together: of unfinished messages, of what is not sent; or 'Off'";
    c"WebSocketLog" "file|\"|program\" [query]" in Host, else "none" => session_log,
        c"A file, or a '|program', that gets a line for each session that ends; with the query of its URL where 'query' follows";
    c"WebSocketTLSHandoff" "On|Off" in Host, else "On" => |config, words| set(&mut config.tls_handoff, on_off(words)),
        c"Whether the engine goes on with TLS 1.3 connections by itself: they need neither memory nor a thread of httpd";
    c"WebSocketH2Streams" "number" in Host, else "4" => h2_streams,
        c"WebSockets that one connection of HTTP/2 may have open at a time; one more gets 503";
    c"WebSocketStopCode" "1012|1001" in Global, else "1012" => stop_code,
        c"The close code of all sockets when the server stops: 1012 (service restart), after which clients come back, or 1001 (going away)";
}

impl Config {
    /// The engine goes on with TLS connections by itself, where that can be.
    pub(crate) fn tls_handoff(&self) -> bool {
        self.tls_handoff.unwrap_or(true)
    }

    pub(crate) fn stop_code(&self) -> u16 {
        self.stop_code.unwrap_or(1012)
    }

    /// WebSockets of one connection of HTTP/2.
    pub(crate) fn h2_streams(&self) -> usize {
        self.h2_streams.unwrap_or(4)
    }

    /// Where a line goes for each session that ends: a path, or `|program`.
    pub(crate) fn session_log(&self) -> Option<&str> {
        self.session_log.as_ref().map(|(target, _)| target.as_str())
    }

    pub(crate) fn session_log_query(&self) -> bool {
        self.session_log.as_ref().is_some_and(|(_, query)| *query)
    }

    /// What is said of an engine that does not answer.
    pub(crate) fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    pub(crate) fn memory(&self) -> Memory {
        self.memory.unwrap_or_default()
    }

    pub(crate) fn engine_threads(&self) -> usize {
        self.engine_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Lateness {
    /// How many of those that have so many workers among them may wait for the engine.
    pub(crate) fn wait(&self, workers: u64) -> u32 {
        self.wait.unwrap_or_else(|| u32::try_from(workers / 4).unwrap_or(u32::MAX).max(1))
    }

    /// After which time without a sign of life the engine is replaced.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout.unwrap_or(Some(Duration::from_secs(30)))
    }
}

fn engine_wait(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=i32::MAX as u32).contains(number));
    config.lateness.wait =
        Some(number.ok_or_else(|| format!("expected a number from 1 to {}, got \"{word}\"", i32::MAX))?);
    Ok(())
}

fn engine_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds or Off")?;
    let seconds = word.parse().ok().filter(|seconds| (MIN_SECONDS..=MAX_SECONDS).contains(seconds));
    config.lateness.timeout = Some(match seconds {
        _ if is_off(word) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => return Err(format!("expected {MIN_SECONDS}–{MAX_SECONDS} seconds or Off, got \"{word}\"")),
    });
    Ok(())
}

fn h2_streams(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=1000).contains(number));
    config.h2_streams = Some(number.ok_or_else(|| format!("expected 1\u{2013}1000, got \"{word}\""))?);
    Ok(())
}

fn stop_code(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.stop_code = Some(match one(words, "1012 or 1001")? {
        "1012" => 1012,
        "1001" => 1001,
        word => return Err(format!("expected 1012 or 1001, got \"{word}\"")),
    });
    Ok(())
}

fn memory(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    /// Less than a message may have by default would be of no use.
    const LEAST: u64 = 1 << 20;
    let word = one(words, "a number of bytes or Off")?;
    let bytes = word.parse().ok().filter(|bytes| (LEAST..=i64::MAX as u64).contains(bytes));
    config.memory = Some(match bytes {
        Some(bytes) => Memory::Bytes(bytes),
        None if is_off(word) => Memory::Off,
        None => return Err(format!("expected {LEAST}–{} bytes or Off, got \"{word}\"", i64::MAX)),
    });
    Ok(())
}

fn session_log(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let (word, query) = match words {
        [word] => (word, false),
        [word, query] if query.eq_ignore_ascii_case("query") => (word, true),
        _ => {
            return Err(
                "expected the path of a file or \"|program\" in quotes, optionally followed by the word query".into()
            );
        }
    };
    if word.trim_start_matches(['|', '$', ' ']).is_empty() {
        return Err(format!("expected the path of a file or a |program, got \"{word}\""));
    }
    config.session_log = Some((word.clone().into_owned(), query));
    Ok(())
}
