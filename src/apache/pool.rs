//! APR's pools: memory that lives as long as the thing it belongs to.

use super::ffi;
use super::guard::guard;
use std::any::Any;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};

#[repr(transparent)]
pub struct Pool(UnsafeCell<ffi::apr_pool_t>);

impl Pool {
    /// # Safety
    /// `ptr` is a pool that outlives `'a`.
    pub(super) unsafe fn from_ptr<'a>(ptr: *mut ffi::apr_pool_t) -> &'a Pool {
        // SAFETY: the caller's word; the wrapper is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::apr_pool_t {
        self.0.get()
    }

    /// A copy of `text` that lives as long as the pool, with a NUL at its end.
    pub(super) fn string(&self, text: &str) -> *const c_char {
        self.bytes(text.as_bytes())
    }

    /// As [`Pool::string`], for what needs not be UTF-8.
    pub(super) fn bytes(&self, bytes: &[u8]) -> *mut c_char {
        // SAFETY: the pool is valid; `bytes` is that long.
        unsafe { ffi::apr_pstrmemdup(self.as_ptr(), bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Puts a value into the pool: it lives, and is dropped, with it.
    pub(super) fn own<T: 'static>(&self, value: T) -> *mut T {
        extern "C" fn drop_value<T>(value: *mut c_void) -> ffi::apr_status_t {
            guard("dropping what a pool owned", (), || {
                // SAFETY: `own` made it with Box::into_raw and APR runs a cleanup once.
                drop(unsafe { Box::from_raw(value.cast::<T>()) });
            });
            0
        }
        let value = Box::into_raw(Box::new(value));
        // SAFETY: the pool is valid; the cleanup fits the data. In a child that execs, nothing needs to be done.
        unsafe {
            ffi::apr_pool_cleanup_register(
                self.as_ptr(),
                value.cast(),
                Some(drop_value::<T>),
                Some(ffi::apr_pool_cleanup_null),
            );
        }
        value
    }

    /// Drops a value at the end of the pool.
    pub fn hold<T: 'static>(&self, value: T) {
        self.own(value);
    }

    /// Puts a value into the pool under a name, where [`Pool::kept`] finds it. One that was there is found no more.
    pub fn keep<T: Any>(&self, name: &'static CStr, value: T) {
        // Twice boxed: what is found by name is of one known type.
        let value = self.own::<Box<dyn Any>>(Box::new(value));
        // SAFETY: pool and name are valid, the latter for ever; `own` sees to the cleanup.
        unsafe { ffi::apr_pool_userdata_setn(value.cast(), name.as_ptr(), None, self.as_ptr()) };
    }

    /// The value that the pool keeps under that name, if it is a `T`. Only [`Pool::keep`] may use the name.
    pub fn kept<T: Any>(&self, name: &'static CStr) -> Option<&T> {
        let mut value: *mut c_void = std::ptr::null_mut();
        // SAFETY: pool and name are valid. What is there was put there by `keep`, and lives as long as the pool.
        unsafe {
            ffi::apr_pool_userdata_get(&mut value, name.as_ptr(), self.as_ptr());
            value.cast::<Box<dyn Any>>().as_ref()?.downcast_ref()
        }
    }

    /// Calls `what` when the pool is cleared or destroyed, before its subpools are.
    pub fn on_end(&self, what: fn()) {
        extern "C" fn call(what: *mut c_void) -> ffi::apr_status_t {
            // SAFETY: registered below with a `fn()`, and functions are not unmapped.
            let what: fn() = unsafe { std::mem::transmute(what) };
            guard("a pool's cleanup", (), what);
            0
        }
        // SAFETY: safety.md 1, 3; the cleanup fits the data.
        unsafe { ffi::apr_pool_pre_cleanup_register(self.as_ptr(), what as *mut c_void, Some(call)) }
    }
}
