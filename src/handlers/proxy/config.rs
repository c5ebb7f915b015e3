//! The directives of proxied sessions.

use super::route::Route;
use crate::front::config::words::{Words, on_off};
use crate::front::config::{Config, directives, merged};
use crate::front::handler::only_in_httpds;

merged! {
    /// What the directives of a section say of proxied sessions; `None` where they say nothing.
    pub(crate) struct ProxyConfig {
        handoff: Option<bool>,
        /// `WebSocketHandler proxy`.
        route: Option<Route>,
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

    pub(crate) fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }
}

fn handoff(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let on = on_off(words)?;
    config.change(|proxy: &mut ProxyConfig| proxy.handoff = Some(on));
    Ok(())
}

/// What stands behind `WebSocketHandler proxy`.
pub(super) fn args(config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
    only_in_httpds(config, "proxy opens a way to a server, which no .htaccess file may do")?;
    let [_, url] = words else {
        return Err("expected one URL, such as ws://localhost:8080/path".into());
    };
    let route = Route::parse(url, config.place.location.as_deref()).map_err(|why| format!("proxy: {why}"))?;
    config.change(|proxy: &mut ProxyConfig| proxy.route = Some(route));
    Ok(vec![url.clone().into_owned()])
}
