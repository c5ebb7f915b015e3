//! The directives of proxied sessions.

use crate::front::config::words::{Words, on_off};
use crate::front::config::{Config, directives, merged};

merged! {
    /// What the directives of a section say of proxied sessions; `None` where they say nothing.
    pub(crate) struct ProxyConfig {
        handoff: Option<bool>,
    }
}

directives! { pub(crate) DIRECTIVES =
    c"WebSocketProxyHandoff" "On|Off" in Sections, else "Off" => handoff,
        c"Whether the engine takes WebSockets over that mod_proxy has opened: they hold no worker of httpd";
}

impl ProxyConfig {
    /// Sessions that mod_proxy opens here go to the engine.
    pub(crate) fn handoff(&self) -> bool {
        self.handoff.unwrap_or(false)
    }
}

fn handoff(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let on = on_off(words)?;
    config.change(|proxy: &mut ProxyConfig| proxy.handoff = Some(on));
    Ok(())
}
