//! The demo site: its own configuration and its own pages, used as a visitor does.

use super::chromium::Chromium;
use crate::front::standalone::Standalone;
use crate::harness::{Httpd, Mpm, Server};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file or a folder of the demo.
fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apache-conf/demo").join(path)
}

/// The demo's httpd.conf and pages under the harness's ServerRoot.
pub(super) fn serve() -> Server {
    let mut httpd = Httpd::new(Mpm::Event).config("Define DEMO_HTDOCS \"{root}/htdocs\"\nDefine DEMO_PORT {port}");
    for module in ["authz_host", "mime", "dir", "proxy", "proxy_http"] {
        httpd = httpd.module(module);
    }
    for entry in fs::read_dir(demo("htdocs")).expect("the demo's pages") {
        let entry = entry.expect("a page of the demo");
        let name = entry.file_name().into_string().expect("a file name");
        httpd = httpd.file(&format!("htdocs/{name}"), fs::read(entry.path()).expect("its content"));
    }
    httpd
        .config(format!("Include \"{}\"", demo("httpd.conf").display()))
        // Where the harness looks.
        .config("ErrorLog \"{root}/logs/error.log\"\nLogLevel info websocket:debug")
        .start()
}

/// The lines of the page's log: label, text, and size where there is one.
const LINES: &str = r##"[...document.querySelectorAll("#log > li")].map((line) => [
    line.querySelector(".kind").textContent,
    line.querySelector(".text").firstChild.textContent,
    ...[...line.querySelectorAll(".size")].map((size) => size.textContent),
])"##;

/// Waits for a line in the page's log, and for it to be the last one.
#[track_caller]
fn last_line(page: &Chromium, label: &str, text: &str) {
    let expected = json!([label, text]);
    page.wait_until(&format!("JSON.stringify({LINES}.at(-1)?.slice(0, 2)) === JSON.stringify({expected})"));
}

/// What the page says of the socket, once `ready_state` is shown.
fn shown(page: &Chromium, ready_state: &str) -> Value {
    let ready_state = json!(ready_state);
    page.wait_until(&format!("document.getElementById('ready-state').textContent === {ready_state}"));
    page.run(
        r#"
        return ["ready-state", "buffered-amount", "protocol", "extensions", "close-info"]
          .map((id) => document.getElementById(id).textContent);
        "#,
    )
}

#[test]
fn without_a_configuration() {
    // httpd's user may not be able to reach a checkout.
    let pages = tempfile::tempdir().expect("a folder");
    fs::set_permissions(pages.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
    for entry in fs::read_dir(demo("htdocs")).expect("the demo's pages") {
        let path = entry.expect("a page of the demo").path();
        fs::copy(&path, pages.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    let server = Standalone::start(&["--echo", "-d", pages.path().to_str().expect("UTF-8")]);
    let page = Chromium::at(&format!("http://{}/", server.address()));
    page.click("connect");
    last_line(&page, "open", "no subprotocol");
    page.fill("message", "hello");
    page.click("send");
    last_line(&page, "received", "hello");
    server.interrupt();
    last_line(&page, "close", "code 1012, reason “server is stopping”, wasClean true");
}

#[test]
fn by_clicks() {
    let server = serve();
    let page = Chromium::at(&server.http_url("/"));
    assert_eq!(page.run("return document.title;"), json!("mod_websocket demo"));
    assert_eq!(page.run("return document.getElementById('url').value;"), json!(server.url("/echo")));
    assert_eq!(shown(&page, "no socket yet"), json!(["no socket yet", "0", "none", "none", "none yet"]));

    let url = server.url("/echo");
    page.click("send");
    page.fill("url", "ws://nowhere");
    page.click("use-echo");
    page.fill("protocols", "chat, superchat");
    page.click("connect");
    last_line(&page, "open", "subprotocol chat");
    assert_eq!(shown(&page, "1 OPEN"), json!(["1 OPEN", "0", "chat", "none", "none yet"]));

    page.fill("message", "你好，世界！Hello");
    page.click("send");
    last_line(&page, "received", "你好，世界！Hello");
    page.fill("message", "é");
    page.click("send-binary");
    last_line(&page, "received", "c3 a9");
    choose(&page, "binary-type", "ArrayBuffer");
    page.fill("message", "bytes");
    page.click("send-binary");
    last_line(&page, "received", "62 79 74 65 73");

    page.fill("close-code", "four");
    page.click("close");
    page.fill("close-code", "4321");
    page.fill("close-reason", "再见");
    page.click("close");
    let told = "code 4321, reason “再见”, wasClean true";
    last_line(&page, "close", told);
    assert_eq!(shown(&page, "3 CLOSED"), json!(["3 CLOSED", "0", "chat", "none", told]));

    page.fill("protocols", "");
    page.click("connect");
    last_line(&page, "open", "no subprotocol");
    assert_eq!(shown(&page, "1 OPEN"), json!(["1 OPEN", "0", "none", "none", "none yet"]));
    keep(&page.screenshot(), "demo.png");
    server.begin_to_stop();
    let stopped = "code 1012, reason “server is stopping”, wasClean true";
    last_line(&page, "close", stopped);
    assert_eq!(shown(&page, "3 CLOSED"), json!(["3 CLOSED", "0", "none", "none", stopped]));
    server.stop();
    page.click("connect");
    let failed = "code 1006, reason none, wasClean false";
    last_line(&page, "close", failed);
    assert_eq!(shown(&page, "3 CLOSED"), json!(["3 CLOSED", "0", "none", "none", failed]));
    keep(&page.screenshot(), "demo-stopped.png");

    let expected = json!([
        ["error", "Not sent: there is no open socket."],
        ["connect", format!("{url} as chat, superchat")],
        ["open", "subprotocol chat"],
        ["sent", "你好，世界！Hello", "text, 23 bytes"],
        ["received", "你好，世界！Hello", "text, 23 bytes"],
        ["sent", "c3 a9", "binary (Blob), 2 bytes"],
        ["received", "c3 a9", "binary (Blob), 2 bytes"],
        ["sent", "62 79 74 65 73", "binary (ArrayBuffer), 5 bytes"],
        ["received", "62 79 74 65 73", "binary (ArrayBuffer), 5 bytes"],
        ["error", "The close code “four” is not a number."],
        ["closing", "code 4321"],
        ["close", told],
        ["connect", url],
        ["open", "no subprotocol"],
        ["close", stopped],
        ["connect", url],
        ["error", "The browser tells a page nothing more; its console and httpd's error log may."],
        ["close", failed],
    ]);
    assert_eq!(page.run(&format!("return {LINES};")), expected);
}

/// What stands beside it in the configuration: the server behind httpd is httpd.
#[test]
fn a_proxied_server() {
    let server = serve();
    let page = Chromium::at(&server.http_url("/"));
    page.click("use-proxied");
    page.fill("protocols", "chat");
    page.click("connect");
    last_line(&page, "open", "subprotocol chat");
    page.fill("message", "there and back");
    page.click("send");
    last_line(&page, "received", "there and back");
    page.click("close");
    last_line(&page, "close", "code 1000, reason none, wasClean true");
}

/// Chooses the entry of a list as a visitor does, by typing what it says.
#[track_caller]
fn choose(page: &Chromium, id: &str, entry: &str) {
    page.type_into(id, entry);
    assert_eq!(page.run(&format!("return document.getElementById('{id}').selectedOptions[0].label;")), json!(entry));
}

/// The page of the old tutorials: opened as a file, it connects to the demo server by its full URL.
#[test]
fn from_a_file() {
    let server = serve();
    let source = fs::read_to_string(demo("htdocs/file-demo.html")).expect("the page");
    let host = server.address().to_string();
    assert_eq!(source.matches("\"ws://localhost:9998/echo\"").count(), 1);
    let folder = tempfile::tempdir().expect("a folder outside the site");
    let file = folder.path().join("file-demo.html");
    fs::write(&file, source.replace("localhost:9998", &host)).expect("the page");

    let page = Chromium::at(&format!("file://{}", file.display()));
    let lines = "[...document.querySelectorAll('#log > li')].map((line) => line.textContent)";
    page.wait_until(&format!("{lines}.length === 3"));
    server.begin_to_stop();
    page.wait_until(&format!("{lines}.length === 4"));
    let expected = json!([
        "onopen: connected",
        "sent: 你好，世界",
        "onmessage: 你好，世界",
        "onclose: code 1012, reason “server is stopping”, wasClean true",
    ]);
    assert_eq!(page.run(&format!("return {lines};")), expected);
    server.stop();
}

/// Leaves a screenshot in target/screenshots for somebody to look at.
pub(super) fn keep(png: &[u8], name: &str) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent");
    let folder = target.join("screenshots");
    fs::create_dir_all(&folder).expect("a folder for screenshots");
    fs::write(folder.join(name), png).expect("the screenshot");
}
