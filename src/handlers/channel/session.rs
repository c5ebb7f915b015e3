//! One client of the channel handler, from its first subscription to its end.

use crate::channels::Id;
use crate::channels::call::{self, Subscription, is_name};
use crate::channels::hub::{Begin, Hub, UNKNOWN};
use crate::channels::protocol::v1::{self, Code, Payload, Problem, Request, Say, Wish};
use crate::channels::publication::{Dialect, View};
use crate::channels::shard::{Local, Presence, Subscriber};
use crate::engine::conn::Closing;
use crate::engine::{Conn, Refused};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of kept messages that are taken from the store at a time.
const PAGE: usize = 64 * 1024;

/// Where a subscription is to begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Since {
    /// With the next message.
    Now,
    /// With all that is kept.
    Kept,
    /// After this message, which the client knows.
    Id(Id),
    /// After a message whose id is none: what the client knows cannot be told.
    Unknown,
}

impl Since {
    /// What a client has said: nothing, "*", or an id.
    pub fn of(text: Option<&str>) -> Since {
        match text {
            None | Some("") => Since::Now,
            Some("*") => Since::Kept,
            Some(id) => id.parse().map_or(Since::Unknown, Since::Id),
        }
    }
}

/// Why a session goes no further.
enum Stop {
    /// It is closing already.
    Closing,
    /// With this frame.
    Close(CloseFrame),
}

impl From<Closing> for Stop {
    fn from(_: Closing) -> Stop {
        Stop::Closing
    }
}

/// A subscription of this connection, until dropped.
struct Subscribed {
    hub: Arc<Hub>,
    local: Rc<Local>,
    channel: Arc<str>,
    key: usize,
    member: Option<Arc<str>>,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.local.remove(&self.channel, self.key);
        self.hub.leave(self.local.place(), &self.channel, self.member.as_deref());
    }
}

struct Session<'a> {
    conn: &'a mut Conn,
    hub: &'a Arc<Hub>,
    local: Rc<Local>,
    dialect: Dialect,
    subscription: Box<Subscription>,
    member: Option<Arc<str>>,
    subscribed: HashMap<Arc<str>, Subscribed>,
}

/// Runs a session.
pub async fn run(hub: &Arc<Hub>, conn: &mut Conn) -> CloseFrame {
    let settings = conn.take_settings();
    let Ok(mut subscription) = postcard::from_bytes::<Subscription>(&settings) else {
        return close(CloseCode::Error, "no subscription");
    };
    drop(settings);
    let dialect = Dialect::of(conn.spec().protocol.as_deref());
    let member = subscription.member.take().map(Arc::from);
    let since = Since::of(subscription.since.take().as_deref());
    let channels: Vec<Arc<str>> = subscription.channels.iter().map(|name| name.as_str().into()).collect();
    let mut session = Session {
        conn,
        hub,
        local: Local::of(hub),
        dialect,
        subscription: Box::new(subscription),
        member,
        subscribed: HashMap::new(),
    };
    let told = session.subscription.recovered;
    match session.live(channels, since, told).await {
        Stop::Closing => close(CloseCode::Normal, ""),
        Stop::Close(frame) => frame,
    }
}

impl Session<'_> {
    async fn live(&mut self, channels: Vec<Arc<str>>, since: Since, told: Option<bool>) -> Stop {
        // Boxed, as what follows, so that an idle session keeps no room for what happens now and then.
        if let Err(stop) = Box::pin(self.begin(&channels, since, told, None)).await {
            return stop;
        }
        drop(channels);
        while let Some(message) = self.conn.recv().await {
            let taken = match self.dialect {
                Dialect::V1 => Box::pin(self.attend(message)).await,
                Dialect::Bare | Dialect::Nchan => Box::pin(self.forward(message)).await,
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
        Stop::Closing
    }

    /// Subscribes to these channels: what is kept after `since` first, then what comes. `told` is what the client knows
    /// already of whether all of it is there.
    async fn begin(
        &mut self,
        channels: &[Arc<str>],
        since: Since,
        told: Option<bool>,
        reference: Option<&Value>,
    ) -> Result<(), Stop> {
        let recovered = match (&since, told) {
            (_, Some(told)) => Some(told),
            (Since::Now | Since::Kept, None) => None,
            (Since::Id(id), None) => Some(self.hub.recovers(channels, id).await),
            (Since::Unknown, None) => Some(false),
        };
        let mut after = match &since {
            Since::Now => None,
            Since::Kept | Since::Unknown => Some(0),
            Since::Id(id) => Some(self.hub.after(id)),
        };
        if let Some(offset) = after {
            self.say_subscribed(channels, offset, recovered, reference).await?;
        }
        // Of what was promised, nothing may have gone.
        let mut gone = if recovered == Some(true) { vec![0; channels.len()] } else { Vec::new() };
        loop {
            let mut begun = None;
            let view = self.view();
            let Session { hub, local, member, subscribed, conn, .. } = self;
            let subscribe = |begin: Begin| {
                for channel in channels {
                    let (peer, known) = (conn.peer().clone(), Cell::new(begin.offset));
                    let member = member.clone();
                    let subscriber = Subscriber { peer, view, known, presence: Presence::Off, member: member.clone() };
                    let key = local.add(channel, subscriber);
                    let (hub, local, channel) = (hub.clone(), local.clone(), channel.clone());
                    subscribed.insert(channel.clone(), Subscribed { hub, local, channel, key, member });
                }
                begun = Some(begin);
            };
            let page = hub.follow(local.place(), channels, after, PAGE, member.as_deref(), subscribe);
            let page = page.map_err(|Refused { reason, .. }| Stop::Close(close(CloseCode::Again, &reason)))?;
            // What has gone since the last page, while the client took it, is lost to it.
            let at = after.unwrap_or(0);
            if gone.iter().zip(&page.gone).any(|(before, now)| now > before && *now > at) {
                return Err(Stop::Close(close(CloseCode::Again, "slow consumer")));
            }
            gone = page.gone;
            if let (None, Some(begin)) = (after, begun) {
                self.say_subscribed(channels, begin.offset, None, reference).await?;
            }
            for (_, item) in page.items {
                after = Some(item.offset);
                self.conn.send_shared(&item.message.form(self.view())).await?;
            }
            if begun.is_some() {
                return Ok(());
            }
        }
    }

    async fn say_subscribed(
        &mut self,
        channels: &[Arc<str>],
        offset: u64,
        recovered: Option<bool>,
        reference: Option<&Value>,
    ) -> Result<(), Closing> {
        if self.dialect != Dialect::V1 {
            return Ok(());
        }
        let id = self.hub.id(offset).to_string();
        for channel in channels {
            let say = Say::Subscribed { channel: self.view().name(channel), id: Some(id.clone()), recovered };
            self.conn.send(say.answer(reference)).await?;
        }
        Ok(())
    }

    /// A message of a client that speaks no subprotocol of requests: it goes to its channels.
    async fn forward(&mut self, message: Message) -> Result<(), Stop> {
        if let (Some(heartbeat), Message::Text(text)) = (&self.subscription.heartbeat, &message)
            && text.as_str() == heartbeat.0
        {
            return Ok(self.conn.send(Message::text(heartbeat.1.clone())).await?);
        }
        if !self.subscription.publishes {
            return Err(Stop::Close(close(CloseCode::Policy, "this channel is not published to from here")));
        }
        let message = match message {
            Message::Text(text) => call::Message { text: true, content_type: None, payload: text.as_bytes().to_vec() },
            other => call::Message { text: false, content_type: None, payload: other.into_data().to_vec() },
        };
        let published = self.hub.publish(&self.subscription.channels, message, self.subscription.history).await;
        published.map_err(|Refused { status, reason }| {
            // To try again is asked only of whom it does not make publish twice.
            let code = if status == UNKNOWN { CloseCode::Error } else { CloseCode::Again };
            Stop::Close(close(code, &reason))
        })?;
        Ok(())
    }

    /// A request of `channels.v1`.
    async fn attend(&mut self, message: Message) -> Result<(), Stop> {
        let Message::Text(text) = message else {
            return Err(Stop::Close(close(CloseCode::Unsupported, "channels.v1 is JSON in text messages")));
        };
        let (done, reference) = match v1::read(&text) {
            Ok(Request { wish, reference }) => (self.grant(wish, reference.as_ref()).await?, reference),
            Err((problem, reference)) => (Err(problem), reference),
        };
        if let Err(Problem { code, message }) = done {
            self.conn.send(Say::Error { code, message: &message }.answer(reference.as_ref())).await?;
        }
        Ok(())
    }

    async fn grant(&mut self, wish: Wish, reference: Option<&Value>) -> Result<Result<(), Problem>, Stop> {
        match wish {
            Wish::Subscribe { channel, since, presence } => {
                let name: Arc<str> = match self.may_use(&channel) {
                    Ok(name) => name.into(),
                    Err(problem) => return Ok(Err(problem)),
                };
                if let Err(problem) = self.may_see(presence) {
                    return Ok(Err(problem));
                }
                if self.subscribed.contains_key(&name) {
                    let say = Say::Subscribed { channel: &channel, id: None, recovered: None };
                    self.conn.send(say.answer(reference)).await?;
                } else if self.subscribed.len() >= self.subscription.max as usize {
                    let max = self.subscription.max;
                    return Ok(Err(Problem::new(Code::TooMany, format!("{max} channels are subscribed to"))));
                } else if let Err(Refused { reason, .. }) = self.hub.admit(&[&name]).await {
                    return Ok(Err(Problem::new(Code::Unavailable, reason)));
                } else {
                    self.begin(std::slice::from_ref(&name), Since::of(since.as_deref()), None, reference).await?;
                }
                match presence {
                    Some(presence) => self.set_presence(&name, presence).await,
                    None => Ok(Ok(())),
                }
            }
            Wish::Unsubscribe { channel } => {
                if self.subscribed.remove(&*self.full(&channel)).is_none() {
                    return Ok(Err(not_subscribed(&channel)));
                }
                self.conn.send(Say::Unsubscribed { channel: &channel }.answer(reference)).await?;
                Ok(Ok(()))
            }
            Wish::Presence { channel } => {
                let name = self.full(&channel);
                if !self.subscribed.contains_key(&*name) {
                    return Ok(Err(not_subscribed(&channel)));
                }
                if let Err(problem) = self.may_see(Some(true)) {
                    return Ok(Err(problem));
                }
                match self.hub.members(&name).await {
                    Ok((members, subscribers, _)) => {
                        self.conn.send(Say::presence(&channel, &members, subscribers).answer(reference)).await?;
                        Ok(Ok(()))
                    }
                    Err(Refused { reason, .. }) => Ok(Err(Problem::new(Code::Unavailable, reason))),
                }
            }
            Wish::Publish { channel, payload } => {
                let name = match self.may_use(&channel).and_then(|name| self.may_publish().map(|()| name)) {
                    Ok(name) => name,
                    Err(problem) => return Ok(Err(problem)),
                };
                let (text, payload) = match payload {
                    Payload::Text(text) => (true, text.into_bytes()),
                    Payload::Binary(bytes) => (false, bytes),
                };
                let message = call::Message { text, content_type: None, payload };
                match self.hub.publish(&[name], message, self.subscription.history).await {
                    Ok(receipts) => {
                        for receipt in &receipts {
                            self.conn.send(Say::published(&channel, receipt).answer(reference)).await?;
                        }
                        Ok(Ok(()))
                    }
                    Err(Refused { status: UNKNOWN, reason }) => Ok(Err(Problem::new(Code::Unknown, reason))),
                    Err(Refused { reason, .. }) => Ok(Err(Problem::new(Code::Unavailable, reason))),
                }
            }
        }
    }

    /// Begins or ends the telling of joins and leaves; at its beginning the client is told who is there.
    async fn set_presence(&mut self, channel: &Arc<str>, presence: bool) -> Result<Result<(), Problem>, Stop> {
        let Some(Subscribed { key, .. }) = self.subscribed.get(channel) else { return Ok(Ok(())) };
        if !presence {
            self.local.set_presence(channel, *key, Presence::Off);
            return Ok(Ok(()));
        }
        // The answer takes its time, and others come and go in it.
        let before = self.local.set_presence(channel, *key, Presence::Held(Vec::new()));
        let (after, done) = match self.hub.members(channel).await {
            Ok((members, subscribers, number)) => {
                let say = Say::presence(self.view().name(channel), &members, subscribers);
                self.conn.send(say.answer(None)).await?;
                (Presence::After(number), Ok(()))
            }
            Err(Refused { reason, .. }) => (before, Err(Problem::new(Code::Unavailable, reason))),
        };
        let since = if let Presence::After(number) = after { number } else { u64::MAX };
        if let Presence::Held(held) = self.local.set_presence(channel, *key, after) {
            for (_, message) in held.into_iter().filter(|(at, _)| *at > since) {
                self.conn.peer().post(message);
            }
        }
        Ok(done)
    }

    /// What this client sees of messages and names.
    fn view(&self) -> View {
        View::new(self.dialect, self.subscription.prefix.len())
    }

    /// The whole name of a channel, which the client calls by the rest of it.
    fn full(&self, channel: &str) -> String {
        format!("{}{channel}", self.subscription.prefix)
    }

    /// The whole name of a channel that this client may subscribe to.
    fn may_use(&self, channel: &str) -> Result<String, Problem> {
        let whole = self.full(channel);
        if !is_name(channel) || !is_name(&whole) {
            return Err(Problem::new(Code::BadRequest, "that is no name of a channel"));
        }
        let Subscription { channels, allowed, .. } = &*self.subscription;
        if channels.contains(&whole) || allowed.iter().any(|pattern| pattern.matches(&whole)) {
            return Ok(whole);
        }
        Err(Problem::new(Code::Forbidden, format!("channel {channel} is not for this connection")))
    }

    fn may_see(&self, presence: Option<bool>) -> Result<(), Problem> {
        if presence == Some(true) && !self.subscription.presence {
            return Err(Problem::new(Code::Forbidden, "who is there is not told here"));
        }
        Ok(())
    }

    fn may_publish(&self) -> Result<(), Problem> {
        if self.subscription.publishes {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, "nothing is published from here"))
    }
}

fn not_subscribed(channel: &str) -> Problem {
    Problem::new(Code::NotSubscribed, format!("channel {channel} is not subscribed to"))
}

/// Bytes of a session's task.
#[cfg(test)]
pub fn size() -> usize {
    fn of<'a, F: Future>(_: fn(&'a Arc<Hub>, &'a mut Conn) -> F) -> usize {
        size_of::<F>()
    }
    of(run)
}
