//! A log beside the error log, as `CustomLog` opens it: a file, or a program that reads lines.

use super::ffi;
use super::pool::Pool;
use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens the log of that name: a path, relative to ServerRoot, that is appended to and made where it is missing; or
/// `|program`, which httpd starts, starts again when it ends, and ends when the pool does (`||program` is the same,
/// `|$command` goes through a shell). As root, where httpd's parent is.
///
/// To be called in the open_logs hook. The descriptor is closed in programs that httpd starts.
///
/// # Errors
/// What is wrong, with the path.
pub fn open(pool: &Pool, name: &str) -> Result<OwnedFd, String> {
    let text = CString::new(name).map_err(|_| "its name has a NUL in it".to_owned())?;
    match name.strip_prefix('|') {
        Some(_) => program(pool, &text),
        None => file(pool, &text),
    }
}

fn program(pool: &Pool, name: &CStr) -> Result<OwnedFd, String> {
    // SAFETY: the pool is valid; the name has at least the "|" that is left out. The answer is NULL or lives in the pool.
    let pipe = unsafe {
        let log = ffi::ap_open_piped_log(pool.as_ptr(), name.as_ptr().add(1));
        (!log.is_null()).then(|| ffi::ap_piped_log_write_fd(log))
    };
    let pipe = pipe.ok_or("the program cannot be started, see the line above")?;
    // The pool keeps httpd's own: an end of the pipe in httpd is what lets a program that ended be started again.
    duplicate(pipe).map_err(|why| why.to_string())
}

fn file(pool: &Pool, name: &CStr) -> Result<OwnedFd, String> {
    // SAFETY: pool and name are valid; the answer is NULL or a string in the pool.
    let path = unsafe { ffi::ap_server_root_relative(pool.as_ptr(), name.as_ptr()) };
    if path.is_null() {
        return Err("not a valid path".to_owned());
    }
    let flags = ffi::APR_FOPEN_WRITE | ffi::APR_FOPEN_APPEND | ffi::APR_FOPEN_CREATE | ffi::APR_FOPEN_LARGEFILE;
    let mut file = std::ptr::null_mut();
    // SAFETY: path and pool are valid.
    let status =
        unsafe { ffi::apr_file_open(&mut file, path, flags as i32, ffi::APR_FPROT_OS_DEFAULT as i32, pool.as_ptr()) };
    if status != ffi::APR_SUCCESS as c_int {
        // SAFETY: a string in the pool.
        let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
        // On Unix APR's status is the system's error number.
        return Err(format!("{path} cannot be opened: {}", io::Error::from_raw_os_error(status)));
    }
    let descriptor = duplicate(file);
    // SAFETY: it was just opened, and is not used any more.
    unsafe { ffi::apr_file_close(file) };
    descriptor.map_err(|why| why.to_string())
}

fn duplicate(file: *mut ffi::apr_file_t) -> io::Result<OwnedFd> {
    let mut fd: c_int = -1;
    // SAFETY: the file is open.
    let status = unsafe { ffi::apr_os_file_get(&mut fd, file) };
    if status != ffi::APR_SUCCESS as c_int || fd < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the file is open, so its descriptor is.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}
