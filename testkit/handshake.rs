//! The opening handshake, written by hand, and an HTTP answer.

use std::fmt::Write as _;

/// The key of RFC 6455 section 1.3, and the answer to it there.
pub(crate) const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request, correct until a test changes it.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    method: String,
    path: String,
    version: String,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// A correct opening handshake for `path`; the Host is set by whoever sends it unless the test does.
    pub(crate) fn new(path: &str) -> Self {
        Self::page(path)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", SAMPLE_KEY)
            .header("Sec-WebSocket-Version", "13")
    }

    /// A plain GET.
    pub(crate) fn page(path: &str) -> Self {
        Self { method: "GET".into(), path: path.into(), version: "HTTP/1.1".into(), headers: Vec::new() }
    }

    /// Adds a header line, beside one of the same name if there is one.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Replaces the header, or adds it.
    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.without(name).header(name, value)
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(present, _)| !present.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The bytes of the request to a server at `host`.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let mut text = format!("{} {} {}\r\n", self.method, self.path, self.version);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Host")) {
            write!(text, "Host: {host}\r\n").expect("a String");
        }
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").expect("a String");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// What httpd answered.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the head, with the empty line at its end.
    pub(crate) head: usize,
}

impl Response {
    /// Reads a head without the empty line that ends it.
    pub(crate) fn from_head(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let status = lines.next().expect("a status line");
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        assert!(status.starts_with("HTTP/1."), "not a status line: {status:?}");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        });
        Self {
            status: code.expect("a status code"),
            headers: headers.collect(),
            body: Vec::new(),
            head: head.len() + 4,
        }
    }

    /// The values of a header, one each line.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(present, _)| present.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a header that may occur once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} occurs {} times: {self:?}", all.len());
        all.first().copied()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless this is the answer RFC 6455 section 4.2.2 demands for the sample key.
    #[track_caller]
    pub(crate) fn assert_accepted(&self) {
        assert_eq!(self.status, 101, "not upgraded: {self:?} {}", self.text());
        assert!(self.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{self:?}");
        assert!(self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{self:?}");
        assert_eq!(self.header("Sec-WebSocket-Accept"), Some(SAMPLE_ACCEPT), "{self:?}");
        // RFC 9110 section 15.2: a 1xx answer ends with its head.
        assert_eq!(self.header("Content-Length"), None, "{self:?}");
        assert_eq!(self.header("Transfer-Encoding"), None, "{self:?}");
    }
}
