//! Who says what in a request: this module to applications, in header lines that no client may send; and the engine to httpd, by
//! the token that only they share.

use super::ApplicationConfig;
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::engine::application::reserved::{self, is_reserved};
use crate::engine::application::{grip_sig, token};
use crate::front::WebSocket;
use std::ffi::{CStr, CString};
use std::net::IpAddr;

/// This module has made the request: for applications, and for `Require env`.
const TRUSTED: &CStr = c"WEBSOCKET_TRUSTED";
static YES: &CStr = c"1";

/// What is set in questions to applications.
pub(crate) const ENVIRONMENT: &[(&CStr, &CStr)] = &[(TRUSTED, c"1")];

/// The notes on a request of the engine, and on one whose client has come over TLS.
const NOTE: &CStr = c"websocket-trusted";
const SECURE: &CStr = c"websocket-secure";
static ON: &CStr = c"on";

/// A request has come, or was redirected inside httpd.
pub(crate) fn arrived(request: &mut Request) {
    if request.is_subrequest() {
        return;
    }
    // It has the header lines of the one that it was redirected from, which were seen to.
    if !request.is_redirected() {
        judge(request);
    }
    if request.was_noted(NOTE) {
        request.variables().set_constant(TRUSTED, YES);
    }
    if request.was_noted(SECURE) {
        request.variables().set_constant(c"HTTPS", ON);
    }
}

/// Takes away what only this module may say, unless it does; and what is between the engine and httpd in any case.
fn judge(request: &mut Request) {
    let lines: Vec<(CString, CString)> = request
        .headers_in()
        .lines()
        .filter(|(name, _)| is_reserved(name.to_bytes()))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if lines.is_empty() {
        return;
    }
    let find = |wanted: &str| {
        let mut lines = lines.iter().filter(|(name, _)| name.to_bytes().eq_ignore_ascii_case(wanted.as_bytes()));
        lines.next().map(|(_, value)| value.to_bytes())
    };
    if find(reserved::TOKEN).is_some_and(token::is) {
        request.notes().set_constant(NOTE, YES);
        let client: Option<IpAddr> =
            find(reserved::CLIENT).and_then(|client| std::str::from_utf8(client).ok()?.parse().ok());
        if let Some(client) = client {
            request.set_client_address(client);
        }
        if find(reserved::SECURE).is_some_and(|secure| secure.eq_ignore_ascii_case(b"on")) {
            request.notes().set_constant(SECURE, ON);
        }
        for (name, _) in lines.iter().filter(|(name, _)| is_internal(name.to_bytes())) {
            request.headers_in().unset(name);
        }
        return;
    }
    let is_signed = is_signed(request, find(reserved::GRIP_SIG));
    for (name, _) in &lines {
        let name_text = name.to_string_lossy();
        if is_signed && !reserved::normal(&name_text).starts_with("websocket-") {
            continue;
        }
        request.headers_in().unset(name);
        let text =
            format!("WS0066: the header {} is taken away: only this module may send it", name_text.escape_debug());
        log::request(Level::Debug, request, &text);
    }
}

/// It is of a GRIP proxy whose key is configured.
fn is_signed(request: &Request, signature: Option<&[u8]>) -> bool {
    let config = request.config::<WebSocket>().of::<ApplicationConfig>();
    let Some((Some(key), signature)) = config.grip_key.as_ref().zip(signature) else { return false };
    std::str::from_utf8(signature).is_ok_and(|signature| key.has_signed(signature, grip_sig::now()))
}

/// Never reaches an application.
fn is_internal(name: &[u8]) -> bool {
    [reserved::TOKEN, reserved::CLIENT, reserved::SECURE].iter().any(|internal| reserved::is_same(name, internal))
}
