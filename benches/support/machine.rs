//! What a benchmark has to know of the machine, and of the build that it is part of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Result;

/// The server's core and the generator's.
const SERVER_CPU: usize = 0;
pub(crate) const GENERATOR_CPU: usize = 1;

/// Puts this thread on a core of its own, and returns the one for the servers; `None` where there is but one core.
pub(crate) fn pin_generator() -> Option<usize> {
    if std::thread::available_parallelism().ok()?.get() < 2 {
        return None;
    }
    let pid = std::process::id().to_string();
    let mut taskset = Command::new("taskset");
    taskset.args(["-p", "-c", &GENERATOR_CPU.to_string(), &pid]).stdout(Stdio::null());
    taskset.status().is_ok_and(|status| status.success()).then_some(SERVER_CPU)
}

/// Runs this program once more, with these arguments, in a network of its own, where the generator's core does all the
/// work of receiving.
///
/// # Errors
/// This is no root, or util-linux or iproute2 is not there; or the program has failed.
pub(crate) fn run_steered(arguments: &[String]) -> Result<()> {
    // sysfs shows the network of whoever mounts it. See Documentation/networking/scaling.rst in the kernel's sources.
    let script = format!(
        "set -e; mount -t sysfs sysfs /sys; ip link set lo up; \
         for cpus in /sys/class/net/lo/queues/rx-*/rps_cpus; do echo {:x} > $cpus; done; exec \"$0\" \"$@\"",
        1 << GENERATOR_CPU
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", &script]).arg(std::env::current_exe()?).args(arguments);
    let status = command.status().map_err(|error| format!("unshare: {error}"))?;
    if status.success() { Ok(()) } else { Err("the run in a network of its own has failed (it takes a root)".into()) }
}

/// A source of the module that changed after the module was built.
pub(crate) fn newer_source(module: &Path) -> Option<PathBuf> {
    let built = module.metadata().ok()?.modified().ok()?;
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).ok()?.flatten() {
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.modified().ok()? > built {
                return Some(entry.path());
            }
        }
    }
    None
}

/// What the figures depend on.
pub(crate) fn facts() -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    json!({
        "cpu": model,
        "cores": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "tcp_congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
    })
}
