//! Redis, where several engines meet: one log of all that happens to channels, which each engine reads from its beginning
//! to its end and goes on reading, so that each has the same [`super::Store`]; and who is subscribed where.
//!
//! All keys begin with `{mod_websocket}:` (one slot of a cluster). `log` is a stream whose entries are numbered by
//! `sequence`; the number of a message is its offset. The scripts do what must be done in one piece:
//!
//! * `publish.lua`, `delete.lua`: append to the log. What is too old, or too much, is taken off its front: `gone` is the
//!   last number that was
//! * `set_presence.lua`: how many connections a node (an engine) has in a channel, and of a member there; a member that
//!   comes to the first node or leaves the last is an entry of the log, too
//! * `heartbeat.lua`: a node is alive; nodes that were silent for 15 seconds are taken out. A log that has gone back behind
//!   what the node has read (Redis came back with older data) begins another epoch: a number never stands for two messages
//! * `leave.lua`: a node says that it ends
//! * `revoke.lua`: appends to the log that something is taken back from sessions; `answer.lua`, `answers.lua`: how many that
//!   were on each node
//! * `counts.lua`: who is subscribed; `registered.lua`: of them those that a node has told of
//! * `renew.lua`: somebody has read what none of these scripts has written
//!
//! Others may write to the same Redis. What is there and is none of ours is a number that is none, a key of another type,
//! an entry in the log: it is taken away, and where the numbers cannot be trusted any more another epoch begins, with an
//! empty log. What is read is checked before it is used.

mod publish;

use super::{Error, History, Id, epoch};
use crate::engine::revocation::Revocation;
use bytes::Bytes;
use log::warn;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, Script, ScriptInvocation};
use std::collections::HashMap;
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long a reader waits for the next entry.
const WAIT: Duration = Duration::from_secs(1);
const COUNT: usize = 1000;
/// The key of the log.
const LOG: &str = "{mod_websocket}:log";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub number: u64,
    /// When it was written: milliseconds since 1970, by Redis' clock.
    pub at: u64,
    pub channel: String,
    pub event: LogEvent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    Message(LogMessage),
    /// It is deleted: its connections are closed.
    Delete {
        code: u16,
        reason: String,
    },
    /// A member has come to the first node, or left the last.
    Presence {
        member: String,
        joined: bool,
    },
    /// Something is taken back from sessions.
    Revoke(Box<RevokeEntry>),
    /// Of another version: it only has its number.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeEntry {
    /// Which node wants it; it has done it already.
    pub node: String,
    /// Under which the others answer.
    pub id: String,
    pub revocation: Revocation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    pub text: bool,
    /// The media type that the publisher gave.
    pub content_type: Option<String>,
    pub payload: Bytes,
    pub history: History,
}

/// How it stands with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// Which count the numbers are of.
    pub epoch: String,
    pub sequence: u64,
    /// The last number that is not kept.
    pub gone: u64,
    pub known: bool,
}

/// The last entry that somebody has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which count the number is of.
    pub epoch: String,
    pub number: u64,
    /// See [`Entry::at`]; 0 where that entry itself was not read.
    pub at: u64,
}

struct Scripts {
    publish: Script,
    delete: Script,
    set_presence: Script,
    heartbeat: Script,
    leave: Script,
    counts: Script,
    registered: Script,
    renew: Script,
    revoke: Script,
    answer: Script,
    answers: Script,
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("common.lua"), include_str!($file)))
    };
}

#[derive(Clone)]
pub struct RedisLink {
    commands: MultiplexedConnection,
    scripts: std::sync::Arc<Scripts>,
}

/// LogEvent reads the log, over a connection of its own.
pub struct Reader {
    connection: MultiplexedConnection,
}

pub async fn open(url: &str) -> Result<(RedisLink, Reader), Error> {
    let client = Client::open(url)?;
    let config = |response| {
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(response))
    };
    let commands = client.get_multiplexed_async_connection_with_config(&config(PATIENCE)).await?;
    let connection = client.get_multiplexed_async_connection_with_config(&config(WAIT + PATIENCE)).await?;
    let scripts = Scripts {
        publish: script!("publish.lua"),
        delete: script!("delete.lua"),
        set_presence: script!("set_presence.lua"),
        heartbeat: script!("heartbeat.lua"),
        leave: script!("leave.lua"),
        counts: script!("counts.lua"),
        registered: script!("registered.lua"),
        renew: script!("renew.lua"),
        revoke: script!("revoke.lua"),
        answer: script!("answer.lua"),
        answers: script!("answers.lua"),
    };
    Ok((RedisLink { commands, scripts: scripts.into() }, Reader { connection }))
}

/// True where Redis has said that it did nothing, so that asking once more does nothing twice. After any other error it may
/// have done what it was asked for, or may still do it.
fn is_refusal(why: &RedisError) -> bool {
    // Said before the first write of a script, and so before all of them.
    const CODES: [&str; 14] = [
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    ];
    let is_code = |text: &str| CODES.contains(&text.trim_start_matches('-'));
    // Before Redis 7, an error in a script has the code in its text, with the minus that stands before it on the wire.
    why.code().is_some_and(is_code)
        || why.detail().is_some_and(|text| text.split(' ').any(|word| word.starts_with('-') && is_code(word)))
}

impl From<RedisError> for Error {
    fn from(why: RedisError) -> Error {
        Error::unavailable(why)
    }
}

/// What it was to change it has not changed, or nobody knows.
fn undone(why: RedisError) -> Error {
    if is_refusal(&why) {
        return why.into();
    }
    Error::Unknown(format!("the broker gave no answer, and may have done it or do it yet: {why}"))
}

/// Says that what others have written was found.
fn warn_renewed(renewed: u64) {
    if renewed > 0 {
        warn!(
            "WS0185: the broker had what no engine has written (below {{mod_websocket}}:): a new epoch has begun, and \
             subscribers have to come back"
        );
    }
}

fn broken(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}

/// Text; `None` for what is none.
fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    // A sign is none of ours.
    let digits = std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok())
}

impl RedisLink {
    async fn run<T: FromRedisValue>(&self, mut script: ScriptInvocation<'_>) -> Result<T, RedisError> {
        // The key says which slot of a cluster it is.
        script.key(LOG).invoke_async(&mut self.commands.clone()).await
    }

    pub async fn delete(&self, channel: &str, code: u16, reason: &str) -> Result<(), Error> {
        let mut script = self.scripts.delete.arg(epoch());
        script.arg(channel).arg(code).arg(reason);
        warn_renewed(self.run(script).await.map_err(undone)?);
        Ok(())
    }

    /// Has all nodes take something back: under which id they answer, and which others there are.
    pub async fn revoke(&self, node: &str, revocation: &Revocation) -> Result<(String, Vec<String>), Error> {
        let id = epoch();
        let what = serde_json::to_string(revocation).map_err(Error::unavailable)?;
        let mut script = self.scripts.revoke.arg(epoch());
        script.arg(node).arg(&id).arg(what);
        let (renewed, others): (u64, Vec<Vec<u8>>) = self.run(script).await.map_err(undone)?;
        warn_renewed(renewed);
        Ok((id, others.iter().filter_map(|node| text(node)).collect()))
    }

    /// Says how many sessions of this node it was.
    pub async fn answer(&self, id: &str, node: &str, sessions: u64) -> Result<(), Error> {
        let mut script = self.scripts.answer.arg(epoch());
        script.arg(id).arg(node).arg(sessions);
        Ok(self.run(script).await?)
    }

    /// The nodes that have answered, and what.
    pub async fn answers(&self, id: &str) -> Result<Vec<(String, u64)>, Error> {
        let mut script = self.scripts.answers.arg(epoch());
        script.arg(id);
        let pairs: Vec<Vec<u8>> = self.run(script).await?;
        let pair = |pair: &[Vec<u8>]| Some((text(&pair[0])?, number(&pair[1])?));
        Ok(pairs.chunks_exact(2).filter_map(pair).collect())
    }

    /// Says how many connections this node has in a channel, and how many of a member of it.
    pub async fn set_presence(
        &self,
        node: &str,
        channel: &str,
        subscribers: u64,
        member: Option<(&str, u32)>,
    ) -> Result<(), Error> {
        let (member, connections) = member.unwrap_or_default();
        let mut script = self.scripts.set_presence.arg(epoch());
        script.arg(node).arg(channel).arg(subscribers).arg(member).arg(connections);
        warn_renewed(self.run(script).await?);
        Ok(())
    }

    /// Says that this node is alive, and what it has read last.
    pub async fn heartbeat(&self, node: &str, last: &Position) -> Result<StreamState, Error> {
        let mut script = self.scripts.heartbeat.arg(epoch());
        script.arg(node).arg(&last.epoch).arg(last.number).arg(last.at);
        let (epoch, sequence, gone, known, renewed): (String, _, _, _, _) = self.run(script).await?;
        warn_renewed(renewed);
        if !Id::is_epoch(&epoch) {
            return Err(broken("no epoch").into());
        }
        Ok(StreamState { epoch, sequence, gone, known })
    }

    /// Says that this node ends.
    pub async fn leave(&self, node: &str) -> Result<(), Error> {
        let mut script = self.scripts.leave.arg(epoch());
        script.arg(node);
        warn_renewed(self.run(script).await?);
        Ok(())
    }

    /// Says that the log of that epoch has what no engine has written: where nobody has said so before, another begins.
    pub async fn renew(&self, of: &str) -> Result<(), Error> {
        let mut script = self.scripts.renew.arg(epoch());
        script.arg(of);
        warn_renewed(self.run(script).await?);
        Ok(())
    }

    /// What this node has said that it has: channels, each without a member and with those that it has.
    pub async fn registered(&self, node: &str) -> Result<Vec<(String, Option<String>)>, Error> {
        let mut script = self.scripts.registered.arg(epoch());
        script.arg(node);
        let pairs: Vec<Vec<u8>> = self.run(script).await?;
        let pair = |pair: &[Vec<u8>]| {
            let (channel, member) = (text(&pair[0])?, text(&pair[1])?);
            Some((channel, Some(member).filter(|member| !member.is_empty())))
        };
        Ok(pairs.chunks_exact(2).filter_map(pair).collect())
    }

    /// The last number, how many are subscribed to each of these channels, and the members of the first.
    pub async fn counts(&self, channels: &[&str]) -> Result<(u64, Vec<u64>, Vec<(String, u32)>), Error> {
        let mut script = self.scripts.counts.arg(epoch());
        script.arg(channels);
        let (sequence, counts, members): (_, _, Vec<Vec<u8>>) = self.run(script).await?;
        let member = |pair: &[Vec<u8>]| Some((text(&pair[0])?, number(&pair[1])?));
        Ok((sequence, counts, members.chunks_exact(2).filter_map(member).collect()))
    }

    /// The last number that was given.
    pub async fn sequence(&self) -> Result<u64, Error> {
        let mut command = redis::cmd("GET");
        let sequence: Option<u64> =
            command.arg("{mod_websocket}:sequence").query_async(&mut self.commands.clone()).await?;
        Ok(sequence.unwrap_or(0))
    }

    /// At most `limit` channels with subscribers whose names begin with `prefix` and come after `after`, by name.
    pub async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, Error> {
        let from = if after >= prefix && !after.is_empty() { format!("({after}") } else { format!("[{prefix}") };
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg("{mod_websocket}:channels").arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        let names: Vec<Vec<u8>> = command.query_async(&mut self.commands.clone()).await?;
        let names = names.into_iter().take_while(|name| name.starts_with(prefix.as_bytes()));
        Ok(names.filter_map(|name| text(&name)).collect())
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    pub entries: Vec<Entry>,
    /// What comes then is none.
    pub is_foreign: bool,
}

impl Reader {
    /// The entries after that number; none when nothing came for a second.
    pub async fn next(&mut self, after: u64) -> Result<LogPage, Error> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(COUNT).arg("BLOCK").arg(WAIT.as_millis() as u64);
        command.arg("STREAMS").arg(LOG).arg(format!("{after}-0"));
        // Each with its entries, and each of these by its id: names and values.
        type Streams = Vec<(Vec<u8>, Vec<(Vec<u8>, Vec<Vec<u8>>)>)>;
        let streams: Option<Streams> = command.query_async(&mut self.connection).await?;
        let mut piece = LogPage::default();
        for (id, fields) in streams.unwrap_or_default().iter().flat_map(|(_, entries)| entries) {
            match entry(id, fields) {
                Some(entry) => piece.entries.push(entry),
                None => {
                    piece.is_foreign = true;
                    break;
                }
            }
        }
        Ok(piece)
    }
}

/// LogEvent an entry says; `None`: none of ours has written it.
fn entry(id: &[u8], fields: &[Vec<u8>]) -> Option<Entry> {
    let number_of_it = number(id.strip_suffix(b"-0")?)?;
    let names = fields.iter().step_by(2).map(|name| &name[..]);
    if !names.clone().take(4).eq([&b"till"[..], b"size", b"at", b"kind"]) {
        return None;
    }
    let values: HashMap<&[u8], &[u8]> = names.zip(fields.iter().skip(1).step_by(2).map(|value| &value[..])).collect();
    let bytes = |name: &str| values.get(name.as_bytes()).copied().unwrap_or_default();
    let word = |name: &str| text(bytes(name)).unwrap_or_default();
    let (Some(_), Some(_), Some(at)) =
        (number::<u64>(bytes("till")), number::<u64>(bytes("size")), number(bytes("at")))
    else {
        return None;
    };
    let event = match &*word("kind") {
        "message" => LogEvent::Message(LogMessage {
            text: word("text") == "1",
            content_type: Some(word("type")).filter(|text| !text.is_empty()),
            payload: Bytes::copy_from_slice(bytes("payload")),
            history: History {
                messages: number(bytes("messages")).unwrap_or_default(),
                seconds: number(bytes("seconds")).unwrap_or_default(),
            },
        }),
        "delete" => LogEvent::Delete { code: number(bytes("code")).unwrap_or_default(), reason: word("reason") },
        "revoke" => match serde_json::from_slice(bytes("what")) {
            Ok(revocation) => {
                LogEvent::Revoke(Box::new(RevokeEntry { node: word("node"), id: word("id"), revocation }))
            }
            Err(_) => LogEvent::Unknown,
        },
        "presence" => LogEvent::Presence { member: word("member"), joined: word("joined") == "1" },
        _ => LogEvent::Unknown,
    };
    Some(Entry { number: number_of_it, at, channel: word("channel"), event })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: &str, words: &str) -> Option<Entry> {
        let fields: Vec<Vec<u8>> = words.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        entry(id.as_bytes(), &fields)
    }

    #[test]
    fn entries_are_ours_or_none() {
        let ours = "till 9 size 3 at 7 kind delete channel a code 1000 reason x";
        let event = LogEvent::Delete { code: 1000, reason: "x".into() };
        assert_eq!(read("5-0", ours), Some(Entry { number: 5, at: 7, channel: "a".into(), event }));
        // A version that is to come.
        let Entry { number, event, .. } = read("6-0", "till 9 size 3 at 7 kind dance").unwrap();
        assert_eq!((number, event), (6, LogEvent::Unknown));
        for id in ["5-1", "5", "-0", "+5-0", "18446744073709551616-0", "x-0"] {
            assert_eq!(read(id, ours), None, "{id}");
        }
        for fields in [
            "field value",
            "till 9 size 3 at 7",
            "till x size 3 at 7 kind delete",
            "till 9 size -3 at 7 kind delete",
            "till 9 size 3 at +7 kind delete",
            "size 3 till 9 at 7 kind delete",
        ] {
            assert_eq!(read("5-0", fields), None, "{fields}");
        }
        assert_eq!(entry(b"5-0", &[b"\xff".to_vec(), b"x".to_vec()]), None);
    }

    #[test]
    fn what_redis_refuses_it_has_not_done() {
        let error = |text: &str| {
            let value =
                redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).and_then(redis::Value::extract_error);
            value.expect_err("an error")
        };
        for text in [
            "READONLY You can't write against a read only replica. script: 1f, on @user_script:9.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Redis is configured to save RDB snapshots",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "ERR Error running script (call to f_1f): @user_script:1: @user_script: 9: -READONLY You can't write",
        ] {
            assert!(is_refusal(&error(text)), "{text}");
        }
        for text in ["ERR something else", "ERR user_script:9: the OOMs of it", "UNKILLABLE Sorry"] {
            assert!(!is_refusal(&error(text)), "{text}");
        }
        let cut: RedisError = std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
        assert!(!is_refusal(&cut));
    }
}
