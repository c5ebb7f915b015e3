//! README.md and docs/: `httpd -t` takes every configuration as it stands there, and the commands do what they say.

use crate::harness::php::php_cgi;
use crate::harness::plugin::c_examples;
use crate::harness::{Client, Httpd, Mpm};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the examples take for granted of a site, and what stands for it here.
const PATHS: &[(&str, &str)] = &[
    ("/etc/apache2/", "{root}/etc/"),
    ("/srv/", "{root}/srv/"),
    ("/usr/local/bin/", "{root}/bin/"),
    ("modules/", "{root}/modules/"),
];

const MODULES: &[&str] = &[
    "alias",
    "auth_basic",
    "authn_core",
    "authn_file",
    "authz_host",
    "authz_user",
    "dir",
    "headers",
    "proxy",
    "proxy_http",
    "rewrite",
];

fn pages(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let pages = |path: PathBuf| if path.is_dir() { pages(&path) } else { vec![path] };
    entries.flat_map(pages).collect()
}

/// The blocks of a page in this language, without the indentation that they have in a list.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let Some(is) = code.strip_prefix("```") else { continue };
        let indentation = line.len() - code.len();
        let block = lines.by_ref().take_while(|line| line.trim_start() != "```");
        let block = block.map(|line| line.get(indentation..).unwrap_or_default()).collect::<Vec<_>>().join("\n");
        if is == language {
            blocks.push(block);
        }
    }
    blocks
}

/// A site with what the examples name.
fn site() -> Httpd {
    let httpd = MODULES.iter().fold(Httpd::new(Mpm::Event), |httpd, module| httpd.module(module));
    let program = "#!/bin/sh\nexec cat\n";
    let httpd =
        httpd.program("bin/count", program).program("bin/room", program).program("srv/venv/bin/python3", program);
    let plugin = fs::read(c_examples().join("echo.so")).expect("a plugin");
    httpd.file("etc/desktops", "").file("srv/handlers/echo_wsh.py", "").file("modules/chat.so", plugin)
}

#[test]
fn configurations_load() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut number = 0;
    for page in pages(&here.join("docs")).into_iter().chain([here.join("README.md")]) {
        for block in blocks(&fs::read_to_string(&page).expect("a page"), "apache") {
            let block = block.replace("chat_init", "echo_init");
            let block = PATHS.iter().fold(block, |block, (from, to)| block.replace(from, to));
            let httpd = site().config(&block);
            let output = httpd.check();
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:\n{block}\n{message}", page.display());
            number += 1;
        }
    }
    assert!(number > 30, "only {number} blocks were found");
}

pub(crate) fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a page")
}

fn text(client: &mut Client) -> String {
    client.message().into_text().expect("a text").to_string()
}

/// What a program writes, however it ends.
fn output(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("a program").stdout).expect("text")
}

#[test]
fn commands_do_what_they_say() {
    let quick = page("docs/quickstart.md");
    let server = blocks(&quick, "apache").iter().fold(site(), Httpd::config).file("photo.jpg", "\u{ff}\u{d8}").start();
    let sh = |block: &str| {
        let block = block.replace("http://localhost", &server.http_url(""));
        output(Command::new("sh").args(["-ec", &block]).current_dir(server.root()))
    };
    let curl =
        |page: &str| -> Vec<_> { blocks(page, "sh").into_iter().filter(|block| block.contains("curl")).collect() };
    let mut reader = Client::open(&server, "/news");
    let [handshake, publish] = &curl(&quick)[..] else { panic!("two blocks with curl") };
    assert!(sh(handshake).starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    for block in [publish, &curl(&page("README.md"))[0], &curl(&page("docs/channels/guide.md"))[0]] {
        assert!(sh(block).contains("\"subscribers\":1"), "{block}");
        assert_eq!(text(&mut reader), "Hello");
    }
    let said = sh(&curl(&page("docs/channels/publishing.md"))[0]);
    assert_eq!(said.matches("\"subscribers\":").count(), 5, "{said}");
    assert_eq!(text(&mut reader), "{\"goal\":1}");

    let php = |block: &str| {
        fs::write(server.path("push.php"), block.replace("http://127.0.0.1", &server.http_url(""))).expect("a page");
        output(Command::new(php_cgi()).arg("-q").arg(server.path("push.php")))
    };
    let mut reader = Client::open(&server, "/news");
    assert!(php(&blocks(&quick, "php")[0]).contains("\"subscribers\":1"));
    assert!(text(&mut reader).starts_with("Hello at "));
    php(&format!("<?php\n{}", blocks(&page("docs/channels/guide.md"), "php")[0]));
    assert_eq!(text(&mut reader), "Hello");
}
