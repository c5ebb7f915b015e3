//! `WebSocketLog`: the logs to which the engine adds a line for each session that ends. httpd's parent opens them, as root,
//! each time it reads its configuration; the engine gets their descriptors.

use crate::apache::log_file;
use crate::apache::pool::Pool;
use crate::apache::server::Server;
use crate::engine::LogSpec;
use crate::engine::session_log::NamedLog;
use crate::front::WebSocket;
use std::ffi::CStr;
use std::io;

/// Where the configuration's pool keeps them.
const KEY: &CStr = c"mod_websocket session logs";

pub fn open(configuration: &Pool, logs: &Pool, server: &Server) -> Result<(), String> {
    let mut open: Vec<NamedLog> = Vec::new();
    for host in server.hosts() {
        let Some(name) = host.config::<WebSocket>().session_log() else { continue };
        if !open.iter().any(|(other, _)| other == name) {
            let log = log_file::open(logs, name).map_err(|why| format!("WS0214: WebSocketLog \"{name}\": {why}"))?;
            open.push((name.to_owned(), log));
        }
    }
    configuration.keep(KEY, open);
    Ok(())
}

pub fn current(server: &Server) -> &[NamedLog] {
    server.configuration_pool().kept::<Vec<NamedLog>>(KEY).map_or(&[], Vec::as_slice)
}

/// The same, for a process that will close what it inherited.
pub fn duplicates(server: &Server) -> io::Result<Vec<NamedLog>> {
    current(server).iter().map(|(name, log)| Ok((name.clone(), log.try_clone()?))).collect()
}

/// The log of a session that `host` serves.
pub fn spec(host: &Server) -> Option<Box<LogSpec>> {
    let config = host.config::<WebSocket>();
    let name = config.session_log()?.to_owned();
    Some(Box::new(LogSpec { query: config.session_log_query(), name, host: host.name().into() }))
}
