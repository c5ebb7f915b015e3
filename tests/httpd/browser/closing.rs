//! The end of a socket: by the page, by the server, and without a word.

use super::{site, visit};
use crate::harness::wait::PATIENCE;
use crate::harness::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};

/// The code and the reason a page gives come back to it from the server.
#[test]
fn codes_and_reasons() {
    let server = site().start();
    let page = visit(&server);
    // 123 bytes, the most there may be.
    let long = "界".repeat(41);
    for (given, code, reason) in [
        (json!([]), 1005, ""),
        (json!([1000]), 1000, ""),
        (json!([1000, "done"]), 1000, "done"),
        (json!([3000, ""]), 3000, ""),
        (json!([3999, "再见 👋"]), 3999, "再见 👋"),
        (json!([4999, long]), 4999, long.as_str()),
    ] {
        let seen = page.run_with(
            r#"
            const recorder = await open(ws("/echo"));
            const { socket } = recorder;
            socket.send("hello");
            await recorder.seen("message");
            // This echo comes when the socket is closing, and a page has no message event then.
            socket.send("last words");
            const states = [socket.readyState];
            socket.close(...arguments[0]);
            states.push(socket.readyState);
            // Once is enough: this changes nothing.
            socket.close(4000, "again");
            await recorder.seen("close");
            states.push(socket.readyState);
            socket.close(4001, "again");
            return [states, await recorder.transcript()];
            "#,
            vec![given.clone()],
        );
        let transcript = json!([["open"], ["message", "hello"], ["close", code, reason, true]]);
        assert_eq!(seen, json!([[1, 2, 3], transcript]), "{given}");
    }
    assert_eq!(page.console(), [""; 0]);
}

/// Refused arguments leave the socket as it is.
#[test]
fn invalid_arguments() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const recorder = await open(ws("/echo"));
        const { socket } = recorder;
        const seen = [
          [0], [999], [1001], [1005], [1006], [1015], [2999], [5000], [-1], [65536 + 1001], ["no number"],
          [1000, "x".repeat(124)], [3000, "界".repeat(41) + "x"],
        ].map((given) => [attempt(() => socket.close(...given)), socket.readyState]);
        socket.send("still here");
        await recorder.seen("message");
        socket.close(1000);
        await recorder.seen("close");
        return [seen, await recorder.transcript()];
        "#,
    );
    let refused = |name: &str, times: usize| vec![json!([format!("DOMException {name}"), 1]); times];
    let refusals = [refused("InvalidAccessError", 11), refused("SyntaxError", 2)].concat();
    let transcript = json!([["open"], ["message", "still here"], ["close", 1000, "", true]]);
    assert_eq!(seen, json!([refusals, transcript]));
}

#[test]
fn while_connecting() {
    let server = site().start();
    let page = visit(&server);
    let seen = page.run(
        r#"
        const recorder = record(ws("/echo"));
        recorder.socket.close(1000, "changed my mind");
        const state = recorder.socket.readyState;
        await recorder.seen("close");
        return [state, recorder.socket.readyState, await recorder.transcript()];
        "#,
    );
    assert_eq!(seen, json!([2, 3, [["error"], ["close", 1006, "", false]]]));
}

#[test]
fn a_message_too_long() {
    let server = site()
        .config("<Location \"/short\">\n  WebSocketHandler echo\n  WebSocketMaxMessageSize 10\n</Location>")
        .start();
    let page = visit(&server);
    for long in ["\"eleven byte\"", "new Uint8Array(11)", "new Uint8Array(3000000)"] {
        let seen = page.run(&format!(
            r#"
            const recorder = await open(ws("/short"));
            recorder.socket.send("ten bytes!");
            recorder.socket.send({long});
            await recorder.seen("close");
            return recorder.transcript();
            "#
        ));
        let clean =
            |is: bool| json!([["open"], ["message", "ten bytes!"], ["close", 1009, "message over 10 bytes", is]]);
        // Behind a message that is still on its way, Chromium's own Close may come too late for it.
        assert!(seen == clean(true) || long.ends_with("(3000000)") && seen == clean(false), "{long}: {seen}");
    }
}

/// Three sockets in the page, in different moods; `httpd -k stop`.
#[test]
fn the_server_stops() {
    let server = site().start();
    let page = visit(&server);
    page.run(
        r#"
        window.silent = await open(ws("/echo"));
        window.talking = await open(ws("/echo"));
        talking.socket.send("hello");
        await talking.seen("message");
        window.persistent = await open(ws("/echo"));
        persistent.socket.send("more");
        persistent.socket.onmessage = ({ data }) => persistent.socket.send(data);
        persistent.states = [];
        persistent.socket.addEventListener("close", () => persistent.states.push(persistent.socket.readyState));
        "#,
    );
    server.begin_to_stop();
    let seen = page.run(
        r#"
        for (const recorder of [silent, talking, persistent]) await recorder.seen("close");
        const all = [silent, talking, persistent];
        return {
          silent: await silent.transcript(),
          talking: await talking.transcript(),
          persistent: (await persistent.transcript()).filter(([type]) => type !== "message"),
          messages: [...new Set(persistent.messages())],
          states: [...persistent.states, ...all.map(({ socket }) => socket.readyState)],
        };
        "#,
    );
    let close = json!(["close", 1012, "server is stopping", true]);
    let expected = json!({
        "silent": [["open"], close],
        "talking": [["open"], ["message", "hello"], close],
        "persistent": [["open"], close],
        "messages": ["more"],
        "states": [3, 3, 3, 3],
    });
    assert_eq!(seen, expected);
    server.stop();
    let seen = page.run(
        r#"
        const recorder = record(ws("/echo"));
        await recorder.seen("close");
        return recorder.transcript();
        "#,
    );
    assert_eq!(seen, json!([["error"], ["close", 1006, "", false]]));
}

/// A graceful restart is nothing a page would notice.
#[test]
fn the_server_restarts() {
    let server = site().start();
    let page = visit(&server);
    page.run(
        r#"
        window.recorder = await open(ws("/echo"));
        recorder.socket.send("before");
        await recorder.seen("message");
        "#,
    );
    server.graceful();
    let seen = page.run(
        r#"
        recorder.socket.send("after");
        await recorder.seen("message", 2);
        recorder.socket.close(1000, "enough");
        await recorder.seen("close");
        return recorder.transcript();
        "#,
    );
    let expected = json!([["open"], ["message", "before"], ["message", "after"], ["close", 1000, "enough", true]]);
    assert_eq!(seen, expected);
}

/// The engine dies: the page hears of an end that nobody announced, and may connect again.
#[test]
fn the_engine_dies() {
    let server = site().start();
    let page = visit(&server);
    let engine = server.engine();
    page.run(r#"window.recorder = await open(ws("/echo"));"#);
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    engine.signal(Signal::KILL);
    let seen = page.run(r#"await recorder.seen("close"); return recorder.transcript();"#);
    assert_eq!(seen, json!([["open"], ["close", 1006, "", false]]));
    wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
    let seen = page.run(
        r#"
        const recorder = await open(ws("/echo"));
        recorder.socket.send("hello again");
        await recorder.seen("message");
        recorder.socket.close();
        await recorder.seen("close");
        return recorder.transcript();
        "#,
    );
    assert_eq!(seen, json!([["open"], ["message", "hello again"], ["close", 1005, "", true]]));
}

/// Who goes elsewhere leaves no socket behind in the engine.
#[test]
fn the_page_is_left() {
    let server = site().start();
    let page = visit(&server);
    let engine = server.engine();
    let held = || engine.network_sockets().len();
    let open = page.run(
        r#"
        const all = await Promise.all(Array.from({ length: 5 }, () => open(ws("/echo"))));
        for (const { socket } of all) socket.send("hello");
        for (const recorder of all) await recorder.seen("message");
        return all.length;
        "#,
    );
    assert_eq!(open, json!(5));
    assert_eq!(held(), 5);
    page.goto(&server.http_url("/page.html?another"));
    wait_until("the engine holds no socket", PATIENCE, || held() == 0);
    assert_eq!(page.run("return document.readyState;"), Value::from("complete"));
}
