//! httpd's request_rec.

use super::connection::Connection;
use super::ffi;
use super::module::HttpdModule;
use super::pool::Pool;
use super::server::Server;
use super::table::Table;
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[repr(transparent)]
pub struct Request(UnsafeCell<ffi::request_rec>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxying {
    None,
    /// It names a server elsewhere, as clients ask a forward proxy.
    Forward,
    /// A directive sends it to another server.
    Reverse,
}

/// A request that somebody holds on to from other threads. Who has asked for it sees to it that it is dropped before the
/// request ends.
pub struct RequestRef(*mut ffi::request_rec);

// SAFETY: safety.md 8; header lines of a request are not changed after the handler began.
unsafe impl Send for RequestRef {}
// SAFETY: safety.md 8.
unsafe impl Sync for RequestRef {}

impl RequestRef {
    pub fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }

    /// The value of a header line of the request; NULL for none. It lives as long as the request.
    pub fn header(&self, name: &CStr) -> *const c_char {
        // SAFETY: safety.md 2; who asked for it drops it before the request ends.
        unsafe { Table::from_ptr((*self.0).headers_in) }.find(name)
    }
}

/// # Safety
/// `ptr` is NULL or a NUL-terminated string that outlives `'a`.
pub(super) unsafe fn text<'a>(ptr: *const c_char) -> Option<Cow<'a, str>> {
    // SAFETY: the caller's word.
    (!ptr.is_null()).then(|| unsafe { CStr::from_ptr(ptr) }.to_string_lossy())
}

/// # Safety
/// As of [`text`].
unsafe fn bytes<'a>(ptr: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's word.
    (!ptr.is_null()).then(|| unsafe { CStr::from_ptr(ptr) }.to_bytes())
}

impl Request {
    /// # Safety
    /// `ptr` is a request that httpd is running, and outlives `'a`.
    pub(super) unsafe fn from_ptr<'a>(ptr: *mut ffi::request_rec) -> &'a mut Request {
        // SAFETY: the caller's word; the wrapper is transparent.
        unsafe { &mut *ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::request_rec {
        self.0.get()
    }

    pub(super) fn record(&self) -> &ffi::request_rec {
        // SAFETY: safety.md 1, 5.
        unsafe { &*self.0.get() }
    }

    /// What tells it from others that there are in this process.
    pub fn number(&self) -> usize {
        self.as_ptr() as usize
    }

    pub fn pool(&self) -> &Pool {
        // SAFETY: safety.md 2.
        unsafe { Pool::from_ptr(self.record().pool) }
    }

    pub fn connection(&self) -> &Connection {
        // SAFETY: safety.md 2.
        unsafe { Connection::from_ptr(self.record().connection) }
    }

    pub fn server(&self) -> &Server {
        // SAFETY: safety.md 2.
        unsafe { Server::from_ptr(self.record().server) }
    }

    /// A request that another one makes inside httpd (an SSI include, a lookup), and that nobody outside waits for.
    pub fn is_subrequest(&self) -> bool {
        !self.record().main.is_null()
    }

    /// Made by httpd out of another request (ap_internal_redirect: a rewrite in a directory, an error document).
    pub fn is_redirected(&self) -> bool {
        !self.record().prev.is_null()
    }

    /// httpd has made it for another answer than 200 (ErrorDocument), or out of such a request.
    ///
    /// ap_die writes the status into the request that has failed, and has ap_internal_redirect make the one for the page: with
    /// the same header lines, and without asking for a login again where the configuration is the same. Whatever comes of that
    /// may have a status of its own, so all requests before it count.
    pub fn is_for_error(&self) -> bool {
        let mut request: *const ffi::request_rec = self.as_ptr();
        while !request.is_null() {
            // SAFETY: safety.md 4.
            let before = unsafe { &*request };
            if before.status != ffi::HTTP_OK as c_int {
                return true;
            }
            request = before.prev;
        }
        false
    }

    /// It, or one that httpd has made it out of, has a note of this name.
    pub fn was_noted(&self, name: &CStr) -> bool {
        let mut request: *const ffi::request_rec = self.as_ptr();
        while !request.is_null() {
            // SAFETY: safety.md 4.
            let before = unsafe { &*request };
            // SAFETY: a request has notes as long as it lives.
            if !unsafe { Table::from_ptr(before.notes) }.find(name).is_null() {
                return true;
            }
            request = before.prev;
        }
        false
    }

    /// What mod_proxy has to do with it, as far as is known by now.
    pub fn proxying(&self) -> Proxying {
        match self.record().proxyreq as u32 {
            ffi::PROXYREQ_NONE => Proxying::None,
            ffi::PROXYREQ_PROXY => Proxying::Forward,
            _ => Proxying::Reverse,
        }
    }

    /// The file that its URL stands for; `proxy:` or `redirect:` and a URL where it is another server's, or mod_rewrite's.
    pub fn filename(&self) -> Cow<'_, str> {
        // SAFETY: safety.md 2.
        unsafe { text(self.record().filename) }.unwrap_or_default()
    }

    /// What modules tell each other about it.
    pub fn notes(&self) -> &Table {
        // SAFETY: safety.md 2.
        unsafe { Table::from_ptr(self.record().notes) }
    }

    /// Its path, decoded and normalised, as sections are looked up by.
    pub fn path(&self) -> &[u8] {
        // SAFETY: safety.md 2.
        unsafe { bytes(self.record().uri) }.unwrap_or_default()
    }

    /// What stands behind the `?`, as it was sent or rewritten.
    pub fn raw_query(&self) -> Option<&[u8]> {
        // SAFETY: safety.md 2.
        unsafe { bytes(self.record().args) }
    }

    /// Sends it to another server, as mod_rewrite's `[P]` does: before mod_proxy's own fixups. The path of the URL is asked for as
    /// it is, whatever `ProxyPass` has said of this request.
    pub fn proxy_to(&mut self, url: &[u8]) {
        let filename = self.pool().bytes(&[b"proxy:", url].concat());
        for note in [c"proxy-noquery", c"proxy-noencode", c"uds_path"] {
            self.notes().unset(note);
        }
        self.notes().set_constant(c"proxy-nocanon", c"1");
        let record = self.0.get_mut();
        record.filename = filename;
        record.proxyreq = ffi::PROXYREQ_REVERSE as c_int;
        record.handler = c"proxy-server".as_ptr();
        // Else mod_dir would look for an index of the directory of that name.
        record.finfo.filetype = ffi::apr_filetype_e_APR_NOFILE;
    }

    /// There is no file for it: httpd answers it with 404, unless somebody else answers it.
    pub fn has_no_file(&self) -> bool {
        self.record().finfo.filetype == ffi::apr_filetype_e_APR_NOFILE
    }

    /// What `SetHandler` or a file's type says.
    pub fn handler_name(&self) -> Cow<'_, str> {
        // SAFETY: safety.md 2.
        unsafe { text(self.record().handler) }.unwrap_or_default()
    }

    /// Who answers it may be what an .htaccess file says, and not the server's configuration.
    pub fn is_handler_from_htaccess(&self) -> bool {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_handler_is_from_htaccess(self.as_ptr()) != 0 }
    }

    /// A reference that other threads may have, see [`RequestRef`].
    pub fn keep(&mut self) -> RequestRef {
        RequestRef(self.as_ptr())
    }

    pub fn method(&self) -> Cow<'_, str> {
        // SAFETY: safety.md 2.
        unsafe { text(self.record().method) }.unwrap_or_default()
    }

    /// (1, 1) for HTTP/1.1.
    pub fn http_version(&self) -> (u8, u8) {
        // HTTP_VERSION(major, minor) is 1000 * major + minor.
        ((self.record().proto_num / 1000) as u8, (self.record().proto_num % 1000) as u8)
    }

    /// "http", or "https" where TLS (or a `ServerName https://…`) says so.
    pub fn scheme(&self) -> Cow<'_, str> {
        // SAFETY: the request is valid; the hook answers with a static or configured string.
        unsafe { text(ffi::ap_run_http_scheme(self.as_ptr())) }.unwrap_or_default()
    }

    /// The path, or pattern, of the innermost section that holds for it (`<Location>`, `<Directory>`); empty outside of all.
    pub fn location(&self) -> Cow<'_, str> {
        // SAFETY: the request is valid; the string is part of the configuration, or NULL.
        unsafe { text(ffi::shim_request_location(self.as_ptr())) }.unwrap_or_default()
    }

    /// Path and query as they stood in the request line, which may have a whole URL (RFC 9112 section 3.2.2).
    pub fn unparsed_uri(&self) -> Cow<'_, str> {
        // SAFETY: safety.md 2.
        let uri = unsafe { text(self.record().unparsed_uri) }.unwrap_or_default();
        match uri.split_once("://").filter(|(scheme, _)| !scheme.contains('/')) {
            None => uri,
            Some((_, rest)) => match rest.find(['/', '?']) {
                Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned().into(),
                Some(at) => format!("/{}", &rest[at..]).into(),
                None => "/".into(),
            },
        }
    }

    pub fn user(&self) -> Option<Cow<'_, str>> {
        // SAFETY: safety.md 2.
        unsafe { text(self.record().user) }
    }

    /// REMOTE_USER is this from now on, for expressions, programs and logs; `None`: nobody.
    pub fn set_user(&self, user: Option<&str>) {
        let user = user.map_or(std::ptr::null(), |user| self.pool().string(user));
        // SAFETY: safety.md 1, 3; the string lives as long as the request.
        unsafe { (*self.as_ptr()).user = user.cast_mut() };
    }

    /// The client's address, as mod_remoteip would say it. False where this is no address.
    pub fn set_client_address(&self, address: std::net::IpAddr) -> bool {
        let (request, pool) = (self.as_ptr(), self.pool());
        let mut socket_address = std::ptr::null_mut();
        let text = pool.string(&address.to_string());
        // APR's families are the system's. Not APR_UNSPEC: with that, the resolver asks the kernel for all addresses of this machine.
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: safety.md 1, 3; a numeric address is looked up nowhere. What comes of it lives in the request's pool.
        unsafe {
            let status = ffi::apr_sockaddr_info_get(&mut socket_address, text, family, 0, 0, pool.as_ptr());
            if status != 0 || socket_address.is_null() {
                return false;
            }
            (*request).useragent_addr = socket_address;
            (*request).useragent_ip = text.cast_mut();
        }
        true
    }

    /// What mod_ssl says of its connection, by the name of a variable; `None` without TLS.
    pub fn tls_variable(&self, name: &'static CStr) -> Option<Cow<'_, str>> {
        let record = self.record();
        // SAFETY: safety.md 1, 2; the answer is NULL, or a string in the pool.
        unsafe {
            text(ffi::ap_ssl_var_lookup(record.pool, record.server, record.connection, self.as_ptr(), name.as_ptr()))
        }
    }

    /// Variables of the request, for programs and `Require env`.
    pub fn variables(&self) -> &Table {
        // SAFETY: safety.md 2.
        unsafe { Table::from_ptr(self.record().subprocess_env) }
    }

    /// How long ago the request line was read.
    pub fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_micros(self.record().request_time.try_into().unwrap_or_default()))
    }

    pub fn client_address(&self) -> Cow<'_, str> {
        // SAFETY: safety.md 2.
        unsafe { text(self.record().useragent_ip) }.unwrap_or_default()
    }

    /// Address and port of the client, as mod_remoteip and the like see it, and those of the server that it has reached.
    pub fn addresses(&self) -> ((String, u16), (String, u16)) {
        // SAFETY: safety.md 2.
        unsafe {
            let connection = &*self.record().connection;
            let port = |address: *mut ffi::apr_sockaddr_t| address.as_ref().map_or(0, |address| address.port);
            let local = text(connection.local_ip).unwrap_or_default();
            (
                (self.client_address().into_owned(), port(self.record().useragent_addr)),
                (local.into_owned(), port(connection.local_addr)),
            )
        }
    }

    /// The name of the virtual host, by httpd's `UseCanonicalName`.
    pub fn server_name(&self) -> Cow<'_, str> {
        // SAFETY: the request is valid.
        unsafe { text(ffi::ap_get_server_name(self.as_ptr())) }.unwrap_or_default()
    }

    pub fn headers_in(&self) -> &Table {
        // SAFETY: safety.md 2.
        unsafe { Table::from_ptr(self.record().headers_in) }
    }

    /// The header lines of an answer of status 2xx, or of an interim one.
    pub fn headers_out(&self) -> &Table {
        // SAFETY: safety.md 2.
        unsafe { Table::from_ptr(self.record().headers_out) }
    }

    /// The header lines that also go with an error.
    pub fn err_headers_out(&self) -> &Table {
        // SAFETY: safety.md 2.
        unsafe { Table::from_ptr(self.record().err_headers_out) }
    }

    /// What the directives of module `M` say where this request is served.
    pub fn config<M: HttpdModule>(&self) -> &M::Config {
        // SAFETY: `per_dir_config` is valid, and holds what `create_dir_config` of `M` made.
        unsafe { &*ffi::ap_get_module_config(self.record().per_dir_config, M::record()).cast() }
    }

    /// The variables that `SetEnv`, `PassEnv` and modules have set for programs, with names as programs may have them; and the
    /// time zone of this process.
    pub fn environment(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        // SAFETY: safety.md 2; the answer is an array of strings in the pool that ends with NULL.
        let mut next = unsafe { ffi::ap_create_environment(self.record().pool, self.record().subprocess_env) };
        let mut variables = Vec::new();
        // SAFETY: `next` is at a string or at the NULL that ends the array.
        while let Some(variable) = unsafe { (*next).as_ref() } {
            // SAFETY: it is a string of the array.
            let bytes = unsafe { CStr::from_ptr(variable) }.to_bytes();
            if let Some(at) = bytes.iter().position(|byte| *byte == b'=') {
                variables.push((bytes[..at].to_vec(), bytes[at + 1..].to_vec()));
            }
            // SAFETY: what has been passed was not the end.
            next = unsafe { next.add(1) };
        }
        variables
    }

    /// A variable that `SetEnv` or a module has set for it.
    pub fn variable(&self, name: &CStr) -> Option<Cow<'_, str>> {
        // SAFETY: safety.md 2.
        unsafe { text(Table::from_ptr(self.record().subprocess_env).find(name)) }
    }

    /// Adds what CGI programs are told of the request to [`Request::environment`]. httpd leaves out what they must not know:
    /// passwords, and a `Proxy` header, which would name a proxy in HTTP_PROXY.
    pub fn add_cgi_variables(&mut self) {
        // SAFETY: safety.md 1, 3.
        unsafe {
            ffi::ap_add_common_vars(self.as_ptr());
            ffi::ap_add_cgi_vars(self.as_ptr());
        }
    }

    /// Sets variables for the access log (`%{NAME}e`), and the bytes it counts.
    pub fn set_log_variables(&self, variables: &[(&str, String)], bytes_sent: u64) {
        // SAFETY: safety.md 2.
        let environment = unsafe { Table::from_ptr(self.record().subprocess_env) };
        for (name, value) in variables {
            environment.set(self.pool(), name, value);
        }
        // SAFETY: safety.md 1, 3.
        unsafe { (*self.as_ptr()).bytes_sent = bytes_sent as ffi::apr_off_t };
    }

    /// Takes the HTTP filters out of the way of what the end of the request writes (an EOS): they would make a response
    /// of it. The end of a request that httpd redirected is that of each request before it, too.
    pub fn bypass_http(&mut self) {
        let mut request = self.as_ptr();
        while !request.is_null() {
            // SAFETY: safety.md 4.
            unsafe {
                let filters = (*(*request).connection).output_filters;
                (*request).output_filters = filters;
                (*request).proto_output_filters = filters;
                request = (*request).prev;
            }
        }
    }

    /// The status of the answer, as far as it is known.
    pub fn status(&self) -> u16 {
        u16::try_from(self.record().status).unwrap_or(0)
    }

    /// The status of the answer, for the access log and for whoever looks at it before that.
    pub fn set_status(&mut self, status: u16) {
        let record = self.0.get_mut();
        record.status = i32::from(status);
        record.status_line = std::ptr::null();
    }

    /// Runs an output filter of the request, by its name, if it is in the way of the answer: one that works on header lines, and
    /// on nothing else. Those that change bodies see nothing of it. The answer is then without that filter.
    pub fn run_header_filter(&mut self, name: &CStr) {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_request_run_filter(self.as_ptr(), name.as_ptr()) }
    }

    /// Sends `head` as it is, through the output filters of the connection, and waits until it has gone.
    pub fn send(&mut self, head: &[u8]) {
        // SAFETY: safety.md 1, 2, 3.
        unsafe {
            ffi::shim_connection_send(
                self.record().connection,
                self.record().pool,
                head.as_ptr().cast(),
                head.len() as _,
            )
        }
    }

    /// Has the filter of the request that makes responses for a protocol, by its name, make one of `status` and
    /// `headers_out`; false when there is none.
    pub fn respond_by(&mut self, filter: &CStr) -> bool {
        // SAFETY: safety.md 1, 3.
        unsafe { ffi::shim_request_respond_by(self.as_ptr(), filter.as_ptr()) != 0 }
    }
}
