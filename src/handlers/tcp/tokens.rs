//! The file of `WebSocketTcpTargets`: the targets that a client may choose from, by names that only it may know.
//!
//! Its lines are `name: host:port`, or with another form of [`Target`]; empty ones and comments (`#`) are passed over. It is
//! the format of websockify's token files. It is read again when it has changed.

use super::target::Target;
use crate::engine::Refused;
use log::{info, warn};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that was changed so recently may be changed again without getting another time.
const FRESH: Duration = Duration::from_secs(3);

/// The files that were asked for, as they were read last.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<PathBuf, Read>>);

#[derive(Debug)]
struct Read {
    stamp: Stamp,
    /// It cannot change without another stamp.
    settled: bool,
    targets: HashMap<String, Target>,
}

/// What tells two states of a file apart: device, inode, size, and when it was changed, in whichever way.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(file: &Metadata) -> Stamp {
    (file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec())
}

fn is_settled(file: &Metadata, now: SystemTime) -> bool {
    let changed = u64::try_from(file.ctime()).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    changed.and_then(|changed| now.duration_since(changed).ok()).is_some_and(|age| age > FRESH)
}

impl Tokens {
    /// What `token` stands for. Reads the file if it has changed, so it may take as long as the disk does.
    ///
    /// # Errors
    /// 404: there is no such token; 500: the file cannot be read.
    pub fn find(&self, file: &Path, token: &str) -> Result<Target, Refused> {
        self.find_at(SystemTime::now(), file, token)
    }

    fn find_at(&self, now: SystemTime, file: &Path, token: &str) -> Result<Target, Refused> {
        // Nothing in here panics half-way.
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unreadable = |e| Refused { status: 500, reason: format!("{} cannot be read: {e}", file.display()) };
        let facts = fs::metadata(file).map_err(unreadable)?;
        let known = files.get(file);
        let is_current = known.is_some_and(|read| read.settled && read.stamp == stamp(&facts));
        if !is_current {
            let text = fs::read_to_string(file).map_err(unreadable)?;
            let is_other = known.is_none_or(|read| read.stamp != stamp(&facts));
            let targets = parse(&text, |line, why| {
                if is_other {
                    warn!("WS0141: {} line {line} is ignored: {why}", file.display());
                }
            });
            if is_other {
                info!("WS0142: {} has {} targets", file.display(), targets.len());
            }
            let read = Read { stamp: stamp(&facts), settled: is_settled(&facts, now), targets };
            files.insert(file.to_owned(), read);
        }
        let target = files.get(file).and_then(|read| read.targets.get(token)).cloned();
        target.ok_or_else(|| Refused { status: 404, reason: format!("{} has no such token", file.display()) })
    }
}

/// The targets in a file's text; of a name that is there twice, the last. `wrong` hears of lines that are none, by number.
fn parse(text: &str, mut wrong: impl FnMut(usize, &str)) -> HashMap<String, Target> {
    let mut targets = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The name may have colons in it, but no blank behind one.
        let cut = line.match_indices(':').find(|(at, _)| line[at + 1..].starts_with(char::is_whitespace));
        let Some((at, _)) = cut else {
            wrong(number, "it is not \"name: host:port\"");
            continue;
        };
        match Target::parse(line[at + 1..].trim_start()) {
            _ if at == 0 => wrong(number, "it has no name"),
            Ok(target) => {
                targets.insert(line[..at].to_owned(), target);
            }
            Err(why) => wrong(number, &why),
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_targets() {
        let mut wrong = Vec::new();
        let text = "# desks\n\nann: localhost:5901\r\n  a:b:\t[::1]:5902 \nsock: unix_socket:/run/x\nann: localhost:5903\n\
                    localhost:5904\n: localhost:1\nbob: localhost\n";
        let targets = parse(text, |line, _| wrong.push(line));
        let target = |name: &str| targets[name].to_string();
        assert_eq!((target("ann"), target("a:b")), ("localhost:5903".into(), "[::1]:5902".into()));
        assert_eq!(target("sock"), "unix:/run/x");
        assert_eq!((targets.len(), wrong), (3, vec![7, 8, 9]));
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("targets");
        let tokens = Tokens::default();
        let port_at = |now, token: &str| match tokens.find_at(now, &path, token) {
            Ok(Target::Port(_, port)) => Ok(port),
            Ok(other) => panic!("{other}"),
            Err(refused) => Err(refused.status),
        };
        let port = |token: &str| port_at(SystemTime::now(), token);
        assert_eq!(port("a"), Err(500));
        fs::write(&path, "a: h:1\n").unwrap();
        assert_eq!((port("a"), port("b"), port("")), (Ok(1), Err(404), Err(404)));
        // Of the same size, and within the same tick of the clock, perhaps.
        fs::write(&path, "a: h:2\n").unwrap();
        assert_eq!(port("a"), Ok(2));
        // When it has not changed for a while, what was read is remembered.
        let later = SystemTime::now() + Duration::from_secs(60);
        assert_eq!(port_at(later, "a"), Ok(2));
        tokens.0.lock().unwrap().get_mut(&path).unwrap().targets.clear();
        assert_eq!(port_at(later, "a"), Err(404));
        fs::write(directory.path().join("new"), "a: h:4\n").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_eq!(port_at(later, "a"), Ok(4));
        fs::remove_file(&path).unwrap();
        assert_eq!(port("a"), Err(500));
    }
}
