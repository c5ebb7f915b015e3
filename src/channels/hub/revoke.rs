//! Something is taken back from sessions, whichever handler they are of: here, and with a broker on all servers.

use super::Hub;
use crate::channels::Error;
use crate::channels::api::RevokeResult;
use crate::channels::redis::{RedisLink, RevokeEntry};
use crate::engine::revocation::{Directory, Revocation, clock};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How long other servers may take to answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The first wait for their answers; each is twice as long as the one before, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(80);
/// The clocks of servers may differ by so much. Milliseconds.
const SKEW: u64 = 10_000;

impl Hub {
    /// How sessions of all handlers are found. Once, before everything else.
    pub fn connect(&self, directory: &Arc<Directory>) {
        self.directory.get_or_init(|| directory.clone());
    }

    /// Takes something back, on this server first: also when the broker is away, of which the caller is told then.
    pub async fn revoke(&self, revocation: Revocation) -> Result<RevokeResult, Error> {
        let sockets = self.revoke_here(revocation.clone(), clock()).await;
        let Some(link) = self.link().await.map_err(|why| done_here(&why))? else {
            return Ok(RevokeResult { sockets, servers: 1, unanswered: 0 });
        };
        let Some(broker) = self.broker() else { return Ok(RevokeResult { sockets, servers: 1, unanswered: 0 }) };
        let (id, others) = link.revoke(broker.node(), &revocation).await?;
        let mut result = RevokeResult { sockets, servers: 1, unanswered: others.len() as u64 };
        if others.is_empty() {
            return Ok(result);
        }
        let (begun, mut wait) = (Instant::now(), FIRST_WAIT);
        while result.unanswered > 0 && begun.elapsed() < PATIENCE {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            // What cannot be read now can be later.
            let Ok(answers) = link.answers(&id).await else { continue };
            result.sockets = sockets + answers.iter().map(|(_, count)| count).sum::<u64>();
            result.servers = 1 + answers.len() as u64;
            let is_silent = |node: &&String| !answers.iter().any(|(known, _)| known == *node);
            result.unanswered = others.iter().filter(is_silent).count() as u64;
        }
        Ok(result)
    }

    async fn revoke_here(&self, revocation: Revocation, before: u64) -> u64 {
        match self.directory.get() {
            Some(directory) => directory.revoke(revocation, before).await,
            None => 0,
        }
    }

    /// Another server has taken something back, and wrote so at that time. It is told how many sessions that were here.
    pub async fn follow_revocation(&self, entry: RevokeEntry, at: u64, link: &RedisLink, node: &str) {
        if entry.node == node {
            return;
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_millis() as u64);
        // Who has come since it was written, and this server was away, has a login that is newer.
        let late = wall.saturating_sub(at).saturating_sub(SKEW);
        let sockets = self.revoke_here(entry.revocation, clock().saturating_sub(late * 1000)).await;
        // The other server counts without this one then.
        let _ = link.answer(&entry.id, node, sockets).await;
    }
}

fn done_here(why: &Error) -> Error {
    Error::unavailable(format!("{why}: it is done on this server, and not on others"))
}
