//! The exec handler in an engine of two threads, with real programs and sockets.

use super::settings::{EnvironmentVariable, Framing, Shared};
use super::*;
use crate::engine::memory::Bound;
use crate::engine::quota::{Counts, Place};
use crate::engine::testing::{self, Client, PATIENCE, TestEngine, pair, websocket};
use crate::engine::{HandlerSpec, Limits, Quota, Registry};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use std::time::Instant;

struct ExecEngine {
    engine: TestEngine,
    groups: Arc<Groups>,
}

fn variables(pairs: &[(&str, &str)]) -> Vec<EnvironmentVariable> {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn settings(framing: Framing) -> ExecSettings {
    ExecSettings {
        framing,
        environment: variables(&[("PATH", "/usr/bin:/bin"), ("COLOUR", "blue")]),
        stop_timeout: Duration::from_millis(300),
        quotas: vec![],
        shared: None,
    }
}

fn spec(words: &[&str], settings: &ExecSettings) -> SessionSpec {
    let spec = testing::spec("exec");
    SessionSpec {
        handler: HandlerSpec {
            args: words.iter().map(|word| (*word).to_owned()).collect(),
            settings: postcard::to_stdvec(settings).unwrap(),
            ..spec.handler
        },
        protocol: Some("lines".into()),
        limits: Limits { send_buffer: 100_000, max_message_size: 1 << 20, ..spec.limits },
        ..spec
    }
}

impl ExecEngine {
    fn new() -> ExecEngine {
        let exec = Exec::default();
        let groups = exec.groups.clone();
        ExecEngine { engine: TestEngine::start(2, Registry::default().with("exec", exec), Bound::Off), groups }
    }

    fn accept(&self, spec: &SessionSpec) -> Result<(), Rejection> {
        self.engine.accept(spec).map(|_| ())
    }

    fn adopt(&self, spec: SessionSpec, places: Vec<Place>) -> Client {
        let accepted = self.engine.accept(&spec).unwrap();
        self.run(spec, accepted, places)
    }

    fn run(&self, spec: SessionSpec, accepted: Accepted, places: Vec<Place>) -> Client {
        let (ours, theirs) = pair();
        self.engine.run(theirs, spec, accepted, vec![], places);
        websocket(ours)
    }

    fn client(&self, framing: Framing, words: &[&str]) -> Client {
        self.adopt(spec(words, &settings(framing)), vec![])
    }

    fn shell(&self, framing: Framing, script: &str) -> Client {
        self.client(framing, &["/bin/sh", "-c", script])
    }

    fn is_empty(&self) -> bool {
        self.engine.connections() == 0 && self.groups.count() == 0
    }

    fn wait_until_empty(&self) {
        until("all is over", || self.is_empty());
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn send(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
}

#[track_caller]
fn expect(client: &mut Client, text: &str) {
    assert_eq!(client.read().unwrap(), Message::text(text));
}

/// The texts that come, and the Close frame after them.
fn rest(client: &mut Client) -> (Vec<String>, Option<CloseFrame>) {
    let mut texts = Vec::new();
    loop {
        match client.read().unwrap() {
            Message::Close(frame) => return (texts, frame),
            Message::Text(text) => texts.push(text.to_string()),
            _ => {}
        }
    }
}

/// The code of the Close frame that comes; the client is gone then.
fn code(mut client: Client) -> u16 {
    rest(&mut client).1.map_or(1005, |frame| frame.code.into())
}

/// Whether this process is there, and no zombie.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

#[test]
fn a_slow_client_gets_the_last_words() {
    let engine = ExecEngine::new();
    // More than the socket holds, and no more than waits for the client besides.
    let mut client = engine.shell(Framing::Lines, "head -c 270000 /dev/zero | tr '\\0' y");
    // Longer than the closing handshake may take, and the linger after it.
    std::thread::sleep(Duration::from_secs(3));
    let (texts, frame) = rest(&mut client);
    assert_eq!(texts.iter().map(String::len).collect::<Vec<_>>(), [270_000]);
    assert_eq!(frame.map(|frame| frame.code), Some(CloseCode::Normal));
    drop(client);
    engine.wait_until_empty();
}

#[test]
fn a_line_is_a_message_both_ways() {
    let engine = ExecEngine::new();
    let python =
        "import sys\nfor number, line in enumerate(sys.stdin, 1):\n  print(number, line.rstrip('\\n'), flush=True)";
    let shell = "n=0; while read -r line; do n=$((n+1)); printf '%s %s\\r\\n' $n \"$line\"; done";
    let perl = "$|=1; while (<>) { print \"$. $_\" }";
    for words in [["/usr/bin/python3", "-c", python], ["/bin/sh", "-c", shell], ["/usr/bin/perl", "-e", perl]] {
        let mut client = engine.client(Framing::Lines, &words);
        send(&mut client, "hello");
        expect(&mut client, "1 hello");
        client.send(Message::binary("héllo")).unwrap();
        expect(&mut client, "2 héllo");
        send(&mut client, "two\nlines");
        expect(&mut client, "3 two");
        expect(&mut client, "4 lines");
        client.close(None).unwrap();
        assert_eq!(code(client), 1005);
    }
    engine.wait_until_empty();
}

#[test]
fn chunks_are_bytes() {
    let engine = ExecEngine::new();
    let mut client = engine.client(Framing::Chunks, &["/bin/cat"]);
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    client.send(Message::binary(sent.clone())).unwrap();
    let mut received = Vec::new();
    while received.len() < sent.len() {
        match client.read().unwrap() {
            Message::Binary(chunk) => received.extend_from_slice(&chunk),
            other => panic!("{other:?}"),
        }
    }
    assert!(received == sent);
}

#[test]
fn records_keep_messages_whole() {
    let engine = ExecEngine::new();
    let mut client = engine.client(Framing::Length, &["/bin/cat"]);
    for message in [Message::text("two\nlines"), Message::text(""), Message::binary(vec![0; 200_000])] {
        client.send(message.clone()).unwrap();
        assert_eq!(client.read().unwrap(), message);
    }
    drop(client);
    let mut client = engine.shell(Framing::Length, "printf '\\0\\0\\0\\005\\010\\017\\240bye'; sleep 1000");
    assert_eq!(rest(&mut client).1, Some(close(CloseCode::Library(4000), "bye")));
    drop(client);
    let client = engine.shell(Framing::Length, "echo a line; sleep 1000");
    assert_eq!(code(client), 1011);
    // The program is told how the client has ended.
    let file = tempfile::NamedTempFile::new().unwrap();
    let copy = format!("cat > {}", file.path().display());
    let mut client = engine.shell(Framing::Length, &copy);
    send(&mut client, "hi");
    client.close(Some(close(CloseCode::Library(3000), "enough"))).unwrap();
    assert_eq!(code(client), 3000);
    until("written", || std::fs::read(file.path()).unwrap() == b"\0\0\0\x02\x01hi\0\0\0\x08\x08\x0b\xb8enough");
    engine.wait_until_empty();
}

#[test]
fn the_end_of_the_program_is_the_end_of_the_session() {
    let engine = ExecEngine::new();
    for (script, texts, expected) in [
        ("exit 0", vec![], 1000),
        ("echo one; printf last", vec!["one", "last"], 1000),
        ("printf last; exit 3", vec!["last"], 1011),
        ("kill -SEGV $$", vec![], 1011),
        // What it leaves behind is ended, and nobody waits for it.
        ("sleep 1000 & echo one", vec!["one"], 1000),
    ] {
        let (said, frame) = rest(&mut engine.shell(Framing::Lines, script));
        assert_eq!((said.iter().map(String::as_str).collect(), frame.map(|f| f.code.into())), (texts, Some(expected)));
    }
    // It was there before the 101.
    let [there, gone] = ["/bin/cat", "/nowhere/program"].map(|program| spec(&[program], &settings(Framing::Lines)));
    let accepted = engine.engine.accept(&there).unwrap();
    assert_eq!(code(engine.run(gone, accepted, vec![])), 1011);
    let client = engine.shell(Framing::Lines, "head -c 2000000 /dev/zero; sleep 1000");
    assert_eq!(code(client), 1011, "that is no line");
    // All of a long output, to a client that takes its time.
    let mut client = engine.client(Framing::Lines, &["/usr/bin/seq", "100000"]);
    let (numbers, frame) = rest(&mut client);
    assert_eq!(frame.map(|frame| frame.code), Some(CloseCode::Normal));
    assert!(numbers.len() == 100_000 && numbers[99_999] == "100000");
    drop(client);
    engine.wait_until_empty();
}

#[test]
fn the_end_of_the_client_is_the_end_of_the_group() {
    let engine = ExecEngine::new();
    for script in [
        "echo $$; exec cat",
        "sleep 1000 & echo $!; cat",
        "sleep 1000 & echo $!; wait",
        "trap '' TERM; echo $$; while :; do sleep 1; done",
        // What has heard SIGTERM has its time, even when the leader has not waited for it.
        "(trap 'sleep 0.1; exit' TERM; while :; do sleep 0.01; done) & echo $!; wait",
    ] {
        for vanishes in [false, true] {
            let mut client = engine.shell(Framing::Lines, script);
            let Message::Text(pid) = client.read().unwrap() else { panic!("no pid") };
            assert!(is_running(&pid));
            if vanishes {
                drop(client);
            } else {
                client.close(None).unwrap();
                let asked = Instant::now();
                assert_eq!(code(client), 1005);
                assert!(asked.elapsed() < Duration::from_millis(250), "the client has waited for the program");
            }
            until("ended", || !is_running(&pid));
            if script.contains("$$") {
                until("reaped", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
            }
        }
    }
    engine.wait_until_empty();
}

#[test]
fn who_leaves_the_group_holds_nobody_up() {
    let engine = ExecEngine::new();
    let mut client = engine.shell(Framing::Lines, "setsid sleep 3 & echo one");
    let start = Instant::now();
    assert_eq!(rest(&mut client).0, ["one"]);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn pipes_may_be_closed_early() {
    let engine = ExecEngine::new();
    let mut client = engine.shell(Framing::Lines, "exec >&-; read a; read b; [ \"$a$b\" = xy ]");
    send(&mut client, "x");
    send(&mut client, "y");
    assert_eq!(code(client), 1000);
    let mut client = engine.shell(Framing::Lines, "exec <&-; echo deaf; sleep 0.2; echo done");
    expect(&mut client, "deaf");
    for _ in 0..100 {
        client.send(Message::binary(vec![b'x'; 10_000])).unwrap();
    }
    expect(&mut client, "done");
    assert_eq!(code(client), 1000);
    engine.wait_until_empty();
}

#[test]
fn a_flood_waits_for_its_client() {
    let engine = ExecEngine::new();
    let script =
        "echo $$; i=0; while :; do i=$((i+1)); printf '%8191d\\n' $i >&2; printf '%8191d\\n' $i; done 2>/dev/null";
    let mut client = engine.shell(Framing::Lines, script);
    let Message::Text(pid) = client.read().unwrap() else { panic!("no pid") };
    // It sleeps, in a write.
    let sleeps = || {
        let at = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tS") && (at.contains("pipe") || at == "0")
    };
    let mut times = 0;
    until("blocked", || {
        times = if sleeps() { times + 1 } else { 0 };
        times == 50
    });
    for number in 1..1000 {
        let Message::Text(line) = client.read().unwrap() else { panic!("no line") };
        assert_eq!(line.trim_start(), number.to_string());
    }
    drop(client);
    engine.wait_until_empty();
    assert!(!is_running(&pid));
}

#[test]
fn who_does_not_read_pauses_its_client() {
    let engine = ExecEngine::new();
    let mut client = engine.shell(Framing::Lines, "echo ready; read go < /dev/null; sleep 1000");
    expect(&mut client, "ready");
    let socket = client.get_mut();
    socket.set_nonblocking(true).unwrap();
    let frame = [&[0x82, 0xfe, 0x7f, 0xff, 0, 0, 0, 0][..], &[7; 0x7fff]].concat();
    let (mut sent, mut refused) = (0, 0);
    // No more goes away for a while.
    while refused < 100 {
        match std::io::Write::write(socket, &frame[sent % frame.len()..]) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(_) => {
                refused += 1;
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
        assert!(sent < 4 << 20, "{sent} bytes were taken");
    }
    drop(client);
    engine.wait_until_empty();
}

#[test]
fn a_program_knows_what_it_is_told_and_no_more() {
    let engine = ExecEngine::new();
    let (mut variables, _) = rest(&mut engine.client(Framing::Lines, &["/usr/bin/env"]));
    variables.sort();
    let names: Vec<&str> = variables.iter().filter_map(|variable| Some(variable.split_once('=')?.0)).collect();
    assert_eq!(names, ["COLOUR", "PATH", "UNIQUE_ID", "WS_PROTOCOL", "WS_SESSION"]);
    assert!(variables.contains(&"COLOUR=blue".to_owned()) && variables.contains(&"WS_PROTOCOL=lines".to_owned()));
    // Whoever runs the tests may have left some open.
    let list = std::process::Command::new("/bin/ls").arg("/proc/self/fd").output().unwrap().stdout;
    let (descriptors, _) = rest(&mut engine.client(Framing::Lines, &["/bin/ls", "/proc/self/fd"]));
    assert_eq!(descriptors, String::from_utf8(list).unwrap().lines().collect::<Vec<_>>());
    let (folder, _) = rest(&mut engine.client(Framing::Lines, &["/bin/pwd"]));
    assert_eq!(folder, [std::fs::canonicalize("/bin").unwrap().display().to_string()]);
}

#[test]
fn the_program_holds_its_place() {
    let engine = ExecEngine::new();
    let counts = Arc::new(Counts::default());
    let quota = || vec![Quota { scope: "programs".into(), max: 1 }];
    let mut settings = settings(Framing::Lines);
    settings.quotas = vec!["programs".into()];
    let spec = spec(&["/bin/sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1; done"], &settings);
    let mut client = engine.adopt(spec, counts.take(quota()).unwrap());
    let Message::Text(pid) = client.read().unwrap() else { panic!("no pid") };
    client.close(None).unwrap();
    assert_eq!(code(client), 1005);
    until("over", || engine.engine.connections() == 0);
    assert!(is_running(&pid) && counts.take(quota()).is_err());
    until("the place is free", || counts.take(quota()).is_ok());
    assert!(!is_running(&pid));
}

#[test]
fn programs_end_with_the_engine() {
    let engine = ExecEngine::new();
    let mut pids = Vec::new();
    let mut clients: Vec<Client> =
        (0..3).map(|_| engine.shell(Framing::Lines, "trap '' TERM; echo $$; while :; do sleep 1; done")).collect();
    for client in &mut clients {
        let Message::Text(pid) = client.read().unwrap() else { panic!("no pid") };
        pids.push(pid);
    }
    drop(engine);
    until("all have ended", || pids.iter().all(|pid| !is_running(pid)));
}

#[test]
fn what_cannot_be_run_is_refused_before_the_upgrade() {
    let engine = ExecEngine::new();
    assert_eq!(engine.accept(&spec(&["/bin/cat"], &settings(Framing::Lines))), Ok(()));
    let refused = engine.accept(&spec(&["/nowhere/program"], &settings(Framing::Lines))).unwrap_err();
    let Rejection::Refused(Refused { status: 500, reason }) = refused else { panic!("{refused}") };
    assert!(reason.contains("/nowhere/program"), "{reason}");
}

/// Numbers its clients, and tells all of them.
const SHARED: &str = r#"
import json, os, struct, sys
def say(kind, client, payload):
    sys.stdout.buffer.write(struct.pack("!IBQ", len(payload), kind, client) + payload)
    sys.stdout.buffer.flush()
def read(count):
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        sys.exit()
    return data
names = {}
while True:
    length, kind, client = struct.unpack("!IBQ", read(13))
    payload = read(length)
    if kind == 3:
        names[client] = json.loads(payload)["COLOUR"]
        say(1, client, b"pid %d" % os.getpid())
    elif kind == 8:
        del names[client]
        say(1, 0, b"left: %d %s" % (struct.unpack("!H", payload[:2])[0], payload[2:]))
    elif payload == b"crash":
        os.abort()
    elif payload == b"leave me":
        say(8, client, struct.pack("!H", 4001) + b"as you like")
    elif payload == b"rubbish":
        say(7, client, b"")
    elif payload == b"flood":
        for number in range(300):
            say(2, client, bytes(10000))
            say(1, 0, b"%d" % number)
    else:
        say(kind, 0, names[client].encode() + b": " + payload)
"#;

fn shared(colour: &str, linger: Duration) -> SessionSpec {
    let place = "here".to_owned();
    let shared = Shared { place, environment: variables(&[("PATH", "/usr/bin:/bin")]), linger };
    let settings = ExecSettings {
        shared: Some(shared),
        environment: variables(&[("COLOUR", colour)]),
        ..settings(Framing::Lines)
    };
    spec(&["/usr/bin/python3", "-c", SHARED], &settings)
}

/// A client of the shared program, which has told it its pid.
fn joined(engine: &ExecEngine, colour: &str, linger: Duration) -> (Client, String) {
    let mut client = engine.adopt(shared(colour, linger), vec![]);
    loop {
        let Message::Text(text) = client.read().unwrap() else { panic!("no text") };
        if let Some(pid) = text.strip_prefix("pid ") {
            return (client, pid.to_owned());
        }
    }
}

#[test]
fn one_program_serves_many_clients() {
    let engine = ExecEngine::new();
    let (mut blue, pid) = joined(&engine, "blue", PATIENCE);
    let (mut red, same) = joined(&engine, "red", PATIENCE);
    assert_eq!(pid, same);
    send(&mut red, "hello");
    for client in [&mut blue, &mut red] {
        expect(client, "red: hello");
    }
    blue.send(Message::binary(vec![0, 255])).unwrap();
    for client in [&mut blue, &mut red] {
        assert_eq!(client.read().unwrap(), Message::binary(b"blue: \0\xff".to_vec()));
    }
    send(&mut red, "leave me");
    assert_eq!(rest(&mut red).1, Some(close(CloseCode::Library(4001), "as you like")));
    expect(&mut blue, "left: 4001 as you like");
    let (green, _) = joined(&engine, "green", PATIENCE);
    drop(green);
    expect(&mut blue, "left: 1006 ");
    // One that does not read is given up, and harms nobody.
    let (mut slow, _) = joined(&engine, "slow", PATIENCE);
    send(&mut slow, "flood");
    for number in 0..300 {
        expect(&mut blue, &number.to_string());
    }
    let (_, frame) = rest(&mut slow);
    assert_eq!(frame, Some(close(CloseCode::Again, "slow consumer")));
    expect(&mut blue, "left: 1013 slow consumer");
    assert!(is_running(&pid));
    drop((blue, slow));
}

#[test]
fn a_shared_program_ends_after_its_last_client() {
    let engine = ExecEngine::new();
    let linger = Duration::from_millis(200);
    let (client, first) = joined(&engine, "blue", linger);
    drop(client);
    until("the session is over", || engine.engine.connections() == 0);
    assert!(is_running(&first));
    let (client, same) = joined(&engine, "blue", linger);
    assert_eq!(first, same);
    drop(client);
    engine.wait_until_empty();
    assert!(!is_running(&first));
    let (client, other) = joined(&engine, "blue", linger);
    assert_ne!(first, other);
    drop(client);
    engine.wait_until_empty();
}

#[test]
fn a_shared_program_that_has_failed_is_started_again() {
    let engine = ExecEngine::new();
    let (blue, first) = joined(&engine, "blue", PATIENCE);
    let (mut red, _) = joined(&engine, "red", PATIENCE);
    send(&mut red, "crash");
    assert_eq!((code(blue), code(red)), (1012, 1012));
    // At once, and after a second failure with a pause.
    let spec = shared("blue", PATIENCE);
    until("no pause", || engine.accept(&spec).is_ok());
    let accepted = engine.engine.accept(&spec).unwrap();
    let (mut blue, second) = joined(&engine, "blue", PATIENCE);
    assert_ne!(first, second);
    send(&mut blue, "rubbish");
    assert_eq!(code(blue), 1011);
    let refused = engine.accept(&spec).unwrap_err();
    assert!(matches!(&refused, Rejection::Refused(Refused { status: 503, .. })), "{refused:?}");
    let early = engine.run(spec.clone(), accepted, vec![]);
    assert_eq!(code(early), 1013);
    until("the pause is over", || engine.accept(&spec).is_ok());
    let (client, third) = joined(&engine, "blue", PATIENCE);
    assert_ne!(second, third);
    drop(client);
}

#[test]
fn hundreds_at_once() {
    let engine = ExecEngine::new();
    let mut clients: Vec<Client> = (0..200).map(|_| engine.client(Framing::Lines, &["/bin/cat"])).collect();
    for client in &mut clients {
        send(client, "hello");
    }
    for client in &mut clients {
        expect(client, "hello");
    }
    drop(clients);
    engine.wait_until_empty();
}
