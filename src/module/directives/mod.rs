//! All directives: `WebSocketHandler`, those that hold for every handler, and each handler's own.

use crate::apache::directive::{Context, Directive};
use crate::front::config::{self, Config};
use crate::front::handler::choose;
use crate::handlers::FRONTS;

const HANDLER: &[Directive<Config>] = &[
    Directive {
        name: c"WebSocketHandler",
        arguments: "echo|discard|channel name ...|exec program ...|tcp host:port|proxy url|http url|pywebsocket dir|plugin.so init|Off",
        context: Context::Everywhere,
        default: "Off",
        help: c"What runs the WebSocket sessions here: 'echo', 'discard', 'channel' and the names of channels, 'exec' and a program, 'tcp' and a server, 'proxy' and the URL of a WebSocket server, 'http' and the URL of an application, 'pywebsocket' and the directory of its *_wsh.py files, the file and the init function of a plugin, or 'Off'",
        set: |config, words| choose(FRONTS, config, words),
    },
];

const COUNT: usize = 1 + config::DIRECTIVES.len() + FRONTS.len();

pub(crate) const DIRECTIVES: [&[Directive<Config>]; COUNT] = {
    let mut tables = [HANDLER; COUNT];
    let mut i = 1;
    while i < COUNT {
        tables[i] = match i - 1 < config::DIRECTIVES.len() {
            true => config::DIRECTIVES[i - 1],
            false => FRONTS[i - 1 - config::DIRECTIVES.len()].directives,
        };
        i += 1;
    }
    tables
};

#[cfg(test)]
mod tests;
