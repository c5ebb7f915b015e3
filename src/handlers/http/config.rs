//! The directives of applications that handle sessions.

use super::settings::Mode;
use crate::engine::application::queue::DEFAULT_MAX;
use crate::front::authorize::url::LocalUrl;
use crate::front::config::words::{Words, one};
use crate::front::config::{Config, directives, merged};
use crate::front::handler::only_in_httpds;

merged! {
    /// What the directives of a section say of them; `None` where they say nothing.
    pub(crate) struct HttpConfig {
        url: Option<Given>,
        mode: Option<Mode>,
        max: Option<u32>,
    }
}

/// Whom sessions are handled by, and who has said so.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) url: HttpUrl,
    pub(crate) in_htaccess: bool,
}

#[derive(Clone)]
pub(crate) enum HttpUrl {
    /// One of this httpd.
    Local(LocalUrl),
    Elsewhere(ForeignUrl),
}

/// One of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignUrl {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) target: String,
}

directives! { pub(crate) DIRECTIVES =
    c"WebSocketHttpMode" "plain|events" in Everywhere, else "plain" => mode,
        c"How the application of 'WebSocketHandler http' is asked: 'plain', a message is a body; or 'events', as GRIP has it";
    c"WebSocketHttpMax" "number" in Global, else "32" => max,
        c"Requests of the engine to applications that may be on their way at a time";
}

impl HttpConfig {
    pub(crate) fn url(&self) -> Option<&Given> {
        self.url.as_ref()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.unwrap_or(DEFAULT_MAX)
    }
}

/// What stands behind `WebSocketHandler http`.
pub(super) fn url(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let [_, word] = words else {
        return Err(
            "http takes one URL: of this server, as /app.php; or of another, as http://localhost:3000/ws".into()
        );
    };
    let url = match foreign(word)? {
        Some(url) => {
            only_in_httpds(config, "http has the server send requests to another one, which no .htaccess file may do")?;
            HttpUrl::Elsewhere(url)
        }
        None => HttpUrl::Local(LocalUrl::compile(word)?),
    };
    let given = Given { url, in_htaccess: config.place.in_htaccess };
    config.change(|http: &mut HttpConfig| http.url = Some(given));
    Ok(())
}

/// `None`: it names no other server.
fn foreign(text: &str) -> Result<Option<ForeignUrl>, String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    let wrong = || format!("expected a URL as http://localhost:3000/ws or https://app.example/ws, got \"{text}\"");
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(wrong()),
    };
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => rest.split_at(at),
        Some(_) => return Err(wrong()),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (authority, if secure { 443 } else { 80 }),
    };
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match is_address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    let is_target = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_host || !is_target || port == 0 {
        return Err(wrong());
    }
    Ok(Some(ForeignUrl { secure, host: host.into(), port, target: target.into() }))
}

fn mode(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "plain or events")?;
    let mode = match word.to_ascii_lowercase().as_str() {
        "plain" => Mode::Plain,
        "events" => Mode::Events,
        _ => return Err(format!("expected plain or events, got \"{word}\"")),
    };
    config.change(|http: &mut HttpConfig| http.mode = Some(mode));
    Ok(())
}

fn max(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    const MOST: u32 = 10_000;
    let word = one(words, "a number of requests")?;
    let max = word.parse().ok().filter(|max| (1..=MOST).contains(max));
    let max = max.ok_or_else(|| format!("expected a number from 1 to {MOST}, got \"{word}\""))?;
    config.change(|http: &mut HttpConfig| http.max = Some(max));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_are_named_in_full() {
        let url = |text: &str| foreign(text).unwrap().map(|url| (url.secure, url.host, url.port, url.target));
        assert_eq!(url("http://localhost:3000/ws?a=b"), Some((false, "localhost".into(), 3000, "/ws?a=b".into())));
        assert_eq!(url("https://app.example"), Some((true, "app.example".into(), 443, "/".into())));
        assert_eq!(url("HTTP://[::1]:80/"), Some((false, "[::1]".into(), 80, "/".into())));
        assert_eq!(url("http://[::1]/"), Some((false, "[::1]".into(), 80, "/".into())));
        assert_eq!(url("/app.php"), None);
        for wrong in [
            "ws://localhost/",
            "http://",
            "http:///path",
            "http://localhost:0/",
            "http://localhost:65536/",
            "http://localhost:/",
            "http://user@localhost/",
            "http://localhost?a",
            "http://localhost/#a",
            "http://localhost/a b",
            "http://[::x]/",
            "https://h%00/",
        ] {
            assert!(foreign(wrong).is_err(), "{wrong}");
        }
    }
}
