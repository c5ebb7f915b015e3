//! Publish and subscribe: who hears what, what is kept, and a broker.

mod batch;
mod history;
mod load;
mod names;
pub mod php;
mod protocol_v1;
mod publish;
mod redis;
mod redis_foreign;
mod redis_lost;
mod resume;
mod subscriptions;
mod transports;

use crate::harness::{Httpd, Mpm};

/// A channel, and where anybody of this machine may publish.
fn httpd(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .module("authz_host")
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
}
