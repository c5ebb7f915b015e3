//! The servers: our module inside a private httpd, and the peer. Each is a child process, and gone when dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, future};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_tungstenite::accept_async;

use super::client::Target;
use super::{Result, client, proc};

/// The argument with which the benchmark's own binary becomes the peer.
pub(crate) const SERVE_PEER: &str = "--serve-peer";

/// How long a server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running echo server.
pub(crate) struct Server {
    child: Child,
    /// The echo, without compression.
    pub(crate) echo: Target,
    /// httpd's ServerRoot.
    root: Option<TempDir>,
}

impl Server {
    /// httpd (event MPM) with the module `module`, one engine thread, and `/echo`. `cpu`: the only core it may use.
    pub(crate) fn httpd(module: &Path, cpu: Option<usize>) -> Result<Self> {
        let httpd = httpd_program()?;
        let modules = httpd_modules()?;
        // The port is free again at the end of this line, and httpd takes it: good enough on a loopback interface.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let root = TempDir::with_prefix("mod_websocket-bench-")?;
        // httpd's User has to get at the engine's socket.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(root.path().join("run"))?;
        fs::create_dir(root.path().join("htdocs"))?;
        let configuration = root.path().join("httpd.conf");
        fs::write(&configuration, httpd_conf(root.path(), &modules, module, port))?;

        let mut command = confined(&httpd, cpu);
        command.arg("-d").arg(root.path()).arg("-f").arg(&configuration).arg("-DFOREGROUND");
        // What is said before the error log is open goes beside it.
        let console = fs::File::create(root.path().join("console.log"))?;
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let echo = Target { address, path: "/echo", compressed: false };
        let mut server = Self { child: command.spawn()?, echo, root: Some(root) };

        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = client::open(echo, 1) {
            let ended = server.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("httpd does not serve WebSockets: {error}\n{}", server.log()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// tokio-tungstenite, see [`serve_peer`].
    pub(crate) fn peer(cpu: Option<usize>) -> Result<Self> {
        let mut command = confined(&std::env::current_exe()?, cpu);
        let mut child = command.arg(SERVE_PEER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("the peer has no output")?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let mut server = Self { child, echo: Target { address, path: "/", compressed: false }, root: None };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        server.echo.address.set_port(line.trim().parse().map_err(|_| "the peer did not start")?);
        Ok(server)
    }

    /// The echo of httpd with compression, and with the context takeover that `path` stands for.
    pub(crate) fn compressed(&self, path: &'static str) -> Target {
        Target { path, compressed: true, ..self.echo }
    }

    /// The process at the root of the server's tree.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lines of httpd's error log that are warnings or worse.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let bad = |line: &&str| [":warn]", ":error]", ":crit]", ":alert]", ":emerg]"].iter().any(|l| line.contains(l));
        self.log().lines().filter(bad).map(String::from).collect()
    }

    fn log(&self) -> String {
        let read = |root: &TempDir| {
            ["console.log", "error.log"].map(|name| fs::read_to_string(root.path().join(name)).unwrap_or_default())
        };
        self.root.as_ref().map(|root| read(root).concat()).unwrap_or_default()
    }
}

impl Drop for Server {
    /// Asks the server to end, waits for every process of its tree, and kills, one by one, what does not go.
    fn drop(&mut self) {
        let mut left = proc::tree(self.pid());
        // An error below means that the process has already ended.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() && Instant::now() < deadline {
            let _ = self.child.try_wait();
            left.retain(|pid| proc::runs(*pid));
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in left {
            eprintln!("process {pid} did not end by itself");
            let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.child.wait();
    }
}

/// The usual tokio-tungstenite echo server, as in that project's `examples/echo-server.rs`, on one thread. Prints its
/// port and serves until its standard input ends, that is, until the benchmark is gone.
pub(crate) fn serve_peer() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        tokio::io::AsyncWriteExt::write_all(
            &mut tokio::io::stdout(),
            format!("{}\n", listener.local_addr()?.port()).as_bytes(),
        )
        .await?;
        tokio::spawn(async {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
            std::process::exit(0);
        });
        loop {
            let (stream, _) = listener.accept().await?;
            // As httpd does for each of its connections.
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let Ok(websocket) = accept_async(stream).await else { return };
                let (write, read) = websocket.split();
                let data = read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
                // A client that goes without a closing handshake ends the stream with an error.
                let _ = data.forward(write).await;
            });
        }
    })
}

/// A command that runs on one core and ends when the benchmark's thread does, even by SIGKILL.
fn confined(program: &Path, cpu: Option<usize>) -> Command {
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

fn httpd_conf(root: &Path, modules: &Path, module: &Path, port: u16) -> String {
    let (root, modules, module) = (root.display(), modules.display(), module.display());
    let load = |identifier: &str, file: &str| {
        format!("<IfModule !{identifier}>\nLoadModule {identifier} \"{modules}/{file}\"\n</IfModule>\n")
    };
    let event = load("mpm_event_module", "mod_mpm_event.so");
    let unixd = load("unixd_module", "mod_unixd.so");
    let authz = load("authz_core_module", "mod_authz_core.so");
    let user = if rustix::process::geteuid().is_root() { unprivileged() } else { String::new() };
    // One child with a fixed number of threads: httpd itself shall not grow while memory is measured.
    format!(
        r#"ServerRoot "{root}"
DefaultRuntimeDir "{root}/run"
PidFile "{root}/run/httpd.pid"
ServerName localhost
Listen 127.0.0.1:{port}
{event}{unixd}{authz}LoadModule websocket_module "{module}"
{user}ErrorLog "{root}/error.log"
LogLevel warn
ServerLimit 1
StartServers 1
ThreadLimit 25
ThreadsPerChild 25
MaxRequestWorkers 25
MinSpareThreads 1
MaxSpareThreads 25
MaxConnectionsPerChild 0
DocumentRoot "{root}/htdocs"
WebSocketEngineThreads 1
<Location "/">
Require all granted
WebSocketHandler echo
WebSocketOriginCheck Off
</Location>
<Location "/compressed">
WebSocketCompression On
</Location>
<Location "/compressed/contexts">
WebSocketCompressionContextTakeover Both
</Location>
"#
    )
}

/// `User` and `Group` for a root that must not serve as root.
fn unprivileged() -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = |name: &&str| passwd.lines().any(|line| line.split(':').next() == Some(name));
    let user = ["www-data", "apache", "http"].into_iter().find(known).unwrap_or("nobody");
    let group = if user == "nobody" { "#65534" } else { user };
    format!("User {user}\nGroup {group}\n")
}

/// The first of Debian's and everybody else's name in PATH or where distributions put it.
fn httpd_program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/apache2/bin"].map(PathBuf::from));
    let programs = directories.flat_map(|directory| ["apache2", "httpd"].map(|name| directory.join(name)));
    programs.into_iter().find(|program| program.is_file()).ok_or_else(|| "no httpd found: install apache2".into())
}

/// Where httpd keeps its modules: what apxs says, else where distributions put them.
fn httpd_modules() -> Result<PathBuf> {
    let asked = ["apxs", "apxs2"].into_iter().filter_map(|apxs| {
        let output = Command::new(apxs).args(["-q", "LIBEXECDIR"]).output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    });
    let usual =
        ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/local/apache2/modules"].map(PathBuf::from);
    let found = asked.chain(usual).find(|directory| directory.join("mod_authz_core.so").is_file());
    found.ok_or_else(|| "httpd's modules are not found: install apache2-dev (apxs)".into())
}
