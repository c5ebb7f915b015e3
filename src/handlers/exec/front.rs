//! From a request to what its program is told of it.

use super::config::{self, DIRECTIVES, ExecConfig};
use super::settings::{EnvironmentVariable, ExecSettings, Framing, Shared};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::engine::{Limits, Quota};
use crate::front::WebSocket;
use crate::front::config::Config;
use crate::front::config::words::Words;
use crate::front::handler::{Front, Prepared, Registration};
use crate::wire::handshake::Accept;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What of the CGI variables belongs to no client.
const COMMON: &[&str] = &[
    "DOCUMENT_ROOT",
    "LD_LIBRARY_PATH",
    "PATH",
    "SERVER_ADMIN",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_SOFTWARE",
    "TZ",
];
/// What modules set beside `SetEnv` and `PassEnv`, and that belongs to one request; a name, or how it begins.
const OF_A_REQUEST: &[&str] = &["H2", "HTTP", "REDIRECT_", "SSL_", "UNIQUE_ID"];

/// What decides which code a program loads or runs: how names of variables begin, or what they are. Who may write `SetEnv` into an
/// .htaccess file may run no code by that.
const OF_LOADERS: (&[&str], &[&str]) = (
    &["LD_", "PYTHON", "PERL5", "RUBY", "LUA_", "BASH_FUNC_", "GCONV_", "GLIBC_"],
    &[
        "BASHOPTS",
        "BASH_ENV",
        "DOTNET_STARTUP_HOOKS",
        "ENV",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PERLLIB",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "PS4",
        "SHELLOPTS",
        "ZDOTDIR",
        "_JAVA_OPTIONS",
    ],
);

/// True for what is not for programs: a variable that httpd itself was not started with.
fn is_of_a_loader((name, value): &EnvironmentVariable) -> bool {
    let (beginnings, names) = OF_LOADERS;
    let is_one = beginnings.iter().any(|begin| name.starts_with(begin.as_bytes()))
        || names.iter().any(|known| known.as_bytes() == &name[..]);
    is_one && std::env::var_os(OsStr::from_bytes(name)).is_none_or(|own| own.as_bytes() != &value[..])
}

pub(crate) const FRONT: Registration = Registration { front: &ExecFront, directives: DIRECTIVES };

struct ExecFront;

impl Front for ExecFront {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        config::args(config, words)
    }

    /// Of chunks a program does not look for where messages end.
    fn max_message_size(&self, config: &Config) -> usize {
        let forwards = self.is_stream(config) && config.of::<ExecConfig>().shared("").is_none();
        if forwards { Limits::UNLIMITED } else { Limits::default().max_message_size }
    }

    fn is_stream(&self, config: &Config) -> bool {
        config.of::<ExecConfig>().framing() == Framing::Chunks
    }

    fn quotas(&self, config: &Config, host: &str, client: &str) -> Vec<Quota> {
        let exec = config.of::<ExecConfig>();
        // A shared program is one, however many clients it has.
        if exec.shared(host).is_none() { exec.quotas(host, client) } else { Vec::new() }
    }

    fn prepare(&self, request: &mut Request, args: &[String], _accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        let settings = settings(request, args.first().map_or("", String::as_str));
        Ok(Prepared { is_plain: true, ..Prepared::with(&settings)? })
    }
}

/// What the handler is to know of a session that begins with this request, whose program has this path.
fn settings(request: &mut Request, program: &str) -> ExecSettings {
    let mut before = request.environment();
    request.add_cgi_variables();
    let mut environment = request.environment();
    let (left_out, kept): (Vec<EnvironmentVariable>, Vec<EnvironmentVariable>) =
        environment.into_iter().partition(is_of_a_loader);
    (environment, before) = (kept, before.into_iter().filter(|variable| !is_of_a_loader(variable)).collect());
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        log::request(Level::Info, request, &format!("WS0038: not given to the program: {}", names.join(", ")));
    }
    let config = request.config::<WebSocket>();
    let host = request.server().name();
    let programs = config.of::<ExecConfig>();
    let shared = programs.shared(&host).map(|(linger, place)| {
        let of_all = |(name, _): &&EnvironmentVariable| COMMON.iter().any(|common| common.as_bytes() == &name[..]);
        // As for one client: httpd's own PATH.
        let before = before.into_iter().filter(|(name, _)| name != b"PATH");
        let own = before.filter(|(name, _)| !OF_A_REQUEST.iter().any(|begin| name.starts_with(begin.as_bytes())));
        let mut common: Vec<EnvironmentVariable> = environment.iter().filter(of_all).cloned().collect();
        for (name, value) in own {
            common.retain(|(known, _)| *known != name);
            common.push((name, value));
        }
        Shared { place, environment: common, linger }
    });
    // httpd's is the file of the URL, which is no program.
    set(&mut environment, "SCRIPT_FILENAME", program.into());
    // RFC 3875 section 4.1.9: in the place of a name that is not looked up.
    if find(&environment, "REMOTE_HOST").is_none()
        && let Some(address) = find(&environment, "REMOTE_ADDR").cloned()
    {
        set(&mut environment, "REMOTE_HOST", address);
    }
    let quotas = FRONT.front.quotas(config, &host, &request.client_address()).into_iter();
    ExecSettings {
        framing: programs.framing(),
        environment,
        stop_timeout: programs.stop_timeout(),
        quotas: quotas.map(|quota| quota.scope).collect(),
        shared,
    }
}

fn find<'a>(environment: &'a [EnvironmentVariable], name: &str) -> Option<&'a Vec<u8>> {
    environment.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value)
}

fn set(environment: &mut Vec<EnvironmentVariable>, name: &str, value: Vec<u8>) {
    environment.retain(|(known, _)| known != name.as_bytes());
    environment.push((name.into(), value));
}
