//! Figures of the whole server: the memory that they are counted in, and `SetHandler websocket-metrics`.
//!
//! * `openmetrics`: as Prometheus reads them
//! * [`status`]: as a section of mod_status' page

mod openmetrics;
pub(crate) mod status;

use super::{access, child, once, signals::ENGINES, upgrade};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::{HookResult, HookStatus};
use crate::apache::{mpm, shared_memory};
use crate::engine::metrics::families::Figures;
use crate::engine::metrics::totals::Totals;
use crate::engine::metrics::{Board, EngineArea, Row, Timing};
use crate::engine::query::Query;
use std::cell::Cell;
use std::ffi::CStr;
use std::fmt::Display;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The layout of what is shared, under a name of its own.
const KEY: &CStr = c"mod_websocket metrics 1";
/// The name in `SetHandler`.
const HANDLER: &str = "websocket-metrics";
/// How long the page waits for an engine that does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The shared words. In httpd's parent first.
fn board() -> io::Result<Board> {
    static BOARD: OnceLock<Board> = OnceLock::new();
    if let Some(board) = BOARD.get() {
        return Ok(*board);
    }
    let words = shared_memory::words(KEY, Board::size(ENGINES))?;
    Ok(*BOARD.get_or_init(|| Board::new(words, ENGINES)))
}

/// In httpd's parent, before it starts the engine with this number: where that counts. What another one had is no more.
pub(crate) fn renew(number: usize) -> io::Result<EngineArea> {
    let engine = board()?.engine(number);
    engine.end();
    Ok(engine)
}

/// In httpd's parent: the engine with this number has ended.
pub(crate) fn ended(number: usize) {
    if let Ok(board) = board() {
        board.engine(number).end();
    }
}

/// In httpd's parent, about every ten seconds: remembers what rates are told of.
pub(crate) fn sample() {
    if let Ok(board) = board() {
        Totals::of(board).sample();
    }
}

/// What this thread of a child counts into.
fn row() -> Option<Row> {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static ROW: Cell<Option<Row>> = const { Cell::new(None) };
    }
    ROW.get().or_else(|| {
        // Neighbours have other rows, and so do other children.
        let number = THREADS.fetch_add(1, Ordering::Relaxed) + std::process::id() as usize;
        let row = board().ok()?.child(number);
        ROW.set(Some(row));
        Some(row)
    })
}

/// A handshake is answered with its 101.
pub(crate) fn note_opened(request: &Request) {
    if let Some(row) = row() {
        row.share_time(Timing::Handshake, request.age());
    }
}

/// As [`note_opened`], by the 101 of a server behind mod_proxy, which has taken so long to connect to and to answer.
pub(crate) fn note_proxied(request: &Request, asked: Duration) {
    note_opened(request);
    if let Some(row) = row() {
        row.share_time(Timing::Proxy, asked);
    }
}

/// What the content handler makes of a request: a handshake may be refused.
pub(crate) fn note_verdict(request: &Request, verdict: HookResult) {
    let status = match verdict {
        Err(status) => status,
        // With the answer of an application, say.
        Ok(HookStatus::Ok) => request.status(),
        Ok(HookStatus::Declined | HookStatus::Suspended) => return,
    };
    if status >= 300
        && upgrade::names_websocket(request)
        && let Some(row) = row()
    {
        row.share_refused(status);
    }
}

/// All figures, those brought up to date that only the engine knows: where it answers in time.
pub(crate) fn figures() -> io::Result<Figures> {
    let totals = Totals::of(board()?);
    let answers = child::engine_client().is_some_and(|engine| engine.query(Query::Gauges, PATIENCE).is_ok());
    let workers = mpm::max_children() * mpm::threads_per_child();
    Ok(Figures { totals, answers, workers })
}

/// There are no figures.
fn tell(request: &Request, why: &dyn Display) {
    log::request(Level::Error, request, &format!("WS0356: no metrics: {why}"));
}

/// Answers a request for the metrics.
pub(crate) fn handle(request: &mut Request) -> HookResult {
    if request.handler_name() != HANDLER || request.is_subrequest() {
        return Ok(HookStatus::Declined);
    }
    if request.is_handler_from_htaccess() {
        let text = format!("WS0353: an .htaccess file says SetHandler {HANDLER}, which only httpd's configuration may");
        log::request(Level::Error, request, &text);
        return Err(500);
    }
    if let Some(why) = access::refusal(request) {
        if once::a_minute("WS0354", request) {
            let text = format!(
                "WS0354: refused: only this machine may read the metrics here (WebSocketPublishAccess Local), and the request \
                 {why}; where Require guards the location, write WebSocketPublishAccess Require into it"
            );
            log::request(Level::Warning, request, &text);
        }
        return Err(403);
    }
    if !access::is_own_page(request) {
        log::request(Level::Info, request, "WS0355: refused: a page of another site may not read the metrics");
        return Err(403);
    }
    if !matches!(&*request.method(), "GET" | "HEAD") {
        request.err_headers_out().set(request.pool(), "Allow", "GET, HEAD");
        return Err(405);
    }
    let text = figures()
        .map_err(|why| why.to_string())
        .and_then(|figures| openmetrics::text(figures).map_err(|why| why.to_string()));
    match text {
        Ok(text) => {
            request.headers_out().set(request.pool(), "Cache-Control", "no-store");
            request.answer(200, openmetrics::CONTENT_TYPE, text.as_bytes());
            Ok(HookStatus::Ok)
        }
        Err(why) => {
            tell(request, &why);
            Err(500)
        }
    }
}
