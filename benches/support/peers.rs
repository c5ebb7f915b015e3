//! The servers that are compared, by name, and what each needs to be started.

use std::path::{Path, PathBuf};

use super::Result;
use super::frame::Batch;
use super::serve::{FASTWEBSOCKETS, TOKIO_TUNGSTENITE};
use super::server::{Children, Httpd, Server, confined};
use super::testkit::installation::{Installation, installation, program};

/// A server to compare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The module in httpd.
    Ours,
    /// The C++ library.
    UWebSockets,
    /// With `split` and `forward`, which gather answers.
    TokioTungstenite,
    FastWebSockets,
    /// The package ws for Node.
    NodeWs,
    /// httpd with mod_proxy_wstunnel before tokio-tungstenite.
    Wstunnel,
    /// A process each connection, which gets lines of text: cat.
    Websocketd,
    /// nginx, which answers handshakes and echoes nothing.
    Nchan,
}

/// What all of them are started with.
pub(crate) struct Setting {
    pub(crate) module: Option<PathBuf>,
    /// The only core they may use.
    pub(crate) cpu: Option<usize>,
    /// The processes of our httpd.
    pub(crate) children: Children,
}

/// What our httpd serves. event counts sockets over TLS among the connections for which the factor is.
const OURS: &str = r#"AsyncRequestWorkerFactor 1000
WebSocketOriginCheck Off
<Location "/">
Require all granted
</Location>
<Location "/echo">
WebSocketHandler echo
</Location>
<Location "/echo/compressed">
WebSocketCompression On
</Location>
<Location "/echo/compressed/contexts">
WebSocketCompressionContextTakeover Both
</Location>
"#;

const NCHAN: &str = "location = /sub { nchan_subscriber websocket; nchan_channel_id bench; }";

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Ours,
        Self::UWebSockets,
        Self::TokioTungstenite,
        Self::FastWebSockets,
        Self::NodeWs,
        Self::Wstunnel,
        Self::Websocketd,
        Self::Nchan,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "mod_websocket",
            Self::UWebSockets => "uwebsockets",
            Self::TokioTungstenite => TOKIO_TUNGSTENITE,
            Self::FastWebSockets => FASTWEBSOCKETS,
            Self::NodeWs => "node-ws",
            Self::Wstunnel => "mod_proxy_wstunnel",
            Self::Websocketd => "websocketd",
            Self::Nchan => "nchan",
        }
    }

    /// What has to be there for it.
    pub(crate) fn needs(self) -> &'static str {
        match self {
            Self::Ours => "the module: cargo build --release",
            Self::UWebSockets => "benches/peers/uwebsockets/build",
            Self::TokioTungstenite | Self::FastWebSockets => "nothing",
            Self::NodeWs => "Debian's packages nodejs and node-ws",
            Self::Wstunnel => "httpd's mod_proxy_wstunnel",
            Self::Websocketd => "Debian's package websocketd",
            Self::Nchan => "Debian's packages nginx-light and libnginx-mod-nchan",
        }
    }

    pub(crate) fn echoes(self) -> bool {
        self != Self::Nchan
    }

    /// What it is sent.
    pub(crate) fn batch(self, length: usize, messages: usize) -> Batch {
        if self == Self::Websocketd { Batch::text(length, messages) } else { Batch::new(length, messages) }
    }

    /// Whether it is measured over TLS.
    pub(crate) fn speaks_tls(self) -> bool {
        matches!(self, Self::Ours | Self::UWebSockets | Self::TokioTungstenite | Self::NodeWs | Self::Wstunnel)
    }

    /// The most connections that it can have at once.
    pub(crate) fn room(self) -> usize {
        match self {
            // A thread each, of 150.
            Self::Wstunnel => 140,
            // A process each.
            Self::Websocketd => 256,
            _ => usize::MAX,
        }
    }

    /// The longest message that it sends back in one frame.
    pub(crate) fn longest(self) -> usize {
        if self == Self::Websocketd { 512 } else { usize::MAX }
    }

    /// Starts it, to be reached over TLS or without; `None` where something is not installed.
    pub(crate) fn start(self, setting: &Setting, tls: bool) -> Result<Option<Server>> {
        let cpu = setting.cpu;
        match self {
            Self::Ours => {
                let Some(module) = setting.module.as_deref() else { return Ok(None) };
                let (site, path, children) = (OURS, "/echo", setting.children);
                Httpd { module: Some(module), modules: &[], site, path, tls, children, cpu }.start().map(Some)
            }
            Self::UWebSockets => {
                let program = Installation::built(UWEBSOCKETS);
                if !program.is_file() {
                    return Ok(None);
                }
                Server::program(confined(&program, cpu), tls).map(Some)
            }
            Self::TokioTungstenite | Self::FastWebSockets => Server::library(self.name(), tls, cpu).map(Some),
            Self::NodeWs => {
                let packages = Path::new("/usr/share/nodejs");
                let Some(node) = program("node").filter(|_| packages.join("ws").is_dir()) else {
                    return Ok(None);
                };
                let mut command = confined(&node, cpu);
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/ws.js"));
                command.env("NODE_PATH", packages);
                Server::program(command, tls).map(Some)
            }
            Self::Wstunnel => {
                if !installation().modules.join("mod_proxy_wstunnel.so").is_file() {
                    return Ok(None);
                }
                let backend = Server::peer(cpu)?;
                let site = &format!("ProxyPass \"/\" \"ws://{}/\"\n", backend.target.address);
                let (modules, children) = (&["proxy", "proxy_wstunnel"], Children::Six);
                let front = Httpd { module: None, modules, site, path: "/", tls, children, cpu };
                Ok(Some(front.start()?.before(backend)))
            }
            Self::Websocketd => {
                let Some(program) = program("websocketd") else { return Ok(None) };
                // Its port cannot be the last argument.
                let mut command = confined(Path::new("/bin/sh"), cpu);
                command.args(["-c", "exec \"$0\" --address=127.0.0.1 --port=\"$1\" --loglevel=fatal cat"]).arg(program);
                Server::program(command, false).map(Some)
            }
            Self::Nchan => Server::nchan(cpu, NCHAN, "/sub"),
        }
    }
}

/// Where `make bench` builds the program with uWebSockets, in the target directory.
const UWEBSOCKETS: &str = "bench/uwebsockets-echo";

/// Starts those that are there, and notes which are not.
pub(crate) fn start(
    peers: &[Peer],
    setting: &Setting,
    tls: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<(Peer, Server)>> {
    let mut servers = Vec::new();
    for peer in peers {
        match peer.start(setting, tls)? {
            Some(server) => servers.push((*peer, server)),
            None => {
                let note = format!("{} is left out: it needs {}", peer.name(), peer.needs());
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    Ok(servers)
}
