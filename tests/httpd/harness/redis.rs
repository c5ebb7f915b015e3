//! A Redis of a test's own.

use super::certificate::make_certificate;
use super::port::Port;
use super::tls;
use super::wait::{PATIENCE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "open-sesame";

/// The user without rights, on all Debian machines.
const NOBODY: u32 = 65534;

/// A Redis with a password, which writes all that it has to its disk at once.
pub(crate) struct Redis {
    port: Port,
    folder: TempDir,
    with_tls: bool,
    process: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::begin(false)
    }

    /// One that speaks TLS alone.
    pub(crate) fn start_with_tls() -> Self {
        Self::begin(true)
    }

    fn begin(with_tls: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("data")).expect("a folder for its data");
        if with_tls {
            fs::create_dir(folder.path().join("conf")).expect("a folder for its certificate");
            make_certificate(&folder.path().join("conf"));
        }
        let mut redis = Self { port: Port::reserve(), folder, with_tls, process: None };
        redis.come_back();
        redis
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// What `WebSocketBroker` is to say.
    pub(crate) fn url(&self) -> String {
        let secure = if self.with_tls { "s" } else { "" };
        format!("redis{secure}://:{PASSWORD}@127.0.0.1:{}/3", self.port.number())
    }

    /// The certificate to trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join(tls::CERTIFICATE)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it with what it has on its disk.
    pub(crate) fn come_back(&mut self) {
        let port = self.port.number().to_string();
        let mut command = Command::new("redis-server");
        command.arg("--dir").arg(self.data());
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--requirepass", PASSWORD]).stdout(Stdio::null()).stderr(Stdio::null());
        if self.with_tls {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(self.certificate());
            command.arg("--tls-key-file").arg(self.folder.path().join(tls::KEY));
        } else {
            command.args(["--port", &port]);
        }
        if rustix::process::geteuid().is_root() {
            give(self.folder.path());
            command.uid(NOBODY).gid(NOBODY);
        }
        self.process = Some(command.spawn().expect("redis-server (Debian: redis-server)"));
        let address = (Ipv4Addr::LOCALHOST, self.port.number());
        wait_until("Redis listens", PATIENCE, || TcpStream::connect(address).is_ok());
    }

    /// Kills it.
    pub(crate) fn go(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("Redis is ours");
            process.wait().expect("its end");
        }
    }

    /// It answers nobody any more, and keeps its connections; until [`Redis::wake`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("Redis is ours");
    }

    /// Has it carry out a command, as another of its clients would.
    #[track_caller]
    pub(crate) fn command(&self, words: &[&[u8]]) -> ::redis::Value {
        let client = ::redis::Client::open(self.url()).expect("its URL");
        let mut connection = client.get_connection().expect("a connection");
        let (name, arguments) = words.split_first().expect("a command");
        let mut command = ::redis::cmd(std::str::from_utf8(name).expect("a name"));
        arguments.iter().for_each(|argument| {
            command.arg(*argument);
        });
        command.query(&mut connection).expect("it is carried out")
    }

    /// As [`Redis::command`], of words without blanks.
    #[track_caller]
    pub(crate) fn carry_out(&self, line: &str) -> ::redis::Value {
        self.command(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    /// Bytes that it has allocated.
    pub(crate) fn used_memory(&self) -> u64 {
        let info: String = ::redis::from_redis_value(self.carry_out("INFO memory")).expect("text");
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|used| used.parse().ok()).expect("a number")
    }

    /// Takes the data of one that is killed away.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.data()).expect("its data gone");
        fs::create_dir(self.data()).expect("a folder for its data");
    }

    /// A copy of the data of one that is killed.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_folder(&self.data(), copy.path());
        copy
    }

    /// Gives one that is killed the data that it had then.
    pub(crate) fn fall_back(&self, copy: &TempDir) {
        self.forget();
        copy_folder(copy.path(), &self.data());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.go();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let copy = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&copy).expect("a folder");
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("a copy");
        }
    }
}

/// Gives a folder and all in it to the user that Redis runs as.
fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("files for Redis");
    if path.is_dir() {
        fs::read_dir(path).expect("a folder").for_each(|entry| give(&entry.expect("an entry").path()));
    }
}
