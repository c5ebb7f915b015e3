//! The engine process, but for the process: the ways to it, from both ends.

use super::*;

/// An engine process, but for the process.
pub(super) struct Process {
    pub(super) entrance: OwnedFd,
    parent: OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub(super) fn start() -> Process {
        Process::start_with(vec![], PATIENCE)
    }

    fn start_with(session_logs: Vec<NamedLog>, grant_time: Duration) -> Process {
        let (entrance, inside) = entrance::pair().unwrap();
        let (ours, theirs) = control::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let configure = Box::new(|configuration: &control::Configuration, log: Option<OwnedFd>| {
                assert_eq!((configuration.log_level, log.is_some()), (7, configuration.with_log));
            });
            let setup = Setup {
                metrics: EngineArea::private(2),
                entrance: inside,
                control: theirs,
                parent: None,
                signals: Signals::private(),
                grant_time,
                threads: 1,
                handlers: registry(),
                configure,
                settings: vec![],
                stop_code: 1012,
                memory: Bound::Off,
                trim: || (),
                session_logs,
            };
            run(setup).unwrap();
        });
        Process { entrance, parent: ours, thread: Some(thread) }
    }

    fn control(&self) -> ControlLink {
        self.parent.try_clone().unwrap().into()
    }

    pub(super) fn child(&self) -> EngineClient {
        EngineClient::new(self.entrance.try_clone().unwrap())
    }

    fn ended(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    pub(super) fn retire(&mut self) {
        self.control().retire().unwrap();
        self.ended();
    }
}

#[test]
fn a_socket_is_handed_over() {
    let mut engine = Process::start();
    let child = engine.child();
    for _ in 0..3 {
        let (mut link, Granted { id, .. }) = child.offer(&spec("echo")).unwrap();
        let (ours, theirs) = pair();
        link.give(id, vec![], theirs.as_fd(), None, None).unwrap();
        drop(theirs);
        child.check_in(link);
        let mut client = websocket(ours);
        echoes(&mut client, "hello");
        client.close(None).unwrap();
        assert_eq!(closed(&mut client), None);
    }
    drop(child);
    engine.retire();
}

#[test]
fn offers_are_refused_before_the_upgrade() {
    let mut engine = Process::start();
    let child = engine.child();
    match child.offer(&spec("nobody")) {
        Err(HandoffError::Refused { status: 500, reason, by_quota: false }) => assert!(reason.contains("nobody")),
        other => panic!("{other:?}"),
    }
    let (mut link, Granted { id, .. }) = child.offer(&spec("echo")).unwrap();
    link.abandon(id).unwrap();
    assert_ne!(link.offer(&spec("echo")).unwrap().id, id);
    // With the link its session is given back, for which the engine would wait a minute.
    drop(link);
    engine.retire();
    assert!(matches!(child.offer(&spec("echo")), Err(HandoffError::Unreachable(_))));
}

impl Process {
    fn session(&self, child: &EngineClient, spec: &SessionSpec) -> (u64, Client) {
        let (mut link, Granted { id, .. }) = child.offer(spec).unwrap();
        let (ours, theirs) = pair();
        link.give(id, vec![], theirs.as_fd(), None, None).unwrap();
        child.check_in(link);
        (id, websocket(ours))
    }
}

#[test]
fn a_session_is_closed_from_outside() {
    let mut engine = Process::start();
    let child = engine.child();
    for (code, sent) in [(1001, CloseCode::Away), (4000, CloseCode::Library(4000)), (1006, CloseCode::Away)] {
        let (id, mut client) = engine.session(&child, &spec("echo"));
        echoes(&mut client, "hello");
        let mut link = Link::open(engine.entrance.as_fd()).unwrap();
        link.close_session(id + 1, 1001, "nobody").unwrap();
        link.close_session(id, code, "the relay is ending").unwrap();
        assert_eq!(closed(&mut client), Some(close(sent, "the relay is ending")));
    }
    drop(child);
    engine.retire();
}

#[test]
fn quotas_are_kept_and_given_back() {
    let mut engine = Process::start();
    let child = engine.child();
    let limited = |handler: &str| {
        let quota = |scope: &str, max| Quota { scope: scope.into(), max };
        SessionSpec { quotas: vec![quota("one client's", 1), quota("all", 10)], ..impatient(handler) }
    };
    let refused = || match child.offer(&limited("echo")) {
        Err(HandoffError::Refused { status: 503, reason, by_quota: true }) => {
            assert!(reason.contains("one client's: 1"))
        }
        other => panic!("{other:?}"),
    };
    let admitted = |handler: &str| {
        let start = Instant::now();
        loop {
            match child.offer(&limited(handler)) {
                Ok(granted) => return granted,
                Err(why) => assert!(start.elapsed() < PATIENCE, "{why}"),
            }
            std::thread::yield_now();
        }
    };
    let session = |handler: &str| {
        let (mut link, Granted { id, .. }) = admitted(handler);
        let (ours, theirs) = pair();
        link.give(id, vec![], theirs.as_fd(), None, None).unwrap();
        child.check_in(link);
        websocket(ours)
    };
    // A place is taken from the grant on, and free again when the session is given back or its link ends.
    let (mut link, Granted { id, .. }) = admitted("echo");
    refused();
    link.abandon(id).unwrap();
    let lost = admitted("echo");
    refused();
    drop((link, lost));
    // Whichever way a session ends.
    let mut closes = session("echo");
    echoes(&mut closes, "hello");
    refused();
    closes.close(None).unwrap();
    closed(&mut closes);
    let mut vanishes = session("echo");
    echoes(&mut vanishes, "hello");
    refused();
    drop(vanishes);
    let mut panics = session("panics");
    refused();
    panics.send(Message::text("go")).unwrap();
    assert_eq!(closed(&mut panics).map(|f| f.code), Some(CloseCode::Error));
    let mut violates = session("echo");
    violates.get_mut().write_all(&[0xff; 2]).unwrap();
    let unanswered = session("flood");
    refused();
    let mut last = session("once");
    refused();
    last.send(Message::text("one")).unwrap();
    drop((violates, unanswered, closes, panics));
    drop(session("echo"));
    drop((last, child));
    engine.retire();
}

#[test]
fn a_new_configuration_and_its_log_arrive() {
    let mut engine = Process::start();
    let (log, _) = pair();
    assert_eq!(engine.control().configure(7, Some(log.as_fd()), &[], vec![], 1012, Bound::Off).unwrap(), version());
    assert_eq!(engine.control().configure(7, None, &[], vec![], 1012, Bound::Off).unwrap(), version());
    engine.retire();
}

/// A session that has ended, with this log.
fn logged_session(child: &EngineClient, name: &str) -> String {
    let (mut link, Granted { id, .. }) = child.offer(&logged(name)).unwrap();
    let (ours, theirs) = pair();
    link.give(id, vec![], theirs.as_fd(), None, None).unwrap();
    drop(theirs);
    child.check_in(link);
    let mut client = websocket(ours);
    echoes(&mut client, "hello");
    echoes(&mut client, "");
    client.close(Some(close(CloseCode::Normal, ""))).unwrap();
    closed(&mut client);
    format!(" 192.0.2.1 - www.example.com \"/\" echo - 0.000 2 5 2 5 1000 client {id}")
}

fn logged(name: &str) -> SessionSpec {
    SessionSpec {
        log: Some(Box::new(LogSpec { query: false, name: name.into(), host: "www.example.com".into() })),
        ..spec("echo")
    }
}

/// Reads a line of a session log, and puts zeros where the seconds are.
fn read_line(log: &mut impl BufRead) -> String {
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let (_, fields) = line.split_once(']').expect("the time");
    let seconds = fields.split(' ').nth(7).unwrap();
    assert!(seconds.split_once('.').is_some_and(|(_, fraction)| fraction.len() == 3), "{line}");
    fields.trim_end().replacen(seconds, "0.000", 1)
}

#[test]
fn session_logs_come_with_the_start_and_with_each_configuration() {
    let log = || UnixStream::pair().unwrap();
    let ((a, a_write), (b, b_write)) = (log(), log());
    let mut engine = Process::start_with(vec![("a".into(), a_write.into()), ("b".into(), b_write.into())], PATIENCE);
    let child = engine.child();
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    let first = logged_session(&child, "a");
    assert_eq!(read_line(&mut a), first);
    let second = logged_session(&child, "b");
    assert_eq!(read_line(&mut b), second);

    // One is open while the configuration changes.
    let (mut link, Granted { id, .. }) = child.offer(&logged("a")).unwrap();
    let (ours, theirs) = pair();
    link.give(id, vec![], theirs.as_fd(), None, None).unwrap();
    drop(theirs);
    let mut client = websocket(ours);
    echoes(&mut client, "old");
    // More than one SCM_RIGHTS message carries on Linux.
    let mut logs: Vec<NamedLog> = (0..300).map(|n| (format!("log {n}"), log().0.into())).collect();
    let (new, write) = log();
    logs.push(("a".into(), write.into()));
    assert_eq!(engine.control().configure(7, None, &logs, vec![], 1012, Bound::Off).unwrap(), version());
    drop(logs);
    let mut new = BufReader::new(new);
    drop(client);
    let line = read_line(&mut new);
    assert!(line.ends_with(&format!(" 1 3 1 3 1006 lost {id}")), "{line}");
    let third = logged_session(&child, "a");
    assert_eq!(read_line(&mut new), third);
    // No such log any more: no line, and nothing else either.
    logged_session(&child, "b");
    drop((link, child));
    engine.retire();
    for mut log in [a, b, new] {
        assert_eq!(log.read(&mut [0]).unwrap(), 0, "nothing more");
    }
}

#[test]
fn another_version_is_told_so_and_may_retire_the_engine() {
    let mut engine = Process::start();
    let mut stranger = UnixStream::from(engine.parent.try_clone().unwrap());
    // Hello { version: "x" }, something that means nothing here, and then Retire, byte for byte: the first and the last
    // stay as they are in every version.
    stranger.write_all(&[0, 0, 0, 3, 0, 1, b'x']).unwrap();
    let mut answer = vec![0; 4 + 2 + version().len()];
    stranger.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[..6], [0, 0, 0, 2 + version().len() as u8, 0, version().len() as u8]);
    assert_eq!(&answer[6..], version().as_bytes());
    stranger.write_all(&[0, 0, 0, 2, 99, 1, 0, 0, 0, 1, 1]).unwrap();
    engine.ended();
}

#[test]
fn the_parent_stops_the_engine_by_a_word_or_by_its_end() {
    for by_word in [true, false] {
        let mut engine = Process::start();
        let child = engine.child();
        let (_, mut client) = engine.session(&child, &spec("echo"));
        echoes(&mut client, "hello");
        if by_word {
            engine.control().stop().unwrap();
        } else {
            engine.parent = pair().0.into();
        }
        assert_eq!(closed(&mut client), Some(stopping(1012)));
        engine.ended();
    }
}

#[test]
fn a_child_gives_no_orders() {
    let mut engine = Process::start();
    let child = engine.child();
    let (_, mut client) = engine.session(&child, &spec("echo"));
    for order in [control::Order::Retire, control::Order::Stop] {
        let mut link = entrance::open(engine.entrance.as_fd()).unwrap();
        link.set_read_timeout(Some(PATIENCE)).unwrap();
        link.write_all(&handoff::encode(&order).unwrap()).unwrap();
        assert_eq!(link.read(&mut [0]).unwrap(), 0, "hung up");
    }
    echoes(&mut client, "still there");
    drop((client, child));
    engine.retire();
}

#[test]
fn a_grant_that_nobody_takes_is_given_up() {
    let mut engine = Process::start_with(vec![], Duration::from_millis(20));
    let limited = SessionSpec { quotas: vec![Quota { scope: "all".into(), max: 1 }], ..spec("echo") };
    let mut link = Link::open(engine.entrance.as_fd()).unwrap();
    let Granted { id, .. } = link.offer(&limited).unwrap();
    let child = engine.child();
    let start = Instant::now();
    while let Err(why) = child.offer(&limited).map(drop) {
        assert!(start.elapsed() < PATIENCE, "{why}");
        std::thread::yield_now();
    }
    // Whoever comes after all is hung up.
    let (_ours, theirs) = pair();
    link.give(id, vec![], theirs.as_fd(), None, None).unwrap();
    assert!(matches!(link.offer(&limited), Err(HandoffError::Unreachable(_) | HandoffError::Unanswered(_))));
    drop((link, child));
    engine.retire();
}

#[test]
fn grants_do_not_pile_up() {
    let mut engine = Process::start();
    let mut link = Link::open(engine.entrance.as_fd()).unwrap();
    let granted = (0..100).take_while(|_| link.offer(&spec("echo")).is_ok()).count();
    assert_eq!(granted, 16);
    drop(link);
    engine.retire();
}
