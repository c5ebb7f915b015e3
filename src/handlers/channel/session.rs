//! One client of the channel handler, from its first subscription to its end.

use crate::channels::api::PublishResult;
use crate::channels::hub::Hub;
use crate::channels::name::is_name;
use crate::channels::protocol::{
    ClientCommand, ClientEvent, ClientRequest, CommandError, DecodeError, ErrorCode, Reference, View,
};
use crate::channels::shard::{Presence, Shard, Subscriber};
use crate::channels::subscribed::{Subscribed, SubscribedChannels};
use crate::channels::subscription::Subscription;
use crate::channels::{Error, Id};
use crate::engine::connection::{Closing, Received};
use crate::engine::interned::Interned;
use crate::engine::{Broadcast, Conn, LocalBoxFuture, MessageSession};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use rights::Revoked;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

mod rights;

/// Bytes of kept messages that are taken from the store at a time.
const PAGE: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub enum Since {
    /// With the next message.
    Now,
    /// With all that is kept.
    Kept,
    /// After this message, the last before the client had its 101.
    Accepted(Id),
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

    /// Whether all of these channels that has come since is kept; `None`: that is no question.
    pub async fn recovers(&self, hub: &Hub, channels: &[impl AsRef<str>]) -> Option<bool> {
        match self {
            Since::Now | Since::Accepted(_) | Since::Kept => None,
            Since::Id(id) => Some(hub.recovers(channels, id).await),
            Since::Unknown => Some(false),
        }
    }

    /// The same for a session that begins later.
    pub fn fixed(self, hub: &Hub) -> Since {
        if self == Since::Now { Since::Accepted(hub.id(hub.sequence())) } else { self }
    }
}

pub struct ChannelOpening {
    pub(super) hub: Arc<Hub>,
    pub(super) subscription: Box<Subscription>,
    pub(super) since: Since,
    /// What the client was told.
    pub(super) recovered: Option<bool>,
}

/// Why a command is not done.
enum Failure {
    Closing,
    Close(CloseFrame),
    /// The session goes on, where its protocol has words for this.
    Command(CommandError),
}

impl From<Closing> for Failure {
    fn from(_: Closing) -> Failure {
        Failure::Closing
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Failure {
        Failure::Command(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match error {
            // To try again is asked only of whom it does not make publish twice.
            Error::Unknown(_) => ErrorCode::Unknown,
            Error::Unavailable(_) | Error::Capacity(_) | Error::NotText => ErrorCode::Unavailable,
        };
        CommandError::new(code, error.to_string()).into()
    }
}

impl From<CommandError> for CloseFrame {
    fn from(CommandError { code, message }: CommandError) -> CloseFrame {
        let code = match code {
            ErrorCode::Unavailable => CloseCode::Again,
            ErrorCode::Unknown => CloseCode::Error,
            ErrorCode::BadRequest | ErrorCode::Forbidden | ErrorCode::TooMany | ErrorCode::NotSubscribed => {
                CloseCode::Policy
            }
        };
        close(code, &message)
    }
}

struct Session<'a> {
    conn: &'a mut Conn,
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    view: View,
    /// But for what is this session's alone.
    subscription: Interned<Subscription>,
    member: Option<Arc<str>>,
    subscribed: SubscribedChannels,
    /// It may not subscribe to these again.
    revoked: Option<Box<Revoked>>,
}

/// With what a session begins.
struct Beginning {
    since: Since,
    /// What the client was told.
    recovered: Option<bool>,
}

impl MessageSession for ChannelOpening {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        let ChannelOpening { hub, mut subscription, since, recovered } = *self;
        let view = View::new(conn.spec().protocol.as_deref(), subscription.prefix.len());
        let member = subscription.member.take().map(Arc::from);
        subscription.since = None;
        let (shard, subscription) = (Shard::of(&hub), Interned::new(*subscription));
        let subscribed = SubscribedChannels::default();
        let session = Session { conn, hub, shard, view, subscription, member, subscribed, revoked: None };
        Box::pin(live(session, Box::new(Beginning { since, recovered })))
    }

    fn takes_changes(&self) -> bool {
        true
    }
}

/// What is captured is used where it is, and what happens now and then is boxed: an idle session keeps no room for it.
#[expect(clippy::manual_async_fn, reason = "an async fn moves its arguments")]
fn live<'a>(mut session: Session<'a>, beginning: Box<Beginning>) -> impl Future<Output = CloseFrame> + 'a {
    async move {
        let mut done = Box::pin(session.open(beginning)).await;
        while done.is_ok() {
            // In `while let` the state of an idle session would have room for a message.
            let Some(received) = session.conn.receive().await else { break };
            done = Box::pin(session.take(received)).await;
        }
        match done {
            Ok(()) | Err(Failure::Closing) => close(CloseCode::Normal, ""),
            Err(Failure::Close(frame)) => frame,
            Err(Failure::Command(error)) => error.into(),
        }
    }
}

impl Session<'_> {
    /// Begins with the channels that the session has.
    async fn open(&mut self, beginning: Box<Beginning>) -> Result<(), Failure> {
        let Beginning { since, recovered } = *beginning;
        // What was taken back during the handshake is not begun with.
        while let Some(change) = self.conn.handle().take_change() {
            self.change(change, false).await?;
        }
        let channels: Vec<Arc<str>> = self.subscription.channels.iter().map(|name| name.as_str().into()).collect();
        self.begin(&channels, since, recovered, None).await
    }

    async fn take(&mut self, received: Received) -> Result<(), Failure> {
        match received {
            Received::Message(message) => self.handle(message).await,
            Received::Change(change) => self.change(change, true).await,
        }
    }

    /// Tells the client; false where its protocol has no words for that.
    async fn tell(&mut self, event: &ClientEvent<'_>, reference: Option<&Reference>) -> Result<bool, Closing> {
        let Some(message) = self.view.protocol().encode(event, reference) else { return Ok(false) };
        self.conn.send_shared(&message).await?;
        Ok(true)
    }

    /// Subscribes to these channels: what is kept after `since` first, then what comes. `told` is what the client knows
    /// already of whether all of it is there.
    async fn begin(
        &mut self,
        channels: &[Arc<str>],
        since: Since,
        told: Option<bool>,
        reference: Option<&Reference>,
    ) -> Result<(), Failure> {
        let recovered = match told {
            Some(told) => Some(told),
            None => since.recovers(&self.hub, channels).await,
        };
        let mut after = match &since {
            Since::Now => None,
            Since::Kept | Since::Unknown => Some(0),
            Since::Accepted(id) | Since::Id(id) => Some(self.hub.after(id)),
        };
        if let Some(offset) = after {
            self.say_subscribed(channels, offset, recovered, reference).await?;
        }
        // Of what was promised, nothing may have gone.
        let mut gone = if recovered == Some(true) { vec![0; channels.len()] } else { Vec::new() };
        loop {
            let mut begun = None;
            let Session { hub, shard, member, subscribed, conn, view, .. } = self;
            let subscribe = |last: u64| {
                for channel in channels {
                    let (handle, known) = (conn.handle().clone(), Cell::new(last));
                    let member = member.clone();
                    let subscriber = Subscriber { handle, view: *view, known, presence: Presence::Off, member };
                    subscribed.insert(Subscribed::new(hub, shard, channel, subscriber));
                }
                begun = Some(last);
            };
            let page = hub.follow(shard.number(), channels, after, PAGE, member.as_deref(), subscribe);
            let page = page.map_err(|full| Failure::Close(close(CloseCode::Again, &full.to_string())))?;
            // What has gone since the last page, while the client took it, is lost to it.
            let at = after.unwrap_or(0);
            if gone.iter().zip(&page.last_lost).any(|(before, now)| now > before && *now > at) {
                return Err(Failure::Close(close(CloseCode::Again, "slow consumer")));
            }
            gone = page.last_lost;
            if let (None, Some(last)) = (after, begun) {
                self.say_subscribed(channels, last, None, reference).await?;
            }
            for (_, item) in page.items {
                after = Some(item.offset);
                if let Some(message) = item.message.encoded(self.view) {
                    self.conn.send_shared(&message).await?;
                }
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
        reference: Option<&Reference>,
    ) -> Result<(), Closing> {
        let id = self.hub.id(offset);
        for channel in channels {
            let event = ClientEvent::Subscribed { channel: self.view.name(channel), id: Some(&id), recovered };
            self.tell(&event, reference).await?;
        }
        Ok(())
    }

    async fn handle(&mut self, message: Message) -> Result<(), Failure> {
        let (done, reference) = match self.view.protocol().decode(message) {
            Ok(ClientRequest { command, reference }) => (self.execute(command, reference.as_ref()).await, reference),
            Err(DecodeError::Close(frame)) => return Err(Failure::Close(frame)),
            Err(DecodeError::Reply(error, reference)) => (Err(error.into()), reference),
        };
        match done {
            Err(Failure::Command(error)) if self.tell(&ClientEvent::Error(&error), reference.as_ref()).await? => Ok(()),
            done => done,
        }
    }

    async fn execute(&mut self, command: ClientCommand, reference: Option<&Reference>) -> Result<(), Failure> {
        match command {
            ClientCommand::Subscribe { channel, since, presence } => {
                let name: Arc<str> = self.may_use(&channel)?.into();
                if presence == Some(true) {
                    self.may_see()?;
                }
                if self.subscribed.contains(&name) {
                    let event = ClientEvent::Subscribed { channel: &channel, id: None, recovered: None };
                    self.tell(&event, reference).await?;
                } else if self.subscribed.len() >= self.subscription.max as usize {
                    let max = self.subscription.max;
                    return Err(
                        CommandError::new(ErrorCode::TooMany, format!("{max} channels are subscribed to")).into()
                    );
                } else {
                    self.hub.admit(&[&name]).await?;
                    self.begin(std::slice::from_ref(&name), Since::of(since.as_deref()), None, reference).await?;
                }
                match presence {
                    Some(presence) => self.set_presence(&name, presence).await,
                    None => Ok(()),
                }
            }
            ClientCommand::Unsubscribe { channel } => {
                if !self.subscribed.remove(&self.full(&channel)) {
                    return Err(not_subscribed(&channel).into());
                }
                self.tell(&ClientEvent::Unsubscribed { channel: &channel }, reference).await?;
                Ok(())
            }
            ClientCommand::Presence { channel } => {
                let name = self.full(&channel);
                if !self.subscribed.contains(&name) {
                    return Err(not_subscribed(&channel).into());
                }
                self.may_see()?;
                let (members, subscribers, _) = self.hub.members(&name).await?;
                let event = ClientEvent::Presence { channel: &channel, members: &members, subscribers };
                self.tell(&event, reference).await?;
                Ok(())
            }
            ClientCommand::Publish { channel: None, message } => {
                if let (Some(heartbeat), Message::Text(text)) = (&self.subscription.heartbeat, &message)
                    && text.as_str() == heartbeat.0
                {
                    return Ok(self.conn.send(Message::text(heartbeat.1.clone())).await?);
                }
                self.may_publish("this channel is not published to from here")?;
                self.publish(&self.subscription.channels, message).await?;
                Ok(())
            }
            ClientCommand::Publish { channel: Some(channel), message } => {
                let name = self.may_use(&channel)?;
                self.may_publish("nothing is published from here")?;
                for result in self.publish(&[name], message).await? {
                    let (id, subscribers) = (&*result.id, result.subscribers);
                    self.tell(&ClientEvent::Published { channel: &channel, id, subscribers }, reference).await?;
                }
                Ok(())
            }
        }
    }

    async fn publish(&self, channels: &[String], message: Message) -> Result<Vec<PublishResult>, Error> {
        let Some(message) = Broadcast::new(message) else { return Ok(Vec::new()) };
        self.hub.publish(channels, message, None, self.subscription.history).await
    }

    /// Begins or ends the telling of joins and leaves; at its beginning the client is told who is there.
    async fn set_presence(&mut self, channel: &Arc<str>, presence: bool) -> Result<(), Failure> {
        let Some(key) = self.subscribed.get(channel).map(Subscribed::key) else { return Ok(()) };
        if !presence {
            self.shard.set_presence(channel, key, Presence::Off);
            return Ok(());
        }
        // The answer takes its time, and others come and go in it.
        let before = self.shard.set_presence(channel, key, Presence::Held(Box::default()));
        let (after, done) = match self.hub.members(channel).await {
            Ok((members, subscribers, number)) => {
                let event = ClientEvent::Presence { channel: self.view.name(channel), members: &members, subscribers };
                self.tell(&event, None).await?;
                (Presence::After(number), Ok(()))
            }
            Err(refused) => (before, Err(refused.into())),
        };
        let since = if let Presence::After(number) = after { number } else { u64::MAX };
        if let Presence::Held(held) = self.shard.set_presence(channel, key, after) {
            for (_, message) in (*held).into_iter().filter(|(at, _)| *at > since) {
                self.conn.handle().enqueue(message);
            }
        }
        done
    }

    /// The whole name of a channel, which the client calls by the rest of it.
    fn full(&self, channel: &str) -> String {
        format!("{}{channel}", self.subscription.prefix)
    }

    /// The whole name of a channel that this client may subscribe to.
    fn may_use(&self, channel: &str) -> Result<String, CommandError> {
        let whole = self.full(channel);
        if !is_name(channel) || !is_name(&whole) {
            return Err(CommandError::new(ErrorCode::BadRequest, "that is not a channel name"));
        }
        let is_revoked = self.revoked.as_ref().is_some_and(|revoked| revoked.0.contains(&whole));
        if !is_revoked && (self.subscription.channels.contains(&whole) || self.is_allowed(&whole)) {
            return Ok(whole);
        }
        Err(CommandError::new(ErrorCode::Forbidden, format!("channel {channel} is not for this connection")))
    }

    fn is_allowed(&self, whole: &str) -> bool {
        self.subscription.allowed.iter().any(|pattern| pattern.matches(whole))
    }

    fn may_see(&self) -> Result<(), CommandError> {
        if self.subscription.presence {
            return Ok(());
        }
        Err(CommandError::new(ErrorCode::Forbidden, "who is there is not told here"))
    }

    fn may_publish(&self, why_not: &str) -> Result<(), CommandError> {
        if self.subscription.publishes { Ok(()) } else { Err(CommandError::new(ErrorCode::Forbidden, why_not)) }
    }
}

fn not_subscribed(channel: &str) -> CommandError {
    CommandError::new(ErrorCode::NotSubscribed, format!("channel {channel} is not subscribed to"))
}

#[cfg(test)]
pub fn size() -> usize {
    fn of<'a, F: Future>(_: fn(Session<'a>, Box<Beginning>) -> F) -> usize {
        size_of::<F>()
    }
    of(live)
}
