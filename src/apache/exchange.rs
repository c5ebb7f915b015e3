//! A request that is answered as any other of HTTP: its body, the answer, and who may make it.

use super::ffi;
use super::request::Request;
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than it may be.
    TooLarge,
    /// httpd says so, with this status.
    Status(u16),
}

/// An address that no client has (RFC 5737).
const STRANGER: &CStr = c"192.0.2.1";

impl Request {
    /// The query, as the client sent it.
    pub fn query(&self) -> Option<Cow<'_, str>> {
        // SAFETY: NULL or a string that lives as long as the request.
        unsafe {
            let query = (*self.as_ptr()).args;
            (!query.is_null()).then(|| CStr::from_ptr(query).to_string_lossy())
        }
    }

    /// Runs `what` while the query is another.
    pub fn with_query<T>(&mut self, query: &CStr, what: impl FnOnce(&Request) -> T) -> T {
        struct Restore(*mut ffi::request_rec, *mut c_char);
        impl Drop for Restore {
            fn drop(&mut self) {
                // SAFETY: the request outlives the guard.
                unsafe { (*self.0).args = self.1 };
            }
        }
        let request = self.as_mut_ptr();
        // SAFETY: this thread runs the request, and nobody else looks at the field meanwhile. What is put there is a copy in
        // the request's pool, and what was there is put back.
        let _restore = unsafe {
            let restore = Restore(request, (*request).args);
            (*request).args = ffi::apr_pstrmemdup((*request).pool, query.as_ptr(), query.to_bytes().len());
            restore
        };
        // SAFETY: the request is valid, and not written to while `what` reads it.
        what(unsafe { Request::from_ptr(request) })
    }

    /// Reads the body.
    ///
    /// # Errors
    /// It is longer than `limit` bytes, or does not come.
    pub fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        let request = self.as_mut_ptr();
        // SAFETY: the request is valid, and this thread runs it. The buffer is as long as it is said to be.
        unsafe {
            match ffi::ap_setup_client_block(request, ffi::REQUEST_CHUNKED_DECHUNK as c_int) {
                0 => {}
                status => return Err(BodyError::Status(status as u16)),
            }
            // 0 where the length is not known.
            if (*request).remaining > limit as ffi::apr_off_t {
                return Err(BodyError::TooLarge);
            }
            let mut body = Vec::new();
            if ffi::ap_should_client_block(request) == 0 {
                return Ok(body);
            }
            let mut piece = [0; 16 * 1024];
            loop {
                match ffi::ap_get_client_block(request, piece.as_mut_ptr().cast(), piece.len()) {
                    0 => return Ok(body),
                    count if count < 0 => return Err(BodyError::Status(ffi::HTTP_BAD_REQUEST as u16)),
                    count => body.extend_from_slice(&piece[..count as usize]),
                }
                if body.len() > limit {
                    return Err(BodyError::TooLarge);
                }
            }
        }
    }

    /// Sends an answer. Whatever its status, httpd adds no page of its own.
    pub fn answer(&mut self, status: u16, content_type: &CStr, body: &[u8]) {
        let request = self.as_mut_ptr();
        // SAFETY: the request is valid, and this thread runs it; the content type is static or copied by the pool; the
        // body is as long as it is said to be.
        unsafe {
            (*request).status = c_int::from(status);
            (*request).status_line = ptr::null();
            let kept = ffi::apr_pstrmemdup((*request).pool, content_type.as_ptr(), content_type.to_bytes().len());
            ffi::ap_set_content_type(request, kept);
            let length = CString::new(body.len().to_string()).unwrap_or_default();
            Request::from_ptr(request).headers_out().set_bytes(c"Content-Length", &length);
            ffi::ap_rwrite(body.as_ptr().cast(), body.len() as c_int, request);
        }
    }

    /// True when httpd's rules would let anybody make this request: from anywhere, without a login or any header line.
    ///
    /// Asks the hooks that ap_process_request_internal asks, for somebody who is not there.
    pub fn lets_strangers_in(&mut self) -> bool {
        let request = self.as_mut_ptr();
        // SAFETY: the request is valid, this thread runs it, and all fields are put back before anybody else looks. The log
        // configuration and the table live longer than they are there.
        unsafe {
            let mut address = ptr::null_mut();
            if ffi::apr_sockaddr_info_get(&mut address, STRANGER.as_ptr(), 0, 0, 0, (*request).pool) != 0 {
                return true;
            }
            let quiet = ffi::ap_logconf { module_levels: ptr::null_mut(), level: ffi::APLOG_EMERG as c_int };
            let kept = ptr::read(request);
            (*request).useragent_addr = address;
            (*request).useragent_ip = STRANGER.as_ptr().cast_mut();
            (*request).user = ptr::null_mut();
            (*request).headers_in = ffi::apr_table_make((*request).pool, 1);
            (*request).log = &quiet;
            let ok = ffi::OK as c_int;
            let access = ffi::ap_run_access_checker(request);
            let access = access == ok || access == ffi::DECLINED;
            // Declined: it wants to know who it is.
            let rules = ffi::ap_run_access_checker_ex(request) == ok;
            let either = ffi::ap_satisfies(request) == ffi::SATISFY_ANY as c_int;
            (*request).useragent_addr = kept.useragent_addr;
            (*request).useragent_ip = kept.useragent_ip;
            (*request).user = kept.user;
            (*request).headers_in = kept.headers_in;
            (*request).log = kept.log;
            if either { access || rules } else { access && rules }
        }
    }
}
