//! Plugins for the tests, compiled when they are needed first.

use super::installation::installation;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The plugin of this project's C file, as a C compiler makes it.
fn compiled(source: &str) -> PathBuf {
    let source = here().join(source);
    let name = source.file_stem().expect("a file").to_string_lossy().into_owned();
    let object = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plugin-{name}-{}.so", std::process::id()));
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]);
    command.arg(&object).arg(&source).arg("-I").arg(here().join("include"));
    command.args(installation().include_flags());
    run(&mut command);
    object
}

/// tests/httpd/plugins/rules.c
pub(crate) fn rules() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compiled("tests/httpd/plugins/rules.c"))
}

/// tests/httpd/plugins/guards.c
pub(crate) fn guards() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compiled("tests/httpd/plugins/guards.c"))
}

/// The C examples, as their Makefile makes them: the folder with the objects.
pub(crate) fn c_examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-c");
        let mut command = Command::new("make");
        command.arg("-C").arg(here().join("examples/plugin-c")).arg(format!("OUT={}", folder.display()));
        // Not those of the `make test` that this may run under.
        run(command.env_remove("MAKEFLAGS").env_remove("MFLAGS"));
        folder
    })
}

/// The Rust example, as cargo makes it.
pub(crate) fn rust_example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-rust");
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--offline", "--quiet", "--manifest-path"]);
        command.arg(here().join("examples/plugin-rust/Cargo.toml")).arg("--target-dir").arg(&target);
        run(&mut command);
        target.join("debug/libplugin_example.so")
    })
}
