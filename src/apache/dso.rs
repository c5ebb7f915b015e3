//! Shared objects that a directive names, as `LoadModule` loads them: APR's apr_dso_*. An object that is a module too is
//! the same in both.

use super::ffi;
#[cfg(not(test))]
use ffi as system;
use std::ffi::{CStr, CString, c_char, c_void};

/// A loaded shared object. Dropped, it is unloaded, unless somebody else has loaded it too.
pub struct Library {
    handle: *mut ffi::apr_dso_handle_t,
    /// Its own, in no hierarchy of pools: APR would unload the object when the pool ends, at a time that is not ours.
    pool: *mut ffi::apr_pool_t,
    path: CString,
    loader: u32,
}

// SAFETY: nothing is written after it was loaded; dlsym and dlclose are for all threads.
unsafe impl Send for Library {}
// SAFETY: safety.md 8.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the object at a path, relative to ServerRoot.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub fn load(path: &str) -> Result<Library, String> {
        let text = CString::new(path).map_err(|_| format!("\"{path}\" is not a path"))?;
        let mut pool = std::ptr::null_mut();
        // SAFETY: a pool of nobody's, which `Library` destroys.
        if unsafe { system::apr_pool_create_unmanaged_ex(&mut pool, None, std::ptr::null_mut()) } != 0 {
            return Err("there is no memory left".into());
        }
        // SAFETY: pool and text are valid; the answer is NULL or a string in the pool.
        let full = unsafe { system::ap_server_root_relative(pool, text.as_ptr()) };
        let mut library =
            Library { handle: std::ptr::null_mut(), pool, path: CString::default(), loader: std::process::id() };
        if full.is_null() {
            return Err(format!("\"{path}\" is not a path"));
        }
        // SAFETY: not NULL, a string in the pool.
        library.path = unsafe { CStr::from_ptr(full) }.to_owned();
        let mut handle = std::ptr::null_mut();
        // SAFETY: path and pool are valid. Loading runs the object's initialisers: whoever may write the configuration
        // may have httpd run code.
        let status = unsafe { system::apr_dso_load(&mut handle, library.path.as_ptr(), pool) };
        if status != 0 {
            return Err(format!("{} cannot be loaded: {}", library.path(), error(handle)));
        }
        library.handle = handle;
        Ok(library)
    }

    pub fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// The address of a symbol, not NULL.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn symbol(&self, name: &str) -> Result<*mut c_void, String> {
        let missing = |why: &str| format!("{} has no function {name}: {why}", self.path());
        let text = CString::new(name).map_err(|_| missing("this cannot be a name"))?;
        let mut symbol = std::ptr::null_mut();
        // SAFETY: the handle is loaded, the name valid.
        let status = unsafe { system::apr_dso_sym(&mut symbol, self.handle, text.as_ptr()) };
        if status != 0 || symbol.is_null() {
            return Err(missing(&error(self.handle)));
        }
        Ok(symbol)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // A child of httpd is about to exit when its configuration goes; threads that the object has left behind there
        // shall not lose their code.
        if self.loader != std::process::id() {
            return;
        }
        // SAFETY: loaded once, or NULL; nobody uses the object any more: who does holds the Library. The pool is ours.
        unsafe {
            if !self.handle.is_null() {
                system::apr_dso_unload(self.handle);
            }
            system::apr_pool_destroy(self.pool);
        }
    }
}

/// What the system has to say of the last failure.
fn error(handle: *mut ffi::apr_dso_handle_t) -> String {
    let mut text: [c_char; 512] = [0; 512];
    if handle.is_null() {
        return "no reason given".into();
    }
    // SAFETY: the handle is APR's, the buffer that long; the text is NUL-terminated within it.
    unsafe {
        system::apr_dso_error(handle, text.as_mut_ptr(), text.len() as ffi::apr_size_t);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

/// The unit tests are an executable without httpd around it, and these are bound when it starts: directives name them. Here
/// nothing can be loaded.
#[cfg(test)]
mod system {
    use super::ffi::{apr_dso_handle_t, apr_pool_t};
    use std::ffi::{c_char, c_int, c_void};

    pub(super) unsafe fn apr_pool_create_unmanaged_ex(_: *mut *mut apr_pool_t, _: Option<()>, _: *mut c_void) -> c_int {
        1
    }

    pub(super) unsafe fn ap_server_root_relative(_: *mut apr_pool_t, _: *const c_char) -> *const c_char {
        std::ptr::null()
    }

    pub(super) unsafe fn apr_dso_load(_: *mut *mut apr_dso_handle_t, _: *const c_char, _: *mut apr_pool_t) -> c_int {
        1
    }

    pub(super) unsafe fn apr_dso_sym(_: *mut *mut c_void, _: *mut apr_dso_handle_t, _: *const c_char) -> c_int {
        1
    }

    pub(super) unsafe fn apr_dso_unload(_: *mut apr_dso_handle_t) {}

    pub(super) unsafe fn apr_pool_destroy(_: *mut apr_pool_t) {}

    pub(super) unsafe fn apr_dso_error(_: *mut apr_dso_handle_t, _: *mut c_char, _: super::ffi::apr_size_t) {}
}
