//! How long a file may be.

use super::{compare, sources};

/// Lines of a file without its tests.
const LINES: usize = 450;

/// One concept, however long.
const LONGER: &[&str] = &["channels/store"];

#[test]
fn none_is_too_long() {
    let mut sources = sources();
    sources.retain(|source| source.code().lines().count() > LINES);
    compare(sources.into_iter().map(|source| source.path).collect(), LONGER);
}
