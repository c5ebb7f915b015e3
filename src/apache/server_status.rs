//! mod_status' page, to which other modules add what they have: an optional hook, which is run where there is a mod_status.

use super::ffi;
use super::guard::guard;
use super::module::HttpdModule;
use super::request::Request;
use std::ffi::c_int;

/// How the page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Html,
    /// `?notable`.
    HtmlWithoutTables,
    /// `?auto`: a line `Name: value` each.
    Lines,
}

/// mod_status.h, which need not be there: AP_STATUS_SHORT, AP_STATUS_NOTABLE.
const SHORT: c_int = 1;
const NOTABLE: c_int = 2;

type StatusHook = extern "C" fn(*mut ffi::request_rec, c_int) -> c_int;

pub(super) fn register<M: HttpdModule>() {
    type Optional = unsafe extern "C" fn();
    let (nobody, middle) = (std::ptr::null(), ffi::APR_HOOK_MIDDLE as c_int);
    // SAFETY: a function of the hook's type, by its name, which is how APR_OPTIONAL_HOOK casts it.
    unsafe {
        let hook = std::mem::transmute::<StatusHook, Optional>(status::<M>);
        ffi::apr_optional_hook_add(c"status_hook".as_ptr(), Some(hook), nobody, nobody, middle);
    }
}

extern "C" fn status<M: HttpdModule>(request: *mut ffi::request_rec, flags: c_int) -> c_int {
    guard("status_hook", (), || {
        let form = match flags {
            _ if flags & SHORT != 0 => Form::Lines,
            _ if flags & NOTABLE != 0 => Form::HtmlWithoutTables,
            _ => Form::Html,
        };
        // SAFETY: safety.md 1.
        M::server_status(unsafe { Request::from_ptr(request) }, form);
    });
    ffi::OK as c_int
}
