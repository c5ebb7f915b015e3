//! What the source keeps to, read as text: which file imports which, how long files are, the ids of log lines, the oldest
//! Rust that builds it, the docs, the manual page, and the version.

use std::fs;
use std::path::{Path, PathBuf};

mod docs;
mod floors;
mod length;
mod messages;
mod oldest_rust;
mod standalone;
mod version;

/// A file of the crate.
struct Source {
    /// Below `src`, without the extension: `engine/mod`.
    path: String,
    text: String,
}

impl Source {
    /// What is no test.
    fn code(&self) -> &str {
        match self.path.split('/').any(|part| part == "tests") {
            true => "",
            false => self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default(),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => collect(&path, files),
                false => files.push(path),
            }
        }
    }
    let (house, mut files) = (root().join("src"), Vec::new());
    collect(&house, &mut files);
    files.retain(|file| file.extension().is_some_and(|is| is == "rs"));
    files.sort();
    let path = |file: &Path| file.strip_prefix(&house).expect("below it").with_extension("").display().to_string();
    let text = |file: &Path| fs::read_to_string(file).expect("a text");
    files.iter().map(|file| Source { path: path(file), text: text(file) }).collect()
}

/// Fails for what is not among the exceptions, and for an exception that is none any more.
fn compare(found: Vec<String>, exceptions: &[&str]) {
    let new: Vec<_> = found.iter().filter(|one| !exceptions.contains(&one.as_str())).collect();
    let old: Vec<_> = exceptions.iter().filter(|one| !found.iter().any(|is| is == *one)).collect();
    assert!(new.is_empty() && old.is_empty(), "new: {new:#?}, exceptions no longer: {old:#?}");
}
