//! The constructor: its URL, and subprotocols by one name or by a list.

use super::{site, visit};
use serde_json::{Value, json};

#[test]
fn subprotocols() {
    let server = site()
        .config("<Location \"/chat\">\n  WebSocketHandler echo\n  WebSocketProtocols chat superchat\n</Location>")
        .config("<Location \"/any\">\n  WebSocketHandler echo\n  WebSocketProtocols *\n</Location>")
        .start();
    let page = visit(&server);
    // What the page asks for, and what it gets.
    for (path, asked, protocol) in [
        ("/chat", None, ""),
        ("/chat", Some(json!([])), ""),
        ("/chat", Some(json!("chat")), "chat"),
        ("/chat", Some(json!("superchat")), "superchat"),
        ("/chat", Some(json!(["superchat"])), "superchat"),
        // The server's preference, not the page's.
        ("/chat", Some(json!(["superchat", "chat"])), "chat"),
        ("/chat", Some(json!(["telex", "superchat", "morse"])), "superchat"),
        ("/any", None, ""),
        ("/any", Some(json!(["telex", "chat"])), "telex"),
        ("/any", Some(json!("v1.json+x~!#$%&'*-^_`|")), "v1.json+x~!#$%&'*-^_`|"),
        ("/echo", None, ""),
    ] {
        let seen = page.run_with(
            r#"
            const [path, asked] = arguments;
            const recorder = asked === null ? record(ws(path)) : record(ws(path), asked);
            const seen = [recorder.socket.protocol];
            await recorder.seen("open");
            recorder.socket.send("hello");
            await recorder.seen("message");
            seen.push(recorder.socket.protocol);
            recorder.socket.close();
            await recorder.seen("close");
            return [...seen, recorder.socket.protocol, await recorder.transcript()];
            "#,
            vec![json!(path), asked.clone().unwrap_or(Value::Null)],
        );
        let transcript = json!([["open"], ["message", "hello"], ["close", 1005, "", true]]);
        assert_eq!(seen, json!(["", protocol, protocol, transcript]), "{path} {asked:?}");
    }
    assert_eq!(page.console(), [""; 0]);
}

/// The server upgrades without a subprotocol when none is common, as RFC 6455 allows; a page that insisted on one hears
/// of it from its browser.
#[test]
fn no_common_subprotocol() {
    let server =
        site().config("<Location \"/chat\">\n  WebSocketHandler echo\n  WebSocketProtocols chat\n</Location>").start();
    let page = visit(&server);
    for (path, asked) in [("/chat", json!(["telex", "morse"])), ("/chat", json!("Chat")), ("/echo", json!("chat"))] {
        let seen = page.run_with(
            r#"
            const recorder = record(ws(arguments[0]), arguments[1]);
            await recorder.seen("close");
            return [recorder.socket.readyState, recorder.socket.protocol, await recorder.transcript()];
            "#,
            vec![json!(path), asked.clone()],
        );
        assert_eq!(seen, json!([3, "", [["error"], ["close", 1006, "", false]]]), "{path} {asked}");
        let console = page.console();
        let why = "Sent non-empty 'Sec-WebSocket-Protocol' header but no response was received";
        assert!(console.len() == 1 && console[0].contains(why), "{console:?}");
    }
}

/// The URL as browsers write it: a path relative to the page, and http for ws.
#[test]
fn urls() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const seen = [];
        for (const url of ["/echo", "echo?x=y", location.href.replace("page.html", "echo"), ws("/%65cho")]) {
          const { socket } = await open(url);
          seen.push(socket.url);
          socket.close();
        }
        return seen;
        "#,
    );
    assert_eq!(seen, json!([server.url("/echo"), server.url("/echo?x=y"), server.url("/echo"), server.url("/%65cho")]));
}

/// Nothing of this reaches the server.
#[test]
fn what_the_constructor_refuses() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r##"
        return {
          urls: ["ws://", "ws://[::1/echo", "ftp://127.0.0.1/echo", "mailto:echo", ws("/echo#fragment")]
            .map((url) => attempt(() => new WebSocket(url))),
          protocols: ["", "a b", "a,b", "ä", ["a", "a"], ["chat", "superchat", "chat"], ["chat", ""]]
            .map((protocols) => attempt(() => new WebSocket(ws("/echo"), protocols))),
          nothing: attempt(() => new WebSocket()),
          notConstructed: attempt(() => WebSocket(ws("/echo"))),
        };
        "##,
    );
    let syntax_error = "DOMException SyntaxError";
    let expected = json!({
        "urls": vec![syntax_error; 5],
        "protocols": vec![syntax_error; 7],
        "nothing": "TypeError TypeError",
        "notConstructed": "TypeError TypeError",
    });
    assert_eq!(seen, expected);
    assert!(!server.access_log().contains("/echo"), "{}", server.access_log());
}
