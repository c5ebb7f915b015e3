//! What the MPM says of itself.

use super::ffi;
use std::ffi::c_int;

fn query(code: u32) -> Option<c_int> {
    let mut answer: c_int = 0;
    // SAFETY: every query of httpd answers with an int.
    (unsafe { ffi::ap_mpm_query(code as c_int, &mut answer) } == 0).then_some(answer)
}

/// The server is ending (stop), and nothing is to be started any more.
pub fn is_stopping() -> bool {
    // As mod_cgid: an MPM that cannot say is taken to be stopping.
    query(ffi::AP_MPMQ_MPM_STATE).is_none_or(|state| state == ffi::AP_MPMQ_STOPPING as c_int)
}

/// The server is ending, and no restart follows.
pub fn is_shutting_down() -> bool {
    // SAFETY: the structure lives as long as the process; NULL before an MPM has made it.
    unsafe {
        let retained = ffi::ap_unixd_mpm_get_retained_data();
        !retained.is_null() && (&raw const (*retained).shutdown_pending).read_volatile() != 0
    }
}

/// A handler may answer [`super::HookStatus::Suspended`]: the MPM is asynchronous, which in httpd 2.4 is event alone.
pub fn can_suspend() -> bool {
    query(ffi::AP_MPMQ_IS_ASYNC).is_some_and(|is_async| is_async != 0)
}

/// Children that there can be at a time.
pub fn max_children() -> u64 {
    query(ffi::AP_MPMQ_MAX_DAEMONS).map_or(1, |number| number.max(1) as u64)
}

/// Children that there can ever be at a time, however the configuration changes.
pub fn most_children() -> u64 {
    query(ffi::AP_MPMQ_HARD_LIMIT_DAEMONS).map_or(1, |number| number.max(1) as u64)
}

/// Worker threads of a child; 1 under prefork.
pub fn threads_per_child() -> u64 {
    query(ffi::AP_MPMQ_MAX_THREADS).map_or(1, |number| number.max(1) as u64)
}

/// The children of this MPM have threads, each with a connection of its own; not so prefork's, which have one connection.
pub fn is_threaded() -> bool {
    query(ffi::AP_MPMQ_IS_THREADED).is_some_and(|threaded| threaded != 0)
}

/// The generation of this child: a number that each restart raises.
pub fn generation() -> Option<i32> {
    query(ffi::AP_MPMQ_GENERATION)
}

/// The generation of the children that httpd's parent starts now.
pub fn running_generation() -> Option<i32> {
    // SAFETY: NULL, or a part of the scoreboard, which lives as long as this process; the parent alone writes the number.
    unsafe {
        let global = ffi::ap_get_scoreboard_global();
        (!global.is_null()).then(|| std::ptr::read_volatile(&raw const (*global).running_generation))
    }
}
