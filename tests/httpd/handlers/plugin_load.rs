//! C plugins in the configuration: what is loaded, what is refused and how, and that the configurations of the module
//! before this one stay as they are.

use super::plugin::{journal, site};
use crate::harness::plugin::rules;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, wait_until};

/// What httpd says of a configuration that it must not take.
fn complaint(line: &str) -> String {
    let httpd = Httpd::new(Mpm::Event).config(format!("<Location \"/x\">\n{line}\n</Location>"));
    let output = httpd.check();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{line} was accepted: {message}");
    let place = format!("Syntax error on line {} of ", httpd.line_of(line));
    assert!(message.contains(&place) && message.contains("WebSocketHandler: "), "{line}: {message}");
    message
}

#[test]
fn what_cannot_be_loaded_is_told_with_its_reason() {
    let plugin = rules().display().to_string();
    let missing = complaint("WebSocketHandler modules/nosuch.so init");
    assert!(missing.contains("/modules/nosuch.so cannot be loaded: ") && missing.contains("No such file"), "{missing}");
    let no_object = complaint(&format!("WebSocketHandler \"{}\" init", "/etc/passwd"));
    assert!(no_object.contains("/etc/passwd cannot be loaded: "), "{no_object}");
    for (init, reason) in [
        ("nosuch_init", format!("{plugin} has no function nosuch_init: ")),
        ("null_init", format!("null_init of {plugin} has returned NULL")),
        ("future_init", format!("future_init of {plugin} has returned a plugin of version 3, and 0 is known here")),
        ("small_init", format!("small_init of {plugin} has returned a plugin of 32 bytes instead of 40")),
        ("deaf_init", format!("deaf_init of {plugin} has returned a plugin without on_message")),
    ] {
        let message = complaint(&format!("WebSocketHandler \"{plugin}\" {init}"));
        assert!(message.contains(&reason), "{init}: {message}");
    }
    assert!(complaint(&format!("WebSocketHandler \"{plugin}\"")).contains("init function"));
    assert!(complaint("WebSocketHandler plugin init").contains("there is no handler \"plugin\""));
    assert!(complaint("WebSocketHandler echo init").contains("takes no arguments"));
}

/// The configuration of the README of the module before this one, with the older name of a directive.
#[test]
fn an_existing_configuration_works_unchanged() {
    let httpd = Httpd::new(Mpm::Event);
    // A path that is relative to ServerRoot.
    std::fs::copy(rules(), httpd.root().join("conf/rules.so")).expect("a copy of the plugin");
    let server = httpd
        .config(
            "<IfModule mod_websocket.c>\n<Location /echo>\n  SetHandler websocket-handler\n  \
             WebSocketHandler conf/rules.so least_init\n</Location>\n\
             <Location /rules>\n  SetHandler websocket-handler\n  WebSocketHandler conf/rules.so rules_init\n  \
             MaxMessageSize 1000\n  WebSocketOriginCheck Off\n</Location>\n\
             <Location /rules/inner>\n  WebSocketMaxMessageSize 2000\n</Location>\n\
             <Location /forgotten>\n  SetHandler websocket-handler\n</Location>\n</IfModule>\n\
             <IfModule !mod_websocket.c>\n  Nonsense\n</IfModule>",
        )
        .start();
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::binary(vec![1; 100_000]));
    client.close();
    // Nested locations merge.
    for (path, limit) in [("/rules", 1000), ("/rules/inner", 2000)] {
        let mut client = Raw::open_with(&server, &Handshake::new(path).header("Origin", "http://elsewhere.example"));
        client.echo(&Frame::binary(vec![1; limit]));
        client.send(&Frame::binary(vec![1; limit + 1]));
        client.expect_failure(1009);
    }
    // Requests that are no handshake.
    assert_eq!(Raw::page(&server, "/echo").status, 404);
    server.expect_log("WS0022");
    assert_eq!(Raw::answer(&server, &Handshake::new("/echo").with("Upgrade", "h2c")).status, 404);
    // No plugin is assigned.
    server.expect_log("WS0012: SetHandler websocket-handler needs a WebSocketHandler");
    assert_eq!(Raw::answer(&server, &Handshake::new("/forgotten")).status, 500);
    assert_eq!(Raw::page(&server, "/forgotten").status, 404);
}

#[test]
fn no_code_is_loaded_because_of_an_htaccess() {
    let plugin = rules().display().to_string();
    let server = Httpd::new(Mpm::Event)
        .file("htdocs/evil/.htaccess", format!("WebSocketHandler \"{plugin}\" rules_init\n"))
        .file("htdocs/good/.htaccess", "WebSocketMaxMessageSize 10\n")
        .config(format!(
            "<Directory \"{{root}}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>\n\
             <Directory \"{{root}}/htdocs/good\">\n  WebSocketHandler \"{plugin}\" least_init\n</Directory>"
        ))
        .start();
    server.expect_log("is not loaded because of an .htaccess file: write this line into httpd's configuration");
    assert_eq!(Raw::answer(&server, &Handshake::new("/evil/x")).status, 500);
    assert_eq!(journal(&server), [""; 0]);
    // What says how a plugin of the configuration is run may stand in it.
    let mut client = Raw::open(&server, "/good/x");
    client.echo(&Frame::text("0123456789"));
    client.send(&Frame::text("0123456789a"));
    client.expect_failure(1009);
}

/// A shared object that is loaded as a module and as a plugin is one.
#[test]
fn a_module_may_be_a_plugin() {
    let plugin = rules().display().to_string();
    let server = Httpd::new(Mpm::Event)
        .config(format!(
            "LoadModule rules_module \"{plugin}\"\n<Location \"/x\">\n  WebSocketHandler \"{plugin}\" module_init\n</Location>"
        ))
        .start();
    let mut client = Raw::open(&server, "/x");
    client.echo(&Frame::text("hello"));
    client.close();
    server.graceful();
    let mut client = Raw::open(&server, "/x");
    client.echo(&Frame::text("hello again"));
    client.close();
}

/// init with each reading of the configuration, destroy when it goes.
#[test]
fn what_is_made_is_destroyed() {
    let server = site(Mpm::Event).start();
    let count = |word: &str| journal(&server).iter().filter(|line| line.starts_with(word)).count();
    // The trial before the real reading.
    assert_eq!((count("init"), count("destroy")), (2, 1));
    server.restart();
    assert_eq!(count("init"), 3);
    wait_until("the old one is destroyed", PATIENCE, || count("destroy") >= 2);
    assert_eq!(count("destroy of something else"), 0);
    Raw::open(&server, "/rules").close();
}

#[test]
fn with_a_quota() {
    let server = site(Mpm::Event).config("<Location \"/rules\">\n  WebSocketMaxConnections 1\n</Location>").start();
    let client = Raw::open(&server, "/rules");
    // The plugin had accepted it, and is told that it did not come.
    assert_eq!(Raw::answer(&server, &Handshake::new("/rules")).status, 503);
    wait_until("the plugin knows", PATIENCE, || journal(&server).iter().any(|line| line.starts_with("disconnect")));
    client.close();
    super::plugin::wait_for_the_last(&server, 2);
}
