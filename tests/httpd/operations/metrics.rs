//! The figures of a server, by `SetHandler websocket-metrics` and in `/server-status`, each against what was done.

use super::module_upgrade::{upgradable, upgrade};
use crate::harness::back_end::BackEnd;
use crate::harness::channel::subscribe;
use crate::harness::python::run_python;
use crate::harness::redis::Redis;
use crate::harness::wait::PATIENCE;
use crate::harness::{Client, Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};

every_mpm!(
    figures_of_a_script,
    counters_outlive_restarts_and_engines,
    the_page_comes_while_the_engine_hangs,
    transports,
    servers_behind,
);

const METRICS: &str = "<Location \"/metrics\">\n  SetHandler websocket-metrics\n</Location>";
const PARSE: &str = "import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
samples = []
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join(sample.labels[name] for name in sorted(sample.labels))
        samples.append([f'{sample.name}[{labels}]' if labels else sample.name, family.type, sample.value])
print(json.dumps(samples))";

/// Each figure by its name, with the values of its labels (in the order of their names) in brackets.
type Figures = BTreeMap<String, f64>;

fn page(server: &Server) -> Response {
    let response = Raw::page(server, "/metrics");
    assert_eq!(response.status, 200, "{response:?} {}", response.text());
    response
}

/// As a parser of Prometheus reads them.
fn figures(server: &Server) -> Figures {
    let response = page(server);
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.header("Content-Type"), Some(media_type));
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let samples: Vec<(String, String, f64)> =
        serde_json::from_str(&run_python(PARSE, response.text().as_bytes())).expect("samples");
    samples.into_iter().map(|(name, _, value)| (name, value)).collect()
}

fn figure(figures: &Figures, name: &str) -> f64 {
    figures.get(name).copied().unwrap_or_else(|| panic!("{name} in {figures:#?}"))
}

/// One without labels, as it stands on the page.
fn quick(server: &Server, name: &str) -> f64 {
    let text = page(server).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
}

/// The lines of `/server-status?auto` that are ours, without `WebSocket`.
fn status(server: &Server) -> BTreeMap<String, String> {
    let response = Raw::page(server, "/server-status?auto");
    assert_eq!(response.status, 200);
    let text = response.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("WebSocket")?.split_once(": "));
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn site(mpm: Mpm) -> Httpd {
    Httpd::new(mpm).module("status").config(METRICS).config(
        "KeepAlive Off\nWebSocketEngineThreads 2\nWebSocketChannelHistory 10 60\n\
         <Location \"/server-status\">\n  SetHandler server-status\n</Location>\n\
         <Location \"/publish\">\n  SetHandler websocket-publish\n</Location>\n\
         <VirtualHost *:{port}>\n  ServerName site.example\n\
         <Location \"/echo\">\n  WebSocketHandler echo\n</Location>\n\
         <Location \"/small\">\n  WebSocketHandler echo\n  WebSocketMaxMessageSize 10\n</Location>\n\
         <Location \"/one\">\n  WebSocketHandler echo\n  WebSocketMaxConnections 1\n</Location>\n\
         <Location \"/exec\">\n  WebSocketHandler exec /bin/cat\n</Location>\n\
         <Location \"/chat\">\n  WebSocketHandler channel news\n</Location>\n</VirtualHost>",
    )
}

fn figures_of_a_script(mpm: Mpm) {
    let server = site(mpm).start();
    // Seven: three end with 1000, one with 1009, one with a code of its own, one without a word, and one stays.
    // Each of them has said "before" when it is open, and says "hello" then.
    let mut clients = Raw::open_some(&server, 6);
    for client in &mut clients {
        client.echo(&Frame::text("hello"));
    }
    let last = clients.pop().expect("six");
    let lost = clients.pop().expect("five");
    let mut own = clients.pop().expect("four");
    clients.into_iter().for_each(Raw::close);
    own.send(&Frame::close(4321, "mine"));
    assert_eq!(own.close_code(), Some(4321));
    own.expect_end();
    lost.reset();
    let mut small = Raw::open(&server, "/small");
    small.send(&Frame::text("more than ten bytes"));
    small.expect_failure(1009);
    // Refused, in as many ways.
    let ask = |handshake: &Handshake| Raw::answer(&server, handshake).status;
    assert_eq!(ask(&Handshake::new("/echo").with("Sec-WebSocket-Key", "short")), 400);
    assert_eq!(ask(&Handshake::new("/echo").header("Origin", "http://evil.example")), 403);
    server.tolerate_log("WS0021");
    assert_eq!(ask(&Handshake::new("/echo").header("Origin", "http://evil.example")), 403);
    assert_eq!(ask(&Handshake::new("/echo").with("Sec-WebSocket-Version", "12")), 400);
    // Whatever the client calls the server.
    let one = Raw::open_with(&server, &Handshake::new("/one").header("Host", "unknown.example"));
    assert_eq!(ask(&Handshake::new("/one")), 503);
    // Neither pages nor those of other handlers are handshakes.
    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    assert_eq!(Raw::page(&server, "/nowhere").status, 404);
    let mut exec = Raw::open(&server, "/exec");
    exec.send(&Frame::text("line"));
    exec.expect(&Frame::text("line"));
    let mut chat = subscribe(&server, &Handshake::new("/chat"), "news");
    for text in ["one", "three"] {
        crate::harness::publish::publish(&server, "news", text);
        chat.expect(&Frame::text(text));
    }
    crate::harness::publish::publish(&server, "empty", "x");

    wait_until("six sessions have ended", PATIENCE, || {
        let text = page(&server).text();
        let closed = text.lines().filter(|line| line.starts_with("websocket_closed_total{"));
        closed.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>() == 6
    });
    wait_until("the fan-out is timed", PATIENCE, || quick(&server, "websocket_fan_out_seconds_count") >= 2.0);
    let of = figures(&server);
    let host = format!("site.example:{}", server.address().port());
    let open: Vec<(&str, f64)> = of
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("websocket_sessions[")?.strip_suffix(']')?, *value)))
        .collect();
    let expected = ["channel", "echo", "exec"].map(|handler| format!("{handler},socket,{host}"));
    let expected: Vec<(&str, f64)> = expected.iter().map(String::as_str).zip([1.0, 2.0, 1.0]).collect();
    assert_eq!(open, expected);
    for (name, value) in [
        ("websocket_up", 1.0),
        ("websocket_engines", 1.0),
        ("websocket_engine_pid", f64::from(server.engine().pid)),
        ("websocket_engine_threads", 2.0),
        ("websocket_relayed_sockets", 0.0),
        ("websocket_opened_total", 10.0),
        ("websocket_refused_total[400]", 2.0),
        ("websocket_refused_total[403]", 2.0),
        ("websocket_refused_total[503]", 1.0),
        ("websocket_closed_total[1000]", 3.0),
        ("websocket_closed_total[1006]", 1.0),
        ("websocket_closed_total[1009]", 1.0),
        ("websocket_closed_total[4xxx]", 1.0),
        ("websocket_messages_total[received]", 13.0),
        ("websocket_messages_total[sent]", 15.0),
        ("websocket_bytes_total[received]", 70.0),
        ("websocket_bytes_total[sent]", 78.0),
        ("websocket_slow_consumers", 0.0),
        ("websocket_slow_consumers_closed_total", 0.0),
        ("websocket_published_total", 3.0),
        ("websocket_channels", 2.0),
        ("websocket_history_messages", 3.0),
        ("websocket_programs", 1.0),
        ("websocket_backend_connections", 0.0),
        ("websocket_broker[none]", 1.0),
        ("websocket_broker[connected]", 0.0),
        ("websocket_broker[lost]", 0.0),
        ("websocket_handshake_seconds_count", 10.0),
        ("websocket_handler_seconds_count[exec]", 1.0),
        ("websocket_handler_seconds_count[tcp]", 0.0),
        ("websocket_fan_out_seconds_count", 2.0),
        ("websocket_mpm_workers", if mpm == Mpm::Prefork { 4.0 } else { 8.0 }),
    ] {
        assert_eq!(figure(&of, name).to_string(), value.to_string(), "{name} in {of:#?}");
    }
    assert!(figure(&of, "websocket_history_bytes") > 9.0);
    let (files, most) = (figure(&of, "websocket_engine_open_files"), figure(&of, "websocket_engine_max_files"));
    assert!(5.0 < files && files < most, "{files} of {most}");
    assert!(figure(&of, "websocket_engine_memory_bytes") < figure(&of, "websocket_engine_max_memory_bytes"));
    assert!(figure(&of, "websocket_engine_start_time_seconds") > 1.7e9);
    assert!(!page(&server).text().contains("unknown.example"), "what a client calls the server is no label");

    let status = status(&server);
    for (key, value) in [
        ("Engine", "answers".to_owned()),
        ("EnginePid", server.engine().pid.to_string()),
        ("EngineThreads", "2".into()),
        ("Sessions", "4".into()),
        (&format!("Sessions[echo,socket,{host}]"), "2".into()),
        ("Opened", "10".into()),
        ("Refused", "5".into()),
        ("Refused[403]", "2".into()),
        ("Closed", "6".into()),
        ("Closed[1009]", "1".into()),
        ("ReceivedMessages", "13".into()),
        ("SentMessages", "15".into()),
        ("ReceivedBytes", "70".into()),
        ("SentBytes", "78".into()),
        ("SlowConsumers", "0".into()),
        ("Published", "3".into()),
        ("Channels", "2".into()),
        ("HistoryMessages", "3".into()),
        ("Programs", "1".into()),
        ("BackendConnections", "0".into()),
        ("Broker", "none".into()),
        ("RelayedSockets", "0".into()),
        ("MpmWorkers", figure(&of, "websocket_mpm_workers").to_string()),
    ] {
        assert_eq!(status.get(key), Some(&value), "{key} in {status:#?}");
    }
    assert!(status["OpenedPerSec"].parse::<f64>().is_ok_and(|rate| rate > 0.0), "{status:#?}");
    for client in [last, one, exec, chat] {
        client.close();
    }
}

fn counters_outlive_restarts_and_engines(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().config(METRICS).start();
    let opened = || quick(&server, "websocket_opened_total");
    let ended = |count: f64| {
        wait_until("the sessions have ended", PATIENCE, || {
            let closed = figures(&server).get("websocket_closed_total[1005]").copied();
            closed.unwrap_or_default().to_string() == count.to_string()
        });
    };
    Client::open(&server, "/echo").close();
    assert_eq!(Raw::answer(&server, &Handshake::new("/echo").with("Sec-WebSocket-Key", "short")).status, 400);
    ended(1.0);
    for number in 2..4 {
        server.graceful();
        Client::open(&server, "/echo").close();
        ended(f64::from(number));
        assert_eq!(opened().to_string(), number.to_string());
    }
    let engine = server.engine();
    let mut lost = Client::open(&server, "/echo");
    lost.echo_text("hello");
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    engine.signal(Signal::KILL);
    lost.expect_broken();
    wait_until("there is another engine", PATIENCE, || server.engines().iter().any(|another| *another != engine));
    Client::open(&server, "/echo").close();
    ended(4.0);
    let of = figures(&server);
    assert_eq!(figure(&of, "websocket_opened_total").to_string(), "5");
    assert_eq!(figure(&of, "websocket_refused_total[400]").to_string(), "1");
    assert_eq!(figure(&of, "websocket_handshake_seconds_count").to_string(), "5");
    assert_eq!(figure(&of, "websocket_engine_pid").to_string(), server.engine().pid.to_string());
    // The session of the lost engine is no more.
    let open = of.iter().filter(|(name, _)| name.starts_with("websocket_sessions["));
    assert_eq!(open.map(|(_, open)| *open).sum::<f64>().to_string(), "0", "{of:#?}");
}

/// An engine of another version, which drains, counts as well.
#[test]
fn sums_are_over_all_engines() {
    let server = upgradable(Httpd::new(Mpm::Event)).echo().config(METRICS).start();
    let mut old = Client::open(&server, "/echo");
    old.echo_text("old");
    upgrade(&server);
    let mut new = Client::open(&server, "/echo");
    new.echo_text("new");
    let of = figures(&server);
    assert_eq!(figure(&of, "websocket_engines").to_string(), "2");
    assert_eq!(figure(&of, "websocket_sessions[echo,socket,127.0.0.1]").to_string(), "2");
    assert_eq!(figure(&of, "websocket_messages_total[sent]").to_string(), "2");
    old.close();
    wait_until("the old engine has ended", PATIENCE, || quick(&server, "websocket_engines").to_string() == "1");
    assert_eq!(quick(&server, "websocket_opened_total").to_string(), "2");
    new.close();
}

fn the_page_comes_while_the_engine_hangs(mpm: Mpm) {
    let server = site(mpm).config("WebSocketEngineTimeout Off").start();
    let mut open = Raw::open(&server, "/echo");
    open.echo(&Frame::text("hello"));
    assert_eq!(quick(&server, "websocket_up").to_string(), "1");
    let engine = server.engine();
    engine.signal(Signal::STOP);
    server.tolerate_log("WS0165: the engine is late");
    server.tolerate_log("WS0166: the engine answers again");
    let of = figures(&server);
    assert_eq!(figure(&of, "websocket_up").to_string(), "0");
    assert_eq!(figure(&of, "websocket_opened_total").to_string(), "1");
    let host = format!("site.example:{}", server.address().port());
    assert_eq!(figure(&of, &format!("websocket_sessions[echo,socket,{host}]")).to_string(), "1");
    let said = status(&server);
    assert!(said["Engine"].starts_with("does not answer"), "{said:#?}");
    engine.signal(Signal::CONT);
    wait_until("the engine answers again", PATIENCE, || quick(&server, "websocket_up").to_string() == "1");
    open.close();
}

/// How the bytes come to the engine.
fn transports(mpm: Mpm) {
    let relayed = if mpm == Mpm::Event { "mux" } else { "blocking" };
    for (httpd, transport) in Httpd::tls_both_ways(mpm).into_iter().zip(["tls", relayed]) {
        let server = httpd.echo().config(METRICS).start();
        let mut client = Raw::open(&server, "/echo");
        client.echo(&Frame::text("hello"));
        let of = figures(&server);
        assert_eq!(figure(&of, &format!("websocket_sessions[echo,{transport},127.0.0.1]")).to_string(), "1");
        let is_relayed = u8::from(transport == relayed);
        assert_eq!(figure(&of, "websocket_relayed_sockets").to_string(), is_relayed.to_string(), "{transport}");
        client.close();
        wait_until("it is gone", PATIENCE, || quick(&server, "websocket_relayed_sockets").to_string() == "0");
    }
}

/// What is counted of a TCP server behind a socket, and of a WebSocket server behind mod_proxy.
fn servers_behind(mpm: Mpm) {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let (tcp, ws) = (target.local_addr().expect("its address"), BackEnd::echo());
    let server = Httpd::new(mpm)
        .module("proxy")
        .module("proxy_http")
        .config(METRICS)
        .config(format!("<Location \"/tcp\">\n  WebSocketHandler tcp {tcp}\n</Location>"))
        .config(format!("<Location \"/ws\">\n  WebSocketHandler proxy \"ws://{}/app\"\n</Location>", ws.address))
        .start();
    let mut first = Raw::open(&server, "/tcp");
    let mut accepted = target.accept().expect("the engine").0;
    accepted.write_all(b"hi").expect("it takes it");
    assert_eq!(first.frame().payload, b"hi");
    let mut second = Raw::open(&server, "/ws");
    second.echo(&Frame::text("hello"));
    let of = figures(&server);
    for (name, value) in [
        ("websocket_backend_connections", 2),
        ("websocket_handler_seconds_count[tcp]", 1),
        ("websocket_handler_seconds_count[proxy]", 1),
        ("websocket_handshake_seconds_count", 2),
        ("websocket_sessions[tcp,socket,127.0.0.1]", 1),
        ("websocket_sessions[proxy,socket,127.0.0.1]", 1),
        ("websocket_messages_total[received]", 1),
        ("websocket_messages_total[sent]", 2),
        ("websocket_bytes_total[received]", 5),
        ("websocket_bytes_total[sent]", 7),
    ] {
        assert_eq!(figure(&of, name).to_string(), value.to_string(), "{name} in {of:#?}");
    }
    drop(accepted);
    assert_eq!(first.close_code(), Some(1000));
    first.send(&Frame::close(1000, ""));
    first.expect_end();
    second.echo(&Frame::close(1000, ""));
    second.await_hangup();
    drop(second);
    wait_until("both are over", PATIENCE, || quick(&server, "websocket_backend_connections").to_string() == "0");
}

/// A client that does not read is counted while it can catch up, and when it is given up.
#[test]
fn slow_consumers() {
    let server = site(Mpm::Event).config("WebSocketSendBuffer 2000000").start();
    let slow = subscribe(&server, &Handshake::new("/chat"), "news");
    let message = vec![b'x'; 500_000];
    let mut seen = false;
    wait_until("it is given up", PATIENCE, || {
        crate::harness::publish::post(&server, "/publish?channel=news", "text/plain", &message);
        seen |= quick(&server, "websocket_slow_consumers") > 0.0;
        quick(&server, "websocket_slow_consumers_closed_total") > 0.0
    });
    assert!(seen, "it was slow before");
    slow.reset();
    wait_until("it is gone", PATIENCE, || {
        figures(&server).get("websocket_closed_total[1013]").is_some_and(|closed| closed.to_string() == "1")
    });
    let of = figures(&server);
    assert_eq!(figure(&of, "websocket_slow_consumers_closed_total").to_string(), "1");
    assert_eq!(figure(&of, "websocket_slow_consumers").to_string(), "0");
}

/// What is known of the broker.
#[test]
fn a_broker_that_goes_and_comes() {
    let mut redis = Redis::start();
    let server = site(Mpm::Event).config(format!("WebSocketBroker {}", redis.url())).start();
    server.expect_links(2);
    let state = |expected: &str| {
        wait_until(&format!("the broker is {expected}"), PATIENCE, || {
            let of = figures(&server);
            let states = ["none", "connected", "lost"].map(|state| figure(&of, &format!("websocket_broker[{state}]")));
            assert_eq!(states.iter().sum::<f64>().to_string(), "1");
            figure(&of, &format!("websocket_broker[{expected}]")) > 0.0
        });
        assert_eq!(status(&server)["Broker"], expected);
    };
    state("connected");
    crate::harness::publish::publish(&server, "news", "through it");
    assert_eq!(quick(&server, "websocket_published_total").to_string(), "1");
    server.expect_log("WS0121: the broker cannot be reached");
    redis.go();
    state("lost");
    redis.come_back();
    state("connected");
}

/// Whoever may not publish may not read the figures either.
#[test]
fn only_this_machine() {
    let server = Httpd::new(Mpm::Event)
        .module("authz_host")
        .module("remoteip")
        .config("RemoteIPHeader X-Client\nAccessFileName .htaccess\n<Directory \"{root}/htdocs\">\nAllowOverride All\n</Directory>")
        .config(METRICS)
        .config("<Location \"/open\">\n  SetHandler websocket-metrics\n  Require all granted\n</Location>")
        .config("<Location \"/guarded\">\n  SetHandler websocket-metrics\n  WebSocketPublishAccess Require\n  Require ip 198.51.100.7\n</Location>")
        .file("htdocs/own/.htaccess", "SetHandler websocket-metrics\n")
        .start();
    let ask = |handshake: Handshake| Raw::answer(&server, &handshake.header("Connection", "close")).status;
    let elsewhere = |path: &str| Handshake::page(path).header("X-Client", "198.51.100.7");
    for (handshake, status) in [
        (Handshake::page("/metrics"), 200),
        (Handshake::page("/metrics").method("HEAD"), 200),
        (Handshake::page("/metrics").method("POST").header("Content-Length", "0"), 405),
        (Handshake::page("/metrics").method("DELETE"), 405),
        (Handshake::page("/metrics").method("OPTIONS"), 405),
        (elsewhere("/metrics"), 403),
        (elsewhere("/open"), 403),
        (Handshake::page("/metrics").header("X-Forwarded-For", "127.0.0.1"), 403),
        (Handshake::page("/metrics").header("Origin", "http://evil.example"), 403),
        (Handshake::page("/metrics").header("Sec-Fetch-Site", "cross-site"), 403),
        (Handshake::page("/metrics").header("Host", "evil.example"), 403),
        (elsewhere("/guarded"), 200),
        (elsewhere("/guarded").header("Origin", "http://evil.example"), 403),
        (Handshake::page("/guarded"), 403),
        (Handshake::page("/own/x"), 500),
    ] {
        let what = format!("{handshake:?}");
        assert_eq!(ask(handshake), status, "{what}");
    }
    server.expect_log("WS0354: refused: only this machine may read the metrics here");
    server.expect_log("WS0353: an .htaccess file says SetHandler websocket-metrics");
    server.tolerate_log("AH01630: client denied by server configuration");
}

/// What stands in a name of the configuration is text on the page of mod_status, whose HTML is whole.
#[test]
fn the_page_of_mod_status() {
    const CHECK: &str = "import html.parser, sys
class Check(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []
    def handle_starttag(self, tag, attributes):
        assert tag != 'script', 'a script'
        if tag not in ('hr', 'br', 'img', 'meta'): self.open.append(tag)
    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()
    def handle_data(self, data):
        if self.open and self.open[-1] in ('td', 'dd', 'dt'): self.cells.append(data)
text = sys.stdin.read()
check = Check()
check.feed(text[text.index('<h2>WebSockets</h2>'):text.rindex('</' + sys.argv[1] + '>') + 8])
assert not check.open, check.open
print('\\n'.join(check.cells))";
    let name = "a&b<script>x";
    let server = Httpd::new(Mpm::Event)
        .module("status")
        .config("<Location \"/server-status\">\n  SetHandler server-status\n</Location>")
        .config(format!("<VirtualHost *:{{port}}>\n  ServerName \"{name}\"\n  WebSocketHandler echo\n</VirtualHost>"))
        .start();
    let client = Client::open(&server, "/x");
    for (query, end) in [("", "table"), ("?notable", "dl")] {
        let page = Raw::page(&server, &format!("/server-status{query}")).text();
        let check = CHECK.replace("sys.argv[1]", &format!("'{end}'"));
        let cells = run_python(&check, page.as_bytes());
        assert!(cells.contains("Open sessions: echo,socket,a&b<script>x:"), "{cells}");
        assert!(cells.contains("Messages from clients"), "{cells}");
    }
    client.close();
}

/// Every metric that the dashboard of examples/ names is there, and every label.
#[test]
fn the_dashboard_names_metrics_that_there_are() {
    let dashboard = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/grafana/websocket.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(dashboard).expect("a file")).expect("JSON");
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() > 10, "{expressions:?}");
    let server = Httpd::new(Mpm::Event).echo().config(METRICS).start();
    let text = page(&server).text();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for expression in expressions {
        for word in expression.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if !word.starts_with("websocket_") {
                continue;
            }
            let is_there = names.iter().any(|line| {
                let (name, kind) = line.split_once(' ').expect("a type");
                match kind {
                    "counter" => word == format!("{name}_total"),
                    "histogram" => ["_bucket", "_sum", "_count"].iter().any(|end| word == format!("{name}{end}")),
                    _ => word == name,
                }
            });
            assert!(is_there, "{word} in {expression}");
        }
    }
}

/// The expressions of a dashboard.
fn collect<'a>(value: &'a Value, expressions: &mut Vec<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, expressions)),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&name.as_str()) => {
                        expressions.push(text);
                    }
                    value => collect(value, expressions),
                }
            }
        }
        _ => {}
    }
}
