//! What a location does with its sessions: one file a handler.

pub mod echo;

use crate::engine::Registry;

/// Every handler that `WebSocketHandler` can name.
pub const NAMES: &[&str] = &["echo"];

/// The handlers of an engine.
pub fn registry() -> Registry {
    Registry::default().with("echo", echo::Echo)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_has_its_handler() {
        for name in super::NAMES {
            assert!(super::registry().find(name).is_some(), "{name}");
        }
    }
}
