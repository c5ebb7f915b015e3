//! A disk without room for the error log and the session log: sessions do not wait for it, and lines come again when there is
//! room.

use crate::Scale;
use crate::harness::wait::PATIENCE;
use crate::harness::{Httpd, Mpm, Server, wait_until};
use crate::load;
use crate::watch::watched;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// A small file system of its own; taken away when dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`: this user may not mount one.
    fn mount() -> Option<Disk> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=256k,mode=0755", "tmpfs"]).arg(folder.path());
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        is_mounted.then_some(Disk { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut file = File::create(self.path().join("filler")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(b"x").is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.path().join("filler")).expect("the file is gone");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whatever a failure has left running may still write to it.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the file system is gone");
    }
}

fn use_some(server: &Server, count: usize) {
    for _ in 0..count {
        let mut session = load::open(server.address(), "/echo").expect("a session");
        load::echo(&mut session).expect("its echo");
    }
}

pub(crate) fn run(scale: Scale) -> String {
    match Disk::mount() {
        Some(disk) => fill(&disk, scale),
        None => format!("no file system can be mounted by this user: /dev/full in its place; {}", without_disk(scale)),
    }
}

fn fill(disk: &Disk, scale: Scale) -> String {
    let httpd = Httpd::new(Mpm::Event)
        .workers(16)
        .echo()
        .config(format!("LogLevel notice websocket:debug\nWebSocketLog \"{}/ws.log\"", disk.path().display()));
    // The engine opens logs anew as httpd's user, at a restart; and a tool may want to look.
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    symlink(disk.path().join("error.log"), httpd.root().join("logs/error.log")).expect("a link");
    let server = httpd.start();
    server.tolerate_log("WS0120: the session log");
    let log = || fs::read(disk.path().join("ws.log")).map_or(0, |log| log.split(|byte| *byte == b'\n').count());
    let end = Instant::now() + scale.time(90.0);
    let ((rounds, sessions), seen) = watched(&server, || {
        let (mut rounds, mut sessions) = (0, 0);
        while rounds == 0 || Instant::now() < end {
            disk.fill();
            use_some(&server, 200);
            use_some(&server, 50);
            disk.clear();
            let before = log();
            use_some(&server, 10);
            wait_until("there are lines again", PATIENCE, || log() >= before + 10);
            rounds += 1;
            sessions += 260;
            // What was written when there was room would fill it.
            for name in ["ws.log", "error.log"] {
                File::options().write(true).open(disk.path().join(name)).expect("a log").set_len(0).expect("no lines");
            }
        }
        (rounds, sessions)
    });
    let told = format!("full {rounds} times, {sessions} sessions; {seen}");
    server.stop();
    told
}

fn without_disk(scale: Scale) -> String {
    let server = Httpd::new(Mpm::Event).workers(16).echo().config("LogLevel notice\nWebSocketLog /dev/full").start();
    server.expect_log("WS0120: the session log /dev/full cannot be written");
    let count = scale.count(20_000, 500);
    let ((), seen) = watched(&server, || use_some(&server, count));
    format!("{count} sessions whose lines go nowhere; {seen}")
}
