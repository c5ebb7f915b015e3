//! The engine's lines are in httpd's error log, also after that was rotated.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until};
use std::fs;

every_mpm!(the_engine_follows_a_rotation, the_engine_follows_the_log_level);

/// Has the engine say something: at debug it notes the end of each session.
fn session(server: &Server) {
    let mut client = Raw::open(server, "/echo");
    client.echo(&Frame::text("hello"));
    client.close();
}

#[track_caller]
fn wait_for_line(server: &Server, engine: Process, what: &str) {
    wait_until(what, PATIENCE, || !server.logged_by(engine).is_empty());
    for line in server.logged_by(engine) {
        assert!(line.contains("[websocket:") && line.contains("WS0"), "without its module or an id: {line}");
    }
}

fn the_engine_follows_a_rotation(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let engine = server.engine();
    session(&server);
    wait_for_line(&server, engine, "the engine's lines are in the log");
    for rotation in 1..=3 {
        server.move_log_away();
        // Until the restart everybody goes on with the old file.
        session(&server);
        assert!(!server.path("logs/error.log").exists());
        server.graceful();
        assert_eq!(server.engines(), [engine]);
        session(&server);
        wait_for_line(&server, engine, "the engine's lines are in the new log");
        let old = server.path(&format!("logs/error.log.{rotation}"));
        let holders = |process: &Process| process.descriptors().iter().any(|file| **file == *old.to_string_lossy());
        wait_until("nobody has the old log open", PATIENCE, || {
            !holders(&engine) && !holders(&server.parent()) && !server.children().iter().any(holders)
        });
    }
}

fn the_engine_follows_the_log_level(mpm: Mpm) {
    let server =
        Httpd::new(mpm).echo().file("conf/level.conf", "").config("Include \"{root}/conf/level.conf\"").start();
    let engine = server.engine();
    session(&server);
    wait_for_line(&server, engine, "the engine's lines are in the log");
    fs::write(server.path("conf/level.conf"), "LogLevel warn websocket:warn\n").expect("the new level");
    server.move_log_away();
    server.graceful();
    for _ in 0..10 {
        session(&server);
    }
    // Those ten have ended, and said nothing.
    wait_until("the sessions are over", PATIENCE, || engine.network_sockets().is_empty());
    assert_eq!(server.logged_by(engine), Vec::<String>::new());
    fs::write(server.path("conf/level.conf"), "LogLevel info websocket:debug\n").expect("the new level");
    server.graceful();
    session(&server);
    wait_for_line(&server, engine, "the engine talks again");
}
