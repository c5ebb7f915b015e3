//! A request that is answered as any other of HTTP: its body, and the answer.

use super::ffi;
use super::request::Request;
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    /// httpd says so, with this status.
    Status(u16),
    /// A filter has answered the request.
    Answered,
}

/// Bytes of the body that are asked for at a time.
const PIECE: ffi::apr_off_t = 64 * 1024;
const BLOCK: ffi::apr_read_type_e = ffi::apr_read_type_e_APR_BLOCK_READ;

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
        let request = self.as_ptr();
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

    /// Reads the body, chunked or not, once; waits for it, as long as `Timeout` says for each piece.
    ///
    /// # Errors
    /// See [`BodyError`]. What is left of the body is read by nobody, or by httpd after the answer.
    pub fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        let announced = self.headers_in().iter().find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
        let announced = announced.and_then(|(_, length)| length.trim().parse::<u64>().ok()).unwrap_or(0);
        if announced > limit as u64 {
            return Err(BodyError::TooLarge);
        }
        let mut body = Vec::with_capacity(announced as usize);
        while !self.read_piece(&mut body)? {
            if body.len() > limit {
                return Err(BodyError::TooLarge);
            }
        }
        if body.len() > limit { Err(BodyError::TooLarge) } else { Ok(body) }
    }

    /// Reads on; true at the end of the body. Not by ap_get_client_block, which does not tell what went wrong.
    fn read_piece(&mut self, body: &mut Vec<u8>) -> Result<bool, BodyError> {
        let request = self.as_ptr();
        let mut is_end = false;
        // SAFETY: request, pool, allocator and filters are valid while a handler runs; the brigade is ours and is destroyed
        // with its buckets below, until which a bucket's data is valid.
        let status = unsafe {
            let brigade = ffi::apr_brigade_create((*request).pool, (*(*request).connection).bucket_alloc);
            let readbytes = ffi::ap_input_mode_t_AP_MODE_READBYTES;
            let mut status = ffi::ap_get_brigade((*request).input_filters, brigade, readbytes, BLOCK, PIECE);
            let mut bucket = ffi::shim_brigade_first(brigade);
            // A filter that answers a read that waits with nothing has nothing more.
            is_end |= bucket.is_null();
            while status == 0 && !bucket.is_null() {
                is_end |= ffi::shim_bucket_is_eos(bucket) != 0;
                if ffi::shim_bucket_is_metadata(bucket) == 0 {
                    let (mut data, mut length) = (ptr::null(), 0);
                    status = ffi::shim_bucket_read(bucket, &mut data, &mut length, BLOCK);
                    if status == 0 && length > 0 {
                        body.extend_from_slice(std::slice::from_raw_parts(data.cast::<u8>(), length));
                    }
                }
                bucket = ffi::shim_brigade_next(brigade, bucket);
            }
            ffi::apr_brigade_destroy(brigade);
            status
        };
        if status == 0 {
            return Ok(is_end);
        }
        // SAFETY: no pointers.
        match unsafe { ffi::ap_map_http_request_error(status, ffi::HTTP_BAD_REQUEST as c_int) } {
            ffi::AP_FILTER_ERROR => Err(BodyError::Answered),
            status => Err(BodyError::Status(u16::try_from(status).unwrap_or(ffi::HTTP_BAD_REQUEST as u16))),
        }
    }

    /// Sends a part of the body of an answer.
    pub fn write(&mut self, text: &str) {
        // SAFETY: the request is valid, and this thread runs it; the text is as long as it is said to be.
        unsafe { ffi::ap_rwrite(text.as_ptr().cast(), text.len() as c_int, self.as_ptr()) };
    }

    /// Sends an answer, before whatever httpd still does of the request. Whatever its status, httpd adds no page of its own.
    pub fn answer(&mut self, status: u16, content_type: &CStr, body: &[u8]) {
        let request = self.as_ptr();
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
            ffi::ap_rflush(request);
        }
    }
}
