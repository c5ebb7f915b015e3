//! The directives of TCP servers.

use super::target::Target;
use crate::apache::server::root_relative;
use crate::front::config::words::{Words, one, seconds};
use crate::front::config::{Config, directives, merged};
use crate::front::handler::only_in_httpds;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In the place of a target: the client's token names it.
pub(super) const TOKEN: &str = "token";

merged! {
    /// What the directives of a section say of TCP servers; `None` where they say nothing.
    pub(crate) struct TcpConfig {
        targets: Option<PathBuf>,
        timeout: Option<Duration>,
    }
}

directives! { pub(crate) DIRECTIVES =
    c"WebSocketTcpTargets" "file" in Sections, else "none" => targets,
        c"A file with lines 'name: host:port': what clients of 'WebSocketHandler tcp token' may name by '?token=name'";
    c"WebSocketConnectTimeout" "seconds" in Sections, else "3" => timeout,
        c"Seconds that connecting to the server of 'WebSocketHandler tcp' may take, before the client gets 504";
}

impl TcpConfig {
    pub(crate) fn targets(&self) -> Option<&Path> {
        self.targets.as_deref()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(3))
    }
}

/// What stands behind `WebSocketHandler tcp`.
pub(super) fn args(config: &Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
    only_in_httpds(config, "tcp opens a way to a server, which no .htaccess file may do")?;
    let [_, target] = words else {
        return Err(
            "expected one server, such as localhost:6379, [::1]:6379 or unix:/run/redis.sock; or the word token".into(),
        );
    };
    Ok(vec![match target.eq_ignore_ascii_case(TOKEN) {
        true => TOKEN.to_owned(),
        false => Target::parse(target).map_err(|why| format!("tcp {why}"))?.to_string(),
    }])
}

fn targets(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = root_relative(one(words, "a file with lines \"name: host:port\"")?);
    // It is read by httpd's User later; what is not there at all is a slip of the pen.
    match File::open(&path).and_then(|file| file.metadata()) {
        Ok(facts) if facts.is_file() => {}
        Ok(_) => return Err(format!("{} is not a file; expected one with lines \"name: host:port\"", path.display())),
        Err(why) => return Err(format!("{} cannot be read: {why}", path.display())),
    }
    config.change(|tcp: &mut TcpConfig| tcp.targets = Some(path));
    Ok(())
}

fn timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds")?;
    // A worker of httpd waits that long.
    let time = seconds(word).ok().filter(|time| *time <= MAX_TIMEOUT);
    let time = time.ok_or_else(|| format!("expected 1–{} seconds, got \"{word}\"", MAX_TIMEOUT.as_secs()))?;
    config.change(|tcp: &mut TcpConfig| tcp.timeout = Some(time));
    Ok(())
}

/// The longest `WebSocketConnectTimeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
