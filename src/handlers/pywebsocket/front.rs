//! `WebSocketHandler pywebsocket`: what the engine has to know of a handshake, since it is a Python worker that answers it;
//! and whether the Python that is configured can run one.

use super::config::DEFAULT_PYTHON;
use crate::apache::request::Request;
use crate::apache::server::{self, Server};
use crate::apache::{HookResult, Verdict, conftree, process};
use crate::engine::HandlerSpec;
use crate::front::WebSocket;
use crate::front::refusal;
use crate::front::upgrade::{self, Opened};
use crate::handlers::PYWEBSOCKET;
use crate::handlers::pywebsocket::settings::Settings;
use crate::handlers::targets::Crowd;
use crate::wire::handshake::{Refusal, examine};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const INTERNAL_SERVER_ERROR: u16 = 500;
/// How long a Python may take to say whether it has the package.
const CHECK: Duration = Duration::from_secs(30);
/// The exit status when it cannot be run.
const CANNOT_RUN: i32 = 127;

/// Answers a request where handlers in Python are configured.
///
/// # Errors
/// The status of the refusal.
pub fn handle(request: &mut Request, mut handler: HandlerSpec) -> HookResult {
    if let Err(refusal) = consider(request) {
        return refusal::answer(request, &refusal);
    }
    let Some(root) = handler.args.first() else { return Ok(Verdict::Declined) };
    let config = request.config::<WebSocket>();
    let (remote, local) = request.addresses();
    let settings = Settings {
        worker: config.python().worker(root),
        headers: request.headers_in().iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        remote,
        local,
        secure: request.scheme() == "https",
        crowd: Crowd::of_this_child(),
    };
    handler.settings = postcard::to_stdvec(&settings).map_err(|_| INTERNAL_SERVER_ERROR)?;
    let custody = upgrade::custody(request, false)?;
    upgrade::open(request, handler, custody, Opened::default())
}

/// What of the handshake is httpd's business: the rest is judged by the package.
fn consider(request: &Request) -> Result<(), Refusal> {
    upgrade::with_offer(request, |offer, policy| examine(offer, &policy.origin))
}

/// In httpd's parent: each Python that the configuration names has the package.
///
/// # Errors
/// One has not; what to do.
pub fn check(server: &Server) -> Result<(), String> {
    let runs_python =
        |words: &String| words.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(PYWEBSOCKET));
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
        has_package(server, &python).map_err(|why| format!("WS0226: WebSocketPython {python} {why}"))
    })
}

fn has_package(server: &Server, python: &str) -> Result<(), String> {
    let forked = process::fork(|| {
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
