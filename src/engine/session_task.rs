//! The task of a session: from its begin on a thread to its line in the session log. A panic in it ends no other.

use super::connection::Conn;
use super::handle::ConnectionHandle;
use super::handler::{HandlerSession, LocalBoxFuture, MessageSession, StreamSession, Streams};
use super::health::heartbeat::{self, Activity};
use super::raw::{RawStream, RawSummary};
use super::session_log::SessionLogs;
use super::summary::{End, Summary, Traffic};
use super::thread::{SessionCountGuard, ThreadState};
use super::{Adoption, Limits};
use crate::wire::{CloseCode, close};
use log::{debug, error};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

pub(super) fn begin(adoption: Adoption, shared: &Rc<ThreadState>, logs: &Arc<SessionLogs>, counted: SessionCountGuard) {
    let Adoption { socket, mut spec, early, id, places, link, backend, handler, session } = adoption;
    match session {
        HandlerSession::Messages(session) => {
            let registered = shared.enter(id, &spec.limits);
            registered.handle.handler.set(handler);
            registered.handle.takes_changes.set(session.takes_changes());
            registered.name(&mut spec);
            let socket = match shared.socket(socket, id) {
                Ok(socket) => socket,
                Err(e) => return error!("WS0112: session {id}: cannot take over its socket: {e}"),
            };
            // It decodes what came with the handshake: a panic there is one session's, too.
            match catch_unwind(AssertUnwindSafe(|| Box::new(Conn::new(registered, socket, spec, &early, places, link))))
            {
                Ok(conn) => drop(tokio::task::spawn_local(live(conn, session, logs.clone(), counted))),
                Err(panic) => error!("WS0108: session {id}: a panic at its start: {}", panic_text(&*panic)),
            }
        }
        HandlerSession::Stream(session) => {
            // What the client says is not for the clock to see.
            let limits = Limits { ping: None, idle_timeout: None, message_timeout: None, ..spec.limits.clone() };
            let registered = shared.enter(id, &limits);
            registered.handle.handler.set(handler);
            registered.name(&mut spec);
            let raw = RawStream::new(registered, spec, places);
            tokio::task::spawn_local(live_raw(
                raw,
                session,
                Streams { client: socket, early, backend },
                logs.clone(),
                counted,
            ));
        }
    }
}

/// A session's life. The connection is boxed, since a future has room for a value in each place that it moves to.
async fn live(
    mut conn: Box<Conn>,
    session: Box<dyn MessageSession>,
    logs: Arc<SessionLogs>,
    counted: SessionCountGuard,
) {
    let handle = conn.handle().clone();
    let mut running = session.run(&mut conn);
    let verdict = guarded(&handle, &mut running, || close(CloseCode::Error, "internal error")).await;
    drop(running);
    // Boxed, so that an open session keeps no room for its end.
    let summary = Box::pin(conn.finish(verdict)).await;
    note_end(handle.id, &summary, &logs);
    drop(counted);
}

/// The life of a session whose bytes are somebody else's.
async fn live_raw(
    raw: RawStream,
    session: Box<dyn StreamSession>,
    streams: Streams,
    logs: Arc<SessionLogs>,
    counted: SessionCountGuard,
) {
    let handle = raw.handle().clone();
    let mut running = session.run(streams, &raw);
    let panicked = || RawSummary {
        end: End::Lost(io::Error::other("the handler panicked")),
        received: Traffic::default(),
        sent: Traffic::default(),
    };
    let ending = guarded(&handle, &mut running, panicked).await;
    drop(running);
    note_end(handle.id, &raw.finish(ending), &logs);
    drop(counted);
}

/// What a handler does; a panic in it ends its session and no other.
fn guarded<'a, T>(
    handle: &'a ConnectionHandle,
    running: &'a mut LocalBoxFuture<'_, T>,
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

fn note_end(id: u64, summary: &Summary, logs: &SessionLogs) {
    // First, so that whoever reads of the end here finds the session logs in the same order.
    logs.note(id, summary);
    let Summary { received, sent, end, .. } = summary;
    debug!("WS0103: session {id} ended: {end}; received {received}, sent {sent}");
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
    use crate::engine::SessionSpec;
    use crate::engine::socket::Socket;
    use crate::engine::writer::Writer;
    use crate::handlers::echo::Echo;
    use std::cell::RefCell;
    use std::cmp::Reverse;
    use std::mem::{size_of, size_of_val};

    /// What an idle session costs, but for what tokio keeps of its socket and the texts of its specification.
    #[tokio::test]
    async fn an_idle_session_is_small() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let spec = crate::engine::testing::spec("echo");
        let shared = Rc::new(ThreadState::new());
        let (registered, socket) = (shared.enter(1, &spec.limits), Socket::new(socket.into()).unwrap());
        let mut conn = Box::new(Conn::new(registered, socket, spec, &[], vec![], None));
        let handler = size_of_val(&*Box::new(Echo).run(&mut conn));
        let task = size_of_val(&live(conn, Box::new(Echo), Arc::default(), SessionCountGuard(Arc::default(), false)));
        let look = size_of::<Reverse<(u32, u64)>>() + size_of::<(u64, Rc<ConnectionHandle>)>();
        let conn = size_of::<Conn>() + size_of::<RefCell<Writer>>();
        let (handle, spec) = (size_of::<ConnectionHandle>(), size_of::<SessionSpec>());
        let sizes =
            format!("Conn {conn}; task {task}; ConnectionHandle {handle}; spec {spec}; echo {handler}; maps {look}");
        eprintln!("{sizes}");
        assert!(handle <= 128, "{sizes}");
        assert!(conn + task + handle + spec + handler + look <= 1200, "{sizes}");
    }
}
