//! Rechecks: the application is asked again whether sessions may go on. Sessions for which the question would be the same share
//! it. And the end of sessions that may last only so long.
//!
//! A group has one task, on the thread of whoever was its first. Sessions without a recheck and without an end have no part in it.

use super::answer::{Answer, BadAnswer};
use super::loopback::{self, HttpAnswer, Inquiry, Template};
use super::queue::RequestQueue;
use super::{ApplicationSpec, Recheck, reserved, store};
use crate::engine::revocation::{Directory, clock};
use crate::wire::{CloseCode, CloseFrame, close};
use hyper::Method;
use log::{debug, info, warn};
use ring::digest::{Context, SHA256};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of an answer's body, which is thrown away.
const MAX_BODY: usize = 1 << 20;
/// The first wait after a failure; each is twice as long as the one before, up to the longest.
pub(crate) const FIRST_WAIT: Duration = Duration::from_secs(5);
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(80);

/// The length of the times at whose ends rechecks are made.
const LONGEST_TICK: Duration = Duration::from_secs(1);

type Key = [u8; 32];

/// What becomes of sessions.
#[derive(Debug, Clone)]
pub enum Verdict {
    Close(CloseFrame),
    /// They go on, with these rights.
    Rights(Arc<Answer>),
}

/// The groups of an engine.
#[derive(Default)]
pub(crate) struct Rechecks(Mutex<HashMap<Key, Weak<Group>>>);

/// Sessions for which the application is asked at once.
pub(crate) struct Group {
    state: Mutex<State>,
    /// There is something to do before its time.
    asked: Notify,
    ends_changed: Notify,
}

struct State {
    /// By their numbers; each with its Connection-Id, and its end.
    members: HashMap<u64, (String, Option<Instant>)>,
    /// Of the first, with the Meta of the last answer.
    spec: ApplicationSpec,
    client: String,
    user: Option<String>,
    /// Somebody wants it asked now.
    is_wanted: bool,
    /// When the last question began ([`clock`]).
    asked_at: u64,
}

impl Rechecks {
    /// A session begins; to be called on its thread. `None`: its application is not asked again, and it has no end.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: u64,
        spec: &ApplicationSpec,
        client: &str,
        user: Option<&str>,
        directory: &Arc<Directory>,
    ) -> Option<Arc<Group>> {
        if spec.recheck.is_none() && spec.expires.is_none() {
            return None;
        }
        let member = (spec.connection.clone(), spec.expires.map(|expires| Instant::now() + expires));
        let key = key(spec);
        let mut groups = self.lock();
        if let Some(group) = groups.get(&key).and_then(Weak::upgrade) {
            group.lock().members.insert(id, member);
            group.ends_changed.notify_one();
            return Some(group);
        }
        let state = State {
            members: HashMap::from([(id, member)]),
            spec: spec.clone(),
            client: client.to_owned(),
            user: user.map(str::to_owned),
            is_wanted: false,
            asked_at: 0,
        };
        let group = Arc::new(Group { state: Mutex::new(state), asked: Notify::new(), ends_changed: Notify::new() });
        groups.insert(key, Arc::downgrade(&group));
        tokio::task::spawn_local(run(group.clone(), key, self.clone(), directory.clone()));
        Some(group)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<Group>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a group that nobody is in any more. False where somebody is.
    fn remove(&self, key: &Key, group: &Group) -> bool {
        // Who comes does so under this lock.
        let mut groups = self.lock();
        let is_empty = group.lock().members.is_empty();
        if is_empty {
            groups.remove(key);
        }
        is_empty
    }
}

/// Sessions with the same key share a request: with equal URL, Cookie, Authorization and Meta, and on equal terms.
fn key(spec: &ApplicationSpec) -> Key {
    let mut digest = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_ne_bytes());
        digest.update(bytes);
    };
    add(spec.authorize.as_deref().unwrap_or_default().as_bytes());
    for wanted in ["host", "cookie", "authorization"] {
        for (_, value) in spec.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)) {
            add(value);
        }
        add(wanted.as_bytes());
    }
    for (name, value) in &spec.meta {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(format!("{:?} {:?} {}", spec.recheck, spec.here, spec.secure).as_bytes());
    let mut key = Key::default();
    key.copy_from_slice(digest.finish().as_ref());
    key
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session ends.
    pub(crate) fn leave(&self, id: u64) {
        let mut state = self.lock();
        state.members.remove(&id);
        if state.members.is_empty() {
            self.ends_changed.notify_one();
        }
    }

    /// Has the application asked, unless it was since that time ([`clock`]): sessions of several threads are told one by one.
    /// False where it is never asked.
    pub(crate) fn ask(&self, since: u64) -> bool {
        let mut state = self.lock();
        let is_asked = state.spec.authorize.is_some() && state.spec.recheck.is_some();
        state.is_wanted |= is_asked && state.asked_at < since;
        self.asked.notify_one();
        is_asked
    }

    /// A question begins: whoever has wanted one by now gets its answer.
    fn begin(&self) {
        let mut state = self.lock();
        state.is_wanted = false;
        state.asked_at = clock();
    }

    fn all(&self) -> Vec<u64> {
        self.lock().members.keys().copied().collect()
    }

    fn recheck(&self) -> Option<Recheck> {
        let state = self.lock();
        state.spec.recheck.filter(|_| state.spec.authorize.is_some())
    }

    /// What the application is asked.
    fn inquiry(&self) -> Result<Inquiry, Failure> {
        let state = self.lock();
        let spec = &state.spec;
        let (here, url) = spec.here.as_ref().zip(spec.authorize.as_deref()).ok_or(Failure::NoWay)?;
        let mut headers = spec.headers.clone();
        headers.retain(|(name, _)| !reserved::is_of_the_upgrade(name));
        let mut template = Template::new(here, url, &headers, &state.client, spec.secure)?;
        for (name, value) in &spec.meta {
            template.set(&format!("{}{name}", reserved::META), value)?;
        }
        template.set(reserved::EVENT, "recheck")?;
        if let (1, Some((connection, _))) = (state.members.len(), state.members.values().next()) {
            template.set(reserved::CONNECTION_ID, connection)?;
        }
        Ok(template.inquiry(Method::GET, [], bytes::Bytes::new()))
    }

    /// Takes over what concerns the next question; what becomes of the sessions, unless all is as it was.
    fn take_over(&self, answer: Answer) -> Result<Option<Verdict>, Failure> {
        if let Some(frame) = answer.close {
            return Ok(Some(Verdict::Close(frame)));
        }
        let mut state = self.lock();
        if !state.spec.says_channels
            && (answer.channels.is_some() || answer.allowed.is_some() || answer.rights.is_some())
        {
            return Err(Failure::NoPrefix);
        }
        if answer.user.is_some() && answer.user != state.user {
            return Ok(Some(Verdict::Close(close(CloseCode::Policy, "another user"))));
        }
        match (answer.recheck, &mut state.spec.recheck) {
            (Some(None), recheck) => *recheck = None,
            (Some(Some(interval)), Some(recheck)) => recheck.interval = interval,
            _ => {}
        }
        store(&mut state.spec.meta, answer.meta.clone());
        if let Some(expires) = answer.expires {
            let end = Some(Instant::now() + expires);
            state.members.values_mut().for_each(|(_, ends)| *ends = end);
            self.ends_changed.notify_one();
        }
        Ok(says_something(&answer).then(|| Verdict::Rights(Arc::new(answer))))
    }

    fn take_expired(&self) -> (Vec<u64>, Option<Instant>) {
        let now = Instant::now();
        let mut state = self.lock();
        let ends = |end: &Option<Instant>| end.is_some_and(|end| end <= now);
        let expired = state.members.iter().filter(|(_, (_, end))| ends(end)).map(|(id, _)| *id).collect();
        // Each is told once; it leaves when it has ended.
        state.members.values_mut().filter(|(_, end)| ends(end)).for_each(|(_, end)| *end = None);
        let next = state.members.values().filter_map(|(_, end)| *end).min();
        (expired, next)
    }
}

async fn run(group: Arc<Group>, key: Key, groups: Arc<Rechecks>, directory: Arc<Directory>) {
    tokio::select! {
        () = end_in_time(&group, &key, &groups, &directory) => {}
        () = ask_again(&group, &directory) => {}
    }
}

/// Ends sessions at their time; completes when there are none any more.
async fn end_in_time(group: &Group, key: &Key, groups: &Rechecks, directory: &Directory) {
    loop {
        let (expired, next) = group.take_expired();
        if !expired.is_empty() {
            directory.decide(expired, Verdict::Close(close(CloseCode::Policy, "expired")));
        }
        if groups.remove(key, group) {
            return;
        }
        match next {
            Some(next) => {
                let _ = tokio::time::timeout_at(next, group.ends_changed.notified()).await;
            }
            None => group.ends_changed.notified().await,
        }
    }
}

async fn ask_again(group: &Group, directory: &Directory) {
    let mut failing: Option<(Instant, Duration)> = None;
    loop {
        let due = match (group.recheck(), failing) {
            (None, _) => None,
            (Some(recheck), None) => Some(due_in(recheck.interval)),
            // At its end it is asked for the last time.
            (Some(recheck), Some((since, wait))) => Some(due_in(wait).min(since + recheck.grace)),
        };
        await_turn(group, due).await;
        group.begin();
        let Some(recheck) = group.recheck() else { continue };
        match ask(group).await {
            Ok(verdict) => {
                failing = None;
                if let Some(verdict) = verdict {
                    directory.decide(group.all(), verdict);
                }
            }
            Err(why) => {
                let (since, wait) = failing.map_or((Instant::now(), FIRST_WAIT), |(since, wait)| (since, wait * 2));
                failing = Some((since, wait.min(LONGEST_WAIT)));
                tell(&why);
                if since.elapsed() >= recheck.grace {
                    let sessions = group.all();
                    info!(
                        "WS0350: {} sessions are closed: rechecks have failed for {:?}: {why}",
                        sessions.len(),
                        recheck.grace
                    );
                    directory
                        .decide(sessions, Verdict::Close(close(CloseCode::Error, "the application does not answer")));
                    failing = None;
                }
            }
        }
    }
}

/// Waits until then, or until somebody wants it asked.
async fn await_turn(group: &Group, due: Option<Instant>) {
    let wanted = async {
        while !group.lock().is_wanted {
            group.asked.notified().await;
        }
    };
    match due {
        Some(due) => {
            let _ = tokio::time::timeout_at(due, wanted).await;
        }
        None => wanted.await,
    }
}

/// Why nobody knows what the application says.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("this httpd cannot be asked where the handshake came in")]
    NoWay,
    #[error(transparent)]
    NoAnswer(#[from] loopback::AskError),
    #[error("status {0}")]
    Status(u16),
    #[error("an .htaccess file has chosen it, so it may say something of channels only below a WebSocketChannelPrefix")]
    NoPrefix,
    #[error(transparent)]
    Bad(#[from] BadAnswer),
}

async fn ask(group: &Group) -> Result<Option<Verdict>, Failure> {
    // What was there when its turn comes is asked.
    let turn = RequestQueue::common().recheck_turn().await;
    let inquiry = group.inquiry()?;
    let answer = loopback::ask(&inquiry, MAX_BODY).await?;
    drop(turn);
    let HttpAnswer { status, headers, .. } = &answer;
    let said = Answer::parse(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    match status {
        200..=299 => group.take_over(said?),
        300..=399 | 401 | 403 | 404 | 410 => {
            // An error page says what it wants.
            let frame = said.ok().and_then(|said| said.close);
            Ok(Some(Verdict::Close(frame.unwrap_or_else(|| close(CloseCode::Policy, "not authorized any more")))))
        }
        status => Err(Failure::Status(*status)),
    }
}

/// Of the session itself: most answers do not, and it need not be woken for them.
fn says_something(answer: &Answer) -> bool {
    let Answer { channels, allowed, rights, member, recheck, meta, .. } = answer;
    channels.is_some()
        || allowed.is_some()
        || rights.is_some()
        || member.is_some()
        || recheck.is_some()
        || !meta.is_empty()
}

/// Once a minute for all groups, at a level that is shown.
pub(crate) fn tell(why: &dyn std::fmt::Display) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = 1 + crate::engine::revocation::clock() / 60_000_000;
    if LAST.swap(now, Ordering::Relaxed) == now {
        debug!("WS0352: a recheck failed: {why}");
    } else {
        warn!("WS0351: a recheck failed, its sessions go on for now: {why} (said once a minute)");
    }
}

/// When it is time for what is due in about `time`: a fifth more or less, by chance, so that those who came together are not asked
/// about together. All that is due within a second is due at its end: engine, httpd and application wake up once for it.
pub(crate) fn due_in(time: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let (start, chance) = (*START, RandomState::new().hash_one(0) as f64 / u64::MAX as f64);
    let at = Instant::now() + time.mul_f64(0.8 + 0.4 * chance);
    let tick = LONGEST_TICK.min(time / 10).as_nanos().max(1);
    let begun = (at - start).as_nanos() % tick;
    at + Duration::from_nanos((tick - begun) as u64)
}

#[cfg(test)]
mod tests;
