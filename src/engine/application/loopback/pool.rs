//! The connections of a thread, and those that are kept for the next request.
//!
//! A connection has no task: whoever waits for an answer drives it meanwhile.

use super::HttpAnswer;
use super::connect::{Peer, Stream};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

/// How long a connection is kept. httpd ends one after KeepAliveTimeout, 5 s by default.
const IDLE: Duration = Duration::from_secs(2);
/// Connections that are kept.
const KEPT: usize = 32;
/// Bytes of the longest head of an answer.
const MAX_HEAD: usize = 64 << 10;

/// What moves the bytes of a connection.
type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None`: it has ended.
    driver: Option<Box<Driver>>,
    /// It had a request before: its end says nothing of who is asked.
    pub(super) is_used: bool,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// Nothing of the request was sent.
    NotSent(String),
    NoAnswer(String),
    Broken(String),
}

impl Connection {
    async fn new(peer: &Peer) -> io::Result<Connection> {
        let stream = TokioIo::new(peer.connect().await?);
        let (sender, driver) =
            Builder::new().max_buf_size(MAX_HEAD).handshake(stream).await.map_err(io::Error::other)?;
        Ok(Connection { sender, driver: Some(Box::new(driver)), is_used: false })
    }

    /// Sends a request, and takes in all of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        max_body: usize,
    ) -> Result<HttpAnswer, Failure> {
        let response = self.sender.try_send_request(request);
        let answer = async {
            let response = response.await.map_err(|mut failure| {
                let is_unsent = failure.take_message().is_some();
                let why = failure.into_error().to_string();
                if is_unsent { Failure::NotSent(why) } else { Failure::NoAnswer(why) }
            })?;
            take_in(response, max_body).await.map_err(Failure::Broken)
        };
        drive(&mut self.driver, answer).await
    }

    /// Its end, if it has been seen, is no end of a request.
    async fn is_good(&mut self) -> bool {
        let Connection { sender, driver, .. } = self;
        drive(driver, sender.ready()).await.is_ok()
    }
}

/// Waits for something that only this connection brings.
async fn drive<T>(driver: &mut Option<Box<Driver>>, work: impl Future<Output = T>) -> T {
    // It is looked at whenever the connection has done something: it need wake nobody for that, nor let others have their turn.
    let mut work = pin!(unconstrained(work));
    poll_fn(|cx| {
        if driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(cx).is_ready()) {
            // Whoever waits for it is told.
            *driver = None;
        }
        work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    })
    .await
}

async fn take_in(response: Response<Incoming>, max_body: usize) -> Result<HttpAnswer, String> {
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, max_body).collect().await.map_err(|why| match why.downcast::<LengthLimitError>() {
            Ok(_) => format!("its answer has more than {max_body} bytes"),
            Err(why) => format!("its answer breaks off: {why}"),
        })?;
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Ok(HttpAnswer { status: head.status.as_u16(), headers: headers.collect(), body: body.to_bytes() })
}

#[derive(Default)]
struct Pool {
    kept: HashMap<Arc<Peer>, Vec<(Instant, Connection)>>,
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
            connections.retain(|(since, _)| now - *since < IDLE);
            !connections.is_empty()
        });
        self.count = self.kept.values().map(Vec::len).sum();
    }
}

/// A connection that is kept, or a new one. `may_repeat`: what nobody reads is sent once more.
pub(super) async fn take(peer: &Peer, may_repeat: bool) -> io::Result<Connection> {
    while let Some(mut connection) = POOL.with_borrow_mut(|pool| pool.take(peer)) {
        if !may_repeat {
            // If its end has come already, it is seen now: what is sent first is lost.
            tokio::task::yield_now().await;
        }
        if connection.is_good().await {
            return Ok(connection);
        }
    }
    Connection::new(peer).await
}

/// All of its answer was read.
pub(super) fn put_back(peer: &Arc<Peer>, connection: Connection) {
    POOL.with_borrow_mut(|pool| {
        if pool.count >= KEPT || connection.driver.is_none() {
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
