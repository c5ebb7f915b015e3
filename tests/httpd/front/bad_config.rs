//! Configurations that httpd must refuse, and how: `httpd -t` names the file, the line and the directive.

use crate::harness::process::with_command;
use crate::harness::{Httpd, Mpm};
use std::fs;

/// What `httpd -t` says of a configuration with these lines in a location.
fn complaint(lines: &str) -> String {
    complaint_of(Httpd::new(Mpm::Event).config(format!("<Location \"/x\">\n{lines}\n</Location>")), lines)
}

fn complaint_of(httpd: Httpd, lines: &str) -> String {
    let output = httpd.check();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{lines} was accepted: {message}");
    let line = httpd.line_of(lines.lines().last().expect("a line"));
    let place = format!("Syntax error on line {line} of {}/conf/httpd.conf:", httpd.root().display());
    assert!(message.contains(&place), "{lines}: no {place:?} in {message}");
    let (_, complaint) = message.split_once(&place).expect("just seen");
    let directive = lines.lines().last().expect("a line").split(' ').next().expect("a word");
    assert!(complaint.contains(directive), "{directive} is not named in {message}");
    complaint.to_owned()
}

#[test]
fn a_good_configuration_passes_and_starts_nothing() {
    let httpd = Httpd::new(Mpm::Event).echo().config("WebSocketEngineThreads 3");
    let output = httpd.check();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("Syntax OK"), "{message}");
    let runtime: Vec<_> = fs::read_dir(httpd.root().join("run")).expect("the runtime directory").collect();
    assert!(runtime.is_empty(), "{runtime:?}");
    // An engine would have inherited the command line.
    assert_eq!(with_command(&httpd.root().to_string_lossy()), []);
}

#[test]
fn handlers() {
    assert!(complaint("WebSocketHandler nosuch").contains("nosuch"));
    complaint("WebSocketHandler");
    complaint("WebSocketHandler echo too much");
}

#[test]
fn message_sizes() {
    for size in ["0", "-1", "-9223372036854775808", "many", "12x", "0x10", "1.5", "\"\"", "99999999999999999999"] {
        complaint(&format!("WebSocketMaxMessageSize {size}"));
    }
    complaint("WebSocketMaxMessageSize");
    complaint("WebSocketMaxMessageSize 1 2");
}

#[test]
fn limits() {
    for value in ["0", "-1", "many", "1.5", "99999999999999999999"] {
        for directive in
            ["Ping", "Ping 1", "IdleTimeout", "MessageTimeout", "MessageTimeout 1", "CloseTimeout", "SendBuffer"]
        {
            complaint(&format!("WebSocket{directive} {value}"));
        }
        complaint(&format!("WebSocketMaxConnections {value}"));
        assert!(
            complaint_of(
                Httpd::new(Mpm::Event).config(format!("WebSocketMemory {value}")),
                &format!("WebSocketMemory {value}")
            )
            .contains("bytes or Off")
        );
        complaint(&format!("WebSocketMaxConnectionsPerClient {value}"));
    }
    for line in ["WebSocketPing", "WebSocketPing Off 1", "WebSocketPing 1 2 3", "WebSocketCloseTimeout Off"] {
        complaint(line);
    }
}

#[test]
fn origins() {
    assert!(complaint("WebSocketOriginCheck Sometimes").contains("Sometimes"));
    complaint("WebSocketOriginCheck");
    complaint("WebSocketOriginCheck Off Same");
    complaint("WebSocketTrustedOrigin");
    // Nobody sends any of these.
    for origin in [
        "www.example.com",
        "https://www.example.com/chat",
        "https://",
        "https://*",
        "https://*.com",
        "https://a.*.example.com",
    ] {
        assert!(complaint(&format!("WebSocketTrustedOrigin {origin}")).contains(&format!("got \"{origin}\"")));
    }
}

#[test]
fn protocols() {
    complaint("WebSocketProtocols");
    complaint("WebSocketProtocols \"\"");
    complaint("WebSocketProtocols \"two words\"");
    complaint("WebSocketProtocols a,b");
}

#[test]
fn engine_threads_are_global() {
    for (open, close) in [("<Location \"/x\">", "</Location>"), ("<VirtualHost *:{port}>", "</VirtualHost>")] {
        let httpd = Httpd::new(Mpm::Event).config(format!("{open}\nWebSocketEngineThreads 2\n{close}"));
        let complaint = complaint_of(httpd, "WebSocketEngineThreads 2");
        assert!(complaint.contains("cannot occur within") || complaint.contains("not allowed"), "{complaint}");
    }
    for number in ["0", "-1", "many", "1000000"] {
        let line = format!("WebSocketEngineThreads {number}");
        complaint_of(Httpd::new(Mpm::Event).config(&line), &line);
    }
}
