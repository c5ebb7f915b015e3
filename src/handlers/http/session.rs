//! A session: its client's messages become requests, one at a time, and their answers are done in the order in which the
//! application has said what they say.

use super::channels::{NamedBy, NotSubscribed, SessionChannels};
use super::effect::{ClientKeepAlive, ClientKeepAliveContent, Effect, Unusable, accepted};
use super::events::EventsDialect;
use super::farewell::{Asked, Ending, Farewell, Farewells};
use super::outbox::Outbox;
use super::plain;
use super::request::Correspondence;
use super::settings::{ChannelRules, Mode, RecheckRules};
use crate::channels::hub::Hub;
use crate::engine::application::loopback::{AskError, HttpAnswer};
use crate::engine::connection::{Closing, Received};
use crate::engine::summary::End;
use crate::engine::{Conn, LocalBoxFuture, MessageSession};
use crate::wire::frame::Control;
use crate::wire::{CloseCode, CloseFrame, Message, close};
use log::{info, warn};
use recheck::Rechecking;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

mod changes;
mod held;
mod recheck;

/// How often it is looked whether a client is still there that is not read.
const LOOK: Duration = Duration::from_secs(5);

/// A session that the application has accepted, before it runs.
pub struct HttpOpening {
    /// Taken when it runs.
    pub session: Option<HttpSession>,
    /// Whoever drops it before that leaves it to us to tell the application: httpd does not know that it was asked.
    pub is_ours: bool,
}

/// What a session is.
pub struct HttpSession {
    pub correspondence: Correspondence,
    pub dialect: EventsDialect,
    pub hub: Arc<Hub>,
    pub rules: ChannelRules,
    /// Channels that `WebSocketAuthorize` has named.
    pub given: Vec<String>,
    pub recheck: Option<RecheckRules>,
    pub farewells: Arc<Farewells>,
    /// What the application has said in accepting it.
    pub first: Vec<Effect>,
}

impl Drop for HttpOpening {
    fn drop(&mut self) {
        if let Some(HttpSession { correspondence, farewells, .. }) = self.session.take().filter(|_| self.is_ours) {
            farewells.say(Farewell {
                session: 0,
                correspondence,
                asked: None,
                outbox: Outbox::default(),
                held: None,
                ending: Ending::Lost,
                is_hopeless: false,
            });
        }
    }
}

impl MessageSession for HttpOpening {
    fn run(mut self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        let session = self.session.take();
        Box::pin(async {
            let Some(session) = session else { return close(CloseCode::Error, "internal error") };
            Box::pin(run(session, conn)).await
        })
    }

    fn takes_changes(&self) -> bool {
        true
    }
}

/// Why a session is over.
#[derive(Debug)]
enum Stop {
    /// [`Conn::end`] says it, or somebody else has asked for it.
    Closing,
    /// The application has said so.
    Close(CloseFrame),
    /// It has said that it knows of no such session: it is told of no end.
    Cut,
    /// It does not answer as it should.
    Failed(CloseFrame),
    /// It does not answer.
    Unanswered,
}

impl From<Closing> for Stop {
    fn from(_: Closing) -> Stop {
        Stop::Closing
    }
}

struct Running<'a> {
    conn: &'a mut Conn,
    correspondence: Correspondence,
    dialect: EventsDialect,
    channels: SessionChannels,
    outbox: Outbox,
    asked: Option<Asked>,
    /// Bytes of that, which are not in the outbox.
    asked_bytes: usize,
    /// What the engine counts for both.
    held: usize,
    /// Where the application is asked again at its own URL.
    recheck: Option<Box<Rechecking>>,
    /// It is told nothing more, and only asked whether the session may go on.
    is_detached: bool,
    timers: Timers,
}

/// What is to be done by the clock.
#[derive(Default)]
struct Timers {
    /// How long after an answer the application is asked again, and when that is.
    interval: Option<Duration>,
    poll: Option<Instant>,
    keep_alive: Option<(ClientKeepAlive, Instant)>,
    delayed: Option<(Message, Instant)>,
}

impl Timers {
    /// Waits for the first of it, or until then.
    async fn next(&self, other: Option<Instant>) {
        let due = [other, self.keep_alive.as_ref().map(|(_, at)| *at), self.delayed.as_ref().map(|(_, at)| *at)];
        match due.into_iter().flatten().min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => pending().await,
        }
    }
}

async fn run(session: HttpSession, conn: &mut Conn) -> CloseFrame {
    let HttpSession { correspondence, dialect, hub, rules, given, recheck, farewells, first } = session;
    let id = conn.id();
    let mut running = Running {
        conn,
        correspondence,
        dialect,
        channels: SessionChannels::new(hub, rules),
        outbox: Outbox::default(),
        asked: None,
        asked_bytes: 0,
        held: 0,
        recheck: recheck.map(|rules| Box::new(Rechecking::new(rules))),
        is_detached: false,
        timers: Timers::default(),
    };
    let stop = match running.begin(given, first).await {
        Err(stop) => stop,
        Ok(()) => running.live().await,
    };
    let held = running.hold_beyond();
    let Running { conn, correspondence, channels, outbox, asked, is_detached, .. } = running;
    drop(channels);
    let ending = match (&stop, conn.end()) {
        (Stop::Close(frame), _) => Ending::Closed(Some(frame.clone())),
        (Stop::Closing, Some(End::Client(frame))) => Ending::Closed(frame.clone()),
        _ => Ending::Lost,
    };
    let is_hopeless = matches!(stop, Stop::Unanswered);
    if !matches!(stop, Stop::Cut) && !is_detached {
        farewells.say(Farewell { session: id, correspondence, asked, outbox, held, ending, is_hopeless });
    }
    match stop {
        Stop::Close(frame) | Stop::Failed(frame) => frame,
        Stop::Unanswered => close(CloseCode::Error, "the application does not answer"),
        Stop::Cut => {
            // What it has said before counts.
            let _ = conn.flush().await;
            conn.abort();
            close(CloseCode::Normal, "")
        }
        Stop::Closing => close(CloseCode::Normal, ""),
    }
}

impl Running<'_> {
    async fn begin(&mut self, given: Vec<String>, first: Vec<Effect>) -> Result<(), Stop> {
        // What was taken back during the handshake is not begun with.
        while let Some(change) = self.conn.handle().take_change() {
            self.change(change).await?;
        }
        if !given.is_empty() {
            self.replace_channels(&given, NamedBy::Authorize).await;
        }
        self.do_all(first).await
    }

    async fn live(&mut self) -> Stop {
        loop {
            self.ask();
            self.note_held();
            match self.turn().await {
                Ok(()) => {}
                Err(stop) => return stop,
            }
        }
    }

    /// Waits for something, and does what it leads to.
    async fn turn(&mut self) -> Result<(), Stop> {
        let due = self.due();
        let answer = async {
            match &mut self.asked {
                Some(asked) => asked.await,
                None => pending().await,
            }
        };
        if !self.outbox.has_room() {
            let handle = self.conn.handle().clone();
            let change = poll_fn(|_| handle.take_change().map_or(Poll::Pending, Poll::Ready));
            tokio::select! {
                biased;
                answer = answer => {
                    self.asked = None;
                    Box::pin(self.answered(answer)).await?;
                }
                // It is woken for changes, too.
                () = self.conn.tend() => return Err(Stop::Closing),
                change = change => Box::pin(self.change(change)).await?,
                () = self.timers.next(due) => Box::pin(self.tick()).await?,
                () = tokio::time::sleep(LOOK) => {
                    if self.conn.notice_end() {
                        return Err(Stop::Closing);
                    }
                }
            }
            return Ok(());
        }
        tokio::select! {
            biased;
            answer = answer => {
                self.asked = None;
                Box::pin(self.answered(answer)).await?;
            }
            received = self.conn.receive() => match received.ok_or(Stop::Closing)? {
                Received::Message(message) if !self.is_detached => self.outbox.put(message),
                Received::Message(_) => {}
                Received::Change(change) => Box::pin(self.change(change)).await?,
            },
            () = self.timers.next(due) => Box::pin(self.tick()).await?,
        }
        Ok(())
    }

    /// Asks the application, where nothing is on its way and there is something to say.
    fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        if let Some(question) = self.recheck_due() {
            self.channels.forget_revoked();
            self.asked_bytes = 0;
            self.asked = Some(Box::pin(question.ask_as_recheck()));
            return;
        }
        if self.is_detached {
            return;
        }
        let is_polled = self.timers.poll.is_some_and(|at| at <= Instant::now());
        // What it was offered and has not taken waits for something new.
        if !self.outbox.has_news() && !is_polled {
            return;
        }
        let question = match self.correspondence.mode() {
            Mode::Plain => match self.outbox.pop() {
                Some(event) => self.correspondence.plain(event),
                None => return,
            },
            Mode::Events => {
                let (events, replayed) = self.outbox.offer();
                self.correspondence.events(events, replayed)
            }
        };
        self.timers.poll = None;
        self.channels.forget_revoked();
        self.asked_bytes = question.len();
        self.asked = Some(Box::pin(question.ask(self.conn.id())));
    }

    async fn answered(&mut self, answer: Result<HttpAnswer, AskError>) -> Result<(), Stop> {
        if self.recheck.as_mut().is_some_and(|recheck| recheck.ends()) {
            return self.rechecked(answer).await;
        }
        let id = self.conn.id();
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                if !matches!(why, AskError::NotSent(_)) {
                    self.outbox.forget_offered();
                }
                warn!("WS0328: session {id}: {why}: closed with 1011");
                return Err(Stop::Unanswered);
            }
        };
        let effects = match self.correspondence.mode() {
            Mode::Plain => plain::effects(answer),
            Mode::Events => self.dialect.answer(id, answer),
        };
        let accepted = effects.as_ref().ok().and_then(|effects| accepted(effects));
        let taken = self.outbox.accept(accepted);
        let effects = effects.map_err(|why| failed(id, why))?;
        taken.map_err(|why| failed(id, broken(why)))?;
        self.do_all(effects).await?;
        self.poll_later();
        Ok(())
    }

    async fn do_all(&mut self, effects: Vec<Effect>) -> Result<(), Stop> {
        for effect in effects {
            self.do_one(effect).await?;
        }
        Ok(())
    }

    async fn do_one(&mut self, effect: Effect) -> Result<(), Stop> {
        let id = self.conn.id();
        match effect {
            Effect::Send(message) => self.send(message).await?,
            Effect::Ping(content) => self.conn.send_control(Control::Ping, &content).await?,
            Effect::Pong(content) => self.conn.send_control(Control::Pong, &content).await?,
            Effect::Subscribe(name) => {
                if let Err(why) = self.channels.subscribe(self.conn, &name, NamedBy::Handler).await {
                    tell_of_channel(id, &name, &why);
                }
            }
            Effect::Unsubscribe(name) => self.channels.unsubscribe(&name).await,
            Effect::Channels(names) => self.replace_channels(&names, NamedBy::Handler).await,
            Effect::Recheck(interval) => {
                if let Some(recheck) = &mut self.recheck {
                    recheck.set_interval(interval);
                }
            }
            Effect::Member(member) => self.channels.set_member(&member),
            Effect::Meta(meta) => self.correspondence.set_meta(meta).map_err(|why| failed(id, broken(why)))?,
            Effect::KeepAlive(keep_alive) => {
                self.timers.keep_alive = keep_alive.map(|keep_alive| {
                    let at = Instant::now() + keep_alive.after;
                    (keep_alive, at)
                });
            }
            Effect::SendDelayed(message, after) => self.timers.delayed = Some((message, Instant::now() + after)),
            Effect::FlushDelayed => {
                if let Some((message, _)) = self.timers.delayed.take() {
                    self.send(message).await?;
                }
            }
            Effect::Detach => {
                self.is_detached = true;
                self.outbox.clear();
                (self.timers.interval, self.timers.poll) = (None, None);
            }
            Effect::Accepted(_) => {}
            Effect::Interval(interval) => {
                self.timers.interval = interval;
                if interval.is_none() {
                    self.timers.poll = None;
                }
            }
            Effect::Close(frame) => return Err(Stop::Close(frame)),
            Effect::Cut => return Err(Stop::Cut),
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), Stop> {
        if let Some((keep_alive, at)) = self.timers.keep_alive.as_mut().filter(|(keep_alive, _)| !keep_alive.always) {
            *at = Instant::now() + keep_alive.after;
        }
        Ok(self.conn.send(message).await?)
    }

    /// Does what the clock says is due. The application is asked later.
    async fn tick(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if let Some((message, _)) = self.timers.delayed.take_if(|(_, at)| *at <= now) {
            self.send(message).await?;
        }
        if let Some((keep_alive, at)) = self.timers.keep_alive.as_mut().filter(|(_, at)| *at <= now) {
            *at = now + keep_alive.after;
            match keep_alive.what.clone() {
                ClientKeepAliveContent::Message(message) => self.conn.send(message).await?,
                ClientKeepAliveContent::Ping(content) => self.conn.send_control(Control::Ping, &content).await?,
                ClientKeepAliveContent::Pong(content) => self.conn.send_control(Control::Pong, &content).await?,
            }
        }
        Ok(())
    }
}

fn tell_of_channel(session: u64, name: &str, why: &NotSubscribed) {
    info!("WS0329: session {session}: it is not subscribed to {name:?}: {why}");
}

fn broken(why: impl ToString) -> Unusable {
    Unusable { why: why.to_string(), close: close(CloseCode::Error, "the application failed") }
}

/// An answer that cannot be used, in the log.
fn failed(session: u64, Unusable { why, close }: Unusable) -> Stop {
    let code = u16::from(close.code);
    if close.code == CloseCode::Error {
        warn!("WS0330: session {session}: {why}: closed with {code}");
    } else {
        info!("WS0331: session {session}: {why}: closed with {code}");
    }
    Stop::Failed(close)
}
