//! PHP, in the ways in which httpd runs it.

use super::config::Httpd;
use super::installation::{Installation, installation, program, unprivileged};
use super::process::Process;
use super::wait::{PATIENCE, wait_until};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// The interpreter as a CGI program.
#[track_caller]
pub(crate) fn php_cgi() -> PathBuf {
    program("php-cgi").expect("no php-cgi in PATH: install the Debian package php-cgi")
}

/// Pages in PHP are run as programs, by `Action`, which is a redirection inside.
#[track_caller]
pub(crate) fn by_action(httpd: Httpd) -> Httpd {
    httpd
        .cgi()
        .module("actions")
        .program("cgi-bin/php", &format!("#!/bin/sh\nexec \"{}\"\n", php_cgi().display()))
        .config("<FilesMatch \"\\.php$\">\n  SetHandler php-page\n</FilesMatch>\nAction php-page \"/cgi-bin/php\"")
}

/// mod_php runs them, in the process that has the request: with the prefork MPM. `None`, and a line that says so: it is not there.
pub(crate) fn by_mod_php(httpd: Httpd) -> Option<Httpd> {
    let Some(load) = load_mod_php() else {
        eprintln!("not tried: it takes Debian's libapache2-mod-php");
        return None;
    };
    Some(httpd.config(load).config("<FilesMatch \"\\.php$\">\n  SetHandler application/x-httpd-php\n</FilesMatch>"))
}

/// A PHP-FPM of a test's own, on a Unix socket.
pub(crate) struct Fpm {
    folder: TempDir,
    master: Child,
}

impl Fpm {
    /// One with so many processes, all there from the beginning.
    #[track_caller]
    pub(crate) fn start(processes: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("mod_websocket-fpm-").tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let user = unprivileged();
        let mut pool = format!("listen = {}\n", path("socket").display());
        if let Some([user, _, group]) = &user {
            pool += &format!("user = {user}\ngroup = {group}\nlisten.owner = {user}\nlisten.mode = 0600\n");
            // Its socket is the user's, and lies in here.
            fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("permissions of the folder");
        }
        let sessions = path("sessions");
        fs::create_dir(&sessions).expect("a folder for sessions");
        fs::set_permissions(&sessions, Permissions::from_mode(0o1777)).expect("its permissions");
        pool += &format!("php_admin_value[session.save_path] = {}\n", sessions.display());
        let config = format!(
            "[global]\nerror_log = {}\ndaemonize = no\n[www]\n{pool}pm = static\npm.max_children = {processes}\n\
             catch_workers_output = yes\n",
            path("log").display()
        );
        fs::write(path("fpm.conf"), config).expect("a configuration");
        let mut command = installation().tied(&php_fpm());
        let log = fs::File::create(path("stderr")).expect("a file");
        command.args(["--nodaemonize", "--fpm-config"]).arg(path("fpm.conf")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        let master = command.spawn().expect("php-fpm");
        let fpm = Self { folder, master };
        wait_until("PHP-FPM listens", PATIENCE, || fpm.socket().exists());
        fpm
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What hands PHP's files to it.
    pub(crate) fn config(&self) -> String {
        format!(
            "<FilesMatch \"\\.php$\">\n  SetHandler \"proxy:unix:{}|fcgi://localhost\"\n</FilesMatch>",
            self.socket().display()
        )
    }

    pub(crate) fn modules(httpd: Httpd) -> Httpd {
        httpd.module("proxy").module("proxy_fcgi")
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        if let Some(master) = i32::try_from(self.master.id()).ok().and_then(Process::with_pid) {
            master.signal(Signal::TERM);
        }
        self.master.wait().expect("PHP-FPM is our child");
    }
}

/// Debian's has its version in its name.
#[track_caller]
fn php_fpm() -> PathBuf {
    let folders = fs::read_dir("/usr/sbin").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_fpm = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("php-fpm"));
    let found = program("php-fpm").or_else(|| folders.filter(is_fpm).max());
    found.expect("no php-fpm in PATH or /usr/sbin: install the Debian package php-fpm")
}

/// The LoadModule line of mod_php, which is installed beside httpd or unpacked by `tests/run`; where it is neither, none.
fn load_mod_php() -> Option<String> {
    let unpacked = Installation::built("mod-php/usr/lib/apache2/modules");
    let file = [installation().modules.clone(), unpacked].iter().find_map(|folder| {
        let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        files.filter(|path| is_mod_php(path)).max()
    })?;
    Some(format!("LoadModule php_module \"{}\"", file.display()))
}

fn is_mod_php(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libphp") && name.ends_with(".so")
}
