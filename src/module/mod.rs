//! The composition root: what httpd loads.
//!
//! * [`advice`]: at startup, on settings that do not go together
//! * [`directives`]: the directives, a table
//! * [`logger`]: the `log` facade, to httpd's error log
//! * [`parent`]: the engine process beside httpd's own

pub mod advice;
pub mod directives;
pub mod logger;
pub mod parent;

use crate::apache::connection::Connection;
use crate::apache::directive::{Commands, entries};
use crate::apache::module::{HttpdModule, Record, record};
use crate::apache::pool::Pool;
use crate::apache::process::Parent;
use crate::apache::proxy::Tunnel;
use crate::apache::request::Request;
use crate::apache::server::Server;
use crate::apache::server_status::Form;
use crate::apache::{HookResult, HookStatus};
use crate::front::config::{Config, Merge};
use crate::front::handler::Front;
use crate::front::{
    WebSocket, access, authorize, child, custody, h2, metrics, once, others, relay, session_logs, upgrade,
};
use crate::handlers::FRONTS;
use crate::handlers::proxy::{startup, takeover};
use directives::DIRECTIVES;
use std::ffi::CStr;

static COMMANDS: Commands<{ entries(&DIRECTIVES) }> = Commands::new(&DIRECTIVES);

/// What `LoadModule websocket_module` looks for. Its name is that of the C module before it, so that existing
/// `<IfModule mod_websocket.c>` blocks hold.
// The export line: httpd finds it by its symbol, and writes the numbers into it that belong to a module.
#[allow(unsafe_code, non_upper_case_globals)]
#[unsafe(no_mangle)]
pub static mut websocket_module: Record = record::<WebSocket, _>(c"mod_websocket.c", &COMMANDS);

fn fronts() -> impl Iterator<Item = &'static dyn Front> {
    FRONTS.iter().map(|known| known.front)
}

/// The content handler, but for what is not about WebSockets.
fn answer(request: &mut Request) -> HookResult {
    let status = match others::is_anothers(request) {
        false => upgrade::handle(request, FRONTS)?,
        true if others::is_answered_now(request) => upgrade::authorize_anothers(request)?,
        true => HookStatus::Declined,
    };
    if status != HookStatus::Declined {
        return Ok(status);
    }
    takeover::reserve(request)
}

impl HttpdModule for WebSocket {
    type Config = Config;

    fn record() -> *mut Record {
        &raw mut websocket_module
    }

    fn merge(outer: &Config, inner: &Config) -> Config {
        inner.over(outer)
    }

    fn open_logs(configuration: &Pool, logs: &Pool, server: &Server) -> Result<(), String> {
        session_logs::open(configuration, logs, server)
    }

    fn post_config(parent: &mut Parent, server: &Server) -> Result<(), String> {
        once::prepare(server);
        parent::start(parent, server)?;
        advice::give();
        startup::prepare(server);
        h2::advise(server.config::<WebSocket>().h2_streams());
        Ok(())
    }

    fn wants_tls_secrets(server: &Server, outgoing: bool) -> bool {
        server.config::<WebSocket>().tls_handoff() && (!outgoing || startup::is_configured())
    }

    fn monitor(parent: &mut Parent, server: &Server) {
        parent::tend(parent, server);
    }

    fn child_init(main: &mut Parent, pool: &Pool, server: &Server) {
        logger::install(server.log_level());
        fronts().for_each(|front| front.child_init(pool));
        child::enter(pool, parent::enter_child(main));
    }

    fn child_stopping(graceful: bool) {
        let at_once = || fronts().filter(|_| !graceful);
        at_once().for_each(Front::child_stopping);
        relay::ending::begin(graceful);
        if let Some(relay) = child::relay() {
            if graceful { relay.stop_gracefully() } else { relay.stop_now() }
        }
        at_once().for_each(Front::child_stopped);
    }

    fn suspend_connection(connection: &Connection, suspended: bool) {
        custody::suspend_connection(connection, suspended);
    }

    fn bypasses_caches(request: &Request) -> bool {
        !request.headers_in().find(c"Upgrade").is_null() && upgrade::is_handshake(request)
    }

    fn arrived(request: &mut Request) {
        authorize::trust::arrived(request);
    }

    fn read(request: &Request) {
        others::note_proxied_early(request);
        access::note_foreign(request);
    }

    fn translated(request: &Request) {
        others::note_proxied_by_url(request);
    }

    fn fixups(request: &mut Request) -> HookResult {
        let chosen = request.config::<WebSocket>().handler();
        chosen.map(|chosen| chosen.front).map_or(Ok(HookStatus::Declined), |front| front.route(request))
    }

    fn proxy_fixups(request: &Request) {
        if let Some(chosen) = request.config::<WebSocket>().handler() {
            chosen.front.proxy_fixups(request);
        }
    }

    const HANDLERS_BEFORE: &'static [&'static CStr] = others::HANDLERS_BEFORE;

    fn handler(request: &mut Request) -> HookResult {
        if metrics::handle(request)? == HookStatus::Ok {
            return Ok(HookStatus::Ok);
        }
        let verdict = answer(request);
        metrics::note_verdict(request, verdict);
        verdict
    }

    fn last_handler(request: &mut Request) -> HookResult {
        let chosen = request.config::<WebSocket>().handler();
        chosen.map(|chosen| chosen.front).map_or(Ok(HookStatus::Declined), |front| front.answer_last(request))
    }

    fn may_take_tunnel(request: &Request) -> bool {
        takeover::is_reserved(request)
    }

    fn tunnel(request: &mut Request, back_end: &Connection) -> Tunnel {
        takeover::take(request, back_end)
    }

    fn server_status(request: &mut Request, form: Form) {
        metrics::status::show(request, form);
    }

    fn proxied(request: &mut Request) -> Option<HookStatus> {
        takeover::end(request)
    }
}
