//! What httpd and the channel handler say to each other, beside sessions: plain data, as [`postcard`] writes it.

use crate::channels::History;
use crate::wire::CloseCode;
use serde::{Deserialize, Serialize};

/// The bytes of the longest channel name.
pub const MAX_NAME: usize = 1024;

/// True for what can be a channel's name: text of 1 to [`MAX_NAME`] bytes without blanks and control characters.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// True for a media type that can be told to subscribers: it is a line of its own in `ws+meta.nchan`.
pub fn is_line(content_type: &str) -> bool {
    !content_type.is_empty() && !content_type.contains(|c: char| c.is_control())
}

/// RFC 6455 section 7.4: codes that are no mere placeholders, have a meaning, and are not the client's alone.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1009 | 1011..=1014 | 3000..=4999) && CloseCode::from(code).is_allowed()
}

/// What a session on channels is, beside what every session is. Travels in [`crate::engine::HandlerSpec::settings`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// What all of its channels begin with, and the client neither writes nor sees: "", or `NAME/`. It stands in `channels` and
    /// in `allowed`.
    pub prefix: String,
    /// The channels that it begins with, none twice.
    pub channels: Vec<String>,
    /// Which others it may subscribe to while it lasts: those that one of the patterns matches.
    pub allowed: Vec<Pattern>,
    /// Channels that it may be subscribed to at a time.
    pub max: u32,
    /// What the client sends is published.
    pub publishes: bool,
    /// It may ask who is there, and be told who joins and leaves.
    pub presence: bool,
    /// As whom presence counts it; `None`: as nobody in particular.
    pub member: Option<String>,
    /// The id of the last message that the client knows, as it gave it; "*": it wants all that is kept.
    pub since: Option<String>,
    /// How what it publishes is kept.
    pub history: History,
    /// A text of the client that asks whether somebody is there, and the answer: neither is published. For clients that speak
    /// no subprotocol of requests.
    pub heartbeat: Option<Box<(String, String)>>,
}

/// A pattern of names: its pieces with anything, even nothing, between them.
///
/// `["room/", ""]` is written `room/*`, and `["room/1"]` is that very name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern(pub Vec<String>);

impl Pattern {
    /// True for a name that the pattern matches.
    pub fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = &self.0[..] else {
            return self.0.first().is_some_and(|only| only == name);
        };
        let inner = name.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut inner) = inner else { return false };
        middle.iter().all(|piece| match inner.split_once(piece.as_str()) {
            Some((_, rest)) => {
                inner = rest;
                true
            }
            None => false,
        })
    }
}

/// What the handler is told of the server as a whole ([`crate::engine::Handler::configure`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Channels that may exist at a time.
    pub channels: usize,
    /// Bytes of all messages that are kept, together.
    pub history_bytes: usize,
    /// Where several engines meet: `redis://…` or `rediss://…`; `None`: this engine is alone.
    pub broker: Option<String>,
}

impl Default for Server {
    fn default() -> Self {
        Server { channels: 1_000_000, history_bytes: 64 << 20, broker: None }
    }
}

/// What httpd asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Give the message that comes with this to the subscribers of these channels, none of them named twice.
    Publish {
        /// The channels.
        channels: Vec<String>,
        /// It is UTF-8, and goes out as text. Else as binary.
        text: bool,
        /// The media type that the publisher gave.
        content_type: Option<String>,
        /// How it is kept.
        history: History,
    },
    /// What is known of a channel.
    Info {
        /// Its name.
        channel: String,
    },
    /// The channels that there are.
    List {
        /// Those whose names begin so.
        prefix: String,
        /// And come after this one; "" for the first page.
        after: String,
        /// That many at most.
        limit: u32,
    },
    /// Close the subscribers of these channels, and drop what is kept of them.
    Delete {
        /// The channels.
        channels: Vec<String>,
        /// The close code.
        code: u16,
        /// The reason in the Close frame.
        reason: String,
    },
}

impl Call {
    /// The same for the channels below a prefix, `NAME/`, whose names stand here without it.
    ///
    /// # Errors
    /// One that is none any more, being too long.
    #[cfg(any(test, feature = "httpd"))]
    pub fn below(mut self, prefix: &str) -> Result<Call, String> {
        match &mut self {
            Call::Publish { channels, .. } | Call::Delete { channels, .. } => {
                channels.iter_mut().for_each(|channel| channel.insert_str(0, prefix));
                if let Some(long) = channels.iter().position(|channel| !is_name(channel)) {
                    return Err(channels.swap_remove(long).split_off(prefix.len()));
                }
            }
            Call::Info { channel } => {
                channel.insert_str(0, prefix);
                if !is_name(channel) {
                    return Err(channel.split_off(prefix.len()));
                }
            }
            Call::List { prefix: wanted, after, .. } => {
                wanted.insert_str(0, prefix);
                if !after.is_empty() {
                    after.insert_str(0, prefix);
                }
            }
        }
        Ok(self)
    }
}

impl Answer {
    /// The same without the prefix that the names had with [`Call::below`].
    #[cfg(any(test, feature = "httpd"))]
    pub fn without(mut self, prefix: &str) -> Answer {
        let cut = |name: &mut String| {
            if let Some(rest) = name.strip_prefix(prefix) {
                *name = rest.to_owned();
            }
        };
        match &mut self {
            Answer::Published(receipts) => receipts.iter_mut().for_each(|receipt| cut(&mut receipt.channel)),
            Answer::Info(info) => info.iter_mut().for_each(|info| cut(&mut info.channel)),
            Answer::List { channels, .. } => channels.iter_mut().for_each(|info| cut(&mut info.channel)),
            Answer::Deleted(infos) => infos.iter_mut().flatten().for_each(|info| cut(&mut info.channel)),
        }
        self
    }
}

/// The answer to a [`Call`]. What fails is refused with an HTTP status: 503 without a broker, 507 when there are as many
/// channels as there may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Call::Publish`], in its order.
    Published(Vec<Receipt>),
    /// To [`Call::Info`]; `None`: there is no such channel.
    Info(Option<Info>),
    /// To [`Call::List`], by name.
    List {
        /// A page of them.
        channels: Vec<Info>,
        /// There are more after the last.
        more: bool,
    },
    /// To [`Call::Delete`], in its order: what each was; `None`: there was no such channel.
    Deleted(Vec<Option<Info>>),
}

/// What became of a message in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The channel.
    pub channel: String,
    /// The message's id.
    pub id: String,
    /// Connections that it was given to.
    pub subscribers: u64,
}

/// What is known of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub channel: String,
    /// Connections that are subscribed.
    pub subscribers: u64,
    /// Messages that are kept.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The id of the last message; `None`: there was none that is remembered.
    pub last_id: Option<String>,
    /// Who is there, with the number of their connections; only in answer to [`Call::Info`].
    pub members: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_from_end_to_end() {
        let pattern = |text: &str| Pattern(text.split('*').map(str::to_owned).collect());
        for (text, yes, no) in [
            ("room/1", "room/1", "room/12"),
            ("room/*", "room/", "room"),
            ("*", "anything", "\u{0}"),
            ("a*a", "aa", "a"),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("*/private", "x/private", "x/private/y"),
        ] {
            assert!(pattern(text).matches(yes), "{text} {yes}");
            assert!(text == "*" || !pattern(text).matches(no), "{text} {no}");
        }
        assert!(!Pattern(vec![]).matches(""));
    }

    #[test]
    fn codes_are_those_that_a_server_may_send() {
        assert!([1000, 1001, 1011, 3000, 4999].into_iter().all(may_be_sent));
        assert!(![0, 999, 1004, 1005, 1006, 1010, 1015, 1016, 2999, 5000].into_iter().any(may_be_sent));
    }

    #[test]
    fn names_below_a_prefix_come_back_without_it() {
        let list = |prefix: &str, after: &str| Call::List { prefix: prefix.into(), after: after.into(), limit: 9 };
        assert_eq!(list("", "").below("a/"), Ok(list("a/", "")));
        assert_eq!(list("r", "x").below("a/"), Ok(list("a/r", "a/x")));
        let info = |channel: &str| Call::Info { channel: channel.into() };
        assert_eq!(info("a/x").below("a/"), Ok(info("a/a/x")));
        assert_eq!(info("x").below(""), Ok(info("x")));
        let long = "x".repeat(MAX_NAME - 1);
        assert_eq!(info(&long).below("a/"), Err(long.clone()));
        let delete = |channels: &[&str]| Call::Delete {
            channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
            code: 1000,
            reason: String::new(),
        };
        assert_eq!(delete(&["x", "y"]).below("a/"), Ok(delete(&["a/x", "a/y"])));
        assert_eq!(delete(&["x", &long]).below("a/"), Err(long));
        let receipt = |channel: &str| Receipt { channel: channel.into(), id: "e:1".into(), subscribers: 0 };
        let published = |channel| Answer::Published(vec![receipt(channel)]);
        assert_eq!(published("a/a/x").without("a/"), published("a/x"));
        assert_eq!(published("x").without(""), published("x"));
    }

    #[test]
    fn names_are_words() {
        for name in ["a", "room/1", "café/☕", "%2F", &"x".repeat(MAX_NAME)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a\u{a0}b", "a\nb", "\0", &"x".repeat(MAX_NAME + 1)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
