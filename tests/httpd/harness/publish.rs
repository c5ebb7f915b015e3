//! Publishing to channels, as a program of the site does it: with one request of HTTP.

use super::handshake::{Handshake, Response};
use super::raw::Raw;
use super::server::Server;
use serde_json::Value;

/// A POST of this body; `query` is all that follows the question mark.
pub(crate) fn post(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Response {
    let request = Handshake::page(path).method("POST").version("HTTP/1.0");
    let request = request.header("Content-Type", content_type).header("Content-Length", &body.len().to_string());
    let mut client = Raw::connect(server);
    client.write(&[request.bytes(&client.host()), body.to_vec()].concat());
    client.response(false)
}

/// Publishes a text; the id that it got, and to how many it was given.
#[track_caller]
pub(crate) fn publish(server: &Server, channel: &str, text: &str) -> (String, u64) {
    let response = post(server, &format!("/publish?channel={channel}"), "text/plain", text.as_bytes());
    let said = json(&response);
    let receipt = &said.as_object().expect("an object")[channel];
    let subscribers = receipt["subscribers"].as_u64().expect("a number");
    assert_eq!(response.status, if subscribers > 0 { 201 } else { 202 });
    (receipt["id"].as_str().expect("an id").to_owned(), subscribers)
}

/// What an answer says.
#[track_caller]
pub(crate) fn json(response: &Response) -> Value {
    assert_eq!(response.header("Content-Type"), Some("application/json"), "{response:?}");
    serde_json::from_slice(&response.body).unwrap_or_else(|e| panic!("{e} in {:?}", response.text()))
}

/// A POST of these lines of JSON, each a message.
pub(crate) fn post_lines(server: &Server, lines: &str) -> Response {
    post(server, "/publish", "application/x-ndjson", lines.as_bytes())
}

/// What an answer says, a line for each message.
#[track_caller]
pub(crate) fn lines(response: &Response) -> Vec<Value> {
    let is_of_lines = response.header("Content-Type") == Some("application/x-ndjson");
    assert!(response.status == 200 && is_of_lines, "{response:?} {}", response.text());
    let text = response.text();
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"))).collect()
}

/// Connections that are subscribed to a channel.
pub(crate) fn subscribers(server: &Server, channel: &str) -> u64 {
    let response = Raw::page(server, &format!("/publish?channel={channel}"));
    if response.status == 404 { 0 } else { json(&response)["subscribers"].as_u64().expect("a number") }
}
