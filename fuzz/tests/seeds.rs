//! The checks, with the seeds: what fuzzing starts from, and what it has found. A test of the module's own crate, so that
//! it takes no second build of all dependencies.

#[path = "../src/lib.rs"]
#[allow(dead_code, unused_macros)]
mod checks;

use checks::CHECKS;
use mod_websocket::engine::control::Order;
use mod_websocket::engine::handoff::{HandoffMessage, MessageDecoder, ToEngine};
use std::fs;
use std::path::{Path, PathBuf};

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_check_holds_for_its_seeds() {
    for (target, check) in CHECKS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 5, "{target}");
        for path in seeds {
            let input = fs::read(&path).unwrap();
            assert!(input.len() <= 1024, "{}", path.display());
            // Shown when the check panics.
            eprintln!("{}", path.display());
            check(&input);
        }
    }
}

/// How many messages a stream has, and whether something else follows.
fn read<M: HandoffMessage>(stream: &[u8]) -> (usize, bool) {
    let (mut decoder, mut messages) = (MessageDecoder::default(), 0);
    decoder.put(stream);
    loop {
        match decoder.take::<M>() {
            Ok(Some(_)) => messages += 1,
            Ok(None) => return (messages, false),
            Err(_) => return (messages, true),
        }
    }
}

/// Otherwise the messages have changed: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.
#[test]
fn the_seeds_of_the_handoff_are_messages() {
    for path in seeds("handoff") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stream = &fs::read(&path).unwrap()[1..];
        let (messages, error) = match &*name {
            "configure" | "retire" => read::<Order>(stream),
            _ => read::<ToEngine>(stream),
        };
        assert_eq!(error, name.starts_with("bad"), "{name}");
        assert!(messages >= 2 || error || name == "half", "{name}: {messages}");
    }
}
