//! A message of a channel, in the forms in which subscribers get it. Each is made once, for the first who wants it.

use super::call::{Message, is_line};
use super::protocol::v1;
use crate::channels::{Id, Payload};
use crate::engine::Broadcast;
use bytes::Bytes;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a kept message takes beside its payload (bytes, about).
pub const OVERHEAD: usize = 128;

/// How a subscriber gets its messages: by its subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As they were published.
    Bare,
    /// `ws+meta.nchan`: after nchan's lines of metadata.
    Nchan,
    /// `channels.v1`: in JSON, see [`super::protocol::v1`].
    V1,
}

/// The subprotocols that the handler speaks, the preferred first.
pub const PROTOCOLS: [&str; 2] = ["channels.v1", "ws+meta.nchan"];

impl Dialect {
    /// That of a subprotocol; of none of ours: bare.
    pub fn of(protocol: Option<&str>) -> Dialect {
        match protocol {
            Some("channels.v1") => Dialect::V1,
            Some("ws+meta.nchan") => Dialect::Nchan,
            _ => Dialect::Bare,
        }
    }
}

/// How a subscriber sees its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    dialect: Dialect,
    /// Bytes that names of channels begin with, and that are not shown. Where none are, 0.
    hidden: u16,
}

impl View {
    /// In this dialect; of names, so many bytes at the beginning are hidden.
    pub fn new(dialect: Dialect, hidden: usize) -> View {
        // The other dialects show no names. A name is no longer than that.
        let hidden = if dialect == Dialect::V1 { hidden } else { 0 };
        View { dialect, hidden: u16::try_from(hidden).unwrap_or(u16::MAX) }
    }

    /// The name of a channel, as it is shown.
    pub fn name<'a>(&self, channel: &'a str) -> &'a str {
        channel.get(usize::from(self.hidden)..).unwrap_or(channel)
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
    /// Those of v1 in which a part of the name is hidden.
    hiding: Mutex<Vec<(u16, Arc<Broadcast>)>>,
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
        Post {
            channel,
            id,
            content_type,
            bare: message,
            nchan: OnceLock::new(),
            v1: OnceLock::new(),
            hiding: Mutex::default(),
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// The id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// As subscribers of this view get it.
    pub fn form(&self, view: View) -> Arc<Broadcast> {
        match view.dialect {
            Dialect::Bare => self.bare.clone(),
            Dialect::Nchan => self.nchan.get_or_init(|| Arc::new(self.with_metadata())).clone(),
            Dialect::V1 if view.hidden == 0 => self.v1.get_or_init(|| self.in_v1(view)).clone(),
            Dialect::V1 => {
                let mut hiding = self.hiding.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, form)) = hiding.iter().find(|(hidden, _)| *hidden == view.hidden) {
                    return form.clone();
                }
                let form = self.in_v1(view);
                hiding.push((view.hidden, form.clone()));
                form
            }
        }
    }

    fn in_v1(&self, view: View) -> Arc<Broadcast> {
        let (content_type, bare) = (self.content_type.as_deref(), &self.bare);
        Arc::new(v1::message(view.name(&self.channel), &self.id, content_type, bare.is_text(), bare.payload()))
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
        let form = post.form(View::new(dialect, 0));
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
        assert_eq!(binary.form(View::new(Dialect::Nchan, 0)).payload()[..], *b"id: e:7\n\n\xff\0");
        assert!(!binary.form(View::new(Dialect::Nchan, 0)).is_text());
        let json = r#"{"type":"message","channel":"room/1","id":"e:7","base64":"/wA="}"#;
        assert_eq!(form(&binary, Dialect::V1), (true, json.into()));
        let v1 = |hidden| binary.form(View::new(Dialect::V1, hidden));
        assert!(Arc::ptr_eq(&v1(0), &v1(0)));
        assert_eq!(v1(5).payload()[..], *br#"{"type":"message","channel":"1","id":"e:7","base64":"/wA="}"#);
        assert!(Arc::ptr_eq(&v1(5), &v1(5)) && !Arc::ptr_eq(&v1(5), &v1(0)));
        assert_eq!(View::new(Dialect::Bare, 5), View::new(Dialect::Bare, 0));
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
