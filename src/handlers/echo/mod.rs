//! `WebSocketHandler echo`: every message goes back as it came, text as text and binary as binary.

use crate::engine::{Accepted, Conn, Handler, LocalBoxFuture, MessageSession, Rejection, SessionSpec};
#[cfg(feature = "httpd")]
use crate::front::handler::{Plain, Registration};
use crate::wire::{CloseCode, CloseFrame, close};

pub struct Echo;

impl Handler for Echo {
    fn accept<'a>(&'a self, _: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async { Ok(Accepted::messages(Echo)) })
    }
}

impl MessageSession for Echo {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(async {
            loop {
                // In `while let` the state of an idle session would have room for a message.
                let Some(message) = conn.recv_answering(|message| Some(message)).await else { break };
                if conn.send(message).await.is_err() {
                    break;
                }
            }
            close(CloseCode::Normal, "")
        })
    }
}

pub fn handler() -> impl Handler {
    Echo
}

#[cfg(feature = "httpd")]
pub(crate) const FRONT: Registration = Registration { front: &Plain("echo"), directives: &[] };
