//! The WebSocket API of a browser, member by member, and the demo's pages: headless Chromium against a real httpd.
//!
//! The browser and its driver are Debian's packages chromium and chromium-driver. A test is mostly a script that runs
//! in a page of the server under test and returns what it saw, which the test compares in full. What the scripts have
//! in common is in `prelude.js`.

mod api;
mod chat;
mod chromium;
mod closing;
mod demo;
mod messages;
mod opening;
mod origin;
mod php_chat;
mod secure;
mod tab;

use crate::harness::{Httpd, Mpm, Server};
use chromium::Chromium;

/// An httpd with an empty page at /page.html and the echo handler at /echo.
fn site() -> Httpd {
    site_on(Mpm::Event)
}

fn site_on(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .file("htdocs/page.html", "<!DOCTYPE html><meta charset=\"utf-8\"><link rel=\"icon\" href=\"data:,\">")
        .echo()
}

/// A browser at the empty page of `server`.
#[track_caller]
fn visit(server: &Server) -> Chromium {
    Chromium::at(&server.http_url("/page.html"))
}
