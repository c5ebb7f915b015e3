//! The version in Cargo.toml is that of the changelog and of the Debian package.

use super::root;
use std::fs;

#[test]
fn everything_has_the_version_of_the_crate() {
    let text = |name: &str| fs::read_to_string(root().join(name)).expect("a text");
    let version = env!("CARGO_PKG_VERSION");
    let changelog = text("CHANGELOG.md");
    let newest = changelog.lines().find(|line| line.starts_with("## ") && *line != "## Unreleased");
    assert!(newest.is_some_and(|line| line.starts_with(&format!("## {version} - "))), "CHANGELOG.md: {newest:?}");
    let package = text("debian/changelog");
    let package = package.lines().next().unwrap_or_default();
    assert!(package.starts_with(&format!("libapache2-mod-websocket ({version}-")), "debian/changelog: {package}");
}
