//! The servers: our module inside a private httpd, and those beside it. Each is a child process, and gone when dropped.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::Target;
use super::proc::CpuTime;
use super::serve::{SERVE_PEER, TOKIO_TUNGSTENITE};
use super::testkit::certificate::make_certificate;
use super::testkit::installation::{installation, program, unprivileged};
use super::testkit::port::Port;
use super::testkit::process::tree;
use super::testkit::wait::{PATIENCE, holds_within};
use super::{Result, client, proc};

/// A page of httpd's, below its root.
pub(crate) const PAGE: &str = "page.html";

/// `ThreadsPerChild`, as Debian has it.
const THREADS: usize = 25;

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where WebSockets are opened, without compression.
    pub(crate) target: Target,
    /// What it passes everything on to. Its processes are counted as this server's.
    backend: Option<Box<Server>>,
    /// Its configuration and its logs.
    root: TempDir,
    _port: Port,
}

/// An httpd with the event MPM.
#[derive(Clone, Copy)]
pub(crate) struct Httpd<'a> {
    /// Our module, with one engine thread.
    pub(crate) module: Option<&'a Path>,
    /// Modules of its own: `proxy` is mod_proxy.
    pub(crate) modules: &'a [&'a str],
    /// Lines of its configuration, which give a WebSocket at `path`.
    pub(crate) site: &'a str,
    pub(crate) path: &'static str,
    /// TLS on its port, which then has no other.
    pub(crate) tls: bool,
    pub(crate) children: Children,
    /// The only core it may use.
    pub(crate) cpu: Option<usize>,
}

/// The processes that serve. There are always all of them: httpd itself shall not grow while something is measured.
#[derive(Clone, Copy)]
pub(crate) enum Children {
    /// One with 25 threads.
    One,
    /// Six with 25 threads: Debian's `MaxRequestWorkers 150`.
    Six,
}

impl Httpd<'_> {
    pub(crate) fn start(self) -> Result<Server> {
        let Self { path, tls, cpu, .. } = self;
        let (root, port) = (new_root()?, Port::reserve());
        fs::create_dir(root.path().join("run"))?;
        fs::create_dir(root.path().join("htdocs"))?;
        fs::write(root.path().join("htdocs").join(PAGE), page())?;
        if tls {
            make_certificate(root.path());
        }
        let configuration = root.path().join("httpd.conf");
        fs::write(&configuration, self.configuration(root.path(), port.number()))?;
        let mut command = confined(&installation().httpd, cpu);
        command.arg("-d").arg(root.path()).arg("-f").arg(&configuration).arg("-DFOREGROUND");
        Server::start(command, root, port, path, tls)
    }

    fn configuration(&self, root: &Path, port: u16) -> String {
        let (installation, root) = (installation(), root.display());
        let mut configuration = format!(
            "ServerRoot \"{root}\"\nDefaultRuntimeDir \"{root}/run\"\nPidFile \"{root}/run/httpd.pid\"\n\
             ServerName localhost\nListen 127.0.0.1:{port}\n"
        );
        let tls: &[&str] = if self.tls { &["socache_shmcb", "ssl"] } else { &[] };
        let mpm: &[&str] = if installation.static_mpm().is_none() { &["mpm_event"] } else { &[] };
        for name in mpm.iter().chain(&["unixd", "authz_core", "authz_host"]).chain(tls).chain(self.modules) {
            configuration += &installation.load(name);
        }
        if let Some(module) = self.module {
            let _ = writeln!(configuration, "LoadModule websocket_module \"{}\"", module.display());
            configuration += "WebSocketEngineThreads 1\n";
        }
        if let Some([_, user, group]) = unprivileged() {
            let _ = writeln!(configuration, "User #{user}\nGroup #{group}");
        }
        let children = match self.children {
            Children::One => 1,
            Children::Six => 6,
        };
        let workers = children * THREADS;
        let _ = writeln!(
            configuration,
            "ErrorLog \"{root}/error.log\"\nLogLevel warn\nServerLimit {children}\nStartServers {children}\n\
             ThreadLimit {THREADS}\nThreadsPerChild {THREADS}\nMaxRequestWorkers {workers}\nMinSpareThreads 1\n\
             MaxSpareThreads {workers}\nMaxConnectionsPerChild 0\nDocumentRoot \"{root}/htdocs\""
        );
        if self.tls {
            configuration += "SSLSessionCache shmcb:run/tls-cache(512000)\nSSLEngine On\n\
                              SSLCertificateFile certificate.pem\nSSLCertificateKeyFile key.pem\n";
        }
        configuration + self.site
    }
}

impl Server {
    /// httpd with one child, the module `module`, and the lines `site` in its configuration, which give a WebSocket at
    /// `path`. `cpu`: the only core it may use.
    pub(crate) fn httpd(module: &Path, cpu: Option<usize>, site: &str, path: &'static str) -> Result<Self> {
        let (module, children) = (Some(module), Children::One);
        Httpd { module, modules: &[], site, path, tls: false, children, cpu }.start()
    }

    /// nginx with nchan, one worker, and the lines `site` in its `server`, which give a WebSocket at `path`; `None` where
    /// one of them is not installed. `cpu`: the only core it may use.
    pub(crate) fn nchan(cpu: Option<usize>, site: &str, path: &'static str) -> Result<Option<Self>> {
        let Some(module) = nchan_module() else { return Ok(None) };
        Self::nginx(cpu, Some(&module), site, path, false)
    }

    /// nginx with one worker, a module of others, and the lines `site` in its `server`, which give a WebSocket at `path`; `None`
    /// where it is not installed. `cpu`: the only core it may use.
    pub(crate) fn nginx(
        cpu: Option<usize>,
        module: Option<&Path>,
        site: &str,
        path: &'static str,
        tls: bool,
    ) -> Result<Option<Self>> {
        let Some(nginx) = program("nginx") else { return Ok(None) };
        let (root, port) = (new_root()?, Port::reserve());
        if tls {
            make_certificate(root.path());
        }
        let configuration = root.path().join("nginx.conf");
        fs::write(&configuration, nginx_conf(module, port.number(), site, tls))?;
        let mut command = confined(&nginx, cpu);
        // The slash is nginx's custom: it puts names behind the prefix as they are.
        command.arg("-p").arg(root.path().join("")).arg("-c").arg(&configuration);
        command.arg("-e").arg(root.path().join("error.log"));
        Self::start(command, root, port, path, tls).map(Some)
    }

    /// Starts a server that lives in `root`, and waits until it opens WebSockets.
    fn start(mut command: Command, root: TempDir, port: Port, path: &'static str, tls: bool) -> Result<Self> {
        // What is said before the error log is open goes beside it.
        let console = fs::File::create(root.path().join("console.log"))?;
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.number());
        let target = Target { address, path, tls, compressed: false };
        let mut server = Self { child: command.spawn()?, target, backend: None, root, _port: port };
        let mut opened = Err("".into());
        holds_within(PATIENCE, || {
            let ended = !matches!(server.child.try_wait(), Ok(None));
            opened = client::open(target, 1);
            opened.is_ok() || ended
        });
        match opened {
            Ok(_) => Ok(server),
            Err(error) => Err(format!("the server does not serve WebSockets: {error}\n{}", server.log()).into()),
        }
    }

    /// tokio-tungstenite, see [`super::serve::serve_peer`].
    pub(crate) fn peer(cpu: Option<usize>) -> Result<Self> {
        Self::library(TOKIO_TUNGSTENITE, false, cpu)
    }

    /// One of the libraries that [`super::serve::serve_peer`] knows.
    pub(crate) fn library(name: &str, tls: bool, cpu: Option<usize>) -> Result<Self> {
        let mut command = confined(&std::env::current_exe()?, cpu);
        command.args([SERVE_PEER, name]);
        Self::program(command, tls)
    }

    /// A program that echoes on the port that is its next argument; with TLS the files of a certificate and of its key follow.
    pub(crate) fn program(mut command: Command, tls: bool) -> Result<Self> {
        let (root, port) = (new_root()?, Port::reserve());
        command.arg(port.number().to_string());
        if tls {
            make_certificate(root.path());
            command.args(["certificate.pem", "key.pem"].map(|name| root.path().join(name)));
        }
        Self::start(command, root, port, "/", tls)
    }

    /// This server, with the one behind it to which it passes everything on.
    pub(crate) fn before(mut self, backend: Self) -> Self {
        self.backend = Some(Box::new(backend));
        self
    }

    /// The process at the root of the server's tree.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The roots of its process trees, its own and that of the server behind it.
    fn roots(&self) -> Vec<u32> {
        let mut roots = self.backend.as_ref().map_or_else(Vec::new, |backend| backend.roots());
        roots.push(self.pid());
        roots
    }

    /// The CPU time of all its processes until now.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        CpuTime::of_trees(&self.roots())
    }

    /// The threads of all its processes.
    pub(crate) fn thread_count(&self) -> usize {
        self.roots().into_iter().map(proc::thread_count).sum()
    }

    /// The memory of all its processes.
    fn memory(&self) -> Result<u64> {
        self.roots().into_iter().map(proc::memory).sum()
    }

    /// Its memory once three readings in a row agree (to half a percent), or the last one after 10 seconds.
    pub(crate) fn settled_memory(&self) -> Result<u64> {
        let (mut last, mut agreed) = (self.memory()?, 0);
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.memory()?;
            agreed = if now.abs_diff(last) <= last / 200 { agreed + 1 } else { 0 };
            last = now;
            if agreed == 2 {
                break;
            }
        }
        Ok(last)
    }

    /// Lines of the error log that are warnings or worse: `[module:level]` as httpd writes them, `[level]` as nginx does.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let levels = ["warn]", "error]", "crit]", "alert]", "emerg]"];
        // It is said of whatever OpenSSL a machine has.
        let newer = "AH01882: Init: this version of mod_ssl was compiled against a newer library";
        let bad = |line: &&str| levels.iter().any(|level| line.contains(level)) && !line.contains(newer);
        self.log().lines().filter(bad).map(String::from).collect()
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.root.path().join(name)).unwrap_or_default();
        ["console.log", "error.log"].map(read).concat()
    }
}

impl Drop for Server {
    /// Asks the server to end, waits for every process of its tree, and kills, one by one, what does not go.
    fn drop(&mut self) {
        let mut left = tree(self.pid() as i32);
        // An error below means that the process has already ended.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        holds_within(PATIENCE, || {
            let _ = self.child.try_wait();
            left.retain(|process| process.is_running());
            left.is_empty()
        });
        for process in left {
            eprintln!("process {} did not end by itself", process.pid);
            process.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A command that runs on one core and ends when the benchmark's thread does, even by SIGKILL.
pub(crate) fn confined(program: &Path, cpu: Option<usize>) -> Command {
    let mut words: Vec<&OsStr> = Vec::new();
    let core = cpu.map(|cpu| cpu.to_string());
    if let Some(core) = &core {
        words.extend(["taskset", "-c", core].map(OsStr::new));
    }
    words.extend(["setpriv", "--pdeathsig", "TERM"].map(OsStr::new));
    words.push(program.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// A place for a server's files.
pub(crate) fn new_root() -> Result<TempDir> {
    let root = TempDir::with_prefix("mod_websocket-bench-")?;
    // The user as whom it serves has to get at what is in there.
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
    Ok(root)
}

/// What [`PAGE`] holds: one kilobyte.
pub(crate) fn page() -> String {
    format!("<!DOCTYPE html><title>A page</title><p>{}\n", "All is well. ".repeat(75))
}

fn nginx_conf(module: Option<&Path>, port: u16, site: &str, tls: bool) -> String {
    let mut configuration = module.map_or_else(String::new, |module| format!("load_module {};\n", module.display()));
    if let Some([user, ..]) = unprivileged() {
        let _ = writeln!(configuration, "user {user};");
    }
    // Names of files are relative to the prefix.
    configuration += "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log warn;\n\
                      events { worker_connections 20000; }\nhttp {\naccess_log off;\n";
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(configuration, "{kind}_temp_path {kind};");
    }
    configuration += "keepalive_timeout 1h;\nkeepalive_requests 1000000000;\n";
    let (ssl, keys) =
        if tls { (" ssl", "ssl_certificate certificate.pem;\nssl_certificate_key key.pem;\n") } else { ("", "") };
    let _ = writeln!(configuration, "server {{\nlisten 127.0.0.1:{port}{ssl};\n{keys}{site}\n}}\n}}");
    configuration
}

/// nginx's module nchan where distributions put it.
fn nchan_module() -> Option<PathBuf> {
    let directories = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"].map(PathBuf::from);
    directories.map(|directory| directory.join("ngx_nchan_module.so")).into_iter().find(|module| module.is_file())
}
