//! The configuration as it was written: httpd's tree of directives (ap_conftree), for what no module can be asked.

use super::ffi;
use std::ffi::CStr;

/// The arguments of every directive of that name, wherever it stands, in the order of the files.
pub fn arguments_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    // SAFETY: NULL, or safety.md 6.
    walk(unsafe { ffi::ap_conftree }, &mut |directive, arguments| {
        if directive.eq_ignore_ascii_case(name) {
            found.push(arguments.to_owned());
        }
    });
    found
}

/// The arguments of the directive of that name that holds outside of all sections: the last one. What stands in
/// `<IfModule>` and the like counts: httpd puts it in the place of those.
pub fn argument_outside_of_sections(name: &str) -> Option<String> {
    let mut found = None;
    // SAFETY: NULL, or safety.md 6.
    let mut node = unsafe { ffi::ap_conftree };
    while !node.is_null() {
        // SAFETY: safety.md 2, 6.
        let directive = unsafe { &*node };
        if !directive.directive.is_null() && !directive.args.is_null() {
            // SAFETY: safety.md 2, 6.
            let (known, arguments) = unsafe { (CStr::from_ptr(directive.directive), CStr::from_ptr(directive.args)) };
            if known.to_string_lossy().eq_ignore_ascii_case(name) {
                found = Some(arguments.to_string_lossy().into_owned());
            }
        }
        node = directive.next;
    }
    found
}

fn walk(mut node: *mut ffi::ap_directive_t, visit: &mut impl FnMut(&str, &str)) {
    while !node.is_null() {
        // SAFETY: safety.md 2, 6.
        let directive = unsafe { &*node };
        if !directive.directive.is_null() && !directive.args.is_null() {
            // SAFETY: safety.md 2, 6.
            let (name, arguments) = unsafe { (CStr::from_ptr(directive.directive), CStr::from_ptr(directive.args)) };
            visit(&name.to_string_lossy(), &arguments.to_string_lossy());
        }
        walk(directive.first_child, visit);
        node = directive.next;
    }
}
