//! The httpd of this machine, its modules, and the module under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where httpd is and what is compiled into it.
pub(crate) struct Installation {
    pub(crate) httpd: PathBuf,
    setpriv: Option<PathBuf>,
    pub(crate) modules: PathBuf,
    include: PathBuf,
    compiled_in: Vec<String>,
}

/// The installation the tests run against, looked up once.
///
/// `HTTPD` names another server binary, `APXS` another apxs.
pub(crate) fn installation() -> &'static Installation {
    static FOUND: OnceLock<Installation> = OnceLock::new();
    FOUND.get_or_init(|| {
        let httpd = find("HTTPD", &["apache2", "httpd"])
            .expect("no apache2 or httpd in PATH or /usr/sbin: install apache2, or set HTTPD=/path/to/httpd");
        let apxs = find("APXS", &["apxs", "apxs2"])
            .expect("no apxs or apxs2 in PATH: install apache2-dev (httpd-devel), or set APXS=/path/to/apxs");
        let include = PathBuf::from(output(Command::new(&apxs).args(["-q", "INCLUDEDIR"])).trim());
        let modules = PathBuf::from(output(Command::new(apxs).args(["-q", "LIBEXECDIR"])).trim());
        let compiled_in = output(Command::new(&httpd).arg("-l"))
            .lines()
            .map(str::trim)
            .filter(|line| line.ends_with(".c"))
            .map(str::to_owned)
            .collect();
        Installation { httpd, setpriv: find("SETPRIV", &["setpriv"]), modules, include, compiled_in }
    })
}

impl Installation {
    /// httpd itself, to look at a configuration.
    pub(crate) fn httpd(&self) -> Command {
        Command::new(&self.httpd)
    }

    /// httpd as a server, which an interrupted test run does not leave behind.
    /// `without`: capabilities that it is not to have, as for `setpriv --bounding-set`.
    pub(crate) fn server(&self, without: Option<&str>) -> Command {
        let Some(capabilities) = without else { return self.tied(&self.httpd) };
        let mut command = self.tied(self.setpriv.as_deref().expect("setpriv(1)"));
        command.args(["--bounding-set", capabilities]).arg(&self.httpd);
        command
    }

    /// A program that is told to stop when the thread that starts it ends, where there is a setpriv(1): an interrupted test
    /// run drops nothing.
    pub(crate) fn tied(&self, program: &Path) -> Command {
        let Some(setpriv) = &self.setpriv else { return Command::new(program) };
        let mut command = Command::new(setpriv);
        // What a shell runs in the background ignores a terminal's signals, and hands that on.
        command.args(["--pdeathsig", "TERM", "env", "--default-signal=INT,QUIT"]).arg(program);
        command
    }

    /// What a C compiler needs to find httpd's and APR's headers.
    pub(crate) fn include_flags(&self) -> Vec<String> {
        let apr = find("APR_CONFIG", &["apr-1-config", "apr-config"]).expect("apr-1-config: install libapr1-dev");
        let apu = find("APU_CONFIG", &["apu-1-config", "apu-config"]).expect("apu-1-config: install libaprutil1-dev");
        let mut flags = vec![format!("-I{}", self.include.display())];
        for (program, arguments) in [(apr, &["--includes", "--cppflags"][..]), (apu, &["--includes"])] {
            flags.extend(output(Command::new(program).args(arguments)).split_whitespace().map(str::to_owned));
        }
        flags
    }

    /// A path under the target directory, wherever that is.
    pub(crate) fn built(path: &str) -> PathBuf {
        // Cargo's directory for the temporary files of integration tests lies in it.
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent").join(path)
    }

    /// The LoadModule line of mpm-itk, which is installed beside httpd or unpacked by `tests/run`; where it is neither, none.
    pub(crate) fn load_mpm_itk(&self) -> Option<String> {
        let file = [self.modules.join("mpm_itk.so"), Self::built("mpm-itk/usr/lib/apache2/modules/mpm_itk.so")]
            .into_iter()
            .find(|file| file.exists())?;
        Some(format!("LoadModule mpm_itk_module \"{}\"", file.display()))
    }

    /// The LoadModule line of `mod_<name>`; empty when it is compiled in.
    pub(crate) fn load(&self, name: &str) -> String {
        if self.compiled_in.contains(&format!("mod_{name}.c")) || self.compiled_in.contains(&format!("{name}.c")) {
            return String::new();
        }
        let file = self.modules.join(format!("mod_{name}.so"));
        assert!(file.exists(), "httpd's {} is missing: the tests need mod_{name}", file.display());
        format!("LoadModule {name}_module \"{}\"\n", file.display())
    }

    /// The MPM compiled into this httpd, when it is one that cannot load others.
    pub(crate) fn static_mpm(&self) -> Option<&str> {
        self.compiled_in.iter().find_map(|name| match name.strip_suffix(".c")? {
            mpm @ ("event" | "worker" | "prefork") => Some(mpm),
            _ => None,
        })
    }
}

/// The module under test: `MOD_WEBSOCKET_SO`, or what `cargo build --release` leaves in this target directory.
pub(crate) fn module_under_test() -> PathBuf {
    if let Some(path) = env::var_os("MOD_WEBSOCKET_SO") {
        let path = PathBuf::from(path);
        assert!(path.exists(), "MOD_WEBSOCKET_SO={} does not exist", path.display());
        return path;
    }
    let path = Installation::built("release/libmod_websocket.so");
    assert!(path.exists(), "{} does not exist: run `cargo build --release` first", path.display());
    path
}

fn find(variable: &str, names: &[&str]) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).or_else(|| names.iter().find_map(|name| program(name)))
}

/// The program of that name, in PATH or where distributions put servers.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/local/apache2/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Name, user and group for a server that is not to run as root; `None` where nobody is root.
pub(crate) fn unprivileged() -> Option<[String; 3]> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let entry = |name| users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|entry| entry[0] == name);
    let entry = ["www-data", "apache", "http", "daemon", "nobody"].into_iter().find_map(entry);
    let entry = entry.expect("an unprivileged user to run a server as");
    Some([entry[0], entry[2], entry[3]].map(str::to_owned))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
