//! Directives: a table of values on our side, httpd's command table made from it at compile time.

use super::expr;
use super::ffi;
use super::guard::guard;
use super::pool::Pool;
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int, c_void};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// Once for the whole server, outside of all sections.
    Global,
    /// The server and virtual hosts, outside of their sections.
    Host,
    /// Server, virtual host, `<Location>`, `<Directory>`, `<Files>`, `<If>`; not `.htaccess`.
    Sections,
    /// Server, virtual host, `<Location>`, `<Directory>`, `<Files>`, `<If>`; and `.htaccess` under
    /// `AllowOverride AuthConfig`.
    Everywhere,
}

impl Context {
    const fn req_override(self) -> c_int {
        match self {
            Context::Global | Context::Host => ffi::RSRC_CONF as c_int,
            Context::Sections => (ffi::RSRC_CONF | ffi::ACCESS_CONF) as c_int,
            Context::Everywhere => (ffi::RSRC_CONF | ffi::ACCESS_CONF | ffi::OR_AUTHCFG) as c_int,
        }
    }

    /// As the documentation says it.
    #[cfg(test)]
    pub fn describe(self) -> &'static str {
        match self {
            Context::Global => "server (global)",
            Context::Host => "server, virtual host",
            Context::Sections => "server, virtual host, directory",
            Context::Everywhere => "server, virtual host, directory, .htaccess (AuthConfig)",
        }
    }
}

/// Where directives stand, as far as a module may want to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectivePlace {
    pub in_htaccess: bool,
    pub in_virtual_host: bool,
    /// What the innermost section is for: the path of a `<Location>` or `<Directory>`, an .htaccess file's directory.
    pub path: Option<String>,
    /// The path of the innermost `<Location>` around it, `<If>` and the like between them or not; `None` where it is a pattern.
    pub location: Option<String>,
}

/// The configuration of a section, which directives change.
pub trait Section {
    /// Called before each directive: the place where it stands.
    fn enter(&mut self, place: DirectivePlace);
}

/// A directive of a module whose configuration is `C`.
#[cfg_attr(not(test), allow(dead_code, reason = "tests compare the docs with it"))]
pub struct Directive<C: 'static> {
    pub name: &'static CStr,
    /// What follows the name, as the documentation shows it.
    pub arguments: &'static str,
    pub context: Context,
    /// What holds where it does not stand, as the documentation says it.
    pub default: &'static str,
    /// What it is for, in a line.
    pub help: &'static CStr,
    /// Takes the words that follow it.
    ///
    /// The error says what is wrong and what to write instead; name, file and line are put before it.
    pub set: fn(&mut C, &[Cow<'_, str>]) -> Result<(), String>,
}

/// httpd's form of a table: its entries, and one that ends it.
#[repr(transparent)]
pub struct Commands<const N: usize>([ffi::command_rec; N]);

/// Entries of the [`Commands`] of these tables.
pub const fn entries<C>(tables: &[&[Directive<C>]]) -> usize {
    let (mut entries, mut i) = (1, 0);
    while i < tables.len() {
        entries += tables[i].len();
        i += 1;
    }
    entries
}

// SAFETY: the entries point to statics and functions, and nobody writes to them.
unsafe impl<const N: usize> Sync for Commands<N> {}

impl<const N: usize> Commands<N> {
    /// From tables with as many [`entries`].
    pub const fn new<C: Section + 'static>(tables: &'static [&'static [Directive<C>]]) -> Commands<N> {
        assert!(entries(tables) == N);
        let mut commands = [END; N];
        let (mut table, mut i, mut at) = (0, 0, 0);
        while table < tables.len() {
            if i == tables[table].len() {
                (table, i) = (table + 1, 0);
                continue;
            }
            let directive = &tables[table][i];
            commands[at] = ffi::command_rec {
                name: directive.name.as_ptr(),
                func: ffi::cmd_func { take_argv: Some(set::<C>) },
                cmd_data: std::ptr::from_ref(directive).cast_mut().cast(),
                req_override: directive.context.req_override(),
                args_how: ffi::cmd_how_TAKE_ARGV,
                errmsg: directive.help.as_ptr(),
            };
            (i, at) = (i + 1, at + 1);
        }
        Commands(commands)
    }

    pub(super) const fn as_ptr(&'static self) -> *const ffi::command_rec {
        self.0.as_ptr()
    }
}

const END: ffi::command_rec = ffi::command_rec {
    name: std::ptr::null(),
    func: ffi::cmd_func { no_args: None },
    cmd_data: std::ptr::null_mut(),
    req_override: 0,
    args_how: ffi::cmd_how_RAW_ARGS,
    errmsg: std::ptr::null(),
};

/// What httpd calls for each directive of ours: the words go to the entry's `set`, an error comes back as the text after
/// "Syntax error on line N of FILE:".
extern "C" fn set<C: Section + 'static>(
    parms: *mut ffi::cmd_parms,
    config: *mut c_void,
    argc: c_int,
    argv: *const *mut c_char,
) -> *const c_char {
    guard("a directive", c"WS0002: mod_websocket panicked".as_ptr(), || {
        // SAFETY: `info` is the `cmd_data` of the entry, `config` what create_dir_config made, `argv` holds `argc`
        // strings, all valid during the call.
        let (parms, config, directive, words) = unsafe {
            let parms = &*parms;
            let words: Vec<Cow<'_, str>> =
                (0..argc as usize).map(|i| CStr::from_ptr(*argv.add(i)).to_string_lossy()).collect();
            (parms, &mut *config.cast::<C>(), &*parms.info.cast::<Directive<C>>(), words)
        };
        if directive.context == Context::Global {
            // SAFETY: the parameters are valid.
            let misplaced =
                unsafe { ffi::ap_check_cmd_context(std::ptr::from_ref(parms).cast_mut(), ffi::GLOBAL_ONLY) };
            if !misplaced.is_null() {
                return misplaced;
            }
        }
        // SAFETY: server and path are valid during the call, the latter or NULL.
        let place = unsafe {
            let path = (!parms.path.is_null()).then(|| CStr::from_ptr(parms.path).to_string_lossy().into_owned());
            let (in_htaccess, in_virtual_host) = (is_htaccess(parms), (*parms.server).is_virtual != 0);
            DirectivePlace { in_htaccess, in_virtual_host, path, location: location(parms) }
        };
        config.enter(place);
        // SAFETY: httpd's own parameters.
        let set = unsafe { expr::reading(parms, || (directive.set)(config, &words)) };
        match set {
            Ok(()) => std::ptr::null(),
            Err(why) => {
                let name = directive.name.to_string_lossy();
                // SAFETY: the pool outlives the message.
                unsafe { Pool::from_ptr(parms.pool) }.string(&format!("{name}: {why}"))
            }
        }
    })
}

/// The path of the `<Location>` that a directive stands in.
fn location(parms: &ffi::cmd_parms) -> Option<String> {
    let mut directive = parms.directive.cast_const();
    // SAFETY: safety.md 2, 6: NULL, or a part of the tree.
    while let Some(section) = unsafe { directive.as_ref() } {
        if !section.directive.is_null() && !section.args.is_null() {
            // SAFETY: strings of the tree.
            let (name, words) = unsafe { (CStr::from_ptr(section.directive), CStr::from_ptr(section.args)) };
            if name.to_bytes().eq_ignore_ascii_case(b"<Location") {
                let words = words.to_string_lossy();
                let path = words.trim().trim_end_matches('>').trim().trim_matches('"');
                // "~" stands before a regular expression.
                return Some(path)
                    .filter(|path| !path.starts_with('~') && !path.contains(['*', '?', '[']))
                    .map(str::to_owned);
            }
        }
        directive = section.parent;
    }
    None
}

/// A directive of an .htaccess file, as ap_check_cmd_context sees it.
pub(super) fn is_htaccess(parms: &ffi::cmd_parms) -> bool {
    parms.pool == parms.temp_pool
}
