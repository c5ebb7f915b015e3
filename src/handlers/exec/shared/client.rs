//! A session of a shared program.

use super::registry::SharedPrograms;
use super::{Down, Event, Join, Launch, gone};
use crate::engine::{Conn, LocalBoxFuture, MessageSession};
use crate::handlers::exec::group::Groups;
use crate::handlers::exec::session::{end_of, environment_of};
use crate::handlers::exec::settings::{Shared, Variable};
use crate::wire::{CloseCode, CloseFrame, close};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What waits for a client's task, which is never long.
const MESSAGES: usize = 32;
/// How often it is looked whether a client is still there that has to wait.
const LOOK: Duration = Duration::from_secs(1);

/// A session that was accepted.
pub struct Opening {
    pub(in crate::handlers::exec) registry: Arc<SharedPrograms>,
    pub(in crate::handlers::exec) groups: Arc<Groups>,
    pub(in crate::handlers::exec) shared: Shared,
    pub(in crate::handlers::exec) environment: Vec<Variable>,
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
    let (client, mut messages) = mpsc::channel(MESSAGES);
    let launch = Launch { shared, stop_timeout, limit };
    let mut first = Event::Join(Box::new(Join { id, environment, client, launch }));
    let events = loop {
        let events = registry.events(&groups, &key);
        match give(conn, &events, &mut messages, first).await {
            Given::Taken => break events,
            // It has just ended.
            Given::Gone(event) => first = event,
            Given::Closing => return close(CloseCode::Normal, ""),
            Given::Closed(frame) => return frame,
        }
    };
    drop(key);
    let verdict = converse(conn, &events, &mut messages).await;
    let (code, reason) = match (conn.end(), &verdict) {
        (None, Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        _ => end_of(conn),
    };
    // The client needs not wait for it.
    tokio::task::spawn_local(async move {
        let _ = events.send(Event::Leave(id, code, reason)).await;
    });
    verdict.unwrap_or_else(|| close(CloseCode::Normal, ""))
}

/// Moves messages until the session ends; yields what the program closes it with, if it does.
async fn converse(
    conn: &mut Conn,
    events: &mpsc::Sender<Event>,
    messages: &mut mpsc::Receiver<Down>,
) -> Option<CloseFrame> {
    let id = conn.id();
    loop {
        tokio::select! {
            message = conn.recv() => match give(conn, events, messages, Event::Message(id, message?)).await {
                Given::Taken => {}
                Given::Closing => return None,
                Given::Closed(frame) => return Some(frame),
                Given::Gone(_) => return Some(gone()),
            },
            down = messages.recv() => match down {
                Some(Down::Message(message)) => conn.push(&message).ok()?,
                Some(Down::Close(frame)) => return Some(frame),
                None => return Some(gone()),
            },
        }
    }
}

/// What became of an event.
enum Given {
    Taken,
    /// The supervisor has ended before it took it.
    Gone(Event),
    /// The session is closing.
    Closing,
    /// The program closes the session.
    Closed(CloseFrame),
}

/// Gives the supervisor an event as soon as it takes it. The client is not read meanwhile, but gets its messages.
async fn give(
    conn: &mut Conn,
    events: &mpsc::Sender<Event>,
    messages: &mut mpsc::Receiver<Down>,
    event: Event,
) -> Given {
    loop {
        tokio::select! {
            biased;
            permit = events.reserve() => {
                return match permit {
                    Ok(permit) => {
                        permit.send(event);
                        Given::Taken
                    }
                    Err(_) => Given::Gone(event),
                };
            }
            () = conn.tend() => return Given::Closing,
            () = tokio::time::sleep(LOOK) => {
                if conn.notice_end() {
                    return Given::Closing;
                }
            }
            // Its sender may be in the event.
            Some(down) = messages.recv() => match down {
                Down::Message(message) => {
                    if conn.push(&message).is_err() {
                        return Given::Closing;
                    }
                }
                Down::Close(frame) => return Given::Closed(frame),
            },
        }
    }
}
