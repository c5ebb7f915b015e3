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

/// A handler may answer [`super::Verdict::Suspended`]: the MPM is asynchronous, which in httpd 2.4 is event alone.
pub fn can_suspend() -> bool {
    let mut is_async: c_int = 0;
    // SAFETY: as above.
    let status = unsafe { ffi::ap_mpm_query(ffi::AP_MPMQ_IS_ASYNC as c_int, &mut is_async) };
    status == 0 && is_async != 0
}
