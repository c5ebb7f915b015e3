//! The directives of programs.

use crate::apache::directive::Place;
use crate::engine::{HandlerSpec, Quota};
use crate::front::config::{Bound, Config, Words, bound, is_off, locate, one, or_off, seconds};
use crate::handlers::EXEC;
use crate::handlers::exec::settings::Framing;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// What the directives of a section say of programs; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Programs {
    /// Where the program is named.
    place: Place,
    framing: Option<Framing>,
    stop_timeout: Option<Duration>,
    /// In this and the next, `Off` is `Some(None)`.
    max: Option<Option<Bound>>,
    max_per_client: Option<Option<Bound>>,
    shared: Option<Option<Duration>>,
}

/// The default of `WebSocketExecMax`.
const MAX: u32 = 1024;
/// What `WebSocketExecShared On` says.
const LINGER: Duration = Duration::from_secs(60);

impl Programs {
    /// This, an inner section's, over an outer one's. `own_handler`: it says itself what runs there.
    pub fn over(&self, outer: &Programs, own_handler: bool) -> Programs {
        Programs {
            place: if own_handler { self.place.clone() } else { outer.place.clone() },
            framing: self.framing.or(outer.framing),
            stop_timeout: self.stop_timeout.or(outer.stop_timeout),
            max: self.max.clone().or_else(|| outer.max.clone()),
            max_per_client: self.max_per_client.clone().or_else(|| outer.max_per_client.clone()),
            shared: self.shared.or(outer.shared),
        }
    }

    /// How messages are told apart.
    pub fn framing(&self) -> Framing {
        self.framing.unwrap_or_default()
    }

    /// Their input has no messages in it, only bytes.
    pub fn are_streams(&self) -> bool {
        self.framing() == Framing::Chunks
    }

    /// How long a program has to end, twice.
    pub fn stop_timeout(&self) -> Duration {
        self.stop_timeout.unwrap_or(Duration::from_secs(2))
    }

    /// One program for all clients, and how long it stays without any; and the place that they have in common, at a virtual
    /// host of this name.
    pub fn shared(&self, host: &str) -> Option<(Duration, String)> {
        self.shared.flatten().map(|linger| (linger, locate(&self.place, host)))
    }

    /// What a program of this client counts for, at a virtual host of this name.
    pub fn quotas(&self, host: &str, client: &str) -> Vec<Quota> {
        let max = self.max.clone().unwrap_or_else(|| Some(Bound { max: MAX, place: Place::default() }));
        // So that it takes several clients to leave nothing to others.
        let quarter = || max.as_ref().map(|bound| Bound { max: bound.max.div_ceil(4), place: bound.place.clone() });
        let per_client = self.max_per_client.clone().unwrap_or_else(quarter);
        let per_client = per_client.map(|bound| bound.quota("WebSocketExecMaxPerClient", host, Some(client)));
        per_client.into_iter().chain(max.map(|bound| bound.quota("WebSocketExecMax", host, None))).collect()
    }
}

/// What stands behind `WebSocketHandler exec`.
pub(crate) fn handler(config: &mut Config, words: Words<'_, '_>) -> Result<HandlerSpec, String> {
    let Some(program) = words.first() else {
        return Err("exec takes a program and its arguments, as exec /usr/local/bin/count".into());
    };
    if config.place.in_htaccess {
        return Err(format!(
            "exec runs a program, which no .htaccess file may do: write this line into httpd's configuration, into a \
             <Directory \"{}\"> for what it is here",
            config.place.path.as_deref().unwrap_or("/")
        ));
    }
    if !program.starts_with('/') {
        return Err(format!(
            "exec takes the absolute path of a program, as /usr/local/bin/count, and not \"{program}\""
        ));
    }
    let facts = Path::new(&**program).metadata().map_err(|why| format!("exec cannot run {program}: {why}"))?;
    if !facts.is_file() {
        return Err(format!("exec cannot run {program}: it is no file; write the path of a program"));
    }
    if facts.permissions().mode() & 0o111 == 0 {
        return Err(format!("exec cannot run {program}: it is not executable; let chmod a+x make it so"));
    }
    config.programs.place = config.place.clone();
    let args = words.iter().map(|word| word.clone().into_owned()).collect();
    Ok(HandlerSpec { name: EXEC.into(), args, settings: Vec::new() })
}

pub(crate) fn framing(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "lines, chunks or length")?;
    config.programs.framing = Some(match word.to_ascii_lowercase().as_str() {
        "lines" => Framing::Lines,
        "chunks" => Framing::Chunks,
        "length" => Framing::Length,
        _ => return Err(format!("\"{word}\" is none of lines, chunks and length")),
    });
    Ok(())
}

pub(crate) fn max(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.programs.max = Some(bound(config, words)?);
    Ok(())
}

pub(crate) fn max_per_client(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.programs.max_per_client = Some(bound(config, words)?);
    Ok(())
}

pub(crate) fn stop_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.programs.stop_timeout = Some(seconds(one(words, "a number of seconds")?)?);
    Ok(())
}

pub(crate) fn shared(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "On, Off or a number of seconds")?;
    config.programs.shared = Some(if is_off(word) {
        None
    } else if word.eq_ignore_ascii_case("on") {
        Some(LINGER)
    } else {
        Some(seconds(word).map_err(|why| or_off(format!("{why}, not On")))?)
    });
    Ok(())
}
