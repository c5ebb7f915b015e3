//! `WebSocketHandler pywebsocket`: what the engine has to know of a handshake, since it is a Python worker that answers it;
//! and whether the Python that is configured can run one.

use super::PATIENCE;
use super::config::{self, DEFAULT_PYTHON, DIRECTIVES, PythonConfig};
use super::settings::PythonSettings;
use crate::apache::conftree;
use crate::apache::process::{self, Parent};
use crate::apache::request::Request;
use crate::apache::server::{self, Server};
use crate::front::WebSocket;
use crate::front::config::Config;
use crate::front::config::words::Words;
use crate::front::handler::{Front, Needs, Prepared, Registration};
use crate::front::upgrade::with_offer;
use crate::handlers::targets::Crowd;
use crate::wire::handshake::{Accept, Refusal, examine};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const NAME: &str = "pywebsocket";
/// How long a Python may take to say whether it has the package.
const CHECK: Duration = Duration::from_secs(30);
const CANNOT_RUN: i32 = 127;

pub(crate) const FRONT: Registration = Registration { front: &PythonFront, directives: DIRECTIVES };

struct PythonFront;

impl Front for PythonFront {
    fn name(&self) -> &'static str {
        NAME
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        config::args(config, words)
    }

    fn needs(&self) -> Needs {
        Needs::Descriptor
    }

    /// What of the handshake is httpd's business: the rest is judged by the package.
    fn negotiate(&self, request: &Request) -> Result<Option<Accept>, Refusal> {
        with_offer(request, |offer, policy| examine(offer, &policy.origin)).map(|()| None)
    }

    fn prepare(&self, request: &mut Request, args: &[String], _accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        let python = request.config::<WebSocket>().of::<PythonConfig>();
        let (remote, local) = request.addresses();
        let headers = request.headers_in().iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
        let settings = PythonSettings {
            worker: python.worker(args.first().map_or("", String::as_str)),
            headers: headers.collect(),
            remote,
            local,
            secure: request.scheme() == "https",
            crowd: Crowd::of_this_child(),
        };
        Ok(Prepared { patience: PATIENCE, ..Prepared::with(&settings)? })
    }

    fn server_settings(&self, _config: &Config) -> Option<Vec<u8>> {
        // There is nothing to say but that the configuration is new.
        Some(Vec::new())
    }

    fn check(&self, parent: &mut Parent, server: &Server) -> Result<(), String> {
        check(parent, server)
    }
}

/// In httpd's parent: each Python that the configuration names has the package.
fn check(parent: &mut Parent, server: &Server) -> Result<(), String> {
    let runs_python =
        |words: &String| words.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(NAME));
    if !conftree::arguments_of("WebSocketHandler").iter().any(runs_python) {
        return Ok(());
    }
    let mut pythons: Vec<PathBuf> = conftree::arguments_of("WebSocketPython")
        .iter()
        .map(|path| server::root_relative(path.trim().trim_matches(['"', '\''])))
        .collect();
    if pythons.is_empty() {
        pythons.push(DEFAULT_PYTHON.into());
    }
    pythons.dedup();
    pythons.into_iter().try_for_each(|python| {
        let python = python.to_string_lossy();
        has_package(parent, server, &python).map_err(|why| format!("WS0226: WebSocketPython {python} {why}"))
    })
}

fn has_package(parent: &mut Parent, server: &Server, python: &str) -> Result<(), String> {
    let forked = parent.fork(|| {
        process::reset_signals();
        // As the user who will run it: whoever may write to a venv should not be root by that.
        if !server::drop_privileges(server) {
            return CANNOT_RUN;
        }
        let mut command = Command::new(python);
        command.args(["-c", "import six, pywebsocket3.stream"]).current_dir("/");
        // It returns only where there is nothing to run.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).exec();
        CANNOT_RUN
    });
    let pid = forked.map_err(|why| format!("cannot be tried: {why}"))?;
    match process::wait_for(pid, CHECK) {
        Some(0) => Ok(()),
        Some(CANNOT_RUN) => Err("cannot be run by httpd's User".to_owned()),
        Some(_) => Err(format!(
            "has no package pywebsocket3 that httpd's User can read; install it with \
             `{python} -m pip install pywebsocket3`, or make a Python that has it with `python3 -m venv DIR` and \
             `DIR/bin/pip install pywebsocket3`, and write WebSocketPython DIR/bin/python3"
        )),
        None => Err(format!("does not answer within {} s", CHECK.as_secs())),
    }
}
