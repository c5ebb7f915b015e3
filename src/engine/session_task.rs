//! The task of a session: from its begin on a thread to its line in the session log. A panic in it ends no other.

use super::connection::Conn;
use super::handle::ConnectionHandle;
use super::handler::{HandlerSession, LocalBoxFuture, MessageSession, StreamSession, Streams};
use super::health::heartbeat::{self, Activity};
use super::metrics::{self, Transport};
use super::raw::{RawStream, RawSummary};
use super::socket::Socket;
use super::summary::{End, Summary, Traffic};
use super::thread::{Registered, ThreadState};
use super::{Adoption, Limits, SessionSource, SessionSpec};
use crate::wire::{CloseCode, close};
use bytes::Bytes;
use log::{debug, error};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub(super) fn begin(adoption: Adoption, shared: &Rc<ThreadState>) {
    let Adoption { socket, mut spec, early, id, places, link, backend, handler, session } = adoption;
    let limits = match session {
        HandlerSession::Messages(_) => &spec.limits,
        // What the client says is not for the clock to see.
        HandlerSession::Stream(_) => {
            &Limits { ping: None, idle_timeout: None, message_timeout: None, ..spec.limits.clone() }
        }
    };
    let registered = shared.enter(id, limits);
    registered.count(matches!(socket, SessionSource::Mux(_)), series(shared, &socket, &spec));
    registered.handle.handler.set(handler);
    match session {
        HandlerSession::Messages(session) => {
            registered.handle.takes_changes.set(session.takes_changes());
            registered.name(&mut spec);
            let socket = match socket {
                SessionSource::Unanswered(unanswered) => Socket::answering(*unanswered),
                other => shared.socket(other, id).map(|socket| (socket, Bytes::new())),
            };
            let (socket, rest) = match socket {
                Ok(socket) => socket,
                Err(e) => return error!("WS0112: session {id}: cannot take over its socket: {e}"),
            };
            // It decodes what came with the handshake: a panic there is one session's, too.
            match catch_unwind(AssertUnwindSafe(|| Conn::new(registered, socket, spec, &early, places, link))) {
                Ok(conn) => {
                    conn.say_first(rest);
                    drop(tokio::task::spawn_local(Box::pin(live(conn, session))));
                }
                Err(panic) => error!("WS0108: session {id}: a panic at its start: {}", panic_text(&*panic)),
            }
        }
        HandlerSession::Stream(session) => {
            registered.name(&mut spec);
            let raw = RawStream::new(registered, spec, places);
            let streams = Box::new(Streams { client: socket, early, backend });
            tokio::task::spawn_local(Box::pin(live_raw(raw, session, streams)));
        }
    }
}

/// What such a session counts as.
fn series(shared: &ThreadState, socket: &SessionSource, spec: &SessionSpec) -> u16 {
    let opening = spec.opening.as_deref();
    let transport = match socket {
        SessionSource::Tls(..) => Transport::Tls,
        SessionSource::Unanswered(unanswered) if unanswered.tls.is_some() => Transport::Tls,
        SessionSource::Unanswered(_) => Transport::Socket,
        SessionSource::Mux(_) => Transport::Mux,
        // It may be that of a relay.
        SessionSource::Socket(_) => opening.map_or(Transport::Socket, |opening| opening.transport),
    };
    shared.metrics.series(&spec.handler.name, transport, opening.map_or("", |opening| &opening.vhost))
}

/// A session's life. To be boxed, all of it: tokio's tasks are multiples of 128 bytes, and one that holds a box is the smallest.
/// What is captured is used where it is, since a future has room for a value in each place that it moves to.
#[expect(clippy::manual_async_fn, reason = "an async fn moves its arguments")]
fn live(mut conn: Conn, session: Box<dyn MessageSession>) -> impl Future<Output = ()> {
    async move {
        let handle = conn.handle().clone();
        let verdict = guarded(handle, session.run(&mut conn), || close(CloseCode::Error, "internal error")).await;
        // Boxed, so that an open session keeps no room for its end.
        let (summary, registered) = Box::pin(conn.finish(verdict)).await;
        note_end(&summary, registered);
    }
}

/// The life of a session whose bytes are somebody else's. As [`live`].
#[expect(clippy::manual_async_fn, reason = "an async fn moves its arguments")]
fn live_raw(raw: RawStream, session: Box<dyn StreamSession>, streams: Box<Streams>) -> impl Future<Output = ()> {
    async move {
        let panicked = || RawSummary {
            end: End::Lost(io::Error::other("the handler panicked")),
            received: Traffic::default(),
            sent: Traffic::default(),
        };
        let ending = guarded(raw.handle().clone(), session.run(*streams, &raw), panicked).await;
        let (summary, registered) = raw.finish(ending);
        note_end(&summary, registered);
    }
}

/// What a handler does; a panic in it ends its session and no other.
fn guarded<'a, T: 'a>(
    handle: Rc<ConnectionHandle>,
    mut running: LocalBoxFuture<'a, T>,
    panicked: impl Fn() -> T + 'a,
) -> impl Future<Output = T> + 'a {
    std::future::poll_fn(move |cx| {
        let _at = heartbeat::at(Activity::Session, handle.handler.get());
        catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))).unwrap_or_else(|panic| {
            error!("WS0110: session {}: the handler panicked: {}", handle.id, panic_text(&*panic));
            std::task::Poll::Ready(panicked())
        })
    })
}

fn note_end(summary: &Summary, registered: Registered) {
    let id = registered.handle.id;
    // First, so that whoever reads of the end here finds the session logs in the same order.
    registered.shared.logs.note(id, summary);
    let Summary { received, sent, end, .. } = summary;
    debug!("WS0103: session {id} ended: {end}; received {received}, sent {sent}");
    // It counts until then.
    drop(registered);
    metrics::here().note_closed(end.code());
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::chunk;
    use crate::engine::writer::Writer;
    use crate::handlers::echo::Echo;
    use crate::tls::stream::Tls;
    use std::cell::RefCell;
    use std::cmp::Reverse;
    use std::mem::{size_of, size_of_val};

    /// What an idle session costs, but for what tokio keeps of its socket, and the texts of its specification.
    #[tokio::test]
    async fn an_idle_session_is_small() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let spec = crate::engine::testing::spec("echo");
        let shared = Rc::new(ThreadState::new());
        let (registered, socket) = (shared.enter(1, &spec.limits), Socket::new(socket.into()).unwrap());
        let mut conn = Conn::new(registered, socket, spec, &[], vec![], None);
        let handler = size_of_val(&*Box::new(Echo).run(&mut conn));
        let (of_conn, task) = (size_of::<Conn>(), size_of_val(&live(conn, Box::new(Echo))));
        let writer = 16 + size_of::<RefCell<Writer>>();
        let handle = 16 + size_of::<ConnectionHandle>();
        let look = size_of::<Reverse<(u32, u64)>>() + size_of::<(u64, Rc<ConnectionHandle>)>();
        let sizes = format!(
            "task {task}, of it Conn {of_conn}; Writer {writer}; ConnectionHandle {handle}; echo {handler}; maps {look}"
        );
        let (of_socket, tls) = (size_of::<Socket>(), size_of::<Tls>());
        let sizes = format!("{sizes}; Socket {of_socket}; Tls {tls}");
        eprintln!("{sizes}");
        // What a connection over TLS has more.
        assert!(chunk(tls) <= 368, "{sizes}");
        assert!([task, writer, handle, handler].map(chunk).iter().sum::<usize>() + look <= 704, "{sizes}");
    }
}
