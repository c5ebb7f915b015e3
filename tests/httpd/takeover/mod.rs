//! WebSockets of mod_proxy that the engine takes over: `WebSocketProxyHandoff On`.

mod capacity;
mod configurations;
mod early;
mod engine;
mod restarts;
mod ways;

use crate::harness::wait::PATIENCE;
use crate::harness::{Httpd, Mpm, Server, wait_until};

/// A site that proxies; the test says where to.
fn site(mpm: Mpm) -> Httpd {
    Httpd::new(mpm).module("proxy").module("proxy_http").config("WebSocketProxyHandoff On")
}

/// How many tunnels the engine has got by now.
fn taken(server: &Server) -> usize {
    server.error_log().matches("WS0056: ").count()
}

/// So many tunnels are the engine's.
#[track_caller]
fn await_taken(server: &Server, count: usize) {
    wait_until("the engine has the tunnels", PATIENCE, || taken(server) >= count);
    assert_eq!((taken(server), left(server)), (count, Vec::new()));
}

/// Why tunnels were left to mod_proxy.
fn left(server: &Server) -> Vec<String> {
    let log = server.error_log();
    let lines = log.lines().filter_map(|line| line.split_once("WS0055: left to mod_proxy: "));
    lines.map(|(_, why)| why.split(", referer").next().unwrap_or(why).to_owned()).collect()
}
