//! A session whose handshake the engine answers: it comes with its socket and its 101, and leaves httpd with one answer.

use super::{Arrived, HandoffServer, ServedLink, await_answer, keep_to_itself, refused};
use crate::engine::handoff::FromEngine;
use crate::engine::{HandlerSession, Response, SessionSource, SessionSpec, Unanswered};
use std::io;
use std::sync::Arc;

impl ServedLink {
    pub(super) async fn open(
        &mut self,
        server: &Arc<HandoffServer>,
        spec: SessionSpec,
        unanswered: Unanswered,
        early: Vec<u8>,
    ) -> io::Result<()> {
        self.stream.note_empty();
        let considered = server.consider(spec, self.here.number());
        let (pending, response) = match await_answer(&mut self.stream, considered).await? {
            Ok(accepted) => accepted,
            Err(refusal) => {
                // First: httpd goes on with the connection, and may be the one to end it.
                drop(unanswered);
                return self.stream.send(&refusal).await;
            }
        };
        if response != Response::default() || matches!(pending.session, HandlerSession::Stream(_)) {
            drop((unanswered, pending));
            let reason = "the handler has more to say of the handshake than httpd knows".into();
            return self.stream.send(&refused(500, reason)).await;
        }
        let id = server.ids.next();
        // Before the 101: without this answer httpd gives the client another one.
        self.stream.send(&FromEngine::Opened { id }).await?;
        if unanswered.tls.is_some() {
            keep_to_itself();
        }
        let source = SessionSource::Unanswered(Box::new(unanswered));
        self.begin(server, id, pending, Arrived { source, early, link: None, backend: None });
        Ok(())
    }
}
