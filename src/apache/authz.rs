//! Whether httpd's own authorization asks anything of clients.
//!
//! httpd knows only whether there is a `Require` line at all (ap_some_auth_required), and `Require all granted` is one,
//! which most configurations have around everything. So the lines are read here as well: httpd calls each module that has
//! a directive of that name (ap_walk_config_sub), and merges what they make of it as it merges mod_authz_core's.

use super::directive::Section;
use super::ffi;
use super::guard::guard;
use super::request::Request;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// What the `Require` lines that hold somewhere amount to. Methods are bits, by httpd's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requires {
    /// There are some.
    any: bool,
    /// The methods for which something is asked.
    asks: i64,
    /// The methods for which everybody is let in, whatever else is asked.
    open: i64,
    merging: Merging,
}

/// `AuthMerging`: what becomes of the lines of outer sections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Merging {
    /// They hold where an inner section has none.
    #[default]
    Unset,
    Off,
    And,
    Or,
}

/// A `Require` line.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// What follows the directive.
    pub arguments: &'a str,
    /// The `<Require…>` sections around it.
    pub within: &'a [String],
    /// The methods that it is for (`<Limit>`).
    pub limited: i64,
}

/// All methods.
pub const ALL_METHODS: i64 = -1;

impl Requires {
    /// Adds a line. `method` knows the methods' bits by their names.
    pub fn add(&mut self, line: Line<'_>, method: impl Fn(&str) -> i64) {
        self.any = true;
        let mut words = line.arguments.split_whitespace().map(|word| word.trim_matches('"').to_ascii_lowercase());
        let provider = words.next().unwrap_or_default();
        // What lets in without looking at the client.
        let lets_in = match provider.as_str() {
            "all" if words.next().as_deref() == Some("granted") => ALL_METHODS,
            "ssl" => ALL_METHODS,
            "method" => words.fold(0, |bits, word| bits | method(&word.to_ascii_uppercase())),
            _ => 0,
        };
        let is = |name: &'static str| move |section: &String| section.eq_ignore_ascii_case(name);
        if line.within.iter().any(is("<RequireNone")) {
            self.asks |= line.limited;
            return;
        }
        if line.within.iter().all(is("<RequireAny")) {
            self.open |= line.limited & lets_in;
        }
        self.asks |= line.limited & !lets_in;
    }

    /// `AuthMerging`. What it does not take is mod_authz_core's to tell.
    pub fn set_merging(&mut self, word: &str) {
        self.merging = match word.trim().trim_matches('"').to_ascii_lowercase().as_str() {
            "off" => Merging::Off,
            "and" => Merging::And,
            "or" => Merging::Or,
            _ => return,
        };
    }

    /// An inner section's over an outer one's, as merge_authz_core_dir_config has it.
    pub fn over(&self, outer: &Requires) -> Requires {
        let (inner, outer) = (*self, *outer);
        let both = |asks| Requires { any: true, asks, open: 0, merging: inner.merging };
        match inner.merging {
            Merging::Unset if !inner.any => outer,
            Merging::Unset | Merging::Off => inner,
            Merging::And | Merging::Or if !inner.any => Requires { merging: inner.merging, ..outer },
            Merging::And | Merging::Or if !outer.any => inner,
            Merging::And => both(inner.guarded() | outer.guarded()),
            Merging::Or => both(inner.guarded() & outer.guarded()),
        }
    }

    fn guarded(&self) -> i64 {
        self.asks & !self.open
    }

    /// Something is asked of clients that use this method, of which this is the bit.
    pub fn guard(&self, method: i64) -> bool {
        self.guarded() & method != 0
    }
}

impl Request {
    /// httpd has let this request in because of something that it asks of clients, and not only because it asks nothing.
    /// `requires` are those where the request is served.
    pub fn is_guarded(&self, requires: &Requires) -> bool {
        // SAFETY: the request is valid.
        let satisfy = unsafe { ffi::ap_satisfies(self.as_ptr()) };
        // Under `Satisfy Any` (mod_access_compat) `Require` need not have been asked: but somebody who has logged in was.
        let asked = satisfy != ffi::SATISFY_ANY as c_int || self.user().is_some();
        asked && requires.guard(self.method_bit())
    }

    /// The bit of its method in a mask of methods.
    fn method_bit(&self) -> i64 {
        // SAFETY: the request is valid.
        bit(unsafe { (*self.as_ptr()).method_number })
    }
}

fn bit(method: c_int) -> i64 {
    1_i64.checked_shl(method as u32).unwrap_or(0)
}

/// The bit of a method by its name, in capitals.
pub fn method_bit(name: &str) -> i64 {
    // SAFETY: the name is valid; httpd's table of methods is filled before it reads a configuration.
    CString::new(name).map_or(0, |name| bit(unsafe { ffi::ap_method_number_of(name.as_ptr()) }))
}

/// httpd's forms of the two directives. Their contexts are those of mod_authz_core.
pub(super) const fn commands<C: Section + 'static>() -> [ffi::command_rec; 2] {
    [
        ffi::command_rec {
            name: c"Require".as_ptr(),
            func: ffi::cmd_func { raw_args: Some(require::<C>) },
            cmd_data: std::ptr::null_mut(),
            req_override: ffi::OR_AUTHCFG as c_int,
            args_how: ffi::cmd_how_RAW_ARGS,
            errmsg: c"mod_authz_core's; here only noted".as_ptr(),
        },
        ffi::command_rec {
            name: c"AuthMerging".as_ptr(),
            func: ffi::cmd_func { raw_args: Some(merging::<C>) },
            cmd_data: std::ptr::null_mut(),
            req_override: ffi::OR_AUTHCFG as c_int,
            args_how: ffi::cmd_how_RAW_ARGS,
            errmsg: c"mod_authz_core's; here only noted".as_ptr(),
        },
    ]
}

extern "C" fn require<C: Section + 'static>(
    parms: *mut ffi::cmd_parms,
    config: *mut c_void,
    arguments: *const c_char,
) -> *const c_char {
    note::<C>(parms, config, arguments, |parms, requires, arguments| {
        let mut within = Vec::new();
        // SAFETY: the directive and those around it are nodes of httpd's tree, with names.
        unsafe {
            let mut around = (*parms.directive).parent;
            while !around.is_null() {
                within.push(CStr::from_ptr((*around).directive).to_string_lossy().into_owned());
                around = (*around).parent;
            }
        }
        within.retain(|section| section.to_ascii_lowercase().starts_with("<require"));
        requires.add(Line { arguments, within: &within, limited: parms.limited }, method_bit);
    })
}

extern "C" fn merging<C: Section + 'static>(
    parms: *mut ffi::cmd_parms,
    config: *mut c_void,
    arguments: *const c_char,
) -> *const c_char {
    note::<C>(parms, config, arguments, |_, requires, arguments| requires.set_merging(arguments))
}

fn note<C: Section + 'static>(
    parms: *mut ffi::cmd_parms,
    config: *mut c_void,
    arguments: *const c_char,
    what: impl FnOnce(&ffi::cmd_parms, &mut Requires, &str),
) -> *const c_char {
    guard("a directive", c"WS0001: mod_websocket panicked".as_ptr(), || {
        // SAFETY: as in `directive::set`; the arguments of a directive are a string.
        unsafe {
            // Without the module that means it, the line must not pass.
            if ffi::ap_find_linked_module(c"mod_authz_core.c".as_ptr()).is_null() {
                return c"Require and AuthMerging are mod_authz_core's, which is not loaded: load it, or take the line out".as_ptr();
            }
            let arguments = CStr::from_ptr(arguments).to_string_lossy();
            what(&*parms, (*config.cast::<C>()).requires(), &arguments);
        }
        std::ptr::null()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: i64 = 1;
    const POST: i64 = 4;

    fn method(name: &str) -> i64 {
        match name {
            "GET" => GET,
            "POST" => POST,
            other => panic!("{other}"),
        }
    }

    /// Lines, each with the sections around it before a colon.
    fn requires(lines: &[&str]) -> Requires {
        let mut requires = Requires::default();
        for line in lines {
            let (within, arguments) = line.split_once(": ").unwrap_or(("", line));
            let within: Vec<String> = within.split_whitespace().map(|name| format!("<Require{name}")).collect();
            requires.add(Line { arguments, within: &within, limited: ALL_METHODS }, method);
        }
        requires
    }

    fn merging(word: &str, lines: &[&str]) -> Requires {
        let mut requires = requires(lines);
        requires.set_merging(word);
        requires
    }

    #[test]
    fn what_looks_at_the_client_guards() {
        for lines in [
            &["valid-user"][..],
            &["ip 192.0.2.0/24"],
            &["all denied"],
            &["local", "user alice"],
            &["ssl-verify-client"],
            &["expr %{HTTP:X-Key} == 'all granted'"],
            &["All: all granted", "All: not ip 192.0.2.1"],
            &["All: valid-user", "All: method POST"],
            &["None: all granted"],
            &["method GET", "valid-user"],
            &["Any: method GET", "Any: valid-user"],
        ] {
            assert!(requires(lines).guard(POST), "{lines:?}");
        }
        for lines in [
            &[][..],
            &["all granted"],
            &["\"all\" Granted"],
            &["ssl"],
            &["all granted", "valid-user"],
            &["Any: all granted", "valid-user"],
            &["All: all granted"],
            &["method GET POST", "valid-user"],
        ] {
            assert!(!requires(lines).guard(POST), "{lines:?}");
        }
        assert!(!requires(&["method GET", "valid-user"]).guard(GET));
    }

    #[test]
    fn limits_are_for_their_methods() {
        let mut limited = Requires::default();
        limited.add(Line { arguments: "valid-user", within: &[], limited: POST }, method);
        assert!(limited.guard(POST) && !limited.guard(GET));
    }

    #[test]
    fn inner_sections_replace_outer_ones() {
        let (closed, open, none) = (requires(&["valid-user"]), requires(&["all granted"]), requires(&[]));
        assert!(none.over(&closed).guard(POST));
        assert!(!open.over(&closed).guard(POST));
        assert!(closed.over(&open).guard(POST));
        assert!(!merging("Off", &[]).over(&closed).guard(POST));
        assert!(merging("And", &["all granted"]).over(&closed).guard(POST));
        assert!(merging("And", &[]).over(&closed).guard(POST));
        assert!(!merging("or", &["valid-user"]).over(&open).guard(POST));
        assert!(merging("Or", &["valid-user"]).over(&closed).guard(POST));
        assert!(merging("Or", &["valid-user"]).over(&none).guard(POST));
        // The merging of an outer section is its own affair.
        assert!(!open.over(&merging("And", &["valid-user"])).guard(POST));
    }
}
