//! The configuration as it was written: httpd's tree of directives (ap_conftree), for what no module can be asked.

use super::ffi;
use std::ffi::{CStr, c_char};

/// A directive as it is written, or a section with what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `SetHandler`, `<Location`.
    pub name: String,
    /// What follows, with its quotes and a section's `>`.
    pub arguments: String,
    /// The file and the line.
    pub place: String,
    /// What stands in the section.
    pub within: Vec<Written>,
}

/// The whole configuration, in the order of the files.
pub fn tree() -> Vec<Written> {
    // SAFETY: NULL, or the tree of the current configuration, which nobody changes after it was read.
    copy(unsafe { ffi::ap_conftree })
}

fn copy(mut node: *const ffi::ap_directive_t) -> Vec<Written> {
    let text = |text: *const c_char| {
        // SAFETY: a string of the tree: NULL or NUL-terminated.
        if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
    };
    let mut copies = Vec::new();
    // SAFETY: NULL or a node of the tree.
    while let Some(directive) = unsafe { node.as_ref() } {
        copies.push(Written {
            name: text(directive.directive),
            arguments: text(directive.args),
            place: format!("{}:{}", text(directive.filename), directive.line_num),
            within: copy(directive.first_child),
        });
        node = directive.next;
    }
    copies
}

/// The arguments of every directive of that name, wherever it stands, in the order of the files.
pub fn arguments_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    // SAFETY: NULL, or the tree of the current configuration, which nobody changes after it was read.
    walk(unsafe { ffi::ap_conftree }, &mut |directive, arguments| {
        if directive.eq_ignore_ascii_case(name) {
            found.push(arguments.to_owned());
        }
    });
    found
}

fn walk(mut node: *mut ffi::ap_directive_t, visit: &mut impl FnMut(&str, &str)) {
    while !node.is_null() {
        // SAFETY: a node of the tree; its strings are NULL or NUL-terminated.
        let directive = unsafe { &*node };
        if !directive.directive.is_null() && !directive.args.is_null() {
            // SAFETY: as above.
            let (name, arguments) = unsafe { (CStr::from_ptr(directive.directive), CStr::from_ptr(directive.args)) };
            visit(&name.to_string_lossy(), &arguments.to_string_lossy());
        }
        walk(directive.first_child, visit);
        node = directive.next;
    }
}
