//! The shortest way of a handshake: httpd works out the 101, and one message has the engine take the session over, send it, and go on
//! with the socket. Until the engine says that it does, nothing is said to the client, and httpd may answer otherwise.

use super::custody::{Handover, Terms, answer_for, hand_over, note_client_gone, note_given};
use super::response::Head;
use super::{child, metrics, tls_handoff};
use crate::apache::request::Request;
use crate::apache::status::{BAD_REQUEST, SERVICE_UNAVAILABLE};
use crate::apache::{HookResult, HookStatus};
use crate::engine::SessionSpec;
use crate::engine::handoff::ToEngine;
use crate::tls::record::OVERHEAD;
use crate::wire::handshake::Accept;
use std::io;

/// Has the engine open a session that leaves httpd with its socket, of a handler that adds nothing to the 101.
pub(super) fn open(request: &mut Request, accept: Option<&Accept>, spec: SessionSpec, terms: Terms<'_>) -> HookResult {
    let engine = child::engine_client().ok_or(SERVICE_UNAVAILABLE)?;
    let (handover, patience) = (terms.handover, terms.patience);
    let unanswered = request.save_response();
    let head = Head::new(request, accept, &[]);
    let connection = request.connection();
    // What is left of answers to requests before this one goes first.
    connection.send_all();
    let taken = match handover {
        Handover::TlsSocket => tls_handoff::copy(connection),
        _ => connection.take_input(tls_handoff::MOST_EARLY).map(|early| (early, None)),
    };
    let ready = taken.and_then(|taken| Ok((taken, connection.bare_socket()?)));
    // Whatever becomes of it, this was the last request: filters were taken out, and the next request perhaps with what has come.
    connection.close_after();
    let ((early, tls), socket) = match ready {
        Ok(ready) if !connection.is_aborted() => ready,
        gone => {
            let why = gone.err().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
            note_client_gone(request, &"", &why);
            request.restore_response(unanswered);
            return Err(BAD_REQUEST);
        }
    };
    if handover == Handover::TlsSocket && tls.is_none() {
        // The client has sent a part of a record, and perhaps sends no more before it has its 101.
        request.restore_response(unanswered);
        return hand_over(request, accept, &spec, Terms { early, ..terms });
    }
    let bytes = head.bytes();
    let sent = bytes.len() + if tls.is_some() { OVERHEAD } else { 0 };
    let session = ToEngine::Open { spec: Box::new(spec), head: bytes, early, tls };
    match engine.open(session, socket, patience) {
        Ok(id) => {
            *terms.undo = None;
            head.note_sent(request);
            metrics::note_opened(request);
            note_given(request, id, handover);
            let connection = request.connection();
            connection.count_sent(sent);
            connection.leave_tls();
            // There is no HTTP on this connection any more, and httpd has its descriptor only to close it.
            connection.detach();
            Ok(HookStatus::Ok)
        }
        Err(why) => {
            request.restore_response(unanswered);
            answer_for(request, why)
        }
    }
}
