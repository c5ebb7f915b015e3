//! The configuration as it was written: httpd's tree of directives (ap_conftree), for what no module can be asked.

use super::ffi;
use std::ffi::CStr;

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

/// A place in the configuration: the sections that a directive stands in, the innermost first.
pub struct Place {
    /// The name of each section's directive (`<Location`), and its arguments.
    sections: Vec<(String, String)>,
    /// The directives in any of these sections, or in another of the same name and arguments.
    beside: Vec<(String, String)>,
}

impl Place {
    /// The innermost section as it is written; none outside of all.
    pub fn name(&self) -> Option<String> {
        self.sections.first().map(|(name, arguments)| format!("{name} {arguments}"))
    }

    /// True when such a directive holds there: in the section, or in one that it stands in.
    pub fn holds(&self, is_such: impl Fn(&str, &str) -> bool) -> bool {
        self.beside.iter().any(|(directive, arguments)| is_such(directive, arguments))
    }
}

/// Where the directives of that name stand whose arguments are such.
pub fn sections_of(name: &str, is_such: impl Fn(&str) -> bool) -> Vec<Place> {
    let mut all = Vec::new();
    // SAFETY: see `arguments_of`.
    gather(unsafe { ffi::ap_conftree }, &mut Vec::new(), &mut all);
    let found =
        all.iter().filter(|(_, directive, arguments)| directive.eq_ignore_ascii_case(name) && is_such(arguments));
    found
        .map(|(sections, ..)| Place {
            sections: sections.clone(),
            beside: all
                .iter()
                // What stands in that section, in one within it (<RequireAny>), or in one of the same words elsewhere.
                .filter(|(others, ..)| others.iter().any(|other| sections.iter().any(|section| same(section, other))))
                .map(|(_, directive, arguments)| (directive.clone(), arguments.clone()))
                .collect(),
        })
        .collect()
}

/// The same section, where it is one that says for what it is. A virtual host's rules are found in its own sections.
fn same(one: &(String, String), other: &(String, String)) -> bool {
    one == other && !one.0.eq_ignore_ascii_case("<VirtualHost")
}

type Found = (Vec<(String, String)>, String, String);

fn gather(mut node: *mut ffi::ap_directive_t, sections: &mut Vec<(String, String)>, all: &mut Vec<Found>) {
    while !node.is_null() {
        // SAFETY: as in `walk`.
        let directive = unsafe { &*node };
        let text = |ptr: *const std::ffi::c_char| {
            // SAFETY: NULL or NUL-terminated.
            if ptr.is_null() { String::new() } else { unsafe { CStr::from_ptr(ptr) }.to_string_lossy().into_owned() }
        };
        let (name, arguments) = (text(directive.directive), text(directive.args));
        if directive.first_child.is_null() {
            all.push((sections.iter().rev().cloned().collect(), name, arguments));
        } else {
            sections.push((name, arguments));
            gather(directive.first_child, sections, all);
            sections.pop();
        }
        node = directive.next;
    }
}
