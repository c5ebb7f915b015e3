//! The configuration of a private httpd, built up by the test that wants it.

use super::certificate::make_certificate;
use super::installation::{installation, module_under_test, unprivileged};
use super::port::Port;
use super::server::Server;
use super::tls;
use super::wait::{PATIENCE, holds_within};
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::fmt::{self, Display, Write as _};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use tempfile::TempDir;

/// httpd's three ways to spread connections over processes and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mpm {
    Event,
    Worker,
    Prefork,
}

impl Mpm {
    fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Worker => "worker",
            Self::Prefork => "prefork",
        }
    }

    /// The module that runs CGI programs under this MPM.
    pub(crate) fn cgi(self) -> &'static str {
        if self == Self::Prefork { "cgi" } else { "cgid" }
    }

    /// Directives for a fixed number of processes, so that descriptor counts and pids stand still while a test looks.
    fn sizing(self, workers: usize) -> String {
        match self {
            Self::Event | Self::Worker => {
                assert!(workers.is_multiple_of(2), "two processes share the workers");
                format!(
                    "ServerLimit 2\nStartServers 2\nThreadLimit {threads}\nThreadsPerChild {threads}\n\
                     MaxRequestWorkers {workers}\nMinSpareThreads 1\nMaxSpareThreads {workers}\n",
                    threads = workers / 2
                )
            }
            Self::Prefork => format!(
                "ServerLimit {workers}\nStartServers {workers}\nMaxRequestWorkers {workers}\n\
                 MinSpareServers 1\nMaxSpareServers {workers}\n"
            ),
        }
    }
}

/// What the next httpd is to be.
///
/// Paths under its ServerRoot: `htdocs`, `cgi-bin`, `conf/httpd.conf`, `logs/error.log`, `logs/access.log`, and `run`
/// for the runtime directory.
pub(crate) struct Httpd {
    mpm: Mpm,
    root: TempDir,
    port: Port,
    workers: usize,
    modules: Vec<String>,
    websocket: bool,
    tls: bool,
    capabilities: Option<String>,
    environment: Vec<(String, OsString)>,
    snippets: String,
}

impl Httpd {
    pub(crate) fn new(mpm: Mpm) -> Self {
        let root = tempfile::Builder::new().prefix("mod_websocket-").tempdir().expect("a temporary directory");
        // httpd's children and the engine run as another user when the tests run as root.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).expect("permissions of the ServerRoot");
        for folder in ["htdocs", "cgi-bin", "conf", "logs", "run"] {
            make_folder(&root.path().join(folder));
        }
        let workers = if mpm == Mpm::Prefork { 4 } else { 8 };
        let httpd = Self {
            mpm,
            root,
            port: Port::reserve(),
            workers,
            modules: ["unixd", "authz_core", "log_config"].map(str::to_owned).to_vec(),
            websocket: true,
            tls: false,
            capabilities: None,
            environment: Vec::new(),
            snippets: String::new(),
        };
        httpd.file("htdocs/index.html", "<p>A page of the site.</p>\n")
    }

    /// Leaves the module under test out.
    pub(crate) fn without_module(mut self) -> Self {
        self.websocket = false;
        self
    }

    /// MaxRequestWorkers.
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Loads `mod_<name>` unless it is compiled in.
    pub(crate) fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Lets it never have these capabilities ("-chown,-kill", as for `setpriv --bounding-set`).
    pub(crate) fn without_capabilities(mut self, capabilities: &str) -> Self {
        self.capabilities = Some(capabilities.to_owned());
        self
    }

    /// A variable of the environment that httpd is started in.
    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Appends to the configuration. `{root}` stands for the ServerRoot, `{port}` for the port.
    pub(crate) fn config(mut self, snippet: impl Display) -> Self {
        let snippet = snippet.to_string();
        let snippet = snippet.replace("{root}", &self.root.path().to_string_lossy());
        writeln!(self.snippets, "{}", snippet.replace("{port}", &self.port.number().to_string())).expect("a String");
        self
    }

    /// The echo handler at /echo, for pages of this site and for clients that send no Origin.
    pub(crate) fn echo(self) -> Self {
        self.config("<Location \"/echo\">\n  WebSocketHandler echo\n</Location>")
    }

    /// TLS on the server's port, which then has no other.
    pub(crate) fn tls(mut self) -> Self {
        assert!(!self.tls, "TLS once");
        self.tls = true;
        make_certificate(&self.root.path().join("conf"));
        self.module("socache_shmcb").module("ssl").config(format!(
            "SSLSessionCache \"shmcb:{{root}}/run/tls-cache(512000)\"\nSSLEngine On\n\
             SSLCertificateFile \"{{root}}/{}\"\nSSLCertificateKeyFile \"{{root}}/{}\"",
            tls::CERTIFICATE,
            tls::KEY
        ))
    }

    /// TLS stays httpd's, whatever its version, and the bytes go through a child.
    pub(crate) fn relayed(self) -> Self {
        self.config("WebSocketTLSHandoff Off")
    }

    /// Two servers with TLS: one whose engine goes on with it, and one whose TLS stays httpd's.
    pub(crate) fn tls_both_ways(mpm: Mpm) -> [Self; 2] {
        [Self::new(mpm).tls(), Self::new(mpm).tls().relayed()]
    }

    /// An authority for clients' certificates, which the configuration may name, and a client's certificate.
    pub(crate) fn client_certificate(self) -> Self {
        tls::make_client_certificate(self.root.path());
        self
    }

    /// HTTP/2 on the server's TLS port, with WebSockets in it (RFC 8441).
    pub(crate) fn http2(self) -> Self {
        self.tls().module("http2").config("Protocols h2 http/1.1\nH2WebSockets on")
    }

    /// A file under the ServerRoot, readable for everybody; its folders are made.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content.as_ref(), 0o644)
    }

    /// A program under the ServerRoot.
    pub(crate) fn program(self, path: &str, content: &str) -> Self {
        self.write(path, content.as_bytes(), 0o755)
    }

    /// Programs under cgi-bin answer at /cgi-bin.
    pub(crate) fn cgi(self) -> Self {
        let daemon_socket = if self.mpm == Mpm::Prefork { "" } else { "ScriptSock cgid.sock\n" };
        let module = self.mpm.cgi();
        self.module("alias")
            .module(module)
            .config(format!("ScriptAlias \"/cgi-bin/\" \"{{root}}/cgi-bin/\"\n{daemon_socket}"))
    }

    /// "alice" may log in with the password "open sesame" wherever the configuration says `AuthUserFile
    /// "{root}/conf/users"`.
    pub(crate) fn login(self) -> Self {
        ["auth_basic", "authn_core", "authn_file", "authz_user"]
            .into_iter()
            .fold(self, Self::module)
            .file("conf/users", "alice:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\n")
    }

    /// Writes the configuration and starts httpd; returns once it is serving.
    pub(crate) fn start(self) -> Server {
        self.write_config();
        Server::start(self.root, self.port, self.tls, self.capabilities.as_deref(), self.environment)
    }

    /// Writes the configuration and has `httpd -t` look at it.
    pub(crate) fn check(&self) -> Output {
        self.write_config();
        let arguments = super::server::arguments(self.root.path());
        installation().httpd().args(arguments).arg("-t").output().expect("httpd -t")
    }

    /// Runs httpd, which is expected to end by itself; returns how it did, and what it said in its log and elsewhere.
    pub(crate) fn run_to_end(&self) -> (ExitStatus, String) {
        self.write_config();
        let said = self.root().join("logs/stderr.log");
        let file = fs::File::create(&said).expect("a file for httpd's stderr");
        let mut command = installation().server(None);
        command
            .args(super::server::arguments(self.root()))
            .arg("-DFOREGROUND")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let mut child = command.process_group(0).spawn().expect("httpd");
        let mut status = None;
        let ended = holds_within(PATIENCE, || {
            status = child.try_wait().expect("httpd is our child");
            status.is_some()
        });
        if !ended {
            rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).expect("httpd to be ended");
            status = child.wait().ok();
        }
        let files = [said, self.root().join("logs/error.log")];
        let log: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        assert!(ended, "httpd did not end by itself: {log}");
        (status.expect("it has ended"), log)
    }

    /// The number of the first configuration line that contains `text`, as httpd counts.
    pub(crate) fn line_of(&self, text: &str) -> usize {
        let number = self.text().lines().position(|line| line.contains(text)).expect("a line of the configuration");
        number + 1
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    fn write_config(&self) {
        let path = self.root.path().join("conf/httpd.conf");
        fs::write(path, self.text()).expect("the configuration");
    }

    fn text(&self) -> String {
        let root = self.root.path().display();
        let port = self.port.number();
        let installation = installation();
        let mut text = String::new();
        match installation.static_mpm() {
            None => text += &installation.load(&format!("mpm_{}", self.mpm.name())),
            Some(mpm) => assert_eq!(mpm, self.mpm.name(), "this httpd has one MPM compiled in"),
        }
        for module in &self.modules {
            text += &installation.load(module);
        }
        if self.websocket {
            let module = module_under_test();
            // A quarter of so few workers is one, and on a busy machine others would be told that the engine is late.
            let waiting = self.workers;
            writeln!(text, "LoadModule websocket_module \"{}\"\nWebSocketEngineWait {waiting}", module.display())
                .expect("a String");
        }
        write!(
            text,
            "ServerRoot \"{root}\"\nServerName 127.0.0.1\nListen 127.0.0.1:{port}\nDefaultRuntimeDir \"{root}/run\"\n\
             PidFile \"{root}/run/httpd.pid\"\n{user}DocumentRoot \"{root}/htdocs\"\n\
             ErrorLog \"{root}/logs/error.log\"\nLogLevel info{module_level}\n\
             LogFormat \"%h %u \\\"%r\\\" %>s\" short\nCustomLog \"{root}/logs/access.log\" short\n{sizing}{snippets}",
            user =
                unprivileged().map_or_else(String::new, |[_, user, group]| format!("User #{user}\nGroup #{group}\n")),
            module_level = if self.websocket { " websocket:debug" } else { "" },
            sizing = self.mpm.sizing(self.workers),
            snippets = self.snippets,
        )
        .expect("a String");
        text
    }

    fn write(self, path: &str, content: &[u8], mode: u32) -> Self {
        let path = self.root.path().join(path);
        make_folder(path.parent().expect("a file in a folder"));
        fs::write(&path, content).expect("a file of the site");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its permissions");
        self
    }
}

impl fmt::Debug for Httpd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text())
    }
}

/// Makes a folder, and those it lies in, and lets everybody look into it.
fn make_folder(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder of the site");
    fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("its permissions");
}
