//! A Python with the package pywebsocket3, for httpd's user.

use super::config::Httpd;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Our handlers.
fn handlers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/wsh")
}

/// The Python of the tests.
pub(crate) fn python() -> PathBuf {
    let python = env::var_os("PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let found = Command::new(&python).args(["-c", "import pywebsocket3"]).output();
    assert!(
        found.as_ref().is_ok_and(|output| output.status.success()),
        "{python:?} cannot import pywebsocket3: `pip install pywebsocket3`, or set PYTHON to one that can ({found:?})"
    );
    python
}

fn copy(from: &Path, httpd: Httpd, to: &str) -> Httpd {
    if from.is_file() {
        return httpd.file(to, fs::read(from).expect("a file to copy"));
    }
    let entries = fs::read_dir(from).expect("a folder to copy").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| !path.ends_with("__pycache__")).fold(httpd, |httpd, path| {
        let name = path.file_name().expect("its name").to_string_lossy().into_owned();
        copy(&path, httpd, &format!("{to}/{name}"))
    })
}

/// What a script says that has this on its standard input.
#[track_caller]
pub(crate) fn run_python(script: &str, input: &[u8]) -> String {
    let mut command = Command::new(python());
    let mut child =
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a Python");
    child.stdin.take().expect("its input").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).expect("text")
}

impl Httpd {
    /// The handlers of `tests/httpd/wsh` under `handlers`, and a python3 to run them. The package is copied, since httpd's user
    /// may not be able to reach the one that is installed.
    pub(crate) fn python_handlers(self) -> Self {
        let what = "import os, sys, pywebsocket3, six\n\
                    print(os.path.realpath(getattr(sys, '_base_executable', sys.executable)))\n\
                    print(os.path.dirname(pywebsocket3.__file__))\nprint(six.__file__)";
        let output = Command::new(python()).args(["-c", what]).output().expect("a Python");
        let output = String::from_utf8(output.stdout).expect("text");
        let [base, package, six] = output.lines().collect::<Vec<_>>()[..] else { panic!("not three paths: {output}") };
        // That of the tests may lie in a home directory. What is copied is Python alone, for whichever version.
        let base = ["/usr/bin/python3", base].into_iter().find(|path| Path::new(path).exists()).unwrap_or(base);
        let lib = self.root().join("lib").display().to_string();
        let httpd = copy(Path::new(package), self, "lib/pywebsocket3");
        let httpd = copy(Path::new(six), httpd, "lib/six.py");
        let wrapper = format!("#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH='{lib}' exec '{base}' \"$@\"\n");
        let httpd = httpd.program("bin/python3", &wrapper).config("WebSocketPython bin/python3");
        copy(&handlers(), httpd, "handlers")
    }
}
