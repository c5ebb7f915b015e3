//! `WebSocketLog`: a line for each socket that closes, in files and through programs, through restarts and the loss of
//! the engine.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until};
use rustix::process::Signal;
use std::{fs, slice};

every_mpm!(
    each_socket_leaves_its_line,
    a_program_reads_the_lines,
    the_log_is_rotated,
    a_new_engine_logs_on,
    a_stop_is_logged,
);

/// A log program: what it is told goes to the file `$1`.
const LOGGER: &str = "#!/bin/sh\nexec cat >>\"$1\"\n";

/// The lines of a session log without their time, and with S for the seconds; waits until there are so many.
#[track_caller]
fn lines(server: &Server, file: &str, count: usize) -> Vec<String> {
    let text = || fs::read_to_string(server.path(file)).unwrap_or_default();
    wait_until("the session log has its lines", PATIENCE, || text().lines().count() >= count);
    wait_until("its last line is whole", PATIENCE, || text().is_empty() || text().ends_with('\n'));
    let text = text();
    assert_eq!(text.lines().count(), count, "{text}");
    let log = server.error_log();
    text.lines().map(|line| with_ordinal(&log, &without_times(line))).collect()
}

/// The line with the how manieth session of its engine it is about, in the place of the session's number.
#[track_caller]
fn with_ordinal(log: &str, line: &str) -> String {
    let (rest, id) = line.rsplit_once(' ').expect("fields");
    let begins = format!("WS0102: session {id} begins");
    let of_engine =
        |line: &str| line.split_once("[pid ").and_then(|(_, rest)| Some(rest.split([':', ']']).next()?.to_owned()));
    let begun = log.lines().find(|line| line.contains(&begins)).expect("the session has begun");
    let of_its = |line: &&str| line.contains("WS0102: ") && of_engine(line) == of_engine(begun);
    let ordinal = log.lines().filter(of_its).position(|line| line == begun).expect("just found") + 1;
    format!("{rest} {ordinal}")
}

/// The number of the session that is the `ordinal`th one.
#[track_caller]
fn number(server: &Server, ordinal: usize) -> String {
    let log = server.error_log();
    let begun = log.lines().filter_map(|line| line.split_once("WS0102: session ")).nth(ordinal - 1);
    begun.and_then(|(_, rest)| Some(rest.split_once(' ')?.0.to_owned())).expect("so many sessions")
}

#[track_caller]
fn without_times(line: &str) -> String {
    let (time, rest) = line.split_once("] ").expect("a time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let month = time.get(4..7).unwrap_or_default();
    assert_eq!(shape.replacen(month, "Mon", 1).replace('-', "+"), "[99/Mon/9999:99:99:99 +9999", "{line}");
    let uri = rest.rfind('"').expect("a URI in quotes") + 1;
    let mut after: Vec<&str> = rest[uri..].split(' ').collect();
    assert_eq!(after.len(), 11, "{line}");
    let (seconds, milliseconds) = after[3].split_once('.').expect("seconds with a fraction");
    assert!(seconds.parse::<u64>().is_ok_and(|s| s < 60) && milliseconds.len() == 3, "{line}");
    after[3] = "S";
    format!("{}{}", &rest[..uri], after.join(" "))
}

/// A session with one message, and its line.
#[track_caller]
fn session(server: &Server, id: u64) -> String {
    let mut client = Raw::open(server, "/echo");
    client.echo(&Frame::text("hello"));
    client.close();
    line(id)
}

fn line(id: u64) -> String {
    format!("127.0.0.1 - 127.0.0.1 \"/echo\" echo - S 1 5 1 5 1000 client {id}")
}

/// Those of the processes that have the file open.
fn holders(server: &Server, file: &str) -> Vec<Process> {
    let path = server.path(file).to_string_lossy().into_owned();
    let everyone = [server.parent(), server.engine()].into_iter().chain(server.children());
    everyone.filter(|process| process.descriptors().contains(&path)).collect()
}

fn each_socket_leaves_its_line(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .login()
        .config(
            "WebSocketLog \"logs/main.log\"\nWebSocketHandler echo\nWebSocketMaxMessageSize 1000\n\
             <VirtualHost *:{port}>\n  ServerName one.example\n  WebSocketLog \"{root}/logs/one log\" query\n  \
             WebSocketProtocols chat\n  <Location \"/private\">\n    AuthType Basic\n    AuthName members\n    \
             AuthUserFile \"{root}/conf/users\"\n    Require valid-user\n  </Location>\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName two.example\n</VirtualHost>",
        )
        .start();
    let open = |path: &str, host: &str| Raw::open_with(&server, &Handshake::new(path).with("Host", host));

    let mut alice = Raw::open_with(
        &server,
        &Handshake::new("/private/x?say=\"a\\b\"&%20")
            .with("Host", "one.example")
            .header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")
            .header("Sec-WebSocket-Protocol", "other, chat"),
    );
    for size in [0, 5, 1000] {
        alice.echo(&Frame::binary(vec![7; size]));
    }
    // Neither a message, though it has a payload, nor two.
    alice.send(&Frame::ping("ping"));
    alice.expect(&Frame::pong("ping"));
    alice.send_all(&[Frame::text("frag").unfinished(), Frame::continuation("ments")]);
    alice.expect(&Frame::text("fragments"));
    alice.close();
    // Each line is awaited, since sessions on two threads may end in any order.
    lines(&server, "logs/one log", 1);
    // A client may call itself what it likes: the first virtual host has its name.
    let mut violating = open("/v", "nobody.example:1");
    violating.write(&Frame::text("no mask").unmasked());
    violating.expect_failure(1002);
    drop(violating);
    lines(&server, "logs/one log", 2);
    let mut too_large = open("/v", "one.example");
    too_large.send(&Frame::text("x".repeat(1001)));
    too_large.expect_failure(1009);
    drop(too_large);
    assert_eq!(
        lines(&server, "logs/one log", 3),
        [
            r#"127.0.0.1 alice one.example "/private/x?say=\"a\\b\"&%20" echo chat S 4 1014 4 1014 1000 client 1"#,
            r#"127.0.0.1 - one.example "/v" echo - S 0 0 0 0 1002 violation 2"#,
            r#"127.0.0.1 - one.example "/v" echo - S 0 0 0 0 1009 violation 3"#,
        ]
    );

    let mut codeless = open("/?token=secret", "two.example");
    codeless.send(&Frame::new(Frame::CLOSE, ""));
    codeless.expect(&Frame::new(Frame::CLOSE, ""));
    codeless.expect_end();
    drop(codeless);
    lines(&server, "logs/main.log", 1);
    let mut vanishing = open("/", "two.example");
    vanishing.echo(&Frame::text("hello"));
    vanishing.reset();
    assert_eq!(
        lines(&server, "logs/main.log", 2),
        [
            r#"127.0.0.1 - two.example "/" echo - S 0 0 0 0 1005 client 4"#,
            r#"127.0.0.1 - two.example "/" echo - S 1 5 1 5 1006 lost 5"#,
        ]
    );
    // A refused handshake is no session.
    assert_eq!(Raw::answer(&server, &Handshake::new("/private").with("Host", "one.example")).status, 401);
    lines(&server, "logs/one log", 3);

    // The error log shows the life of each under one name: what the child says, then what the engine says.
    let handed_over = || server.error_log().matches("WS0008").count() == 5;
    wait_until("the children have said so", PATIENCE, handed_over);
    let log = server.error_log();
    for id in (1..=5).map(|ordinal| number(&server, ordinal)) {
        let mut marks: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!(" session {id} ")))
            .map(|line| &line[line.find("WS0").expect("an id")..][..6])
            .collect();
        marks.sort_unstable();
        assert_eq!(marks, ["WS0008", "WS0102", "WS0103"], "session {id} in {log}");
    }
}

fn piped(mpm: Mpm) -> Server {
    let server = Httpd::new(mpm)
        .echo()
        .program("bin/logger", LOGGER)
        .config("WebSocketLog \"|{root}/bin/logger {root}/logs/piped.log\"")
        .start();
    // The program of the old configuration: httpd says so of those of CustomLog, too.
    server.tolerate_log("long lost child came home!");
    server
}

/// The log program of [`piped`].
fn logger(server: &Server) -> Process {
    let mut found = None;
    wait_until("there is one log program", PATIENCE, || {
        let path = server.path("logs/piped.log").to_string_lossy().into_owned();
        // httpd's children have it open nowhere.
        let all: Vec<Process> = server.children().into_iter().filter(|p| p.descriptors().contains(&path)).collect();
        found = all.first().copied().filter(|_| all.len() == 1);
        found.is_some()
    });
    found.expect("the program just found")
}

fn a_program_reads_the_lines(mpm: Mpm) {
    let server = piped(mpm);
    let engine = server.engine();
    let mut expected = vec![session(&server, 1)];
    assert_eq!(lines(&server, "logs/piped.log", 1), expected);

    // httpd starts it again when it ends.
    let first = logger(&server);
    server.tolerate_log("failed unexpectedly");
    first.signal(Signal::KILL);
    wait_until("the log program has ended", PATIENCE, || !first.is_running());
    expected.push(session(&server, 2));
    assert_eq!(lines(&server, "logs/piped.log", 2), expected);

    let mut lasting = Raw::open(&server, "/echo");
    lasting.echo(&Frame::text("hello"));
    let second = logger(&server);
    assert_ne!(second, first);
    let descriptors = engine.descriptors().len();
    for id in 4..8 {
        server.graceful();
        expected.push(session(&server, id));
        assert_eq!(lines(&server, "logs/piped.log", expected.len()), expected);
    }
    assert_ne!(logger(&server), second, "each configuration has its program");
    lasting.close();
    expected.push(line(3));
    assert_eq!(lines(&server, "logs/piped.log", expected.len()), expected);
    assert_eq!(server.engines(), [engine]);
    wait_until("no descriptor is left over", PATIENCE, || engine.descriptors().len() <= descriptors);
}

fn the_log_is_rotated(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .echo()
        .file("conf/log.conf", "WebSocketLog logs/ws.log\n")
        .config("Include \"{root}/conf/log.conf\"")
        .start();
    let engine = server.engine();
    let mut lasting = Raw::open(&server, "/echo");
    lasting.echo(&Frame::text("hello"));
    let first = session(&server, 2);
    assert_eq!(lines(&server, "logs/ws.log", 1), slice::from_ref(&first));
    fs::rename(server.path("logs/ws.log"), server.path("logs/ws.log.1")).expect("the rotated log");
    // Until the restart all goes on with the old file.
    let second = session(&server, 3);
    assert_eq!(lines(&server, "logs/ws.log.1", 2), [first.clone(), second.clone()]);
    server.graceful();
    let third = session(&server, 4);
    assert_eq!(lines(&server, "logs/ws.log", 1), slice::from_ref(&third));
    // Also of the socket that was opened before.
    lasting.close();
    assert_eq!(lines(&server, "logs/ws.log", 2), [third.clone(), line(1)]);
    assert_eq!(lines(&server, "logs/ws.log.1", 2), [first, second]);
    wait_until("nobody has the old log open", PATIENCE, || holders(&server, "logs/ws.log.1").is_empty());
    assert!(holders(&server, "logs/ws.log").contains(&engine));

    // Without a log in the configuration: sockets opened before it say so, new ones nothing.
    let before = Raw::open(&server, "/echo");
    fs::write(server.path("conf/log.conf"), "").expect("the configuration");
    server.graceful();
    before.close();
    wait_until("the line is missed", PATIENCE, || {
        let missed = format!("WS0107: session {}: its log logs/ws.log is no longer configured", number(&server, 5));
        server.error_log().contains(&missed)
    });
    session(&server, 6);
    assert_eq!(holders(&server, "logs/ws.log"), []);
    // And back.
    fs::write(server.path("conf/log.conf"), "WebSocketLog logs/ws.log\n").expect("the configuration");
    server.graceful();
    let last = session(&server, 7);
    assert_eq!(lines(&server, "logs/ws.log", 3), [third, line(1), last]);
    assert_eq!(server.engines(), [engine]);
    assert!(!server.error_log().contains(&format!("session {}: its log", number(&server, 6))));
}

fn a_new_engine_logs_on(mpm: Mpm) {
    let server = piped(mpm);
    session(&server, 1);
    lines(&server, "logs/piped.log", 1);
    for (round, lines_then) in [(0, 2), (1, 3)] {
        let engine = server.engine();
        server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
        engine.signal(Signal::KILL);
        wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
        session(&server, 1);
        assert_eq!(lines(&server, "logs/piped.log", lines_then).last(), Some(&line(1)), "round {round}");
        server.graceful();
    }
    session(&server, 2);
    assert_eq!(lines(&server, "logs/piped.log", 4).last(), Some(&line(2)));
}

fn a_stop_is_logged(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().config("WebSocketLog logs/ws.log").start();
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::open(&server, "/echo")).collect();
    for client in &mut clients {
        client.echo(&Frame::text("hello"));
    }
    server.begin_to_stop();
    for mut client in clients {
        assert_eq!(client.close_code(), Some(1012));
        client.send(&Frame::close(1012, ""));
        client.expect_end();
    }
    server.stop();
    let mut lines = lines(&server, "logs/ws.log", 20);
    lines.sort_by_key(|line| line.rsplit(' ').next().and_then(|id| id.parse::<u64>().ok()));
    let expected = |id| line(id).replace("1000 client", "1012 server");
    assert_eq!(lines, (1..=20).map(expected).collect::<Vec<_>>());
}

/// Of two virtual hosts with one log, one file is open; and one that names none has none.
#[test]
fn a_log_is_opened_once() {
    let server = Httpd::new(Mpm::Event)
        .config(
            "WebSocketHandler echo\n\
             <VirtualHost *:{port}>\n  ServerName one.example\n  WebSocketLog logs/ws.log\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName two.example\n  WebSocketLog logs/ws.log\n</VirtualHost>\n\
             <VirtualHost *:{port}>\n  ServerName three.example\n</VirtualHost>",
        )
        .start();
    for (number, host) in ["one.example", "two.example", "three.example", "one.example"].into_iter().enumerate() {
        Raw::open_with(&server, &Handshake::new("/").with("Host", host)).close();
        // One after the other: their order is looked at below.
        wait_until("the session has ended", PATIENCE, || server.error_log().matches("WS0103").count() > number);
    }
    let hosts: Vec<String> =
        lines(&server, "logs/ws.log", 3).iter().filter_map(|line| Some(line.split(' ').nth(2)?.to_owned())).collect();
    assert_eq!(hosts, ["one.example", "two.example", "one.example"]);
    let path = server.path("logs/ws.log").to_string_lossy().into_owned();
    assert_eq!(server.engine().descriptors().iter().filter(|descriptor| **descriptor == path).count(), 1);
}

/// What httpd says when it does not start, in its log and to the terminal.
#[track_caller]
fn failure(directive: &str) -> String {
    let httpd = Httpd::new(Mpm::Event).echo().config(directive);
    let (status, log) = httpd.run_to_end();
    assert!(!status.success(), "{directive}: {log}");
    log
}

#[test]
fn what_cannot_be_opened_keeps_httpd_from_starting() {
    let log = failure("WebSocketLog logs/missing/ws.log");
    assert!(log.contains("WS0214: WebSocketLog \"logs/missing/ws.log\": "), "{log}");
    assert!(log.contains("/logs/missing/ws.log cannot be opened: No such file"), "{log}");
    let log = failure("<VirtualHost *:{port}>\nServerName a\nWebSocketLog {root}/htdocs\n</VirtualHost>");
    assert!(log.contains("/htdocs\": ") && log.contains("/htdocs cannot be opened: Is a directory"), "{log}");
    let log = failure("WebSocketLog \"|{root}/missing/program with words\"");
    assert!(log.contains("/missing/program with words\": the program cannot be started"), "{log}");
}

#[test]
fn it_stands_in_a_server_or_a_virtual_host() {
    for (section, end) in [("<Location \"/x\">", "</Location>"), ("<Directory \"/x\">", "</Directory>")] {
        let httpd = Httpd::new(Mpm::Event).config(format!("{section}\nWebSocketLog logs/ws.log\n{end}"));
        let message = String::from_utf8_lossy(&httpd.check().stderr).into_owned();
        assert!(message.contains("WebSocketLog not allowed"), "{message}");
    }
    for directive in
        ["WebSocketLog", "WebSocketLog \"\"", "WebSocketLog |", "WebSocketLog |cat x", "WebSocketLog a query b"]
    {
        let output = Httpd::new(Mpm::Event).config(directive).check();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains("WebSocketLog: "), "{directive}: {message}");
    }
    let good = "WebSocketLog logs/missing/ws.log\n<VirtualHost *:{port}>\nWebSocketLog |x\n</VirtualHost>";
    let output = Httpd::new(Mpm::Event).config(good).check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
