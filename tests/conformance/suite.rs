//! The suite's program, wstest: several at a time share the cases, and each writes a report.

use crate::case::Case;
use crate::harness::installation::{Installation, installation};
use crate::harness::wait::holds_within;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one server may be under test. The suite has limits for each case, and some are minutes.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// What the suite says of a case.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Of the messages.
    pub(crate) behavior: String,
    /// Of the closing handshake.
    pub(crate) close: String,
    /// Why.
    pub(crate) reason: String,
}

pub(crate) type Outcomes = BTreeMap<Case, Outcome>;

/// The installed suite.
pub(crate) struct Suite {
    wstest: PathBuf,
    reports: PathBuf,
}

impl Suite {
    /// What `WSTEST` names.
    pub(crate) fn find() -> Self {
        let wstest = env::var_os("WSTEST").map(PathBuf::from);
        let wstest = wstest.expect("WSTEST names the suite's program: start this with tests/conformance/run");
        let version = Command::new(&wstest).arg("-a").output();
        assert!(
            version.as_ref().is_ok_and(|output| output.status.success()),
            "{} is not the Autobahn suite: {version:?}",
            wstest.display()
        );
        Self { wstest, reports: Installation::built("conformance") }
    }

    /// Where the reports go.
    pub(crate) fn reports(&self) -> &Path {
        &self.reports
    }

    /// Puts a server through the `known` cases that `patterns` name, and through all that are not known.
    pub(crate) fn run(&self, name: &str, url: &str, known: &[&Case], patterns: &[&str]) -> Outcomes {
        let reports = self.reports.join(name.replace(' ', "-"));
        if reports.exists() {
            fs::remove_dir_all(&reports).expect("the reports of the last run removed");
        }
        let (chosen, others): (Vec<&Case>, Vec<&Case>) = known.iter().partition(|case| case.matches_any(patterns));
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut running: Vec<Job> = (0..jobs)
            .map(|job| {
                // Dealt out one by one: neighbours cost about the same.
                let of_others =
                    chosen.iter().enumerate().filter(|(index, _)| index % jobs != job).map(|(_, case)| case);
                let excluded: Vec<String> = of_others.chain(&others).map(ToString::to_string).collect();
                Job::start(&self.wstest, reports.join(job.to_string()), url, &excluded)
            })
            .collect();
        let ended = holds_within(LIMIT, || running.iter_mut().all(Job::has_ended));
        assert!(ended, "the suite did not end within {LIMIT:?}; its reports are in {}", reports.display());
        running.iter().flat_map(Job::outcomes).collect()
    }
}

/// One wstest. Dropping it ends it.
struct Job {
    child: Child,
    reports: PathBuf,
}

impl Job {
    fn start(wstest: &Path, reports: PathBuf, url: &str, excluded: &[String]) -> Self {
        fs::create_dir_all(&reports).expect("a folder for the reports");
        let spec = reports.join("spec.json");
        let content = json!({
            "outdir": reports,
            "servers": [{"agent": "server", "url": url}],
            "cases": ["*"],
            "exclude-cases": excluded,
            "exclude-agent-cases": {},
        });
        fs::write(&spec, content.to_string()).expect("the specification for wstest");
        let log = File::create(reports.join("log")).expect("a file for what wstest says");
        let child = installation()
            .tied(wstest)
            .args(["-m", "fuzzingclient", "-s"])
            .arg(spec)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("stdout"))
            .stderr(log)
            .spawn()
            .expect("wstest");
        Self { child, reports }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wstest is our child").is_some()
    }

    /// What it has found out: it writes that at its end.
    fn outcomes(&self) -> Outcomes {
        let Some(Index { server }) = read(&self.reports.join("index.json")) else {
            let log = fs::read_to_string(self.reports.join("log")).unwrap_or_default();
            let last = log.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev();
            panic!("wstest ended without a report; its last words:\n{}", last.collect::<Vec<_>>().join("\n"));
        };
        server.into_iter().map(|(case, entry)| (case.parse().expect("a case"), self.outcome(entry))).collect()
    }

    fn outcome(&self, entry: Entry) -> Outcome {
        let details: Details = read(&self.reports.join(entry.reportfile)).unwrap_or_default();
        let words = [details.result, details.result_close].join(" ");
        Outcome {
            behavior: entry.behavior,
            close: entry.behavior_close,
            reason: words.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

/// The report of all cases.
#[derive(Deserialize)]
struct Index {
    server: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    behavior: String,
    behavior_close: String,
    reportfile: String,
}

/// The report of one case. It has more to it, which is not always Unicode.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    result: String,
    result_close: String,
}

impl Drop for Job {
    fn drop(&mut self) {
        // Both fail when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
