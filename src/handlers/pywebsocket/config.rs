//! The directives of handlers in Python: what `WebSocketHandler pywebsocket` needs beside its folder.

use super::settings::Worker;
use crate::apache::server;
use crate::front::config::words::{Words, on_off, one};
use crate::front::config::{Config, directives, merged};
use crate::front::handler::only_in_httpds;
use std::path::PathBuf;

/// The Python that runs where no directive names one.
pub(super) const DEFAULT_PYTHON: &str = "/usr/bin/python3";

merged! {
    pub(crate) struct PythonConfig {
        program: Option<PathBuf>,
        scan: Option<PathBuf>,
        map: Option<PathBuf>,
        outside_root: Option<bool>,
    }
}

directives! { pub(crate) DIRECTIVES =
    c"WebSocketPython" "path" in Everywhere, else "/usr/bin/python3" => program,
        c"The python3, with the package pywebsocket3, that runs the handlers of 'WebSocketHandler pywebsocket'";
    c"WebSocketPythonScan" "dir" in Everywhere, else "the whole directory" => scan,
        c"The part of the directory of 'WebSocketHandler pywebsocket' in which handlers are looked for";
    c"WebSocketPythonMap" "file" in Everywhere, else "none" => map,
        c"A file with a line '/alias /existing' for each further path of a handler in Python";
    c"WebSocketPythonOutsideRoot" "On|Off" in Everywhere, else "Off" => outside_root,
        c"Whether handlers in Python are taken to which links lead out of their directory: 'On' or 'Off'";
}

impl PythonConfig {
    /// The worker for the handlers in this folder.
    pub(crate) fn worker(&self, root: &str) -> Worker {
        Worker {
            python: self.program.clone().unwrap_or_else(|| DEFAULT_PYTHON.into()),
            root: root.into(),
            scan: self.scan.clone(),
            map: self.map.clone(),
            outside_root: self.outside_root.unwrap_or(false),
        }
    }
}

/// Somebody who may write an .htaccess file is not to have httpd run code by that.
fn outside_of_htaccess(config: &Config) -> Result<(), String> {
    only_in_httpds(config, "handlers in Python are code that the server runs, which no .htaccess file can choose")
}

/// A path, relative to ServerRoot.
fn path(config: &Config, words: Words<'_, '_>, what: &str) -> Result<PathBuf, String> {
    outside_of_htaccess(config)?;
    Ok(server::root_relative(one(words, what)?))
}

fn folder(config: &Config, words: Words<'_, '_>, what: &str) -> Result<PathBuf, String> {
    let path = path(config, words, what)?;
    if path.is_dir() { Ok(path) } else { Err(format!("there is no directory {}", path.display())) }
}

/// What stands behind `WebSocketHandler pywebsocket`.
pub(super) fn args(config: &Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
    let root = folder(config, &words[1..], "the directory of the *_wsh.py files, after pywebsocket")?;
    Ok(vec![root.to_string_lossy().into_owned()])
}

fn program(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = path(config, words, "the path of a python3 that has the package pywebsocket3")?;
    if !path.is_file() {
        return Err(format!(
            "there is no {}; make it with `python3 -m venv DIR` and `DIR/bin/pip install pywebsocket3`, and write \
             DIR/bin/python3",
            path.display()
        ));
    }
    config.change(|python: &mut PythonConfig| python.program = Some(path));
    Ok(())
}

fn scan(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = folder(config, words, "a directory below the one of WebSocketHandler pywebsocket")?;
    config.change(|python: &mut PythonConfig| python.scan = Some(path));
    Ok(())
}

fn map(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = path(config, words, "the path of a file with lines \"/alias /existing\"")?;
    if !path.is_file() {
        return Err(format!("there is no file {}", path.display()));
    }
    config.change(|python: &mut PythonConfig| python.map = Some(path));
    Ok(())
}

fn outside_root(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    outside_of_htaccess(config)?;
    let outside_root = on_off(words)?;
    config.change(|python: &mut PythonConfig| python.outside_root = Some(outside_root));
    Ok(())
}
