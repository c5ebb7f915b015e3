//! Servers and programs that are asked before a 101, each of which may keep so many workers of httpd waiting, and no more; and
//! for a short time it is remembered which of them did not answer.

use crate::engine::Rejection;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long one that has not answered is not asked. Then one at a time asks it, until it has answered.
const MEMORY: Duration = Duration::from_secs(5);
/// When one is forgotten that nobody has asked since.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Who waits beyond the bound does so for as long as somebody is answered within this time.
const STILL: Duration = Duration::from_millis(500);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Who waits with others: the workers of a child of httpd, or its children, where each is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crowd {
    pub group: u32,
    /// How many of it may wait for one target.
    pub limit: u32,
}

#[cfg(feature = "httpd")]
impl Crowd {
    /// With whom a worker of this child of httpd waits.
    pub(crate) fn of_this_child() -> Crowd {
        let group = if crate::apache::mpm::is_threaded() { std::process::id() } else { 0 };
        Crowd { group, limit: crate::front::signals::limit() }
    }
}

/// Why a target is not asked: answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// It has not answered lately.
    #[error("it did not answer {0} s ago and is not asked again yet")]
    Silent(u64),
    /// So many wait for it already.
    #[error("{0} requests wait for it already and none was answered (WebSocketEngineWait)")]
    Full(u32),
}

impl Busy {
    /// Of the target with this name.
    pub fn refuse(self, target: impl std::fmt::Display) -> Rejection {
        Rejection::Busy(format!("{target}: {self}"))
    }
}

/// What is known of the targets that are asked now or have not answered.
#[derive(Debug)]
pub struct Targets<K> {
    known: Mutex<HashMap<K, TargetState>>,
    /// How long one that has not answered is not asked.
    memory: Duration,
}

impl<K> Default for Targets<K> {
    fn default() -> Targets<K> {
        Targets { known: Mutex::default(), memory: MEMORY }
    }
}

#[derive(Debug, Default)]
struct TargetState {
    waiting: HashMap<u32, u32>,
    asked: usize,
    /// Since when somebody waits, and nobody was answered.
    still: Option<Instant>,
    answered: Option<Instant>,
    /// When it last did not answer, with no answer since.
    silent: Option<Instant>,
    probing: bool,
}

/// One who waits, until dropped.
struct WaitingSession<'a, K: Eq + Hash + Clone> {
    targets: &'a Targets<K>,
    key: &'a K,
    crowd: Crowd,
    since: Instant,
    /// Within the bound.
    counted: bool,
    probes: bool,
}

impl<K: Eq + Hash + Clone> Targets<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, TargetState>> {
        // Nothing in here panics half-way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a target; `is_silence` says of what comes of it whether it has not answered.
    ///
    /// # Errors
    /// It is not asked, or not waited for any longer, since too many wait for it.
    pub async fn ask<T>(
        &self,
        key: &K,
        crowd: Crowd,
        attempt: impl Future<Output = T>,
        is_silence: impl FnOnce(&T) -> bool,
    ) -> Result<T, Busy> {
        let mut waiting = self.begin(key, crowd)?;
        let mut attempt = pin!(attempt);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut attempt => break answer,
                () = tokio::time::sleep(LOOK), if !waiting.counted => waiting.count()?,
            }
        };
        waiting.end(is_silence(&answer));
        Ok(answer)
    }

    fn begin<'a>(&'a self, key: &'a K, crowd: Crowd) -> Result<WaitingSession<'a, K>, Busy> {
        let now = Instant::now();
        let mut targets = self.lock();
        let mut waiting = WaitingSession { targets: self, key, crowd, since: now, counted: false, probes: false };
        let target = targets.entry(key.clone()).or_default();
        if let Some(silent) = target.silent {
            let age = now - silent;
            if age < self.memory || target.probing {
                return Err(forget(waiting, Busy::Silent(age.as_secs())));
            }
            target.probing = true;
            waiting.probes = true;
        }
        if !target.admit(crowd) {
            if target.is_still(now) {
                target.probing &= !waiting.probes;
                return Err(forget(waiting, Busy::Full(crowd.limit)));
            }
        } else {
            waiting.counted = true;
        }
        target.asked += 1;
        target.still.get_or_insert(now);
        Ok(waiting)
    }
}

/// Nobody waits: nothing needs to be undone.
fn forget<K: Eq + Hash + Clone>(waiting: WaitingSession<'_, K>, busy: Busy) -> Busy {
    std::mem::forget(waiting);
    busy
}

impl TargetState {
    fn admit(&mut self, crowd: Crowd) -> bool {
        let count = self.waiting.entry(crowd.group).or_default();
        let is_within = *count < crowd.limit;
        *count += u32::from(is_within);
        is_within
    }

    fn is_still(&self, now: Instant) -> bool {
        self.still.is_some_and(|since| now - since > STILL)
    }
}

impl<K: Eq + Hash + Clone> WaitingSession<'_, K> {
    /// Who was too many may be one of those by now, and waits no longer where nobody is answered.
    fn count(&mut self) -> Result<(), Busy> {
        let now = Instant::now();
        let mut targets = self.targets.lock();
        let Some(target) = targets.get_mut(self.key) else { return Ok(()) };
        self.counted = target.admit(self.crowd);
        if self.counted || !target.is_still(now) { Ok(()) } else { Err(Busy::Full(self.crowd.limit)) }
    }

    fn end(self, is_silence: bool) {
        let now = Instant::now();
        if let Some(target) = self.targets.lock().get_mut(self.key) {
            if !is_silence {
                target.still = Some(now);
                target.answered = Some(now);
                target.silent = None;
            } else if target.answered.is_none_or(|answered| answered < self.since) {
                target.silent = Some(now);
            }
        }
    }
}

impl<K: Eq + Hash + Clone> Drop for WaitingSession<'_, K> {
    fn drop(&mut self) {
        let mut targets = self.targets.lock();
        let Some(target) = targets.get_mut(self.key) else { return };
        target.asked -= 1;
        target.probing &= !self.probes;
        if self.counted
            && let Some(count) = target.waiting.get_mut(&self.crowd.group)
        {
            *count -= 1;
            if *count == 0 {
                target.waiting.remove(&self.crowd.group);
            }
        }
        if target.asked == 0 {
            target.still = None;
            // What is known of one that nobody has asked for long is of no use.
            let now = Instant::now();
            let is_known = |target: &TargetState| target.silent.is_some_and(|silent| now - silent < FORGOTTEN);
            targets.retain(|_, target| target.asked > 0 || is_known(target));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::{Semaphore, watch};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    const CROWD: Crowd = Crowd { group: 1, limit: 2 };

    type Servers = Arc<Targets<&'static str>>;

    /// Asks one that gives no answer until the time is over.
    fn wait(targets: &Servers, crowd: Crowd, time: &watch::Sender<bool>) -> JoinHandle<Result<bool, Busy>> {
        let (targets, mut time) = (targets.clone(), time.subscribe());
        tokio::spawn(async move {
            let silence = async move { time.wait_for(|is_over| *is_over).await.is_ok() };
            targets.ask(&"a", crowd, silence, |is_silence| *is_silence).await
        })
    }

    async fn answer(targets: &Servers, key: &'static str) -> Result<u8, Busy> {
        targets.ask(&key, CROWD, std::future::ready(7), |_| false).await
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let (targets, time) = (Servers::default(), watch::channel(false).0);
        let others = Crowd { group: 2, ..CROWD };
        let crowds = [CROWD, CROWD, CROWD, CROWD, CROWD, others, others];
        let crowd = crowds.map(|crowd| wait(&targets, crowd, &time));
        while crowd.iter().filter(|task| task.is_finished()).count() < 3 {
            sleep(LOOK).await;
        }
        assert_eq!(wait(&targets, CROWD, &time).await.unwrap(), Err(Busy::Full(2)));
        // That it does not answer concerns no other one.
        assert_eq!(answer(&targets, "b").await, Ok(7));
        sleep(STILL).await;
        time.send_replace(true);
        let mut outcomes = Vec::new();
        for task in crowd {
            outcomes.push(task.await.unwrap());
        }
        let full = Err(Busy::Full(2));
        assert_eq!(outcomes, [Ok(true), Ok(true), full, full, full, Ok(true), Ok(true)]);
    }

    #[tokio::test]
    async fn one_that_did_not_answer_is_remembered() {
        let targets = Servers::new(Targets { memory: STILL, ..Targets::default() });
        let time = watch::channel(true).0;
        assert_eq!(wait(&targets, CROWD, &time).await.unwrap(), Ok(true));
        assert_eq!(answer(&targets, "a").await, Err(Busy::Silent(0)));
        sleep(STILL).await;
        // One at a time; who gives up lets the next one try.
        time.send_replace(false);
        let probe = wait(&targets, CROWD, &time);
        while !targets.lock()["a"].probing {
            tokio::task::yield_now().await;
        }
        assert!(matches!(answer(&targets, "a").await, Err(Busy::Silent(_))));
        probe.abort();
        assert!(probe.await.is_err());
        assert_eq!(answer(&targets, "a").await, Ok(7));
        assert_eq!(answer(&targets, "a").await, Ok(7));
        assert!(targets.lock().is_empty());
    }

    #[tokio::test]
    async fn who_answers_others_is_there() {
        let (targets, time) = (Servers::default(), watch::channel(false).0);
        let slow = wait(&targets, CROWD, &time);
        while targets.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(answer(&targets, "a").await, Ok(7));
        time.send_replace(true);
        assert_eq!(slow.await.unwrap(), Ok(true));
        assert_eq!(answer(&targets, "a").await, Ok(7));
    }

    #[tokio::test]
    async fn many_at_once_may_wait_for_one_that_answers() {
        let (targets, turn) = (Servers::default(), Arc::new(Semaphore::new(1)));
        let crowd: Vec<_> = (0..20)
            .map(|_| {
                let (targets, turn) = (targets.clone(), turn.clone());
                tokio::spawn(async move {
                    let slow = async {
                        let _turn = turn.acquire().await;
                        sleep(STILL / 10).await;
                    };
                    targets.ask(&"a", CROWD, slow, |()| false).await
                })
            })
            .collect();
        for task in crowd {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert!(targets.lock().is_empty());
    }
}
