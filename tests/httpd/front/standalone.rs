//! `websocket-standalone`: httpd without a configuration, in the foreground.

use crate::harness::certificate::make_certificate;
use crate::harness::installation::installation;
use crate::harness::port::Port;
use crate::harness::process::{Process, family};
use crate::harness::server::MARK;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Raw, Response, module_under_test, tls, wait_until};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apache-conf/standalone")
}

/// The command as it ends by itself.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(script());
    command.args(arguments).env("MOD_WEBSOCKET_SO", module_under_test()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("the command");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// The command, serving.
pub(crate) struct Standalone {
    port: Port,
    folder: TempDir,
    child: Child,
}

impl Standalone {
    pub(crate) fn start(arguments: &[&str]) -> Standalone {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
        fs::create_dir(folder.path().join("tmp")).expect("a folder for what is temporary");
        let port = Port::reserve();
        let file = |name: &str| File::create(folder.path().join(name)).expect("a file for what it says");
        let child = installation()
            .tied(&script())
            .args(["-p", &port.number().to_string()])
            .args(arguments)
            .env("MOD_WEBSOCKET_SO", module_under_test())
            .env("TMPDIR", folder.path().join("tmp"))
            .env(MARK, folder.path())
            // As a terminal does it, so that Ctrl-C is for all of it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the command");
        let mut standalone = Standalone { port, folder, child };
        let mut ended = None;
        wait_until("it serves", PATIENCE, || {
            ended = standalone.child.try_wait().expect("our child");
            ended.is_some() || standalone.said("stdout").contains("Ctrl-C stops the server.")
        });
        assert!(ended.is_none(), "{}", standalone.said("stderr"));
        standalone
    }

    fn said(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).expect("what it says")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number()))
    }

    fn ask(&self, handshake: &Handshake) -> Response {
        Raw::connect_to(self.address(), None).ask(handshake)
    }

    fn status(&self, path: &str) -> u16 {
        self.ask(&Handshake::new(path)).status
    }

    fn open(&self, path: &str) -> Raw {
        let mut client = Raw::connect_to(self.address(), None);
        client.ask(&Handshake::new(path)).assert_accepted();
        client
    }

    fn left(&self) -> Vec<Process> {
        family(None, &format!("{MARK}={}", self.folder.path().display()))
    }

    /// Ctrl-C; returns what it said on stdout.
    pub(crate) fn interrupt(mut self) -> String {
        kill_process_group(Pid::from_child(&self.child), Signal::INT).expect("Ctrl-C");
        let mut status = None;
        wait_until("it ends", PATIENCE, || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.said("stderr"));
        wait_until("no process is left", PATIENCE, || self.left().is_empty());
        let left = fs::read_dir(self.folder.path().join("tmp")).expect("the folder").count();
        assert_eq!(left, 0, "files are left");
        self.said("stdout")
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn an_echo_until_ctrl_c() {
    let server = Standalone::start(&["--echo"]);
    let mut client = server.open("/");
    client.echo(&Frame::text("hello"));
    server.open("/whatever/path").close();
    // Pages of other sites stay outside.
    let foreign = Handshake::new("/").header("Origin", "https://elsewhere.example");
    assert_eq!(server.ask(&foreign).status, 403);
    assert_eq!(server.ask(&Handshake::page("/")).status, 404);
    // Nor do those that give their own name this machine's address.
    let mut rebound = Raw::connect_to(server.address(), None);
    rebound.write(b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.response(false).status, 403);
    let kill = std::thread::spawn(move || server.interrupt());
    assert_eq!(client.frame().close_code(), Some(1012));
    client.send(&Frame::close(1012, ""));
    client.expect_end();
    let said = kill.join().expect("it ends");
    assert!(said.contains("echo        ws://localhost:") && said.ends_with("standalone: stopped.\n"), "{said}");
}

#[test]
fn a_program_with_variables_of_its_own() {
    // For httpd PATH would be one of the environment.
    let server = Standalone::start(&["--exec", "sh -c 'while read PATH; do echo ${PATH}; done'"]);
    let mut client = server.open("/");
    client.echo(&Frame::text("hello"));
    client.close();
    server.interrupt();
}

#[test]
fn a_tcp_server() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let target = listener.local_addr().expect("its address").to_string();
    let server = Standalone::start(&["--tcp", &target, "--any-origin", "--log_level=info"]);
    let mut client = Raw::connect_to(server.address(), None);
    client.ask(&Handshake::new("/websockify").header("Origin", "https://elsewhere.example")).assert_accepted();
    listener.accept().expect("the engine").0.write_all(b"hello").expect("hello");
    client.expect(&Frame::binary("hello"));
    assert_eq!(client.frame().close_code(), Some(1000));
    drop((client, listener));
    assert_eq!(server.status("/"), 502);
    // What goes wrong is to be seen.
    wait_until("it is on stderr", PATIENCE, || server.said("stderr").contains("no connection to 127.0.0.1"));
    server.interrupt();
}

#[test]
fn a_channel() {
    let server = Standalone::start(&["--channel", "room"]);
    let mut clients = [server.open("/"), server.open("/")];
    wait_until("both are subscribed", PATIENCE, || {
        let info = server.ask(&Handshake::page("/publish?channel=room").version("HTTP/1.0")).body;
        String::from_utf8_lossy(&info).contains("\"subscribers\":2")
    });
    clients[0].send(&Frame::text("hello"));
    clients.iter_mut().for_each(|client| client.expect(&Frame::text("hello")));
    let mut publisher = Raw::connect_to(server.address(), None);
    let host = publisher.host();
    publisher.write(
        format!("POST /publish?channel=room HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nho").as_bytes(),
    );
    assert_eq!(publisher.response(false).status, 201);
    clients.iter_mut().for_each(|client| client.expect(&Frame::text("ho")));
    for client in clients {
        client.close();
    }
    let said = server.interrupt();
    assert!(said.contains("publish     curl -d hello"), "{said}");
}

#[test]
fn several_things_and_pages() {
    let pages = tempfile::tempdir().expect("a folder");
    fs::set_permissions(pages.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
    fs::write(pages.path().join("index.html"), "<p>A page.</p>\n").expect("a page");
    fs::create_dir(pages.path().join("cgi")).expect("a folder");
    let program = pages.path().join("cgi/hello");
    fs::write(&program, "#!/bin/sh\necho 'Content-Type: text/plain'\necho\necho hello from CGI\n").expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its permissions");
    let folder = pages.path().to_str().expect("UTF-8");
    let log = pages.path().join("log");
    let server = Standalone::start(&[
        "--echo",
        "--channel=a b",
        "-d",
        folder,
        "-x",
        "/cgi",
        "-q128",
        &format!("--log-file={}", log.display()),
    ]);
    server.open("/echo").echo(&Frame::text("hello"));
    server.open("/channel").close();
    assert_eq!(server.status("/"), 200);
    let page = server.ask(&Handshake::page("/").version("HTTP/1.0"));
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html")));
    assert_eq!(page.body, b"<p>A page.</p>\n");
    let page = server.ask(&Handshake::page("/cgi/hello").version("HTTP/1.0"));
    assert_eq!(page.body, b"hello from CGI\n");
    let said = server.interrupt();
    assert!(said.contains("/echo\n") && said.contains("/channel\n") && said.contains("pages       http://"), "{said}");
    assert!(fs::read_to_string(log).expect("the log").contains("resuming normal operations"));
}

#[test]
fn a_login() {
    let server = Standalone::start(&["--echo", "--basic-auth", "--basic-auth-credential", "ann:pass:word"]);
    assert_eq!(server.status("/"), 401);
    let with = |credential: &str| server.ask(&Handshake::new("/").header("Authorization", credential)).status;
    // ann:pass:word and ann:password
    assert_eq!(with("Basic YW5uOnBhc3M6d29yZA=="), 101);
    assert_eq!(with("Basic YW5uOnBhc3N3b3Jk"), 401);
    server.interrupt();
}

#[test]
fn over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("conf")).expect("a folder for them");
    make_certificate(&folder.path().join("conf"));
    let path = |name: &str| folder.path().join("conf").join(name).to_str().expect("UTF-8").to_owned();
    let server = Standalone::start(&["--echo", "-t", "-c", &path("certificate.pem"), "-k", &path("key.pem")]);
    let config = tls::client(folder.path(), rustls::ALL_VERSIONS, false);
    let mut client = Raw::connect_to(server.address(), Some(&config));
    client.ask(&Handshake::new("/")).assert_accepted();
    client.echo(&Frame::text("hello"));
    client.close();
    assert!(server.interrupt().contains("wss://localhost:"));
}

#[test]
fn mistakes_are_named() {
    for (arguments, message) in [
        (&[][..], "what is to be served? Handlers (-w DIR)"),
        (&["--echoes"], "there is no option --echoes"),
        (&["handlers"], "\"handlers\" is no option; handlers follow -w"),
        (&["--echo", "-p"], "-p takes a value"),
        (&["--echo", "-p", "http"], "-p http: that is no port"),
        (&["--echo", "-p0"], "-p 0: that is no port"),
        (&["--echo=yes"], "--echo takes no value"),
        (&["--echo", "--echo"], "--echo is there twice"),
        (&["-w", "/nowhere"], "-w /nowhere: there is no such directory"),
        (&["--echo", "-s", "/"], "go with -w DIR"),
        (&["--echo", "-x", "/cgi"], "-x goes with -d DIR"),
        (&["--echo", "-t"], "-t needs a certificate: -c FILE"),
        (&["--echo", "-c", "/etc/passwd"], "go with -t"),
        (&["--echo", "--log-level", "loud"], "none of debug, info, warn, error and critical"),
        (&["--echo", "--basic-auth-credential", "ann"], "that is not NAME:PASSWORD"),
        (&["--exec", "/nowhere/program x"], "--exec /nowhere/program: there is no such program"),
        (&["--exec", "cat 'x"], "a quote without an end"),
        (&["--echo", "-l", "a\nb"], "a control character"),
        // What standalone.py had.
        (&["--config", "x"], "write its options on the command line"),
        (&["--log_max=7"], "let a program rotate the log"),
    ] {
        let (status, said, errors) = run(arguments);
        assert_eq!((status, said.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(errors.contains(message) && errors.contains("-h lists the options"), "{arguments:?}: {errors}");
    }
    // What httpd finds wrong is said without the lines of a file that nobody has written.
    let (status, _, errors) = run(&["--tcp", "redis", "-p", &Port::reserve().number().to_string()]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("\"redis\" has no port; write host:port") && !errors.contains("line"), "{errors}");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let port = taken.local_addr().expect("its address").port().to_string();
    let (status, _, errors) = run(&["--echo", "-p", &port]);
    assert_eq!(status, Some(1));
    assert!(errors.contains(&format!("port {port} is already in use on 127.0.0.1")), "{errors}");
}
