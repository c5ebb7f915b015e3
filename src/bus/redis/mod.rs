//! Redis, where several engines meet: one log of all that happens to channels, which each engine reads from its beginning
//! to its end and goes on reading, so that each has the same [`super::Store`]; and who is subscribed where.
//!
//! All keys begin with `{mod_websocket}:` (one slot of a cluster). `log` is a stream whose entries are numbered by
//! `sequence`; the number of a message is its offset. The scripts do what must be done in one piece:
//!
//! * `publish.lua`, `delete.lua`: append to the log. What is too old, or too much, is taken off its front: `gone` is the last
//!   number that was
//! * `attend.lua`: how many connections a node (an engine) has in a channel, and of a member there; a member that comes to the
//!   first node or leaves the last is an entry of the log, too
//! * `beat.lua`: a node is alive; nodes that were silent for 15 seconds are taken out
//! * `bury.lua`: a node says that it ends
//! * `look.lua`: who is subscribed; `own.lua`: of them those that a node has told of

use super::{History, Id};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisError, Script, ScriptInvocation};
use std::time::Duration;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long a reader waits for the next entry.
const WAIT: Duration = Duration::from_secs(1);
/// Entries that are read at a time.
const COUNT: usize = 1000;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// When it was written: milliseconds since 1970, by Redis' clock.
    pub at: u64,
    /// The channel.
    pub channel: String,
    /// What happened.
    pub what: What,
}

/// What happens to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A message.
    Message(Message),
    /// It is deleted: its connections are closed.
    Delete {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// A member has come to the first node, or left the last.
    Presence {
        /// Who.
        member: String,
        /// Come, and not left.
        joined: bool,
    },
    /// Of another version: it only has its number.
    Unknown,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Text, and not binary.
    pub text: bool,
    /// The media type that the publisher gave.
    pub content_type: Option<String>,
    /// The message itself.
    pub payload: Vec<u8>,
    /// How it is kept.
    pub history: History,
}

/// How it stands with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which count the numbers are of.
    pub epoch: String,
    /// The last number.
    pub sequence: u64,
    /// The last number that is not kept.
    pub gone: u64,
    /// The node was known.
    pub known: bool,
}

/// The scripts.
struct Scripts {
    publish: Script,
    delete: Script,
    attend: Script,
    beat: Script,
    bury: Script,
    look: Script,
    own: Script,
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("common.lua"), include_str!($file)))
    };
}

/// An open way to Redis.
#[derive(Clone)]
pub struct Link {
    commands: MultiplexedConnection,
    scripts: std::sync::Arc<Scripts>,
    /// For where there is no epoch.
    epoch: String,
}

/// What reads the log, over a connection of its own.
pub struct Reader {
    connection: MultiplexedConnection,
}

/// Opens a link, and a reader.
///
/// # Errors
/// Redis cannot be reached, or lets nobody in.
pub async fn open(url: &str, epoch: &str) -> Result<(Link, Reader), RedisError> {
    let client = Client::open(url)?;
    let config = |response| {
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(response))
    };
    let commands = client.get_multiplexed_async_connection_with_config(&config(PATIENCE)).await?;
    let connection = client.get_multiplexed_async_connection_with_config(&config(WAIT + PATIENCE)).await?;
    let scripts = Scripts {
        publish: script!("publish.lua"),
        delete: script!("delete.lua"),
        attend: script!("attend.lua"),
        beat: script!("beat.lua"),
        bury: script!("bury.lua"),
        look: script!("look.lua"),
        own: script!("own.lua"),
    };
    Ok((Link { commands, scripts: scripts.into(), epoch: epoch.into() }, Reader { connection }))
}

impl Link {
    async fn run<T: FromRedisValue>(&self, mut script: ScriptInvocation<'_>) -> Result<T, RedisError> {
        // The key says which slot of a cluster it is.
        script.key("{mod_websocket}:log").invoke_async(&mut self.commands.clone()).await
    }

    /// Publishes to these channels: the id of each, and its subscribers. `budget` is how many bytes the log may have.
    ///
    /// # Errors
    /// Redis did not do it, or it is not known whether it has.
    pub async fn publish(
        &self,
        budget: usize,
        channels: &[String],
        message: &Message,
    ) -> Result<Vec<(Id, u64)>, RedisError> {
        let Message { text, content_type, payload, history } = message;
        let mut script = self.scripts.publish.arg(&self.epoch);
        script.arg(budget).arg(history.messages).arg(history.seconds).arg(u8::from(*text));
        script.arg(content_type.as_deref().unwrap_or_default()).arg(&payload[..]).arg(channels);
        let answer: Vec<redis::Value> = self.run(script).await?;
        let [epoch, numbers @ ..] = &answer[..] else { return Ok(Vec::new()) };
        let epoch: String = redis::from_redis_value_ref(epoch)?;
        let pair = |pair: &[redis::Value]| {
            let offset = redis::from_redis_value_ref(&pair[0])?;
            Ok((Id { epoch: epoch.as_str().into(), offset }, redis::from_redis_value_ref(&pair[1])?))
        };
        numbers.chunks_exact(2).map(pair).collect()
    }

    /// Deletes a channel.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn delete(&self, channel: &str, code: u16, reason: &str) -> Result<(), RedisError> {
        let mut script = self.scripts.delete.arg(&self.epoch);
        script.arg(channel).arg(code).arg(reason);
        self.run(script).await
    }

    /// Says how many connections this node has in a channel, and how many of a member of it.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn attend(
        &self,
        node: &str,
        channel: &str,
        subscribers: u64,
        member: Option<(&str, u32)>,
    ) -> Result<(), RedisError> {
        let (member, connections) = member.unwrap_or_default();
        let mut script = self.scripts.attend.arg(&self.epoch);
        script.arg(node).arg(channel).arg(subscribers).arg(member).arg(connections);
        self.run(script).await
    }

    /// Says that this node is alive.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn beat(&self, node: &str) -> Result<Standing, RedisError> {
        let mut script = self.scripts.beat.arg(&self.epoch);
        script.arg(node);
        let (epoch, sequence, gone, known) = self.run(script).await?;
        Ok(Standing { epoch, sequence, gone, known })
    }

    /// Says that this node ends.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn bury(&self, node: &str) -> Result<(), RedisError> {
        let mut script = self.scripts.bury.arg(&self.epoch);
        script.arg(node);
        self.run(script).await
    }

    /// What this node has said that it has: channels, each without a member and with those that it has.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn own(&self, node: &str) -> Result<Vec<(String, Option<String>)>, RedisError> {
        let mut script = self.scripts.own.arg(&self.epoch);
        script.arg(node);
        let pairs: Vec<String> = self.run(script).await?;
        let member = |member: &String| Some(member.clone()).filter(|member| !member.is_empty());
        Ok(pairs.chunks_exact(2).map(|pair| (pair[0].clone(), member(&pair[1]))).collect())
    }

    /// The last number, how many are subscribed to each of these channels, and the members of the first.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn look(&self, channels: &[&str]) -> Result<(u64, Vec<u64>, Vec<(String, u32)>), RedisError> {
        let mut script = self.scripts.look.arg(&self.epoch);
        script.arg(channels);
        self.run(script).await
    }

    /// At most `limit` channels with subscribers whose names begin with `prefix` and come after `after`, by name.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, RedisError> {
        let from = if after >= prefix && !after.is_empty() { format!("({after}") } else { format!("[{prefix}") };
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg("{mod_websocket}:channels").arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        let names: Vec<String> = command.query_async(&mut self.commands.clone()).await?;
        Ok(names.into_iter().take_while(|name| name.starts_with(prefix)).collect())
    }
}

impl Reader {
    /// The entries after that number; none when nothing came for a second.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn next(&mut self, after: u64) -> Result<Vec<Entry>, RedisError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(COUNT).arg("BLOCK").arg(WAIT.as_millis() as u64);
        command.arg("STREAMS").arg("{mod_websocket}:log").arg(format!("{after}-0"));
        let reply: Option<StreamReadReply> = command.query_async(&mut self.connection).await?;
        let streams = reply.map(|reply| reply.keys).unwrap_or_default();
        Ok(streams.iter().flat_map(|stream| &stream.ids).map(entry).collect())
    }
}

fn entry(written: &StreamId) -> Entry {
    let number = written.id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let text = |name: &str| written.get::<String>(name).unwrap_or_default();
    let what = match &*text("kind") {
        "message" => What::Message(Message {
            text: text("text") == "1",
            content_type: Some(text("type")).filter(|text| !text.is_empty()),
            payload: written.get("payload").unwrap_or_default(),
            history: History {
                messages: written.get("messages").unwrap_or_default(),
                seconds: written.get("seconds").unwrap_or_default(),
            },
        }),
        "delete" => What::Delete { code: written.get("code").unwrap_or_default(), reason: text("reason") },
        "presence" => What::Presence { member: text("member"), joined: text("joined") == "1" },
        _ => What::Unknown,
    };
    Entry { number, at: written.get("at").unwrap_or_default(), channel: text("channel"), what }
}
