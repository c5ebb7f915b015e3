//! The URL that `WebSocketAuthorize` names: one of this httpd, with expressions in it, whose values are percent-encoded.

use crate::apache::expr::Expression;
use crate::apache::request::Request;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// What is left as it is (RFC 3986 section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What stands behind the directive, and in .htaccess files, too: so no other server can be meant.
#[derive(Debug, Clone)]
pub(crate) struct LocalUrl(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Value(Expression),
}

/// No URL comes of it for this request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoUrl {
    /// Answer 403: as of a channel's name.
    #[error("\"{0}\" is empty, and a part of a path")]
    Empty(String),
    /// Answer 400.
    #[error("\"{0}\" has a segment \".\" or \"..\"")]
    Dots(String),
    /// Answer 500.
    #[error("{0}")]
    Expression(String),
}

impl NoUrl {
    pub(crate) fn status(&self) -> u16 {
        match self {
            NoUrl::Empty(_) => 403,
            NoUrl::Dots(_) => 400,
            NoUrl::Expression(_) => 500,
        }
    }
}

impl LocalUrl {
    /// To be called while a directive is read.
    pub(crate) fn compile(text: &str) -> Result<LocalUrl, String> {
        let wrong = || format!("expected a URL of this server that begins with one /, as /auth.php, got \"{text}\"");
        if !text.starts_with('/') || text.starts_with("//") {
            return Err(wrong());
        }
        let mut pieces = Vec::new();
        for piece in cut(text).ok_or_else(wrong)? {
            if piece.starts_with("%{") {
                pieces.push(Piece::Value(Expression::compile(piece)?));
                continue;
            }
            if piece.contains(|c: char| !c.is_ascii_graphic() || "\\#\"<>^`{|}".contains(c)) {
                return Err(format!("{}: its literal parts are percent-encoded, and have no # in them", wrong()));
            }
            pieces.push(Piece::Text(piece.to_owned()));
        }
        // Whatever is put in between, the rest is known now.
        let known = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(_) => "x".to_owned(),
        };
        let example: String = pieces.iter().map(known).collect();
        if has_dots(&example) { Err(wrong()) } else { Ok(LocalUrl(pieces)) }
    }

    /// Path and query for this request.
    pub(crate) fn evaluate(&self, request: &Request) -> Result<String, NoUrl> {
        let mut url = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Value(expression) => {
                    let value = expression.evaluate(request).map_err(NoUrl::Expression)?.text.to_bytes();
                    if value.is_empty() && !url.contains('?') {
                        return Err(NoUrl::Empty(expression.text().into()));
                    }
                    url.extend(percent_encode(value, ENCODED));
                }
            }
        }
        if has_dots(&url) { Err(NoUrl::Dots(url)) } else { Ok(url) }
    }
}

/// Cuts before and behind each `%{…}`; `None` where one has no end.
fn cut(text: &str) -> Option<Vec<&str>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("%{") {
        let (before, expression) = rest.split_at(at);
        let mut depth = 0;
        let end = expression.char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (c == '}' && depth == 0).then_some(at + 1)
        })?;
        pieces.extend([before, &expression[..end]]);
        rest = &expression[end..];
    }
    pieces.push(rest);
    Some(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
}

/// A segment of the path means another directory, encoded or not.
fn has_dots(url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_cut_at_expressions() {
        assert_eq!(cut("/a"), Some(vec!["/a"]));
        assert_eq!(
            cut("/a/%{env:A}%{B}?c=%{tolower:%{D}}&e"),
            Some(vec!["/a/", "%{env:A}", "%{B}", "?c=", "%{tolower:%{D}}", "&e"])
        );
        assert_eq!(cut("/a%20%{B}"), Some(vec!["/a%20", "%{B}"]));
        assert_eq!(cut("/a/%{B"), None);
    }

    #[test]
    fn a_url_is_of_this_server() {
        for good in ["/", "/auth.php", "/auth.php?a=..%2F.", "/a..b/.c", "/a%20b"] {
            assert!(LocalUrl::compile(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "auth.php",
            "//host/a",
            "http://host/a",
            "/a/../b",
            "/a/.",
            "/%2e%2E/a",
            "/a%2f..",
            "/a b",
            "/a#b",
            "/a\\..\\b",
            "/caf\u{e9}",
            "/a/%{B",
        ] {
            assert!(LocalUrl::compile(bad).is_err(), "{bad}");
        }
    }
}
