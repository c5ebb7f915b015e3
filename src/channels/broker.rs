//! The broker: what makes the channels of several engines one. It reads the log of [`crate::channels::redis`] into the hub,
//! and tells the others who is subscribed here.
//!
//! While the broker is away publishers are refused; subscribers stay, and get what they missed when it is back.

use super::hub::Hub;
use crate::channels::redis::{self, LogEvent, LogPage, PATIENCE, Reader, RedisLink, StreamState};
use crate::channels::{Error, epoch};
use crate::engine::backoff::Backoff;
use log::{info, warn};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// The wait before a connection is tried again: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a node says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Somebody has come to a channel or gone from it, perhaps as a member.
pub type Change = (Arc<str>, Option<Arc<str>>);

/// The way to a broker. When it is dropped, nothing is read any more.
pub struct Broker {
    url: String,
    node: String,
    link: watch::Receiver<Option<RedisLink>>,
    read: watch::Receiver<Option<u64>>,
    changes: mpsc::UnboundedSender<Change>,
    task: AbortHandle,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker {
    /// Begins to read what is at that URL into the hub. To be called in a runtime that goes on.
    pub fn start(hub: &Arc<Hub>, url: &str) -> Arc<Broker> {
        let node = epoch();
        let (links, link) = watch::channel(None);
        let (reads, read) = watch::channel(None);
        let (changes, received) = mpsc::unbounded_channel();
        let reading =
            Reading { hub: hub.clone(), url: url.into(), node: node.clone(), links, reads, changes: received };
        let task = tokio::spawn(reading.run()).abort_handle();
        Arc::new(Broker { url: url.into(), node, link, read, changes, task })
    }

    /// What the others call this engine.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The link; `None` while the broker is away.
    pub fn link(&self) -> Option<RedisLink> {
        self.link.borrow().clone()
    }

    /// Waits until all that the broker had at first is here; false if that takes too long.
    pub async fn is_loaded(&self) -> bool {
        self.has_read(0).await
    }

    /// Waits until the entry with that number is here; false if that takes too long.
    pub async fn has_read(&self, number: u64) -> bool {
        let mut read = self.read.clone();
        let is_there = |read: &Option<u64>| read.is_some_and(|read| read >= number);
        matches!(tokio::time::timeout(PATIENCE, read.wait_for(is_there)).await, Ok(Ok(_)))
    }

    pub fn note(&self, change: Change) {
        // It ends with the engine.
        let _ = self.changes.send(change);
    }

    /// Tells the others that this engine is not there any more; nothing is read from now on.
    pub async fn leave(&self) {
        self.task.abort();
        if let Some(link) = self.link() {
            // They find out by themselves when this does not reach them.
            let _ = link.leave(&self.node).await;
        }
    }
}

/// The task of a broker.
struct Reading {
    hub: Arc<Hub>,
    url: String,
    node: String,
    links: watch::Sender<Option<RedisLink>>,
    /// The last number that was read, once all has been that was there at first.
    reads: watch::Sender<Option<u64>>,
    changes: mpsc::UnboundedReceiver<Change>,
}

impl Reading {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut said = false;
        loop {
            let Err(why) = self.follow().await;
            if self.links.send_replace(None).is_some() {
                backoff.reset();
                said = false;
            }
            if !std::mem::replace(&mut said, true) {
                // Its URL may hold a password.
                warn!("WS0121: the broker cannot be reached ({why}): publishers get 503 until it can");
            }
            let wait = backoff.fail().unwrap_or(FIRST_WAIT);
            tokio::time::sleep(wait + jitter(wait)).await;
            // All is said anew when it is back.
            while self.changes.try_recv().is_ok() {}
        }
    }

    /// Follows the log for as long as the connections hold.
    async fn follow(&mut self) -> Result<Infallible, Error> {
        let opened = tokio::time::timeout(PATIENCE * 2, redis::open(&self.url)).await;
        let (link, mut reader) = opened.map_err(|_| Error::unavailable("timed out"))??;
        let state = alive(&self.hub, &link, &self.node).await?;
        self.hub.synchronize(&state);
        while self.hub.sequence() < state.sequence {
            let piece = reader.next(self.hub.sequence()).await?;
            let is_empty = piece.entries.is_empty();
            apply(&self.hub, &link, &self.node, piece).await?;
            if is_empty {
                // The rest of them have gone meanwhile.
                self.hub.synchronize(&alive(&self.hub, &link, &self.node).await?);
                break;
            }
        }
        self.report_all(&link).await?;
        self.links.send_replace(Some(link.clone()));
        self.reads.send_replace(Some(self.hub.sequence()));
        info!("WS0122: the broker is connected: its last message is {}", self.hub.sequence());
        let Reading { hub, node, changes, reads, .. } = self;
        tokio::try_join!(
            read(hub, &link, node, &mut reader, reads),
            report_changes(hub, &link, node, changes),
            heartbeat(hub, &link, node)
        )
        .map(|(never, ..)| never)
    }

    /// Says who is here, and who is not.
    async fn report_all(&mut self, link: &RedisLink) -> Result<(), Error> {
        // What was there before the connection was lost, and may not be any more.
        let told = link.registered(&self.node).await?.into_iter();
        let told = told.map(|(channel, member)| (Arc::from(channel), member.map(Arc::from)));
        let here = self.hub.subscribed().into_iter().flat_map(|channel| {
            let members = self.hub.own_members(&channel);
            members.into_iter().chain([None]).map(move |member| (channel.clone(), member))
        });
        let all: HashSet<Change> = told.chain(here).collect();
        for change in &all {
            report(&self.hub, link, &self.node, change).await?;
        }
        Ok(())
    }
}

async fn read(
    hub: &Arc<Hub>,
    link: &RedisLink,
    node: &str,
    reader: &mut Reader,
    reads: &watch::Sender<Option<u64>>,
) -> Result<Infallible, Error> {
    loop {
        apply(hub, link, node, reader.next(hub.sequence()).await?).await?;
        reads.send_replace(Some(hub.sequence()));
    }
}

/// What the log has next goes into the hub.
async fn apply(
    hub: &Arc<Hub>,
    link: &RedisLink,
    node: &str,
    LogPage { entries, is_foreign }: LogPage,
) -> Result<(), Error> {
    for entry in entries {
        if let LogEvent::Revoke(revoke) = &entry.event {
            let (hub, link, node) = (hub.clone(), link.clone(), node.to_owned());
            let (revoke, at) = (revoke.clone(), entry.at);
            // What is published waits for no session.
            tokio::spawn(async move { hub.follow_revocation(*revoke, at, &link, &node).await });
        }
        hub.room().await;
        hub.apply(entry);
    }
    if is_foreign {
        link.renew(&hub.position().epoch).await?;
        return Err(lost("its log has what no engine has written"));
    }
    Ok(())
}

async fn report_changes(
    hub: &Hub,
    link: &RedisLink,
    node: &str,
    changes: &mut mpsc::UnboundedReceiver<Change>,
) -> Result<Infallible, Error> {
    loop {
        match changes.recv().await {
            Some(change) => report(hub, link, node, &change).await?,
            None => std::future::pending().await,
        }
    }
}

async fn report(hub: &Hub, link: &RedisLink, node: &str, (channel, member): &Change) -> Result<(), Error> {
    let (subscribers, connections) = hub.presence(channel, member.as_deref());
    link.set_presence(node, channel, subscribers, member.as_deref().map(|member| (member, connections))).await
}

async fn alive(hub: &Hub, link: &RedisLink, node: &str) -> Result<StreamState, Error> {
    link.heartbeat(node, &hub.position()).await
}

async fn heartbeat(hub: &Hub, link: &RedisLink, node: &str) -> Result<Infallible, Error> {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let state = alive(hub, link, node).await?;
        if !state.known || !hub.is_of(&state.epoch) {
            // It was emptied, or this node was given up: from the beginning.
            return Err(lost("what it had is lost"));
        }
    }
}

/// All is read from the beginning.
fn lost(why: &str) -> Error {
    Error::unavailable(why)
}

/// Up to half of it, so that not all come back at once.
fn jitter(wait: Duration) -> Duration {
    let half = wait.as_millis() as u64 / 2;
    let random = u64::from_str_radix(&epoch(), 16).unwrap_or(0);
    Duration::from_millis(random % half.max(1))
}
