//! Who may connect: pages of the site, of another, and of none (a file).

use super::{site, visit};
use crate::harness::port::Port;
use crate::harness::wait::PATIENCE;
use crate::harness::{Server, wait_until};
use serde_json::{Value, json};
use std::fs;

/// What the page sees of a socket that says hello: an echo, or a refusal.
const HELLO: &str = r#"
    const recorder = record(arguments[0]);
    recorder.socket.onopen = () => recorder.socket.send("hello");
    recorder.socket.onmessage = () => recorder.socket.close();
    await recorder.seen("close");
    return recorder.transcript();
"#;

fn welcome() -> Value {
    json!([["open"], ["message", "hello"], ["close", 1005, "", true]])
}

fn refused() -> Value {
    json!([["error"], ["close", 1006, "", false]])
}

/// Writes down the Origin of each handshake.
const ORIGINS: &str = "LogFormat \"%U %>s %{Origin}i\" origins\nCustomLog \"{root}/logs/origins.log\" origins \
                       \"expr=-n %{HTTP:Upgrade}\"";

/// Waits until httpd has logged a refused handshake with this Origin.
#[track_caller]
fn refusal_logged(server: &Server, path: &str, origin: &str) {
    let line = format!("{path} 403 {origin}\n");
    wait_until("the refusal is logged", PATIENCE, || {
        fs::read_to_string(server.path("logs/origins.log")).is_ok_and(|log| log.contains(&line))
    });
}

#[test]
fn a_page_of_another_origin() {
    let reserved = Port::reserve();
    let other = reserved.number();
    let server = site()
        .config(ORIGINS)
        .config(format!("Listen 127.0.0.1:{other}\n<VirtualHost 127.0.0.1:{other}>\n</VirtualHost>"))
        .config("<Location \"/off\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Off\n</Location>")
        .config("<Location \"/trusted\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Trusted")
        .config(format!("  WebSocketTrustedOrigin http://127.0.0.1:{other}\n</Location>"))
        .start();
    server.expect_log("WS0021");
    let own = server.address().port();
    let page = visit(&server);
    let url = |host: &str, port: u16, path: &str| json!(format!("ws://{host}:{port}{path}"));
    // Where the page comes from; may it open /echo (Same), may it open /trusted?
    for (host, port, same, trusted) in
        [("127.0.0.1", own, true, false), ("127.0.0.1", other, false, true), ("localhost", own, false, false)]
    {
        let origin = format!("http://{host}:{port}");
        page.goto(&format!("{origin}/page.html"));
        let verdict = |may: bool| if may { welcome() } else { refused() };
        assert_eq!(page.run_with(HELLO, vec![url("127.0.0.1", own, "/echo")]), verdict(same), "{origin}");
        assert_eq!(page.run_with(HELLO, vec![url("127.0.0.1", own, "/trusted")]), verdict(trusted), "{origin}");
        assert_eq!(page.run_with(HELLO, vec![url("127.0.0.1", own, "/off")]), welcome(), "{origin}");
        // Its own site.
        assert_eq!(page.run_with(HELLO, vec![url(host, port, "/echo")]), welcome(), "{origin}");
        let refusals = usize::from(!same) + usize::from(!trusted);
        let console = page.console();
        let forbidden = console.iter().filter(|line| line.contains("Unexpected response code: 403")).count();
        assert_eq!((console.len(), forbidden), (refusals, refusals), "{origin}: {console:?}");
        if !same {
            refusal_logged(&server, "/echo", &origin);
        }
        if !trusted {
            refusal_logged(&server, "/trusted", &origin);
        }
    }
    assert_eq!(server.error_log().matches("WS0006: refused with 403").count(), 4);
}

/// A page opened as a file belongs to no site: refused, but where any origin may connect.
#[test]
fn a_page_opened_as_a_file() {
    let server = site()
        .config(ORIGINS)
        .config("<Location \"/off\">\n  WebSocketHandler echo\n  WebSocketOriginCheck Off\n</Location>")
        .start();
    server.expect_log("WS0021: The Origin \"null\"");
    let page = visit(&server);
    page.goto(&format!("file://{}", server.path("htdocs/page.html").display()));
    assert_eq!(page.run("return [location.protocol, origin];"), json!(["file:", "null"]));
    assert_eq!(page.run_with(HELLO, vec![json!(server.url("/echo"))]), refused());
    refusal_logged(&server, "/echo", "null");
    assert_eq!(page.run_with(HELLO, vec![json!(server.url("/off"))]), welcome());
}
