//! CPU time of a proxy per message, to open and close a socket, and its memory per idle one: mod_proxy's tunnels taken over by the
//! engine, beside the same httpd's own tunnels and nginx.
//!
//! ```text
//! cargo build --release        # the module that httpd loads; `cargo bench` does not make it
//! cargo bench --bench proxy
//! cargo bench --bench proxy -- --rows 64x1,64x16 --fronts handoff,tunnel --routes wss --seconds 5 --rounds 9
//! ```
//!
//! **The fronts.** `handoff` is httpd with `WebSocketProxyHandoff On`; `tunnel` the same without that line; `nginx` has
//! `proxy_pass`. Behind each is an echo server of tokio-tungstenite of its own. The fronts are confined to one core, and the load
//! generator and the echo servers to another one: what counts is the CPU time of the *front alone*, all of its processes, divided by
//! the messages echoed. A message passes it twice.
//!
//! **The routes.** `ws`: no TLS. `wss`: TLS between the clients and the front. `wss-wss`: TLS behind it, too.
//!
//! **Rows** are those of `benches/echo.rs`, as are the rounds and the ratios. **Opened and closed** is what `benches/handshake.rs`
//! does. **Idle**: as many connections echo one message each and are silent then; a front that needs a thread for each has
//! fewer. Socket buffers in the kernel are not in it, nor is the echo server.
//!
//! Without `--bench` (`cargo test --benches`) or with `--test` it is only a check that all of this works.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use support::cycles::{Cycles, Kind};
use support::frame::Batch;
use support::load::Load;
use support::machine::GENERATOR_CPU;
use support::options::Options;
use support::peers::Setting;
use support::report::{Comparison, Sample};
use support::serve::{SERVE_PEER, TOKIO_TUNGSTENITE, serve_peer};
use support::server::{Children, Httpd, Server};
use support::testkit::installation::installation;
use support::testkit::process::raise_descriptor_limit;
use support::{Result, client, idle, report};

const USAGE: &str = "\
usage: cargo bench --bench proxy -- [options]
  --rows LOAD[,LOAD]   payload bytes x messages under way on each connection (default 64x1,64x16,65536x1)
  --connections N      connections under load (default 64)
  --under-way N        sockets opened and closed at once, 0 for none (default 16)
  --idle N             idle connections for the memory rows, 0 for none (default 5000)
  --fronts NAME[,NAME] handoff, tunnel and nginx (default all)
  --routes R[,R]       ws, wss and wss-wss (default all)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    Handoff,
    Tunnel,
    Nginx,
}

/// What has TLS on it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Route {
    client: bool,
    backend: bool,
}

struct Proxy {
    options: Options,
    rows: Vec<(usize, usize)>,
    connections: usize,
    under_way: usize,
    idle: usize,
    fronts: Vec<Front>,
    routes: Vec<Route>,
}

/// A front that runs, and what is behind it.
struct Running {
    front: Front,
    server: Server,
    _backend: Server,
}

impl Front {
    const ALL: [Front; 3] = [Front::Handoff, Front::Tunnel, Front::Nginx];

    fn name(self) -> &'static str {
        match self {
            Front::Handoff => "handoff",
            Front::Tunnel => "tunnel",
            Front::Nginx => "nginx",
        }
    }

    /// The most connections that it can have at once.
    fn room(self) -> usize {
        // A thread each, of 150.
        if self == Front::Tunnel { 140 } else { usize::MAX }
    }

    /// `None` where something is not installed.
    fn start(self, setting: &Setting, route: Route) -> Result<Option<Running>> {
        let cpu = setting.cpu;
        let backend = Server::library(TOKIO_TUNGSTENITE, route.backend, cpu.and(Some(GENERATOR_CPU)))?;
        let address = backend.target.address;
        let server = match self {
            Front::Nginx => {
                let scheme = if route.backend { "https" } else { "http" };
                let site = format!(
                    "location / {{ proxy_pass {scheme}://{address}; proxy_http_version 1.1; proxy_read_timeout 1h; \
                     proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}"
                );
                Server::nginx(cpu, None, &site, "/", route.client)?
            }
            Front::Handoff | Front::Tunnel => {
                let Some(module) = setting.module.as_deref() else { return Ok(None) };
                if !installation().modules.join("mod_proxy_http.so").is_file() {
                    return Ok(None);
                }
                let mut modules = vec!["proxy", "proxy_http"];
                let mut site = String::from("AsyncRequestWorkerFactor 1000\n");
                if route.backend {
                    if !route.client {
                        modules.extend(["socache_shmcb", "ssl"]);
                    }
                    site +=
                        "SSLProxyEngine On\nSSLProxyVerify none\nSSLProxyCheckPeerName Off\nSSLProxyCheckPeerCN Off\n";
                }
                if self == Front::Handoff {
                    site += "WebSocketProxyHandoff On\n";
                }
                let scheme = if route.backend { "wss" } else { "ws" };
                site += &format!("ProxyPass \"/\" \"{scheme}://{address}/\"\n");
                let httpd = Httpd {
                    module: Some(module),
                    modules: &modules,
                    site: &site,
                    path: "/",
                    tls: route.client,
                    children: Children::Six,
                    cpu,
                };
                Some(httpd.start()?)
            }
        };
        Ok(server.map(|server| Running { front: self, server, _backend: backend }))
    }
}

impl Route {
    const ALL: [(&'static str, Route); 3] = [
        ("ws", Route { client: false, backend: false }),
        ("wss", Route { client: true, backend: false }),
        ("wss-wss", Route { client: true, backend: true }),
    ];

    fn name(self) -> &'static str {
        Route::ALL.into_iter().find(|(_, route)| *route == self).map_or("", |(name, _)| name)
    }
}

fn main() -> ExitCode {
    let result = if std::env::args().any(|argument| argument == SERVE_PEER) {
        serve_peer()
    } else {
        Proxy::read().and_then(|proxy| proxy.run())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Proxy {
    fn read() -> Result<Self> {
        let mut options = Options::new("proxy")?;
        let rows = |list: &str| {
            let row = |row: &str| {
                let (payload, depth) = row.split_once('x')?;
                Some((payload.parse().ok()?, depth.parse().ok().filter(|depth| *depth > 0)?))
            };
            list.split(',').map(row).collect::<Option<Vec<_>>>()
        };
        let mut all = rows("64x1,64x16,65536x1").unwrap_or_default();
        let (mut connections, mut idle) = if options.smoke { (8, 100) } else { (64, 5000) };
        let (mut under_way, mut fronts) = (16, Front::ALL.to_vec());
        let mut routes = Route::ALL.map(|(_, route)| route).to_vec();
        options.read(USAGE, |option, value| {
            match option {
                "--rows" => all = rows(value)?,
                "--connections" => connections = value.parse().ok().filter(|count| *count > 0)?,
                "--under-way" => under_way = value.parse().ok()?,
                "--idle" => idle = value.parse().ok()?,
                "--fronts" => {
                    let named = |name| Front::ALL.into_iter().find(|front| front.name() == name);
                    fronts = value.split(',').map(named).collect::<Option<_>>()?;
                }
                "--routes" => {
                    let named = |name| Route::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, route)| route);
                    routes = value.split(',').map(named).collect::<Option<_>>()?;
                }
                _ => return None,
            }
            Some(())
        })?;
        Ok(Self { options, rows: all, connections, under_way, idle, fronts, routes })
    }

    fn run(&self) -> Result<()> {
        let mut notes = Vec::new();
        let descriptors = raise_descriptor_limit();
        let setting = self.options.setting(Children::Six, &mut notes)?;
        let (mut comparisons, mut idle_rows) = (Vec::new(), Vec::new());
        for route in self.routes.iter().copied() {
            let running = self.start(&setting, route, &mut notes)?;
            for (payload, depth) in self.rows.iter().copied() {
                comparisons.push(self.load(payload, depth, &running, route)?);
            }
            if self.under_way > 0 {
                comparisons.push(self.open_and_close(&running, route)?);
            }
            notes.extend(running.iter().flat_map(|running| running.server.complaints()));
            drop(running);
            // With those of all rows before in it, nobody's memory would be that of its idle sockets.
            for Running { front, server, _backend } in
                if self.idle > 0 { self.start(&setting, route, &mut notes)? } else { Vec::new() }
            {
                let connections = idle::possible(self.idle.min(front.room()), descriptors / 2, &mut notes);
                let measured = idle::measure(connections, &server, server.target);
                let name = format!("{}, {}", front.name(), route.name());
                idle_rows.push((name.clone(), measured.map_err(|error| format!("idle, {name}: {error}"))?));
            }
        }
        let mut text: String = comparisons.iter().map(Comparison::table).collect();
        if !idle_rows.is_empty() {
            text += &idle::table(&idle_rows);
        }
        let figures = json!({
            "settings": {
                "seconds": self.options.seconds, "rounds": self.options.rounds, "connections": self.connections,
                "under_way": self.under_way, "idle": self.idle, "spin": self.options.spin,
                "pinned": setting.cpu.is_some(), "module": setting.module,
            },
            "comparisons": comparisons.iter().map(Comparison::json).collect::<Vec<_>>(),
            "idle": idle_rows.iter().map(|(name, row)| row.json(name)).collect::<Vec<_>>(),
        });
        report::give("proxy", text, &notes, self.options.json.as_deref(), figures)
    }

    fn start(&self, setting: &Setting, route: Route, notes: &mut Vec<String>) -> Result<Vec<Running>> {
        let mut all = Vec::new();
        for front in &self.fronts {
            match front.start(setting, route)? {
                Some(running) => all.push(running),
                None => {
                    let needs = match front {
                        Front::Nginx => "Debian's package nginx-light",
                        _ => "the module (cargo build --release), and httpd's mod_proxy_http",
                    };
                    let note = format!("{} is left out: it needs {needs}", front.name());
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                }
            }
        }
        Ok(all)
    }

    /// One row, all fronts.
    fn load(&self, payload: usize, depth: usize, running: &[Running], route: Route) -> Result<Comparison> {
        let title = format!("{}, {payload} bytes, {depth} under way", route.name());
        eprintln!("{title}");
        let time = Duration::from_secs_f64(self.options.seconds);
        let mut loaded = Vec::new();
        for Running { front, server, .. } in running {
            let failed = |error| format!("{}: {error}", front.name());
            let sockets = client::open(server.target, self.connections.min(front.room())).map_err(failed)?;
            let spin = self.options.spin;
            let mut load = Load::new(sockets, Batch::new(payload, depth), spin)?;
            load.verify().and_then(|()| load.run(time / 4)).map_err(failed)?;
            loaded.push((front.name(), server, load, Vec::new()));
        }
        for _ in 0..self.options.rounds {
            for (name, server, load, samples) in &mut loaded {
                let before = server.cpu_time();
                let done = load.run(time).map_err(|error| format!("{name}: {error}"))?;
                let cpu = server.cpu_time().seconds_since(&before);
                samples.push(Sample::new(done.messages, done.seconds, cpu, None));
            }
        }
        for (name, _, load, _) in &mut loaded {
            load.verify().map_err(|error| format!("{name}: {error}"))?;
        }
        let sides = loaded.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
        let load = json!({ "route": route.name(), "payload_bytes": payload, "under_way": depth });
        Ok(Comparison { title, load, unit: "message", sides })
    }

    fn open_and_close(&self, running: &[Running], route: Route) -> Result<Comparison> {
        let title = format!("{}, opened and closed", route.name());
        eprintln!("{title}");
        let time = Duration::from_secs_f64(self.options.seconds);
        let mut sides = Vec::new();
        for Running { front, server, .. } in running {
            let mut cycles = Cycles::new(server.target, Kind::WebSocket, self.under_way, self.options.spin)?;
            cycles.run(time / 4).map_err(|error| format!("{}: {error}", front.name()))?;
            sides.push((front.name(), server, cycles, Vec::new()));
        }
        for _ in 0..self.options.rounds {
            for (name, server, cycles, samples) in &mut sides {
                let before = server.cpu_time();
                let done = cycles.run(time).map_err(|error| format!("{name}: {error}"))?;
                let cpu = server.cpu_time().seconds_since(&before);
                samples.push(Sample::new(done.messages, done.seconds, cpu, None));
            }
        }
        let sides = sides.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
        let load = json!({ "route": route.name(), "under_way": self.under_way });
        Ok(Comparison { title, load, unit: "cycle", sides })
    }
}
