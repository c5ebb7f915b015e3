//! A session: bytes from its client's messages to the target, and the target's bytes in messages to the client.
//!
//! Who does not take holds the other up: nothing is read from a target whose client has a full send buffer, nor from a client
//! whose target lets its queue fill up.

use super::link::{TargetEvent, TargetLink};
use crate::engine::{Conn, LocalBoxFuture, MessageSession, bridge, metrics};
use crate::wire::{CloseCode, CloseFrame, close};
use log::{debug, error};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a target may take nothing of what a client that has gone has left for it.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long the target then has to end its side. Closing while it still talks could turn the last bytes for it into a reset.
const LINGER: Duration = Duration::from_secs(2);
/// How often it is looked whether a client is still there that is not read.
const LOOK: Duration = Duration::from_secs(5);

pub struct Opening {
    pub(super) target: OwnedFd,
}

impl MessageSession for Opening {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        let link = TargetLink::new(self.target);
        Box::pin(async {
            let _open = metrics::here().backend();
            match link {
                Ok(link) => Box::pin(live(conn, link)).await,
                Err(why) => {
                    error!("WS0143: session {}: the connection to its target cannot be watched: {why}", conn.id());
                    close(CloseCode::Error, "internal error")
                }
            }
        })
    }
}

async fn live(conn: &mut Conn, mut link: TargetLink) -> CloseFrame {
    let end = bridge::run(conn, &mut link, LOOK).await;
    // Both what the client said last, and that it says no more, are still for the target.
    tokio::task::spawn_local(take_leave(link));
    match end {
        None => close(CloseCode::Normal, ""),
        Some(end) => {
            // What the target said before is not to be cut off by the time that the closing handshake may take.
            let _ = conn.flush().await;
            match end {
                Ok(()) => close(CloseCode::Normal, ""),
                Err(why) => {
                    debug!("WS0144: session {}: its target is lost: {why}", conn.id());
                    close(CloseCode::Error, "the connection to the target was lost")
                }
            }
        }
    }
}

/// Lets the target have what its client has said last, and waits until it has heard that this was all.
async fn take_leave(mut link: TargetLink) {
    let mut talks = true;
    while link.has_more() {
        let taken = async {
            while talks {
                match poll_fn(|cx| link.poll_turn(cx)).await {
                    TargetEvent::Taken => return true,
                    // It may want to get rid of that first.
                    TargetEvent::Said(_) => {}
                    // It may still listen.
                    TargetEvent::End(Ok(())) => talks = false,
                    TargetEvent::End(Err(_)) => return false,
                }
            }
            poll_fn(|cx| link.poll_write(cx)).await;
            true
        };
        if !tokio::time::timeout(LAST_WORDS, taken).await.unwrap_or(false) {
            return;
        }
    }
    link.end_writing();
    let rest = async { while let TargetEvent::Said(_) = poll_fn(|cx| link.poll_turn(cx)).await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}
