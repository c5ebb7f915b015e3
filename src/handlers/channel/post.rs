//! A message of a channel, in the forms in which subscribers get it. Each is made once, for the first who wants it.

use super::call::{Message, is_line};
use super::v1;
use crate::bus::{Id, Payload};
use crate::engine::Broadcast;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// What a kept message takes beside its payload (bytes, about).
pub const OVERHEAD: usize = 128;

/// How a subscriber gets its messages: by its subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As they were published.
    Bare,
    /// `ws+meta.nchan`: after nchan's lines of metadata.
    Nchan,
    /// `channels.v1`: in JSON, see [`super::v1`].
    V1,
}

/// The subprotocols that the handler speaks, the preferred first.
pub const PROTOCOLS: [&str; 2] = ["channels.v1", "ws+meta.nchan"];

impl Dialect {
    /// How many there are.
    pub const ALL: usize = 3;

    /// That of a subprotocol; of none of ours: bare.
    pub fn of(protocol: Option<&str>) -> Dialect {
        match protocol {
            Some("channels.v1") => Dialect::V1,
            Some("ws+meta.nchan") => Dialect::Nchan,
            _ => Dialect::Bare,
        }
    }
}

/// A message that was published.
#[derive(Debug)]
pub struct Post {
    channel: Arc<str>,
    id: Id,
    content_type: Option<String>,
    bare: Arc<Broadcast>,
    nchan: OnceLock<Arc<Broadcast>>,
    v1: OnceLock<Arc<Broadcast>>,
}

/// A text that is none: its bytes are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not UTF-8, and cannot be text")]
pub struct NoText;

/// What is published, as it is shared by all channels that it goes to.
pub fn share(message: Message) -> Result<(Arc<Broadcast>, Option<String>), NoText> {
    let Message { text, content_type, payload } = message;
    let shared = if text {
        Broadcast::text(String::from_utf8(payload).map_err(|_| NoText)?)
    } else {
        Broadcast::binary(payload.into())
    };
    Ok((Arc::new(shared), content_type))
}

impl Post {
    /// In that channel, under that id. A media type that would be more than a line is left out, whoever said it.
    pub fn new(channel: Arc<str>, id: Id, message: Arc<Broadcast>, content_type: Option<String>) -> Post {
        let content_type = content_type.filter(|content_type| is_line(content_type));
        Post { channel, id, content_type, bare: message, nchan: OnceLock::new(), v1: OnceLock::new() }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// The id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// As subscribers of this dialect get it.
    pub fn form(&self, dialect: Dialect) -> &Arc<Broadcast> {
        match dialect {
            Dialect::Bare => &self.bare,
            Dialect::Nchan => self.nchan.get_or_init(|| Arc::new(self.with_metadata())),
            Dialect::V1 => self.v1.get_or_init(|| {
                let content_type = self.content_type.as_deref();
                Arc::new(v1::message(&self.channel, &self.id, content_type, self.bare.is_text(), self.bare.payload()))
            }),
        }
    }

    /// nchan's form: <https://nchan.io/#subscriber-websocket>.
    fn with_metadata(&self) -> Broadcast {
        let mut whole = format!("id: {}\n", self.id).into_bytes();
        if let Some(content_type) = &self.content_type {
            whole.extend_from_slice(format!("content-type: {content_type}\n").as_bytes());
        }
        whole.push(b'\n');
        whole.extend_from_slice(self.bare.payload());
        if self.bare.is_text() {
            // Both parts are UTF-8.
            Broadcast::text(String::from_utf8(whole).unwrap_or_default())
        } else {
            Broadcast::binary(Bytes::from(whole))
        }
    }
}

impl Payload for Arc<Post> {
    fn size(&self) -> usize {
        self.bare.payload().len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(text: bool, payload: &[u8], content_type: Option<&str>) -> Post {
        let message = Message { text, content_type: content_type.map(str::to_owned), payload: payload.to_vec() };
        let (shared, content_type) = share(message).unwrap();
        Post::new("room/1".into(), "e:7".parse().unwrap(), shared, content_type)
    }

    fn form(post: &Post, dialect: Dialect) -> (bool, String) {
        let form = post.form(dialect);
        (form.is_text(), String::from_utf8_lossy(form.payload()).into_owned())
    }

    #[test]
    fn each_dialect_has_its_form() {
        let text = post(true, "caf\u{e9} \"x\"\n".as_bytes(), Some("text/plain"));
        assert_eq!(form(&text, Dialect::Bare), (true, "caf\u{e9} \"x\"\n".into()));
        let nchan = "id: e:7\ncontent-type: text/plain\n\ncaf\u{e9} \"x\"\n";
        assert_eq!(form(&text, Dialect::Nchan), (true, nchan.into()));
        let json =
            r#"{"type":"message","channel":"room/1","id":"e:7","content_type":"text/plain","data":"café \"x\"\n"}"#;
        assert_eq!(form(&text, Dialect::V1), (true, json.into()));
        let binary = post(false, &[0xff, 0], None);
        assert_eq!(binary.form(Dialect::Nchan).payload()[..], *b"id: e:7\n\n\xff\0");
        assert!(!binary.form(Dialect::Nchan).is_text());
        let json = r#"{"type":"message","channel":"room/1","id":"e:7","base64":"/wA="}"#;
        assert_eq!(form(&binary, Dialect::V1), (true, json.into()));
        assert!(Arc::ptr_eq(binary.form(Dialect::V1), binary.form(Dialect::V1)));
    }

    #[test]
    fn a_media_type_is_no_other_line() {
        for content_type in ["text/plain\nx-other: 1", "text/plain\r", "a\u{85}b", "\n\nbody", "\0", ""] {
            let post = post(true, b"x", Some(content_type));
            assert_eq!(form(&post, Dialect::Nchan).1, "id: e:7\n\nx", "{content_type:?}");
            assert!(!form(&post, Dialect::V1).1.contains("content_type"), "{content_type:?}");
        }
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(share(Message { text: true, content_type: None, payload: vec![0xff] }).unwrap_err(), NoText);
    }

    #[test]
    fn subprotocols_name_dialects() {
        assert_eq!(PROTOCOLS.map(|name| Dialect::of(Some(name))), [Dialect::V1, Dialect::Nchan]);
        assert_eq!([Dialect::of(None), Dialect::of(Some("chat"))], [Dialect::Bare; 2]);
    }
}
