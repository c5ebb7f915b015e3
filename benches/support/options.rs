//! The options that benchmarks with several peers share.

use std::path::PathBuf;

use super::peers::{Peer, Setting};
use super::server::Children;
use super::testkit::installation::Installation;
use super::{Result, machine};

/// How these are explained.
pub(crate) const USAGE: &str = "\
  --seconds S          load per server, row and round (default 2)
  --rounds N           rounds per row (default 5)
  --only NAME[,NAME]   servers, by the names in the table
  --schemes S[,S]      ws and wss (default ws,wss)
  --spin               the generator never sleeps (see benches/echo.rs)
  --json FILE          where the JSON goes (default: bench/ in the target directory)
  --module FILE        the module (default: release/libmod_websocket.so in the target directory)";

pub(crate) struct Options {
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    peers: Vec<Peer>,
    /// TLS or not.
    pub(crate) schemes: Vec<bool>,
    pub(crate) spin: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) module: PathBuf,
    /// Only check that it works.
    pub(crate) smoke: bool,
}

impl Options {
    /// What holds where nothing is said. `name`: the benchmark's.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let arguments: Vec<String> = std::env::args().collect();
        let smoke = !arguments.iter().any(|a| a == "--bench") || arguments.iter().any(|a| a == "--test");
        Ok(Self {
            seconds: if smoke { 0.1 } else { 2.0 },
            rounds: if smoke { 1 } else { 5 },
            peers: Peer::ALL.into(),
            schemes: vec![false, true],
            spin: false,
            json: (!smoke).then(|| Installation::built(&format!("bench/{name}.json"))),
            module: Installation::built("release/libmod_websocket.so"),
            smoke,
        })
    }

    /// Reads the arguments of this program. `own` takes an option of the benchmark's own and its value, and says `None` to
    /// what it does not know or understand.
    pub(crate) fn read(&mut self, usage: &str, mut own: impl FnMut(&str, &str) -> Option<()>) -> Result<()> {
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" | "--test" => continue,
                "--help" => return Err(format!("{usage}\n{USAGE}").into()),
                "--spin" => {
                    self.spin = true;
                    continue;
                }
                _ => {}
            }
            let value = arguments.next().unwrap_or_default();
            if self.take(&argument, &value).or_else(|| own(&argument, &value)).is_none() {
                return Err(format!("{argument} {value}: not understood\n{usage}\n{USAGE}").into());
            }
        }
        Ok(())
    }

    fn take(&mut self, argument: &str, value: &str) -> Option<()> {
        match argument {
            "--seconds" => self.seconds = value.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds))?,
            "--rounds" => self.rounds = value.parse().ok().filter(|rounds| *rounds > 0)?,
            "--only" => {
                let named = |name| Peer::ALL.into_iter().find(|peer| peer.name() == name);
                self.peers = value.split(',').map(named).collect::<Option<_>>()?;
            }
            "--schemes" => {
                let tls = |scheme| ["ws", "wss"].iter().position(|known| *known == scheme).map(|index| index == 1);
                self.schemes = value.split(',').map(tls).collect::<Option<_>>()?;
            }
            "--json" => self.json = Some(value.into()),
            "--module" => self.module = value.into(),
            _ => return None,
        }
        Some(())
    }

    /// The servers that are wanted over TLS, or without, ours first.
    pub(crate) fn peers(&self, tls: bool) -> Vec<Peer> {
        let wanted = |peer: &Peer| self.peers.contains(peer) && (!tls || peer.speaks_tls());
        Peer::ALL.into_iter().filter(wanted).collect()
    }

    /// What the servers are started with, our httpd with so many children. Notes what of it keeps the figures from being good ones.
    pub(crate) fn setting(&self, children: Children, notes: &mut Vec<String>) -> Result<Setting> {
        let module = self.module.is_file().then(|| self.module.canonicalize()).transpose()?;
        if module.is_none() && !self.smoke && self.peers.contains(&Peer::Ours) {
            let message = format!("{} does not exist: run `cargo build --release` first", self.module.display());
            return Err(message.into());
        }
        if let Some(newer) = module.as_deref().and_then(machine::newer_source) {
            let newer = newer.display();
            notes.push(format!("the module is older than {newer}: `cargo build --release` makes a new one"));
        }
        let cpu = machine::pin_generator();
        if cpu.is_none() {
            notes.push("server and generator are not on cores of their own".into());
        }
        Ok(Setting { module, cpu, children })
    }
}

/// The name of a scheme.
pub(crate) fn scheme(tls: bool) -> &'static str {
    if tls { "wss" } else { "ws" }
}
