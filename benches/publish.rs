//! CPU time to publish a message by HTTP to a channel that nobody is subscribed to: this build of the module beside another
//! one.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench publish -- --beside OTHER.so --rounds 9
//! ```
//!
//! One connection sends one request after the other. What counts is the CPU time, user and system, of httpd's *whole
//! process tree*, the engine and the children, divided by the messages. The rounds and the ratios are those of
//! `benches/echo.rs`.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use support::options::Options;
use support::report::{Comparison, Sample};
use support::server::{Children, Server};
use support::{Result, report};

const USAGE: &str = "\
usage: cargo bench --bench publish -- [options]
  --beside FILE        another build of the module";

const SITE: &str = "\
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
WebSocketMaxMessageSize 2097152
<Location \"/\">
Require all granted
</Location>
<Location \"/channel\">
WebSocketHandler channel news
WebSocketOriginCheck Off
</Location>
<Location \"/publish\">
SetHandler websocket-publish
WebSocketPublishAccess Require
</Location>
";

const SIZES: [(usize, &str); 2] = [(64, "64 B"), (1 << 20, "1 MiB")];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publish: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut options, mut beside) = (Options::new("publish")?, None::<PathBuf>);
    options.read(USAGE, |option, value| {
        beside = Some(value.into()).filter(|_| option == "--beside");
        beside.is_some().then_some(())
    })?;
    let mut notes = Vec::new();
    let setting = options.setting(Children::One, &mut notes)?;
    let Some(module) = setting.module else {
        eprintln!("the module is not built: cargo build --release");
        return Ok(());
    };
    let mut servers = vec![("mod_websocket", Server::httpd(&module, setting.cpu, SITE, "/channel")?)];
    if let Some(other) = beside {
        servers.push(("the other one", Server::httpd(&other.canonicalize()?, setting.cpu, SITE, "/channel")?));
    }
    let time = Duration::from_secs_f64(options.seconds);
    let mut comparisons = Vec::new();
    for (size, words) in SIZES {
        let title = format!("{words}, published by HTTP");
        eprintln!("{title}");
        let mut sides = Vec::new();
        for (name, server) in &servers {
            let mut publisher = Publisher::new(server, size)?;
            publisher.publish_for(time / 4)?;
            sides.push((*name, server, publisher, Vec::new()));
        }
        for _ in 0..options.rounds {
            for (_, server, publisher, samples) in &mut sides {
                let before = server.cpu_time();
                let (count, seconds) = publisher.publish_for(time)?;
                samples.push(Sample::new(count, seconds, server.cpu_time().seconds_since(&before), None));
            }
        }
        let sides = sides.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
        comparisons.push(Comparison { title, load: json!({ "bytes": size }), unit: "message", sides });
    }
    notes.extend(servers.iter().flat_map(|(_, server)| server.complaints()));
    let text: String = comparisons.iter().map(Comparison::table).collect();
    let figures = json!({
        "settings": { "seconds": options.seconds, "rounds": options.rounds, "module": module },
        "comparisons": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
    });
    report::give("publish", text, &notes, options.json.as_deref(), figures)
}

/// A connection that publishes.
struct Publisher {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Publisher {
    fn new(server: &Server, size: usize) -> Result<Self> {
        let stream = TcpStream::connect(server.target.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let head = "POST /publish?channel=news HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
        let mut request = format!("{head}Content-Length: {size}\r\n\r\n").into_bytes();
        request.resize(request.len() + size, b'x');
        Ok(Self { stream, request, answer: vec![0; 4096] })
    }

    /// How many messages, and in how many seconds.
    fn publish_for(&mut self, time: Duration) -> Result<(u64, f64)> {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < time {
            self.stream.write_all(&self.request)?;
            // The answer is short, and a line of JSON at its end.
            let mut length = 0;
            while !self.answer[..length].ends_with(b"}\n") {
                let read = self.stream.read(&mut self.answer[length..])?;
                if read == 0 {
                    return Err("the connection was closed".into());
                }
                length += read;
            }
            if !self.answer.starts_with(b"HTTP/1.1 202 ") {
                return Err(String::from_utf8_lossy(&self.answer[..length]).into_owned().into());
            }
            count += 1;
        }
        Ok((count, start.elapsed().as_secs_f64()))
    }
}
