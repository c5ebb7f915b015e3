//! APR's tables: header lines, by name without regard to case.

use super::ffi;
use super::pool::Pool;
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};

#[repr(transparent)]
pub struct Table(UnsafeCell<ffi::apr_table_t>);

impl Table {
    /// # Safety
    /// `ptr` is a table that outlives `'a`.
    pub(super) unsafe fn from_ptr<'a>(ptr: *mut ffi::apr_table_t) -> &'a Table {
        // SAFETY: the caller's word; the wrapper is transparent.
        unsafe { &*ptr.cast() }
    }

    fn as_ptr(&self) -> *mut ffi::apr_table_t {
        self.0.get()
    }

    pub fn lines(&self) -> impl Iterator<Item = (&CStr, &CStr)> {
        // SAFETY: the table is valid; its array holds `nelts` entries whose keys and values are NUL-terminated strings
        // (a key is never NULL in httpd's tables; a value may be).
        let entries = unsafe {
            let array = &*ffi::apr_table_elts(self.as_ptr());
            match array.nelts {
                0 => &[],
                count => std::slice::from_raw_parts(array.elts.cast::<ffi::apr_table_entry_t>(), count as usize),
            }
        };
        entries.iter().filter(|entry| !entry.key.is_null() && !entry.val.is_null()).map(|entry| {
            // SAFETY: neither is NULL, and both are strings.
            unsafe { (CStr::from_ptr(entry.key), CStr::from_ptr(entry.val)) }
        })
    }

    /// All pairs, in order. What is not UTF-8 comes with U+FFFD in its place.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.lines().map(|(key, value)| (key.to_string_lossy(), value.to_string_lossy()))
    }

    pub fn set(&self, pool: &Pool, name: &str, value: &str) {
        // SAFETY: safety.md 1, 3; the strings live as long as the table's pool.
        unsafe { ffi::apr_table_setn(self.as_ptr(), pool.string(name), pool.string(value)) }
    }

    /// As [`Table::set`], for a name and a value that are there as long as the program.
    pub fn set_constant(&self, name: &'static CStr, value: &'static CStr) {
        // SAFETY: safety.md 1, 3; the strings live as long as the table's pool.
        unsafe { ffi::apr_table_setn(self.as_ptr(), name.as_ptr(), value.as_ptr()) }
    }

    /// The value of that name; NULL for none. It lives as long as the table, and as nobody sets another.
    pub fn find(&self, name: &CStr) -> *const c_char {
        // SAFETY: table and name are valid.
        unsafe { ffi::apr_table_get(self.as_ptr(), name.as_ptr()) }
    }

    /// As [`Table::set`], for what needs not be UTF-8. Copies.
    pub fn set_bytes(&self, name: &CStr, value: &CStr) {
        // SAFETY: safety.md 1, 3; apr_table_set copies.
        unsafe { ffi::apr_table_set(self.as_ptr(), name.as_ptr(), value.as_ptr()) }
    }

    /// As [`Table::set`]: the value that another table has, if it has one.
    pub fn copy(&self, name: &CStr, from: &Table, its_name: &CStr) {
        let value = from.find(its_name);
        if !value.is_null() {
            // SAFETY: safety.md 1, 3; apr_table_set copies.
            unsafe { ffi::apr_table_set(self.as_ptr(), name.as_ptr(), value) }
        }
    }

    pub fn unset(&self, name: &CStr) {
        // SAFETY: table and name are valid.
        unsafe { ffi::apr_table_unset(self.as_ptr(), name.as_ptr()) }
    }

    /// As [`Table::add`], for what needs not be UTF-8. Copies.
    pub fn add_bytes(&self, name: &CStr, value: &CStr) {
        // SAFETY: safety.md 1, 3; apr_table_add copies.
        unsafe { ffi::apr_table_add(self.as_ptr(), name.as_ptr(), value.as_ptr()) }
    }

    pub fn clear(&self) {
        // SAFETY: the table is valid.
        unsafe { ffi::apr_table_clear(self.as_ptr()) }
    }

    pub fn add(&self, pool: &Pool, name: &str, value: &str) {
        // SAFETY: safety.md 1, 3; the strings live as long as the table's pool.
        unsafe { ffi::apr_table_addn(self.as_ptr(), pool.string(name), pool.string(value)) }
    }
}
