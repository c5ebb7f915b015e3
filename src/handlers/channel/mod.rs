//! `WebSocketHandler channel NAME …`: what is published to a channel reaches every client that is subscribed to it.
//!
//! * `session`: one client
//!
//! A message goes from its publisher to the hub, which numbers and keeps it; from there to each thread that has
//! subscribers; there into the mailboxes of their connections ([`crate::engine::handle::ConnectionHandle::enqueue`]).

#[cfg(feature = "httpd")]
pub(crate) mod batch;
#[cfg(feature = "httpd")]
pub(crate) mod config;
#[cfg(feature = "httpd")]
pub(crate) mod front;
#[cfg(any(test, feature = "httpd"))]
mod media_type;
#[cfg(any(test, feature = "httpd"))]
mod ndjson;
#[cfg(feature = "httpd")]
pub(crate) mod publish;
#[cfg(feature = "httpd")]
pub(crate) mod revoke;
pub(crate) mod session;

use crate::channels::hub::Hub;
use crate::channels::subscription::{ServerSettings, Subscription};
use crate::channels::{Error, api};
use crate::engine::metrics::EngineArea;
use crate::engine::revocation::Directory;
use crate::engine::{Accepted, Handler, LocalBoxFuture, Refused, Rejection, Response, SessionSpec};
use bytes::Bytes;
use log::error;
use session::{ChannelOpening, Since};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(feature = "httpd")]
pub(crate) use front::FRONT;

/// As in `WebSocketHandler channel`.
#[cfg(feature = "httpd")]
const NAME: &str = "channel";
/// How often what is too old is looked for.
const SWEEP: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Channel {
    hub: Arc<Hub>,
    sweeps: OnceLock<()>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { status: error.status(), reason: error.to_string() }
    }
}

impl Handler for Channel {
    fn connect(&self, directory: &Arc<Directory>) {
        self.hub.connect(directory);
    }

    fn accept<'a>(&'a self, spec: &'a SessionSpec) -> LocalBoxFuture<'a, Result<Accepted, Rejection>> {
        Box::pin(async {
            let wrong = |e| Refused { status: 500, reason: format!("no subscription: {e}") };
            let subscription: Subscription = postcard::from_bytes(&spec.handler.settings).map_err(wrong)?;
            self.hub.admit(&subscription.channels).await.map_err(Refused::from)?;
            let since = Since::of(subscription.since.as_deref());
            let recovered = since.recovers(&self.hub, &subscription.channels).await;
            let since = since.fixed(&self.hub);
            let headers = recovered.iter().map(|is| ("WebSocket-Recovered".into(), is.to_string())).collect();
            let opening =
                ChannelOpening { hub: self.hub.clone(), subscription: Box::new(subscription), since, recovered };
            Ok(Accepted { response: Response::Standard(headers), ..Accepted::messages(opening) })
        })
    }

    fn call(&self, request: Vec<u8>, payload: Bytes) -> LocalBoxFuture<'_, Result<Vec<u8>, Refused>> {
        Box::pin(async move {
            let wrong = |e: postcard::Error| Refused { status: 500, reason: format!("no call of a channel: {e}") };
            let command: api::Command = postcard::from_bytes(&request).map_err(wrong)?;
            postcard::to_stdvec(&self.hub.execute(command, payload).await.map_err(Refused::from)?).map_err(wrong)
        })
    }

    fn measure(&self, gauges: EngineArea) {
        self.hub.measure(gauges);
    }

    fn end(&self, _limit: Duration) -> Option<LocalBoxFuture<'_, ()>> {
        Some(Box::pin(self.hub.end()))
    }

    fn configure(&self, settings: &[u8]) {
        match postcard::from_bytes::<ServerSettings>(settings) {
            Ok(settings) => self.hub.configure(&settings),
            Err(e) => error!("WS0125: the configuration of channels cannot be read: {e}"),
        }
        self.sweeps.get_or_init(|| {
            let hub = self.hub.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    hub.sweep();
                }
            });
        });
    }
}

pub fn handler() -> impl Handler {
    Channel { hub: Hub::common(), ..Channel::default() }
}

#[cfg(test)]
mod tests;
