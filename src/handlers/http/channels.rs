//! The channels of a session, which its application names; and others, which that of `WebSocketAuthorize` does.

use super::settings::ChannelRules;
use crate::channels::hub::Hub;
use crate::channels::name::is_name;
use crate::channels::protocol::View;
use crate::channels::shard::{Presence, Shard, Subscriber};
use crate::channels::subscribed::{Subscribed, SubscribedChannels};
use crate::engine::Conn;
use crate::engine::handle::ConnectionHandle;
use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

pub struct SessionChannels {
    hub: Arc<Hub>,
    rules: ChannelRules,
    member: Option<Arc<str>>,
    subscribed: SubscribedChannels,
    /// Those of them that `WebSocketAuthorize` has named; true where the application of the handler has, too.
    authorized: Vec<(Arc<str>, bool)>,
    /// They were taken back, and what the application says now it may have said before.
    revoked: HashSet<String>,
}

/// Who has named a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The application that handles the session.
    Handler,
    /// The one of `WebSocketAuthorize`.
    Authorize,
}

/// Why a channel is not subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSubscribed {
    #[error("that is no name of a channel")]
    Name,
    #[error("it has {0} channels already (WebSocketChannelMax)")]
    TooMany(u32),
    #[error("it was taken back while the application was asked")]
    Revoked,
    #[error("{0}")]
    Channels(String),
}

impl SessionChannels {
    pub fn new(hub: Arc<Hub>, rules: ChannelRules) -> SessionChannels {
        let member = rules.member.as_deref().map(Arc::from);
        let (subscribed, authorized, revoked) = Default::default();
        SessionChannels { hub, rules, member, subscribed, authorized, revoked }
    }

    /// As whom presence counts the session in what it subscribes to from now on.
    pub fn set_member(&mut self, member: &str) {
        self.member = Some(member.into());
    }

    /// From now on the client gets what is published there.
    pub async fn subscribe(&mut self, conn: &Conn, name: &str, by: NamedBy) -> Result<(), NotSubscribed> {
        let channel = self.full(name)?;
        if self.subscribed.contains(&channel) {
            match (by, self.authorized.iter_mut().find(|(known, _)| *known == channel)) {
                (NamedBy::Handler, Some((_, is_both))) => *is_both = true,
                (NamedBy::Authorize, None) => self.authorized.push((channel, true)),
                _ => {}
            }
            return Ok(());
        }
        if self.revoked.contains(&*channel) {
            return Err(NotSubscribed::Revoked);
        }
        if self.subscribed.len() >= self.rules.max as usize {
            return Err(NotSubscribed::TooMany(self.rules.max));
        }
        let refused = |why: crate::channels::Error| NotSubscribed::Channels(why.to_string());
        self.hub.admit(&[&channel]).await.map_err(refused)?;
        self.follow(conn.handle().clone(), channel.clone())?;
        if by == NamedBy::Authorize {
            self.authorized.push((channel, false));
        }
        Ok(())
    }

    fn follow(&mut self, handle: Rc<ConnectionHandle>, channel: Arc<str>) -> Result<(), NotSubscribed> {
        let (shard, member) = (Shard::of(&self.hub), self.member.clone());
        let (hub, subscribed) = (&self.hub, &mut self.subscribed);
        let subscribe = |last: u64| {
            let view = View::new(None, self.rules.prefix.len());
            let known = Cell::new(last);
            let subscriber = Subscriber { handle, view, known, presence: Presence::Off, member: member.clone() };
            subscribed.insert(Subscribed::new(hub, &shard, &channel, subscriber));
        };
        let followed =
            hub.follow(shard.number(), std::slice::from_ref(&channel), None, 0, member.as_deref(), subscribe);
        followed.map(drop).map_err(|full| NotSubscribed::Channels(full.to_string()))
    }

    /// Whoever has named it.
    pub async fn unsubscribe(&mut self, name: &str) {
        if let Ok(channel) = self.full(name) {
            take_in().await;
            self.subscribed.retain(|known| *known != *channel);
            self.authorized.retain(|(known, _)| *known != channel);
        }
    }

    /// Exactly these, of those that are named so. Those that cannot be subscribed to are returned.
    pub async fn replace(&mut self, conn: &Conn, names: &[String], by: NamedBy) -> Vec<(String, NotSubscribed)> {
        let wanted: Vec<_> = names.iter().filter_map(|name| self.full(name).ok()).collect();
        let is_wanted = |channel: &str| wanted.iter().any(|name| **name == *channel);
        take_in().await;
        // What the other has named stays.
        match by {
            NamedBy::Handler => {
                self.authorized.iter_mut().for_each(|(channel, is_both)| *is_both &= is_wanted(channel));
                let authorized = &self.authorized;
                self.subscribed.retain(|name| is_wanted(name) || authorized.iter().any(|(known, _)| **known == *name));
            }
            NamedBy::Authorize => {
                let (kept, dropped): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.authorized).into_iter().partition(|(channel, _)| is_wanted(channel));
                self.authorized = kept;
                self.subscribed.retain(|name| !dropped.iter().any(|(known, is_both)| **known == *name && !is_both));
            }
        }
        let mut refused = Vec::new();
        for name in names {
            if let Err(why) = self.subscribe(conn, name, by).await {
                refused.push((name.clone(), why));
            }
        }
        refused
    }

    /// These, by their whole names, are taken back. True where there was one of them.
    pub fn revoke(&mut self, channels: &[String]) -> bool {
        self.revoked.extend(channels.iter().cloned());
        let before = self.subscribed.len();
        self.subscribed.retain(|channel| !channels.iter().any(|gone| gone == channel));
        self.authorized.retain(|(channel, _)| !channels.iter().any(|gone| **gone == **channel));
        self.subscribed.len() < before
    }

    /// What the application says from now on, it says knowing that.
    pub fn forget_revoked(&mut self) {
        self.revoked = HashSet::new();
    }

    fn full(&self, name: &str) -> Result<Arc<str>, NotSubscribed> {
        let whole = format!("{}{name}", self.rules.prefix);
        if is_name(name) && is_name(&whole) { Ok(whole.into()) } else { Err(NotSubscribed::Name) }
    }
}

/// What was published before the application has said that a subscription ends is on its way here: the client gets it.
async fn take_in() {
    tokio::task::yield_now().await;
}
