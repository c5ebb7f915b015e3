//! `rust-version` in Cargo.toml: no package that Cargo.lock has for this system asks for a newer Rust. What the standard
//! library has had only since then is found by clippy's incompatible_msrv.

use super::root;
use std::process::Command;

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().expect("a number")).collect()
}

#[test]
fn dependencies_build_with_it() {
    let output = |command: &mut Command| {
        let output = command.current_dir(root()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text")
    };
    let rustc = output(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("a system");
    let arguments = ["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host];
    let metadata = output(Command::new(env!("CARGO")).args(arguments));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let ours = numbers(env!("CARGO_PKG_RUST_VERSION"));
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "{} packages", packages.len());
    let newer = |package: &&serde_json::Value| {
        package["rust_version"].as_str().is_some_and(|theirs| numbers(theirs)[..2] > ours[..2])
    };
    let newer: Vec<_> = packages.iter().filter(newer).map(|package| &package["id"]).collect();
    assert!(newer.is_empty(), "{newer:#?}");
}
