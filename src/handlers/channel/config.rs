//! The directives of channels.

use crate::apache::expr::Expression;
use crate::channels::History;
use crate::channels::name::{MAX_NAME, is_name};
use crate::channels::subscription::ServerSettings;
use crate::front::config::limit::{Limit, Smaller};
use crate::front::config::words::{Words, is_off, on_off, one};
use crate::front::config::{Config, directives, merged};

merged! {
    /// What the directives of a section say of channels; `None` where they say nothing.
    pub(crate) struct ChannelConfig {
        names: Option<Given<Vec<Expression>>>,
        max: Limit<u32>,
        allowed: Option<Given<Vec<Allowed>>>,
        publishes: Option<Given<bool>>,
        history: Limit<History>,
        presence: Option<Given<bool>>,
        /// `Off` is `Some(None)`.
        heartbeat: Option<Option<(String, String)>>,
        member: Option<Given<Expression>>,
        total: Option<usize>,
        memory: Option<usize>,
        /// `Off` is `Some(None)`.
        broker: Option<Option<String>>,
        /// Likewise.
        prefix: Option<Option<String>>,
    }
}

/// What is said of the names of channels, and of what may be done with them.
#[derive(Clone, Default)]
struct Given<T> {
    value: T,
    /// By an .htaccess file.
    in_htaccess: bool,
}

impl Smaller for History {
    fn smaller(self, other: History) -> History {
        History { messages: self.messages.min(other.messages), seconds: self.seconds.min(other.seconds) }
    }
}

/// A pattern: what stands before, between and after its asterisks, each an expression where there is something.
pub(super) type Allowed = Vec<Option<Expression>>;

directives! { pub(crate) DIRECTIVES =
    c"WebSocketChannelPrefix" "name|Off" in Sections, else "Off" => prefix,
        c"The name below which all channels are here: what clients and publishers call x is NAME/x; or 'Off'";
    c"WebSocketChannelMax" "number" in Everywhere, else "64" => max,
        c"Channels that one connection may be subscribed to at a time";
    c"WebSocketChannelAllow" "pattern ...|Off" in Everywhere, else "Off" => allow,
        c"Channels that clients of channels.v1 may subscribe to while connected: expressions, in which '*' matches anything";
    c"WebSocketChannelPublish" "On|Off" in Everywhere, else "Off" => publish,
        c"Whether what subscribers send is published: 'On' or 'Off'";
    c"WebSocketChannelHistory" "messages seconds|Off" in Everywhere, else "10 3600" => history,
        c"How many messages of a channel are kept, and for how long, of those that are published here; or 'Off'";
    c"WebSocketChannelPresence" "On|Off" in Everywhere, else "Off" => presence,
        c"Whether clients may ask who is subscribed, and be told who comes and goes: 'On' or 'Off'";
    c"WebSocketChannelHeartbeat" "ping pong|Off" in Everywhere, else "Off" => heartbeat,
        c"A text with which clients ask whether the server is there, and the answer; neither is published; or 'Off'";
    c"WebSocketChannelMember" "expression" in Everywhere, else "%{REMOTE_USER}" => member,
        c"As whom a connection is present in its channels: an expression; nobody in particular where it is empty";
    c"WebSocketChannelsMax" "number" in Global, else "1000000" => total,
        c"Channels that may exist at a time";
    c"WebSocketHistoryMemory" "bytes" in Global, else "67108864" => memory,
        c"Bytes of all messages that are kept, together; the oldest go first";
    c"WebSocketBroker" "url|Off" in Global, else "Off" => broker,
        c"A Redis server, redis://host:port/db, through which the channels of several servers are one";
}

impl ChannelConfig {
    /// What all names of channels begin with here, and clients and publishers neither write nor see: `NAME/`, or nothing.
    pub(crate) fn prefix(&self) -> String {
        self.prefix.iter().flatten().map(|name| format!("{name}/")).collect()
    }

    /// What is said of channels here is said by an .htaccess file, at least in part.
    pub(crate) fn are_from_htaccess(&self) -> bool {
        fn is<T>(said: &Option<Given<T>>) -> bool {
            said.as_ref().is_some_and(|said| said.in_htaccess)
        }
        is(&self.names) || is(&self.allowed) || is(&self.publishes) || is(&self.presence) || is(&self.member)
    }

    pub(crate) fn names(&self) -> &[Expression] {
        self.names.as_ref().map_or(&[], |names| &names.value)
    }

    /// Those that it may subscribe to besides.
    pub(crate) fn allowed(&self) -> &[Allowed] {
        self.allowed.as_ref().map_or(&[], |allowed| &allowed.value)
    }

    /// Channels of a connection at a time.
    pub(crate) fn max(&self) -> u32 {
        self.max.unwrap_or(64)
    }

    pub(crate) fn publishes(&self) -> bool {
        self.publishes.as_ref().is_some_and(|publishes| publishes.value)
    }

    pub(crate) fn history(&self) -> History {
        self.history.unwrap_or(History::default())
    }

    pub(crate) fn presence(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.value)
    }

    /// What asks whether somebody is there, and the answer.
    pub(crate) fn heartbeat(&self) -> Option<Box<(String, String)>> {
        self.heartbeat.clone().flatten().map(Box::new)
    }

    /// As whom a connection is there; `None`: as the user who has logged in.
    pub(crate) fn member(&self) -> Option<&Expression> {
        self.member.as_ref().map(|member| &member.value)
    }

    pub(crate) fn server(&self) -> ServerSettings {
        let default = ServerSettings::default();
        ServerSettings {
            channels: self.total.unwrap_or(default.channels),
            history_bytes: self.memory.unwrap_or(default.history_bytes),
            broker: self.broker.clone().unwrap_or(default.broker),
        }
    }
}

/// What stands behind `WebSocketHandler channel`.
pub(super) fn names(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let names = words.iter().flat_map(|word| split_words(word)).map(Expression::compile);
    let names = Given { value: names.collect::<Result<Vec<_>, _>>()?, in_htaccess: config.place.in_htaccess };
    if names.value.is_empty() {
        return Err("expected the names of channels, such as \"room/%{QUERY_STRING}\"".into());
    }
    config.change(|channel: &mut ChannelConfig| channel.names = Some(names));
    Ok(())
}

/// Cuts at blanks, but not in an expression's `%{…}` or parentheses, nor after a backslash.
fn split_words(text: &str) -> impl Iterator<Item = &str> {
    split(text, char::is_whitespace).filter(|word| !word.is_empty())
}

/// Cuts at asterisks, with the same exceptions.
fn split_pattern(text: &str) -> impl Iterator<Item = &str> {
    split(text, |c| c == '*')
}

fn split(text: &str, is_separator: fn(char) -> bool) -> impl Iterator<Item = &str> {
    let (mut depth, mut is_escaped) = (0_i32, false);
    text.split(move |c: char| {
        let is_literal = is_escaped;
        is_escaped = c == '\\' && !is_literal;
        match c {
            _ if is_literal => return false,
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            _ => {}
        }
        depth <= 0 && is_separator(c)
    })
}

fn number(words: Words<'_, '_>, what: &str) -> Result<u32, String> {
    let word = one(words, what)?;
    let number = word.parse().ok().filter(|number| (1..=i32::MAX as u32).contains(number));
    number.ok_or_else(|| format!("expected {what} from 1 to {}, got \"{word}\"", i32::MAX))
}

fn max(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let max = number(words, "a number of channels")?;
    let place = config.place.clone();
    config.change(|channel: &mut ChannelConfig| channel.max.write(&place, max));
    Ok(())
}

fn allow(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("expected names of channels, in which * matches anything, such as room/*; or Off".into());
    }
    let pieces = |word| {
        let pieces =
            split_pattern(word).map(|piece| (!piece.is_empty()).then(|| Expression::compile(piece)).transpose());
        pieces.collect::<Result<Allowed, String>>()
    };
    let in_htaccess = config.place.in_htaccess;
    let more = match words {
        [off] if is_off(off) => None,
        words => Some(words.iter().flat_map(|word| split_words(word)).map(pieces).collect::<Result<Vec<_>, _>>()?),
    };
    config.change(|channel: &mut ChannelConfig| {
        let allowed = channel.allowed.get_or_insert_default();
        match more {
            Some(more) => {
                allowed.value.extend(more);
                allowed.in_htaccess = in_htaccess;
            }
            None => allowed.value.clear(),
        }
    });
    Ok(())
}

fn publish(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let value = on_off(words)?;
    let said = Given { value, in_htaccess: value && config.place.in_htaccess };
    config.change(|channel: &mut ChannelConfig| channel.publishes = Some(said));
    Ok(())
}

fn presence(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let value = on_off(words)?;
    let said = Given { value, in_htaccess: value && config.place.in_htaccess };
    config.change(|channel: &mut ChannelConfig| channel.presence = Some(said));
    Ok(())
}

fn heartbeat(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let heartbeat = match words {
        [off] if is_off(off) => None,
        [ping, pong] if !ping.is_empty() => Some((ping.clone().into_owned(), pong.clone().into_owned())),
        _ => {
            return Err(
                "expected the text that clients send and the text that answers it, such as ping pong; or Off".into()
            );
        }
    };
    config.change(|channel: &mut ChannelConfig| channel.heartbeat = Some(heartbeat));
    Ok(())
}

fn history(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let parse = |word: &str| word.parse().ok().filter(|number| (1..=i32::MAX as u32).contains(number));
    let history = match words {
        [off] if is_off(off) => History { messages: 0, seconds: 0 },
        [messages, seconds] => match (parse(messages), parse(seconds)) {
            (Some(messages), Some(seconds)) => History { messages, seconds },
            _ => {
                return Err(format!(
                    "\"{messages} {seconds}\" is not a number of messages and one of seconds, as 10 3600"
                ));
            }
        },
        _ => return Err("expected how many messages are kept and for how many seconds, such as 10 3600; or Off".into()),
    };
    let place = config.place.clone();
    config.change(|channel: &mut ChannelConfig| channel.history.write(&place, history));
    Ok(())
}

fn member(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let value = Expression::compile(one(words, "an expression, as %{REMOTE_USER}")?)?;
    let said = Given { value, in_htaccess: config.place.in_htaccess };
    config.change(|channel: &mut ChannelConfig| channel.member = Some(said));
    Ok(())
}

fn prefix(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "the name that all channels here are below, or Off")?;
    if is_off(word) {
        config.change(|channel: &mut ChannelConfig| channel.prefix = Some(None));
        return Ok(());
    }
    // What is below it has a name as well.
    if !is_name(word) || word.len() > MAX_NAME / 2 || word.starts_with('/') || word.ends_with('/') {
        return Err(format!(
            "expected a name without blanks, of up to {} bytes, without a / at its beginning or end, got \"{word}\"",
            MAX_NAME / 2
        ));
    }
    config.change(|channel: &mut ChannelConfig| channel.prefix = Some(Some(word.to_owned())));
    Ok(())
}

fn total(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let total = number(words, "a number of channels")? as usize;
    config.change(|channel: &mut ChannelConfig| channel.total = Some(total));
    Ok(())
}

fn memory(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of bytes")?;
    let memory = word.parse().map_err(|_| format!("expected a number of bytes, got \"{word}\""))?;
    config.change(|channel: &mut ChannelConfig| channel.memory = Some(memory));
    Ok(())
}

fn broker(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "the URL of a Redis server, or Off")?;
    if is_off(word) {
        config.change(|channel: &mut ChannelConfig| channel.broker = Some(None));
        return Ok(());
    }
    let host = word.strip_prefix("redis://").or_else(|| word.strip_prefix("rediss://"));
    if host.is_none_or(str::is_empty) {
        return Err(format!(
            "\"{word}\" is no URL of a Redis server; write redis://host:port/db or rediss://host:port/db"
        ));
    }
    config.change(|channel: &mut ChannelConfig| channel.broker = Some(Some(word.to_owned())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_are_cut_outside_of_expressions() {
        let words = |text| split_words(text).collect::<Vec<_>>();
        assert_eq!(words(" a  room/%{QUERY_STRING}\tb "), ["a", "room/%{QUERY_STRING}", "b"]);
        assert_eq!(words("%{tolower:%{env:A B}} c"), ["%{tolower:%{env:A B}}", "c"]);
        let pieces = |text| split_pattern(text).collect::<Vec<_>>();
        assert_eq!(pieces("user/%{REMOTE_USER}/*"), ["user/%{REMOTE_USER}/", ""]);
        assert_eq!(pieces("%{env:*}*"), ["%{env:*}", ""]);
        assert_eq!(pieces("plain"), ["plain"]);
        assert_eq!(pieces(r"a\**\\*"), [r"a\*", r"\\", ""]);
        assert_eq!(words(r"a\ b c"), [r"a\ b", "c"]);
    }
}
