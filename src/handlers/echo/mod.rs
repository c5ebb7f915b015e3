//! `WebSocketHandler echo`: every message goes back as it came, text as text and binary as binary.

use crate::engine::{Conn, Handler, Running};
use crate::wire::{CloseCode, close};

/// The echo handler.
pub struct Echo;

impl Handler for Echo {
    fn run<'a>(&'a self, conn: &'a mut Conn) -> Running<'a> {
        Box::pin(async {
            while let Some(message) = conn.recv().await {
                if conn.send(message).await.is_err() {
                    break;
                }
            }
            close(CloseCode::Normal, "")
        })
    }
}
