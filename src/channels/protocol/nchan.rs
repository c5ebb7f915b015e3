//! The subprotocol `ws+meta.nchan`: messages after nchan's lines of metadata
//! (<https://nchan.io/#subscriber-websocket>). What clients send is published as it is.

use super::bare::Bare;
use super::{ClientEvent, ClientRequest, DecodeError, Protocol, Reference};
use crate::engine::Broadcast;
use crate::wire::Message;
use std::sync::Arc;

pub const NAME: &str = "ws+meta.nchan";

pub struct Nchan;

impl Protocol for Nchan {
    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: Message) -> Result<ClientRequest, DecodeError> {
        Bare.decode(message)
    }

    fn encode(&self, event: &ClientEvent<'_>, _: Option<&Reference>) -> Option<Arc<Broadcast>> {
        let ClientEvent::Message { publication, .. } = event else { return None };
        let message = publication.message();
        let mut whole = format!("id: {}\n", publication.id()).into_bytes();
        if let Some(content_type) = publication.content_type() {
            whole.extend_from_slice(format!("content-type: {content_type}\n").as_bytes());
        }
        whole.push(b'\n');
        whole.extend_from_slice(message.payload());
        Some(Arc::new(if message.is_text() {
            // Both parts are UTF-8.
            Broadcast::text(String::from_utf8(whole).unwrap_or_default().into())
        } else {
            Broadcast::binary(whole.into())
        }))
    }
}
