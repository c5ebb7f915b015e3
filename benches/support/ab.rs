//! `ab -k`, ApacheBench on kept connections, as a load generator.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Result;
use super::load::Done;
use super::testkit::installation::program;

/// Requests of a kind, to one server.
pub(crate) struct Ab {
    program: PathBuf,
    url: String,
    connections: usize,
    /// A file, and its type: requests are POSTs with it.
    body: Option<(PathBuf, &'static str)>,
    /// Requests each second, as far as is known.
    rate: f64,
}

impl Ab {
    /// `None` where it is not installed.
    pub(crate) fn new(
        server: SocketAddrV4,
        path: &str,
        connections: usize,
        body: Option<(PathBuf, &'static str)>,
    ) -> Result<Option<Self>> {
        let Some(program) = program("ab") else { return Ok(None) };
        let mut ab = Self { program, url: format!("http://{server}{path}"), connections, body, rate: 0.0 };
        ab.requests(connections * 10)?;
        Ok(Some(ab))
    }

    /// As many requests as take about so many seconds: it sends a number of them, and all are answered.
    pub(crate) fn run(&mut self, seconds: f64) -> Result<Done> {
        self.requests(((self.rate * seconds) as usize).max(self.connections * 2))
    }

    fn requests(&mut self, count: usize) -> Result<Done> {
        let mut command = Command::new(&self.program);
        command.args(["-q", "-k", "-c", &self.connections.to_string(), "-n", &count.to_string()]);
        if let Some((file, kind)) = &self.body {
            command.arg("-p").arg(file).args(["-T", kind]);
        }
        let output = command.arg(&self.url).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let field =
            |name| said.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        let whole = count as f64;
        let is_good = output.status.success()
            && field("Complete requests:") == Some(whole)
            && field("Keep-Alive requests:") == Some(whole)
            && field("Failed requests:") == Some(0.0)
            && field("Non-2xx responses:").is_none();
        match field("Time taken for tests:") {
            Some(seconds) if is_good => {
                self.rate = whole / seconds;
                Ok(Done { messages: count as u64, seconds })
            }
            _ => Err(format!("ab: {said}{}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }
}
