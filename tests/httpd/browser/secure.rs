//! Pages over https and their sockets: over HTTP/1.1 and TLS on a connection of their own, and in the page's HTTP/2.

use super::{site, site_on, visit};
use crate::harness::wait::PATIENCE;
use crate::harness::{Mpm, Server, wait_until, with_http2};
use serde_json::{Value, json};

with_http2!(in_http2);

/// What a page says of itself, and what it sees of a socket: every size, both directions, and a clean close.
const TALK: &str = r#"
    const [{ nextHopProtocol }] = performance.getEntriesByType("navigation");
    const recorder = await open(ws("/echo"));
    recorder.socket.binaryType = "arraybuffer";
    const messages = ["", "hello", "你好，世界 🚀", "汉字".repeat(30_000)];
    for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
      messages.push(Uint8Array.from({ length: size }, (_, index) => (index * 7) % 251));
    }
    for (const message of messages) recorder.socket.send(message);
    await recorder.seen("message", messages.length);
    const echoed = await Promise.all(recorder.messages().map((data, index) =>
      typeof data === "string" ? data === messages[index] : same(data, messages[index])));
    recorder.socket.close(4000, "再见");
    await recorder.seen("close");
    const [close] = (await recorder.transcript()).slice(-1);
    const { url, extensions } = recorder.socket;
    return [nextHopProtocol, location.protocol, url, extensions, echoed, close];
"#;

fn seen(server: &Server, protocol: &str) -> Value {
    let compression = "permessage-deflate; server_no_context_takeover; client_max_window_bits=11";
    json!([protocol, "https:", server.url("/echo"), compression, vec![true; 11], ["close", 4000, "再见", true]])
}

/// The sockets of the access log, once there are as many.
fn sockets(server: &Server, count: usize) -> Vec<String> {
    let lines = || -> Vec<String> {
        server.access_log().lines().filter(|line| line.contains("/echo")).map(str::to_owned).collect()
    };
    wait_until("the sockets are in the access log", PATIENCE, || lines().len() >= count);
    lines()
}

#[test]
fn https() {
    let server = site().tls().config("WebSocketCompression On").start();
    let page = visit(&server);
    assert_eq!(page.run(TALK), seen(&server, "http/1.1"));
    assert_eq!(page.console(), [""; 0]);
    let sockets = sockets(&server, 1);
    assert!(sockets.len() == 1 && sockets[0].contains("GET /echo HTTP/1.1\" 101"), "{sockets:?}");
}

/// RFC 8441: the socket is a stream of the connection that the page came over.
fn in_http2(mpm: Mpm) {
    let server = site_on(mpm).workers(20).http2().config("WebSocketCompression On").start();
    let page = visit(&server);
    assert_eq!(page.run(TALK), seen(&server, "h2"));
    // Several beside each other, and a page's requests beside them.
    let beside = page.run(
        r#"
        const recorders = await Promise.all([1, 2, 3, 4].map(() => open(ws("/echo"))));
        recorders.forEach(({ socket }, index) => socket.send(`on ${index}`));
        await Promise.all(recorders.map((recorder) => recorder.seen("message")));
        const response = await fetch("/index.html");
        const text = await response.text();
        recorders.forEach(({ socket }) => socket.close());
        await Promise.all(recorders.map((recorder) => recorder.seen("close")));
        return [text, ...(await Promise.all(recorders.map((recorder) => recorder.transcript())))];
        "#,
    );
    let transcript = |index: usize| json!([["open"], ["message", format!("on {index}")], ["close", 1005, "", true]]);
    let page_text = "<p>A page of the site.</p>\n";
    assert_eq!(beside, json!([page_text, transcript(0), transcript(1), transcript(2), transcript(3)]));
    assert_eq!(page.console(), [""; 0]);
    let sockets = sockets(&server, 5);
    assert!(sockets.len() == 5 && sockets.iter().all(|line| line.contains("GET /echo HTTP/2.0\"")), "{sockets:?}");
}

/// A page that is left takes its sockets with it, and the engine hears of it.
#[test]
fn a_page_that_is_left() {
    for httpd in [site().tls(), site().workers(20).http2()] {
        let server = httpd.start();
        let page = visit(&server);
        page.run(r#"for (let count = 0; count < 3; count++) await open(ws("/echo"));"#);
        let ended = || server.error_log().matches(" ended: ").count();
        assert_eq!(ended(), 0);
        page.goto("about:blank");
        wait_until("the three sessions have ended", PATIENCE, || ended() == 3);
    }
}
