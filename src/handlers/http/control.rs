//! GRIP's control messages: what an application says to us in a text that begins with `c:`.

use super::effect::{ClientKeepAlive, ClientKeepAliveContent, Effect};
use crate::wire::Message;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use std::time::Duration;

/// The silence after which a client is sent something, in seconds, where nothing is said.
const KEEP_ALIVE: u64 = 55;
/// After so many seconds something that is delayed is sent, likewise.
const DELAY: u64 = 1;
/// The longest of both: a day.
const LONGEST: u64 = 86_400;

/// All members that any of them has.
#[derive(Debug, Deserialize)]
struct ControlMessage {
    r#type: String,
    channel: Option<String>,
    #[serde(default)]
    filters: Vec<String>,
    content: Option<String>,
    #[serde(rename = "content-bin")]
    content_bin: Option<String>,
    timeout: Option<u64>,
    #[serde(rename = "message-type")]
    message_type: Option<String>,
    mode: Option<String>,
}

/// What one asks for; `None`: nothing that can be seen here.
///
/// # Errors
/// It is none that is known, or not as it should be.
pub fn read(json: &[u8]) -> Result<Option<Effect>, String> {
    let message: ControlMessage = serde_json::from_slice(json).map_err(|why| why.to_string())?;
    Ok(Some(match message.r#type.as_str() {
        "subscribe" => Effect::Subscribe(message.channel()?),
        "unsubscribe" => Effect::Unsubscribe(message.channel()?),
        "detach" => Effect::Detach,
        "keep-alive" => Effect::KeepAlive(message.keep_alive()?),
        "send-delayed" => {
            let (kind, content) = (message.kind()?, message.content()?.unwrap_or_default());
            let after = Duration::from_secs(message.timeout.unwrap_or(DELAY).min(LONGEST));
            match content_of(kind, content)? {
                ClientKeepAliveContent::Message(message) => Effect::SendDelayed(message, after),
                _ => return Err("send-delayed is for text and binary".into()),
            }
        }
        "flush-delayed" => Effect::FlushDelayed,
        // They are for filters, and there are none.
        "set-meta" => return Ok(None),
        other => return Err(format!("type {other:?} is not known")),
    }))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
}

impl ControlMessage {
    fn channel(self) -> Result<String, String> {
        if let Some(filter) = self.filters.first() {
            // The client would get more than it should.
            return Err(format!("the filter {filter:?} is not known"));
        }
        self.channel.ok_or_else(|| format!("{} without a channel", self.r#type))
    }

    fn kind(&self) -> Result<Kind, String> {
        Ok(match self.message_type.as_deref() {
            None | Some("text") => Kind::Text,
            Some("binary") => Kind::Binary,
            Some("ping") => Kind::Ping,
            Some("pong") => Kind::Pong,
            Some(other) => return Err(format!("message-type {other:?} is not known")),
        })
    }

    fn content(&self) -> Result<Option<Bytes>, String> {
        match (&self.content_bin, &self.content) {
            (Some(encoded), _) => {
                let bytes = STANDARD.decode(encoded).map_err(|why| format!("content-bin: {why}"))?;
                Ok(Some(bytes.into()))
            }
            (None, content) => Ok(content.clone().map(Bytes::from)),
        }
    }

    fn keep_alive(&self) -> Result<Option<ClientKeepAlive>, String> {
        let Some(content) = self.content()? else { return Ok(None) };
        let always = match self.mode.as_deref() {
            None | Some("idle") => false,
            Some("interval") => true,
            Some(other) => return Err(format!("mode {other:?} is not known")),
        };
        let after = match self.timeout {
            None => KEEP_ALIVE,
            Some(0) => return Err("a timeout of 0".into()),
            Some(seconds) => seconds,
        };
        let what = content_of(self.kind()?, content)?;
        Ok(Some(ClientKeepAlive { what, after: Duration::from_secs(after.min(LONGEST)), always }))
    }
}

fn content_of(kind: Kind, content: Bytes) -> Result<ClientKeepAliveContent, String> {
    Ok(match kind {
        Kind::Text => {
            let text = content.try_into().map_err(|_| "the content of a text is not UTF-8")?;
            ClientKeepAliveContent::Message(Message::Text(text))
        }
        Kind::Binary => ClientKeepAliveContent::Message(Message::Binary(content)),
        Kind::Ping => ClientKeepAliveContent::Ping(content),
        Kind::Pong => ClientKeepAliveContent::Pong(content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages() {
        let second = Duration::from_secs;
        let idle = |what, after, always| Effect::KeepAlive(Some(ClientKeepAlive { what, after, always }));
        let text = || ClientKeepAliveContent::Message(Message::text("{}"));
        for (json, expected) in [
            (r#"{"type":"subscribe","channel":"room"}"#, Effect::Subscribe("room".into())),
            (r#"{"type":"subscribe","channel":"room","filters":[]}"#, Effect::Subscribe("room".into())),
            (r#"{"type":"unsubscribe","channel":"room"}"#, Effect::Unsubscribe("room".into())),
            (r#"{"type":"detach"}"#, Effect::Detach),
            (r#"{"type":"keep-alive","content":"{}"}"#, idle(text(), second(55), false)),
            (r#"{"type":"keep-alive","content":"{}","timeout":30,"mode":"interval"}"#, idle(text(), second(30), true)),
            (
                r#"{"type":"keep-alive","content-bin":"AP8=","message-type":"ping"}"#,
                idle(ClientKeepAliveContent::Ping(Bytes::from_static(b"\x00\xff")), second(55), false),
            ),
            (r#"{"type":"keep-alive"}"#, Effect::KeepAlive(None)),
            (
                r#"{"type":"send-delayed","content":"x","message-type":"binary","timeout":5}"#,
                Effect::SendDelayed(Message::binary(&b"x"[..]), second(5)),
            ),
            (r#"{"type":"flush-delayed","later":1}"#, Effect::FlushDelayed),
        ] {
            assert_eq!(read(json.as_bytes()), Ok(Some(expected)), "{json}");
        }
        assert_eq!(read(br#"{"type":"set-meta","name":"user","value":"1"}"#), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_not_done() {
        for json in [
            "",
            "{}",
            "[]",
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channel":"a","filters":["skip-self"]}"#,
            r#"{"type":"subscribe","channel":1}"#,
            r#"{"type":"keep-alive","content":"","timeout":0}"#,
            r#"{"type":"keep-alive","content":"","timeout":-1}"#,
            r#"{"type":"keep-alive","content":"","mode":"often"}"#,
            r#"{"type":"keep-alive","content-bin":"!"}"#,
            r#"{"type":"send-delayed","content":"","message-type":"ping"}"#,
            r#"{"type":"session","id":"a"}"#,
        ] {
            assert!(read(json.as_bytes()).is_err(), "{json}");
        }
    }
}
