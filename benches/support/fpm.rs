//! A PHP-FPM of a benchmark's own, with the pages that it runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Result;
use super::server::{confined, new_root};
use super::testkit::installation::{program, unprivileged};
use super::testkit::wait::{PATIENCE, holds_within};

/// Processes, all there from the beginning.
const PROCESSES: usize = 8;

pub(crate) struct Fpm {
    master: Child,
    /// Its configuration, its log, and the pages in `htdocs`.
    folder: TempDir,
}

impl Fpm {
    /// With these files in `htdocs`; `None` where it is not installed. `cpu`: the only core it may use.
    pub(crate) fn start(cpu: Option<usize>, pages: &[(&str, &str)]) -> Result<Option<Self>> {
        let Some(program) = installed() else { return Ok(None) };
        let folder = new_root()?;
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("htdocs"))?;
        for (name, text) in pages {
            fs::write(path("htdocs").join(name), text)?;
        }
        let mut pool = format!("listen = {}\n", path("socket").display());
        if let Some([user, _, group]) = &unprivileged() {
            pool += &format!("user = {user}\ngroup = {group}\nlisten.owner = {user}\nlisten.mode = 0600\n");
        }
        let configuration = format!(
            "[global]\nerror_log = {}\n[www]\n{pool}pm = static\npm.max_children = {PROCESSES}\n",
            path("log").display()
        );
        fs::write(path("fpm.conf"), configuration)?;
        let mut command = confined(&program, cpu);
        command.args(["--nodaemonize", "--fpm-config"]).arg(path("fpm.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(path("console.log"))?);
        let mut fpm = Self { master: command.spawn()?, folder };
        let listens =
            holds_within(PATIENCE, || fpm.path("socket").exists() || !matches!(fpm.master.try_wait(), Ok(None)));
        if !listens || !fpm.path("socket").exists() {
            return Err(format!("PHP-FPM does not listen\n{}", fpm.log()).into());
        }
        Ok(Some(fpm))
    }

    /// The process at the root of its tree.
    pub(crate) fn pid(&self) -> u32 {
        self.master.id()
    }

    /// The lines of httpd's configuration that serve the pages; with mod_proxy and mod_proxy_fcgi, as Debian's do.
    pub(crate) fn site(&self) -> String {
        format!(
            "DocumentRoot \"{}\"\n<FilesMatch \"\\.php$\">\nSetHandler \"proxy:unix:{}|fcgi://localhost\"\n</FilesMatch>\n",
            self.path("htdocs").display(),
            self.path("socket").display()
        )
    }

    /// An empty file beside `htdocs`, in which pages may write.
    pub(crate) fn writable(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, "")?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        ["console.log", "log"].map(|name| fs::read_to_string(self.path(name)).unwrap_or_default()).concat()
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        // An error means that it has already ended.
        let _ = kill_process(Pid::from_child(&self.master), Signal::TERM);
        let _ = self.master.wait();
    }
}

/// Debian's has its version in its name.
fn installed() -> Option<PathBuf> {
    let folder = fs::read_dir("/usr/sbin").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_fpm = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("php-fpm"));
    program("php-fpm").or_else(|| folder.filter(is_fpm).max())
}
