//! A program's process group: started, watched, signalled, and gone when the program is.

use super::settings::EnvironmentVariable;
use crate::engine::programs;
use crate::engine::quota::Place;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, test_kill_process_group, waitid,
};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

/// How often it is looked whether a group is empty whose leader has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The groups of an engine that may have processes. Each number in it is that of a group of ours: it is taken out before the
/// system may give it to somebody else.
#[derive(Debug, Default)]
pub struct Groups {
    leaders: Mutex<HashSet<Pid>>,
    ended: Notify,
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashSet<Pid>> {
        // Nothing in here panics half-way.
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, leader: Pid, signal: Signal) {
        if self.lock().contains(&leader) {
            // It may be empty already.
            let _ = kill_process_group(leader, signal);
        }
    }

    fn end(&self, leader: Pid) {
        self.signal(leader, Signal::KILL);
        self.forget(leader);
    }

    fn forget(&self, leader: Pid) {
        self.lock().remove(&leader);
        self.ended.notify_waiters();
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Waits for their ends, now that their inputs are closed; tells those to end that have not after half of `limit`, and ends
    /// them after all of it.
    pub async fn terminate(&self, limit: Duration) {
        for signal in [Signal::TERM, Signal::KILL] {
            if tokio::time::timeout(limit / 2, self.empty()).await.is_ok() {
                return;
            }
            for leader in &*self.lock() {
                let _ = kill_process_group(*leader, signal);
            }
        }
    }

    async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// The program itself: the leader of its group.
#[derive(Debug)]
pub struct Leader {
    /// `None`: it was reaped.
    child: Option<Child>,
    pid: Pid,
    exit: Exit,
    groups: Arc<Groups>,
    /// Nothing is left of the group: its number may be somebody else's, of this engine even.
    is_over: bool,
    /// What it takes of quotas.
    _places: Vec<Place>,
}

/// How its end is noticed, before it is reaped: as long as it is not, its number is its own.
#[derive(Debug)]
enum Exit {
    Pidfd(AsyncFd<OwnedFd>),
    /// Where the system has no pidfd_open(2), or forbids it: a thread waits.
    Thread(watch::Receiver<bool>),
}

pub type Pipes = (ChildStdin, ChildStdout, ChildStderr);

impl Leader {
    /// Starts a program with these arguments in its own folder, with nothing but this environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        groups: &Arc<Groups>,
        words: &[String],
        environment: &[EnvironmentVariable],
        places: Vec<Place>,
    ) -> io::Result<(Leader, Pipes)> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = Path::new(program).parent().filter(|folder| !folder.as_os_str().is_empty());
        let variables = environment.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value)));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(folder.unwrap_or(Path::new("/")))
            .env_clear()
            .envs(variables)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, pid) = programs::start(|| {
            let child = command.spawn()?;
            let pid = Pid::from_child(&child);
            Ok(((child, pid), pid))
        })?;
        groups.lock().insert(pid);
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let exit = Exit::watch(pid);
        // From here on its end is seen to, whatever fails.
        let leader =
            |exit| Leader { child: Some(child), pid, exit, groups: groups.clone(), is_over: false, _places: places };
        match (exit, pipes) {
            (Ok(exit), Some(((stdin, stdout), stderr))) => Ok((leader(exit), (stdin, stdout, stderr))),
            (exit, _) => {
                drop(leader(Exit::Thread(watch::channel(true).1)));
                exit.and(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Completes when it has ended and is to be reaped. Dropping the future loses nothing.
    pub async fn exited(&self) {
        match &self.exit {
            // The readiness is not cleared: it stays so.
            Exit::Pidfd(pidfd) => drop(pidfd.readable().await),
            Exit::Thread(ended) => drop(ended.clone().wait_for(|ended| *ended).await),
        }
    }

    /// Signals its whole group.
    pub fn signal(&self, signal: Signal) {
        if !self.is_over {
            self.groups.signal(self.pid, signal);
        }
    }

    /// Takes note of its end, which [`Leader::exited`] has reported; what it has left of its group ends now.
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        // It keeps its number until the next line, and with it the group's.
        self.end();
        let child = self.child.take();
        child.map_or_else(|| Err(io::ErrorKind::NotFound.into()), |child| wait_for(child, self.pid))
    }

    /// As [`Leader::reap`], but gives the rest of the group, which has been told to end, this time for it.
    pub async fn reap_gently(&mut self, limit: Duration) {
        if let Some(child) = self.child.take() {
            let _ = wait_for(child, self.pid);
        }
        // The number is that of the group as long as the group has a process; numbers are not given out again at once.
        let empty = async {
            while test_kill_process_group(self.pid).is_ok() {
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(limit, empty).await {
            Ok(()) => {
                self.is_over = true;
                self.groups.forget(self.pid);
            }
            Err(_) => self.end(),
        }
    }

    /// What is left of the group is killed, once.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.groups.end(self.pid);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Its session has panicked, or its engine ends; else there is nothing to do.
        self.end();
        let Some(mut child) = self.child.take() else { return };
        match child.try_wait() {
            Ok(Some(_)) => programs::collected(self.pid),
            _ => {
                let pid = self.pid;
                std::thread::spawn(move || wait_for(child, pid));
            }
        }
    }
}

fn wait_for(mut child: Child, pid: Pid) -> io::Result<ExitStatus> {
    let status = child.wait();
    programs::collected(pid);
    status
}

impl Exit {
    fn watch(pid: Pid) -> io::Result<Exit> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => {
                #[expect(deprecated, reason = "nobody closes the descriptor of an OwnedFd while it is watched")]
                let watched = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
                Ok(Exit::Pidfd(watched))
            }
            Err(_) => Exit::watch_with_a_thread(pid),
        }
    }

    fn watch_with_a_thread(pid: Pid) -> io::Result<Exit> {
        let (ended, exit) = watch::channel(false);
        std::thread::Builder::new().name("ws-program".into()).spawn(move || {
            let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            // Any other failure means that it is no more.
            let _ = rustix::io::retry_on_intr(wait);
            ended.send_replace(true);
        })?;
        Ok(Exit::Thread(exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(groups: &Arc<Groups>, script: &str) -> (Leader, Pipes) {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        Leader::start(groups, &words, &[(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())], vec![]).unwrap()
    }

    #[tokio::test]
    async fn an_end_is_noticed_either_way() {
        let groups = Arc::default();
        for with_a_thread in [false, true] {
            let (mut leader, (stdin, _, _)) = start(&groups, "read line; exit 7");
            if with_a_thread {
                leader.exit = Exit::watch_with_a_thread(leader.pid).unwrap();
            }
            assert!(tokio::time::timeout(Duration::from_millis(50), leader.exited()).await.is_err());
            drop(stdin);
            leader.exited().await;
            leader.exited().await;
            assert_eq!(groups.count(), 1);
            assert_eq!(leader.reap().unwrap().code(), Some(7));
            assert_eq!(groups.count(), 0);
        }
    }

    #[tokio::test]
    async fn a_number_is_given_back_once() {
        let groups: Arc<Groups> = Arc::default();
        let (mut leader, _pipes) = start(&groups, "exit 0");
        leader.exited().await;
        leader.reap().unwrap();
        // The system gives it to another program of ours, while a client still takes what the first has said.
        groups.lock().insert(leader.pid);
        leader.signal(Signal::KILL);
        drop(leader);
        assert_eq!(groups.count(), 1);
    }

    #[tokio::test]
    async fn an_end_of_input_comes_before_a_signal() {
        let groups: Arc<Groups> = Arc::default();
        let (mut leader, (stdin, _stdout, _stderr)) = start(&groups, "read line; sleep 0.1; exit 7");
        drop(stdin);
        let end = async {
            leader.exited().await;
            leader.reap().unwrap().code()
        };
        let (_, code) = tokio::join!(groups.terminate(Duration::from_secs(60)), end);
        assert_eq!(code, Some(7));
    }

    #[tokio::test]
    async fn all_end_in_the_end() {
        let groups: Arc<Groups> = Arc::default();
        let (mut ignorant, (_stdin, stdout, _)) = start(&groups, "trap '' TERM; echo; while :; do sleep 1; done");
        let mut stdout = stdout;
        io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
        groups.terminate(Duration::from_millis(50)).await;
        ignorant.exited().await;
        ignorant.reap().unwrap();
        assert_eq!(groups.count(), 0);
        groups.terminate(Duration::from_secs(60)).await;
        // Dropped without a word, nothing stays either.
        let (leader, _pipes) = start(&groups, "sleep 1000");
        let pid = leader.pid;
        drop(leader);
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    }
}
