//! The directives of programs.

use super::settings::Framing;
use crate::apache::directive::DirectivePlace;
use crate::engine::Quota;
use crate::front::config::limit::{PlacedBound, locate};
use crate::front::config::words::{Words, bound, is_off, one, seconds, seconds_or};
use crate::front::config::{Config, directives, merged};
use crate::front::handler::only_in_httpds;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

merged! {
    /// What the directives of a section say of programs; `None` where they say nothing.
    pub(crate) struct ExecConfig {
        place: Option<DirectivePlace>,
        framing: Option<Framing>,
        stop_timeout: Option<Duration>,
        /// In this and the next, `Off` is `Some(None)`.
        max: Option<Option<PlacedBound>>,
        max_per_client: Option<Option<PlacedBound>>,
        shared: Option<Option<Duration>>,
    }
}

/// The default of `WebSocketExecMax`.
const MAX: u32 = 1024;
/// What `WebSocketExecShared On` says.
const LINGER: Duration = Duration::from_secs(60);

directives! { pub(crate) DIRECTIVES =
    c"WebSocketExecFraming" "lines|chunks|length" in Sections, else "lines" => framing,
        c"How a program's messages are told apart: by newlines ('lines'), not at all ('chunks'), by a header with the length ('length')";
    c"WebSocketExecMax" "number|Off" in Sections, else "1024" => max,
        c"How many programs may run at a time, or 'Off'; one more client gets 503";
    c"WebSocketExecMaxPerClient" "number|Off" in Sections, else "a quarter of WebSocketExecMax" => max_per_client,
        c"How many programs may run at a time for one client address, or 'Off'; one more gets 503";
    c"WebSocketExecStopTimeout" "seconds" in Sections, else "2" => stop_timeout,
        c"Seconds that a program has to end when its input was closed, and again after SIGTERM";
    c"WebSocketExecShared" "On|Off|seconds" in Sections, else "Off" => shared,
        c"Whether all clients have one program, and how many seconds it stays after the last one: 'On' is 60";
}

impl ExecConfig {
    pub(crate) fn framing(&self) -> Framing {
        self.framing.unwrap_or_default()
    }

    pub(crate) fn stop_timeout(&self) -> Duration {
        self.stop_timeout.unwrap_or(Duration::from_secs(2))
    }

    /// One program for all clients, and how long it stays without any; and the place that they have in common, at a virtual
    /// host of this name.
    pub(crate) fn shared(&self, host: &str) -> Option<(Duration, String)> {
        self.shared
            .flatten()
            .map(|linger| (linger, locate(self.place.as_ref().unwrap_or(&DirectivePlace::default()), host)))
    }

    /// What a program of this client counts for, at a virtual host of this name.
    pub(crate) fn quotas(&self, host: &str, client: &str) -> Vec<Quota> {
        let max = self.max.clone().unwrap_or_else(|| Some(PlacedBound { max: MAX, place: DirectivePlace::default() }));
        // So that it takes several clients to leave nothing to others.
        let quarter =
            || max.as_ref().map(|bound| PlacedBound { max: bound.max.div_ceil(4), place: bound.place.clone() });
        let per_client = self.max_per_client.clone().unwrap_or_else(quarter);
        let per_client = per_client.map(|bound| bound.quota("WebSocketExecMaxPerClient", host, Some(client)));
        per_client.into_iter().chain(max.map(|bound| bound.quota("WebSocketExecMax", host, None))).collect()
    }
}

/// What stands behind `WebSocketHandler exec`.
pub(super) fn args(config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
    let [_, program, ..] = words else {
        return Err("expected a program and its arguments, such as exec /usr/local/bin/count".into());
    };
    only_in_httpds(config, "exec runs a program, which no .htaccess file may do")?;
    if !program.starts_with('/') {
        return Err(format!(
            "expected the absolute path of a program, such as /usr/local/bin/count, got \"{program}\""
        ));
    }
    let facts = Path::new(&**program).metadata().map_err(|why| format!("exec cannot run {program}: {why}"))?;
    if !facts.is_file() {
        return Err(format!("exec cannot run {program}: it is not a file"));
    }
    if facts.permissions().mode() & 0o111 == 0 {
        return Err(format!("exec cannot run {program}: it is not executable; run chmod a+x on it"));
    }
    let place = Some(config.place.clone());
    config.change(|exec: &mut ExecConfig| exec.place = place);
    Ok(words[1..].iter().map(|word| word.clone().into_owned()).collect())
}

fn framing(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "lines, chunks or length")?;
    let framing = match word.to_ascii_lowercase().as_str() {
        "lines" => Framing::Lines,
        "chunks" => Framing::Chunks,
        "length" => Framing::Length,
        _ => return Err(format!("expected lines, chunks or length, got \"{word}\"")),
    };
    config.change(|exec: &mut ExecConfig| exec.framing = Some(framing));
    Ok(())
}

fn max(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bound = bound(config, words)?;
    config.change(|exec: &mut ExecConfig| exec.max = Some(bound));
    Ok(())
}

fn max_per_client(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bound = bound(config, words)?;
    config.change(|exec: &mut ExecConfig| exec.max_per_client = Some(bound));
    Ok(())
}

fn stop_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let timeout = seconds(one(words, "a number of seconds")?)?;
    config.change(|exec: &mut ExecConfig| exec.stop_timeout = Some(timeout));
    Ok(())
}

fn shared(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "On, Off or a number of seconds")?;
    let linger = if is_off(word) {
        None
    } else if word.eq_ignore_ascii_case("on") {
        Some(LINGER)
    } else {
        Some(seconds_or(word, ", On or Off")?)
    };
    config.change(|exec: &mut ExecConfig| exec.shared = Some(linger));
    Ok(())
}
