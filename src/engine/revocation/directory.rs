//! All threads of an engine, for whoever takes something back.

use super::marks::{Found, Marks};
use super::{Name, Revocation, clock};
use crate::engine::application::recheck::{Rechecks, Verdict};
use crate::engine::thread::ThreadCommand;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// How long sessions may take to say that they have done it: one that waits for a slow client is counted no more.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the sessions of all threads are found by their names.
#[derive(Default)]
pub struct Directory {
    /// They end with their handles, and are not kept by this.
    threads: Mutex<Vec<WeakUnboundedSender<ThreadCommand>>>,
    marks: Mutex<Marks>,
    rechecks: Arc<Rechecks>,
}

/// Where a session says that it was one of them. Who has it and drops it was none.
#[derive(Debug, Clone)]
pub struct Tally(UnboundedSender<()>);

impl Tally {
    pub(crate) fn new() -> (Tally, UnboundedReceiver<()>) {
        let (sender, receiver) = unbounded_channel();
        (Tally(sender), receiver)
    }

    pub(crate) fn count(&self) {
        // Whoever counted has gone.
        let _ = self.0.send(());
    }
}

impl Directory {
    /// There is a thread, which is told so.
    pub(crate) fn connect(&self, commands: WeakUnboundedSender<ThreadCommand>) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(commands);
    }

    /// Takes something back from all sessions whose handshakes began before that ([`clock`]), those included that are not there
    /// yet. How many were there.
    pub(crate) async fn revoke(&self, revocation: Revocation, before: u64) -> u64 {
        let revocation = Arc::new(revocation);
        // First, so that what begins meanwhile is caught by the one or by the other.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).add(&revocation, before, clock());
        let (tally, mut counted) = Tally::new();
        self.tell(|| ThreadCommand::Revoke(revocation.clone(), before, tally.clone()));
        drop(tally);
        let mut count = 0;
        let counting = async {
            while counted.recv().await.is_some() {
                count += 1;
            }
        };
        let _ = timeout(PATIENCE, counting).await;
        count
    }

    /// Those whose applications are asked again.
    pub(crate) fn rechecks(&self) -> &Arc<Rechecks> {
        &self.rechecks
    }

    /// This becomes of these sessions, on whichever threads they are.
    pub(crate) fn decide(&self, sessions: Vec<u64>, verdict: Verdict) {
        let sessions: Arc<[u64]> = sessions.into();
        self.tell(|| ThreadCommand::Decide(sessions.clone(), verdict.clone()));
    }

    fn tell(&self, command: impl Fn() -> ThreadCommand) {
        for thread in &*self.threads.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(thread) = thread.upgrade() {
                // One that has ended has no sessions.
                let _ = thread.send(command());
            }
        }
    }

    /// What was taken back since then from a session of these names that begins only now.
    pub(crate) fn marked(&self, names: &[Rc<Name>], id: u64, began: u64) -> Found {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).find(names, id, began, clock())
    }
}
