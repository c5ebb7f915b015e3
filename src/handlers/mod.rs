//! What a location does with its sessions: one file a handler.

pub mod channel;
pub mod echo;
pub mod exec;
#[cfg(test)]
mod layout;
pub mod plugin;
pub mod pywebsocket;
pub mod targets;
pub mod tcp;

use crate::engine::Registry;

/// Every handler that `WebSocketHandler` can name.
pub const NAMES: &[&str] = &["channel", "echo", "exec", "pywebsocket", "tcp"];

/// What runs the sessions of channels.
pub const CHANNEL: &str = "channel";

/// What runs programs.
pub const EXEC: &str = "exec";

/// What runs the sessions of handlers in Python.
pub const PYWEBSOCKET: &str = "pywebsocket";

/// What runs the sessions of a C plugin, which `WebSocketHandler` names by its file.
pub const PLUGIN: &str = "plugin";

/// What runs the sessions that are connected to a server of TCP.
pub const TCP: &str = "tcp";

/// All handlers of an engine, in the order of their numbers there.
pub const NUMBERED: &[&str] = &[CHANNEL, "echo", EXEC, PLUGIN, PYWEBSOCKET, TCP];

/// The handlers of an engine.
pub fn registry() -> Registry {
    Registry::default()
        .with(CHANNEL, channel::Channel::default())
        .with("echo", echo::Echo)
        .with(EXEC, exec::Exec::default())
        .with(PLUGIN, plugin::Plugin)
        .with(PYWEBSOCKET, pywebsocket::PyWebSocket::default())
        .with(TCP, tcp::Tcp::default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_those_of_the_registry() {
        let registry = super::registry();
        assert_eq!(registry.names(), super::NUMBERED);
        assert_eq!((registry.number("echo"), registry.number("nobody")), (2, 0));
    }

    #[test]
    fn every_name_has_its_handler() {
        for name in super::NAMES {
            assert!(super::registry().find(name).is_some(), "{name}");
        }
    }
}
