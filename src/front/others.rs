//! The requests that are another module's to answer, or httpd's alone, whatever is configured where they are served:
//! `docs/other-modules.md` says which, and why.
//!
//! Our content handler runs before those of other modules, so that a socket can share its URL with anything. Where httpd or
//! another module has decided what is to become of a request, that holds for a handshake as for a page.

use crate::apache::log::{self, Level};
use crate::apache::request::{Proxying, Request};
use crate::front::WebSocket;
use crate::front::upgrade;
use std::ffi::CStr;

/// Modules that let in a client who has not logged in, to say in their content handlers how to: mod_auth_openidc with several
/// providers (discovery) and for POST; mod_auth_mellon for clients of SAML's ECP profile. Both decline what is not theirs.
pub const HANDLERS_BEFORE: &[&CStr] = &[c"mod_auth_openidc.c", c"mod_auth_mellon.c"];

/// mod_rewrite's, for a rewrite in a directory: it says where to in its content handler, by an internal redirect.
const REDIRECT_HANDLER: &str = "redirect-handler";

/// The note on a request that goes to another server; its values: since it was read, or by its URL (`ProxyPass`, or a
/// `RewriteRule` of the server). A handler that is configured for a part of these URLs is an exception to the latter, as
/// `ProxyPass /part !` is one for pages. Any other decision is about the request: of a firewall, or of a rule in a directory.
const PROXIED: &CStr = c"websocket-proxied";
static EARLY: &CStr = c"early";
static BY_URL: &CStr = c"by URL";
/// By a handler of ours, whatever was decided before.
static ROUTED: &CStr = c"by WebSocketHandler";

/// A request has been read.
pub fn note_proxied_early(request: &Request) {
    if request.proxying() == Proxying::Reverse {
        request.notes().set_constant(PROXIED, EARLY);
    }
}

/// The URL of a request has been looked up.
pub fn note_proxied_by_url(request: &Request) {
    if request.proxying() == Proxying::Reverse && request.notes().find(PROXIED).is_null() {
        request.notes().set_constant(PROXIED, BY_URL);
    }
}

/// A handler of ours sends a request to another server.
pub fn note_routed(request: &Request) {
    request.notes().set_constant(PROXIED, ROUTED);
}

pub fn is_routed(request: &Request) -> bool {
    request.notes().find(PROXIED) == ROUTED.as_ptr()
}

/// True for a request that [`is_anothers`] would leave alone, without a word of it in the log.
pub fn may_be_ours(request: &Request) -> bool {
    why(request).is_none()
}

/// Why a request is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is a part of another one.
    Part,
    /// It is for the page that goes with an error.
    Error,
    /// A rewrite rule sends it elsewhere, or a module that looks at requests.
    Rewritten,
    /// It is for a server elsewhere, by a forward proxy.
    Elsewhere,
}

/// True for a request that is not ours, whatever is configured.
pub fn is_anothers(request: &Request) -> bool {
    let Some(why) = why(request) else { return false };
    if why == Why::Rewritten && request.config::<WebSocket>().handler().is_some() && upgrade::is_handshake(request) {
        let target = request.filename();
        log::request(
            Level::Info,
            request,
            &format!(
                "WS0030: left to httpd: a rewrite rule or another module sends this handshake to {target}; if the WebSocketHandler is to have it, \
                 write \"RewriteEngine Off\" beside that"
            ),
        );
        return true;
    }
    log::request(Level::Trace, request, &format!("left to httpd: {why:?}"));
    true
}

/// Another module is to answer it for the client: it is neither a part of another request, nor redirected inside httpd next.
pub fn is_answered_now(request: &Request) -> bool {
    let why = why(request);
    why == Some(Why::Elsewhere) || (why == Some(Why::Rewritten) && request.handler_name() != REDIRECT_HANDLER)
}

fn why(request: &Request) -> Option<Why> {
    if request.is_subrequest() {
        return Some(Why::Part);
    }
    if request.is_for_error() {
        return Some(Why::Error);
    }
    if request.handler_name() == REDIRECT_HANDLER {
        return Some(Why::Rewritten);
    }
    match request.proxying() {
        Proxying::Forward => Some(Why::Elsewhere),
        // The constants themselves, or nothing of ours.
        Proxying::Reverse if ![BY_URL, ROUTED].map(CStr::as_ptr).contains(&request.notes().find(PROXIED)) => {
            Some(Why::Rewritten)
        }
        Proxying::None | Proxying::Reverse => None,
    }
}
