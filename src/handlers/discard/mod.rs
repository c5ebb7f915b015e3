//! `WebSocketHandler discard`: whatever comes is read, and nothing is said, as RFC 863 has it.

use crate::engine::{Accepted, Conn, Handler, LocalBoxFuture, MessageSession, Rejection, SessionSpec};
#[cfg(feature = "httpd")]
use crate::front::handler::{Plain, Registration};
use crate::wire::{CloseCode, CloseFrame, close};

struct Discard;

impl Handler for Discard {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async { Ok(Accepted::messages(Discard)) })
    }
}

impl MessageSession for Discard {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            while conn.recv_answering(|_| None).await.is_some() {}
            close(CloseCode::Normal, "")
        })
    }
}

pub fn handler() -> impl Handler {
    Discard
}

#[cfg(feature = "httpd")]
pub(crate) const FRONT: Registration = Registration { front: &Plain("discard"), directives: &[] };
