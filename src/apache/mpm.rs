//! What the MPM says of itself.

use super::ffi;
use std::ffi::c_int;

/// The server is ending (stop), and nothing is to be started any more.
pub fn is_stopping() -> bool {
    let mut state: c_int = 0;
    // SAFETY: `state` is an int as the query wants it.
    let status = unsafe { ffi::ap_mpm_query(ffi::AP_MPMQ_MPM_STATE as c_int, &mut state) };
    // As mod_cgid: an MPM that cannot say is taken to be stopping.
    status != 0 || state == ffi::AP_MPMQ_STOPPING as c_int
}
