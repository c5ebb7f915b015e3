//! The directives of handlers in Python: what `WebSocketHandler pywebsocket` needs beside its folder.

use crate::apache::directive::Place;
use crate::apache::server;
use crate::engine::HandlerSpec;
use crate::front::config::{Config, Words, on_off, one};
use crate::handlers::{PYWEBSOCKET, pywebsocket::settings::Worker};
use std::path::PathBuf;

/// The Python that runs where no directive names one.
pub const DEFAULT_PYTHON: &str = "/usr/bin/python3";

/// What the directives of a section say of Python.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Python {
    program: Option<PathBuf>,
    scan: Option<PathBuf>,
    map: Option<PathBuf>,
    outside_root: Option<bool>,
}

impl Python {
    /// This, an inner section's, over an outer one's.
    pub fn over(&self, outer: &Python) -> Python {
        Python {
            program: self.program.clone().or_else(|| outer.program.clone()),
            scan: self.scan.clone().or_else(|| outer.scan.clone()),
            map: self.map.clone().or_else(|| outer.map.clone()),
            outside_root: self.outside_root.or(outer.outside_root),
        }
    }

    /// The worker for the handlers in this folder.
    pub fn worker(&self, root: &str) -> Worker {
        Worker {
            python: self.program.clone().unwrap_or_else(|| DEFAULT_PYTHON.into()),
            root: root.into(),
            scan: self.scan.clone(),
            map: self.map.clone(),
            outside_root: self.outside_root.unwrap_or(false),
        }
    }
}

/// What is wrong where somebody who may write an .htaccess file would have httpd run code.
fn outside_of_htaccess(place: &Place) -> Result<(), String> {
    if !place.in_htaccess {
        return Ok(());
    }
    Err(format!(
        "handlers in Python are code that the server runs, which no .htaccess file can choose: write this line into httpd's \
         configuration, into a <Directory \"{}\"> for what it is here",
        place.path.as_deref().unwrap_or("/")
    ))
}

/// A path, relative to ServerRoot.
fn path(config: &Config, words: Words<'_, '_>, what: &str) -> Result<PathBuf, String> {
    outside_of_htaccess(&config.place)?;
    Ok(server::root_relative(one(words, what)?))
}

fn folder(config: &Config, words: Words<'_, '_>, what: &str) -> Result<PathBuf, String> {
    let path = path(config, words, what)?;
    if path.is_dir() { Ok(path) } else { Err(format!("there is no directory {}", path.display())) }
}

/// `WebSocketHandler pywebsocket`, with what follows.
pub fn handler(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let root = folder(config, words, "the directory of the *_wsh.py files, after pywebsocket")?;
    let args = vec![root.to_string_lossy().into_owned()];
    config.handler = Some(Some(HandlerSpec { name: PYWEBSOCKET.into(), args, settings: Vec::new() }));
    Ok(())
}

/// `WebSocketPython`.
pub fn program(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = path(config, words, "the path of a python3 that has the package pywebsocket3")?;
    if !path.is_file() {
        return Err(format!(
            "there is no {}; make it with `python3 -m venv DIR` and `DIR/bin/pip install pywebsocket3`, and write \
             DIR/bin/python3",
            path.display()
        ));
    }
    config.python.program = Some(path);
    Ok(())
}

/// `WebSocketPythonScan`.
pub fn scan(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.python.scan = Some(folder(config, words, "a directory below the one of WebSocketHandler pywebsocket")?);
    Ok(())
}

/// `WebSocketPythonMap`.
pub fn map(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let path = path(config, words, "the path of a file with lines \"/alias /existing\"")?;
    if !path.is_file() {
        return Err(format!("there is no file {}", path.display()));
    }
    config.python.map = Some(path);
    Ok(())
}

/// `WebSocketPythonOutsideRoot`.
pub fn outside_root(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    outside_of_htaccess(&config.place)?;
    config.python.outside_root = Some(on_off(words)?);
    Ok(())
}
