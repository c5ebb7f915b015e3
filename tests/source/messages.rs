//! The ids of log lines: each stands for one message, and `docs/messages.md` explains it.

use super::{root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The ids in a text behind which this stands.
fn ids<'a>(text: &'a str, behind: &str) -> impl Iterator<Item = &'a str> {
    text.match_indices("WS").filter_map(move |(at, _)| {
        let id = text.get(at..at + 6)?;
        (id[2..].bytes().all(|byte| byte.is_ascii_digit()) && text[at + 6..].starts_with(behind)).then_some(id)
    })
}

#[test]
fn each_stands_for_one_message() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for id in ids(source.code(), ": ") {
            places.entry(id.to_owned()).or_default().push(source.path.clone());
        }
    }
    assert!(places.len() > 100, "{} ids", places.len());
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "ids of several messages: {places:#?}");
}

#[test]
fn each_is_explained() {
    let sources = sources();
    let logged: BTreeSet<&str> = sources.iter().flat_map(|source| ids(source.code(), ": ")).collect();
    let page = fs::read_to_string(root().join("docs/messages.md")).expect("the page");
    let rows: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| ").and_then(|row| ids(row, " |").next())).collect();
    let explained: BTreeSet<&str> = rows.iter().copied().collect();
    assert_eq!(rows.len(), explained.len(), "an id has two rows in docs/messages.md");
    let missing: Vec<_> = logged.difference(&explained).collect();
    assert!(missing.is_empty(), "not in docs/messages.md: {missing:?}");
    let stale: Vec<_> = explained.difference(&logged).collect();
    assert!(stale.is_empty(), "in docs/messages.md, and logged nowhere: {stale:?}");
}

#[test]
fn what_is_shown_by_default_has_one() {
    for source in sources() {
        for (at, _) in ["error!(", "warn!(", "info!("].iter().flat_map(|level| source.code().match_indices(level)) {
            let literal = source.code()[at..].split_once('(').map_or("", |(_, rest)| rest.trim_start());
            assert!(literal.starts_with("\"WS"), "{}: a line without an id: {:.80}", source.path, literal);
        }
    }
}
