//! httpd's string expressions (ap_expr): `user/%{REMOTE_USER}`.

use super::ffi;
use super::request::Request;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// A string expression, compiled. It lives as long as the configuration whose directive it stands in.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    compiled: *const ffi::ap_expr_info_t,
}

/// The same text means the same.
impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.text == other.text
    }
}

/// What compiles the expressions of the directive that is being read.
///
/// # Safety
/// To be called while it is.
type Parse = unsafe fn(*const ffi::cmd_parms, &CStr) -> Result<*const ffi::ap_expr_info_t, String>;

thread_local! {
    /// The parameters of the directive that this thread is reading. With its function, so that whoever calls `compile` needs
    /// no httpd until one is read: as tests do.
    static READING: Cell<Option<(*const ffi::cmd_parms, Parse)>> = const { Cell::new(None) };
}

/// Runs `read`, in which [`Expression::compile`] can be called.
///
/// # Safety
/// `parms` is what httpd has called a directive with.
pub(super) unsafe fn reading<T>(parms: *const ffi::cmd_parms, read: impl FnOnce() -> T) -> T {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            READING.set(None);
        }
    }
    READING.set(Some((parms, parse)));
    let _done = Done;
    read()
}

/// See [`Parse`].
unsafe fn parse(parms: *const ffi::cmd_parms, text: &CStr) -> Result<*const ffi::ap_expr_info_t, String> {
    let mut error: *const c_char = ptr::null();
    let mut flags = ffi::AP_EXPR_FLAG_STRING_RESULT | ffi::AP_EXPR_FLAG_DONT_VARY;
    // SAFETY: the parameters are valid while the directive is read; the parser gets a copy of the text that lives in the
    // directive's pool, as what it compiles does. The error is NULL or a string there.
    unsafe {
        if super::directive::is_htaccess(&*parms) {
            flags |= ffi::shim_expr_without_files();
        }
        let kept = ffi::apr_pstrmemdup((*parms).pool, text.as_ptr(), text.to_bytes().len());
        let compiled = ffi::ap_expr_parse_cmd_mi(parms, kept, flags, &mut error, None, super::log::module_index());
        if !error.is_null() {
            return Err(CStr::from_ptr(error).to_string_lossy().into_owned());
        }
        if compiled.is_null() { Err("it is empty".into()) } else { Ok(compiled) }
    }
}

impl Expression {
    /// Compiles what stands in a directive. To be called while one is read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Expression, String> {
        let compiled = match (READING.get(), CString::new(text)) {
            // SAFETY: the directive is being read, else there were nothing.
            (Some((parms, parse)), Ok(source)) => unsafe { parse(parms, &source) },
            (None, _) => Err("no directive is being read".into()),
            (_, Err(_)) => Err("there is a NUL in it".into()),
        };
        match compiled {
            Ok(compiled) => Ok(Expression { text: text.into(), compiled }),
            Err(why) => Err(format!("\"{text}\" is no expression: {why}")),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value for this request: bytes, of any encoding.
    ///
    /// # Errors
    /// It cannot be worked out.
    pub fn evaluate<'a>(&self, request: &'a Request) -> Result<&'a CStr, String> {
        let mut error: *const c_char = ptr::null();
        // SAFETY: what was compiled lives as long as the configuration, which outlives its requests; nobody changes it. The
        // value lives in the request's pool, or in the expression.
        unsafe {
            let value = ffi::ap_expr_str_exec(request.as_ptr(), self.compiled, &mut error);
            if !error.is_null() {
                return Err(format!("\"{}\": {}", self.text, CStr::from_ptr(error).to_string_lossy()));
            }
            Ok(if value.is_null() { c"" } else { CStr::from_ptr(value) })
        }
    }
}
