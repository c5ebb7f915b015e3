//! The connections of a thread that are kept for the next request.

use super::connect::Peer;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection is kept. httpd ends one after KeepAliveTimeout, 5 s by default.
const IDLE: Duration = Duration::from_secs(2);
/// Connections that are kept.
const KEPT: usize = 32;
/// Bytes of the longest head of an answer.
const MAX_HEAD: usize = 64 << 10;

pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// It had a request before: its end says nothing of who is asked.
    pub(super) is_used: bool,
}

#[derive(Default)]
struct Pool {
    kept: HashMap<Peer, Vec<(Instant, Connection)>>,
    count: usize,
    /// Somebody looks after what is too old.
    is_swept: bool,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Pool {
    fn take(&mut self, peer: &Peer) -> Option<Connection> {
        self.sweep();
        let (_, connection) = self.kept.get_mut(peer)?.pop()?;
        self.count -= 1;
        Some(connection)
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.kept.retain(|_, connections| {
            connections.retain(|(since, connection)| now - *since < IDLE && !connection.sender.is_closed());
            !connections.is_empty()
        });
        self.count = self.kept.values().map(Vec::len).sum();
    }
}

/// A connection that is kept, or a new one.
pub(super) async fn take(peer: &Peer) -> io::Result<Connection> {
    while let Some(mut connection) = POOL.with_borrow_mut(|pool| pool.take(peer)) {
        // If its end has come already, it is seen now: what is sent first is lost.
        tokio::task::yield_now().await;
        if connection.sender.ready().await.is_ok() {
            return Ok(connection);
        }
    }
    let stream = TokioIo::new(peer.connect().await?);
    let (sender, driver) = Builder::new().max_buf_size(MAX_HEAD).handshake(stream).await.map_err(io::Error::other)?;
    // What becomes of it, who sends hears.
    tokio::spawn(async move { drop(driver.await) });
    Ok(Connection { sender, is_used: false })
}

/// All of its answer was read.
pub(super) fn put_back(peer: &Peer, connection: Connection) {
    POOL.with_borrow_mut(|pool| {
        if pool.count >= KEPT || connection.sender.is_closed() {
            return;
        }
        pool.count += 1;
        let kept = (Instant::now(), Connection { is_used: true, ..connection });
        pool.kept.entry(peer.clone()).or_default().push(kept);
        if !std::mem::replace(&mut pool.is_swept, true) {
            tokio::spawn(look_after());
        }
    });
}

/// Ends what is too old, until nothing is kept.
async fn look_after() {
    loop {
        tokio::time::sleep(IDLE).await;
        let is_over = POOL.with_borrow_mut(|pool| {
            pool.sweep();
            pool.is_swept = pool.count > 0;
            !pool.is_swept
        });
        if is_over {
            return;
        }
    }
}
