//! Sessions come here by being taken over from mod_proxy: no directive names the handler.

use super::config;
use crate::front::handler::{Front, Registration};

pub(crate) const FRONT: Registration = Registration { front: &Proxy, directives: config::DIRECTIVES };

struct Proxy;

impl Front for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    fn is_meant_by(&self, _: &str) -> bool {
        false
    }
}
