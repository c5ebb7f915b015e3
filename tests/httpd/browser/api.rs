//! The members of a WebSocket object through its life.

use super::{site, visit};
use crate::harness::port::Port;
use serde_json::json;

/// The four states, and each event through its `on…` attribute and through `addEventListener`.
#[test]
fn states_and_events() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const seen = [];
        const socket = new WebSocket(ws("/echo"));
        const say = (what) => seen.push([what, socket.readyState]);
        const removed = () => say("a removed listener");
        const closed = new Promise((resolve) => {
          for (const type of ["open", "message", "error", "close"]) {
            socket[`on${type}`] = () => say(`on${type}`);
            socket.addEventListener(type, () => say(type));
            socket.addEventListener(type, () => say(`${type}, once`), { once: true });
            socket.addEventListener(type, removed);
            socket.removeEventListener(type, removed);
          }
          socket.addEventListener("open", () => { socket.send("one"); socket.send("two"); });
          socket.addEventListener("message", ({ data }) => {
            if (data === "two") { say("before close()"); socket.close(); say("after close()"); }
          });
          socket.addEventListener("close", resolve);
        });
        say("constructed");
        await closed;
        return seen;
        "#,
    );
    let expected = json!([
        ["constructed", 0],
        ["onopen", 1],
        ["open", 1],
        ["open, once", 1],
        ["onmessage", 1],
        ["message", 1],
        ["message, once", 1],
        ["onmessage", 1],
        ["message", 1],
        ["before close()", 1],
        ["after close()", 2],
        ["onclose", 3],
        ["close", 3],
        ["close, once", 3],
    ]);
    assert_eq!(seen, expected);
}

/// The error event, likewise: a path without a handler, then a port where nobody listens.
#[test]
fn events_of_a_failure() {
    let server = site().start();
    let page = visit(&server);
    let fail = r#"
        const seen = [];
        const socket = new WebSocket(arguments[0]);
        const closed = new Promise((resolve) => {
          for (const type of ["open", "message", "error", "close"]) {
            socket[`on${type}`] = () => seen.push([`on${type}`, socket.readyState]);
            socket.addEventListener(type, () => seen.push([type, socket.readyState]));
          }
          socket.addEventListener("close", ({ code, reason, wasClean }) => resolve([code, reason, wasClean]));
        });
        return [await closed, seen];
    "#;
    let expected = json!([[1006, "", false], [["onerror", 3], ["error", 3], ["onclose", 3], ["close", 3]]]);
    let unserved = Port::reserve();
    for (url, why) in [
        (server.url("/nothing"), "Unexpected response code: 404"),
        // A page and no socket: the handshake is answered as any request for it.
        (server.url("/page.html"), "Unexpected response code: 200"),
        (format!("ws://127.0.0.1:{}/echo", unserved.number()), "ERR_CONNECTION_REFUSED"),
    ] {
        assert_eq!(page.run_with(fail, vec![json!(url)]), expected, "{url}");
        let console = page.console();
        assert!(console.len() == 1 && console[0].contains(&url) && console[0].contains(why), "{console:?}");
    }
}

#[test]
fn attributes_constants_and_events_of_the_right_kinds() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const seen = {};
        const recorder = record(ws("/page/../echo?a=%20b").replace("ws:", "WS:"));
        const s = recorder.socket;
        const attributes = () => [s.url, s.protocol, s.extensions, s.binaryType, s.bufferedAmount];
        const names = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"];
        seen.constants = names.map((name) => [WebSocket[name], s[name]]);
        seen.connecting = attributes();
        const kinds = [];
        const kind = (event) => kinds.push([
          event.constructor.name, event.type, event.target === s, event.isTrusted, event.bubbles, event.cancelable,
        ]);
        s.onopen = kind;
        s.onclose = kind;
        s.onmessage = (event) => {
          kind(event);
          seen.message = [event.data, event.origin, event.lastEventId, event.source, event.ports.length];
        };
        await recorder.seen("open");
        seen.open = attributes();
        s.send("hello");
        await recorder.seen("message");
        s.close();
        await recorder.seen("close");
        seen.closed = attributes();
        seen.kinds = kinds;
        seen.handlers = [typeof s.onopen, s.onerror];
        s.onopen = null;
        seen.handlers.push(s.onopen);
        seen.is = [s instanceof WebSocket, s instanceof EventTarget, String(s)];
        return seen;
        "#,
    );
    let attributes = json!([server.url("/echo?a=%20b"), "", "", "blob", 0]);
    let expected = json!({
        "constants": [[0, 0], [1, 1], [2, 2], [3, 3]],
        "connecting": attributes,
        "open": attributes,
        "closed": attributes,
        "message": ["hello", server.url(""), "", null, 0],
        "kinds": [
            ["Event", "open", true, true, false, false],
            ["MessageEvent", "message", true, true, false, false],
            ["CloseEvent", "close", true, true, false, false],
        ],
        "handlers": ["function", null, null],
        "is": [true, true, "[object WebSocket]"],
    });
    assert_eq!(seen, expected);
}
