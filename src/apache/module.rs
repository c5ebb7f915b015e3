//! The module record, and the hooks: one generic function each turns httpd's call into a method of [`HttpdModule`].

use super::connection::Connection;
use super::directive::Commands;
use super::ffi;
use super::guard::guard;
use super::log;
use super::pool::Pool;
use super::process::Parent;
use super::proxy::{self, Tunnel};
use super::request::Request;
use super::server::Server;
use super::server_status::{self, Form};
use super::subrequest;
use super::tls;
use super::{HookResult, HookStatus};
use std::ffi::{CStr, c_char, c_int, c_void};

pub use ffi::module as Record;

/// A module, as httpd sees it.
pub trait HttpdModule: 'static {
    /// What its directives set, for a server, a location, a directory.
    type Config: Default + 'static;

    /// The record that is exported, which httpd has filled in.
    fn record() -> *mut Record;

    /// An inner section's configuration over an outer one's.
    fn merge(outer: &Self::Config, inner: &Self::Config) -> Self::Config;

    /// In httpd's parent, after each reading of the configuration, the trial one included: opens what is logged to, with
    /// the pool of the configuration and that of the logs, which ends shortly before the next call.
    ///
    /// # Errors
    /// httpd does not start.
    fn open_logs(configuration: &Pool, logs: &Pool, server: &Server) -> Result<(), String>;

    /// In httpd's parent, after each reading of the configuration but the trial one, when other modules are content.
    ///
    /// # Errors
    /// httpd does not start.
    fn post_config(parent: &mut Parent, server: &Server) -> Result<(), String>;

    /// In httpd's parent, for each server with TLS: whether [`Connection::tls`] is wanted for its connections; `outgoing`: for
    /// those that it opens as a proxy.
    fn wants_tls_secrets(server: &Server, outgoing: bool) -> bool;

    /// In httpd's parent, about every ten seconds while it runs.
    fn monitor(parent: &mut Parent, server: &Server);

    /// In a new child of httpd, before its threads start, as the configured user.
    /// The pool ends with the child.
    fn child_init(main: &mut Parent, pool: &Pool, server: &Server);

    /// The MPM lets go of a connection, on the worker thread: for a while, or, when `suspended`, because its request said
    /// [`HookStatus::Suspended`]; then it is its suspender's from now on.
    fn suspend_connection(connection: &Connection, suspended: bool);

    /// This child of httpd is told to end: when its connections have (graceful), or now. Comes early with graceful, and
    /// perhaps twice.
    fn child_stopping(graceful: bool);

    /// A request has come from a client (post_read_request), and most other modules have not seen it. Where httpd has redirected
    /// it, it comes again.
    fn arrived(request: &mut Request);

    /// A request has been read (post_read_request), and every other module has seen it.
    fn read(request: &Request);

    /// The URL of a request has been looked up (translate_name), and nothing else is known of it yet.
    fn translated(request: &Request);

    /// What a request is to be is known (fixups), and modules see it for the last time before one answers it: before mod_proxy
    /// does, and after the rules of mod_rewrite where httpd has them before mod_proxy, too (2.4.63 or so).
    ///
    /// # Errors
    /// An HTTP status, for which httpd makes the answer.
    fn fixups(request: &mut Request) -> HookResult;

    /// mod_proxy has made the header lines for a back end, which are the request's for now.
    fn proxy_fixups(request: &Request);

    /// A request before anybody may answer it from a cache: true when that must not be.
    fn bypasses_caches(request: &Request) -> bool;

    /// The modules whose content handlers see a request before [`HttpdModule::handler`] does, by the names of their records.
    const HANDLERS_BEFORE: &'static [&'static CStr];

    /// The content handler. It sees every request before other modules' handlers do, but for those just named.
    ///
    /// # Errors
    /// An HTTP status, for which httpd makes the answer.
    fn handler(request: &mut Request) -> HookResult;

    /// The content handler again: for requests that no other module's has answered, before httpd looks for a file.
    ///
    /// # Errors
    /// As of [`HttpdModule::handler`].
    fn last_handler(request: &mut Request) -> HookResult;

    /// mod_proxy sends a request to a back end: whether [`HttpdModule::tunnel`] is to be called should a tunnel come of it.
    fn may_take_tunnel(request: &Request) -> bool;

    /// mod_proxy is about to move the bytes between the client of this request, who has got the 101, and a back end.
    fn tunnel(request: &mut Request, back_end: &Connection) -> Tunnel;

    /// mod_status makes its page.
    fn server_status(request: &mut Request, form: Form);

    /// mod_proxy is done with a request: what its content handler is to answer, should it be another thing than it would.
    fn proxied(request: &mut Request) -> Option<HookStatus>;
}

/// The record of module `M`: `name` is what `<IfModule>` looks for.
pub const fn record<M: HttpdModule, const N: usize>(name: &'static CStr, commands: &'static Commands<N>) -> Record {
    Record {
        version: ffi::MODULE_MAGIC_NUMBER_MAJOR as c_int,
        minor_version: ffi::MODULE_MAGIC_NUMBER_MINOR as c_int,
        module_index: -1,
        name: name.as_ptr(),
        dynamic_load_handle: std::ptr::null_mut(),
        next: std::ptr::null_mut(),
        magic: ffi::MODULE_MAGIC_COOKIE as _,
        rewrite_args: None,
        create_dir_config: Some(create_dir_config::<M>),
        merge_dir_config: Some(merge_dir_config::<M>),
        create_server_config: None,
        merge_server_config: None,
        cmds: commands.as_ptr(),
        register_hooks: Some(register_hooks::<M>),
        flags: 0,
    }
}

extern "C" fn create_dir_config<M: HttpdModule>(pool: *mut ffi::apr_pool_t, _dir: *mut c_char) -> *mut c_void {
    guard("create_dir_config", std::ptr::null_mut(), || {
        // SAFETY: the pool outlives the configuration.
        unsafe { Pool::from_ptr(pool) }.own(M::Config::default()).cast()
    })
}

extern "C" fn merge_dir_config<M: HttpdModule>(
    pool: *mut ffi::apr_pool_t,
    outer: *mut c_void,
    inner: *mut c_void,
) -> *mut c_void {
    guard("merge_dir_config", inner, || {
        // SAFETY: both were made by the functions here.
        let (outer, inner) = unsafe { (&*outer.cast::<M::Config>(), &*inner.cast::<M::Config>()) };
        // SAFETY: the pool outlives the configuration.
        unsafe { Pool::from_ptr(pool) }.own(M::merge(outer, inner)).cast()
    })
}

extern "C" fn register_hooks<M: HttpdModule>(pool: *mut ffi::apr_pool_t) {
    // SAFETY: the record is ours, and httpd has numbered it before it registers hooks.
    log::set_module_index(unsafe { (*M::record()).module_index });
    let names = M::HANDLERS_BEFORE.iter().map(|name| name.as_ptr()).chain([std::ptr::null()]);
    // SAFETY: the pool is that of the configuration, and so are the hooks.
    let handlers_before = unsafe { Pool::from_ptr(pool) }.own(names.collect::<Vec<_>>());
    // mod_cache's, with CacheQuickHandler Off: it has the same place as ours.
    static CACHES: Names<2> = Names([c"mod_cache.c".as_ptr(), std::ptr::null()]);
    let handlers_after = &CACHES.0;
    // It has the same place, too, and says who the client is.
    static REMOTEIP: Names<2> = Names([c"mod_remoteip.c".as_ptr(), std::ptr::null()]);
    static PROXY: Names<2> = Names([c"mod_proxy.c".as_ptr(), std::ptr::null()]);
    // SAFETY: functions with the hooks' signatures; the list ends with NULL and is there as long as the hooks are.
    unsafe {
        let (nobody, after, before) = (std::ptr::null(), std::ptr::null(), ffi::APR_HOOK_REALLY_FIRST);
        ffi::ap_hook_open_logs(Some(open_logs::<M>), nobody, after, ffi::APR_HOOK_MIDDLE as c_int);
        ffi::ap_hook_post_config(Some(post_config::<M>), nobody, after, ffi::APR_HOOK_REALLY_LAST as c_int);
        ffi::ap_hook_monitor(Some(monitor::<M>), nobody, after, ffi::APR_HOOK_MIDDLE as c_int);
        ffi::ap_hook_child_init(Some(child_init::<M>), nobody, after, ffi::APR_HOOK_MIDDLE as c_int);
        ffi::ap_hook_child_stopping(Some(child_stopping::<M>), nobody, after, ffi::APR_HOOK_MIDDLE as c_int);
        ffi::ap_hook_suspend_connection(
            Some(suspend_connection::<M>),
            nobody,
            after,
            ffi::APR_HOOK_REALLY_LAST as c_int,
        );
        ffi::ap_hook_post_read_request(Some(arrived::<M>), REMOTEIP.0.as_ptr(), after, ffi::APR_HOOK_FIRST as c_int);
        ffi::ap_hook_post_read_request(Some(subrequest::redirected::<M>), nobody, after, ffi::APR_HOOK_FIRST as c_int);
        ffi::ap_hook_post_read_request(Some(read::<M>), nobody, after, ffi::APR_HOOK_REALLY_LAST as c_int);
        ffi::ap_hook_create_request(Some(subrequest::created::<M>), nobody, after, ffi::APR_HOOK_REALLY_LAST as c_int);
        ffi::ap_hook_fixups(Some(subrequest::fixed_up::<M>), nobody, after, before as c_int);
        ffi::ap_hook_map_to_storage(Some(translated::<M>), nobody, after, before as c_int);
        ffi::ap_hook_quick_handler(Some(before_caches::<M>), nobody, after, before as c_int);
        ffi::ap_hook_quick_handler(Some(after_caches), nobody, after, ffi::APR_HOOK_REALLY_LAST as c_int);
        ffi::ap_hook_fixups(Some(fixups::<M>), nobody, PROXY.0.as_ptr(), ffi::APR_HOOK_FIRST as c_int + 1);
        ffi::ap_hook_handler(Some(handler::<M>), (*handlers_before).as_ptr(), handlers_after.as_ptr(), before as c_int);
        // What mod_proxy is to answer comes by mod_cache's handler first.
        ffi::ap_hook_handler(Some(after_caches_handler), CACHES.0.as_ptr(), PROXY.0.as_ptr(), before as c_int + 1);
        ffi::ap_hook_handler(Some(last_handler::<M>), nobody, after, ffi::APR_HOOK_LAST as c_int);
    }
    tls::register::<M>();
    proxy::register::<M>();
    server_status::register::<M>();
}

extern "C" fn open_logs<M: HttpdModule>(
    pool: *mut ffi::apr_pool_t,
    logs: *mut ffi::apr_pool_t,
    _temporary: *mut ffi::apr_pool_t,
    server: *mut ffi::server_rec,
) -> c_int {
    let failed = ffi::HTTP_INTERNAL_SERVER_ERROR as c_int;
    guard("open_logs", failed, || {
        // SAFETY: pconf and the main server live as long as the configuration, plog until the hook runs again.
        let (pool, logs, server) = unsafe { (Pool::from_ptr(pool), Pool::from_ptr(logs), Server::from_ptr(server)) };
        started(M::open_logs(pool, logs, server))
    })
}

/// What httpd makes of a part of its start.
fn started(result: Result<(), String>) -> c_int {
    match result {
        Ok(()) => ffi::OK as c_int,
        Err(why) => {
            log::main(log::Level::Critical, &why);
            ffi::HTTP_INTERNAL_SERVER_ERROR as c_int
        }
    }
}

extern "C" fn post_config<M: HttpdModule>(
    pool: *mut ffi::apr_pool_t,
    _log: *mut ffi::apr_pool_t,
    _temporary: *mut ffi::apr_pool_t,
    server: *mut ffi::server_rec,
) -> c_int {
    let failed = ffi::HTTP_INTERNAL_SERVER_ERROR as c_int;
    guard("post_config", failed, || {
        if super::server::is_preflight() {
            return ffi::OK as c_int;
        }
        // SAFETY: pconf and the main server live as long as the configuration.
        let (pool, server) = unsafe { (Pool::from_ptr(pool), Server::from_ptr(server)) };
        super::local::prepare(pool);
        // SAFETY: safety.md 10.
        started(M::post_config(&mut unsafe { Parent::new() }, server))
    })
}

extern "C" fn monitor<M: HttpdModule>(_pool: *mut ffi::apr_pool_t, server: *mut ffi::server_rec) -> c_int {
    // SAFETY: safety.md 6, 10.
    guard("the monitor hook", (), || unsafe { M::monitor(&mut Parent::new(), Server::from_ptr(server)) });
    ffi::DECLINED
}

extern "C" fn child_init<M: HttpdModule>(pool: *mut ffi::apr_pool_t, server: *mut ffi::server_rec) {
    // SAFETY: pool and main server live as long as the child; safety.md 10.
    guard("child_init", (), || unsafe {
        M::child_init(&mut Parent::new(), Pool::from_ptr(pool), Server::from_ptr(server));
    });
}

extern "C" fn child_stopping<M: HttpdModule>(_pool: *mut ffi::apr_pool_t, graceful: c_int) {
    guard("child_stopping", (), || M::child_stopping(graceful != 0));
}

extern "C" fn suspend_connection<M: HttpdModule>(connection: *mut ffi::conn_rec, _request: *mut ffi::request_rec) {
    guard("suspend_connection", (), || {
        // SAFETY: the connection is valid.
        unsafe {
            M::suspend_connection(Connection::from_ptr(connection), ffi::shim_connection_is_suspended(connection) != 0)
        }
    });
}

/// Names of modules, for hooks.
struct Names<const N: usize>([*const c_char; N]);

// SAFETY: constants.
unsafe impl<const N: usize> Sync for Names<N> {}

/// Under this name a request has a note while caches are to leave it alone.
const BYPASS: &CStr = c"websocket-bypasses-caches";

/// mod_cache answers a GET from what is stored, whatever the client wants to upgrade to, and it keeps its hands off other
/// methods: what it looks at is the number, which nobody else does in this hook. (The variable no-cache keeps it from
/// storing, not from answering.)
extern "C" fn before_caches<M: HttpdModule>(request: *mut ffi::request_rec, _lookup: c_int) -> c_int {
    // SAFETY: safety.md 1.
    guard("the first quick handler", (), || unsafe { bypass_caches::<M>(request) });
    ffi::DECLINED
}

/// # Safety
/// The request is valid.
unsafe fn bypass_caches<M: HttpdModule>(request: *mut ffi::request_rec) {
    // SAFETY: the caller's word; the note is static.
    unsafe {
        if (*request).method_number == ffi::M_GET as c_int
            && (subrequest::is_asked::<M>(request) || M::bypasses_caches(Request::from_ptr(request)))
        {
            ffi::apr_table_setn((*request).notes, BYPASS.as_ptr(), c"1".as_ptr());
            (*request).method_number = ffi::M_INVALID as c_int;
        }
    }
}

/// The method is again what it was.
extern "C" fn after_caches(request: *mut ffi::request_rec, _lookup: c_int) -> c_int {
    // SAFETY: the request is valid.
    unsafe {
        if !ffi::apr_table_get((*request).notes, BYPASS.as_ptr()).is_null() {
            ffi::apr_table_unset((*request).notes, BYPASS.as_ptr());
            (*request).method_number = ffi::M_GET as c_int;
        }
    }
    ffi::DECLINED
}

extern "C" fn arrived<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    let failed = ffi::HTTP_INTERNAL_SERVER_ERROR as c_int;
    guard("post_read_request", failed, || {
        // SAFETY: safety.md 1.
        M::arrived(unsafe { Request::from_ptr(request) });
        ffi::DECLINED
    })
}

extern "C" fn after_caches_handler(request: *mut ffi::request_rec) -> c_int {
    after_caches(request, 0)
}

extern "C" fn read<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    // SAFETY: the request lives until the hook returns, and longer.
    guard("post_read_request", (), || M::read(unsafe { Request::from_ptr(request) }));
    ffi::DECLINED
}

extern "C" fn translated<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    // SAFETY: safety.md 1.
    guard("map_to_storage", (), || M::translated(unsafe { Request::from_ptr(request) }));
    ffi::DECLINED
}

extern "C" fn fixups<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    handled(request, M::fixups)
}

extern "C" fn handler<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    // SAFETY: safety.md 1.
    if unsafe { subrequest::is_unparsed::<M>(request) } {
        return ffi::HTTP_FORBIDDEN as c_int;
    }
    let status = handled(request, M::handler);
    if status == ffi::DECLINED {
        // SAFETY: safety.md 1.
        guard("the content handler", (), || unsafe { bypass_caches::<M>(request) });
    }
    status
}

extern "C" fn last_handler<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    handled(request, M::last_handler)
}

fn handled(request: *mut ffi::request_rec, handle: fn(&mut Request) -> HookResult) -> c_int {
    guard("a hook of requests", ffi::HTTP_INTERNAL_SERVER_ERROR as c_int, || {
        // SAFETY: the request lives until the hook returns, and longer.
        match handle(unsafe { Request::from_ptr(request) }) {
            Ok(HookStatus::Ok) => ffi::OK as c_int,
            Ok(HookStatus::Declined) => ffi::DECLINED,
            Ok(HookStatus::Suspended) => ffi::SUSPENDED,
            Err(status) => c_int::from(status),
        }
    })
}
