//! The directives: one table, in which each has its context, default, help and parser; and what they add up to.

use crate::apache::directive::{Context, Directive};
use crate::engine::{HandlerSpec, Limits};
use crate::handlers;
use crate::wire::handshake::{OriginCheck, Policy, Protocols, is_token};
use std::borrow::Cow;

/// What the directives of a section say; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// `WebSocketHandler`; `Off` is `Some(None)`.
    handler: Option<Option<HandlerSpec>>,
    protocols: Option<Protocols>,
    max_message_size: Option<usize>,
    origin_check: Option<OriginRule>,
    trusted_origins: Option<Vec<String>>,
    engine_threads: Option<usize>,
    session_log: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum OriginRule {
    Off,
    Same,
    Trusted,
}

impl Config {
    /// This, an inner section's, over an outer one's: each directive for itself.
    pub fn over(&self, outer: &Config) -> Config {
        Config {
            handler: self.handler.clone().or_else(|| outer.handler.clone()),
            protocols: self.protocols.clone().or_else(|| outer.protocols.clone()),
            max_message_size: self.max_message_size.or(outer.max_message_size),
            origin_check: self.origin_check.or(outer.origin_check),
            trusted_origins: self.trusted_origins.clone().or_else(|| outer.trusted_origins.clone()),
            engine_threads: self.engine_threads.or(outer.engine_threads),
            session_log: self.session_log.clone().or_else(|| outer.session_log.clone()),
        }
    }

    /// What runs the sessions here, if anything does.
    pub fn handler(&self) -> Option<&HandlerSpec> {
        self.handler.as_ref()?.as_ref()
    }

    /// What the opening handshake is measured against.
    pub fn policy(&self) -> Policy {
        Policy {
            protocols: self.protocols.clone().unwrap_or_default(),
            origin: match self.origin_check.unwrap_or(OriginRule::Same) {
                OriginRule::Off => OriginCheck::Off,
                OriginRule::Same => OriginCheck::Same,
                OriginRule::Trusted => OriginCheck::Trusted(self.trusted_origins.clone().unwrap_or_default()),
            },
        }
    }

    /// What a session may use.
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits { max_message_size: self.max_message_size.unwrap_or(default.max_message_size), ..default }
    }

    /// Where a line goes for each session that ends: a path, or `|program`.
    pub fn session_log(&self) -> Option<&str> {
        self.session_log.as_deref()
    }

    /// Threads of the engine.
    pub fn engine_threads(&self) -> usize {
        self.engine_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// All directives.
pub static DIRECTIVES: &[Directive<Config>] = &[
    Directive {
        name: c"WebSocketHandler",
        arguments: "echo|Off",
        context: Context::Everywhere,
        default: "Off",
        help: c"What runs the WebSocket sessions here: 'echo', or 'Off'",
        set: handler,
    },
    Directive {
        name: c"WebSocketProtocols",
        arguments: "name ...|*",
        context: Context::Everywhere,
        default: "none",
        help: c"The subprotocols that are spoken here, the preferred first; '*' for whichever the client offers first",
        set: protocols,
    },
    Directive {
        name: c"WebSocketMaxMessageSize",
        arguments: "bytes",
        context: Context::Everywhere,
        default: "1048576",
        help: c"Bytes of the largest message that is accepted, its fragments added up",
        set: max_message_size,
    },
    Directive {
        name: c"WebSocketOriginCheck",
        arguments: "Off|Same|Trusted",
        context: Context::Everywhere,
        default: "Same",
        help: c"Which pages may connect: any ('Off'), those of this site ('Same') or of the origins of WebSocketTrustedOrigin ('Trusted')",
        set: origin_check,
    },
    Directive {
        name: c"WebSocketTrustedOrigin",
        arguments: "origin ...",
        context: Context::Everywhere,
        default: "none",
        help: c"The origins whose pages may connect under 'WebSocketOriginCheck Trusted', as https://www.example.com",
        set: trusted_origin,
    },
    Directive {
        name: c"WebSocketEngineThreads",
        arguments: "number",
        context: Context::Global,
        default: "the number of CPUs",
        help: c"Threads that run all sessions; takes effect when the server is started",
        set: engine_threads,
    },
    Directive {
        name: c"WebSocketLog",
        arguments: "file|\"|program\"",
        context: Context::Host,
        default: "none",
        help: c"A file, or a '|program', that gets a line for each session that ends",
        set: session_log,
    },
];

type Words<'a, 'b> = &'a [Cow<'b, str>];

fn one<'a>(words: Words<'a, '_>, expected: &str) -> Result<&'a str, String> {
    match words {
        [word] => Ok(word),
        _ => Err(format!("takes one argument, {expected}, and not {}", words.len())),
    }
}

fn handler(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let known = handlers::NAMES.join(", ");
    let Some((name, args)) = words.split_first() else {
        return Err(format!("takes the name of a handler ({known}), or Off"));
    };
    let name = name.to_ascii_lowercase();
    if !args.is_empty() && (name == "off" || handlers::NAMES.contains(&name.as_str())) {
        return Err(format!("{name} takes no arguments; \"{}\" is too much", args.join(" ")));
    }
    config.handler = Some(if name == "off" {
        None
    } else if handlers::NAMES.contains(&name.as_str()) {
        Some(HandlerSpec { name, args: Vec::new() })
    } else {
        return Err(format!("there is no handler \"{}\"; write one of {known}, or Off", words[0]));
    });
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

fn max_message_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of bytes")?;
    // More than this no WebSocket message can be counted in on all platforms.
    let size = word.parse::<usize>().ok().filter(|size| (1..=i32::MAX as usize).contains(size));
    config.max_message_size =
        Some(size.ok_or_else(|| format!("\"{word}\" is no number of bytes from 1 to {}", i32::MAX))?);
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

fn trusted_origin(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("takes origins, as https://www.example.com".into());
    }
    for word in words {
        // RFC 6454 section 7: scheme, host and port, or "null". What no browser sends would never match.
        let is_origin = word == "null"
            || word
                .split_once("://")
                .is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains('/'));
        if !is_origin {
            return Err(format!("\"{word}\" is no origin; write scheme://host or scheme://host:port, without a path"));
        }
        config.trusted_origins.get_or_insert_default().push(word.clone().into_owned());
    }
    Ok(())
}

fn engine_threads(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number")?;
    let number = word.parse().ok().filter(|number| (1..=1024).contains(number));
    config.engine_threads = Some(number.ok_or_else(|| format!("\"{word}\" is no number from 1 to 1024"))?);
    Ok(())
}

fn session_log(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "the path of a file, or \"|program\" in quotes")?;
    if word.trim_start_matches(['|', '$', ' ']).is_empty() {
        return Err(format!("\"{word}\" is neither the path of a file nor a |program"));
    }
    config.session_log = Some(word.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the directives of the table work on an empty configuration, as httpd would.
    fn configured(lines: &[&str]) -> Result<Config, String> {
        let mut config = Config::default();
        for line in lines {
            let mut words = line.split_whitespace().map(Cow::Borrowed);
            let name = words.next().unwrap();
            let directive =
                DIRECTIVES.iter().find(|d| d.name.to_string_lossy() == name).unwrap_or_else(|| panic!("no {name}"));
            (directive.set)(&mut config, &words.collect::<Vec<_>>())?;
        }
        Ok(config)
    }

    fn error(line: &str) -> String {
        configured(&[line]).expect_err(line)
    }

    #[test]
    fn handlers_are_known_by_name() {
        let config = configured(&["WebSocketHandler Echo"]).unwrap();
        assert_eq!(config.handler().map(|h| h.name.as_str()), Some("echo"));
        assert!(Config::default().handler().is_none());
        assert!(error("WebSocketHandler chat").contains("\"chat\"; write one of echo"));
        assert!(error("WebSocketHandler echo loudly").contains("\"loudly\" is too much"));
        assert!(error("WebSocketHandler").contains("echo"));
    }

    #[test]
    fn an_inner_section_says_only_what_it_says() {
        let outer =
            configured(&["WebSocketHandler echo", "WebSocketMaxMessageSize 5", "WebSocketProtocols a"]).unwrap();
        let inner = configured(&["WebSocketMaxMessageSize 7"]).unwrap().over(&outer);
        assert!(inner.handler().is_some());
        assert_eq!(inner.limits().max_message_size, 7);
        assert_eq!(inner.policy().protocols, Protocols::Listed(vec!["a".into()]));
        assert!(configured(&["WebSocketHandler Off"]).unwrap().over(&outer).handler().is_none());
    }

    #[test]
    fn protocols_are_listed_or_any() {
        let listed = |lines: &[&str]| configured(lines).unwrap().policy().protocols;
        assert_eq!(
            listed(&["WebSocketProtocols b a", "WebSocketProtocols c a"]),
            Protocols::Listed(vec!["b".into(), "a".into(), "c".into()])
        );
        assert_eq!(listed(&["WebSocketProtocols *"]), Protocols::Any);
        assert_eq!(listed(&[]), Protocols::Listed(vec![]));
        assert!(error("WebSocketProtocols a *").contains("stands alone"));
        assert!(error("WebSocketProtocols a,b").contains("\"a,b\""));
        assert!(error("WebSocketProtocols").contains("preferred"));
    }

    #[test]
    fn sizes_are_positive_numbers() {
        assert_eq!(Config::default().limits().max_message_size, 1 << 20);
        for bad in ["0", "-1", "1M", "99999999999999999999", "2147483648"] {
            assert!(error(&format!("WebSocketMaxMessageSize {bad}")).contains(bad));
        }
        assert!(error("WebSocketMaxMessageSize 1 2").contains("one argument"));
    }

    #[test]
    fn origins_are_same_by_default() {
        assert_eq!(Config::default().policy().origin, OriginCheck::Same);
        let trusted = configured(&[
            "WebSocketOriginCheck trusted",
            "WebSocketTrustedOrigin https://a.example http://b.example:8080",
            "WebSocketTrustedOrigin null",
        ]);
        let expected = ["https://a.example", "http://b.example:8080", "null"].map(String::from).to_vec();
        assert_eq!(trusted.unwrap().policy().origin, OriginCheck::Trusted(expected));
        assert_eq!(configured(&["WebSocketOriginCheck OFF"]).unwrap().policy().origin, OriginCheck::Off);
        assert!(error("WebSocketOriginCheck maybe").contains("\"maybe\""));
        for bad in ["a.example", "https://a.example/", "://x", "https://"] {
            assert!(error(&format!("WebSocketTrustedOrigin {bad}")).contains("no origin"));
        }
    }

    #[test]
    fn threads_are_some() {
        assert!(Config::default().engine_threads() >= 1);
        assert_eq!(configured(&["WebSocketEngineThreads 3"]).unwrap().engine_threads(), 3);
        assert!(error("WebSocketEngineThreads 0").contains("1 to 1024"));
        assert!(error("WebSocketEngineThreads many").contains("\"many\""));
    }

    #[test]
    fn a_session_log_is_a_file_or_a_program() {
        assert_eq!(Config::default().session_log(), None);
        let outer = configured(&["WebSocketLog logs/a", "WebSocketLog logs/b"]).unwrap();
        assert_eq!(outer.session_log(), Some("logs/b"));
        assert_eq!(Config::default().over(&outer).session_log(), Some("logs/b"));
        assert_eq!(configured(&["WebSocketLog |/bin/cat"]).unwrap().over(&outer).session_log(), Some("|/bin/cat"));
        for bad in ["|", "||", "|$"] {
            assert!(error(&format!("WebSocketLog {bad}")).contains(&format!("\"{bad}\" is neither")));
        }
        assert!(error("WebSocketLog").contains("takes one argument"));
        assert!(error("WebSocketLog |cat x").contains("in quotes"));
        let mut config = Config::default();
        assert!(session_log(&mut config, &["".into()]).is_err());
    }

    #[test]
    fn the_readme_has_the_table() {
        let readme = include_str!("../../README.md");
        let table = readme
            .split("<!-- directives:begin -->")
            .nth(1)
            .and_then(|rest| rest.split("<!-- directives:end -->").next());
        let table = table.expect("README.md has the markers of the directives' table");
        for directive in DIRECTIVES {
            let name = directive.name.to_string_lossy();
            let row = table
                .lines()
                .find(|row| row.starts_with(&format!("| `{name} ")) || row.starts_with(&format!("| `{name}`")));
            let row = row.unwrap_or_else(|| panic!("README.md has no row for {name}"));
            assert!(row.contains(directive.context.describe()), "the context in {row}");
            assert!(row.contains(directive.default), "the default in {row}");
        }
        let rows = table.lines().filter(|row| row.starts_with("| `WebSocket")).count();
        assert_eq!(rows, DIRECTIVES.len(), "README.md has rows for directives that do not exist");
    }
}
