//! The harness tested, mostly on an httpd without the module: what it promises to notice, it notices.

use crate::harness::{Frame, Httpd, Mpm, Raw, Server, every_mpm, server, wait_until};
use rustix::process::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

every_mpm!(serves_restarts_and_stops);

fn serves_restarts_and_stops(mpm: Mpm) {
    let server = Httpd::new(mpm).without_module().start();
    assert_eq!(Raw::page(&server, "/index.html").text(), "<p>A page of the site.</p>\n");
    let before = server.children();
    server.graceful();
    server.restart();
    assert!(server.children().iter().all(|child| !before.contains(child)));
    assert_eq!(Raw::page(&server, "/nothing").status, 404);
    assert_eq!(server.engines(), []);
}

/// The message `body` fails with once its server has been checked.
fn failure(body: impl FnOnce(&Server)) -> String {
    let httpd = Httpd::new(Mpm::Event).without_module().cgi().program("cgi-bin/bad", "#!/bin/sh\necho rubbish\n");
    failure_of(httpd, body)
}

fn failure_of(httpd: Httpd, body: impl FnOnce(&Server)) -> String {
    let server = httpd.start();
    let result = catch_unwind(AssertUnwindSafe(|| {
        body(&server);
        drop(server);
    }));
    result.expect_err("a failure").downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn a_socket_the_engine_keeps_fails_the_test() {
    let mut client = None;
    let message = failure_of(Httpd::new(Mpm::Event).echo(), |server| {
        // For the engine a client that is still there looks like one it failed to notice the end of.
        let mut open = Raw::open(server, "/echo");
        open.echo(&Frame::text("hello"));
        client = Some(open);
        server.allow_to_linger(Duration::from_millis(500));
    });
    assert!(message.contains("the engine keeps"), "{message}");
}

#[test]
fn an_unannounced_error_fails_the_test() {
    let message = failure(|server| assert_eq!(Raw::page(server, "/cgi-bin/bad").status, 500));
    assert!(message.contains("unexpected in the error log"), "{message}");
}

#[test]
fn an_announced_error_that_does_not_come_fails_the_test() {
    let message = failure(|server| server.expect_log("WS9999"));
    assert!(message.contains("missing in the error log: a line with \"WS9999\""), "{message}");
}

#[test]
fn a_crashed_child_fails_the_test() {
    let message = failure(|server| {
        let child = server.children()[0];
        child.signal(Signal::SEGV);
        wait_until("the child has crashed", Duration::from_secs(20), || server.error_log().contains("exit signal"));
        server.tolerate_log("AH01244");
    });
    assert!(message.contains("a process of httpd crashed"), "{message}");
}

#[test]
fn a_process_left_behind_fails_the_test() {
    let mut stubborn = None;
    let message = failure(|server| {
        let process = Command::new("sleep").arg("60").env(server::MARK, server.root()).stdout(Stdio::null()).spawn();
        stubborn = Some(process.expect("a process"));
        server.allow_to_linger(Duration::from_millis(50));
    });
    assert!(message.contains("left behind"), "{message}");
    // The harness has ended it, by its pid.
    assert!(!stubborn.expect("a process").wait().expect("its end").success());
}
