//! A running httpd: started, restarted, watched, and always stopped.

use super::installation::installation;
use super::log::{Announced, complaints, pid};
use super::port::Port;
use super::process::{Process, family, raise_descriptor_limit};
use super::tls;
use super::wait::{PATIENCE, holds_within, wait_until};
use rustix::process::Signal;
use rustls::ClientConfig;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// What httpd logs each time it has read a configuration and starts serving with it.
const SERVING: &str = "resuming normal operations";

/// A private httpd. Dropping it stops it and checks what it leaves behind; see [`Server::stop`].
pub(crate) struct Server {
    root: TempDir,
    port: Port,
    /// How a client speaks TLS with it, if that is what it speaks.
    tls: Option<Arc<ClientConfig>>,
    parent: Process,
    child: Mutex<Option<Child>>,
    /// Every process seen so far: an engine that lost its parent is found again here.
    seen: Mutex<HashSet<Process>>,
    announced: Mutex<Vec<Announced>>,
    rotations: Mutex<usize>,
    patience: Mutex<Duration>,
    /// Connections that the engine has of its own.
    links: Mutex<usize>,
}

impl Server {
    pub(super) fn start(
        root: TempDir,
        port: Port,
        with_tls: bool,
        capabilities: Option<&str>,
        environment: Vec<(String, OsString)>,
    ) -> Self {
        raise_descriptor_limit();
        let stderr = File::create(root.path().join("logs/stderr.log")).expect("a file for httpd's stderr");
        let child = installation()
            .server(capabilities)
            .args(arguments(root.path()))
            .arg("-DFOREGROUND")
            .envs(environment)
            .env(MARK, root.path())
            // It signals its whole process group when it stops.
            .process_group(0)
            .stdin(std::process::Stdio::null())
            .stdout(stderr.try_clone().expect("stdout"))
            .stderr(stderr)
            .spawn()
            .expect("httpd");
        let parent = i32::try_from(child.id()).ok().and_then(Process::with_pid).expect("httpd's process");
        let tls = with_tls.then(|| tls::client(root.path(), rustls::ALL_VERSIONS, false));
        let server = Self {
            root,
            port,
            tls,
            parent,
            child: Mutex::new(Some(child)),
            seen: Mutex::default(),
            announced: Mutex::default(),
            rotations: Mutex::default(),
            patience: Mutex::new(PATIENCE),
            links: Mutex::new(0),
        };
        if with_tls {
            // Whatever OpenSSL this machine has.
            server.tolerate_log("AH01882: Init: this version of mod_ssl was compiled against a newer library");
        }
        wait_until("httpd serves or ends", PATIENCE, || {
            (server.times_logged(SERVING) > 0 && TcpStream::connect(server.address()).is_ok())
                || server.ended().is_some()
        });
        if let Some(status) = server.ended() {
            panic!("httpd did not start ({status}):\n{}", server.log());
        }
        server.look_around();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number()))
    }

    /// How a client speaks TLS with it.
    pub(crate) fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }

    /// `ws://127.0.0.1:PORT/path`, or `wss:`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws{}://{}{path}", self.secure(), self.address())
    }

    /// `http://127.0.0.1:PORT/path`, or `https:`.
    pub(crate) fn http_url(&self, path: &str) -> String {
        format!("http{}://{}{path}", self.secure(), self.address())
    }

    fn secure(&self) -> &'static str {
        if self.tls.is_some() { "s" } else { "" }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path under the ServerRoot.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// httpd's parent process.
    pub(crate) fn parent(&self) -> Process {
        self.parent
    }

    /// The children of the parent without the engine: those that serve, and mod_cgid's daemon if there is one.
    pub(crate) fn children(&self) -> Vec<Process> {
        self.look_around();
        self.parent.children().into_iter().filter(|child| !child.leads_a_session()).collect()
    }

    /// The engine process; panics when there is none for long.
    #[track_caller]
    pub(crate) fn engine(&self) -> Process {
        let mut found = None;
        wait_until("there is an engine process", PATIENCE, || {
            found = self.engines().first().copied();
            found.is_some()
        });
        found.expect("the engine just found")
    }

    /// Every engine process of the parent; normally one.
    pub(crate) fn engines(&self) -> Vec<Process> {
        self.look_around();
        self.parent.children().into_iter().filter(|child| child.leads_a_session()).collect()
    }

    /// `apachectl graceful`. Returns when the new generation serves and the children of the old one are gone.
    pub(crate) fn graceful(&self) {
        self.next_generation(Signal::USR1);
    }

    /// `apachectl restart`, likewise.
    pub(crate) fn restart(&self) {
        self.next_generation(Signal::HUP);
    }

    /// `apachectl graceful`. Returns when the new generation serves: the children of the old one, which are returned, may
    /// still have connections.
    pub(crate) fn begin_graceful(&self) -> Vec<Process> {
        self.signal_generation(Signal::USR1)
    }

    fn signal_generation(&self, signal: Signal) -> Vec<Process> {
        let old = self.children();
        let generations = self.times_logged(SERVING);
        self.parent.signal(signal);
        wait_until("httpd serves with the new configuration", PATIENCE, || self.times_logged(SERVING) > generations);
        old
    }

    fn next_generation(&self, signal: Signal) {
        let old = self.signal_generation(signal);
        wait_until("the children of the old generation are gone", PATIENCE, || {
            !old.iter().any(|child| child.is_running())
        });
        self.look_around();
    }

    /// Moves the error log away, as a log rotation does before its graceful restart.
    pub(crate) fn move_log_away(&self) {
        let mut rotations = locked(&self.rotations);
        *rotations += 1;
        let old = self.path(&format!("logs/error.log.{rotations}"));
        fs::rename(self.path("logs/error.log"), old).expect("the rotated log");
    }

    /// The current error log.
    pub(crate) fn error_log(&self) -> String {
        read(&self.path("logs/error.log"))
    }

    /// The lines of the current error log that `process` wrote.
    pub(crate) fn logged_by(&self, process: Process) -> Vec<String> {
        self.error_log().lines().filter(|line| pid(line) == Some(process.pid)).map(str::to_owned).collect()
    }

    pub(crate) fn access_log(&self) -> String {
        read(&self.path("logs/access.log"))
    }

    /// A serious line that contains `text` must come, and is no failure.
    pub(crate) fn expect_log(&self, text: &str) {
        locked(&self.announced).push(Announced { text: text.to_owned(), required: true });
    }

    /// A serious line that contains `text` may come.
    pub(crate) fn tolerate_log(&self, text: &str) {
        locked(&self.announced).push(Announced { text: text.to_owned(), required: false });
    }

    /// How long the engine may keep the socket of a client that is gone, and the processes may outlive httpd's parent.
    pub(crate) fn allow_to_linger(&self, within: Duration) {
        *locked(&self.patience) = within;
    }

    /// The engine has so many connections that are no client's.
    pub(crate) fn expect_links(&self, count: usize) {
        *locked(&self.links) = count;
    }

    /// Takes httpd's parent away without a chance to clean up. Its children are ended here, as init would have to.
    pub(crate) fn kill_parent(&self) {
        let children = self.children();
        self.parent.signal(Signal::KILL);
        wait_until("the killed parent is gone", PATIENCE, || self.ended().is_some());
        for child in children {
            child.signal(Signal::KILL);
        }
    }

    /// Stops httpd as `apachectl stop` does, and fails on whatever it should not have left or done: an unannounced line
    /// in its log, a crashed child, a process that is still there. Dropping the server does the same.
    pub(crate) fn stop(&self) {
        let problems = self.end();
        assert!(problems.is_empty(), "{}\n\nThe whole log:\n{}", problems.join("\n"), self.log());
    }

    /// Begins to stop httpd, for a test that wants to see what the clients see; [`Server::stop`] then waits for the end.
    pub(crate) fn begin_to_stop(&self) {
        self.look_around();
        self.parent.signal(Signal::TERM);
    }

    /// Begins a graceful stop, as Debian's `systemctl stop` does; [`Server::stop`] then waits for the end.
    pub(crate) fn begin_to_stop_gracefully(&self) {
        self.look_around();
        self.parent.signal(Signal::WINCH);
    }

    /// Ends everything, by force where it must be; returns what was wrong.
    fn end(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.look_around();
        self.parent.signal(Signal::TERM);
        if !holds_within(PATIENCE, || self.ended().is_some()) {
            problems.push("httpd's parent did not stop".to_owned());
            self.parent.signal(Signal::KILL);
            holds_within(PATIENCE, || self.ended().is_some());
        }
        let status = self.ended();
        if status.is_some_and(|status| !status.success() && status.code().is_some()) {
            problems.push(format!("httpd ended with {status:?}"));
        }
        let patience = *locked(&self.patience);
        if !holds_within(patience, || self.remaining().is_empty()) {
            for process in self.remaining() {
                let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
                problems.push(format!("left behind: {process:?} {:?}", String::from_utf8_lossy(&command)));
                process.signal(Signal::KILL);
            }
            holds_within(PATIENCE, || self.remaining().is_empty());
        }
        problems.extend(complaints(&self.log(), &locked(&self.announced)));
        problems
    }

    /// How the parent ended, once it has.
    fn ended(&self) -> Option<ExitStatus> {
        locked(&self.child).as_mut().and_then(|child| child.try_wait().expect("httpd is our child"))
    }

    fn remaining(&self) -> Vec<Process> {
        let mut remaining = family(None, &self.mark());
        remaining.extend(locked(&self.seen).iter().copied().filter(|process| process.is_running()));
        remaining
    }

    /// Remembers the processes there are now.
    fn look_around(&self) {
        if self.parent.is_running() {
            locked(&self.seen).extend(family(Some(self.parent), &self.mark()));
        }
    }

    /// What the environment of all our processes contains, and nobody else's.
    fn mark(&self) -> String {
        format!("{MARK}={}", self.root.path().display())
    }

    fn times_logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Everything httpd said, rotated logs and stderr included.
    fn log(&self) -> String {
        let rotated = (1..=*locked(&self.rotations)).map(|number| format!("error.log.{number}"));
        let files = ["stderr.log".to_owned()].into_iter().chain(rotated).chain(["error.log".to_owned()]);
        files.map(|file| read(&self.path("logs").join(file))).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut problems = Vec::new();
        // The clients of a test are dropped before its server: the engine must have let go of their sockets.
        if !std::thread::panicking() && self.parent.is_running() {
            for engine in self.engines() {
                let patience = *locked(&self.patience);
                let links = *locked(&self.links);
                if !holds_within(patience, || engine.network_sockets().len() <= links) {
                    problems.push(format!("the engine keeps {:?} without a client", engine.network_sockets()));
                }
            }
        }
        problems.extend(self.end());
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "what a developer looks for when a test fails")]
            {
                eprintln!("{}\n\nThe log of httpd:\n{}", problems.join("\n"), self.log());
            }
        } else if !problems.is_empty() {
            panic!("{}\n\nThe whole log:\n{}", problems.join("\n"), self.log());
        }
    }
}

/// The arguments for httpd to take the configuration under `root`.
pub(super) fn arguments(root: &Path) -> [OsString; 4] {
    ["-f".into(), root.join("conf/httpd.conf").into(), "-d".into(), root.into()]
}

/// The environment variable that marks the processes of a test's server.
pub(crate) const MARK: &str = "MOD_WEBSOCKET_TEST_ROOT";

/// A thousand clients need more descriptors than the usual soft limit.
fn read(path: &Path) -> String {
    fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
