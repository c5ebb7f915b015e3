//! The application is asked again, at its own URL, whether the session may go on. It is one more of the session's requests: they are
//! one at a time, and have numbers. With events it is one without any, as `Keep-Alive-Interval` has it, and its answer may have some.

use super::{Running, Stop, failed};
use crate::engine::application::loopback::{AskError, HttpAnswer};
use crate::engine::application::recheck::{FIRST_WAIT, LONGEST_WAIT, due_in, tell};
use crate::handlers::http::effect::{Effect, Unusable, lines};
use crate::handlers::http::plain;
use crate::handlers::http::request::Question;
use crate::handlers::http::settings::{Mode, RecheckRules};
use crate::wire::{CloseCode, close};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Rechecking {
    interval: Option<Duration>,
    grace: Duration,
    /// When it is asked next.
    at: Option<Instant>,
    /// It is being asked.
    is_asked: bool,
    /// Since when it gives no answer that counts, and how long was waited last.
    failing: Option<(Instant, Duration)>,
}

impl Rechecking {
    pub(super) fn new(rules: RecheckRules) -> Rechecking {
        let RecheckRules { interval, grace } = rules;
        let at = interval.map(due_in);
        Rechecking { interval, grace, at, is_asked: false, failing: None }
    }

    /// The application says how often it wants to be asked.
    pub(super) fn set_interval(&mut self, interval: Option<Duration>) {
        if self.interval != interval {
            self.interval = interval;
            self.at = interval.map(due_in);
        }
    }

    /// Has it asked now. False where it never is.
    pub(super) fn ask_now(&mut self) -> bool {
        if self.interval.is_some() {
            self.at = Some(Instant::now());
        }
        self.interval.is_some()
    }

    /// True for the answer to a recheck.
    pub(super) fn ends(&mut self) -> bool {
        std::mem::take(&mut self.is_asked)
    }

    /// Whoever has wanted it meanwhile comes first.
    fn next_after(&mut self, wait: Duration) {
        self.at.get_or_insert(due_in(wait));
    }
}

impl Running<'_> {
    /// When the application is to be asked again; not while it is asked anything.
    pub(super) fn due(&self) -> Option<Instant> {
        let recheck = self.recheck.as_deref().and_then(|recheck| recheck.at);
        recheck.into_iter().chain(self.timers.poll).min().filter(|_| self.asked.is_none())
    }

    /// An answer has come: it is asked again after its interval, unless it is to be before that.
    pub(super) fn poll_later(&mut self) {
        if !self.is_detached {
            self.timers.poll = self.timers.poll.or(self.timers.interval.map(|interval| Instant::now() + interval));
        }
    }

    /// It is asked again now. False where it has no interval, and so is not asked again.
    pub(super) fn poll_now(&mut self) -> bool {
        let is_asked = self.timers.interval.is_some() && !self.is_detached;
        if is_asked {
            self.timers.poll = Some(Instant::now());
        }
        is_asked
    }

    /// The question, where it is time for it.
    pub(super) fn recheck_due(&mut self) -> Option<Question> {
        let recheck = self.recheck.as_mut()?;
        recheck.at.take_if(|at| *at <= Instant::now())?;
        recheck.is_asked = true;
        Some(self.correspondence.recheck())
    }

    /// It was answered. In plain mode a body is for nobody.
    pub(super) async fn rechecked(&mut self, answer: Result<HttpAnswer, AskError>) -> Result<(), Stop> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return self.recheck_failed(&why.to_string()),
        };
        let status = answer.status;
        let user = lines(&answer).ok().and_then(|said| said.user);
        let mode = self.correspondence.mode();
        // Where it refuses, it says so as in the other mode.
        let understood = match mode {
            Mode::Events if (200..300).contains(&status) => self.dialect.answer(self.conn.id(), answer),
            _ => plain::effects(answer),
        };
        match understood {
            Ok(mut effects) => {
                if user.is_some() && user.as_deref() != self.conn.spec().user() {
                    let close = close(CloseCode::Policy, "another user");
                    return Err(failed(self.conn.id(), Unusable { why: "its user is another now".into(), close }));
                }
                effects.retain(|effect| mode == Mode::Events || !matches!(effect, Effect::Send(_)));
                if let Some(recheck) = &mut self.recheck {
                    recheck.failing = None;
                    if let Some(interval) = recheck.interval {
                        recheck.next_after(interval);
                    }
                }
                self.do_all(effects).await?;
                self.poll_later();
                Ok(())
            }
            Err(unusable) if matches!(status, 300..=399 | 401 | 403 | 404 | 410) => {
                Err(failed(self.conn.id(), unusable))
            }
            Err(Unusable { why, .. }) => self.recheck_failed(&why),
        }
    }

    /// The session goes on, for as long as the application may give no answer.
    fn recheck_failed(&mut self, why: &str) -> Result<(), Stop> {
        tell(&why);
        let Some(recheck) = &mut self.recheck else { return Ok(()) };
        let now = Instant::now();
        let (since, wait) = recheck.failing.map_or((now, FIRST_WAIT), |(since, wait)| (since, wait * 2));
        if now - since >= recheck.grace {
            let why = format!("rechecks have failed for {:?}: {why}", recheck.grace);
            let close = close(CloseCode::Error, "the application does not answer");
            return Err(failed(self.conn.id(), Unusable { why, close }));
        }
        let wait = wait.min(LONGEST_WAIT);
        recheck.failing = Some((since, wait));
        // At its end it is asked for the last time.
        let last = since + recheck.grace;
        recheck.at.get_or_insert(due_in(wait).min(last));
        Ok(())
    }
}
