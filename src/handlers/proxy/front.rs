//! `WebSocketHandler proxy`: a handshake goes the way of `ProxyPass`, as a `RewriteRule` with `[P]` would send it.
//!
//! mod_proxy finds the back end and speaks with it. What comes behind its 101 is for who takes the sockets over; where nobody
//! does, mod_proxy's tunnel carries it.

use super::config::{self, ProxyConfig};
use super::route::Route;
use crate::apache::log::{self, Level};
use crate::apache::process::Parent;
use crate::apache::request::Request;
use crate::apache::server::{Server, has_module};
use crate::apache::status::INTERNAL_SERVER_ERROR;
use crate::apache::{HookResult, HookStatus, conftree};
use crate::front::config::Config;
use crate::front::config::words::Words;
use crate::front::handler::{Front, Registration};
use crate::front::upgrade::with_offer;
use crate::front::{WebSocket, others, refusal};
use crate::wire::handshake::{Accept, Refusal, negotiate};
use std::ffi::CStr;

const NAME: &str = "proxy";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";

/// Header lines that the back end gets as they are when our content handler runs, with the notes that keep them from what mod_proxy
/// does: the client's Host, by which a back end compares origins and makes links; and what mod_proxy has no word for.
const KEPT: [(&CStr, &CStr); 2] =
    [(c"Host", c"websocket-proxied-host"), (c"X-Forwarded-Proto", c"websocket-proxied-proto")];

pub(crate) const FRONT: Registration = Registration { front: &ProxyFront, directives: config::DIRECTIVES };

struct ProxyFront;

impl Front for ProxyFront {
    fn name(&self) -> &'static str {
        NAME
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        config::args(config, words)
    }

    /// The handshake is judged here, as its client sent it: a `RequestHeader` may change the Host that its Origin is compared with.
    fn route(&self, request: &mut Request) -> HookResult {
        if request.headers_in().find(c"Upgrade").is_null() || !others::may_be_ours(request) {
            return Ok(HookStatus::Declined);
        }
        match with_offer(request, negotiate) {
            Err(refusal) if refusal.status().is_none() => return Ok(HookStatus::Declined),
            Err(refusal) => return refusal::answer(request, &refusal),
            Ok(_) => {}
        }
        let config = request.config::<WebSocket>().of::<ProxyConfig>();
        let Some(route) = config.route() else { return Ok(HookStatus::Declined) };
        let raw = request.unparsed_uri();
        let raw = raw.split('?').next().unwrap_or_default();
        let url = route.url(request.path(), raw.as_bytes(), request.raw_query());
        // What the client says of itself is no fact; but a RequestHeader may say otherwise later.
        request.headers_in().set(request.pool(), FORWARDED_PROTO, &request.scheme());
        // Of "websocket, foo" mod_proxy would make nothing.
        request.headers_in().set(request.pool(), "Upgrade", "websocket");
        request.proxy_to(&url);
        others::note_routed(request);
        Ok(HookStatus::Declined)
    }

    fn negotiate(&self, request: &Request) -> Result<Option<Accept>, Refusal> {
        if others::is_routed(request) { Ok(None) } else { with_offer(request, negotiate).map(Some) }
    }

    fn passes_on(&self, request: &Request) -> bool {
        for (name, note) in KEPT {
            request.notes().copy(note, request.headers_in(), name);
        }
        true
    }

    fn proxy_fixups(&self, request: &Request) {
        for (name, note) in KEPT.into_iter().filter(|_| others::is_routed(request)) {
            request.headers_in().copy(name, request.notes(), note);
        }
    }

    fn answer_last(&self, request: &mut Request) -> HookResult {
        if !others::is_routed(request) {
            return Ok(HookStatus::Declined);
        }
        let target = request.filename();
        let target = target.split('?').next().unwrap_or_default();
        let text = format!("WS0308: mod_proxy does not take this handshake to {target}");
        log::request(Level::Error, request, &text);
        Err(INTERNAL_SERVER_ERROR)
    }

    fn check(&self, _parent: &mut Parent, _server: &Server) -> Result<(), String> {
        routes().try_for_each(|route| check(&route))
    }
}

/// All that the configuration names.
pub(super) fn routes() -> impl Iterator<Item = Route> {
    conftree::arguments_of("WebSocketHandler").into_iter().filter_map(|words| route(&words))
}

/// Of the words behind a `WebSocketHandler`.
fn route(words: &str) -> Option<Route> {
    let (handler, url) = words.trim().split_once(|c: char| c.is_whitespace())?;
    let url = url.trim().trim_matches('"');
    Some(url)
        .filter(|_| handler.trim_matches('"').eq_ignore_ascii_case(NAME))
        .and_then(|url| Route::parse(url, None).ok())
}

/// In httpd's parent: what it takes to go there is loaded, and switched on.
fn check(route: &Route) -> Result<(), String> {
    let mut needed = vec![("mod_proxy", c"mod_proxy.c"), ("mod_proxy_http", c"mod_proxy_http.c")];
    if route.is_balancer() {
        needed.push(("mod_proxy_balancer", c"mod_proxy_balancer.c"));
    }
    if let Some((missing, _)) = needed.into_iter().find(|(_, record)| !has_module(record)) {
        let name = missing.trim_start_matches("mod_");
        return Err(format!(
            "WS0309: WebSocketHandler proxy needs {missing}: write \"LoadModule {name}_module modules/{missing}.so\" \
             (Debian: a2enmod {name})"
        ));
    }
    let is_on = |directive| conftree::arguments_of(directive).iter().any(|word| word.trim().eq_ignore_ascii_case("on"));
    if route.is_tls() && !is_on("SSLProxyEngine") && !is_on("TLSProxyEngine") {
        return Err(
            "WS0310: WebSocketHandler proxy needs \"SSLProxyEngine On\" for a back end over wss or https".into()
        );
    }
    Ok(())
}
