//! Programs: in several languages, their environment and descriptors, their end and everybody else's.

use crate::harness::process::with_command;
use crate::harness::server::MARK;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Process, Raw, every_mpm, heavy, wait_until};
use rustix::process::Signal;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

every_mpm!(
    counters_in_three_languages,
    the_environment_is_that_of_cgi,
    over_tls_too,
    programs_outlive_graceful,
    stop_leaves_nothing,
    a_killed_engine_leaves_nothing,
    one_program_for_all,
);

const SHELL: &str = "#!/bin/sh\nn=0\nwhile read -r line; do n=$((n+1)); echo \"$n $line\"; done\n";
const PYTHON: &str = "#!/usr/bin/env python3\nimport sys\nfor number, line in enumerate(sys.stdin, 1):\n    \
                      print(number, line, end=\"\", flush=True)\n";
const PERL: &str = "#!/usr/bin/perl\n$| = 1;\nwhile (<>) { print \"$. $_\" }\n";
/// Says its pid and that of what it has started, and ends for nobody.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho \"$$ $!\"\nwhile :; do sleep 1; done\n";

/// An httpd whose programs can be told from all others, so that what is left of them is found when the server ends.
fn httpd(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .module("env")
        .config(format!("PassEnv {MARK}"))
        .program("bin/count.sh", SHELL)
        .program("bin/count.py", PYTHON)
        .program("bin/count.pl", PERL)
        .program("bin/stubborn", STUBBORN)
}

fn location(path: &str, lines: &str) -> String {
    format!("<Location \"{path}\">\n{lines}\n</Location>")
}

fn exec(path: &str, words: &str) -> String {
    location(path, &format!("WebSocketHandler exec {words}"))
}

fn text(client: &mut Raw) -> String {
    let frame = client.frame();
    assert_eq!(frame.opcode, Frame::TEXT, "{frame:?}");
    String::from_utf8(frame.payload).expect("UTF-8")
}

/// The texts up to the Close frame, and its code. The connection is at its end then.
fn texts(mut client: Raw) -> (Vec<String>, Option<u16>) {
    let mut texts = Vec::new();
    loop {
        let frame = client.frame();
        match frame.opcode {
            Frame::TEXT => texts.push(String::from_utf8(frame.payload).expect("UTF-8")),
            Frame::CLOSE => {
                let code = frame.close_code();
                client.send(&frame);
                client.expect_end();
                return (texts, code);
            }
            other => panic!("opcode {other}"),
        }
    }
}

fn count(client: &mut Raw, number: usize) {
    client.send(&Frame::text("hello"));
    client.expect(&Frame::text(format!("{number} hello")));
}

/// The pids that a program says.
fn pids(client: &mut Raw) -> Vec<Process> {
    let line = text(client);
    let pids = line.split(' ').map(|pid| pid.parse().expect("a pid"));
    pids.map(|pid| Process::with_pid(pid).expect("a process")).collect()
}

fn all_end(processes: &[Process]) {
    wait_until("the programs end", PATIENCE, || !processes.iter().any(|process| process.is_running()));
}

/// The engine's children, those included that have ended and were not reaped.
fn programs(engine: Process) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", engine.pid)).expect("the engine's threads").flatten();
    let children = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    children.map(|children| children.split_whitespace().count()).sum()
}

fn counters_in_three_languages(mpm: Mpm) {
    let server = httpd(mpm)
        .config(exec("/sh", "{root}/bin/count.sh"))
        .config(exec("/py", "{root}/bin/count.py"))
        .config(exec("/pl", "{root}/bin/count.pl"))
        .config(exec("/cat", "/bin/cat"))
        .start();
    for path in ["/sh", "/py", "/pl"] {
        let mut client = Raw::open(&server, path);
        for number in 1..10 {
            count(&mut client, number);
        }
        client.close();
    }
    let mut client = Raw::open(&server, "/cat");
    client.echo(&Frame::text("你好"));
    client.send(&Frame::binary("bytes"));
    client.expect(&Frame::text("bytes"));
    client.close();
    let engine = server.engine();
    wait_until("all are reaped", PATIENCE, || programs(engine) == 0);
}

fn variables(client: Raw) -> HashMap<String, String> {
    let (lines, code) = texts(client);
    assert_eq!(code, Some(1000));
    let pair = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.iter().filter_map(pair).collect()
}

const LOGIN: &str = "AuthType Basic\nAuthName private\nAuthUserFile \"{root}/conf/users\"\nRequire valid-user";

fn the_environment_is_that_of_cgi(mpm: Mpm) {
    let server = httpd(mpm)
        .login()
        .module("setenvif")
        .config(location(
            "/env",
            &format!(
                "{LOGIN}\nWebSocketHandler exec /usr/bin/env\nWebSocketProtocols chat\nSetEnv COLOUR \"light blue\""
            ),
        ))
        .config("SetEnvIf X-Test (.*) TEST=$1")
        .config(exec("/fd", "/bin/ls /proc/self/fd"))
        .config(exec("/status", "/bin/cat /proc/self/status"))
        .config(exec("/pwd", "{root}/bin/pwd"))
        .program("bin/pwd", "#!/bin/sh\npwd; umask\n")
        .start();
    let handshake = Handshake::new("/env/more/of%20it?a=b&c")
        .header("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")
        .header("X-Test", "tested")
        .header("Proxy", "http://evil.example")
        .header("Sec-WebSocket-Protocol", "chat");
    let variables = variables(Raw::open_with(&server, &handshake));
    let address = server.address();
    for (name, value) in [
        ("AUTH_TYPE", "Basic"),
        ("REMOTE_USER", "alice"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_HOST", "127.0.0.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", &address.port().to_string()),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/env"),
        ("PATH_INFO", "/more/of it"),
        ("PATH_TRANSLATED", &server.path("htdocs/more/of it").display().to_string()),
        ("QUERY_STRING", "a=b&c"),
        ("REQUEST_URI", "/env/more/of%20it?a=b&c"),
        ("SCRIPT_FILENAME", "/usr/bin/env"),
        ("HTTP_X_TEST", "tested"),
        ("HTTP_SEC_WEBSOCKET_PROTOCOL", "chat"),
        ("TEST", "tested"),
        ("COLOUR", "light blue"),
        ("WS_PROTOCOL", "chat"),
        (MARK, &server.root().display().to_string()),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name} in {variables:?}");
    }
    for name in ["REMOTE_PORT", "SERVER_SOFTWARE", "UNIQUE_ID", "PATH", "WS_SESSION"] {
        assert!(variables.get(name).is_some_and(|value| !value.is_empty()), "{name} in {variables:?}");
    }
    for name in ["HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTPS", "HOME"] {
        assert_eq!(variables.get(name), None, "{name}");
    }
    let session = format!("session {} begins: exec", variables["WS_SESSION"]);
    assert!(server.error_log().contains(&session), "{session}");

    // The fourth is ls's own. A graceful restart gives the engine other logs.
    for _ in 0..2 {
        assert_eq!(texts(Raw::open(&server, "/fd")).0, ["0", "1", "2", "3"]);
        server.graceful();
    }
    let status = texts(Raw::open(&server, "/status")).0;
    for name in ["SigIgn:\t", "SigBlk:\t"] {
        let mask = status.iter().find_map(|line| line.strip_prefix(name)).expect("a mask");
        // The numbers from 32 on are the C library's.
        assert_eq!(u64::from_str_radix(mask, 16).expect("a mask") & 0x7fff_ffff, 0, "{name} {mask}");
    }
    assert_eq!(texts(Raw::open(&server, "/pwd")).0[0], server.path("bin").display().to_string());
}

fn over_tls_too(mpm: Mpm) {
    let server = httpd(mpm)
        .tls()
        .config(exec("/sh", "{root}/bin/count.sh"))
        .config(exec("/env", "/usr/bin/env"))
        .config(exec("/stubborn", "{root}/bin/stubborn"))
        .config("WebSocketExecStopTimeout 1")
        .start();
    let mut client = Raw::open(&server, "/sh");
    count(&mut client, 1);
    let variables = variables(Raw::open(&server, "/env"));
    assert_eq!(variables["HTTPS"], "on");
    let mut stubborn = Raw::open(&server, "/stubborn");
    let pids = pids(&mut stubborn);
    stubborn.reset();
    all_end(&pids);
    client.close();
}

/// A client goes while its program takes nothing. What it has sent is in the way of its end, but a Ping finds out.
#[test]
fn who_has_gone_is_missed_where_the_program_takes_nothing() {
    let server = httpd(Mpm::Event)
        .config("WebSocketPing 1 1\nWebSocketExecStopTimeout 1")
        .config(exec("/deaf", "/bin/sleep 1000"))
        .start();
    let engine = server.engine();
    let mut client = Raw::open(&server, "/deaf");
    wait_until("the program runs", PATIENCE, || programs(engine) == 1);
    let frame = Frame::text("x".repeat(500_000)).masked();
    // Until nothing more is taken; the rest of it is still to come, as from a client whose own system has it.
    while client.write_some(&frame, Duration::from_millis(200)) == Some(frame.len()) {}
    drop(client);
    wait_until("it is missed", PATIENCE, || programs(engine) == 0);
}

fn programs_outlive_graceful(mpm: Mpm) {
    let server = httpd(mpm).config(exec("/sh", "{root}/bin/count.sh")).start();
    let mut client = Raw::open(&server, "/sh");
    for number in 1..4 {
        count(&mut client, number);
        server.graceful();
    }
    count(&mut client, 4);
    let mut other = Raw::open(&server, "/sh");
    count(&mut other, 1);
    let engine = server.engine();
    assert_eq!(programs(engine), 2);
    client.close();
    other.close();
    wait_until("all are reaped", PATIENCE, || programs(engine) == 0);
}

fn stop_leaves_nothing(mpm: Mpm) {
    let server = httpd(mpm)
        .config(exec("/stubborn", "{root}/bin/stubborn"))
        .config(exec("/session", "/usr/bin/setsid --wait {root}/bin/count.sh"))
        .config(exec("/patient", "{root}/bin/patient"))
        // It writes its file in the time that it is given.
        .program(
            "bin/patient",
            "#!/bin/sh\ntrap 'echo done > /dev/fd/2; exit' TERM\necho ready\nwhile :; do sleep 0.01; done\n",
        )
        .config("WebSocketExecStopTimeout 60")
        .start();
    let mut clients = Vec::new();
    let mut processes = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::open(&server, "/stubborn");
        processes.extend(pids(&mut client));
        clients.push(client);
    }
    let mut patient = Raw::open(&server, "/patient");
    assert_eq!(text(&mut patient), "ready");
    clients.push(patient);
    // It reads no more, and ends by that.
    let mut other = Raw::open(&server, "/session");
    count(&mut other, 1);
    clients.push(other);
    let start = Instant::now();
    server.expect_log("done");
    // What the shell says of its sleep(1).
    server.tolerate_log("Terminated");
    let closing = std::thread::spawn(move || {
        for client in &mut clients {
            let frame = client.frame();
            assert_eq!(frame.close_code(), Some(1012));
            client.send(&frame);
        }
    });
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!processes.iter().any(|process| process.is_running()));
    closing.join().expect("all were closed");
}

fn a_killed_engine_leaves_nothing(mpm: Mpm) {
    let server =
        httpd(mpm).config(exec("/stubborn", "{root}/bin/stubborn")).config(exec("/sh", "{root}/bin/count.sh")).start();
    let mut client = Raw::open(&server, "/stubborn");
    let pids = pids(&mut client);
    let engine = server.engine();
    server.expect_log("WS0201");
    engine.signal(Signal::KILL);
    client.expect_end();
    all_end(&pids);
    let mut client = Raw::open(&server, "/sh");
    count(&mut client, 1);
    client.close();
}

#[test]
fn programs_count_where_descriptors_are_short() {
    let server = httpd(Mpm::Event).config(exec("/cat", "/bin/cat")).start();
    // An engine gets the limit of httpd's parent when it starts.
    server.parent().limit_descriptors(200);
    server.expect_log("WS0201");
    server.tolerate_log("WS0117: full");
    server.tolerate_log("the engine has reached its limit of open files");
    server.engine().signal(Signal::KILL);
    let mut clients = Vec::new();
    let refused = loop {
        let mut client = Raw::connect(&server);
        let answer = client.ask(&Handshake::new("/cat"));
        if answer.status != 101 {
            break answer;
        }
        clients.push(client);
        assert!(clients.len() < 60, "more programs than there are descriptors for");
    };
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("5")));
    for client in &mut clients {
        client.echo(&Frame::text("hello"));
    }
    assert!(clients.len() > 10, "{} programs", clients.len());
}

#[test]
fn ends_and_their_codes() {
    let server = httpd(Mpm::Event)
        .config(exec("/done", "/bin/sh -c \"echo one; printf last\""))
        .config(exec("/failed", "/bin/sh -c \"echo complaint >&2; printf last; exit 3\""))
        .config(exec("/crashed", "/bin/sh -c \"kill -SEGV $$\""))
        .config(exec("/left", "/bin/sh -c \"sleep 1000 & echo $!\""))
        .config(exec("/closed", "/bin/sh -c \"echo one; exec >&-; read line; exit 0\""))
        .config(location("/length", "WebSocketHandler exec /bin/cat\nWebSocketExecFraming length"))
        .config(location("/chunks", "WebSocketHandler exec /bin/cat\nWebSocketExecFraming chunks"))
        .start();
    let end = |path| {
        let (texts, code) = texts(Raw::open(&server, path));
        (texts.join(","), code)
    };
    assert_eq!(end("/done"), ("one,last".to_owned(), Some(1000)));
    server.expect_log(": complaint");
    server.expect_log(": /bin/sh has failed: exit status: 3");
    assert_eq!(end("/failed"), ("last".to_owned(), Some(1011)));
    let line = |log: String| log.lines().find(|line| line.contains("WS0130")).map(str::to_owned);
    wait_until("the complaint is logged", PATIENCE, || line(server.error_log()).is_some());
    let line = line(server.error_log()).expect("just seen");
    assert!(
        line.contains("websocket:warn") && line.contains("WS0130: session ") && line.contains(": complaint"),
        "{line}"
    );
    server.expect_log(": /bin/sh has failed: signal: 11");
    assert_eq!(end("/crashed"), (String::new(), Some(1011)));
    let (pid, code) = end("/left");
    assert_eq!(code, Some(1000));
    wait_until("what it has left is gone", PATIENCE, || {
        Process::with_pid(pid.parse().expect("a pid")).is_none_or(|process| !process.is_running())
    });
    let mut client = Raw::open(&server, "/closed");
    client.expect(&Frame::text("one"));
    client.send(&Frame::text("go"));
    assert_eq!(texts(client), (vec![], Some(1000)));
    let mut client = Raw::open(&server, "/length");
    for frame in [Frame::text("two\nlines"), Frame::binary(vec![0; 100_000]), Frame::text("")] {
        client.echo(&frame);
    }
    client.close();
    let mut client = Raw::open(&server, "/chunks");
    client.send(&Frame::text("bytes"));
    client.expect(&Frame::binary("bytes"));
    client.close();
}

#[test]
fn a_flood_does_not_grow_the_engine() {
    let _turn = heavy();
    let flood = "WebSocketHandler exec /usr/bin/head -c 1073741824 /dev/zero\nWebSocketExecFraming chunks";
    let server = httpd(Mpm::Event).config(location("/flood", flood)).config(exec("/deaf", "/bin/sleep 1000")).start();
    let engine = server.engine();
    let before = engine.resident_kib();
    let mut clients: Vec<Raw> = (0..5).map(|_| Raw::open(&server, "/flood")).collect();
    let waiting = || {
        let children = engine.children();
        let sleeps = |process: &Process| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            status.contains("State:\tS")
        };
        children.len() == 5 && children.iter().all(sleeps)
    };
    let mut times = 0;
    wait_until("the programs wait", PATIENCE, || {
        times = if waiting() { times + 1 } else { 0 };
        times > 100
    });
    let grown = engine.resident_kib().saturating_sub(before);
    assert!(grown < 5 * 3 * 1024, "{grown} KiB");
    for client in &mut clients {
        let mut read = 0;
        while read < 16 << 20 {
            let frame = client.frame();
            assert!(frame.opcode == Frame::BINARY && frame.payload.iter().all(|byte| *byte == 0));
            read += frame.payload.len();
        }
    }
    let grown = engine.resident_kib().saturating_sub(before);
    assert!(grown < 5 * 3 * 1024, "{grown} KiB");
    drop(clients);
    wait_until("the programs are gone", PATIENCE, || programs(engine) == 0);
    // The other way round.
    let mut deaf = Raw::open(&server, "/deaf");
    let frame = Frame::binary(vec![0; 60_000]).masked();
    let mut sent = 0;
    loop {
        match deaf.write_some(&frame[sent % frame.len()..], Duration::from_millis(500)) {
            Some(0) => break,
            count => sent += count.expect("an open connection"),
        }
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
    let grown = engine.resident_kib().saturating_sub(before);
    assert!(grown < 5 * 3 * 1024, "{grown} KiB");
    deaf.reset();
    wait_until("the program is gone", PATIENCE, || programs(engine) == 0);
}

#[test]
fn five_hundred_at_once() {
    let _turn = heavy();
    let server =
        httpd(Mpm::Event).config("WebSocketExecMaxPerClient Off").config(exec("/sh", "{root}/bin/count.sh")).start();
    let engine = server.engine();
    // Pipes, and what watches processes. The links of httpd's children are sockets.
    let descriptors = || {
        let of_programs = |target: &String| target.starts_with("pipe:") || target.contains("pidfd");
        engine.descriptors().iter().filter(|target| of_programs(target)).count()
    };
    // An engine that has run one has let go of all that it was started with.
    Raw::open(&server, "/sh").close();
    wait_until("its program is gone", PATIENCE, || programs(engine) == 0);
    let before = descriptors();
    for _ in 0..2 {
        let mut clients: Vec<Raw> = (0..500).map(|_| Raw::open(&server, "/sh")).collect();
        for client in &mut clients {
            client.send(&Frame::text("hello"));
        }
        for client in &mut clients {
            client.expect(&Frame::text("1 hello"));
        }
        assert_eq!(programs(engine), 500);
        assert_eq!(descriptors(), before + 4 * 500);
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 == 0 { client.close() } else { client.reset() }
        }
        wait_until("all are reaped", PATIENCE, || programs(engine) == 0);
        wait_until("no descriptor is left", PATIENCE, || descriptors() == before);
    }
}

#[test]
fn so_many_programs_and_no_more() {
    let server = httpd(Mpm::Event)
        .config(location(
            "/stubborn",
            "WebSocketHandler exec {root}/bin/stubborn\nWebSocketExecMax 2\nWebSocketExecMaxPerClient Off\n\
             WebSocketExecStopTimeout 1",
        ))
        .start();
    let refused = || {
        let response = Raw::answer(&server, &Handshake::new("/stubborn"));
        assert!(response.status == 503 && response.header("Retry-After") == Some("5"), "{response:?}");
    };
    let mut clients = [Raw::open(&server, "/stubborn"), Raw::open(&server, "/stubborn")];
    let pids: Vec<Process> = clients.iter_mut().flat_map(pids).collect();
    refused();
    let log = server.error_log();
    let line = log.lines().rfind(|line| line.contains("WebSocketExecMax of the server in /stubborn: 2"));
    assert!(line.is_some_and(|line| line.contains("websocket:info")), "{line:?}");
    // Without their clients they are still there.
    for client in clients {
        client.close();
    }
    refused();
    all_end(&pids);
    wait_until("there is room again", PATIENCE, || Raw::answer(&server, &Handshake::new("/stubborn")).status == 101);
}

#[test]
fn what_cannot_run_is_told_at_once() {
    for (words, why) in [
        ("/nowhere/program", "exec cannot run /nowhere/program: No such file or directory"),
        ("{root}/htdocs/index.html", "index.html: it is not executable"),
        ("cat", "expected the absolute path of a program"),
        ("", "expected a program and its arguments"),
    ] {
        let output = httpd(Mpm::Event).config(exec("/x", words)).check();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("WebSocketHandler") && said.contains(why), "{said}");
    }
    let server = httpd(Mpm::Event)
        .file("htdocs/inside/.htaccess", "WebSocketHandler exec /bin/cat\n")
        .file("htdocs/limit/.htaccess", "WebSocketExecMax Off\n")
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>")
        .config(exec("/gone", "{root}/bin/count.sh"))
        .start();
    server.expect_log("exec runs a program, which no .htaccess file may do");
    assert_eq!(Raw::answer(&server, &Handshake::new("/inside/x")).status, 500);
    server.expect_log("WebSocketExecMax not allowed here");
    assert_eq!(Raw::answer(&server, &Handshake::new("/limit/x")).status, 500);
    fs::remove_file(server.path("bin/count.sh")).expect("the program");
    server.expect_log("bin/count.sh cannot be run: No such file or directory");
    assert_eq!(Raw::answer(&server, &Handshake::new("/gone")).status, 500);
    fs::write(server.path("bin/count.sh"), "#!/nowhere/interpreter\n").expect("another");
    fs::set_permissions(server.path("bin/count.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    server
        .expect_log("bin/count.sh cannot be run: its interpreter \"/nowhere/interpreter\" cannot be run: No such file");
    assert_eq!(Raw::answer(&server, &Handshake::new("/gone")).status, 500);
}

#[test]
fn what_is_executable_and_no_program_is_refused() {
    let mut httpd = httpd(Mpm::Event);
    // An ELF header of a machine that nobody has here.
    let foreign = "\x7fELF\u{2}\u{1}\u{1}\0\0\0\0\0\0\0\0\0\u{2}\0\u{7f}\u{7f}";
    let files = [
        ("text", "hello\n", "it is neither a program nor a script that begins with #!"),
        ("empty", "", "it is empty"),
        ("windows", "#!/bin/sh\r\nexit\r\n", "its interpreter \"/bin/sh"),
        ("folder", "#!/tmp\n", "its interpreter \"/tmp\" cannot be run: it is not a file"),
        ("foreign", foreign, "it is a program for another machine"),
    ];
    for (name, content, _) in &files {
        let program = format!("{{root}}/bin/{name}");
        httpd = httpd.program(&format!("bin/{name}"), content).config(exec(&format!("/{name}"), &program)).config(
            location(&format!("/shared/{name}"), &format!("WebSocketHandler exec {program}\nWebSocketExecShared On")),
        );
    }
    let server = httpd.start();
    for (name, _, why) in &files {
        server.expect_log(&format!("bin/{name} cannot be run: {why}"));
        for path in [format!("/{name}"), format!("/shared/{name}")] {
            assert_eq!(Raw::answer(&server, &Handshake::new(&path)).status, 500, "{path}");
        }
    }
}

#[test]
fn one_client_has_a_quarter_of_the_programs() {
    let server = httpd(Mpm::Event)
        .module("remoteip")
        .config("RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\nWebSocketExecMax 5")
        .config(exec("/cat", "/bin/cat"))
        .config(location("/three", "WebSocketHandler exec /bin/cat\nWebSocketExecMaxPerClient 3"))
        .start();
    let ask = |path: &str, address: &str| {
        let mut client = Raw::connect(&server);
        let answer = client.ask(&Handshake::new(path).header("X-Forwarded-For", address));
        (answer.status == 101).then_some(client).ok_or((answer.status, answer.header("Retry-After") == Some("5")))
    };
    let refused = Err((503, true));
    let mut clients: Vec<Raw> = (0..2).map(|_| ask("/cat", "192.0.2.1").expect("a program")).collect();
    assert_eq!(ask("/cat", "192.0.2.1").map(drop), refused);
    let log = server.error_log();
    assert!(log.contains("WebSocketExecMaxPerClient of the server for 192.0.2.1: 2 are open"), "{log}");
    // Others have theirs, until there are as many as there may be.
    clients.extend((0..2).map(|_| ask("/cat", "192.0.2.2").expect("a program")));
    clients.push(ask("/three", "192.0.2.3").expect("a program"));
    assert_eq!(ask("/three", "192.0.2.3").map(drop), refused);
    assert!(server.error_log().contains("WebSocketExecMax of the server: 5 are open"));
    clients.iter_mut().for_each(|client| client.echo(&Frame::text("hello")));
    clients.drain(..).for_each(Raw::close);
    wait_until("there is room again", PATIENCE, || {
        ask("/three", "192.0.2.3").map(|client| clients.push(client)).is_ok()
    });
    let mut more = || ask("/three", "192.0.2.3").map(|client| clients.push(client));
    wait_until("all have gone", PATIENCE, || more().is_err());
    clients.into_iter().for_each(Raw::close);
}

/// What one says, all hear.
const ROOM: &str = r#"#!/usr/bin/env python3
import json, os, struct, sys
def say(client, text):
    text = text.encode()
    sys.stdout.buffer.write(struct.pack("!IBQ", len(text), 1, client) + text)
    sys.stdout.buffer.flush()
while head := sys.stdin.buffer.read(13):
    length, kind, client = struct.unpack("!IBQ", head)
    payload = sys.stdin.buffer.read(length).decode(errors="replace")
    if kind == 3:
        environment = json.loads(payload)
        say(client, f"{os.getpid()} {environment['QUERY_STRING']} {environment['WS_SESSION'] == str(client)} "
                    f"{os.environ['COLOUR']} {'QUERY_STRING' in os.environ}")
    elif kind == 1 and payload == "crash":
        os.abort()
    elif kind == 1:
        say(0, payload)
"#;

fn one_program_for_all(mpm: Mpm) {
    let server = httpd(mpm)
        .program("bin/room", ROOM)
        .config("SetEnv COLOUR blue\nWebSocketExecStopTimeout 1")
        .config(location("/room", "WebSocketHandler exec {root}/bin/room\nWebSocketExecShared 1"))
        .config(location("/other", "WebSocketHandler exec {root}/bin/room\nWebSocketExecShared On"))
        .start();
    let join = |path: &str| {
        let mut client = Raw::open(&server, path);
        let greeting = text(&mut client);
        let (pid, rest) = greeting.split_once(' ').expect("two words");
        assert_eq!(rest, "a=b True blue False");
        (client, Process::with_pid(pid.parse().expect("a pid")).expect("a process"))
    };
    let (mut first, program) = join("/room?a=b");
    let (mut second, same) = join("/room?a=b");
    let (elsewhere, other) = join("/other?a=b");
    assert!(program == same && program != other);
    server.graceful();
    let (mut third, same) = join("/room?a=b");
    assert_eq!(program, same);
    third.send(&Frame::text("hello"));
    for client in [&mut first, &mut second, &mut third] {
        client.expect(&Frame::text("hello"));
    }
    server.expect_log("WS0134");
    second.send(&Frame::text("crash"));
    for client in [first, second, third] {
        assert_eq!(texts(client), (vec![], Some(1012)));
    }
    let (client, another) = join("/room?a=b");
    assert_ne!(program, another);
    client.close();
    all_end(&[another]);
    assert!(other.is_running());
    drop(elsewhere);
}

#[test]
fn nothing_runs_without_a_client() {
    let server = httpd(Mpm::Event).config(exec("/x", "{root}/bin/count.sh")).start();
    assert_eq!(Raw::page(&server, "/x").status, 404);
    server.expect_log("WS0021: The Origin \"http://other.example\"");
    assert_eq!(Raw::answer(&server, &Handshake::new("/x").header("Origin", "http://other.example")).status, 403);
    server.expect_log("WS0021");
    let mut client = Raw::connect(&server);
    client.write(&Handshake::new("/x").bytes(&client.host()));
    client.reset();
    let program = server.path("bin/count.sh").display().to_string();
    wait_until("nothing runs", PATIENCE, || with_command(&program).is_empty());
}
