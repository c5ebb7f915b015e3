//! Real servers behind `WebSocketHandler proxy`, with their own clients: their sockets go on through restarts.

use crate::harness::port::Port;
use crate::harness::python::python;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use tempfile::TempDir;

every_mpm!(an_mqtt_broker);

/// A server of somebody else's, which ends with the test.
struct Product {
    port: Port,
    process: Child,
    _folder: TempDir,
}

impl Product {
    /// Starts it by a command that listens at this port of the loopback, with files in this folder.
    fn start(command: impl FnOnce(u16, &Path) -> Command) -> Self {
        let (port, folder) = (Port::reserve(), tempfile::tempdir().expect("a folder"));
        let mut command = command(port.number(), folder.path());
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
        wait_until("the server answers", PATIENCE, || TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_ok());
        Self { port, process, _folder: folder }
    }

    /// httpd before it, at `/app`.
    fn behind(&self, httpd: Httpd) -> Server {
        let url = format!("ws://127.0.0.1:{}", self.port.number());
        httpd
            .module("proxy")
            .module("proxy_http")
            .config(format!("<Location \"/app\">\n  WebSocketHandler proxy {url}\n</Location>"))
            .start()
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The client of `clients/mqtt.py`.
struct Mqtt {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Mqtt {
    fn connect(server: &Server) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/httpd/clients/mqtt.py");
        let mut command = Command::new(python());
        command.arg(script).args([&server.address().port().to_string(), "/app"]);
        if server.tls().is_some() {
            command.arg(server.path("conf/certificate.pem"));
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a Python");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let mut client = Self { input: process.stdin.take(), process, output };
        client.says("subscribed");
        client
    }

    #[track_caller]
    fn says(&mut self, what: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), what, "see its own words above");
    }

    #[track_caller]
    fn does(&mut self, what: &str) {
        let input = self.input.as_mut().expect("its input");
        writeln!(input, "{what}").and_then(|()| input.flush()).expect("it listens");
        self.says("heard");
    }

    #[track_caller]
    fn disconnect(mut self) {
        self.input = None;
        assert!(self.process.wait().expect("its end").success(), "see its own words above");
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn an_mqtt_broker(mpm: Mpm) {
    let broker = Product::start(|port, folder| {
        let file = folder.join("mosquitto.conf");
        // Without a listener of its own protocol, 2.0.11 takes those for WebSockets for none.
        let own = folder.join("own.sock");
        let lines = format!(
            "user root\nlistener 0 {}\nlistener {port} 127.0.0.1\nbind_interface lo\nsocket_domain ipv4\nprotocol websockets\n\
             allow_anonymous true\nmax_inflight_messages 0\n",
            own.display()
        );
        fs::write(&file, lines).expect("its configuration");
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(file);
        command
    });
    for httpd in [Httpd::new(mpm), Httpd::new(mpm).tls()] {
        let server = broker.behind(httpd);
        let mut clients: Vec<Mqtt> = (0..3).map(|_| Mqtt::connect(&server)).collect();
        let mut publish = || {
            clients[0].does("publish 20");
            clients[1..].iter_mut().for_each(|client| client.does("hear 20"));
        };
        publish();
        // The children go, and the sockets stay.
        server.graceful();
        publish();
        server.restart();
        publish();
        clients.into_iter().for_each(Mqtt::disconnect);
    }
}

/// A server that says what it hears.
fn tcp_echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
        }
    });
    port
}

#[test]
fn websockify() {
    let target = tcp_echo();
    let websockify = Product::start(|port, _| {
        let mut command = Command::new("websockify");
        command.args([format!("127.0.0.1:{port}"), format!("127.0.0.1:{target}")]);
        command
    });
    for httpd in [Httpd::new(Mpm::Event), Httpd::new(Mpm::Event).tls()] {
        let server = websockify.behind(httpd);
        let mut client = Raw::connect(&server);
        let answer = client.ask(&Handshake::new("/app").header("Sec-WebSocket-Protocol", "binary"));
        answer.assert_accepted();
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("binary"));
        for _ in 0..2 {
            client.send(&Frame::ping("there?"));
            client.expect(&Frame::pong("there?"));
            let letters = super::echo::letters(300_000);
            client.send(&Frame::binary(letters.clone()));
            let mut heard = Vec::new();
            while heard.len() < letters.len() {
                heard.extend(client.frame().payload);
            }
            assert!(heard == letters, "what comes back is what was sent");
            server.graceful();
        }
        client.send(&Frame::close(1000, ""));
        assert_eq!(client.frame().close_code(), Some(1000));
        client.await_hangup();
    }
}
