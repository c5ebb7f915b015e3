//! Applications that decide over sessions.

mod authorize;
mod authorize_answers;
mod authorize_bad;
mod authorize_handlers;
mod authorize_places;
mod authorize_secure;
pub(crate) mod chat_example;
mod http;
mod http_events;
mod http_rights;
mod rights;
mod rights_recheck;
mod trust;

use crate::harness::{Handshake, Raw, Response, Server};
use serde_json::Value;

/// An application that does what the query of the WebSocket's URL says, which it gets as `q`: `h[]`, header lines; `status`;
/// `body`; `bytes`, so many of them; `line`, a header line of so many; `sleep`, seconds; `dump`, all that it knows of its request.
const APP: &str = r#"<?php
parse_str($_GET['q'] ?? '', $wish);
foreach ($wish['h'] ?? [] as $line) {
    header($line, false);
}
if (isset($wish['status'])) {
    http_response_code((int) $wish['status']);
}
if (isset($wish['line'])) {
    header('X-Long: ' . str_repeat('x', (int) $wish['line']));
}
sleep((int) ($wish['sleep'] ?? 0));
if (isset($wish['dump'])) {
    header('Content-Type: application/json');
    echo json_encode($_SERVER + ['input' => file_get_contents('php://input')]);
}
echo str_repeat('x', (int) ($wish['bytes'] ?? 0)), $wish['body'] ?? '';
"#;

/// A site's login, to stand for it.
const LOGIN: &str = "<?php session_start(); $_SESSION['user'] = 'zo\u{eb}';";

/// The cookie of a session that [`LOGIN`] has begun, at /login.php.
#[track_caller]
fn login(server: &Server) -> String {
    let page = Raw::page(server, "/login.php");
    page.header("Set-Cookie").and_then(|cookie| cookie.split(';').next()).expect("a session").to_owned()
}

/// The query by which [`APP`] says these header lines.
fn saying(lines: &[&str]) -> String {
    let encoded = lines.iter().map(|line| format!("h[]={}", encode(line)));
    encoded.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What [`APP`], asked by a handshake, knows of its request: it refuses with it.
#[track_caller]
fn dumped(server: &Server, handshake: &Handshake) -> Value {
    known(&Raw::answer(server, handshake))
}

/// What an answer with a dump says.
#[track_caller]
fn known(answer: &Response) -> Value {
    assert_eq!((answer.status, answer.header("Content-Type")), (403, Some("application/json")), "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e} in {:?}", answer.text()))
}
