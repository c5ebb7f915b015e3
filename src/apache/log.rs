//! httpd's error log, with the module's name and level, so that `LogLevel websocket:debug` holds.

use super::ffi;
use super::request::Request;
use std::ffi::{CString, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// httpd's levels; the numbers are APLOG_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// The server cannot go on as it is.
    Critical = ffi::APLOG_CRIT as i32,
    Error = ffi::APLOG_ERR as i32,
    /// Something may fail, or was refused.
    Warning = ffi::APLOG_WARNING as i32,
    /// Normal and worth telling; always logged.
    Notice = ffi::APLOG_NOTICE as i32,
    Info = ffi::APLOG_INFO as i32,
    Debug = ffi::APLOG_DEBUG as i32,
    Trace = ffi::APLOG_TRACE1 as i32,
}

/// The module's place in httpd's tables: lines carry its name, and its level decides. Until httpd has given it one:
/// none (APLOG_NO_MODULE).
static MODULE_INDEX: AtomicI32 = AtomicI32::new(-1);

pub(super) fn set_module_index(index: c_int) {
    MODULE_INDEX.store(index, Ordering::Relaxed);
}

pub(super) fn module_index() -> c_int {
    MODULE_INDEX.load(Ordering::Relaxed)
}

/// Where in the source a line comes from; httpd shows it at debug level and below.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub file: &'a str,
    pub line: u32,
}

impl Source<'static> {
    #[track_caller]
    fn caller() -> Source<'static> {
        let location = std::panic::Location::caller();
        Source { file: location.file(), line: location.line() }
    }
}

fn text(message: &str) -> CString {
    CString::new(message.replace('\0', "\\0")).unwrap_or_default()
}

/// A line about the server as a whole.
#[track_caller]
pub fn main(level: Level, message: &str) {
    main_from(Source::caller(), level, message);
}

/// The same, when the source is known.
pub fn main_from(source: Source<'_>, level: Level, message: &str) {
    let (file, text) = (text(source.file), text(message));
    // SAFETY: ap_server_conf is NULL until the first configuration was read and the main server afterwards; the function
    // takes either. It does not keep its arguments, and may be called from any thread.
    unsafe {
        ffi::ap_log_error_(
            file.as_ptr(),
            source.line as c_int,
            module_index(),
            level as c_int,
            0,
            ffi::ap_server_conf,
            c"%s".as_ptr(),
            text.as_ptr(),
        );
    }
}

/// A line about a request: it names the client, and goes to the log of the request's virtual host.
#[track_caller]
pub fn request(level: Level, request: &Request, message: &str) {
    let source = Source::caller();
    let (file, text) = (text(source.file), text(message));
    // SAFETY: the request is valid, see the folder's documentation; the function does not keep its arguments.
    unsafe {
        ffi::ap_log_rerror_(
            file.as_ptr(),
            source.line as c_int,
            module_index(),
            level as c_int,
            0,
            request.as_ptr(),
            c"%s".as_ptr(),
            text.as_ptr(),
        );
    }
}
