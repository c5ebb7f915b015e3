//! CPU time to publish a message by HTTP to a channel that nobody is subscribed to: this build of the module, a small page of
//! the same httpd, and nginx with nchan.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! scripts/need-packages publish nginx-light libnginx-mod-nchan
//! cargo bench --bench publish -- --beside OTHER.so --rounds 9
//! ```
//!
//! One connection sends one request after the other. What counts is the CPU time, user and system, of httpd's *whole
//! process tree*, the engine and the children, divided by the messages; of the page, by the requests. In the last table a
//! request of ours has 1,000 messages, and one of nchan's has one: it knows no other. The rounds and the ratios are those of
//! `benches/echo.rs`. `--beside` is another build of the module; where it publishes no batches, it is not in that table.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use support::options::Options;
use support::report::{Comparison, Sample};
use support::server::{Children, PAGE, Server};
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

/// What nginx serves. It keeps as many messages as we do, and in memory.
const NCHAN: &str = "\
location = /channel { nchan_subscriber websocket; nchan_channel_id news; nchan_subscriber_first_message newest; }
location = /publish {
    client_max_body_size 2m; client_body_buffer_size 2m;
    nchan_publisher http; nchan_channel_id news; nchan_message_buffer_length 10; nchan_message_timeout 1h;
}";

const SIZES: [(usize, &str); 2] = [(64, "64 B"), (1 << 20, "1 MiB")];
/// Messages of a request of many.
const MANY: usize = 1000;

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
    let ours = Server::httpd(&module, setting.cpu, SITE, "/channel")?;
    let other = match beside {
        Some(other) => Some(Server::httpd(&other.canonicalize()?, setting.cpu, SITE, "/channel")?),
        None => None,
    };
    let nchan = Server::nchan(setting.cpu, NCHAN, "/channel")?;
    if nchan.is_none() {
        notes.push("nginx with nchan is not there (Debian: nginx-light, libnginx-mod-nchan)".into());
    }
    let time = Duration::from_secs_f64(options.seconds);
    let mut comparisons = Vec::new();
    let single = |size| post("?channel=news", "text/plain", &vec![b'x'; size]);
    for (size, words) in SIZES {
        let mut sides = Sides(time, Vec::new());
        sides.add("mod_websocket", Some(&ours), &single(size), 1)?;
        sides.add("the other one", other.as_ref(), &single(size), 1)?;
        if size == SIZES[0].0 {
            let page = format!("GET /{PAGE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            sides.add("a page of the same httpd", Some(&ours), page.as_bytes(), 1)?;
        }
        sides.add("nchan", nchan.as_ref(), &single(size), 1)?;
        comparisons.push(sides.compare(
            format!("{words}, published by HTTP"),
            json!({ "bytes": size }),
            options.rounds,
        )?);
    }
    let size = SIZES[0].0;
    let line = json!({ "channel": "news", "data": "x".repeat(size) });
    let many = post("", "application/x-ndjson", format!("{line}\n").repeat(MANY).as_bytes());
    let mut sides = Sides(time, Vec::new());
    sides.add("mod_websocket", Some(&ours), &many, MANY)?;
    if sides.add("the other one", other.as_ref(), &many, MANY).is_err() {
        notes.push("the other one publishes no batches".into());
    }
    sides.add("nchan, one in a request", nchan.as_ref(), &single(size), 1)?;
    let load = json!({ "bytes": size, "messages": MANY });
    comparisons.push(sides.compare(format!("64 B, {MANY} in a request"), load, options.rounds)?);
    let servers = [Some(&ours), other.as_ref(), nchan.as_ref()];
    notes.extend(servers.into_iter().flatten().flat_map(Server::complaints));
    let text: String = comparisons.iter().map(Comparison::table).collect();
    let figures = json!({
        "settings": { "seconds": options.seconds, "rounds": options.rounds, "module": module },
        "comparisons": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
    });
    report::give("publish", text, &notes, options.json.as_deref(), figures)
}

fn post(query: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /publish{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Those that are compared, and for how long each has its turn.
struct Sides<'a>(Duration, Vec<(&'static str, &'a Server, Client, Vec<Sample>)>);

impl<'a> Sides<'a> {
    /// One more; where there is no server, none. `count` is what a request counts for.
    fn add(&mut self, name: &'static str, server: Option<&'a Server>, request: &[u8], count: usize) -> Result<()> {
        let Some(server) = server else { return Ok(()) };
        let mut client = Client::new(server, request, count)?;
        client.ask_for(self.0 / 4)?;
        self.1.push((name, server, client, Vec::new()));
        Ok(())
    }

    fn compare(self, title: String, load: serde_json::Value, rounds: usize) -> Result<Comparison> {
        eprintln!("{title}");
        let Sides(time, mut sides) = self;
        for _ in 0..rounds {
            for (_, server, client, samples) in &mut sides {
                let before = server.cpu_time();
                let (count, seconds) = client.ask_for(time)?;
                samples.push(Sample::new(count, seconds, server.cpu_time().seconds_since(&before), None));
            }
        }
        let sides = sides.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
        Ok(Comparison { title, load, unit: "message", sides })
    }
}

/// A connection that asks for one thing, again and again.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    /// What a request counts for.
    count: u64,
    answer: Vec<u8>,
}

impl Client {
    fn new(server: &Server, request: &[u8], count: usize) -> Result<Self> {
        let stream = TcpStream::connect(server.target.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, request: request.to_vec(), count: count as u64, answer: vec![0; 1 << 20] })
    }

    /// How many were done, and in how many seconds.
    fn ask_for(&mut self, time: Duration) -> Result<(u64, f64)> {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < time {
            self.stream.write_all(&self.request)?;
            self.read_answer()?;
            count += self.count;
        }
        Ok((count, start.elapsed().as_secs_f64()))
    }

    fn read_answer(&mut self) -> Result<()> {
        let (mut length, mut end) = (0, None);
        while end.is_none_or(|end| length < end) {
            let read = self.stream.read(&mut self.answer[length..])?;
            if read == 0 {
                return Err("the connection was closed, or its answer is too long".into());
            }
            length += read;
            end = end.or_else(|| whole(&self.answer[..length]));
        }
        // Nobody is there: 202. A page, or many messages: 200.
        if !self.answer.starts_with(b"HTTP/1.1 20") {
            return Err(String::from_utf8_lossy(&self.answer[..length]).into_owned().into());
        }
        Ok(())
    }
}

/// The length of an answer whose head is there.
fn whole(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let lines = std::str::from_utf8(&answer[..head]).ok()?.lines();
    let length = lines.filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == "Content-Length")?.1;
    Some(head + length.parse::<usize>().ok()?)
}
