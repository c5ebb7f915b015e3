//! A session of a shared program.

use super::registry::SharedPrograms;
use super::{Join, Launch, ToClient, ToSupervisor, gone};
use crate::engine::bridge::{self, Backend, Said};
use crate::engine::{Conn, LocalBoxFuture, MessageSession};
use crate::handlers::exec::group::Groups;
use crate::handlers::exec::session::{end_of, environment_of};
use crate::handlers::exec::settings::{EnvironmentVariable, Shared};
use crate::wire::{CloseCode, CloseFrame, Message, close};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// What waits for a client's task, which is never long.
const MESSAGES: usize = 32;
/// How often it is looked whether a client is still there that has to wait.
const LOOK: Duration = Duration::from_secs(1);

pub struct Opening {
    pub(in crate::handlers::exec) registry: Arc<SharedPrograms>,
    pub(in crate::handlers::exec) groups: Arc<Groups>,
    pub(in crate::handlers::exec) shared: Shared,
    pub(in crate::handlers::exec) environment: Vec<EnvironmentVariable>,
    pub(in crate::handlers::exec) stop_timeout: Duration,
}

impl MessageSession for Opening {
    fn run(self: Box<Self>, conn: &mut Conn) -> LocalBoxFuture<'_, CloseFrame> {
        Box::pin(run(*self, conn))
    }
}

async fn run(opening: Opening, conn: &mut Conn) -> CloseFrame {
    let Opening { registry, groups, shared, environment, stop_timeout } = opening;
    let id = conn.id();
    let limit = conn.spec().limits.max_message_size;
    let key = (shared.place.clone(), conn.spec().handler.args.clone());
    let environment = serde_json::Value::Object(environment_of(environment, conn)).to_string().into_bytes();
    let (client, messages) = mpsc::channel(MESSAGES);
    let launch = Launch { shared, stop_timeout, limit };
    let pending = Some(ToSupervisor::Join(Box::new(Join { id, environment, client, launch })));
    let find = move || registry.events(&groups, &key);
    let mut client =
        SharedClient { id, events: find(), messages, pending, find: Some(Box::new(find)), said: None, gone: false };
    let closed = bridge::run(conn, &mut client, LOOK).await;
    let (code, reason) = match (conn.end(), &closed) {
        (None, Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        _ => end_of(conn),
    };
    // The client needs not wait for it.
    tokio::task::spawn_local(async move {
        let _ = client.events.send(ToSupervisor::Leave(id, code, reason)).await;
    });
    closed.unwrap_or_else(|| close(CloseCode::Normal, ""))
}

struct SharedClient {
    id: u64,
    events: mpsc::Sender<ToSupervisor>,
    messages: mpsc::Receiver<ToClient>,
    /// What the supervisor has not taken yet. The client is not read meanwhile.
    pending: Option<ToSupervisor>,
    /// The way to another supervisor, until one has the client.
    find: Option<Box<dyn Fn() -> mpsc::Sender<ToSupervisor>>>,
    said: Option<ToClient>,
    gone: bool,
}

impl Backend for SharedClient {
    type End = CloseFrame;

    fn has_room(&self) -> bool {
        self.pending.is_none()
    }

    fn put(&mut self, message: Message) {
        self.pending =
            self.events.try_send(ToSupervisor::Message(self.id, message)).err().map(TrySendError::into_inner);
    }

    async fn turn(&mut self) {
        let given = tokio::select! {
            biased;
            permit = self.events.reserve(), if self.pending.is_some() => permit.is_ok_and(|permit| {
                if let Some(event) = self.pending.take() {
                    permit.send(event);
                }
                true
            }),
            // Its sender may be in the event.
            down = self.messages.recv() => {
                self.gone = down.is_none();
                self.said = down;
                return;
            }
        };
        match &self.find {
            _ if given => self.find = None,
            // It has just ended.
            Some(find) => self.events = find(),
            None => self.gone = true,
        }
    }

    fn said(&mut self) -> Option<Said<CloseFrame>> {
        match self.said.take().or_else(|| self.messages.try_recv().ok()) {
            Some(ToClient::Message(message)) => Some(Said::Shared(message)),
            Some(ToClient::Close(frame)) => Some(Said::End(frame)),
            None => self.gone.then(|| Said::End(gone())),
        }
    }
}
