//! What httpd has channels do, and what it is told: plain data, as [`postcard`] writes it.

use super::History;
use super::name::is_name;
use crate::engine::revocation::{Measure, Revocation};
use crate::wire::CloseCode;
use serde::{Deserialize, Serialize};

/// RFC 6455 section 7.4: codes that are no mere placeholders, have a meaning, and are not the client's alone.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1009 | 1011..=1014 | 3000..=4999) && CloseCode::from(code).is_allowed()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Give the message that comes with this to the subscribers of these channels, none of them named twice.
    Publish {
        channels: Vec<String>,
        /// It is UTF-8, and goes out as text. Else as binary.
        text: bool,
        /// The media type that the publisher gave.
        content_type: Option<String>,
        history: History,
    },
    Info {
        channel: String,
    },
    List {
        prefix: String,
        /// And come after this one; "" for the first page.
        after: String,
        limit: u32,
    },
    /// Close the subscribers of these channels, and drop what is kept of them.
    Delete {
        channels: Vec<String>,
        code: u16,
        reason: String,
    },
    /// Take something back from sessions, of whichever handler.
    Revoke(Box<Revocation>),
    /// Publish these messages one after the other; their payloads come with this, one behind the other.
    PublishBatch(PublishBatch),
}

/// Messages that are published together, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishBatch {
    /// The channels that they go to, none of them named twice.
    pub channels: Vec<String>,
    /// The media types that the publisher gave.
    pub content_types: Vec<String>,
    pub messages: Vec<BatchMessage>,
    pub history: History,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchMessage {
    /// Its place in [`PublishBatch::channels`].
    pub channel: u32,
    /// Its place in [`PublishBatch::content_types`].
    pub content_type: Option<u32>,
    /// It is UTF-8, and goes out as text. Else as binary.
    pub text: bool,
    /// The length of its payload.
    pub bytes: u32,
}

/// A message of a [`PublishBatch`], with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry<'a> {
    pub channel: &'a str,
    pub content_type: Option<&'a str>,
    pub text: bool,
    pub payload: &'a [u8],
}

impl PublishBatch {
    /// Its messages; `None` where the payloads are not theirs.
    pub fn entries<'a>(&'a self, mut payloads: &'a [u8]) -> Option<Vec<BatchEntry<'a>>> {
        let entry = |message: &BatchMessage| {
            let (payload, rest) = payloads.split_at_checked(message.bytes as usize)?;
            payloads = rest;
            let content_type = match message.content_type {
                Some(place) => Some(self.content_types.get(place as usize)?.as_str()),
                None => None,
            };
            let channel = self.channels.get(message.channel as usize)?;
            Some(BatchEntry { channel, content_type, text: message.text, payload })
        };
        let entries = self.messages.iter().map(entry).collect::<Option<_>>()?;
        payloads.is_empty().then_some(entries)
    }
}

impl Command {
    /// The same for the channels below a prefix, `NAME/`, whose names stand here without it.
    ///
    /// # Errors
    /// One that is none any more, being too long.
    #[cfg(any(test, feature = "httpd"))]
    pub fn below(mut self, prefix: &str) -> Result<Command, String> {
        match &mut self {
            Command::Publish { channels, .. }
            | Command::Delete { channels, .. }
            | Command::PublishBatch(PublishBatch { channels, .. }) => put_below(channels, prefix)?,
            Command::Revoke(revocation) => {
                revocation.name.prefix = prefix.to_owned();
                if let Measure::Unsubscribe { channels } = &mut revocation.measure {
                    put_below(channels, prefix)?;
                }
            }
            Command::Info { channel } => {
                channel.insert_str(0, prefix);
                if !is_name(channel) {
                    return Err(channel.split_off(prefix.len()));
                }
            }
            Command::List { prefix: wanted, after, .. } => {
                wanted.insert_str(0, prefix);
                if !after.is_empty() {
                    after.insert_str(0, prefix);
                }
            }
        }
        Ok(self)
    }
}

#[cfg(any(test, feature = "httpd"))]
fn put_below(channels: &mut Vec<String>, prefix: &str) -> Result<(), String> {
    channels.iter_mut().for_each(|channel| channel.insert_str(0, prefix));
    match channels.iter().position(|channel| !is_name(channel)) {
        Some(long) => Err(channels.swap_remove(long).split_off(prefix.len())),
        None => Ok(()),
    }
}

impl Reply {
    /// The same without the prefix that the names had with [`Command::below`].
    #[cfg(any(test, feature = "httpd"))]
    pub fn without(mut self, prefix: &str) -> Reply {
        let cut = |name: &mut String| {
            if let Some(rest) = name.strip_prefix(prefix) {
                *name = rest.to_owned();
            }
        };
        match &mut self {
            Reply::Published(results) => results.iter_mut().for_each(|result| cut(&mut result.channel)),
            Reply::Info(info) => info.iter_mut().for_each(|info| cut(&mut info.channel)),
            Reply::List { channels, .. } => channels.iter_mut().for_each(|info| cut(&mut info.channel)),
            Reply::Revoked(_) | Reply::Batch(_) => {}
            Reply::Deleted(infos) => infos.iter_mut().flatten().for_each(|info| cut(&mut info.channel)),
        }
        self
    }
}

/// The answer to a [`Command`]. What fails is refused with an HTTP status: 503 without a broker, 507 when there are as many
/// channels as there may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::Publish`], in its order.
    Published(Vec<PublishResult>),
    /// To [`Command::Info`]; `None`: there is no such channel.
    Info(Option<Info>),
    /// To [`Command::List`], by name.
    List {
        channels: Vec<Info>,
        /// There are more after the last.
        more: bool,
    },
    /// To [`Command::Delete`], in its order: what each was; `None`: there was no such channel.
    Deleted(Vec<Option<Info>>),
    /// To [`Command::Revoke`].
    Revoked(RevokeResult),
    /// To [`Command::PublishBatch`], in its order.
    Batch(Vec<BatchOutcome>),
}

/// What became of one message of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchOutcome {
    Published {
        id: String,
        /// Connections that it was given to.
        subscribers: u64,
    },
    /// It was not published, or nobody knows: with the HTTP status that it would have alone.
    Failed { status: u16, reason: String },
}

/// From whom something was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeResult {
    pub sockets: u64,
    /// That many servers have said so.
    pub servers: u64,
    /// Others have not, in time.
    pub unanswered: u64,
}

/// What became of a message in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishResult {
    pub channel: String,
    pub id: String,
    /// Connections that it was given to.
    pub subscribers: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub channel: String,
    pub subscribers: u64,
    pub messages: u64,
    pub bytes: u64,
    /// The id of the last message; `None`: there was none that is remembered.
    pub last_id: Option<String>,
    /// Who is there, with the number of their connections; only in answer to [`Command::Info`].
    pub members: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::name::MAX_NAME;

    #[test]
    fn codes_are_those_that_a_server_may_send() {
        assert!([1000, 1001, 1011, 3000, 4999].into_iter().all(may_be_sent));
        assert!(![0, 999, 1004, 1005, 1006, 1010, 1015, 1016, 2999, 5000].into_iter().any(may_be_sent));
    }

    #[test]
    fn names_below_a_prefix_come_back_without_it() {
        let list = |prefix: &str, after: &str| Command::List { prefix: prefix.into(), after: after.into(), limit: 9 };
        assert_eq!(list("", "").below("a/"), Ok(list("a/", "")));
        assert_eq!(list("r", "x").below("a/"), Ok(list("a/r", "a/x")));
        let info = |channel: &str| Command::Info { channel: channel.into() };
        assert_eq!(info("a/x").below("a/"), Ok(info("a/a/x")));
        assert_eq!(info("x").below(""), Ok(info("x")));
        let long = "x".repeat(MAX_NAME - 1);
        assert_eq!(info(&long).below("a/"), Err(long.clone()));
        let delete = |channels: &[&str]| Command::Delete {
            channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
            code: 1000,
            reason: String::new(),
        };
        assert_eq!(delete(&["x", "y"]).below("a/"), Ok(delete(&["a/x", "a/y"])));
        assert_eq!(delete(&["x", &long]).below("a/"), Err(long));
        let result = |channel: &str| PublishResult { channel: channel.into(), id: "e:1".into(), subscribers: 0 };
        let published = |channel| Reply::Published(vec![result(channel)]);
        assert_eq!(published("a/a/x").without("a/"), published("a/x"));
        assert_eq!(published("x").without(""), published("x"));
    }

    #[test]
    fn a_batch_has_a_payload_for_each_of_its_messages() {
        let message = |channel, content_type, bytes| BatchMessage { channel, content_type, text: true, bytes };
        let batch = |messages: Vec<BatchMessage>| PublishBatch {
            channels: vec!["a".into(), "b".into()],
            content_types: vec!["text/plain".into()],
            messages,
            history: History::default(),
        };
        let good = batch(vec![message(1, None, 2), message(0, Some(0), 0), message(1, None, 1)]);
        let entry = |channel, content_type, payload| BatchEntry { channel, content_type, text: true, payload };
        let entries = [entry("b", None, &b"xy"[..]), entry("a", Some("text/plain"), b""), entry("b", None, b"z")];
        assert_eq!(good.entries(b"xyz").as_deref(), Some(&entries[..]));
        assert_eq!(good.entries(b"xy"), None);
        assert_eq!(good.entries(b"xyzz"), None);
        assert_eq!(batch(vec![message(2, None, 1)]).entries(b"x"), None);
        assert_eq!(batch(vec![message(0, Some(1), 1)]).entries(b"x"), None);
        let command =
            |channel: &str| Command::PublishBatch(PublishBatch { channels: vec![channel.into()], ..batch(Vec::new()) });
        assert_eq!(command("x").below("a/"), Ok(command("a/x")));
    }
}
