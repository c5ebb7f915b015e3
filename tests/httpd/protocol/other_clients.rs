//! Clients that are not ours and not Rust: Python's websockets, Perl's Mojolicious, Tcl's tcllib, GNOME's libsoup, and curl for the handshake.

use crate::harness::handshake::{SAMPLE_ACCEPT, SAMPLE_KEY};
use crate::harness::tls::CERTIFICATE;
use crate::harness::{Httpd, Mpm, Response, every_mpm};
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

every_mpm!(python_websockets, python_websockets_over_tls, python_websockets_compressed, curl);

fn python_websockets(mpm: Mpm) {
    python(Httpd::new(mpm), "plain");
}

fn python_websockets_over_tls(mpm: Mpm) {
    python(Httpd::new(mpm).tls().config("WebSocketCompression On"), "compressed");
}

fn python_websockets_compressed(mpm: Mpm) {
    let contexts = "WebSocketCompression On\nWebSocketCompressionContextTakeover Both";
    python(Httpd::new(mpm).config(contexts), "compressed");
}

fn python(httpd: Httpd, compression: &str) {
    let server = httpd
        .echo()
        .config("WebSocketMaxMessageSize 10485760")
        .config("<Location \"/echo\">\n  WebSocketProtocols echo\n</Location>")
        .start();
    let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", "import websockets"]).output();
    assert!(
        found.as_ref().is_ok_and(|output| output.status.success()),
        "{python:?} cannot import websockets: `pip install websockets`, or set PYTHON to one that can ({found:?})"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/clients/echo.py");
    let certificate = server.tls().map(|_| server.path(CERTIFICATE));
    let mut command = Command::new(&python);
    command.arg(script).arg(server.url("/echo")).arg(compression).args(certificate);
    let output = command.output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is content"));
}

/// Runs a client with the URL of an echo that compresses and has one subprotocol; returns what it prints.
fn run_client(program: &str, script: &str) -> String {
    let server = Httpd::new(Mpm::Event)
        .echo()
        .config("WebSocketCompression On\n<Location \"/echo\">\n  WebSocketProtocols echo\n</Location>")
        .start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/clients").join(script);
    let output = Command::new(program).arg(script).arg(server.url("/echo")).output().expect(program);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

#[test]
fn mojolicious() {
    assert_eq!(run_client("perl", "mojolicious.pl"), "closed 4321 after 8 texts, compressed yes");
}

#[test]
fn tcllib() {
    assert_eq!(run_client("tclsh", "tcllib.tcl"), "closed after 3 texts");
}

/// Debian's own Python, for which Debian has the bindings.
#[test]
fn libsoup() {
    let said = run_client("/usr/bin/python3", "soup.py");
    assert_eq!(said, "closed 4321 after 7 texts, protocol echo, ['WebsocketExtensionDeflate']");
}

fn curl(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let key = format!("Sec-WebSocket-Key: {SAMPLE_KEY}");
    let headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", &key];
    let mut curl = Command::new("curl");
    // What it was sent goes to stderr with -v: without delay, which stdout is not when it is no terminal.
    curl.args(["--silent", "--verbose", "--include", "--no-buffer", "--http1.1", "--max-time", "60"]);
    for header in headers {
        curl.args(["--header", header]);
    }
    curl.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut curl = curl.arg(server.http_url("/echo")).spawn().expect("curl");
    // It has no idea what to do with an open WebSocket; the head is all there is to see.
    let said = BufReader::new(curl.stderr.take().expect("its stderr")).lines().map(|line| line.expect("text"));
    let head = said.filter_map(|line| line.strip_prefix("< ").map(|line| line.trim_end().to_owned()));
    let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
    curl.kill().expect("curl is ours to end");
    curl.wait().expect("its end");
    let response = Response::from_head(&head.join("\r\n"));
    response.assert_accepted();
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some(SAMPLE_ACCEPT));
}
