//! C plugins written for the mod_websocket before this one: their binaries run here, thousands of sockets each.
//!
//! The plugin's code runs in httpd's children, where it has the request_rec, and the session in the engine, as for every
//! handler. Between the two goes a Unix stream socket with whole messages ([`crate::handlers::plugin`]).
//!
//! * [`abi`]: the binary interface: structures, the functions that a plugin calls, those that it has
//! * [`opening`]: a connection on the thread of its request, before the 101
//! * [`connection`]: one session from then on, as the child sees it
//! * `send_queue`, `receive_queue`: what its plugin has sent, and what it has not got yet
//! * [`executor`]: a child's threads: one that watches all the sockets to the engine, a few on which plugins' functions run
//! * [`watchdog`]: which of their functions are running, and for how long
//!
//! The request is kept until `on_disconnect` has returned: suspended on event, see [`crate::front::relay`], else by
//! its waiting thread.

#[allow(unsafe_code)] // The C interface: every block in it says who guarantees what it relies on.
pub mod abi;
pub mod connection;
pub mod executor;
pub mod opening;
mod receive_queue;
mod send_queue;
pub mod watchdog;

use crate::apache::directive::{Context, Directive};
use crate::apache::log::{self, Level};
use crate::apache::pool::Pool;
use crate::apache::request::Request;
use crate::apache::server;
use crate::apache::status::{FORBIDDEN, INTERNAL_SERVER_ERROR, SERVICE_UNAVAILABLE};
use crate::front::WebSocket;
use crate::front::config::words::{Words, threads};
use crate::front::config::{Config, merged};
use crate::front::handler::{Front, Needs, Prepared, Registration, only_in_httpds};
use crate::wire::handshake::Accept;
use abi::Plugin;
use executor::Executor;
use opening::PluginOpening;
use std::sync::Arc;

/// The default of `WebSocketMaxMessageSize`: that of the modules that plugins are written for.
const MAX_MESSAGE_SIZE: usize = 32 << 20;

merged! {
    pub(crate) struct PluginConfig {
        /// What `WebSocketHandler` names.
        plugin: Option<Arc<Plugin>>,
        /// Threads of a child on which functions of plugins run.
        pub(crate) threads: Option<usize>,
    }
}

pub(crate) const FRONT: Registration = Registration {
    front: &PluginFront,
    directives: &[Directive {
        name: c"WebSocketPluginThreads",
        arguments: "number",
        context: Context::Global,
        default: "8",
        help: c"Threads of each child of httpd on which the functions of plugins run",
        set: set_threads,
    }],
};

fn set_threads(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let threads = threads(words)?;
    config.change(|plugins: &mut PluginConfig| plugins.threads = Some(threads));
    Ok(())
}

/// A word that is a path, and no name of a handler.
pub(crate) fn is_file(word: &str) -> bool {
    word.contains('/') || word.ends_with(".so")
}

struct PluginFront;

impl Front for PluginFront {
    fn name(&self) -> &'static str {
        "plugin"
    }

    fn is_meant_by(&self, word: &str) -> bool {
        is_file(word)
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        let [path, init] = words else {
            return Err(format!(
                "takes the name of the plugin's init function after {}, and nothing else",
                words.first().map_or("", |path| path)
            ));
        };
        only_in_httpds(config, "a plugin is code that httpd runs, and is not loaded because of an .htaccess file")?;
        let plugin = Arc::new(Plugin::load(path, init)?);
        config.change(|plugins: &mut PluginConfig| plugins.plugin = Some(plugin));
        Ok(Vec::new())
    }

    fn max_message_size(&self, _config: &Config) -> usize {
        MAX_MESSAGE_SIZE
    }

    /// Its request is kept, and the connection with it; messages go by a socketpair in any case.
    fn needs(&self) -> Needs {
        Needs::Descriptor
    }

    /// The plugin's answer, with the subprotocol that it wants.
    fn prepare(&self, request: &mut Request, _args: &[String], accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        let config = request.config::<WebSocket>();
        let plugin = config.of::<PluginConfig>().plugin.clone();
        let (Some(plugin), Some(accept)) = (plugin, accept) else { return Err(INTERNAL_SERVER_ERROR) };
        let send_buffer = config.limits().send_buffer;
        let threads = server::main().and_then(|server| server.config::<WebSocket>().of::<PluginConfig>().threads);
        let executor = executor::start(request.server(), threads.unwrap_or(8)).map_err(|why| {
            log::request(Level::Error, request, &format!("WS0013: there are no threads for the plugin: {why}"));
            SERVICE_UNAVAILABLE
        })?;
        let Some(opening) = PluginOpening::ask(executor, &plugin, request, &accept.offered_protocols, send_buffer)
        else {
            log::request(Level::Info, request, &format!("WS0014: refused by the plugin {}", plugin.name()));
            request.headers_out().clear();
            return Err(FORBIDDEN);
        };
        if let Some(protocol) = opening.protocol() {
            accept.protocol = Some(protocol);
        }
        Ok(Prepared {
            hold: Some(Box::new(move |session, messages| opening.open(session, messages))),
            ..Prepared::default()
        })
    }

    fn child_init(&self, pool: &Pool) {
        pool.on_end(|| executor::started().into_iter().for_each(Executor::halt));
    }

    fn child_stopping(&self) {
        executor::started().into_iter().for_each(Executor::close_all);
    }

    fn child_stopped(&self) {
        executor::started().into_iter().for_each(Executor::await_all);
    }
}
