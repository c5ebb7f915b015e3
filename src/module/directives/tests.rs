//! Each directive's parser, what they add up to, and their headings in the docs.

use super::*;
use crate::apache::directive::{DirectivePlace, Section, entries};
use crate::engine::memory::Bound as Memory;
use crate::engine::{MessageTimeout, Ping};
use crate::front::config::Merge;
use crate::front::config::words::Words;
use crate::handlers::channel::config::ChannelConfig;
use crate::handlers::exec::config::ExecConfig;
use crate::handlers::exec::settings::Framing;
use crate::handlers::plugin::front::PluginConfig;
use crate::handlers::pywebsocket::config::PythonConfig;
use crate::handlers::tcp::config::TcpConfig;
use crate::wire::deflate::Compression;
use crate::wire::extension::{self, Parameters};
use crate::wire::handshake::{OriginCheck, Protocols};
use crate::wire::origin::Trusted;
use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

fn find(name: &str) -> &'static Directive<Config> {
    let mut all = DIRECTIVES.into_iter().flatten();
    all.find(|directive| directive.name.to_string_lossy() == name).unwrap_or_else(|| panic!("no {name}"))
}

fn handler(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    choose(FRONTS, config, words)
}

/// Lets the directives of the table work on an empty configuration, as httpd would.
fn configured(lines: &[&str]) -> Result<Config, String> {
    let mut config = Config::default();
    for whole in lines {
        // "in /path: Directive …" stands for a location of a virtual host.
        let (path, line) = whole.strip_prefix("in ").and_then(|line| line.split_once(": ")).unzip();
        config.enter(DirectivePlace {
            in_htaccess: false,
            in_virtual_host: path.is_some(),
            path: path.map(str::to_owned),
            location: path.map(str::to_owned),
        });
        let mut words = line.unwrap_or(whole).split_whitespace().map(Cow::Borrowed);
        let name = words.next().unwrap();
        (find(&name).set)(&mut config, &words.collect::<Vec<_>>())?;
    }
    Ok(config)
}

fn error(line: &str) -> String {
    configured(&[line]).err().expect(line)
}

#[test]
fn handlers_are_known_by_name() {
    let config = configured(&["WebSocketHandler Echo"]).unwrap();
    assert_eq!(config.handler().map(|chosen| chosen.front.name()), Some("echo"));
    assert!(Config::default().handler().is_none());
    assert!(error("WebSocketHandler chat").contains("\"chat\"; expected channel, "));
    assert!(error("WebSocketHandler echo loudly").contains("takes no arguments, got \"loudly\""));
    assert!(error("WebSocketHandler").contains("echo"));
}

#[test]
fn a_plugin_is_a_file_and_a_function() {
    assert!(error("WebSocketHandler modules/x.so").contains("init function after modules/x.so"));
    assert!(error("WebSocketHandler x.so a b").contains("nothing else"));
    // Nothing can be loaded here.
    error("WebSocketHandler /nowhere/x.so init");
    let mut config = Config::default();
    config.enter(DirectivePlace { in_htaccess: true, path: Some("/srv/www/".into()), ..DirectivePlace::default() });
    let refused = handler(&mut config, &["x.so".into(), "init".into()]).expect_err("code from .htaccess");
    assert!(refused.contains("<Directory \"/srv/www/\">"), "{refused}");
    assert!(handler(&mut config, &["echo".into()]).is_ok());
    assert!(error("WebSocketHandler plugin").contains("no handler \"plugin\""));
    assert_eq!(configured(&["WebSocketPluginThreads 3"]).unwrap().of::<PluginConfig>().threads, Some(3));
    assert!(error("WebSocketPluginThreads 0").contains("expected 1–1024"));
    let size = |line| configured(&[line]).unwrap().limits().max_message_size;
    assert_eq!(size("MaxMessageSize 7"), 7);
    assert_eq!(size("MaxMessageSize 99999999999"), i32::MAX as usize);
    error("MaxMessageSize 0");
}

#[test]
fn streams_of_http2_have_a_limit() {
    assert_eq!(Config::default().h2_streams(), 4);
    assert_eq!(configured(&["WebSocketH2Streams 7"]).unwrap().h2_streams(), 7);
    assert!(error("WebSocketH2Streams 0").contains("expected 1\u{2013}1000, got \"0\""));
}

#[test]
fn what_forwards_a_stream_has_no_longest_message() {
    let limit = |lines: &[&str]| configured(lines).unwrap().limits().max_message_size;
    assert_eq!(limit(&["WebSocketHandler tcp a:1"]), usize::MAX);
    assert_eq!(limit(&["WebSocketHandler tcp a:1", "WebSocketMaxMessageSize 7"]), 7);
    assert_eq!(limit(&["WebSocketHandler exec /bin/cat"]), 1 << 20);
    assert_eq!(limit(&["WebSocketHandler exec /bin/cat", "WebSocketExecFraming chunks"]), usize::MAX);
    let outer = configured(&["WebSocketMaxMessageSize 5"]).unwrap();
    assert_eq!(configured(&["WebSocketHandler tcp a:1"]).unwrap().over(&outer).limits().max_message_size, 5);
    let compressed = |lines: &[&str]| configured(lines).unwrap().limits_of_compressed().max_message_size;
    assert_eq!(compressed(&["WebSocketHandler tcp a:1"]), 32 << 20);
    assert_eq!(compressed(&["WebSocketHandler echo"]), 1 << 20);
}

#[test]
fn a_heartbeat_is_two_texts() {
    let of = |lines: &[&str]| configured(lines).unwrap().of::<ChannelConfig>().heartbeat().map(|heartbeat| *heartbeat);
    assert_eq!(of(&[]), None);
    assert_eq!(of(&["WebSocketChannelHeartbeat ping pong"]), Some(("ping".into(), "pong".into())));
    assert_eq!(of(&["WebSocketChannelHeartbeat ping pong", "WebSocketChannelHeartbeat Off"]), None);
    for line in ["WebSocketChannelHeartbeat", "WebSocketChannelHeartbeat ping", "WebSocketChannelHeartbeat a b c"] {
        assert!(error(line).contains("as ping pong; or Off"));
    }
}

#[test]
fn a_stop_has_one_of_two_codes() {
    assert_eq!(Config::default().stop_code(), 1012);
    assert_eq!(configured(&["WebSocketStopCode 1001"]).unwrap().stop_code(), 1001);
    assert_eq!(configured(&["WebSocketStopCode 1012"]).unwrap().stop_code(), 1012);
    assert!(error("WebSocketStopCode 1000").contains("expected 1012 or 1001, got \"1000\""));
}

#[test]
fn a_tcp_server_is_a_handler() {
    let args = |line: &str| configured(&[line]).unwrap().handler().unwrap().args.clone();
    assert_eq!(args("WebSocketHandler TCP localhost:5900"), ["localhost:5900"]);
    assert_eq!(args("WebSocketHandler tcp unix_socket:/run/x"), ["unix:/run/x"]);
    assert_eq!(args("WebSocketHandler tcp Token"), ["token"]);
    assert!(error("WebSocketHandler tcp").contains("expected one server, such as localhost:6379"));
    assert!(error("WebSocketHandler tcp a:1 b:2").contains("expected one server"));
    assert!(error("WebSocketHandler tcp redis").contains("\"redis\" has no port; write host:port"));
    let mut config = Config::default();
    config.enter(DirectivePlace { in_htaccess: true, path: Some("/srv/www/".into()), ..DirectivePlace::default() });
    let refused = handler(&mut config, &["tcp".into(), "localhost:1".into()]).expect_err("a way to servers");
    assert!(refused.contains("<Directory \"/srv/www/\">"), "{refused}");

    let own = configured(&["WebSocketHandler tcp a:1"]).unwrap().policy().protocols;
    assert_eq!(own, Protocols::Listed(vec!["binary".into()]));
    let outer = configured(&["WebSocketConnectTimeout 7", "WebSocketTcpTargets /etc/passwd"]).unwrap();
    let inner = Config::default().over(&outer);
    assert_eq!(inner.of::<TcpConfig>().timeout(), Duration::from_secs(7));
    assert_eq!(inner.of::<TcpConfig>().targets(), Some("/etc/passwd".as_ref()));
    assert_eq!(
        (Config::default().of::<TcpConfig>().timeout(), Config::default().of::<TcpConfig>().targets()),
        (Duration::from_secs(3), None)
    );
    for line in ["WebSocketConnectTimeout 0", "WebSocketConnectTimeout 301", "WebSocketConnectTimeout soon"] {
        assert!(error(line).contains("expected 1–300 seconds"));
    }
    assert!(error("WebSocketTcpTargets /nowhere/targets").contains("/nowhere/targets cannot be read"));
    assert!(error("WebSocketTcpTargets /etc").contains("not a file"));
}

#[test]
fn a_program_is_an_executable_file() {
    let config = configured(&["WebSocketHandler exec /bin/sh -c cat"]).unwrap();
    assert_eq!(config.handler().unwrap().args, ["/bin/sh", "-c", "cat"]);
    for (bad, why) in [
        ("WebSocketHandler exec", "expected a program"),
        ("WebSocketHandler exec cat", "got \"cat\""),
        ("WebSocketHandler exec /nowhere/program", "cannot run /nowhere/program: No such file"),
        ("WebSocketHandler exec /tmp", "it is not a file"),
        ("WebSocketHandler exec /etc/passwd", "chmod a+x"),
        ("WebSocketExecFraming words", "expected lines, chunks or length"),
        ("WebSocketExecMax 0", "connections or Off, got"),
        ("WebSocketExecStopTimeout 0", "expected 1–86400 seconds, got"),
        ("WebSocketExecShared maybe", "expected 1–86400 seconds, On or Off, got \"maybe\""),
    ] {
        assert!(error(bad).contains(why), "{bad}: {}", error(bad));
    }
    let mut config = Config::default();
    config.enter(DirectivePlace { in_htaccess: true, path: Some("/srv/www/".into()), ..DirectivePlace::default() });
    let refused = handler(&mut config, &["exec".into(), "/bin/cat".into()]).expect_err("a program from .htaccess");
    assert!(refused.contains("<Directory \"/srv/www/\">"), "{refused}");

    let default = Config::default();
    let programs = default.of::<ExecConfig>();
    assert_eq!((programs.framing(), programs.stop_timeout()), (Framing::Lines, Duration::from_secs(2)));
    let set = configured(&["WebSocketExecFraming Length", "WebSocketExecStopTimeout 7"]).unwrap();
    assert_eq!(
        (set.of::<ExecConfig>().framing(), set.of::<ExecConfig>().stop_timeout()),
        (Framing::Length, Duration::from_secs(7))
    );
}

#[test]
fn programs_are_counted_and_shared_where_they_are_named() {
    let scopes = |config: &Config| -> Vec<(String, u32)> {
        let quotas = config.quotas("a.example", "192.0.2.1").into_iter();
        quotas.map(|quota| (quota.scope, quota.max)).collect()
    };
    let cat = configured(&["in /cat: WebSocketHandler exec /bin/cat"]).unwrap();
    let of = |of_client: (&str, u32), of_all: (&str, u32)| {
        let of_client = (format!("WebSocketExecMaxPerClient of {} for 192.0.2.1", of_client.0), of_client.1);
        [of_client, (format!("WebSocketExecMax of {}", of_all.0), of_all.1)]
    };
    assert_eq!(scopes(&cat), of(("the server", 256), ("the server", 1024)));
    let few = configured(&["in /cat: WebSocketExecMax 3"]).unwrap().over(&cat);
    assert_eq!(scopes(&few), of(("a.example in /cat", 1), ("a.example in /cat", 3)));
    let many = configured(&["in /cat: WebSocketExecMaxPerClient 5"]).unwrap().over(&cat);
    assert_eq!(scopes(&many), of(("a.example in /cat", 5), ("the server", 1024)));
    let whoever = configured(&["WebSocketExecMaxPerClient off"]).unwrap().over(&few);
    assert_eq!(scopes(&whoever), [("WebSocketExecMax of a.example in /cat".to_owned(), 3)]);
    assert_eq!(scopes(&configured(&["WebSocketExecMax Off"]).unwrap().over(&cat)), []);
    assert_eq!(scopes(&configured(&["WebSocketHandler echo"]).unwrap().over(&few)), []);
    // One program needs not be counted, but is told from others by its place.
    let shared = configured(&["WebSocketExecShared on"]).unwrap().over(&few);
    assert_eq!(scopes(&shared), []);
    let place = |config: &Config| config.of::<ExecConfig>().shared("a.example");
    assert_eq!(place(&shared), Some((Duration::from_secs(60), "a.example in /cat".to_owned())));
    let other = configured(&["in /other: WebSocketHandler exec /bin/cat"]).unwrap().over(&shared);
    assert_eq!(place(&other), Some((Duration::from_secs(60), "a.example in /other".to_owned())));
    let long = configured(&["WebSocketExecShared 3600"]).unwrap();
    assert_eq!(place(&long), Some((Duration::from_secs(3600), "the server".to_owned())));
    assert_eq!(place(&configured(&["WebSocketExecShared Off"]).unwrap().over(&long)), None);
}

#[test]
fn an_inner_section_says_only_what_it_says() {
    let outer = configured(&["WebSocketHandler echo", "WebSocketMaxMessageSize 5", "WebSocketProtocols a"]).unwrap();
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
    assert!(error("WebSocketProtocols a *").contains("stand alone"));
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
    assert_eq!(Config::default().limits().send_buffer, 1 << 20);
    assert_eq!(configured(&["WebSocketSendBuffer 5"]).unwrap().limits().send_buffer, 5);
    assert!(error("WebSocketSendBuffer 0").contains("expected 1–"));
}

#[test]
fn times_are_seconds_or_off() {
    let limits = |lines: &[&str]| configured(lines).unwrap().limits();
    let seconds = Duration::from_secs;
    let ping = |interval, timeout| Some(Ping { interval: seconds(interval), timeout: seconds(timeout) });
    assert_eq!(limits(&[]).ping, ping(30, 10));
    assert_eq!(limits(&["WebSocketPing 5"]).ping, ping(5, 10));
    assert_eq!(limits(&["WebSocketPing 5 2"]).ping, ping(5, 2));
    assert_eq!(limits(&["WebSocketPing off"]).ping, None);
    assert_eq!((limits(&[]).idle_timeout, limits(&[]).close_timeout), (None, seconds(5)));
    let of = |seconds, rate| NonZeroU32::new(seconds).map(|seconds| MessageTimeout { seconds, rate });
    assert_eq!(limits(&[]).message_timeout, of(60, 500));
    assert_eq!(limits(&["WebSocketMessageTimeout 20"]).message_timeout, of(20, 0));
    assert_eq!(limits(&["WebSocketMessageTimeout 20 1"]).message_timeout, of(20, 1));
    assert_eq!(limits(&["WebSocketMessageTimeout off"]).message_timeout, None);
    let sat = "WebSocketHandler exec /bin/cat";
    assert_eq!(limits(&[sat]).message_timeout, of(60, 500));
    let memory = |lines: &[&str]| configured(lines).unwrap().memory();
    assert_eq!(memory(&[]), Memory::Share);
    assert_eq!(memory(&["WebSocketMemory 1048576"]), Memory::Bytes(1 << 20));
    assert_eq!(memory(&["WebSocketMemory off"]), Memory::Off);
    assert!(error("WebSocketMemory 1048575").contains("expected 1048576–"));
    for stream in [&["WebSocketHandler tcp localhost:1"][..], &[sat, "WebSocketExecFraming chunks"]] {
        assert_eq!(limits(&[stream, &["WebSocketMessageTimeout 20"]].concat()).message_timeout, None);
    }
    assert_eq!(limits(&["WebSocketIdleTimeout 60"]).idle_timeout, Some(seconds(60)));
    assert_eq!(limits(&["WebSocketCloseTimeout 1"]).close_timeout, seconds(1));
    let outer = configured(&["WebSocketPing 5", "WebSocketIdleTimeout 60", "WebSocketCloseTimeout 1"]).unwrap();
    let inner = configured(&["WebSocketPing Off", "WebSocketIdleTimeout Off"]).unwrap().over(&outer).limits();
    assert_eq!((inner.ping, inner.idle_timeout, inner.close_timeout), (None, None, seconds(1)));
    for bad in ["0", "-1", "1s", "0.5", "86401", "on"] {
        for directive in ["WebSocketPing", "WebSocketPing 1", "WebSocketIdleTimeout", "WebSocketCloseTimeout"] {
            assert!(error(&format!("{directive} {bad}")).contains("expected 1–86400 seconds"), "{directive} {bad}");
        }
    }
    assert!(error("WebSocketPing 0").contains("seconds or Off, got \"0\""));
    for bad in ["WebSocketPing", "WebSocketPing 1 2 3", "WebSocketPing Off 3", "WebSocketCloseTimeout Off"] {
        assert!(error(bad).contains("seconds"), "{bad}");
    }
}

#[test]
fn compression_is_off_until_it_is_switched_on() {
    let wish = |lines: &[&str]| configured(lines).unwrap().policy().compression;
    assert_eq!(wish(&["WebSocketCompressionLevel 9"]), None);
    let plain = extension::Config { server_context_takeover: false, server_window_bits: 15, client_window_bits: 11 };
    assert_eq!(wish(&["WebSocketCompression on"]), Some(plain));
    assert_eq!(
        wish(&[
            "WebSocketCompression On",
            "WebSocketCompressionContextTakeover Client",
            "WebSocketCompressionWindow 9"
        ]),
        Some(extension::Config { server_window_bits: 9, client_window_bits: 9, ..plain })
    );
    let both = ["WebSocketCompression On", "WebSocketCompressionContextTakeover both"];
    let outer = configured(&both).unwrap();
    assert_eq!(outer.policy().compression.map(|w| (w.server_context_takeover, w.client_window_bits)), Some((true, 15)));
    assert_eq!(configured(&["WebSocketCompression Off"]).unwrap().over(&outer).policy().compression, None);
    let parameters = Parameters {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    assert_eq!(Config::default().compression(parameters), Compression { parameters, level: 3, min_size: 256 });
    let set = configured(&["WebSocketCompressionLevel 9", "WebSocketCompressionMinSize 1"]).unwrap();
    assert_eq!(set.compression(parameters), Compression { parameters, level: 9, min_size: 1 });
    for (bad, why) in [
        ("WebSocketCompression 6", "expected On or Off, got \"6\""),
        ("WebSocketCompression", "one argument, On or Off"),
        ("WebSocketCompressionLevel 0", "expected a level from 1 to 9, got \"0\""),
        ("WebSocketCompressionLevel best", "from 1 to 9"),
        ("WebSocketCompressionWindow 8", "from 9 to 15"),
        ("WebSocketCompressionWindow 16", "from 9 to 15"),
        ("WebSocketCompressionMinSize 0", "expected 1–"),
        ("WebSocketCompressionContextTakeover On", "expected Off, Server, Client or Both"),
        ("WebSocketAllowReservedStatusCodes 1014", "expected On or Off"),
    ] {
        assert!(error(bad).contains(why), "{bad}: {}", error(bad));
    }
    assert!(configured(&["WebSocketAllowReservedStatusCodes On"]).unwrap().reserved_close_codes());
    assert!(!Config::default().reserved_close_codes());
}

#[test]
fn quotas_count_where_they_are_set() {
    let quotas = |config: &Config| -> Vec<(String, u32)> {
        let quotas = config.quotas("a.example", "192.0.2.1").into_iter();
        quotas.map(|quota| (quota.scope, quota.max)).collect()
    };
    assert_eq!(quotas(&Config::default()), []);
    let server = configured(&["WebSocketMaxConnections 100", "WebSocketMaxConnectionsPerClient 5"]).unwrap();
    let of_all = ("WebSocketMaxConnections of the server".to_owned(), 100);
    let of_one = ("WebSocketMaxConnectionsPerClient of the server for 192.0.2.1".to_owned(), 5);
    assert_eq!(quotas(&server), [of_one.clone(), of_all]);
    let chat = configured(&["in /chat: WebSocketMaxConnections 7"]).unwrap().over(&server);
    let of_chat = ("WebSocketMaxConnections of a.example in /chat".to_owned(), 7);
    assert_eq!(quotas(&chat), [of_one.clone(), of_chat]);
    assert_eq!(quotas(&configured(&["WebSocketMaxConnections off"]).unwrap().over(&server)), [of_one]);
    for bad in ["0", "-1", "many", "2147483648"] {
        assert!(error(&format!("WebSocketMaxConnections {bad}")).contains("or Off, got"));
        assert!(error(&format!("WebSocketMaxConnectionsPerClient {bad}")).contains(bad));
    }
    assert!(error("WebSocketMaxConnections").contains("one argument"));
}

fn htaccess(path: &str, lines: &[impl AsRef<str>]) -> Config {
    let mut config = Config::default();
    for line in lines {
        config.enter(DirectivePlace {
            in_htaccess: true,
            in_virtual_host: true,
            path: Some(path.into()),
            location: None,
        });
        let (name, words) = line.as_ref().split_once(' ').unwrap();
        (find(name).set)(&mut config, &words.split_whitespace().map(Cow::Borrowed).collect::<Vec<_>>()).unwrap();
    }
    config
}

#[test]
fn htaccess_files_make_limits_smaller() {
    let all = |value: &str, pair: &str| {
        let numbers = ["WebSocketMaxMessageSize", "WebSocketSendBuffer", "WebSocketChannelMax"];
        let times =
            ["WebSocketIdleTimeout", "WebSocketCloseTimeout", "WebSocketDrainTimeout", "WebSocketMessageTimeout"];
        let one = numbers.iter().chain(&times).map(|name| format!("{name} {value}"));
        let two = ["WebSocketPing", "WebSocketChannelHistory"].map(|name| format!("{name} {pair}"));
        one.chain(two).collect::<Vec<String>>()
    };
    let of = |config: &Config| {
        let channels = config.of::<ChannelConfig>();
        (config.limits(), config.drain_timeout(), channels.max(), channels.history())
    };
    let (small, large) = (all("5", "5 5"), all("50000", "50000 50000"));
    let section = |lines: &[String]| htaccess("/x/", lines);
    let server = |lines: &[String]| configured(&lines.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let (of_small, of_large) = (of(&server(&small)), of(&server(&large)));
    assert_eq!(of(&section(&small).over(&server(&large))), of_small);
    assert_eq!(of(&section(&large).over(&server(&small))), of_small);
    assert_eq!(of(&section(&large).over(&section(&small)).over(&server(&large))), of_small);
    assert_eq!(of(&server(&large).over(&server(&small))), of_large);
    // Without a word of the server's configuration the default is the largest.
    let above = htaccess("/x/", &["WebSocketMaxMessageSize 9000000", "WebSocketPing 60 60", "WebSocketCloseTimeout 9"]);
    assert_eq!(of(&above), of(&Config::default()));
    let off = htaccess("/x/", &["WebSocketPing Off", "WebSocketIdleTimeout Off", "WebSocketMessageTimeout Off"]);
    assert_eq!(of(&off), of(&Config::default()));
    assert_eq!(of(&off.over(&server(&small))), of_small);
    assert_eq!(htaccess("/x/", &["WebSocketIdleTimeout 7"]).limits().idle_timeout, Some(Duration::from_secs(7)));
}

#[test]
fn quotas_of_htaccess_files_count_beside() {
    let quotas = |config: &Config| -> Vec<(String, u32)> {
        let quotas = config.quotas("a.example", "192.0.2.1").into_iter();
        quotas.map(|quota| (quota.scope, quota.max)).collect()
    };
    let server = configured(&["in /x/: WebSocketMaxConnections 10"]).unwrap();
    let of_server = ("WebSocketMaxConnections of a.example in /x/".to_owned(), 10);
    let off = htaccess("/x/", &["WebSocketMaxConnections Off"]).over(&server);
    assert_eq!(quotas(&off), vec![of_server.clone()]);
    let of_file = |path: &str, max| (format!("WebSocketMaxConnections of a.example in {path}.htaccess"), max);
    let outer = htaccess("/x/", &["WebSocketMaxConnections 50", "WebSocketMaxConnections 20"]).over(&server);
    assert_eq!(quotas(&outer), [of_server.clone(), of_file("/x/", 20)]);
    let inner = htaccess("/x/y/", &["WebSocketMaxConnections 5"]).over(&outer);
    assert_eq!(quotas(&inner), [of_server, of_file("/x/y/", 5), of_file("/x/", 20)]);
}

#[test]
fn channels_have_a_prefix() {
    let prefix = |line: &str| configured(&[line]).unwrap().of::<ChannelConfig>().prefix();
    assert_eq!(prefix("WebSocketChannelPrefix hosts/ann"), "hosts/ann/");
    assert_eq!([prefix("WebSocketChannelPrefix off"), Config::default().of::<ChannelConfig>().prefix()], ["", ""]);
    let outer = configured(&["WebSocketChannelPrefix a"]).unwrap();
    assert_eq!(Config::default().over(&outer).of::<ChannelConfig>().prefix(), "a/");
    assert_eq!(configured(&["WebSocketChannelPrefix b"]).unwrap().over(&outer).of::<ChannelConfig>().prefix(), "b/");
    for bad in ["/a", "a/", "/", &"x".repeat(513)] {
        assert!(error(&format!("WebSocketChannelPrefix {bad}")).contains("expected a name"), "{bad}");
    }
    assert!(error("WebSocketChannelPrefix").contains("one argument"));
    // What an inner section says itself is no .htaccess file's any more.
    let file = |line: &str| htaccess("/x/", &[line]);
    for line in ["WebSocketChannelPublish On", "WebSocketChannelPresence On"] {
        assert!(file(line).of::<ChannelConfig>().are_from_htaccess(), "{line}");
        let off = line.replace("On", "Off");
        assert!(!configured(&[&off]).unwrap().over(&file(line)).of::<ChannelConfig>().are_from_htaccess(), "{line}");
        assert!(!file(&off).of::<ChannelConfig>().are_from_htaccess(), "{off}");
    }
    assert!(!file("WebSocketChannelAllow Off").of::<ChannelConfig>().are_from_htaccess());
    assert!(!file("WebSocketChannelMax 3").of::<ChannelConfig>().are_from_htaccess());
}

#[test]
fn origins_are_same_by_default() {
    assert_eq!(Config::default().policy().origin, OriginCheck::Same);
    let trusted = configured(&[
        "WebSocketOriginCheck trusted",
        "WebSocketTrustedOrigin https://a.example http://b.example:8080",
        "WebSocketTrustedOrigin null",
    ]);
    let expected =
        ["https://a.example", "http://b.example:8080", "null"].map(|word| Trusted::parse(word).unwrap()).to_vec();
    assert_eq!(trusted.unwrap().policy().origin, OriginCheck::Trusted(expected));
    assert_eq!(configured(&["WebSocketOriginCheck OFF"]).unwrap().policy().origin, OriginCheck::Off);
    assert!(error("WebSocketOriginCheck maybe").contains("\"maybe\""));
    for bad in ["a.example", "https://a.example/chat", "://x", "https://", "https://*"] {
        let text = error(&format!("WebSocketTrustedOrigin {bad}"));
        assert!(text.contains("expected ") && text.contains(&format!("got \"{bad}\"")), "{text}");
    }
    for good in ["file://", "capacitor://localhost", "app://.", "https://*.example.com", "moz-extension://*"] {
        configured(&[&format!("WebSocketTrustedOrigin {good}")]).unwrap();
    }
}

#[test]
fn threads_are_some() {
    assert!(Config::default().engine_threads() >= 1);
    assert_eq!(configured(&["WebSocketEngineThreads 3"]).unwrap().engine_threads(), 3);
    let timeout = |line: &str| configured(&[line]).map(|config| config.lateness().timeout());
    assert_eq!(timeout("WebSocketEngineThreads 3").unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(timeout("WebSocketEngineTimeout 5").unwrap(), Some(Duration::from_secs(5)));
    assert_eq!(timeout("WebSocketEngineTimeout off").unwrap(), None);
    let wait = |line: &str, workers| configured(&[line]).map(|config| config.lateness().wait(workers));
    assert_eq!(wait("WebSocketEngineWait 7", 25).unwrap(), 7);
    assert_eq!([25, 4, 3, 1].map(|workers| wait("WebSocketEngineThreads 3", workers).unwrap()), [6, 1, 1, 1]);
    assert!(error("WebSocketEngineWait 0").contains("expected a number from 1"));
    let complaint = error("WebSocketEngineTimeout 4");
    assert!(complaint.contains("expected 5–86400 seconds or Off, got \"4\""), "{complaint}");
    assert!(error("WebSocketEngineThreads 0").contains("1–1024"));
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
        assert!(error(&format!("WebSocketLog {bad}")).contains(&format!("got \"{bad}\"")));
    }
    assert!(error("WebSocketLog").contains("expected the path of a file"));
    assert!(error("WebSocketLog |cat x").contains("in quotes"));
    assert!((find("WebSocketLog").set)(&mut Config::default(), &["".into()]).is_err());
}

#[test]
fn the_docs_have_each_directive() {
    let pages = [
        include_str!("../../../docs/directives/application.md"),
        include_str!("../../../docs/directives/channels.md"),
        include_str!("../../../docs/directives/compression.md"),
        include_str!("../../../docs/directives/handlers.md"),
        include_str!("../../../docs/directives/limits.md"),
        include_str!("../../../docs/directives/server.md"),
    ];
    let index = include_str!("../../../docs/directives.md");
    let sections: Vec<&str> = pages.iter().flat_map(|page| page.split("\n## ").skip(1)).collect();
    for directive in DIRECTIVES.into_iter().flatten() {
        let name = directive.name.to_string_lossy();
        let of_it: Vec<_> = sections.iter().filter_map(|section| section.strip_prefix(&format!("{name}\n"))).collect();
        let [section] = of_it[..] else { panic!("{} headings for {name}", of_it.len()) };
        let says = |what: &str| {
            let line = section.lines().find_map(|line| line.strip_prefix(&format!("* {what}: ")));
            line.map(|line| line.trim_matches('`'))
        };
        assert!(says("Description").is_some_and(|text| !text.is_empty()), "the description of {name}");
        assert_eq!(says("Syntax"), Some(&*format!("{name} {}", directive.arguments)), "the syntax of {name}");
        assert_eq!(says("Default"), Some(directive.default), "the default of {name}");
        let place = says("Override").map_or_else(String::new, |word| format!(" ({word})"));
        assert_eq!(format!("{}{place}", says("Context").unwrap_or("")), directive.context.describe(), "{name}");
        assert!(index.contains(&format!("| [`{name}`](directives/")), "{name} is not in the index");
    }
    assert_eq!(sections.len(), entries(&DIRECTIVES) - 1, "the docs have directives that do not exist");
}

#[test]
fn handlers_in_python_have_a_directory_and_a_python() {
    let config = configured(&[
        "WebSocketHandler PyWebSocket /tmp",
        "WebSocketPython /bin/sh",
        "WebSocketPythonScan /usr",
        "WebSocketPythonMap /etc/passwd",
        "WebSocketPythonOutsideRoot On",
    ])
    .unwrap();
    let handler = config.handler().unwrap();
    assert_eq!((handler.front.name(), &handler.args[..]), ("pywebsocket", &["/tmp".to_owned()][..]));
    // An inner section's word for itself.
    let worker =
        configured(&["WebSocketPythonOutsideRoot Off"]).unwrap().over(&config).of::<PythonConfig>().worker("/tmp");
    assert_eq!(worker.python.to_str(), Some("/bin/sh"));
    assert_eq!(worker.scan.as_deref().and_then(|path| path.to_str()), Some("/usr"));
    assert_eq!(worker.map.as_deref().and_then(|path| path.to_str()), Some("/etc/passwd"));
    assert!(!worker.outside_root);
    assert_eq!(Config::default().of::<PythonConfig>().worker("/x").python.to_str(), Some("/usr/bin/python3"));
    assert!(error("WebSocketHandler pywebsocket").contains("the directory of the *_wsh.py files"));
    assert!(error("WebSocketHandler pywebsocket /tmp more").contains("got 2"));
    assert!(error("WebSocketHandler pywebsocket /nowhere").contains("no directory /nowhere"));
    assert!(error("WebSocketPython /nowhere").contains("pip install pywebsocket3"));
    for line in ["WebSocketPython /bin/sh", "WebSocketPythonOutsideRoot On", "WebSocketHandler pywebsocket /tmp"] {
        let mut words = line.split(' ').map(Cow::Borrowed);
        let name = words.next().unwrap();
        let mut config = Config::default();
        config.enter(DirectivePlace { in_htaccess: true, path: Some("/srv/www/".into()), ..DirectivePlace::default() });
        let refused = (find(&name).set)(&mut config, &words.collect::<Vec<_>>()).expect_err(line);
        assert!(refused.contains("<Directory \"/srv/www/\">"), "{refused}");
    }
}
