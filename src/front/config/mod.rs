//! The directives: one table, in which each has its context, default, help and parser; and what they add up to.

pub mod engine;
pub mod limit;
mod table;

use crate::apache::directive::{Context, Directive, Place, Section};
use crate::channels::protocol::SUBPROTOCOLS;
use crate::engine::memory::Bound as Memory;
use crate::engine::{HandlerSpec, Limits, MessageTimeout, Ping, Quota};
use crate::handlers;
use crate::handlers::channel::config as channel;
use crate::handlers::exec::config as exec;
use crate::handlers::exec::settings::Framing;
use crate::handlers::plugin::front::{Loaded, Plugin};
use crate::handlers::pywebsocket::config as python;
use crate::handlers::pywebsocket::config::Python;
use crate::handlers::tcp::PROTOCOL;
use crate::handlers::tcp::config as tcp;
use crate::wire::deflate::Compression;
use crate::wire::extension::{MAX_WINDOW_BITS, MIN_KEPT_WINDOW_BITS, Parameters, Wish};
use crate::wire::handshake::{OriginCheck, Policy, Protocols, is_token};
use crate::wire::origin::Trusted;
use limit::{Bounds, Limit};
use std::borrow::Cow;
use std::fmt::Write;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use crate::handlers::channel::config::Channels;
pub use crate::handlers::exec::config::Programs;
pub use crate::handlers::tcp::config::Tcp;
pub use engine::Lateness;
pub use table::DIRECTIVES;

/// What the directives of a section say; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// `WebSocketHandler`; `Off` is `Some(None)`.
    pub(crate) handler: Option<Option<HandlerSpec>>,
    /// The plugin that `handler` names, where it names one.
    plugin: Option<Loaded>,
    pub(crate) channels: Channels,
    pub(crate) programs: Programs,
    plugin_threads: Option<usize>,
    pub(crate) tcp: Tcp,
    pub(crate) python: Python,
    protocols: Option<Protocols>,
    max_message_size: Limit<usize>,
    origin_check: Option<OriginRule>,
    publish_access: Option<PublishAccess>,
    trusted_origins: Option<Vec<Trusted>>,
    engine_threads: Option<usize>,
    lateness: Lateness,
    memory: Option<Memory>,
    /// Where to, and whether with queries.
    session_log: Option<(String, bool)>,
    drain_timeout: Limit<Duration>,
    stop_code: Option<u16>,
    h2_streams: Option<usize>,
    tls_handoff: Option<bool>,
    /// In this and those below, `Off` is `Some(None)`.
    ping: Limit<Option<Ping>>,
    idle_timeout: Limit<Option<Duration>>,
    message_timeout: Limit<Option<MessageTimeout>>,
    close_timeout: Limit<Duration>,
    send_buffer: Limit<usize>,
    compression: Option<bool>,
    compression_level: Option<u8>,
    /// Of the server, and of clients.
    compression_window: Option<(u8, u8)>,
    compression_takeover: Option<Takeover>,
    compression_min_size: Option<u32>,
    reserved_close_codes: Option<bool>,
    max_connections: Bounds,
    max_connections_per_client: Bounds,
    /// Where the directive stands that is being read.
    pub(crate) place: Place,
}

/// A number of sessions, and where it was set: those of the same place count together.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    pub(crate) max: u32,
    pub(crate) place: Place,
}

impl Bound {
    /// `host` is the virtual host that serves the request.
    pub(crate) fn quota(&self, directive: &str, host: &str, client: Option<&str>) -> Quota {
        let mut scope = format!("{directive} of {}", locate(&self.place, host));
        // A String takes every write.
        if let Some(client) = client {
            let _ = write!(scope, " for {client}");
        }
        Quota { scope, max: self.max }
    }
}

/// What names a place in all that is there.
pub(crate) fn locate(place: &Place, host: &str) -> String {
    // What is set outside of all virtual hosts is shared by those that inherit it.
    let host = if place.in_virtual_host { host } else { "the server" };
    match &place.path {
        // A <Directory> has the same path, and counts for itself.
        Some(path) if place.in_htaccess => format!("{host} in {path}.htaccess"),
        Some(path) => format!("{host} in {path}"),
        None => host.to_owned(),
    }
}

impl Section for Config {
    fn enter(&mut self, place: Place) {
        self.place = place;
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum OriginRule {
    Off,
    Same,
    Trusted,
}

/// `WebSocketPublishAccess`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PublishAccess {
    /// This machine alone, and of it whom `Require` lets in.
    #[default]
    Local,
    /// Whom `Require` lets in.
    Require,
}

/// Which side's compressor may refer to earlier messages.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Takeover {
    server: bool,
    client: bool,
}

impl Config {
    /// This, an inner section's, over an outer one's: each directive for itself.
    pub fn over(&self, outer: &Config) -> Config {
        Config {
            handler: self.handler.clone().or_else(|| outer.handler.clone()),
            plugin: if self.handler.is_some() { self.plugin.clone() } else { outer.plugin.clone() },
            channels: self.channels.over(&outer.channels, self.handler.is_some()),
            programs: self.programs.over(&outer.programs, self.handler.is_some()),
            plugin_threads: self.plugin_threads.or(outer.plugin_threads),
            tcp: self.tcp.over(&outer.tcp),
            python: self.python.over(&outer.python),
            protocols: self.protocols.clone().or_else(|| outer.protocols.clone()),
            max_message_size: self.max_message_size.over(&outer.max_message_size),
            origin_check: self.origin_check.or(outer.origin_check),
            publish_access: self.publish_access.or(outer.publish_access),
            trusted_origins: self.trusted_origins.clone().or_else(|| outer.trusted_origins.clone()),
            engine_threads: self.engine_threads.or(outer.engine_threads),
            lateness: self.lateness.over(&outer.lateness),
            memory: self.memory.or(outer.memory),
            session_log: self.session_log.clone().or_else(|| outer.session_log.clone()),
            drain_timeout: self.drain_timeout.over(&outer.drain_timeout),
            stop_code: self.stop_code.or(outer.stop_code),
            h2_streams: self.h2_streams.or(outer.h2_streams),
            tls_handoff: self.tls_handoff.or(outer.tls_handoff),
            ping: self.ping.over(&outer.ping),
            idle_timeout: self.idle_timeout.over(&outer.idle_timeout),
            message_timeout: self.message_timeout.over(&outer.message_timeout),
            close_timeout: self.close_timeout.over(&outer.close_timeout),
            send_buffer: self.send_buffer.over(&outer.send_buffer),
            compression: self.compression.or(outer.compression),
            compression_level: self.compression_level.or(outer.compression_level),
            compression_window: self.compression_window.or(outer.compression_window),
            compression_takeover: self.compression_takeover.or(outer.compression_takeover),
            compression_min_size: self.compression_min_size.or(outer.compression_min_size),
            reserved_close_codes: self.reserved_close_codes.or(outer.reserved_close_codes),
            max_connections: self.max_connections.over(&outer.max_connections),
            max_connections_per_client: self.max_connections_per_client.over(&outer.max_connections_per_client),
            place: Place::default(),
        }
    }

    /// What runs the sessions here, if anything does.
    pub fn handler(&self) -> Option<&HandlerSpec> {
        self.handler.as_ref()?.as_ref()
    }

    /// The plugin that runs them, if it is one.
    pub fn plugin(&self) -> Option<&Loaded> {
        self.plugin.as_ref()
    }

    /// Who may publish over HTTP, beside what `Require` says.
    pub fn publish_access(&self) -> PublishAccess {
        self.publish_access.unwrap_or_default()
    }

    /// What is said of channels.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// What is said of programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Threads of a child on which plugins' functions run.
    pub fn plugin_threads(&self) -> usize {
        self.plugin_threads.unwrap_or(8)
    }

    /// What is said of TCP servers.
    pub fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    /// What there is to know of Python.
    pub fn python(&self) -> &Python {
        &self.python
    }

    /// What the opening handshake is measured against.
    pub fn policy(&self) -> Policy {
        Policy {
            protocols: self.protocols.clone().unwrap_or_else(|| self.own_protocols()),
            origin: match self.origin_check.unwrap_or(OriginRule::Same) {
                OriginRule::Off => OriginCheck::Off,
                OriginRule::Same => OriginCheck::Same,
                OriginRule::Trusted => OriginCheck::Trusted(self.trusted_origins.clone().unwrap_or_default()),
            },
            compression: self.compression.unwrap_or(false).then(|| {
                let takeover = self.compression_takeover.unwrap_or(Takeover { server: false, client: false });
                let clients = if takeover.client { MAX_WINDOW_BITS } else { DEFAULT_CLIENT_WINDOW };
                let (server_window_bits, client_window_bits) =
                    self.compression_window.unwrap_or((MAX_WINDOW_BITS, clients));
                Wish { server_context_takeover: takeover.server, server_window_bits, client_window_bits }
            }),
        }
    }

    /// The subprotocols that the handler speaks by itself.
    fn own_protocols(&self) -> Protocols {
        match self.handler() {
            Some(handler) if handler.name == handlers::CHANNEL => {
                Protocols::Listed(SUBPROTOCOLS.iter().map(|name| (*name).to_owned()).collect())
            }
            Some(handler) if handler.name == handlers::TCP => Protocols::Listed(vec![PROTOCOL.to_owned()]),
            _ => Protocols::default(),
        }
    }

    /// How a session compresses that has agreed on these parameters.
    pub fn compression(&self, parameters: Parameters) -> Compression {
        Compression {
            parameters,
            level: self.compression_level.unwrap_or(DEFAULT_LEVEL),
            min_size: self.compression_min_size.unwrap_or(DEFAULT_MIN_SIZE),
        }
    }

    /// Whether a client may close with a code that has no meaning yet.
    pub fn reserved_close_codes(&self) -> bool {
        self.reserved_close_codes.unwrap_or(false)
    }

    /// What a session may use.
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            max_message_size: self.max_message_size.unwrap_or(match self.plugin {
                Some(_) => PLUGIN_MESSAGE_SIZE,
                None if self.forwards_a_stream() => Limits::UNLIMITED,
                None => default.max_message_size,
            }),
            send_buffer: self.send_buffer.unwrap_or(default.send_buffer),
            close_timeout: self.close_timeout.unwrap_or(default.close_timeout),
            ping: self.ping.unwrap_or(default.ping),
            idle_timeout: self.idle_timeout.unwrap_or(default.idle_timeout),
            message_timeout: self.message_timeout.unwrap_or(default.message_timeout).filter(|_| !self.is_a_stream()),
        }
    }

    /// Messages have no meaning to the handler, only their bytes: one may go on for ever.
    fn is_a_stream(&self) -> bool {
        match self.handler() {
            Some(handler) if handler.name == handlers::TCP => true,
            Some(handler) if handler.name == handlers::EXEC => self.programs.are_streams(),
            _ => false,
        }
    }

    /// What a session may use that compresses.
    pub fn limits_of_compressed(&self) -> Limits {
        let limits = self.limits();
        match limits.max_message_size {
            Limits::UNLIMITED => Limits { max_message_size: COMPRESSED_MESSAGE_SIZE, ..limits },
            _ => limits,
        }
    }

    /// The handler does not look for where messages end.
    fn forwards_a_stream(&self) -> bool {
        self.handler().is_some_and(|handler| match &*handler.name {
            handlers::TCP => true,
            handlers::EXEC => self.programs.framing() == Framing::Chunks && self.programs.shared("").is_none(),
            _ => false,
        })
    }

    /// What a session of this client counts for, at a virtual host of this name.
    pub fn quotas(&self, host: &str, client: &str) -> Vec<Quota> {
        let all = self.max_connections.all();
        let all = all.map(|bound| bound.quota("WebSocketMaxConnections", host, None));
        let per_client = self.max_connections_per_client.all();
        let per_client = per_client.map(|bound| bound.quota("WebSocketMaxConnectionsPerClient", host, Some(client)));
        let runs_a_program = self.handler().is_some_and(|handler| handler.name == handlers::EXEC);
        let counts_programs = runs_a_program && self.programs.shared(host).is_none();
        let programs = if counts_programs { self.programs.quotas(host, client) } else { Vec::new() };
        per_client.chain(all).chain(programs).collect()
    }

    /// The engine goes on with TLS connections by itself, where that can be.
    pub fn tls_handoff(&self) -> bool {
        self.tls_handoff.unwrap_or(true)
    }

    /// How long relayed sessions go on when their child of httpd is to end.
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(Duration::from_secs(60))
    }

    /// The close code of all sessions when httpd stops.
    pub fn stop_code(&self) -> u16 {
        self.stop_code.unwrap_or(1012)
    }

    /// WebSockets of one connection of HTTP/2.
    pub fn h2_streams(&self) -> usize {
        self.h2_streams.unwrap_or(4)
    }

    /// Where a line goes for each session that ends: a path, or `|program`.
    pub fn session_log(&self) -> Option<&str> {
        self.session_log.as_ref().map(|(target, _)| target.as_str())
    }

    /// Whether its lines have the query of the URI.
    pub fn session_log_query(&self) -> bool {
        self.session_log.as_ref().is_some_and(|(_, query)| *query)
    }

    /// What is said of an engine that does not answer.
    pub fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    /// What sockets may hold in the engine.
    pub fn memory(&self) -> Memory {
        self.memory.unwrap_or_default()
    }

    /// Threads of the engine.
    pub fn engine_threads(&self) -> usize {
        self.engine_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// The default of `WebSocketMaxMessageSize` where a plugin runs: that of the modules that plugins are written for.
const PLUGIN_MESSAGE_SIZE: usize = 32 << 20;
/// And where messages are forwarded as a stream, if they are compressed: only whole ones can be decompressed.
const COMPRESSED_MESSAGE_SIZE: usize = 32 << 20;
/// See [`Config::compression`].
const DEFAULT_LEVEL: u8 = 3;
/// The window, in bits, of clients that need not refer to earlier messages, and do all the same: what it saves them for its
/// memory is measured in `docs/protocol.md`.
const DEFAULT_CLIENT_WINDOW: u8 = 11;
/// Bytes; see [`Config::compression`].
const DEFAULT_MIN_SIZE: u32 = 256;

/// The longest time that a directive takes: a day.
const MAX_SECONDS: u64 = 86_400;

pub(crate) type Words<'a, 'b> = &'a [Cow<'b, str>];

pub(crate) fn one<'a>(words: Words<'a, '_>, expected: &str) -> Result<&'a str, String> {
    match words {
        [word] => Ok(word),
        _ => Err(format!("takes one argument, {expected}, and not {}", words.len())),
    }
}

fn handler(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let known = handlers::NAMES.join(", ");
    config.plugin = None;
    if let Some(path) = words.first().filter(|word| looks_like_a_plugin(word)) {
        return plugin(config, path, &words[1..]);
    }
    let Some((name, args)) = words.split_first() else {
        return Err(format!("takes the name of a handler ({known}), or Off"));
    };
    let name = name.to_ascii_lowercase();
    if name == handlers::PYWEBSOCKET {
        return python::handler(config, args);
    }
    if name == handlers::CHANNEL {
        let in_htaccess = config.place.in_htaccess;
        config.channels.set_names(args, in_htaccess)?;
        config.handler = Some(Some(HandlerSpec { name, args: Vec::new(), settings: Vec::new() }));
        return Ok(());
    }
    if name == handlers::TCP {
        config.handler = Some(Some(tcp::handler(config, args)?));
        return Ok(());
    }
    if name == handlers::EXEC {
        config.handler = Some(Some(exec::handler(config, args)?));
        return Ok(());
    }
    if !args.is_empty() && (name == "off" || handlers::NAMES.contains(&name.as_str())) {
        return Err(format!("{name} takes no arguments; \"{}\" is too much", args.join(" ")));
    }
    config.handler = Some(if name == "off" {
        None
    } else if handlers::NAMES.contains(&name.as_str()) {
        Some(HandlerSpec { name, args: Vec::new(), settings: Vec::new() })
    } else {
        return Err(format!("there is no handler \"{}\"; write one of {known}, or Off", words[0]));
    });
    Ok(())
}

/// A word that is a path, and no name of a handler.
pub fn looks_like_a_plugin(word: &str) -> bool {
    word.contains('/') || word.ends_with(".so")
}

fn plugin(config: &mut Config, path: &str, words: Words<'_, '_>) -> Result<(), String> {
    let [init] = words else {
        return Err(format!("takes the name of the plugin's init function after {path}, and nothing else"));
    };
    if config.place.in_htaccess {
        return Err(format!(
            "a plugin is code that httpd runs, and is not loaded because of an .htaccess file: write this line into \
             httpd's configuration, into a <Directory \"{}\"> for what it is here",
            config.place.path.as_deref().unwrap_or("/")
        ));
    }
    config.plugin = Some(Loaded(Arc::new(Plugin::load(path, init)?)));
    config.handler = Some(Some(HandlerSpec { name: handlers::PLUGIN.into(), args: Vec::new(), settings: Vec::new() }));
    Ok(())
}

fn protocols(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("takes the names of subprotocols, the preferred first, or *".into());
    }
    let chosen = match (words, &mut config.protocols) {
        ([star], _) if star == "*" => Protocols::Any,
        (words, earlier) => {
            let mut names = match earlier {
                Some(Protocols::Listed(names)) => std::mem::take(names),
                _ => Vec::new(),
            };
            for word in words {
                if word == "*" {
                    return Err("* stands alone: it accepts every subprotocol".into());
                }
                // RFC 6455 section 4.1 item 10: what a client can offer at all.
                if !is_token(word) {
                    return Err(format!(
                        "\"{word}\" cannot be the name of a subprotocol: blanks and separators may not be in it"
                    ));
                }
                if !names.iter().any(|name| name == word) {
                    names.push(word.clone().into_owned());
                }
            }
            Protocols::Listed(names)
        }
    };
    config.protocols = Some(chosen);
    Ok(())
}

fn bytes(words: Words<'_, '_>) -> Result<usize, String> {
    let word = one(words, "a number of bytes")?;
    // More than this no WebSocket message can be counted in on all platforms.
    let size = word.parse::<usize>().ok().filter(|size| (1..=i32::MAX as usize).contains(size));
    size.ok_or_else(|| format!("\"{word}\" is no number of bytes from 1 to {}", i32::MAX))
}

fn max_message_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.max_message_size.write(&config.place, bytes(words)?);
    Ok(())
}

fn old_max_message_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    // It took more than can be had, and so do the configurations that were written for it.
    let huge = matches!(words, [word] if word.parse::<u64>().is_ok_and(|size| size > i32::MAX as u64));
    let size = if huge { i32::MAX as usize } else { bytes(words)? };
    config.max_message_size.write(&config.place, size);
    Ok(())
}

fn plugin_threads(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=1024).contains(number));
    config.plugin_threads = Some(number.ok_or_else(|| format!("\"{word}\" is no number from 1 to 1024"))?);
    Ok(())
}

fn send_buffer(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.send_buffer.write(&config.place, bytes(words)?);
    Ok(())
}

pub(crate) fn seconds(word: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("\"{word}\" is no number of seconds from 1 to {MAX_SECONDS}"))
}

pub(crate) fn is_off(word: &str) -> bool {
    word.eq_ignore_ascii_case("off")
}

pub(crate) fn or_off(why: String) -> String {
    format!("{why}, and not Off")
}

fn ping(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let default = Ping::default();
    let ping = match words {
        [off] if is_off(off) => None,
        [interval] => Some(Ping { interval: seconds(interval).map_err(or_off)?, ..default }),
        [interval, timeout] => Some(Ping { interval: seconds(interval)?, timeout: seconds(timeout)? }),
        _ => {
            return Err("takes seconds of silence before a Ping, and seconds for the answer if you like; or Off".into());
        }
    };
    config.ping.write(&config.place, ping);
    Ok(())
}

fn idle_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds or Off")?;
    let timeout = if is_off(word) { None } else { Some(seconds(word).map_err(or_off)?) };
    config.idle_timeout.write(&config.place, timeout);
    Ok(())
}

fn message_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let (word, rate) = match words {
        [off] if is_off(off) => {
            config.message_timeout.write(&config.place, None);
            return Ok(());
        }
        [word] => (word, "0"),
        [word, rate] => (word, &**rate),
        _ => return Err(format!("expected seconds, and a rate if you like; or Off; got {} arguments", words.len())),
    };
    let seconds = word.parse().ok().filter(|seconds: &NonZeroU32| u64::from(seconds.get()) <= MAX_SECONDS);
    let seconds = seconds.ok_or_else(|| format!("expected 1–{MAX_SECONDS} seconds or Off, got \"{word}\""))?;
    let known = words.len() < 2 || rate != "0";
    let rate = rate.parse().ok().filter(|rate| known && *rate <= i32::MAX as u32);
    let rate = rate.ok_or_else(|| format!("expected a rate of 1–{} bytes a second, got \"{}\"", i32::MAX, words[1]))?;
    config.message_timeout.write(&config.place, Some(MessageTimeout { seconds, rate }));
    Ok(())
}

fn close_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.close_timeout.write(&config.place, seconds(one(words, "a number of seconds")?)?);
    Ok(())
}

pub(crate) fn on_off(words: Words<'_, '_>) -> Result<bool, String> {
    let word = one(words, "On or Off")?;
    match word.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("\"{word}\" is neither On nor Off")),
    }
}

fn compression(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.compression = Some(on_off(words)?);
    Ok(())
}

/// A small number within bounds.
fn within(words: Words<'_, '_>, what: &str, bounds: RangeInclusive<u8>) -> Result<u8, String> {
    let word = one(words, what)?;
    let number = word.parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| format!("\"{word}\" is not {what} from {} to {}", bounds.start(), bounds.end()))
}

fn compression_level(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.compression_level = Some(within(words, "a level", 1..=9)?);
    Ok(())
}

fn compression_window(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bits = |words| within(words, "a number of bits", MIN_KEPT_WINDOW_BITS..=MAX_WINDOW_BITS);
    config.compression_window = Some(match words {
        [_, _] => (bits(&words[..1])?, bits(&words[1..])?),
        _ => (bits(words)?, bits(words)?),
    });
    Ok(())
}

fn compression_min_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.compression_min_size = u32::try_from(bytes(words)?).ok();
    Ok(())
}

fn compression_takeover(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "Off, Server, Client or Both")?;
    let (server, client) = match word.to_ascii_lowercase().as_str() {
        "off" => (false, false),
        "server" => (true, false),
        "client" => (false, true),
        "both" => (true, true),
        _ => return Err(format!("\"{word}\" is none of Off, Server, Client and Both")),
    };
    config.compression_takeover = Some(Takeover { server, client });
    Ok(())
}

fn reserved_close_codes(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.reserved_close_codes = Some(on_off(words)?);
    Ok(())
}

pub(crate) fn bound(config: &Config, words: Words<'_, '_>) -> Result<Option<Bound>, String> {
    let word = one(words, "a number of connections or Off")?;
    if is_off(word) {
        return Ok(None);
    }
    let max = word.parse().ok().filter(|max| (1..=i32::MAX as u32).contains(max));
    let max = max.ok_or_else(|| or_off(format!("\"{word}\" is no number of connections from 1 to {}", i32::MAX)))?;
    Ok(Some(Bound { max, place: config.place.clone() }))
}

fn max_connections(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bound = bound(config, words)?;
    config.max_connections.write(&config.place, bound);
    Ok(())
}

fn max_connections_per_client(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bound = bound(config, words)?;
    config.max_connections_per_client.write(&config.place, bound);
    Ok(())
}

fn origin_check(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "Off, Same or Trusted")?;
    config.origin_check = Some(match word.to_ascii_lowercase().as_str() {
        "off" => OriginRule::Off,
        "same" => OriginRule::Same,
        "trusted" => OriginRule::Trusted,
        _ => return Err(format!("\"{word}\" is none of Off, Same and Trusted")),
    });
    Ok(())
}

fn publish_access(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "Local or Require")?;
    config.publish_access = Some(match word.to_ascii_lowercase().as_str() {
        "local" => PublishAccess::Local,
        "require" => PublishAccess::Require,
        _ => return Err(format!("expected Local or Require, got \"{word}\"")),
    });
    Ok(())
}

fn trusted_origin(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("takes origins, as https://www.example.com".into());
    }
    for word in words {
        let trusted = Trusted::parse(word).map_err(|expected| format!("expected {expected}, got \"{word}\""))?;
        config.trusted_origins.get_or_insert_default().push(trusted);
    }
    Ok(())
}

fn tls_handoff(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.tls_handoff = Some(on_off(words)?);
    Ok(())
}

fn drain_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds")?;
    let seconds = word.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS);
    let seconds = seconds.ok_or_else(|| format!("\"{word}\" is no number of seconds from 0 to {MAX_SECONDS}"))?;
    config.drain_timeout.write(&config.place, Duration::from_secs(seconds));
    Ok(())
}

fn h2_streams(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=1000).contains(number));
    config.h2_streams = Some(number.ok_or_else(|| format!("expected 1\u{2013}1000, got \"{word}\""))?);
    Ok(())
}

fn stop_code(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.stop_code = Some(match one(words, "1012 or 1001")? {
        "1012" => 1012,
        "1001" => 1001,
        word => return Err(format!("expected 1012 or 1001, got \"{word}\"")),
    });
    Ok(())
}

fn engine_threads(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=1024).contains(number));
    config.engine_threads = Some(number.ok_or_else(|| format!("\"{word}\" is no number from 1 to 1024"))?);
    Ok(())
}

fn memory(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    /// Less than a message may have by default would be of no use.
    const LEAST: u64 = 1 << 20;
    let word = one(words, "a number of bytes or Off")?;
    let bytes = word.parse().ok().filter(|bytes| (LEAST..=i64::MAX as u64).contains(bytes));
    config.memory = Some(match bytes {
        Some(bytes) => Memory::Bytes(bytes),
        None if is_off(word) => Memory::Off,
        None => return Err(format!("expected {LEAST}–{} bytes or Off, got \"{word}\"", i64::MAX)),
    });
    Ok(())
}

fn session_log(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let (word, query) = match words {
        [word] => (word, false),
        [word, query] if query.eq_ignore_ascii_case("query") => (word, true),
        _ => return Err("takes the path of a file, or \"|program\" in quotes, and perhaps the word query".into()),
    };
    if word.trim_start_matches(['|', '$', ' ']).is_empty() {
        return Err(format!("\"{word}\" is neither the path of a file nor a |program"));
    }
    config.session_log = Some((word.clone().into_owned(), query));
    Ok(())
}

#[cfg(test)]
mod tests;
