//! The directives of channels.

use crate::apache::expr::Expression;
use crate::channels::History;
use crate::channels::call::{MAX_NAME, Server, is_name};
use crate::front::config::limit::Limit;
use crate::front::config::{Config, Words, is_off, on_off, one};

/// What the directives of a section say of channels; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Channels {
    names: Vec<Expression>,
    max: Limit<u32>,
    allowed: Option<Vec<Allowed>>,
    publishes: Option<bool>,
    history: Limit<History>,
    presence: Option<bool>,
    /// `Off` is `Some(None)`.
    heartbeat: Option<Option<(String, String)>>,
    member: Option<Expression>,
    total: Option<usize>,
    memory: Option<usize>,
    /// `Off` is `Some(None)`.
    broker: Option<Option<String>>,
    /// Likewise.
    prefix: Option<Option<String>>,
    /// What of this an .htaccess file says.
    htaccess: FromHtaccess,
}

/// What of the names of channels, and of what may be done with them, comes from an .htaccess file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct FromHtaccess {
    names: bool,
    allowed: bool,
    publishes: bool,
    presence: bool,
    member: bool,
}

/// A pattern: what stands before, between and after its asterisks, each an expression where there is something.
pub type Allowed = Vec<Option<Expression>>;

impl Channels {
    /// This, an inner section's, over an outer one's. `own_names`: it says itself which channels there are.
    pub fn over(&self, outer: &Channels, own_names: bool) -> Channels {
        Channels {
            names: if own_names { self.names.clone() } else { outer.names.clone() },
            max: self.max.over(&outer.max),
            allowed: self.allowed.clone().or_else(|| outer.allowed.clone()),
            publishes: self.publishes.or(outer.publishes),
            history: self.history.over(&outer.history),
            presence: self.presence.or(outer.presence),
            heartbeat: self.heartbeat.clone().or_else(|| outer.heartbeat.clone()),
            member: self.member.clone().or_else(|| outer.member.clone()),
            total: self.total.or(outer.total),
            memory: self.memory.or(outer.memory),
            broker: self.broker.clone().or_else(|| outer.broker.clone()),
            prefix: self.prefix.clone().or_else(|| outer.prefix.clone()),
            htaccess: FromHtaccess {
                names: if own_names { self.htaccess.names } else { outer.htaccess.names },
                allowed: if self.allowed.is_some() { self.htaccess.allowed } else { outer.htaccess.allowed },
                publishes: if self.publishes.is_some() { self.htaccess.publishes } else { outer.htaccess.publishes },
                presence: if self.presence.is_some() { self.htaccess.presence } else { outer.htaccess.presence },
                member: if self.member.is_some() { self.htaccess.member } else { outer.htaccess.member },
            },
        }
    }

    /// What all names of channels begin with here, and clients and publishers neither write nor see: `NAME/`, or nothing.
    pub fn prefix(&self) -> String {
        self.prefix.iter().flatten().map(|name| format!("{name}/")).collect()
    }

    /// What is said of channels here is said by an .htaccess file, at least in part.
    pub fn are_from_htaccess(&self) -> bool {
        let FromHtaccess { names, allowed, publishes, presence, member } = self.htaccess;
        names || allowed || publishes || presence || member
    }

    /// The channels of a connection.
    pub fn names(&self) -> &[Expression] {
        &self.names
    }

    /// Those that it may subscribe to besides.
    pub fn allowed(&self) -> &[Allowed] {
        self.allowed.as_deref().unwrap_or_default()
    }

    /// Channels of a connection at a time.
    pub fn max(&self) -> u32 {
        self.max.unwrap_or(64)
    }

    /// What subscribers send is published.
    pub fn publishes(&self) -> bool {
        self.publishes.unwrap_or(false)
    }

    /// How what is published here is kept.
    pub fn history(&self) -> History {
        self.history.unwrap_or(History::default())
    }

    /// Subscribers may know who is there.
    pub fn presence(&self) -> bool {
        self.presence.unwrap_or(false)
    }

    /// What asks whether somebody is there, and the answer.
    pub fn heartbeat(&self) -> Option<Box<(String, String)>> {
        self.heartbeat.clone().flatten().map(Box::new)
    }

    /// As whom a connection is there; `None`: as the user who has logged in.
    pub fn member(&self) -> Option<&Expression> {
        self.member.as_ref()
    }

    /// What holds for the server as a whole.
    pub fn server(&self) -> Server {
        let default = Server::default();
        Server {
            channels: self.total.unwrap_or(default.channels),
            history_bytes: self.memory.unwrap_or(default.history_bytes),
            broker: self.broker.clone().unwrap_or(default.broker),
        }
    }

    /// What stands behind `WebSocketHandler channel`.
    ///
    /// # Errors
    /// There is nothing, or what is no expression.
    pub fn set_names(&mut self, words: Words<'_, '_>, in_htaccess: bool) -> Result<(), String> {
        self.htaccess.names = in_htaccess;
        let names = words.iter().flat_map(|word| split_words(word)).map(Expression::compile);
        self.names = names.collect::<Result<_, _>>()?;
        if self.names.is_empty() {
            return Err("channel takes the names of channels, as \"room/%{QUERY_STRING}\"".into());
        }
        Ok(())
    }
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
    number.ok_or_else(|| format!("\"{word}\" is not {what} from 1 to {}", i32::MAX))
}

pub(crate) fn max(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let max = number(words, "a number of channels")?;
    config.channels.max.write(&config.place, max);
    Ok(())
}

pub(crate) fn allow(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("takes names of channels, in which * matches anything, as room/*; or Off".into());
    }
    if let [off] = words
        && is_off(off)
    {
        config.channels.allowed = Some(Vec::new());
        return Ok(());
    }
    let pieces = |word| {
        let pieces =
            split_pattern(word).map(|piece| (!piece.is_empty()).then(|| Expression::compile(piece)).transpose());
        pieces.collect::<Result<Allowed, String>>()
    };
    config.channels.htaccess.allowed = config.place.in_htaccess;
    let allowed = config.channels.allowed.get_or_insert_default();
    for word in words.iter().flat_map(|word| split_words(word)) {
        allowed.push(pieces(word)?);
    }
    Ok(())
}

pub(crate) fn publish(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let publishes = on_off(words)?;
    config.channels.htaccess.publishes = publishes && config.place.in_htaccess;
    config.channels.publishes = Some(publishes);
    Ok(())
}

pub(crate) fn presence(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let presence = on_off(words)?;
    config.channels.htaccess.presence = presence && config.place.in_htaccess;
    config.channels.presence = Some(presence);
    Ok(())
}

pub(crate) fn heartbeat(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.channels.heartbeat = Some(match words {
        [off] if is_off(off) => None,
        [ping, pong] if !ping.is_empty() => Some((ping.clone().into_owned(), pong.clone().into_owned())),
        _ => return Err("takes the text that clients send and the text that answers it, as ping pong; or Off".into()),
    });
    Ok(())
}

pub(crate) fn history(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
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
        _ => return Err("takes how many messages are kept, and for how many seconds, as 10 3600; or Off".into()),
    };
    config.channels.history.write(&config.place, history);
    Ok(())
}

pub(crate) fn member(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.channels.htaccess.member = config.place.in_htaccess;
    config.channels.member = Some(Expression::compile(one(words, "an expression, as %{REMOTE_USER}")?)?);
    Ok(())
}

pub(crate) fn prefix(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "the name that all channels here are below, or Off")?;
    if is_off(word) {
        config.channels.prefix = Some(None);
        return Ok(());
    }
    // What is below it has a name as well.
    if !is_name(word) || word.len() > MAX_NAME / 2 || word.starts_with('/') || word.ends_with('/') {
        return Err(format!(
            "expected a name without blanks, of up to {} bytes, without a / at its beginning or end, got \"{word}\"",
            MAX_NAME / 2
        ));
    }
    config.channels.prefix = Some(Some(word.to_owned()));
    Ok(())
}

pub(crate) fn total(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.channels.total = Some(number(words, "a number of channels")? as usize);
    Ok(())
}

pub(crate) fn memory(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of bytes")?;
    config.channels.memory = Some(word.parse().map_err(|_| format!("\"{word}\" is no number of bytes"))?);
    Ok(())
}

pub(crate) fn broker(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "the URL of a Redis server, or Off")?;
    if is_off(word) {
        config.channels.broker = Some(None);
        return Ok(());
    }
    let host = word.strip_prefix("redis://").or_else(|| word.strip_prefix("rediss://"));
    if host.is_none_or(str::is_empty) {
        return Err(format!(
            "\"{word}\" is no URL of a Redis server; write redis://host:port/db or rediss://host:port/db"
        ));
    }
    config.channels.broker = Some(Some(word.to_owned()));
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
