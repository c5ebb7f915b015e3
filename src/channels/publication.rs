//! A message of a channel, as its subscribers get it: encoded once for each way to speak, for the first who wants it.

use super::protocol::{ClientEvent, PROTOCOLS, View};
use crate::channels::{Error, Id, Payload};
use crate::engine::Broadcast;
use crate::wire::Utf8Bytes;
use bytes::Bytes;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What a kept message takes beside its payload (bytes, about).
pub const OVERHEAD: usize = 128;

type EncodedPublication = Option<Arc<Broadcast>>;

/// A message that was published to a channel.
#[derive(Debug)]
pub struct Publication {
    channel: Arc<str>,
    id: Id,
    content_type: Option<String>,
    message: Arc<Broadcast>,
    /// By the place of the protocol.
    encoded: [OnceLock<EncodedPublication>; PROTOCOLS.len()],
    /// Where a part of the channel's name is hidden.
    hiding: Mutex<Vec<(View, EncodedPublication)>>,
    since: Instant,
}

/// True for a media type that can be told to subscribers: it is a line of its own in `ws+meta.nchan`.
pub fn is_line(content_type: &str) -> bool {
    !content_type.is_empty() && !content_type.contains(|c: char| c.is_control())
}

/// What is published, to be shared by all channels that it goes to.
pub fn share(text: bool, payload: Bytes) -> Result<Broadcast, Error> {
    if !text {
        return Ok(Broadcast::binary(payload));
    }
    Utf8Bytes::try_from(payload).map(Broadcast::text).map_err(|_| Error::NotText)
}

impl Publication {
    /// A media type that would be more than a line is left out, whoever said it.
    pub fn new(channel: Arc<str>, id: Id, message: Arc<Broadcast>, content_type: Option<String>) -> Publication {
        let content_type = content_type.filter(|content_type| is_line(content_type));
        Publication {
            channel,
            id,
            content_type,
            message,
            encoded: Default::default(),
            hiding: Mutex::default(),
            since: Instant::now(),
        }
    }

    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    pub fn id(&self) -> &Id {
        &self.id
    }

    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    pub fn message(&self) -> &Arc<Broadcast> {
        &self.message
    }

    /// How long it has been here.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// As subscribers of this view get it; `None`: not at all.
    pub fn encoded(&self, view: View) -> EncodedPublication {
        let encode = || {
            let event = ClientEvent::Message { channel: view.name(&self.channel), publication: self };
            view.protocol().encode(&event, None)
        };
        if !view.hides() {
            return self.encoded[view.place()].get_or_init(encode).clone();
        }
        let mut hiding = self.hiding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, encoded)) = hiding.iter().find(|(known, _)| *known == view) {
            return encoded.clone();
        }
        let encoded = encode();
        hiding.push((view, encoded.clone()));
        encoded
    }
}

impl Payload for Arc<Publication> {
    fn size(&self) -> usize {
        self.message.payload().len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::protocol::{bare, nchan, v1};

    fn publication(text: bool, payload: &[u8], content_type: Option<&str>) -> Publication {
        let message = Arc::new(share(text, payload.to_vec().into()).unwrap());
        Publication::new("room/1".into(), "e:7".parse().unwrap(), message, content_type.map(str::to_owned))
    }

    fn encoded(publication: &Publication, protocol: &str) -> (bool, String) {
        let encoded = publication.encoded(View::new(Some(protocol), 0)).unwrap();
        (encoded.is_text(), String::from_utf8_lossy(encoded.payload()).into_owned())
    }

    #[test]
    fn each_protocol_encodes_it_once() {
        let text = publication(true, "caf\u{e9} \"x\"\n".as_bytes(), Some("text/plain"));
        assert_eq!(encoded(&text, bare::NAME), (true, "caf\u{e9} \"x\"\n".into()));
        let nchan = "id: e:7\ncontent-type: text/plain\n\ncaf\u{e9} \"x\"\n";
        assert_eq!(encoded(&text, nchan::NAME), (true, nchan.into()));
        let json =
            r#"{"type":"message","channel":"room/1","id":"e:7","content_type":"text/plain","data":"café \"x\"\n"}"#;
        assert_eq!(encoded(&text, v1::NAME), (true, json.into()));
        let binary = publication(false, &[0xff, 0], None);
        let nchan = binary.encoded(View::new(Some(nchan::NAME), 0)).unwrap();
        assert_eq!((nchan.is_text(), &nchan.payload()[..]), (false, &b"id: e:7\n\n\xff\0"[..]));
        let json = r#"{"type":"message","channel":"room/1","id":"e:7","base64":"/wA="}"#;
        assert_eq!(encoded(&binary, v1::NAME), (true, json.into()));
        let v1 = |hidden| binary.encoded(View::new(Some(v1::NAME), hidden)).unwrap();
        assert!(Arc::ptr_eq(&v1(0), &v1(0)));
        assert_eq!(v1(5).payload()[..], *br#"{"type":"message","channel":"1","id":"e:7","base64":"/wA="}"#);
        assert!(Arc::ptr_eq(&v1(5), &v1(5)) && !Arc::ptr_eq(&v1(5), &v1(0)));
    }

    #[test]
    fn a_media_type_is_no_other_line() {
        for content_type in ["text/plain\nx-other: 1", "text/plain\r", "a\u{85}b", "\n\nbody", "\0", ""] {
            let publication = publication(true, b"x", Some(content_type));
            assert_eq!(encoded(&publication, nchan::NAME).1, "id: e:7\n\nx", "{content_type:?}");
            assert!(!encoded(&publication, v1::NAME).1.contains("content_type"), "{content_type:?}");
        }
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(share(true, vec![0xff].into()).unwrap_err(), Error::NotText);
    }
}
