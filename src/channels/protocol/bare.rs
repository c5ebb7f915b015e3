//! Messages as they were published, both ways, for clients that ask for no subprotocol of ours.

use super::{ClientCommand, ClientEvent, ClientRequest, DecodeError, Protocol, Reference};
use crate::engine::Broadcast;
use crate::wire::Message;
use std::sync::Arc;

pub const NAME: &str = "bare";

pub struct Bare;

impl Protocol for Bare {
    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: Message) -> Result<ClientRequest, DecodeError> {
        Ok(ClientRequest { command: ClientCommand::Publish { channel: None, message }, reference: None })
    }

    fn encode(&self, event: &ClientEvent<'_>, _: Option<&Reference>) -> Option<Arc<Broadcast>> {
        match event {
            ClientEvent::Message { publication, .. } => Some(publication.message().clone()),
            _ => None,
        }
    }
}
