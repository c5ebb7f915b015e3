//! The last that an application hears of a session: one CLOSE or DISCONNECT for each that it has accepted, whatever ends it. The
//! client does not wait for that.

use super::effect::lines;
use super::outbox::Outbox;
use super::request::{Correspondence, Question};
use super::settings::Mode;
use crate::engine::LocalBoxFuture;
use crate::engine::application::loopback::{AskError, HttpAnswer};
use crate::engine::memory::Share;
use crate::wire::CloseFrame;
use crate::wire::websocket_events::WebSocketEvent;
use log::{debug, info, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// An answer that is being waited for.
pub type Asked = LocalBoxFuture<'static, Result<HttpAnswer, AskError>>;

/// How a session has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By a Close frame of the client or of the application; `None`: there is no code in it.
    Closed(Option<CloseFrame>),
    /// In any other way.
    Lost,
}

/// What is left to be said.
pub struct Farewell {
    pub session: u64,
    pub correspondence: Correspondence,
    /// A request that was on its way when it ended.
    pub asked: Option<Asked>,
    pub outbox: Outbox,
    /// What both take, for `WebSocketMemory`.
    pub held: Option<Share>,
    pub ending: Ending,
    /// The application does not answer: it is asked once more, and no more.
    pub is_hopeless: bool,
}

/// Those that are on their way, and those that were given up.
#[derive(Debug, Default)]
pub struct Farewells {
    pending: AtomicU64,
    given_up: AtomicU64,
    done: Notify,
}

impl Farewells {
    /// Says it, after what is on its way. To be called on an engine thread.
    pub fn say(self: &Arc<Self>, farewell: Farewell) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let counted = Counted(self.clone());
        tokio::task::spawn_local(async move {
            farewell.say(&counted.0).await;
        });
    }

    fn give_up(&self, session: u64, why: &AskError) {
        let count = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
        warn!("WS0325: session {session}: the application was not told of its end: {why} ({count} of them so far)");
    }

    /// Completes when all were said, or the time is over. The rest is lost.
    pub async fn end(&self, limit: Duration) {
        let all = async {
            loop {
                let done = self.done.notified();
                if self.pending.load(Ordering::Acquire) == 0 {
                    return;
                }
                done.await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            let left = self.pending.load(Ordering::Acquire);
            info!("WS0326: the engine ends: applications were not told of the end of {left} sessions");
        }
    }
}

/// One that is on its way, until dropped.
struct Counted(Arc<Farewells>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.done.notify_waiters();
        }
    }
}

impl Farewell {
    async fn say(mut self, farewells: &Farewells) {
        if let Some(asked) = self.asked.take() {
            self.take_in(asked.await);
        }
        let told = self.tell().await;
        // All of it is gone.
        drop(self.held.take());
        match told {
            Ok(answer) => {
                let status = answer.status;
                debug!("WS0327: session {}: the application was told of its end: {status}", self.session);
            }
            Err(why) => farewells.give_up(self.session, &why),
        }
    }

    /// The answer reaches nobody; but what it stores comes back with what follows.
    fn take_in(&mut self, answer: Result<HttpAnswer, AskError>) {
        match answer {
            Ok(answer) => {
                let accepted = answer.header("content-bytes-accepted").and_then(|count| count.parse().ok());
                let taken = self.outbox.accept(accepted);
                let stored = lines(&answer).map(|said| self.correspondence.set_meta(said.meta));
                debug!("WS0333: session {}: its last answer: {taken:?}, {stored:?}", self.session);
            }
            Err(AskError::NotSent(_)) => {}
            Err(_) => self.outbox.forget_offered(),
        }
    }

    async fn tell(&mut self) -> Result<HttpAnswer, AskError> {
        let last = match self.ending.clone() {
            Ending::Closed(frame) => WebSocketEvent::Close(frame),
            Ending::Lost => WebSocketEvent::Disconnect,
        };
        if self.correspondence.mode() == Mode::Events {
            let (events, replayed) = self.outbox.offer();
            let question = self.correspondence.events(events.iter().chain([&last]), replayed);
            let answer = self.ask(question).await?;
            // It has heard of the end, once. Nothing can come after that.
            let accepted = answer.header("content-bytes-accepted").and_then(|count| count.parse().ok());
            if self.outbox.accept(accepted).is_err() || self.outbox.held() > 0 {
                info!("WS0338: session {}: the application has left what its client said last undone", self.session);
            }
            return Ok(answer);
        }
        while let Some(event) = self.outbox.pop() {
            let question = self.correspondence.plain(event);
            // Where nobody answers, the end still is to be said.
            if self.ask(question).await.is_err() {
                break;
            }
        }
        let question = self.correspondence.plain(last);
        self.ask(question).await
    }

    async fn ask(&self, question: Question) -> Result<HttpAnswer, AskError> {
        if self.is_hopeless { question.ask_now().await } else { question.ask(self.session).await }
    }
}
