//! The directives of TCP servers.

use crate::apache::server::root_relative;
use crate::engine::HandlerSpec;
use crate::front::config::{Config, Words, one, seconds};
use crate::handlers::TCP;
use crate::handlers::tcp::target::Target;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In the place of a target: the client's token names it.
pub const TOKEN: &str = "token";

/// What the directives of a section say of TCP servers; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tcp {
    targets: Option<PathBuf>,
    timeout: Option<Duration>,
}

impl Tcp {
    /// This, an inner section's, over an outer one's.
    pub fn over(&self, outer: &Tcp) -> Tcp {
        Tcp { targets: self.targets.clone().or_else(|| outer.targets.clone()), timeout: self.timeout.or(outer.timeout) }
    }

    /// The file that says what tokens stand for.
    pub fn targets(&self) -> Option<&Path> {
        self.targets.as_deref()
    }

    /// How long connecting may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(3))
    }
}

/// What stands behind `WebSocketHandler tcp`.
pub(crate) fn handler(config: &Config, words: Words<'_, '_>) -> Result<HandlerSpec, String> {
    if config.place.in_htaccess {
        return Err(format!(
            "tcp opens a way to a server, which no .htaccess file may do: write this line into httpd's configuration, into \
             a <Directory \"{}\"> for what it is here",
            config.place.path.as_deref().unwrap_or("/")
        ));
    }
    let [target] = words else {
        return Err(
            "tcp takes one server, as localhost:6379, [::1]:6379 or unix:/run/redis.sock; or the word token".into()
        );
    };
    let target = match target.eq_ignore_ascii_case(TOKEN) {
        true => TOKEN.to_owned(),
        false => Target::parse(target).map_err(|why| format!("tcp {why}"))?.to_string(),
    };
    Ok(HandlerSpec { name: TCP.into(), args: vec![target], settings: Vec::new() })
}

pub(crate) fn targets(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = root_relative(one(words, "a file with lines \"name: host:port\"")?);
    // It is read by httpd's User later; what is not there at all is a slip of the pen.
    match File::open(&path).and_then(|file| file.metadata()) {
        Ok(facts) if facts.is_file() => {}
        Ok(_) => return Err(format!("{} is no file; write one with lines \"name: host:port\"", path.display())),
        Err(why) => return Err(format!("{} cannot be read: {why}", path.display())),
    }
    config.tcp.targets = Some(path);
    Ok(())
}

pub(crate) fn timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds")?;
    // A worker of httpd waits that long.
    let time = seconds(word).ok().filter(|time| *time <= MAX_TIMEOUT);
    config.tcp.timeout =
        Some(time.ok_or_else(|| format!("\"{word}\" is no number of seconds from 1 to {}", MAX_TIMEOUT.as_secs()))?);
    Ok(())
}

/// The longest `WebSocketConnectTimeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
