//! A headless Chromium, driven through chromedriver: one for each test, and nothing of it left when the test is over.

use crate::harness::Process;
use crate::harness::process::family;
use crate::harness::wait::{PATIENCE, holds_within, wait_until};
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, TimeoutConfiguration, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::env;
use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::panicking;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What `execute_async` runs before each script.
const PRELUDE: &str = include_str!("prelude.js");

/// The environment variable that marks the processes of a test's browser.
const MARK: &str = "MOD_WEBSOCKET_TEST_BROWSER";

/// A browser with one window, to begin with.
///
/// Its fields are dropped from the first to the last.
pub(super) struct Chromium {
    client: Client,
    runtime: Runtime,
    driver: Driver,
    /// One browser at a time: it has more processes than this machine may have processors.
    _turn: MutexGuard<'static, ()>,
}

impl Chromium {
    #[track_caller]
    pub(super) fn start() -> Self {
        // A page that was left is gone, and its sockets with it: it is not kept for the way back.
        Self::start_with("--disable-features=BackForwardCache")
    }

    /// One that keeps pages that were left, for the way back.
    #[track_caller]
    pub(super) fn that_keeps_pages() -> Self {
        Self::start_with("--enable-features=BackForwardCache")
    }

    #[track_caller]
    fn start_with(option: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let binary = program("chromium", "chromium");
        let driver = Driver::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities(&binary, driver.home.path(), option));
            let client = builder
                .connect(&format!("http://127.0.0.1:{}", driver.port))
                .await
                .expect("chromedriver starts Chromium");
            let timeouts = TimeoutConfiguration::new(Some(PATIENCE), Some(PATIENCE), Some(Duration::ZERO));
            client.update_timeouts(timeouts).await.expect("the timeouts");
            client
        });
        Self { client, runtime, driver, _turn: turn }
    }

    /// A browser that shows the page at `url`.
    #[track_caller]
    pub(super) fn at(url: &str) -> Self {
        let chromium = Self::start();
        chromium.goto(url);
        chromium
    }

    #[track_caller]
    pub(super) fn goto(&self, url: &str) {
        self.wait(self.client.goto(url));
    }

    /// Another tab, at `url`, which the next commands are for.
    #[track_caller]
    pub(super) fn open_tab(&self, url: &str) -> WindowHandle {
        let tab = self.wait(self.client.new_window(true)).handle;
        self.turn_to(&tab);
        self.goto(url);
        tab
    }

    /// The next commands are for this tab.
    #[track_caller]
    pub(super) fn turn_to(&self, tab: &WindowHandle) {
        self.wait(self.client.switch_to_window(tab.clone()));
    }

    /// Closes the tab that commands are for. Next, another one is to be turned to.
    #[track_caller]
    pub(super) fn close_tab(&self) {
        self.wait(self.client.close_window());
    }

    /// Runs the body of an async function in the page, after the prelude; returns what it returns. Its parameters are
    /// `arguments[0]` and so on.
    #[track_caller]
    pub(super) fn run_with(&self, body: &str, arguments: Vec<Value>) -> Value {
        let script = format!(
            "{PRELUDE}\nconst done = arguments[arguments.length - 1];\n\
             (async () => {{ {body} }})()\n\
             .then((value) => done({{ value }}), (error) => done({{ error: error.stack }}));"
        );
        let mut outcome = self.wait(self.client.execute_async(&script, arguments));
        if let Some(error) = outcome.get("error") {
            panic!("the script failed: {}", error.as_str().unwrap_or("without a word"));
        }
        outcome.get_mut("value").map(Value::take).unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn run(&self, body: &str) -> Value {
        self.run_with(body, Vec::new())
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(super) fn wait_until(&self, expression: &str) {
        // Each look is a script of its own: a page that is left takes along what runs in it.
        let look = format!("{PRELUDE}\nreturn Boolean({expression});");
        wait_until(expression, PATIENCE, || {
            matches!(self.runtime.block_on(self.client.execute(&look, Vec::new())), Ok(Value::Bool(true)))
        });
    }

    /// Clicks the element with this id.
    #[track_caller]
    pub(super) fn click(&self, id: &str) {
        self.wait(self.element(id).click());
    }

    /// Types into the field with this id what it shall contain.
    #[track_caller]
    pub(super) fn fill(&self, id: &str, text: &str) {
        self.wait(self.element(id).clear());
        self.type_into(id, text);
    }

    /// Presses the keys of `text` with the focus on the element with this id.
    #[track_caller]
    pub(super) fn type_into(&self, id: &str, text: &str) {
        self.wait(self.element(id).send_keys(text));
    }

    /// What the window shows, as a PNG.
    #[track_caller]
    pub(super) fn screenshot(&self) -> Vec<u8> {
        self.wait(self.client.screenshot())
    }

    /// What the browser has written to its console since the last call. It tells a developer what it does not tell a
    /// page: why a connection failed.
    #[track_caller]
    pub(super) fn console(&self) -> Vec<String> {
        let session = self.wait(self.client.session_id()).expect("a session");
        let entries = self.driver.post(&format!("/session/{session}/se/log"), &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("a list of console messages");
        entries.iter().map(|entry| entry["message"].as_str().expect("a message").to_owned()).collect()
    }

    #[track_caller]
    fn element(&self, id: &str) -> Element {
        self.wait(self.client.find(Locator::Id(id)))
    }

    #[track_caller]
    fn wait<T>(&self, command: impl Future<Output = Result<T, CmdError>>) -> T {
        // Not `expect` in the future: the line of the test is to be in the message.
        match self.runtime.block_on(command) {
            Ok(value) => value,
            Err(error) => panic!("the browser: {error}"),
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let closed = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.client.clone().close()).await });
        assert!(panicking() || matches!(closed, Ok(Ok(()))), "the browser did not close: {closed:?}");
    }
}

fn capabilities(binary: &Path, home: &Path, option: &str) -> Capabilities {
    let profile = format!("--user-data-dir={}", home.join("profile").display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        // The tests' own.
        "--ignore-certificate-errors",
        // The end of chromedriver, however it comes, is then the end of Chromium.
        "--remote-debugging-pipe",
        option,
        "--window-size=1280,1200",
        &profile,
    ];
    let capabilities = json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "binary": binary, "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    match capabilities {
        Value::Object(capabilities) => capabilities,
        _ => unreachable!("written as an object"),
    }
}

/// A chromedriver on a port of its own choice, and its home directory, which the browser shares.
struct Driver {
    child: Child,
    process: Process,
    port: u16,
    home: TempDir,
}

impl Driver {
    #[track_caller]
    fn start() -> Self {
        // It takes a free port of ::1 for itself and then wants the same of 127.0.0.1, which need not be free.
        let taken = "port not available";
        let mut said = String::new();
        for _ in 0..10 {
            match Self::try_start() {
                Ok(driver) => return driver,
                Err(output) => said = output,
            }
            if !said.contains(taken) {
                break;
            }
        }
        panic!("chromedriver did not start:\n{said}");
    }

    /// # Errors
    /// What a chromedriver said that ended.
    fn try_start() -> Result<Self, String> {
        let binary = program("chromedriver", "chromium-driver");
        let home = tempfile::Builder::new().prefix("mod_websocket-browser-").tempdir().expect("a temporary directory");
        let output = home.path().join("chromedriver.log");
        let file = File::create(&output).expect("a file for chromedriver's output");
        let child = Command::new(binary)
            .arg("--port=0")
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path().join("config"))
            .env("XDG_CACHE_HOME", home.path().join("cache"))
            .env("TMPDIR", home.path())
            .env(MARK, home.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("stdout"))
            .stderr(file)
            .spawn()
            .expect("chromedriver");
        let process = i32::try_from(child.id()).ok().and_then(Process::with_pid).expect("chromedriver's process");
        let mut driver = Self { child, process, port: 0, home };
        wait_until("chromedriver listens or ends", PATIENCE, || {
            driver.port = port(&output).unwrap_or(0);
            driver.port != 0 || !process.is_running()
        });
        if driver.port == 0 { Err(fs::read_to_string(&output).unwrap_or_default()) } else { Ok(driver) }
    }

    /// The value chromedriver answers a command of its own with, which no WebDriver client knows.
    fn post(&self, path: &str, parameters: &Value) -> Value {
        let body = parameters.to_string();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a connection to chromedriver");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.port,
            body.len(),
        );
        stream.write_all(request.as_bytes()).expect("a request to chromedriver");
        let mut response = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            response.read_line(&mut line).expect("chromedriver's response");
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("Content-Length") => {
                    length = value.trim().parse().expect("a length");
                }
                _ if line.trim().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        response.read_exact(&mut body).expect("the body of chromedriver's response");
        let mut body: Value = serde_json::from_slice(&body).expect("JSON from chromedriver");
        body["value"].take()
    }
}

/// The port in "ChromeDriver was started successfully on port 12345."
fn port(output: &Path) -> Option<u16> {
    let said = fs::read_to_string(output).ok()?;
    said.split_once("successfully on port ")?.1.split_once('.')?.0.parse().ok()
}

impl Drop for Driver {
    fn drop(&mut self) {
        let mark = format!("{MARK}={}", self.home.path().display());
        // Chromium's processes write their titles over their environments: while they have parents is the time to look.
        let seen = family(Some(self.process), &mark);
        self.process.signal(Signal::TERM);
        let remaining = || {
            let mut remaining = family(None, &mark);
            remaining.extend(seen.iter().copied().filter(|process| process.is_running()));
            remaining
        };
        let ended = holds_within(PATIENCE, || remaining().is_empty());
        for process in remaining() {
            process.signal(Signal::KILL);
        }
        // A process that has ended, or was just killed: this does not wait long.
        let _ = self.child.wait();
        assert!(ended || panicking(), "processes of the browser did not end with chromedriver");
    }
}

/// The path of a program; a failure says which Debian package has it.
#[track_caller]
fn program(name: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no {name} in PATH: install the Debian package {package} (the browser tests need the packages chromium and \
             chromium-driver)"
        )
    })
}
