//! What the source keeps to, read as text: ids of messages.

use std::fs;
use std::path::{Path, PathBuf};

mod messages;

/// A file of the crate.
struct Source {
    /// Below the crate's root, without the extension: `src/engine/mod`.
    path: String,
    text: String,
}

impl Source {
    /// What is before its tests.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of `src`, but for those that are tests.
fn sources() -> Vec<Source> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true if path.ends_with("tests") => {}
                true => collect(&path, files),
                false => files.push(path),
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    files.retain(|file| file.extension().is_some_and(|is| is == "rs") && !file.ends_with("tests.rs"));
    files.sort();
    let relative = |file: &Path| file.strip_prefix(root()).expect("below it").with_extension("").display().to_string();
    files.iter().map(|file| Source { path: relative(file), text: fs::read_to_string(file).expect("a text") }).collect()
}
