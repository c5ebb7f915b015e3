//! The `log` facade's way to httpd's error log. httpd adds time, process, and the module's name.

use crate::apache::log::{self as httpd, Level, Source};
use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak of things that an administrator has no name for.
        metadata.level() <= log::max_level() && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                log::Level::Error => Level::Error,
                log::Level::Warn => Level::Warning,
                log::Level::Info => Level::Info,
                log::Level::Debug => Level::Debug,
                log::Level::Trace => Level::Trace,
            };
            let source = Source { file: record.file().unwrap_or_default(), line: record.line().unwrap_or_default() };
            httpd::main_from(source, level, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Directs the facade to httpd's log, from this level on (httpd's number, APLOG_*).
pub fn install(level: i32) {
    // A second time it is there already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(filter(level));
}

fn filter(level: i32) -> LevelFilter {
    match level {
        i32::MIN..=3 => LevelFilter::Error,
        4 | 5 => LevelFilter::Warn,
        6 => LevelFilter::Info,
        7 => LevelFilter::Debug,
        8.. => LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn httpds_levels_are_ours() {
        assert_eq!(filter(Level::Critical as i32), LevelFilter::Error);
        assert_eq!(filter(Level::Error as i32), LevelFilter::Error);
        assert_eq!(filter(Level::Warning as i32), LevelFilter::Warn);
        assert_eq!(filter(Level::Notice as i32), LevelFilter::Warn);
        assert_eq!(filter(Level::Info as i32), LevelFilter::Info);
        assert_eq!(filter(Level::Debug as i32), LevelFilter::Debug);
        assert_eq!(filter(Level::Trace as i32), LevelFilter::Trace);
        assert_eq!(filter(i32::MAX), LevelFilter::Trace);
    }
}
