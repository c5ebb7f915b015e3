//! httpd's string expressions (ap_expr): `user/%{REMOTE_USER}`.
//!
//! Their values do not tell what was missing: without a login that one is `user/`. So each variable and function that the
//! parser looks up is called by way of a function here, which notes what comes of it.

use super::ffi;
use super::guard::guard;
use super::pool::Pool;
use super::request::Request;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// A string expression, compiled. It lives as long as the configuration whose directive it stands in.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    compiled: *const ffi::ap_expr_info_t,
    /// `$0` to `$9` stands in it, which nothing here has set.
    refers_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Bytes, of any encoding.
    pub text: &'a CStr,
    /// A variable or a function in it was empty, wherever it stands: as the argument of another one, too.
    pub lacks: bool,
    /// There is a slash in `%{REMOTE_USER}`, which stands in it.
    pub slashed_user: bool,
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
        let compiled =
            ffi::ap_expr_parse_cmd_mi(parms, kept, flags, &mut error, Some(look_up), super::log::module_index());
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
            (_, Err(_)) => Err("it contains a NUL".into()),
        };
        match compiled {
            Ok(compiled) => Ok(Expression { text: text.into(), compiled, refers_back: refers_back(text) }),
            Err(why) => Err(format!("\"{text}\" is not an expression: {why}")),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value for this request.
    ///
    /// # Errors
    /// It cannot be worked out.
    pub fn evaluate<'a>(&self, request: &'a Request) -> Result<Value<'a>, String> {
        let mut error: *const c_char = ptr::null();
        NOTED.set(Noted { lacks: self.refers_back, slashed_user: false });
        // SAFETY: what was compiled lives as long as the configuration, which outlives its requests; nobody changes it. The
        // value lives in the request's pool, or in the expression.
        let text = unsafe {
            let value = ffi::ap_expr_str_exec(request.as_ptr(), self.compiled, &mut error);
            if !error.is_null() {
                return Err(format!("\"{}\": {}", self.text, CStr::from_ptr(error).to_string_lossy()));
            }
            if value.is_null() { c"" } else { CStr::from_ptr(value) }
        };
        let Noted { lacks, slashed_user } = NOTED.take();
        Ok(Value { text, lacks, slashed_user })
    }
}

/// True where `$0` to `$9` stands in an expression, as its scanner (util_expr_scan.l) reads it.
fn refers_back(text: &str) -> bool {
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'$' if bytes.peek().is_some_and(u8::is_ascii_digit) => return true,
            _ => {}
        }
    }
    false
}

/// What is noted while an expression is evaluated.
#[derive(Clone, Copy, Default)]
struct Noted {
    lacks: bool,
    slashed_user: bool,
}

thread_local! {
    static NOTED: Cell<Noted> = const { Cell::new(Noted { lacks: false, slashed_user: false }) };
}

/// Notes what came of a variable or a function.
///
/// # Safety
/// `value` is NULL or a string.
unsafe fn note(value: *const c_char, is_user: bool) {
    // SAFETY: the caller's word.
    let text = if value.is_null() { &[] } else { unsafe { CStr::from_ptr(value) }.to_bytes() };
    let Noted { lacks, slashed_user } = NOTED.get();
    NOTED.set(Noted {
        lacks: lacks || text.is_empty(),
        slashed_user: slashed_user || (is_user && text.contains(&b'/')),
    });
}

/// Of the type ap_expr_var_func_t.
type VariableFunction = unsafe extern "C" fn(*mut ffi::ap_expr_eval_ctx_t, *const c_void) -> *const c_char;
/// Of the type ap_expr_string_func_t.
type StringFunction = unsafe extern "C" fn(*mut ffi::ap_expr_eval_ctx_t, *const c_void, *const c_char) -> *const c_char;

/// A variable, as its module gives it.
struct Variable {
    function: VariableFunction,
    data: *const c_void,
    is_user: bool,
}

/// A function of a string, likewise.
struct Function {
    function: StringFunction,
    data: *const c_void,
}

/// What the parser asks for each variable and function: it gets ours, which call those that httpd knows.
extern "C" fn look_up(parms: *mut ffi::ap_expr_lookup_parms) -> c_int {
    guard("looking up what stands in an expression", ffi::DECLINED, || {
        // SAFETY: the parser's own parameters; where a lookup succeeds, it has put a function of the type's form and its data
        // where they say. What is put there instead lives in the same pool as the expression.
        unsafe {
            let found = ffi::ap_expr_lookup_default(parms);
            let parms = &*parms;
            if found != ffi::OK as c_int {
                return found;
            }
            let pool = Pool::from_ptr(parms.pool);
            let (function, data) = (*parms.func, *parms.data);
            match parms.type_ as u32 {
                ffi::AP_EXPR_FUNC_VAR => {
                    let is_user = CStr::from_ptr(parms.name).to_bytes().eq_ignore_ascii_case(b"REMOTE_USER");
                    let function = std::mem::transmute::<*const c_void, VariableFunction>(function);
                    *parms.data = pool.own(Variable { function, data, is_user }).cast();
                    *parms.func = variable as *const c_void;
                }
                ffi::AP_EXPR_FUNC_STRING => {
                    let function = std::mem::transmute::<*const c_void, StringFunction>(function);
                    *parms.data = pool.own(Function { function, data }).cast();
                    *parms.func = function_of_string as *const c_void;
                }
                _ => {}
            }
            found
        }
    })
}

extern "C" fn variable(context: *mut ffi::ap_expr_eval_ctx_t, data: *const c_void) -> *const c_char {
    guard("a variable of an expression", ptr::null(), || {
        // SAFETY: `look_up` has made the data; the context is the evaluation's own, and what comes back is NULL or a string.
        unsafe {
            let variable = &*data.cast::<Variable>();
            let value = (variable.function)(context, variable.data);
            note(value, variable.is_user);
            value
        }
    })
}

extern "C" fn function_of_string(
    context: *mut ffi::ap_expr_eval_ctx_t,
    data: *const c_void,
    argument: *const c_char,
) -> *const c_char {
    guard("a function of an expression", ptr::null(), || {
        // SAFETY: `look_up` has made the data; what comes back is NULL or a string.
        unsafe {
            let function = &*data.cast::<Function>();
            let value = (function.function)(context, function.data, argument);
            note(value, false);
            value
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_as_the_scanner_finds_them() {
        for text in ["$1", "room/$0", "%{tolower:$9}", r"\\$1", "$$2"] {
            assert!(refers_back(text), "{text}");
        }
        for text in ["", "room", "$", "$x", r"\$1", "%{env:A$}", r"a\\\$1"] {
            assert!(!refers_back(text), "{text}");
        }
    }
}
