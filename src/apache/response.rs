//! What a request has of its answer before anything of it was sent: taken back, somebody else may answer.

use super::ffi;
use super::request::Request;
use std::ffi::c_int;
use std::iter::successors;

/// Header lines, status and output filters of a request, as they were. It is of no use when the request has ended.
pub struct SavedResponse {
    request: usize,
    status: c_int,
    headers_out: *mut ffi::apr_table_t,
    err_headers_out: *mut ffi::apr_table_t,
    /// From the first of the request to the first of the connection, or the end.
    filters: Vec<*mut ffi::ap_filter_t>,
}

impl Request {
    pub fn save_response(&self) -> SavedResponse {
        let record = self.record();
        // SAFETY: safety.md 2, 3; NULL ends the filters.
        unsafe {
            let is_ours = |filter: *mut ffi::ap_filter_t| !filter.is_null() && !(*filter).r.is_null();
            let next = |filter: &*mut ffi::ap_filter_t| is_ours(*filter).then(|| (**filter).next);
            SavedResponse {
                request: self.number(),
                status: record.status,
                headers_out: ffi::apr_table_copy(record.pool, record.headers_out),
                err_headers_out: ffi::apr_table_copy(record.pool, record.err_headers_out),
                filters: successors(Some(record.output_filters), next).collect(),
            }
        }
    }

    /// Undoes what was done to it since then, where nothing was sent. Filters that have run do so again.
    pub fn restore_response(&mut self, saved: SavedResponse) {
        let Some(first) = saved.filters.first().filter(|_| saved.request == self.number()) else { return };
        // SAFETY: safety.md 1, 3; a filter that was taken out of the list is there as long as its request.
        unsafe {
            for pair in saved.filters.windows(2) {
                (*pair[0]).next = pair[1];
            }
            let record = self.as_ptr();
            (*record).headers_out = saved.headers_out;
            (*record).err_headers_out = saved.err_headers_out;
            (*record).status = saved.status;
            (*record).output_filters = *first;
        }
    }
}
