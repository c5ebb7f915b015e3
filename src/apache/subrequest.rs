//! A question to another URL of this httpd, asked inside of a request and on its thread (ap_sub_req_method_uri, ap_run_sub_req).
//!
//! What is to be different in it from the request must be so before httpd looks it up, so that access rules and rewrites see it:
//! it is put there by the hook create_request, which finds the question by the configuration of the request that asks. The answer
//! must reach nobody, even where httpd redirects inside and makes a page for an error, which goes to the *protocol's* filters
//! (ap_send_error_response): so those are ours as well.

use super::ffi;
use super::guard::guard;
use super::module::HttpdModule;
use super::request::Request;
use super::table::Table;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// What is asked.
pub struct Question<'a> {
    pub method: &'static CStr,
    /// Path and query.
    pub url: &'a CStr,
    /// Which header lines of the request that asks go along.
    pub goes_along: &'a dyn Fn(&str) -> bool,
    /// What is said besides, by name and value.
    pub headers: &'a [(&'a str, Cow<'a, str>)],
    /// Variables that are set from the beginning, and in each redirection inside.
    pub environment: &'static [(&'static CStr, &'static CStr)],
    /// The type of the body, and the body.
    pub body: Option<(&'a str, &'a [u8])>,
    /// Of the answer's body, bytes that are kept.
    pub kept: usize,
    /// And those that there may be, after which whoever answers is told that nobody listens.
    pub most: usize,
}

/// What has come back.
#[derive(Debug, Default)]
pub struct Reply {
    /// httpd has not come to ask whoever is there: access rules, or a fault, were before that.
    pub was_refused_before: bool,
    /// Nobody's answer, but httpd's word: nobody was there, or gave none.
    pub is_httpds: bool,
    pub status: u16,
    /// Status and reason, where whoever answered had words of its own.
    pub status_line: Option<CString>,
    pub content_type: Option<CString>,
    pub headers: Vec<(CString, CString)>,
    /// Its first bytes.
    pub body: Vec<u8>,
    /// Bytes of all of it.
    pub length: usize,
}

/// A question that is being asked.
struct Asked<'a> {
    question: &'a Question<'a>,
    /// As httpd remembers the first line.
    line: CString,
    /// What of the question's body was read.
    read: Cell<usize>,
    body: RefCell<Vec<u8>>,
    length: Cell<usize>,
    output: *mut ffi::ap_filter_t,
    input: *mut ffi::ap_filter_t,
}

/// A filter for one question alone.
struct Filter(ffi::ap_filter_rec_t);

// SAFETY: httpd reads it only.
unsafe impl Sync for Filter {}

impl Filter {
    const fn new(name: &'static CStr, filter_func: ffi::ap_filter_func) -> Filter {
        Filter(ffi::ap_filter_rec_t {
            name: name.as_ptr(),
            filter_func,
            filter_init_func: None,
            next: ptr::null_mut(),
            providers: ptr::null_mut(),
            // Behind all others.
            ftype: ffi::ap_filter_type_AP_FTYPE_NETWORK,
            debug: 0,
            proto_flags: 0,
        })
    }

    /// # Safety
    /// `request` is valid; `asked` is there as long as the filter is called.
    unsafe fn of(&'static self, request: *mut ffi::request_rec, asked: *const Asked<'_>) -> *mut ffi::ap_filter_t {
        // SAFETY: the pool is valid, and APR aligns for any type. All zeros is a filter of nobody.
        unsafe {
            let filter: *mut ffi::ap_filter_t = ffi::apr_palloc((*request).pool, size_of::<ffi::ap_filter_t>()).cast();
            filter.write_bytes(0, 1);
            (*filter).frec = (&raw const self.0).cast_mut();
            (*filter).ctx = asked.cast_mut().cast();
            (*filter).c = (*request).connection;
            filter
        }
    }
}

static OUTPUT: Filter = Filter::new(c"websocket_answer", ffi::ap_filter_func { out_func: Some(take_answer) });
static INPUT: Filter = Filter::new(c"websocket_question", ffi::ap_filter_func { in_func: Some(give_body) });

/// Whoever writes to it goes on writing, or is told that the client has gone.
extern "C" fn take_answer(filter: *mut ffi::ap_filter_t, brigade: *mut ffi::apr_bucket_brigade) -> ffi::apr_status_t {
    let gone = libc::ECONNABORTED as ffi::apr_status_t;
    guard("the filter of an answer", gone, || {
        // SAFETY: the context is what `Filter::of` was given; the brigade and its buckets are valid until they are cleaned up.
        unsafe {
            let asked = &*(*filter).ctx.cast::<Asked<'_>>();
            let mut bucket = ffi::shim_brigade_first(brigade);
            let mut status = 0;
            while !bucket.is_null() && status == 0 {
                if ffi::shim_bucket_is_metadata(bucket) == 0 {
                    let (mut data, mut length) = (ptr::null(), 0);
                    let block = ffi::apr_read_type_e_APR_BLOCK_READ;
                    status = ffi::shim_bucket_read(bucket, &mut data, &mut length, block);
                    if status == 0 && length > 0 {
                        asked.keep(std::slice::from_raw_parts(data.cast::<u8>(), length));
                    }
                }
                if asked.length.get() > asked.question.most {
                    status = gone;
                }
                bucket = ffi::shim_brigade_next(brigade, bucket);
            }
            ffi::apr_brigade_cleanup(brigade.cast());
            status
        }
    })
}

/// Reads of the question's body, and of nothing of the request that asks.
extern "C" fn give_body(
    filter: *mut ffi::ap_filter_t,
    brigade: *mut ffi::apr_bucket_brigade,
    mode: ffi::ap_input_mode_t,
    _block: ffi::apr_read_type_e,
    most: ffi::apr_off_t,
) -> ffi::apr_status_t {
    guard("the filter of a question", libc::EIO as ffi::apr_status_t, || {
        // SAFETY: as of `take_answer`.
        unsafe {
            let asked = &*(*filter).ctx.cast::<Asked<'_>>();
            let rest = asked.question.body.map_or(&[][..], |(_, body)| &body[asked.read.get()..]);
            let is_read = mode == ffi::ap_input_mode_t_AP_MODE_READBYTES;
            let piece = if is_read { &rest[..rest.len().min(usize::try_from(most).unwrap_or(0))] } else { rest };
            let status = write(brigade, piece);
            if mode != ffi::ap_input_mode_t_AP_MODE_SPECULATIVE {
                asked.read.set(asked.read.get() + piece.len());
            }
            if piece.len() == rest.len() {
                ffi::shim_brigade_end(brigade);
            }
            status
        }
    })
}

/// # Safety
/// The brigade is valid.
unsafe fn write(brigade: *mut ffi::apr_bucket_brigade, bytes: &[u8]) -> ffi::apr_status_t {
    match bytes {
        [] => 0,
        // SAFETY: without a function to flush with, it copies.
        _ => unsafe { ffi::apr_brigade_write(brigade, None, ptr::null_mut(), bytes.as_ptr().cast(), bytes.len() as _) },
    }
}

impl Asked<'_> {
    fn keep(&self, bytes: &[u8]) {
        self.length.set(self.length.get() + bytes.len());
        let mut body = self.body.borrow_mut();
        let room = self.question.kept.saturating_sub(body.len());
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// A new request is to be the question.
    ///
    /// # Safety
    /// httpd has just made it (create_request), out of the request that asks.
    unsafe fn dress(&self, request: *mut ffi::request_rec) {
        // SAFETY: the fields are set by make_sub_request before the hook; what is put there lives in the pools of the request
        // and of the one that asks. The line lives as long as `self`, which outlives the question.
        unsafe {
            let main = (*request).main;
            (*request).the_request = self.line.as_ptr().cast_mut();
            // Else CGI's SCRIPT_NAME would hold PATH_INFO, and SERVER_PROTOCOL be "INCLUDED".
            (*request).protocol = (*main).protocol;
            (*request).proto_num = (*main).proto_num;
            (*request).expecting_100 = 0;
            (*self.output).r = request;
            (*self.input).r = request;
            (*request).proto_output_filters = self.output;
            (*request).proto_input_filters = self.input;
            (*request).input_filters = self.input;
            let asked = Request::from_ptr(request);
            let (headers, pool) = (asked.headers_in(), asked.pool());
            let others: Vec<CString> = headers.lines().map(|(name, _)| name.to_owned()).collect();
            for name in others.iter().filter(|name| !(self.question.goes_along)(&name.to_string_lossy())) {
                headers.unset(name);
            }
            for (name, value) in self.question.headers {
                headers.set(pool, name, value);
            }
            if let Some((content_type, body)) = self.question.body {
                headers.set(pool, "Content-Type", content_type);
                headers.set(pool, "Content-Length", &body.len().to_string());
            }
            self.set_environment(request);
        }
    }

    /// # Safety
    /// The request is valid, and has variables.
    unsafe fn set_environment(&self, request: *mut ffi::request_rec) {
        // SAFETY: the caller's word.
        let environment = unsafe { Table::from_ptr((*request).subprocess_env) };
        for (name, value) in self.question.environment {
            environment.set_constant(name, value);
        }
    }

    /// mod_proxy_http sends nothing else in a subrequest.
    ///
    /// # Safety
    /// The request is valid.
    unsafe fn set_kept_body(&self, request: *mut ffi::request_rec) {
        let Some((_, body)) = self.question.body else { return };
        // SAFETY: the caller's word; the brigade lives in the request's pool.
        unsafe {
            let brigade = ffi::apr_brigade_create((*request).pool, (*(*request).connection).bucket_alloc);
            if write(brigade, body) == 0 {
                ffi::shim_brigade_end(brigade);
                (*request).kept_body = brigade;
            }
        }
    }
}

/// The question that a request is, or was redirected from.
///
/// # Safety
/// `request` is valid, or just made by httpd.
unsafe fn asked<'a, M: HttpdModule>(request: *const ffi::request_rec) -> Option<&'a Asked<'a>> {
    // SAFETY: safety.md 4; `ask` puts the question there, and takes it away before it ends.
    unsafe {
        let mut first = request;
        while !(*first).prev.is_null() {
            first = (*first).prev;
        }
        let main = (*first).main.as_ref()?;
        ffi::ap_get_module_config(main.request_config, M::record()).cast::<Asked<'_>>().as_ref()
    }
}

/// A subrequest of [`Request::ask`], or one that httpd has redirected it to.
pub(super) fn is_asked<M: HttpdModule>(request: *const ffi::request_rec) -> bool {
    // SAFETY: who asks has the request from httpd.
    unsafe { asked::<M>(request) }.is_some()
}

/// The file that is to answer is a CGI script that writes to the client itself: mod_cgi refuses those in what it takes for an
/// include, which this is not.
///
/// # Safety
/// `request` is valid.
pub(super) unsafe fn is_unparsed<M: HttpdModule>(request: *const ffi::request_rec) -> bool {
    // SAFETY: safety.md 2.
    let file = unsafe { super::request::text((*request).filename) }.unwrap_or_default();
    is_asked::<M>(request) && file.rsplit('/').next().is_some_and(|name| name.starts_with("nph-"))
}

pub(super) extern "C" fn created<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    guard("create_request", (), || {
        // SAFETY: httpd has just made the request; of one that it redirects, `prev` alone is known yet.
        unsafe {
            if let Some(asked) = asked::<M>(request).filter(|_| (*request).prev.is_null()) {
                asked.dress(request);
            }
        }
    });
    ffi::OK as c_int
}

/// After a redirection inside, whose variables are called REDIRECT_….
pub(super) extern "C" fn redirected<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    guard("post_read_request", (), || {
        // SAFETY: the request is valid.
        unsafe {
            if let Some(asked) = asked::<M>(request) {
                asked.set_environment(request);
            }
        }
    });
    ffi::DECLINED
}

/// Who has logged in where the question comes from is known where it goes to, too, unless another has logged in there.
pub(super) extern "C" fn fixed_up<M: HttpdModule>(request: *mut ffi::request_rec) -> c_int {
    guard("fixups", (), || {
        // SAFETY: the request is valid, and so is the one that asks.
        unsafe {
            let Some(asked) = asked::<M>(request) else { return };
            // Not before: make_sub_request puts that of the request that asks there when all hooks have run.
            asked.set_kept_body(request);
            if (*request).user.is_null()
                && let Some(main) = (*request).main.as_ref()
            {
                (*request).user = main.user;
                (*request).ap_auth_type = main.ap_auth_type;
            }
        }
    });
    ffi::DECLINED
}

impl Request {
    /// Asks another URL of this httpd, and waits for the answer.
    pub fn ask<M: HttpdModule>(&mut self, question: &Question<'_>) -> Reply {
        let main = self.as_ptr();
        // SAFETY: safety.md 2.
        let protocol = unsafe { super::request::text((*main).protocol) }.unwrap_or_default();
        let method = question.method.to_string_lossy();
        let line = CString::new(format!("{method} {} {protocol}", question.url.to_string_lossy())).unwrap_or_default();
        let mut asked = Asked {
            question,
            line,
            read: Cell::new(0),
            body: RefCell::default(),
            length: Cell::new(0),
            output: ptr::null_mut(),
            input: ptr::null_mut(),
        };
        /// Takes the question away from the request.
        struct Done<M: HttpdModule>(*mut ffi::request_rec, std::marker::PhantomData<M>);
        impl<M: HttpdModule> Drop for Done<M> {
            fn drop(&mut self) {
                // SAFETY: the request outlives the call that asks.
                unsafe { ffi::ap_set_module_config((*self.0).request_config, M::record(), ptr::null_mut()) };
            }
        }
        // SAFETY: this thread runs the request, whose handler this is in. The question is found by the hooks until `done` is
        // dropped, and by the filters until the subrequest is destroyed; both are before its end.
        unsafe {
            asked.output = OUTPUT.of(main, &raw const asked);
            asked.input = INPUT.of(main, &raw const asked);
            let done = Done::<M>(main, std::marker::PhantomData);
            ffi::ap_set_module_config(
                (*main).request_config,
                M::record(),
                (&raw const asked).cast_mut().cast::<c_void>(),
            );
            let request =
                ffi::ap_sub_req_method_uri(question.method.as_ptr(), question.url.as_ptr(), main, asked.output);
            let was_refused_before = (*request).status != ffi::HTTP_OK as c_int;
            let result = if was_refused_before { ffi::OK as c_int } else { ffi::ap_run_sub_req(request) };
            drop(done);
            let reply = reply(request, result);
            ffi::ap_destroy_sub_req(request);
            Reply { was_refused_before, body: asked.body.take(), length: asked.length.get(), ..reply }
        }
    }

    /// As [`Request::answer`], with a status line of somebody's own.
    pub fn pass_on(&mut self, status: u16, line: Option<&CStr>, content_type: Option<&CStr>, body: &[u8]) {
        let (request, pool) = (self.as_ptr(), self.pool().as_ptr());
        let copy = |text: &CStr| {
            // SAFETY: the pool is that of the request; the text is that long.
            unsafe { ffi::apr_pstrmemdup(pool, text.as_ptr(), text.to_bytes().len()) as *const c_char }
        };
        // SAFETY: the request is valid, and this thread runs it; the body is as long as it is said to be.
        unsafe {
            (*request).status = c_int::from(status);
            (*request).status_line = line.map_or(ptr::null(), copy);
            if let Some(content_type) = content_type {
                ffi::ap_set_content_type(request, copy(content_type));
            }
            let length = CString::new(body.len().to_string()).unwrap_or_default();
            Request::from_ptr(request).headers_out().set_bytes(c"Content-Length", &length);
            ffi::ap_rwrite(body.as_ptr().cast(), body.len() as c_int, request);
        }
    }
}

/// What a question has led to. `result` is what its handler said.
///
/// # Safety
/// `request` has been run, and is not destroyed yet.
unsafe fn reply(request: *mut ffi::request_rec, result: c_int) -> Reply {
    // SAFETY: the caller's word; the requests that httpd has redirected it to live in its pool.
    unsafe {
        let mut last = request;
        let mut location = redirection(last);
        while !(*last).next.is_null() {
            last = (*last).next;
            location = location.or_else(|| redirection(last));
        }
        let asked = Request::from_ptr(last);
        let text = |text: *const c_char| (!text.is_null()).then(|| CStr::from_ptr(text).to_owned());
        let copy = |(name, value): (&CStr, &CStr)| (name.to_owned(), value.to_owned());
        let mut headers: Vec<_> =
            asked.err_headers_out().lines().chain(asked.headers_out().lines()).map(copy).collect();
        let failed = ffi::HTTP_INTERNAL_SERVER_ERROR as c_int;
        let (mut status, mut status_line) = match result {
            result if result == ffi::OK as c_int => ((*last).status, text((*last).status_line)),
            100..=599 => (result, None),
            // Nobody has answered.
            ffi::DECLINED => (ffi::HTTP_NOT_FOUND as c_int, None),
            _ => (failed, None),
        };
        // What a program says without a status (RFC 3875 section 6.2.3), and httpd may have followed.
        if let Some(location) = location.filter(|_| status == ffi::HTTP_OK as c_int) {
            (status, status_line) = (ffi::HTTP_MOVED_TEMPORARILY as c_int, None);
            headers.retain(|(name, _)| !name.to_bytes().eq_ignore_ascii_case(b"Location"));
            headers.push((c"Location".to_owned(), location));
        }
        let content_type = text((*last).content_type);
        let status = u16::try_from(status).unwrap_or(failed as u16);
        let is_httpds = result != ffi::OK as c_int;
        Reply { is_httpds, status, status_line, content_type, headers, ..Reply::default() }
    }
}

/// Where a program has sent its client to under a 200.
///
/// # Safety
/// The request is valid.
unsafe fn redirection(request: *mut ffi::request_rec) -> Option<CString> {
    // SAFETY: the caller's word.
    unsafe {
        let asked = Request::from_ptr(request);
        let found = [asked.headers_out(), asked.err_headers_out()].map(|headers| headers.find(c"Location"));
        let found = found.into_iter().find(|found| !found.is_null())?;
        ((*request).status == ffi::HTTP_OK as c_int).then(|| CStr::from_ptr(found).to_owned())
    }
}
