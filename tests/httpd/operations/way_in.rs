//! Who may ask the engine for something, and what it needs for its start and its end: no name, no capability, no folder.

use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Handshake, Httpd, Mpm, Process, Raw, Server, every_mpm, wait_until};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use tungstenite::Message;

every_mpm!(
    nobody_else_reaches_the_engine,
    works_in_a_chroot,
    httpds_share_a_runtime_directory,
    the_port_is_free_while_clients_take_their_time,
);

/// What a process of httpd's user tries; its arguments: the ServerRoot, and the processes of httpd. It says what it has got.
const INTRUDER: &str = r#"
import ctypes, os, sys
root, pids = sys.argv[1], [int(pid) for pid in sys.argv[2:]]
for line in open("/proc/net/unix"):
    name = line.split()[7:]
    if name and root in name[0]:
        print("a socket with a name:", line)
libc = ctypes.CDLL(None, use_errno=True)
PIDFD_OPEN, PIDFD_GETFD = 434, 438
for pid in pids:
    for path in (f"/proc/{pid}/fd", f"/proc/{pid}/mem", f"/proc/{pid}/environ"):
        try:
            os.listdir(path) if path.endswith("fd") else open(path, "rb").read(1)
            print("opened", path)
        except PermissionError:
            pass
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    for number in range(100):
        if pidfd >= 0 and libc.syscall(PIDFD_GETFD, pidfd, number, 0) >= 0:
            print("took descriptor", number, "of", pid)
print("done")
"#;

/// Runs the intruder as the user of this process; returns what it says.
fn intrude(server: &Server, user: u32) -> String {
    let processes = [server.parent(), server.engine()].into_iter().chain(server.children());
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            &user.to_string(),
            "--regid",
            &user.to_string(),
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            INTRUDER,
        ])
        .arg(server.root())
        .args(processes.map(|process| process.pid.to_string()))
        .output()
        .expect("setpriv");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The Unix sockets of this machine that have a name, as descriptors show them.
fn named_sockets() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").expect("the table of sockets");
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields.len() > 7).map(|fields| format!("socket:[{}]", fields[6])).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn nobody_else_reaches_the_engine(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .echo()
        .config("<Location \"/list\">\n  WebSocketHandler exec /bin/ls /proc/self/fd\n</Location>")
        .start();
    let files: Vec<_> = fs::read_dir(server.path("run")).expect("the runtime directory").flatten().collect();
    assert_eq!(files.iter().map(|file| file.file_name()).collect::<Vec<_>>(), ["httpd.pid"]);
    let named = named_sockets();
    for process in [server.parent(), server.engine()].into_iter().chain(server.children()) {
        let descriptors = process.descriptors();
        assert!(!descriptors.iter().any(|target| named.contains(target)), "{descriptors:?}");
    }
    // What it starts inherits nothing: its three, and the folder itself.
    let mut program = Client::open(&server, "/list");
    assert_eq!(
        [(); 4].map(|()| program.message().into_text().expect("a text").trim().to_owned()),
        ["0", "1", "2", "3"]
    );
    program.close();
    // Else everything of this user is one, and SECURITY.md says so.
    if is_root() {
        assert_eq!(intrude(&server, server.engine().uid().expect("its user")), "done\n");
        assert!(intrude(&server, 0).contains("opened"), "it finds what there is to be found");
    }
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    client.close();
}

fn works_in_a_chroot(mpm: Mpm) {
    if !is_root() {
        return;
    }
    let server = Httpd::new(mpm).echo().config("ChrootDir \"{root}/htdocs\"").start();
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    server.graceful();
    client.echo(&Frame::text("still there"));
    Raw::open(&server, "/echo").close();
    client.close();
}

/// As two containers do that have mounted one.
fn httpds_share_a_runtime_directory(mpm: Mpm) {
    let first = Httpd::new(mpm).echo().start();
    let shared = format!("DefaultRuntimeDir \"{}\"", first.path("run").display());
    let second = Httpd::new(mpm).echo().config(shared).start();
    let mut clients = [&first, &second].map(|server| Raw::open(server, "/echo"));
    for client in &mut clients {
        client.echo(&Frame::text("hello"));
    }
    let [of_first, mut of_second] = clients;
    of_first.close();
    first.stop();
    of_second.echo(&Frame::text("still there"));
    Raw::open(&second, "/echo").close();
    of_second.close();
}

fn the_port_is_free_while_clients_take_their_time(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    server.begin_to_stop();
    // The client does not answer the Close.
    wait_until("another httpd may listen", PATIENCE, || TcpListener::bind(server.address()).is_ok());
    assert!(server.engine().is_running(), "before it has ended");
    drop(client);
    server.stop();
}

/// Without leave to signal processes of other users, and to give files to them.
#[test]
fn capabilities_do_not_matter() {
    if !is_root() {
        return;
    }
    for mpm in [Mpm::Event, Mpm::Worker] {
        let server = Httpd::new(mpm).without_capabilities("-chown,-kill").echo().start();
        let mut client = Client::open(&server, "/echo");
        client.echo_text("hello");
        server.graceful();
        client.echo_text("still there");
        server.begin_to_stop();
        assert!(client.close_frame().is_some(), "every client gets its Close");
        client.expect_end();
        drop(client);
        server.stop();
    }
}

#[test]
fn a_parent_without_capabilities_is_killed() {
    if !is_root() {
        return;
    }
    let server = Httpd::new(Mpm::Event).without_capabilities("-chown,-kill").echo().start();
    let engine = server.engine();
    let mut client = Client::open(&server, "/echo");
    client.echo_text("hello");
    server.kill_parent();
    assert!(client.close_frame().is_some(), "every client gets its Close");
    client.expect_end();
    wait_until("the engine has ended", PATIENCE, || !engine.is_running());
}

/// The owner of what /proc shows of a process is root's where nobody may look into it.
#[test]
fn an_engine_with_keys_keeps_to_itself() {
    let server = Httpd::new(Mpm::Event).tls().echo().config("CoreDumpDirectory \"{root}/logs\"").start();
    let engine = server.engine();
    let owner = || fs::metadata(format!("/proc/{}/environ", engine.pid)).expect("a process").uid();
    assert_eq!(Some(owner()), engine.uid(), "CoreDumpDirectory lets its user look");
    let mut client = Raw::open(&server, "/echo");
    client.echo(&Frame::text("hello"));
    assert_eq!(owner(), 0);
    client.close();
}

#[test]
fn programs_have_the_limit_of_files_that_was() {
    let server = Httpd::new(Mpm::Event)
        .config("<Location \"/limit\">\n  WebSocketHandler exec /bin/sh -c \"while read line; do ulimit -n; done\"\n</Location>")
        .start();
    let parent = Pid::from_raw(server.parent().pid);
    let limit = rustix::process::getrlimit(Resource::Nofile);
    prlimit(parent, Resource::Nofile, Rlimit { current: Some(333), maximum: limit.maximum }).expect("a lower limit");
    let engine = server.engine();
    server.expect_log("WS0201: the engine process");
    engine.signal(Signal::KILL);
    wait_until("another engine runs", PATIENCE, || server.engines().iter().any(|other| *other != engine));
    let mut client = Client::open(&server, "/limit");
    client.send(Message::text("now"));
    assert_eq!(client.message().into_text().expect("a text").trim(), "333");
    client.close();
    assert!(server.error_log().contains("the engine has started"), "with more for itself");
}

/// As where httpd is process 1 of a container, to which they would come home.
#[test]
fn what_programs_leave_behind_is_the_engines() {
    let server = Httpd::new(Mpm::Event)
        .config(
            "<Location \"/leave\">\n  WebSocketHandler exec /bin/sh -c \
             \"setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & read line\"\n</Location>",
        )
        .start();
    let engine = server.engine();
    let mut client = Client::open(&server, "/leave");
    let pid = client.message().into_text().expect("a text").trim().parse().expect("a pid");
    let left = Process::with_pid(pid).expect("the process");
    client.close();
    wait_until("it is the engine's", PATIENCE, || engine.children().contains(&left));
    left.signal(Signal::KILL);
    wait_until("it is collected", PATIENCE, || !fs::exists(format!("/proc/{pid}")).expect("/proc"));
}

#[test]
fn a_lost_engine_is_told_of_once() {
    let server = Httpd::new(Mpm::Event).echo().start();
    // The engine is late, the places of those who may wait are taken, and it answers again.
    server.expect_log("WS0165: ");
    server.expect_log("WS0166: ");
    server.tolerate_log("WS0167: ");
    let engine = server.engine();
    engine.signal(Signal::STOP);
    let clients: Vec<Raw> = (0..3).map(|_| Raw::connect(&server)).collect();
    let asked: Vec<_> = clients
        .into_iter()
        .map(|mut client| std::thread::spawn(move || client.ask(&Handshake::new("/echo")).status))
        .collect();
    for answer in asked {
        assert_eq!(answer.join().expect("an answer"), 503);
    }
    engine.signal(Signal::CONT);
    wait_until("the engine is asked again", PATIENCE, || {
        Raw::answer(&server, &Handshake::new("/echo").header("Connection", "close")).status == 101
    });
    let log = server.error_log();
    assert_eq!(log.matches("WS0165: ").count(), 1, "{log}");
    let requests = log.lines().filter(|line| line.contains("WS0007") && !line.contains("websocket:debug"));
    assert_eq!(requests.count(), 0, "{log}");
}
