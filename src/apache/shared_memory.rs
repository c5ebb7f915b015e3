//! Memory that httpd's parent shares with every process that it forks from then on.

use super::ffi;
use std::ffi::{CStr, c_void};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

/// As httpd's parent remembers it. All zeros is none.
#[repr(C)]
struct Mapping {
    address: *mut c_void,
    words: usize,
}

/// The words that httpd's parent shares under this key: mapped by the first call, all zero, and there until the parent ends,
/// through restarts of the configuration and through another copy of this module in the place of this one. The key stands for
/// the layout. `count` is that of the first call; later ones get what it got.
///
/// To be called in httpd's parent first, before it forks those who are to share.
///
/// # Errors
/// There is no memory.
pub fn words(key: &'static CStr, count: usize) -> io::Result<&'static [AtomicU64]> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the memory has the size, lives as long as the process and is zero at first, which is a value. APR aligns for any
    // type, and one thread at a time is here.
    let mapping = unsafe {
        let mut data = ffi::ap_retained_data_get(key.as_ptr());
        if data.is_null() {
            data = ffi::ap_retained_data_create(key.as_ptr(), size_of::<Mapping>());
        }
        &mut *data.cast::<Mapping>()
    };
    if mapping.address.is_null() {
        // SAFETY: a new mapping, which overlaps with nothing.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        *mapping = Mapping { address, words: count };
    }
    // SAFETY: a mapping of so many words that is never taken away, page-aligned and zero at first; all who have it, in whichever
    // process, use it as atomics.
    Ok(unsafe { std::slice::from_raw_parts(mapping.address.cast::<AtomicU64>(), mapping.words) })
}
