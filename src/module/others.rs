//! The requests that are another module's to answer, or httpd's alone, whatever is configured where they are served:
//! `docs/other-modules.md` says which, and why.
//!
//! Our content handler runs before those of other modules, so that a socket can share its URL with anything. Where httpd or
//! another module has decided what is to become of a request, that holds for a handshake as for a page.

use super::WebSocket;
use crate::apache::request::{Proxying, Request};
use std::ffi::CStr;

/// Modules that let in a client who has not logged in, to say in their content handlers how to: mod_auth_openidc with several
/// providers (discovery) and for POST; mod_auth_mellon for clients of SAML's ECP profile. Both decline what is not theirs.
pub const HANDLERS_BEFORE: &[&CStr] = &[c"mod_auth_openidc.c", c"mod_auth_mellon.c"];

/// mod_rewrite's, for a rewrite in a directory: it says where to in its content handler, by an internal redirect.
const REDIRECT_HANDLER: &str = "redirect-handler";

/// The note on a request that went to another server before modules had a look at the directory that it is in.
const PROXIED: &CStr = c"websocket-proxied";

/// Notes which requests are a proxy's by their URL (`ProxyPass`, or a `RewriteRule` of the server): a handler that is
/// configured for a part of these URLs is an exception to that, as `ProxyPass /part !` is one for pages.
pub fn note_proxied(request: &Request) {
    if request.proxying() == Proxying::Reverse && request.config::<WebSocket>().handler().is_some() {
        request.notes().set_constant(PROXIED, c"1");
    }
}

/// Why a request is not ours; `None` when it may be.
pub fn who_answers(request: &Request) -> Option<&'static str> {
    if request.is_subrequest() {
        return Some("a part of another request");
    }
    if request.is_for_error() {
        return Some("the page for an error");
    }
    if request.handler_name() == REDIRECT_HANDLER {
        return Some("a rewrite sends it elsewhere");
    }
    match request.proxying() {
        Proxying::Forward => Some("for a server elsewhere"),
        Proxying::Reverse if request.notes().find(PROXIED).is_null() => Some("a rewrite sends it to another server"),
        Proxying::None | Proxying::Reverse => None,
    }
}
