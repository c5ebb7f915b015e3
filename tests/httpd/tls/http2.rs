//! WebSockets in the streams of an HTTP/2 connection (RFC 8441). mod_http2 is for event and worker.

use crate::harness::tls::CERTIFICATE;
use crate::harness::wait::PATIENCE;
use crate::harness::{Httpd, Mpm, Server, wait_until, with_http2};
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

with_http2!(
    messages,
    refusals,
    several_streams,
    windows_of_flow_control,
    ten_streams_at_once,
    streams_that_are_too_many,
    timeouts_of_httpd,
    a_connection_that_vanishes,
);

/// For a site whose clients have more sockets open in one connection than the default lets them.
pub(crate) const ROOM_FOR_MANY: &str = "WebSocketH2Streams 20\nH2MaxWorkers 60";

/// Six streams of a connection run at once, each on a thread of mod_http2.
fn serve(mpm: Mpm) -> Server {
    site(mpm).start()
}

fn site(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .workers(20)
        .http2()
        .config("<Location \"/echo\">\n  WebSocketHandler echo\n</Location>")
        .config(ROOM_FOR_MANY)
        .config("CustomLog \"{root}/logs/sockets.log\" \"%r|%>s|%{WS_SESSION}e|%{WS_BYTES_IN}e|%{WS_BYTES_OUT}e\"")
}

/// Sessions that the engine has now, by the error log.
fn open_sessions(server: &Server) -> usize {
    let log = server.error_log();
    log.matches(" begins: ").count() - log.matches(" ended: ").count()
}

#[track_caller]
pub(crate) fn wait_for_sessions(server: &Server, count: usize) {
    wait_until(&format!("the engine has {count} sessions"), PATIENCE, || open_sessions(server) == count);
}

/// A scenario of h2_websocket.py under way.
pub(crate) struct Scenario {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Scenario {
    #[track_caller]
    pub(crate) fn start(server: &Server, name: &str) -> Self {
        Self::start_with(server, name, "")
    }

    /// One that is told something.
    #[track_caller]
    pub(crate) fn start_with(server: &Server, name: &str, argument: &str) -> Self {
        let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let found = Command::new(&python).args(["-c", "import h2"]).output();
        assert!(
            found.as_ref().is_ok_and(|output| output.status.success()),
            "{python:?} cannot import h2: `pip install h2`, or set PYTHON to one that can ({found:?})"
        );
        let mut child = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/clients/h2_websocket.py"))
            .arg(server.address().port().to_string())
            .arg(server.path(CERTIFICATE))
            .arg(name)
            .args((!argument.is_empty()).then_some(argument))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python");
        let said = BufReader::new(child.stdout.take().expect("its stdout"));
        Self { child, said }
    }

    /// Waits until it says this. It goes on when it is told to.
    #[track_caller]
    pub(crate) fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("what it says");
        if line.trim_end() != expected {
            let mut why = String::new();
            let _ = self.child.stderr.take().expect("its stderr").read_to_string(&mut why);
            panic!("awaited {expected:?}, not {line:?}: {why}");
        }
    }

    #[track_caller]
    pub(crate) fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("its stdin").write_all(b"\n").expect("a line for it");
    }

    #[track_caller]
    pub(crate) fn ends_well(mut self) {
        self.says("content");
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // It has ended unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn messages(mpm: Mpm) {
    let server = serve(mpm);
    Scenario::start(&server, "messages").ends_well();
    wait_for_sessions(&server, 0);
    let log = || std::fs::read_to_string(server.path("logs/sockets.log")).unwrap_or_default();
    wait_until("each session is in the access log", PATIENCE, || log().lines().count() == 22);
    let log = log();
    let sockets: Vec<&str> = log.lines().filter(|line| line.starts_with("GET /echo HTTP/2.0|")).collect();
    assert_eq!(sockets.len(), 21, "{log}");
    // A message and a Close each, with masks and without.
    assert_eq!(sockets.iter().filter(|line| line.ends_with("|15|7")).count(), 10, "{log}");
    assert_eq!(sockets.iter().filter(|line| line.ends_with("|16|8")).count(), 10, "{log}");
}

fn refusals(mpm: Mpm) {
    let server = serve(mpm);
    server.expect_log("WS0021: The Origin \"https://elsewhere.example\"");
    Scenario::start(&server, "refusals").ends_well();
    wait_for_sessions(&server, 0);
}

/// The end of one stream, of whatever kind, is the end of its session and of no other.
fn several_streams(mpm: Mpm) {
    let server = serve(mpm);
    let mut client = Scenario::start(&server, "streams");
    client.says("four are open");
    wait_for_sessions(&server, 4);
    client.go_on();
    client.says("one is reset");
    wait_for_sessions(&server, 3);
    client.go_on();
    client.says("one has ended");
    wait_for_sessions(&server, 2);
    client.go_on();
    client.ends_well();
    wait_for_sessions(&server, 0);
}

fn windows_of_flow_control(mpm: Mpm) {
    let server = serve(mpm);
    let mut client = Scenario::start(&server, "windows");
    client.says("one does not read");
    wait_for_sessions(&server, 2);
    client.go_on();
    client.ends_well();
    wait_for_sessions(&server, 0);
}

fn ten_streams_at_once(mpm: Mpm) {
    let server = serve(mpm);
    Scenario::start(&server, "ten").ends_well();
    wait_for_sessions(&server, 0);
    assert_eq!(server.error_log().matches(" begins: ").count(), 10);
}

/// What is open leaves pages their threads, on this connection and on others, and comes back to who closes it.
fn streams_that_are_too_many(mpm: Mpm) {
    let server = site(mpm)
        .workers(20)
        .config("ServerLimit 1\nStartServers 1\nThreadsPerChild 20\nThreadLimit 20")
        .config("WebSocketH2Streams 4\nH2MaxWorkers 20")
        .start();
    assert!(server.error_log().contains("WS0052: H2WebSockets On: each WebSocket over HTTP/2 holds a thread of mod_http2, of which a child has 20 (H2MaxWorkers); 10 may be WebSockets in a child, and 4 of one connection"), "{}", server.error_log());
    Scenario::start(&server, "too_many").ends_well();
    wait_for_sessions(&server, 0);
    assert!(
        server.error_log().contains("WS0051: refused with 503: this connection of HTTP/2 has 4 (WebSocketH2Streams)")
    );
    assert!(
        server
            .error_log()
            .contains("WS0051: refused with 503: this child of httpd has 10 over HTTP/2, half of H2MaxWorkers")
    );
}

fn timeouts_of_httpd(mpm: Mpm) {
    let server = site(mpm)
        .module("reqtimeout")
        .config("RequestReadTimeout header=2 body=2\nTimeout 2\nKeepAlive On\nKeepAliveTimeout 1")
        .start();
    Scenario::start(&server, "idle").ends_well();
    wait_for_sessions(&server, 0);
}

fn a_connection_that_vanishes(mpm: Mpm) {
    let server = serve(mpm);
    let engine = server.engine();
    // Twice, so that what is only opened once is open.
    let mut before = 0;
    for round in 0..3 {
        let mut client = Scenario::start(&server, "vanish");
        client.says("four are open");
        wait_for_sessions(&server, 4);
        client.go_on();
        client.says("the connection is reset");
        client.go_on();
        client.ends_well();
        wait_for_sessions(&server, 0);
        let now = engine.descriptors().len();
        // Four handshakes at once may have made as many links to the engine.
        assert!(round == 0 || now <= before + 4, "from {before} to {now}: {:?}", engine.descriptors());
        before = now;
    }
}
